//! The one handle that other rooms hold: look-ups, waits, hints, placement and pins.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, time::timeout_at};

use super::{
    Kept,
    cache::{Cache, WritersClock},
    facts::Facts,
    keeper::{self, Keeper},
    link::Link,
    memory::MemoryDb,
    mongo::MongoStore,
    nodes::Roster,
    own::{Drains, Peers, StateFile, Steward},
    pins::Pins,
    returns::Moving,
    skew::Skews,
    source::Source,
    store::StoreError,
    table::Held,
    waiters::Waiters,
    watch::{self, Watches},
};
use crate::{
    clock,
    config::{self, Config},
    domain::{
        balance::{Book, Candidate, Capacity, PlaceError, Placement, ProbeOutcome, Request, Snapshot},
        cache_policy::{CachePolicy, Entry, Freshness},
        ids::{AppName, Kind, NodeId, StreamKey},
        record::Record,
        routing::Lookup,
    },
    shutdown::Shutdown,
};

/// Records cached where `mongo.cache_streams` does not say.
const DEFAULT_CACHE_STREAMS: u64 = 1_000_000;
/// How long the start waits for the store (design.md §7: ready within 1 s).
const FIRST_ASK: Duration = Duration::from_millis(700);
/// How long the start waits for the other doors' data.
const FIRST_EXCHANGE: Duration = Duration::from_millis(250);
/// How often a waiter asks a store that pushes nothing: at first, and at most.
const FIRST_PACE: Duration = Duration::from_millis(100);
const SLOWEST_PACE: Duration = Duration::from_millis(250);
/// The same where changes are pushed.
const WATCHED_PACE: Duration = Duration::from_millis(500);
/// How long before a wait ends the store is asked for the last time.
const LAST_LOOK: Duration = Duration::from_millis(50);
/// Streams waited for at the slowest pace; with twice as many, each is asked for half as often.
const STREAMS_AT_PACE: usize = 256;

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
    pub(super) inner: Arc<Inner>,
}

/// What the room's tasks share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) source: Option<Source>,
    /// The store pushes changes, and the operator wants them.
    pub(super) follows_changes: bool,
    pub(super) cache: Arc<Cache>,
    pub(super) link: Link,
    pub(super) skews: Arc<Skews>,
    pub(super) watches: Watches,
    pub(super) waiters: Waiters,
    pub(super) facts: Facts,
    pub(super) shutdown: Shutdown,
    pub(super) pins: Pins,
    pub(super) moving: Moving,
    pub(super) drains: Drains,
    pub(super) peers: Peers,
    pub(super) door: ThisDoor,
    /// Wakes the steward before its time.
    pub(super) poked: Arc<Notify>,
    /// Where drains are kept that the store does not have.
    pub(super) kept_away: Kept,
    named_apps: ArcSwap<Vec<AppName>>,
    /// `[nodes]`, as configured now.
    pub(super) nodes: ArcSwap<config::Nodes>,
    /// Wakes the keeper for them.
    pub(super) renewed: Notify,
    book: Mutex<Book>,
}

/// Who this door is among the doors of its cluster.
#[derive(Debug)]
pub(super) struct ThisDoor {
    /// `door.name` plus a nonce of this start: two generations of one door are two doors.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) public_url: Option<String>,
    draining: AtomicBool,
}

impl ThisDoor {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }
}

impl Registry {
    /// Reads the configuration, starts the room's tasks and asks the store once. A MongoDB that is away is no error: the
    /// registry says so in the log, serves what it can and recovers by itself.
    pub async fn start(config: &Config, backing: Backing, shutdown: &Shutdown) -> Result<Self, RegistryError> {
        let source = match backing {
            Backing::None => None,
            Backing::Memory(db) => Some(Source::Memory(db)),
            Backing::Mongo => {
                let mongo = config.mongo.as_ref().ok_or(RegistryError::NoMongo)?;
                let store = MongoStore::new(mongo.uri.clone(), config.apps.clone()).await;
                Some(Source::Mongo(store.map_err(RegistryError::BadUri)?))
            }
        };
        let roster = Roster::new(config.nodes.clone());
        let book = Book::new(config.balance.clone());
        let policy = cache_policy(config, source.is_some());
        let streams = config.mongo.as_ref().map_or(DEFAULT_CACHE_STREAMS, |mongo| mongo.cache_streams);
        let inner = Arc::new(Inner {
            follows_changes: config.mongo.as_ref().is_none_or(|mongo| mongo.change_streams),
            cache: Arc::new(Cache::new(policy, streams)),
            source,
            link: Link::new(),
            skews: Arc::new(Skews::new(policy.live_window_ms)),
            watches: Watches::default(),
            waiters: Waiters::default(),
            facts: Facts::default(),
            shutdown: shutdown.clone(),
            pins: Pins::default(),
            moving: Moving::default(),
            drains: Drains::default(),
            peers: Peers::default(),
            door: this_door(config),
            poked: Arc::default(),
            kept_away: if config.door.state_dir.is_some() { Kept::Door } else { Kept::Memory },
            named_apps: ArcSwap::from_pointee(config.apps.named.keys().cloned().collect()),
            nodes: ArcSwap::from_pointee(config.nodes.clone()),
            renewed: Notify::new(),
            book: Mutex::new(book),
        });
        let keeper = match inner.source.clone() {
            Some(source) => {
                let mut keeper = Keeper::new(Arc::clone(&inner), source, roster, config.nodes.poll);
                keeper.begin(FIRST_ASK).await;
                Some(keeper)
            }
            None => {
                inner.book().set_nodes(roster.fixed(), clock::now());
                None
            }
        };
        let state_file = config.door.state_dir.as_deref().map(StateFile::new);
        let mut steward = Steward::new(Arc::clone(&inner), state_file);
        steward.begin(FIRST_EXCHANGE).await;
        inner.shutdown.spawn(steward.run());
        keeper::start(&inner, keeper);
        for app in config.apps.named.keys() {
            watch::ensure(&inner, app);
        }
        Ok(Self { inner })
    }

    /// Takes another configuration: apps, nodes and placement. Legs stay where they are.
    pub fn reconfigure(&self, config: &Config) {
        let inner = &self.inner;
        inner.book().reconfigure(&config.balance, clock::now());
        inner.named_apps.store(Arc::new(config.apps.named.keys().cloned().collect()));
        inner.nodes.store(Arc::new(config.nodes.clone()));
        match &inner.source {
            Some(source) => {
                source.set_apps(&config.apps);
                inner.renewed.notify_one();
            }
            None => inner.book().set_nodes(Roster::new(config.nodes.clone()).fixed(), clock::now()),
        }
        for app in config.apps.named.keys() {
            watch::ensure(inner, app);
        }
    }

    /// What is known of a stream now. Waits for the store at most its read limit (500 ms).
    pub async fn look_up(&self, key: &StreamKey) -> Lookup {
        let lookup = self.inner.ask(key, None).await;
        let facts = &self.inner.facts;
        match &lookup {
            Lookup::Found { live: true, .. } => facts.lookups_live.add(),
            Lookup::Found { live: false, .. } => facts.lookups_not_live.add(),
            Lookup::Missing => facts.lookups_missing.add(),
            Lookup::Unknown => facts.lookups_unknown.add(),
        }
        if matches!(lookup, Lookup::Found { .. }) {
            watch::ensure(&self.inner, &key.app);
        }
        lookup
    }

    /// Waits until the stream is live, and returns its record; else the last verdict at `until`, or at once
    /// [`Lookup::Unknown`] when the store is away and nobody could say.
    pub async fn wait_live(&self, key: &StreamKey, until: Instant) -> Lookup {
        let inner = &*self.inner;
        let Some(seat) = inner.waiters.enter(key) else {
            inner.facts.waits_shed.add();
            return self.look_up(key).await;
        };
        let _waiting = inner.facts.waiting.raise();
        let mut pace = FIRST_PACE;
        let mut last = Lookup::Unknown;
        loop {
            let mut woken = std::pin::pin!(seat.room.notified());
            woken.as_mut().enable();
            let Ok(lookup) = timeout_at(until.into(), inner.ask(key, Some(pace))).await else { return last };
            let now = clock::now();
            if lookup.live().is_some() || lookup == Lookup::Unknown || now >= until {
                return lookup;
            }
            last = lookup;
            // The last question is asked early enough for its answer to count.
            let last_look = until.checked_sub(LAST_LOOK).filter(|at| *at > now).unwrap_or(until);
            tokio::select! {
                () = woken => {}
                () = clock::until(Some(last_look.min(now + pace))) => {}
            }
            pace = (pace * 3 / 2).min(inner.slowest_pace(key));
        }
    }

    /// Takes what this door saw itself. Wakes those who wait for the stream.
    pub fn hint(&self, key: &StreamKey, hint: Hint) {
        let inner = &self.inner;
        let policy = inner.cache.policy;
        let now = clock::now();
        match hint {
            Hint::Started { node } => {
                let now_ms = inner.skews.now_ms(Some(node.as_str()));
                inner.cache.hint(key, |before| policy.saw_start(before, node.as_str(), now, now_ms));
            }
            // A publish that has moved on meanwhile did not end.
            Hint::Ended { node } if inner.is_live_elsewhere(key, &node) => {}
            Hint::Ended { node } => {
                let now_ms = inner.skews.now_ms(Some(node.as_str()));
                inner.cache.hint(key, |before| policy.saw_end(before, now, now_ms));
            }
        }
        inner.waiters.wake(key);
    }

    /// Chooses a node and, if the request has a kind, reserves the leg on it until [`Registry::leg_ended`].
    pub fn place(&self, request: &Request<'_>) -> Result<Placement, PlaceError> {
        self.inner.book().place(request, clock::now())
    }

    /// The placement that [`Registry::place`] would make, without reserving.
    pub fn explain(&self, request: &Request<'_>) -> Result<Placement, PlaceError> {
        self.inner.book().explain(request, clock::now())
    }

    /// [`Registry::explain`] with every node's score and verdict, the best first, as of the same moment.
    pub fn explain_all(&self, request: &Request<'_>) -> (Result<Placement, PlaceError>, Vec<Candidate>) {
        let book = self.inner.book();
        (book.explain(request, clock::now()), book.candidates(request))
    }

    /// How many more legs the cluster takes, and which nodes are cheapest to remove.
    pub fn capacity(&self) -> Capacity {
        self.inner.book().capacity(clock::now())
    }

    /// A leg that [`Registry::place`] reserved has ended.
    pub fn leg_ended(&self, node: &NodeId, kind: Kind) {
        self.inner.book().leg_ended(node, kind, clock::now());
    }

    /// A link to the node failed, with the cause for people.
    pub fn link_failed(&self, node: &NodeId, cause: &str) {
        self.inner.book().link_failed(node, cause, clock::now());
    }

    /// A link to the node came up.
    pub fn link_ok(&self, node: &NodeId) {
        self.inner.book().link_ok(node, clock::now());
    }

    /// The node refused a leg for want of resources.
    pub fn refused(&self, node: &NodeId) {
        self.inner.book().refused(node, clock::now());
    }

    /// What a probe saw of a node.
    pub fn probe(&self, node: &NodeId, outcome: ProbeOutcome) {
        self.inner.book().probe(node, outcome, clock::now());
    }

    /// All nodes at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.book().snapshot()
    }

    /// The store as metrics, logs and the admin API show it.
    pub fn store_state(&self) -> StoreState {
        let inner = &self.inner;
        let status = match (&inner.source, inner.link.away_since()) {
            (None, _) => StoreStatus::None,
            (Some(_), None) => StoreStatus::Up,
            (Some(_), Some(since)) => StoreStatus::Away(since),
        };
        StoreState {
            status,
            watching: if inner.watches.all_on() { Watching::Pushed } else { Watching::Expiry },
            clock_skew_ms: inner.skews.largest_ms(),
            cached_records: inner.cache.len() as u64,
        }
    }

    /// The record as cached; `None`: nothing is cached. Never asks the store.
    pub fn record_view(&self, key: &StreamKey) -> Option<RecordView> {
        let inner = &self.inner;
        let entry = inner.cache.get(key)?.entry;
        let (live, shown) = match inner.verdict(&entry, key, false) {
            Freshness::Use(Lookup::Found { record, live }) => (live, Some(record)),
            Freshness::Use(Lookup::Missing | Lookup::Unknown) | Freshness::Reread => (false, None),
        };
        let read = entry.record().cloned();
        let hinted = shown.is_some() && shown != read;
        let age = entry.read_at().map_or(Duration::ZERO, |read_at| clock::now().saturating_duration_since(read_at));
        Some(RecordView { record: shown.or(read), age, live, hinted })
    }

    /// What the registry counts.
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }
}

impl Inner {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has answered. If it was away, what could not be refreshed meanwhile is not held against anyone.
    pub(super) fn answered(&self) {
        if let Some(since) = self.link.failing_since() {
            let now = clock::now();
            self.skews.was_away(since, now);
            self.peers.was_away(since, now);
        }
        self.link.answered();
    }

    /// Up to when other doors can have been heard: now, or since when the store is away.
    pub(super) fn heard_until(&self) -> Instant {
        self.link.away_since().unwrap_or_else(clock::now)
    }

    /// Apps that are named in the configuration or were asked for since.
    pub(super) fn apps(&self) -> Vec<AppName> {
        let mut apps = self.watches.apps();
        apps.extend(self.named_apps.load().iter().cloned());
        apps.sort();
        apps.dedup();
        apps
    }

    /// What is known of a stream; of one that is not live, nothing older than `max_age`.
    pub(super) async fn ask(&self, key: &StreamKey, max_age: Option<Duration>) -> Lookup {
        let now = clock::now();
        let up = self.link.is_up();
        if let Some(lookup) = self.cached(key, up, max_age.and_then(|age| now.checked_sub(age))) {
            self.facts.cache_hits.add();
            return lookup;
        }
        let Some(source) = self.source.as_ref().filter(|_| up) else { return Lookup::Unknown };
        self.facts.cache_misses.add();
        self.facts.store_reads.add();
        let _reading = self.facts.reads_in_flight.raise();
        let clock: Arc<dyn WritersClock> = Arc::clone(&self.skews) as Arc<dyn WritersClock>;
        let since = max_age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
        match self.cache.read(key, since, source, &clock).await {
            Ok(entry) => {
                self.answered();
                self.usable(&entry, key, true)
            }
            Err(error) => {
                let shed = error == StoreError::Busy;
                if shed { &self.facts.reads_shed } else { &self.facts.store_errors }.add();
                self.link.failed(&error);
                self.cached(key, false, None).unwrap_or(Lookup::Unknown)
            }
        }
    }

    /// The cached answer, if it may be used.
    fn cached(&self, key: &StreamKey, up: bool, not_before: Option<Instant>) -> Option<Lookup> {
        let Held { entry, doubted } = self.cache.get(key)?;
        let Freshness::Use(lookup) = self.verdict(&entry, key, up) else { return None };
        let too_old = not_before.is_some_and(|limit| entry.read_at().is_none_or(|read_at| read_at < limit));
        if up && (doubted || (too_old && lookup.live().is_none())) {
            return None;
        }
        Some(lookup)
    }

    /// What an entry says that the store has just filled, however short its freshness is.
    fn usable(&self, entry: &Entry, key: &StreamKey, up: bool) -> Lookup {
        match self.verdict(entry, key, up) {
            Freshness::Use(lookup) => lookup,
            Freshness::Reread => match entry.record() {
                Some(record) => {
                    let now_ms = self.skews.judged_ms(record.origin.as_deref());
                    let live = record.is_live(now_ms, self.cache.policy.live_window_ms);
                    Lookup::Found { record: Arc::clone(record), live }
                }
                None => Lookup::Missing,
            },
        }
    }

    fn verdict(&self, entry: &Entry, key: &StreamKey, up: bool) -> Freshness {
        let now_ms = self.skews.judged_ms(entry.record().and_then(|record| record.origin.as_deref()));
        self.cache.policy.verdict(entry, clock::now(), now_ms, up, self.watches.is_on(&key.app))
    }

    /// Whether the stream is known to be live on another node than this.
    fn is_live_elsewhere(&self, key: &StreamKey, node: &NodeId) -> bool {
        let Some(lookup) = self.cached(key, false, None) else { return false };
        let Some(origin) = lookup.live().and_then(|record| record.origin.as_deref()) else { return false };
        let snapshot = self.book().snapshot();
        snapshot.by_ams_name(origin).is_some_and(|on| on.spec.id != *node)
    }

    /// How often a waiter asks the store at most: less often the more streams are waited for, and where changes are
    /// pushed only as a second line.
    fn slowest_pace(&self, key: &StreamKey) -> Duration {
        let base = if self.watches.is_on(&key.app) { WATCHED_PACE } else { SLOWEST_PACE };
        let crowd = u32::try_from(self.waiters.rooms() / STREAMS_AT_PACE).unwrap_or(u32::MAX);
        base.saturating_mul(crowd.saturating_add(1))
    }
}

fn this_door(config: &Config) -> ThisDoor {
    let name = config.door.name.clone();
    ThisDoor {
        id: format!("{name}-{:08x}", fastrand::u32(..)),
        name,
        public_url: config.door.public_url.clone(),
        draining: AtomicBool::new(false),
    }
}

fn cache_policy(config: &Config, has_store: bool) -> CachePolicy {
    let mut policy = CachePolicy::default();
    if let Some(mongo) = &config.mongo {
        policy.live_window_ms = i64::try_from(mongo.live_window.as_millis()).unwrap_or(i64::MAX);
    }
    if !has_store {
        // What the door saw is all there will ever be: it stands until the door sees the end.
        policy.outage_hold = Duration::MAX;
    }
    policy
}
