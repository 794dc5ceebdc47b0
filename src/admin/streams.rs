//! `GET /v1/streams` and `/v1/streams/{app}/{streamId}`: what is published and played through this door, and where.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Inner,
    ask::{self, Params},
    explain::{self, Explained, Question, Record},
    problem::Problem,
    sessions::{Leg, node_named},
};
use crate::{
    domain::{
        ids::{AppName, Kind, NodeId, StreamId, StreamKey},
        routing::Lookup,
    },
    registry::StoreStatus,
    sessions::Card,
};

/// Streams of one answer, where the caller names no limit.
const PAGE: usize = 100;
/// Legs that the answer about one stream lists; there may be more.
const MOST_LEGS: usize = 1000;

/// Which streams.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this app.
    #[param(value_type = Option<String>)]
    app: Option<AppName>,
    /// With a leg on this node, or with it as their origin (id or address).
    node: Option<String>,
    /// Streams of one answer, at most 1000; 100 if left out.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Streams that have legs on this door, sorted by app and id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Streams {
    streams: Vec<Stream>,
    /// The `cursor` of the next page; null on the last.
    next: Option<String>,
}

/// One stream.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stream {
    #[schema(value_type = String)]
    app: AppName,
    #[schema(value_type = String)]
    stream: StreamId,
    /// The node that it is published on, by this door's own legs, else by its record; null if neither says.
    #[schema(value_type = Option<String>)]
    origin: Option<NodeId>,
    /// Publishes of it through this door.
    publishers: u32,
    /// Plays of it through this door.
    viewers: u32,
    /// Where those plays are.
    edges: Vec<Edge>,
}

/// A node that plays a stream.
#[derive(Debug, Serialize, ToSchema)]
struct Edge {
    #[schema(value_type = String)]
    node: NodeId,
    /// Plays through this door.
    viewers: u32,
}

/// One stream with its record, and where it would be played now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    #[serde(flatten)]
    stream: Stream,
    /// The record as it was read last, with its age; null where there is no store, or it does not answer.
    record: Option<Record>,
    /// Where a play would go now, and why.
    play: Explained,
    /// Its legs on this door, at most 1000.
    legs: Vec<StreamLeg>,
}

/// A leg of a stream with its session.
#[derive(Debug, Serialize, ToSchema)]
struct StreamLeg {
    session: String,
    #[serde(flatten)]
    leg: Leg,
}

/// Legs of one stream, counted.
#[derive(Debug, Default)]
struct Sum {
    publishes: Vec<NodeId>,
    publishers: u32,
    edges: BTreeMap<NodeId, u32>,
    viewers: u32,
}

/// Streams that have legs on this door, sorted by app and id.
#[utoipa::path(get, path = "/v1/streams", tag = "streams", params(Wanted), responses((status = 200, body = Streams)))]
pub(super) async fn list(State(inner): State<Inner>, Params(wanted): Params<Wanted>) -> Result<Json<Streams>, Problem> {
    let limit = ask::limit(wanted.limit, PAGE)?;
    let after = ask::cursor::<Cursor>(wanted.cursor.as_deref())?;
    let node = wanted.node.map(|name| node_named(&inner, &name)).transpose()?;
    let mut sums: BTreeMap<StreamKey, Sum> = BTreeMap::new();
    for card in inner.state.sessions.directory().all() {
        let is_wanted = wanted.app.as_ref().is_none_or(|app| card.app == *app);
        if is_wanted {
            add(&mut sums, &card);
        }
    }
    let mut streams = Vec::new();
    for (key, sum) in sums {
        if after.as_ref().is_some_and(|after| key <= after.0) {
            continue;
        }
        let stream = Stream::of(&inner, &key, sum);
        if !node.as_ref().is_none_or(|node| stream.is_on(node)) {
            continue;
        }
        if streams.len() == limit {
            let last: Option<&Stream> = streams.last();
            let next = last.map(|last| format!("{}/{}", last.app, last.stream));
            return Ok(Json(Streams { streams, next }));
        }
        streams.push(stream);
    }
    Ok(Json(Streams { streams, next: None }))
}

/// `app/streamId`
struct Cursor(StreamKey);

impl std::str::FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (app, stream) = text.split_once('/').ok_or(())?;
        Ok(Self(StreamKey { app: app.parse().map_err(drop)?, stream: stream.parse().map_err(drop)? }))
    }
}

fn add(sums: &mut BTreeMap<StreamKey, Sum>, card: &Arc<Card>) {
    card.look(|page| {
        for leg in &page.legs {
            let key = StreamKey { app: card.app.clone(), stream: leg.stream.clone() };
            let sum = sums.entry(key).or_default();
            match leg.kind {
                Kind::Publish => {
                    sum.publishers += 1;
                    sum.publishes.extend(leg.node.clone());
                }
                Kind::Play => {
                    sum.viewers += 1;
                    if let Some(node) = leg.node.clone() {
                        *sum.edges.entry(node).or_default() += 1;
                    }
                }
            }
        }
    });
}

impl Stream {
    fn of(inner: &Inner, key: &StreamKey, sum: Sum) -> Self {
        let by_record = || {
            let view = inner.state.registry.record_view(key).filter(|view| view.live)?;
            let snapshot = inner.state.registry.snapshot();
            Some(snapshot.by_ams_name(view.record?.origin.as_deref()?)?.spec.id.clone())
        };
        Self {
            app: key.app.clone(),
            stream: key.stream.clone(),
            origin: sum.publishes.into_iter().next().or_else(by_record),
            publishers: sum.publishers,
            viewers: sum.viewers,
            edges: sum.edges.into_iter().map(|(node, viewers)| Edge { node, viewers }).collect(),
        }
    }

    fn is_on(&self, node: &NodeId) -> bool {
        self.origin.as_ref() == Some(node) || self.edges.iter().any(|edge| edge.node == *node)
    }
}

/// One stream: its record as read, where it is, and where it would be played now.
#[utoipa::path(
    get,
    path = "/v1/streams/{app}/{stream}",
    tag = "streams",
    params(("app" = String, Path, description = "the app"), ("stream" = String, Path, description = "its streamId")),
    responses((status = 200, body = Detail))
)]
pub(super) async fn one(
    State(inner): State<Inner>,
    Path((app, stream)): Path<(String, String)>,
) -> Result<Json<Detail>, Problem> {
    let unknown = |detail: &str| Problem::not_found("unknown_stream", detail.to_owned());
    let named = app.parse::<AppName>().ok().zip(stream.parse::<StreamId>().ok());
    let (app, stream) = named.ok_or_else(|| unknown("no stream can have that name"))?;
    let question = Question::play(app.clone(), stream.clone());
    let (lookup, play) = explain::ask(&inner, &question).await?;
    let key = StreamKey { app, stream };
    let (mut sums, mut legs) = (BTreeMap::new(), Vec::new());
    for card in inner.state.sessions.directory().all() {
        let of_stream = card.app == key.app && card.look(|page| page.legs.iter().any(|leg| leg.stream == key.stream));
        if of_stream {
            add(&mut sums, &card);
            let page = card.page();
            let own = page.legs.iter().filter(|leg| leg.stream == key.stream);
            legs.extend(own.map(|leg| StreamLeg { session: card.id.to_string(), leg: leg.into() }));
        }
    }
    legs.truncate(MOST_LEGS);
    if legs.is_empty() {
        match (lookup, inner.state.registry.store_state().status) {
            (Lookup::Found { .. }, _) => {}
            (Lookup::Unknown, StoreStatus::Away(_)) => {
                let detail = "MongoDB is away and this door has no leg of it, so nobody can say";
                return Err(Problem::unavailable("store_away", detail));
            }
            (Lookup::Missing | Lookup::Unknown, _) => {
                return Err(unknown("there is no record of it, and this door has no leg of it"));
            }
        }
    }
    let stream = Stream::of(&inner, &key, sums.remove(&key).unwrap_or_default());
    Ok(Json(Detail { stream, record: explain::record(&inner, &key), play, legs }))
}
