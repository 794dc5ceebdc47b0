//! Drains as other rooms see and change them.

use std::time::Instant;

use super::Registry;
use crate::domain::{
    balance::Legs,
    drain::{BadWish, DrainOrder, DrainWish},
    ids::{Kind, NodeId},
};

/// One node's drain, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrainView {
    /// The node; it may have left the cluster since.
    pub node: NodeId,
    /// What was asked for, with since-when, deadline and when it was drained.
    pub order: DrainOrder,
    /// Grows with every change of the node's order by anyone.
    pub revision: i64,
    /// Legs left there, of all live doors.
    pub legs: Legs,
    /// Streams that AMS's records say are live there, whoever carries them; `None`: nobody could say, or the node is an
    /// edge.
    pub streams: Option<u32>,
    /// Legs that were moved away, by all doors, since the drain began.
    pub moved: u64,
    /// Moves that were not confirmed: their clients were asked to come again.
    pub failed: u64,
    /// Where the order is kept.
    pub kept: Kept,
}

impl DrainView {
    /// Whether the node is drained: empty once, and kept so until the order is withdrawn.
    pub fn is_complete(&self) -> bool {
        self.order.drained_ms.is_some()
    }
}

/// How well an order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the cluster's store: every door sees it.
    Cluster,
    /// In this door's `state_dir`, until MongoDB is back: survives a restart of this door.
    Door,
    /// In this door's memory only: no MongoDB, and no `state_dir`.
    Memory,
}

/// Why a drain was not started, changed or withdrawn. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// No node has that id or address.
    #[error("no node has that id or address")]
    UnknownNode,
    /// Several nodes have that address.
    #[error("several nodes have that address: add the port, or use an id")]
    AmbiguousNode,
    /// The wish makes no sense.
    #[error(transparent)]
    BadWish(#[from] BadWish),
    /// No other node would take legs of this kind; `force` drains it nevertheless.
    #[error("it is the last node that serves {}: say `force` to drain it nevertheless", .0.as_str())]
    LastServing(Kind),
    /// There is no drain to withdraw.
    #[error("the node is not being drained")]
    NotDraining,
    /// More nodes are drained than are kept track of.
    #[error("too many nodes are being drained")]
    TooMany,
    /// Others changed the same node's order again and again; nothing of this change was kept.
    #[error("others are changing this drain at the same time: look at it, then try again")]
    Contended,
}

impl Registry {
    /// Starts a drain, or changes one. `node` is an id or an address (`IP` or `IP:PORT`). The same wish twice changes
    /// nothing the second time. Takes at most about a second, whether MongoDB answers or not.
    ///
    /// # Errors
    /// See [`DrainError`]; nothing has changed then.
    pub async fn drain(&self, node: &str, wish: &DrainWish) -> Result<DrainView, DrainError> {
        let _ = (node, wish);
        Err(DrainError::UnknownNode)
    }

    /// Withdraws a drain, finished or not: the node joins again. `node` may also be the id of one that has left.
    ///
    /// # Errors
    /// See [`DrainError`]; nothing has changed then.
    pub async fn undrain(&self, node: &str) -> Result<(), DrainError> {
        let _ = node;
        Err(DrainError::NotDraining)
    }

    /// The drain of a node, if it drains or is drained.
    pub fn drain_of(&self, node: &NodeId) -> Option<DrainView> {
        let _ = node;
        None
    }

    /// All drains, by node id; also those of nodes that have left.
    pub fn drains(&self) -> Vec<DrainView> {
        Vec::new()
    }

    /// Waits until the node is drained, at most until `until`; says how it stands then. `None`: it drains no more.
    pub async fn wait_drained(&self, node: &NodeId, until: Instant) -> Option<DrainView> {
        let _ = until;
        self.drain_of(node)
    }

    /// The doors of the cluster that live, this one first.
    pub fn doors(&self) -> Vec<DoorView> {
        Vec::new()
    }
}

/// One door of the cluster, as its last heartbeat says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorView {
    /// `door.name` plus a nonce of its start.
    pub id: String,
    /// `door.name`
    pub name: String,
    /// Where clients reach it, if it says.
    pub public_url: Option<String>,
    /// It takes no new sessions.
    pub draining: bool,
    /// Its table of nodes is the same as this door's; where it is not, they place differently.
    pub agrees: bool,
    /// This door itself.
    pub is_self: bool,
    /// Legs on all nodes.
    pub legs: Legs,
    /// How long ago it was heard of, ms; 0 for this door.
    pub age_ms: i64,
}
