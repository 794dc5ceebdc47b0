//! The nodes: static ones with their names, rules for discovered ones, and from where those may come.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{MILLISECOND, SECOND, within};
use crate::{
    config::{
        IpRange, NodeRule, Nodes, Problems, StaticNode,
        raw::{RawNodes, RawRule, RawStatic},
        value::NodeAddress,
    },
    domain::ids::{NodeId, Role},
};

/// The private ranges of RFC 1918 and RFC 4193. Loopback, link-local and 100.64/10 are left out on purpose: there stand
/// the door's own admin API and the clouds' metadata services.
const PRIVATE: [(IpAddr, u8); 4] = [
    (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(std::net::Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(std::net::Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

pub(super) fn nodes(
    raw: RawNodes,
    statics: Vec<RawStatic>,
    rules: Vec<RawRule>,
    has_mongo: bool,
    problems: &mut Problems,
) -> Nodes {
    let discover = raw.discover.unwrap_or(has_mongo);
    if discover && !has_mongo {
        problems.add("nodes.discover", "needs MongoDB, and there is no [mongo]; write one, or false here");
    }
    if !discover && statics.is_empty() {
        let what = "none is known: no [[nodes.static]], and no [mongo] to discover any in; write one of them";
        problems.add("nodes", what);
    }
    let http_port = within("nodes.http_port", raw.http_port, 5080, 1, u16::MAX, problems);
    let default_role = raw.default_role.unwrap_or(Role::Both);
    let private = || PRIVATE.map(|(address, prefix)| IpRange { address, prefix }).to_vec();
    Nodes {
        discover,
        poll: within("nodes.poll", raw.poll, 2 * SECOND, 100 * MILLISECOND, Duration::from_secs(300), problems),
        http_port,
        permit: raw.permit.unwrap_or_else(private),
        fixed: fixed(statics, http_port, default_role, problems),
        rules: rules.into_iter().enumerate().map(|(nth, rule)| check_rule(nth, rule, default_role, problems)).collect(),
        default_role,
    }
}

fn fixed(raw: Vec<RawStatic>, http_port: u16, default_role: Role, problems: &mut Problems) -> Vec<StaticNode> {
    let mut per_ip: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for address in raw.iter().filter_map(|node| node.address) {
        *per_ip.entry(address.ip).or_default() += 1;
    }
    // What is taken, and by which entry: names, addresses and aliases each lead to one node only.
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(raw.len());
    for (nth, node) in raw.into_iter().enumerate() {
        let key = format!("nodes.static[{nth}]");
        let Some(NodeAddress { ip, port }) = node.address else {
            if !problems.as_slice().iter().any(|problem| problem.key == format!("{key}.address")) {
                problems.add(format!("{key}.address"), "is missing; write one such as \"10.0.1.11\"");
            }
            continue;
        };
        let address = SocketAddr::new(ip, port.unwrap_or(http_port));
        let alone = per_ip.get(&ip) == Some(&1);
        let id = node.name.unwrap_or_else(|| name_of(address, alone));
        let aliases = node.aliases.unwrap_or_default();
        claim(&mut taken, format!("name {id}"), &format!("{key}.name"), problems);
        claim(&mut taken, format!("address {address}"), &format!("{key}.address"), problems);
        for alias in &aliases {
            if alias.is_empty() || !alias.bytes().all(|byte| byte.is_ascii_graphic()) {
                let what = "is no host or address; write what AMS's records say";
                problems.add(format!("{key}.aliases"), format!("{alias:?} {what}"));
            }
            claim(&mut taken, format!("alias {alias}"), &format!("{key}.aliases"), problems);
        }
        no_zero(&key, node.max_publishes, node.max_plays, problems);
        nodes.push(StaticNode {
            id,
            address,
            role: node.role.unwrap_or(default_role),
            zone: node.zone,
            aliases,
            max_publishes: node.max_publishes,
            max_plays: node.max_plays,
        });
    }
    nodes
}

/// An address is a name; its port is part of it only where two nodes share the address.
fn name_of(address: SocketAddr, alone: bool) -> NodeId {
    let name = if alone { address.ip().to_string() } else { format!("{}:{}", address.ip(), address.port()) };
    name.parse().expect("an address has only hexadecimal digits, dots and colons")
}

fn claim(taken: &mut BTreeMap<String, String>, what: String, key: &str, problems: &mut Problems) {
    match taken.get(&what) {
        Some(owner) => problems.add(key, format!("the {what} is already taken by {owner}; change one of them")),
        None => {
            taken.insert(what, key.to_owned());
        }
    }
}

fn check_rule(nth: usize, rule: RawRule, default_role: Role, problems: &mut Problems) -> NodeRule {
    let key = format!("nodes.rule[{nth}]");
    let told = problems.as_slice().iter().any(|problem| problem.key.starts_with(&key));
    if rule.range.is_none() && rule.name.is_none() && !told {
        problems.add(&key, "matches nothing; write `range`, `name` or both");
    }
    if let Some(name) = &rule.name {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-*".contains(&byte);
        if name.is_empty() || !name.bytes().all(legal) {
            problems.add(format!("{key}.name"), format!("{name:?} is no pattern; write one such as \"10.0.1.*\""));
        }
    }
    no_zero(&key, rule.max_publishes, rule.max_plays, problems);
    NodeRule {
        range: rule.range,
        name: rule.name,
        role: rule.role.unwrap_or(default_role),
        zone: rule.zone,
        max_publishes: rule.max_publishes,
        max_plays: rule.max_plays,
    }
}

/// A limit of nothing is a drain in disguise, which nobody would find.
fn no_zero(key: &str, max_publishes: Option<u32>, max_plays: Option<u32>, problems: &mut Problems) {
    for (name, limit) in [("max_publishes", max_publishes), ("max_plays", max_plays)] {
        if limit == Some(0) {
            let what = "0 would keep the node empty; leave the key out for no limit, or give the node another role";
            problems.add(format!("{key}.{name}"), what);
        }
    }
}
