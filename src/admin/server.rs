//! The listener, its thread, and what every request passes before its handler: the token, limits, and an answer in
//! problem details for whatever is no call of this API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::constant_time;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{AdminError, Inner, explain, metrics, nodes, problem::Problem};
use crate::{
    config::{self, Secret},
    net,
};

/// Connections at a time; the next one waits in the kernel's backlog for a seat.
const CONNECTIONS: usize = 256;
/// A caller that has not sent its request's head by then is closed; so is an idle connection.
const HEAD: Duration = Duration::from_secs(30);
/// From a request's head to its answer; beyond it a 503.
const REQUEST: Duration = Duration::from_secs(30);
/// Largest body of a request; a larger one is a 413.
const LARGEST_BODY: usize = 64 * 1024;
/// After an accept that failed (no descriptors left), before the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) fn start(
    config: &config::Admin,
    listener: std::net::TcpListener,
    inner: Inner,
    stop: CancellationToken,
) -> Result<SocketAddr, AdminError> {
    let router = router(inner, config.token.clone());
    net::serve_on_thread("admin", listener, stop, |listener| serve(listener, router))
        .map_err(|why| AdminError::Bind(config.bind, why))
}

fn router(inner: Inner, token: Option<Secret>) -> Router {
    let counted = inner.clone();
    Router::new()
        .route("/metrics", get(metrics::scrape))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::one))
        .route("/v1/explain", post(|state, Whole(body): Whole| explain::explain(state, body)))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the call exists, but not with this method: see Allow")
        })
        .fallback(async || Problem::not_found("there is no such call"))
        .layer(middleware::from_fn(within_limits))
        .layer(middleware::from_fn_with_state(token.map(Arc::new), authorized))
        .layer(middleware::from_fn_with_state(counted, counts))
        .with_state(inner)
}

async fn serve(listener: TcpListener, router: Router) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    let _seat = seat;
                    // A caller that goes away is no event.
                    let _ = connection(stream, router).await;
                });
            }
            Err(why) => {
                tracing::warn!(%why, "the admin listener failed to accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Lets pass who sends the token, where there is one.
async fn authorized(State(token): State<Option<Arc<Secret>>>, request: Request, next: Next) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(bearer).unwrap_or_default();
    if constant_time::verify_slices_are_equal(given, token.0.as_bytes()).is_ok() {
        return next.run(request).await;
    }
    let detail = "send the token of admin.token_file or admin.token_env: Authorization: Bearer …";
    let mut refused = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"forebay\""));
    refused
}

/// RFC 6750 §2.1, the scheme in any case.
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

async fn within_limits(request: Request, next: Next) -> Response {
    let late = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the door did not answer in time; ask again");
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

async fn counts(State(inner): State<Inner>, request: Request, next: Next) -> Response {
    let route = match request.uri().path() {
        "/metrics" => "/metrics",
        "/v1/nodes" => "/v1/nodes",
        "/v1/explain" => "/v1/explain",
        path if path.starts_with("/v1/nodes/") => "/v1/nodes/{id}",
        _ => "other",
    };
    let answer = next.run(request).await;
    inner.state.metrics.http_answered(route, answer.status().as_u16());
    answer
}

/// A body of at most [`LARGEST_BODY`], or the problem with it.
struct Whole(Result<Bytes, Problem>);

impl<S: Sync> FromRequest<S> for Whole {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Self::Rejection> {
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let too_large =
            || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body may have {} KiB", LARGEST_BODY / 1024));
        if told.is_some_and(|length: u64| length > LARGEST_BODY as u64) {
            return Ok(Self(Err(too_large())));
        }
        let body = to_bytes(request.into_body(), LARGEST_BODY).await;
        Ok(Self(body.map_err(|why| match is_too_large(&why) {
            true => too_large(),
            false => Problem::bad_request("the body did not arrive whole"),
        })))
    }
}

fn is_too_large(why: &axum::Error) -> bool {
    std::error::Error::source(why).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{
        admin::{AdminState, start},
        clock,
        config::{Config, Live},
        domain::ids::StreamKey,
        registry::{Backing, Registry, memory::MemoryDb},
        shutdown::Shutdown,
        telemetry::metrics::Metrics,
    };

    const CLUSTER: &str = r#"
        [apps]
        LiveApp = {}
        [[nodes.static]]
        name = "origin-1"
        address = "10.0.0.1"
        role = "origin"
        [[nodes.static]]
        name = "edge-1"
        address = "10.0.0.2"
        role = "edge"
        [[nodes.static]]
        name = "edge-2"
        address = "10.0.0.3"
        role = "edge"
    "#;

    /// A running admin API over a cluster of three static nodes; it ends with the test.
    struct Api {
        at: SocketAddr,
        shutdown: Shutdown,
    }

    impl Drop for Api {
        fn drop(&mut self) {
            self.shutdown.stop();
        }
    }

    struct Answer {
        status: u16,
        head: String,
        body: String,
    }

    impl Answer {
        fn json(&self) -> Value {
            serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why} in {}", self.body))
        }
    }

    impl Api {
        async fn with_token(token: Option<&str>) -> Self {
            Self::over(CLUSTER, Backing::None, token).await
        }

        async fn over(config: &str, backing: Backing, token: Option<&str>) -> Self {
            let config = Config::from_toml_str(config).unwrap();
            let shutdown = Shutdown::new();
            let registry = Registry::start(&config, backing, &shutdown).await.unwrap();
            let state = AdminState { registry, metrics: Metrics::new(), config: Live::new(config) };
            let bind = "127.0.0.1:0".parse().unwrap();
            let settings = config::Admin { bind, token: token.map(|token| Secret(token.to_owned())) };
            let at = start(&settings, state, &shutdown).unwrap();
            Self { at, shutdown }
        }

        async fn new() -> Self {
            Self::with_token(None).await
        }

        async fn raw(&self, request: &str) -> Answer {
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A server that refuses a body may reset the connection after its answer.
            let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer));
            let _ = read.await.expect("an answer within 20 s");
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            Answer { status, head: head.to_lowercase(), body: body.to_owned() }
        }

        async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
            let length = body.len();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}");
            self.raw(&format!("{head}Content-Length: {length}\r\n\r\n{body}")).await
        }

        async fn get(&self, path: &str) -> Answer {
            self.ask("GET", path, "", "").await
        }

        async fn explain(&self, body: &str) -> Answer {
            self.ask("POST", "/v1/explain", "", body).await
        }
    }

    fn assert_problem(answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        let body = answer.json();
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], "about:blank");
        assert!(!body["title"].as_str().unwrap().is_empty() && !body["detail"].as_str().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_nodes_are_listed_and_found_one_by_one() {
        let api = Api::new().await;
        let list = api.get("/v1/nodes").await;
        assert_eq!(list.status, 200);
        let list = list.json();
        let ids: Vec<&str> =
            list["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
        assert_eq!((ids, &list["next"]), (vec!["edge-1", "edge-2", "origin-1"], &Value::Null));
        let page = api.get("/v1/nodes?limit=1&cursor=edge-1").await.json();
        assert_eq!((&page["nodes"][0]["id"], &page["next"]), (&json!("edge-2"), &json!("edge-2")));
        for name in ["origin-1", "10.0.0.1", "10.0.0.1:5080", "10.0.0.1%3A5080"] {
            let node = api.get(&format!("/v1/nodes/{name}")).await.json();
            assert_eq!((&node["id"], &node["role"]), (&json!("origin-1"), &json!("origin")), "{name}");
            assert_eq!(node["address"], "10.0.0.1:5080");
        }
    }

    #[tokio::test]
    async fn every_error_is_a_problem_with_its_details() {
        let api = Api::new().await;
        assert_problem(&api.get("/").await, 404);
        assert_problem(&api.get("/v1/sessions").await, 404);
        assert_problem(&api.get("/v1/nodes/nobody").await, 404);
        assert_problem(&api.get("/v1/nodes?limt=1").await, 400);
        assert_problem(&api.get("/v1/nodes?limit=0").await, 400);
        assert_problem(&api.get("/v1/nodes?cursor=a%20b").await, 400);
        let refused = api.ask("DELETE", "/v1/nodes", "", "").await;
        assert_problem(&refused, 405);
        assert!(refused.head.contains("allow: get"), "{}", refused.head);
        assert_problem(&api.get("/v1/explain").await, 405);
        for body in ["", "{", "[]", r#"{"app":"LiveApp","stream":"s","kind":"watch"}"#, r#"{"app":"LiveApp"}"#] {
            assert_problem(&api.explain(body).await, 400);
        }
        assert_problem(&api.explain(r#"{"app":"LiveApp","stream":"s","kind":"play","nod":1}"#).await, 400);
        assert_problem(&api.explain(r#"{"app":"LiveApp","stream":"a b","kind":"play"}"#).await, 400);
        assert_problem(&api.explain(r#"{"app":"Nope","stream":"s","kind":"play"}"#).await, 404);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_however_its_length_is_told() {
        let api = Api::new().await;
        assert_problem(&api.explain(&" ".repeat(LARGEST_BODY + 1)).await, 413);
        let chunk = " ".repeat(LARGEST_BODY + 1);
        let head = "POST /v1/explain HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_problem(&api.raw(&format!("{head}{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len())).await, 413);
    }

    #[tokio::test]
    async fn with_a_token_nothing_is_told_without_it() {
        let api = Api::with_token(Some("s3cret")).await;
        for wrong in [
            "",
            "Authorization: Bearer s3cre\r\n",
            "Authorization: Bearer S3CRET\r\n",
            "Authorization: Basic s3cret\r\n",
        ] {
            for path in ["/metrics", "/v1/nodes", "/nowhere"] {
                let refused = api.ask("GET", path, wrong, "").await;
                assert_problem(&refused, 401);
                assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
            }
        }
        for right in ["Authorization: Bearer s3cret\r\n", "authorization: bearer s3cret\r\n"] {
            assert_eq!(api.ask("GET", "/v1/nodes", right, "").await.status, 200);
        }
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text_with_the_nodes_in_it() {
        let api = Api::new().await;
        api.get("/nowhere").await;
        let metrics = api.get("/metrics").await;
        assert!(metrics.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", metrics.head);
        assert!(metrics.body.ends_with("# EOF\n"));
        assert!(metrics.body.contains("forebay_node_state{node=\"edge-1\",state=\"serving\"} 1"), "{}", metrics.body);
        assert!(metrics.body.contains("forebay_http_requests_total{route=\"other\",status=\"404\"} 1"));
    }

    #[tokio::test]
    async fn explain_tells_where_a_publish_would_go_and_reserves_nothing() {
        let api = Api::new().await;
        let answer = api.explain(r#"{"app":"LiveApp","stream":"cam-7","kind":"publish"}"#).await.json();
        assert_eq!((&answer["outcome"], &answer["node"]), (&json!("placed"), &json!("origin-1")), "{answer}");
        assert_eq!(answer["refusal"], Value::Null);
        let verdict = |id: &str| {
            let candidates = answer["candidates"].as_array().unwrap();
            let of = candidates.iter().find(|candidate| candidate["node"] == id);
            of.unwrap_or_else(|| panic!("{id} is not told of: {answer}"))["verdict"].clone()
        };
        assert_eq!(verdict("origin-1"), "chosen");
        assert_eq!((verdict("edge-1"), verdict("edge-2")), (json!("wrong_role"), json!("wrong_role")));
        assert_eq!(answer["tally"], json!({"chosen": 1, "wrong_role": 2}));
        let nodes = api.get("/v1/nodes/origin-1").await.json();
        assert_eq!(nodes["legs"]["publish"], 0);
    }

    #[tokio::test]
    async fn explain_tells_that_a_play_without_a_store_is_placed_blindly_and_where_it_would_go_next() {
        let api = Api::new().await;
        let ask =
            |exclude: &str| format!(r#"{{"app":"LiveApp","stream":"cam-7","kind":"play","exclude":[{exclude}]}}"#);
        let first = api.explain(&ask("")).await.json();
        assert_eq!((&first["outcome"], &first["blind"]), (&json!("placed"), &json!(true)), "{first}");
        assert_eq!(first["store"]["status"], "none");
        let node = first["node"].as_str().unwrap();
        assert!(node.starts_with("edge-"));
        let next = api.explain(&ask(&format!("\"{node}\""))).await.json();
        assert!(next["node"].as_str().unwrap().starts_with("edge-") && next["node"] != node, "{next}");
        let none = api.explain(&ask("\"edge-1\",\"10.0.0.3\"")).await.json();
        assert_eq!(none["tally"]["excluded"], 2, "{none}");
        assert_eq!(
            (&none["outcome"], &none["refusal"]),
            (&json!("no_capacity"), &json!("highResourceUsage")),
            "{none}"
        );
    }

    #[tokio::test]
    async fn explain_shows_the_record_that_a_play_is_routed_by() {
        let db = MemoryDb::default();
        let api = Api::over(CLUSTER, Backing::Memory(db.clone()), None).await;
        let ask = r#"{"app":"LiveApp","stream":"cam-7","kind":"play"}"#;
        let before = api.explain(ask).await.json();
        assert_eq!((&before["outcome"], &before["refusal"]), (&json!("waits"), &json!("no_stream_exist")), "{before}");
        assert_eq!((&before["node"], &before["record"]["missing"]), (&Value::Null, &json!(true)));

        let now = clock::wall_ms();
        let record = json!({"streamId": "other", "status": "broadcasting", "originAdress": "10.0.0.1",
            "updateTime": now, "startTime": now - 5000, "mainTrackStreamId": "room-1"});
        let key = StreamKey { app: "LiveApp".parse().unwrap(), stream: "other".parse().unwrap() };
        db.set_broadcast(&key, record.as_object().unwrap().clone(), true);
        let live = api.explain(&ask.replace("cam-7", "other")).await.json();

        assert_eq!((&live["outcome"], &live["blind"]), (&json!("placed"), &json!(false)), "{live}");
        let record = &live["record"];
        assert_eq!((&record["live"], &record["status"]), (&json!(true), &json!("broadcasting")));
        assert_eq!((&record["origin"], &record["origin_node"]), (&json!("10.0.0.1"), &json!("origin-1")));
        assert_eq!(record["main_track"], "room-1");
        assert!(record["age_ms"].as_u64().unwrap() < 20_000 && record["updated_at"].as_str().unwrap().ends_with('Z'));
        // A publish of a live stream goes back to its origin, and says by which rule.
        let publish = api.explain(&ask.replace("cam-7", "other").replace("play", "publish")).await.json();
        assert_eq!((&publish["node"], &publish["rule"]), (&json!("origin-1"), &json!("live_on_origin")), "{publish}");
    }

    #[tokio::test]
    async fn explain_tells_of_every_node_however_many_there_are() {
        let nodes: String = (1..=30).map(|n| format!("[[nodes.static]]\naddress = \"10.0.1.{n}\"\n")).collect();
        let api = Api::over(&format!("[apps]\n\"*\" = {{}}\n{nodes}"), Backing::None, None).await;
        let answer = api.explain(r#"{"app":"any","stream":"s","kind":"publish"}"#).await.json();
        let candidates = answer["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 30, "{answer}");
        assert_eq!((&candidates[0]["verdict"], &candidates[0]["node"]), (&json!("chosen"), &answer["node"]));
        assert!(candidates.iter().all(|candidate| candidate["why"].as_str().is_some_and(|why| !why.is_empty())));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_at_the_start() {
        let api = Api::new().await;
        let config = Config::from_toml_str(CLUSTER).unwrap();
        let shutdown = Shutdown::new();
        let registry = Registry::start(&config, Backing::None, &shutdown).await.unwrap();
        let state = AdminState { registry, metrics: Metrics::new(), config: Live::new(config) };
        assert!(start(&config::Admin { bind: api.at, token: None }, state, &shutdown).is_err());
    }
}
