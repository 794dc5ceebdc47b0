//! Doors' own data inside this process: what the demo runs on, and quick tests.

use std::collections::BTreeMap;

use super::own::{Claim, DoorDoc, MAX_DOORS, MAX_ORDERS, NodeDoc};
use crate::domain::ids::{NodeId, StreamKey};

/// Pins held; above it the expired ones go, and if none has expired a claim is granted without being kept.
const MAX_PINS: usize = 65_536;

/// The three collections.
#[derive(Debug, Default)]
pub(super) struct OwnMemory {
    nodes: BTreeMap<NodeId, NodeDoc>,
    doors: BTreeMap<String, DoorDoc>,
    pins: BTreeMap<StreamKey, (NodeId, i64)>,
}

impl OwnMemory {
    pub(super) fn node_docs(&self) -> Vec<NodeDoc> {
        self.nodes.values().cloned().collect()
    }

    pub(super) fn put_order(&mut self, doc: &NodeDoc, expected: i64) -> bool {
        let before = self.nodes.get(&doc.node);
        if before.map_or(0, |before| before.revision) != expected
            || (before.is_none() && self.nodes.len() >= MAX_ORDERS)
        {
            return false;
        }
        let same = before.filter(|before| is_same_drain(before, doc));
        let (moved, failed) = same.map_or((0, 0), |same| (same.moved, same.failed));
        self.nodes.insert(doc.node.clone(), NodeDoc { moved, failed, ..doc.clone() });
        true
    }

    pub(super) fn add_counts(&mut self, node: &NodeId, since_ms: i64, moved: u64, failed: u64) {
        let doc = self.nodes.get_mut(node);
        if let Some(doc) = doc.filter(|doc| doc.order.as_ref().is_some_and(|order| order.since_ms == since_ms)) {
            doc.moved += moved;
            doc.failed += failed;
        }
    }

    pub(super) fn beat(&mut self, door: &DoorDoc) {
        if self.doors.len() < MAX_DOORS || self.doors.contains_key(&door.id) {
            self.doors.insert(door.id.clone(), door.clone());
        }
    }

    pub(super) fn door_docs(&self) -> Vec<DoorDoc> {
        self.doors.values().cloned().collect()
    }

    pub(super) fn leave(&mut self, door: &str) {
        self.doors.remove(door);
    }

    pub(super) fn claim(&mut self, claim: &Claim) -> NodeId {
        if let Some((node, until_ms)) = self.pins.get(&claim.key)
            && *until_ms > claim.now_ms
            && !claim.unfit.contains(node)
        {
            return node.clone();
        }
        if self.pins.len() >= MAX_PINS {
            self.pins.retain(|_, (_, until_ms)| *until_ms > claim.now_ms);
        }
        if self.pins.len() < MAX_PINS {
            self.pins.insert(claim.key.clone(), (claim.node.clone(), claim.until_ms));
        }
        claim.node.clone()
    }

    pub(super) fn keep_pins(&mut self, pins: &[(StreamKey, NodeId)], until_ms: i64) {
        for (key, node) in pins {
            if let Some((_, until)) = self.pins.get_mut(key).filter(|(pinned, _)| pinned == node) {
                *until = until_ms;
            }
        }
    }
}

/// Whether two documents speak of the same drain, so that what was counted of it goes on.
fn is_same_drain(before: &NodeDoc, after: &NodeDoc) -> bool {
    let since = |doc: &NodeDoc| doc.order.as_ref().map(|order| order.since_ms);
    since(before) == since(after)
}
