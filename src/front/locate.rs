//! `GET /forebay/locate?app=…`: where a client shall open its WebSocket. The answer is what the SDK's `httpEndpointUrl`
//! expects (facts/clients.md §0.10); it asks again at every reconnect, so a door that wants no more clients sends them to
//! another one here without refusing anybody.
//!
//! ```text
//! takes sessions? ── yes ─► door.public_url, else the Host that was asked for
//!          └──────── no ──► another door's public_url ── none ─► the Host (a load balancer there may know better)
//! ```

use std::{fmt, sync::Arc};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Body as _,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL,
        CONTENT_TYPE, HOST, HeaderValue, ORIGIN, VARY,
    },
    http::uri::Authority,
};
use serde_json::{Value, json};

use super::{
    Front,
    body::{empty, whole},
    http::Answer,
    visitor::Visitor,
};
use crate::{config::App, domain::ids::AppName, health::Readiness};

/// The other doors of this cluster.
#[derive(Clone)]
pub struct Peers(Arc<dyn Fn() -> Vec<String> + Send + Sync>);

impl Peers {
    /// `doors` gives the `door.public_url` of every other door that takes new sessions at that moment, such as
    /// `https://door-2.example`. It must not block.
    pub fn new(doors: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(doors))
    }

    /// A door that knows no other.
    pub fn none() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

/// What locating needs to know.
#[derive(Debug, Clone)]
pub struct Locate {
    /// `door.public_url`: scheme and host, without a path.
    pub public_url: Option<String>,
    /// Whom to name while this door wants no new sessions.
    pub peers: Peers,
}

impl Locate {
    /// Scheme and host of the door that a client shall use; `asked` is what it asked this one by. `lot` chooses among
    /// peers.
    fn base(&self, readiness: &Readiness, asked: String, lot: usize) -> String {
        if readiness.now().takes_sessions() {
            return self.public_url.clone().unwrap_or(asked);
        }
        let mut peers = (self.peers.0)();
        if peers.is_empty() { asked } else { peers.swap_remove(lot % peers.len()) }
    }
}

/// Answers one request for the path.
pub(super) fn answer<B>(front: &Front, visitor: Visitor, request: &Request<B>) -> Answer {
    let headers = request.headers();
    let app = query(request.uri().query().unwrap_or_default(), "app").and_then(|name| name.parse::<AppName>().ok());
    let known = app.as_ref().and_then(|name| front.apps.load().get(name).cloned());
    let (Some(app), Some(settings)) = (app, known) else {
        return refusal(StatusCode::NOT_FOUND, "name an app that exists: ?app=NAME", &App::default(), headers);
    };
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::OPTIONS => return preflight(&settings, headers),
        _ => return wrong_method(&settings, headers),
    }
    if allowed_origin(&settings, headers).is_none() {
        return refusal(StatusCode::FORBIDDEN, "this Origin may not use this app", &settings, headers);
    }
    let Some(host) = host(request) else {
        return refusal(StatusCode::BAD_REQUEST, "Host is missing", &settings, headers);
    };
    let scheme = if visitor.secure { "https" } else { "http" };
    let base = front.locate.base(&front.readiness, format!("{scheme}://{host}"), fastrand::usize(..));
    json_answer(StatusCode::OK, &found(&base, &app), &settings, headers)
}

/// What the SDK reads: it asks `http_url` by HEAD first, then opens `websocket_url`.
fn found(base: &str, app: &AppName) -> Value {
    // `http` becomes `ws`, `https` becomes `wss`.
    let socket = base.replacen("http", "ws", 1);
    let authority = base.split_once("://").map_or(base, |(_, authority)| authority);
    let fqdn = authority.parse::<Authority>().map_or_else(|_| authority.to_owned(), |whole| whole.host().to_owned());
    json!({
        "websocket_url": format!("{socket}/{app}/websocket"),
        "http_url": format!("{base}/healthz"),
        "fqdn": fqdn,
    })
}

/// The host and port that the client asked for.
fn host<B>(request: &Request<B>) -> Option<String> {
    let named = request.uri().authority().map(|authority| authority.as_str());
    let named = named.or_else(|| request.headers().get(HOST)?.to_str().ok())?;
    // What is no plain authority (or one with a password) is not given back to anybody.
    let authority: Authority = named.parse().ok()?;
    (!authority.as_str().contains('@')).then(|| authority.as_str().to_owned())
}

/// The first value of a key in a query. App names need no percent-encoding, so one that has it is none.
fn query<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value))
}

/// What `Access-Control-Allow-Origin` shall say; `None`: the page may not use the app.
fn allowed_origin(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let Some(origin) = headers.get(ORIGIN).filter(|_| !app.origins.is_empty()) else {
        return Some(HeaderValue::from_static("*"));
    };
    let allowed = app.origins.iter().any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()));
    allowed.then(|| origin.clone())
}

fn json_answer(status: StatusCode, body: &Value, app: &App, headers: &HeaderMap) -> Answer {
    let mut answer = Response::new(whole(body.to_string().into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with_cors(answer, app, headers)
}

fn refusal(status: StatusCode, why: &'static str, app: &App, headers: &HeaderMap) -> Answer {
    json_answer(status, &json!({ "error": why }), app, headers)
}

fn wrong_method(app: &App, headers: &HeaderMap) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS", app, headers);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    answer
}

fn preflight(app: &App, headers: &HeaderMap) -> Answer {
    let mut answer = Response::new(empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    with_cors(answer, app, headers)
}

fn with_cors(mut answer: Answer, app: &App, headers: &HeaderMap) -> Answer {
    if let Some(origin) = allowed_origin(app, headers) {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    if !app.origins.is_empty() {
        answer.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    debug_assert!(answer.body().size_hint().exact().is_some(), "an answer of known length");
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(public_url: Option<&str>, peers: &'static [&str]) -> Locate {
        let peers = Peers::new(|| peers.iter().map(|peer| (*peer).to_owned()).collect());
        Locate { public_url: public_url.map(str::to_owned), peers }
    }

    fn ready() -> Readiness {
        let readiness = Readiness::new();
        readiness.started();
        readiness
    }

    #[test]
    fn a_ready_door_names_itself_and_a_draining_one_another_if_there_is_one() {
        let (ready, draining) = (ready(), Readiness::new());
        draining.drain();
        let asked = || "http://asked.example:5080".to_owned();
        let peers: &[&str] = &["https://b.example", "https://c.example"];
        for (locate, readiness, lot, expected) in [
            (locate(None, peers), &ready, 0, "http://asked.example:5080"),
            (locate(Some("https://a.example"), peers), &ready, 0, "https://a.example"),
            (locate(Some("https://a.example"), peers), &draining, 0, "https://b.example"),
            (locate(None, peers), &draining, 5, "https://c.example"),
            (locate(Some("https://a.example"), &[]), &draining, 0, "http://asked.example:5080"),
        ] {
            assert_eq!(locate.base(readiness, asked(), lot), expected, "{locate:?}");
        }
    }

    #[test]
    fn a_door_that_is_full_names_another() {
        let full = ready();
        full.set_over_limit(true);
        let locate = locate(Some("https://a.example"), &["https://b.example"]);
        assert_eq!(locate.base(&full, "http://x".to_owned(), 0), "https://b.example");
    }

    #[test]
    fn the_answer_has_the_sdks_three_fields() {
        let app = "LiveApp".parse().unwrap();
        assert_eq!(
            found("https://door.example:8443", &app),
            json!({
                "websocket_url": "wss://door.example:8443/LiveApp/websocket",
                "http_url": "https://door.example:8443/healthz",
                "fqdn": "door.example",
            })
        );
        assert_eq!(found("http://[::1]:5080", &app)["websocket_url"], "ws://[::1]:5080/LiveApp/websocket");
    }

    #[test]
    fn what_is_no_plain_host_is_not_given_back() {
        let host = |text: &str| host(&Request::builder().header(HOST, text).body(()).unwrap());
        assert_eq!(host("door.example:443").as_deref(), Some("door.example:443"));
        for bad in ["a b", "user:secret@door.example", "a/b", "", "\"x\""] {
            assert_eq!(host(bad), None, "{bad:?}");
        }
        let over_http2 = Request::builder().uri("https://door.example/forebay/locate").body(()).unwrap();
        assert_eq!(super::host(&over_http2).as_deref(), Some("door.example"));
    }

    #[test]
    fn only_pages_that_may_use_the_app_may_read_the_answer() {
        let open = App::default();
        let closed = App { origins: vec!["https://tv.example".to_owned()], ..App::default() };
        let from = |origin: &'static str| HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
        assert_eq!(allowed_origin(&open, &from("https://evil.example")).unwrap(), "*");
        assert_eq!(allowed_origin(&closed, &from("https://tv.example")).unwrap(), "https://tv.example");
        assert_eq!(allowed_origin(&closed, &from("https://evil.example")), None);
        assert!(allowed_origin(&closed, &HeaderMap::new()).is_some(), "who is no page");
    }

    #[test]
    fn the_app_is_found_wherever_it_stands_in_the_query() {
        assert_eq!(query("source=sdk&app=LiveApp", "app"), Some("LiveApp"));
        assert_eq!(query("app=LiveApp&app=Other", "app"), Some("LiveApp"));
        assert_eq!(query("apps=LiveApp&xapp=y&app", "app"), None);
    }
}
