//! Rate limits: a bucket is one number, and the sources that failed to authenticate share a table of fixed size.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use super::{hash::Seeded, settings::BLAMED_SOURCES};

/// Slots that a source may fall into; more would cost every junk packet more.
const WAYS: usize = 4;
const SECOND: u64 = 1_000_000_000;

/// How fast a bucket fills: one unit per `interval` nanoseconds, and `burst` nanoseconds' worth at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    interval: u64,
    burst: u64,
}

impl Rate {
    /// `count` units per `period`, `burst` of them at once; zero counts as one.
    pub(super) fn new(count: u32, period: Duration, burst: u32) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = period / u64::from(count.max(1));
        Self { interval, burst: interval.saturating_mul(u64::from(burst.max(1) - 1)) }
    }
}

/// When the bucket will be full again, in nanoseconds of the core: the generic cell rate algorithm.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket(u64);

impl Bucket {
    /// Whether nothing is left.
    pub(super) fn is_spent(self, rate: Rate, now: u64) -> bool {
        self.0.saturating_sub(now) > rate.burst
    }

    /// Takes one unit that is there, or goes into debt.
    pub(super) fn charge(&mut self, rate: Rate, now: u64) {
        self.0 = self.0.max(now).saturating_add(rate.interval);
    }

    /// Takes one unit, if one is there.
    pub(super) fn take(&mut self, rate: Rate, now: u64) -> bool {
        let there = !self.is_spent(rate, now);
        if there {
            self.charge(rate, now);
        }
        there
    }

    /// Puts one unit back.
    pub(super) fn refund(&mut self, rate: Rate) {
        self.0 = self.0.saturating_sub(rate.interval);
    }

    /// Takes bytes out of a bucket that fills with `per_second` and holds one second's worth.
    pub(super) fn take_bytes(&mut self, bytes: usize, per_second: u64, now: u64) -> bool {
        let there = self.0.saturating_sub(now) <= SECOND;
        if there {
            let cost = (bytes as u64).saturating_mul(SECOND) / per_second.max(1);
            self.0 = self.0.max(now).saturating_add(cost);
        }
        there
    }
}

/// Who failed to authenticate how often, by /32 or /64: approximate, of fixed size, and never in the way of tuples
/// that have a flow.
#[derive(Debug)]
pub(super) struct Sources {
    slots: Box<[(u64, Bucket)]>,
    hash: Seeded,
    rate: Rate,
}

impl Sources {
    pub(super) fn new(rate: Rate, hash: Seeded) -> Self {
        Self { slots: vec![(0, Bucket::default()); BLAMED_SOURCES].into_boxed_slice(), hash, rate }
    }

    /// Whether this source has used up what it may fail.
    pub(super) fn is_spent(&self, source: IpAddr, now: u64) -> bool {
        let key = self.key(source);
        let (at, end) = Self::set(key);
        self.slots[at..end].iter().any(|(held, bucket)| *held == key && bucket.is_spent(self.rate, now))
    }

    /// Blames one failure on this source.
    pub(super) fn charge(&mut self, source: IpAddr, now: u64) {
        let key = self.key(source);
        let (at, end) = Self::set(key);
        let set = &mut self.slots[at..end];
        if let Some((_, bucket)) = set.iter_mut().find(|(held, _)| *held == key) {
            bucket.charge(self.rate, now);
            return;
        }
        let least = set.iter_mut().min_by_key(|(_, bucket)| bucket.0).expect("a set has slots");
        *least = (key, Bucket::default());
        least.1.charge(self.rate, now);
    }

    fn key(&self, source: IpAddr) -> u64 {
        match source.to_canonical() {
            IpAddr::V4(v4) => self.hash.of(&v4.octets()),
            IpAddr::V6(v6) => self.hash.of(&prefix(v6)),
        }
    }

    fn set(key: u64) -> (usize, usize) {
        // Truncation is harmless: the remainder is below the table's size.
        let at = (key % (BLAMED_SOURCES / WAYS) as u64) as usize * WAYS;
        (at, at + WAYS)
    }
}

/// What one IPv6 household holds is a /64 at least.
fn prefix(address: Ipv6Addr) -> [u8; 8] {
    let mut prefix = [0; 8];
    prefix.copy_from_slice(&address.octets()[..8]);
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources::new(Rate::new(50, Duration::from_secs(1), 100), Seeded::new(7))
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10, Duration::from_secs(1), 5));
        let at_once = (0..100).filter(|_| bucket.take(rate, SECOND)).count();
        let in_a_second = (0..1000).filter(|ms| bucket.take(rate, SECOND + ms * 1_000_000)).count();

        assert_eq!(at_once, 5);
        assert!((9..=10).contains(&in_a_second), "{in_a_second}");
    }

    #[test]
    fn bytes_are_held_to_their_rate_after_a_second_worth() {
        let mut bucket = Bucket::default();
        let passed = (0..10_000u64).filter(|n| bucket.take_bytes(1000, 100_000, n * 1_000_000)).count();

        // Ten seconds of 100 packets, and one second's worth at once.
        assert!((1095..=1105).contains(&passed), "{passed}");
    }

    #[test]
    fn a_source_is_spent_after_its_burst_and_forgiven_with_time() {
        let (mut sources, guilty, other) =
            (sources(), "203.0.113.7".parse().unwrap(), "203.0.113.8".parse::<IpAddr>().unwrap());
        for _ in 0..100 {
            assert!(!sources.is_spent(guilty, 0));
            sources.charge(guilty, 0);
        }

        assert!(sources.is_spent(guilty, 0));
        assert!(!sources.is_spent(other, 0));
        assert!(!sources.is_spent(guilty, SECOND / 50));
    }

    #[test]
    fn one_ipv6_household_is_one_source_and_a_mapped_address_is_its_ipv4_one() {
        let mut sources = sources();
        for _ in 0..100 {
            sources.charge("2001:db8:1:2::1".parse().unwrap(), 0);
            sources.charge("::ffff:203.0.113.7".parse().unwrap(), 0);
        }

        assert!(sources.is_spent("2001:db8:1:2:ffff::9".parse().unwrap(), 0));
        assert!(!sources.is_spent("2001:db8:1:3::1".parse().unwrap(), 0));
        assert!(sources.is_spent("203.0.113.7".parse().unwrap(), 0));
    }
}
