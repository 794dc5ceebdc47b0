//! What happened to one session, in order: a bounded ring of small events, allocated when the first one happens.
//!
//! How a session began says the most about what became of it, so the ring keeps its first events and forgets from the
//! middle; how many it forgot is told.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::{
    balance::{Candidate, Verdict},
    ids::{Kind, NodeId, StreamId},
    reject::Reject,
    relay,
    session::{CloseReason, Fact, LinkLoss, Purpose, RetryCause},
};

/// Events of one session that are kept.
pub const KEPT_EVENTS: usize = 64;
/// Of those, the first ones, which are never forgotten.
const FIRST_EVENTS: usize = 16;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When it happened.
    pub at: Instant,
    /// What happened.
    pub what: What,
}

/// What can happen to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The client asked for something.
    Commanded {
        /// What it wants.
        purpose: Purpose,
        /// Which stream or room, if it named one.
        stream: Option<StreamId>,
    },
    /// A node was chosen.
    Placed(Arc<Chosen>),
    /// No node was chosen.
    NotPlaced {
        /// What it was wanted for.
        purpose: Purpose,
        /// The stream.
        stream: Option<StreamId>,
        /// What the client is told, unless another node is asked.
        reject: Reject,
    },
    /// A link is up.
    Linked {
        /// With which node.
        node: NodeId,
        /// Since it was dialled.
        took: Duration,
    },
    /// A link was lost, or could not be made.
    LinkLost {
        /// With which node.
        node: NodeId,
        /// Why.
        loss: LinkLoss,
    },
    /// A description passed.
    Described {
        /// What the leg is for.
        purpose: Purpose,
        /// The stream.
        stream: StreamId,
        /// It came from the client, not from the node.
        from_client: bool,
        /// An offer, not an answer.
        offer: bool,
    },
    /// A node gave its first answer to a command.
    Answered {
        /// What the leg is for.
        purpose: Purpose,
        /// The node.
        node: NodeId,
        /// Since the client's command.
        took: Duration,
    },
    /// `publish_started` or `play_started`.
    Started {
        /// What the leg does.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The node.
        node: NodeId,
    },
    /// A leg ended.
    Ended {
        /// What the leg did.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// Its node, if it was placed.
        node: Option<NodeId>,
    },
    /// A leg is asked elsewhere.
    Retried {
        /// What the leg is for.
        purpose: Purpose,
        /// Why.
        cause: RetryCause,
    },
    /// A live leg is being re-placed.
    Moving(Kind),
    /// It is on its new node.
    Moved {
        /// What the leg does.
        kind: Kind,
        /// The new node.
        node: NodeId,
        /// How long it took.
        took: Duration,
    },
    /// It could not be moved.
    MoveFailed(Kind),
    /// No other node took a leg that should leave a draining one.
    Stayed {
        /// What the leg is for.
        kind: Kind,
        /// The node.
        node: NodeId,
    },
    /// A moved leg has media again.
    Gap {
        /// What the leg is for.
        kind: Kind,
        /// From the last media to the first.
        gap: Duration,
    },
    /// The door refused something by itself.
    Refused(Reject),
    /// A node refused for want of resources.
    NodeFull(NodeId),
    /// A description could not be relayed.
    BadDescription,
    /// The relay had the client's first authenticated STUN request.
    FirstStun,
    /// The relay passed the first packet of media.
    FirstMedia {
        /// Since the first STUN.
        after: Duration,
    },
    /// Media stopped.
    Stalled,
    /// Media goes on.
    Resumed {
        /// How long there was none.
        after: Duration,
    },
    /// The session ended.
    Closed(CloseReason),
}

/// A placement with what it was chosen from.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// What the leg is for.
    pub purpose: Purpose,
    /// The stream.
    pub stream: Option<StreamId>,
    /// The node.
    pub node: NodeId,
    /// The rule that chose it.
    pub rule: &'static str,
    /// No record stands behind it.
    pub blind: bool,
    /// The best few candidates, the chosen one first.
    pub candidates: Box<[Candidate]>,
    /// How many nodes got each verdict.
    pub tally: Box<[(Verdict, u32)]>,
}

impl What {
    /// What a session's fact is in its story; those that happen at many messages are counted, not told.
    pub(super) fn of_fact(fact: &Fact) -> Option<Self> {
        Some(match fact {
            Fact::Commanded { purpose, stream } => Self::Commanded { purpose: *purpose, stream: stream.clone() },
            Fact::Described { purpose, stream, from_client, offer } => {
                let (purpose, from_client, offer) = (*purpose, *from_client, *offer);
                Self::Described { purpose, stream: stream.clone(), from_client, offer }
            }
            Fact::Answered { purpose, node, took } => {
                Self::Answered { purpose: *purpose, node: node.clone(), took: *took }
            }
            Fact::Started { kind, stream, node } => {
                Self::Started { kind: *kind, stream: stream.clone(), node: node.clone() }
            }
            Fact::Ended { kind, stream, node, .. } => {
                Self::Ended { kind: *kind, stream: stream.clone(), node: node.clone() }
            }
            Fact::LinkLost(node, loss) => Self::LinkLost { node: node.clone(), loss: *loss },
            Fact::NodeFull(node) => Self::NodeFull(node.clone()),
            Fact::Retried(purpose, cause) => Self::Retried { purpose: *purpose, cause: *cause },
            Fact::Moving { kind, .. } => Self::Moving(*kind),
            Fact::Moved { kind, node, took, .. } => Self::Moved { kind: *kind, node: node.clone(), took: *took },
            Fact::MoveFailed { kind, .. } => Self::MoveFailed(*kind),
            Fact::Stayed { kind, node } => Self::Stayed { kind: *kind, node: node.clone() },
            Fact::Gap { kind, gap } => Self::Gap { kind: *kind, gap: *gap },
            Fact::BadDescription(_) => Self::BadDescription,
            Fact::Rejected(reject) => Self::Refused(*reject),
            Fact::Dropped(_) => return None,
        })
    }

    /// What the relay's event is in its session's story.
    pub(super) fn of_media(kind: &relay::EventKind) -> Option<Self> {
        Some(match kind {
            relay::EventKind::FirstStun => Self::FirstStun,
            relay::EventKind::FirstMedia { after } => Self::FirstMedia { after: *after },
            relay::EventKind::Stalled => Self::Stalled,
            relay::EventKind::Resumed { after } => Self::Resumed { after: *after },
            relay::EventKind::Validated { .. }
            | relay::EventKind::Nominated { .. }
            | relay::EventKind::FlowClosed { .. }
            | relay::EventKind::Closed { .. } => return None,
        })
    }

    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Commanded { .. } => "command",
            Self::Placed(_) => "placement",
            Self::NotPlaced { .. } => "not_placed",
            Self::Linked { .. } => "link",
            Self::LinkLost { .. } => "link_lost",
            Self::Described { offer: true, .. } => "offer",
            Self::Described { offer: false, .. } => "answer",
            Self::Answered { .. } => "node_answered",
            Self::Started { .. } => "started",
            Self::Ended { .. } => "ended",
            Self::Retried { .. } => "retried",
            Self::Moving(_) => "moving",
            Self::Moved { .. } => "moved",
            Self::MoveFailed(_) => "move_failed",
            Self::Stayed { .. } => "stayed",
            Self::Gap { .. } => "gap",
            Self::Refused(_) => "refused",
            Self::NodeFull(_) => "node_full",
            Self::BadDescription => "bad_description",
            Self::FirstStun => "first_stun",
            Self::FirstMedia { .. } => "first_media",
            Self::Stalled => "stall",
            Self::Resumed { .. } => "resumed",
            Self::Closed(_) => "close",
        }
    }
}

/// The ring of one session.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Story {
    events: VecDeque<Event>,
    /// Events that were forgotten.
    pub forgotten: u32,
}

impl Story {
    /// The events that are kept, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    pub(super) fn tell(&mut self, what: What, at: Instant) {
        if self.events.len() >= KEPT_EVENTS {
            self.events.remove(FIRST_EVENTS);
            self.forgotten = self.forgotten.saturating_add(1);
        } else if self.events.len() == self.events.capacity() {
            self.events.reserve_exact(GROWTH); // a doubling would cost idle sessions memory that they never use
        }
        self.events.push_back(Event { at, what });
    }
}

/// Room is made for so many events at a time: a plain publish or play has some ten.
const GROWTH: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_long_story_keeps_its_beginning_and_its_end_and_says_what_it_forgot() {
        let (mut story, t0) = (Story::default(), clock::now());
        assert_eq!(story.events.capacity(), 0, "nothing is allocated before something happens");
        for n in 0..200 {
            story.tell(What::Resumed { after: Duration::from_secs(n) }, t0 + Duration::from_secs(n));
        }
        let seconds: Vec<u64> = story.events().map(|event| (event.at - t0).as_secs()).collect();
        assert_eq!(seconds.len(), KEPT_EVENTS);
        assert_eq!(seconds[..FIRST_EVENTS], (0..16).collect::<Vec<u64>>());
        assert_eq!(seconds[FIRST_EVENTS..], (152..200).collect::<Vec<u64>>());
        assert_eq!(story.forgotten, 136);
        assert!(story.events.capacity() <= KEPT_EVENTS + GROWTH);
    }

    #[test]
    fn an_event_is_small() {
        assert!(size_of::<Event>() <= 72, "{}", size_of::<Event>());
    }
}
