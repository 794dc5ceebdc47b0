//! Seeded simulations of the pure rooms. A failure names its seed; `FOREBAY_SEED` replays it.

mod placement;
mod relay;
mod relay_stun;
mod session;
