//! One relay thread between clients that roam and restart, nodes that behave like real ones, a network that loses,
//! doubles and reorders, and an attacker who hears all that clients send and can fake any address. Timers run at a
//! fraction of their length.
//!
//! Replay one life with `FOREBAY_SEED=n cargo test --test simulation relay`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and this one prints its figures")]

mod agents;
mod attack;
pub(crate) mod stun;
mod world;

use std::{collections::BTreeMap, thread};

use world::{Outcome, World};

const SEEDS: u64 = 10_000;

#[test]
fn nothing_is_ever_sent_to_an_address_that_is_neither_an_authenticated_client_nor_its_node() {
    let seeds =
        std::env::var("FOREBAY_SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..SEEDS, |seed| seed..seed + 1);
    let lanes = thread::available_parallelism().map_or(1, |lanes| lanes.get() as u64);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let lane = |lane| seeds.clone().filter(move |seed| seed % lanes == lane).map(World::live);
        let lanes: Vec<_> = (0..lanes).map(|n| scope.spawn(move || lane(n).collect::<Vec<_>>())).collect();
        lanes.into_iter().flat_map(|lane| lane.join().expect("the lane named its seed")).collect()
    });

    let mut seen = BTreeMap::<String, u64>::new();
    for outcome in &outcomes {
        for ((kind, name), times) in &outcome.seen {
            *seen.entry(format!("{kind} {name}").trim_end().to_owned()).or_default() += times;
        }
    }
    println!("relay simulation: seeds {seeds:?}, {seen:#?}");
    if outcomes.len() > 1 {
        for expected in EXPECTED {
            assert!(seen.contains_key(*expected), "the simulation never reached {expected}: it proves little");
        }
        assert!(seen["sessions that reached the calm"] > outcomes.len() as u64 / 2, "too few lives ended calmly");
        let lost = seen.get("sessions that stubborn nodes lost").copied().unwrap_or(0);
        assert!(
            lost * 100 < seen["sessions of stubborn nodes"],
            "{lost} sessions of nodes that never leave a path ended"
        );
    }
}

/// What a simulation that tests something reaches.
const EXPECTED: &[&str] = &[
    "drop bad_class",
    "drop unknown_tuple",
    "drop tombstone",
    "drop bad_stun",
    "drop bad_fingerprint",
    "drop stun_class",
    "drop unknown_ufrag",
    "drop bad_integrity",
    "drop no_backend",
    "drop dtls_before_validation",
    "drop media_before_validation",
    "drop unknown_node",
    "drop replayed",
    "flow closed",
    "flow consent",
    "flow replaced",
    "flow moved",
    "flow claim_mismatch",
    "transport closed",
    "transport superseded",
    "resumed",
    "rebinds",
    "restarts",
    "moves",
    "translations",
    "nominations",
    "media to clients",
    "media to nodes",
    "replays",
];
