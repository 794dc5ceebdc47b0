//! What the relay counts: plain numbers, read by the thread that owns the core.

use super::FlowState;

/// Why a datagram was dropped. Nobody is told: drops are silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Longer than any datagram that the relay carries.
    Oversized,
    /// Empty, or its first byte is of no protocol that WebRTC has (RFC 7983).
    BadClass,
    /// Not STUN, and of no live flow.
    UnknownTuple,
    /// Of a tuple that ended a moment ago.
    Tombstone,
    /// STUN that breaks its own format or the parser's limits.
    BadStun,
    /// STUN without FINGERPRINT, or with a wrong one.
    BadFingerprint,
    /// STUN that is neither a Binding request nor, on a live flow, the response to a check of the node.
    StunClass,
    /// A request whose USERNAME names no live transport.
    UnknownUfrag,
    /// MESSAGE-INTEGRITY is missing or wrong.
    BadIntegrity,
    /// The source made too many failed attempts: not even parsed.
    SourceLimited,
    /// All sources together made too many failed attempts: not even parsed.
    GlobalLimited,
    /// More authenticated STUN than a client has a use for.
    StunRate,
    /// A request that passed before, from another address: a replay, or a copy of a network's.
    Replayed,
    /// More new tuples than a roaming client makes.
    TupleRate,
    /// All tuples of the transport are live or the pool has no free port.
    TuplesFull,
    /// The thread has as many flows as it may.
    TableFull,
    /// The tuple carries another session's live flow.
    TupleTaken,
    /// The node's port is not known yet.
    NoBackend,
    /// DTLS on a flow that is not validated.
    DtlsBeforeValidation,
    /// Media on a flow that is not validated.
    MediaBeforeValidation,
    /// More bytes than the stream's policy allows.
    ByteRate,
    /// From an address that is no flow's node.
    UnknownNode,
    /// A node's STUN to a tuple that proved nothing, beyond three times what came from there.
    Unproven,
}

impl DropReason {
    /// All reasons, in the order of [`Stats::dropped`]'s cells.
    pub const ALL: [Self; 23] = [
        Self::Oversized,
        Self::BadClass,
        Self::UnknownTuple,
        Self::Tombstone,
        Self::BadStun,
        Self::BadFingerprint,
        Self::StunClass,
        Self::UnknownUfrag,
        Self::BadIntegrity,
        Self::SourceLimited,
        Self::GlobalLimited,
        Self::StunRate,
        Self::Replayed,
        Self::TupleRate,
        Self::TuplesFull,
        Self::TableFull,
        Self::TupleTaken,
        Self::NoBackend,
        Self::DtlsBeforeValidation,
        Self::MediaBeforeValidation,
        Self::ByteRate,
        Self::UnknownNode,
        Self::Unproven,
    ];

    /// The reason as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::BadClass => "bad_class",
            Self::UnknownTuple => "unknown_tuple",
            Self::Tombstone => "tombstone",
            Self::BadStun => "bad_stun",
            Self::BadFingerprint => "bad_fingerprint",
            Self::StunClass => "stun_class",
            Self::UnknownUfrag => "unknown_ufrag",
            Self::BadIntegrity => "bad_integrity",
            Self::SourceLimited => "source_limited",
            Self::GlobalLimited => "global_limited",
            Self::StunRate => "stun_rate",
            Self::Replayed => "replayed",
            Self::TupleRate => "tuple_rate",
            Self::TuplesFull => "tuples_full",
            Self::TableFull => "table_full",
            Self::TupleTaken => "tuple_taken",
            Self::NoBackend => "no_backend",
            Self::DtlsBeforeValidation => "dtls_before_validation",
            Self::MediaBeforeValidation => "media_before_validation",
            Self::ByteRate => "byte_rate",
            Self::UnknownNode => "unknown_node",
            Self::Unproven => "unproven",
        }
    }
}

/// Packets and bytes that were passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Their payload, without IP and UDP headers.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What was passed on, by direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficCount {
    /// From the client to the node.
    pub to_node: Traffic,
    /// From the node to the client.
    pub to_client: Traffic,
}

/// Everything that one relay thread has counted since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// What was passed on.
    pub traffic: TrafficCount,
    /// What was dropped, one cell per [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
    /// Flows now, one cell per [`FlowState::ALL`].
    pub flows: [u64; FlowState::ALL.len()],
    /// Transports now.
    pub transports: u64,
    /// STUN that failed to authenticate (format, FINGERPRINT, USERNAME or MESSAGE-INTEGRITY), of any tuple.
    pub auth_failures: u64,
    /// Flows whose client's description named another ufrag than its STUN had claimed.
    pub claim_mismatches: u64,
    /// Flows ended because another session's node took the same port.
    pub backend_port_reuse: u64,
    /// Transports whose media stalled, each time it did.
    pub stalls: u64,
    /// Events that found their queue full.
    pub events_lost: u64,
}

impl Stats {
    /// How many datagrams were dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// How many flows are in `state` now.
    pub fn flows_in(&self, state: FlowState) -> u64 {
        self.flows[state as usize]
    }
}
