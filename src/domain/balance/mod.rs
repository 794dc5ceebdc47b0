//! Chooses the node of a leg. Pure: a snapshot, a request and a seed go in, a placement with its reasons comes out.
//!
//! ```text
//! reports ─► load ─┐                                  ┌─► publish: least loaded, two choices, round robin, hash
//! probes ──► liveness ─► Book ─► Snapshot ─► decide ──┤
//! links ───► breaker ┘    ▲                           └─► play: rendezvous hash with bounded load
//!                         └────────── reserves ───────────── Placement
//! ```
//!
//! The [`Book`] is the one owner; it stands behind a short lock. A placement reads one snapshot, takes one or two linear
//! passes over arrays of integers, and reserves in place, so that the next one sees it.

mod book;
mod breaker;
mod capacity;
mod contest;
mod decide;
mod hash;
mod liveness;
mod load;
mod node;
mod placement;
mod play;
mod publish;
mod rank;
mod settings;
mod slow_start;
mod snapshot;

#[cfg(test)]
mod tests;

pub use book::Book;
pub use capacity::{Capacity, Removal, Room, minutes_to_full};
pub use liveness::Drain;
pub use load::Report;
pub use node::{Legs, LoadView, NodeError, NodeSpec, NodeState, NodeView, ProbeOutcome};
pub use placement::{Candidate, PlaceError, Placement, Request, Verdict, Want};
pub use settings::{BalanceSettings, PublishPolicy};
pub use snapshot::Snapshot;
