//! Seeded simulations of the pure rooms. A failure names its seed; `FOREBAY_SEED` replays it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and these print their figures")]

mod drain;
mod placement;
mod relay;
mod relay_stun;
mod session;
