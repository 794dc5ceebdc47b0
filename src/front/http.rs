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
    forward::{self, Errands},
    journal::Entry,
    locate,
    visitor::Visitor,
    whip, ws,
};
use crate::{
    domain::http::{
        errand::errand,
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
    let mut entry = Entry::new(front, visitor, &request);
    let Some(target) = normal_target(&mut request) else {
        return entry.told(plain(StatusCode::BAD_REQUEST, "this path cannot be read\n"));
    };
    let route = route(target.path());
    entry.route(route.as_str());
    match page(front, target.path(), request.method()) {
        Some(page) => entry.told(page),
        None => routed(front, route, visitor, shutdown, request, entry).await,
    }
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
    mut entry: Entry,
) -> Answer {
    if route.app().is_some_and(|app| front.apps.load().get(app).is_none()) {
        return entry.told(plain(StatusCode::NOT_FOUND, "no such app\n"));
    }
    let is_tunnel = matches!(route, Route::Page(..)) && forward::is_tunnel(&request);
    let method = if is_tunnel { "GET" } else { request.method().as_str() };
    let errand = match errand(&route, method) {
        Some(Ok(errand)) => Some(errand),
        Some(Err(refusal)) => return entry.told(forward::not_allowed(refusal)),
        None => None,
    };
    match (route, errand) {
        (Route::Rest(..), _) if !front.http.load().expose_rest => entry.told(not_found()),
        (Route::Streams(app, file) | Route::Rest(app, file) | Route::Page(app, file), Some(errand)) => {
            if is_tunnel && !ws::is_welcome(front, &app, request.headers()) {
                return entry.told(plain(StatusCode::FORBIDDEN, "this Origin may not use this app\n"));
            }
            let errands = Errands { front, app, errand, file, visitor };
            if is_tunnel {
                return forward::tunnel(errands, request, shutdown, entry).await;
            }
            let answer = forward::forward(errands, request, &mut entry).await;
            entry.told(answer)
        }
        (Route::Signalling(app), _) => {
            let answer = ws::upgrade(front, app, visitor, shutdown, request);
            let opens = answer.status() == StatusCode::SWITCHING_PROTOCOLS || answer.status().is_success();
            if opens { entry.became_session(answer) } else { entry.told(answer) }
        }
        (Route::Whip(path), _) => {
            if path.resource.is_some() {
                entry.hide_after(3);
            }
            let answer = whip::answer(front, path, visitor, request).await;
            entry.told(answer)
        }
        (Route::Locate, _) => {
            let answer = locate::answer(front, visitor, &request);
            entry.told(answer)
        }
        _ => entry.told(not_found()),
    }
}

fn not_found() -> Answer {
    plain(StatusCode::NOT_FOUND, "not found\n")
}

/// The answer to a request for health, if it is one.
pub(super) fn health(front: &Front, request: &Request<Incoming>) -> Option<Answer> {
    health::answer(request.method().as_str(), request.uri().path(), &front.readiness).map(health_answer)
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
