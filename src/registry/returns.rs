//! Streams that come back: a viewer's node says that the stream has ended, but its publisher has only moved.
//!
//! A stream is expected back while its publisher moves at this door, while its last origin is being emptied or is down, and
//! for a moment always, since AMS writes records after it tells viewers. A store that still calls it live contradicts the
//! viewer's node: the origin died, or the edge knows less.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Registry, facade::Inner, own::now_ms};
use crate::{
    clock,
    domain::{
        balance::{NodeState, NodeView},
        ids::{NodeId, StreamKey},
        routing::Lookup,
    },
};

/// Publishers that move at a time; of one more it is not known, and its viewers hear that the stream has ended.
const MAX_MOVING: usize = 65_536;
/// How long a move of a publisher may take until it is forgotten: longer than its confirmation.
const MOVE_LIMIT: Duration = Duration::from_secs(20);
/// How long a stream whose publisher may have moved at another door is waited for.
const EXPECTED: Duration = Duration::from_secs(8);
/// How long AMS may take to write an end that it has told viewers of.
const WRITTEN: Duration = Duration::from_millis(600);
/// Between two looks at the record.
const PACE: Duration = Duration::from_millis(150);

/// Streams whose publisher moves at this door.
#[derive(Debug, Default)]
pub(super) struct Moving(Mutex<HashMap<StreamKey, Instant>>);

impl Moving {
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, key: &StreamKey, now: Instant) -> bool {
        self.lock().get(key).is_some_and(|until| *until > now)
    }
}

impl Registry {
    /// A publisher begins to move from one origin to another, or has arrived, or will not.
    pub fn publisher_moves(&self, key: &StreamKey, moves: bool) {
        let now = clock::now();
        let mut moving = self.inner.moving.lock();
        if !moves {
            moving.remove(key);
            return;
        }
        if moving.len() >= MAX_MOVING {
            moving.retain(|_, until| *until > now);
        }
        if moving.len() < MAX_MOVING {
            moving.insert(key.clone(), now + MOVE_LIMIT);
        }
    }

    /// A play's node said that the stream has ended: waits, at most until `until`, for it to be live on an origin that
    /// serves, as long as that can be expected; gives the last verdict. `origin` is where it was when the play was placed.
    pub async fn wait_return(&self, key: &StreamKey, origin: Option<&NodeId>, until: Instant) -> Lookup {
        let inner = &*self.inner;
        let begun = clock::now();
        loop {
            let moving = inner.moving.holds(key, clock::now());
            let lookup = inner.ask(key, Some(PACE)).await;
            if !moving && inner.is_back(&lookup) {
                return lookup;
            }
            let waited = clock::now().saturating_duration_since(begun);
            let patience = match () {
                () if moving => MOVE_LIMIT,
                () if inner.leaves_its_origin(&lookup, origin) => EXPECTED,
                () => WRITTEN,
            };
            if waited >= patience || clock::now() >= until {
                return lookup;
            }
            let next = clock::now() + PACE;
            clock::until(Some(next.min(until))).await;
        }
    }
}

impl Inner {
    /// Live, and not on a node that takes no legs.
    fn is_back(&self, lookup: &Lookup) -> bool {
        let Some(record) = lookup.live() else { return false };
        let Some(origin) = &record.origin else { return true };
        self.book().snapshot().by_ams_name(origin).is_none_or(|node| node.state.takes_legs())
    }

    /// Whether its publisher has a reason to be on its way: its origin is being emptied, or is down.
    fn leaves_its_origin(&self, lookup: &Lookup, origin: Option<&NodeId>) -> bool {
        let snapshot = self.book().snapshot();
        let named = match lookup {
            Lookup::Found { record, .. } => record.origin.as_deref().and_then(|name| snapshot.by_ams_name(name)),
            Lookup::Missing | Lookup::Unknown => None,
        };
        let now_ms = now_ms(&self.skews);
        let moves = |node: &NodeView| self.drains.order(&node.spec.id).0.is_some_and(|order| order.moves(now_ms));
        let leaves = |node: &NodeView| node.state == NodeState::Down || moves(node);
        named.is_some_and(&leaves) || origin.and_then(|id| snapshot.get(id)).is_some_and(leaves)
    }
}
