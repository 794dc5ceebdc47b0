//! What a STUN server sees the relay's own socket at (RFC 8489 Binding).

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Between two requests, for any may be lost.
const AGAIN: Duration = Duration::from_millis(250);
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;

/// The address and port that the server sees `socket` at, or why there are none. The socket is as it was afterwards.
pub(super) fn ask(server: &str, socket: &UdpSocket, limit: Duration) -> Result<SocketAddr, String> {
    let until = Instant::now() + limit;
    let at = resolve(server, socket, until).ok_or_else(|| format!("the STUN server {server} cannot be found"))?;
    let mapped = mapped(at, socket, until);
    // It was not blocking before, and none of its reads had a limit.
    let restored = socket.set_read_timeout(None).and_then(|()| socket.set_nonblocking(true));
    restored.map_err(|error| format!("the relay's socket: {error}"))?;
    mapped.ok_or_else(|| format!("the STUN server {server} does not answer"))
}

/// Looks the name up on a thread of its own, for that may take longer than there is time.
fn resolve(server: &str, socket: &UdpSocket, until: Instant) -> Option<SocketAddr> {
    let (found, answer) = mpsc::channel();
    let (name, is_v4) = (server.to_owned(), socket.local_addr().ok()?.is_ipv4());
    let lookup = move || {
        let mut addresses = name.to_socket_addrs().into_iter().flatten();
        // Who asked may have gone.
        let _ = found.send(addresses.find(|address| address.is_ipv4() || !is_v4));
    };
    thread::Builder::new().name("stun-server".to_owned()).spawn(lookup).ok()?;
    let address = answer.recv_timeout(until.saturating_duration_since(Instant::now())).ok()??;
    match address.ip() {
        // As an IPv6 socket wants it.
        IpAddr::V4(ip) if !is_v4 => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())),
        _ => Some(address),
    }
}

fn mapped(at: SocketAddr, socket: &UdpSocket, until: Instant) -> Option<SocketAddr> {
    let mut id = [0; 12];
    aws_lc_rs::rand::fill(&mut id).ok()?;
    let request = [&[0, 1, 0, 0][..], &COOKIE, &id].concat();
    socket.set_nonblocking(false).ok()?;
    let mut datagram = [0; 1500];
    while Instant::now() < until {
        socket.send_to(&request, at).ok()?;
        let again = until.min(Instant::now() + AGAIN);
        // What others send meanwhile is not waited for any longer.
        while let Some(left) = again.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            socket.set_read_timeout(Some(left)).ok()?;
            match socket.recv_from(&mut datagram) {
                Ok((length, from)) if from == at => {
                    if let Some(mapped) = answer(&datagram[..length], &id) {
                        return Some(mapped);
                    }
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                // As an ICMP message makes it: the server may still come up.
                Err(_) => thread::sleep(left),
            }
        }
    }
    None
}

/// XOR-MAPPED-ADDRESS of the success response to the request `id`.
fn answer(message: &[u8], id: &[u8; 12]) -> Option<SocketAddr> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    if word(0)? != 0x0101 || message.get(4..8)? != COOKIE || message.get(8..HEADER)? != id {
        return None;
    }
    let mut at = HEADER;
    loop {
        let (kind, length) = (word(at)?, usize::from(word(at + 2)?));
        if kind != XOR_MAPPED_ADDRESS {
            at += 4 + length.next_multiple_of(4);
            continue;
        }
        let value = message.get(at + 4..at + 4 + length)?;
        let port = u16::from_be_bytes(value.get(2..4)?.try_into().ok()?) ^ 0x2112;
        let mask = [&COOKIE[..], id].concat();
        let plain: Vec<u8> = value[4..].iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        let ip = match value[1] {
            1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(plain).ok()?)),
            2 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(plain).ok()?)),
            _ => return None,
        };
        return Some(SocketAddr::new(ip.to_canonical(), port));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIEF: Duration = Duration::from_millis(600);

    /// The answer of a server that sees the asker at `seen`.
    fn seen_at(request: &[u8], seen: SocketAddr) -> Vec<u8> {
        let mask = &request[4..20];
        let (family, plain) = match seen.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let ip: Vec<u8> = plain.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        // Another attribute first, of odd length.
        let mut attributes = vec![0x80, 0x22, 0, 3, b'a', b'b', b'c', 0, 0, 0x20, 0, 4 + ip.len() as u8, 0, family];
        attributes.extend((seen.port() ^ 0x2112).to_be_bytes());
        attributes.extend(ip);
        let length = (attributes.len() as u16).to_be_bytes();
        [&[1, 1][..], &length, mask, &attributes].concat()
    }

    /// What is answered to a request from somewhere.
    type Answer = fn(&[u8], SocketAddr) -> Vec<u8>;

    /// A server that answers the `nth` request as `answer` says.
    fn server(nth: usize, answer: Answer) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let mut request = [0; 1500];
            for count in 1.. {
                let Ok((length, from)) = socket.recv_from(&mut request) else { return };
                if count == nth {
                    let _ = socket.send_to(&answer(&request[..length], from), from);
                }
            }
        });
        at
    }

    fn relay() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn public(port: u16) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 7], port))
    }

    #[test]
    fn the_address_that_the_server_sees_is_told_even_if_a_request_is_lost() {
        for nth in [1, 2] {
            let socket = relay();
            let told = ask(&server(nth, |request, from| seen_at(request, public(from.port()))), &socket, BRIEF);
            assert_eq!(told, Ok(public(socket.local_addr().unwrap().port())));
            let block = socket.recv_from(&mut [0; 10]).unwrap_err();
            assert_eq!(block.kind(), ErrorKind::WouldBlock, "the socket does not block");
        }
        let v6 = |request: &[u8], from: SocketAddr| {
            seen_at(request, SocketAddr::new("2001:db8::7".parse().unwrap(), from.port()))
        };
        assert_eq!(ask(&server(1, v6), &relay(), BRIEF).unwrap().ip(), "2001:db8::7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn silence_garbage_and_answers_to_others_are_none() {
        let begun = Instant::now();
        let others = |request: &[u8], from: SocketAddr| {
            let mut answer = seen_at(request, public(from.port()));
            answer[10] ^= 1;
            answer
        };
        let answers: [Answer; 3] =
            [others, |_, _| vec![1; 40], |request, from| seen_at(request, public(from.port()))[..30].to_vec()];
        for answer in answers {
            assert!(ask(&server(1, answer), &relay(), BRIEF).unwrap_err().contains("does not answer"));
        }
        assert!(ask(&server(99, |_, _| Vec::new()), &relay(), BRIEF).is_err());
        assert!(ask("no such name:3478", &relay(), BRIEF).unwrap_err().contains("cannot be found"));
        assert!(begun.elapsed() < 8 * BRIEF, "{:?}", begun.elapsed());
    }
}
