//! Which node a forwarded request should be asked of: first the one that the viewer or the stream already has, then
//! placement's answer.
//!
//! ```text
//! watch  ─► the viewer's edge ─► live? an edge, placed like a play ─► recorded where? ─► any edge
//! page   ─► the viewer's edge ─► any edge
//! read   ─► (what only the origin knows: the origin) ─► any edge
//! create ─► an origin by load ─► an origin by hash
//! change ─► the live stream's origin, whatever its state but down ─► an origin by hash ─► anyone
//! ```

use super::errand::Errand;
use crate::domain::{
    balance::{NodeState, NodeView, Snapshot, Want},
    ids::{Kind, NodeId},
    routing::Lookup,
};

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// This node: it has what is wanted.
    This {
        /// The node.
        node: NodeId,
        /// Why, for logs: `viewer`, `live_on_origin` or `recorded_on`.
        rule: &'static str,
    },
    /// Placement's choice.
    Ask {
        /// The question.
        want: Want,
        /// What a viewer is counted as once he is served.
        kind: Option<Kind>,
    },
}

/// A word that stands for a node where its name must not show (FNV-1a, 64 bits): the same at every door.
pub fn tag(node: &NodeId) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Whether a viewer may stay with, or come back to, a node that serves plays.
pub fn may_keep(node: &NodeId, avoid: &[NodeId], snapshot: &Snapshot) -> bool {
    let edgeless = || !snapshot.nodes.iter().any(|node| node.spec.role.takes_play());
    snapshot.get(node).is_some_and(|node| {
        node.state.takes_legs() && !avoid.contains(&node.spec.id) && (node.spec.role.takes_play() || edgeless())
    })
}

/// What to try for an errand, in order. `lookup` is of its stream, if it has one that placement depends on; `avoid` holds
/// the nodes that have already failed this request.
pub fn choose(errand: &Errand, lookup: &Lookup, avoid: &[NodeId], snapshot: &Snapshot) -> Vec<Pick> {
    let ask = |want| Pick::Ask { want, kind: None };
    match errand {
        Errand::Watch(_) => watch(lookup, avoid, snapshot),
        Errand::Page | Errand::Read => vec![ask(Want::Read)],
        Errand::ReadAtOrigin(_) => live_origin(lookup, avoid, snapshot).into_iter().chain([ask(Want::Read)]).collect(),
        Errand::Create => vec![ask(Want::Publish), ask(Want::Home), ask(Want::Read)],
        Errand::Change(_) => {
            let origin = live_origin(lookup, avoid, snapshot);
            origin.into_iter().chain([ask(Want::Home), ask(Want::Read)]).collect()
        }
    }
}

fn watch(lookup: &Lookup, avoid: &[NodeId], snapshot: &Snapshot) -> Vec<Pick> {
    let play = |origin: Option<&NodeView>| Pick::Ask {
        want: Want::Play {
            origin_zone: origin.and_then(|node| node.spec.zone.clone()),
            origin: origin.map(|node| node.spec.id.clone()),
        },
        kind: Some(Kind::Play),
    };
    match lookup {
        // A full cluster refuses a viewer rather than overload an edge.
        Lookup::Found { record, live: true } => {
            vec![play(record.origin.as_deref().and_then(|name| snapshot.by_ams_name(name)))]
        }
        Lookup::Unknown => vec![play(None)],
        // Recordings lie where they were made; where they were moved to a store, any node finds them.
        Lookup::Found { record, live: false } => {
            let maker = record.origin.as_deref().and_then(|name| snapshot.by_ams_name(name));
            let maker = maker.filter(|node| may_ask(node, avoid));
            let maker = maker.map(|node| Pick::This { node: node.spec.id.clone(), rule: "recorded_on" });
            maker.into_iter().chain([Pick::Ask { want: Want::Read, kind: None }]).collect()
        }
        Lookup::Missing => vec![Pick::Ask { want: Want::Read, kind: None }],
    }
}

/// The origin of a live stream: what concerns the stream concerns it, also while it drains.
fn live_origin(lookup: &Lookup, avoid: &[NodeId], snapshot: &Snapshot) -> Option<Pick> {
    let origin = snapshot.by_ams_name(lookup.live()?.origin.as_deref()?)?;
    may_ask(origin, avoid).then(|| Pick::This { node: origin.spec.id.clone(), rule: "live_on_origin" })
}

fn may_ask(node: &NodeView, avoid: &[NodeId]) -> bool {
    node.state != NodeState::Down && !avoid.contains(&node.spec.id)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec, ProbeOutcome},
        ids::{NodeAddr, Role},
        record::{Record, Status},
    };

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn cluster(down: &[&str]) -> Arc<Snapshot> {
        #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
        let now = Instant::now();
        let spec = |name: &str, address: &str, role, zone: &str| NodeSpec {
            id: id(name),
            address: NodeAddr(address.parse().unwrap()),
            role,
            zone: Some(zone.parse().unwrap()),
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: None,
        };
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(
            vec![
                spec("o1", "10.0.1.1:5080", Role::Origin, "a"),
                spec("e1", "10.0.2.1:5080", Role::Edge, "a"),
                spec("e2", "10.0.2.2:5080", Role::Edge, "b"),
            ],
            now,
        );
        for name in down {
            for _ in 0..3 {
                book.probe(&id(name), ProbeOutcome::Failed("refused".into()), now);
            }
        }
        book.snapshot()
    }

    fn found(live: bool) -> Lookup {
        let record = Record {
            status: Status::Broadcasting,
            origin: Some("10.0.1.1".into()),
            updated_ms: 0,
            started_ms: 0,
            is_virtual: false,
            main_track: None,
        };
        Lookup::Found { record: Arc::new(record), live }
    }

    fn stream() -> Option<crate::domain::ids::StreamId> {
        Some("s".parse().unwrap())
    }

    #[test]
    fn a_live_stream_is_watched_on_an_edge_of_its_origins_zone_and_counted() {
        let picks = choose(&Errand::Watch(stream()), &found(true), &[], &cluster(&[]));
        let want = Want::Play { origin_zone: Some("a".parse().unwrap()), origin: Some(id("o1")) };
        assert_eq!(picks, [Pick::Ask { want, kind: Some(Kind::Play) }], "and nowhere else: a full cluster says so");
    }

    #[test]
    fn a_recording_is_asked_of_the_node_that_made_it_then_of_any() {
        let read = Pick::Ask { want: Want::Read, kind: None };
        let made = Pick::This { node: id("o1"), rule: "recorded_on" };
        let watch =
            |down: &[&str], avoid: &[NodeId]| choose(&Errand::Watch(stream()), &found(false), avoid, &cluster(down));
        assert_eq!(watch(&[], &[]), [made, read.clone()]);
        assert_eq!(watch(&["o1"], &[]), std::slice::from_ref(&read));
        assert_eq!(watch(&[], &[id("o1")]), [read]);
    }

    #[test]
    fn a_change_of_a_live_stream_goes_to_its_origin_and_any_other_to_an_origin() {
        let homes = [Pick::Ask { want: Want::Home, kind: None }, Pick::Ask { want: Want::Read, kind: None }];
        let change = |lookup: &Lookup, down: &[&str]| choose(&Errand::Change(stream()), lookup, &[], &cluster(down));
        assert_eq!(change(&found(true), &[])[0], Pick::This { node: id("o1"), rule: "live_on_origin" });
        assert_eq!(change(&found(true), &["o1"]), homes);
        assert_eq!(change(&found(false), &[]), homes, "an ended stream's record names a node that means nothing");
        assert_eq!(change(&Lookup::Missing, &[]), homes);
    }

    #[test]
    fn a_viewer_keeps_an_edge_that_serves_and_never_an_origin() {
        let snapshot = cluster(&["e2"]);
        assert!(may_keep(&id("e1"), &[], &snapshot));
        assert!(!may_keep(&id("e1"), &[id("e1")], &snapshot));
        assert!(!may_keep(&id("e2"), &[], &snapshot), "down");
        assert!(!may_keep(&id("o1"), &[], &snapshot));
        assert!(!may_keep(&id("gone"), &[], &snapshot));
    }
}
