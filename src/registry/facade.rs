//! The one handle that other rooms hold: look-ups, waits, hints, placement and pins.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{facts::Facts, memory::MemoryDb};
use crate::{
    clock,
    config::Config,
    domain::{
        balance::{Book, PlaceError, Placement, ProbeOutcome, Request, Snapshot},
        ids::{Kind, NodeId, StreamKey},
        record::Record,
        routing::Lookup,
    },
    shutdown::Shutdown,
};

/// Where records and discovered nodes come from.
#[derive(Debug, Clone)]
pub enum Backing {
    /// Nowhere: static nodes only. A stream is known only if it passes through this door.
    None,
    /// A database inside this process, fed by the demo's nodes.
    Memory(MemoryDb),
    /// The MongoDB that `[mongo]` names.
    Mongo,
}

/// What a door sees itself of a stream; outranks any record that is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// `publish_started` came from this node.
    Started {
        /// The origin.
        node: NodeId,
    },
    /// The publish on this node ended (`publish_finished`, `stop`, link lost for good).
    Ended {
        /// The origin.
        node: NodeId,
    },
}

/// Why the registry cannot start. A MongoDB that is away is not among the reasons.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// [`Backing::Mongo`] without a `[mongo]` table.
    #[error("mongo: the table is missing")]
    NoMongo,
    /// `mongo.uri` cannot be read.
    #[error("mongo.uri: {0}")]
    BadUri(String),
}

/// Whether the store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreStatus {
    /// No store is configured.
    None,
    /// It answers.
    Up,
    /// It has not answered since then.
    Away(Instant),
}

/// How changes of records arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// The store pushes them for every app in use.
    Pushed,
    /// They show when a cached record expires and is read again.
    Expiry,
}

/// The store as metrics, logs and the admin API show it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoreState {
    /// Whether it answers.
    pub status: StoreStatus,
    /// How changes arrive.
    pub watching: Watching,
    /// The writers' clocks minus ours, in ms; the largest one measured. 0 until measured.
    pub clock_skew_ms: i64,
    /// Records in the cache, missing ones included.
    pub cached_records: u64,
}

/// A record as the cache holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView {
    /// The record; `None`: the store said that there is none.
    pub record: Option<Arc<Record>>,
    /// Since the read or the push that it stems from.
    pub age: Duration,
    /// AMS's verdict now.
    pub live: bool,
    /// The door saw this itself, and no newer record says otherwise.
    pub hinted: bool,
}

/// The cluster as one door knows it. Clones share everything.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    book: Mutex<Book>,
    facts: Facts,
}

impl Registry {
    /// Reads the configuration and starts the room's tasks. A MongoDB that is away is no error: the registry says so in
    /// the log, serves what it can and recovers by itself.
    pub async fn start(config: &Config, _backing: Backing, _shutdown: &Shutdown) -> Result<Self, RegistryError> {
        let inner = Inner { book: Mutex::new(Book::new(config.balance.clone())), facts: Facts::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is known of a stream now. Waits for the store at most its read limit (500 ms).
    pub async fn look_up(&self, _key: &StreamKey) -> Lookup {
        Lookup::Unknown
    }

    /// Waits until the stream is live, and returns its record; else the last verdict at `until`, or at once
    /// [`Lookup::Unknown`] when the store is away and nobody could say.
    pub async fn wait_live(&self, key: &StreamKey, _until: Instant) -> Lookup {
        self.look_up(key).await
    }

    /// Takes what this door saw itself. Wakes those who wait for the stream.
    pub fn hint(&self, _key: &StreamKey, _hint: Hint) {}

    /// Chooses a node and, if the request has a kind, reserves the leg on it until [`Registry::leg_ended`].
    pub fn place(&self, request: &Request<'_>) -> Result<Placement, PlaceError> {
        self.book().place(request, clock::now())
    }

    /// The placement that [`Registry::place`] would make, without reserving.
    pub fn explain(&self, request: &Request<'_>) -> Result<Placement, PlaceError> {
        self.book().explain(request, clock::now())
    }

    /// A leg that [`Registry::place`] reserved has ended.
    pub fn leg_ended(&self, node: &NodeId, kind: Kind) {
        self.book().leg_ended(node, kind, clock::now());
    }

    /// A link to the node failed, with the cause for people.
    pub fn link_failed(&self, node: &NodeId, cause: &str) {
        self.book().link_failed(node, cause, clock::now());
    }

    /// A link to the node came up.
    pub fn link_ok(&self, node: &NodeId) {
        self.book().link_ok(node, clock::now());
    }

    /// The node refused a leg for want of resources.
    pub fn refused(&self, node: &NodeId) {
        self.book().refused(node, clock::now());
    }

    /// What a probe saw of a node.
    pub fn probe(&self, node: &NodeId, outcome: ProbeOutcome) {
        self.book().probe(node, outcome, clock::now());
    }

    /// All nodes at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.book().snapshot()
    }

    /// The store as metrics, logs and the admin API show it.
    pub fn store_state(&self) -> StoreState {
        StoreState { status: StoreStatus::None, watching: Watching::Expiry, clock_skew_ms: 0, cached_records: 0 }
    }

    /// The record as cached; `None`: nothing is cached. Never asks the store.
    pub fn record_view(&self, _key: &StreamKey) -> Option<RecordView> {
        None
    }

    /// The origin on which a door is placing, or has placed, this stream (or room).
    pub fn pin(&self, _key: &StreamKey) -> Option<NodeId> {
        None
    }

    /// Pins a stream (or room) to an origin for 30 s; call again to keep it.
    pub fn set_pin(&self, _key: &StreamKey, _node: &NodeId) {}

    /// Removes a pin.
    pub fn clear_pin(&self, _key: &StreamKey) {}

    /// What the registry counts.
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
