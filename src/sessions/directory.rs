//! Who is connected: a card per session, which its task keeps current and others may read, and a letter box on it.
//!
//! ```text
//! session's task ── tell, set_legs ──► Card ◄── page, get, on_node ── admin, drains
//!        ▲                              │ every event, while somebody listens
//!        └──────────── post ◄───────────┘────────────────────────────► subscribers
//! ```
//!
//! A card stays for a while after its session's end, so that an operator can still read what happened.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use super::{
    story::{Event, Story, What},
    trace,
};
use crate::{
    clock,
    domain::{
        ids::{AppName, ClientAddr, NodeId, SessionId},
        session::{CloseReason, Input, LegView},
    },
    telemetry::otlp::Exporter,
};

/// Cards of ended sessions that are kept; above it the oldest goes.
const KEPT_ENDED: usize = 1000;
/// How long a card is kept after its session's end.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Letters that wait for one session; one more is refused.
const LETTERS: usize = 8;
/// Events that wait for a slow subscriber; beyond it the oldest are lost to it, which its receiver counts.
const NEWS: usize = 1024;

/// All sessions of this door. Clones share everything.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    live: Mutex<BTreeMap<SessionId, Arc<Card>>>,
    ended: Mutex<VecDeque<Arc<Card>>>,
    news: broadcast::Sender<News>,
    exporter: Option<Exporter>,
}

/// Something that happened to some session.
#[derive(Debug, Clone)]
pub struct News {
    /// The session, as it is when this is read.
    pub card: Arc<Card>,
    /// What happened to it; absent: it was opened.
    pub event: Option<Event>,
}

/// What others may know of one session.
#[derive(Debug)]
pub struct Card {
    /// Its id.
    pub id: SessionId,
    /// Its app.
    pub app: AppName,
    /// Where its client sends from.
    pub client: ClientAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Since when it is there.
    pub opened: Instant,
    has_post: AtomicBool,
    letters: Mutex<Letters>,
    page: Mutex<Page>,
}

#[derive(Debug, Default)]
struct Letters {
    waiting: Vec<Input>,
    reader: Option<Waker>,
}

/// The part of a card that changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Its publishes and plays.
    pub legs: Vec<LegView>,
    /// What happened to it.
    pub story: Story,
    /// When it ended and, unless its task failed, why.
    pub ended: Option<(Instant, Option<CloseReason>)>,
}

impl Default for Directory {
    fn default() -> Self {
        Self::telling(None)
    }
}

impl Directory {
    /// An empty one, which sends each session's story as a trace when it ends, if there is an exporter.
    pub(super) fn telling(exporter: Option<Exporter>) -> Self {
        let news = broadcast::Sender::new(NEWS);
        Self { inner: Arc::new(Inner { live: Mutex::default(), ended: Mutex::default(), news, exporter }) }
    }

    /// The session with this id, also for a while after its end.
    pub fn get(&self, id: SessionId) -> Option<Arc<Card>> {
        let live = lock(&self.inner.live).get(&id).cloned();
        live.or_else(|| self.kept(clock::now()).iter().rev().find(|card| card.id == id).cloned())
    }

    /// Live sessions in the order of their ids, after this one.
    pub fn page(&self, after: Option<SessionId>, limit: usize) -> Vec<Arc<Card>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        lock(&self.inner.live).range((from, Bound::Unbounded)).take(limit).map(|(_, card)| Arc::clone(card)).collect()
    }

    /// All live sessions, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Card>> {
        lock(&self.inner.live).values().cloned().collect()
    }

    /// Live sessions that have a leg on this node.
    pub fn on_node(&self, node: &NodeId) -> Vec<Arc<Card>> {
        let on = |card: &Arc<Card>| lock(&card.page).legs.iter().any(|leg| leg.node.as_ref() == Some(node));
        self.all().into_iter().filter(on).collect()
    }

    /// Live sessions.
    pub fn open(&self) -> usize {
        lock(&self.inner.live).len()
    }

    /// What happens from now on. A subscriber that falls behind loses the oldest news and is told how many.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.inner.news.subscribe()
    }

    /// Tells something of a session from outside its task; of one that is gone, nothing.
    pub(super) fn tell(&self, id: SessionId, what: What) {
        let card = lock(&self.inner.live).get(&id).cloned();
        if let Some(card) = card {
            self.note(&card, what);
        }
    }

    /// A session opens; it is in the directory until the desk is dropped.
    pub(crate) fn open_desk(&self, id: SessionId, app: AppName, client: ClientAddr, tls: bool) -> Desk {
        let card = Arc::new(Card {
            id,
            app,
            client,
            tls,
            opened: clock::now(),
            has_post: AtomicBool::new(false),
            letters: Mutex::default(),
            page: Mutex::default(),
        });
        lock(&self.inner.live).insert(id, Arc::clone(&card));
        self.publish(&card, None);
        Desk { directory: self.clone(), card }
    }

    fn note(&self, card: &Arc<Card>, what: What) {
        let at = clock::now();
        // Without a listener nothing is copied.
        let copy = (self.inner.news.receiver_count() > 0).then(|| Event { at, what: what.clone() });
        lock(&card.page).story.tell(what, at);
        if copy.is_some() {
            self.publish(card, copy);
        }
    }

    fn publish(&self, card: &Arc<Card>, event: Option<Event>) {
        if self.inner.news.receiver_count() > 0 {
            // Who has left meanwhile misses nothing.
            let _ = self.inner.news.send(News { card: Arc::clone(card), event });
        }
    }

    /// Ended sessions that are still kept.
    fn kept(&self, now: Instant) -> MutexGuard<'_, VecDeque<Arc<Card>>> {
        let mut ended = lock(&self.inner.ended);
        while ended.front().is_some_and(|card| card.is_stale(now)) {
            ended.pop_front();
        }
        ended
    }
}

impl Card {
    /// Its legs, story and end as of now.
    pub fn page(&self) -> Page {
        lock(&self.page).clone()
    }

    /// Looks at the page without copying it.
    pub fn look<T>(&self, at: impl FnOnce(&Page) -> T) -> T {
        at(&lock(&self.page))
    }

    /// Hands the session an input; false if it already has too many to read, or has ended.
    pub fn post(&self, letter: Input) -> bool {
        if lock(&self.page).ended.is_some() {
            return false;
        }
        let mut letters = lock(&self.letters);
        if letters.waiting.len() >= LETTERS {
            return false;
        }
        letters.waiting.push(letter);
        self.has_post.store(true, Ordering::Release);
        if let Some(reader) = &letters.reader {
            reader.wake_by_ref();
        }
        true
    }

    fn is_stale(&self, now: Instant) -> bool {
        let ended = lock(&self.page).ended;
        ended.is_some_and(|(at, _)| now.saturating_duration_since(at) > KEPT_FOR)
    }
}

/// Where a session's task keeps its card. Dropping it ends the session's entry.
#[derive(Debug)]
pub(crate) struct Desk {
    directory: Directory,
    card: Arc<Card>,
}

impl Desk {
    pub(super) fn tell(&self, what: What) {
        self.directory.note(&self.card, what);
    }

    pub(super) fn set_legs(&self, legs: impl Iterator<Item = LegView>) {
        let mut page = lock(&self.card.page);
        page.legs.clear();
        for leg in legs {
            page.legs.reserve_exact(1);
            page.legs.push(leg);
        }
    }

    /// Who will be woken when there is post.
    pub(super) fn watch(&self, reader: &Waker) {
        lock(&self.card.letters).reader = Some(reader.clone());
    }

    /// The next letter.
    pub(super) fn read(&self) -> Option<Input> {
        if !self.card.has_post.load(Ordering::Acquire) {
            return None;
        }
        let mut letters = lock(&self.card.letters);
        let first = (!letters.waiting.is_empty()).then(|| letters.waiting.remove(0));
        if letters.waiting.is_empty() {
            letters.waiting = Vec::new(); // most sessions never get another
            self.card.has_post.store(false, Ordering::Release);
        }
        first
    }

    /// The session has ended, with its reason.
    pub(super) fn close(&self, reason: CloseReason) {
        self.tell(What::Closed(reason));
        let mut page = lock(&self.card.page);
        page.legs = Vec::new();
        page.ended.get_or_insert((clock::now(), Some(reason)));
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let now = clock::now();
        lock(&self.card.page).ended.get_or_insert((now, None));
        *lock(&self.card.letters) = Letters::default();
        lock(&self.directory.inner.live).remove(&self.card.id);
        if let Some(exporter) = &self.directory.inner.exporter {
            exporter.send(trace::of(&self.card));
        }
        let mut ended = self.directory.kept(now);
        if ended.len() >= KEPT_ENDED {
            ended.pop_front();
        }
        ended.push_back(Arc::clone(&self.card));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Directory, id: u64) -> Desk {
        let client = ClientAddr("192.0.2.1:4000".parse().unwrap());
        directory.open_desk(SessionId(id), "LiveApp".parse().unwrap(), client, false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_can_be_read_for_ten_minutes_after_its_end() {
        let directory = Directory::default();
        let desk = open(&directory, 7);
        desk.close(CloseReason::ClientClosed);
        drop(desk);
        assert_eq!(directory.open(), 0);
        let page = directory.get(SessionId(7)).expect("it is kept").page();
        assert_eq!(page.ended.and_then(|(_, reason)| reason), Some(CloseReason::ClientClosed));
        assert_eq!(page.story.events().count(), 1);
        tokio::time::advance(KEPT_FOR + Duration::from_secs(1)).await;
        assert!(directory.get(SessionId(7)).is_none());
    }

    #[tokio::test]
    async fn ended_sessions_are_bounded_and_the_oldest_goes_first() {
        let directory = Directory::default();
        for id in 0..=KEPT_ENDED as u64 {
            drop(open(&directory, id));
        }
        assert!(directory.get(SessionId(0)).is_none());
        assert!(directory.get(SessionId(1)).is_some());
        assert_eq!(lock(&directory.inner.ended).len(), KEPT_ENDED);
    }

    #[tokio::test]
    async fn post_is_read_in_order_and_bounded_and_refused_after_the_end() {
        let directory = Directory::default();
        let desk = open(&directory, 1);
        let card = directory.get(SessionId(1)).unwrap();
        assert_eq!(desk.read(), None);
        assert!(card.post(Input::Tick) && card.post(Input::Close(CloseReason::Admin)));
        assert_eq!(
            (desk.read(), desk.read(), desk.read()),
            (Some(Input::Tick), Some(Input::Close(CloseReason::Admin)), None)
        );
        assert_eq!((0..20).filter(|_| card.post(Input::Tick)).count(), LETTERS);
        drop(desk);
        assert!(!card.post(Input::Tick));
    }

    #[tokio::test]
    async fn pages_follow_each_other_and_news_come_to_who_listens() {
        let directory = Directory::default();
        let desks: Vec<Desk> = (1..=5).map(|id| open(&directory, id)).collect();
        let ids = |cards: Vec<Arc<Card>>| cards.iter().map(|card| card.id.0).collect::<Vec<u64>>();
        assert_eq!(ids(directory.page(None, 2)), [1, 2]);
        assert_eq!(ids(directory.page(Some(SessionId(2)), 9)), [3, 4, 5]);
        let mut news = directory.news();
        desks[0].tell(What::FirstStun);
        let told = news.try_recv().unwrap();
        assert_eq!((told.card.id.0, told.event.unwrap().what), (1, What::FirstStun));
    }
}
