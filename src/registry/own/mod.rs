//! What doors keep for themselves: operators' wishes, heartbeats, pins. With MongoDB, the database `forebay`; in the demo,
//! this process; a door whose store is away goes on with what it knows and keeps its drains in `state_dir`.
//!
//! ```text
//! forebay.nodes   drains and their progress, one document per node; changed by compare-and-set on `revision`
//! forebay.doors   one heartbeat per door and second: legs per node, hash of the node table; TTL
//! forebay.pins    stream → origin while it is being placed; one writer wins; TTL
//! ```

mod drains;
mod peers;
mod state_file;
mod steward;

use std::time::Duration;

pub(super) use drains::Drains;
pub(super) use peers::{Peers, sum};
pub(super) use state_file::StateFile;
pub(super) use steward::{Steward, now_ms, table};

use super::{source::Source, store::StoreError};
use crate::domain::{
    balance::Legs,
    drain::DrainOrder,
    ids::{AppName, NodeId, StreamKey},
};

/// Nodes that may have an order at a time; design.md's clusters have a thousand nodes.
pub(super) const MAX_ORDERS: usize = 4096;
/// Doors that are heard; one cluster has a handful.
pub(super) const MAX_DOORS: usize = 1024;
/// A heartbeat's document lives so long without another one.
pub(super) const DOOR_TTL: Duration = Duration::from_secs(60);

/// What is kept of one node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct NodeDoc {
    pub(super) node: NodeId,
    /// Grows by one with every change of the order; 0: there is no document yet.
    pub(super) revision: i64,
    /// When the order was changed, ms since the epoch: of two changes made apart, the later one counts.
    pub(super) changed_ms: i64,
    /// `None`: it was withdrawn.
    pub(super) order: Option<DrainOrder>,
    /// Legs that were moved away since the order began.
    pub(super) moved: u64,
    /// Moves that failed.
    pub(super) failed: u64,
}

/// One door's heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DoorDoc {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) public_url: Option<String>,
    pub(super) draining: bool,
    /// [`crate::domain::balance::Snapshot::table_hash`], in hexadecimal digits.
    pub(super) table: String,
    /// Grows with every heartbeat: a door whose number stands still is gone.
    pub(super) beat: i64,
    /// Legs that this door has placed, by node.
    pub(super) legs: Vec<(NodeId, Legs)>,
    /// The drains that it obeys, each with its beginning: it places no leg there any more. `None`: it does not say.
    pub(super) drains: Option<Vec<(NodeId, i64)>>,
}

/// A claim to place a stream (or a room) on an origin.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) key: StreamKey,
    pub(super) node: NodeId,
    /// Nodes that take no legs, or have failed this leg: another's pin to one of them does not count.
    pub(super) unfit: Vec<NodeId>,
    pub(super) now_ms: i64,
    pub(super) until_ms: i64,
}

/// Doors' own data, whichever store is behind it. Every call ends within a second.
impl Source {
    /// Makes what the collections need. A refused TTL index is reported, not fatal.
    pub(super) async fn prepare_own(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Mongo(db) => db.prepare_own().await,
        }
    }

    /// All documents of `nodes`, at most [`MAX_ORDERS`].
    pub(super) async fn node_docs(&self) -> Result<Vec<NodeDoc>, StoreError> {
        match self {
            Self::Memory(db) => Ok(db.own().node_docs()),
            Self::Mongo(db) => db.node_docs().await,
        }
    }

    /// Writes an order if the document still has `expected` as its revision; says whether it had. A new order (another
    /// `since_ms`) starts counting anew.
    pub(super) async fn put_order(&self, doc: &NodeDoc, expected: i64) -> Result<bool, StoreError> {
        match self {
            Self::Memory(db) => Ok(db.own().put_order(doc, expected)),
            Self::Mongo(db) => db.put_order(doc, expected).await,
        }
    }

    /// Adds to what was counted of the drain that began at `since_ms`.
    pub(super) async fn add_counts(
        &self,
        node: &NodeId,
        since_ms: i64,
        moved: u64,
        failed: u64,
    ) -> Result<(), StoreError> {
        match self {
            Self::Memory(db) => {
                db.own().add_counts(node, since_ms, moved, failed);
                Ok(())
            }
            Self::Mongo(db) => db.add_counts(node, since_ms, moved, failed).await,
        }
    }

    /// Writes this door's heartbeat.
    pub(super) async fn beat(&self, door: &DoorDoc) -> Result<(), StoreError> {
        match self {
            Self::Memory(db) => {
                db.own().beat(door);
                Ok(())
            }
            Self::Mongo(db) => db.beat(door).await,
        }
    }

    /// All heartbeats, at most [`MAX_DOORS`].
    pub(super) async fn door_docs(&self) -> Result<Vec<DoorDoc>, StoreError> {
        match self {
            Self::Memory(db) => Ok(db.own().door_docs()),
            Self::Mongo(db) => db.door_docs().await,
        }
    }

    /// Removes a door's heartbeat.
    pub(super) async fn leave(&self, door: &str) -> Result<(), StoreError> {
        match self {
            Self::Memory(db) => {
                db.own().leave(door);
                Ok(())
            }
            Self::Mongo(db) => db.leave(door).await,
        }
    }

    /// Claims a stream for a node; gives the node that has it now: the claimed one, or that of a door that was faster.
    pub(super) async fn claim(&self, claim: Claim) -> Result<NodeId, StoreError> {
        match self {
            Self::Memory(db) => Ok(db.own().claim(&claim)),
            Self::Mongo(db) => db.claim(claim).await,
        }
    }

    /// Keeps pins that this door uses until then; those that another door has changed are left alone.
    pub(super) async fn keep_pins(&self, pins: Vec<(StreamKey, NodeId)>, until_ms: i64) -> Result<(), StoreError> {
        match self {
            Self::Memory(db) => {
                db.own().keep_pins(&pins, until_ms);
                Ok(())
            }
            Self::Mongo(db) => db.keep_pins(pins, until_ms).await,
        }
    }

    /// How many records of these apps are live by AMS's rule, written since `since_ms`, and name one of `names`.
    pub(super) async fn live_streams(
        &self,
        apps: &[AppName],
        names: &[String],
        since_ms: i64,
    ) -> Result<u32, StoreError> {
        match self {
            Self::Memory(db) => Ok(db.live_streams(apps, names, since_ms)),
            Self::Mongo(db) => db.live_streams(apps, names, since_ms).await,
        }
    }
}
