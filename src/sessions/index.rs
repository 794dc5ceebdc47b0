//! Who is connected, and whether one more may be.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Seats of this door, in all and per client address.
#[derive(Debug, Clone)]
pub struct Occupancy {
    inner: Arc<Inner>,
}

struct Inner {
    over_limit: Arc<dyn Fn(bool) + Send + Sync>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    max: usize,
    max_per_client: usize,
    all: usize,
    /// Only addresses with a seat: as bounded as `all`.
    by_client: HashMap<IpAddr, usize>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `limits.sessions`
    #[error("the door has all the sessions that limits.sessions allows")]
    Door,
    /// `limits.sessions_per_client`
    #[error("the client's address has all the sessions that limits.sessions_per_client allows")]
    Client,
}

impl Occupancy {
    /// An empty house. `over_limit` hears when the last seat is taken, and when one is free again.
    pub fn new(max: usize, max_per_client: usize, over_limit: Arc<dyn Fn(bool) + Send + Sync>) -> Self {
        let taken = Taken { max, max_per_client, ..Taken::default() };
        Self { inner: Arc::new(Inner { over_limit, taken: Mutex::new(taken) }) }
    }

    /// Sets other limits. Nobody loses a seat, however many are taken.
    pub fn set_limits(&self, max: usize, max_per_client: usize) {
        let mut taken = self.inner.lock();
        (taken.max, taken.max_per_client) = (max, max_per_client);
        (self.inner.over_limit)(taken.all >= max);
    }

    /// Takes a seat.
    pub fn seat(&self, client: IpAddr) -> Result<SessionSeat, Full> {
        let client = client.to_canonical();
        let mut taken = self.inner.lock();
        if taken.all >= taken.max {
            return Err(Full::Door);
        }
        let max_per_client = taken.max_per_client;
        let own = taken.by_client.entry(client).or_default();
        if *own >= max_per_client {
            return Err(Full::Client);
        }
        *own += 1;
        taken.all += 1;
        if taken.all == taken.max {
            (self.inner.over_limit)(true);
        }
        Ok(SessionSeat { inner: Arc::clone(&self.inner), client })
    }

    /// Seats taken now.
    pub fn open(&self) -> usize {
        self.inner.lock().all
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One admitted client. Dropping it gives the seat back on every path out, panics included.
#[derive(Debug)]
pub struct SessionSeat {
    inner: Arc<Inner>,
    client: IpAddr,
}

impl Drop for SessionSeat {
    fn drop(&mut self) {
        let mut taken = self.inner.lock();
        if taken.all == taken.max {
            (self.inner.over_limit)(false);
        }
        taken.all -= 1;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_seat_comes_back_when_its_session_ends() {
        let full = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&full);
        let house = Occupancy::new(2, 1, Arc::new(move |over| seen.store(over, Ordering::Relaxed)));
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = house.seat(a).unwrap();
        assert_eq!(house.seat(a).unwrap_err(), Full::Client);
        let _second = house.seat(b).unwrap();
        assert_eq!(house.seat([10, 0, 0, 3].into()).unwrap_err(), Full::Door);
        assert!(full.load(Ordering::Relaxed));
        drop(first);
        assert!(!full.load(Ordering::Relaxed));
        assert_eq!(house.open(), 1);
        assert!(house.seat(a).is_ok());
    }

    #[test]
    fn lower_limits_take_no_seat_away_and_hold_for_the_next() {
        let full = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&full);
        let house = Occupancy::new(9, 9, Arc::new(move |over| seen.store(over, Ordering::Relaxed)));
        let a: IpAddr = [10, 0, 0, 1].into();
        let mut seats: Vec<_> = (0..3).map(|_| house.seat(a).unwrap()).collect();
        house.set_limits(2, 9);
        assert!(full.load(Ordering::Relaxed) && house.seat(a).is_err());
        assert_eq!(house.open(), 3);
        seats.truncate(1);
        assert!(!full.load(Ordering::Relaxed) && house.seat(a).is_ok());
        house.set_limits(9, 1);
        assert_eq!(house.seat(a).unwrap_err(), Full::Client);
    }
}
