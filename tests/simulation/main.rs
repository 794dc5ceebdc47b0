//! Seeded simulations of the pure rooms. A failure names its seed; `FOREBAY_SIMULATION_SEED=<seed>` replays that one, and
//! `FOREBAY_SIMULATION_SEEDS=<count>` runs more of them.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and these print their figures")]

mod placement;

/// The seeds to run: the one that the environment names, else `count`, or as many as the environment wants.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|raw| raw.parse::<u64>().expect("a number"));
    match number("FOREBAY_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOREBAY_SIMULATION_SEEDS").unwrap_or(count),
    }
}
