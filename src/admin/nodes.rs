//! `GET /v1/nodes` and `/v1/nodes/{id}`: the nodes as placement sees them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Inner,
    ask::{self, Params},
    drains::Drain,
    history::History,
    problem::Problem,
    words::{NodeState, Role},
};
use crate::{
    clock,
    domain::{
        balance::{self, NodeView, ProbeOutcome, Snapshot},
        ids::NodeId,
    },
};

/// Nodes of one answer, where the caller names no limit.
const PAGE: usize = 1000;

/// Which part of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Nodes of one answer, at most 1000.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Add the load of the last minutes to each node.
    #[serde(default)]
    history: bool,
}

/// A list of nodes, sorted by id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The `cursor` of the next page; null on the last.
    #[schema(value_type = Option<String>)]
    next: Option<NodeId>,
}

/// One Ant Media Server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Node {
    /// Its configured name, else its address.
    #[schema(value_type = String, example = "edge-1")]
    id: NodeId,
    /// Its HTTP and WebSocket port.
    #[schema(example = "10.0.2.1:5080")]
    address: String,
    role: Role,
    zone: Option<String>,
    state: NodeState,
    /// Why it is in this state.
    #[schema(value_type = String)]
    reason: Arc<str>,
    /// Since when it is in this state. RFC 3339, UTC.
    since: String,
    legs: Legs,
    load: Load,
    /// Its drain; null if nobody wants it empty.
    drain: Option<Drain>,
    /// What the last probe saw; null before the first.
    probe: Option<Probe>,
    /// The last failures seen of it, the latest first.
    errors: Vec<Failure>,
    /// The load of the last minutes, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<History>,
}

/// Legs by kind, of all doors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Legs {
    publish: u32,
    play: u32,
}

impl Legs {
    /// Of both kinds.
    pub(super) fn all(self) -> u64 {
        u64::from(self.publish) + u64::from(self.play)
    }
}

impl From<balance::Legs> for Legs {
    fn from(legs: balance::Legs) -> Self {
        Self { publish: legs.publish, play: legs.play }
    }
}

/// Load as a fraction of the node's capacity.
#[derive(Debug, Serialize, ToSchema)]
struct Load {
    /// What a leg placed now would find: reported plus what was placed since.
    predicted: f32,
    /// The largest of the parts, as last reported.
    reported: f32,
    parts: Parts,
}

/// Fractions of the node's capacity; null where unknown.
#[derive(Debug, Serialize, ToSchema)]
struct Parts {
    cpu: Option<f32>,
    memory: Option<f32>,
    /// Legs as a fraction of the configured limits.
    legs: Option<f32>,
}

/// What this door's last probe of the node saw.
#[derive(Debug, Serialize, ToSchema)]
struct Probe {
    answered: bool,
    /// RFC 3339, UTC.
    at: String,
    took_ms: u64,
    /// Why it counts as failed.
    error: Option<String>,
}

/// A failure seen of a node.
#[derive(Debug, Serialize, ToSchema)]
struct Failure {
    /// When it was last seen. RFC 3339, UTC.
    at: String,
    #[schema(value_type = String)]
    cause: Arc<str>,
}

impl Node {
    pub(super) fn of(inner: &Inner, node: &NodeView) -> Self {
        let (id, load) = (&node.spec.id, node.load);
        let probe = inner.state.probes.of(id).map(|probed| Probe {
            answered: probed.outcome == ProbeOutcome::Answered,
            at: clock::rfc3339(probed.at),
            took_ms: u64::try_from(probed.took.as_millis()).unwrap_or(u64::MAX),
            error: match probed.outcome {
                ProbeOutcome::Answered => None,
                ProbeOutcome::Failed(why) => Some(why.into()),
            },
        });
        let failure = |error: &balance::NodeError| Failure { at: clock::rfc3339(error.at), cause: error.cause.clone() };
        Self {
            id: id.clone(),
            address: node.spec.address.to_string(),
            role: node.spec.role.into(),
            zone: node.spec.zone.as_ref().map(|zone| zone.as_str().to_owned()),
            state: node.state.into(),
            reason: node.reason.clone(),
            since: clock::rfc3339(node.since),
            legs: node.legs.into(),
            load: Load {
                predicted: load.predicted,
                reported: load.reported,
                parts: Parts { cpu: load.cpu, memory: load.memory, legs: load.legs },
            },
            drain: inner.state.registry.drain_of(id).map(Drain::from),
            probe,
            errors: node.errors.iter().map(failure).collect(),
            history: None,
        }
    }

    /// The node with this id or address, as it is now.
    pub(super) fn find(inner: &Inner, name: &str) -> Result<Self, Problem> {
        find(&inner.state.registry.snapshot(), name).map(|node| Self::of(inner, node))
    }

    pub(super) fn drain(&self) -> Option<&Drain> {
        self.drain.as_ref()
    }
}

/// All nodes, sorted by id.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(Wanted), responses((status = 200, body = Nodes)))]
pub(super) async fn list(State(inner): State<Inner>, Params(wanted): Params<Wanted>) -> Result<Json<Nodes>, Problem> {
    let snapshot = inner.state.registry.snapshot();
    let limit = ask::limit(wanted.limit, PAGE)?;
    let cursor = ask::cursor::<NodeId>(wanted.cursor.as_deref())?;
    let (page, next) = page_of(&snapshot, limit, cursor.as_ref());
    let mut nodes: Vec<Node> = page.iter().map(|node| Node::of(&inner, node)).collect();
    if wanted.history {
        for node in &mut nodes {
            node.history = Some(inner.history.of(&node.id));
        }
    }
    Ok(Json(Nodes { nodes, next }))
}

/// One node, by id or address.
#[utoipa::path(
    get,
    path = "/v1/nodes/{id}",
    tag = "nodes",
    params(("id" = String, Path, description = "its id, its address, or its address without the port")),
    responses((status = 200, body = Node))
)]
pub(super) async fn one(State(inner): State<Inner>, Path(name): Path<String>) -> Result<Json<Node>, Problem> {
    let mut node = Node::find(&inner, &name)?;
    node.history = Some(inner.history.of(&node.id));
    Ok(Json(node))
}

fn page_of<'a>(snapshot: &'a Snapshot, limit: usize, cursor: Option<&NodeId>) -> (&'a [NodeView], Option<NodeId>) {
    let first = snapshot.nodes.partition_point(|node| cursor.is_some_and(|cursor| node.spec.id <= *cursor));
    let rest = &snapshot.nodes[first..];
    match rest.split_at_checked(limit) {
        Some((page, more)) if !more.is_empty() => (page, page.last().map(|node| node.spec.id.clone())),
        _ => (rest, None),
    }
}

/// Finds a node by its id or its address; the port may be left out where one node only has that address.
pub(super) fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a NodeView, Problem> {
    let by_id = name.parse::<NodeId>().ok().and_then(|id| snapshot.get(&id));
    let by_address = || {
        let address: SocketAddr = name.parse().ok()?;
        snapshot.nodes.iter().find(|node| node.spec.address.0 == address)
    };
    if let Some(node) = by_id.or_else(by_address) {
        return Ok(node);
    }
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let mut there = snapshot.nodes.iter().filter(|node| Some(node.spec.address.0.ip()) == ip);
    match (there.next(), there.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => {
            Err(Problem::not_found("ambiguous_node", "several nodes have that address: add the port, or use an id"))
        }
        (None, _) => Err(Problem::not_found("unknown_node", "no node has that id or address: see GET /v1/nodes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec},
        ids::{self, NodeAddr},
    };

    fn snapshot(nodes: &[(&str, &str)]) -> Arc<Snapshot> {
        let spec = |(id, address): &(&str, &str)| NodeSpec {
            id: id.parse().unwrap(),
            address: NodeAddr(address.parse().unwrap()),
            role: ids::Role::Edge,
            zone: Some("b".parse().unwrap()),
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: Some(100),
        };
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(nodes.iter().map(spec).collect(), clock::now());
        book.snapshot()
    }

    #[test]
    fn pages_together_are_the_list() {
        let snapshot = snapshot(&[("a", "10.0.0.1:1"), ("b", "10.0.0.2:1"), ("c", "10.0.0.3:1")]);
        let ids = |limit, cursor: Option<&str>| {
            let cursor = cursor.map(|cursor| cursor.parse().unwrap());
            let (page, next) = page_of(&snapshot, limit, cursor.as_ref());
            let ids: Vec<String> = page.iter().map(|node| node.spec.id.to_string()).collect();
            (ids.concat(), next.map(|next| next.to_string()))
        };
        assert_eq!(ids(3, None), ("abc".into(), None));
        assert_eq!(ids(2, None), ("ab".into(), Some("b".into())));
        assert_eq!(ids(2, Some("b")), ("c".into(), None));
        assert_eq!(ids(9, Some("z")), (String::new(), None));
    }

    #[test]
    fn a_node_is_found_by_id_or_address() {
        let snapshot = snapshot(&[("a", "10.0.0.1:5080"), ("b", "10.0.0.2:5080"), ("c", "10.0.0.2:6080")]);
        for (name, id) in [("a", "a"), ("10.0.0.1:5080", "a"), ("10.0.0.1", "a"), ("10.0.0.2:6080", "c")] {
            assert_eq!(find(&snapshot, name).unwrap().spec.id.as_str(), id, "{name}");
        }
        for name in ["10.0.0.2", "10.0.0.3", "d", "", "10.0.0.1:1"] {
            assert!(find(&snapshot, name).is_err(), "{name}");
        }
    }
}
