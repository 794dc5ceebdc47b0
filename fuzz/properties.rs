//! What must hold for every input, shared by the fuzz targets and by the replay of their corpora on stable Rust.
//!
//! Each function takes raw bytes and panics where a promise is broken.

use std::{collections::BTreeMap, net::SocketAddr};

use forebay::domain::{
    sdp::{self, Description, PublicCandidate, Transport},
    signaling::{self, BadMessage, ClientCommand, NodeCommand, Text},
};
use serde_json::value::RawValue;

/// A text frame from a client: whatever is accepted has the same command and ids for another reader of JSON.
pub(crate) fn client_message(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else {
        return; // the WebSocket layer closes a text frame that is not UTF-8
    };
    let text = Text::from(raw.to_owned());
    let decoded = signaling::decode_client(&text);
    side_readings(&text);
    assert_eq!(decoded, signaling::decode_client(&text), "decoding has no memory");
    assert_eq!(text.as_bytes(), bytes, "a message is passed on byte for byte");
    let message = match decoded {
        Ok(message) => message,
        Err(BadMessage::Malformed | BadMessage::BadStreamId) => return,
    };
    let fields = fields(raw);
    let command = string(&fields, "command").expect("what is accepted has a command");
    let stream = string(&fields, "streamId").filter(|id| !id.is_empty());
    assert_eq!(message.stream.map(|id| id.as_str().to_owned()), stream, "the streamId is the one that is there");
    let known = [
        ("publish", ClientCommand::Publish),
        ("play", ClientCommand::Play),
        ("stop", ClientCommand::Stop),
        ("ping", ClientCommand::Ping),
    ];
    for (word, expected) in known {
        assert_eq!(message.command == expected, command == word, "{command} is read as {:?}", message.command);
    }
}

/// A text frame from a node: always read as something, and as a known command only where that is really there.
pub(crate) fn node_message(bytes: &[u8]) {
    let Ok(raw) = std::str::from_utf8(bytes) else {
        return;
    };
    let text = Text::from(raw.to_owned());
    let message = signaling::decode_node(&text);
    side_readings(&text);
    assert_eq!(message, signaling::decode_node(&text), "decoding has no memory");
    if message.command != NodeCommand::Other {
        string(&fields(raw), "command").expect("a known command is a string");
    }
}

/// A description, fragment or candidate: what is accepted keeps to its bounds, settles at once, and no one's candidates
/// are left in it but the door's.
pub(crate) fn sdp(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return; // descriptions come inside JSON or as text bodies, both UTF-8
    };
    let ours = [PublicCandidate { address: SocketAddr::from(([198, 51, 100, 10], 5000)), transport: Transport::Udp }];
    let (private, ports) = (Some(SocketAddr::from(([10, 0, 0, 5], 6000))), 50_000..=60_000);
    let rewriters: [&dyn Fn(&str) -> Rewritten; 4] = [
        &|text| sdp::to_client(text, &ours, &ports),
        &|text| sdp::to_node(text, private),
        &|text| sdp::frag_to_client(text, &ours, &ports),
        &|text| sdp::frag_to_node(text, private),
    ];
    for rewrite in rewriters {
        let Ok((out, read)) = rewrite(text) else { continue };
        assert!(read.media.len() <= sdp::MAX_SECTIONS && read.transports.len() <= sdp::MAX_SECTIONS);
        assert!(read.candidates.iter().all(|one| ports.contains(&one.port)), "a port that no node has");
        let tagged = read.media.iter().filter(|media| media.tagged).count();
        let candidates = out.split(['\r', '\n']).filter(|line| line.starts_with("a=candidate:"));
        assert_eq!(candidates.count(), tagged, "only the door's candidates are left");
        assert_eq!(rewrite(&out).map(|(again, _)| again).as_deref(), Ok(&*out), "rewriting twice is rewriting once");
    }
    sdp::leaks(text, &[]);
    sdp::trickled(text, &ports);
    two_answers(text, NODE);
    two_answers(BROWSER, text);
    if let Ok(frag) = sdp::read_frag(text) {
        assert!(frag.candidates.len() <= sdp::MAX_CANDIDATES);
    }
}

/// What a browser offers, and what AMS offers.
const BROWSER: &str = include_str!("../tests/golden/sdp/str0m-offer.sdp");
const NODE: &str = include_str!("../tests/golden/sdp/ams-offer.sdp");

/// Two offers: where there are answers, each has the sections of its offer, and one transport.
fn two_answers(client: &str, node: &str) {
    let Ok(answers) = sdp::answer_both(client, node) else { return };
    for (offer, answer) in [(client, answers.to_client), (node, answers.to_node)] {
        let (_, answer) = sdp::to_node(&answer, None).expect("an answer is a description");
        let (_, offer) = sdp::to_node(offer, None).expect("what was answered is one too");
        assert_eq!(answer.media.len(), offer.media.len(), "a section for each section");
        assert_eq!(answer.transports.len(), 1, "one transport");
    }
}

type Rewritten = Result<(String, Description), sdp::SdpError>;

/// An independent reading of an object that the door has accepted. Values stay as they stand: a lone surrogate or a
/// huge number in a field that the door does not read is the node's business.
fn fields(raw: &str) -> BTreeMap<String, &RawValue> {
    serde_json::from_str(raw).expect("what is accepted is a JSON object")
}

fn string(fields: &BTreeMap<String, &RawValue>, key: &str) -> Option<String> {
    serde_json::from_str(fields.get(key)?.get()).ok()
}

/// What the door looks for inside a message without parsing its SDP.
fn side_readings(text: &Text) {
    if let Some(ufrag) = signaling::first_ufrag(text) {
        let ice_char = |c: char| c.is_ascii_alphanumeric() || "+/".contains(c);
        assert!(!ufrag.is_empty() && ufrag.len() <= 256 && ufrag.chars().all(ice_char), "{ufrag:?} is no ice-ufrag");
    }
    assert!(signaling::media_kinds(text).len() <= text.len() / 4, "more m-sections than fit");
}
