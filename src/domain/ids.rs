//! Names and addresses as types: parsed once at the edge, trusted from there on.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

use super::limits::{MAX_APP_NAME, MAX_NODE_ID, MAX_STREAM_ID};

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The name is empty.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than its limit.
    #[error("the name is longer than {0} bytes")]
    TooLong(usize),
    /// A byte is outside the legal set.
    #[error("the name has an illegal character")]
    Illegal,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $legal:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(raw: &str) -> Result<Self, BadName> {
                check_name(raw, $max, $legal)?;
                Ok(Self(raw.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let raw = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                raw.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name! {
    /// An AMS application: the first path segment of every URL.
    AppName, MAX_APP_NAME, |b| b.is_ascii_alphanumeric() || b"_-".contains(&b)
}
name! {
    /// One stream's name inside its app. AMS's own rule (`StreamIdValidator`): `[A-Za-z0-9-_.]`.
    StreamId, MAX_STREAM_ID, |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)
}
name! {
    /// One AMS server, by its configured name or its address; never by `clusternode._id`.
    NodeId, MAX_NODE_ID, |b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)
}
name! {
    /// Where a node stands (an availability zone); nodes in the origin's zone are asked first.
    Zone, MAX_NODE_ID, |b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)
}

fn check_name(raw: &str, max: usize, legal: impl Fn(u8) -> bool) -> Result<(), BadName> {
    if raw.is_empty() {
        return Err(BadName::Empty);
    }
    if raw.len() > max {
        return Err(BadName::TooLong(max));
    }
    if raw.bytes().all(legal) { Ok(()) } else { Err(BadName::Illegal) }
}

/// A stream of one app: what a record is looked up by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// The app, and with it the database.
    pub app: AppName,
    /// The stream's id inside the app.
    pub stream: StreamId,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.stream)
    }
}

/// One client's session, unique inside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = BadName;

    fn from_str(raw: &str) -> Result<Self, BadName> {
        u64::from_str_radix(raw, 16).map(Self).map_err(|_| BadName::Illegal)
    }
}

/// Where a client sends from; never dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

/// Where a node listens for HTTP and WebSocket; never shown to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddr(pub SocketAddr);

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a node does in the cluster. AMS stores none (facts/ams.md, trap 7): configuration says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes publishes; serves edges.
    Origin,
    /// Takes plays; pulls from origins.
    Edge,
    /// Takes either.
    Both,
}

impl Role {
    /// Whether publishes may be placed here.
    pub fn takes_publish(self) -> bool {
        matches!(self, Self::Origin | Self::Both)
    }

    /// Whether plays may be placed here (while the cluster has such nodes at all).
    pub fn takes_play(self) -> bool {
        matches!(self, Self::Edge | Self::Both)
    }

    /// The role as configuration and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Edge => "edge",
            Self::Both => "both",
        }
    }
}

/// What a leg does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The client sends media.
    Publish,
    /// The client receives media.
    Play,
}

impl Kind {
    /// The kind as metrics and the admin API spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_legal_exactly_when_ams_says_so() {
        for legal in ["cam-7", "a", "A.b_c-9"] {
            assert!(legal.parse::<StreamId>().is_ok(), "{legal}");
        }
        for illegal in ["", "a b", "a/b", "ä", "$where", "a\n"] {
            assert!(illegal.parse::<StreamId>().is_err(), "{illegal}");
        }
        assert_eq!("x".repeat(MAX_STREAM_ID + 1).parse::<StreamId>(), Err(BadName::TooLong(MAX_STREAM_ID)));
    }
}
