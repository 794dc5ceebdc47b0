//! Spans for OpenTelemetry, sent as OTLP over HTTP with JSON (opentelemetry.io/docs/specs/otlp, §OTLP/HTTP). Off unless
//! `telemetry.otlp_endpoint` says where to.
//!
//! Whoever has a trace hands it over and never waits: a full queue, or a collector that is away, costs spans, which are
//! counted, and nothing else.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::{
    config::HttpEndpoint,
    net::ask::{AskError, Asker},
    shutdown::Shutdown,
};

/// Traces that wait to be sent; one more is dropped and counted.
const QUEUE: usize = 2048;
/// Traces of one request.
const BATCH: usize = 128;
/// How long a trace waits for company.
const GATHER: Duration = Duration::from_secs(2);
/// For one request, from the dial to the end of its answer.
const REQUEST: Duration = Duration::from_secs(5);
/// Bytes of an answer, which nobody reads.
const LARGEST_ANSWER: usize = 1 << 20;
/// At the door's end, for all that is left.
const PARTING: Duration = Duration::from_secs(1);

/// One span. Ids are random; a trace is the spans that share its first one.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace's id.
    pub trace: u128,
    /// The span's own id.
    pub id: u64,
    /// The span that it is part of.
    pub parent: Option<u64>,
    /// What it is.
    pub name: String,
    /// When it began.
    pub begin: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Facts about it.
    pub attributes: Vec<(&'static str, String)>,
    /// What happened in it.
    pub events: Vec<SpanEvent>,
    /// Why it counts as failed.
    pub failure: Option<&'static str>,
}

/// Something that happened at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    /// When.
    pub at: SystemTime,
    /// What.
    pub name: &'static str,
    /// Facts about it.
    pub attributes: Vec<(&'static str, String)>,
}

/// Hands traces to the one who sends them. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Vec<Span>>,
    metrics: Metrics,
}

impl Exporter {
    /// Starts sending to `endpoint`, which over TLS is known by the authorities in this file, or by the public ones, in the
    /// name of `door`; ends with `shutdown`, after what is queued then.
    pub fn start(
        endpoint: HttpEndpoint,
        authorities: Option<PathBuf>,
        door: String,
        metrics: Metrics,
        shutdown: &Shutdown,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        if let Err(error) = Asker::new(authorities.as_deref(), None) {
            tracing::error!(%error, "telemetry.otlp_ca cannot be used: no trace is delivered until it can");
        }
        let sender = Sender { endpoint, authorities, door, metrics: metrics.clone(), said: false };
        shutdown.spawn(sender.run(waiting, shutdown.child()));
        Self { queue, metrics }
    }

    /// Takes a trace, or drops and counts it where too many wait.
    pub fn send(&self, trace: Vec<Span>) {
        if self.queue.try_send(trace).is_err() {
            self.metrics.traces("dropped", 1);
        }
    }
}

struct Sender {
    endpoint: HttpEndpoint,
    authorities: Option<PathBuf>,
    door: String,
    metrics: Metrics,
    /// The trouble was told; said again only after it ended.
    said: bool,
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Vec<Span>>, stop: CancellationToken) {
        let mut batch = Vec::new();
        while let Some(first) = stop.run_until_cancelled(waiting.recv()).await.flatten() {
            batch.push(first);
            let gathered = timeout(GATHER, async {
                while batch.len() < BATCH {
                    let Some(next) = waiting.recv().await else { return };
                    batch.push(next);
                }
            });
            let _ = stop.run_until_cancelled(gathered).await;
            self.deliver(std::mem::take(&mut batch)).await;
        }
        while let Ok(trace) = waiting.try_recv() {
            batch.push(trace);
        }
        let count = batch.len();
        if count > 0 && timeout(PARTING, self.deliver(batch)).await.is_err() {
            self.metrics.traces("failed", count);
        }
    }

    async fn deliver(&mut self, batch: Vec<Vec<Span>>) {
        let count = batch.len();
        let body: Bytes = request(&self.door, &batch).to_string().into();
        let result = match timeout(REQUEST, self.post(body)).await {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why.to_string()),
            Err(_) => Some(format!("no answer within {REQUEST:?}")),
        };
        self.metrics.traces(if result.is_none() { "sent" } else { "failed" }, count);
        match result {
            None => self.said = false,
            Some(why) if !std::mem::replace(&mut self.said, true) => {
                tracing::warn!(why, endpoint = %self.endpoint, "traces cannot be delivered; they are dropped and counted");
            }
            Some(_) => {}
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), AskError> {
        let request = Request::post(self.endpoint.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        // The answer may name spans that were refused; nothing could be done about it.
        let asker = Asker::new(self.authorities.as_deref(), None)?;
        let status = asker.send(request, LARGEST_ANSWER).await?.status();
        if status.is_success() { Ok(()) } else { Err(format!("the collector answered {status}").into()) }
    }
}

/// `ExportTraceServiceRequest` as JSON: ids in hexadecimal, times as texts, as the specification wants them.
fn request(door: &str, batch: &[Vec<Span>]) -> Value {
    let spans: Vec<Value> = batch.iter().flatten().map(span).collect();
    let resource = [
        ("service.name", "forebay".to_owned()),
        ("service.version", super::VERSION.to_owned()),
        ("service.instance.id", door.to_owned()),
    ];
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeSpans": [{ "scope": { "name": "forebay" }, "spans": spans }],
    }] })
}

fn span(span: &Span) -> Value {
    let events: Vec<Value> = span.events.iter().map(event).collect();
    let mut json = json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": 2, // SPAN_KIND_SERVER
        "startTimeUnixNano": nanos(span.begin),
        "endTimeUnixNano": nanos(span.end),
        "attributes": attributes(&span.attributes),
        "events": events,
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = format!("{parent:016x}").into();
        json["kind"] = 1.into(); // SPAN_KIND_INTERNAL
    }
    if let Some(why) = span.failure {
        json["status"] = json!({ "code": 2, "message": why });
    }
    json
}

fn event(event: &SpanEvent) -> Value {
    json!({ "timeUnixNano": nanos(event.at), "name": event.name, "attributes": attributes(&event.attributes) })
}

fn attributes(pairs: &[(&'static str, String)]) -> Vec<Value> {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } })).collect()
}

fn nanos(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn trace(nth: u64) -> Vec<Span> {
        let at = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        vec![Span {
            trace: u128::from(nth),
            id: nth,
            parent: None,
            name: "session".into(),
            begin: at,
            end: at + Duration::from_millis(1),
            attributes: vec![("app", "LiveApp".into())],
            events: vec![SpanEvent { at, name: "placement", attributes: Vec::new() }],
            failure: Some("client_lost"),
        }]
    }

    /// Takes one request, answers it, and returns its head and body.
    async fn take(listener: &TcpListener) -> (String, Value) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        loop {
            stream.read_buf(&mut read).await.unwrap();
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let Ok(json) = serde_json::from_str(body) else { continue };
            let head = head.to_lowercase();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").await.unwrap();
            return (head, json);
        }
    }

    #[tokio::test]
    async fn a_trace_arrives_as_the_specification_writes_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: HttpEndpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (shutdown, metrics) = (Shutdown::new(), Metrics::new());
        let exporter = Exporter::start(endpoint, None, "door-1".into(), metrics.clone(), &shutdown);
        exporter.send(trace(7));
        let (head, body) = take(&listener).await;
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "00000000000000000000000000000007");
        assert_eq!(span["spanId"], "0000000000000007");
        assert_eq!(span["startTimeUnixNano"], "1767225600000000000");
        assert_eq!((&span["status"]["code"], &span["events"][0]["name"]), (&json!(2), &json!("placement")));
        let name = &body["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!(name, &json!({"key": "service.name", "value": {"stringValue": "forebay"}}));
        assert!(shutdown.finish(Duration::from_secs(5)).await);
        assert!(metrics.encode().contains("forebay_traces_total{result=\"sent\"} 1"), "{}", metrics.encode());
    }

    #[tokio::test]
    async fn a_collector_that_is_away_costs_traces_and_nobody_waits() {
        let (shutdown, metrics) = (Shutdown::new(), Metrics::new());
        let endpoint: HttpEndpoint = "http://127.0.0.1:1".parse().unwrap();
        let exporter = Exporter::start(endpoint, None, "door-1".into(), metrics.clone(), &shutdown);
        for nth in 0..QUEUE as u64 + 10 {
            exporter.send(trace(nth));
        }
        assert!(shutdown.finish(Duration::from_secs(5)).await);
        let text = metrics.encode();
        let count = |result: &str| {
            let name = format!("forebay_traces_total{{result=\"{result}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok()).unwrap_or(0)
        };
        assert!(count("dropped") >= 10, "{text}");
        assert_eq!(count("dropped") + count("failed"), QUEUE + 10, "each is counted once");
    }
}
