//! `POST /v1/explain`: the placement that would be made for a stream, and why; nothing is reserved or pinned.
//!
//! It asks the same rules and the same policy as a session does (`domain::routing`, then the registry), and shows what
//! they saw: the record as read, its age, AMS's verdict, and every node with its score and the reason that it lost.

use std::collections::BTreeMap;

use axum::{Json, body::Bytes, extract::State};
use serde::{Deserialize, Serialize};

use super::{AdminState, Inner, nodes, problem::Problem};
use crate::{
    domain::{
        balance::{Candidate, PlaceError, Placement, Request, Snapshot, Verdict, Want},
        ids::{AppName, Kind, NodeId, StreamId, StreamKey},
        record::Status,
        reject::Reject,
        routing::{self, Lookup, PlayRoute},
    },
    registry::{RecordView, StoreStatus, Watching},
};

/// Most nodes in `exclude`.
const MOST_EXCLUDED: usize = 1000;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    app: AppName,
    stream: StreamId,
    kind: Kind,
    /// The room (`mainTrack`) of a publish.
    #[serde(default)]
    room: Option<StreamId>,
    /// The node of the publish that a play's `userPublishId` names, by id or address.
    #[serde(default)]
    with_publisher: Option<String>,
    /// Nodes that have already failed the leg, by id or address.
    #[serde(default)]
    exclude: Vec<String>,
}

/// What would happen.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    app: AppName,
    stream: StreamId,
    kind: Kind,
    outcome: Outcome,
    /// The outcome in words.
    reason: String,
    /// What the client would be told, in AMS's vocabulary; null if it would be placed.
    refusal: Option<&'static str>,
    /// The chosen node; null if none.
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
    pin: Option<NodeId>,
    record: Option<Record>,
    store: Store,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// A node takes the leg.
    Placed,
    /// The stream is not live: a play waits for it.
    Waits,
    /// No node takes it.
    NoCapacity,
}

/// One node that was looked at.
#[derive(Debug, Serialize)]
struct Explanation {
    node: NodeId,
    score: f64,
    predicted: f32,
    verdict: Verdict,
    /// The verdict in words.
    why: &'static str,
}

/// The record as the cache holds it.
#[derive(Debug, Serialize)]
struct Record {
    /// The store said that there is none.
    missing: bool,
    status: Option<Status>,
    origin: Option<String>,
    /// The node that the origin is, if it is one that the door knows.
    origin_node: Option<NodeId>,
    live: bool,
    /// Since it was read or pushed.
    age_ms: u64,
    /// RFC 3339 UTC, on the writer's clock.
    updated_at: Option<String>,
    started_at: Option<String>,
    is_virtual: bool,
    main_track: Option<StreamId>,
    /// The door saw it itself, and no newer record says otherwise.
    hinted: bool,
}

#[derive(Debug, Serialize)]
struct Store {
    status: &'static str,
    watching: &'static str,
    clock_skew_ms: i64,
}

pub(super) async fn explain(
    State(inner): State<Inner>,
    body: Result<Bytes, Problem>,
) -> Result<Json<Explained>, Problem> {
    let question: Question =
        serde_json::from_slice(&body?).map_err(|why| Problem::bad_request(format!("the body: {why}")))?;
    if inner.state.config.now().apps.get(&question.app).is_none() {
        return Err(Problem::not_found("the configuration knows no such app, so its clients get a 404"));
    }
    if question.exclude.len() > MOST_EXCLUDED {
        return Err(Problem::bad_request(format!("exclude: at most {MOST_EXCLUDED} nodes")));
    }
    let key = StreamKey { app: question.app.clone(), stream: question.stream.clone() };
    // The registry's reads belong to the door's runtime.
    let (registry, asked) = (inner.state.registry.clone(), key.clone());
    let lookup = inner.door.spawn(async move { registry.look_up(&asked).await }).await;
    // The door is going down: nobody knows any more.
    let lookup = lookup.unwrap_or(Lookup::Unknown);
    answer(&inner.state, &question, &key, &lookup).map(Json)
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
        kind: Some(question.kind),
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
    let store = registry.store_state();
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
        record: registry.record_view(key).map(|view| record(&view, &snapshot)),
        store: Store {
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
        },
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
    if placement.is_err() && request.kind == Some(Kind::Publish) && matches!(request.want, Want::Only(_)) {
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
        let tally = match placement {
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
        self.tally = tally.into_iter().map(|(verdict, count)| (word(verdict).0, count)).collect();
        self.candidates = candidates.into_iter().map(Explanation::from).collect();
    }
}

impl From<Candidate> for Explanation {
    fn from(candidate: Candidate) -> Self {
        let Candidate { node, score, predicted, verdict } = candidate;
        Self { node, score, predicted, verdict, why: word(verdict).1 }
    }
}

/// A verdict as it is written, and in words.
fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Chosen => ("chosen", "takes the leg"),
        Verdict::Outscored => ("outscored", "fit, but another one was better by the policy"),
        Verdict::OtherZone => ("other_zone", "fit, but stands in another zone than the origin"),
        Verdict::AboveBound => ("above_bound", "with this leg it would be too far above the mean of its peers"),
        Verdict::AtLimit => ("at_limit", "at one of its limits"),
        Verdict::JoiningTooFast => ("joining_too_fast", "joining, and has had its share of new legs for now"),
        Verdict::NotServing => ("not_serving", "down, draining or drained"),
        Verdict::Excluded => ("excluded", "already failed this leg"),
        Verdict::WrongRole => ("wrong_role", "its role does not take this kind"),
        Verdict::NotAsked => ("not_asked", "the rule names another node"),
    }
}

fn record(view: &RecordView, snapshot: &Snapshot) -> Record {
    let record = view.record.as_deref();
    let origin = record.and_then(|record| record.origin.as_deref()).map(str::to_owned);
    let time = |ms: i64| {
        let since = std::time::Duration::from_millis(u64::try_from(ms).ok().filter(|ms| *ms > 0)?);
        let at = std::time::UNIX_EPOCH.checked_add(since)?;
        // Beyond the year 9999 RFC 3339 has no way to write it.
        (ms < 253_402_300_800_000).then(|| humantime::format_rfc3339_millis(at).to_string())
    };
    Record {
        missing: record.is_none(),
        status: record.map(|record| record.status),
        origin_node: origin.as_deref().and_then(|name| Some(snapshot.by_ams_name(name)?.spec.id.clone())),
        origin,
        live: view.live,
        age_ms: u64::try_from(view.age.as_millis()).unwrap_or(u64::MAX),
        updated_at: record.and_then(|record| time(record.updated_ms)),
        started_at: record.and_then(|record| time(record.started_ms)),
        is_virtual: record.is_some_and(|record| record.is_virtual),
        main_track: record.and_then(|record| record.main_track.clone()),
        hinted: view.hinted,
    }
}
