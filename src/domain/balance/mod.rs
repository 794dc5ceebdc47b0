//! Chooses the node of a leg. Pure: a snapshot, a request and a seed go in, a placement with its reasons comes out.

mod book;
mod node;
mod placement;

pub use book::{BalanceSettings, Book, PublishPolicy, Report};
pub use node::{Legs, LoadView, NodeSpec, NodeState, NodeView, ProbeOutcome, Snapshot};
pub use placement::{Candidate, PlaceError, Placement, Request, Verdict, Want};
