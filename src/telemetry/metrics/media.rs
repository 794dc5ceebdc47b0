//! What the media relay counts, in total. Relay threads report what has changed since their last report.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};

use super::{Book, Counters, Gauges, Held, Metrics, Word, word};
use crate::domain::relay::{DropReason, FlowEnd, FlowState, Refused, Stats};

/// Seconds from the first authenticated STUN request to the first media.
const FIRST_MEDIA_SECONDS: [f64; 10] = [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];

/// What the sockets of one relay thread have counted. Counts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireFacts {
    /// Datagrams that the kernel dropped because the receive buffer was full.
    pub receive_overflows: u64,
    /// Receives that failed, as an ICMP message makes them.
    pub receive_errors: u64,
    /// Datagrams that were dropped because the send buffer was full.
    pub send_full: u64,
    /// Datagrams that the kernel would not send.
    pub send_errors: u64,
}

/// Why an ICE-TCP connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpEnd {
    /// There are as many as there may be.
    Full,
    /// There are as many of one source as there may be.
    SourceFull,
    /// The client closed it, or it broke.
    HungUp,
    /// It brought a frame longer than a datagram can be.
    BadFrame,
    /// It brought no authenticated STUN request in time.
    Unproven,
    /// The client took no bytes for too long.
    Slow,
    /// Its flow ended.
    FlowClosed,
    /// The process or the relay thread ends.
    Ending,
}

impl TcpEnd {
    const ALL: [Self; 8] = [
        Self::Full,
        Self::SourceFull,
        Self::HungUp,
        Self::BadFrame,
        Self::Unproven,
        Self::Slow,
        Self::FlowClosed,
        Self::Ending,
    ];

    /// The reason as metrics spell it.
    pub fn as_str(self) -> Word {
        match self {
            Self::Full => "full",
            Self::SourceFull => "source_full",
            Self::HungUp => "hung_up",
            Self::BadFrame => "bad_frame",
            Self::Unproven => "unproven",
            Self::Slow => "slow",
            Self::FlowClosed => "flow_closed",
            Self::Ending => "ending",
        }
    }
}

/// Why a frame of an ICE-TCP connection was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpDrop {
    /// Of a client whose relay thread's queue, or whose own share of it, was full.
    ThreadFull,
    /// For a client that does not take its bytes fast enough.
    ClientFull,
    /// The kernel would not send it to the node.
    SendError,
}

impl TcpDrop {
    const ALL: [Self; 3] = [Self::ThreadFull, Self::ClientFull, Self::SendError];

    fn as_str(self) -> Word {
        match self {
            Self::ThreadFull => "thread_full",
            Self::ClientFull => "client_full",
            Self::SendError => "send_error",
        }
    }
}

/// The relay's part of the metrics.
#[derive(Debug)]
pub(super) struct MediaMetrics {
    packets: Counters<1>,
    bytes: Counters<1>,
    drops: Counters<1>,
    flows: Gauges<1>,
    flows_closed: Counters<1>,
    transports: Gauge,
    auth_failures: Counter,
    claim_mismatches: Counter,
    backend_port_reuse: Counter,
    stalls: Counter,
    first_media: Histogram,
    refused: Counters<1>,
    events_lost: Counter,
    wire: Counters<1>,
    tcp_open: Gauge,
    tcp_closed: Counters<1>,
    tcp_drops: Counters<1>,
}

impl MediaMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let metrics = Self {
            packets: book.counters("media_packets", &["direction"], "datagrams that the relay passed on"),
            bytes: book.counters("media_bytes", &["direction"], "payload bytes that the relay passed on"),
            drops: book.counters("media_drops", &["reason"], "datagrams that the relay dropped, without an answer"),
            flows: book.gauges("media_flows", &["state"], "flows in the relay"),
            flows_closed: book.counters("media_flows_closed", &["reason"], "flows that ended, with the reason"),
            transports: book.gauge("media_transports", "ICE generations that the relay knows"),
            auth_failures: book.counter("media_auth_failures", "STUN of clients that failed to authenticate"),
            claim_mismatches: book
                .counter("media_claim_mismatches", "flows whose STUN claimed another ufrag than the description"),
            backend_port_reuse: book
                .counter("media_backend_port_reuse", "flows that ended because their node gave the port to another"),
            stalls: book.counter("media_stalls", "pauses of a session's media of over 2 s"),
            first_media: book.seconds(
                "media_start",
                &FIRST_MEDIA_SECONDS,
                "from a client's first STUN to its first media",
            ),
            refused: book.counters(
                "media_commands_refused",
                &["reason"],
                "transports and changes that the relay refused",
            ),
            events_lost: book.counter("media_events_lost", "events of the relay that found their queue full"),
            wire: book.counters("media_socket_trouble", &["what"], "datagrams lost at the relay's sockets, and errors"),
            tcp_open: book.gauge("media_tcp_connections", "ICE-TCP connections that are open now"),
            tcp_closed: book.counters(
                "media_tcp_closed",
                &["reason"],
                "ICE-TCP connections that ended, with the reason",
            ),
            tcp_drops: book.counters(
                "media_tcp_drops",
                &["reason"],
                "frames of ICE-TCP that were dropped, with the reason",
            ),
        };
        // Every series is there from the start: an alert on one that has not happened yet must not be an alert on nothing.
        for end in TcpEnd::ALL {
            metrics.tcp_closed.get_or_create_owned(&[word("reason", end.as_str())]);
        }
        for why in TcpDrop::ALL {
            metrics.tcp_drops.get_or_create_owned(&[word("reason", why.as_str())]);
        }
        metrics.moved(&Stats::default(), &Stats::default(), WireFacts::default(), WireFacts::default());
        metrics
    }

    fn moved(&self, before: &Stats, now: &Stats, wire_before: WireFacts, wire: WireFacts) {
        let (from, to) = (&before.traffic, &now.traffic);
        for (direction, from, to) in
            [("to_node", from.to_node, to.to_node), ("to_client", from.to_client, to.to_client)]
        {
            add(&self.packets, "direction", direction, from.packets, to.packets);
            add(&self.bytes, "direction", direction, from.bytes, to.bytes);
        }
        for reason in DropReason::ALL {
            add(&self.drops, "reason", reason.as_str(), before.dropped(reason), now.dropped(reason));
        }
        for state in FlowState::ALL {
            let gauge = self.flows.get_or_create_owned(&[word("state", state.as_str())]);
            shift(&gauge, before.flows_in(state), now.flows_in(state));
        }
        shift(&self.transports, before.transports, now.transports);
        for (counter, from, to) in [
            (&self.auth_failures, before.auth_failures, now.auth_failures),
            (&self.claim_mismatches, before.claim_mismatches, now.claim_mismatches),
            (&self.backend_port_reuse, before.backend_port_reuse, now.backend_port_reuse),
            (&self.stalls, before.stalls, now.stalls),
            (&self.events_lost, before.events_lost, now.events_lost),
        ] {
            counter.inc_by(to.saturating_sub(from));
        }
        for (what, from, to) in [
            ("receive_overflow", wire_before.receive_overflows, wire.receive_overflows),
            ("receive_error", wire_before.receive_errors, wire.receive_errors),
            ("send_full", wire_before.send_full, wire.send_full),
            ("send_error", wire_before.send_errors, wire.send_errors),
        ] {
            add(&self.wire, "what", what, from, to);
        }
    }
}

impl Metrics {
    /// One relay thread's counts have moved from what it reported before to what they are now.
    pub fn media_moved(&self, before: &Stats, now: &Stats, wire_before: WireFacts, wire: WireFacts) {
        self.0.media.moved(before, now, wire_before, wire);
    }

    /// A transport's first media passed, so long after its first authenticated STUN.
    pub fn media_started(&self, after: Duration) {
        self.0.media.first_media.observe(after.as_secs_f64());
    }

    /// An event of the relay found the queue of who watches its session full.
    pub fn media_event_lost(&self) {
        self.0.media.events_lost.inc();
    }

    /// A flow of the relay ended.
    pub fn media_flow_closed(&self, reason: FlowEnd) {
        self.0.media.flows_closed.get_or_create(&[word("reason", reason.as_str())]).inc();
    }

    /// An ICE-TCP connection was taken; it is open until the guard drops.
    pub fn media_tcp_opened(&self) -> Held {
        Held::new(self.0.media.tcp_open.clone())
    }

    /// An ICE-TCP connection ended, or was refused, with the reason.
    pub fn media_tcp_closed(&self, end: TcpEnd) {
        self.0.media.tcp_closed.get_or_create(&[word("reason", end.as_str())]).inc();
    }

    /// A frame of an ICE-TCP connection was dropped, with the reason.
    pub fn media_tcp_dropped(&self, why: TcpDrop) {
        self.0.media.tcp_drops.get_or_create(&[word("reason", why.as_str())]).inc();
    }

    /// The relay refused a command of a session.
    pub fn media_command_refused(&self, why: Refused) {
        self.0.media.refused.get_or_create(&[word("reason", refusal(why))]).inc();
    }
}

fn refusal(why: Refused) -> Word {
    match why {
        Refused::Full => "full",
        Refused::SessionFull => "session_full",
        Refused::UfragTaken => "ufrag_taken",
        Refused::Duplicate => "duplicate",
        Refused::BadNode => "bad_node",
        Refused::BadPort => "bad_port",
        Refused::BadCredentials => "bad_credentials",
        Refused::Unknown => "unknown",
    }
}

fn add(family: &Counters<1>, label: Word, value: Word, from: u64, to: u64) {
    family.get_or_create_owned(&[word(label, value)]).inc_by(to.saturating_sub(from));
}

/// Threads share the gauge, so each moves it by its own change.
fn shift(gauge: &Gauge, from: u64, to: u64) {
    let by = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    gauge.inc_by(by(to) - by(from));
}
