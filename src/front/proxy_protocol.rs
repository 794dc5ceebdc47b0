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
