//! All nodes at one moment, and beside them the same facts laid out for the passes of placement.

use std::{
    borrow::Cow,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
    sync::Arc,
};

use super::{
    NodeSpec, NodeView, Verdict,
    hash::{self, FixedState, Seed},
};
use crate::domain::ids::{Kind, NodeId, Role, Zone};

/// All nodes at one moment, sorted by id. Published whole, so no reader sees half an update.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The nodes, sorted by id.
    pub nodes: Vec<NodeView>,
    pub(super) plan: Arc<Plan>,
    pub(super) publish: Side,
    pub(super) play: Side,
}

impl Snapshot {
    /// Finds a node by its id.
    pub fn get(&self, id: &NodeId) -> Option<&NodeView> {
        self.position(id).map(|at| &self.nodes[at])
    }

    /// Finds a node by what a record calls it: its id, an alias, `ip:port`, or a bare address that no other node shares.
    /// A name that fits two nodes equally well finds neither.
    pub fn by_ams_name(&self, name: &str) -> Option<&NodeView> {
        self.nodes.get(self.plan.names.find(name)?)
    }

    /// The kind of leg that nobody would take if this node took none: no other node that may take it takes legs now.
    pub fn sole_server(&self, id: &NodeId) -> Option<Kind> {
        let node = self.get(id)?;
        let others = || self.nodes.iter().filter(|other| other.spec.id != *id && other.state.takes_legs());
        [Kind::Publish, Kind::Play]
            .into_iter()
            .filter(|kind| self.plan.takes(node.spec.role, *kind))
            .find(|kind| !others().any(|other| self.plan.takes(other.spec.role, *kind)))
    }

    /// A number that two doors have in common exactly if they know the same nodes (design.md §4, "Node ids").
    pub fn table_hash(&self) -> u64 {
        hash::table(self.nodes.iter().map(|node| &*node.spec))
    }

    pub(super) fn position(&self, id: &NodeId) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.spec.id.cmp(id)).ok()
    }

    pub(super) fn side(&self, kind: Kind) -> &Side {
        match kind {
            Kind::Publish => &self.publish,
            Kind::Play => &self.play,
        }
    }

    pub(super) fn side_mut(&mut self, kind: Kind) -> &mut Side {
        match kind {
            Kind::Publish => &mut self.publish,
            Kind::Play => &mut self.play,
        }
    }
}

/// What changes only with the set of nodes; by position in [`Snapshot::nodes`].
#[derive(Debug, Default)]
pub(super) struct Plan {
    names: Names,
    pub(super) seeds: Vec<Seed>,
    /// Zones as small numbers; nodes without one have [`NO_ZONE`].
    pub(super) zones: Vec<u16>,
    zone_names: Vec<Zone>,
    /// Positions grouped by zone, those without one last, with the seeds in the same order: a pass over one zone reads
    /// nothing else.
    pub(super) grouped: Vec<u32>,
    pub(super) grouped_seeds: Vec<Seed>,
    /// Where each zone lies in `grouped`.
    groups: Vec<Range<usize>>,
    /// No node of the cluster takes plays by its role: origins serve them.
    edgeless: bool,
}

/// The zone number of nodes that have none, and of zones that no node has.
pub(super) const NO_ZONE: u16 = u16::MAX;

impl Plan {
    /// `specs` are sorted by id, each id once.
    pub(super) fn new(specs: &[Arc<NodeSpec>]) -> Self {
        let mut zone_names: Vec<Zone> = specs.iter().filter_map(|spec| spec.zone.clone()).collect();
        zone_names.sort();
        zone_names.dedup();
        // Beyond so many zones the rest are no zones: plays there lose their preference and nothing else.
        zone_names.truncate(usize::from(NO_ZONE));
        let mut plan = Self {
            names: Names::new(specs),
            seeds: specs.iter().map(|spec| Seed::of_node(&spec.id)).collect(),
            zones: Vec::new(),
            zone_names,
            grouped: Vec::new(),
            grouped_seeds: Vec::new(),
            groups: Vec::new(),
            edgeless: !specs.iter().any(|spec| spec.role.takes_play()),
        };
        plan.zones = specs.iter().map(|spec| plan.zone(spec.zone.as_ref())).collect();
        plan.group();
        plan
    }

    fn group(&mut self) {
        let mut grouped: Vec<usize> = (0..self.zones.len()).collect();
        grouped.sort_by_key(|&at| self.zones[at]);
        let begin_of = |zone: usize| grouped.partition_point(|&at| usize::from(self.zones[at]) < zone);
        self.groups = (0..self.zone_names.len()).map(|zone| begin_of(zone)..begin_of(zone + 1)).collect();
        self.grouped_seeds = grouped.iter().map(|&at| self.seeds[at]).collect();
        // A list of more nodes than that fits in no memory.
        self.grouped = grouped.into_iter().map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
    }

    /// Where the nodes of a zone lie in `grouped`.
    pub(super) fn members(&self, zone: u16) -> Range<usize> {
        self.groups.get(usize::from(zone)).cloned().unwrap_or(0..0)
    }

    /// The number of a zone.
    pub(super) fn zone(&self, zone: Option<&Zone>) -> u16 {
        let at = zone.and_then(|zone| self.zone_names.binary_search(zone).ok());
        at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_ZONE)
    }

    /// Whether a node of this role takes legs of this kind in this cluster.
    pub(super) fn takes(&self, role: Role, kind: Kind) -> bool {
        match kind {
            Kind::Publish => role.takes_publish(),
            Kind::Play => role.takes_play() || self.edgeless,
        }
    }

    /// Whether the cluster has no edges, so that a stream's own origin is the best place to play it.
    pub(super) fn is_edgeless(&self) -> bool {
        self.edgeless
    }
}

/// From the names that records use to positions.
#[derive(Debug, Default)]
struct Names(HashMap<Box<str>, Named, FixedState>);

#[derive(Debug, Clone, Copy)]
struct Named {
    /// `None`: two nodes have an equal claim.
    at: Option<usize>,
    rank: Rank,
}

/// How good a claim to a name is; the best one holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Address,
    Socket,
    Alias,
    Id,
}

impl Names {
    fn new(specs: &[Arc<NodeSpec>]) -> Self {
        let mut names = Self::default();
        for (at, spec) in specs.iter().enumerate() {
            let socket = canonical(spec.address.0);
            names.claim(spec.id.as_str(), at, Rank::Id);
            for alias in &spec.aliases {
                names.claim(alias, at, Rank::Alias);
            }
            names.claim(&socket.to_string(), at, Rank::Socket);
            names.claim(&socket.ip().to_string(), at, Rank::Address);
        }
        names
    }

    fn claim(&mut self, name: &str, at: usize, rank: Rank) {
        let claim = Named { at: Some(at), rank };
        let held = self.0.entry(lower(name).into()).or_insert(claim);
        if held.rank < rank {
            *held = claim;
        } else if held.rank == rank && held.at != Some(at) {
            held.at = None;
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        let name = lower(name);
        if let Some(named) = self.0.get(&*name) {
            return named.at;
        }
        // Another spelling of an address, such as `::ffff:10.0.0.1`.
        let spelled = match name.parse::<SocketAddr>() {
            Ok(socket) => canonical(socket).to_string(),
            Err(_) => name.parse::<IpAddr>().ok()?.to_canonical().to_string(),
        };
        self.0.get(&*spelled)?.at
    }
}

/// Host names are equal whatever their case.
fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

/// What placement asks of the nodes for one kind of leg, laid out for linear passes; by position.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    /// Predicted load of a node that may take the leg, else [`UNFIT`].
    pub(super) rank: Vec<u32>,
    /// The same with this leg.
    pub(super) with_leg: Vec<u32>,
    /// The whole truth of each node.
    pub(super) facts: Vec<Fact>,
    /// How many nodes each verdict holds, by [`Verdict`]; those that fit are in `fit`.
    pub(super) tally: [u32; Verdict::COUNT],
    pub(super) fit: u32,
    /// The sum of `rank` over the nodes that fit.
    pub(super) sum: u64,
    /// What one leg costs, as far as is known.
    pub(super) leg_cost: u32,
}

/// The rank of a node that may not take the leg. Real loads are far below (see `load.rs`).
pub(super) const UNFIT: u32 = u32::MAX;

/// One node for one kind of leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fact {
    /// Predicted load, millionths.
    pub(super) predicted: u32,
    /// The same with this leg.
    pub(super) with_leg: u32,
    /// Why it may not take the leg now.
    pub(super) unfit: Option<Verdict>,
    /// Whether it is below its limits, whatever its role and state.
    pub(super) has_room: bool,
}

impl Fact {
    /// What a node is before anything is known of it.
    pub(super) const UNKNOWN: Self =
        Self { predicted: 0, with_leg: 0, unfit: Some(Verdict::NotServing), has_room: false };
}

impl Side {
    pub(super) fn new(nodes: usize, leg_cost: u32) -> Self {
        let mut side = Self {
            rank: vec![UNFIT; nodes],
            with_leg: vec![UNFIT; nodes],
            facts: vec![Fact::UNKNOWN; nodes],
            leg_cost,
            ..Self::default()
        };
        side.tally[Verdict::NotServing as usize] = u32::try_from(nodes).unwrap_or(u32::MAX);
        side
    }

    /// Replaces what is known of one node, keeping the sums exact.
    pub(super) fn set(&mut self, at: usize, fact: Fact) {
        match self.facts[at].unfit {
            Some(verdict) => self.tally[verdict as usize] -= 1,
            None => {
                self.fit -= 1;
                self.sum -= u64::from(self.rank[at]);
            }
        }
        self.facts[at] = fact;
        match fact.unfit {
            Some(verdict) => {
                self.tally[verdict as usize] += 1;
                (self.rank[at], self.with_leg[at]) = (UNFIT, UNFIT);
            }
            None => {
                self.fit += 1;
                self.sum += u64::from(fact.predicted);
                (self.rank[at], self.with_leg[at]) = (fact.predicted, fact.with_leg);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::NodeAddr;

    fn spec(id: &str, address: &str, aliases: &[&str]) -> Arc<NodeSpec> {
        Arc::new(NodeSpec {
            id: id.parse().unwrap(),
            address: NodeAddr(address.parse().unwrap()),
            role: Role::Both,
            zone: None,
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            max_publishes: None,
            max_plays: None,
        })
    }

    #[test]
    fn a_record_finds_its_node_by_any_name_that_only_one_node_has() {
        let names = Names::new(&[
            spec("10.0.0.9", "10.0.0.9:5080", &[]),
            spec("edge-1", "10.0.0.1:5080", &["Edge1.example.org", "203.0.113.7"]),
            spec("edge-2", "10.0.0.1:5081", &["edge2.example.org"]),
            spec("six", "[2001:db8::1]:5080", &["both"]),
            spec("zzz", "10.0.0.3:5080", &["both", "10.0.0.9", "10.0.0.8"]),
        ]);
        let table = [
            ("10.0.0.9", Some(0)), // an id outranks another node's alias
            ("edge-1", Some(1)),
            ("EDGE1.example.org", Some(1)),
            ("203.0.113.7", Some(1)),
            ("10.0.0.1", None), // two nodes share it
            ("10.0.0.1:5080", Some(1)),
            ("10.0.0.1:5081", Some(2)),
            ("::ffff:10.0.0.3", Some(4)),
            ("[::ffff:10.0.0.1]:5081", Some(2)),
            ("2001:0db8::0:1", Some(3)),
            ("both", None), // two nodes claim it
            ("10.0.0.8", Some(4)),
            ("10.0.0.77", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(names.find(name), expected, "{name}");
        }
    }

    #[test]
    fn the_sums_follow_every_change() {
        let mut side = Side::new(3, 1);
        let fits = |predicted| Fact { predicted, with_leg: predicted + 1, unfit: None, has_room: true };
        side.set(0, fits(10));
        side.set(1, fits(20));
        side.set(1, fits(30));
        assert_eq!((side.fit, side.sum, side.tally[Verdict::NotServing as usize]), (2, 40, 1));
        side.set(0, Fact { unfit: Some(Verdict::AtLimit), ..fits(10) });
        assert_eq!((side.fit, side.sum, side.tally[Verdict::AtLimit as usize]), (1, 30, 1));
        assert_eq!((side.rank[0], side.with_leg[0]), (UNFIT, UNFIT));
    }
}
