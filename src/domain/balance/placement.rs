//! What is asked of placement, and what it answers.

use crate::domain::ids::{Kind, NodeId, StreamKey, Zone};

/// What the node is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// A new publish, on the least-loaded origin (or the configured policy).
    Publish,
    /// A play: an edge, the origin's zone first.
    Play {
        /// The zone of the stream's origin, if known.
        origin_zone: Option<Zone>,
        /// The stream's origin, if known: first choice in a cluster without edges.
        origin: Option<NodeId>,
    },
    /// The two peers of `join`, or a room without a pin: the rendezvous hash of the id over origins.
    Home,
    /// A read that concerns no session: any edge.
    Read,
    /// This node and no other (the stream's own origin, a pin, the publisher's node), if it may take the leg.
    Only(NodeId),
}

/// One question to placement.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The stream: the key of every hash.
    pub stream: &'a StreamKey,
    /// What for.
    pub want: Want,
    /// The rule of [`crate::domain::routing`] that asks. [`Want::Only`] carries it into [`Placement::rule`]; the other
    /// wants are named after the policy that answers them.
    pub rule: &'static str,
    /// What the leg will be counted as; `None` counts nothing (reads, homes).
    pub kind: Option<Kind>,
    /// Nodes that have already failed this leg.
    pub exclude: &'a [NodeId],
    /// Randomness for ties.
    pub seed: u64,
}

/// Why a candidate won or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// This one.
    Chosen,
    /// Fit, but another one was better by the policy.
    Outscored,
    /// Fit, but stands in another zone than the origin.
    OtherZone,
    /// Above the bound of bounded-load hashing.
    AboveBound,
    /// At one of its limits.
    AtLimit,
    /// Joining, and has had its share of new legs for now.
    JoiningTooFast,
    /// Down, draining or drained.
    NotServing,
    /// Already failed this leg.
    Excluded,
    /// Its role does not take this kind.
    WrongRole,
    /// Another node was asked for by name.
    NotAsked,
}

impl Verdict {
    pub(super) const COUNT: usize = Self::ALL.len();

    /// All of them, in order of declaration, so that `ALL[v as usize] == v`.
    pub(super) const ALL: [Self; 10] = [
        Self::Chosen,
        Self::Outscored,
        Self::OtherZone,
        Self::AboveBound,
        Self::AtLimit,
        Self::JoiningTooFast,
        Self::NotServing,
        Self::Excluded,
        Self::WrongRole,
        Self::NotAsked,
    ];
}

/// One node that was looked at.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// The policy's score: predicted load for publishes (lower is better), hash order for plays (higher is better).
    pub score: f64,
    /// Its predicted load at that moment.
    pub predicted: f32,
    /// Why it won or lost.
    pub verdict: Verdict,
}

/// The decision which node gets a leg, with its reasons.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Placement {
    /// The chosen node.
    pub node: NodeId,
    /// The rule that chose it, for people and logs: a policy (`least_loaded`, `two_choices`, `round_robin`, `hash`,
    /// `bounded_hash`, `home`, `read`) or the rule of a request for one node (`live_on_origin`, `pinned`, …).
    pub rule: &'static str,
    /// The best few candidates, the chosen one first; the rest is in `tally`.
    pub candidates: Vec<Candidate>,
    /// How many nodes got each verdict.
    pub tally: Vec<(Verdict, u32)>,
}

/// Why no node was chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlaceError {
    /// No node takes it; the tally says why.
    #[error("no node takes this leg: {0:?}")]
    NoCapacity(Vec<(Verdict, u32)>),
}
