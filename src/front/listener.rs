//! One public listener: accepts connections while it is told to, with settings that a reload replaces whole.
//!
//! ```text
//! accept ─► seat ─► connection: PROXY header? ─► what is spoken? ─► TLS? ─► HTTP/1.1 or HTTP/2 ─► http::answer
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Front, Sink, connection, pace, seats::Seats, tls::Tls};
use crate::{
    config::{self, IpRange, Proxy},
    shutdown::Shutdown,
    telemetry::metrics::Trouble,
};

/// A failing `accept` (no descriptors left) is tried again after this, doubled up to [`ACCEPT_REST_MAX`].
const ACCEPT_REST: Duration = Duration::from_millis(10);
/// See [`ACCEPT_REST`].
const ACCEPT_REST_MAX: Duration = Duration::from_secs(1);

/// How one listener treats its connections. A connection keeps those that it began with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What clients get who speak TLS here; absent: no TLS.
    pub tls: Option<Tls>,
    /// `proxy`
    pub proxy: Proxy,
    /// `trusted`
    pub trusted: Vec<IpRange>,
    /// Where connections go that turn out to be ICE-TCP; absent: this listener takes none.
    pub ice_tcp: Option<Sink>,
    /// `limits.connections`
    pub connections: usize,
    /// `limits.connections_per_client`
    pub connections_per_client: usize,
    /// `limits.header_timeout`
    pub header_timeout: Duration,
    /// `limits.idle_timeout`
    pub idle_timeout: Duration,
    /// `limits.write_timeout`
    pub write_timeout: Duration,
}

impl Settings {
    /// As configured. `tls` and `ice_tcp` are what listeners share; this one takes them if its configuration says so.
    pub fn new(listen: &config::Listen, limits: &config::Limits, tls: Option<&Tls>, ice_tcp: Option<&Sink>) -> Self {
        Self {
            tls: tls.filter(|_| listen.tls).cloned(),
            proxy: listen.proxy,
            trusted: listen.trusted.clone(),
            ice_tcp: ice_tcp.filter(|_| listen.ice_tcp).cloned(),
            connections: limits.connections,
            connections_per_client: limits.connections_per_client,
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            write_timeout: limits.write_timeout,
        }
    }

    pub(super) fn pace(&self) -> pace::Limits {
        pace::Limits { head: self.header_timeout, idle: self.idle_timeout, write: self.write_timeout }
    }
}

/// What the connections of one listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) front: Arc<Front>,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) seats: Seats,
    pub(super) shutdown: Shutdown,
    /// Cancelled when connections shall end as soon as they have no request.
    pub(super) retiring: CancellationToken,
    accepting: CancellationToken,
}

/// A listener that is being served. A clone is the same one; dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Listening {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Alive while connections are accepted.
    socket: Weak<TcpListener>,
}

impl Listening {
    /// Where it listens; the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.seats.taken()
    }

    /// Treats connections from now on by other settings.
    pub fn reload(&self, settings: Settings) {
        self.shared.settings.store(Arc::new(settings));
    }

    /// The same socket once more, for another process: both accept from one queue, so nobody is refused in between.
    ///
    /// # Errors
    /// It accepts no longer, or there is no descriptor left.
    pub fn duplicate(&self) -> io::Result<std::net::TcpListener> {
        let socket = self.socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        socket2::SockRef::from(&*socket).try_clone().map(Into::into)
    }

    /// Accepts no more and lets go of the socket. Connections go on.
    pub fn stop_accepting(&self) {
        self.shared.accepting.cancel();
    }

    /// Ends connections as soon as they have no request, HTTP/2 with a GOAWAY; WebSockets go on. Implies
    /// [`Listening::stop_accepting`].
    pub fn retire(&self) {
        self.shared.accepting.cancel();
        self.shared.retiring.cancel();
    }
}

/// Serves a bound listener until the process is asked to end, or [`Listening::stop_accepting`] is called.
///
/// # Errors
/// The socket has no address.
pub fn serve(socket: TcpListener, settings: Settings, front: Arc<Front>, shutdown: &Shutdown) -> io::Result<Listening> {
    let address = socket.local_addr()?;
    tracing::info!(%address, tls = settings.tls.is_some(), proxy = ?settings.proxy, "listening");
    let shared = Arc::new(Shared {
        front,
        settings: ArcSwap::from_pointee(settings),
        seats: Seats::default(),
        shutdown: shutdown.clone(),
        retiring: shutdown.child(),
        accepting: shutdown.child(),
    });
    let socket = Arc::new(socket);
    let listening = Listening { shared: Arc::clone(&shared), address, socket: Arc::downgrade(&socket) };
    shutdown.spawn(async move {
        tokio::select! {
            biased;
            () = shared.accepting.cancelled() => {}
            never = accept(&socket, &shared) => match never {},
        }
    });
    Ok(listening)
}

async fn accept(socket: &TcpListener, shared: &Arc<Shared>) -> std::convert::Infallible {
    let metrics = &shared.front.metrics;
    let mut rest = ACCEPT_REST;
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => {
                rest = ACCEPT_REST;
                let settings = shared.settings.load_full();
                match shared.seats.take(settings.connections, metrics) {
                    Some(seat) => {
                        drop(shared.shutdown.spawn(connection::run(stream, peer, seat, settings, Arc::clone(shared))))
                    }
                    None => metrics.connection_ended(Trouble::Full),
                }
            }
            Err(error) => {
                // The connection that failed is gone by itself; only a lack of descriptors or memory is worth a pause.
                if is_local(&error) {
                    metrics.accept_failed();
                    tracing::warn!(%error, ?rest, "cannot accept");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(ACCEPT_REST_MAX);
                }
            }
        }
    }
}

fn is_local(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
