//! `[media]`: where the relay listens, and what clients may be told of it.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    super::{ExternalIp, Listen, Media, MediaMode, Problems, Told, raw::RawMedia},
    within,
};

/// Relay threads: more than the cores of any machine that a door runs on.
const MOST_THREADS: usize = 64;
/// Addresses that clients are told; each costs every client a connectivity check.
const MOST_EXTERNAL: usize = 4;

pub(super) fn media(raw: RawMedia, problems: &mut Problems) -> Media {
    let bind = raw.bind.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    if bind.is_multicast() || bind == IpAddr::V4(Ipv4Addr::BROADCAST) {
        problems.add("media.bind", format!("{bind} cannot be bound; write one such as \"0.0.0.0\""));
    }
    let ports = raw.ports.unwrap_or_else(|| vec![5000, 5001]);
    if !(1..=2).contains(&ports.len()) || (ports.len() == 2 && ports[0] == ports[1] && ports[0] != 0) {
        problems.add("media.ports", "is not one port or two different ones; write such as [5000, 5001]");
    }
    let allow_private = raw.allow_private_public_ip.unwrap_or(bind.is_loopback());
    Media {
        mode: raw.mode.unwrap_or(MediaMode::Relay),
        bind,
        ports,
        external_ips: external_ips(raw.external_ips.unwrap_or_default(), allow_private, problems),
        threads: within("media.threads", raw.threads, 1, 1, MOST_THREADS, problems),
        announce_private_candidate: raw.announce_private_candidate.unwrap_or(true),
        allow_private_public_ip: allow_private,
        node_ports: raw.node_ports.map_or(50_000..=60_000, |ports| ports.0),
        cloud_metadata: raw.cloud_metadata.unwrap_or(true),
        metadata_server: raw.metadata_server,
        stun_server: raw.stun_server.inspect(|server| stun_server(server, problems)),
    }
}

fn stun_server(server: &str, problems: &mut Problems) {
    let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) {
        problems
            .add("media.stun_server", format!("{server:?} is no host with a port; write \"stun.example.org:3478\""));
    }
}

/// ICE-TCP needs a relay behind the listener, and an address in front of it.
pub(super) fn ice_tcp(listen: &[Listen], media: &Media, problems: &mut Problems) {
    for (nth, listen) in listen.iter().enumerate().filter(|(_, listen)| listen.ice_tcp) {
        let (key, ip) = (format!("listen[{nth}].ice_tcp"), listen.bind.ip().to_canonical());
        if media.mode == MediaMode::Direct {
            problems.add(key, "needs media.mode = \"relay\"; nothing is relayed here");
        } else if media.told_of(ip) == Told::Nothing {
            let what = format!(
                "{ip} is no address that a client outside could connect to, so it cannot be told one; write the public \
                 one as \"PUBLIC/{ip}\" into media.external_ips, or leave ice_tcp out"
            );
            problems.add(key, what);
        }
    }
}

fn external_ips(given: Vec<ExternalIp>, allow_private: bool, problems: &mut Problems) -> Vec<ExternalIp> {
    const KEY: &str = "media.external_ips";
    if given.len() > MOST_EXTERNAL {
        problems.add(KEY, format!("has {} addresses; at most {MOST_EXTERNAL} are told to clients", given.len()));
    }
    for ExternalIp { public, .. } in &given {
        if public.is_unspecified() || public.is_multicast() {
            problems.add(KEY, format!("{public} is no address that a client could send to"));
        } else if !allow_private && !is_global(*public) {
            let what = format!(
                "{public} is private, so no client outside could send to it; write the public address, or set \
                 media.allow_private_public_ip = true"
            );
            problems.add(KEY, what);
        }
    }
    given
}

/// Whether hosts of other networks can send to `ip`. Documentation addresses count as global: examples use them.
pub fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let carrier_nat = first == 100 && (64..128).contains(&second);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast();
            !(special || carrier_nat || first == 0 || first >= 240)
        }
        IpAddr::V6(ip) => {
            let special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
            !(special || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn checked(media: &str) -> Result<Media, String> {
        let text = format!("[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\n{media}\n");
        Config::from_toml_str(&text).map(|config| config.media).map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_relay_on_loopback_may_tell_its_address_and_no_other_may_tell_a_private_one() {
        assert!(checked("bind = \"127.0.0.1\"").unwrap().allow_private_public_ip);
        assert!(!checked("bind = \"10.0.0.5\"").unwrap().allow_private_public_ip);
        let problems = checked("external_ips = [\"10.0.0.5\"]").unwrap_err();
        assert!(problems.starts_with("media.external_ips: 10.0.0.5 is private"), "{problems}");
        assert!(checked("external_ips = [\"10.0.0.5\"]\nallow_private_public_ip = true").is_ok());
        assert_eq!(checked("external_ips = [\"198.51.100.10/10.0.0.5\"]").unwrap().external_ips.len(), 1);
    }

    #[test]
    fn what_no_client_could_send_to_is_no_external_address() {
        for bad in ["0.0.0.0", "::", "224.0.0.1", "100.64.0.1", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"]
        {
            assert!(checked(&format!("external_ips = [{bad:?}]")).is_err(), "{bad}");
        }
    }

    #[test]
    fn ice_tcp_without_a_relay_or_an_address_of_its_own_is_told_why() {
        let checked = |listen: &str, media: &str| {
            let text = format!(
                "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[[listen]]\nbind = \"{listen}\"\n\
                 ice_tcp = true\n[media]\n{media}\n"
            );
            Config::from_toml_str(&text).map(|config| config.listen[0].ice_tcp).map_err(|problems| problems.to_string())
        };
        assert_eq!(checked("0.0.0.0:443", ""), Ok(true));
        assert_eq!(checked("10.0.0.5:443", "external_ips = [\"198.51.100.10/10.0.0.5\"]"), Ok(true));
        let direct = checked("0.0.0.0:443", "mode = \"direct\"").unwrap_err();
        assert!(direct.starts_with("listen[0].ice_tcp: needs media.mode"), "{direct}");
        let behind = checked("127.0.0.1:5080", "external_ips = [\"198.51.100.10\"]").unwrap_err();
        assert!(behind.starts_with("listen[0].ice_tcp: 127.0.0.1 is no address"), "{behind}");
    }

    #[test]
    fn ports_are_one_or_two_different_ones() {
        assert_eq!(checked("").unwrap().ports, [5000, 5001]);
        assert_eq!(checked("ports = [0]").unwrap().ports, [0]);
        assert_eq!(checked("ports = [0, 0]").unwrap().ports, [0, 0]);
        for bad in ["[]", "[1, 2, 3]", "[5000, 5000]", "[70000]", "5000"] {
            assert!(checked(&format!("ports = {bad}")).unwrap_err().starts_with("media.ports: "), "{bad}");
        }
        for bad in ["stun_server = \"stun.example.org\"", "stun_server = \":3478\"", "stun_server = \"a:0\""] {
            assert!(checked(bad).unwrap_err().starts_with("media.stun_server: "), "{bad}");
        }
        for bad in ["threads = 0", "threads = 65", "bind = \"239.0.0.1\"", "mode = \"relais\""] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
