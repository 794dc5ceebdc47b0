//! Whether a node lives, as far as the door's own probes and links can tell, and how it comes back.
//!
//! No report enters here: a stale heartbeat never ends a node that answers, and a fresh one never saves one that does
//! not (facts/ams.md, trap 8).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BalanceSettings, NodeState, ProbeOutcome,
    breaker::{Breaker, BreakerSettings},
    slow_start::{Joining, Shares},
};
use crate::domain::ids::Kind;

/// An operator's wish that a node ends up empty, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Legs are still there.
    Draining,
    /// It is empty; holds until the wish is withdrawn.
    Drained,
}

/// The thresholds of liveness.
#[derive(Debug, Clone)]
pub(super) struct LivenessSettings {
    probe_fall: u32,
    probe_rise: u32,
    breaker: BreakerSettings,
    pub(super) slow_start: Duration,
}

/// Longest time that an open breaker may be set to; doublings stay far from overflowing a clock.
const LONGEST_OPEN: Duration = Duration::from_secs(3600);

impl LivenessSettings {
    pub(super) fn new(settings: &BalanceSettings) -> Self {
        let breaker = BreakerSettings {
            failures: settings.breaker_failures.max(1),
            open: settings.breaker_open.min(LONGEST_OPEN),
        };
        Self {
            probe_fall: settings.probe_fall.max(1),
            probe_rise: settings.probe_rise.max(1),
            breaker,
            slow_start: settings.slow_start,
        }
    }
}

/// One node's liveness.
#[derive(Debug, Clone)]
pub(super) struct Liveness {
    drain: Option<Drain>,
    probes: Probes,
    breaker: Breaker,
    /// Why the breaker opened last.
    broken: Arc<str>,
    joining: Option<Joining>,
    /// Why it serves, once nothing else is the case.
    serves: &'static str,
}

#[derive(Debug, Clone)]
enum Probes {
    Up { failed: u32 },
    Down { answered: u32, reason: Arc<str> },
}

impl Liveness {
    /// A node that serves at once.
    pub(super) fn serving() -> Self {
        Self {
            drain: None,
            probes: Probes::Up { failed: 0 },
            breaker: Breaker::default(),
            broken: Arc::default(),
            joining: None,
            serves: "known since the door started",
        }
    }

    /// A node that joins slowly.
    pub(super) fn joining(reason: &'static str, shares: Shares, now: Instant) -> Self {
        Self { joining: Some(Joining::begin(reason, shares, now)), serves: "has joined", ..Self::serving() }
    }

    /// The state by design.md §4's order, with the reason for people.
    pub(super) fn state(&self) -> (NodeState, Arc<str>) {
        match self.drain {
            Some(Drain::Draining) => return (NodeState::Draining, "an operator wants it empty".into()),
            Some(Drain::Drained) => return (NodeState::Drained, "an operator wanted it empty, and it is".into()),
            None => {}
        }
        if let Probes::Down { reason, .. } = &self.probes {
            return (NodeState::Down, Arc::clone(reason));
        }
        if self.breaker.is_open() {
            return (NodeState::Down, Arc::clone(&self.broken));
        }
        if self.breaker.on_probation() {
            return (NodeState::Joining, "on probation after its links failed".into());
        }
        match &self.joining {
            Some(joining) => (NodeState::Joining, joining.reason.into()),
            None => (NodeState::Serving, self.serves.into()),
        }
    }

    /// Whether slow start or probation forbids another leg of this kind for now.
    pub(super) fn joins_too_fast(&self, kind: Kind, shares: Shares, settings: &LivenessSettings, now: Instant) -> bool {
        let has_its_share = |joining: &Joining| joining.has_its_share(kind, shares, settings.slow_start, now);
        self.breaker.has_its_few() || self.joining.as_ref().is_some_and(has_its_share)
    }

    /// Whether [`Liveness::joins_too_fast`] may change as legs are placed elsewhere.
    pub(super) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    pub(super) fn leg_placed(&mut self, kind: Kind) {
        self.breaker.placed();
        if let Some(joining) = &mut self.joining {
            joining.leg_placed(kind);
        }
    }

    pub(super) fn probe(&mut self, outcome: &ProbeOutcome, settings: &LivenessSettings, shares: Shares, now: Instant) {
        match (&mut self.probes, outcome) {
            (Probes::Up { failed }, ProbeOutcome::Answered) => *failed = 0,
            (Probes::Up { failed }, ProbeOutcome::Failed(cause)) => {
                *failed += 1;
                if *failed >= settings.probe_fall {
                    let reason = format!("{failed} probes in a row failed: {cause}").into();
                    self.probes = Probes::Down { answered: 0, reason };
                    self.joining = None;
                }
            }
            (Probes::Down { answered, .. }, ProbeOutcome::Answered) => {
                *answered += 1;
                if *answered >= settings.probe_rise {
                    self.probes = Probes::Up { failed: 0 };
                    self.join("answers probes again", shares, now);
                }
            }
            (Probes::Down { answered, .. }, ProbeOutcome::Failed(_)) => *answered = 0,
        }
    }

    pub(super) fn link_failed(&mut self, cause: &str, settings: &LivenessSettings, now: Instant) {
        if self.breaker.failed(settings.breaker, now) {
            self.broken = format!("links to it fail: {cause}").into();
            self.joining = None;
        }
    }

    pub(super) fn link_ok(&mut self, shares: Shares, now: Instant) {
        if self.breaker.succeeded() {
            self.join("links to it hold again", shares, now);
        }
    }

    /// A withdrawn wish makes the node join like a new one.
    pub(super) fn set_drain(&mut self, drain: Option<Drain>, shares: Shares, now: Instant) {
        let was_drained = self.drain.is_some();
        self.drain = drain;
        if was_drained && drain.is_none() {
            self.join("its drain was cancelled", shares, now);
        }
    }

    pub(super) fn tick(&mut self, settings: &LivenessSettings, now: Instant) {
        self.breaker.tick(settings.breaker, now);
        if self.joining.as_ref().is_some_and(|joining| joining.is_over(settings.slow_start, now)) {
            self.joining = None;
        }
    }

    fn join(&mut self, reason: &'static str, shares: Shares, now: Instant) {
        self.joining = Some(Joining::begin(reason, shares, now));
        self.serves = "has joined";
    }
}
