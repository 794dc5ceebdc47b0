//! Sockets as every room wants them: listening with a backlog, and noticing a dead peer in seconds, not hours.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel holds until they are accepted; beyond it SYNs are dropped and retried by the peer.
const BACKLOG: i32 = 4096;
/// An idle connection is probed after this, and this often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that nobody acknowledges for so long end the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Binds a listener; port 0 picks a free one.
pub fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if bind.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets what every connection of the door has: no delay, keepalive, a bound on unacknowledged bytes.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}
