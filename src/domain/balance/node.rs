//! What placement knows of one node and shows of it.

use std::{sync::Arc, time::Instant};

use crate::domain::ids::{Kind, NodeAddr, NodeId, Role, Zone};

/// A node as configured or discovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub id: NodeId,
    /// Where its HTTP and WebSocket port is.
    pub address: NodeAddr,
    /// What it does.
    pub role: Role,
    /// Where it stands.
    pub zone: Option<Zone>,
    /// Other hosts or addresses under which AMS's records may name it (`originAdress`, `clusternode.ip`).
    pub aliases: Vec<Box<str>>,
    /// At most this many publishes by this cluster's doors; `None` is no limit of ours.
    pub max_publishes: Option<u32>,
    /// At most this many plays by this cluster's doors.
    pub max_plays: Option<u32>,
}

/// A node's state, as derived in design.md §4 in this order: drain wish, down, joining, serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Takes legs.
    Serving,
    /// New or recovered: takes legs slowly.
    Joining,
    /// Does not answer, or its breaker is open.
    Down,
    /// An operator wants it empty; takes no new legs.
    Draining,
    /// An operator wanted it empty, and it is.
    Drained,
}

impl NodeState {
    /// Whether new legs may be placed on a node in this state.
    pub fn takes_legs(self) -> bool {
        matches!(self, Self::Serving | Self::Joining)
    }
}

/// Legs by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Legs {
    /// Publishes.
    pub publish: u32,
    /// Plays.
    pub play: u32,
}

impl Legs {
    /// The legs of one kind.
    pub fn of(self, kind: Kind) -> u32 {
        match kind {
            Kind::Publish => self.publish,
            Kind::Play => self.play,
        }
    }

    pub(super) fn of_mut(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Publish => &mut self.publish,
            Kind::Play => &mut self.play,
        }
    }
}

/// A node's load as fractions of its capacity, with its parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct LoadView {
    /// What a leg placed now would find: reported plus what was placed since.
    pub predicted: f32,
    /// The largest of the parts below: CPU and memory as last reported, legs as they are now.
    pub reported: f32,
    /// CPU, 0 to 1, where reported.
    pub cpu: Option<f32>,
    /// Memory, 0 to 1, where reported.
    pub memory: Option<f32>,
    /// Legs as a fraction of the configured limits (of the kind that is nearer to its own), where there are limits.
    pub legs: Option<f32>,
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The node answered.
    Answered,
    /// The node did not answer, with the cause for people.
    Failed(Box<str>),
}

/// One node in a snapshot.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// As configured or discovered.
    pub spec: Arc<NodeSpec>,
    /// Its state.
    pub state: NodeState,
    /// Why it is in this state, for people.
    pub reason: Arc<str>,
    /// Since when.
    pub since: Instant,
    /// Its load.
    pub load: LoadView,
    /// Legs that all live doors of the cluster have there, as far as this one knows.
    pub legs: Legs,
    /// The last failures seen of it, the latest first; at most five.
    pub errors: Arc<[NodeError]>,
}

/// Failures of one node that are kept; one that only repeats the latest takes its place.
const KEPT_ERRORS: usize = 5;

/// A failure seen of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    /// When it was last seen.
    pub at: Instant,
    /// What it was, for people.
    pub cause: Arc<str>,
}

/// The failures with one more.
pub(super) fn with_error(errors: &[NodeError], cause: &str, at: Instant) -> Arc<[NodeError]> {
    let is_repeated = errors.first().is_some_and(|last| &*last.cause == cause);
    let (cause, older) = match errors {
        [last, older @ ..] if is_repeated => (Arc::clone(&last.cause), older),
        older => (cause.into(), older),
    };
    std::iter::once(NodeError { at, cause }).chain(older.iter().cloned()).take(KEPT_ERRORS).collect()
}
