//! What must hold for every input, shared by the fuzz targets and by the replay of their corpora on stable Rust.
//!
//! Each function takes raw bytes and panics where a promise is broken.

use std::collections::BTreeMap;

use forebay::domain::signaling::{self, BadMessage, ClientCommand, NodeCommand, Text};
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
