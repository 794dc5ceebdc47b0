//! Who waits for which stream. Waiters of one stream share a room, and are woken together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::domain::ids::StreamKey;

/// Streams waited for at once; a play of one more is answered with what is known now.
const MAX_ROOMS: usize = 16_384;

/// Wait rooms by stream.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    rooms: Mutex<HashMap<StreamKey, Arc<Notify>>>,
}

impl Waiters {
    /// Enters the room of a stream; `None`: there are too many rooms.
    pub(super) fn enter<'a>(&'a self, key: &StreamKey) -> Option<Seat<'a>> {
        let mut rooms = self.lock();
        if rooms.len() >= MAX_ROOMS && !rooms.contains_key(key) {
            return None;
        }
        let room = Arc::clone(rooms.entry(key.clone()).or_default());
        Some(Seat { waiters: self, key: key.clone(), room })
    }

    /// Wakes those who wait for a stream.
    pub(super) fn wake(&self, key: &StreamKey) {
        if let Some(room) = self.lock().get(key) {
            room.notify_waiters();
        }
    }

    /// Streams waited for now.
    pub(super) fn rooms(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Arc<Notify>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter's place. The last one to leave closes the room.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    waiters: &'a Waiters,
    key: StreamKey,
    pub(super) room: Arc<Notify>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut rooms = self.waiters.lock();
        // The map's and this one: nobody else is in the room, and nobody enters while it is locked.
        if Arc::strong_count(&self.room) == 2 {
            rooms.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stream: &str) -> StreamKey {
        StreamKey { app: "LiveApp".parse().unwrap(), stream: stream.parse().unwrap() }
    }

    #[test]
    fn a_room_closes_with_its_last_waiter() {
        let waiters = Waiters::default();
        let (first, second) = (waiters.enter(&key("a")).unwrap(), waiters.enter(&key("a")).unwrap());
        assert_eq!(waiters.rooms(), 1);
        drop(first);
        assert_eq!(waiters.rooms(), 1);
        drop(second);
        assert_eq!(waiters.rooms(), 0);
    }

    #[test]
    fn rooms_are_bounded_but_an_open_one_takes_more_waiters() {
        let waiters = Waiters::default();
        let seats: Vec<_> = (0..MAX_ROOMS).map(|n| waiters.enter(&key(&format!("s{n}"))).unwrap()).collect();
        assert!(waiters.enter(&key("late")).is_none());
        assert!(waiters.enter(&key("s7")).is_some());
        drop(seats);
        assert_eq!(waiters.rooms(), 0);
    }
}
