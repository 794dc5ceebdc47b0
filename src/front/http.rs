//! Routes a request: health first, then the WebSocket of an app, then the demo's page, else 404.

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};

use super::{
    Front,
    body::{self, Body},
    locate,
    visitor::Visitor,
    ws,
};
use crate::{domain::ids::AppName, health, shutdown::Shutdown};

/// SDK v1 asks again every second whatever this says (facts/clients.md §0.7); others may heed it.
const RETRY_SECONDS: &str = "2";

/// What a client gets.
pub(super) type Answer = Response<Body>;

/// Answers one request. Health answers before any lock, queue or store is touched.
pub(super) async fn answer(front: &Front, visitor: Visitor, shutdown: &Shutdown, request: Request<Incoming>) -> Answer {
    if let Some(health) = health(front, &request) {
        return health;
    }
    if request.uri().path() == locate::PATH {
        let answer = locate::answer(front, visitor, &request);
        front.metrics.http_answered("locate", answer.status().as_u16());
        return answer;
    }
    let (route, answer) = match websocket_app(request.uri().path()) {
        Some(name) => {
            let known = name.parse::<AppName>().ok().filter(|app| front.apps.load().get(app).is_some());
            match known {
                Some(app) => ("websocket", ws::upgrade(front, app, visitor, shutdown, request)),
                None => ("websocket", plain(StatusCode::NOT_FOUND, "no such app\n")),
            }
        }
        None => ("page", page(front, &request)),
    };
    front.metrics.http_answered(route, answer.status().as_u16());
    answer
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

/// The app of `/{app}/websocket`. Anything less exact is not signalling.
fn websocket_app(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.strip_suffix("/websocket").filter(|app| !app.contains('/'))
}

fn page(front: &Front, request: &Request<Incoming>) -> Answer {
    let found = front.pages.and_then(|pages| pages(request.uri().path()));
    let Some((content_type, bytes)) = found else {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let mut answer = Response::new(body::fixed(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_signalling_path_is_signalling() {
        assert_eq!(websocket_app("/LiveApp/websocket"), Some("LiveApp"));
        for other in
            ["/LiveApp/websocket/", "/LiveApp/websocket/signaling", "/a/b/websocket", "/websocketx", "/LiveApp"]
        {
            assert_eq!(websocket_app(other), None, "{other}");
        }
        assert_eq!(websocket_app("//websocket"), Some(""), "and the empty name is no app");
    }
}
