//! How many connections a listener has, in all and per client address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::telemetry::metrics::{Held, Metrics};

/// Connections beyond `limits.connections`, for nothing but health: whoever asks whether a full door is well, is told.
const HEALTH_RESERVE: usize = 64;

/// The seats of one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only addresses with a seat: as bounded as `all`.
    by_client: HashMap<IpAddr, usize>,
}

/// One connection's seat. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    /// The client on whose account it goes, once that is known.
    client: Option<IpAddr>,
    /// Whether it is one of the reserve.
    pub(super) is_reserve: bool,
    _held: Held,
}

/// The client's address has all the seats that it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientFull;

impl Seats {
    /// A seat, of the reserve if `most` are taken; `None` if that is taken too.
    pub(super) fn take(&self, most: usize, metrics: &Metrics) -> Option<Seat> {
        let mut taken = self.lock();
        if taken.all >= most + HEALTH_RESERVE {
            return None;
        }
        taken.all += 1;
        let is_reserve = taken.all > most;
        Some(Seat { seats: self.clone(), client: None, is_reserve, _held: metrics.connection_opened() })
    }

    /// Seats that are taken now.
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Puts the seat on the client's account.
    pub(super) fn charge(&mut self, client: IpAddr, most: usize) -> Result<(), ClientFull> {
        let client = client.to_canonical();
        let mut taken = self.seats.lock();
        let own = taken.by_client.entry(client).or_default();
        if *own >= most {
            return Err(ClientFull);
        }
        *own += 1;
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(own) = taken.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_last_seat_there_is_a_reserve_and_beyond_that_nothing() {
        let (seats, metrics) = (Seats::default(), Metrics::new());
        let ordinary: Vec<Seat> = (0..3).map(|_| seats.take(3, &metrics).unwrap()).collect();
        assert!(ordinary.iter().all(|seat| !seat.is_reserve));
        let reserve: Vec<Seat> = (0..HEALTH_RESERVE).map(|_| seats.take(3, &metrics).unwrap()).collect();
        assert!(reserve.iter().all(|seat| seat.is_reserve));
        assert!(seats.take(3, &metrics).is_none());
        drop((ordinary, reserve));
        assert_eq!(seats.taken(), 0);
        assert!(!seats.take(3, &metrics).unwrap().is_reserve);
    }

    #[test]
    fn a_client_has_its_share_and_leaves_nothing_behind() {
        let (seats, metrics) = (Seats::default(), Metrics::new());
        let (a, mapped): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap());
        let mut first = seats.take(9, &metrics).unwrap();
        assert_eq!(first.charge(a, 1), Ok(()));
        let mut second = seats.take(9, &metrics).unwrap();
        assert_eq!(second.charge(mapped, 1), Err(ClientFull), "it is the same client");
        assert_eq!(second.charge("10.0.0.2".parse().unwrap(), 1), Ok(()));
        drop(first);
        let mut third = seats.take(9, &metrics).unwrap();
        assert_eq!(third.charge(a, 1), Ok(()));
        drop((second, third));
        assert!(seats.lock().by_client.is_empty());
    }
}
