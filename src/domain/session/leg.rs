//! One leg: what the client asked for, and how far it has come.

use std::time::Instant;

use super::{
    io::{MoveCause, Purpose, Ticket},
    media::LegMedia,
};
use crate::domain::{
    ids::{NodeId, StreamId},
    relay::TransportId,
    signaling::Text,
};

/// Messages held for a leg until its node has answered; one more closes the session as too eager.
pub(super) const HELD_MESSAGES: usize = 64;
/// Bytes held for a leg; the same answer.
pub(super) const HELD_BYTES: usize = 256 * 1024;

/// A leg, or another reason to hold a place on a node.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) purpose: Purpose,
    /// The stream; the room of a [`Purpose::Room`]; an errand may have none.
    pub(super) stream: Option<StreamId>,
    pub(super) room: Option<StreamId>,
    pub(super) user_publish: Option<StreamId>,
    /// What the client sent, for asking again elsewhere.
    pub(super) command: Text,
    /// A one-time token may be in it, which the first node consumes even in vain.
    pub(super) has_token: bool,
    pub(super) stage: Stage,
    /// Since when it is in its state, for people.
    pub(super) since: Instant,
    pub(super) commanded: Instant,
    pub(super) give_up: Instant,
    /// Nodes that failed this leg, or that it has left.
    pub(super) avoid: Vec<NodeId>,
    /// A doubtful refusal is worth one more try, not two.
    pub(super) doubted: bool,
    /// What a node last refused with: better than the door's own words.
    pub(super) refusal: Option<Text>,
    /// What the client said after the command; kept until the node answers, so that it can be said again elsewhere.
    pub(super) held: Vec<Text>,
    /// The client's ICE user fragment, to tell its candidates from those of another leg of the same stream.
    pub(super) ufrag: Option<Box<str>>,
    /// When the client last sent an SDP for it.
    pub(super) configured: Option<Instant>,
    /// `start` has passed and the client has not offered yet.
    pub(super) start_pending: bool,
    /// The m-section kinds of the node's last offer.
    pub(super) sections: Vec<u8>,
    /// Its descriptions and transports, where media is relayed.
    pub(super) media: LegMedia,
    /// Set while a live leg is re-placed.
    pub(super) moving: Option<Box<Moving>>,
    /// Since when the client has had no media, until it has some again on another node.
    pub(super) gap: Option<Gap>,
    /// The origin of the stream when a play of it was placed.
    pub(super) origin: Option<NodeId>,
}

/// How far a leg has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for the placement of the publish that it belongs to.
    Behind,
    /// Placement was asked.
    Placing(Ticket),
    /// The node does not know the stream yet; asks again then.
    Resting(Instant),
    /// The node is chosen; its link is being dialled.
    Dialling(NodeId, Ticket),
    /// A publish that moves: its new link is up, and its old node was told to stop; it is waited for until then.
    Leaving { node: NodeId, ticket: Ticket, until: Instant },
    /// The command is on its way since then.
    Asked { node: NodeId, ticket: Ticket, at: Instant, probed: bool },
    /// The node has answered.
    Answered(NodeId, Ticket),
    /// The node says that media flows.
    Live(NodeId, Ticket),
}

/// The move of a live leg.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) since: Instant,
    pub(super) confirm_by: Instant,
    pub(super) from: NodeId,
    pub(super) cause: MoveCause,
    /// What still serves it: nothing has been taken from the client yet.
    pub(super) old: Option<Old>,
    /// The old node said that the stream has ended; the client hears it if the stream does not come back.
    pub(super) finished: Option<Text>,
    /// The move was told of; a play that follows its stream moves only once there is somewhere to go.
    pub(super) told: bool,
}

/// A leg as it is on the node that it is about to leave.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) stage: Stage,
    pub(super) media: LegMedia,
    /// The node was told to stop.
    pub(super) told: bool,
}

/// From the last media of one node to the first of the next.
#[derive(Debug)]
pub(super) struct Gap {
    /// When there was media last, as far as is known.
    pub(super) last: Instant,
    /// When these transports were closed.
    pub(super) closed_at: Instant,
    pub(super) closed: Vec<TransportId>,
}

impl Moving {
    pub(super) fn begin(from: NodeId, cause: MoveCause, old: Option<Old>, now: Instant) -> Self {
        Self { since: now, confirm_by: now, from, cause, old, finished: None, told: cause != MoveCause::Finished }
    }
}

impl Stage {
    pub(super) fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Behind | Self::Placing(_) | Self::Resting(_) => None,
            Self::Dialling(node, _)
            | Self::Leaving { node, .. }
            | Self::Asked { node, .. }
            | Self::Answered(node, _)
            | Self::Live(node, _) => Some(node),
        }
    }

    pub(super) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Behind | Self::Resting(_) => None,
            Self::Placing(ticket)
            | Self::Dialling(_, ticket)
            | Self::Leaving { ticket, .. }
            | Self::Asked { ticket, .. }
            | Self::Answered(_, ticket)
            | Self::Live(_, ticket) => Some(*ticket),
        }
    }

    /// Whether the node has answered the command.
    pub(super) fn has_answer(&self) -> bool {
        matches!(self, Self::Answered(..) | Self::Live(..))
    }

    /// Whether the command has reached the node, so that it must be told of a stop.
    pub(super) fn is_known_to_node(&self) -> bool {
        self.has_answer() || matches!(self, Self::Asked { .. })
    }

    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Behind | Self::Placing(_) | Self::Resting(_) => "placing",
            Self::Dialling(..) | Self::Leaving { .. } => "dialling",
            Self::Asked { .. } => "asked",
            Self::Answered(..) => "answered",
            Self::Live(..) => "live",
        }
    }
}

impl Leg {
    /// Keeps `text` for later; false when the bound is reached.
    pub(super) fn hold(&mut self, text: Text) -> bool {
        let bytes: usize = self.held.iter().map(Text::len).sum();
        if self.held.len() >= HELD_MESSAGES || bytes + text.len() > HELD_BYTES {
            return false;
        }
        self.held.push(text);
        true
    }

    /// Begins its placement anew.
    pub(super) fn renew(&mut self, now: Instant, give_up: Instant) {
        self.give_up = give_up;
        self.commanded = now;
        self.doubted = false;
        self.start_pending = false;
        self.refusal = None;
    }

    /// The node that still serves a leg which is about to leave it.
    pub(super) fn old_node(&self) -> Option<&NodeId> {
        self.moving.as_ref()?.old.as_ref()?.stage.node()
    }

    pub(super) fn is_on(&self, node: &NodeId) -> bool {
        self.stage.node() == Some(node)
    }
}
