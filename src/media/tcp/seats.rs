//! How many ICE-TCP connections there may be, in all and of one source, so that one source cannot take everybody's.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::telemetry::metrics::TcpEnd;

/// The seats that there are.
#[derive(Debug, Clone)]
pub(super) struct Seats(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    all: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only sources with a seat: as bounded as `all`.
    by_source: HashMap<IpAddr, usize>,
}

impl Seats {
    pub(super) fn new(all: usize, per_source: usize) -> Self {
        Self(Arc::new(Inner { all, per_source, taken: Mutex::default() }))
    }

    /// A seat for a connection from there, or why there is none.
    pub(super) fn take(&self, source: IpAddr) -> Result<Seat, TcpEnd> {
        let source = household(source);
        let mut taken = self.0.taken();
        if taken.all >= self.0.all {
            return Err(TcpEnd::Full);
        }
        let own = taken.by_source.entry(source).or_default();
        if *own >= self.0.per_source {
            return Err(TcpEnd::SourceFull);
        }
        *own += 1;
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(&self.0), source })
    }
}

impl Inner {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Inner>,
    source: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_source.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// What one IPv6 household holds is a /64 at least.
fn household(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_has_its_share_and_no_more() {
        let seats = Seats::new(3, 2);
        let first = seats.take(ip("2001:db8::1")).unwrap();
        let _second = seats.take(ip("2001:db8::ffff:1")).unwrap();
        assert_eq!(seats.take(ip("2001:db8::2")).unwrap_err(), TcpEnd::SourceFull);
        let _other = seats.take(ip("203.0.113.7")).unwrap();
        assert_eq!(seats.take(ip("2001:db8:0:1::1")).unwrap_err(), TcpEnd::Full);
        drop(first);
        assert!(seats.take(ip("2001:db8::2")).is_ok());
        assert_eq!(seats.0.taken().by_source.len(), 2, "who has none is not remembered");
    }
}
