//! Everything Forebay decides, and nothing it does: no async, sockets, clocks, randomness or globals.
//!
//! Time comes in as a parameter, trouble goes out as a value, and the same inputs always give the same
//! outputs. That is what makes the session and the placement replayable by seed (`tests/simulation.rs`).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod balance;
pub mod cache_policy;
pub mod drain;
pub mod http;
pub mod ids;
pub mod limits;
pub mod record;
pub mod redact;
pub mod reject;
pub mod relay;
pub mod routing;
pub mod sdp;
pub mod session;
pub mod signaling;
pub mod sniff;
pub mod whip;
