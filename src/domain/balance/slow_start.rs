//! A new or recovered node joins slowly: of the legs that would be its fair share it may take a part that grows with
//! time, since a server that has just started is slower than its load says.

use std::time::{Duration, Instant};

use super::Legs;
use crate::domain::ids::Kind;

/// The part of its fair share that a node may take at once, millionths.
const FIRST_PART: u64 = 100_000;
const WHOLE_PART: u64 = 1_000_000;
/// One leg in [`Shares`].
const LEG: u64 = 1 << 20;

/// How many legs every node would have got since the door started, had all been shared out evenly.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shares {
    publish: u64,
    play: u64,
}

impl Shares {
    /// A leg was placed on one of so many nodes.
    pub(super) fn leg_placed(&mut self, kind: Kind, nodes: u32) {
        let share = LEG / u64::from(nodes.max(1));
        match kind {
            Kind::Publish => self.publish += share,
            Kind::Play => self.play += share,
        }
    }

    fn of(self, kind: Kind) -> u64 {
        match kind {
            Kind::Publish => self.publish,
            Kind::Play => self.play,
        }
    }
}

/// A node that is joining.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    since: Instant,
    at_first: Shares,
    taken: Legs,
    /// Why, for people.
    pub(super) reason: &'static str,
}

impl Joining {
    pub(super) fn begin(reason: &'static str, shares: Shares, now: Instant) -> Self {
        Self { since: now, at_first: shares, taken: Legs::default(), reason }
    }

    pub(super) fn leg_placed(&mut self, kind: Kind) {
        *self.taken.of_mut(kind) += 1;
    }

    pub(super) fn is_over(&self, lasts: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= lasts
    }

    /// Whether it should get no more legs of this kind for now. Its first leg always fits.
    pub(super) fn has_its_share(&self, kind: Kind, shares: Shares, lasts: Duration, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.since).as_secs_f64();
        let part = (age / lasts.as_secs_f64().max(f64::MIN_POSITIVE) * WHOLE_PART as f64) as u64;
        let fair = shares.of(kind).saturating_sub(self.at_first.of(kind)) / LEG;
        let allowed = 1 + fair.saturating_mul(part.clamp(FIRST_PART, WHOLE_PART)) / WHOLE_PART;
        u64::from(self.taken.of(kind)) >= allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    #[test]
    fn its_share_grows_from_a_tenth_to_the_whole() {
        let (t0, lasts) = (any_moment(), Duration::from_secs(60));
        let mut shares = Shares::default();
        shares.leg_placed(Kind::Play, 3);
        let mut joining = Joining::begin("new", shares, t0);
        for _ in 0..400 {
            shares.leg_placed(Kind::Publish, 4);
        }
        // Its fair share of these is 100.
        let mut taken_by = |secs: u64| {
            let now = t0 + Duration::from_secs(secs);
            while !joining.has_its_share(Kind::Publish, shares, lasts, now) {
                joining.leg_placed(Kind::Publish);
            }
            joining.taken.publish
        };
        assert_eq!([taken_by(0), taken_by(3), taken_by(30), taken_by(60)], [11, 11, 51, 101]);
        assert!(!joining.has_its_share(Kind::Play, shares, lasts, t0), "the first leg always fits");
        assert!(!joining.is_over(lasts, t0 + Duration::from_secs(59)));
        assert!(joining.is_over(lasts, t0 + Duration::from_secs(60)));
    }
}
