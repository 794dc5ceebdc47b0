//! The whole API over its own listener, on a cluster of static nodes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{AdminState, ask::LARGEST_BODY, start};
use crate::{
    clock,
    config::{self, AdminToken, Config, Live, Secret},
    domain::ids::{ClientAddr, SessionId, StreamKey},
    health::{Probes, Readiness},
    registry::{Backing, Registry, memory::MemoryDb},
    sessions::Sessions,
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
    sessions: Sessions,
    readiness: Readiness,
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
        let tokens = token.map(|token| AdminToken { name: "ops".into(), secret: Secret(token.to_owned()) });
        let bind = "127.0.0.1:0".parse().unwrap();
        let admin = config::Admin { bind, tokens: tokens.into_iter().collect(), token_file: None, tls: None };
        Self::start(config, backing, &admin).await.unwrap()
    }

    async fn start(config: &str, backing: Backing, admin: &config::Admin) -> Result<Self, super::AdminError> {
        let mut config = Config::from_toml_str(config).unwrap();
        config.door.name = "door-1".into();
        let (shutdown, metrics, readiness) = (Shutdown::new(), Metrics::new(), Readiness::new());
        let registry = Registry::start(&config, backing, &shutdown).await.unwrap();
        let full = Arc::new(|_| {});
        let sessions = Sessions::new(&config, registry.clone(), metrics.clone(), None, full, shutdown.clone());
        readiness.started();
        let state = AdminState {
            registry,
            sessions: sessions.clone(),
            probes: Probes::default(),
            readiness: readiness.clone(),
            metrics,
            logs: None,
            config: Live::new(config),
        };
        let at = start(admin, state, &shutdown)?;
        Ok(Self { at, shutdown, sessions, readiness })
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
    let ids: Vec<&str> = list["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
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
    assert_problem(&api.get("/page/none.js").await, 404);
    assert_problem(&api.get("/v1/nowhere").await, 404);
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
    for wrong in
        ["", "Authorization: Bearer s3cre\r\n", "Authorization: Bearer S3CRET\r\n", "Authorization: Basic s3cret\r\n"]
    {
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
    let ask = |exclude: &str| format!(r#"{{"app":"LiveApp","stream":"cam-7","kind":"play","exclude":[{exclude}]}}"#);
    let first = api.explain(&ask("")).await.json();
    assert_eq!((&first["outcome"], &first["blind"]), (&json!("placed"), &json!(true)), "{first}");
    assert_eq!(first["store"]["status"], "none");
    let node = first["node"].as_str().unwrap();
    assert!(node.starts_with("edge-"));
    let next = api.explain(&ask(&format!("\"{node}\""))).await.json();
    assert!(next["node"].as_str().unwrap().starts_with("edge-") && next["node"] != node, "{next}");
    let none = api.explain(&ask("\"edge-1\",\"10.0.0.3\"")).await.json();
    assert_eq!(none["tally"]["excluded"], 2, "{none}");
    assert_eq!((&none["outcome"], &none["refusal"]), (&json!("no_capacity"), &json!("highResourceUsage")), "{none}");
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
    let admin = config::Admin { bind: api.at, tokens: Vec::new(), token_file: None, tls: None };
    assert!(Api::start(CLUSTER, Backing::None, &admin).await.is_err());
}

#[tokio::test]
async fn the_document_describes_every_call_and_nothing_else() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.json();
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "put", "post", "delete"] {
            if item.get(method).is_some() {
                described.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    for call in &described {
        let (method, path) = call.split_once(' ').unwrap();
        let path = path.replace("{id}", "nobody").replace("{app}", "LiveApp").replace("{stream}", "s");
        if path == "/v1/events" {
            continue; // its answer does not end
        }
        let answer = api.ask(method, &path, "", "").await;
        assert_ne!(answer.status, 405, "{call}");
        let is_there = answer.status != 404 || answer.json()["code"] != "unknown_call";
        assert!(is_there, "{call} is described but not there");
    }
    described.sort();
    let calls = [
        "DELETE /v1/door/drain",
        "DELETE /v1/nodes/{id}/drain",
        "DELETE /v1/sessions/{id}",
        "GET /",
        "GET /metrics",
        "GET /v1/capacity",
        "GET /v1/door",
        "GET /v1/events",
        "GET /v1/nodes",
        "GET /v1/nodes/{id}",
        "GET /v1/sessions",
        "GET /v1/sessions/{id}",
        "GET /v1/streams",
        "GET /v1/streams/{app}/{stream}",
        "POST /v1/explain",
        "PUT /v1/door/drain",
        "PUT /v1/log",
        "PUT /v1/nodes/{id}/drain",
    ];
    assert_eq!(described, calls);
}

#[tokio::test]
async fn the_dashboard_is_served_without_a_token_and_may_load_nothing_from_elsewhere() {
    let api = Api::with_token(Some("s3cret")).await;
    let page = api.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{}", page.head);
    let mut parts = vec!["/page/api.js", "/page/draw.js", "/page/drain.js", "/page/story.js"];
    parts.extend(page.body.split('"').filter(|part| part.starts_with("/page/")));
    assert_eq!(parts.len(), 6, "{parts:?}");
    for part in parts {
        let answer = api.get(part).await;
        assert_eq!(answer.status, 200, "{part}");
        let hosts = answer.body.split("://").count() - answer.body.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(hosts, 1, "{part} names another host");
    }
}

#[tokio::test]
async fn answers_have_the_described_shape() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.json();
    let explain = r#"{"app":"LiveApp","stream":"s","kind":"publish"}"#;
    for (schema, answer) in [
        ("Nodes", api.get("/v1/nodes?history=true").await),
        ("Node", api.get("/v1/nodes/edge-1").await),
        ("Sessions", api.get("/v1/sessions").await),
        ("Streams", api.get("/v1/streams").await),
        ("Explained", api.explain(explain).await),
        ("Capacity", api.get("/v1/capacity").await),
        ("Door", api.get("/v1/door").await),
        ("Problem", api.get("/v1/nodes/nobody").await),
    ] {
        let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
        fits(&document, &reference, &answer.json(), schema);
    }
}

/// Holds a value against a schema of the document: types, required and unknown fields, words of enums.
fn fits(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let found = document.pointer(reference.trim_start_matches('#'));
        return fits(document, found.unwrap_or_else(|| panic!("{reference} is nowhere")), value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let is_null = |choice: &&Value| choice["type"] == "null";
        if value.is_null() {
            return assert!(choices.iter().any(|choice| is_null(&choice)), "{place}: null");
        }
        let real: Vec<&Value> = choices.iter().filter(|choice| !is_null(choice)).collect();
        if let [only] = real[..] {
            return fits(document, only, value, place);
        }
        return;
    }
    if let Some(words) = schema["enum"].as_array() {
        return assert!(words.contains(value), "{place}: {value} is none of {words:?}");
    }
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        one => vec![one.clone()],
    };
    let allowed = types.iter().any(|kind| kind == name || (kind == "number" && name == "integer"));
    assert!(allowed, "{place}: {value} is no {types:?}");
    if let Some(items) = value.as_array() {
        items.iter().for_each(|item| fits(document, &schema["items"], item, place));
    }
    let Some(fields) = value.as_object() else { return };
    let Some(known) = schema["properties"].as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(fields.contains_key(required.as_str().unwrap()), "{place}: {required} is missing in {value}");
    }
    for (field, value) in fields {
        let schema = known.get(field).unwrap_or_else(|| panic!("{place}: {field} is not described"));
        fits(document, schema, value, &format!("{place}.{field}"));
    }
}

#[tokio::test]
async fn a_token_that_changes_in_its_file_counts_and_a_broken_file_changes_nothing() {
    let dir = std::env::temp_dir().join(format!("forebay-admin-{}-{}", std::process::id(), fastrand::u64(..)));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("token");
    std::fs::write(&file, "old-token").unwrap();
    let tokens = config::admin_tokens("old-token").unwrap();
    let admin =
        config::Admin { bind: "127.0.0.1:0".parse().unwrap(), tokens, token_file: Some(file.clone()), tls: None };
    let api = Api::start(CLUSTER, Backing::None, &admin).await.unwrap();
    let status =
        async |token: &str| api.ask("GET", "/v1/nodes", &format!("Authorization: Bearer {token}\r\n"), "").await.status;
    assert_eq!((status("old-token").await, status("another-token").await), (200, 401));
    std::fs::write(&file, "ci: another-token\n").unwrap();
    let begun = std::time::Instant::now();
    while status("another-token").await != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the new token is never taken");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status("old-token").await, 401);
    std::fs::write(&file, "# nobody\n").unwrap();
    tokio::time::sleep(super::access::LOOK_AGAIN * 2).await;
    assert_eq!(status("another-token").await, 200);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn drains_answer_a_clear_problem_for_every_slip() {
    let api = Api::new().await;
    let put = async |path: &str, body: &str| api.ask("PUT", path, "", body).await;
    let drain = "/v1/nodes/edge-1/drain";
    for (path, body, status, code) in [
        ("/v1/nodes/nobody/drain", "", 404, "unknown_node"),
        (drain, r#"{"dedline":"10m"}"#, 400, "bad_body"),
        (drain, r#"{"deadline":"soon"}"#, 400, "bad_drain"),
        (drain, r#"{"deadline":7}"#, 400, "bad_body"),
        (drain, r#"{"migrate":"fast"}"#, 400, "bad_body"),
        (drain, r#"{"per_second":-1}"#, 400, "bad_body"),
        ("/v1/nodes/edge-1/drain?wait=60", "", 400, "bad_parameter"),
        ("/v1/nodes/edge-1/drain?wit=60s", "", 400, "bad_parameter"),
        ("/v1/door/drain", r#"{"deadline":"soon"}"#, 400, "bad_drain"),
        ("/v1/door/drain", r#"{"force":true}"#, 400, "bad_body"),
        ("/v1/log", r#"{"filter":"info"}"#, 409, "no_logs"),
        ("/v1/log", "", 400, "bad_body"),
    ] {
        let answer = put(path, body).await;
        assert_problem(&answer, status);
        assert_eq!(answer.json()["code"], code, "{path} {body}");
    }
    for path in ["/v1/nodes/edge-1/drain", "/v1/door/drain"] {
        let answer = api.ask("DELETE", path, "", "").await;
        assert_problem(&answer, 409);
        assert_eq!(answer.json()["code"], "not_draining");
    }
    assert_problem(&api.ask("DELETE", "/v1/sessions/00ff", "", "").await, 404);
}

#[tokio::test]
async fn lists_say_what_is_wrong_with_their_parameters() {
    let api = Api::new().await;
    for (path, status) in [
        ("/v1/sessions?limit=0", 400),
        ("/v1/sessions?limit=1001", 400),
        ("/v1/sessions?limit=ten", 400),
        ("/v1/sessions?cursor=xyz", 400),
        ("/v1/sessions?kind=watch", 400),
        ("/v1/sessions?app=a%20b", 400),
        ("/v1/sessions?user=me", 400),
        ("/v1/sessions?node=nobody", 404),
        ("/v1/sessions/xyz", 404),
        ("/v1/sessions/00ff", 404),
        ("/v1/streams?cursor=LiveApp", 400),
        ("/v1/streams?node=nobody", 404),
        ("/v1/streams/LiveApp/cam-7", 404),
        ("/v1/streams/NoApp/cam-7", 404),
        ("/v1/streams/LiveApp/a%20b", 404),
    ] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert_problem(&answer, status);
    }
    for path in ["/v1/sessions?node=edge-1&kind=play&app=LiveApp&stream=s", "/v1/streams?app=LiveApp&node=10.0.0.1"] {
        assert_eq!(api.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_web_page_under_a_name_of_its_own_gets_nothing() {
    let api = Api::new().await;
    let answer = api.raw("GET /v1/nodes HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert_problem(&answer, 421);
    let api = Api::with_token(Some("s3cret")).await;
    let head =
        "GET /v1/nodes HTTP/1.1\r\nHost: admin.example\r\nAuthorization: Bearer s3cret\r\nConnection: close\r\n\r\n";
    assert_eq!(api.raw(head).await.status, 200, "with a token any name is fine");
}

#[tokio::test]
async fn a_drained_door_is_not_ready_until_it_is_told_to_be() {
    let api = Api::new().await;
    let drained = api.ask("PUT", "/v1/door/drain", "", r#"{"lame_duck":"0s","deadline":"1s"}"#).await.json();
    assert_eq!(drained["state"], "draining", "{drained}");
    assert_eq!(api.readiness.now(), crate::health::Ready::Draining);
    let begun = std::time::Instant::now();
    while !api.sessions.is_ending() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it goes on taking sessions");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(api.get("/v1/door").await.json()["drain"]["drained"], true);
    let back = api.ask("DELETE", "/v1/door/drain", "", "").await.json();
    assert_eq!((&back["state"], &back["drain"]), (&json!("ready"), &Value::Null));
    assert!(!api.sessions.is_ending());
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_closed() {
    let api = Api::new().await;
    let directory = api.sessions.directory().clone();
    let client = ClientAddr("192.0.2.7:4000".parse().unwrap());
    let desks: Vec<_> =
        (1..=5).map(|id| directory.open_desk(SessionId(id), "LiveApp".parse().unwrap(), client, false)).collect();
    let page = api.get("/v1/sessions?limit=2").await.json();
    let ids: Vec<&str> = page["sessions"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &page["next"]), (vec!["0000000000000001", "0000000000000002"], &json!("0000000000000002")));
    let page = api.get("/v1/sessions?limit=3&cursor=0000000000000002").await.json();
    assert_eq!((page["sessions"].as_array().unwrap().len(), &page["next"]), (3, &Value::Null));
    let detail = api.get("/v1/sessions/0000000000000001").await.json();
    assert_eq!((&detail["client"], &detail["story"][0]["event"]), (&json!("192.0.2.7:4000"), &json!("opened")));
    assert_eq!(api.ask("DELETE", "/v1/sessions/0000000000000001", "", "").await.status, 204);
    drop(desks);
    assert_problem(&api.ask("DELETE", "/v1/sessions/0000000000000001", "", "").await, 409);
    let ended = api.get("/v1/sessions/0000000000000001").await.json();
    assert_eq!(ended["ended_by"], "failed", "its task ended without a reason: {ended}");
}
