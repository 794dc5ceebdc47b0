//! From a command and what is known of its stream to a question for placement. Pure.
//!
//! ```text
//! publish ─► live on a serving origin? ─► pinned? ─► its room has a home? ─► any origin, by policy
//! play    ─► with the session's own publisher? ─► live? ─► an edge, the origin's zone first
//!                                                 not live, or missing ─► wait for the store
//!                                                 nobody knows ─► an edge by hash, and the node decides
//! ```
//!
//! A rule whose node takes no legs now, or has already failed this leg, is passed over: the next one is asked.

use super::{
    balance::{NodeView, Snapshot, Want},
    ids::NodeId,
    record::Record,
};

/// What the registry knows of a stream at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The store has (or had, while it is away) a record.
    Found {
        /// The record, projected.
        record: std::sync::Arc<Record>,
        /// AMS's verdict at the moment of the read, corrected by the clock skew.
        live: bool,
    },
    /// The store answered: there is none.
    Missing,
    /// The store is away, or there is none: nobody knows.
    Unknown,
}

impl Lookup {
    /// The record of a stream that is live now.
    pub fn live(&self) -> Option<&Record> {
        match self {
            Self::Found { record, live: true } => Some(record),
            Self::Found { live: false, .. } | Self::Missing | Self::Unknown => None,
        }
    }
}

/// What to do with a play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayRoute {
    /// Ask placement this.
    Place {
        /// The question.
        want: Want,
        /// The rule that asked it: `with_publisher`, `by_record` or `blind`.
        rule: &'static str,
        /// No record stands behind it: the node decides (counted as `placed_blind`).
        blind: bool,
    },
    /// Not live: wait for the store up to `play.wait`, then refuse.
    Wait,
}

/// What to do with a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRoute {
    /// The question.
    pub want: Want,
    /// The rule that asked it: `live_on_origin`, `pinned`, `room_home` or `policy`.
    pub rule: &'static str,
}

/// Where a publish should be asked for: its live origin, its pin, its room's home, else any origin.
/// `exclude` holds the nodes that have already failed this leg.
pub fn publish(
    lookup: &Lookup,
    pin: Option<&NodeId>,
    room_home: Option<&NodeId>,
    exclude: &[NodeId],
    snapshot: &Snapshot,
) -> PublishRoute {
    let live_on = lookup.live().and_then(|record| origin_of(record, snapshot));
    let rules = [
        ("live_on_origin", live_on),
        ("pinned", pin.and_then(|id| snapshot.get(id))),
        ("room_home", room_home.and_then(|id| snapshot.get(id))),
    ];
    rules
        .into_iter()
        .find_map(|(rule, node)| Some(PublishRoute { want: only(node?, exclude)?, rule }))
        .unwrap_or(PublishRoute { want: Want::Publish, rule: "policy" })
}

/// Where a play should be asked for. `with_publisher` is the node of the publish that `userPublishId` names;
/// `exclude` holds the nodes that have already failed this leg.
pub fn play(lookup: &Lookup, with_publisher: Option<&NodeId>, exclude: &[NodeId], snapshot: &Snapshot) -> PlayRoute {
    // The publisher's node knows its streams before any record does, so it is asked first.
    if let Some(want) = with_publisher.and_then(|id| only(snapshot.get(id)?, exclude)) {
        return PlayRoute::Place { want, rule: "with_publisher", blind: false };
    }
    match lookup {
        Lookup::Found { record, live: true } => {
            let origin = origin_of(record, snapshot);
            let want = Want::Play {
                origin_zone: origin.and_then(|node| node.spec.zone.clone()),
                origin: origin.map(|node| node.spec.id.clone()),
            };
            PlayRoute::Place { want, rule: "by_record", blind: false }
        }
        Lookup::Found { live: false, .. } | Lookup::Missing => PlayRoute::Wait,
        Lookup::Unknown => {
            PlayRoute::Place { want: Want::Play { origin_zone: None, origin: None }, rule: "blind", blind: true }
        }
    }
}

/// The node that a live record names; rooms name none.
fn origin_of<'a>(record: &Record, snapshot: &'a Snapshot) -> Option<&'a NodeView> {
    snapshot.by_ams_name(record.origin.as_deref()?)
}

/// That node and no other, if it takes legs and has not failed this one.
fn only(node: &NodeView, exclude: &[NodeId]) -> Option<Want> {
    let id = &node.spec.id;
    (node.state.takes_legs() && !exclude.contains(id)).then(|| Want::Only(id.clone()))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec, ProbeOutcome},
        ids::{NodeAddr, Role},
        record::Status,
    };

    fn id(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// Two origins in zones of their own, and an edge; those named are down.
    fn cluster(down: &[&str]) -> Book {
        #[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
        let now = Instant::now();
        let spec = |name: &str, address: &str, role, zone: &str| NodeSpec {
            id: id(name),
            address: NodeAddr(address.parse().unwrap()),
            role,
            zone: Some(zone.parse().unwrap()),
            aliases: vec![format!("{name}.example.org").into()],
            max_publishes: None,
            max_plays: None,
        };
        let mut book = Book::new(BalanceSettings::default());
        let nodes = [
            spec("o1", "10.0.1.1:5080", Role::Origin, "a"),
            spec("o2", "10.0.1.2:5080", Role::Origin, "b"),
            spec("e1", "10.0.2.1:5080", Role::Edge, "a"),
        ];
        book.set_nodes(nodes.into(), now);
        for name in down {
            for _ in 0..3 {
                book.probe(&id(name), ProbeOutcome::Failed("refused".into()), now);
            }
        }
        book
    }

    fn found(origin: &str, live: bool) -> Lookup {
        let origin = Some(origin.into()).filter(|_| !origin.is_empty());
        let is_virtual = origin.is_none();
        let record =
            Record { status: Status::Broadcasting, origin, updated_ms: 0, started_ms: 0, is_virtual, main_track: None };
        Lookup::Found { record: Arc::new(record), live }
    }

    /// What is known of the stream, pin or publisher's node, and the rest of one row.
    struct Row<'a> {
        lookup: Lookup,
        first: Option<&'a str>,
        second: Option<&'a str>,
        failed: &'a [&'a str],
        down: &'a [&'a str],
    }

    impl Row<'_> {
        fn ids(&self) -> (Option<NodeId>, Option<NodeId>, Vec<NodeId>) {
            (self.first.map(id), self.second.map(id), self.failed.iter().map(|name| id(name)).collect())
        }
    }

    fn row<'a>(
        lookup: &Lookup,
        first: Option<&'a str>,
        second: Option<&'a str>,
        failed: &'a [&'a str],
        down: &'a [&'a str],
    ) -> Row<'a> {
        Row { lookup: lookup.clone(), first, second, failed, down }
    }

    #[test]
    fn a_publish_asks_the_first_rule_whose_node_can_take_it() {
        let live = found("10.0.1.1", true);
        let (missing, unknown) = (Lookup::Missing, Lookup::Unknown);
        // lookup, pin, room's home, already failed, down → rule, node
        let table = [
            (row(&live, Some("o2"), Some("o2"), &[], &[]), "live_on_origin", Some("o1")),
            (row(&found("o1.example.org", true), None, None, &[], &[]), "live_on_origin", Some("o1")),
            (row(&found("10.0.2.1", true), None, None, &[], &[]), "live_on_origin", Some("e1")),
            (row(&live, Some("o2"), None, &[], &["o1"]), "pinned", Some("o2")),
            (row(&live, Some("o2"), None, &["o1"], &[]), "pinned", Some("o2")),
            (row(&found("10.0.1.1", false), Some("o2"), None, &[], &[]), "pinned", Some("o2")),
            (row(&found("192.0.2.7", true), None, Some("o2"), &[], &[]), "room_home", Some("o2")),
            (row(&missing, Some("o1"), Some("o2"), &[], &["o1"]), "room_home", Some("o2")),
            (row(&unknown, None, Some("o2"), &["o2"], &[]), "policy", None),
            (row(&found("", true), None, None, &[], &[]), "policy", None),
            (row(&missing, None, None, &[], &[]), "policy", None),
            (row(&missing, Some("gone"), Some("e1"), &[], &["e1"]), "policy", None),
        ];
        for (at, (row, rule, node)) in table.into_iter().enumerate() {
            let (pin, home, failed) = row.ids();
            let want = node.map_or(Want::Publish, |node| Want::Only(id(node)));
            let asked = publish(&row.lookup, pin.as_ref(), home.as_ref(), &failed, cluster(row.down).view());
            assert_eq!(asked, PublishRoute { want, rule }, "row {at}");
        }
    }

    #[test]
    fn a_play_follows_its_record_and_waits_only_for_a_store_that_answered() {
        let place = |zone: Option<&str>, origin: Option<&str>, rule, blind| {
            let want = Want::Play { origin_zone: zone.map(|zone| zone.parse().unwrap()), origin: origin.map(id) };
            PlayRoute::Place { want, rule, blind }
        };
        let with = |node| PlayRoute::Place { want: Want::Only(id(node)), rule: "with_publisher", blind: false };
        let live = found("10.0.1.2", true);
        let (missing, unknown) = (Lookup::Missing, Lookup::Unknown);
        // lookup, publisher's node, -, already failed, down → route
        let table = [
            (row(&live, None, None, &[], &[]), place(Some("b"), Some("o2"), "by_record", false)),
            // An origin that is down still says where its edges' copies are near.
            (row(&live, None, None, &[], &["o2"]), place(Some("b"), Some("o2"), "by_record", false)),
            (row(&found("192.0.2.7", true), None, None, &[], &[]), place(None, None, "by_record", false)),
            (row(&found("", true), None, None, &[], &[]), place(None, None, "by_record", false)),
            (row(&found("10.0.1.2", false), None, None, &[], &[]), PlayRoute::Wait),
            (row(&missing, None, None, &[], &[]), PlayRoute::Wait),
            (row(&unknown, None, None, &[], &[]), place(None, None, "blind", true)),
            (row(&live, Some("o1"), None, &[], &[]), with("o1")),
            (row(&missing, Some("o1"), None, &[], &[]), with("o1")),
            (row(&missing, Some("o1"), None, &[], &["o1"]), PlayRoute::Wait),
            (row(&unknown, Some("o1"), None, &["o1"], &[]), place(None, None, "blind", true)),
        ];
        for (at, (row, expected)) in table.into_iter().enumerate() {
            let (publisher, _, failed) = row.ids();
            let asked = play(&row.lookup, publisher.as_ref(), &failed, cluster(row.down).view());
            assert_eq!(asked, expected, "row {at}");
        }
    }
}
