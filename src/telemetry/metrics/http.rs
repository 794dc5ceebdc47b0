//! What is counted of forwarded requests.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{Book, Counters, Gauges, Held, Metrics, Word, word};

/// Seconds of a forwarded request, and of a node's first byte.
const REQUEST_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Forwarding's part of the metrics.
#[derive(Debug)]
pub(super) struct HttpMetrics {
    forwarded: Counters<2>,
    failures: Counters<1>,
    retries: Counter,
    first_byte: Histogram,
    request: Histogram,
    bytes_in: Counter,
    bytes_out: Counter,
    open: Gauge,
    idle: Gauge,
    tunnels: Gauge,
}

impl HttpMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let bytes = Counters::<1>::default();
        let direction = |which| bytes.get_or_create_owned(&[word("direction", which)]);
        let (bytes_in, bytes_out) = (direction("in"), direction("out"));
        book.add("http_body_bytes", "counter", &["direction"], "bytes of bodies from and to clients", bytes);
        let connections: Gauges<1> = book.gauges("http_connections", &["state"], "connections to nodes for HTTP");
        let state = |which| connections.get_or_create_owned(&[word("state", which)]);
        Self {
            forwarded: book.counters("http_forwarded", &["route", "status"], "forwarded requests, by class of status"),
            failures: book.counters("http_failures", &["cause"], "forwarded requests that failed, by cause"),
            retries: book.counter("http_retries", "forwarded requests that were sent once more"),
            first_byte: book.seconds("http_first_byte", &REQUEST_SECONDS, "from a request to its answer's head"),
            request: book.seconds("http_request", &REQUEST_SECONDS, "from a request to its answer's end"),
            bytes_in,
            bytes_out,
            open: state("open"),
            idle: state("idle"),
            tunnels: book.gauge("http_tunnels", "WebSockets that are passed to nodes untouched"),
        }
    }
}

impl Metrics {
    /// A forwarded request got its answer's head from the node or, where none came, from the door.
    pub fn http_forwarded(&self, route: Word, status: u16, took: Duration) {
        let class = match status {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.0.http.forwarded.get_or_create(&[word("route", route), word("status", class)]).inc();
        self.0.http.first_byte.observe(took.as_secs_f64());
    }

    /// A forwarded request is over.
    pub fn http_finished(&self, bytes_in: u64, bytes_out: u64, took: Duration) {
        self.0.http.bytes_in.inc_by(bytes_in);
        self.0.http.bytes_out.inc_by(bytes_out);
        self.0.http.request.observe(took.as_secs_f64());
    }

    /// A forwarded request failed, before its answer or within.
    pub fn http_failed(&self, cause: Word) {
        self.0.http.failures.get_or_create(&[word("cause", cause)]).inc();
    }

    /// A forwarded request was sent once more.
    pub fn http_retried(&self) {
        self.0.http.retries.inc();
    }

    /// A connection to a node for HTTP is open until the guard drops.
    pub fn http_connection_opened(&self) -> Held {
        Held::new(self.0.http.open.clone())
    }

    /// A connection to a node is idle until the guard drops.
    pub fn http_connection_idle(&self) -> Held {
        Held::new(self.0.http.idle.clone())
    }

    /// A WebSocket is passed to a node until the guard drops.
    pub fn http_tunnel_opened(&self) -> Held {
        Held::new(self.0.http.tunnels.clone())
    }
}
