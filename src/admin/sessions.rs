//! `GET /v1/sessions` and `/v1/sessions/{id}`, and `DELETE`: who is connected, what happened to them, and out with one.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Inner,
    access::Caller,
    ask::{self, Params},
    nodes,
    problem::Problem,
    story::{Line, Placement},
    words::Kind,
};
use crate::{
    clock,
    domain::{
        ids::{self, AppName, NodeId, SessionId, StreamId},
        session::{CloseReason, Input, LegView},
    },
    sessions::Card,
};

/// Sessions of one answer, where the caller names no limit.
const PAGE: usize = 100;
/// Sessions looked at before the next look at who else there is.
const STRIDE: usize = 1000;

/// Which sessions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// With a leg on this node (id or address).
    node: Option<String>,
    /// Of this app.
    #[param(value_type = Option<String>)]
    app: Option<AppName>,
    /// With a leg of this stream.
    #[param(value_type = Option<String>)]
    stream: Option<StreamId>,
    /// With a leg of this kind.
    kind: Option<Kind>,
    /// Sessions of one answer, at most 1000; 100 if left out.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A list of sessions, sorted by id.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// The `cursor` of the next page; null on the last.
    next: Option<String>,
}

/// One client.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    #[schema(example = "00ab34cd56ef7890")]
    id: String,
    #[schema(value_type = String)]
    app: AppName,
    /// Where it sends from.
    #[schema(example = "203.0.113.7:40312")]
    client: String,
    /// RFC 3339, UTC.
    connected_at: String,
    legs: Vec<Leg>,
}

/// One stream that a session publishes or plays.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Leg {
    #[schema(value_type = String)]
    stream: StreamId,
    kind: Kind,
    /// Null until it is placed.
    #[schema(value_type = Option<String>)]
    node: Option<NodeId>,
    /// `placing`, `dialling`, `asked`, `answered` or `live`.
    #[schema(example = "live")]
    state: &'static str,
    /// Since when it is in that state. RFC 3339, UTC.
    since: String,
}

/// One client, with all that is known of it. A session that has ended can be read for ten minutes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail {
    #[serde(flatten)]
    session: Session,
    tls: bool,
    /// RFC 3339, UTC; null while it is there.
    ended_at: Option<String>,
    /// Why it ended; null while it is there.
    ended_by: Option<&'static str>,
    /// Where its legs were placed, and what they were chosen from, in order.
    placements: Vec<Placement>,
    /// What happened to it, in order: the first 16 and the latest 48 events.
    story: Vec<Line>,
    /// Events between those that are not kept.
    forgotten: u32,
}

impl From<&LegView> for Leg {
    fn from(leg: &LegView) -> Self {
        Self {
            stream: leg.stream.clone(),
            kind: leg.kind.into(),
            node: leg.node.clone(),
            state: leg.state,
            since: clock::rfc3339(leg.since),
        }
    }
}

impl Session {
    fn of(card: &Card, legs: &[LegView]) -> Self {
        Self {
            id: card.id.to_string(),
            app: card.app.clone(),
            client: card.client.0.to_string(),
            connected_at: clock::rfc3339(card.opened),
            legs: legs.iter().map(Leg::from).collect(),
        }
    }
}

/// Sessions of this door that match, sorted by id.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(Wanted), responses((status = 200, body = Sessions)))]
pub(super) async fn list(
    State(inner): State<Inner>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Sessions>, Problem> {
    let limit = ask::limit(wanted.limit, PAGE)?;
    let mut after = ask::cursor::<SessionId>(wanted.cursor.as_deref())?;
    let filter = Filter::new(&inner, wanted)?;
    let mut sessions = Vec::new();
    let mut last = None;
    loop {
        let cards = inner.state.sessions.directory().page(after, STRIDE);
        let Some(end) = cards.last() else { return Ok(Json(Sessions { sessions, next: None })) };
        after = Some(end.id);
        for card in &cards {
            let Some(session) = card.look(|page| filter.takes(card, &page.legs).then(|| Session::of(card, &page.legs)))
            else {
                continue;
            };
            if sessions.len() == limit {
                return Ok(Json(Sessions { sessions, next: last }));
            }
            last = Some(session.id.clone());
            sessions.push(session);
        }
    }
}

/// Which sessions are wanted: those with one leg that has all of it.
struct Filter {
    app: Option<AppName>,
    node: Option<NodeId>,
    stream: Option<StreamId>,
    kind: Option<ids::Kind>,
}

impl Filter {
    fn new(inner: &Inner, wanted: Wanted) -> Result<Self, Problem> {
        let node = wanted.node.map(|name| node_named(inner, &name)).transpose()?;
        Ok(Self { app: wanted.app, node, stream: wanted.stream, kind: wanted.kind.map(Into::into) })
    }

    fn takes(&self, card: &Card, legs: &[LegView]) -> bool {
        let leg = |leg: &LegView| {
            self.node.as_ref().is_none_or(|node| leg.node.as_ref() == Some(node))
                && self.stream.as_ref().is_none_or(|stream| leg.stream == *stream)
                && self.kind.is_none_or(|kind| leg.kind == kind)
        };
        let any = self.node.is_none() && self.stream.is_none() && self.kind.is_none();
        self.app.as_ref().is_none_or(|app| card.app == *app) && (any || legs.iter().any(leg))
    }
}

/// The node that a filter names: also one that has left, if legs are still on it.
pub(super) fn node_named(inner: &Inner, name: &str) -> Result<NodeId, Problem> {
    match nodes::find(&inner.state.registry.snapshot(), name) {
        Ok(node) => Ok(node.spec.id.clone()),
        Err(problem) => {
            let id = name.parse::<NodeId>().ok();
            id.filter(|id| !inner.state.sessions.directory().on_node(id).is_empty()).ok_or(problem)
        }
    }
}

fn find(inner: &Inner, name: &str) -> Result<Arc<Card>, Problem> {
    let id = name.parse::<SessionId>().ok();
    let card = id.and_then(|id| inner.state.sessions.directory().get(id));
    let detail = "this door has no such session; one that ended can be read for ten minutes";
    card.ok_or_else(|| Problem::not_found("unknown_session", detail))
}

/// One session, with its placements and its story.
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, description = "the session's id")),
    responses((status = 200, body = Detail))
)]
pub(super) async fn one(State(inner): State<Inner>, Path(id): Path<String>) -> Result<Json<Detail>, Problem> {
    let card = find(&inner, &id)?;
    let page = card.page();
    let story = page.story.events().map(|event| Line::of(event, card.opened));
    Ok(Json(Detail {
        session: Session::of(&card, &page.legs),
        tls: card.tls,
        ended_at: page.ended.map(|(at, _)| clock::rfc3339(at)),
        ended_by: page.ended.map(|(_, reason)| reason.map_or("failed", CloseReason::as_str)),
        placements: page.story.events().filter_map(Placement::of).collect(),
        story: std::iter::once(Line::opened(card.opened)).chain(story).collect(),
        forgotten: page.story.forgotten,
    }))
}

/// Closes a session: its legs end, and its client comes again if it wants to.
#[utoipa::path(
    delete,
    path = "/v1/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, description = "the session's id")),
    responses((status = 204, description = "it was told to close"))
)]
pub(super) async fn delete(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let card = find(&inner, &id)?;
    if card.post(Input::Close(CloseReason::Admin)) {
        caller.changed(&inner, "close_session", card.id, &Some(card.client.0), &None);
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(match card.look(|page| page.ended.is_some()) {
        true => Problem::conflict("session_ended", "the session has ended already"),
        false => Problem::unavailable("session_busy", "the session has too much to read; ask again"),
    })
}
