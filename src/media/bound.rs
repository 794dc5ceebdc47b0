//! The relay's sockets, bound: the public port once per thread, and each thread's private pool.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::MediaError;
use crate::{config, domain::relay::POOL_SOCKETS};

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
