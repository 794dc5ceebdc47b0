//! From the configuration and `clusternode` rows to the nodes that placement knows, their reports and their clocks.
//!
//! ```text
//! static nodes ──────────────────────────────────────────► nodes
//! row ─ names a static node? ─ yes ─► its report, its skew
//!        └ no ─ discover, an address, permitted, not forgotten? ─► node by rules, report, skew
//! ```
//!
//! A row gives no liveness: a stale one never ejects a node that answers, a fresh one never saves one that does not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{
    skew::{Bounds, LARGE_SKEW_MS},
    store::NodeRow,
};
use crate::{
    config::{NodeRule, Nodes, StaticNode},
    domain::{
        balance::{NodeSpec, NodeState, Report, Snapshot},
        ids::{NodeAddr, NodeId},
    },
};

/// A row that was not refreshed for so long is a leftover, unless its node is known and answers.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// A report of so long ago says nothing of now.
const OLD_REPORT: Duration = Duration::from_secs(30);
/// Rows about which something was said in the log; above it, it may be said again.
const MENTIONED: usize = 4096;

/// Follows the rows from poll to poll.
#[derive(Debug)]
pub(super) struct Roster {
    config: Nodes,
    heartbeats: HashMap<String, Heartbeat>,
    last_poll_ms: Option<i64>,
    mentioned: HashSet<(String, &'static str)>,
}

/// The last heartbeat of one row.
#[derive(Debug, Clone, Copy)]
struct Heartbeat {
    written_ms: i64,
    /// Where its writer's clock is, once a change of the row was seen.
    bounds: Option<Bounds>,
    /// It came with this poll.
    news: bool,
}

/// What one poll says.
#[derive(Debug, Default)]
pub(super) struct Poll {
    /// All nodes now, by id.
    pub(super) nodes: Vec<NodeSpec>,
    /// Reports that are new since the last poll.
    pub(super) reports: Vec<(NodeId, Report)>,
    /// Measured skews, by every name that records may use for the node.
    pub(super) skews: HashMap<Box<str>, i64>,
}

impl Roster {
    pub(super) fn new(config: Nodes) -> Self {
        Self { config, heartbeats: HashMap::new(), last_poll_ms: None, mentioned: HashSet::new() }
    }

    /// Takes another configuration; what was seen of rows stays.
    pub(super) fn reconfigure(&mut self, config: Nodes) {
        self.config = config;
    }

    /// The nodes of the configuration alone.
    pub(super) fn fixed(&self) -> Vec<NodeSpec> {
        sorted(self.config.fixed.iter().map(fixed_spec).collect())
    }

    /// Takes all rows of a poll. `known` is what placement knows now; `now_ms` is our wall clock.
    pub(super) fn take(&mut self, rows: Vec<NodeRow>, known: &Snapshot, now: Instant, now_ms: i64) -> Poll {
        let rows = newest_by_ip(rows);
        self.note_heartbeats(&rows, now_ms);
        let mut poll = Poll { nodes: self.fixed(), ..Poll::default() };
        let mut discovered: BTreeMap<SocketAddr, NodeRow> = BTreeMap::new();
        for row in rows {
            let named: Vec<&StaticNode> = self.config.fixed.iter().filter(|node| is_named(node, &row.ip)).collect();
            match named[..] {
                [node] => {
                    let spec = fixed_spec(node);
                    self.account(&mut poll, &spec, &row, now, now_ms);
                }
                [] => {
                    if let Some(address) = self.admit(&row, known, now_ms) {
                        discovered.insert(address, row);
                    }
                }
                _ => self.mention(&row.ip, "clusternode row names several static nodes; its report is not used"),
            }
        }
        for (address, row) in &discovered {
            let Some(spec) = self.discovered_spec(*address, &discovered) else { continue };
            self.account(&mut poll, &spec, row, now, now_ms);
            poll.nodes.push(spec);
        }
        keep_those_with_legs(&mut poll.nodes, known);
        poll.nodes = sorted(poll.nodes);
        poll
    }

    fn note_heartbeats(&mut self, rows: &[NodeRow], now_ms: i64) {
        let last_poll_ms = self.last_poll_ms.replace(now_ms);
        let beats = rows.iter().map(|row| {
            let beat = match self.heartbeats.get(&row.ip) {
                Some(before) if before.written_ms == row.updated_ms => Heartbeat { news: false, ..*before },
                Some(before) => {
                    let newer = last_poll_ms.map(|last_ms| Bounds::of(row.updated_ms, last_ms, now_ms));
                    let bounds = match (before.bounds, newer) {
                        (Some(before), Some(newer)) => Some(before.and(newer)),
                        (before, newer) => newer.or(before),
                    };
                    Heartbeat { written_ms: row.updated_ms, bounds, news: true }
                }
                None => Heartbeat { written_ms: row.updated_ms, bounds: None, news: true },
            };
            (row.ip.clone(), beat)
        });
        self.heartbeats = beats.collect();
    }

    /// Enters a row's report and skew for the node that it names.
    fn account(&mut self, poll: &mut Poll, spec: &NodeSpec, row: &NodeRow, now: Instant, now_ms: i64) {
        let Some(beat) = self.heartbeats.get(&row.ip).copied() else { return };
        let skew_ms = beat.bounds.map_or(0, Bounds::skew_ms);
        if beat.bounds.is_some() {
            let ip = spec.address.0.ip().to_string();
            let names = [spec.id.as_str(), ip.as_str(), row.ip.as_str()].into_iter();
            let names = names.chain(spec.aliases.iter().map(|alias| &**alias));
            poll.skews.extend(names.map(|name| (name.into(), skew_ms)));
        }
        if skew_ms.saturating_abs() > LARGE_SKEW_MS {
            self.mention(&row.ip, "the node's clock is more than 2 s off ours; its streams' liveness is corrected");
        }
        let age_ms = now_ms.saturating_add(skew_ms).saturating_sub(row.updated_ms).max(0);
        let age = Duration::from_millis(age_ms.unsigned_abs());
        let at = now.checked_sub(age).filter(|_| age < OLD_REPORT);
        if let (true, Some(at)) = (beat.news && (row.cpu.is_some() || row.memory.is_some()), at) {
            poll.reports.push((spec.id.clone(), Report { cpu: row.cpu, memory: row.memory, at }));
        }
    }

    /// The address under which a row's node may be dialled, if it may.
    fn admit(&mut self, row: &NodeRow, known: &Snapshot, now_ms: i64) -> Option<SocketAddr> {
        if !self.config.discover {
            return None;
        }
        let Some(address) = address_of(&row.ip, self.config.http_port) else {
            self.mention(&row.ip, "clusternode row has a host name that is no static node's alias; it is not used");
            return None;
        };
        if !self.config.permit.iter().any(|range| range.contains(address.ip())) {
            self.mention(&row.ip, "clusternode row is outside nodes.permit; it is not used");
            return None;
        }
        let forgotten = now_ms.saturating_sub(row.updated_ms) > i64::try_from(FORGET.as_millis()).unwrap_or(i64::MAX);
        let answers = || known.nodes.iter().any(|node| node.spec.address.0 == address && node.state != NodeState::Down);
        (!forgotten || answers()).then_some(address)
    }

    fn discovered_spec(&self, address: SocketAddr, discovered: &BTreeMap<SocketAddr, NodeRow>) -> Option<NodeSpec> {
        let ip = address.ip();
        let namesakes = discovered.keys().filter(|other| other.ip() == ip).count()
            + self.config.fixed.iter().filter(|node| node.address.ip() == ip).count();
        let name = if namesakes > 1 { format!("{ip}:{}", address.port()) } else { ip.to_string() };
        let id: NodeId = name.parse().ok()?;
        let rule = self.config.rules.iter().find(|rule| rule_matches(rule, ip, &id));
        Some(NodeSpec {
            address: NodeAddr(address),
            role: rule.map_or(self.config.default_role, |rule| rule.role),
            zone: rule.and_then(|rule| rule.zone.clone()),
            aliases: Vec::new(),
            max_publishes: rule.and_then(|rule| rule.max_publishes),
            max_plays: rule.and_then(|rule| rule.max_plays),
            id,
        })
    }

    /// Says something of a row in the log, once.
    fn mention(&mut self, ip: &str, what: &'static str) {
        if self.mentioned.len() >= MENTIONED {
            self.mentioned.clear();
        }
        if self.mentioned.insert((ip.to_owned(), what)) {
            tracing::warn!(row = ip, "{what}");
        }
    }
}

/// A node that AMS lists no more goes only once it has no legs of ours: they may well still work.
fn keep_those_with_legs(nodes: &mut Vec<NodeSpec>, known: &Snapshot) {
    let has_legs = |legs: crate::domain::balance::Legs| legs.publish + legs.play > 0;
    for node in known.nodes.iter().filter(|node| has_legs(node.legs)) {
        if !nodes.iter().any(|spec| spec.id == node.spec.id || spec.address == node.spec.address) {
            nodes.push(NodeSpec::clone(&node.spec));
        }
    }
}

/// Every name under which AMS's records may know a node; another node may have the same bare address.
pub(super) fn ams_names(spec: &NodeSpec) -> Vec<String> {
    let socket = spec.address.0;
    let own = [spec.id.to_string(), socket.to_string(), socket.ip().to_string()];
    own.into_iter().chain(spec.aliases.iter().map(|alias| alias.to_string())).collect()
}

fn sorted(mut nodes: Vec<NodeSpec>) -> Vec<NodeSpec> {
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    nodes
}

/// A node that was reinstalled may leave a row under an old `_id`: of rows with one `ip`, the newest counts.
fn newest_by_ip(mut rows: Vec<NodeRow>) -> Vec<NodeRow> {
    rows.sort_by(|a, b| a.ip.cmp(&b.ip).then(b.updated_ms.cmp(&a.updated_ms)));
    rows.dedup_by(|later, kept| later.ip == kept.ip);
    rows
}

fn fixed_spec(node: &StaticNode) -> NodeSpec {
    NodeSpec {
        id: node.id.clone(),
        address: NodeAddr(node.address),
        role: node.role,
        zone: node.zone.clone(),
        aliases: node.aliases.iter().map(|alias| alias.as_str().into()).collect(),
        max_publishes: node.max_publishes,
        max_plays: node.max_plays,
    }
}

fn is_named(node: &StaticNode, ip: &str) -> bool {
    node.aliases.iter().any(|alias| alias == ip)
        || ip.parse() == Ok(node.address.ip())
        || ip.parse() == Ok(node.address)
}

fn address_of(ip: &str, http_port: u16) -> Option<SocketAddr> {
    let bare = ip.parse::<IpAddr>().map(|ip| SocketAddr::new(ip.to_canonical(), http_port));
    bare.or_else(|_| ip.parse::<SocketAddr>()).ok()
}

fn rule_matches(rule: &NodeRule, ip: IpAddr, id: &NodeId) -> bool {
    rule.range.is_none_or(|range| range.contains(ip))
        && rule.name.as_deref().is_none_or(|pattern| fits(pattern, id.as_str()))
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    let mut tail = name;
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = tail.find(part) else { return false };
        tail = &tail[at + part.len()..];
    }
    tail.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::IpRange,
        domain::{
            balance::{BalanceSettings, Book, ProbeOutcome},
            ids::Role,
        },
    };

    const T0_MS: i64 = 1_767_225_600_000;

    fn range(address: &str, prefix: u8) -> IpRange {
        IpRange { address: address.parse().unwrap(), prefix }
    }

    fn config() -> Nodes {
        Nodes {
            discover: true,
            poll: Duration::from_secs(2),
            http_port: 5080,
            permit: vec![range("10.0.0.0", 8)],
            fixed: vec![StaticNode {
                id: "origin-1".parse().unwrap(),
                address: "10.0.1.11:5080".parse().unwrap(),
                role: Role::Origin,
                zone: None,
                aliases: vec!["203.0.113.7".into()],
                max_publishes: None,
                max_plays: None,
            }],
            rules: vec![
                NodeRule {
                    range: Some(range("10.0.2.0", 24)),
                    name: None,
                    role: Role::Edge,
                    zone: Some("b".parse().unwrap()),
                    max_publishes: None,
                    max_plays: Some(400),
                },
                NodeRule {
                    range: None,
                    name: Some("10.0.*.9".into()),
                    role: Role::Origin,
                    zone: None,
                    max_publishes: None,
                    max_plays: None,
                },
            ],
            default_role: Role::Both,
        }
    }

    fn row(ip: &str, updated_ms: i64) -> NodeRow {
        NodeRow { id: format!("uuid-{ip}"), ip: ip.into(), updated_ms, cpu: Some(0.3), memory: None, db_query_ms: None }
    }

    fn ids(poll: &Poll) -> Vec<&str> {
        poll.nodes.iter().map(|node| node.id.as_str()).collect()
    }

    #[test]
    fn a_row_becomes_a_node_by_the_first_rule_that_fits() {
        let rows = vec![row("10.0.2.12", T0_MS), row("10.0.3.9", T0_MS), row("10.0.4.1", T0_MS)];
        let poll = Roster::new(config()).take(rows, &Snapshot::default(), Instant::now(), T0_MS);
        assert_eq!(ids(&poll), ["10.0.2.12", "10.0.3.9", "10.0.4.1", "origin-1"]);
        let [edge, origin, both, _] = &poll.nodes[..] else { panic!("four nodes") };
        assert_eq!((edge.role, edge.max_plays), (Role::Edge, Some(400)));
        assert_eq!(edge.zone.as_ref().map(|zone| zone.as_str()), Some("b"));
        assert_eq!((origin.role, both.role), (Role::Origin, Role::Both));
        assert_eq!(edge.address.to_string(), "10.0.2.12:5080");
        assert_eq!(poll.reports.len(), 3);
    }

    #[test]
    fn a_row_outside_the_permitted_range_or_without_address_is_never_dialled() {
        let rows = vec![row("192.168.1.1", T0_MS), row("ams-7.internal", T0_MS), row("169.254.169.254:80", T0_MS)];
        let poll = Roster::new(config()).take(rows, &Snapshot::default(), Instant::now(), T0_MS);
        assert_eq!(ids(&poll), ["origin-1"]);
        assert!(poll.reports.is_empty());
    }

    #[test]
    fn a_row_that_names_a_static_node_by_alias_is_its_report() {
        let poll =
            Roster::new(config()).take(vec![row("203.0.113.7", T0_MS)], &Snapshot::default(), Instant::now(), T0_MS);
        assert_eq!(ids(&poll), ["origin-1"]);
        assert_eq!(poll.reports[0].0.as_str(), "origin-1");
    }

    #[test]
    fn two_nodes_of_one_address_are_told_apart_by_port() {
        let rows = vec![row("10.0.2.12:5080", T0_MS), row("10.0.2.12:5081", T0_MS)];
        let poll = Roster::new(config()).take(rows, &Snapshot::default(), Instant::now(), T0_MS);
        assert_eq!(ids(&poll), ["10.0.2.12:5080", "10.0.2.12:5081", "origin-1"]);
    }

    #[test]
    fn a_row_of_yesterday_is_forgotten_unless_its_node_answers() {
        let old = T0_MS - 25 * 3_600_000;
        let mut roster = Roster::new(config());
        let t0 = Instant::now();
        let poll = roster.take(vec![row("10.0.2.12", old)], &Snapshot::default(), t0, T0_MS);
        assert_eq!(ids(&poll), ["origin-1"]);

        let mut book = Book::new(BalanceSettings::default());
        let fresh = roster.take(vec![row("10.0.2.12", T0_MS)], &Snapshot::default(), t0, T0_MS);
        book.set_nodes(fresh.nodes, t0);
        let poll = roster.take(vec![row("10.0.2.12", old)], &book.snapshot(), t0, T0_MS);
        assert_eq!(ids(&poll), ["10.0.2.12", "origin-1"], "it serves: its heartbeat alone does not eject it");

        for _ in 0..8 {
            book.probe(&"10.0.2.12".parse().unwrap(), ProbeOutcome::Failed("refused".into()), t0);
        }
        let poll = roster.take(vec![row("10.0.2.12", old)], &book.snapshot(), t0, T0_MS);
        assert_eq!(ids(&poll), ["origin-1"]);
    }

    #[test]
    fn a_report_counts_once_and_from_when_it_was_written() {
        let (mut roster, t0) = (Roster::new(config()), Instant::now() + Duration::from_secs(100));
        let mut take = |row, ms: i64| {
            let now = t0 + Duration::from_millis(ms.unsigned_abs());
            roster.take(vec![row], &Snapshot::default(), now, T0_MS + ms).reports
        };
        let first = take(row("10.0.2.12", T0_MS - 1_000), 0);
        assert_eq!(first[0].1.at, t0 - Duration::from_secs(1));
        assert!(take(row("10.0.2.12", T0_MS - 1_000), 2_000).is_empty(), "nothing new");
        assert_eq!(take(row("10.0.2.12", T0_MS + 4_000), 4_000).len(), 1);
        let mut later = Roster::new(config());
        let poll = later.take(vec![row("10.0.2.12", T0_MS - 90_000)], &Snapshot::default(), t0, T0_MS);
        assert!(poll.reports.is_empty(), "too old to say anything of now");
    }

    #[test]
    fn a_clock_that_is_off_is_measured_from_its_heartbeats() {
        let mut roster = Roster::new(config());
        let mut take = |at_ms: i64| {
            let row = row("203.0.113.7", T0_MS + at_ms + 60_000);
            roster.take(vec![row], &Snapshot::default(), Instant::now(), T0_MS + at_ms)
        };
        assert!(take(0).skews.is_empty(), "one heartbeat may have been written at any time");
        let poll = take(2_000);
        for name in ["origin-1", "10.0.1.11", "203.0.113.7"] {
            assert_eq!(poll.skews.get(name), Some(&60_000), "{name}");
        }
        assert!(poll.reports[0].1.at <= Instant::now());
    }

    #[test]
    fn a_vanished_row_takes_its_node_along_unless_legs_are_on_it() {
        let (mut roster, t0) = (Roster::new(config()), Instant::now());
        let with = roster.take(vec![row("10.0.2.12", T0_MS)], &Snapshot::default(), t0, T0_MS);
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(with.nodes, t0);
        let mut snapshot = Snapshot::clone(&book.snapshot());
        assert_eq!(ids(&roster.take(vec![], &snapshot, t0, T0_MS)), ["origin-1"]);
        snapshot.nodes[0].legs.play = 1;
        assert_eq!(ids(&roster.take(vec![], &snapshot, t0, T0_MS)), ["10.0.2.12", "origin-1"]);
    }

    #[test]
    fn a_pattern_fits_with_any_text_at_its_stars() {
        for (pattern, name, expected) in [
            ("edge-*", "edge-7", true),
            ("*-7", "edge-7", true),
            ("e*e-*7", "edge-17", true),
            ("*", "", true),
            ("edge", "edge-7", false),
            ("edge-*8", "edge-7", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
