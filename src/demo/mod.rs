//! The small cluster of `forebay demo` and of the tests: nodes that speak AMS signalling over real WebRTC.
//!
//! A node here is all of AMS that most tests will ever meet, so it is unkind by default, as AMS may be; each unkindness is
//! a field of [`Traits`]. It shares no protocol code with the door: a misunderstanding must not sit on both sides.
//!
//! ```text
//! publisher ─ws─► session ─► publish ─► ingest ─┐                    ┌─► egress ─► play ─► session ─ws─► viewer
//!                                               ├─► source (fan-out) ┤
//! another node ◄─ws─ pull ────────────► ingest ─┘                    └─► egress ─► (a pull of another node)
//!                                  records ─► the cluster's database
//! ```
//!
//! One process holds many nodes ([`Cluster`]) or is one ([`run_node`]).

mod cluster;
mod egress;
mod files;
mod http;
mod ingest;
mod node;
mod options;
pub mod page;
mod peer;
mod play;
mod publish;
mod pull;
mod reads;
mod records;
mod room;
mod sdp;
mod session;
mod source;
mod words;

pub use cluster::{Cluster, DemoNode, run_node};
pub use options::{ClusterOptions, DemoError, NodeOptions, NodeStats, Traits};
