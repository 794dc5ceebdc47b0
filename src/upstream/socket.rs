//! A WebSocket as sessions see it: whole messages in, frames out, and no buffers while nothing is said.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::frames::{self, Decoder, Message, Side, Violation};
use crate::domain::signaling::Text;

/// Bytes of one read: an SDP comes whole. One buffer per thread, not per socket.
const READ: usize = 16 * 1024;
/// Frames are gathered up to this before they are written, so that a burst is one system call.
const WRITE_TARGET: usize = 4096;
/// Bytes that may wait for a slow peer, beside a single message of any size; more ends the socket.
const WRITE_BUFFER: usize = 1024 * 1024;
/// How long a closing handshake may take before the socket is simply dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
    /// A keyed hash of a count: masks that nobody outside can foresee (RFC 6455 §10.3).
    static MASKS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
}

/// Bounds of one WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// The largest message that is read; a larger one ends the socket.
    pub max_message: usize,
    /// How long the peer may take no bytes.
    pub write_timeout: Duration,
}

/// What arrives.
#[derive(Debug)]
pub enum Frame {
    /// A text message.
    Text(Text),
    /// A binary message, which signalling does not have.
    Binary,
    /// A ping (answered already) or a pong.
    Alive,
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketEnd {
    /// The peer closed it.
    Closed,
    /// Reading or writing failed.
    Io,
    /// The peer took no bytes in time.
    Slow,
    /// A message was larger than `max_message`.
    TooLarge,
    /// The peer broke the protocol.
    Protocol,
}

/// A WebSocket of either side, with text as the domain has it.
#[derive(Debug)]
pub struct Socket<S> {
    io: S,
    limits: SocketLimits,
    masks: bool,
    decoder: Decoder,
    /// Set once the peer has broken the protocol: what it says further is not read any more.
    failed: bool,
    /// What is to be written; no memory while there is nothing.
    out: Vec<u8>,
    /// Of `out`, what has been written.
    written: usize,
    /// There is an answer in `out` that nobody will flush.
    owes: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The server's side of a connection that has been upgraded; `read_ahead` came with the request.
    pub fn server(io: S, read_ahead: &[u8], limits: SocketLimits) -> Self {
        Self::new(io, Side::Server, read_ahead, limits)
    }

    /// The client's side; `read_ahead` came with the response.
    pub fn client(io: S, read_ahead: &[u8], limits: SocketLimits) -> Self {
        Self::new(io, Side::Client, read_ahead, limits)
    }

    fn new(io: S, side: Side, read_ahead: &[u8], limits: SocketLimits) -> Self {
        let (decoder, masks) = (Decoder::new(side, read_ahead), side == Side::Client);
        Self { io, limits, masks, decoder, failed: false, out: Vec::new(), written: 0, owes: false }
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, SocketEnd>> {
        if self.owes
            && let Poll::Ready(Err(end)) = self.poll_out(cx)
        {
            return Poll::Ready(Err(end));
        }
        let message = match ready!(self.poll_message(cx)) {
            Ok(message) => message,
            Err(end) => {
                self.failed = true;
                return Poll::Ready(Err(end));
            }
        };
        Poll::Ready(match message {
            Message::Text(text) => Ok(Frame::Text(Text::from_utf8_bytes(text))),
            Message::Binary => Ok(Frame::Binary),
            Message::Pong => Ok(Frame::Alive),
            Message::Ping(payload) => {
                // One answer at a time is enough (RFC 6455 §5.5.3): a peer that pings and does not read stays small.
                if !self.owes {
                    let mask = self.mask();
                    frames::put_pong(&mut self.out, &payload, mask);
                    self.answer(cx);
                }
                Ok(Frame::Alive)
            }
            Message::Close(code) => {
                let mask = self.mask();
                frames::put_close(&mut self.out, code, "", mask);
                self.answer(cx);
                Err(SocketEnd::Closed)
            }
        })
    }

    /// Queues a text frame; [`Socket::flush`] sends it.
    ///
    /// # Errors
    /// The peer has left so much unread that no more is kept for it.
    pub fn feed(&mut self, text: &Text) -> Result<(), SocketEnd> {
        let waiting = self.out.len() - self.written;
        if waiting > 0 && waiting + text.len() > WRITE_BUFFER {
            return Err(SocketEnd::Slow);
        }
        let mask = self.mask();
        frames::put_text(&mut self.out, text.as_bytes(), mask);
        Ok(())
    }

    /// Queues a ping.
    pub fn feed_ping(&mut self) {
        let mask = self.mask();
        frames::put_ping(&mut self.out, mask);
    }

    /// Whether so much is queued that it should be flushed before more is fed.
    pub fn is_full(&self) -> bool {
        self.out.len() >= WRITE_TARGET
    }

    /// Sends what was queued.
    ///
    /// # Errors
    /// The peer is gone, or took nothing within `write_timeout`.
    pub async fn flush(&mut self) -> Result<(), SocketEnd> {
        // Nearly always the kernel takes it at once: then no timer is needed.
        if let Poll::Ready(flushed) = poll_fn(|cx| Poll::Ready(self.poll_out(cx))).await {
            return flushed;
        }
        let limit = self.limits.write_timeout;
        Box::pin(timeout(limit, poll_fn(|cx| self.poll_out(cx)))).await.unwrap_or(Err(SocketEnd::Slow))
    }

    /// Sends what was queued and a close frame, and waits briefly for the peer's.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let mask = self.mask();
        frames::put_close(&mut self.out, Some(code), reason, mask);
        let closing = async {
            if self.flush().await.is_ok() {
                // Bytes that are left unread when a socket is dropped reset it, and the peer might not see the frame.
                while poll_fn(|cx| self.poll_rest(cx)).await.is_ok() {}
            }
        };
        // A peer that does not answer is dropped; there is nothing else to say to it.
        let _ = timeout(CLOSE_LIMIT, closing).await;
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, SocketEnd>> {
        if self.failed {
            return Poll::Ready(Err(SocketEnd::Closed));
        }
        let max = self.limits.max_message;
        let mut message = self.decoder.next(max)?;
        while message.is_none() {
            let decoder = &mut self.decoder;
            message = ready!(poll_read(&mut self.io, cx, |bytes| decoder.receive(bytes, max)))??;
        }
        Poll::Ready(message.ok_or(SocketEnd::Io))
    }

    /// What comes after this side's close frame is of no interest, up to the peer's own.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketEnd>> {
        if self.failed {
            return poll_read(&mut self.io, cx, |_| ());
        }
        self.poll_message(cx).map(|message| match message {
            Ok(Message::Close(_)) => Err(SocketEnd::Closed),
            Ok(_) => Ok(()),
            Err(SocketEnd::Protocol | SocketEnd::TooLarge) => {
                self.failed = true;
                Ok(())
            }
            Err(end) => Err(end),
        })
    }

    /// Sends an answer of the protocol's own, now or when there is room.
    fn answer(&mut self, cx: &mut Context<'_>) {
        self.owes = true;
        // A failure shows again at the next frame.
        let _ = self.poll_out(cx);
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketEnd>> {
        while self.written < self.out.len() {
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out[self.written..]));
            match wrote {
                Ok(0) | Err(_) => return Poll::Ready(Err(SocketEnd::Io)),
                Ok(wrote) => self.written += wrote,
            }
        }
        (self.out, self.written, self.owes) = (Vec::new(), 0, false);
        Pin::new(&mut self.io).poll_flush(cx).map_err(|_| SocketEnd::Io)
    }

    fn mask(&self) -> Option<[u8; 4]> {
        self.masks.then(|| {
            MASKS.with(|(key, count)| {
                count.set(count.get().wrapping_add(1));
                let [a, b, c, d, ..] = key.hash_one(count.get()).to_ne_bytes();
                [a, b, c, d]
            })
        })
    }
}

/// Hands what the peer has sent to `take`. The end of the connection is an error: a WebSocket ends by a close frame.
fn poll_read<S: AsyncRead + Unpin, T>(
    io: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> T,
) -> Poll<Result<T, SocketEnd>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        let read = ready!(Pin::new(io).poll_read(cx, &mut buffer));
        Poll::Ready(match (read, buffer.filled()) {
            (Err(_), _) | (_, []) => Err(SocketEnd::Io),
            (Ok(()), bytes) => Ok(take(bytes)),
        })
    })
}

impl From<Violation> for SocketEnd {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Protocol => Self::Protocol,
            Violation::TooLarge => Self::TooLarge,
        }
    }
}
