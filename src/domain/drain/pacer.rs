//! Which leg leaves a draining node next, and when: cheapest streams first, a publisher before its viewers, so many per
//! second, jittered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::domain::ids::{Kind, SessionId, StreamKey};

/// A leg that was told to move, and is still there, is told again after this long: longer than any move takes.
const AGAIN: Duration = Duration::from_secs(10);
/// How late a turn may come and still be made up for.
const LATE: Duration = Duration::from_millis(200);

/// One leg on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LegKey {
    /// Its session.
    pub session: SessionId,
    /// Its stream.
    pub stream: StreamKey,
    /// What it does.
    pub kind: Kind,
}

/// How one leg on the node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegThere {
    /// Which one it is.
    pub key: LegKey,
    /// The node has answered it; one that is still being placed is left alone.
    pub settled: bool,
    /// It is leaving already.
    pub leaving: bool,
}

/// Paces the legs of one draining node at one door.
#[derive(Debug)]
pub struct Pacer {
    /// When the next leg may go.
    next: Instant,
    /// Legs that were told to go, and until when they are not told again.
    told: BTreeMap<LegKey, Instant>,
}

impl Pacer {
    /// A pacer whose first leg goes at once.
    pub fn new(now: Instant) -> Self {
        Self { next: now, told: BTreeMap::new() }
    }

    /// The legs that go now, of those that are `there`. `random` gives numbers from 0 to 1: the moments between two legs are
    /// spread around their mean, so that many doors do not move in step.
    pub fn due(
        &mut self,
        there: &[LegThere],
        per_second: f64,
        now: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Vec<LegKey> {
        self.told.retain(|_, until| *until > now);
        let mean = Duration::try_from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE)).unwrap_or(Duration::MAX);
        // A turn that came late is made up for; time without anybody to move is not.
        let late = now.saturating_duration_since(self.next).min(LATE);
        self.next = self.next.max(now - late);
        let mut going = Vec::new();
        for key in self.candidates(there) {
            if self.next > now {
                return going;
            }
            let pause = mean.mul_f64(0.5 + random().clamp(0.0, 1.0));
            self.next = self.next.checked_add(pause).unwrap_or(now + AGAIN);
            self.told.insert(key.clone(), now + AGAIN);
            going.push(key);
        }
        self.next = self.next.max(now);
        going
    }

    /// Who may go, in order.
    fn candidates(&self, there: &[LegThere]) -> Vec<LegKey> {
        let mut cost: BTreeMap<&StreamKey, usize> = BTreeMap::new();
        let mut leaving: BTreeSet<&StreamKey> = BTreeSet::new();
        for leg in there {
            *cost.entry(&leg.key.stream).or_default() += 1;
            if leg.leaving && leg.key.kind == Kind::Publish {
                leaving.insert(&leg.key.stream);
            }
        }
        let waits = |key: &LegKey| key.kind == Kind::Play && leaving.contains(&key.stream);
        let may_go =
            |leg: &&LegThere| leg.settled && !leg.leaving && !self.told.contains_key(&leg.key) && !waits(&leg.key);
        let mut candidates: Vec<&LegKey> = there.iter().filter(may_go).map(|leg| &leg.key).collect();
        candidates.sort_by_key(|key| (cost[&key.stream], &key.stream, key.kind, key.session));
        // Where the publisher is about to go, the viewers come once it has arrived.
        let publishing: BTreeSet<&StreamKey> =
            candidates.iter().filter(|key| key.kind == Kind::Publish).map(|key| &key.stream).collect();
        let leads = |key: &&&LegKey| key.kind == Kind::Publish || !publishing.contains(&key.stream);
        candidates.iter().filter(leads).map(|key| (*key).clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    fn leg(session: u64, stream: &str, kind: Kind) -> LegThere {
        let stream = StreamKey { app: "LiveApp".parse().unwrap(), stream: stream.parse().unwrap() };
        LegThere { key: LegKey { session: SessionId(session), stream, kind }, settled: true, leaving: false }
    }

    fn sessions(keys: &[LegKey]) -> Vec<u64> {
        keys.iter().map(|key| key.session.0).collect()
    }

    #[test]
    fn cheap_streams_go_first_and_a_publisher_before_its_viewers() {
        let t0 = any_moment();
        let mut there = vec![
            leg(1, "hot", Kind::Play),
            leg(2, "hot", Kind::Play),
            leg(3, "hot", Kind::Publish),
            leg(4, "cold", Kind::Play),
        ];
        let mut pacer = Pacer::new(t0);
        let mut at = t0;
        let mut turn = |there: &[LegThere], ms: u64| {
            at += Duration::from_millis(ms);
            sessions(&pacer.due(there, 1.0, at, || 0.5))
        };
        assert_eq!(turn(&there, 0), [4]);
        assert!(turn(&there, 900).is_empty());
        assert_eq!(turn(&there, 100), [3]);
        there[2].leaving = true;
        there.remove(3);
        assert!(turn(&there, 1000).is_empty(), "its viewers wait until it has arrived");
        there.remove(2);
        assert_eq!(turn(&there, 1000), [1]);
        assert_eq!(turn(&there, 1000), [2]);
        assert!(turn(&there, 1000).is_empty(), "both were told");
        assert_eq!(turn(&there, 9000), [1], "and are told again if they are still there");
    }

    #[test]
    fn the_pace_is_kept_whatever_the_jitter_and_idle_time_is_not_made_up_for() {
        let t0 = any_moment();
        let there: Vec<LegThere> = (0..1_000).map(|n| leg(n, &format!("s{n}"), Kind::Play)).collect();
        let mut pacer = Pacer::new(t0);
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut gone = 0;
        let mut most = 0;
        for tick in 0..200 {
            let now = t0 + Duration::from_millis(100 * tick);
            let going = pacer.due(&there[gone..], 20.0, now, &mut random).len();
            gone += going;
            most = most.max(going);
        }
        assert!((380..=420).contains(&gone), "{gone} in 20 s at 20 per second");
        assert!(most <= 5, "{most} at once");
        let late = t0 + Duration::from_secs(3600);
        assert!(pacer.due(&there[gone..], 20.0, late, || 0.5).len() <= 5);
    }

    #[test]
    fn legs_that_are_being_placed_or_leave_already_are_left_alone() {
        let t0 = any_moment();
        let unsettled = LegThere { settled: false, ..leg(1, "a", Kind::Play) };
        let leaving = LegThere { leaving: true, ..leg(2, "b", Kind::Play) };
        assert!(Pacer::new(t0).due(&[unsettled, leaving], 1000.0, t0, || 0.0).is_empty());
    }
}
