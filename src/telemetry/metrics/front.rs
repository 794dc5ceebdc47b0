//! What the public listeners count: connections, TLS, PROXY headers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Unit,
};

use super::{Book, Counters, Held, Metrics, Word, word};

/// Why the door ended or refused a connection that its client would have kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The listener has all the connections that it may have.
    Full,
    /// The client's address has all the connections that it may have.
    ClientFull,
    /// The peer is not one of those that may connect to a listener behind a load balancer.
    Untrusted,
    /// It said nothing, or not enough to tell what it speaks, in time.
    Silent,
    /// It began with bytes that are no protocol of this listener.
    Unknown,
    /// It brought a PROXY header that is none.
    BadProxy,
    /// It brought no PROXY header and asked for more than health.
    NoProxy,
    /// It spoke plain HTTP where TLS is spoken, and asked for more than health.
    NotTls,
    /// Its TLS handshake failed.
    BadTls,
    /// Its TLS handshake took too long.
    SlowTls,
    /// It sent a request that is none, or broke HTTP/2.
    BadHttp,
    /// It took too long for a request's head.
    SlowHead,
    /// It took no bytes for too long.
    SlowReader,
    /// It had no request for too long.
    Idle,
    /// It did not answer a ping of HTTP/2.
    Dead,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Full,
        Self::ClientFull,
        Self::Untrusted,
        Self::Silent,
        Self::Unknown,
        Self::BadProxy,
        Self::NoProxy,
        Self::NotTls,
        Self::BadTls,
        Self::SlowTls,
        Self::BadHttp,
        Self::SlowHead,
        Self::SlowReader,
        Self::Idle,
        Self::Dead,
    ];

    /// The reason as metrics and logs spell it.
    pub fn as_str(self) -> Word {
        match self {
            Self::Full => "full",
            Self::ClientFull => "client_full",
            Self::Untrusted => "untrusted",
            Self::Silent => "silent",
            Self::Unknown => "unknown_protocol",
            Self::BadProxy => "bad_proxy",
            Self::NoProxy => "no_proxy",
            Self::NotTls => "not_tls",
            Self::BadTls => "bad_tls",
            Self::SlowTls => "slow_tls",
            Self::BadHttp => "bad_http",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Dead => "dead",
        }
    }
}

/// The front's part of the metrics.
#[derive(Debug)]
pub(super) struct FrontMetrics {
    open: Gauge,
    ended: Counters<1>,
    proxy_headers: Counters<1>,
    handshakes: Counters<1>,
    unknown_names: Counter,
    reloads: Counters<1>,
    orders: Counters<1>,
    expiry: Gauge<f64, std::sync::atomic::AtomicU64>,
}

const HANDSHAKES: [Word; 2] = ["full", "resumed"];
const ORDERS: [Word; 2] = ["issued", "failed"];
const RELOADS: [Word; 2] = ["loaded", "refused"];
const PROXY_HEADERS: [Word; 3] = ["v1", "v2", "local"];

impl FrontMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let metrics = Self {
            open: book.gauge("connections_open", "connections of the public listeners, WebSockets included"),
            ended: book.counters(
                "connections_ended",
                &["reason"],
                "connections that the door refused or ended, with the reason",
            ),
            proxy_headers: book.counters(
                "proxy_headers",
                &["version"],
                "PROXY headers; `local` are a load balancer's own connections",
            ),
            handshakes: book.counters("tls_handshakes", &["kind"], "TLS handshakes that succeeded"),
            unknown_names: book.counter(
                "tls_unknown_names",
                "handshakes for a host that no certificate has; the first one served them",
            ),
            reloads: book.counters("tls_reloads", &["result"], "changed certificate files, by what became of them"),
            orders: book.counters("acme_orders", &["result"], "orders of a certificate at the ACME server"),
            expiry: book.add_unit(
                "tls_certificate_expiry_timestamp",
                "gauge",
                &[],
                "when the first of the certificates in use expires, since 1970; 0 without TLS",
                Unit::Seconds,
            ),
        };
        // Every series is there from the start: an alert on one that has not happened yet must not be an alert on nothing.
        for trouble in Trouble::ALL {
            metrics.ended.get_or_create_owned(&[word("reason", trouble.as_str())]);
        }
        for (family, label, values) in [
            (&metrics.proxy_headers, "version", &PROXY_HEADERS[..]),
            (&metrics.handshakes, "kind", &HANDSHAKES[..]),
            (&metrics.reloads, "result", &RELOADS[..]),
            (&metrics.orders, "result", &ORDERS[..]),
        ] {
            for value in values {
                family.get_or_create_owned(&[word(label, value)]);
            }
        }
        metrics
    }
}

impl Metrics {
    /// A public listener took a connection; it is open until the guard drops.
    pub fn connection_opened(&self) -> Held {
        Held::new(self.0.front.open.clone())
    }

    /// The door refused or ended a connection.
    pub fn connection_ended(&self, trouble: Trouble) {
        self.0.front.ended.get_or_create(&[word("reason", trouble.as_str())]).inc();
    }

    /// A trusted peer sent a PROXY header: `v1`, `v2`, or `local` for a connection of its own.
    pub fn proxy_header(&self, version: Word) {
        self.0.front.proxy_headers.get_or_create(&[word("version", version)]).inc();
    }

    /// A TLS handshake succeeded.
    pub fn tls_handshake(&self, resumed: bool) {
        self.0.front.handshakes.get_or_create(&[word("kind", HANDSHAKES[usize::from(resumed)])]).inc();
    }

    /// A client named a host that no certificate has.
    pub fn tls_unknown_name(&self) {
        self.0.front.unknown_names.inc();
    }

    /// Changed certificate files were taken, or refused and the old ones kept.
    pub fn tls_reloaded(&self, taken: bool) {
        self.0.front.reloads.get_or_create(&[word("result", RELOADS[usize::from(!taken)])]).inc();
    }

    /// An order at the ACME server has brought a certificate, or has not.
    pub fn acme_ordered(&self, issued: bool) {
        self.0.front.orders.get_or_create(&[word("result", ORDERS[usize::from(!issued)])]).inc();
    }

    /// When the first of the certificates in use expires; `None`: there are none.
    pub fn tls_expiry(&self, at: Option<SystemTime>) {
        let since = at.map_or(Duration::ZERO, |at| at.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.0.front.expiry.set(since.as_secs_f64());
    }
}
