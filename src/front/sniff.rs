//! Tells ICE-TCP connections from all others by their first bytes, and hands them over.

use std::{io, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::Sink;
use crate::{
    domain::{
        ids::ClientAddr,
        sniff::{ENOUGH, Sniffed, sniff},
    },
    shutdown::Shutdown,
};

/// The connection, untouched, if HTTP is to judge it; `None` if it was handed over or is over. A client that says
/// nothing is closed after `limits.header_timeout`. Where the listener takes no ICE-TCP nothing is looked at.
pub(super) async fn http(
    stream: TcpStream,
    client: ClientAddr,
    ice_tcp: Option<&Sink>,
    header_timeout: Duration,
    shutdown: &Shutdown,
) -> Option<TcpStream> {
    let Some(sink) = ice_tcp else { return Some(stream) };
    let told = tokio::select! {
        biased;
        () = shutdown.stopping() => return None,
        told = timeout(header_timeout, tell(stream)) => told,
    };
    match told {
        Ok(Ok(Told::Http(stream))) => Some(stream),
        Ok(Ok(Told::IceTcp(stream, read))) => {
            sink.take(stream, client, &read);
            None
        }
        Ok(Ok(Told::Neither)) => None,
        Ok(Err(error)) => {
            tracing::debug!(client = %client.0, %error, "connection ended");
            None
        }
        Err(_) => {
            tracing::debug!(client = %client.0, "the client said nothing in time");
            None
        }
    }
}

enum Told {
    Http(TcpStream),
    /// With what was read of it.
    IceTcp(TcpStream, Vec<u8>),
    /// Not one of them, or closed.
    Neither,
}

async fn tell(mut stream: TcpStream) -> io::Result<Told> {
    let mut first = [0; ENOUGH];
    let seen = stream.peek(&mut first).await?;
    if seen == 0 {
        return Ok(Told::Neither);
    }
    match sniff(&first[..seen]) {
        Sniffed::IceTcp => return Ok(Told::IceTcp(stream, Vec::new())),
        Sniffed::Http | Sniffed::Tls | Sniffed::Unknown => return Ok(Told::Http(stream)),
        Sniffed::NeedMore => {}
    }
    // Whatever follows, this is no HTTP any more: what is read need not be given back.
    let mut read = Vec::with_capacity(ENOUGH);
    loop {
        let missing = ENOUGH - read.len();
        if (&mut stream).take(missing as u64).read_buf(&mut read).await? == 0 {
            return Ok(Told::Neither);
        }
        match sniff(&read) {
            Sniffed::IceTcp => return Ok(Told::IceTcp(stream, read)),
            Sniffed::NeedMore => {}
            Sniffed::Http | Sniffed::Tls | Sniffed::Unknown => return Ok(Told::Neither),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);
    /// A framed Binding request's head, and a bit of what follows.
    const STUN: [u8; 14] = [0, 100, 0, 1, 0, 80, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4];

    struct Rig {
        sink: Sink,
        taken: mpsc::UnboundedReceiver<(TcpStream, Vec<u8>)>,
        client: TcpStream,
        door: TcpStream,
        shutdown: Shutdown,
    }

    async fn rig() -> Rig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (door, _) = listener.accept().await.unwrap();
        let (take, taken) = mpsc::unbounded_channel();
        let take = Arc::new(take);
        let sink = Sink::new(move |stream, _, read| take.send((stream, read.to_vec())).unwrap());
        Rig { sink, taken, client, door, shutdown: Shutdown::new() }
    }

    async fn told(door: TcpStream, sink: &Sink, shutdown: &Shutdown) -> Option<TcpStream> {
        let client = ClientAddr(door.peer_addr().unwrap());
        http(door, client, Some(sink), TIMEOUT, shutdown).await
    }

    #[tokio::test]
    async fn http_gets_its_connection_with_every_byte_still_in_it() {
        let Rig { sink, mut taken, mut client, door, shutdown } = rig().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();

        let mut door = told(door, &sink, &shutdown).await.expect("it is HTTP's");

        let mut bytes = [0; 16];
        door.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"GET / HTTP/1.1\r\n");
        assert!(taken.try_recv().is_err());
    }

    #[tokio::test]
    async fn ice_tcp_is_handed_over_with_every_byte_however_it_comes() {
        for cut in 1..STUN.len() {
            let Rig { sink, mut taken, mut client, door, shutdown } = rig().await;
            client.write_all(&STUN[..cut]).await.unwrap();
            door.readable().await.unwrap();
            let telling = told(door, &sink, &shutdown);
            let rest = async {
                tokio::task::yield_now().await;
                client.write_all(&STUN[cut..]).await.unwrap();
            };
            assert!(tokio::join!(telling, rest).0.is_none());

            let (mut stream, mut bytes) = taken.recv().await.unwrap();
            let mut unread = vec![0; STUN.len() - bytes.len()];
            stream.read_exact(&mut unread).await.unwrap();
            bytes.extend(unread);
            assert_eq!(bytes, STUN, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_only_begins_like_stun_is_closed() {
        let Rig { sink, mut taken, mut client, door, shutdown } = rig().await;
        client.write_all(&STUN[..3]).await.unwrap();
        let telling = told(door, &sink, &shutdown);
        let rest = async {
            tokio::task::yield_now().await;
            client.write_all(b"nonsense").await.unwrap();
        };
        assert!(tokio::join!(telling, rest).0.is_none());
        assert!(taken.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_of_it_is_closed_in_time() {
        for said in [&b""[..], &STUN[..1], &STUN[..ENOUGH - 1]] {
            let Rig { sink, mut taken, mut client, door, shutdown } = rig().await;
            client.write_all(said).await.unwrap();
            let begun = tokio::time::Instant::now();

            assert!(told(door, &sink, &shutdown).await.is_none());

            assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
            assert!(taken.try_recv().is_err());
            // A connection that is closed with unread bytes is reset.
            assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    }

    #[tokio::test]
    async fn a_listener_that_takes_no_ice_tcp_waits_for_nothing() {
        let Rig { client, door, shutdown, .. } = rig().await;
        let peer = ClientAddr(client.local_addr().unwrap());
        assert!(http(door, peer, None, TIMEOUT, &shutdown).await.is_some());
    }

    #[tokio::test]
    async fn a_door_that_ends_does_not_wait_for_silent_clients() {
        let Rig { sink, client, door, shutdown, .. } = rig().await;
        shutdown.stop();
        assert!(told(door, &sink, &shutdown).await.is_none());
        drop(client);
    }
}
