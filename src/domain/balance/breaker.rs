//! What failing links say of a node: after several in a row it is left alone for a while, then tried with a few legs.
//!
//! ```text
//! closed ──failures in a row──► open ──time──► probation ──a link holds──► closed
//!                                ▲                 │
//!                                └── twice as long ┘ a link fails
//! ```

use std::time::{Duration, Instant};

/// Legs that a node on probation may get before one of them has proved anything.
pub(super) const PROBATION_LEGS: u32 = 2;
/// An open breaker doubles its time at most this often: eight times the first.
const MAX_DOUBLINGS: u32 = 3;

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct BreakerSettings {
    pub(super) failures: u32,
    pub(super) open: Duration,
}

/// One node's breaker.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker {
    state: State,
    doublings: u32,
}

#[derive(Debug, Clone)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    Probation { legs: u32, renew: Instant },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Breaker {
    /// Whether the node should be left alone.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether the node is being tried.
    pub(super) fn on_probation(&self) -> bool {
        matches!(self.state, State::Probation { .. })
    }

    /// Whether the node is being tried and has enough legs for that.
    pub(super) fn has_its_few(&self) -> bool {
        matches!(self.state, State::Probation { legs, .. } if legs >= PROBATION_LEGS)
    }

    /// A link failed; says whether that opened the breaker.
    pub(super) fn failed(&mut self, settings: BreakerSettings, now: Instant) -> bool {
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if *failures < settings.failures {
                    return false;
                }
            }
            State::Probation { .. } => self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS),
            // The links that die together with a node are one piece of news.
            State::Open { .. } => return false,
        }
        self.state = State::Open { until: now + settings.open * (1 << self.doublings) };
        true
    }

    /// A link came up; says whether that ended a probation.
    pub(super) fn succeeded(&mut self) -> bool {
        match self.state {
            // It was dialled before the breaker opened: the failures since then weigh more.
            State::Open { .. } => false,
            State::Closed { .. } | State::Probation { .. } => {
                let was_tried = self.on_probation();
                *self = Self::default();
                was_tried
            }
        }
    }

    /// A leg was placed on the node.
    pub(super) fn placed(&mut self) {
        if let State::Probation { legs, .. } = &mut self.state {
            *legs += 1;
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, settings: BreakerSettings, now: Instant) {
        match &mut self.state {
            State::Open { until } if *until <= now => {
                self.state = State::Probation { legs: 0, renew: now + settings.open };
            }
            // Legs that share an old link prove nothing, nor do those that were stopped: a few more are due.
            State::Probation { legs, renew } if *renew <= now => {
                *legs = 0;
                *renew = now + settings.open;
            }
            State::Closed { .. } | State::Open { .. } | State::Probation { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: BreakerSettings = BreakerSettings { failures: 3, open: Duration::from_secs(5) };

    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
    fn any_moment() -> Instant {
        Instant::now()
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed(SETTINGS, now);
        }
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let (mut breaker, now) = (Breaker::default(), any_moment());
        assert!(!breaker.failed(SETTINGS, now));
        assert!(!breaker.failed(SETTINGS, now));
        assert!(!breaker.succeeded());
        assert!(!breaker.failed(SETTINGS, now));
        assert!(!breaker.failed(SETTINGS, now));
        assert!(!breaker.is_open());
        assert!(breaker.failed(SETTINGS, now));
        assert!(breaker.is_open());
        assert!(!breaker.failed(SETTINGS, now), "the other links of a dead node are no news");
    }

    #[test]
    fn it_is_tried_with_a_few_legs_and_one_that_holds_closes_it() {
        let now = any_moment();
        let mut breaker = opened(now);
        breaker.tick(SETTINGS, now + secs(4));
        assert!(breaker.is_open());
        assert!(!breaker.succeeded(), "a link from before");
        breaker.tick(SETTINGS, now + secs(5));
        assert!(breaker.on_probation() && !breaker.has_its_few());
        for _ in 0..PROBATION_LEGS {
            breaker.placed();
        }
        assert!(breaker.has_its_few());
        breaker.tick(SETTINGS, now + secs(10));
        assert!(!breaker.has_its_few(), "legs that prove nothing do not block it for ever");
        assert!(breaker.succeeded());
        assert!(!breaker.on_probation() && !breaker.is_open());
    }

    #[test]
    fn each_failed_probation_doubles_the_time_up_to_eight_times() {
        let mut now = any_moment();
        let mut breaker = opened(now);
        for open in [5, 10, 20, 40, 40] {
            breaker.tick(SETTINGS, now + secs(open) - Duration::from_millis(1));
            assert!(breaker.is_open(), "{open}");
            now += secs(open);
            breaker.tick(SETTINGS, now);
            assert!(breaker.on_probation(), "{open}");
            assert!(breaker.failed(SETTINGS, now));
        }
        breaker.tick(SETTINGS, now + secs(40));
        assert!(breaker.succeeded());
        for _ in 0..3 {
            breaker.failed(SETTINGS, now);
        }
        breaker.tick(SETTINGS, now + secs(5));
        assert!(breaker.on_probation(), "after it closed it starts anew");
    }
}
