//! From a command and a record to a question for placement. Pure.

use super::{
    balance::{Snapshot, Want},
    ids::{NodeId, Role},
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

/// What to do with a play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlayRoute {
    /// Ask placement this.
    Place {
        /// The question.
        want: Want,
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
    /// The rule that asked it.
    pub rule: &'static str,
}

/// Where a publish should be asked for: its live origin, its pin, its room's home, else any origin.
pub fn publish(lookup: &Lookup, pin: Option<&NodeId>, room_home: Option<&NodeId>, snapshot: &Snapshot) -> PublishRoute {
    let _ = (lookup, pin, room_home, snapshot);
    PublishRoute { want: Want::Publish, rule: "policy" }
}

/// Where a play should be asked for.
pub fn play(lookup: &Lookup, with_publisher: Option<&NodeId>, snapshot: &Snapshot) -> PlayRoute {
    let _ = (lookup, with_publisher, snapshot.nodes.iter().any(|node| node.spec.role == Role::Edge));
    PlayRoute::Wait
}
