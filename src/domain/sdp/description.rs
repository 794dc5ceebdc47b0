//! What the door keeps of a description.

use std::net::IpAddr;

use super::MAX_CANDIDATES;
use crate::domain::relay::Credentials;

/// What a description says, as far as the relay needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// One entry per user fragment of a section in use; the first is that of the BUNDLE-tagged section, if there is one.
    /// At most [`super::MAX_SECTIONS`].
    pub transports: Vec<Credentials>,
    /// The node's candidates that the relay may use, in order, each once, of every section: an offer's sections may each
    /// have a port until the answer bundles them, so [`Description::port_of`] chooses. Empty for what a client said.
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
    /// Index of its m-section; `None` for a trickled one that has not been [added](Description::add).
    pub section: Option<usize>,
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

impl Description {
    /// Keeps a trickled candidate of the m-section with this `mid`, else at this index. False if it says nothing new:
    /// it is there already, is another ICE generation's, has no section in use, or [`MAX_CANDIDATES`] are kept.
    pub fn add(&mut self, mut candidate: NodeCandidate, mid: Option<&str>, section: Option<usize>) -> bool {
        let by_mid = mid.and_then(|mid| self.media.iter().position(|media| media.mid.as_deref() == Some(mid)));
        candidate.section = by_mid.or(section);
        let media = candidate.section.and_then(|at| self.media.get(at));
        let Some(transport) = media.and_then(|media| self.transports.get(media.transport?)) else { return false };
        if candidate.ufrag.get_or_insert_with(|| transport.ufrag.clone()) != &transport.ufrag
            || self.candidates.contains(&candidate)
            || self.candidates.len() >= MAX_CANDIDATES
        {
            return false;
        }
        self.candidates.push(candidate);
        true
    }

    /// The port where the node, whose address is `node`, has the transport at this index: of its candidates with that
    /// very address the first, else the first. Once there is an `answer` to this description, the section that leads
    /// its bundle there decides; before that, or where it has no candidate, the one that leads it here.
    pub fn port_of(&self, transport: usize, answer: Option<&Self>, node: IpAddr) -> Option<u16> {
        let sections = |of: &Self| {
            let leads = |at: &usize| of.media[*at].tagged && self.carries(*at, transport);
            (0..of.media.len()).filter(leads).collect::<Vec<_>>()
        };
        let leading = answer.map(sections).unwrap_or_default().into_iter().chain(sections(self));
        leading.into_iter().find_map(|section| {
            let there = || self.candidates.iter().filter(|one| one.section == Some(section));
            let best = there().find(|one| one.address == Some(node)).or_else(|| there().next())?;
            Some(best.port)
        })
    }

    /// The peer's credentials for each of this description's transports, in their order, where offer and answer have
    /// sections in common. A transport that an answer has bundled away has the credentials that its section has there.
    pub fn peers<'a>(&self, peer: &'a Self) -> Vec<Option<&'a Credentials>> {
        let peer_of = |index: usize| {
            let shared = |at: &usize| self.carries(*at, index) && self.peer_at(peer, *at).is_some();
            let sections = || (0..self.media.len()).filter(shared);
            let at = sections().find(|at| self.media[*at].tagged).or_else(|| sections().next())?;
            self.peer_at(peer, at)
        };
        (0..self.transports.len()).map(peer_of).collect()
    }

    fn carries(&self, section: usize, transport: usize) -> bool {
        self.media.get(section).is_some_and(|media| media.transport == Some(transport))
    }

    fn peer_at<'a>(&self, peer: &'a Self, section: usize) -> Option<&'a Credentials> {
        peer.transports.get(peer.media.get(section)?.transport?)
    }
}
