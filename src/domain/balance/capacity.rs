//! How many more legs the cluster takes, which node is cheapest to remove, and when it is full at the present rate.
//!
//! Every number is what placement itself would say: the same predicted loads, limits and learned costs. Each kind is
//! counted as if only that kind came.

use super::{Legs, NodeState, load::Cost};
use crate::domain::ids::{Kind, NodeId, Role};

/// One node as capacity sees it. Loads and costs in millionths of a node.
#[derive(Debug, Clone)]
pub(super) struct Site<'a> {
    pub(super) id: &'a NodeId,
    pub(super) role: Role,
    pub(super) state: NodeState,
    pub(super) legs: Legs,
    /// Predicted load, without the configured limits.
    pub(super) predicted: u32,
    /// It refused a leg and has not reported since.
    pub(super) is_full: bool,
    /// Per kind (publish, play): the configured limit, and whether its role takes the kind in this cluster.
    pub(super) limits: [Option<u32>; 2],
    pub(super) takes: [bool; 2],
}

/// What the cluster still takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Publishes.
    pub publish: Room,
    /// Plays.
    pub play: Room,
    /// Per role that some node has: the node that is cheapest to remove.
    pub cheapest: Vec<Removal>,
}

/// Room for one kind of leg.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Legs that are open on all nodes.
    pub open: u32,
    /// Legs that still fit.
    pub fit: u32,
    /// Nodes that take this kind now.
    pub nodes: u32,
}

/// A node that could be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Its role.
    pub role: Role,
    /// The node.
    pub node: NodeId,
    /// Legs that would have to move.
    pub legs: Legs,
    /// The others have room for them.
    pub fits: bool,
}

const KINDS: [Kind; 2] = [Kind::Publish, Kind::Play];

/// What the cluster takes, given each node, the load above which a node takes no leg, and what a leg costs.
pub(super) fn capacity(sites: &[Site<'_>], max_load: [u32; 2], cost: Cost) -> Capacity {
    let room = |kind: usize| {
        let takers = || sites.iter().filter(|site| site.state.takes_legs() && site.takes[kind]);
        Room {
            open: sites.iter().fold(0, |sum, site| sum.saturating_add(site.legs.of(KINDS[kind]))),
            fit: takers().fold(0, |sum, site| sum.saturating_add(site.fit(kind, max_load[kind], cost))),
            nodes: u32::try_from(takers().count()).unwrap_or(u32::MAX),
        }
    };
    let rooms = [room(0), room(1)];
    let cheapest = [Role::Origin, Role::Edge, Role::Both].into_iter();
    let cheapest = cheapest.filter_map(|role| cheapest_of(role, sites, &rooms, max_load, cost)).collect();
    Capacity { publish: rooms[0], play: rooms[1], cheapest }
}

/// Minutes until `fit` more legs have come at this rate; `None` while the cluster does not fill.
pub fn minutes_to_full(fit: u32, legs_per_minute: f64) -> Option<f64> {
    (legs_per_minute > 0.0 && legs_per_minute.is_finite()).then(|| f64::from(fit) / legs_per_minute)
}

/// The node of a role whose going moves the least, unless it is the last one of a kind that it takes.
fn cheapest_of(role: Role, sites: &[Site<'_>], rooms: &[Room; 2], max_load: [u32; 2], cost: Cost) -> Option<Removal> {
    let of_role = sites.iter().filter(|site| site.role == role && site.state.takes_legs());
    let dispensable = of_role.filter(|site| (0..2).all(|kind| !site.takes[kind] || rooms[kind].nodes > 1));
    let removal = |site: &Site<'_>| {
        let rest = |kind: usize| {
            let own = if site.takes[kind] { site.fit(kind, max_load[kind], cost) } else { 0 };
            rooms[kind].fit.saturating_sub(own)
        };
        let fits = (0..2).all(|kind| site.legs.of(KINDS[kind]) <= rest(kind));
        Removal { role, node: site.id.clone(), legs: site.legs, fits }
    };
    dispensable
        .map(|site| (cost.all(site.legs), removal(site)))
        .min_by(|(dear, a), (cheap, b)| (!a.fits, dear, &a.node).cmp(&(!b.fits, cheap, &b.node)))
        .map(|(_, removal)| removal)
}

impl Site<'_> {
    /// Legs of one kind that still fit, by load and by limit.
    fn fit(&self, kind: usize, max_load: u32, cost: Cost) -> u32 {
        if self.is_full {
            return 0;
        }
        let by_load = max_load.saturating_sub(self.predicted) / cost.of(KINDS[kind]).max(1);
        let by_limit = self.limits[kind].map(|limit| limit.saturating_sub(self.legs.of(KINDS[kind])));
        by_limit.map_or(by_load, |by_limit| by_limit.min(by_load))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: Cost = Cost { publish: 5_000, play: 2_000 };
    const MAX: [u32; 2] = [750_000, 750_000];

    fn ids(count: usize) -> Vec<NodeId> {
        (1..=count).map(|n| format!("n{n}").parse().unwrap()).collect()
    }

    fn site(id: &NodeId, role: Role, publish: u32, play: u32) -> Site<'_> {
        let legs = Legs { publish, play };
        Site {
            id,
            role,
            state: NodeState::Serving,
            legs,
            predicted: COST.all(legs),
            is_full: false,
            limits: [None, None],
            takes: [role.takes_publish(), role.takes_play()],
        }
    }

    #[test]
    fn what_fits_is_what_loads_and_limits_leave() {
        let id = &ids(1)[0];
        // role, publishes, plays, change → publishes and plays that fit
        type Change = fn(&mut Site<'_>);
        let table: [(Role, u32, u32, Change, u32, u32); 9] = [
            (Role::Origin, 0, 0, |_| {}, 150, 0),
            (Role::Edge, 0, 0, |_| {}, 0, 375),
            (Role::Both, 0, 0, |_| {}, 150, 375),
            (Role::Origin, 50, 0, |_| {}, 100, 0),
            (Role::Edge, 0, 100, |site| site.limits[1] = Some(120), 0, 20),
            (Role::Edge, 0, 130, |site| site.limits[1] = Some(120), 0, 0),
            (Role::Edge, 0, 0, |site| site.predicted = 800_000, 0, 0),
            (Role::Edge, 0, 0, |site| site.is_full = true, 0, 0),
            (Role::Both, 0, 0, |site| site.state = NodeState::Draining, 0, 0),
        ];
        for (at, (role, publish, play, change, publishes, plays)) in table.into_iter().enumerate() {
            let mut site = site(id, role, publish, play);
            change(&mut site);
            let capacity = capacity(&[site], MAX, COST);
            assert_eq!((capacity.publish.fit, capacity.play.fit), (publishes, plays), "row {at}");
            assert_eq!((capacity.publish.open, capacity.play.open), (publish, play), "row {at}");
        }
    }

    #[test]
    fn the_cheapest_node_is_the_one_whose_going_moves_least_and_never_the_last() {
        let ids = ids(4);
        let removed = |sites: &[Site<'_>]| -> Vec<(Role, String, bool)> {
            let removals = capacity(sites, MAX, COST).cheapest.into_iter();
            removals.map(|removal| (removal.role, removal.node.to_string(), removal.fits)).collect()
        };
        let (origin, edge) = (site(&ids[0], Role::Origin, 3, 0), site(&ids[1], Role::Edge, 0, 9));
        assert_eq!(removed(&[origin.clone(), edge.clone()]), [], "both are the last of their kind");
        let other = site(&ids[2], Role::Edge, 0, 4);
        assert_eq!(removed(&[origin.clone(), edge.clone(), other.clone()]), [(Role::Edge, "n3".into(), true)]);
        let down = Site { state: NodeState::Down, ..other.clone() };
        assert_eq!(removed(&[origin.clone(), edge.clone(), down]), []);
        let full = Site { is_full: true, ..edge.clone() };
        assert_eq!(removed(&[origin.clone(), full, other.clone()]), [(Role::Edge, "n2".into(), true)], "its legs fit");
        let both = site(&ids[3], Role::Both, 0, 0);
        let all = removed(&[origin, edge, other, both]);
        assert_eq!(
            all,
            [(Role::Origin, "n1".into(), true), (Role::Edge, "n3".into(), true), (Role::Both, "n4".into(), true)]
        );
    }

    #[test]
    fn a_node_whose_legs_fit_nowhere_is_named_only_where_no_other_can_go() {
        let ids = ids(2);
        let (mut small, mut large) = (site(&ids[0], Role::Edge, 0, 300), site(&ids[1], Role::Edge, 0, 350));
        (small.limits[1], large.limits[1]) = (Some(310), Some(360));
        let capacity = capacity(&[small, large], MAX, COST);
        assert_eq!((capacity.play.fit, capacity.cheapest[0].fits), (20, false));
        assert_eq!(capacity.cheapest[0].node, ids[0]);
    }

    #[test]
    fn a_cluster_that_does_not_fill_is_never_full() {
        for (fit, rate, minutes) in [
            (100, 10.0, Some(10.0)),
            (0, 10.0, Some(0.0)),
            (100, 0.0, None),
            (100, -3.0, None),
            (100, f64::NAN, None),
            (100, f64::INFINITY, None),
        ] {
            assert_eq!(minutes_to_full(fit, rate), minutes, "{fit} at {rate}");
        }
    }
}
