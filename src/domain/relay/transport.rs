//! One ICE generation of one BUNDLE transport: whom it belongs to, its keys, its node, its flows.

use std::net::{IpAddr, SocketAddr};

use super::{
    Credentials, POOL_SOCKETS, Refused, TrafficCount, TransportId, TransportSpec, buckets::Bucket, hash::Seeded,
    settings::REMEMBERED, stun::Key,
};
use crate::domain::ids::SessionId;

/// What a client must know to be one.
#[derive(Debug)]
pub(super) struct Client {
    /// Hash of its ufrag.
    pub(super) ufrag: u64,
    /// What it answers checks with.
    credentials: Credentials,
}

impl Client {
    pub(super) fn new(credentials: &Credentials, hash: Seeded) -> Self {
        Self { ufrag: hash.of(credentials.ufrag.as_bytes()), credentials: credentials.clone() }
    }

    /// What it calls itself.
    pub(super) fn named(&self) -> &str {
        &self.credentials.ufrag
    }

    /// What it answers checks with.
    pub(super) fn key(&self) -> Key {
        Key::new(&self.credentials.pwd)
    }
}

/// Whether media flows. Times are nanoseconds of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// The client has not begun a handshake with this node: what it sends may still be for the node before.
    Awaited,
    /// None has been seen.
    Silent,
    /// The latest packet was at `last`.
    Flowing { last: u64 },
    /// There is none since `last`, and it was said.
    Stalled { last: u64 },
}

/// One ICE generation. Times are nanoseconds of the core.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) id: TransportId,
    pub(super) session: SessionId,
    pub(super) line: u32,
    /// The transport of the same leg on the node before.
    pub(super) succeeds: Option<TransportId>,
    /// What the node calls itself, where its client knows it by another name.
    pub(super) masked: Option<Credentials>,
    /// Generations in the order of their opening, over all sessions.
    pub(super) generation: u64,
    pub(super) node: IpAddr,
    pub(super) node_is_lite: bool,
    /// What its client takes for the node's. No key is made ready: requests are few, and a ready key takes 1.2 KB.
    pub(super) server: Credentials,
    pub(super) client: Option<Client>,
    pub(super) backend: Option<SocketAddr>,
    /// The next transport in the chain of those whose server ufrag hashes alike.
    pub(super) next_alike: Option<u32>,
    pub(super) flows: FlowList,
    /// Where the search for a free pool socket begins: a socket rests as long as possible before it is used again.
    pub(super) next_pool: u8,
    /// Since when all that a client needs is known.
    pub(super) ready: Option<u64>,
    pub(super) first_stun: Option<u64>,
    pub(super) first_media: Option<u64>,
    pub(super) nominated: bool,
    /// When the generation ends because a newer one took over.
    pub(super) ends: Option<u64>,
    /// Which requests have passed.
    pub(super) remembered: Remembered,
    /// Bytes per second that pass in either direction, headroom included.
    pub(super) byte_rate: Option<u64>,
    pub(super) bytes_to_node: Bucket,
    pub(super) bytes_to_client: Bucket,
    pub(super) media: Media,
    /// How often it stalled.
    pub(super) stalls: u32,
    pub(super) traffic: TrafficCount,
}

impl Transport {
    pub(super) fn new(spec: &TransportSpec, generation: u64, hash: Seeded, now: u64) -> Self {
        let mut transport = Self {
            id: spec.id,
            session: spec.session,
            line: spec.line,
            succeeds: spec.succeeds.as_ref().map(|before| before.id),
            masked: spec.succeeds.as_ref().map(|_| spec.server.clone()),
            generation,
            node: spec.node.to_canonical(),
            node_is_lite: spec.node_is_lite,
            server: shown(spec).clone(),
            client: spec.client.as_ref().map(|client| Client::new(client, hash)),
            backend: spec.backend_port.map(|port| SocketAddr::new(spec.node.to_canonical(), port)),
            next_alike: None,
            flows: FlowList::default(),
            next_pool: 0,
            ready: None,
            first_stun: None,
            first_media: None,
            nominated: false,
            ends: None,
            remembered: Remembered::default(),
            byte_rate: spec.bytes_per_second.map(|rate| rate.saturating_mul(3) / 2),
            bytes_to_node: Bucket::default(),
            bytes_to_client: Bucket::default(),
            media: if spec.succeeds.is_some() { Media::Awaited } else { Media::Silent },
            stalls: 0,
            traffic: TrafficCount::default(),
        };
        transport.note_ready(now);
        transport
    }

    /// Signalling is done once both the client and the node's port are known.
    pub(super) fn note_ready(&mut self, now: u64) {
        if self.ready.is_none() && self.client.is_some() && self.backend.is_some() {
            self.ready = Some(now);
        }
    }

    /// Whether both belong to one client, this one the newer.
    pub(super) fn follows(&self, older: &Self) -> bool {
        self.session == older.session && self.generation > older.generation
    }
}

/// What the client takes for the node's credentials.
pub(super) fn shown(spec: &TransportSpec) -> &Credentials {
    spec.succeeds.as_ref().map_or(&spec.server, |before| &before.shown)
}

/// The latest requests that passed, by the hash of their transaction: what comes again from a stranger is a copy.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    cells: [u32; REMEMBERED],
    next: usize,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { cells: [0; REMEMBERED], next: 0 }
    }
}

impl Remembered {
    pub(super) fn has(&self, transaction: u64) -> bool {
        self.cells.contains(&Self::cell(transaction))
    }

    pub(super) fn note(&mut self, transaction: u64) {
        // A retransmission must not push others out.
        if !self.has(transaction) {
            self.cells[self.next] = Self::cell(transaction);
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    /// Half of the hash: in a hundred million requests a few are taken for copies, and their senders ask again. Zero is an
    /// empty cell.
    fn cell(transaction: u64) -> u32 {
        ((transaction >> 32) as u32).max(1)
    }
}

/// The flows of one transport, at most one per pool socket.
#[derive(Debug, Default)]
pub(super) struct FlowList {
    cells: [u32; POOL_SOCKETS as usize],
    len: usize,
}

impl FlowList {
    pub(super) fn is_full(&self) -> bool {
        self.len == self.cells.len()
    }

    /// Adds a flow; the caller has made room.
    pub(super) fn push(&mut self, flow: u32) {
        self.cells[self.len] = flow;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, flow: u32) {
        if let Some(at) = self.as_slice().iter().position(|held| *held == flow) {
            self.len -= 1;
            self.cells[at] = self.cells[self.len];
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        &self.cells[..self.len]
    }

    /// The flows by value: the table may change while they are gone through.
    pub(super) fn copied(&self) -> impl Iterator<Item = u32> + use<> {
        self.cells.into_iter().take(self.len)
    }
}

/// RFC 8839 §5.4's lengths. Its alphabet is not insisted on, since some stacks leave it; a colon would end the ufrag
/// inside USERNAME.
pub(super) fn check_credentials(credentials: &Credentials) -> Result<(), Refused> {
    let (ufrag, pwd) = (&*credentials.ufrag, &*credentials.pwd);
    let lengths = (4..=256).contains(&ufrag.len()) && (22..=256).contains(&pwd.len());
    let legal = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if lengths && legal(ufrag) && legal(pwd) && !ufrag.contains(':') { Ok(()) } else { Err(Refused::BadCredentials) }
}

/// Whether a node may stand at this address: anything that names one host.
pub(super) fn check_node(node: IpAddr) -> Result<(), Refused> {
    let node = node.to_canonical();
    let broadcast = matches!(node, IpAddr::V4(v4) if v4.is_broadcast());
    if node.is_unspecified() || node.is_multicast() || broadcast { Err(Refused::BadNode) } else { Ok(()) }
}
