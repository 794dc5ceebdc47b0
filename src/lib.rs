//! Forebay: the front door of an Ant Media Server cluster.
//!
//! ```text
//! client ─TCP─► front ──ws──► sessions ───────────► upstream ──ws──► node (origin | edge)
//!               accept,       one task per client,   dial, WS
//!               http          runs domain::session
//!                 │              │ where to?  ▲ Placement
//!                 │           registry ─► domain::routing ─► domain::balance
//!                 │           moka over MongoDB, or memory; publishes one snapshot of the nodes
//! SLB, operator ─HTTP─► health, admin        config ─► app wires every room ─► telemetry
//! ```
//!
//! Everything that is decided is decided in [`domain`], which does nothing; everything that is done is done in the
//! other rooms, which decide nothing. `tests/architecture.rs` holds who may use whom.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod domain;
pub mod front;
pub mod health;
pub mod media;
pub mod net;
pub mod registry;
pub mod sessions;
pub mod shutdown;
pub mod telemetry;
pub mod upstream;
