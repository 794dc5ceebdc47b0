//! The PROXY protocol, versions 1 and 2: what an L4 load balancer says about the client before the client's own bytes.
//!
//! A header is read off the socket exactly, so that what follows it (TLS, HTTP) begins at the next byte.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use ppp::{v1, v2};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncReadExt, Interest},
    net::TcpStream,
};

use super::visitor::Endpoint;
use crate::telemetry::metrics::Word;

/// The longest header of version 1, its line feed included.
const LONGEST_V1: usize = 107;
/// The longest header of version 2 that is read: load balancers' have below 200 bytes, with a client certificate some KiB.
const LONGEST_V2: usize = 4096;
/// Signature, version, family and length of version 2.
const HEAD_V2: usize = 16;

/// Alibaba's PP2_TYPE_ALIBABA_CLOUD: a subtype and its value.
const TLV_ALIBABA: u8 = 0xe1;
/// Alibaba: the PrivateLink endpoint's id.
const ALIBABA_ENDPOINT: u8 = 0x02;
/// AWS's PP2_TYPE_AWS: a subtype and its value.
const TLV_AWS: u8 = 0xea;
/// AWS: the VPC endpoint's id.
const AWS_ENDPOINT: u8 = 0x01;
/// PP2_TYPE_SSL, whose first byte has the flags.
const TLV_SSL: u8 = 0x20;
/// PP2_CLIENT_SSL: the client spoke TLS to the load balancer.
const CLIENT_SSL: u8 = 0x01;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// `v1`, `v2`, or `local` where the connection is the load balancer's own.
    pub version: Word,
    /// The client; `None`: the peer itself.
    pub client: Option<SocketAddr>,
    /// Whether the client spoke TLS to the load balancer.
    pub secure: bool,
    /// The private endpoint through which it came.
    pub endpoint: Option<Endpoint>,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// A header, which is read.
    Header(Header),
    /// Something else, of which nothing is read.
    NoHeader,
    /// A header that is none.
    Bad,
    /// The peer closed before it said anything.
    Nothing,
}

/// Reads the header, if the connection begins with one. Its wait is the caller's to bound.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Begun> {
    let mut bytes = [0; LONGEST_V1];
    let mut seen = 0;
    loop {
        seen = peek(stream, &mut bytes, seen).await?;
        let size = match told(&bytes[..seen]) {
            _ if seen == 0 => return Ok(Begun::Nothing),
            Told::NeedMore => continue,
            Told::NoHeader => return Ok(Begun::NoHeader),
            Told::Bad => return Ok(Begun::Bad),
            Told::Size(size) => size,
        };
        let mut header = vec![0; size];
        stream.read_exact(&mut header).await?;
        return Ok(parse(&header).map_or(Begun::Bad, Begun::Header));
    }
}

/// Waits until more than `seen` bytes can be read, and copies them without reading; 0 is the end.
async fn peek(stream: &TcpStream, bytes: &mut [u8], seen: usize) -> io::Result<usize> {
    let look = || match recv(stream, &mut *bytes, RecvFlags::PEEK) {
        // The same bytes as before: wait for the next ones. An end behind them shows as nothing at all, in time.
        Ok((_, now)) if now != 0 && now <= seen => Err(io::ErrorKind::WouldBlock.into()),
        Ok((_, now)) => Ok(now),
        Err(error) => Err(error.into()),
    };
    stream.async_io(Interest::READABLE, look).await
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    NeedMore,
    NoHeader,
    Bad,
    /// A header of so many bytes.
    Size(usize),
}

/// What the first bytes say.
fn told(first: &[u8]) -> Told {
    const V1: &[u8] = b"PROXY ";
    const V2: &[u8] = v2::PROTOCOL_PREFIX;
    let common = |prefix: &[u8]| first.iter().zip(prefix).take_while(|(a, b)| a == b).count();
    let begins = |prefix: &[u8]| common(prefix) == first.len().min(prefix.len());
    if begins(V2) {
        let Some(length) = first.get(HEAD_V2 - 2..HEAD_V2) else { return Told::NeedMore };
        let size = HEAD_V2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return if size <= LONGEST_V2 { Told::Size(size) } else { Told::Bad };
    }
    if !begins(V1) {
        return Told::NoHeader;
    }
    match first.iter().position(|byte| *byte == b'\n') {
        Some(end) => Told::Size(end + 1),
        None if first.len() >= LONGEST_V1 => Told::Bad,
        None => Told::NeedMore,
    }
}

/// Reads a whole header; `None` if it is none.
fn parse(header: &[u8]) -> Option<Header> {
    if header.starts_with(v2::PROTOCOL_PREFIX) { parse_v2(header) } else { parse_v1(header) }
}

fn parse_v1(header: &[u8]) -> Option<Header> {
    let parsed = v1::Header::try_from(header).ok().filter(|parsed| parsed.header.len() == header.len())?;
    let client = match parsed.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(at) => Some(SocketAddr::new(at.source_address.into(), at.source_port)),
        v1::Addresses::Tcp6(at) => Some(SocketAddr::new(at.source_address.into(), at.source_port)),
    };
    Some(Header { version: "v1", client: client.map(canonical), secure: false, endpoint: None })
}

fn parse_v2(header: &[u8]) -> Option<Header> {
    let header = v2::Header::try_from(header).ok()?;
    if header.command == v2::Command::Local {
        return Some(Header { version: "local", client: None, secure: false, endpoint: None });
    }
    let client = match header.addresses {
        v2::Addresses::IPv4(at) => Some(SocketAddr::new(at.source_address.into(), at.source_port)),
        v2::Addresses::IPv6(at) => Some(SocketAddr::new(at.source_address.into(), at.source_port)),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    };
    let (mut secure, mut endpoint) = (false, None);
    for tlv in header.tlvs() {
        let tlv = tlv.ok()?;
        match (tlv.kind, &*tlv.value) {
            (TLV_SSL, [flags, ..]) => secure = flags & CLIENT_SSL != 0,
            (TLV_ALIBABA, [ALIBABA_ENDPOINT, id @ ..]) | (TLV_AWS, [AWS_ENDPOINT, id @ ..]) => {
                endpoint = Endpoint::new(id);
            }
            // What nobody here knows is to be skipped.
            _ => {}
        }
    }
    Some(Header { version: "v2", client: client.map(canonical), secure, endpoint })
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(IpAddr::to_canonical(&at.ip()), at.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header of version 2 with these addresses and what follows them.
    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, body].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];

    fn client(header: &[u8]) -> Option<String> {
        parse(header).map(|header| header.client.map_or_else(|| "the peer".to_owned(), |at| at.to_string()))
    }

    #[test]
    fn both_versions_name_the_client() {
        for (header, expected) in [
            (&b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n"[..], "203.0.113.7:4711"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "[2001:db8::7]:4711"),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n", "203.0.113.7:4711"),
            (b"PROXY UNKNOWN\r\n", "the peer"),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "the peer"),
            (&v2(1, 0x11, &V4), "203.0.113.7:4711"),
            (&v2(0, 0x11, &V4), "the peer"),
            (&v2(0, 0x00, &[]), "the peer"),
            (&v2(1, 0x00, &[]), "the peer"),
        ] {
            assert_eq!(client(header).as_deref(), Some(expected), "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_none() {
        for header in [
            &b"PROXY TCP4 203.0.113.7 10.0.0.1 4711\r\n"[..],
            b"PROXY TCP4 2001:db8::7 10.0.0.1 4711 443\r\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\n",
            b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\r\n",
            b"PROXY UDP4 203.0.113.7 10.0.0.1 4711 443\r\n",
            &v2(2, 0x11, &V4),
            &v2(1, 0x11, &V4[..11]),
            &v2(1, 0x11, &[&V4[..], &[0xe1, 0, 9, 2]].concat()),
        ] {
            assert_eq!(parse(header), None, "{header:?}");
        }
    }

    #[test]
    fn the_clouds_own_fields_are_understood_and_strange_ones_skipped() {
        let with = |tlv: &[u8]| parse(&v2(1, 0x11, &[&V4[..], tlv].concat())).unwrap();
        let endpoint = |tlv: &[u8]| with(tlv).endpoint.map(|endpoint| endpoint.as_str().to_owned());
        assert_eq!(endpoint(b"\xe1\0\x05\x02ep-7").as_deref(), Some("ep-7"));
        assert_eq!(endpoint(b"\xea\0\x07\x01vpce-9").as_deref(), Some("vpce-9"));
        assert_eq!(endpoint(b"\xe1\0\x05\x01vpc1"), None, "the VPC is not the endpoint");
        assert_eq!(endpoint(b"\xe1\0\0\xee\0\x02??"), None);
        assert!(with(b"\x20\0\x05\x01\0\0\0\0").secure && !with(b"\x20\0\x05\0\0\0\0\0").secure);
    }

    #[test]
    fn requests_and_handshakes_are_told_from_headers_by_their_first_bytes() {
        for (first, expected) in [
            (&b"PR"[..], Told::NeedMore),
            (b"PROXY", Told::NeedMore),
            (b"PROXY TCP4 ", Told::NeedMore),
            (b"PROXY UNKNOWN\r\nGET", Told::Size(15)),
            (b"PROPFIND /", Told::NoHeader),
            (b"POST /", Told::NoHeader),
            (b"GET /", Told::NoHeader),
            (b"\x16\x03", Told::NoHeader),
            (b"\r\n", Told::NeedMore),
            (b"\r\nGET /", Told::NoHeader),
            (&[b'P'; 107], Told::NoHeader),
            (&v2(1, 0x11, &V4)[..15], Told::NeedMore),
            (&v2(1, 0x11, &V4), Told::Size(28)),
            (&v2(1, 0x11, &vec![0; 4080]), Told::Size(4096)),
            (&v2(1, 0x11, &vec![0; 4081]), Told::Bad),
        ] {
            assert_eq!(told(first), expected, "{first:?}");
        }
        let endless = [&b"PROXY "[..], &[b'1'; 101]].concat();
        assert_eq!(told(&endless), Told::Bad);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_it(bytes in prop::collection::vec(any::<u8>(), 0..200), family: u8, command in 0u8..3) {
            let _ = (told(&bytes), parse(&bytes));
            let _ = parse(&v2(command, family, &bytes));
            let _ = parse(&[b"PROXY ", &bytes[..], b"\r\n"].concat());
        }

        #[test]
        fn a_verdict_stands_whatever_follows(seen in 0usize..40, rest in prop::collection::vec(any::<u8>(), 0..20)) {
            for whole in [v2(1, 0x11, &V4), b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec()] {
                let before = told(&whole[..seen.min(whole.len())]);
                prop_assert!(before == Told::NeedMore || before == Told::Size(whole.len()));
                prop_assert_eq!(told(&[&whole[..], &rest].concat()), Told::Size(whole.len()));
            }
        }
    }
}
