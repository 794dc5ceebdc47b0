//! Sockets as every room wants them: listening with a backlog, and noticing a dead peer in seconds, not hours; and what the
//! door's own requests and certificates need.

pub mod ask;
pub mod pem;

use std::{io, net::SocketAddr, sync::mpsc, thread, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Connections that the kernel holds until they are accepted; beyond it SYNs are dropped and retried by the peer.
const BACKLOG: i32 = 4096;
/// An idle connection is probed after this, and this often.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that nobody acknowledges for so long end the connection (`TCP_USER_TIMEOUT`).
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// How long answers that are under way may still take on a thread of [`serve_on_thread`] that accepts no more.
pub const PARTING: Duration = Duration::from_secs(1);

/// Binds a listener on the runtime that calls; port 0 picks a free one.
pub fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(bind(at)?)
}

/// Binds a listener for whatever runtime, as [`prepare`] wants it; port 0 picks a free one.
pub fn bind(bind: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if bind.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    let listener = socket.into();
    prepare(&listener)?;
    Ok(listener)
}

/// Sets on a listener, wherever it comes from, what its connections shall have: the kernel hands it down to each of them,
/// which saves six calls per connection.
pub fn prepare(listener: &std::net::TcpListener) -> io::Result<()> {
    tune_socket(&SockRef::from(listener))
}

/// Sets on a connection that was dialled what every connection of the door has: no delay, keepalive, a bound on
/// unacknowledged bytes.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    tune_socket(&SockRef::from(stream))
}

fn tune_socket(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

/// Serves a listener on a thread and a runtime of its own, so that busy rooms cannot delay it, and returns its address.
/// When `stop` is cancelled nothing more is accepted; what is under way has [`PARTING`] to finish.
///
/// # Errors
/// No thread or runtime started.
pub fn serve_on_thread<S, F>(
    name: &str,
    listener: std::net::TcpListener,
    stop: CancellationToken,
    serve: S,
) -> io::Result<SocketAddr>
where
    S: FnOnce(TcpListener) -> F + Send + 'static,
    F: Future,
{
    let address = listener.local_addr()?;
    let (tell, started) = mpsc::sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // The runtime lives and dies on this thread: a runtime must not be dropped inside another one.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(why) => return drop(tell.send(Err(why))),
        };
        runtime.block_on(async {
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    // Whoever started this may have given up meanwhile; `stop` says so.
                    let _ = tell.send(Ok(address));
                    stop.run_until_cancelled(serve(listener)).await;
                    tokio::time::sleep(PARTING).await;
                }
                Err(why) => drop(tell.send(Err(why))),
            }
        });
    })?;
    started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended before it served")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(bind(taken.local_addr().unwrap()).is_err());
    }

    #[test]
    fn what_a_listener_was_prepared_with_its_connections_have() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!((socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()), (KEEPALIVE, 3));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
