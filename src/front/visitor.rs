//! Who asks: what one request knows of its client.
//!
//! The far end of a connection is believed to be the client unless it is trusted to speak for others; then its PROXY
//! header or, hop by hop from the right, its `X-Forwarded-For` says who is.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use hyper::header::{HeaderMap, HeaderName};

use crate::{config::IpRange, domain::ids::ClientAddr};

/// The client of one request, as far as the door may believe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Visitor {
    /// The client's own address: the far end of the connection, or what a trusted peer says it is.
    pub client: ClientAddr,
    /// Whether the client itself speaks TLS, to this door or to a trusted peer before it.
    pub secure: bool,
    /// The private endpoint of the cloud through which it came, where a PROXY header says so.
    pub endpoint: Option<Endpoint>,
}

/// A cloud's name for a private endpoint, such as `ep-…` (Alibaba) or `vpce-…` (AWS): letters, digits, `-` and `_`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Endpoint {
    name: [u8; Self::LONGEST],
    len: u8,
}

impl Endpoint {
    /// Longest name that is kept; the clouds' have about 22 characters.
    const LONGEST: usize = 46;

    /// The name, if it is one.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if bytes.is_empty() || bytes.len() > Self::LONGEST || !bytes.iter().all(legal) {
            return None;
        }
        let mut name = [0; Self::LONGEST];
        name[..bytes.len()].copy_from_slice(bytes);
        Some(Self { name, len: u8::try_from(bytes.len()).ok()? })
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.name[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Hops of `X-Forwarded-For` that are looked at, from the right; who writes more is not worth more.
const MOST_HOPS: usize = 32;

impl Visitor {
    /// Of one request on a connection whose own client is `self`; `trusted` may say that it is somebody else.
    pub(super) fn of(self, headers: &HeaderMap, trusted: &[IpRange]) -> Self {
        if trusted.is_empty() || !is_trusted(trusted, self.client.0.ip()) {
            return self;
        }
        let client = forwarded_for(headers, trusted).map_or(self.client, ClientAddr);
        // Of several values the last is that of the peer itself, which is the one that is trusted.
        let proto = headers.get_all(FORWARDED_PROTO).iter().next_back().and_then(|value| value.to_str().ok());
        let proto = proto.and_then(|value| value.rsplit(',').next()).map(str::trim);
        let secure = match proto {
            Some(proto) if proto.eq_ignore_ascii_case("https") || proto.eq_ignore_ascii_case("wss") => true,
            Some(proto) if proto.eq_ignore_ascii_case("http") || proto.eq_ignore_ascii_case("ws") => false,
            _ => self.secure,
        };
        Self { client, secure, ..self }
    }
}

/// Whether `ip` is one of the peers that may say who the client is.
pub(super) fn is_trusted(trusted: &[IpRange], ip: IpAddr) -> bool {
    trusted.iter().any(|range| range.contains(ip))
}

/// The rightmost hop that is not trusted, else the leftmost that could be read; each hop vouches for the one to its left.
fn forwarded_for(headers: &HeaderMap, trusted: &[IpRange]) -> Option<SocketAddr> {
    let lines = headers.get_all(FORWARDED_FOR).iter().rev().map(|line| line.to_str().unwrap_or_default());
    let mut client = None;
    for hop in lines.flat_map(|line| line.rsplit(',')).take(MOST_HOPS) {
        let Some(hop) = address(hop.trim()) else { break };
        client = Some(hop);
        if !is_trusted(trusted, hop.ip()) {
            break;
        }
    }
    client
}

/// An address as load balancers write it: bare, in brackets, or with a port. A port that is not told is 0.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let at = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse()).ok()?;
    Some(SocketAddr::new(at.ip().to_canonical(), at.port()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Vec<IpRange> {
        ["10.0.0.0", "100.64.0.0"]
            .map(|ip| IpRange { address: ip.parse().unwrap(), prefix: if ip.starts_with("10.") { 8 } else { 10 } })
            .to_vec()
    }

    fn seen(peer: &str, lines: &[(&'static str, &str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let own = Visitor { client: ClientAddr(peer.parse().unwrap()), secure: false, endpoint: None };
        let visitor = own.of(&headers, &trusted());
        (visitor.client.0.to_string(), visitor.secure)
    }

    #[test]
    fn nobody_but_a_trusted_peer_says_who_the_client_is() {
        let lies = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")];
        assert_eq!(seen("203.0.113.9:5000", &lies), ("203.0.113.9:5000".to_owned(), false));
        assert_eq!(seen("10.1.1.1:5000", &lies), ("1.2.3.4:0".to_owned(), true));
        assert_eq!(seen("[::ffff:10.1.1.1]:5000", &lies), ("1.2.3.4:0".to_owned(), true));
        assert_eq!(seen("10.1.1.1:5000", &[]), ("10.1.1.1:5000".to_owned(), false));
    }

    #[test]
    fn the_rightmost_hop_that_is_not_trusted_is_the_client() {
        let of = |value: &str| seen("10.1.1.1:1", &[("x-forwarded-for", value)]).0;
        assert_eq!(of("6.6.6.6, 203.0.113.9"), "203.0.113.9:0", "what the client wrote itself does not count");
        assert_eq!(of("6.6.6.6, 203.0.113.9, 100.64.3.4,10.9.9.9"), "203.0.113.9:0");
        assert_eq!(of("10.2.2.2, 10.3.3.3"), "10.2.2.2:0", "a client inside");
        assert_eq!(of("6.6.6.6, unknown, 10.3.3.3"), "10.3.3.3:0", "nothing is believed beyond what cannot be read");
        assert_eq!(of("nonsense"), "10.1.1.1:1");
        assert_eq!(of("203.0.113.9:4711"), "203.0.113.9:4711");
        assert_eq!(of("[2001:db8::7]:443"), "[2001:db8::7]:443");
        assert_eq!(of("\"[2001:db8::7]\""), "[2001:db8::7]:0");
        let two = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(seen("10.1.1.1:1", &two).0, "203.0.113.9:0", "lines count in their order");
    }

    #[test]
    fn the_last_proto_is_the_peers_own() {
        let of = |value: &str| seen("10.1.1.1:1", &[("x-forwarded-proto", value)]).1;
        assert!(of("https") && of("HTTPS") && of("wss") && of("http, https"));
        assert!(!of("http") && !of("https, http") && !of("") && !of("gopher"));
    }

    #[test]
    fn an_endpoint_is_a_name_and_nothing_else() {
        assert_eq!(Endpoint::new(b"vpce-08d2bf15fac5001c9").unwrap().as_str(), "vpce-08d2bf15fac5001c9");
        for bad in [&b""[..], b"a b", b"x\r\n", &[b'a'; 47], b"\xff"] {
            assert_eq!(Endpoint::new(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics_it(value in "[ -~]{0,60}", peer in any::<[u8; 4]>()) {
            seen(&SocketAddr::from((peer, 1)).to_string(), &[("x-forwarded-for", &value), ("x-forwarded-proto", &value)]);
        }
    }
}
