//! What a relayed leg's descriptions and candidates become on their way, and what the relay is told of them.
//!
//! ```text
//! publish: client's offer ─► to_node ── node's answer ─► to_client, Open ── node's candidate ─► SetBackend, ours instead
//! play:    node's offer ─► to_client, Open ── client's answer ─► to_node, SetClient ── …
//! ```
//!
//! A leg that was moved keeps the ICE credentials that its client knows; the node's own ones are for the relay, which
//! translates. To the client a move is a new fingerprint and nothing else, so that it stays on the path that it has.
//!
//! Clients' candidates are swallowed: the node learns a client's path from its STUN (facts/relay.md §3.3). Nothing here
//! is done where media goes directly, nor for peers of `join`, whose media is not a node's.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

use super::{Output, Purpose, Session};
use crate::domain::{
    relay::{self, Command, TransportId, TransportSpec},
    sdp::{self, Description, NodeCandidate, PublicCandidate, SdpError, Trickled},
    signaling::{Text, replace_string_field, string_field, trickle_place},
};

/// Candidates of a node that came before its description; AMS sends a handful. More are swallowed.
const EARLY_CANDIDATES: usize = 16;

/// How the relay is reached, from both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelaySide {
    /// What clients are told.
    pub public: Vec<PublicCandidate>,
    /// The one candidate that nodes are told, if they are told any.
    pub private: Option<SocketAddr>,
    /// Where nodes bind their media.
    pub node_ports: RangeInclusive<u16>,
}

/// The media of one leg on one node.
#[derive(Debug, Default)]
pub(super) struct LegMedia {
    /// Kept over ICE restarts; a leg on another node has another one.
    line: u32,
    /// What carried the leg on the node before this one.
    before: Option<Before>,
    node: Option<Description>,
    client: Option<Description>,
    early: Vec<(NodeCandidate, Option<String>, Option<usize>)>,
    /// What was opened, oldest first: the node's ufrag, its id, and the port it has.
    open: Vec<Opened>,
    /// The ufrag of the generation whose client has our candidates.
    announced: Option<Box<str>>,
}

#[derive(Debug)]
struct Opened {
    ufrag: Box<str>,
    id: TransportId,
    port: Option<u16>,
    /// What the client takes for the node's credentials.
    shown: relay::Credentials,
    /// The client's ufrag that the relay knows.
    client: Option<Box<str>>,
}

/// What a leg keeps of its media on the node that it has left.
#[derive(Debug, Clone)]
struct Before {
    transport: relay::Predecessor,
    /// The client's ufrag there.
    client: Option<Box<str>>,
}

impl LegMedia {
    /// Takes what is here, for a leg that goes to another node; only what carried it is remembered.
    pub(super) fn leave(&mut self) -> Self {
        let before = if self.open.is_empty() { self.before.clone() } else { self.kept() };
        std::mem::replace(self, Self { before, ..Self::default() })
    }

    /// What the next node takes over: nothing where the leg is not one transport, as AMS bundles it.
    fn kept(&self) -> Option<Before> {
        let is_one = self.node.as_ref().is_some_and(|node| node.transports.len() == 1);
        let Opened { id, shown, client, .. } = self.open.last().filter(|_| is_one)?;
        let transport = relay::Predecessor { id: *id, shown: shown.clone() };
        Some(Before { transport, client: client.clone() })
    }

    /// What a transport with these credentials of its node takes over from the node before. A client that restarts ICE by
    /// itself begins anew.
    fn taken_over(&self, client: Option<&relay::Credentials>) -> Option<relay::Predecessor> {
        let before = self.before.as_ref().filter(|_| self.open.is_empty())?;
        let is_one = self.node.as_ref().is_some_and(|node| node.transports.len() == 1);
        let is_same = client.is_none_or(|client| before.client.as_ref() == Some(&client.ufrag));
        (is_one && is_same).then(|| before.transport.clone())
    }

    pub(super) fn has(&self, transport: TransportId) -> bool {
        self.open.iter().any(|opened| opened.id == transport)
    }
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rewritten {
    /// It passes as it is: nothing of it is the relay's.
    Same,
    /// These pass instead; none, if it is swallowed.
    Instead(Vec<Text>),
    /// Its description cannot be relayed.
    Bad(SdpError),
}

impl Session {
    /// A description from the client, on its way to the leg's node.
    pub(super) fn client_description(&mut self, at: usize, text: &Text) -> Rewritten {
        let Some(side) = self.relay_of(at) else { return Rewritten::Same };
        let Some(sdp) = string_field(text.as_bytes(), "sdp") else { return Rewritten::Same };
        let (sdp, description) = match sdp::to_node(&sdp, side.private) {
            Ok(rewritten) => rewritten,
            Err(error) => return Rewritten::Bad(error),
        };
        let rewritten = with_field(text, "sdp", &sdp);
        let media = &mut self.legs[at].media;
        media.client = Some(description);
        if is_offer(text) {
            // What the node has said answers an earlier offer: this one may bring other credentials.
            media.node = None;
        }
        self.tell_relay(at);
        rewritten
    }

    /// A description from the node, on its way to the client.
    pub(super) fn node_description(&mut self, at: usize, text: &Text) -> Rewritten {
        let Some(side) = self.relay_of(at) else { return Rewritten::Same };
        let Some(sdp) = string_field(text.as_bytes(), "sdp") else { return Rewritten::Same };
        let description = match sdp::to_client(&sdp, &[], &side.node_ports) {
            Ok((_, description)) => description,
            Err(error) => return Rewritten::Bad(error),
        };
        let media = &mut self.legs[at].media;
        if is_offer(text) {
            media.client = None;
        }
        let early = std::mem::take(&mut media.early);
        let node = media.node.insert(description);
        for (candidate, mid, section) in early {
            node.add(candidate, mid.as_deref(), section);
        }
        self.tell_relay(at);
        let media = &mut self.legs[at].media;
        let known = media.open.last().is_some_and(|opened| opened.port.is_some());
        let ours = if known { side.public.as_slice() } else { &[] };
        media.announced = media.open.last().filter(|_| known).map(|opened| opened.ufrag.clone());
        let shown = media.open.last().filter(|opened| opened.ufrag != opened.shown.ufrag).map(|opened| &opened.shown);
        match sdp::to_client(&sdp, ours, &side.node_ports) {
            Ok((sdp, _)) => match shown {
                Some(shown) => with_field(text, "sdp", &sdp::renamed(&sdp, shown)),
                None => with_field(text, "sdp", &sdp),
            },
            Err(error) => Rewritten::Bad(error),
        }
    }

    /// A candidate from the node: the first that can be used becomes ours, all others are swallowed.
    pub(super) fn node_candidate(&mut self, at: usize, text: &Text) -> Rewritten {
        let Some(side) = self.relay_of(at) else { return Rewritten::Same };
        let swallowed = Rewritten::Instead(Vec::new());
        let Some(field) = string_field(text.as_bytes(), "candidate") else { return swallowed };
        let Trickled::Usable(candidate) = sdp::trickled(&field, &side.node_ports) else { return swallowed };
        let (mid, section) = trickle_place(text);
        let media = &mut self.legs[at].media;
        let Some(node) = &mut media.node else {
            if media.early.len() < EARLY_CANDIDATES {
                media.early.push((candidate, mid, section));
            }
            return swallowed;
        };
        if !node.add(candidate, mid.as_deref(), section) {
            return swallowed;
        }
        self.tell_relay(at);
        let media = &mut self.legs[at].media;
        let Some(current) = media.open.last().filter(|opened| opened.port.is_some()) else { return swallowed };
        if media.announced.as_ref() == Some(&current.ufrag) {
            return swallowed;
        }
        media.announced = Some(current.ufrag.clone());
        let lines = sdp::candidate_lines(&side.public, Some(&current.shown.ufrag));
        let texts = lines.iter().filter_map(|line| replace_string_field(text.as_bytes(), "candidate", line));
        Rewritten::Instead(texts.map(|bytes| Text::from_utf8_bytes(bytes.into())).collect())
    }

    /// Whether the client's candidates for this leg are swallowed.
    pub(super) fn swallows_client_candidates(&self, at: usize) -> bool {
        self.relay_of(at).is_some()
    }

    /// The leg's media on its node is over; gives the transports that were open.
    pub(super) fn close_media(&mut self, at: usize) -> Vec<TransportId> {
        let mut media = self.legs[at].media.leave();
        self.close_transports(&mut media)
    }

    pub(super) fn close_transports(&mut self, media: &mut LegMedia) -> Vec<TransportId> {
        let closed: Vec<TransportId> = media.open.drain(..).map(|opened| opened.id).collect();
        for id in &closed {
            self.out(Output::Relay(Command::Close(*id)));
        }
        closed
    }

    fn relay_of(&self, at: usize) -> Option<std::sync::Arc<RelaySide>> {
        let is_relayed = matches!(self.legs[at].purpose, Purpose::Publish | Purpose::Play);
        self.settings.relay.clone().filter(|_| is_relayed)
    }

    /// Opens what is new, and tells what has become known since.
    fn tell_relay(&mut self, at: usize) {
        let Some(address) = self.node_address(at) else { return };
        let media = &self.legs[at].media;
        let Some(node) = &media.node else { return };
        let peers = media.client.as_ref().map(|client| node.peers(client)).unwrap_or_default();
        let known: Vec<_> = (0..node.transports.len())
            .map(|index| {
                let client = peers.get(index).copied().flatten().cloned();
                (node.transports[index].clone(), client, node.port_of(index, media.client.as_ref(), address))
            })
            .collect();
        for (server, client, port) in known {
            self.tell_transport(at, address, server, client, port);
        }
    }

    fn tell_transport(
        &mut self,
        at: usize,
        node: IpAddr,
        server: relay::Credentials,
        client: Option<relay::Credentials>,
        port: Option<u16>,
    ) {
        if let Some(opened) = self.legs[at].media.open.iter_mut().find(|opened| opened.ufrag == server.ufrag) {
            let id = opened.id;
            let moved = port.filter(|port| opened.port != Some(*port));
            opened.port = moved.or(opened.port);
            let client = client.filter(|client| opened.client.as_ref() != Some(&client.ufrag));
            opened.client = client.as_ref().map(|client| client.ufrag.clone()).or_else(|| opened.client.take());
            if let Some(client) = client {
                self.out(Output::Relay(Command::SetClient { id, client }));
            }
            if let Some(port) = moved {
                self.out(Output::Relay(Command::SetBackend { id, port }));
            }
            return;
        }
        self.transports += 1;
        // Unique in the process as the session's own id is, which is random; odd factor: no two of a session coincide.
        let id = TransportId(self.id.0.wrapping_add(u64::from(self.transports)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let media = &mut self.legs[at].media;
        if media.line == 0 {
            media.line = self.transports;
        }
        let (line, succeeds) = (media.line, media.taken_over(client.as_ref()));
        let shown = succeeds.as_ref().map_or(&server, |before| &before.shown).clone();
        let known = client.as_ref().map(|client| client.ufrag.clone());
        media.open.push(Opened { ufrag: server.ufrag.clone(), id, port, shown, client: known });
        if media.open.len() > GENERATIONS {
            let oldest = media.open.remove(0);
            self.out(Output::Relay(Command::Close(oldest.id)));
        }
        let session = self.id;
        self.out(Output::Relay(Command::Open(TransportSpec {
            id,
            session,
            line,
            succeeds,
            node,
            server,
            client,
            backend_port: port,
            node_is_lite: false,
            bytes_per_second: None,
        })));
    }
}

/// Transports of one leg that may be open at a time: two generations of each section that was offered unbundled.
const GENERATIONS: usize = 8;

fn is_offer(text: &Text) -> bool {
    string_field(text.as_bytes(), "type").is_some_and(|kind| &*kind == "offer")
}

fn with_field(text: &Text, field: &str, with: &str) -> Rewritten {
    match replace_string_field(text.as_bytes(), field, with) {
        Some(bytes) => Rewritten::Instead(vec![Text::from_utf8_bytes(bytes.into())]),
        None => Rewritten::Bad(SdpError::Malformed),
    }
}
