//! `POST /v1/explain`: the placement that would be made for a stream, and why; nothing is reserved or pinned.
//!
//! It asks the same rules and the same policy as a session does (`domain::routing`, then the registry), and shows what
//! they saw: the record as read, its age, AMS's verdict, and every node with its score and the reason that it lost.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AdminState, Inner,
    ask::Asked,
    drains, nodes,
    problem::Problem,
    story::{Explanation, ms, tally},
    words::{Kind, Status},
};
use crate::{
    clock,
    domain::{
        balance::{self, Candidate, PlaceError, Placement, Request, Snapshot, Want},
        ids::{self, AppName, NodeId, StreamId, StreamKey},
        reject::Reject,
        routing::{self, Lookup, PlayRoute},
    },
    registry::{RecordView, Registry, StoreStatus, Watching},
};

/// Most nodes in `exclude`.
const MOST_EXCLUDED: usize = 1000;

/// What is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    #[schema(value_type = String, example = "LiveApp")]
    app: AppName,
    #[schema(value_type = String)]
    stream: StreamId,
    kind: Kind,
    /// The room (`mainTrack`) of a publish.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    room: Option<StreamId>,
    /// The node of the publish that a play's `userPublishId` names, by id or address.
    #[serde(default)]
    with_publisher: Option<String>,
    /// Nodes that have already failed the leg, by id or address; at most 1000.
    #[serde(default)]
    exclude: Vec<String>,
}

impl Question {
    /// Where would it be played?
    pub(super) fn play(app: AppName, stream: StreamId) -> Self {
        Self { app, stream, kind: Kind::Play, room: None, with_publisher: None, exclude: Vec::new() }
    }
}

/// What would happen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Explained {
    #[schema(value_type = String)]
    app: AppName,
    #[schema(value_type = String)]
    stream: StreamId,
    kind: Kind,
    outcome: Outcome,
    /// The outcome in words.
    reason: String,
    /// What the client would be told, in AMS's vocabulary; null if it would be placed.
    refusal: Option<&'static str>,
    /// The chosen node; null if none.
    #[schema(value_type = Option<String>)]
    node: Option<NodeId>,
    /// The rule that chose it.
    rule: Option<&'static str>,
    /// No record stands behind the placement.
    blind: bool,
    /// Every node: the chosen one first, then as they rank.
    candidates: Vec<Explanation>,
    /// How many nodes got each verdict.
    tally: BTreeMap<&'static str, u32>,
    /// The pin of this stream, if a door is placing or has placed it.
    #[schema(value_type = Option<String>)]
    pin: Option<NodeId>,
    record: Option<Record>,
    store: Store,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// A node takes the leg.
    Placed,
    /// The stream is not live: a play waits for it.
    Waits,
    /// No node takes it.
    NoCapacity,
}

/// The record as the cache holds it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Record {
    /// The store said that there is none.
    missing: bool,
    status: Option<Status>,
    /// The origin as AMS wrote it.
    origin: Option<String>,
    /// The node that the origin is, if it is one that the door knows.
    #[schema(value_type = Option<String>)]
    origin_node: Option<NodeId>,
    /// AMS's verdict now.
    live: bool,
    /// Since it was read or pushed.
    age_ms: u64,
    /// RFC 3339, UTC, on the writer's clock.
    updated_at: Option<String>,
    /// RFC 3339, UTC, on the writer's clock.
    started_at: Option<String>,
    is_virtual: bool,
    #[schema(value_type = Option<String>)]
    main_track: Option<StreamId>,
    /// The door saw it itself, and no newer record says otherwise.
    hinted: bool,
}

/// How the record store does.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Store {
    /// `none` where none is configured, `up`, or `away`.
    #[schema(example = "up")]
    pub(super) status: &'static str,
    /// How changes arrive: `pushed`, or by `expiry`.
    #[schema(example = "pushed")]
    watching: &'static str,
    /// The writers' clocks minus this door's.
    clock_skew_ms: i64,
    /// Since when it does not answer. RFC 3339, UTC; null while it does.
    away_since: Option<String>,
}

impl Store {
    pub(super) fn of(registry: &Registry) -> Self {
        let store = registry.store_state();
        Self {
            status: match store.status {
                StoreStatus::None => "none",
                StoreStatus::Up => "up",
                StoreStatus::Away(_) => "away",
            },
            watching: match store.watching {
                Watching::Pushed => "pushed",
                Watching::Expiry => "expiry",
            },
            clock_skew_ms: store.clock_skew_ms,
            away_since: match store.status {
                StoreStatus::None | StoreStatus::Up => None,
                StoreStatus::Away(since) => Some(clock::rfc3339(since)),
            },
        }
    }
}

/// The placement that would be made now, and why; nothing is reserved or pinned.
#[utoipa::path(
    post,
    path = "/v1/explain",
    tag = "placement",
    request_body = Question,
    responses((status = 200, body = Explained))
)]
pub(super) async fn explain(
    State(inner): State<Inner>,
    Asked(question): Asked<Question>,
) -> Result<Json<Explained>, Problem> {
    ask(&inner, &question).await.map(|(_, explained)| Json(explained))
}

/// What the store says of the stream, and the answer.
pub(super) async fn ask(inner: &Inner, question: &Question) -> Result<(Lookup, Explained), Problem> {
    if inner.state.config.now().apps.get(&question.app).is_none() {
        let detail = "the configuration knows no such app, so its clients get a 404";
        return Err(Problem::not_found("unknown_app", detail));
    }
    if question.exclude.len() > MOST_EXCLUDED {
        return Err(Problem::bad_request("bad_body", format!("exclude: at most {MOST_EXCLUDED} nodes")));
    }
    let key = StreamKey { app: question.app.clone(), stream: question.stream.clone() };
    // The registry's reads belong to the door's runtime.
    let (registry, asked) = (inner.state.registry.clone(), key.clone());
    let lookup = inner.door.spawn(async move { registry.look_up(&asked).await }).await;
    // The door is going down: nobody knows any more.
    let lookup = lookup.unwrap_or(Lookup::Unknown);
    let explained = answer(&inner.state, question, &key, &lookup)?;
    Ok((lookup, explained))
}

fn answer(state: &AdminState, question: &Question, key: &StreamKey, lookup: &Lookup) -> Result<Explained, Problem> {
    let registry = &state.registry;
    let snapshot = registry.snapshot();
    let named = |name: &String| nodes::find(&snapshot, name).map(|node| node.spec.id.clone());
    let exclude: Vec<NodeId> = question.exclude.iter().map(named).collect::<Result<_, _>>()?;
    let with_publisher = question.with_publisher.as_ref().map(named).transpose()?;
    let pin = registry.pin(key);
    let ask = |want, rule| Request {
        stream: key,
        want,
        rule,
        kind: Some(question.kind.into()),
        exclude: &exclude,
        seed: fastrand::u64(..),
    };
    let (request, blind) = match question.kind {
        Kind::Publish => {
            let room = question.room.as_ref().map(|room| StreamKey { app: key.app.clone(), stream: room.clone() });
            let home = room.and_then(|room| registry.pin(&room));
            let route = routing::publish(lookup, pin.as_ref(), home.as_ref(), &exclude, &snapshot);
            (Some(ask(route.want, route.rule)), false)
        }
        Kind::Play => match routing::play(lookup, with_publisher.as_ref(), &exclude, &snapshot) {
            PlayRoute::Place { want, rule, blind } => (Some(ask(want, rule)), blind),
            PlayRoute::Wait => (None, false),
        },
    };
    let decided = request.map(|request| decide(state, request));
    let mut explained = Explained {
        app: key.app.clone(),
        stream: key.stream.clone(),
        kind: question.kind,
        outcome: Outcome::Waits,
        reason: String::new(),
        refusal: None,
        node: None,
        rule: None,
        blind,
        candidates: Vec::new(),
        tally: BTreeMap::new(),
        pin,
        record: registry.record_view(key).map(|view| shown(&view, &snapshot)),
        store: Store::of(registry),
    };
    explained.conclude(decided, state);
    Ok(explained)
}

/// What placement says, and the nodes as it saw them.
struct Decided {
    placement: Result<Placement, PlaceError>,
    candidates: Vec<Candidate>,
}

/// As a session asks: a publish whose own node does not take it goes to any.
fn decide(state: &AdminState, mut request: Request<'_>) -> Decided {
    let (mut placement, mut candidates) = state.registry.explain_all(&request);
    if placement.is_err() && request.kind == Some(ids::Kind::Publish) && matches!(request.want, Want::Only(_)) {
        request.want = Want::Publish;
        (placement, candidates) = state.registry.explain_all(&request);
    }
    Decided { placement, candidates }
}

impl Explained {
    fn conclude(&mut self, decided: Option<Decided>, state: &AdminState) {
        let Some(Decided { placement, candidates }) = decided else {
            self.refusal = Some(Reject::NoSuchStream.definition());
            self.reason = format!(
                "the stream is not live: a play waits {} for it to be, then it is refused",
                humantime::format_duration(state.config.now().play.wait)
            );
            return;
        };
        let rows: Vec<(balance::Verdict, u32)> = match placement {
            Ok(placement) => {
                self.outcome = Outcome::Placed;
                self.reason = match self.blind {
                    true => "no store can say whether the stream is live, so the node decides".into(),
                    false => format!("placed by the rule {}", placement.rule),
                };
                (self.node, self.rule) = (Some(placement.node), Some(placement.rule));
                placement.tally
            }
            Err(PlaceError::NoCapacity(tally)) => {
                self.outcome = Outcome::NoCapacity;
                self.refusal = Some(Reject::Busy.definition());
                self.reason = "no node takes this leg now".into();
                tally
            }
        };
        self.tally = tally(&rows);
        self.candidates = candidates.iter().map(Explanation::from).collect();
    }
}

/// The record as the cache holds it.
pub(super) fn record(inner: &Inner, key: &StreamKey) -> Option<Record> {
    let registry = &inner.state.registry;
    registry.record_view(key).map(|view| shown(&view, &registry.snapshot()))
}

fn shown(view: &RecordView, snapshot: &Snapshot) -> Record {
    let record = view.record.as_deref();
    let origin = record.and_then(|record| record.origin.as_deref()).map(str::to_owned);
    let time = drains::rfc3339;
    Record {
        missing: record.is_none(),
        status: record.map(|record| record.status.into()),
        origin_node: origin.as_deref().and_then(|name| Some(snapshot.by_ams_name(name)?.spec.id.clone())),
        origin,
        live: view.live,
        age_ms: ms(view.age),
        updated_at: record.and_then(|record| time(record.updated_ms)),
        started_at: record.and_then(|record| time(record.started_ms)),
        is_virtual: record.is_some_and(|record| record.is_virtual),
        main_track: record.and_then(|record| record.main_track.clone()),
        hinted: view.hinted,
    }
}
