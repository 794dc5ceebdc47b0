//! Tells ICE-TCP connections from all others by their first bytes, and hands them over.

use std::io;

use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::domain::sniff::{ENOUGH, Sniffed, sniff};

/// What a connection turned out to be.
pub(super) enum Spoken {
    /// HTTP's to judge; nothing was read.
    Http(TcpStream),
    /// A TLS handshake; nothing was read.
    Tls(TcpStream),
    /// ICE-TCP, with what was read of it.
    IceTcp(TcpStream, Vec<u8>),
    /// None of them, or closed before it said what.
    Neither,
}

/// Waits for the first bytes and tells what they begin. The wait is the caller's to bound.
pub(super) async fn spoken(mut stream: TcpStream) -> io::Result<Spoken> {
    let mut first = [0; ENOUGH];
    let seen = stream.peek(&mut first).await?;
    if seen == 0 {
        return Ok(Spoken::Neither);
    }
    match sniff(&first[..seen]) {
        Sniffed::IceTcp => return Ok(Spoken::IceTcp(stream, Vec::new())),
        Sniffed::Http | Sniffed::Unknown => return Ok(Spoken::Http(stream)),
        Sniffed::Tls => return Ok(Spoken::Tls(stream)),
        Sniffed::NeedMore => {}
    }
    // Whatever follows, this is no HTTP any more: what is read need not be given back.
    let mut read = Vec::with_capacity(ENOUGH);
    loop {
        let missing = ENOUGH - read.len();
        if (&mut stream).take(missing as u64).read_buf(&mut read).await? == 0 {
            return Ok(Spoken::Neither);
        }
        match sniff(&read) {
            Sniffed::IceTcp => return Ok(Spoken::IceTcp(stream, read)),
            Sniffed::NeedMore => {}
            Sniffed::Http | Sniffed::Tls | Sniffed::Unknown => return Ok(Spoken::Neither),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// A framed Binding request's head, and a bit of what follows.
    const STUN: [u8; 14] = [0, 100, 0, 1, 0, 80, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4];

    /// A client, and its connection as the door has it.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    async fn rest(mut stream: TcpStream, mut read: Vec<u8>, size: usize) -> Vec<u8> {
        let mut unread = vec![0; size - read.len()];
        stream.read_exact(&mut unread).await.unwrap();
        read.extend(unread);
        read
    }

    #[tokio::test]
    async fn http_and_tls_get_their_connection_with_every_byte_still_in_it() {
        for (first, is_tls) in [(&b"GET / HTTP/1.1\r\n"[..], false), (b"\x16\x03\x01\x02\x00\x01", true)] {
            let (mut client, door) = pair().await;
            client.write_all(first).await.unwrap();
            let door = match spoken(door).await.unwrap() {
                Spoken::Http(door) if !is_tls => door,
                Spoken::Tls(door) if is_tls => door,
                _ => panic!("{first:?} is something else"),
            };
            assert_eq!(rest(door, Vec::new(), first.len()).await, first);
        }
    }

    #[tokio::test]
    async fn ice_tcp_is_told_with_every_byte_however_it_comes() {
        for cut in 1..STUN.len() {
            let (mut client, door) = pair().await;
            client.write_all(&STUN[..cut]).await.unwrap();
            door.readable().await.unwrap();
            let later = async {
                tokio::task::yield_now().await;
                client.write_all(&STUN[cut..]).await.unwrap();
            };
            let (told, ()) = tokio::join!(spoken(door), later);
            let Spoken::IceTcp(stream, read) = told.unwrap() else { panic!("cut at {cut}") };
            assert_eq!(rest(stream, read, STUN.len()).await, STUN, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_only_begins_like_stun_is_nothing_and_so_is_silence() {
        let (mut client, door) = pair().await;
        client.write_all(&[0, 100, 0, 1, 0, 81]).await.unwrap();
        client.write_all(&STUN[6..]).await.unwrap();
        assert!(matches!(spoken(door).await.unwrap(), Spoken::Neither | Spoken::Http(_)));
        let (client, door) = pair().await;
        drop(client);
        assert!(matches!(spoken(door).await.unwrap(), Spoken::Neither));
    }
}
