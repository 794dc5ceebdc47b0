//! Writes an answer to an offer, with the other side's transport in it.

use super::{Common, Pair, offer::Offer};
use crate::domain::sdp::MediaKind;

const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Extensions that name what only their sender knows: its mids and its simulcast layers.
const NAMES: [&str; 3] = [
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
];

/// The client's answer: it receives.
pub(super) fn to_client(client: &Offer<'_>, node: &Offer<'_>, pairs: &[Pair<'_>], setup: &str) -> String {
    let accepted: Vec<_> = pairs.iter().map(|pair| (pair.client, pair)).collect();
    let lead = leader(node, pairs.iter().map(|pair| pair.node));
    Answer { own: client, peer: node, accepted, lead, setup }
        .write(|out, pair| media_for_client(out, client, node, pair))
}

/// The node's answer: it sends.
pub(super) fn to_node(client: &Offer<'_>, node: &Offer<'_>, pairs: &[Pair<'_>], setup: &str) -> String {
    let accepted: Vec<_> = pairs.iter().map(|pair| (pair.node, pair)).collect();
    let lead = leader(client, pairs.iter().map(|pair| pair.client));
    Answer { own: node, peer: client, accepted, lead, setup }.write(|out, pair| media_for_node(out, client, node, pair))
}

/// Of the sections that one side's answer accepts the one whose transport all use: that which leads the offer's bundle,
/// else the first.
fn leader(offer: &Offer<'_>, accepted: impl Iterator<Item = usize>) -> usize {
    accepted.min_by_key(|at| (!offer.description.media[*at].tagged, *at)).unwrap_or_default()
}

struct Answer<'o, 'a> {
    /// What is answered.
    own: &'o Offer<'a>,
    /// Whose transport it gets.
    peer: &'o Offer<'a>,
    /// Sections that are accepted.
    accepted: Vec<(usize, &'o Pair<'a>)>,
    /// The peer's section whose transport it is.
    lead: usize,
    setup: &'o str,
}

impl<'o, 'a> Answer<'o, 'a> {
    fn write(&self, media: impl Fn(&mut Vec<String>, &Pair<'_>)) -> String {
        let mut out = vec!["v=0".to_owned()];
        let origin = self.peer.origin().unwrap_or_else(|| "- 1 1".to_owned());
        out.extend([format!("o={origin} IN IP4 127.0.0.1"), "s=-".to_owned(), "t=0 0".to_owned()]);
        if self.peer.has("ice-lite") {
            out.push("a=ice-lite".to_owned());
        }
        let leader = leader(self.own, self.accepted.iter().map(|(at, _)| *at));
        let mut bundled: Vec<usize> = self.accepted.iter().map(|(at, _)| *at).collect();
        bundled.sort_by_key(|at| (*at != leader, *at));
        let mids: Vec<_> = bundled.iter().filter_map(|at| self.own.sections[*at].mid()).collect();
        if self.own.bundle_of(leader).is_some() && !mids.is_empty() {
            out.push(format!("a=group:BUNDLE {}", mids.join(" ")));
        }
        if self.own.has("extmap-allow-mixed") && self.peer.has("extmap-allow-mixed") {
            out.push("a=extmap-allow-mixed".to_owned());
        }
        out.push("a=msid-semantic: WMS *".to_owned());
        for at in 0..self.own.sections.len() {
            match self.accepted.iter().find(|(own, _)| *own == at) {
                Some((_, pair)) => {
                    self.accept(&mut out, at, pair, leader == at);
                    media(&mut out, pair);
                }
                None => self.reject(&mut out, at),
            }
        }
        out.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect()
    }

    fn accept(&self, out: &mut Vec<String>, at: usize, pair: &Pair<'_>, leads: bool) {
        let section = &self.own.sections[at];
        let formats: Vec<_> = match section.kind {
            MediaKind::Application => vec!["webrtc-datachannel".to_owned()],
            _ => pair.codecs.iter().map(|common| common.client.payload_type.to_string()).collect(),
        };
        out.push(format!("m={} 9 {} {}", section.word, section.protocol, formats.join(" ")));
        out.push("c=IN IP4 0.0.0.0".to_owned());
        if leads {
            out.extend(self.candidates());
        }
        if let Some(credentials) = self.peer.credentials(self.lead) {
            out.extend([format!("a=ice-ufrag:{}", credentials.ufrag), format!("a=ice-pwd:{}", credentials.pwd)]);
        }
        let options = self.peer.inherited(self.lead, "ice-options");
        out.extend(options.first().map(|options| format!("a=ice-options:{options}")));
        out.extend(self.peer.inherited(self.lead, "fingerprint").iter().map(|one| format!("a=fingerprint:{one}")));
        out.push(format!("a=setup:{}", self.setup));
        out.extend(section.mid().map(|mid| format!("a=mid:{mid}")));
    }

    /// The peer's candidates: those of the section that leads there too, else all of them.
    fn candidates(&self) -> Vec<String> {
        let of = |at: usize| {
            let section = self.peer.sections.get(at).into_iter();
            section.flat_map(|section| section.values("candidate")).map(|value| format!("a=candidate:{value}"))
        };
        let mut found: Vec<String> = of(self.lead).collect();
        if found.is_empty() {
            found = (0..self.peer.sections.len()).flat_map(of).collect();
        }
        let mut once: Vec<String> = Vec::new();
        for candidate in found {
            if !once.contains(&candidate) {
                once.push(candidate);
            }
        }
        if self.peer.sections.iter().any(|section| section.has("end-of-candidates")) {
            once.push("a=end-of-candidates".to_owned());
        }
        once
    }

    fn reject(&self, out: &mut Vec<String>, at: usize) {
        let section = &self.own.sections[at];
        let format = section.formats.first().copied().unwrap_or("0");
        out.push(format!("m={} 0 {} {format}", section.word, section.protocol));
        out.push("c=IN IP4 0.0.0.0".to_owned());
        out.extend(section.mid().map(|mid| format!("a=mid:{mid}")));
        if matches!(section.kind, MediaKind::Audio | MediaKind::Video) {
            let map = format.parse().ok().and_then(|format| section.of_format("rtpmap", format).next());
            out.extend(map.map(|map| format!("a=rtpmap:{format} {map}")));
            out.push("a=inactive".to_owned());
        }
    }
}

fn media_for_client(out: &mut Vec<String>, client: &Offer<'_>, node: &Offer<'_>, pair: &Pair<'_>) {
    let there = &node.sections[pair.node];
    if there.kind == MediaKind::Application {
        return data(out, node, pair.node);
    }
    let sends = there.direction().sends;
    rtp(out, client, node, pair, if sends { "sendonly" } else { "inactive" });
    let congestion = counts_packets(client, node, pair);
    for common in &pair.codecs {
        // The client gets back its own parameters, which it knows, and what the sender says of its stream.
        let sprops = common.node.parameters().filter(|(key, _)| key.starts_with("sprop-"));
        let own = common.client.fmtp.split(';').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty());
        let all: Vec<_> = own.chain(sprops.map(|(key, value)| format!("{key}={value}"))).collect();
        codec(out, common, congestion, &all.join(";"));
    }
    if sends {
        out.extend(there.values("msid").map(|value| format!("a=msid:{value}")));
        let repaired = pair.codecs.iter().any(|common| common.client.repairs().is_some());
        let groups = there.values("ssrc-group").filter(|group| repaired && group.starts_with("FID "));
        out.extend(groups.map(|value| format!("a=ssrc-group:{value}")));
        out.extend(there.values("ssrc").map(|value| format!("a=ssrc:{value}")));
    }
}

fn media_for_node(out: &mut Vec<String>, client: &Offer<'_>, node: &Offer<'_>, pair: &Pair<'_>) {
    let section = &node.sections[pair.node];
    if section.kind == MediaKind::Application {
        return data(out, client, pair.client);
    }
    rtp(out, client, node, pair, if section.direction().sends { "recvonly" } else { "inactive" });
    let congestion = counts_packets(client, node, pair);
    for common in &pair.codecs {
        // A video codec has to be the one that was offered, profile and all; of audio, the receiver's wishes count.
        let fmtp = match (section.kind, common.node.repairs()) {
            (_, Some(_)) | (MediaKind::Audio, None) => common.client.fmtp,
            _ => common.node.fmtp,
        };
        codec(out, common, congestion, fmtp);
    }
}

/// What both answers say alike of a media section.
fn rtp(out: &mut Vec<String>, client: &Offer<'_>, node: &Offer<'_>, pair: &Pair<'_>, direction: &str) {
    out.extend(extensions(client, node, pair).iter().map(|(number, name)| format!("a=extmap:{number} {name}")));
    out.push(format!("a={direction}"));
    out.push("a=rtcp-mux".to_owned());
    if client.sections[pair.client].has("rtcp-rsize") && node.sections[pair.node].has("rtcp-rsize") {
        out.push("a=rtcp-rsize".to_owned());
    }
}

/// The extensions that both sides number alike.
fn extensions<'a>(client: &Offer<'a>, node: &Offer<'a>, pair: &Pair<'_>) -> Vec<(&'a str, &'a str)> {
    let there = node.sections[pair.node].extensions();
    let own = client.sections[pair.client].extensions().into_iter();
    own.filter(|one| there.contains(one) && !NAMES.contains(&one.1)).collect()
}

/// Whether `transport-cc` feedback has the packet numbers that it speaks of.
fn counts_packets(client: &Offer<'_>, node: &Offer<'_>, pair: &Pair<'_>) -> bool {
    extensions(client, node, pair).iter().any(|(_, name)| *name == TRANSPORT_CC)
}

fn codec(out: &mut Vec<String>, common: &Common<'_>, congestion: bool, fmtp: &str) {
    let number = common.client.payload_type;
    out.push(format!("a=rtpmap:{number} {}", common.client.map));
    let feedback = common.client.feedback.iter().filter(|one| common.node.feedback.contains(one));
    let feedback = feedback.filter(|one| congestion || **one != "transport-cc");
    out.extend(feedback.map(|one| format!("a=rtcp-fb:{number} {one}")));
    if !fmtp.is_empty() {
        out.push(format!("a=fmtp:{number} {fmtp}"));
    }
}

/// The peer's side of the data channels' association.
fn data(out: &mut Vec<String>, peer: &Offer<'_>, there: usize) {
    for name in ["sctp-port", "max-message-size"] {
        out.extend(peer.sections[there].values(name).next().map(|value| format!("a={name}:{value}")));
    }
}
