//! The network between a test client's media and the door's UDP port, as unkind as a test wants it: it moves the client to
//! another port, loses, doubles and swaps datagrams, listens in, and lets attackers send what it heard.
//!
//! ```text
//! client ─► inner socket ─► outer socket ─► door        (the outer socket is what the door knows as the client)
//! ```
//!
//! A client gets here because [`UdpPath::hook`] puts this path's port into the candidates that it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
};

use super::ams_client::Hook;

/// Largest datagram of a test.
const DATAGRAM: usize = 2048;
/// Datagrams of one kind that are kept; further ones are counted only.
const KEPT: usize = 64;

/// What a datagram is by its first byte (RFC 7983); the test's own reading, not the door's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    StunRequest,
    StunOther,
    Dtls,
    /// RTP and RTCP.
    Media,
    Other,
}

impl Class {
    pub fn of(datagram: &[u8]) -> Self {
        match datagram {
            [0, 1, ..] => Self::StunRequest,
            [0..=3, ..] => Self::StunOther,
            [20..=63, ..] => Self::Dtls,
            [128..=191, ..] => Self::Media,
            _ => Self::Other,
        }
    }
}

/// What came by, of one direction.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub requests: Vec<Vec<u8>>,
    pub dtls: Vec<Vec<u8>>,
    pub media: Vec<Vec<u8>>,
    pub packets: u64,
    pub bytes: u64,
    pub media_bytes: u64,
    /// STUN messages that are not requests.
    pub responses: u64,
    /// When the last media came.
    pub last_media: Option<Instant>,
}

impl Heard {
    pub fn note(&mut self, datagram: &[u8]) {
        self.packets += 1;
        self.bytes += datagram.len() as u64;
        let kept = match Class::of(datagram) {
            Class::StunRequest => &mut self.requests,
            Class::Dtls => &mut self.dtls,
            Class::Media => {
                self.last_media = Some(Instant::now());
                self.media_bytes += datagram.len() as u64;
                &mut self.media
            }
            Class::StunOther => {
                self.responses += 1;
                return;
            }
            Class::Other => return,
        };
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push(datagram.to_vec());
    }
}

/// In parts of a thousand.
#[derive(Debug, Default)]
struct Trouble {
    lose: AtomicU32,
    double: AtomicU32,
    swap: AtomicU32,
}

#[derive(Debug, Default)]
struct Shared {
    to_door: Mutex<Heard>,
    to_client: Mutex<Heard>,
    trouble: Trouble,
}

enum Order {
    Rebind(oneshot::Sender<SocketAddr>),
    Inject(Vec<u8>, oneshot::Sender<()>),
}

/// One client's way to the door; gone when dropped.
pub struct UdpPath {
    door: SocketAddr,
    inner: SocketAddr,
    orders: mpsc::UnboundedSender<Order>,
    shared: Arc<Shared>,
}

impl UdpPath {
    /// A way to `udp://IP:PORT`, as the ready line says it.
    pub async fn to(door: &str) -> Self {
        let door = door.strip_prefix("udp://").expect("a relay").parse().expect("an address");
        let inner = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let outer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let address = inner.local_addr().expect("it is bound");
        let (orders, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let road = Road { door, client: None, inner, outer, shared: Arc::clone(&shared), late: None, back: None };
        tokio::spawn(road.run(received));
        Self { door, inner: address, orders, shared }
    }

    /// What makes a client send here: for [`super::ams_client::Socket::open_with`].
    pub fn hook(&self) -> Hook {
        let (door, inner) = (self.door, self.inner);
        let told = format!(" {} {} typ ", door.ip(), door.port());
        let instead = format!(" {} {} typ ", inner.ip(), inner.port());
        Arc::new(move |text: String| text.replace(&told, &instead))
    }

    /// The client's source port towards the door changes: what the door sends to the old one is lost.
    pub async fn rebind(&self) -> SocketAddr {
        let (done, bound) = oneshot::channel();
        let _ = self.orders.send(Order::Rebind(done));
        bound.await.expect("the path is there")
    }

    /// Sends from the client's own source port.
    pub async fn inject(&self, datagram: &[u8]) {
        let (done, sent) = oneshot::channel();
        let _ = self.orders.send(Order::Inject(datagram.to_vec(), done));
        sent.await.expect("the path is there");
    }

    /// From here on, this many of a thousand datagrams of either direction are lost, come twice, and change places with
    /// the next one.
    pub fn trouble(&self, lose: u32, double: u32, swap: u32) {
        let trouble = &self.shared.trouble;
        for (part, value) in [(&trouble.lose, lose), (&trouble.double, double), (&trouble.swap, swap)] {
            part.store(value, Ordering::Relaxed);
        }
    }

    /// What the client has sent so far.
    pub fn to_door(&self) -> MutexGuard<'_, Heard> {
        self.shared.to_door.lock().expect("nobody panics with it")
    }

    /// What the door has sent to the client's present port so far.
    pub fn to_client(&self) -> MutexGuard<'_, Heard> {
        self.shared.to_client.lock().expect("nobody panics with it")
    }
}

struct Road {
    door: SocketAddr,
    client: Option<SocketAddr>,
    inner: UdpSocket,
    outer: UdpSocket,
    shared: Arc<Shared>,
    /// What waits for the next datagram to overtake it, in either direction.
    late: Option<Vec<u8>>,
    back: Option<Vec<u8>>,
}

impl Road {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let (mut going, mut coming) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Rebind(done)) => {
                        self.outer = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
                        let _ = done.send(self.outer.local_addr().expect("it is bound"));
                    }
                    Some(Order::Inject(datagram, done)) => {
                        let _ = self.outer.send_to(&datagram, self.door).await;
                        let _ = done.send(());
                    }
                    None => return,
                },
                Ok((length, from)) = self.inner.recv_from(&mut going) => {
                    self.client = Some(from);
                    self.shared.to_door.lock().expect("nobody panics with it").note(&going[..length]);
                    for datagram in spoil(&self.shared.trouble, &going[..length], &mut self.late) {
                        let _ = self.outer.send_to(&datagram, self.door).await;
                    }
                }
                Ok((length, from)) = self.outer.recv_from(&mut coming) => {
                    assert_eq!(from, self.door, "only the door's one port speaks to clients");
                    self.shared.to_client.lock().expect("nobody panics with it").note(&coming[..length]);
                    let Some(client) = self.client else { continue };
                    for datagram in spoil(&self.shared.trouble, &coming[..length], &mut self.back) {
                        let _ = self.inner.send_to(&datagram, client).await;
                    }
                }
            }
        }
    }
}

/// What becomes of a datagram on a bad road.
fn spoil(trouble: &Trouble, datagram: &[u8], late: &mut Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let happens = |part: &AtomicU32| fastrand::u32(0..1000) < part.load(Ordering::Relaxed);
    if happens(&trouble.lose) {
        return Vec::new();
    }
    let mut out = vec![datagram.to_vec()];
    if happens(&trouble.double) {
        out.push(datagram.to_vec());
    }
    if late.is_none() && happens(&trouble.swap) {
        *late = out.pop();
    } else {
        out.extend(late.take());
    }
    out
}

/// Somebody else who sends to the door: what it sends, and what comes back to it.
pub struct Attacker {
    socket: UdpSocket,
    door: SocketAddr,
    pub heard: Heard,
    pub sent: u64,
    pub sent_bytes: u64,
}

impl Attacker {
    pub async fn of(path: &UdpPath) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        Self { socket, door: path.door, heard: Heard::default(), sent: 0, sent_bytes: 0 }
    }

    pub async fn send(&mut self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.door).await.expect("loopback takes it");
        self.sent += 1;
        self.sent_bytes += datagram.len() as u64;
        self.read();
    }

    /// Listens for as long as this.
    pub async fn listen(&mut self, limit: Duration) {
        let mut datagram = vec![0; DATAGRAM];
        let until = tokio::time::Instant::now() + limit;
        while let Ok(Ok((length, _))) = tokio::time::timeout_at(until, self.socket.recv_from(&mut datagram)).await {
            self.heard.note(&datagram[..length]);
        }
    }

    fn read(&mut self) {
        let mut datagram = vec![0; DATAGRAM];
        while let Ok((length, _)) = self.socket.try_recv_from(&mut datagram) {
            self.heard.note(&datagram[..length]);
        }
    }
}
