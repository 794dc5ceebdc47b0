//! Routes a request: health first, then its path in one spelling, then what the path leads to.

use std::borrow::Cow;

use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    http::uri::PathAndQuery,
};

use super::{
    Front,
    body::{self, Body},
    locate,
    visitor::Visitor,
    whip, ws,
};
use crate::{
    domain::http::{
        path,
        route::{Route, route},
    },
    health,
    shutdown::Shutdown,
};

/// SDK v1 asks again every second whatever this says (facts/clients.md §0.7); others may heed it.
const RETRY_SECONDS: &str = "2";

/// What a client gets.
pub(super) type Answer = Response<Body>;

/// Answers one request. Health answers before any lock, queue or store is touched.
pub(super) async fn answer(front: &Front, visitor: Visitor, shutdown: &Shutdown, request: Request<Incoming>) -> Answer {
    if let Some(health) = health(front, &request) {
        return health;
    }
    let mut request = request;
    let Some(target) = normal_target(&mut request) else {
        let answer = plain(StatusCode::BAD_REQUEST, "this path cannot be read\n");
        front.metrics.http_answered("none", answer.status().as_u16());
        return answer;
    };
    let route = route(target.path());
    let pattern = route.as_str();
    let answer = match page(front, target.path(), request.method()) {
        Some(page) => page,
        None => routed(front, route, visitor, shutdown, request).await,
    };
    front.metrics.http_answered(pattern, answer.status().as_u16());
    answer
}

/// The answer to a request for health, if it is one.
pub(super) fn health(front: &Front, request: &Request<Incoming>) -> Option<Answer> {
    health::answer(request.method().as_str(), request.uri().path(), &front.readiness).map(health_answer)
}

/// Brings the request's path into its one spelling, in the request too, so that everybody reads the same.
fn normal_target(request: &mut Request<Incoming>) -> Option<PathAndQuery> {
    let uri = request.uri();
    let target = uri.path_and_query()?;
    let Cow::Owned(normal) = path::normalise(target.path()).ok()? else { return Some(target.clone()) };
    let text = match target.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    let target: PathAndQuery = text.parse().ok()?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.clone());
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(target)
}

async fn routed(
    front: &Front,
    route: Route<'_>,
    visitor: Visitor,
    shutdown: &Shutdown,
    request: Request<Incoming>,
) -> Answer {
    if route.app().is_some_and(|app| front.apps.load().get(app).is_none()) {
        return plain(StatusCode::NOT_FOUND, "no such app\n");
    }
    match route {
        Route::Signalling(app) => ws::upgrade(front, app, visitor, shutdown, request),
        Route::Whip(path) => whip::answer(front, path, visitor, shutdown, request).await,
        Route::Locate => locate::answer(front, visitor, &request),
        Route::Streams(..) | Route::Rest(..) | Route::Page(..) | Route::Forbidden | Route::Nothing => not_found(),
    }
}

fn not_found() -> Answer {
    plain(StatusCode::NOT_FOUND, "not found\n")
}

fn health_answer(health: health::Answer) -> Answer {
    let status = StatusCode::from_u16(health.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut answer = plain(status, health.body);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // The SDK asks from a page before it connects to the door that `locate` named.
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if let Some(allow) = health.allow {
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    answer
}

/// The demo's page, where the path is one of its files.
fn page(front: &Front, path: &str, method: &Method) -> Option<Answer> {
    let (content_type, bytes) = front.pages.and_then(|pages| pages(path))?;
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    let mut answer = Response::new(body::fixed(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(answer)
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(body::fixed(text.as_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// A 503 that says when to come again.
pub(super) fn busy(text: &'static str) -> Answer {
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    answer
}
