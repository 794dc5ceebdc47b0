//! Whether the door wants new sessions, readable from anywhere without waiting for anyone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

/// What the door says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Not all listeners are up yet.
    Starting,
    /// Takes new sessions.
    Ready,
    /// Wants no new clients, since it is about to end its sessions: for good, or until an operator says otherwise.
    Draining,
    /// Ready, but with as many sessions as it is allowed.
    OverLimit,
}

impl Ready {
    /// Whether a load balancer should send clients.
    pub fn takes_sessions(self) -> bool {
        matches!(self, Self::Ready)
    }

    /// The word in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::OverLimit => "over_limit",
        }
    }
}

/// One door's readiness. Clones share it; reading is one or two atomic loads.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    phase: AtomicU8,
    over_limit: AtomicBool,
    by_operator: AtomicBool,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// A door that starts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything is up. A door that already drains keeps draining.
    pub fn started(&self) {
        // A drain that came first wins, and then there is nothing to do.
        let _ = self.0.phase.compare_exchange(STARTING, READY, Ordering::Release, Ordering::Relaxed);
    }

    /// Load balancers should look away from now on.
    pub fn drain(&self) {
        self.0.phase.store(DRAINING, Ordering::Release);
    }

    /// An operator wants load balancers to look away, or does no more. A door that ends drains all the same.
    pub fn set_by_operator(&self, draining: bool) {
        self.0.by_operator.store(draining, Ordering::Release);
    }

    /// Whether the door has as many sessions as it is allowed.
    pub fn set_over_limit(&self, over: bool) {
        self.0.over_limit.store(over, Ordering::Release);
    }

    /// What the door says of itself now.
    pub fn now(&self) -> Ready {
        match self.0.phase.load(Ordering::Acquire) {
            STARTING => Ready::Starting,
            READY if self.0.by_operator.load(Ordering::Acquire) => Ready::Draining,
            READY if self.0.over_limit.load(Ordering::Acquire) => Ready::OverLimit,
            READY => Ready::Ready,
            _ => Ready::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_ready_between_its_start_and_its_drain_unless_it_is_full() {
        let door = Readiness::new();
        assert_eq!(door.now(), Ready::Starting);
        door.set_over_limit(true);
        assert_eq!(door.now(), Ready::Starting);
        door.started();
        assert_eq!(door.now(), Ready::OverLimit);
        door.set_over_limit(false);
        assert_eq!(door.clone().now(), Ready::Ready);
        door.set_by_operator(true);
        assert_eq!(door.now(), Ready::Draining);
        door.set_by_operator(false);
        assert_eq!(door.now(), Ready::Ready);
        door.drain();
        door.set_by_operator(false);
        door.started();
        assert_eq!(door.now(), Ready::Draining, "a start that ends late does not undo a drain");
    }
}
