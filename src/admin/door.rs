//! `GET /v1/door`, `PUT` and `DELETE /v1/door/drain`: this door, its peers, and emptying it.
//!
//! ```text
//! PUT ─► /healthz is 503 at once ── lame_duck ─► no new sessions ── the old ones close one by one ─► empty by the deadline
//!             └────────────────────── DELETE: back to normal, from any of these ───────────────────┘
//! ```
//!
//! As at SIGTERM, load balancers get `lame_duck` to look away before anybody is refused: an SDK whose first connection is
//! refused does not try again. The process itself stays.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    AdminState, Inner, access::Caller, ask::Asked, drains::Drain, explain::Store, nodes::Legs, problem::Problem,
    story::ms,
};
use crate::{
    clock,
    config::Live,
    domain::session::{CloseReason, Input},
    health::Readiness,
    registry::{DoorView, Registry},
    sessions::Sessions,
    telemetry,
};

/// How often sessions are told to close while the door empties itself.
const STEP: Duration = Duration::from_millis(100);
/// The longest time that a drain of the door may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// This door.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Door {
    /// Its name; `id` also tells its generations apart.
    name: String,
    id: String,
    version: &'static str,
    commit: &'static str,
    /// RFC 3339, UTC.
    started_at: String,
    /// What it says of itself at /healthz: `ready`, `starting`, `draining` or `over_limit`.
    #[schema(example = "ready")]
    state: &'static str,
    /// Sessions that are open.
    sessions: usize,
    drain: Option<DoorDrain>,
    store: Store,
    /// The other doors of the cluster, as their last heartbeats say.
    peers: Vec<Peer>,
    /// Drains of nodes that have left the cluster.
    drains_of_gone: Vec<GoneDrain>,
}

/// The drain of this door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct DoorDrain {
    /// RFC 3339, UTC.
    since: String,
    /// From then on it takes no new sessions, and closes the old ones. RFC 3339, UTC.
    closes_at: String,
    /// By then it is empty. RFC 3339, UTC.
    deadline: String,
    /// Sessions that are left.
    sessions: usize,
    /// Nobody is left.
    drained: bool,
}

/// Another door.
#[derive(Debug, Serialize, ToSchema)]
struct Peer {
    id: String,
    name: String,
    public_url: Option<String>,
    /// It takes no new sessions.
    draining: bool,
    /// Its table of nodes is the same as this door's; where it is not, they place differently.
    agrees: bool,
    legs: Legs,
    /// Since it was heard of.
    age_ms: i64,
}

/// A drain that outlives its node.
#[derive(Debug, Serialize, ToSchema)]
struct GoneDrain {
    node: String,
    drain: Drain,
}

/// How the door shall empty itself; all of it may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    /// How long everything is still served while load balancers look away; `shutdown.lame_duck` if left out.
    #[schema(example = "30s")]
    lame_duck: Option<String>,
    /// Then: over how long the sessions are closed; `shutdown.deadline` if left out.
    #[schema(example = "60s")]
    deadline: Option<String>,
}

/// Empties this door, once an operator wants it.
#[derive(Debug)]
pub(super) struct Emptier {
    sessions: Sessions,
    registry: Registry,
    readiness: Readiness,
    config: Live,
    order: Mutex<Option<Order>>,
}

#[derive(Debug, Clone)]
struct Order {
    since: Instant,
    closes: Instant,
    deadline: Instant,
    asked: (Duration, Duration),
    stop: CancellationToken,
}

impl Emptier {
    pub(super) fn new(state: &AdminState) -> Arc<Self> {
        let AdminState { sessions, registry, readiness, config, .. } = state.clone();
        Arc::new(Self { sessions, registry, readiness, config, order: Mutex::default() })
    }

    /// What it does now, if anything.
    fn now(&self) -> Option<DoorDrain> {
        let order = self.lock().clone()?;
        let sessions = self.sessions.open();
        Some(DoorDrain {
            since: clock::rfc3339(order.since),
            closes_at: rfc3339(order.closes),
            deadline: rfc3339(order.deadline),
            sessions,
            drained: sessions == 0 && order.closes <= clock::now(),
        })
    }

    /// Begins, or begins anew with other times; the same again changes nothing. Returns the work to be done.
    fn begin(
        self: &Arc<Self>,
        lame_duck: Duration,
        deadline: Duration,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let now = clock::now();
        let mut held = self.lock();
        if held.as_ref().is_some_and(|order| order.asked == (lame_duck, deadline)) {
            return None;
        }
        if let Some(before) = held.take() {
            before.stop.cancel();
        }
        let closes = now + lame_duck;
        let stop = CancellationToken::new();
        let asked = (lame_duck, deadline);
        let order = Order { since: now, closes, deadline: closes + deadline, asked, stop: stop.clone() };
        *held = Some(order.clone());
        self.readiness.set_by_operator(true);
        self.registry.set_door_draining(true);
        self.sessions.refuse_new(false);
        let emptier = Arc::clone(self);
        Some(async move {
            // Stopped before its end: somebody else has decided.
            let _ = stop.run_until_cancelled(emptier.empty(order)).await;
        })
    }

    async fn empty(&self, order: Order) {
        clock::until(Some(order.closes)).await;
        self.sessions.refuse_new(true);
        let mut steps = tokio::time::interval(STEP);
        let (all, time) = (self.sessions.directory().open(), (order.deadline - order.closes).max(STEP));
        loop {
            steps.tick().await;
            let cards = self.sessions.directory().all();
            if cards.is_empty() {
                return;
            }
            let left = order.deadline.saturating_duration_since(clock::now());
            let may_stay = (all as f64 * left.as_secs_f64() / time.as_secs_f64()).floor() as usize;
            for card in cards.iter().skip(may_stay) {
                // One that cannot be told now is told in the next step.
                let _ = card.post(Input::Close(CloseReason::Shutdown));
            }
        }
    }

    /// Back to normal; false if there is nothing to go back from.
    fn end(&self) -> bool {
        let Some(order) = self.lock().take() else { return false };
        order.stop.cancel();
        self.sessions.refuse_new(false);
        self.readiness.set_by_operator(false);
        self.registry.set_door_draining(false);
        true
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A moment to come as RFC 3339 in UTC.
fn rfc3339(at: Instant) -> String {
    let ahead = at.saturating_duration_since(clock::now());
    match ahead.is_zero() {
        true => clock::rfc3339(at),
        false => humantime::format_rfc3339_millis(clock::wall() + ahead).to_string(),
    }
}

impl From<DoorView> for Peer {
    fn from(door: DoorView) -> Self {
        let DoorView { id, name, public_url, draining, agrees, legs, age_ms, is_self: _ } = door;
        Self { id, name, public_url, draining, agrees, legs: legs.into(), age_ms }
    }
}

impl Door {
    fn of(inner: &Inner) -> Self {
        let state = &inner.state;
        let (own, others): (Vec<_>, Vec<_>) = state.registry.doors().into_iter().partition(|door| door.is_self);
        let snapshot = state.registry.snapshot();
        let gone = state.registry.drains().into_iter().filter(|view| snapshot.get(&view.node).is_none());
        Self {
            name: state.config.now().door.name.clone(),
            id: own.into_iter().next().map_or_else(|| state.config.now().door.name.clone(), |door| door.id),
            version: telemetry::VERSION,
            commit: telemetry::COMMIT,
            started_at: clock::rfc3339(inner.started),
            state: state.readiness.now().as_str(),
            sessions: state.sessions.open(),
            drain: inner.emptier.now(),
            store: Store::of(&state.registry),
            peers: others.into_iter().map(Peer::from).collect(),
            drains_of_gone: gone.map(|view| GoneDrain { node: view.node.to_string(), drain: view.into() }).collect(),
        }
    }
}

/// This door and its peers.
#[utoipa::path(get, path = "/v1/door", tag = "door", responses((status = 200, body = Door)))]
pub(super) async fn get(State(inner): State<Inner>) -> Json<Door> {
    Json(Door::of(&inner))
}

/// Empties this door: `/healthz` to 503, then no new sessions, then the old ones are closed, spread over the deadline.
#[utoipa::path(put, path = "/v1/door/drain", tag = "door", request_body = Wish, responses((status = 200, body = Door)))]
pub(super) async fn put(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
    Asked(wish): Asked<Wish>,
) -> Result<Json<Door>, Problem> {
    let read = |key: &str, text: Option<String>, default: Duration| match text {
        None => Ok(default),
        Some(text) => humantime::parse_duration(&text).ok().filter(|time| *time <= LONGEST).ok_or_else(|| {
            Problem::bad_request("bad_drain", format!("{key}: write a duration such as \"60s\", at most a day"))
        }),
    };
    let defaults = inner.emptier.config.now().shutdown.clone();
    let lame_duck = read("lame_duck", wish.lame_duck, defaults.lame_duck)?;
    let deadline = read("deadline", wish.deadline, defaults.deadline)?;
    let before = inner.emptier.now();
    if let Some(work) = inner.emptier.begin(lame_duck, deadline) {
        inner.door.spawn(work);
        tracing::info!(lame_duck_ms = ms(lame_duck), deadline_ms = ms(deadline), "this door empties itself");
        caller.changed(&inner, "drain_door", &inner.state.config.now().door.name, &before, &inner.emptier.now());
    }
    Ok(Json(Door::of(&inner)))
}

/// Takes the drain of this door back: `/healthz` to 200, new sessions are taken. Those that were closed stay closed.
#[utoipa::path(delete, path = "/v1/door/drain", tag = "door", responses((status = 200, body = Door)))]
pub(super) async fn delete(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Door>, Problem> {
    let before = inner.emptier.now();
    if !inner.emptier.end() {
        return Err(Problem::conflict("not_draining", "nobody has asked this door to drain"));
    }
    caller.changed(&inner, "undrain_door", &inner.state.config.now().door.name, &before, &None);
    Ok(Json(Door::of(&inner)))
}
