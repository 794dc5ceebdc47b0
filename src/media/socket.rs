//! The datagram sockets of the relay: bound, sized, and moved from by batches.
//!
//! One thread has nine: its share of the public port, and a pool of eight private ones towards the nodes. What arrives
//! stays where it was received until it has been sent on: nothing is copied and nothing allocated per packet.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::MediaError;
use crate::{config, domain::relay::POOL_SOCKETS, telemetry::metrics::WireFacts};

/// Sockets of one thread: the public one, then the pool.
pub(super) const SOCKETS: usize = 1 + POOL_SOCKETS as usize;
/// Datagrams that one receive brings; further ones wait for the socket's next turn.
pub(super) const BATCH: usize = 64;
/// Room for one datagram: more than any that the relay passes on, so that a longer one shows.
const SLOT: usize = 2048;
/// Receive buffer that the kernel is asked for; it grants at most `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Send buffer that the kernel is asked for; it grants at most `net.core.wmem_max`.
const SEND_BUFFER: usize = 4 << 20;

/// All sockets of the relay, bound.
pub(super) struct Bound {
    /// The public address.
    pub(super) address: SocketAddr,
    /// The first pool socket of the first thread.
    pub(super) private: SocketAddr,
    /// Each thread's own: the public one first.
    pub(super) threads: Vec<Vec<UdpSocket>>,
}

impl Bound {
    /// Binds the first free port of `media.ports`, once per thread, and each thread's pool.
    pub(super) fn open(config: &config::Media) -> Result<Self, MediaError> {
        let public = public_sockets(config)?;
        let address = public[0].local_addr()?;
        let mut threads = Vec::new();
        for public in public {
            let mut sockets = vec![public];
            for _ in 0..POOL_SOCKETS {
                sockets.push(bind(SocketAddr::new(config.bind, 0))?.into());
            }
            threads.push(sockets);
        }
        let private = threads[0][1].local_addr()?;
        Ok(Self { address, private, threads })
    }
}

fn public_sockets(config: &config::Media) -> Result<Vec<UdpSocket>, MediaError> {
    let mut why = io::Error::from(ErrorKind::AddrNotAvailable);
    let first = config
        .ports
        .iter()
        .find_map(|port| bind(SocketAddr::new(config.bind, *port)).map_err(|error| why = error).ok());
    let Some(first) = first else {
        return Err(MediaError::Ports { bind: config.bind, ports: config.ports.clone(), source: why });
    };
    if config.threads == 1 {
        return Ok(vec![first.into()]);
    }
    // Only now: had the first one shared its port from the start, it could have joined another process's.
    first.set_reuse_port(true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![UdpSocket::from(first)];
    while sockets.len() < config.threads {
        let socket = unbound(config.bind)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address)?;
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn bind(at: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(at.ip())?;
    socket.bind(&at.into())?;
    Ok(socket)
}

fn unbound(ip: IpAddr) -> io::Result<Socket> {
    let domain = if ip.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if ip.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    // The kernel grants what it may; less is no reason not to start.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    Ok(socket)
}

/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Datagrams that now wait to be read and forwarded.
    pub(super) datagrams: usize,
    /// The socket had no more: it tells when it has.
    pub(super) drained: bool,
}

/// How one thread's sockets are moved from. Sockets are named by their index: 0 is the public one, `1 + k` pool socket
/// `k`.
pub(super) trait Wire {
    /// What to watch for readiness.
    fn descriptors(&self) -> [RawFd; SOCKETS];

    /// Receives up to [`BATCH`] reads of one socket, in place of what was received before. An error of the socket, such
    /// as an ICMP message's, is counted and ends nothing.
    fn receive(&mut self, socket: usize) -> Received;

    /// A datagram of the last receive, with where it came from.
    fn datagram(&self, nth: usize) -> (SocketAddr, &[u8]);

    /// Puts a datagram of the last receive in line, unmodified.
    fn forward(&mut self, nth: usize, socket: usize, to: SocketAddr);

    /// Sends what stands in line. What the kernel does not take is dropped and counted, as a network would.
    fn flush(&mut self);

    /// What went wrong so far.
    fn facts(&self) -> WireFacts;
}

/// One system call per datagram: works everywhere.
pub(super) struct Portable {
    sockets: Vec<UdpSocket>,
    slots: Vec<u8>,
    received: Vec<(SocketAddr, usize)>,
    facts: WireFacts,
}

impl Portable {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        assert_eq!(sockets.len(), SOCKETS, "a thread has its public socket and its pool");
        Self { sockets, slots: vec![0; BATCH * SLOT], received: Vec::with_capacity(BATCH), facts: WireFacts::default() }
    }
}

impl Wire for Portable {
    fn descriptors(&self) -> [RawFd; SOCKETS] {
        std::array::from_fn(|nth| self.sockets[nth].as_raw_fd())
    }

    fn receive(&mut self, socket: usize) -> Received {
        self.received.clear();
        let mut drained = false;
        for slot in self.slots.chunks_exact_mut(SLOT) {
            match self.sockets[socket].recv_from(slot) {
                Ok((len, from)) => self.received.push((canonical(from), len)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        drained = true;
                        break;
                    }
                    ErrorKind::Interrupted => {}
                    _ => self.facts.receive_errors += 1,
                },
            }
        }
        Received { datagrams: self.received.len(), drained }
    }

    fn datagram(&self, nth: usize) -> (SocketAddr, &[u8]) {
        let (from, len) = self.received[nth];
        (from, &self.slots[nth * SLOT..][..len])
    }

    fn forward(&mut self, nth: usize, socket: usize, to: SocketAddr) {
        let (_, len) = self.received[nth];
        let bytes = &self.slots[nth * SLOT..][..len];
        let socket = &self.sockets[socket];
        let to = if socket.local_addr().is_ok_and(|at| at.is_ipv6()) { mapped(to) } else { to };
        if let Err(error) = socket.send_to(bytes, to) {
            match error.kind() {
                ErrorKind::WouldBlock => self.facts.send_full += 1,
                _ => self.facts.send_errors += 1,
            }
        }
    }

    fn flush(&mut self) {}

    fn facts(&self) -> WireFacts {
        self.facts
    }
}

/// An IPv4 client of an IPv6 socket as what it is.
fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

/// An IPv4 address as an IPv6 socket wants it.
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        IpAddr::V6(_) => to,
    }
}
