//! Dials a node, and wraps a WebSocket of either side so that nobody else needs to know the library.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        error::CapacityError,
        http::{HeaderName, HeaderValue, Request},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    domain::{ids::NodeAddr, session::LinkLoss, signaling::Text},
    net,
};

/// First size of a read buffer: signalling is small, and an idle session has two of them.
const READ_BUFFER: usize = 1024;
/// Frames are gathered up to this before they are written, so that a burst is one system call.
const WRITE_TARGET: usize = 4096;
/// Bytes that may wait for a slow peer; more ends the socket.
const WRITE_BUFFER: usize = 1024 * 1024;
/// How long a closing handshake may take before the socket is simply dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The answer to a client's `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

/// Where and as whom to dial.
#[derive(Debug, Clone)]
pub struct Dial {
    /// The node.
    pub address: NodeAddr,
    /// The path with its query, as the client asked for it.
    pub path: String,
    /// The client's address, told as `X-Real-IP` and `X-Forwarded-For` (facts/ams.md, trap 28).
    pub client: IpAddr,
    /// The client's `Host`.
    pub host: Option<String>,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// TCP connect and WebSocket handshake together.
    pub limit: Duration,
    /// Bounds of the link.
    pub limits: SocketLimits,
}

/// Why a node could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// TCP did not connect.
    #[error("could not connect")]
    Connect(#[source] std::io::Error),
    /// No WebSocket upgrade.
    #[error("no WebSocket upgrade")]
    Handshake(#[source] Box<tungstenite::Error>),
    /// Neither in time.
    #[error("no WebSocket within {0:?}")]
    TimedOut(Duration),
}

impl DialError {
    /// How the session reads it.
    pub fn loss(&self) -> LinkLoss {
        match self {
            Self::Connect(_) => LinkLoss::Connect,
            Self::Handshake(_) | Self::TimedOut(_) => LinkLoss::Handshake,
        }
    }
}

/// Opens the WebSocket to a node.
pub async fn dial(to: Dial) -> Result<Socket<TcpStream>, DialError> {
    let limit = to.limit;
    timeout(limit, dial_unbounded(to)).await.unwrap_or(Err(DialError::TimedOut(limit)))
}

async fn dial_unbounded(to: Dial) -> Result<Socket<TcpStream>, DialError> {
    let stream = TcpStream::connect(to.address.0).await.map_err(DialError::Connect)?;
    net::tune(&stream).map_err(DialError::Connect)?;
    let refused = |error: tungstenite::Error| DialError::Handshake(Box::new(error));
    let request = request(&to).map_err(|error| refused(error.into()))?;
    let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(to.limits.config()))
        .await
        .map_err(refused)?;
    Ok(Socket { inner: socket, limits: to.limits })
}

fn request(to: &Dial) -> Result<Request<()>, tungstenite::http::Error> {
    let address = to.address.to_string();
    let host = to.host.as_deref().unwrap_or(&address);
    let client = to.client.to_canonical().to_string();
    let mut request = Request::builder()
        .uri(format!("ws://{address}{}", to.path))
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tungstenite::handshake::client::generate_key())
        .header("X-Forwarded-Proto", if to.tls { "https" } else { "http" })
        .body(())?;
    for name in ["x-real-ip", "x-forwarded-for"] {
        if let Ok(value) = HeaderValue::from_str(&client) {
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(request)
}

/// Bounds of one WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// The largest message that is read; a larger one ends the socket.
    pub max_message: usize,
    /// How long the peer may take no bytes.
    pub write_timeout: Duration,
}

impl SocketLimits {
    fn config(self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_TARGET)
            .max_write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(self.max_message))
            .max_frame_size(Some(self.max_message))
    }
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
    inner: WebSocketStream<S>,
    limits: SocketLimits,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The server's side of a connection that has been upgraded; `read_ahead` came with the request.
    pub async fn server(io: S, read_ahead: Bytes, limits: SocketLimits) -> Self {
        let config = Some(limits.config());
        let inner = if read_ahead.is_empty() {
            WebSocketStream::from_raw_socket(io, Role::Server, config).await
        } else {
            WebSocketStream::from_partially_read(io, read_ahead.to_vec(), Role::Server, config).await
        };
        Self { inner, limits }
    }

    /// The next frame.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, SocketEnd>> {
        let message =
            ready!(Pin::new(&mut self.inner).poll_next(cx)).unwrap_or(Err(tungstenite::Error::ConnectionClosed));
        Poll::Ready(match message {
            Ok(Message::Text(text)) => Ok(Frame::Text(Text::from_utf8_bytes(text.into()))),
            Ok(Message::Binary(_)) => Ok(Frame::Binary),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Frame::Alive),
            Ok(Message::Close(_)) => {
                // The library has queued the answer that RFC 6455 §5.5.1 asks for, and nobody polls this socket again.
                // It is a few bytes: a peer that takes none now goes without.
                let _ = Pin::new(&mut self.inner).poll_flush(cx);
                Err(SocketEnd::Closed)
            }
            Err(error) => Err(end(&error)),
        })
    }

    /// Queues a text frame; [`Socket::flush`] sends it.
    pub async fn feed(&mut self, text: Text) -> Result<(), SocketEnd> {
        // The bytes came from a text frame or were written by this program: UTF-8 either way.
        let text = Utf8Bytes::try_from(text.into_bytes()).map_err(|_| SocketEnd::Protocol)?;
        self.feed_message(Message::Text(text)).await
    }

    /// Queues a ping.
    pub async fn feed_ping(&mut self) -> Result<(), SocketEnd> {
        self.feed_message(Message::Ping(Bytes::new())).await
    }

    async fn feed_message(&mut self, message: Message) -> Result<(), SocketEnd> {
        bounded(self.limits.write_timeout, self.inner.feed(message)).await
    }

    /// Sends what was queued.
    pub async fn flush(&mut self) -> Result<(), SocketEnd> {
        bounded(self.limits.write_timeout, self.inner.flush()).await
    }

    /// Sends a close frame and waits briefly for the peer's.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: Utf8Bytes::from_static(reason) };
        let closing = async {
            if self.inner.close(Some(frame)).await.is_ok() {
                while std::future::poll_fn(|cx| self.poll_frame(cx)).await.is_ok() {}
            }
        };
        // A peer that does not answer is dropped; there is nothing else to say to it.
        let _ = timeout(CLOSE_LIMIT, closing).await;
    }
}

async fn bounded(
    limit: Duration,
    write: impl Future<Output = Result<(), tungstenite::Error>>,
) -> Result<(), SocketEnd> {
    match timeout(limit, write).await {
        Ok(written) => written.map_err(|error| end(&error)),
        Err(_) => Err(SocketEnd::Slow),
    }
}

fn end(error: &tungstenite::Error) -> SocketEnd {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => SocketEnd::Closed,
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => SocketEnd::TooLarge,
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => SocketEnd::Io,
        tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_) => SocketEnd::Protocol,
        _ => SocketEnd::Io,
    }
}
