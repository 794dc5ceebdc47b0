//! What the door keeps of a description.

use std::{fmt, net::IpAddr};

/// The ICE credentials of one transport, in one direction.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The user fragment; not secret, but logged hashed only.
    pub ufrag: Box<str>,
    /// The password, which keys the MESSAGE-INTEGRITY of requests to its owner.
    pub pwd: Box<str>,
}

/// What a description says, as far as the relay needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// One entry per user fragment of a section in use; the first is that of the BUNDLE-tagged section, if there is one.
    /// At most [`super::MAX_SECTIONS`].
    pub transports: Vec<Credentials>,
    /// The node's candidates that the relay may use, in order, each once. Empty for what a client said.
    pub candidates: Vec<NodeCandidate>,
    /// The m-sections in order. At most [`super::MAX_SECTIONS`].
    pub media: Vec<Media>,
}

/// A node's candidate that passed: of it only the port is ever used for sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCandidate {
    /// The node's UDP port, inside its permitted range.
    pub port: u16,
    /// What the node wrote as its address, to prefer one candidate over another; never dialled. `None` for a host name.
    pub address: Option<IpAddr>,
    /// The transport that it belongs to: its section's user fragment, or what a trickled candidate says itself.
    pub ufrag: Option<Box<str>>,
}

/// One m-section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// What it carries.
    pub kind: MediaKind,
    /// Its `a=mid`.
    pub mid: Option<Box<str>>,
    /// Index in [`Description::transports`]; `None` for a rejected section.
    pub transport: Option<usize>,
    /// Whether it has candidates of its own: it is BUNDLE-tagged, or in no bundle. Never for a rejected section.
    pub tagged: bool,
}

/// The first word of an `m=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `application`: data channels.
    Application,
    /// Anything else.
    Other,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

impl Description {
    /// Index of the transport that a trickled candidate belongs to: by its user fragment, else by `mid`, else by the
    /// index of its m-section. A fragment that names none of this description's transports is an old generation's.
    pub fn transport_of(&self, ufrag: Option<&str>, mid: Option<&str>, section: Option<usize>) -> Option<usize> {
        if let Some(ufrag) = ufrag {
            return self.transports.iter().position(|one| &*one.ufrag == ufrag);
        }
        let by_mid = mid.and_then(|mid| self.media.iter().find(|media| media.mid.as_deref() == Some(mid)));
        by_mid.or_else(|| self.media.get(section?))?.transport
    }

    /// The peer's credentials for each of this description's transports, in their order, where offer and answer have
    /// sections in common. A transport that an answer has bundled away has the credentials that its section has there.
    pub fn peers<'a>(&self, peer: &'a Self) -> Vec<Option<&'a Credentials>> {
        let peer_of = |index: usize| {
            let carries = |at: &usize| self.media[*at].transport == Some(index) && self.peer_at(peer, *at).is_some();
            let sections = || (0..self.media.len()).filter(carries);
            let at = sections().find(|at| self.media[*at].tagged).or_else(|| sections().next())?;
            self.peer_at(peer, at)
        };
        (0..self.transports.len()).map(peer_of).collect()
    }

    fn peer_at<'a>(&self, peer: &'a Self, section: usize) -> Option<&'a Credentials> {
        peer.transports.get(peer.media.get(section)?.transport?)
    }
}
