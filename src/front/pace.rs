//! Bounds how long a connection may take: for a request's head, between requests, and to take what it is sent.
//!
//! ```text
//! Paced (the IO) ─ bytes came, a write waits ─┐
//! Busy (a guard per request) ─────────────────┴─► Pace ─► Watch: one timer per connection, set anew only to be earlier
//! ```
//!
//! A library's timers per request cost more than small requests do, and end a connection between two requests as early
//! as one that never finishes its first.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::transport::Transport;
use crate::{clock, telemetry::metrics::Trouble};

/// Bounds of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// `limits.header_timeout`
    pub head: Duration,
    /// `limits.idle_timeout`
    pub idle: Duration,
    /// `limits.write_timeout`
    pub write: Duration,
}

/// What a connection is doing. Times are ms since it began, plus one: 0 is "not".
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    limits: Limits,
    /// Whether bytes between two requests are the next one's head. Not so in HTTP/2, whose frames are many things.
    notes_heads: bool,
    requests: AtomicUsize,
    /// Since when there is no request.
    quiet: AtomicU64,
    /// Whether there has been a request.
    served: AtomicUsize,
    /// Since when a head is incomplete.
    head: AtomicU64,
    /// Since when a write waits for the client.
    blocked: AtomicU64,
}

impl Pace {
    /// Of a connection that begins now.
    pub(super) fn new(limits: Limits, notes_heads: bool) -> Arc<Self> {
        Arc::new(Self {
            began: clock::now(),
            limits,
            notes_heads,
            requests: AtomicUsize::new(0),
            quiet: AtomicU64::new(1),
            served: AtomicUsize::new(0),
            head: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
        })
    }

    /// A request has come; it is under way until the guard drops.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::AcqRel);
        self.served.store(1, Ordering::Release);
        self.head.store(0, Ordering::Release);
        Busy(Arc::clone(self))
    }

    fn now(&self) -> u64 {
        let since = clock::now().saturating_duration_since(self.began);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn read(&self) {
        if self.notes_heads && self.requests.load(Ordering::Acquire) == 0 && self.head.load(Ordering::Acquire) == 0 {
            self.head.store(self.now(), Ordering::Release);
        }
    }

    fn wrote(&self, waits: bool) {
        let blocked = self.blocked.load(Ordering::Acquire);
        if waits && blocked == 0 {
            self.blocked.store(self.now(), Ordering::Release);
        } else if !waits && blocked != 0 {
            self.blocked.store(0, Ordering::Release);
        }
    }

    /// When the connection will have taken too long, unless something happens before, and for what.
    fn due(&self) -> Option<(Instant, Trouble)> {
        let at = |since: u64, limit| self.began + Duration::from_millis(since - 1) + limit;
        let blocked = self.blocked.load(Ordering::Acquire);
        let slow = (blocked != 0).then(|| (at(blocked, self.limits.write), Trouble::SlowReader));
        if self.requests.load(Ordering::Acquire) > 0 {
            return slow;
        }
        let (head, quiet) = (self.head.load(Ordering::Acquire), self.quiet.load(Ordering::Acquire));
        let next = if head != 0 {
            (at(head, self.limits.head), Trouble::SlowHead)
        } else if self.served.load(Ordering::Acquire) == 0 {
            (at(1, self.limits.head), Trouble::SlowHead)
        } else {
            (at(quiet, self.limits.idle), Trouble::Idle)
        };
        Some(slow.map_or(next, |slow| if slow.0 < next.0 { slow } else { next }))
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Pace>);

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.request()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Before the count, so that nobody sees a connection without requests that has been quiet since long ago.
        self.0.quiet.store(self.0.now(), Ordering::Release);
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Tells when a connection has taken too long. Polled together with it, so that what happens in between counts.
pub(super) struct Watch {
    pace: Arc<Pace>,
    timer: Pin<Box<Sleep>>,
    armed: Instant,
    /// How long it may still be without a request, once it was asked to end.
    granted: Option<Instant>,
}

impl Watch {
    pub(super) fn new(pace: &Arc<Pace>) -> Self {
        let armed = pace.began + pace.limits.head;
        Self { pace: Arc::clone(pace), timer: Box::pin(tokio::time::sleep_until(armed.into())), armed, granted: None }
    }

    /// The connection was asked to end for being idle: it has the time of a head for that.
    pub(super) fn grant(&mut self) {
        self.granted = Some(clock::now() + self.pace.limits.head);
    }

    /// Ready once the connection has taken too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Trouble> {
        loop {
            let due = match (self.pace.due(), self.granted) {
                (Some((_, Trouble::Idle)), Some(granted)) => Some((granted, Trouble::Idle)),
                (due, _) => due,
            };
            if let Some((at, trouble)) = due
                && at <= clock::now()
            {
                return Poll::Ready(trouble);
            }
            let elapsed = self.timer.is_elapsed();
            if let Some((at, _)) = due.filter(|(at, _)| elapsed || *at < self.armed) {
                self.arm(at);
            } else if elapsed {
                // A request is under way and its client reads: look again when it might be over.
                self.arm(clock::now() + self.pace.limits.idle);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn arm(&mut self, at: Instant) {
        self.armed = at;
        self.timer.as_mut().reset(at.into());
    }
}

/// A connection's bytes, watched.
pub(super) struct Paced {
    io: Transport,
    pace: Arc<Pace>,
}

impl Paced {
    pub(super) fn new(io: Transport, pace: &Arc<Pace>) -> Self {
        Self { io, pace: Arc::clone(pace) }
    }

    /// The bytes alone, for who has bounds of his own.
    pub(super) fn into_inner(self) -> Transport {
        self.io
    }

    fn noted<T>(&self, wrote: Poll<T>) -> Poll<T> {
        self.pace.wrote(wrote.is_pending());
        wrote
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.pace.read();
        }
        read
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.noted(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.noted(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.noted(shut)
    }
}

/// An answer's body, which keeps its request under way until it is sent or given up.
pub(super) struct Answering<B> {
    body: B,
    _busy: Busy,
}

impl<B> Answering<B> {
    pub(super) fn new(body: B, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl<B: Body + Unpin> Body for Answering<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LIMITS: Limits =
        Limits { head: Duration::from_secs(5), idle: Duration::from_secs(75), write: Duration::from_secs(10) };

    /// For how many seconds, and for what, a connection of this pace goes on if nothing happens any more.
    async fn goes_on(watch: &mut Watch) -> (u64, Trouble) {
        let begun = clock::now();
        let trouble = poll_fn(|cx| watch.poll(cx)).await;
        ((clock::now() - begun).as_secs(), trouble)
    }

    async fn later(watch: &mut Watch, seconds: u64) {
        let over = tokio::time::timeout(Duration::from_secs(seconds), poll_fn(|cx| watch.poll(cx))).await;
        assert!(over.is_err(), "it ended before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_head_has_its_time_and_an_idle_connection_more() {
        let pace = Pace::new(LIMITS, true);
        let mut watch = Watch::new(&pace);
        later(&mut watch, 4).await;
        drop(pace.request());
        assert_eq!(goes_on(&mut watch).await, (75, Trouble::Idle));
        assert_eq!(goes_on(&mut Watch::new(&Pace::new(LIMITS, true))).await, (5, Trouble::SlowHead));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_as_long_as_it_takes() {
        let pace = Pace::new(LIMITS, true);
        let mut watch = Watch::new(&pace);
        let request = pace.request();
        later(&mut watch, 1000).await;
        pace.read();
        later(&mut watch, 1000).await;
        drop(request);
        assert_eq!(goes_on(&mut watch).await, (75, Trouble::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_has_begun_does_not_have_the_time_of_an_idle_connection() {
        let pace = Pace::new(LIMITS, true);
        let mut watch = Watch::new(&pace);
        drop(pace.request());
        later(&mut watch, 30).await;
        pace.read();
        later(&mut watch, 3).await;
        pace.read();
        assert_eq!(goes_on(&mut watch).await, (2, Trouble::SlowHead), "its first byte counts");

        let frames = Pace::new(LIMITS, false);
        let mut watch = Watch::new(&frames);
        drop(frames.request());
        frames.read();
        assert_eq!(goes_on(&mut watch).await, (75, Trouble::Idle), "in HTTP/2 bytes may be anything");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_slow_also_while_a_request_is_under_way() {
        let pace = Pace::new(LIMITS, true);
        let mut watch = Watch::new(&pace);
        let _request = pace.request();
        pace.wrote(true);
        later(&mut watch, 9).await;
        pace.wrote(false);
        pace.wrote(true);
        assert_eq!(goes_on(&mut watch).await, (10, Trouble::SlowReader));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_to_end_has_the_time_of_a_head_for_it() {
        let pace = Pace::new(LIMITS, false);
        let mut watch = Watch::new(&pace);
        drop(pace.request());
        assert_eq!(goes_on(&mut watch).await, (75, Trouble::Idle));
        watch.grant();
        let request = pace.request();
        later(&mut watch, 30).await;
        drop(request);
        assert_eq!(goes_on(&mut watch).await.1, Trouble::Idle);
    }

    #[test]
    fn requests_are_counted_until_the_last_is_over() {
        let pace = Pace::new(LIMITS, false);
        let (one, two) = (pace.request(), pace.request());
        let stream = one.clone();
        drop((one, two));
        assert_eq!(pace.due(), None);
        drop(stream);
        assert_eq!(pace.due().map(|(_, trouble)| trouble), Some(Trouble::Idle));
    }
}
