//! Replays the committed fuzz corpora, and broken copies of them, through the same checks on a stable toolchain.
//!
//! A crash that fuzzing finds is committed to its corpus, and from then on every test run holds it.

#[path = "../fuzz/properties.rs"]
mod properties;

use std::{fs, path::Path};

type Property = fn(&[u8]);

const TARGETS: &[(&str, Property)] = &[
    ("client_message", properties::client_message),
    ("node_message", properties::node_message),
    ("sdp", properties::sdp),
];

#[test]
fn every_corpus_holds() {
    for (target, property) in TARGETS {
        for (name, bytes) in corpus(target) {
            replay(target, &name, *property, &bytes);
        }
    }
}

/// Truncated and bit-flipped messages are where hand-written readers go wrong.
#[test]
fn every_corpus_holds_with_each_byte_cut_or_flipped() {
    for (target, property) in TARGETS {
        for (name, bytes) in corpus(target) {
            for at in 0..bytes.len() {
                replay(target, &name, *property, &bytes[..at]);
                for bit in 0..8 {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1 << bit;
                    replay(target, &name, *property, &flipped);
                }
            }
        }
    }
}

#[test]
fn every_corpus_has_a_target_and_every_target_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |directory: &str| {
        let entries = fs::read_dir(fuzz.join(directory)).expect("fuzz/ has corpora and targets");
        let mut names: Vec<String> = entries.map(|entry| stem(&entry.expect("an entry").path())).collect();
        names.sort();
        names
    };
    let expected: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), expected);
    assert_eq!(names("fuzz_targets"), expected);
}

#[track_caller]
fn replay(target: &str, name: &str, property: Property, bytes: &[u8]) {
    let outcome = std::panic::catch_unwind(|| property(bytes));
    assert!(outcome.is_ok(), "{target}/{name}: {:?}", String::from_utf8_lossy(bytes));
}

/// The inputs of one target, by file name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&directory).expect("a target has a corpus");
    let mut inputs: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (stem(&path), fs::read(&path).expect("an input can be read")))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has no inputs");
    inputs
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file has a name").to_string_lossy().into_owned()
}
