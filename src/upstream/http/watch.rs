//! Who keeps a connection to a node waiting, and since when: read once a second by the task that moves its bytes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::HttpLimits;
use crate::clock;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Awaits {
    /// Its next request.
    Request = 0,
    /// The head of a response; who asked has a deadline of his own.
    Head = 1,
    /// The node's next piece of a body.
    Node = 2,
    /// The client, to take the next piece.
    Client = 3,
    /// Nothing: it belongs to another protocol.
    Nothing = 4,
}

/// One connection's waiting. Who waits writes, who moves the bytes reads.
#[derive(Debug)]
pub(super) struct Watch {
    limits: HttpLimits,
    begun: Instant,
    awaits: AtomicU8,
    /// Since when, ms after `begun`.
    since: AtomicU64,
    /// When the node last sent something, ms after `begun`.
    heard: AtomicU64,
    /// For whom it was ended, once it was.
    overdue: AtomicU8,
}

impl Watch {
    pub(super) fn new(limits: HttpLimits) -> Self {
        let (awaits, overdue) = (AtomicU8::new(Awaits::Head as u8), AtomicU8::new(Awaits::Nothing as u8));
        let zero = || AtomicU64::new(0);
        Self { limits, begun: clock::now(), awaits, since: zero(), heard: zero(), overdue }
    }

    fn now(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.begun).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// It rests until the next request.
    pub(super) fn rest(&self) {
        self.set(Awaits::Request);
    }

    /// A request is being asked.
    pub(super) fn ask(&self) {
        self.set(Awaits::Head);
    }

    /// The client wants more and the node has none.
    pub(super) fn await_node(&self) {
        if self.awaits.load(Ordering::Relaxed) != Awaits::Node as u8 {
            self.set(Awaits::Node);
        }
    }

    /// The client was given a piece.
    pub(super) fn await_client(&self) {
        self.set(Awaits::Client);
    }

    /// It belongs to another protocol from now on.
    pub(super) fn leave_alone(&self) {
        self.set(Awaits::Nothing);
    }

    fn set(&self, awaits: Awaits) {
        self.since.store(self.now(), Ordering::Relaxed);
        self.awaits.store(awaits as u8, Ordering::Release);
    }

    /// Whether somebody has waited for too long; notes whom it was for.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let awaits = self.awaits.load(Ordering::Acquire);
        let (since, heard) = (self.since.load(Ordering::Relaxed), self.heard.load(Ordering::Relaxed));
        // What the node has sent since it was asked for more lies here: whoever asked does not take it.
        let untaken = awaits == Awaits::Node as u8 && heard > since;
        let (awaits, since) = if untaken { (Awaits::Client as u8, heard) } else { (awaits, since) };
        let limit = match awaits {
            awaits if awaits == Awaits::Request as u8 => self.limits.keep_idle,
            awaits if awaits == Awaits::Node as u8 => self.limits.idle,
            awaits if awaits == Awaits::Client as u8 => self.limits.client_idle,
            _ => return false,
        };
        let since = self.begun + Duration::from_millis(since);
        let overdue = now.saturating_duration_since(since) >= limit;
        if overdue {
            self.overdue.store(awaits, Ordering::Release);
        }
        overdue
    }

    /// The connection was ended because its node sent nothing.
    pub(super) fn node_was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Acquire) == Awaits::Node as u8
    }

    /// The connection was ended because the client took nothing.
    pub(super) fn client_was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Acquire) == Awaits::Client as u8
    }
}

/// A connection to a node, which notes when the node was heard.
pub(super) struct Wire {
    stream: TcpStream,
    watch: Arc<Watch>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.heard.store(self.watch.now(), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_limit_and_says_whom_it_was_for() {
        let limits = HttpLimits {
            connect: secs(1),
            first_byte: secs(15),
            idle: secs(30),
            client_idle: secs(60),
            keep_idle: secs(5),
            max_idle: 1,
            max_connections: 1,
        };
        let watch = Watch::new(limits);
        let begun = clock::now();
        watch.await_node();
        assert!(!watch.is_overdue(begun + secs(29)));
        watch.await_client();
        assert!(!watch.is_overdue(begun + secs(59)));
        assert!(!watch.client_was_overdue() && !watch.node_was_overdue());
        assert!(watch.is_overdue(begun + secs(60)) && watch.client_was_overdue());
        watch.rest();
        assert!(watch.is_overdue(begun + secs(5)) && !watch.client_was_overdue());
        watch.ask();
        assert!(!watch.is_overdue(begun + secs(1000)), "who asked has a deadline");
        watch.leave_alone();
        assert!(!watch.is_overdue(begun + secs(100_000)));
    }
}
