//! What goes into a WHIP or WHEP resource and what comes out of it.

use std::time::Duration;

use crate::domain::{relay::ClientKey, signaling::Text};

/// What a client's POST asks for, beside its offer: the query of AMS's own WHIP endpoint, and its token.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// `Authorization: Bearer …`, else `token=`.
    pub token: Option<String>,
    /// `subscriberId`, `subscriberCode`, `subscriberName`, `streamName`, `mainTrack`, `metaData`, `role`, `viewerInfo`:
    /// the fields of AMS's `publish` and `play`, by those names. See [`WISHES`].
    pub fields: Vec<(&'static str, String)>,
}

/// Query parameters that become fields of `publish` or `play`.
pub const WISHES: [&str; 8] =
    ["subscriberId", "subscriberCode", "subscriberName", "streamName", "mainTrack", "metaData", "role", "viewerInfo"];

impl std::fmt::Debug for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tokens and subscriber codes are secrets.
        f.debug_struct("Wish").field("token", &self.token.is_some()).field("fields", &self.fields.len()).finish()
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The session says this to its client.
    Session(Text),
    /// The session has ended.
    SessionEnded,
    /// The client sent a PATCH.
    Patch(Patch),
    /// The client sent a DELETE, or nobody waits for the answer to its POST any more.
    Delete,
    /// The relay tells of the client's media.
    Media(MediaNews),
    /// Time has passed; see [`super::Resource::poll_timeout`].
    Tick,
}

/// A PATCH of `application/trickle-ice-sdpfrag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Its body.
    pub frag: String,
    /// What `If-Match` says.
    pub condition: Condition,
}

/// `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// There is none.
    Absent,
    /// `*`
    Any,
    /// Entity tags, with their quotes. Weak ones never match (RFC 9110 §13.1.1).
    Tags(Vec<String>),
}

/// What the relay sees of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaNews {
    /// A tuple has proven itself.
    Up(ClientKey),
    /// A tuple is gone; `consent` says that its client had been silent for too long.
    Down {
        /// The tuple.
        client: ClientKey,
        /// Whether its client had given no sign of life for 30 s and more.
        consent: bool,
    },
}

/// One effect. After [`Output::End`] nothing follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Say this to the session, as its client.
    ToSession(Text),
    /// Answer the POST, or the oldest PATCH that has no answer yet.
    Reply(Reply),
    /// Close the session's socket; what was said before goes out first. The last output.
    End(End),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 201: the client's session has begun.
    Created {
        /// The answer to its offer.
        sdp: String,
        /// The entity tag of this ICE generation, with its quotes.
        tag: String,
    },
    /// 204: candidates were taken.
    Taken,
    /// 200: ICE begins anew.
    Restarted {
        /// What the other side says, as `application/trickle-ice-sdpfrag`.
        frag: String,
        /// The entity tag of the new ICE generation, with its quotes.
        tag: String,
    },
    /// Anything else.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The offer or fragment cannot be used.
    BadSdp,
    /// AMS does not take the stream's name, or a parameter.
    BadRequest,
    /// A token is needed, and none came.
    Unauthorized,
    /// The token does not do, or the stream may not be published or watched.
    Forbidden,
    /// Nobody publishes the stream; or there is no such resource.
    NotFound,
    /// The offer can receive nothing of what is sent.
    NotAcceptable,
    /// Somebody else publishes the stream.
    InUse,
    /// `If-Match` names another ICE generation.
    Stale,
    /// The offer is larger than a node takes.
    TooLarge,
    /// This resource cannot restart ICE: the node offers, and has no word for being asked to.
    NoRestart,
    /// `If-Match` is needed.
    NoCondition,
    /// No node takes it now, or the door is about to end.
    Busy,
    /// The node did not answer in time, or not in SDP.
    BadNode,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadSdp | Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::NotAcceptable => 406,
            Self::InUse => 409,
            Self::Stale => 412,
            Self::TooLarge => 413,
            Self::NoRestart => 422,
            Self::NoCondition => 428,
            Self::BadNode => 502,
            Self::Busy => 503,
        }
    }

    /// When it is worth asking again.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::NotFound | Self::Busy | Self::BadNode => Some(Duration::from_secs(2)),
            // A record outlives a crashed publisher by up to 20 s (facts/ams.md §2.4).
            Self::InUse => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// For the person who reads the client's log.
    pub fn text(self) -> &'static str {
        match self {
            Self::BadSdp => "the description cannot be used\n",
            Self::BadRequest => "the stream's name or a parameter is not one that the media server takes\n",
            Self::Unauthorized => "a token is needed\n",
            Self::Forbidden => "not allowed\n",
            Self::NotFound => "no such stream is live\n",
            Self::NotAcceptable => "nothing of what is sent can be received with this offer\n",
            Self::InUse => "somebody else publishes this stream\n",
            Self::Stale => "If-Match names another ICE generation\n",
            Self::TooLarge => "the offer is larger than a media server takes\n",
            Self::NoRestart => "this resource cannot restart ICE\n",
            Self::NoCondition => "If-Match is needed\n",
            Self::Busy => "no media server takes it now\n",
            Self::BadNode => "the media server gave no usable answer\n",
        }
    }
}

/// Why a resource ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// By its client's DELETE, or because nobody waited for the POST's answer.
    Deleted,
    /// It never began.
    Refused,
    /// The node says that the stream has ended.
    Finished,
    /// Its node is gone, and neither standard can tell its client of another one.
    Moved,
    /// The client's media has died.
    MediaDied,
    /// The session ended: an operator, or the door's own end.
    SessionEnded,
}

impl End {
    /// The word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Refused => "refused",
            Self::Finished => "finished",
            Self::Moved => "moved",
            Self::MediaDied => "media_died",
            Self::SessionEnded => "session_ended",
        }
    }
}
