//! What goes into the core and what comes out of it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{Credentials, DropReason, TrafficCount};
use crate::domain::ids::SessionId;

/// One ICE generation of one BUNDLE transport, unique inside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransportId(pub u64);

/// Where a client's packet came from: the far end of one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientKey {
    /// An address that sends to the public UDP port.
    Udp(SocketAddr),
    /// An ICE-TCP connection; each of its de-framed frames counts as a datagram.
    Tcp {
        /// The connection, unique inside this process.
        conn: u64,
        /// The address at its far end, which failures are blamed on.
        source: IpAddr,
    },
}

impl ClientKey {
    /// The address that failures are blamed on.
    pub fn source(&self) -> IpAddr {
        match self {
            Self::Udp(addr) => addr.ip(),
            Self::Tcp { source, .. } => *source,
        }
    }
}

/// A transport as signalling knows it when the node's description has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportSpec {
    /// Its name from here on.
    pub id: TransportId,
    /// The session that it belongs to and dies with.
    pub session: SessionId,
    /// Which of the session's media transports this is a generation of: one number per leg and BUNDLE group, kept over
    /// ICE restarts. A third generation of a line ends the oldest that carries nothing.
    pub line: u32,
    /// What carried the same leg on the node that it was moved away from, where its client is to stay on its path.
    pub succeeds: Option<Predecessor>,
    /// The node's address, from the registry and never from SDP.
    pub node: IpAddr,
    /// What the node's description says (`server` even where the node answers); clients of a leg that was moved know
    /// [`Predecessor::shown`] instead.
    pub server: Credentials,
    /// What the client's description says, where it has been seen.
    pub client: Option<Credentials>,
    /// The port of the node's candidate, where it has been seen.
    pub backend_port: Option<u16>,
    /// The node is ICE-lite and never checks its clients: its success response validates a tuple. False for AMS.
    pub node_is_lite: bool,
    /// What the stream's policy allows in either direction, in bytes per second; half as much again passes.
    pub bytes_per_second: Option<u64>,
}

/// What a leg had on the node before, and keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predecessor {
    /// The transport that carried it there; it may have ended a moment ago.
    pub id: TransportId,
    /// What its client took for the node's credentials there, and goes on taking for them: the relay translates.
    pub shown: Credentials,
}

/// What sessions tell a relay thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A new transport.
    Open(TransportSpec),
    /// The client's credentials became known, or were confirmed.
    SetClient {
        /// The transport.
        id: TransportId,
        /// What the client's description says.
        client: Credentials,
    },
    /// The node's port became known.
    SetBackend {
        /// The transport.
        id: TransportId,
        /// The port of the node's candidate.
        port: u16,
    },
    /// A transport ends, and its flows with it, at once.
    Close(TransportId),
    /// A session ends, and all its transports with it, at once.
    CloseSession(SessionId),
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The thread has as many transports as it may.
    #[error("the relay has no room for another transport")]
    Full,
    /// The session has as many transports as it may.
    #[error("the session has too many transports")]
    SessionFull,
    /// Too many live transports have this ufrag.
    #[error("too many live transports share one ufrag")]
    UfragTaken,
    /// The id is open already.
    #[error("the transport is open already")]
    Duplicate,
    /// The node's address is unspecified, multicast or broadcast.
    #[error("the node's address cannot be sent to")]
    BadNode,
    /// The node's port is outside the permitted range.
    #[error("the node's port is outside the permitted range")]
    BadPort,
    /// A ufrag or password breaks RFC 8839's lengths.
    #[error("the credentials break RFC 8839")]
    BadCredentials,
    /// No such transport is open: it ended meanwhile.
    #[error("no such transport is open")]
    Unknown,
}

/// What to do with one datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it unmodified from this pool socket to this node.
    ToNode {
        /// Index of the pool socket, below [`super::POOL_SOCKETS`].
        pool: u8,
        /// The session's node.
        to: SocketAddr,
    },
    /// Send it unmodified to this client.
    ToClient(ClientKey),
    /// Send [`super::Core::translated`] in its place, from this pool socket to this node.
    TranslatedToNode {
        /// Index of the pool socket, below [`super::POOL_SOCKETS`].
        pool: u8,
        /// The session's node.
        to: SocketAddr,
    },
    /// Send [`super::Core::translated`] in its place to this client.
    TranslatedToClient(ClientKey),
    /// Forget it, without an answer.
    Drop(DropReason),
}

/// A check that the relay sends in a client's name: see [`super::Core::poll_nomination`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomination {
    /// Index of the pool socket, below [`super::POOL_SOCKETS`].
    pub pool: u8,
    /// The session's node.
    pub to: SocketAddr,
    /// The message.
    pub bytes: Vec<u8>,
}

/// Something that a session or an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The transport that it happened to.
    pub transport: TransportId,
    /// The transport's session.
    pub session: SessionId,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The first authenticated STUN request arrived.
    FirstStun,
    /// A tuple proved that it holds the client's password.
    Validated {
        /// The tuple.
        client: ClientKey,
    },
    /// A validated tuple was nominated.
    Nominated {
        /// The tuple.
        client: ClientKey,
    },
    /// The first RTP packet passed on a validated flow, in either direction.
    FirstMedia {
        /// Since the first authenticated STUN request.
        after: Duration,
    },
    /// Media had flowed and none has for [`super::RelaySettings::stall`].
    Stalled,
    /// Media flows again.
    Resumed {
        /// How long there was none.
        after: Duration,
    },
    /// A flow ended; an ICE-TCP connection has no further use.
    FlowClosed {
        /// Its tuple.
        client: ClientKey,
        /// Why it ended.
        reason: FlowEnd,
    },
    /// The transport ended, after its flows.
    Closed {
        /// Why it ended.
        reason: TransportEnd,
        /// How long before its end the last media had passed, if any ever had.
        silent: Option<Duration>,
        /// All that it passed on.
        traffic: TrafficCount,
    },
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowEnd {
    /// Its transport ended.
    Closed,
    /// No authenticated STUN for too long.
    Consent,
    /// A newer tuple took its place.
    Replaced,
    /// Its client moved to another tuple, which took its path over.
    Moved,
    /// The client's description named another ufrag than its STUN had claimed.
    ClaimMismatch,
    /// Another session's node uses the same port now.
    BackendReused,
    /// The far end hung up (ICE-TCP).
    HungUp,
}

impl FlowEnd {
    /// The reason as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Consent => "consent",
            Self::Replaced => "replaced",
            Self::Moved => "moved",
            Self::ClaimMismatch => "claim_mismatch",
            Self::BackendReused => "backend_reused",
            Self::HungUp => "hung_up",
        }
    }
}

/// Why a transport ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportEnd {
    /// The session said so.
    Closed,
    /// A newer generation took over.
    Superseded,
    /// No client authenticated in time.
    HalfOpen,
}

impl TransportEnd {
    /// The reason as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Superseded => "superseded",
            Self::HalfOpen => "half_open",
        }
    }
}
