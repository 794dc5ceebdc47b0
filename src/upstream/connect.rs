//! Dials a node and shakes hands with it.

use std::{fmt::Write, net::IpAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    self,
    error::ProtocolError,
    handshake::{
        client::{Response, generate_key},
        derive_accept_key,
        machine::TryParse,
    },
    http::{HeaderMap, StatusCode},
};

use super::socket::{Socket, SocketLimits};
use crate::{
    domain::{ids::NodeAddr, session::LinkLoss},
    net,
};

/// Bytes of a node's response head; AMS sends below 1 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// The answer to a client's `Sec-WebSocket-Key` (RFC 6455 §4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    derive_accept_key(key)
}

/// A `Sec-WebSocket-Key` that nobody has used before.
pub fn fresh_key() -> String {
    generate_key()
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
    let mut stream = TcpStream::connect(to.address.0).await.map_err(DialError::Connect)?;
    net::tune(&stream).map_err(DialError::Connect)?;
    let read_ahead = shake_hands(&mut stream, &to).await.map_err(|error| DialError::Handshake(Box::new(error)))?;
    Ok(Socket::client(stream, &read_ahead, to.limits))
}

/// The client's part of RFC 6455 §4.1. Returns what came behind the response.
async fn shake_hands(stream: &mut TcpStream, to: &Dial) -> Result<Vec<u8>, tungstenite::Error> {
    let key = generate_key();
    stream.write_all(request(to, &key).as_bytes()).await?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > MAX_HEAD {
            return Err(ProtocolError::HandshakeIncomplete.into());
        }
        if let Some((size, response)) = Response::try_parse(&head)? {
            check(response, &derive_accept_key(key.as_bytes()))?;
            return Ok(head.split_off(size));
        }
    }
}

fn request(to: &Dial, key: &str) -> String {
    let mut text = format!("GET {} HTTP/1.1\r\nHost: ", to.path);
    let (client, scheme) = (to.client.to_canonical(), if to.tls { "https" } else { "http" });
    // Writing to a String cannot fail.
    let _ = match &to.host {
        Some(host) => text.write_str(host),
        None => write!(text, "{}", to.address),
    };
    let _ = write!(
        text,
        "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         X-Forwarded-Proto: {scheme}\r\nX-Real-IP: {client}\r\nX-Forwarded-For: {client}\r\n\r\n"
    );
    text
}

fn check(response: Response, accept: &str) -> Result<(), tungstenite::Error> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(tungstenite::Error::Http(Box::new(response)));
    }
    let headers = response.headers();
    if !has_token(headers, "upgrade", "websocket") {
        return Err(ProtocolError::MissingUpgradeWebSocketHeader.into());
    }
    if !has_token(headers, "connection", "upgrade") {
        return Err(ProtocolError::MissingConnectionUpgradeHeader.into());
    }
    if headers.get("sec-websocket-accept").is_none_or(|value| value != accept) {
        return Err(ProtocolError::SecWebSocketAcceptKeyMismatch.into());
    }
    Ok(())
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}
