//! `PUT` and `DELETE /v1/nodes/{id}/drain`: an operator, or a lifecycle hook of Auto Scaling, wants a node empty.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Inner,
    access::Caller,
    ask::{Asked, Params},
    nodes::{self, Legs, Node},
    problem::Problem,
    words::{Kept, Migrate},
};
use crate::{
    clock,
    domain::{
        drain::{Deadline, DrainWish},
        ids::NodeId,
    },
    registry::DrainView,
};

/// The longest wait of one call: beyond it a connection is more likely broken than patient.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A drain and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Drain {
    /// Since when. RFC 3339, UTC.
    since: Option<String>,
    /// When what is left is ended; null with `migrate` `none`. RFC 3339, UTC.
    deadline: Option<String>,
    migrate: Migrate,
    /// Legs moved per second by all doors together.
    per_second: u32,
    /// When it was seen to be empty. RFC 3339, UTC; null until then.
    drained_at: Option<String>,
    legs: Legs,
    /// Streams that AMS's records say are live there; null: nobody could say, or the node is an edge.
    streams: Option<u32>,
    /// Legs moved away by all doors since it began.
    moved: u64,
    /// Moves that were not confirmed: their clients were asked to come again.
    failed: u64,
    kept: Kept,
}

impl From<DrainView> for Drain {
    fn from(view: DrainView) -> Self {
        Self {
            since: rfc3339(view.order.since_ms),
            deadline: view.order.deadline_ms.and_then(rfc3339),
            migrate: view.order.migrate.into(),
            per_second: view.order.per_second,
            drained_at: view.order.drained_ms.and_then(rfc3339),
            legs: view.legs.into(),
            streams: view.streams,
            moved: view.moved,
            failed: view.failed,
            kept: view.kept.into(),
        }
    }
}

/// A time of the wall clock as text; nothing where RFC 3339 has no way to write it.
pub(super) fn rfc3339(ms: i64) -> Option<String> {
    let since = Duration::from_millis(u64::try_from(ms).ok().filter(|ms| (1..253_402_300_800_000).contains(ms))?);
    Some(humantime::format_rfc3339_millis(UNIX_EPOCH.checked_add(since)?).to_string())
}

/// What is wanted; all of it may be left out. Of a node that drains already, what is left out stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wish {
    /// When what is left is ended: a duration such as `10m` (the default), or a time in RFC 3339.
    #[schema(example = "10m")]
    deadline: Option<String>,
    /// What becomes of its legs; `paced` if left out.
    migrate: Option<Migrate>,
    /// Legs moved per second by all doors together, 1 to 1000; 5 if left out.
    per_second: Option<u32>,
    /// Also if no other node of its role serves.
    force: bool,
}

impl Wish {
    fn read(self) -> Result<DrainWish, Problem> {
        let deadline = self.deadline.map(|text| {
            let read =
                humantime::parse_duration(&text).map(Deadline::After).ok().or_else(|| time(&text).map(Deadline::At));
            let detail = "deadline: write a duration such as \"10m\", or a time such as \"2026-05-04T03:02:01Z\"";
            read.ok_or_else(|| Problem::bad_request("bad_drain", detail))
        });
        let migrate = self.migrate.map(Into::into);
        Ok(DrainWish { deadline: deadline.transpose()?, migrate, per_second: self.per_second, force: self.force })
    }
}

/// A time in RFC 3339, with any offset, as ms since the epoch.
fn time(text: &str) -> Option<i64> {
    let ms = |utc: &str| {
        let at = humantime::parse_rfc3339(utc).ok()?;
        i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
    };
    let Some((local, offset)) = text.len().checked_sub("+00:00".len()).and_then(|at| text.split_at_checked(at)) else {
        return ms(text);
    };
    let sign = match offset.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return ms(text),
    };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let two = |digits: &str| digits.parse::<i64>().ok().filter(|_| digits.len() == 2);
    let (hours, minutes) = (two(hours).filter(|hours| *hours < 24)?, two(minutes).filter(|minutes| *minutes < 60)?);
    ms(&format!("{local}Z")).map(|utc| utc - sign * (hours * 60 + minutes) * 60_000)
}

/// How a drain is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// Answer when the node is drained, or after this time (a duration such as `60s`, at most 10 minutes).
    wait: Option<String>,
}

impl Patience {
    fn read(&self) -> Result<Option<Duration>, Problem> {
        let wait = self.wait.as_deref().map(|text| {
            let wait = humantime::parse_duration(text).ok().filter(|wait| *wait <= LONGEST_WAIT);
            wait.ok_or_else(|| Problem::bad_request("bad_parameter", "wait: write a duration such as 60s, at most 10m"))
        });
        wait.transpose()
    }
}

/// Starts a drain of a node, or changes it; the same again changes nothing.
///
/// Answers at once, with 200 and the node. With `wait`: 200 once the node is drained, else 202 with `Retry-After`.
#[utoipa::path(
    put,
    path = "/v1/nodes/{id}/drain",
    tag = "nodes",
    params(("id" = String, Path, description = "the node's id or address"), Patience),
    request_body = Wish,
    responses((status = 200, body = Node), (status = 202, body = Node, description = "not drained yet"))
)]
pub(super) async fn put(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Params(patience): Params<Patience>,
    Asked(wish): Asked<Wish>,
) -> Result<Response, Problem> {
    let (wait, wish) = (patience.read()?, wish.read()?);
    let before = inner.state.registry.snapshot();
    let before = nodes::find(&before, &name).ok().and_then(|node| inner.state.registry.drain_of(&node.spec.id));
    let (registry, asked) = (inner.state.registry.clone(), name.clone());
    // What is kept in the store is written on the door's runtime, also if the caller leaves.
    let view = inner.door.spawn(async move { registry.drain(&asked, &wish).await }).await.map_err(going_down)??;
    if before.as_ref().map(|before| &before.order) != Some(&view.order) {
        caller.changed(&inner, "drain", &view.node, &before.map(Drain::from), &Some(Drain::from(view.clone())));
    }
    let mut status = StatusCode::OK;
    if let Some(wait) = wait {
        let until = clock::now() + wait;
        match inner.state.registry.wait_drained(&view.node, until).await {
            Some(view) if view.is_complete() => {}
            Some(_) => status = StatusCode::ACCEPTED,
            None => return Err(Problem::conflict("withdrawn", "the drain was withdrawn by somebody else meanwhile")),
        }
    }
    let node = Node::find(&inner, view.node.as_str())?;
    let mut answer = (status, Json(&node)).into_response();
    if status == StatusCode::ACCEPTED {
        answer.headers_mut().insert(header::RETRY_AFTER, seconds_left(node.drain()).into());
    }
    Ok(answer)
}

/// When asking again makes sense: as long as the legs that are left take at the drain's pace, 1 s to a minute.
fn seconds_left(drain: Option<&Drain>) -> u64 {
    let Some(drain) = drain else { return 1 };
    let legs = drain.legs.all();
    match drain.migrate {
        Migrate::Paced => (legs / u64::from(drain.per_second.max(1))).clamp(1, 60),
        Migrate::Wait | Migrate::None => 10,
    }
}

/// Withdraws a drain, finished or not: the node joins again.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{id}/drain",
    tag = "nodes",
    params(("id" = String, Path, description = "the node's id or address, also of one that has left")),
    responses((status = 200, body = Node), (status = 204, description = "withdrawn; the node has left the cluster"))
)]
pub(super) async fn delete(
    State(inner): State<Inner>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let id = match nodes::find(&inner.state.registry.snapshot(), &name) {
        Ok(node) => Some(node.spec.id.clone()),
        Err(_) => name.parse::<NodeId>().ok(),
    };
    let before = id.as_ref().and_then(|id| inner.state.registry.drain_of(id)).map(Drain::from);
    let (registry, asked) = (inner.state.registry.clone(), name.clone());
    inner.door.spawn(async move { registry.undrain(&asked).await }).await.map_err(going_down)??;
    caller.changed(&inner, "undrain", &name, &before, &None);
    Ok(match Node::find(&inner, &name) {
        Ok(node) => Json(node).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The door's runtime takes no more work.
pub(super) fn going_down(_: tokio::task::JoinError) -> Problem {
    Problem::unavailable("going_down", "this door is ending: ask another one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_duration_or_a_time_with_any_offset() {
        let read = |text: &str| Wish { deadline: Some(text.into()), ..Wish::default() }.read().ok()?.deadline;
        let at = |ms| Some(Deadline::At(ms));
        for (text, expected) in [
            ("10m", Some(Deadline::After(Duration::from_secs(600)))),
            ("1h 30m", Some(Deadline::After(Duration::from_secs(5400)))),
            ("2026-01-01T00:00:00Z", at(1_767_225_600_000)),
            ("2026-01-01T00:00:00.250Z", at(1_767_225_600_250)),
            ("2026-01-01T08:00:00+08:00", at(1_767_225_600_000)),
            ("2025-12-31T19:30:00-04:30", at(1_767_225_600_000)),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T08:00:00+0800", None),
            ("2026-01-01T08:00:00+24:00", None),
            ("soon", None),
            ("ä", None),
            ("ääääää", None),
            ("", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_wait_has_a_bound() {
        let wait = |text: &str| Patience { wait: Some(text.into()) }.read();
        assert_eq!(wait("60s"), Ok(Some(Duration::from_secs(60))));
        assert!(wait("601s").is_err() && wait("60").is_err() && wait("").is_err());
    }
}
