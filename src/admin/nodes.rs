//! `GET /v1/nodes` and `/v1/nodes/{id}`: the nodes as placement sees them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
};
use serde::{Deserialize, Serialize};

use super::{Inner, problem::Problem};
use crate::{
    clock,
    domain::{
        balance::{Legs, NodeState, NodeView, Snapshot},
        ids::{NodeId, Role, Zone},
    },
};

/// Nodes of one answer, where the caller names no limit; and the most that it may name.
const PAGE: usize = 1000;

/// `?limit=&cursor=`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    cursor: Option<NodeId>,
}

/// A list of nodes, sorted by id.
#[derive(Debug, Serialize)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    /// The `cursor` of the next page; null on the last.
    next: Option<NodeId>,
}

#[derive(Debug, Serialize)]
pub(super) struct Node {
    id: NodeId,
    address: String,
    role: Role,
    zone: Option<Zone>,
    state: NodeState,
    reason: Arc<str>,
    /// RFC 3339, UTC.
    since: String,
    legs: Legs,
    load: Load,
    /// No drain is wished.
    drain: Option<()>,
    last_error: Option<Arc<str>>,
}

#[derive(Debug, Serialize)]
struct Load {
    predicted: f32,
    reported: f32,
    parts: Parts,
}

/// Fractions of the node's capacity; null where unknown.
#[derive(Debug, Serialize)]
struct Parts {
    cpu: Option<f32>,
    memory: Option<f32>,
    legs: Option<f32>,
}

impl From<&NodeView> for Node {
    fn from(node: &NodeView) -> Self {
        let load = node.load;
        Self {
            id: node.spec.id.clone(),
            address: node.spec.address.to_string(),
            role: node.spec.role,
            zone: node.spec.zone.clone(),
            state: node.state,
            reason: node.reason.clone(),
            since: clock::rfc3339(node.since),
            legs: node.legs,
            load: Load {
                predicted: load.predicted,
                reported: load.reported,
                parts: Parts { cpu: load.cpu, memory: load.memory, legs: load.legs },
            },
            drain: None,
            last_error: node.last_error.clone(),
        }
    }
}

pub(super) async fn list(
    State(inner): State<Inner>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Nodes>, Problem> {
    let Query(page) = page.map_err(|why| Problem::bad_request(why.body_text()))?;
    page_of(&inner.state.registry.snapshot(), &page).map(Json)
}

pub(super) async fn one(State(inner): State<Inner>, Path(name): Path<String>) -> Result<Json<Node>, Problem> {
    find(&inner.state.registry.snapshot(), &name).map(|node| Json(node.into()))
}

fn page_of(snapshot: &Snapshot, page: &Page) -> Result<Nodes, Problem> {
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=PAGE).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: write 1 to {PAGE}")));
    }
    let after = |node: &NodeView| page.cursor.as_ref().is_some_and(|cursor| node.spec.id <= *cursor);
    let first = snapshot.nodes.partition_point(after);
    let rest = &snapshot.nodes[first..];
    let nodes: Vec<Node> = rest.iter().take(limit).map(Node::from).collect();
    let next = if rest.len() > limit { nodes.last().map(|node| node.id.clone()) } else { None };
    Ok(Nodes { nodes, next })
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
        (Some(_), Some(_)) => Err(Problem::not_found("several nodes have that address: add the port, or use an id")),
        (None, _) => Err(Problem::not_found("no node has that id or address: see GET /v1/nodes")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec},
        ids::NodeAddr,
    };

    fn snapshot(nodes: &[(&str, &str)]) -> Arc<Snapshot> {
        let spec = |(id, address): &(&str, &str)| NodeSpec {
            id: id.parse().unwrap(),
            address: NodeAddr(address.parse().unwrap()),
            role: Role::Edge,
            zone: Some("b".parse().unwrap()),
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: Some(100),
        };
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(nodes.iter().map(spec).collect(), clock::now());
        book.snapshot()
    }

    fn ids(page: &Nodes) -> Vec<&str> {
        page.nodes.iter().map(|node| node.id.as_str()).collect()
    }

    #[test]
    fn a_node_has_the_contracted_shape() {
        let snapshot = snapshot(&[("edge-1", "10.0.0.1:5080")]);
        let json = serde_json::to_value(Node::from(&snapshot.nodes[0])).unwrap();
        let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted =
            ["id", "address", "role", "zone", "state", "reason", "since", "legs", "load", "drain", "last_error"];
        wanted.sort_unstable();
        assert_eq!(keys, wanted);
        assert_eq!(json["address"], "10.0.0.1:5080");
        assert_eq!((&json["role"], &json["zone"]), (&"edge".into(), &"b".into()));
        assert_eq!(json["legs"], serde_json::json!({"publish": 0, "play": 0}));
        assert!(json["load"]["predicted"].is_number() && json["load"]["parts"].is_object());
        assert!(json["drain"].is_null());
        let since = humantime::parse_rfc3339(json["since"].as_str().unwrap()).unwrap();
        assert!(since.elapsed().unwrap() < Duration::from_secs(60));
    }

    #[test]
    fn pages_together_are_the_list() {
        let snapshot = snapshot(&[("a", "10.0.0.1:1"), ("b", "10.0.0.2:1"), ("c", "10.0.0.3:1")]);
        let whole = page_of(&snapshot, &Page::default()).unwrap();
        assert_eq!((ids(&whole), &whole.next), (vec!["a", "b", "c"], &None));
        let first = page_of(&snapshot, &Page { limit: Some(2), cursor: None }).unwrap();
        assert_eq!(ids(&first), ["a", "b"]);
        let second = page_of(&snapshot, &Page { limit: Some(2), cursor: first.next }).unwrap();
        assert_eq!((ids(&second), &second.next), (vec!["c"], &None));
        assert!(page_of(&snapshot, &Page { limit: Some(0), cursor: None }).is_err());
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
