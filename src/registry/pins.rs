//! Which origin a door is placing a stream on, so that a second publish of it, or its room, goes there too.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::domain::ids::{NodeId, StreamKey};

/// How long a pin holds that nobody refreshes: longer than any placement, shorter than an operator's patience.
const PIN_HOLD: Duration = Duration::from_secs(30);
/// Pins held; above it the expired ones go, and if none has expired a new pin is not kept (two publishes of one
/// stream may then meet two origins, as without pins).
const MAX_PINS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Pins {
    held: Mutex<HashMap<StreamKey, Pin>>,
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

    pub(super) fn clear(&self, key: &StreamKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Pin>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
