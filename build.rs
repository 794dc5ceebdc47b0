//! Tells the build which commit it is made from, for `--version` and `forebay_build_info`.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=FOREBAY_COMMIT={}", git(&["rev-parse", "--short", "HEAD"]).unwrap_or("unknown".into()));
    // A new commit moves one of these; a path that does not exist would run this script at every build.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for file in [Some("HEAD".to_owned()), branch].into_iter().flatten() {
        if let Some(path) = git(&["rev-parse", "--git-path", &file]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
