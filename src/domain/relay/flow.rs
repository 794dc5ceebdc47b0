//! One client tuple of one transport, and the private path that its packets take.

use std::net::SocketAddr;

use super::{ClientKey, buckets::Bucket, core::nanos, settings::UNANSWERED, stun::TransactionId};

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

/// How far a flow has come that a leg brought from the node before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heritage {
    /// It is no such flow, or one like all others by now.
    None,
    /// The node has not been heard there.
    Untried,
    /// It has, and its check was not answered yet.
    Tried,
}

/// A private socket of the pool and the node's address: what the node sees as one remote candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) pool: u8,
    pub(super) backend: SocketAddr,
}

/// Another path that leads to the same client: of an older generation, on which media still comes until that generation
/// ends, or of this one, from before the client took over the path of a tuple that it left.
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
    /// The client is who chose it.
    pub(super) chosen_by_client: bool,
    pub(super) heritage: Heritage,
    /// Hash of the ufrag that the client's STUN named as its own.
    pub(super) claim: u64,
    pub(super) born: u64,
    pub(super) last_stun: u64,
    pub(super) last_rx: u64,
    /// When its client last answered a check of the node.
    pub(super) proved: u64,
    /// Since when the node's checks have gone unanswered.
    pub(super) asked: Option<u64>,
    /// When the node last sent payload although nobody answered its checks.
    pub(super) fed: u64,
    /// The node's last check was offered to another tuple.
    pub(super) offered: bool,
    /// How many checks of a deserted tuple this one was offered.
    pub(super) offers: u8,
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
            chosen_by_client: false,
            heritage: Heritage::None,
            claim,
            born: now,
            last_stun: now,
            last_rx: now,
            proved: now,
            asked: None,
            fed: 0,
            offered: false,
            offers: 0,
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

    /// Whether nobody has answered the node there for so long that nobody seems to be there.
    pub(super) fn is_unanswered(&self, now: u64) -> bool {
        self.asked.is_some_and(|asked| now.saturating_sub(asked) >= nanos(UNANSWERED))
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

/// Where the node sent a check that its client may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// On the flow's own path.
    Here,
    /// On its old path.
    OnOldPath,
    /// On the path of a deserted tuple, whose place the client may want to take.
    InPlaceOfAnother,
}

/// The node's latest checks, with where each was asked.
#[derive(Debug, Default)]
pub(super) struct Checks {
    open: [Option<(TransactionId, Asked)>; OPEN_CHECKS],
    next: u8,
}

impl Checks {
    pub(super) fn note(&mut self, id: TransactionId, asked: Asked) {
        if self.find(id) == Some(asked) {
            return; // A retransmission must not push others out.
        }
        self.open[usize::from(self.next)] = Some((id, asked));
        self.next = (self.next + 1) % OPEN_CHECKS as u8;
    }

    /// Where the check was asked; `None` when the node asked no such thing.
    pub(super) fn find(&self, id: TransactionId) -> Option<Asked> {
        self.open.iter().flatten().find(|(open, _)| *open == id).map(|(_, asked)| *asked)
    }

    /// The flow's path is its old one from here on, and the old one its path.
    pub(super) fn change_paths(&mut self) {
        for (_, asked) in self.open.iter_mut().flatten() {
            *asked = match *asked {
                Asked::Here => Asked::OnOldPath,
                Asked::OnOldPath => Asked::Here,
                Asked::InPlaceOfAnother => Asked::InPlaceOfAnother,
            };
        }
    }
}
