//! The door's metrics: counted where things happen, some read off the nodes' snapshot when somebody asks.
//!
//! Every name starts with `forebay_` and every quantity has its base unit in the name. Labels are words of this program
//! (`&'static str`, from its enums), status codes and node ids; a node's series end when the node is gone, so their
//! number is bounded by the cluster's size, however often nodes come and go.

mod drains;
mod front;
mod http;
mod life;
mod media;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};

use crate::domain::{
    balance::{NodeState, Room, Snapshot},
    ids::{Kind, NodeId},
};

pub use self::front::Trouble;
pub use self::media::{TcpDrop, TcpEnd, WireFacts};
use self::{drains::DrainMetrics, front::FrontMetrics, http::HttpMetrics, life::LifeMetrics, media::MediaMetrics};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A label's value out of one of this program's enums.
pub type Word = &'static str;

/// Seconds from a command to the node's first answer; the SDK gives up at 3.
const PLACEMENT_SECONDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 2.5, 3.0];
/// Seconds from a dial to an open WebSocket with a node.
const DIAL_SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0];

/// What one metric is called, is, and means: a row of the README's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its full name as it is scraped, without the suffixes of counters and histograms.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: Word,
    /// Its labels.
    pub labels: &'static [Word],
    /// What it says.
    pub help: Word,
}

/// What the record store says of itself when metrics are read. Counts only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StoreFacts {
    /// False while a configured store does not answer; a door without one misses nothing.
    pub up: bool,
    /// Records in the cache.
    pub cached_records: u64,
    /// The store's clock minus the door's, in seconds, where measured.
    pub clock_skew_seconds: Option<f64>,
    /// Plays that wait for a stream to become live.
    pub waiters: u64,
    /// Reads sent to the store.
    pub reads: u64,
    /// Reads, polls and change streams that failed.
    pub errors: u64,
    /// Changes that the store pushed.
    pub changes: u64,
    /// Lookups answered from the cache.
    pub cache_hits: u64,
    /// Lookups that asked the store.
    pub cache_misses: u64,
    /// Lookups that found a live record.
    pub live: u64,
    /// Lookups that found a record that is not live.
    pub not_live: u64,
    /// Lookups that the store answered with "there is none".
    pub missing: u64,
    /// Lookups that nobody could answer.
    pub unknown: u64,
    /// Reads refused because too many were in flight.
    pub reads_shed: u64,
    /// Waits refused because too many streams were waited for.
    pub waits_shed: u64,
    /// Pins that the store has answered for.
    pub pins_claimed: u64,
    /// Those of them that another door had.
    pub pins_lost: u64,
    /// Placements that did not wait any longer for their pin.
    pub pins_late: u64,
}

/// All metrics. A clone is the same metrics.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

type Labels<const N: usize> = [(Word, Value); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Ratios<const N: usize> = Family<Labels<N>, Gauge<f64, std::sync::atomic::AtomicU64>>;

#[derive(Debug)]
struct Inner {
    registry: Registry,
    described: Vec<Described>,
    /// Held while gauges are derived and read, so that no scrape sees half of another's.
    scrape: Mutex<Seen>,
    sessions_open: Gauge,
    sessions_opened: Counter,
    sessions_closed: Counters<1>,
    legs_open: Gauges<2>,
    placements: Counters<3>,
    placed_blind: Counter,
    placement: Histogram,
    rejects: Counters<1>,
    messages_in: Counter,
    messages_out: Counter,
    links_open: Gauges<1>,
    link_failures: Counters<2>,
    link_dial: Histogram,
    retries: Counters<1>,
    dropped_messages: Counters<1>,
    node_state: Gauges<2>,
    node_predicted: Ratios<1>,
    node_reported: Ratios<1>,
    node_legs: Gauges<2>,
    probes: Counters<2>,
    store_up: Gauge,
    store_reads: Counter,
    store_errors: Counter,
    store_changes: Counter,
    store_shed: Counters<1>,
    record_lookups: Counters<1>,
    cache_lookups: Counters<1>,
    cached_records: Gauge,
    clock_skew: Gauge<f64, std::sync::atomic::AtomicU64>,
    waiters: Gauge,
    http_requests: Counters<2>,
    accept_errors: Counter,
    http: HttpMetrics,
    front: FrontMetrics,
    traces: Counters<1>,
    log_lines_lost: Counter,
    capacity_legs: Gauges<1>,
    capacity_nodes: Gauges<1>,
    minutes_to_full: Family<Labels<1>, Gauge<f64, std::sync::atomic::AtomicU64>>,
    drains: DrainMetrics,
    life: LifeMetrics,
    media: MediaMetrics,
}

/// What node-labelled series there may be, so that they can end with their node.
#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeSet<NodeId>,
    causes: BTreeSet<Word>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Value {
    Word(Word),
    Node(NodeId),
    Status(u16),
}

impl EncodeLabelValue for Value {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Word(word) => word.encode(encoder),
            Self::Node(node) => node.as_str().encode(encoder),
            Self::Status(status) => status.encode(encoder),
        }
    }
}

/// Something that is open: counted from its making to its drop.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at nothing.
    pub fn new() -> Self {
        Self(Arc::new(Inner::new()))
    }

    /// A client's session opened; it is open until the guard drops.
    pub fn session_opened(&self) -> Held {
        self.0.sessions_opened.inc();
        Held::new(self.0.sessions_open.clone())
    }

    /// A session closed, with its reason.
    pub fn session_closed(&self, reason: Word) {
        self.0.sessions_closed.get_or_create(&[word("reason", reason)]).inc();
    }

    /// Sessions that are open now.
    pub fn sessions_open(&self) -> i64 {
        self.0.sessions_open.get()
    }

    /// A leg was placed on a node; it is there until the guard drops.
    pub fn leg_opened(&self, kind: Kind, node: &NodeId) -> Held {
        let labels = [word("kind", kind.as_str()), named(node)];
        Held::new(self.0.legs_open.get_or_create_owned(&labels))
    }

    /// A placement was tried by `rule`, with `result`: `placed`, or why not.
    pub fn placed(&self, kind: Kind, rule: Word, result: Word) {
        let labels = [word("kind", kind.as_str()), word("rule", rule), word("result", result)];
        self.0.placements.get_or_create(&labels).inc();
    }

    /// A play was placed although no record stands behind it.
    pub fn placed_blind(&self) {
        self.0.placed_blind.inc();
    }

    /// How long a leg's command waited for the node's first answer.
    pub fn placement_took(&self, time: Duration) {
        self.0.placement.observe(time.as_secs_f64());
    }

    /// A client was refused something in the door's own name.
    pub fn rejected(&self, reason: Word) {
        self.0.rejects.get_or_create(&[word("reason", reason)]).inc();
    }

    /// A signalling message came from a client.
    pub fn message_in(&self) {
        self.0.messages_in.inc();
    }

    /// A signalling message went to a client.
    pub fn message_out(&self) {
        self.0.messages_out.inc();
    }

    /// A link to a node is up until the guard drops.
    pub fn link_opened(&self, node: &NodeId) -> Held {
        Held::new(self.0.links_open.get_or_create_owned(&[named(node)]))
    }

    /// A link to a node failed, with its cause.
    pub fn link_failed(&self, node: &NodeId, cause: Word) {
        self.seen().causes.insert(cause);
        self.0.link_failures.get_or_create(&[named(node), word("cause", cause)]).inc();
    }

    /// How long a dial took until the WebSocket was open.
    pub fn link_dialled(&self, time: Duration) {
        self.0.link_dial.observe(time.as_secs_f64());
    }

    /// A leg was tried on another node.
    pub fn retried(&self, cause: Word) {
        self.0.retries.get_or_create(&[word("cause", cause)]).inc();
    }

    /// A message was passed to nobody.
    pub fn message_dropped(&self, why: Word) {
        self.0.dropped_messages.get_or_create(&[word("why", why)]).inc();
    }

    /// A node was probed.
    pub fn probed(&self, node: &NodeId, answered: bool) {
        let result = if answered { PROBE_RESULTS[0] } else { PROBE_RESULTS[1] };
        self.0.probes.get_or_create(&[named(node), word("result", result)]).inc();
    }

    /// The door answered a request of its own (not one that it forwarded). `route` is a pattern, never a path.
    pub fn http_answered(&self, route: Word, status: u16) {
        self.0.http_requests.get_or_create(&[word("route", route), ("status", Value::Status(status))]).inc();
    }

    /// A listener failed to accept a connection.
    pub fn accept_failed(&self) {
        self.0.accept_errors.inc();
    }

    /// Traces were `sent`, or `failed` to be, or were `dropped` for a full queue.
    pub fn traces(&self, result: Word, count: usize) {
        self.0.traces.get_or_create(&[word("result", result)]).inc_by(count as u64);
    }

    /// So many log lines were not written since the start, before a scrape.
    pub fn log_lines_lost(&self, so_far: u64) {
        catch_up(&self.0.log_lines_lost, so_far);
    }

    /// What the cluster still takes, before a scrape: legs that fit, nodes that take them, and minutes until it is full
    /// at the present rate.
    pub fn capacity(&self, kind: Kind, room: Room, minutes_to_full: Option<f64>) {
        let labels = [word("kind", kind.as_str())];
        self.0.capacity_legs.get_or_create(&labels).set(room.fit.into());
        self.0.capacity_nodes.get_or_create(&labels).set(room.nodes.into());
        match minutes_to_full {
            Some(minutes) => drop(self.0.minutes_to_full.get_or_create(&labels).set(minutes)),
            None => drop(self.0.minutes_to_full.remove(&labels)),
        }
    }

    /// Every metric's name, kind, labels and meaning.
    pub fn describe(&self) -> &[Described] {
        &self.0.described
    }

    /// Derives what is read off others, and writes all metrics as OpenMetrics text. Node series whose node is not in
    /// `snapshot` end here.
    pub fn scrape(&self, snapshot: &Snapshot, store: StoreFacts) -> String {
        let mut seen = self.seen();
        self.0.collect(&mut seen, snapshot, store);
        self.0.encode()
    }

    /// All metrics as OpenMetrics text, gauges of nodes and store as of the last [`Metrics::scrape`].
    pub fn encode(&self) -> String {
        let _whole = self.seen();
        self.0.encode()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.scrape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PROBE_RESULTS: [Word; 2] = ["answered", "failed"];
const KINDS: [Kind; 2] = [Kind::Publish, Kind::Play];
const STATES: [(NodeState, Word); 5] = [
    (NodeState::Serving, "serving"),
    (NodeState::Joining, "joining"),
    (NodeState::Down, "down"),
    (NodeState::Draining, "draining"),
    (NodeState::Drained, "drained"),
];

fn word(label: Word, value: Word) -> (Word, Value) {
    (label, Value::Word(value))
}

fn named(node: &NodeId) -> (Word, Value) {
    ("node", Value::Node(node.clone()))
}

impl Inner {
    fn new() -> Self {
        let mut book = Book { registry: Registry::with_prefix("forebay"), described: Vec::new() };
        book.build_info();
        let messages = Counters::<1>::default();
        let direction = |which| messages.get_or_create_owned(&[word("direction", which)]);
        let (messages_in, messages_out) = (direction("in"), direction("out"));
        book.add("client_messages", "counter", &["direction"], "signalling messages from and to clients", messages);
        Self {
            sessions_open: book.gauge("sessions_open", "sessions that are open"),
            sessions_opened: book.counter("sessions_opened", "sessions that were opened"),
            sessions_closed: book.counters("sessions_closed", &["reason"], "sessions that ended, with the reason"),
            legs_open: book.gauges("legs_open", &["kind", "node"], "legs of this door's sessions"),
            placements: book.counters("placements", &["kind", "rule", "result"], "placements by rule and result"),
            placed_blind: book.counter("placed_blind", "plays placed without a record, for want of a store"),
            placement: book.seconds("placement", &PLACEMENT_SECONDS, "from a command to the node's first answer"),
            rejects: book.counters("rejects", &["reason"], "refusals in the door's own name"),
            messages_in,
            messages_out,
            links_open: book.gauges("links_open", &["node"], "links that are up"),
            link_failures: book.counters("link_failures", &["node", "cause"], "links that failed"),
            link_dial: book.seconds("link_dial", &DIAL_SECONDS, "from a dial to an open WebSocket with a node"),
            retries: book.counters("retries", &["cause"], "legs that were tried on another node"),
            dropped_messages: book.counters("dropped_messages", &["why"], "messages that were passed to nobody"),
            node_state: book.gauges("node_state", &["node", "state"], "1 for the state that the node is in, else 0"),
            node_predicted: book.ratios("node_load_predicted", "load that a leg placed now would find"),
            node_reported: book.ratios("node_load_reported", "load at the node's last report"),
            node_legs: book.gauges("node_legs", &["node", "kind"], "legs on the node, as placement counts them"),
            probes: book.counters("probes", &["node", "result"], "probes of nodes"),
            store_up: book.gauge("store_up", "0 while a configured record store does not answer, else 1"),
            store_reads: book.counter("store_reads", "reads sent to the record store"),
            store_errors: book.counter("store_errors", "reads, polls and change streams that the store failed"),
            store_changes: book.counter("store_changes", "changes that the record store pushed"),
            store_shed: book.counters("store_shed", &["what"], "reads and waits refused, for too many were under way"),
            record_lookups: book.counters("record_lookups", &["result"], "lookups of records, by what was found"),
            cache_lookups: book.counters("cache_lookups", &["result"], "lookups by whether the cache had the record"),
            cached_records: book.gauge("cached_records", "records in the cache"),
            clock_skew: book.add_unit("clock_skew", "gauge", &[], "the store's clock minus the door's", Unit::Seconds),
            waiters: book.gauge("waiters", "plays that wait for a stream to become live"),
            http_requests: book.counters(
                "http_requests",
                &["route", "status"],
                "requests that the door answered itself",
            ),
            accept_errors: book.counter("accept_errors", "connections that a listener failed to accept"),
            http: HttpMetrics::new(&mut book),
            front: FrontMetrics::new(&mut book),
            traces: book.counters("traces", &["result"], "sessions' traces, by what became of them"),
            log_lines_lost: book.counter("log_lines_lost", "log lines that were not written, since too many waited"),
            capacity_legs: book.gauges("capacity_legs", &["kind"], "legs that still fit on the cluster's nodes"),
            capacity_nodes: book.gauges("capacity_nodes", &["kind"], "nodes that take legs of this kind now"),
            minutes_to_full: {
                let metric = Family::default();
                let help =
                    "until nothing more fits at the rate of the last five minutes; absent while it does not fill";
                book.add("capacity_minutes_to_full", "gauge", &["kind"], help, Family::clone(&metric));
                metric
            },
            drains: DrainMetrics::new(&mut book),
            life: LifeMetrics::new(&mut book),
            media: MediaMetrics::new(&mut book),
            scrape: Mutex::default(),
            registry: book.registry,
            described: book.described,
        }
    }

    fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        text::encode(&mut out, &self.registry).expect("a String takes every write");
        out
    }

    fn collect(&self, seen: &mut Seen, snapshot: &Snapshot, store: StoreFacts) {
        let now: BTreeSet<NodeId> = snapshot.nodes.iter().map(|node| node.spec.id.clone()).collect();
        for gone in seen.nodes.difference(&now) {
            self.forget(gone, &seen.causes);
        }
        seen.nodes = now;
        for node in &snapshot.nodes {
            let id = &node.spec.id;
            for (state, name) in STATES {
                let gauge = self.node_state.get_or_create_owned(&[named(id), word("state", name)]);
                gauge.set(i64::from(node.state == state));
            }
            self.node_predicted.get_or_create(&[named(id)]).set(node.load.predicted.into());
            self.node_reported.get_or_create(&[named(id)]).set(node.load.reported.into());
            for (kind, legs) in [(Kind::Publish, node.legs.publish), (Kind::Play, node.legs.play)] {
                self.node_legs.get_or_create(&[named(id), word("kind", kind.as_str())]).set(legs.into());
            }
        }
        self.store_up.set(i64::from(store.up));
        self.cached_records.set(i64::try_from(store.cached_records).unwrap_or(i64::MAX));
        self.clock_skew.set(store.clock_skew_seconds.unwrap_or(0.0));
        self.waiters.set(i64::try_from(store.waiters).unwrap_or(i64::MAX));
        catch_up(&self.store_reads, store.reads);
        catch_up(&self.store_errors, store.errors);
        catch_up(&self.store_changes, store.changes);
        let counted = |family: &Counters<1>, label, rows: &[(Word, u64)]| {
            for (value, total) in rows {
                catch_up(&family.get_or_create_owned(&[word(label, value)]), *total);
            }
        };
        counted(&self.store_shed, "what", &[("read", store.reads_shed), ("wait", store.waits_shed)]);
        counted(&self.cache_lookups, "result", &[("hit", store.cache_hits), ("miss", store.cache_misses)]);
        let found = [
            ("live", store.live),
            ("not_live", store.not_live),
            ("missing", store.missing),
            ("unknown", store.unknown),
        ];
        counted(&self.record_lookups, "result", &found);
        self.drains.collect(&store);
    }

    /// Ends a node's series. What is still open on it keeps its own handle and comes back with no series.
    fn forget(&self, node: &NodeId, causes: &BTreeSet<Word>) {
        for (_, state) in STATES {
            self.node_state.remove(&[named(node), word("state", state)]);
        }
        self.node_predicted.remove(&[named(node)]);
        self.node_reported.remove(&[named(node)]);
        self.links_open.remove(&[named(node)]);
        for kind in KINDS {
            self.node_legs.remove(&[named(node), word("kind", kind.as_str())]);
            self.legs_open.remove(&[word("kind", kind.as_str()), named(node)]);
        }
        for result in PROBE_RESULTS {
            self.probes.remove(&[named(node), word("result", result)]);
        }
        for cause in causes {
            self.link_failures.remove(&[named(node), word("cause", cause)]);
        }
    }
}

/// Brings a counter up to what is counted elsewhere. Callers hold the scrape lock, so no increment is doubled.
fn catch_up(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Registers metrics and notes what they are.
struct Book {
    registry: Registry,
    described: Vec<Described>,
}

impl Book {
    fn add(&mut self, name: Word, kind: Word, labels: &'static [Word], help: Word, metric: impl Metric) {
        self.registry.register(name, help, metric);
        self.described.push(Described { name: format!("forebay_{name}"), kind, labels, help });
    }

    fn add_unit<M: Metric + Clone + Default>(
        &mut self,
        name: Word,
        kind: Word,
        labels: &'static [Word],
        help: Word,
        unit: Unit,
    ) -> M {
        let metric = M::default();
        let full = format!("forebay_{name}_{}", unit.as_str());
        self.registry.register_with_unit(name, help, unit, metric.clone());
        self.described.push(Described { name: full, kind, labels, help });
        metric
    }

    fn counter(&mut self, name: Word, help: Word) -> Counter {
        let metric = Counter::default();
        self.add(name, "counter", &[], help, metric.clone());
        metric
    }

    fn counters<const N: usize>(&mut self, name: Word, labels: &'static [Word; N], help: Word) -> Counters<N> {
        let metric = Counters::default();
        self.add(name, "counter", labels, help, metric.clone());
        metric
    }

    fn gauge(&mut self, name: Word, help: Word) -> Gauge {
        let metric = Gauge::default();
        self.add(name, "gauge", &[], help, metric.clone());
        metric
    }

    fn gauges<const N: usize>(&mut self, name: Word, labels: &'static [Word; N], help: Word) -> Gauges<N> {
        let metric = Gauges::default();
        self.add(name, "gauge", labels, help, metric.clone());
        metric
    }

    fn ratios(&mut self, name: Word, help: Word) -> Ratios<1> {
        self.add_unit(name, "gauge", &["node"], help, Unit::Other("ratio".into()))
    }

    fn seconds(&mut self, name: Word, buckets: &[f64], help: Word) -> Histogram {
        let metric = Histogram::new(buckets.iter().copied());
        self.registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        let name = format!("forebay_{name}_seconds");
        self.described.push(Described { name, kind: "histogram", labels: &[], help });
        metric
    }

    fn build_info(&mut self) {
        let labels = [("version", super::VERSION), ("commit", super::COMMIT), ("features", super::FEATURES)];
        self.registry.register("build", "the running build", Info::new(labels));
        let labels = &["version", "commit", "features"];
        let help = "the running build";
        self.described.push(Described { name: "forebay_build_info".into(), kind: "info", labels, help });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::domain::{
        balance::{BalanceSettings, Book, NodeSpec, Report, Request, Want},
        ids::{NodeAddr, Role, StreamKey},
        relay::{FlowEnd, Refused},
    };

    /// One edge that reported a quarter of its CPU and then got a play.
    fn one_edge() -> Arc<Snapshot> {
        let now = Instant::now();
        let spec = NodeSpec {
            id: "edge-1".parse().unwrap(),
            address: NodeAddr("127.0.0.1:5080".parse().unwrap()),
            role: Role::Edge,
            zone: None,
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: None,
        };
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(vec![spec], now);
        book.report(&"edge-1".parse().unwrap(), Report { cpu: Some(0.25), memory: None, at: now });
        let stream = StreamKey { app: "LiveApp".parse().unwrap(), stream: "cam-7".parse().unwrap() };
        let want = Want::Play { origin_zone: None, origin: None };
        let request =
            Request { stream: &stream, want, rule: "by_record", kind: Some(Kind::Play), exclude: &[], seed: 1 };
        book.place(&request, now).unwrap();
        book.snapshot()
    }

    #[test]
    fn a_scrape_shows_what_was_counted_and_what_the_snapshot_says() {
        let metrics = Metrics::new();
        let id: NodeId = "edge-1".parse().unwrap();
        let session = metrics.session_opened();
        let _leg = metrics.leg_opened(Kind::Play, &id);
        metrics.placed(Kind::Play, "bounded_hash", "placed");
        metrics.placement_took(Duration::from_millis(3));
        metrics.http_answered("/healthz", 200);
        drop(session);
        metrics.session_closed("client_closed");
        let text = metrics.scrape(
            &one_edge(),
            StoreFacts { up: true, cache_hits: 5, clock_skew_seconds: Some(-0.25), ..StoreFacts::default() },
        );
        for line in [
            "forebay_sessions_open 0",
            "forebay_sessions_opened_total 1",
            "forebay_sessions_closed_total{reason=\"client_closed\"} 1",
            "forebay_legs_open{kind=\"play\",node=\"edge-1\"} 1",
            "forebay_placements_total{kind=\"play\",rule=\"bounded_hash\",result=\"placed\"} 1",
            "forebay_placement_seconds_bucket{le=\"0.005\"} 1",
            "forebay_node_state{node=\"edge-1\",state=\"serving\"} 1",
            "forebay_node_state{node=\"edge-1\",state=\"down\"} 0",
            "forebay_node_load_reported_ratio{node=\"edge-1\"} 0.25",
            "forebay_node_legs{node=\"edge-1\",kind=\"play\"} 1",
            "forebay_store_up 1",
            "forebay_cache_lookups_total{result=\"hit\"} 5",
            "forebay_record_lookups_total{result=\"live\"} 0",
            "forebay_clock_skew_seconds -0.25",
            "forebay_http_requests_total{route=\"/healthz\",status=\"200\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("forebay_build_info{version="), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_nodes_series_end_with_the_node() {
        let metrics = Metrics::new();
        let id: NodeId = "edge-1".parse().unwrap();
        let link = metrics.link_opened(&id);
        metrics.link_failed(&id, "lost");
        metrics.probed(&id, false);
        assert!(metrics.scrape(&one_edge(), StoreFacts::default()).contains("edge-1"));

        let text = metrics.scrape(&Snapshot::default(), StoreFacts::default());

        assert!(!text.contains("edge-1"), "{text}");
        drop(link);
    }

    #[test]
    fn every_metric_is_described_as_it_is_scraped() {
        let metrics = Metrics::new();
        let id: NodeId = "edge-1".parse().unwrap();
        // A family shows with its first series.
        let _open = (metrics.leg_opened(Kind::Play, &id), metrics.link_opened(&id));
        metrics.session_closed("x");
        metrics.placed(Kind::Play, "x", "x");
        metrics.rejected("x");
        metrics.link_failed(&id, "x");
        metrics.retried("x");
        metrics.message_dropped("x");
        metrics.probed(&id, true);
        metrics.http_answered("x", 200);
        metrics.traces("x", 1);
        metrics.http_forwarded("x", 200, Duration::ZERO);
        metrics.http_failed("x");
        metrics.config_reloaded("x");
        metrics.upgraded("x");
        metrics.capacity(Kind::Play, Room::default(), Some(1.0));
        metrics.migrated(Kind::Play, "x", "x");
        metrics.media_flow_closed(FlowEnd::Closed);
        metrics.media_command_refused(Refused::Full);
        let text = metrics.scrape(&one_edge(), StoreFacts::default());
        let scraped: BTreeSet<(String, String)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
            .collect();
        let described: BTreeSet<(String, String)> = metrics
            .describe()
            .iter()
            .map(|row| (row.name.trim_end_matches("_info").to_owned(), row.kind.to_owned()))
            .collect();
        assert_eq!(scraped, described);
    }
}
