//! The one owner of what placement knows: applies events, answers requests, reserves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Legs, LoadView, NodeSpec, NodeState, NodeView, PlaceError, Placement, ProbeOutcome, Request, Snapshot};
use crate::domain::ids::{Kind, NodeId};

/// How publishes are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishPolicy {
    /// The lowest predicted load.
    #[default]
    LeastLoaded,
    /// The better of two drawn at random.
    TwoChoices,
    /// One after the other.
    RoundRobin,
    /// The rendezvous hash of the stream.
    Hash,
}

/// The knobs of placement (`[publish]`, `[play]`, `[nodes]`).
#[derive(Debug, Clone, PartialEq)]
pub struct BalanceSettings {
    /// `publish.policy`.
    pub publish_policy: PublishPolicy,
    /// `publish.max_load`: predicted load above which an origin takes no publish (AMS's own limit is 75 % CPU).
    pub publish_max_load: f32,
    /// `play.max_load`: the same for edges.
    pub play_max_load: f32,
    /// `play.share_until`: below this predicted load an edge may collect all viewers of a stream.
    pub share_until: f32,
    /// `play.epsilon`: how far above the mean an edge may go.
    pub epsilon: f32,
    /// `publish.cost`: learned cost's first guess and floor, as a fraction of a node.
    pub publish_cost_floor: f32,
    /// `play.cost`: the same for plays.
    pub play_cost_floor: f32,
    /// `nodes.slow_start`: how long a new or recovered node joins.
    pub slow_start: Duration,
    /// `nodes.probe_fall`: consecutive failed probes before a node is down.
    pub probe_fall: u32,
    /// `nodes.probe_rise`: consecutive answered probes before a down node joins.
    pub probe_rise: u32,
    /// `nodes.breaker_failures`: consecutive link failures that open the breaker.
    pub breaker_failures: u32,
    /// `nodes.breaker_open`: how long an open breaker stays open before probation (doubles up to 8 times this).
    pub breaker_open: Duration,
}

impl Default for BalanceSettings {
    fn default() -> Self {
        Self {
            publish_policy: PublishPolicy::LeastLoaded,
            publish_max_load: 0.75,
            play_max_load: 0.75,
            share_until: 0.5,
            epsilon: 0.25,
            publish_cost_floor: 0.005,
            play_cost_floor: 0.002,
            slow_start: Duration::from_secs(60),
            probe_fall: 3,
            probe_rise: 2,
            breaker_failures: 3,
            breaker_open: Duration::from_secs(5),
        }
    }
}

/// What a node (or AMS on its behalf) last said of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// CPU, 0 to 1.
    pub cpu: Option<f32>,
    /// Memory, 0 to 1.
    pub memory: Option<f32>,
    /// When it was measured, on this process's clock.
    pub at: Instant,
}

/// The one owner of what placement knows.
#[derive(Debug)]
pub struct Book {
    snapshot: Arc<Snapshot>,
    settings: BalanceSettings,
}

impl Book {
    /// An empty book. The first nodes it is given serve at once: the door is new, they are not.
    pub fn new(settings: BalanceSettings) -> Self {
        Self { snapshot: Arc::default(), settings }
    }

    /// Replaces the set of nodes; what is known of those that stay is kept.
    pub fn set_nodes(&mut self, specs: Vec<NodeSpec>, now: Instant) {
        let mut nodes: Vec<NodeView> = specs
            .into_iter()
            .map(|spec| NodeView {
                spec: Arc::new(spec),
                state: NodeState::Serving,
                reason: "".into(),
                since: now,
                load: LoadView::default(),
                legs: Legs::default(),
                last_error: None,
            })
            .collect();
        nodes.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        self.snapshot = Arc::new(Snapshot { nodes });
    }

    /// Takes a node's own report of its load.
    pub fn report(&mut self, _node: &NodeId, _report: Report) {}

    /// Takes a probe's outcome. Only a door's own probe or link decides liveness.
    pub fn probe(&mut self, _node: &NodeId, _outcome: ProbeOutcome, _now: Instant) {}

    /// A link to the node failed (dial, handshake, silence, loss), with the cause for people.
    pub fn link_failed(&mut self, _node: &NodeId, _cause: &str, _now: Instant) {}

    /// A link to the node came up.
    pub fn link_ok(&mut self, _node: &NodeId, _now: Instant) {}

    /// The node refused a leg for want of resources (`highResourceUsage`): counts as full until its next report.
    pub fn refused(&mut self, _node: &NodeId, _now: Instant) {}

    /// A leg that [`Book::place`] reserved has ended.
    pub fn leg_ended(&mut self, _node: &NodeId, _kind: Kind, _now: Instant) {}

    /// Lets time pass: slow start ends, breakers go to probation, learned costs fade. Call about once a second.
    pub fn tick(&mut self, _now: Instant) {}

    /// Chooses a node and, if the request has a kind, reserves the leg on it until [`Book::leg_ended`].
    pub fn place(&mut self, request: &Request<'_>, now: Instant) -> Result<Placement, PlaceError> {
        self.explain(request, now)
    }

    /// The placement that [`Book::place`] would make, without reserving.
    pub fn explain(&self, _request: &Request<'_>, _now: Instant) -> Result<Placement, PlaceError> {
        let _ = &self.settings;
        Err(PlaceError::NoCapacity(Vec::new()))
    }

    /// All nodes at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }
}
