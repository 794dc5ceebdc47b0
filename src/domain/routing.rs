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
