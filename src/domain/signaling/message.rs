//! What the door understands of a message.

use bytes::Bytes;

use crate::domain::ids::StreamId;

/// One text frame as it came; cheap to clone, never re-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// Text that the program itself holds.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes the payload of a text frame, which the WebSocket layer has found to be UTF-8.
    pub fn from_utf8_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// Why a message could not be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Not JSON, not an object, no `command`, a repeated key, or a needed field of the wrong type.
    #[error("not a JSON object with a command and fields of the right types")]
    Malformed,
    /// The `streamId` has characters that AMS forbids.
    #[error("the streamId is not one that AMS allows")]
    BadStreamId,
}

/// What a client wants, by routing class (facts/ams.md §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCommand {
    /// `publish`: a leg on an origin.
    Publish,
    /// `play`: a leg on an edge.
    Play,
    /// `takeConfiguration` with its SDP type: to the leg's node.
    TakeConfiguration(SdpType),
    /// `takeCandidate`: to the leg's node.
    TakeCandidate,
    /// `stop`: ends the leg, placed or not.
    Stop,
    /// `join`: a peer-to-peer session at the id's home.
    Join,
    /// `joinRoom`: the room's home.
    JoinRoom,
    /// `leave`, `leaveFromRoom`, `peerMessageCommand`, …: where the session or the room is, else nowhere.
    Session,
    /// `enableTrack`, `forceStreamQuality`, …: the node of the play.
    PlaySide,
    /// Reads and writes that concern no session: the node with a leg of the stream, else any edge.
    AnyNode,
    /// `ping`: answered by the door.
    Ping,
    /// `getIceServerConfig`: answered by the door.
    GetIceServerConfig,
    /// What only nodes may send: refused.
    NodeOnly,
    /// A word that the door does not know: treated like [`ClientCommand::AnyNode`].
    Unknown,
}

/// The `type` of a `takeConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpType {
    /// From the publisher's client, or from a node to a player.
    Offer,
    /// The other way round.
    Answer,
    /// Absent or unknown.
    Other,
}

/// One message from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMessage {
    /// Its routing class.
    pub command: ClientCommand,
    /// `streamId`, where the message names one.
    pub stream: Option<StreamId>,
    /// `mainTrack`, else `room`: the room that the message speaks of.
    pub room: Option<StreamId>,
    /// `userPublishId`: the publish of this socket that a conference play belongs to.
    pub user_publish: Option<StreamId>,
    /// Whether a non-empty `token` is in it: one-time tokens are consumed by the first node, also in vain.
    pub has_token: bool,
}

/// What a node says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCommand {
    /// `start`: the publisher may offer.
    Start,
    /// `takeConfiguration` with its SDP type.
    TakeConfiguration(SdpType),
    /// `takeCandidate`.
    TakeCandidate,
    /// `stop` (peer to peer).
    Stop,
    /// `error` with its reading.
    Error(Refusal),
    /// `notification`.
    Notification(Notice),
    /// `pong`.
    Pong,
    /// Anything else: passes.
    Other,
}

/// The notifications that the door reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `publish_started`
    PublishStarted,
    /// `publish_finished`
    PublishFinished,
    /// `play_started`
    PlayStarted,
    /// `play_finished`
    PlayFinished,
    /// `session_restored`: the publisher meets its own session.
    SessionRestored,
    /// `server_will_stop`
    ServerWillStop,
    /// Anything else: passes.
    Other,
}

/// How an error of a node reads before its first answer (facts/ams.md §2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `highResourceUsage`: this node is full.
    Full,
    /// `not_initialized_yet`, `data_store_not_available`: this node is not fit.
    NodeLocal,
    /// `license_suspended…`, `server_error_check_logs`: perhaps this node only; worth one more try.
    Doubtful,
    /// `no_stream_exist`: not there, or not yet (facts/ams.md §5.2).
    NotYet,
    /// `streamIdInUse`, `already_publishing`, `already_playing`: somebody has it there; while a leg moves, that may be the
    /// leg itself, of which the node has not let go.
    InUse,
    /// Everything else reaches the client unchanged.
    Permanent,
}

/// One message from a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeMessage {
    /// What it says.
    pub command: NodeCommand,
    /// `streamId`, where the message names a legal one.
    pub stream: Option<StreamId>,
}
