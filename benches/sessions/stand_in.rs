//! The node of the load: AMS's signalling and nothing else, as cheap as can be.
//!
//! It is a process of its own, so that its sockets and its time are not the driver's. It ends when its stdin does.

use std::io;

use tokio::net::{TcpListener, TcpStream};

use super::{
    wire::{CLOSE, PING, PONG, TEXT, Wire},
    words,
};

/// Where origin and edge listen: two addresses, as a cluster has, on any port.
const ADDRESSES: [&str; 2] = ["127.0.1.1:0", "127.0.1.2:0"];

/// Serves an origin and an edge, and prints their addresses on one line.
pub(crate) async fn run() -> io::Result<()> {
    let mut bound = Vec::new();
    for address in ADDRESSES {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&address.parse::<std::net::SocketAddr>().map_err(io::Error::other)?.into())?;
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from_std(socket.into())?;
        bound.push(listener.local_addr()?.to_string());
        tokio::spawn(accept(listener));
    }
    println!("{}", bound.join(" "));
    let driver_ended = || io::copy(&mut io::stdin(), &mut io::sink());
    tokio::task::spawn_blocking(driver_ended).await.map_err(io::Error::other)??;
    Ok(())
}

async fn accept(listener: TcpListener) {
    // A node that cannot accept any more is the end of the measurement, which the driver notices.
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A proxy that hangs up is part of the load.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    let mut wire = Wire::new(stream, false)?;
    let head = wire.read_head().await?;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let Some(key) = key else {
        return wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let accept = forebay::upstream::accept_key(key.as_bytes());
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    wire.write(switching.as_bytes()).await?;
    talk(wire).await
}

async fn talk(mut wire: Wire) -> io::Result<()> {
    // Prepared once per session: the reply costs one write.
    let mut reply = Vec::new();
    loop {
        let frame = wire.read_frame().await?;
        let payload = wire.payload(&frame);
        match frame.opcode {
            TEXT if payload.starts_with(br#"{"command":"takeCandidate""#) => wire.write(&reply).await?,
            TEXT => {
                let text = String::from_utf8_lossy(payload).into_owned();
                let stream = words::field(&text, "streamId").unwrap_or_default();
                let answer = match words::field(&text, "command") {
                    Some("publish") => words::start(stream),
                    Some("play") => words::configuration(stream, "offer"),
                    Some("takeConfiguration") => words::configuration(stream, "answer"),
                    Some("ping") => r#"{"command":"pong"}"#.to_owned(),
                    _ => words::candidate(stream),
                };
                if !stream.is_empty() && reply.is_empty() {
                    reply = wire.frame(TEXT, words::candidate(stream).as_bytes());
                }
                wire.send(TEXT, answer.as_bytes()).await?;
            }
            PING => {
                let payload = payload.to_vec();
                wire.send(PONG, &payload).await?;
            }
            CLOSE => {
                let payload = payload.to_vec();
                return wire.send(CLOSE, &payload).await;
            }
            _ => {}
        }
    }
}
