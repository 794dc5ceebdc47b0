//! The client of the load: one publisher's WebSocket.

use std::{io, net::SocketAddr};

use tokio::net::TcpSocket;

use super::{
    wire::{CLOSE, TEXT, Wire, bad},
    words,
};

/// A session that its node has answered.
pub(crate) struct Client {
    wire: Wire,
    stream: String,
    candidate: Vec<u8>,
}

impl Client {
    /// Connects, shakes hands, publishes, and waits for `start`.
    pub(crate) async fn publish(to: SocketAddr, stream: String) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        let mut wire = Wire::new(socket.connect(to).await?, true)?;
        let hello = format!(
            "GET /LiveApp/websocket HTTP/1.1\r\nHost: {to}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://127.0.0.1\r\n\r\n"
        );
        wire.write(hello.as_bytes()).await?;
        let head = wire.read_head().await?;
        if !head.starts_with("HTTP/1.1 101") {
            return Err(io::Error::other(format!("no upgrade: {}", head.lines().next().unwrap_or("closed"))));
        }
        wire.send(TEXT, words::publish(&stream).as_bytes()).await?;
        let answer = wire.read_text().await?;
        if !answer.starts_with(br#"{"command":"start""#) {
            return Err(io::Error::other(format!("no start: {}", String::from_utf8_lossy(answer))));
        }
        let candidate = wire.frame(TEXT, words::candidate(&stream).as_bytes());
        Ok(Self { wire, stream, candidate })
    }

    /// One small message there, and one back.
    pub(crate) async fn round_trip(&mut self) -> io::Result<()> {
        self.wire.write(&self.candidate).await?;
        match self.wire.read_text().await?.len() {
            words::SMALL => Ok(()),
            _ => Err(bad("a reply of another size")),
        }
    }

    /// An SDP there, and one back.
    pub(crate) async fn offer(&mut self) -> io::Result<()> {
        let offer = words::configuration(&self.stream, "offer");
        self.wire.send(TEXT, offer.as_bytes()).await?;
        match self.wire.read_text().await?.len() {
            words::SDP => Ok(()),
            _ => Err(bad("an answer of another size")),
        }
    }

    /// Does nothing but answer pings, until the socket ends or this is dropped.
    pub(crate) async fn idle(&mut self) -> io::Error {
        match self.wire.read_text().await {
            Ok(_) => bad("an idle session was spoken to"),
            Err(error) => error,
        }
    }

    /// Says goodbye as a browser does, and waits for the other side's word.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        self.wire.send(CLOSE, &1000u16.to_be_bytes()).await?;
        while self.wire.read_frame().await?.opcode != CLOSE {}
        Ok(())
    }
}
