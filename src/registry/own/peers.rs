//! The other doors of the cluster, as their heartbeats show them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{DoorDoc, MAX_DOORS};
use crate::{
    domain::{balance::Legs, ids::NodeId},
    registry::DoorView,
};

/// A door whose heartbeat stands still for so long is gone, and its legs with it. Measured on this door's own clock, so
/// that nobody's wall clock matters.
const SILENCE: Duration = Duration::from_secs(10);

/// The doors that live, but for this one.
#[derive(Debug, Default)]
pub(in crate::registry) struct Peers {
    doors: Mutex<BTreeMap<String, Peer>>,
}

#[derive(Debug)]
struct Peer {
    doc: DoorDoc,
    /// When its number was last seen to grow.
    heard: Instant,
    /// It has not been heard of since the store was away: its heartbeat may be missing there.
    missed: bool,
    /// It was said in the log that its table differs.
    said: bool,
}

impl Peers {
    /// Takes all heartbeats of the store, this door's own left out. One that is new counts as heard now.
    pub(super) fn take(&self, docs: Vec<DoorDoc>, own: &str, table: &str, now: Instant) {
        let mut doors = self.lock();
        let mut next = BTreeMap::new();
        for doc in docs.into_iter().filter(|doc| doc.id != own).take(MAX_DOORS) {
            let known = doors.remove(&doc.id);
            let silent = known.as_ref().filter(|known| known.doc.beat == doc.beat);
            let (heard, missed) = silent.map_or((now, false), |known| (known.heard, known.missed));
            let mut peer = Peer { said: known.is_some_and(|known| known.said), doc, heard, missed };
            let differs = peer.doc.table != table && peer.lives(now);
            if differs && !peer.said {
                tracing::warn!(door = %peer.doc.id, "its table of nodes differs from ours: the two place differently");
            }
            peer.said = differs;
            next.insert(peer.doc.id.clone(), peer);
        }
        next.extend(std::mem::take(&mut *doors).into_iter().filter(|(_, peer)| peer.missed && peer.lives(now)));
        *doors = next;
    }

    /// The store was away, so nobody could be heard: that time counts for nobody's silence, nor does a heartbeat that the
    /// store has dropped for its age.
    pub(in crate::registry) fn was_away(&self, from: Instant, to: Instant) {
        for peer in self.lock().values_mut().filter(|peer| peer.lives(from)) {
            peer.heard = peer.heard.max(from) + to.saturating_duration_since(from);
            peer.missed = true;
        }
    }

    /// The legs of all other doors that live, by node.
    pub(super) fn legs(&self, now: Instant) -> BTreeMap<NodeId, Legs> {
        let mut all: BTreeMap<NodeId, Legs> = BTreeMap::new();
        for peer in self.lock().values().filter(|peer| peer.lives(now)) {
            for (node, legs) in &peer.doc.legs {
                let sum = all.entry(node.clone()).or_default();
                sum.publish = sum.publish.saturating_add(legs.publish);
                sum.play = sum.play.saturating_add(legs.play);
            }
        }
        all
    }

    /// How many other doors have legs on a node.
    pub(super) fn with_legs_on(&self, node: &NodeId, now: Instant) -> usize {
        let has = |peer: &&Peer| peer.doc.legs.iter().any(|(on, legs)| on == node && *legs != Legs::default());
        self.lock().values().filter(|peer| peer.lives(now)).filter(has).count()
    }

    /// Whether every other door that lives places nothing on a node any more, for the drain that began at `since_ms`.
    pub(super) fn all_obey(&self, node: &NodeId, since_ms: i64, now: Instant) -> bool {
        let obeys = |peer: &Peer| {
            let drains = peer.doc.drains.as_ref();
            drains.is_none_or(|drains| drains.iter().any(|(of, since)| of == node && *since == since_ms))
        };
        self.lock().values().filter(|peer| peer.lives(now)).all(obeys)
    }

    /// Those that live, as other rooms see them.
    /// `heard_until` is when they could be heard last.
    pub(in crate::registry) fn views(&self, table: &str, heard_until: Instant, now: Instant) -> Vec<DoorView> {
        let doors = self.lock();
        doors.values().filter(|peer| peer.lives(heard_until)).map(|peer| peer.view(table, now)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Peer>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn lives(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) < SILENCE
    }

    fn view(&self, table: &str, now: Instant) -> DoorView {
        let age = now.saturating_duration_since(self.heard);
        DoorView {
            id: self.doc.id.clone(),
            name: self.doc.name.clone(),
            public_url: self.doc.public_url.clone(),
            draining: self.doc.draining,
            agrees: self.doc.table == table,
            is_self: false,
            legs: sum(self.doc.legs.iter().map(|(_, legs)| *legs)),
            age_ms: i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// Legs together.
pub(in crate::registry) fn sum(legs: impl Iterator<Item = Legs>) -> Legs {
    legs.fold(Legs::default(), |sum, legs| Legs {
        publish: sum.publish.saturating_add(legs.publish),
        play: sum.play.saturating_add(legs.play),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(id: &str, beat: i64, play: u32) -> DoorDoc {
        let node = "edge-1".parse().unwrap();
        DoorDoc {
            id: id.into(),
            name: "door".into(),
            public_url: None,
            draining: false,
            table: "1".into(),
            beat,
            legs: vec![(node, Legs { publish: 0, play })],
            drains: Some(Vec::new()),
        }
    }

    #[test]
    fn a_door_that_has_not_heard_of_a_drain_does_not_obey_it_and_one_that_is_gone_is_not_waited_for() {
        let (peers, t0, node) = (Peers::default(), Instant::now(), "edge-1".parse::<NodeId>().unwrap());
        let obeying = |beat, since| DoorDoc { drains: Some(vec![(node.clone(), since)]), ..door("a", beat, 0) };
        let older = DoorDoc { drains: None, ..door("older", 1, 0) };
        assert!(peers.all_obey(&node, 7, t0), "nobody else is there");
        peers.take(vec![door("a", 1, 0), older.clone()], "self", "1", t0);
        assert!(!peers.all_obey(&node, 7, t0));
        peers.take(vec![obeying(2, 6), older.clone()], "self", "1", t0);
        assert!(!peers.all_obey(&node, 7, t0), "that was another drain of it");
        peers.take(vec![obeying(3, 7), older], "self", "1", t0);
        assert!(peers.all_obey(&node, 7, t0), "one that says nothing is not waited for");
        peers.take(vec![door("a", 4, 0)], "self", "1", t0);
        assert!(!peers.all_obey(&node, 7, t0) && peers.all_obey(&node, 7, t0 + SILENCE));
    }

    #[test]
    fn a_door_whose_heartbeat_stands_still_is_gone_with_its_legs() {
        let (peers, t0, node) = (Peers::default(), Instant::now(), "edge-1".parse::<NodeId>().unwrap());
        let plays = |now| peers.legs(now).get(&node).map_or(0, |legs| legs.play);
        peers.take(vec![door("a", 1, 3), door("b", 1, 4), door("self", 1, 100)], "self", "1", t0);
        assert_eq!((plays(t0), peers.with_legs_on(&node, t0)), (7, 2));
        let t1 = t0 + SILENCE / 2;
        peers.take(vec![door("a", 2, 3), door("b", 1, 4)], "self", "1", t1);
        assert_eq!(plays(t1), 7);
        let t2 = t0 + SILENCE;
        peers.take(vec![door("a", 3, 2), door("b", 1, 4)], "self", "1", t2);
        assert_eq!((plays(t2), peers.with_legs_on(&node, t2)), (2, 1));
        assert_eq!(
            peers.views("2", t2, t2).iter().map(|door| (door.id.as_str(), door.agrees)).collect::<Vec<_>>(),
            [("a", false)]
        );
    }

    #[test]
    fn a_time_without_the_store_is_nobodys_silence() {
        let (peers, t0, node) = (Peers::default(), Instant::now(), "edge-1".parse::<NodeId>().unwrap());
        let plays = |now| peers.legs(now).get(&node).map_or(0, |legs| legs.play);
        peers.take(vec![door("a", 1, 3), door("b", 1, 4)], "self", "1", t0);
        let (gone, back) = (t0 + SILENCE / 2, t0 + SILENCE * 12);
        let view = peers.views("1", gone, back - SILENCE / 2);
        assert_eq!(
            view.iter().map(|door| door.age_ms).collect::<Vec<_>>(),
            [115_000; 2],
            "and how old they are is said"
        );
        peers.was_away(gone, back);
        // The store has dropped the one for its age, and the other one has not beaten yet.
        peers.take(vec![door("a", 1, 3)], "self", "1", back);
        assert_eq!((plays(back), peers.with_legs_on(&node, back)), (7, 2));
        peers.take(vec![door("a", 2, 3)], "self", "1", back + SILENCE - SILENCE / 8);
        assert_eq!(plays(back + SILENCE - SILENCE / 8), 7);
        peers.take(vec![door("a", 3, 3)], "self", "1", back + SILENCE);
        assert_eq!(plays(back + SILENCE), 3, "one that does not come back is gone");
        peers.take(vec![], "self", "1", back + SILENCE);
        assert_eq!(plays(back + SILENCE), 0, "and one that has left says so");
    }
}
