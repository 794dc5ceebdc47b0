//! All that a client learns about a failure: a word of AMS's vocabulary, never an address or a source chain.

/// A refusal in AMS's own words (`WebSocketConstants`), as SDKs already understand them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// The stream is not live anywhere.
    NoSuchStream,
    /// No node takes it now; SDKs ask again by themselves.
    Busy,
    /// The message names no stream.
    NoStreamId,
    /// The stream id has characters that AMS forbids.
    BadStreamId,
    /// The message is not an object with a `command`, or a field has the wrong type.
    BadMessage,
    /// The command is one that only nodes may send.
    Forbidden,
    /// The message is larger than a node accepts.
    TooLarge,
    /// The description cannot be relayed.
    BadSdp,
}

impl Reject {
    /// AMS's `definition`.
    pub fn definition(self) -> &'static str {
        match self {
            Self::NoSuchStream => "no_stream_exist",
            Self::Busy => "highResourceUsage",
            Self::NoStreamId => "noStreamNameSpecified",
            Self::BadStreamId => "invalidStreamName",
            Self::BadMessage | Self::TooLarge => "missingParameter",
            Self::Forbidden => "unauthorized_access",
            Self::BadSdp => "notSetRemoteDescription",
        }
    }

    /// AMS's `error_code`, which only the missing stream carries.
    pub fn code(self) -> Option<&'static str> {
        matches!(self, Self::NoSuchStream).then_some("404")
    }

    /// AMS's optional `information`, for the person who reads the client's console.
    pub fn information(self) -> Option<&'static str> {
        match self {
            Self::NoSuchStream => Some("stream_not_exist_or_not_streaming"),
            Self::BadMessage => Some("the message is not a JSON object with a command, or a field has the wrong type"),
            Self::TooLarge => Some("the message is larger than a media server accepts (80 KiB)"),
            Self::Forbidden => Some("only servers may send this command"),
            Self::BadSdp => Some("the description has no usable ICE credentials, or is not SDP"),
            Self::Busy | Self::NoStreamId | Self::BadStreamId => None,
        }
    }

    /// The word that labels this refusal in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchStream => "no_such_stream",
            Self::Busy => "busy",
            Self::NoStreamId => "no_stream_id",
            Self::BadStreamId => "bad_stream_id",
            Self::BadMessage => "bad_message",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::BadSdp => "bad_sdp",
        }
    }
}
