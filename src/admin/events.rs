//! `GET /v1/events`: what happens, as server-sent events, and the watch over nodes and store that tells of it.
//!
//! Bounded on every side: so many listeners, so many events that wait for a slow one, which is told how many it missed.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::{Stream, stream};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, broadcast::error::RecvError},
    time::{Instant, MissedTickBehavior, interval},
};
use utoipa::ToSchema;

use super::{Inner, drains::Drain, explain::Store, history, nodes::Node, problem::Problem, story::Line};
use crate::{
    domain::{
        balance::NodeState,
        ids::{AppName, NodeId},
    },
    sessions::News,
};

/// Listeners at a time; one more is refused with a 503.
pub(super) const LISTENERS: usize = 64;
/// Events of nodes, store and operators that wait for a slow listener.
pub(super) const WAITING: usize = 256;
/// How often nodes and store are looked at: no change is told later than this.
const LOOK: Duration = Duration::from_millis(500);
/// A listener hears something at least this often, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Something that is told besides what happens to sessions.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// A node's state, reason or drain has changed, or it is new.
    Node(Arc<Node>),
    /// A node has left.
    Gone(NodeId),
    /// The record store answers, or does no more.
    Store(Arc<Store>),
    /// An operator has changed something.
    Change {
        /// The token's name.
        who: String,
        what: &'static str,
        of: String,
        before: Value,
        after: Value,
    },
}

/// `event: session`: something happened to a session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionEvent {
    session: String,
    #[schema(value_type = String)]
    app: AppName,
    #[serde(flatten)]
    line: Line,
}

/// `event: change`: an operator has changed something.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Change {
    /// RFC 3339, UTC.
    at: String,
    /// The name of the token, or `anyone` where none is asked for.
    who: String,
    what: &'static str,
    of: String,
    before: Value,
    after: Value,
}

/// `event: gone`: a node has left the cluster.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Gone {
    #[schema(value_type = String)]
    node: NodeId,
}

/// `event: lagged`: this listener was too slow, and did not hear of so many events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lagged {
    missed: u64,
}

/// What happens, as server-sent events: `node` (a [`Node`]), `gone`, `session` (a [`SessionEvent`]), `store` (a
/// [`Store`]), `change` (a [`Change`]), and `lagged` for a listener that is too slow.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "cluster",
    responses((status = 200, content_type = "text/event-stream", body = String, description = "events as they happen"))
)]
pub(super) async fn events(
    State(inner): State<Inner>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let seat = Arc::clone(&inner.listeners).try_acquire_owned();
    let seat = seat.map_err(|_| Problem::unavailable("too_many_listeners", "too many listen already"))?;
    let listener =
        Listener { told: inner.told.subscribe(), news: inner.state.sessions.directory().news(), _seat: seat };
    let first = stream::iter([Ok(Event::default().retry(Duration::from_secs(2)).comment("listening"))]);
    let rest = stream::unfold(listener, |mut listener| async move { Some((Ok(listener.next().await?), listener)) });
    let events = futures_util::StreamExt::chain(first, rest);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Listener {
    told: broadcast::Receiver<Told>,
    news: broadcast::Receiver<News>,
    _seat: OwnedSemaphorePermit,
}

impl Listener {
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            told = self.told.recv() => heard(told, told_event),
            news = self.news.recv() => heard(news, session_event),
        }
    }
}

fn heard<T>(heard: Result<T, RecvError>, event: impl FnOnce(T) -> Event) -> Option<Event> {
    match heard {
        Ok(heard) => Some(event(heard)),
        Err(RecvError::Lagged(missed)) => Some(named("lagged", &Lagged { missed })),
        Err(RecvError::Closed) => None,
    }
}

fn told_event(told: Told) -> Event {
    match told {
        Told::Node(node) => named("node", &*node),
        Told::Gone(node) => named("gone", &Gone { node }),
        Told::Store(store) => named("store", &*store),
        Told::Change { who, what, of, before, after } => {
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            named("change", &Change { at, who, what, of, before, after })
        }
    }
}

fn session_event(news: News) -> Event {
    let News { card, event } = news;
    let line = event.map_or_else(|| Line::opened(card.opened), |event| Line::of(&event, card.opened));
    named("session", &SessionEvent { session: card.id.to_string(), app: card.app.clone(), line })
}

fn named(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    // What these types hold is always JSON.
    event.json_data(data).unwrap_or_else(|_| Event::default().comment("unreadable"))
}

/// What a listener would want to hear of a node.
#[derive(PartialEq)]
struct Seen {
    state: NodeState,
    reason: Arc<str>,
    drain: Option<Drain>,
}

/// Looks at nodes and store for as long as the admin API runs, tells what has changed, and samples the history.
pub(super) async fn watch(inner: Inner) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sampled: Option<Instant> = None;
    let mut seen: Option<BTreeMap<NodeId, Seen>> = None;
    let mut store = Store::of(&inner.state.registry);
    loop {
        looks.tick().await;
        let snapshot = inner.state.registry.snapshot();
        if sampled.is_none_or(|at| at.elapsed() >= history::STEP) {
            sampled = Some(Instant::now());
            inner.history.sample(&snapshot);
        }
        let mut now = BTreeMap::new();
        for node in &snapshot.nodes {
            let id = &node.spec.id;
            let drain = inner.state.registry.drain_of(id).map(Drain::from);
            let this = Seen { state: node.state, reason: node.reason.clone(), drain };
            // The first look tells nothing: everything would be new.
            if seen.as_ref().is_some_and(|seen| seen.get(id) != Some(&this)) {
                inner.tell(Told::Node(Arc::new(Node::of(&inner, node))));
            }
            now.insert(id.clone(), this);
        }
        drop(snapshot);
        for gone in seen.iter().flat_map(BTreeMap::keys).filter(|id| !now.contains_key(*id)) {
            inner.tell(Told::Gone(gone.clone()));
        }
        seen = Some(now);
        let store_now = Store::of(&inner.state.registry);
        if store_now.status != store.status {
            inner.tell(Told::Store(Arc::new(Store::of(&inner.state.registry))));
        }
        store = store_now;
    }
}
