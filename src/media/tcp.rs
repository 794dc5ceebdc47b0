//! ICE-TCP (RFC 6544, passive): clients whose network has no UDP send their datagrams framed over a public TCP listener.
//!
//! ```text
//! client ─TCP─► one task per connection: Frames ─► Inbox (bounded) ─► relay thread: Hub ─► Core ─► pool socket ─► node
//! client ◄─TCP─ one task per connection ◄─ Link (64 KiB) ◄─ relay thread: Hub ◄─ Core ◄─ pool socket ◄─ node
//! ```
//!
//! To the core each connection is one more client tuple: the same authentication, limits and timers hold. Media is lossy:
//! what does not fit into a queue is dropped and counted, and never waited for.

mod frames;
mod hub;
mod link;
mod seats;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::{sleep, timeout},
};

pub(super) use self::hub::{Hub, Inbox};
use self::{frames::Frames, link::Link, seats::Seats};
use crate::{
    domain::relay::ClientKey,
    shutdown::Shutdown,
    telemetry::metrics::{Metrics, TcpDrop, TcpEnd},
};

/// Connections of all relay threads together; a further one is closed at once.
const CONNECTIONS: usize = 8192;
/// Connections of one source (/32, /64), which may be a company's NAT; a further one is closed at once.
const PER_SOURCE: usize = 1024;
/// A connection that has not brought an authenticated STUN request by then is closed.
const UNPROVEN: Duration = Duration::from_secs(5);
/// A client that takes no bytes for so long is closed.
const WRITE: Duration = Duration::from_secs(10);
/// Send buffer that the kernel is asked for: what waits longer is of no use to a viewer.
const SEND_BUFFER: usize = 256 << 10;

/// Takes connections for the relay threads.
pub(super) struct Acceptor {
    threads: Vec<Arc<Inbox>>,
    seats: Seats,
    next: AtomicU64,
    metrics: Metrics,
    shutdown: Shutdown,
}

impl Acceptor {
    pub(super) fn new(metrics: Metrics, shutdown: Shutdown) -> Self {
        Self::with_room_for(CONNECTIONS, PER_SOURCE, metrics, shutdown)
    }

    fn with_room_for(connections: usize, per_source: usize, metrics: Metrics, shutdown: Shutdown) -> Self {
        let seats = Seats::new(connections, per_source);
        Self { threads: Vec::new(), seats, next: AtomicU64::new(0), metrics, shutdown }
    }

    /// One more relay thread that takes its share of the connections.
    pub(super) fn add_thread(&mut self, inbox: Arc<Inbox>) {
        self.threads.push(inbox);
    }

    /// Runs a connection whose first bytes are a STUN request's; `read` are those that were taken from it already.
    pub(super) fn take(&self, stream: TcpStream, client: SocketAddr, read: &[u8]) {
        let seat = match self.seats.take(client.ip()) {
            Ok(seat) => seat,
            Err(full) => return self.metrics.media_tcp_closed(full),
        };
        let open = self.metrics.media_tcp_opened();
        let conn = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Connection {
            conn,
            link: Arc::new(Link::default()),
            inbox: Arc::clone(&self.threads[usize::try_from(conn).unwrap_or(0) % self.threads.len()]),
            metrics: self.metrics.clone(),
        };
        let mut frames = Frames::default();
        frames.room().extend_from_slice(read);
        let (metrics, shutdown) = (self.metrics.clone(), self.shutdown.clone());
        self.shutdown.spawn(async move {
            let end = connection.run(stream, client.ip().to_canonical(), frames, &shutdown).await;
            metrics.media_tcp_closed(end);
            tracing::debug!(client = %client, reason = end.as_str(), "ICE-TCP connection ended");
            drop((open, seat));
        });
    }
}

/// One connection.
struct Connection {
    conn: u64,
    link: Arc<Link>,
    inbox: Arc<Inbox>,
    metrics: Metrics,
}

impl Connection {
    async fn run(&self, mut stream: TcpStream, source: IpAddr, frames: Frames, shutdown: &Shutdown) -> TcpEnd {
        // The kernel grants what it may; more is no reason not to relay.
        let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
        if !self.inbox.open(ClientKey::Tcp { conn: self.conn, source }, &self.link) {
            return TcpEnd::Ending;
        }
        let (from, to) = stream.split();
        let end = tokio::select! {
            biased;
            () = shutdown.stopping() => TcpEnd::Ending,
            () = self.link.ended() => TcpEnd::FlowClosed,
            () = self.unproven() => TcpEnd::Unproven,
            end = self.send(to) => end,
            end = self.receive(from, frames) => end,
        };
        self.inbox.gone(self.conn);
        end
    }

    /// Completes once the client had its time to authenticate and did not.
    async fn unproven(&self) {
        sleep(UNPROVEN).await;
        if self.link.is_proven() {
            std::future::pending().await
        }
    }

    async fn receive(&self, mut from: ReadHalf<'_>, mut frames: Frames) -> TcpEnd {
        loop {
            loop {
                match frames.next() {
                    Ok(Some(frame)) => self.deliver(frame),
                    Ok(None) => break,
                    Err(frames::BadFrame) => return TcpEnd::BadFrame,
                }
            }
            match from.read_buf(frames.room()).await {
                Ok(0) | Err(_) => return TcpEnd::HungUp,
                Ok(_) => {}
            }
        }
    }

    fn deliver(&self, frame: Bytes) {
        if !self.inbox.deliver(self.conn, &self.link, frame) {
            self.metrics.media_tcp_dropped(TcpDrop::ThreadFull);
        }
    }

    async fn send(&self, mut to: WriteHalf<'_>) -> TcpEnd {
        let mut bytes = Vec::new();
        loop {
            self.link.take(&mut bytes).await;
            match timeout(WRITE, to.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return TcpEnd::HungUp,
                Err(_) => return TcpEnd::Slow,
            }
        }
    }
}

#[cfg(test)]
mod tests;
