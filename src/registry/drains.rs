//! Drains as other rooms see and change them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    Registry,
    facade::Inner,
    own::{NodeDoc, now_ms, sum, table},
};
use crate::{
    clock,
    domain::{
        balance::{Legs, Snapshot},
        drain::{BadWish, DrainOrder, DrainWish, Work},
        ids::{Kind, NodeId},
    },
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

/// An operator's change is tried so often against others' changes of the same order.
const TURNS: usize = 5;

impl Registry {
    /// Starts a drain, or changes one. `node` is an id or an address (`IP` or `IP:PORT`). The same wish twice changes
    /// nothing the second time. Takes at most a few seconds, whether MongoDB answers or not.
    ///
    /// # Errors
    /// See [`DrainError`]; nothing has changed then.
    pub async fn drain(&self, node: &str, wish: &DrainWish) -> Result<DrainView, DrainError> {
        let inner = &self.inner;
        let _one = inner.drains.operating.lock().await;
        let id = find(&inner.book().snapshot(), node)?;
        for _ in 0..TURNS {
            let (before, revision) = inner.order_now(&id).await;
            let now_ms = now_ms(&inner.skews);
            let order = DrainOrder::of(before.as_ref(), wish, now_ms)?;
            if before.as_ref() == Some(&order) {
                return self.drain_of(&id).ok_or(DrainError::Contended);
            }
            if before.is_none() && !inner.drains.has_room() {
                return Err(DrainError::TooMany);
            }
            let guards = before.is_none() && !wish.force;
            if guards {
                inner.needed(&id)?;
            }
            let doc = NodeDoc {
                node: id.clone(),
                revision: revision + 1,
                changed_ms: now_ms,
                order: Some(order),
                moved: 0,
                failed: 0,
            };
            if inner.write(doc.clone()).await {
                if guards {
                    inner.withdraw_if_needed(doc).await?;
                }
                tracing::info!(node = %id, ?wish, "drain");
                inner.poked.notify_one();
                return self.drain_of(&id).ok_or(DrainError::Contended);
            }
        }
        Err(DrainError::Contended)
    }

    /// Withdraws a drain, finished or not: the node joins again. `node` may also be the id of one that has left.
    ///
    /// # Errors
    /// See [`DrainError`]; nothing has changed then.
    pub async fn undrain(&self, node: &str) -> Result<(), DrainError> {
        let inner = &self.inner;
        let _one = inner.drains.operating.lock().await;
        let found = find(&inner.book().snapshot(), node);
        let left = || node.parse::<NodeId>().ok().filter(|id| inner.drains.order(id).0.is_some());
        let id = found.or_else(|why| left().ok_or(why))?;
        for _ in 0..TURNS {
            let (before, revision) = inner.order_now(&id).await;
            if before.is_none() {
                return Err(DrainError::NotDraining);
            }
            let doc = NodeDoc {
                node: id.clone(),
                revision: revision + 1,
                changed_ms: now_ms(&inner.skews),
                order: None,
                moved: 0,
                failed: 0,
            };
            if inner.write(doc).await {
                tracing::info!(node = %id, "drain withdrawn");
                inner.poked.notify_one();
                return Ok(());
            }
        }
        Err(DrainError::Contended)
    }

    /// The drain of a node, if it drains or is drained.
    pub fn drain_of(&self, node: &NodeId) -> Option<DrainView> {
        self.inner.drains.view(node, self.inner.kept_away)
    }

    /// All drains, by node id; also those of nodes that have left.
    pub fn drains(&self) -> Vec<DrainView> {
        self.inner.drains.views(self.inner.kept_away)
    }

    /// Waits until the node is drained, at most until `until`; says how it stands then. `None`: it drains no more.
    pub async fn wait_drained(&self, node: &NodeId, until: Instant) -> Option<DrainView> {
        let mut changes = self.inner.drains.listen();
        loop {
            changes.borrow_and_update();
            let view = self.drain_of(node)?;
            if view.is_complete() {
                return Some(view);
            }
            if tokio::time::timeout_at(until.into(), changes.changed()).await.is_err() {
                return self.drain_of(node);
            }
        }
    }

    /// What this door has to do for the drains now: its share of the work on every node that is to be emptied.
    pub fn drain_tasks(&self) -> Vec<DrainTask> {
        let orders = self.inner.drains.orders();
        if orders.is_empty() {
            return Vec::new();
        }
        let now_ms = now_ms(&self.inner.skews);
        let away = self.inner.source.is_some() && !self.inner.link.is_up();
        let task = |(node, order, doors): (NodeId, DrainOrder, usize)| {
            let work = match order.work(now_ms, away)? {
                Work::End => DrainWork::End,
                Work::Move => {
                    let doors = u32::try_from(doors.max(1)).unwrap_or(u32::MAX);
                    DrainWork::Move { per_second: f64::from(order.per_second) / f64::from(doors) }
                }
            };
            Some(DrainTask { node, since_ms: order.since_ms, work })
        };
        orders.into_iter().filter_map(task).collect()
    }

    /// A leg's move away from a draining node was confirmed, or it failed.
    pub fn count_move(&self, from: &NodeId, confirmed: bool) {
        self.inner.drains.count(from, confirmed);
    }

    /// The doors of the cluster that live, this one first.
    pub fn doors(&self) -> Vec<DoorView> {
        let inner = &self.inner;
        let (table, own) = {
            let book = inner.book();
            (table(book.view()), sum(book.own_legs().into_values()))
        };
        let myself = DoorView {
            id: inner.door.id.clone(),
            name: inner.door.name.clone(),
            public_url: inner.door.public_url.clone(),
            draining: inner.door.is_draining(),
            agrees: true,
            is_self: true,
            legs: own,
            age_ms: 0,
        };
        std::iter::once(myself).chain(inner.peers.views(&table, inner.heard_until(), clock::now())).collect()
    }

    /// Legs that this door itself has placed, by node.
    pub fn own_legs(&self) -> std::collections::BTreeMap<NodeId, Legs> {
        self.inner.book().own_legs()
    }

    /// This door takes no new sessions any more, or takes them again: what its peers are told.
    pub fn set_door_draining(&self, draining: bool) {
        self.inner.door.set_draining(draining);
        self.inner.poked.notify_one();
    }
}

impl Inner {
    /// The order of a node as the store has it now, else as this door knows it.
    async fn order_now(&self, node: &NodeId) -> (Option<DrainOrder>, i64) {
        if let Some(source) = self.source.as_ref().filter(|_| self.link.is_up()) {
            let mark = self.drains.mark();
            match source.node_docs().await {
                Ok(docs) => {
                    let known = docs.iter().find(|doc| doc.node == *node);
                    let known = known.map_or((None, 0), |doc| (doc.order.clone(), doc.revision));
                    // What is written already was changed apart from what is still unwritten here: the later one counts.
                    self.drains.merge(docs, mark);
                    let (order, _) = self.drains.order(node);
                    return (order, known.1);
                }
                Err(error) => self.link.failed(&error),
            }
        }
        self.drains.order(node)
    }

    /// Writes an order, into the store if it answers, else here; false: somebody else was faster.
    async fn write(&self, doc: NodeDoc) -> bool {
        let mut stored = false;
        if let Some(source) = self.source.as_ref().filter(|_| self.link.is_up()) {
            match source.put_order(&doc, doc.revision - 1).await {
                Ok(true) => stored = true,
                Ok(false) => return false,
                Err(error) => self.link.failed(&error),
            }
        }
        if self.source.is_none() && doc.order.is_none() {
            self.drains.forget(&doc.node);
        } else {
            self.drains.put(doc, !stored);
        }
        self.book().set_drains(&self.drains.wishes(), clock::now());
        true
    }

    /// Whether nobody would serve what this node serves.
    fn needed(&self, node: &NodeId) -> Result<(), DrainError> {
        let snapshot = self.book().snapshot();
        let serves = snapshot.get(node).is_some_and(|node| node.state.takes_legs());
        match snapshot.sole_server(node) {
            Some(kind) if serves => Err(DrainError::LastServing(kind)),
            _ => Ok(()),
        }
    }

    /// Two operators at two doors may each have drained one of the last two nodes: each looks again after its own
    /// writing is there for the other to see, so that at least one of them takes it back.
    async fn withdraw_if_needed(&self, doc: NodeDoc) -> Result<(), DrainError> {
        let since = |order: Option<&DrainOrder>| order.map(|order| order.since_ms);
        for _ in 0..TURNS {
            let (order, revision) = self.order_now(&doc.node).await;
            let (snapshot, is_ours) = {
                let mut book = self.book();
                book.set_drains(&self.drains.wishes(), clock::now());
                (book.snapshot(), order.is_some() && since(order.as_ref()) == since(doc.order.as_ref()))
            };
            let Some(kind) = snapshot.sole_server(&doc.node).filter(|_| is_ours) else { return Ok(()) };
            // It may have been seen to be empty meanwhile: the same drain, under another revision.
            if self.write(NodeDoc { revision: revision + 1, order: None, ..doc.clone() }).await {
                return Err(DrainError::LastServing(kind));
            }
        }
        Err(DrainError::Contended)
    }
}

/// Finds a node by its id or its address; the port may be left out where one node only has that address.
fn find(snapshot: &Snapshot, name: &str) -> Result<NodeId, DrainError> {
    let by_id = name.parse::<NodeId>().ok().and_then(|id| snapshot.get(&id));
    let by_socket = || {
        let address: SocketAddr = name.parse().ok()?;
        snapshot.nodes.iter().find(|node| node.spec.address.0 == address)
    };
    if let Some(node) = by_id.or_else(by_socket) {
        return Ok(node.spec.id.clone());
    }
    let ip: IpAddr = name.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| DrainError::UnknownNode)?;
    let mut there = snapshot.nodes.iter().filter(|node| node.spec.address.0.ip() == ip);
    match (there.next(), there.next()) {
        (Some(node), None) => Ok(node.spec.id.clone()),
        (Some(_), Some(_)) => Err(DrainError::AmbiguousNode),
        (None, _) => Err(DrainError::UnknownNode),
    }
}

/// What this door has to do on one node.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainTask {
    /// The node.
    pub node: NodeId,
    /// Names the drain: another one of the same node has another beginning.
    pub since_ms: i64,
    /// What is to be done.
    pub work: DrainWork,
}

/// What is to be done with the legs of a draining node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DrainWork {
    /// Move them, so many per second by this door.
    Move {
        /// This door's share of the pace.
        per_second: f64,
    },
    /// The deadline has passed: end what is left.
    End,
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
