//! AMS's signalling words as the nodes read and write them; nothing here is shared with the door.

use serde_json::{Map, Value, json};

use crate::domain::ids::StreamId;

/// Largest text message that a node takes; AMS closes the socket above it.
pub(super) const MAX_MESSAGE: usize = 8192 * 10;

/// A node that cannot read its records says so.
pub(super) const NO_STORE: &str = "data_store_not_available";

/// One message of a client.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) command: String,
    fields: Map<String, Value>,
}

/// Why a `streamId` cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadStream {
    Missing,
    Illegal,
}

impl BadStream {
    pub(super) fn definition(self) -> &'static str {
        match self {
            Self::Missing => "noStreamNameSpecified",
            Self::Illegal => "invalidStreamName",
        }
    }
}

impl Request {
    /// Reads a message; `None` for what is no JSON object with a `command`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return None };
        let command = fields.get("command")?.as_str()?.to_owned();
        Some(Self { command, fields })
    }

    /// A field's text; absent, null and other types are empty.
    pub(super) fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field's whole number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }

    /// The stream that the message is about.
    pub(super) fn stream(&self) -> Result<StreamId, BadStream> {
        self.name("streamId")
    }

    /// A stream's or room's name in any field.
    pub(super) fn name(&self, field: &str) -> Result<StreamId, BadStream> {
        match self.text(field) {
            "" => Err(BadStream::Missing),
            name => name.parse().map_err(|_| BadStream::Illegal),
        }
    }
}

pub(super) fn error(stream: &str, definition: &str) -> Value {
    json!({ "command": "error", "definition": definition, "streamId": stream })
}

pub(super) fn no_stream(stream: &str) -> Value {
    json!({
        "command": "error",
        "error_code": "404",
        "definition": "no_stream_exist",
        "information": "stream_not_exist_or_not_streaming",
        "streamId": stream,
    })
}

pub(super) fn notification(definition: &str, stream: &str, subscriber: &str) -> Value {
    json!({ "command": "notification", "definition": definition, "streamId": stream, "subscriberId": subscriber })
}

pub(super) fn server_will_stop() -> Value {
    json!({ "command": "notification", "definition": "server_will_stop" })
}

pub(super) fn start(stream: &str, subscriber: &str) -> Value {
    json!({ "command": "start", "streamId": stream, "subscriberId": subscriber })
}

pub(super) fn answer(stream: &str, subscriber: &str, sdp: &str) -> Value {
    json!({
        "command": "takeConfiguration",
        "streamId": stream,
        "type": "answer",
        "sdp": sdp,
        "linkSession": null,
        "subscriberId": subscriber,
    })
}

pub(super) fn offer(stream: &str, sdp: &str, id_mapping: Map<String, Value>) -> Value {
    json!({
        "command": "takeConfiguration",
        "streamId": stream,
        "type": "offer",
        "sdp": sdp,
        "idMapping": id_mapping,
        "linkSession": null,
    })
}

pub(super) fn candidate(stream: &str, label: u16, mid: &str, candidate: &str) -> Value {
    json!({ "command": "takeCandidate", "streamId": stream, "label": label, "id": mid, "candidate": candidate })
}

/// Candidates that nobody can reach: private networks, a container's bridge, and a port that nobody opened.
pub(super) fn decoys(own: std::net::IpAddr) -> [String; 3] {
    let host = |number: u8, ip: &str, port: u16| {
        format!("candidate:{number} 1 udp 2130706431 {ip} {port} typ host generation 0")
    };
    [host(71, "10.255.255.254", 50_001), host(72, "172.17.0.1", 50_002), host(73, &own.to_string(), 9)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_a_command_is_no_message() {
        for junk in ["", "[]", "{}", "7", r#"{"command":5}"#, "{", &"[".repeat(100_000)] {
            assert_eq!(Request::read(junk), None);
        }
    }

    #[test]
    fn fields_of_other_types_count_as_absent() {
        let request = Request::read(r#"{"command":"play","streamId":7,"room":null,"label":"x"}"#).unwrap();

        assert_eq!(request.stream(), Err(BadStream::Missing));
        assert_eq!((request.text("room"), request.number("label")), ("", None));
    }
}
