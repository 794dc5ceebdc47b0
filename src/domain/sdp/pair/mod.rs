//! Two answers from two offers: how a client that offers (WHEP) watches a node that offers (AMS's `play`).
//!
//! ```text
//! client ── offer: its m-lines, mids, payload types, receiving ─┐   ┌─ offer: sending, other m-lines and numbers ── node
//!                                                               ▼   ▼
//! client ◄── the node's credentials, `setup:passive` ───────── pair ──── the client's credentials, `setup:active` ──► node
//! ```
//!
//! Nobody's media is touched: the node encrypts for the client. So both must believe the same about what is on the wire:
//!
//! * Payload types are the client's in both answers. RFC 3264 §6.1 has an offerer send with the numbers of the answer
//!   that it gets, while a receiver insists on its own.
//! * Header extensions pass only where both offers number them alike: an answer must not renumber them (RFC 8285 §6).
//!   The MID extension never does, since the two sides name their sections differently; what arrives is told apart by
//!   the node's `a=ssrc` lines and by payload type.
//! * Both offered, so both believe to be controlling; their tie-breakers settle it end to end (RFC 8445 §7.3.1.1).
//! * All that is accepted shares one transport. What one side has and the other has not is rejected there (port 0).

mod codec;
mod offer;
#[cfg(test)]
mod tests;
mod write;

use codec::{Codec, Fit};
use offer::Offer;

use super::{MediaKind, SdpError};

/// What the two sides are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The answer to the client's offer: in its order, with its mids and payload types.
    pub to_client: String,
    /// The answer to the node's offer: in its order, with its mids and the client's payload types.
    pub to_node: String,
}

/// Why there are no two answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// The client's offer cannot be used at all.
    #[error("the client's offer: {0}")]
    Client(SdpError),
    /// The node's offer cannot be used at all.
    #[error("the node's offer: {0}")]
    Node(SdpError),
    /// No audio or video that the node sends can be received by the client: kinds, codecs or transports differ.
    #[error("the client can receive nothing of what the node sends")]
    NothingInCommon,
}

/// Answers both offers, or says why not. Candidates that stand in either offer stand in the other side's answer.
///
/// # Errors
/// An offer is malformed, or the two have nothing in common.
pub fn answer_both(client: &str, node: &str) -> Result<Answers, Unanswerable> {
    let client = Offer::read(client).map_err(Unanswerable::Client)?;
    let node = Offer::read(node).map_err(Unanswerable::Node)?;
    let pairs = pairs(&client, &node);
    let has_media = pairs.iter().any(|pair| !pair.codecs.is_empty());
    let roles = pairs.first().filter(|_| has_media).and_then(|first| Roles::settle(&client, &node, first));
    let roles = roles.ok_or(Unanswerable::NothingInCommon)?;
    Ok(Answers {
        to_client: write::to_client(&client, &node, &pairs, roles.client),
        to_node: write::to_node(&client, &node, &pairs, roles.node),
    })
}

/// A section of each side that carry the same.
#[derive(Debug)]
struct Pair<'a> {
    client: usize,
    node: usize,
    /// What may be on the wire; empty for data channels.
    codecs: Vec<Common<'a>>,
}

/// A codec that both have.
#[derive(Debug, Clone)]
struct Common<'a> {
    client: Codec<'a>,
    node: Codec<'a>,
}

/// What the answers say as `a=setup`.
#[derive(Debug, Clone, Copy)]
struct Roles {
    client: &'static str,
    node: &'static str,
}

impl Roles {
    /// The client begins the handshake unless either side refuses that.
    fn settle(client: &Offer<'_>, node: &Offer<'_>, pair: &Pair<'_>) -> Option<Self> {
        let (client, node) = (client.setup(pair.client), node.setup(pair.node));
        match () {
            () if client.active && node.passive => Some(Self { client: "passive", node: "active" }),
            () if client.passive && node.active => Some(Self { client: "active", node: "passive" }),
            () => None,
        }
    }
}

/// The sections that belong together, in the client's order: each of the client's takes the first of the node's that is
/// still free and fits. All share the transport of the first pair.
fn pairs<'a>(client: &Offer<'a>, node: &Offer<'a>) -> Vec<Pair<'a>> {
    let mut found: Vec<Pair<'a>> = Vec::new();
    for at in 0..client.sections.len() {
        let pair = (0..node.sections.len())
            .filter(|other| found.iter().all(|pair| pair.node != *other))
            .find_map(|other| pair(client, at, node, other));
        let Some(pair) = pair else { continue };
        let bundles = |pair: &Pair<'_>| client.bundle_of(pair.client).zip(node.bundle_of(pair.node));
        let shares = |first: &Pair<'_>| bundles(first).is_some() && bundles(first) == bundles(&pair);
        if found.first().is_none_or(shares) {
            found.push(pair);
        }
    }
    found
}

fn pair<'a>(client: &Offer<'a>, at: usize, node: &Offer<'a>, other: usize) -> Option<Pair<'a>> {
    let (own, its) = (&client.sections[at], &node.sections[other]);
    client.credentials(at)?;
    node.credentials(other)?;
    if own.kind != its.kind {
        return None;
    }
    let codecs = match own.kind {
        MediaKind::Audio | MediaKind::Video => {
            let fits = own.direction().receives && own.has("rtcp-mux") && its.has("rtcp-mux");
            let codecs = if fits { common(&Codec::all(own), &Codec::all(its)) } else { Vec::new() };
            if codecs.is_empty() {
                return None;
            }
            codecs
        }
        MediaKind::Application => {
            let data = |formats: &[&str]| formats.contains(&"webrtc-datachannel");
            if !data(&own.formats) || !data(&its.formats) {
                return None;
            }
            Vec::new()
        }
        MediaKind::Other => return None,
    };
    Some(Pair { client: at, node: other, codecs })
}

/// What both have, in the node's order of preference, each with its retransmission where both have that.
fn common<'a>(client: &[Codec<'a>], node: &[Codec<'a>]) -> Vec<Common<'a>> {
    let mut found: Vec<Common<'a>> = Vec::new();
    for sent in node.iter().filter(|codec| codec.is_media()) {
        let free = |codec: &&Codec<'a>| {
            codec.is_media() && found.iter().all(|common| common.client.payload_type != codec.payload_type)
        };
        let best = client.iter().filter(free).filter_map(|codec| Some((codec.takes(sent)?, codec)));
        let Some((_, own)) = best.min_by_key(|(fit, _): &(Fit, _)| *fit) else { continue };
        found.push(Common { client: own.clone(), node: sent.clone() });
    }
    let repair = |codecs: &[Codec<'a>], of: u8| codecs.iter().find(|codec| codec.repairs() == Some(of)).cloned();
    let repairs: Vec<_> = found
        .iter()
        .filter_map(|common| {
            let client = repair(client, common.client.payload_type)?;
            Some(Common { client, node: repair(node, common.node.payload_type)? })
        })
        .collect();
    found.extend(repairs);
    found
}
