//! One client tuple of one transport, and the private path that its packets take.

use std::net::SocketAddr;

use super::{ClientKey, buckets::Bucket, stun::TransactionId};

/// Checks of the node that a response may still come for. A node checks one path every 48 ms at most, so these
/// cover 380 ms of round trip; an older check is forgotten, and the next one answered.
const OPEN_CHECKS: usize = 8;

/// How far a flow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowState {
    /// Its client sent an authenticated STUN request; that may have been a replay.
    New,
    /// Its client answered the node's check with its own password: it is no replay.
    Validated,
    /// Validated, and chosen by the controlling side.
    Nominated,
}

impl FlowState {
    /// All states, in the order of [`super::Stats::flows`]'s cells.
    pub const ALL: [Self; 3] = [Self::New, Self::Validated, Self::Nominated];

    /// The state as metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Validated => "validated",
            Self::Nominated => "nominated",
        }
    }
}

/// A private socket of the pool and the node's address: what the node sees as one remote candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) pool: u8,
    pub(super) backend: SocketAddr,
}

/// The path of an older generation, on which media still comes until that generation ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct OldPath {
    pub(super) transport: u32,
    pub(super) path: Path,
}

/// One client tuple of one transport. Times are nanoseconds of the core.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) transport: u32,
    pub(super) client: ClientKey,
    pub(super) path: Path,
    pub(super) old: Option<OldPath>,
    pub(super) state: FlowState,
    /// The node answered a check of this tuple with success.
    pub(super) answered: bool,
    /// The controlling side chose this pair; it counts once the flow is validated.
    pub(super) chosen: bool,
    /// Hash of the ufrag that the client's STUN named as its own.
    pub(super) claim: u64,
    pub(super) born: u64,
    pub(super) last_stun: u64,
    pub(super) last_rx: u64,
    pub(super) stun: Bucket,
    /// Bytes of the client and to it while the flow is new.
    pub(super) unproven: Unproven,
    pub(super) checks: Checks,
}

impl Flow {
    pub(super) fn new(transport: u32, client: ClientKey, path: Path, claim: u64, now: u64) -> Self {
        Self {
            transport,
            client,
            path,
            old: None,
            state: FlowState::New,
            answered: false,
            chosen: false,
            claim,
            born: now,
            last_stun: now,
            last_rx: now,
            stun: Bucket::default(),
            unproven: Unproven::default(),
            checks: Checks::default(),
        }
    }

    /// Whether the client proved that it holds its password.
    pub(super) fn is_validated(&self) -> bool {
        self.state != FlowState::New
    }

    /// Whether DTLS and media of the client may pass.
    pub(super) fn may_send(&self) -> bool {
        self.is_validated() || self.answered
    }

    /// Whether nothing may take the flow's place yet.
    pub(super) fn is_live(&self, now: u64, live: u64) -> bool {
        self.is_validated() && now.saturating_sub(self.last_rx) < live
    }
}

/// What a tuple that may be spoofed has sent and been sent: a node's repeated checks must not become an amplifier.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    received: u64,
    sent: u64,
}

impl Unproven {
    /// A request is answered by a response and a check of the node: three times its size lets both through.
    const FACTOR: u64 = 3;

    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    pub(super) fn may_send(&mut self, bytes: usize) -> bool {
        let there = self.sent + bytes as u64 <= Self::FACTOR * self.received;
        if there {
            self.sent += bytes as u64;
        }
        there
    }
}

/// The node's latest checks, with whether each came on the old path.
#[derive(Debug, Default)]
pub(super) struct Checks {
    open: [Option<(TransactionId, bool)>; OPEN_CHECKS],
    next: usize,
}

impl Checks {
    pub(super) fn note(&mut self, id: TransactionId, on_old_path: bool) {
        if self.find(id) == Some(on_old_path) {
            return; // A retransmission must not push others out.
        }
        self.open[self.next] = Some((id, on_old_path));
        self.next = (self.next + 1) % OPEN_CHECKS;
    }

    /// Whether the check came on the old path; `None` when the node asked no such thing.
    pub(super) fn find(&self, id: TransactionId) -> Option<bool> {
        self.open.iter().flatten().find(|(open, _)| *open == id).map(|(_, on_old_path)| *on_old_path)
    }
}
