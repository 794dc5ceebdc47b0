//! AMS's WebSocket vocabulary: text ⇄ message, decoded just far enough to be routed.
//!
//! A message is passed on byte for byte; what is decoded here serves routing only. Unknown commands and fields survive.
//! Where the relay must hide an address, one string field is replaced and every other byte stays.

mod codec;
mod message;
mod rewrite;

pub use codec::{decode_client, decode_node, first_ufrag, media_kinds, trickle_place};
pub use message::{BadMessage, ClientCommand, ClientMessage, NodeCommand, NodeMessage, Notice, Refusal, SdpType, Text};
pub use rewrite::{replace_string_field, string_field};

use super::{ids::StreamId, reject::Reject};

/// The door's answer to `ping` (facts/clients.md §1.5: Android drops a socket without it after 4 s).
pub fn pong() -> Text {
    Text::from_static(r#"{"command":"pong"}"#)
}

/// The door's question to a silent node, in AMS's own vocabulary.
pub fn ping() -> Text {
    Text::from_static(r#"{"command":"ping"}"#)
}

/// AMS's word that the server is about to go; SDK v1 closes and comes again at once.
pub fn server_will_stop() -> Text {
    Text::from_static(r#"{"command":"notification","definition":"server_will_stop"}"#)
}

/// A `stop` towards a node, for a leg that the door itself gives up.
pub fn stop(stream: &StreamId) -> Text {
    Text::from(format!(r#"{{"command":"stop","streamId":"{stream}"}}"#))
}

/// An error of the door's own in AMS's vocabulary, with the `streamId` where one is known.
pub fn error(reject: Reject, stream: Option<&StreamId>) -> Text {
    let mut object = serde_json::Map::new();
    let mut put = |key: &str, value: &str| object.insert(key.to_owned(), value.into());
    put("command", "error");
    put("definition", reject.definition());
    if let Some(code) = reject.code() {
        put("error_code", code);
    }
    if let Some(information) = reject.information() {
        put("information", information);
    }
    if let Some(stream) = stream {
        put("streamId", stream.as_str());
    }
    Text::from(serde_json::Value::Object(object).to_string())
}

/// The answer to `getIceServerConfig`; an empty `uri` is ignored by every SDK (facts/clients.md §1.1).
pub fn ice_server_config(uri: &str, username: &str, credential: &str) -> Text {
    let object = serde_json::json!({
        "command": "iceServerConfig",
        "stunServerUri": uri,
        "turnServerUsername": username,
        "turnServerCredential": credential,
    });
    Text::from(object.to_string())
}
