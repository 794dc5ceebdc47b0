//! One leg: what the client asked for, and how far it has come.

use std::time::Instant;

use super::{
    io::{Purpose, Ticket},
    media::LegMedia,
};
use crate::domain::{
    ids::{NodeId, StreamId},
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
    pub(super) moving: Option<Moving>,
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
    /// The command is on its way since then.
    Asked { node: NodeId, ticket: Ticket, at: Instant, probed: bool },
    /// The node has answered.
    Answered(NodeId, Ticket),
    /// The node says that media flows.
    Live(NodeId, Ticket),
}

/// The move of a live leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moving {
    pub(super) since: Instant,
    pub(super) confirm_by: Instant,
}

impl Stage {
    pub(super) fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Behind | Self::Placing(_) | Self::Resting(_) => None,
            Self::Dialling(node, _) | Self::Asked { node, .. } | Self::Answered(node, _) | Self::Live(node, _) => {
                Some(node)
            }
        }
    }

    pub(super) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Behind | Self::Resting(_) => None,
            Self::Placing(ticket)
            | Self::Dialling(_, ticket)
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
            Self::Dialling(..) => "dialling",
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

    pub(super) fn is_on(&self, node: &NodeId) -> bool {
        self.stage.node() == Some(node)
    }
}
