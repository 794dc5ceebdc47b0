//! How one thread's datagrams are moved: by batches where the system has them, else one by one.
//!
//! What arrives stays where it was received until it has been sent on: nothing is copied and nothing allocated per
//! packet.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

#[cfg(target_os = "linux")]
use super::socket::Batched;
use crate::{domain::relay::POOL_SOCKETS, telemetry::metrics::WireFacts};

/// Sockets of one thread: the public one, then the pool.
pub(super) const SOCKETS: usize = 1 + POOL_SOCKETS as usize;
/// Datagrams that one receive brings; further ones wait for the socket's next turn.
pub(super) const BATCH: usize = 64;
/// Room for one datagram: more than any that the relay passes on, so that a longer one shows.
const SLOT: usize = 2048;
/// What one receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// Datagrams that now wait to be read and forwarded.
    pub(super) datagrams: usize,
    /// The socket had no more: it tells when it has.
    pub(super) drained: bool,
}

/// The fastest way of moving that works here, for the nine sockets of one thread.
pub(super) fn wire(sockets: Vec<UdpSocket>) -> Box<dyn Wire> {
    #[cfg(target_os = "linux")]
    let sockets = match Batched::new(sockets) {
        Ok(batched) => return Box::new(batched),
        Err(sockets) => sockets,
    };
    Box::new(Portable::new(sockets))
}

/// How one thread's sockets are moved from. Sockets are named by their index: 0 is the public one, `1 + k` pool socket
/// `k`.
pub(super) trait Wire: Send {
    /// What to watch for readiness.
    fn descriptors(&self) -> [RawFd; SOCKETS];

    /// Receives up to [`BATCH`] reads of one socket, in place of what was received before. An error of the socket, such
    /// as an ICMP message's, is counted and ends nothing.
    fn receive(&mut self, socket: usize) -> Received;

    /// A datagram of the last receive, with where it came from.
    fn datagram(&self, nth: usize) -> (SocketAddr, &[u8]);

    /// Puts a datagram of the last receive in line, unmodified.
    fn forward(&mut self, nth: usize, socket: usize, to: SocketAddr);

    /// Sends other bytes than were received, at once.
    fn send_other(&mut self, bytes: &[u8], socket: usize, to: SocketAddr);

    /// Sends what stands in line. What the kernel does not take is dropped and counted, as a network would.
    fn flush(&mut self);

    /// What went wrong so far.
    fn facts(&self) -> WireFacts;
}

/// One system call per datagram: works everywhere.
pub(super) struct Portable {
    sockets: Vec<UdpSocket>,
    /// The sockets are of family IPv6 and serve both.
    v6: bool,
    slots: Vec<u8>,
    received: Vec<(SocketAddr, usize)>,
    facts: WireFacts,
}

impl Portable {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> Self {
        assert_eq!(sockets.len(), SOCKETS, "a thread has its public socket and its pool");
        Self {
            v6: sockets[0].local_addr().is_ok_and(|at| at.is_ipv6()),
            sockets,
            slots: vec![0; BATCH * SLOT],
            received: Vec::with_capacity(BATCH),
            facts: WireFacts::default(),
        }
    }
}

impl Wire for Portable {
    fn descriptors(&self) -> [RawFd; SOCKETS] {
        std::array::from_fn(|nth| self.sockets[nth].as_raw_fd())
    }

    fn receive(&mut self, socket: usize) -> Received {
        self.received.clear();
        let mut drained = false;
        for slot in self.slots.chunks_exact_mut(SLOT) {
            match self.sockets[socket].recv_from(slot) {
                Ok((len, from)) => self.received.push((canonical(from), len)),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        drained = true;
                        break;
                    }
                    ErrorKind::Interrupted => {}
                    _ => {
                        self.facts.receive_errors += 1;
                        drained = !passing(&error);
                        break;
                    }
                },
            }
        }
        Received { datagrams: self.received.len(), drained }
    }

    fn datagram(&self, nth: usize) -> (SocketAddr, &[u8]) {
        let (from, len) = self.received[nth];
        (from, &self.slots[nth * SLOT..][..len])
    }

    fn forward(&mut self, nth: usize, socket: usize, to: SocketAddr) {
        let (_, len) = self.received[nth];
        let to = if self.v6 { mapped(to) } else { to };
        let sent = self.sockets[socket].send_to(&self.slots[nth * SLOT..][..len], to);
        note_sent(&mut self.facts, &sent);
    }

    fn send_other(&mut self, bytes: &[u8], socket: usize, to: SocketAddr) {
        let to = if self.v6 { mapped(to) } else { to };
        note_sent(&mut self.facts, &self.sockets[socket].send_to(bytes, to));
    }

    fn flush(&mut self) {}

    fn facts(&self) -> WireFacts {
        self.facts
    }
}

/// Counts what became of one datagram.
pub(super) fn note_sent(facts: &mut WireFacts, sent: &io::Result<usize>) {
    match sent.as_ref().map_err(io::Error::kind) {
        Ok(_) => {}
        Err(ErrorKind::WouldBlock) => facts.send_full += 1,
        Err(_) => facts.send_errors += 1,
    }
}

/// An IPv4 client of an IPv6 socket as what it is.
fn canonical(from: SocketAddr) -> SocketAddr {
    SocketAddr::new(from.ip().to_canonical(), from.port())
}

/// An IPv4 address as an IPv6 socket wants it.
pub(super) fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
        IpAddr::V6(_) => to,
    }
}

/// Whether a socket goes on after this error: an ICMP message's, about something that it sent before.
pub(super) fn passing(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Nine sockets on loopback.
    fn sockets() -> Vec<UdpSocket> {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        std::iter::repeat_with(socket).take(SOCKETS).collect()
    }

    fn addresses(sockets: &[UdpSocket]) -> Vec<SocketAddr> {
        sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
    }

    fn peer() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    /// Each way of moving, with the addresses of its sockets.
    fn wires() -> Vec<(Box<dyn Wire>, Vec<SocketAddr>)> {
        let (first, second) = (sockets(), sockets());
        let at = [addresses(&first), addresses(&second)];
        let both: [Box<dyn Wire>; 2] = [wire(first), Box::new(Portable::new(second))];
        both.into_iter().zip(at).collect()
    }

    fn payload(nth: usize, len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from((nth * 7 + at) % 251).unwrap()).collect()
    }

    /// Receives from socket `from` until it has brought `count`, and forwards all of it.
    fn pass(wire: &mut dyn Wire, from: usize, count: usize, via: usize, to: SocketAddr) {
        let mut passed = 0;
        while passed < count {
            // Loopback delivers before `send` returns: what was sent is there.
            let received = wire.receive(from);
            assert!(received.datagrams > 0, "{passed} of {count} came");
            for nth in 0..received.datagrams {
                wire.forward(nth, via, to);
            }
            wire.flush();
            passed += received.datagrams;
        }
    }

    #[test]
    fn what_comes_goes_on_in_order_byte_for_byte() {
        let lens = [1200, 1200, 1200, 300, 1, 1500, 1500, 40, 1200, 1200];
        for (mut wire, at) in wires() {
            let (client, node) = (peer(), peer());
            for (nth, len) in lens.iter().enumerate() {
                client.send_to(&payload(nth, *len), at[0]).unwrap();
            }

            pass(&mut *wire, 0, lens.len(), 3, node.local_addr().unwrap());

            for (nth, len) in lens.iter().enumerate() {
                let mut bytes = [0; 2048];
                let (got, from) = node.recv_from(&mut bytes).unwrap();
                assert_eq!((&bytes[..got], from), (&payload(nth, *len)[..], at[3]));
            }
            assert_eq!(wire.receive(0), Received { datagrams: 0, drained: true });
            assert_eq!(wire.facts(), WireFacts::default());
        }
    }

    #[test]
    fn a_burst_that_travels_as_one_arrives_as_many() {
        for (mut wire, at) in wires() {
            let (client, node) = (peer(), peer());
            for nth in 0..40 {
                client.send_to(&payload(nth, 1000), at[0]).unwrap();
            }
            // Out of pool socket 1, in one message where the system can, to pool socket 2, and on to the node.
            pass(&mut *wire, 0, 40, 1, at[2]);
            pass(&mut *wire, 2, 40, 4, node.local_addr().unwrap());

            for nth in 0..40 {
                let mut bytes = [0; 2048];
                let (got, from) = node.recv_from(&mut bytes).unwrap();
                assert_eq!((&bytes[..got], from), (&payload(nth, 1000)[..], at[4]));
            }
        }
    }

    #[test]
    fn one_read_is_bounded_and_says_that_there_is_more() {
        for (mut wire, at) in wires() {
            let client = peer();
            for nth in 0..=BATCH {
                client.send_to(&payload(nth, 100 + nth), at[0]).unwrap();
            }
            assert_eq!(wire.receive(0), Received { datagrams: BATCH, drained: false });
            assert_eq!(wire.receive(0), Received { datagrams: 1, drained: true });
        }
    }

    #[test]
    fn an_overlong_datagram_shows_as_one() {
        for (mut wire, at) in wires() {
            peer().send_to(&payload(0, 9000), at[0]).unwrap();
            assert_eq!(wire.receive(0).datagrams, 1);
            assert!(wire.datagram(0).1.len() > 1500);
        }
    }

    #[test]
    fn what_the_kernel_will_not_send_is_counted_and_stops_nothing() {
        for (mut wire, at) in wires() {
            let (client, node) = (peer(), peer());
            for nth in 0..3 {
                client.send_to(&payload(nth, 100), at[0]).unwrap();
            }
            assert_eq!(wire.receive(0).datagrams, 3);
            wire.forward(0, 1, "127.0.0.1:0".parse().unwrap());
            wire.forward(1, 1, "[2001:db8::1]:9".parse().unwrap());
            wire.forward(2, 1, node.local_addr().unwrap());
            wire.flush();

            assert_eq!(node.recv_from(&mut [0; 2048]).unwrap().0, 100);
            assert_eq!(wire.facts().send_errors, 2);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_overflows_the_receive_buffer_is_counted() {
        let sockets = sockets();
        let at = addresses(&sockets);
        socket2::SockRef::from(&sockets[0]).set_recv_buffer_size(4096).unwrap();
        let mut wire = wire(sockets);
        let client = peer();
        for nth in 0..100 {
            client.send_to(&payload(nth, 1000), at[0]).unwrap();
        }
        let kept = wire.receive(0).datagrams;
        // The count comes with the next datagram that finds room.
        client.send_to(&payload(0, 1000), at[0]).unwrap();
        assert_eq!(wire.receive(0).datagrams, 1);
        assert_eq!(wire.facts().receive_overflows, 100 - u64::try_from(kept).unwrap());
    }
}
