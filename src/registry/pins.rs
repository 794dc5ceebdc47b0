//! Which origin a door is placing a stream on, so that a second publish of it, or its room, goes there too.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use super::{
    Registry,
    own::{Claim, now_ms},
};
use crate::{
    clock,
    domain::ids::{NodeId, StreamKey},
};

/// How long a pin holds that nobody refreshes: longer than any placement, shorter than an operator's patience.
const PIN_HOLD: Duration = Duration::from_secs(30);
/// How long the store keeps it: longer, so that no door trusts a pin of its own that another door may have taken.
pub(super) const HOLD_MS: i64 = 35_000;
/// How long a placement waits for the store to say who has a pin (design.md §5), and for its turn before that.
pub const CLAIM_LIMIT: Duration = Duration::from_millis(300);
/// Two placements of one stream at this door take turns; streams share so many turnstiles, rooms as many others.
const TURNSTILES: usize = 256;
/// Refreshed pins that the store is told of in one round; the rest waits for the next one, well within its hold.
const KEPT_PER_ROUND: usize = 1024;
/// Pins held; above it the expired ones go, and if none has expired a new pin is not kept (two publishes of one
/// stream may then meet two origins, as without pins).
const MAX_PINS: usize = 65_536;

#[derive(Debug)]
pub(super) struct Pins {
    held: Mutex<HashMap<StreamKey, Pin>>,
    /// Pins to be kept in the store too; never more than are held.
    to_keep: Mutex<HashMap<StreamKey, NodeId>>,
    streams: Turnstiles,
    rooms: Turnstiles,
}

type Turnstiles = Vec<tokio::sync::Mutex<()>>;

/// Who has a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The node that has it.
    pub node: NodeId,
    /// The other doors see it, too: the store has taken it.
    pub is_shared: bool,
}

/// What a placement holds on to, so that no other one of the same stream (and room) comes between.
pub type Turn<'a> = Vec<tokio::sync::MutexGuard<'a, ()>>;

impl Default for Pins {
    fn default() -> Self {
        let turnstiles = || (0..TURNSTILES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { held: Mutex::default(), to_keep: Mutex::default(), streams: turnstiles(), rooms: turnstiles() }
    }
}

#[derive(Debug)]
struct Pin {
    node: NodeId,
    until: Instant,
}

impl Pins {
    pub(super) fn get(&self, key: &StreamKey, now: Instant) -> Option<NodeId> {
        let mut held = self.lock();
        let pin = held.get(key)?;
        if pin.until <= now {
            held.remove(key);
            return None;
        }
        Some(pin.node.clone())
    }

    pub(super) fn set(&self, key: &StreamKey, node: &NodeId, now: Instant) {
        let mut held = self.lock();
        if held.len() >= MAX_PINS && !held.contains_key(key) {
            held.retain(|_, pin| pin.until > now);
            if held.len() >= MAX_PINS {
                return;
            }
        }
        held.insert(key.clone(), Pin { node: node.clone(), until: now + PIN_HOLD });
    }

    /// Waits for the turn of a stream and of its room. Always in this order, so that no two wait for each other.
    async fn turn(&self, stream: Option<&StreamKey>, room: Option<&StreamKey>) -> Turn<'_> {
        let mut turn = Vec::with_capacity(2);
        for (key, turnstiles) in [(room, &self.rooms), (stream, &self.streams)] {
            if let Some(key) = key {
                turn.push(turnstile(turnstiles, key).lock().await);
            }
        }
        turn
    }

    /// The node that has the pin: the one that has it already, if it is fit, else this one.
    fn claim(&self, key: &StreamKey, node: &NodeId, unfit: &[NodeId], now: Instant) -> NodeId {
        let known = self.get(key, now).filter(|known| !unfit.contains(known));
        let node = known.unwrap_or_else(|| node.clone());
        self.set(key, &node, now);
        node
    }

    /// Keeps a pin here, and soon in the store.
    pub(super) fn keep(&self, key: &StreamKey, node: &NodeId, now: Instant) {
        self.set(key, node, now);
        let mut to_keep = lock(&self.to_keep);
        if to_keep.len() < MAX_PINS {
            to_keep.insert(key.clone(), node.clone());
        }
    }

    /// Pins that the store shall be told of.
    pub(super) fn take_kept(&self) -> Vec<(StreamKey, NodeId)> {
        let mut to_keep = lock(&self.to_keep);
        let some: Vec<_> = to_keep.keys().take(KEPT_PER_ROUND).cloned().collect();
        some.into_iter().filter_map(|key| to_keep.remove_entry(&key)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Pin>> {
        lock(&self.held)
    }
}

fn turnstile<'a>(turnstiles: &'a Turnstiles, key: &StreamKey) -> &'a tokio::sync::Mutex<()> {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    &turnstiles[usize::try_from(hasher.finish() % TURNSTILES as u64).unwrap_or(0)]
}

impl Registry {
    /// The origin on which this door is placing, or has placed, this stream (or room).
    pub fn pin(&self, key: &StreamKey) -> Option<NodeId> {
        self.inner.pins.get(key, clock::now())
    }

    /// Keeps the pin of a stream (or room) to an origin for another 30 s, here and, within a second or so, for the other
    /// doors.
    pub fn keep_pin(&self, key: &StreamKey, node: &NodeId) {
        self.inner.pins.keep(key, node, clock::now());
    }

    /// Waits for the turn of this stream and of its room at this door, at most until `until`; `None`: it did not come.
    pub async fn turn(&self, stream: Option<&StreamKey>, room: Option<&StreamKey>, until: Instant) -> Option<Turn<'_>> {
        let turn = timeout_at(until.into(), self.inner.pins.turn(stream, room)).await.ok();
        if turn.is_none() {
            self.inner.facts.pins_late.add();
        }
        turn
    }

    /// Pins a stream (or room) to `node` before all doors of the cluster; gives the node that has the pin: this one, or
    /// that of a placement, here or at another door, which was faster. A pin to one of `unfit` does not count. A store that
    /// does not answer until `until` is not waited for (counted): the pin then holds at this door alone.
    pub async fn claim(&self, key: &StreamKey, node: &NodeId, unfit: &[NodeId], until: Instant) -> Claimed {
        let inner = &self.inner;
        let node = inner.pins.claim(key, node, unfit, clock::now());
        let Some(source) = &inner.source else { return Claimed { node, is_shared: true } };
        if !inner.link.is_up() {
            inner.facts.pins_late.add();
            return Claimed { node, is_shared: false };
        }
        let now_ms = now_ms(&inner.skews);
        let until_ms = now_ms.saturating_add(HOLD_MS);
        let claim = Claim { key: key.clone(), node: node.clone(), unfit: unfit.to_vec(), now_ms, until_ms };
        match timeout_at(until.into(), source.claim(claim)).await {
            Ok(Ok(winner)) => {
                inner.facts.pins_claimed.add();
                if winner != node {
                    inner.facts.pins_lost.add();
                    inner.pins.set(key, &winner, clock::now());
                }
                Claimed { node: winner, is_shared: true }
            }
            Ok(Err(error)) => {
                inner.facts.pins_late.add();
                inner.link.failed(&error);
                Claimed { node, is_shared: false }
            }
            Err(_) => {
                inner.facts.pins_late.add();
                Claimed { node, is_shared: false }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stream: &str) -> StreamKey {
        StreamKey { app: "LiveApp".parse().unwrap(), stream: stream.parse().unwrap() }
    }

    #[test]
    fn a_pin_holds_for_thirty_seconds_after_it_was_last_set() {
        let (pins, t0, node) = (Pins::default(), Instant::now(), "origin-1".parse::<NodeId>().unwrap());
        pins.set(&key("a"), &node, t0);
        pins.set(&key("a"), &node, t0 + Duration::from_secs(20));
        assert_eq!(pins.get(&key("a"), t0 + Duration::from_secs(49)), Some(node));
        assert_eq!(pins.get(&key("a"), t0 + Duration::from_secs(50)), None);
        assert!(pins.lock().is_empty());
    }

    #[test]
    fn the_first_claim_has_the_pin_until_its_node_is_unfit() {
        let (pins, t0) = (Pins::default(), Instant::now());
        let [one, two]: [NodeId; 2] = ["origin-1", "origin-2"].map(|id| id.parse().unwrap());
        assert_eq!(pins.claim(&key("a"), &one, &[], t0), one);
        assert_eq!(pins.claim(&key("a"), &two, &[], t0), one);
        assert_eq!(pins.claim(&key("a"), &two, &[one], t0), two);
        assert_eq!(pins.get(&key("a"), t0), Some(two));
    }

    #[test]
    fn pins_are_bounded_and_expired_ones_make_room() {
        let (pins, t0, node) = (Pins::default(), Instant::now(), "origin-1".parse::<NodeId>().unwrap());
        for n in 0..MAX_PINS {
            pins.set(&key(&format!("s{n}")), &node, t0);
        }
        pins.set(&key("late"), &node, t0);
        assert_eq!(pins.get(&key("late"), t0), None);
        pins.set(&key("later"), &node, t0 + PIN_HOLD);
        assert_eq!(pins.get(&key("later"), t0 + PIN_HOLD), Some(node));
        assert_eq!(pins.lock().len(), 1);
    }
}
