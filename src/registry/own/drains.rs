//! Every node's order as this door knows it, and how far each has come.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{MAX_ORDERS, NodeDoc, state_file};
use crate::{
    domain::{
        balance::{Drain, Legs},
        drain::DrainOrder,
        ids::NodeId,
    },
    registry::{DrainView, Kept},
};

/// The orders of this door's cluster.
#[derive(Debug)]
pub(in crate::registry) struct Drains {
    held: Mutex<BTreeMap<NodeId, Held>>,
    /// Counts changes, for those who wait for one.
    changed: watch::Sender<u64>,
    /// Counts what was put in here, so that a read of the store knows what it may be too old for.
    puts: AtomicU64,
    /// One operator's change at a time; readers do not wait for it.
    pub(in crate::registry) operating: tokio::sync::Mutex<()>,
}

/// One node's order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    doc: NodeDoc,
    /// The store does not have it: it was away when the order was changed here.
    unsynced: bool,
    /// Which put brought it; 0: a read did.
    put: u64,
    legs: Legs,
    /// Doors that have legs there, this one included if it has.
    doors: usize,
    streams: Option<u32>,
    /// Counted here, and not yet in the store.
    counted: Counts,
}

/// What was counted of one drain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::registry) struct Counts {
    pub(in crate::registry) moved: u64,
    pub(in crate::registry) failed: u64,
}

impl Held {
    fn new(doc: NodeDoc, unsynced: bool) -> Self {
        Self { doc, unsynced, put: 0, legs: Legs::default(), doors: 0, streams: None, counted: Counts::default() }
    }

    fn since_ms(&self) -> Option<i64> {
        self.doc.order.as_ref().map(|order| order.since_ms)
    }
}

impl Default for Drains {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
            changed: watch::channel(0).0,
            puts: AtomicU64::new(0),
            operating: tokio::sync::Mutex::default(),
        }
    }
}

impl Drains {
    /// Hears that something has changed.
    pub(in crate::registry) fn listen(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The order of a node, with its revision; `(None, revision)` of one that was withdrawn here.
    pub(in crate::registry) fn order(&self, node: &NodeId) -> (Option<DrainOrder>, i64) {
        self.lock().get(node).map_or((None, 0), |held| (held.doc.order.clone(), held.doc.revision))
    }

    /// Whether one more node may have an order.
    pub(in crate::registry) fn has_room(&self) -> bool {
        self.lock().len() < MAX_ORDERS
    }

    /// Takes an order that was changed through this door. A withdrawn one is remembered until a later read of the store.
    pub(in crate::registry) fn put(&self, doc: NodeDoc, unsynced: bool) {
        {
            let mut held = self.lock();
            let put = self.puts.fetch_add(1, Ordering::Relaxed) + 1;
            let known = held.entry(doc.node.clone()).or_insert_with(|| Held::new(doc.clone(), unsynced));
            take(known, doc, unsynced);
            known.put = put;
        }
        self.say();
    }

    /// Forgets an order: there is no store that could bring it back.
    pub(in crate::registry) fn forget(&self, node: &NodeId) {
        self.lock().remove(node);
        self.say();
    }

    /// What a read of the store that begins now cannot have missed: see [`Drains::merge`].
    pub(in crate::registry) fn mark(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }

    /// Takes all documents of the store; gives those that were changed here while it was away and still have to be
    /// written, each with the revision that it replaces. Of two changes made apart the later one counts. What was put in
    /// here since `mark`, when the read began, is not undone by it.
    pub(in crate::registry) fn merge(&self, docs: Vec<NodeDoc>, mark: u64) -> Vec<(NodeDoc, i64)> {
        let docs: BTreeMap<NodeId, NodeDoc> = docs.into_iter().map(|doc| (doc.node.clone(), doc)).collect();
        let mut late = Vec::new();
        let changed = {
            let mut held = self.lock();
            let before = held.clone();
            held.retain(|node, known| known.unsynced || known.put > mark || docs.contains_key(node));
            for known in held.values_mut().filter(|known| known.unsynced) {
                let stored = docs.get(&known.doc.node);
                if stored.is_none_or(|stored| stored.changed_ms < known.doc.changed_ms) {
                    let replaces = stored.map_or(0, |stored| stored.revision);
                    late.push((NodeDoc { revision: replaces + 1, ..known.doc.clone() }, replaces));
                } else {
                    known.unsynced = false;
                }
            }
            for (node, doc) in docs {
                match held.get_mut(&node) {
                    Some(known) if known.unsynced => {}
                    Some(known) if known.put > mark && doc.revision < known.doc.revision => {}
                    Some(known) => take(known, doc, false),
                    None => drop(held.insert(node, Held::new(doc, false))),
                }
            }
            held.retain(|_, held| held.doc.order.is_some() || held.unsynced || held.put > mark);
            *held != before
        };
        if changed {
            self.say();
        }
        late
    }

    /// How each draining node stands: the legs of all doors there, how many doors have some, its live streams.
    pub(in crate::registry) fn note(&self, mut standing: impl FnMut(&NodeId) -> (Legs, usize, Option<u32>)) {
        let mut changed = false;
        for (node, held) in self.lock().iter_mut() {
            let (legs, doors, streams) = standing(node);
            changed |= (held.legs, held.streams) != (legs, streams);
            (held.legs, held.doors, held.streams) = (legs, doors, streams);
        }
        if changed {
            self.say();
        }
    }

    /// A move away from the node was confirmed, or it failed.
    pub(in crate::registry) fn count(&self, node: &NodeId, moved: bool) {
        if let Some(held) = self.lock().get_mut(node) {
            *(if moved { &mut held.counted.moved } else { &mut held.counted.failed }) += 1;
        }
    }

    /// What was counted since it was last asked, by node and beginning of its drain.
    pub(in crate::registry) fn take_counts(&self) -> Vec<(NodeId, i64, Counts)> {
        let mut held = self.lock();
        let counted = held.iter_mut().filter(|(_, held)| held.counted != Counts::default() && !held.unsynced);
        counted
            .filter_map(|(node, held)| Some((node.clone(), held.since_ms()?, std::mem::take(&mut held.counted))))
            .collect()
    }

    /// Counts that the store has taken (then this door's own copy grows), or has not.
    pub(in crate::registry) fn counts_kept(&self, node: &NodeId, since_ms: i64, counts: Counts, kept: bool) {
        let mut held = self.lock();
        let Some(held) = held.get_mut(node).filter(|held| held.since_ms() == Some(since_ms)) else { return };
        if kept {
            held.doc.moved += counts.moved;
            held.doc.failed += counts.failed;
        } else {
            held.counted.moved += counts.moved;
            held.counted.failed += counts.failed;
        }
    }

    /// The wishes as placement reads them.
    pub(in crate::registry) fn wishes(&self) -> BTreeMap<NodeId, Drain> {
        let wish = |order: &DrainOrder| {
            if order.drained_ms.is_some() { Drain::Drained } else { Drain::Draining }
        };
        let held = self.lock();
        held.iter().filter_map(|(node, held)| Some((node.clone(), wish(held.doc.order.as_ref()?)))).collect()
    }

    /// All orders with how many doors share the work.
    pub(in crate::registry) fn orders(&self) -> Vec<(NodeId, DrainOrder, usize)> {
        let held = self.lock();
        held.iter().filter_map(|(node, held)| Some((node.clone(), held.doc.order.clone()?, held.doors))).collect()
    }

    /// One node's drain as other rooms see it. `away` says where what the store does not have is kept.
    pub(in crate::registry) fn view(&self, node: &NodeId, away: Kept) -> Option<DrainView> {
        self.lock().get(node).and_then(|held| view(held, away))
    }

    /// All of them.
    pub(in crate::registry) fn views(&self, away: Kept) -> Vec<DrainView> {
        self.lock().values().filter_map(|held| view(held, away)).collect()
    }

    /// What belongs on disk.
    pub(super) fn to_keep(&self) -> Vec<state_file::Kept> {
        let held = self.lock();
        let kept = held.values().map(|held| state_file::Kept { doc: held.doc.clone(), unsynced: held.unsynced });
        kept.map(|kept| state_file::Kept { doc: NodeDoc { moved: 0, failed: 0, ..kept.doc }, ..kept }).collect()
    }

    /// Takes what was on disk.
    pub(super) fn restore(&self, kept: Vec<state_file::Kept>) {
        for state_file::Kept { doc, unsynced } in kept {
            self.put(doc, unsynced);
        }
    }

    fn say(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces a document; what was counted here stays only with the drain that it was counted for.
fn take(known: &mut Held, doc: NodeDoc, unsynced: bool) {
    if known.since_ms() != doc.order.as_ref().map(|order| order.since_ms) {
        *known = Held { put: known.put, ..Held::new(doc, unsynced) };
    } else if doc.revision >= known.doc.revision {
        // A slow read may bring what was already counted on top.
        let moved = doc.moved.max(known.doc.moved);
        let failed = doc.failed.max(known.doc.failed);
        (known.doc, known.unsynced) = (NodeDoc { moved, failed, ..doc }, unsynced);
    }
}

fn view(held: &Held, away: Kept) -> Option<DrainView> {
    Some(DrainView {
        node: held.doc.node.clone(),
        order: held.doc.order.clone()?,
        revision: held.doc.revision,
        legs: held.legs,
        streams: held.streams,
        moved: held.doc.moved + held.counted.moved,
        failed: held.doc.failed + held.counted.failed,
        kept: if held.unsynced { away } else { Kept::Cluster },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::drain::DrainWish;

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn doc(node: &str, revision: i64, changed_ms: i64, drains: bool) -> NodeDoc {
        let order = DrainOrder::of(None, &DrainWish::default(), 1_000).unwrap();
        NodeDoc { node: id(node), revision, changed_ms, order: drains.then_some(order), moved: 0, failed: 0 }
    }

    fn draining(drains: &Drains) -> Vec<String> {
        drains.wishes().keys().map(NodeId::to_string).collect()
    }

    #[test]
    fn what_the_store_says_replaces_what_was_known_and_what_it_lacks_is_gone() {
        let drains = Drains::default();
        assert!(drains.merge(vec![doc("a", 1, 10, true), doc("b", 1, 10, true)], 0).is_empty());
        assert_eq!(draining(&drains), ["a", "b"]);
        assert!(drains.merge(vec![doc("a", 2, 20, false)], 0).is_empty());
        assert!(draining(&drains).is_empty());
    }

    #[test]
    fn a_read_that_began_before_a_change_does_not_undo_it() {
        let drains = Drains::default();
        let before = drains.mark();
        drains.put(doc("a", 1, 10, true), false);
        assert!(drains.merge(vec![], before).is_empty());
        assert_eq!(draining(&drains), ["a"]);
        let before = drains.mark();
        drains.put(doc("a", 2, 20, false), false);
        drains.merge(vec![doc("a", 1, 10, true)], before);
        assert!(draining(&drains).is_empty(), "nor brings back what was withdrawn");
        drains.merge(vec![doc("a", 3, 30, true)], before);
        assert_eq!(draining(&drains), ["a"], "but what came later counts");
        drains.merge(vec![], drains.mark());
        assert!(draining(&drains).is_empty() && drains.lock().is_empty());
    }

    #[test]
    fn of_two_changes_made_apart_the_later_one_counts() {
        let drains = Drains::default();
        drains.put(doc("later", 4, 30, true), true);
        drains.put(doc("earlier", 4, 10, true), true);
        drains.put(doc("withdrawn", 4, 30, false), true);
        let stored = vec![doc("later", 7, 20, false), doc("earlier", 7, 20, false), doc("withdrawn", 7, 20, true)];
        let late = drains.merge(stored, drains.mark());
        let late: Vec<_> = late.iter().map(|(doc, replaces)| (doc.node.as_str(), doc.revision, *replaces)).collect();
        assert_eq!(late, [("later", 8, 7), ("withdrawn", 8, 7)]);
        assert_eq!(draining(&drains), ["later"], "also before the store has taken them");
    }

    #[test]
    fn what_was_counted_is_neither_lost_nor_counted_twice() {
        let drains = Drains::default();
        drains.merge(vec![doc("a", 1, 10, true)], 0);
        drains.count(&id("a"), true);
        drains.count(&id("a"), false);
        let seen = |drains: &Drains| {
            let view = drains.view(&id("a"), Kept::Memory).unwrap();
            (view.moved, view.failed)
        };
        assert_eq!(seen(&drains), (1, 1));
        let [(node, since, counts)] = &drains.take_counts()[..] else { panic!("one drain was counted") };
        drains.counts_kept(node, *since, *counts, false);
        assert_eq!(seen(&drains), (1, 1));
        let again = drains.take_counts();
        drains.counts_kept(node, *since, again[0].2, true);
        assert_eq!(seen(&drains), (1, 1));
        drains.merge(vec![NodeDoc { moved: 5, failed: 1, ..doc("a", 1, 10, true) }], 0);
        assert_eq!(seen(&drains), (5, 1), "other doors counted too");
        assert!(drains.take_counts().is_empty());
    }
}
