//! ICE candidates: what others write, which of a node's are usable, and the lines that the door writes itself.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use super::NodeCandidate;

/// One address of the door that clients may send media to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicCandidate {
    /// As clients see it; never a wildcard.
    pub address: SocketAddr,
    /// How media gets there.
    pub transport: Transport,
}

/// How media travels between client and door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// ICE-TCP (RFC 6544), opened by the client.
    TcpPassive,
}

/// A candidate as the RFC 8839 grammar has it, borrowed from its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Groups candidates of one base.
    pub foundation: &'a str,
    /// 1 is RTP (with RTCP where multiplexed), 2 is RTCP.
    pub component: u16,
    /// `udp` or `tcp`, in the case that it was written in.
    pub transport: &'a str,
    /// Higher is preferred.
    pub priority: u32,
    /// The connection address.
    pub host: Host<'a>,
    /// The port.
    pub port: u16,
    /// What follows `typ`.
    pub kind: CandidateKind,
    /// The `ufrag` extension: the ICE generation that a trickled candidate belongs to.
    pub ufrag: Option<&'a str>,
}

/// A connection address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// A literal.
    Ip(IpAddr),
    /// A name, `.local` or other, or a literal with a zone.
    Name(&'a str),
}

/// Where a candidate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// What a STUN server saw.
    ServerReflexive,
    /// What a peer saw.
    PeerReflexive,
    /// An address on a TURN server.
    Relay,
    /// An extension.
    Other,
}

/// What a `takeCandidate` of a node brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trickled {
    /// A port that the relay can use.
    Usable(NodeCandidate),
    /// An empty candidate or `end-of-candidates`: the node has no more.
    End,
    /// Not usable, or not a candidate: to be swallowed.
    Useless,
}

/// Reads a candidate, with or without `a=` before `candidate:`. `None` for what breaks the grammar of RFC 8839 §5.1.
pub fn parse_candidate(line: &str) -> Option<Candidate<'_>> {
    let line = line.trim_ascii();
    let line = line.strip_prefix("a=").unwrap_or(line).strip_prefix("candidate:")?;
    let mut words = line.split_ascii_whitespace();
    let foundation = words.next().filter(|word| word.len() <= MAX_FOUNDATION)?;
    let component = digits(words.next()?)?;
    let transport = words.next()?;
    let priority = digits(words.next()?)?;
    let host = host(words.next()?)?;
    let port = digits(words.next()?)?;
    if words.next()? != "typ" {
        return None;
    }
    let kind = match words.next()? {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::ServerReflexive,
        "prflx" => CandidateKind::PeerReflexive,
        "relay" => CandidateKind::Relay,
        _ => CandidateKind::Other,
    };
    // Extensions come in pairs; RFC 8839 lets raddr and rport stand among them, first.
    let mut ufrag = None;
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name == "ufrag" && ufrag.is_none() {
            ufrag = Some(value);
        }
    }
    Some(Candidate { foundation, component, transport, priority, host, port, kind, ufrag })
}

/// The node's port, if the relay may use this candidate: component 1, UDP, `typ host`, IPv4 or a name outside `.local`,
/// and a port that the node was configured with. The address itself is of no matter (facts/relay.md §3.3, rule 4).
pub fn acceptable(candidate: &Candidate<'_>, node_ports: &RangeInclusive<u16>) -> Option<NodeCandidate> {
    let usable = candidate.component == 1
        && candidate.transport.eq_ignore_ascii_case("udp")
        && candidate.kind == CandidateKind::Host
        && candidate.port != 0
        && node_ports.contains(&candidate.port);
    let address = match candidate.host {
        Host::Ip(address @ IpAddr::V4(_)) => Some(address),
        Host::Name(name) if is_host_name(name) && !is_local(name) => None,
        Host::Ip(IpAddr::V6(_)) | Host::Name(_) => return None,
    };
    let ufrag = candidate.ufrag.map(Into::into);
    usable.then_some(NodeCandidate { port: candidate.port, address, ufrag, section: None })
}

/// Reads the `candidate` field of a node's `takeCandidate`.
pub fn trickled(field: &str, node_ports: &RangeInclusive<u16>) -> Trickled {
    let field = field.trim_ascii();
    if matches!(field.strip_prefix("a=").unwrap_or(field), "" | "candidate:" | "end-of-candidates") {
        return Trickled::End;
    }
    let usable = parse_candidate(field).and_then(|candidate| acceptable(&candidate, node_ports));
    usable.map_or(Trickled::Useless, Trickled::Usable)
}

/// The door's candidates as `candidate:…` values, in the order given, without `a=`. With `ufrag`, which a trickled one
/// should have, a client can tell that it belongs to the generation of an ICE restart.
pub fn candidate_lines(ours: &[PublicCandidate], ufrag: Option<&str>) -> Vec<String> {
    let line = |(index, one): (usize, &PublicCandidate)| {
        let nth = ours[..index].iter().filter(|other| kind(other) == kind(one)).count();
        let mut line = candidate_line(one, nth);
        if let Some(ufrag) = ufrag {
            line.push_str(" ufrag ");
            line.push_str(ufrag);
        }
        line
    };
    ours.iter().enumerate().map(line).collect()
}

/// RFC 8839 §5.1: a foundation has at most 32 characters.
const MAX_FOUNDATION: usize = 32;

fn candidate_line(one: &PublicCandidate, nth: usize) -> String {
    let (foundation, priority) = kind(one);
    // Each candidate needs a priority of its own (RFC 8445 §5.1.2): the local preference is the middle 16 bits.
    let priority = priority - (u32::try_from(nth).unwrap_or(u32::MAX).min(MAX_NTH) << 8);
    let (address, port) = (one.address.ip().to_canonical(), one.address.port());
    match one.transport {
        Transport::Udp => format!("candidate:{foundation} 1 udp {priority} {address} {port} typ host"),
        Transport::TcpPassive => {
            format!("candidate:{foundation} 1 tcp {priority} {address} {port} typ host tcptype passive")
        }
    }
}

/// More candidates of one kind than this share a priority.
const MAX_NTH: u32 = 255;

/// Foundation and highest priority: UDP before TCP, IPv4 before IPv6.
fn kind(one: &PublicCandidate) -> (u8, u32) {
    match (one.transport, one.address.ip().to_canonical()) {
        (Transport::Udp, IpAddr::V4(_)) => (1, 2_130_706_431),
        (Transport::Udp, IpAddr::V6(_)) => (2, 2_130_706_430),
        (Transport::TcpPassive, IpAddr::V4(_)) => (3, 1_518_280_447),
        (Transport::TcpPassive, IpAddr::V6(_)) => (4, 1_518_280_446),
    }
}

/// A number without sign, of the digits that the widest legal value has.
fn digits<N: std::str::FromStr>(word: &str) -> Option<N> {
    (word.len() <= 10 && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.parse().ok())?
}

fn host(word: &str) -> Option<Host<'_>> {
    let unbracketed = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')).unwrap_or(word);
    match unbracketed.parse() {
        Ok(address) => Some(Host::Ip(address)),
        Err(_) if word.len() <= MAX_HOST_NAME => Some(Host::Name(word)),
        Err(_) => None,
    }
}

/// RFC 1035 §2.3.4, with a final dot.
const MAX_HOST_NAME: usize = 254;

fn is_host_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // A name has a letter: digits and dots alone are an address that did not parse.
    name.bytes().all(legal) && name.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Multicast DNS names (RFC 6762): no one but their owner's neighbours can resolve them.
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("local"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NODE_PORTS: RangeInclusive<u16> = 50_000..=60_000;

    #[test]
    fn a_candidate_is_read_with_its_extensions() {
        let line = "a=candidate:842163049 1 udp 1685987071 203.0.113.9 51044 typ srflx raddr 10.0.1.20 rport 51044 \
            generation 0 ufrag vYna network-id 1";
        let expected = Candidate {
            foundation: "842163049",
            component: 1,
            transport: "udp",
            priority: 1_685_987_071,
            host: Host::Ip(IpAddr::from([203, 0, 113, 9])),
            port: 51044,
            kind: CandidateKind::ServerReflexive,
            ufrag: Some("vYna"),
        };

        assert_eq!(parse_candidate(line), Some(expected));
        assert_eq!(parse_candidate(&line[2..]), Some(expected), "as takeCandidate has it");
    }

    #[test]
    fn what_breaks_the_grammar_is_no_candidate() {
        for line in [
            "",
            "candidate:",
            "candidate:1 1 udp 1 10.0.0.1 50000",
            "candidate:1 1 udp 1 10.0.0.1 50000 host",
            "candidate:1 1 udp 1 10.0.0.1 50000 typ",
            "candidate:1 x udp 1 10.0.0.1 50000 typ host",
            "candidate:1 1 udp 4294967296 10.0.0.1 50000 typ host",
            "candidate:1 1 udp -1 10.0.0.1 50000 typ host",
            "candidate:1 1 udp 1 10.0.0.1 65536 typ host",
            "candidate:1 1 udp 1 10.0.0.1 +500 typ host",
            "candidate:123456789012345678901234567890123 1 udp 1 10.0.0.1 50000 typ host",
            "a=b=candidate:1 1 udp 1 10.0.0.1 50000 typ host",
        ] {
            assert_eq!(parse_candidate(line), None, "{line}");
        }
    }

    #[test]
    fn of_a_nodes_candidates_only_plain_udp_host_ports_count() {
        let port = |rest: &str| match trickled(&format!("candidate:1 {rest}"), &NODE_PORTS) {
            Trickled::Usable(one) => Some(one.port),
            Trickled::End | Trickled::Useless => None,
        };

        for usable in [
            "1 udp 1 10.0.0.1 50000 typ host",
            "1 UDP 1 203.0.113.9 50000 typ host generation 0",
            "1 udp 1 ams.example.com 50000 typ host",
            "1 udp 1 0.0.0.0 50000 typ host",
        ] {
            assert_eq!(port(usable), Some(50000), "{usable}: whatever the address, it is never dialled");
        }
        for useless in [
            "2 udp 1 10.0.0.1 50000 typ host",
            "1 tcp 1 10.0.0.1 50000 typ host tcptype passive",
            "1 udp 1 10.0.0.1 50000 typ srflx raddr 10.0.0.1 rport 50000",
            "1 udp 1 10.0.0.1 50000 typ prflx",
            "1 udp 1 10.0.0.1 50000 typ relay raddr 0.0.0.0 rport 0",
            "1 udp 1 10.0.0.1 50000 typ elsewhere",
            "1 udp 1 10.0.0.1 49999 typ host",
            "1 udp 1 10.0.0.1 60001 typ host",
            "1 udp 1 10.0.0.1 0 typ host",
            "1 udp 1 fd00::1 50000 typ host",
            "1 udp 1 fe80::1%eth0 50000 typ host",
            "1 udp 1 ::ffff:10.0.0.1 50000 typ host",
            "1 udp 1 [::1] 50000 typ host",
            "1 udp 1 4f2a.local 50000 typ host",
            "1 udp 1 4f2a.LOCAL. 50000 typ host",
            "1 udp 1 10.0.0.256 50000 typ host",
        ] {
            assert_eq!(port(useless), None, "{useless}");
        }
    }

    #[test]
    fn an_empty_candidate_is_the_end_of_candidates() {
        for end in ["", " ", "\r\n", "candidate:", "a=end-of-candidates", "end-of-candidates"] {
            assert_eq!(trickled(end, &NODE_PORTS), Trickled::End, "{end:?}");
        }
        assert_eq!(trickled("candidate", &NODE_PORTS), Trickled::Useless);
    }

    #[test]
    fn each_of_the_doors_candidates_has_a_priority_of_its_own() {
        let one = |address: &str, transport| PublicCandidate { address: address.parse().unwrap(), transport };
        let ours = [
            one("198.51.100.10:5000", Transport::Udp),
            one("[::ffff:198.51.100.11]:5000", Transport::Udp),
            one("[2001:db8::1]:443", Transport::TcpPassive),
            one("198.51.100.10:443", Transport::TcpPassive),
        ];
        let lines = [
            "candidate:1 1 udp 2130706431 198.51.100.10 5000 typ host ufrag vYna",
            "candidate:1 1 udp 2130706175 198.51.100.11 5000 typ host ufrag vYna",
            "candidate:4 1 tcp 1518280446 2001:db8::1 443 typ host tcptype passive ufrag vYna",
            "candidate:3 1 tcp 1518280447 198.51.100.10 443 typ host tcptype passive ufrag vYna",
        ];

        assert_eq!(candidate_lines(&ours, Some("vYna")), lines);
        assert_eq!(candidate_lines(&[], None), [""; 0]);
        for line in lines {
            assert_eq!(parse_candidate(line).unwrap().ufrag, Some("vYna"));
        }
    }

    proptest! {
        #[test]
        fn a_candidate_of_the_doors_is_read_as_it_was_meant(octets: [u8; 4], port: u16) {
            let one = PublicCandidate { address: SocketAddr::from((octets, port)), transport: Transport::Udp };
            let line = candidate_lines(&[one], None).remove(0);
            let read = parse_candidate(&line).unwrap();

            prop_assert_eq!((read.host, read.port), (Host::Ip(IpAddr::from(octets)), port));
        }
    }
}
