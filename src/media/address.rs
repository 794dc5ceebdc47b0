//! What clients and nodes are told of the relay: its public addresses, and one private one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::MediaError;
use crate::{
    config::{self, Told},
    domain::sdp::{PublicCandidate, Transport},
};

/// Where the default route leads; nothing is sent there (RFC 5737 and RFC 3849 documentation addresses).
const SOMEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
/// Where the route to private networks leads, if there is one of its own; nothing is sent there.
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254));

/// What clients are told: the configured addresses, else the bound one, else this machine's own where it is public, else
/// what `discover` finds, which otherwise says what it has tried.
pub(super) fn public(
    config: &config::Media,
    bound: SocketAddr,
    discover: impl FnOnce() -> Result<IpAddr, String>,
) -> Result<Vec<PublicCandidate>, MediaError> {
    let refuse = |why: String| Err(MediaError::NoPublicAddress(why));
    let here = |bind: Option<IpAddr>| bind.is_none_or(|bind| config.bind.is_unspecified() || config.bind == bind);
    let named: Vec<IpAddr> = config.external_ips.iter().filter(|ip| here(ip.bind)).map(|ip| ip.public).collect();
    let told = if !named.is_empty() {
        named
    } else if !config.external_ips.is_empty() {
        return refuse(format!("no pair is for media.bind {}; write \"PUBLIC/{}\"", config.bind, config.bind));
    } else if config.bind.is_unspecified() {
        let families = if config.bind.is_ipv6() { &SOMEWHERE[..] } else { &SOMEWHERE[..1] };
        families.iter().filter_map(|to| source_towards(*to)).filter(|ip| usable(config, *ip)).collect()
    } else {
        vec![config.bind]
    };
    let mut usable: Vec<IpAddr> = told.into_iter().filter(|ip| usable(config, *ip)).collect();
    if usable.is_empty() {
        match discover() {
            Ok(found) => usable.push(found),
            Err(tried) => {
                return refuse(format!(
                    "clients cannot be told where to send media, for no address at media.bind {} is public ({tried}); \
                     write the public one, or set media.allow_private_public_ip = true if all clients are inside this \
                     network",
                    config.bind
                ));
            }
        }
    }
    let candidate = |ip| PublicCandidate { address: SocketAddr::new(ip, bound.port()), transport: Transport::Udp };
    Ok(usable.into_iter().map(candidate).collect())
}

fn usable(config: &config::Media, ip: IpAddr) -> bool {
    config.may_tell(ip)
}

/// What clients are told of a listener that takes ICE-TCP, with the port that it is bound to; `public` are the relay's own
/// addresses, which are this machine's.
pub(super) fn ice_tcp(
    config: &config::Media,
    listener: SocketAddr,
    public: &[PublicCandidate],
) -> Result<Vec<PublicCandidate>, MediaError> {
    let ip = listener.ip().to_canonical();
    let mut told = match config.told_of(ip) {
        Told::These(told) => told,
        Told::Own => {
            let families = if ip.is_ipv6() { &SOMEWHERE[..] } else { &SOMEWHERE[..1] };
            families.iter().filter_map(|to| source_towards(*to)).filter(|ip| usable(config, *ip)).collect()
        }
        Told::Nothing => Vec::new(),
    };
    if told.is_empty() && ip.is_unspecified() {
        let same_family = |found: &IpAddr| found.is_ipv4() || ip.is_ipv6();
        let relay = public.iter().filter(|candidate| candidate.transport == Transport::Udp);
        told = relay.map(|candidate| candidate.address.ip()).filter(same_family).collect();
    }
    if told.is_empty() {
        return Err(MediaError::NoPublicAddress(format!(
            "clients cannot be told where ICE-TCP is, for no address of the listener at {listener} is public; write the \
             public one, or leave ice_tcp out"
        )));
    }
    let candidate =
        |ip| PublicCandidate { address: SocketAddr::new(ip, listener.port()), transport: Transport::TcpPassive };
    Ok(told.into_iter().map(candidate).collect())
}

/// What nodes are told of the pool socket bound at `pool`; `None` where they are to be told nothing, or where it sends
/// from as many addresses as there are routes.
pub(super) fn private(config: &config::Media, pool: SocketAddr) -> Option<SocketAddr> {
    if !config.announce_private_candidate {
        return None;
    }
    let ip = match pool.ip() {
        ip if ip.is_unspecified() => source_towards(INSIDE).or_else(|| source_towards(SOMEWHERE[0]))?,
        ip => ip,
    };
    Some(SocketAddr::new(ip, pool.port()))
}

/// The address that this machine would send from. Connecting a datagram socket only asks the routing table.
fn source_towards(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((to, 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BOUND: &str = "10.0.0.5:5001";

    fn told(media: &str) -> Result<Vec<String>, String> {
        let config = Config::from_toml_str(&format!(
            "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\n{media}\n"
        ))
        .unwrap()
        .media;
        let found = public(&config, BOUND.parse().unwrap(), || Err("nobody knows".to_owned()))
            .map_err(|why| why.to_string())?;
        Ok(found.iter().map(|candidate| candidate.address.to_string()).collect())
    }

    #[test]
    fn configured_addresses_are_told_with_the_port_that_was_bound() {
        let pairs = "external_ips = [\"198.51.100.10/10.0.0.5\", \"198.51.100.11/10.0.0.6\", \"2001:db8::1\"]";
        assert_eq!(
            told(&format!("bind = \"10.0.0.5\"\n{pairs}")).unwrap(),
            ["198.51.100.10:5001", "[2001:db8::1]:5001"]
        );
        assert_eq!(told(pairs).unwrap().len(), 3, "bound to all addresses, every pair counts");
        let elsewhere = told("bind = \"10.0.0.7\"\nexternal_ips = [\"198.51.100.10/10.0.0.5\"]").unwrap_err();
        assert!(elsewhere.contains("media.external_ips") && elsewhere.contains("10.0.0.7"), "{elsewhere}");
    }

    #[test]
    fn a_private_address_is_told_only_where_that_is_allowed() {
        assert_eq!(told("bind = \"127.0.0.1\"").unwrap(), ["127.0.0.1:5001"]);
        assert_eq!(told("bind = \"198.51.100.9\"").unwrap(), ["198.51.100.9:5001"]);
        let refused = told("bind = \"10.0.0.5\"").unwrap_err();
        assert!(refused.contains("media.allow_private_public_ip") && refused.contains("nobody knows"), "{refused}");
        assert_eq!(told("bind = \"10.0.0.5\"\nallow_private_public_ip = true").unwrap(), ["10.0.0.5:5001"]);
    }

    #[test]
    fn an_address_that_was_found_is_told_where_none_is_known_and_only_there() {
        let config = |media: &str| {
            let text = format!("[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\n{media}\n");
            Config::from_toml_str(&text).unwrap().media
        };
        let found = || Ok([198, 51, 100, 77].into());
        let behind_nat = config("bind = \"10.0.0.5\"");
        let told = public(&behind_nat, BOUND.parse().unwrap(), found).unwrap();
        assert_eq!(told[0].address, "198.51.100.77:5001".parse::<SocketAddr>().unwrap());
        for known in ["bind = \"127.0.0.1\"", "external_ips = [\"198.51.100.10\"]", "bind = \"198.51.100.9\""] {
            let asked = || -> Result<IpAddr, String> { panic!("nobody is asked with {known}") };
            assert!(public(&config(known), BOUND.parse().unwrap(), asked).is_ok());
        }
        let listener = ice_tcp(&behind_nat, "0.0.0.0:443".parse().unwrap(), &told).unwrap();
        assert_eq!(listener[0].address.port(), 443);
    }

    fn told_of(listener: &str, media: &str) -> Result<Vec<String>, String> {
        let config = Config::from_toml_str(&format!(
            "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\n{media}\n"
        ))
        .unwrap()
        .media;
        let found = ice_tcp(&config, listener.parse().unwrap(), &[]).map_err(|why| why.to_string())?;
        assert!(found.iter().all(|candidate| candidate.transport == Transport::TcpPassive));
        Ok(found.iter().map(|candidate| candidate.address.to_string()).collect())
    }

    #[test]
    fn a_listener_is_told_with_its_own_port_at_the_doors_public_address() {
        let pairs = "external_ips = [\"198.51.100.10/10.0.0.5\", \"2001:db8::1\"]";
        assert_eq!(
            told_of("0.0.0.0:443", pairs).unwrap(),
            ["198.51.100.10:443"],
            "an IPv4 listener has no IPv6 clients"
        );
        assert_eq!(told_of("[::]:443", pairs).unwrap(), ["198.51.100.10:443", "[2001:db8::1]:443"]);
        assert_eq!(told_of("10.0.0.5:5080", pairs).unwrap(), ["198.51.100.10:5080"]);
        assert_eq!(told_of("198.51.100.9:5080", "").unwrap(), ["198.51.100.9:5080"]);
        assert_eq!(told_of("127.0.0.1:5080", "bind = \"127.0.0.1\"").unwrap(), ["127.0.0.1:5080"]);
    }

    #[test]
    fn a_listener_without_an_address_of_its_own_is_told_to_nobody() {
        for (listener, media) in [
            ("127.0.0.1:5080", "external_ips = [\"198.51.100.10\"]"),
            ("10.0.0.7:5080", "external_ips = [\"198.51.100.10/10.0.0.5\"]"),
            ("10.0.0.7:5080", ""),
        ] {
            let refused = told_of(listener, media).unwrap_err();
            assert!(refused.contains(listener) && refused.contains("ice_tcp"), "{refused}");
        }
    }

    #[test]
    fn nodes_are_told_a_socket_that_is_bound_to_one_address_as_it_is() {
        let config = |media: &str| {
            Config::from_toml_str(&format!(
                "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\n{media}"
            ))
            .unwrap()
        };
        let pool = BOUND.parse().unwrap();
        assert_eq!(private(&config("").media, pool), Some(pool));
        assert_eq!(private(&config("announce_private_candidate = false").media, pool), None);
    }
}
