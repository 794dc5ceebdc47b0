//! What goes into a session and what comes out of it.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::RelaySide;

use crate::domain::{
    ids::{Kind, NodeId, StreamId},
    reject::Reject,
    relay,
    sdp::SdpError,
    signaling::Text,
};

/// The settings of every session of one configuration.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// From a command to the node's first answer; inside the SDK's 3 s watchdog.
    pub give_up: Duration,
    /// The same for one node that shows no sign of life, while another one could be asked.
    pub attempt: Duration,
    /// From a moved leg's first re-placement to its confirmation.
    pub confirm: Duration,
    /// The largest message that a node takes (AMS: 80 KiB).
    pub max_to_node: usize,
    /// Legs of one session.
    pub max_legs: usize,
    /// Sustained messages per second of one client; bursts of ten times that pass.
    pub messages_per_second: u32,
    /// Whether a play with `userPublishId` goes to that publish's node.
    pub with_publisher: bool,
    /// The answer to `getIceServerConfig`.
    pub ice_servers: Text,
    /// Media goes through the relay; absent: directly between clients and nodes.
    pub relay: Option<Arc<RelaySide>>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The client sent a text frame.
    Client(Text),
    /// The client sent a binary frame, which AMS signalling does not have.
    ClientBinary,
    /// The client answered a WebSocket ping, or sent one.
    ClientAlive,
    /// The client's socket ended.
    ClientGone(CloseReason),
    /// Placement answered an [`Output::Place`].
    Placed {
        /// The ticket of that output.
        ticket: Ticket,
        /// The node, or what the client shall be told.
        result: Result<Placed, Reject>,
    },
    /// The link to the node is up.
    LinkUp(NodeId),
    /// The link to the node could not be made, or ended.
    LinkDown(NodeId, LinkLoss),
    /// The node sent a text frame.
    Node(NodeId, Text),
    /// Time has passed; see [`super::Session::poll_timeout`].
    Tick,
    /// Somebody else ends the session: an operator, or the door's shutdown.
    Close(CloseReason),
    /// A leg shall leave a node that is being emptied, while the client stays.
    Move {
        /// The node.
        node: NodeId,
        /// The stream.
        stream: StreamId,
        /// What the leg does.
        kind: Kind,
    },
    /// What is left on a node that should be empty by now ends: the client is asked to come again.
    EndOn(NodeId),
    /// The relay saw something of one of the session's transports.
    Media {
        /// The transport.
        transport: relay::TransportId,
        /// What it saw.
        seen: MediaSeen,
    },
    /// The door empties itself: the session ends at a moment of its own within this time.
    EndWithin(Duration),
}

/// What the relay sees of a transport that matters to a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaSeen {
    /// The first media passed.
    First,
    /// It was closed.
    Closed {
        /// How long before that the last media had passed, if any ever had.
        silent: Option<Duration>,
    },
}

/// Why a leg leaves its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MoveCause {
    /// An operator wants the node empty.
    Drain,
    /// The link to it was lost.
    Lost,
    /// It said `server_will_stop`.
    Stopping,
    /// It said that the stream has ended, but the stream goes on elsewhere.
    Finished,
}

impl MoveCause {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Lost => "lost",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
        }
    }
}

/// Where placement has put a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The node.
    pub node: NodeId,
    /// Its address, from the registry: where its media is, whatever an SDP says.
    pub address: IpAddr,
    /// Where the stream of a play is published, if that is known.
    pub origin: Option<NodeId>,
}

/// One effect. After [`Output::Close`] nothing follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a text frame to the client.
    ToClient(Text),
    /// Send the client a WebSocket ping.
    PingClient,
    /// Send a text frame on the link to this node, which is up.
    ToNode(NodeId, Text),
    /// Open a link.
    Dial(NodeId),
    /// Close a link, or give up dialling it; what was sent before goes out first.
    HangUp(NodeId),
    /// Ask placement; it answers with [`Input::Placed`].
    Place(Ticket, Ask),
    /// What placement reserved, or is about to reserve, under this ticket is not needed any more.
    Release(Ticket),
    /// Tell the media relay.
    Relay(relay::Command),
    /// Something worth counting, logging or hinting; changes nothing here.
    Fact(Fact),
    /// End the client's socket. The last output.
    Close(CloseReason),
}

/// One question to placement, unique in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// What placement is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// What the node is wanted for.
    pub purpose: Purpose,
    /// The stream, or the room of a [`Purpose::Room`]; an errand may have none.
    pub stream: Option<StreamId>,
    /// The room that a publish belongs to.
    pub room: Option<StreamId>,
    /// The node of the publish that this play belongs to.
    pub with_publisher: Option<NodeId>,
    /// Nodes that have already failed this leg.
    pub avoid: Vec<NodeId>,
    /// A live leg is re-placed.
    pub is_move: bool,
    /// Its old node still serves it: a place that is not sure is worse than none.
    pub is_served: bool,
    /// The play's node says that the stream has ended: is it coming back?
    pub after_end: Option<AfterEnd>,
    /// When the answer comes too late.
    pub until: Instant,
}

/// What is known of a play whose node says that its stream has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AfterEnd {
    /// Where the stream was published, as far as is known.
    pub origin: Option<NodeId>,
}

/// What a leg is for. Only publishes and plays count as legs outside; the others hold a place on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The client sends media.
    Publish,
    /// The client receives media.
    Play,
    /// Peer-to-peer signalling (`join`).
    Peer,
    /// A conference room (`joinRoom`).
    Room,
    /// A message that concerns no session and only needs some node.
    Errand,
}

impl Purpose {
    /// The kind of a leg that counts.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Publish => Some(Kind::Publish),
            Self::Play => Some(Kind::Play),
            Self::Peer | Self::Room | Self::Errand => None,
        }
    }

    /// Whether SDPs and candidates are exchanged for it.
    pub fn has_media(self) -> bool {
        matches!(self, Self::Publish | Self::Play | Self::Peer)
    }

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Peer => "peer",
            Self::Room => "room",
            Self::Errand => "errand",
        }
    }
}

/// Why a link is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkLoss {
    /// TCP did not connect in time, or was refused.
    Connect,
    /// The node did not upgrade to WebSocket in time, or refused to.
    Handshake,
    /// The node closed it.
    Closed,
    /// Reading or writing failed.
    Io,
    /// The node took no bytes for `limits.write_timeout`.
    Slow,
    /// The node said nothing, not even `pong`.
    Silent,
    /// The node said `server_will_stop`.
    Stopping,
}

impl LinkLoss {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Closed => "closed",
            Self::Io => "io",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Stopping => "stopping",
        }
    }

    /// Whether it speaks against the node's health. A node that stops in good order has said so itself.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Stopping)
    }
}

/// What is worth counting, logging or hinting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The client asked for something new.
    Commanded {
        /// What it wants.
        purpose: Purpose,
        /// Which stream or room, if it named one.
        stream: Option<StreamId>,
    },
    /// A description passes, of a leg that is there.
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
    /// A node gave its first answer to a leg's command.
    Answered {
        /// What the leg is for.
        purpose: Purpose,
        /// The node.
        node: NodeId,
        /// Since the client's command.
        took: Duration,
    },
    /// `publish_started` or `play_started` passed through.
    Started {
        /// What the leg is for.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The node.
        node: NodeId,
    },
    /// A leg ended: stopped, finished or refused.
    Ended {
        /// What the leg was for.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The node that it was on, if it was placed.
        node: Option<NodeId>,
        /// Whether it had started.
        started: bool,
    },
    /// A link was lost.
    LinkLost(NodeId, LinkLoss),
    /// A node refused a leg for want of resources.
    NodeFull(NodeId),
    /// A leg is asked elsewhere.
    Retried(Purpose, RetryCause),
    /// A live leg is being re-placed.
    Moving {
        /// What the leg is for.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The old node.
        from: NodeId,
        /// Why it leaves.
        cause: MoveCause,
    },
    /// A re-placed leg is confirmed by its new node, or by media.
    Moved {
        /// What the leg is for.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The old node.
        from: NodeId,
        /// The new node.
        node: NodeId,
        /// Why it left.
        cause: MoveCause,
        /// Since it began to leave.
        took: Duration,
    },
    /// No other node took a leg that should leave a draining one: it stays there.
    Stayed {
        /// What the leg is for.
        kind: Kind,
        /// The node.
        node: NodeId,
    },
    /// A re-placed leg was not confirmed: the client is asked to come again.
    MoveFailed {
        /// What the leg was for.
        kind: Kind,
        /// The stream.
        stream: StreamId,
        /// The node that it left.
        from: NodeId,
        /// Why it left.
        cause: MoveCause,
    },
    /// A re-placed leg has media again: so long it had none.
    Gap {
        /// What the leg is for.
        kind: Kind,
        /// From the last media to the first.
        gap: Duration,
    },
    /// A description could not be relayed.
    BadDescription(SdpError),
    /// The door refused something by itself.
    Rejected(Reject),
    /// A message was not passed on.
    Dropped(DropCause),
}

/// Why a leg is asked elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryCause {
    /// The link was lost before the node's first answer.
    Link(LinkLoss),
    /// The node refused for a reason of its own.
    Refused,
    /// The node does not know the stream yet.
    NotYet,
}

impl RetryCause {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Link(loss) => loss.as_str(),
            Self::Refused => "refused",
            Self::NotYet => "not_yet",
        }
    }
}

/// Why a message was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropCause {
    /// A repeated `publish` or `play` for a leg in placement: the same leg.
    Repeated,
    /// From a client, for a leg that is not there (the tail of a stopped one).
    NoLeg,
    /// From a node that a leg has left.
    OldNode,
    /// A second `start` before the client's offer.
    LateStart,
    /// A client's words to the old node of a moving leg.
    Moving,
}

impl DropCause {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::NoLeg => "no_leg",
            Self::OldNode => "old_node",
            Self::LateStart => "late_start",
            Self::Moving => "moving",
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed it.
    ClientClosed,
    /// The client's socket broke.
    ClientLost,
    /// The client answered no ping.
    ClientSilent,
    /// The client took no bytes for `limits.write_timeout`.
    ClientSlow,
    /// The client sent faster than `limits.messages_per_second`, or more than is held for a leg in placement.
    TooEager,
    /// The client kept sending what is no message.
    BadMessages,
    /// The client sent a binary frame.
    Binary,
    /// The client broke the WebSocket protocol.
    Protocol,
    /// A message was larger than `signaling.max_message`.
    TooLarge,
    /// A leg could not be moved; the client shall come again.
    MoveFailed,
    /// An operator closed it.
    Admin,
    /// The door shuts down.
    Shutdown,
}

impl CloseReason {
    /// The close code (RFC 6455 §7.4.1); every SDK treats any code alike (facts/clients.md §0.3).
    pub fn code(self) -> u16 {
        match self {
            Self::ClientClosed | Self::ClientLost => 1000,
            Self::ClientSilent | Self::ClientSlow | Self::TooEager | Self::BadMessages => 1008,
            Self::Binary => 1003,
            Self::Protocol => 1002,
            Self::TooLarge => 1009,
            Self::MoveFailed | Self::Admin | Self::Shutdown => 1001,
        }
    }

    /// The word for logs, metrics and the close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientLost => "client_lost",
            Self::ClientSilent => "client_silent",
            Self::ClientSlow => "client_slow",
            Self::TooEager => "too_eager",
            Self::BadMessages => "bad_messages",
            Self::Binary => "binary",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::MoveFailed => "move_failed",
            Self::Admin => "admin",
            Self::Shutdown => "shutdown",
        }
    }
}
