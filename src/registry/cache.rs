//! The record cache: what was read, pushed or seen, and one read in flight per stream.
//!
//! ```text
//! look_up ─► table ── usable (domain::cache_policy) ─► answer
//!              │
//!              └ not ─► flights (moka: one read per key, late comers share it) ─► store ─► table
//! watch ─ change ─► table; a read that a change overtook is made again
//! ```

use std::{
    collections::{HashSet, VecDeque},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    store::{Change, DocId, Row, StoreError, StreamStore, Subject},
    table::{Held, Name, Table},
};
use crate::{
    clock,
    domain::{
        cache_policy::{CachePolicy, Entry},
        ids::{AppName, StreamKey},
        record::Record,
    },
};

/// Parts of the table with a lock each. Not a power of two: hash maps double, and a million entries in 16 or 32 equal
/// parts would sit just above the doubling of each.
const PARTS: usize = 20;
/// Reads whose outcome is kept for late comers.
const FLIGHTS: u64 = 16_384;
/// How long it is kept: only has to outlive those that were waiting.
const FLIGHT_KEPT: Duration = Duration::from_secs(2);
/// Changes remembered to notice that they overtook a read; with more than that in one read's time it is made again.
const RECENT_CHANGES: usize = 1024;
/// How often a read that a change overtook is made again.
const REREADS: usize = 3;
/// Origins and rooms whose text is shared; above it the sharing starts anew.
const SHARED_NAMES: usize = 4096;

/// Reads the writers' clock for records of an origin: ours, corrected by the measured skew.
pub(super) trait WritersClock: Send + Sync {
    fn now_ms(&self, origin: Option<&str>) -> i64;

    /// The moment as of which a record is judged: earlier than now for a while after the store was away, when nobody could
    /// refresh it.
    fn judged_ms(&self, origin: Option<&str>) -> i64;
}

/// What one read brought.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    started: Instant,
    pub(super) outcome: Result<Entry, StoreError>,
}

/// Records by stream.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) policy: CachePolicy,
    seed: RandomState,
    parts: Vec<Mutex<Table>>,
    flights: moka::future::Cache<StreamKey, Flight>,
    recent: Mutex<Recent>,
    shared: Mutex<Shared>,
}

impl Cache {
    /// A cache of at most about `streams` entries.
    pub(super) fn new(policy: CachePolicy, streams: u64) -> Self {
        let each = usize::try_from(streams).unwrap_or(usize::MAX).div_ceil(PARTS);
        // Streams spread unevenly over the parts: some room, so that the last part to fill is not the first to evict.
        let each = each.saturating_add(each / 50 + 16);
        Self {
            policy,
            seed: RandomState::new(),
            parts: (0..PARTS).map(|_| Mutex::new(Table::new(each))).collect(),
            flights: moka::future::Cache::builder().max_capacity(FLIGHTS).time_to_live(FLIGHT_KEPT).build(),
            recent: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// Entries held, missing streams included.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    pub(super) fn get(&self, key: &StreamKey) -> Option<Held> {
        let name = self.name(key);
        self.part(&name).get(&name)
    }

    /// Takes what the door saw itself.
    pub(super) fn hint(&self, key: &StreamKey, change: impl FnOnce(Option<&Entry>) -> Entry) {
        let name = self.name(key);
        // Doubt is for what a feed may have missed; a stream known by a hint alone has no read to doubt.
        let settles = !self.part(&name).holds(&name);
        self.part(&name).put(name, None, settles, change);
    }

    /// Reads a stream, sharing any read of it that is in flight or has begun since `since`.
    pub(super) async fn read(
        self: &Arc<Self>,
        key: &StreamKey,
        since: Instant,
        store: &(impl StreamStore + Clone + 'static),
        clock: &Arc<dyn WritersClock>,
    ) -> Result<Entry, StoreError> {
        let (cache, store, clock, key) = (Arc::clone(self), store.clone(), Arc::clone(clock), key.clone());
        // In a task of its own: a client that leaves must not take along the read that others wait for.
        let flight = tokio::spawn(async move {
            let read = async { cache.read_now(&key, &store, clock.as_ref()).await };
            let flights = cache.flights.entry_by_ref(&key);
            flights.or_insert_with_if(read, |flight| flight.started < since).await.into_value()
        });
        match flight.await {
            Ok(flight) => flight.outcome,
            Err(failed) => Err(StoreError::Away(failed.to_string())),
        }
    }

    async fn read_now(&self, key: &StreamKey, store: &impl StreamStore, clock: &dyn WritersClock) -> Flight {
        let started = clock::now();
        for _ in 0..REREADS {
            let mark = lock(&self.recent).count;
            match store.find(key).await {
                Ok(row) if self.was_overtaken(key, row.as_ref(), mark) => {}
                Ok(row) => return Flight { started, outcome: Ok(self.store_row(key, row, clock)) },
                Err(error) => return Flight { started, outcome: Err(error) },
            }
        }
        let outcome = store.find(key).await.map(|row| self.store_row(key, row, clock));
        Flight { started, outcome }
    }

    /// Takes what the store says of a stream now.
    pub(super) fn store_row(&self, key: &StreamKey, row: Option<Row>, clock: &dyn WritersClock) -> Entry {
        let (doc, record) = match row {
            Some(row) => (row.id, Some(Arc::new(self.share(row.record)))),
            None => (None, None),
        };
        let now_ms = clock.judged_ms(record.as_ref().and_then(|record| record.origin.as_deref()));
        let name = self.name(key);
        self.part(&name).put(name, doc, true, |before| self.policy.read(before, record, clock::now(), now_ms))
    }

    /// Applies a change to what is cached; gives the stream that it touched. A stream that nobody asked for stays out.
    pub(super) fn change(&self, app: &AppName, change: Change, clock: &dyn WritersClock) -> Option<StreamKey> {
        match change {
            Change::Put(stream, row) => {
                let key = StreamKey { app: app.clone(), stream };
                self.note(Changed::Name(self.name(&key).hash()));
                let known = self.is_cached(&key);
                known.then(|| self.store_row(&key, Some(row), clock)).map(|_| key)
            }
            Change::Gone(Subject::Stream(stream)) => {
                let key = StreamKey { app: app.clone(), stream };
                self.note(Changed::Name(self.name(&key).hash()));
                let known = self.is_cached(&key);
                known.then(|| self.store_row(&key, None, clock)).map(|_| key)
            }
            Change::Patch(doc, patch) => self.change_doc(doc, |entry| {
                let mut record = entry.record().map(|record| Record::clone(record))?;
                patch.apply(&mut record);
                let now_ms = clock.judged_ms(record.origin.as_deref());
                let record = Arc::new(self.share(record));
                Some(self.policy.read(Some(entry), Some(record), clock::now(), now_ms))
            }),
            Change::Gone(Subject::Doc(doc)) => self.change_doc(doc, |entry| {
                let now_ms = clock.judged_ms(entry.record().and_then(|record| record.origin.as_deref()));
                Some(self.policy.read(Some(entry), None, clock::now(), now_ms))
            }),
            Change::Unsure => {
                self.doubt(app);
                None
            }
        }
    }

    /// Doubts every cached record of an app: changes of it may have been missed.
    pub(super) fn doubt(&self, app: &AppName) {
        self.note(Changed::All);
        let prefix = format!("{app}/");
        for part in &self.parts {
            lock(part).doubt(&prefix);
        }
    }

    /// A document's part is not known, so all are asked; `change` gives `None` where there is no record to change.
    fn change_doc(&self, doc: DocId, mut change: impl FnMut(&Entry) -> Option<Entry>) -> Option<StreamKey> {
        self.note(Changed::Doc(doc));
        let name = self
            .parts
            .iter()
            .find_map(|part| lock(part).change_doc(doc, |entry| change(entry).unwrap_or_else(|| entry.clone())))?;
        let (app, stream) = name.split_once('/')?;
        Some(StreamKey { app: app.parse().ok()?, stream: stream.parse().ok()? })
    }

    fn is_cached(&self, key: &StreamKey) -> bool {
        let name = self.name(key);
        self.part(&name).holds(&name)
    }

    fn name(&self, key: &StreamKey) -> Name {
        Name::new(key, &self.seed)
    }

    fn part(&self, name: &Name) -> MutexGuard<'_, Table> {
        let parts = self.parts.len() as u64;
        let at = usize::try_from(name.hash() % parts).expect("less than the number of parts");
        lock(&self.parts[at])
    }

    fn note(&self, changed: Changed) {
        lock(&self.recent).note(changed);
    }

    fn was_overtaken(&self, key: &StreamKey, row: Option<&Row>, mark: u64) -> bool {
        let name = self.name(key).hash();
        lock(&self.recent).touched_since(mark, name, row.and_then(|row| row.id))
    }

    /// The same record with the text of its origin and room shared with other records'.
    fn share(&self, record: Record) -> Record {
        let mut shared = lock(&self.shared);
        Record {
            origin: record.origin.map(|origin| share(&mut shared.origins, origin)),
            main_track: record.main_track.map(|room| share(&mut shared.rooms, room)),
            ..record
        }
    }
}

fn share<T: Clone + Eq + std::hash::Hash>(known: &mut HashSet<T>, value: T) -> T {
    if let Some(shared) = known.get(&value) {
        return shared.clone();
    }
    if known.len() >= SHARED_NAMES {
        known.clear();
    }
    known.insert(value.clone());
    value
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Shared {
    origins: HashSet<Arc<str>>,
    rooms: HashSet<crate::domain::ids::StreamId>,
}

/// What a change touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Name(u64),
    Doc(DocId),
    All,
}

/// The last changes, so that a read knows whether one overtook it.
#[derive(Debug, Default)]
struct Recent {
    count: u64,
    last: VecDeque<Changed>,
}

impl Recent {
    fn note(&mut self, changed: Changed) {
        if self.last.len() == RECENT_CHANGES {
            self.last.pop_front();
        }
        self.last.push_back(changed);
        self.count += 1;
    }

    fn touched_since(&self, mark: u64, name: u64, doc: Option<DocId>) -> bool {
        let since = usize::try_from(self.count - mark).unwrap_or(usize::MAX);
        let touches = |changed: &Changed| match changed {
            Changed::Name(touched) => *touched == name,
            Changed::Doc(touched) => Some(*touched) == doc,
            Changed::All => true,
        };
        since > self.last.len() || self.last.iter().rev().take(since).any(touches)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        domain::record::Status,
        registry::store::{Bookmark, Feed},
    };

    /// A store whose answers wait for a gate, and which counts its questions.
    #[derive(Debug, Clone, Default)]
    struct Gated {
        asked: Arc<Notify>,
        gate: Arc<Notify>,
        state: Arc<Mutex<Stored>>,
    }

    #[derive(Debug, Default)]
    struct Stored {
        questions: u32,
        row: Option<Row>,
    }

    impl Gated {
        fn set(&self, row: Option<Row>) {
            lock(&self.state).row = row;
        }

        fn questions(&self) -> u32 {
            lock(&self.state).questions
        }

        /// Completes once a question has taken its answer and waits for the gate.
        async fn reading(&self) {
            self.asked.notified().await;
        }

        fn open(&self) {
            self.gate.notify_one();
        }
    }

    impl StreamStore for Gated {
        async fn find(&self, _key: &StreamKey) -> Result<Option<Row>, StoreError> {
            let row = {
                let mut state = lock(&self.state);
                state.questions += 1;
                state.row.clone()
            };
            self.asked.notify_one();
            self.gate.notified().await;
            Ok(row)
        }

        async fn watch(&self, _app: &AppName, _resume: Option<Bookmark>) -> Result<Feed, StoreError> {
            Err(StoreError::NoChanges("a test".into()))
        }
    }

    #[derive(Debug)]
    struct Fixed;

    impl WritersClock for Fixed {
        fn now_ms(&self, _origin: Option<&str>) -> i64 {
            1_000_000
        }

        fn judged_ms(&self, _origin: Option<&str>) -> i64 {
            1_000_000
        }
    }

    fn key() -> StreamKey {
        StreamKey { app: "LiveApp".parse().unwrap(), stream: "s".parse().unwrap() }
    }

    fn row(origin: &str) -> Row {
        let record = Record {
            status: Status::Broadcasting,
            origin: Some(origin.into()),
            updated_ms: 1_000_000,
            started_ms: 1_000_000,
            is_virtual: false,
            main_track: None,
        };
        Row { id: Some(DocId([1; 12])), record }
    }

    type Reading = tokio::task::JoinHandle<Result<Entry, StoreError>>;

    fn begin_read(cache: &Arc<Cache>, store: &Gated) -> Reading {
        let (cache, store) = (Arc::clone(cache), store.clone());
        let clock: Arc<dyn WritersClock> = Arc::new(Fixed);
        tokio::spawn(async move { cache.read(&key(), clock::now(), &store, &clock).await })
    }

    fn origin(entry: &Entry) -> Option<&str> {
        entry.record()?.origin.as_deref()
    }

    #[tokio::test]
    async fn a_read_that_a_change_overtook_is_made_again() {
        let (cache, store) = (Arc::new(Cache::new(CachePolicy::default(), 100)), Gated::default());
        store.set(Some(row("10.0.1.11")));
        let reading = begin_read(&cache, &store);
        store.reading().await;
        store.set(Some(row("10.0.1.12")));
        // The document is known by its id only, and nothing of it is cached yet.
        let moved = super::super::store::Patch { origin: Some(Some("10.0.1.12".into())), ..Default::default() };
        assert_eq!(cache.change(&key().app, Change::Patch(DocId([1; 12]), moved), &Fixed), None);
        store.open();
        store.reading().await;
        store.open();
        assert_eq!(origin(&reading.await.unwrap().unwrap()), Some("10.0.1.12"));
        assert_eq!(store.questions(), 2);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_does_not_take_the_shared_read_along() {
        let (cache, store) = (Arc::new(Cache::new(CachePolicy::default(), 100)), Gated::default());
        store.set(Some(row("10.0.1.11")));
        let first = begin_read(&cache, &store);
        store.reading().await;
        let second = begin_read(&cache, &store);
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        store.open();
        assert_eq!(origin(&second.await.unwrap().unwrap()), Some("10.0.1.11"));
        assert_eq!(store.questions(), 1);
    }

    #[test]
    fn a_change_during_a_read_is_noticed_by_name_by_document_or_by_their_number() {
        let mut recent = Recent::default();
        recent.note(Changed::Name(1));
        let mark = recent.count;
        assert!(!recent.touched_since(mark, 1, None), "before the read");
        recent.note(Changed::Doc(DocId([4; 12])));
        assert!(recent.touched_since(mark, 7, Some(DocId([4; 12]))));
        assert!(!recent.touched_since(mark, 7, Some(DocId([5; 12]))));
        for _ in 0..=RECENT_CHANGES {
            recent.note(Changed::Name(9));
        }
        assert!(recent.touched_since(mark, 7, None), "more changes than are remembered");
    }
}
