//! Clients, nodes and the relay between them.
//!
//! All clients share one socket and all nodes another: a message's source address is chosen as it is sent, so a batch can
//! hold packets of many flows. Client n is 127.1.x.y, node n is 127.2.x.y, senders of junk are 127.3.x.y.

use std::{
    collections::HashMap,
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use forebay::{
    config::Config,
    domain::{
        ids::SessionId,
        relay::{Command, Credentials, DropReason, TransportId, TransportSpec},
    },
    media::Media,
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};
use tokio::runtime::Runtime;

use crate::{
    baseline::Routes,
    batch::{Batch, MESSAGES, Out, Thread},
    stun,
};

pub(crate) const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Longest wait for one datagram of a handshake.
const LIMIT: Duration = Duration::from_secs(5);
/// Half of what the relay waits for a client's consent.
const CONSENT: Duration = Duration::from_secs(15);
/// What every socket here asks for; the kernel grants what it may.
const BUFFER: usize = 8 << 20;
const SERVER_PWD: &str = "server-password-of-22-x";
const CLIENT_PWD: &str = "client-password-of-22-x";

/// A socket with large buffers, on any port.
pub(crate) fn socket(ip: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    let buffers = socket2::SockRef::from(&socket);
    buffers.set_recv_buffer_size(BUFFER)?;
    buffers.set_send_buffer_size(BUFFER)?;
    Ok(socket)
}

/// Where the packets of one flow come from and go to.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    pub(crate) from: Ipv4Addr,
    pub(crate) to: SocketAddrV4,
}

/// Both far ends of all flows.
pub(crate) struct Ends {
    pub(crate) clients: UdpSocket,
    pub(crate) nodes: UdpSocket,
    client_port: u16,
    node_port: u16,
}

impl Ends {
    pub(crate) fn open() -> io::Result<Self> {
        let (clients, nodes) = (socket(Ipv4Addr::UNSPECIFIED)?, socket(Ipv4Addr::UNSPECIFIED)?);
        let (client_port, node_port) = (clients.local_addr()?.port(), nodes.local_addr()?.port());
        Ok(Self { clients, nodes, client_port, node_port })
    }

    pub(crate) fn client(&self, nth: u16) -> SocketAddrV4 {
        SocketAddrV4::new(address(1, nth), self.client_port)
    }

    pub(crate) fn node(&self, nth: u16) -> SocketAddrV4 {
        SocketAddrV4::new(address(2, nth), self.node_port)
    }

    /// Each client's node.
    pub(crate) fn routes(&self, flows: u16) -> Routes {
        (0..flows).map(|nth| (self.client(nth), self.node(nth))).collect()
    }

    /// The first clients, sending to one address.
    pub(crate) fn clients_to(&self, lanes: u16, to: SocketAddrV4) -> Vec<Lane> {
        (0..lanes).map(|nth| Lane { from: *self.client(nth).ip(), to }).collect()
    }

    /// The first nodes, sending to one address.
    pub(crate) fn nodes_to(&self, lanes: u16, to: SocketAddrV4) -> Vec<Lane> {
        (0..lanes).map(|nth| Lane { from: *self.node(nth).ip(), to }).collect()
    }

    /// The first clients, sending straight to their nodes.
    pub(crate) fn direct(&self, lanes: u16) -> Vec<Lane> {
        (0..lanes).map(|nth| Lane { from: *self.client(nth).ip(), to: self.node(nth) }).collect()
    }
}

/// Who sends junk: one of 65,536.
pub(crate) fn stranger(nth: u16) -> Ipv4Addr {
    address(3, nth)
}

fn address(block: u8, nth: u16) -> Ipv4Addr {
    let [high, low] = nth.to_be_bytes();
    Ipv4Addr::new(127, block, high, low)
}

/// A check that names no transport.
pub(crate) fn check_of_nobody(nth: usize) -> Vec<u8> {
    stun::check(&format!("x{nth:05}:y{nth:05}"), false, SERVER_PWD)
}

/// A check of a live transport, signed with another password: the dearest junk there is.
pub(crate) fn forged_check(nth: usize) -> Vec<u8> {
    stun::check(&usernames(nth), false, "another-password-of-22-x")
}

fn usernames(nth: usize) -> String {
    format!("s{nth:05}:c{nth:05}")
}

/// The relay as `serve` runs it, with one thread, and its flows.
pub(crate) struct Relay {
    media: Media,
    shutdown: Shutdown,
    runtime: Runtime,
    /// Where clients send to.
    pub(crate) public: SocketAddrV4,
    pub(crate) thread: Thread,
    batch: Batch,
    checks: Vec<Vec<u8>>,
    refreshed: Instant,
    /// Flows that are validated.
    open: usize,
}

impl Relay {
    /// Starts it without flows; there is room for `flows`.
    pub(crate) fn start(flows: u16) -> Result<Self, Box<dyn std::error::Error>> {
        let text = "[apps]\nLiveApp = {}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nbind = \"127.0.0.1\"\nports = [0]\n\
                    node_ports = \"1-65535\"\n";
        let config = Config::from_toml_str(text).map_err(|problems| format!("{problems:?}"))?.media;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let shutdown = Shutdown::new();
        let media = {
            let _here = runtime.enter();
            Media::start(&config, Metrics::new(), &shutdown)?
        };
        let public = SocketAddrV4::new(LOOPBACK, media.address().port());
        Ok(Self {
            media,
            shutdown,
            runtime,
            public,
            thread: Thread::named("media-0")?,
            batch: Batch::new(256),
            checks: (0..usize::from(flows)).map(|nth| stun::check(&usernames(nth), true, SERVER_PWD)).collect(),
            refreshed: Instant::now(),
            open: 0,
        })
    }

    /// Opens one more flow as a session and its client do: a transport, checks of both sides, nomination.
    pub(crate) fn open_next(&mut self, ends: &Ends) -> io::Result<SocketAddrV4> {
        let (nth, index) = (u16::try_from(self.open).expect("65,536 flows at most"), self.open);
        let (client, node) = (ends.client(nth), ends.node(nth));
        let credentials = |side, pwd: &str| Credentials { ufrag: format!("{side}{nth:05}").into(), pwd: pwd.into() };
        let spec = TransportSpec {
            id: TransportId(nth.into()),
            session: SessionId(nth.into()),
            line: 0,
            succeeds: None,
            node: IpAddr::V4(*node.ip()),
            server: credentials('s', SERVER_PWD),
            client: Some(credentials('c', CLIENT_PWD)),
            backend_port: Some(node.port()),
            node_is_lite: false,
            bytes_per_second: None,
        };
        self.media.command(Command::Open(spec)).map_err(io::Error::other)?;
        let check = std::mem::take(&mut self.checks[index]);
        let pool = self.exchange(&ends.clients, Some(*client.ip()), self.public, &check, &ends.nodes)?;
        self.checks[index] = check;
        let asked = stun::check(&format!("c{nth:05}:s{nth:05}"), false, CLIENT_PWD);
        self.exchange(&ends.nodes, Some(*node.ip()), pool, &asked, &ends.clients)?;
        let answer = stun::answer(CLIENT_PWD);
        self.exchange(&ends.clients, Some(*client.ip()), self.public, &answer, &ends.nodes)?;
        self.open += 1;
        Ok(pool)
    }

    /// Sends one message through the relay and waits for it at the far end; returns what the far end saw as its sender.
    fn exchange(
        &mut self,
        from: &UdpSocket,
        source: Option<Ipv4Addr>,
        to: SocketAddrV4,
        bytes: &[u8],
        at: &UdpSocket,
    ) -> io::Result<SocketAddrV4> {
        self.batch.slot_mut(0)[..bytes.len()].copy_from_slice(bytes);
        self.batch.send(from, &[Out { slot: 0, len: bytes.len(), from: source, to, segment: None }])?;
        at.set_read_timeout(Some(LIMIT))?;
        let mut found = [0; 2048];
        let (len, from) = at.recv_from(&mut found)?;
        match from {
            SocketAddr::V4(from) if found[..len] == *bytes => Ok(from),
            _ => Err(io::Error::new(ErrorKind::InvalidData, "the relay passed on something else")),
        }
    }

    /// Renews the consent of all flows where it is time. What of it reaches the nodes' socket is nobody's packet.
    pub(crate) fn keep_alive(&mut self, ends: &Ends) -> io::Result<()> {
        if self.refreshed.elapsed() < CONSENT {
            return Ok(());
        }
        self.refreshed = Instant::now();
        let open = &self.checks[..self.open];
        for (round, checks) in open.chunks(MESSAGES).enumerate() {
            let mut outs = Vec::with_capacity(MESSAGES);
            for (slot, check) in checks.iter().enumerate() {
                self.batch.slot_mut(slot)[..check.len()].copy_from_slice(check);
                let nth = u16::try_from(round * MESSAGES + slot).expect("65,536 flows at most");
                let from = Some(*ends.client(nth).ip());
                outs.push(Out { slot, len: check.len(), from, to: self.public, segment: None });
            }
            self.batch.send(&ends.clients, &outs)?;
            // Some room in its receive buffer for the next ones.
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// What was dropped so far, by reason, as of half a second ago.
    pub(crate) fn drops(&self) -> HashMap<&'static str, u64> {
        let stats: Vec<_> = self.media.stats().collect();
        let of = |reason: DropReason| stats.iter().map(|stats| stats.dropped(reason)).sum::<u64>();
        DropReason::ALL.iter().map(|reason| (reason.as_str(), of(*reason))).filter(|(_, count)| *count > 0).collect()
    }

    /// Ends it.
    pub(crate) fn finish(self) -> bool {
        self.runtime.block_on(self.shutdown.finish(LIMIT))
    }
}
