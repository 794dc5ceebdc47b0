//! Reads just the fields that routing needs, without copying the rest.
//!
//! A key that stands twice is malformed: the door and a node could each believe another one of the two.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::message::{
    BadMessage, ClientCommand, ClientMessage, NodeCommand, NodeMessage, Notice, Refusal, SdpType, Text,
};
use crate::domain::ids::StreamId;

/// Decodes a client's message. Never panics; what nests deeper than [`MAX_DEPTH`] is malformed, for the node's sake.
pub fn decode_client(text: &Text) -> Result<ClientMessage, BadMessage> {
    let raw = raw(text).ok_or(BadMessage::Malformed)?;
    if is_deep(text.as_bytes()) {
        return Err(BadMessage::Malformed);
    }
    let command = client_command(raw.command.text().ok_or(BadMessage::Malformed)?, &raw.sdp_type);
    if matches!(raw.stream, Field::Wrong) || matches!(raw.main_track, Field::Wrong) {
        return Err(BadMessage::Malformed);
    }
    Ok(ClientMessage {
        command,
        stream: id(&raw.stream)?,
        room: id(&raw.main_track)?.map_or_else(|| id(&raw.room), |room| Ok(Some(room)))?,
        user_publish: id(&raw.user_publish).unwrap_or(None),
        has_token: raw.token.text().is_some_and(|token| !token.is_empty()),
    })
}

/// Decodes a node's message. What is not understood passes as [`NodeCommand::Other`].
pub fn decode_node(text: &Text) -> NodeMessage {
    let Some(raw) = raw(text) else {
        return NodeMessage { command: NodeCommand::Other, stream: None };
    };
    let definition = raw.definition.text().unwrap_or_default();
    let command = match raw.command.text().unwrap_or_default() {
        "start" => NodeCommand::Start,
        "takeConfiguration" => NodeCommand::TakeConfiguration(sdp_type(&raw.sdp_type)),
        "takeCandidate" => NodeCommand::TakeCandidate,
        "stop" => NodeCommand::Stop,
        "pong" => NodeCommand::Pong,
        "error" => NodeCommand::Error(refusal(definition)),
        "notification" => NodeCommand::Notification(notice(definition)),
        _ => NodeCommand::Other,
    };
    NodeMessage { command, stream: id(&raw.stream).unwrap_or(None) }
}

/// The first ICE user fragment that an SDP (`a=ice-ufrag:`) or a candidate (` ufrag `) inside `text` names.
/// Looks at the JSON as it stands: the ice-chars of RFC 8839 need no escape but the optional `\/`.
pub fn first_ufrag(text: &Text) -> Option<Box<str>> {
    let bytes = text.as_bytes();
    let after = [b"ice-ufrag:".as_slice(), b" ufrag "].into_iter().find_map(|mark| {
        let at = bytes.windows(mark.len()).position(|window| window == mark)?;
        Some(&bytes[at + mark.len()..])
    })?;
    let mut ufrag = String::new();
    for (at, &byte) in after.iter().enumerate() {
        match byte {
            b'\\' if after.get(at + 1) == Some(&b'/') => {}
            byte if byte.is_ascii_alphanumeric() || b"+/".contains(&byte) => ufrag.push(char::from(byte)),
            _ => break,
        }
        if ufrag.len() > MAX_UFRAG {
            return None;
        }
    }
    (!ufrag.is_empty()).then(|| ufrag.into())
}

/// Which m-section a `takeCandidate` speaks of: its `id` (the mid) and its `label` (the index), where they are legal.
pub fn trickle_place(text: &Text) -> (Option<String>, Option<usize>) {
    #[derive(Deserialize)]
    struct Place {
        id: Option<String>,
        label: Option<usize>,
    }
    let place = serde_json::from_slice::<Place>(text.as_bytes());
    place.map_or((None, None), |place| (place.id, place.label))
}

/// RFC 8839 §5.4: an ice-ufrag has at most 256 characters.
const MAX_UFRAG: usize = 256;

/// The kinds of the m-sections of the SDP inside `text`, in order: `a`udio, `v`ideo, or the first letter of another.
pub fn media_kinds(text: &Text) -> Vec<u8> {
    let sections = text.as_bytes().windows(5).filter(|window| window.starts_with(br"\nm="));
    sections.map(|window| window[4]).take(MAX_SECTIONS).collect()
}

/// More m-sections than this are not compared (facts/relay.md §3.3 allows 32).
const MAX_SECTIONS: usize = 64;

/// Objects and arrays inside each other; no SDK nests deeper than 3.
const MAX_DEPTH: usize = 64;

fn raw(text: &Text) -> Option<Raw<'_>> {
    // serde would also take an array for a struct, by position.
    text.as_bytes().trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(text.as_bytes()).ok())?
}

fn is_deep(json: &[u8]) -> bool {
    // Few messages have so many brackets at all: only those are walked. `[` and `{` differ in one bit, which makes the
    // count one comparison for many bytes at once.
    if json.iter().filter(|&byte| byte | 0x20 == b'{').count() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    json.iter().any(|&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

fn id(field: &Field<'_>) -> Result<Option<StreamId>, BadMessage> {
    match field.text() {
        None | Some("") => Ok(None),
        Some(raw) => raw.parse().map(Some).map_err(|_| BadMessage::BadStreamId),
    }
}

fn client_command(word: &str, sdp: &Field<'_>) -> ClientCommand {
    match word {
        "publish" => ClientCommand::Publish,
        "play" => ClientCommand::Play,
        "takeConfiguration" => ClientCommand::TakeConfiguration(sdp_type(sdp)),
        "takeCandidate" => ClientCommand::TakeCandidate,
        "stop" => ClientCommand::Stop,
        "join" => ClientCommand::Join,
        "joinRoom" => ClientCommand::JoinRoom,
        "ping" => ClientCommand::Ping,
        "getIceServerConfig" => ClientCommand::GetIceServerConfig,
        "leave" | "leaveFromRoom" | "peerMessageCommand" | "connectWithNewId" | "startNewP2PConnection" => {
            ClientCommand::Session
        }
        "enableTrack"
        | "toggleAudio"
        | "toggleVideo"
        | "forceStreamQuality"
        | "assignVideoTrackCommand"
        | "updateVideoTrackAssignmentsCommand"
        | "setMaxVideoTrackCountCommand"
        | "getVideoTrackAssignmentsCommand"
        | "getTrackList"
        | "getDebugInfo" => ClientCommand::PlaySide,
        "getRoomInfo"
        | "getStreamInfo"
        | "getBroadcastObject"
        | "getSubtracks"
        | "getSubtracksCount"
        | "getSubscriberCount"
        | "getSubscribers"
        | "updateStreamMetaData"
        | "registerPushNotificationToken"
        | "sendPushNotification" => ClientCommand::AnyNode,
        "registerOriginServer"
        | "registerEdgeServer"
        | "registerBroadcast"
        | "start"
        | "error"
        | "notification"
        | "streamInformation"
        | "roomInformation"
        | "trackList"
        | "iceServerConfig"
        | "pong" => ClientCommand::NodeOnly,
        _ => ClientCommand::Unknown,
    }
}

fn sdp_type(field: &Field<'_>) -> SdpType {
    match field.text() {
        Some("offer") => SdpType::Offer,
        Some("answer") => SdpType::Answer,
        _ => SdpType::Other,
    }
}

fn refusal(definition: &str) -> Refusal {
    match definition {
        "highResourceUsage" => Refusal::Full,
        "not_initialized_yet" | "data_store_not_available" => Refusal::NodeLocal,
        "license_suspended_please_renew_license" | "server_error_check_logs" => Refusal::Doubtful,
        "no_stream_exist" => Refusal::NotYet,
        "streamIdInUse" | "already_publishing" | "already_playing" => Refusal::InUse,
        _ => Refusal::Permanent,
    }
}

fn notice(definition: &str) -> Notice {
    match definition {
        "publish_started" => Notice::PublishStarted,
        "publish_finished" => Notice::PublishFinished,
        "play_started" => Notice::PlayStarted,
        "play_finished" => Notice::PlayFinished,
        "session_restored" => Notice::SessionRestored,
        "server_will_stop" => Notice::ServerWillStop,
        _ => Notice::Other,
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, default)]
    command: Field<'a>,
    #[serde(borrow, default, rename = "streamId")]
    stream: Field<'a>,
    #[serde(borrow, default, rename = "mainTrack")]
    main_track: Field<'a>,
    #[serde(borrow, default)]
    room: Field<'a>,
    #[serde(borrow, default, rename = "type")]
    sdp_type: Field<'a>,
    #[serde(borrow, default, rename = "userPublishId")]
    user_publish: Field<'a>,
    #[serde(borrow, default)]
    definition: Field<'a>,
    #[serde(borrow, default)]
    token: Field<'a>,
}

/// A field that should be a string: borrowed where it has no escapes, and no error where it is something else,
/// because the door does not need every field of every command.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Wrong,
}

impl Field<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Wrong => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Wrong)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(json: &str) -> Result<ClientMessage, BadMessage> {
        decode_client(&Text::from(json.to_owned()))
    }

    fn node(json: &str) -> NodeMessage {
        decode_node(&Text::from(json.to_owned()))
    }

    #[test]
    fn a_publish_is_read_with_its_room_and_whether_it_carries_a_token() {
        let message = client(
            r#"{"command":"publish","streamId":"cam-7","token":"","mainTrack":"room1","video":true,"metaData":{"a":[1,{}]}}"#,
        );
        let message = message.unwrap();
        assert_eq!(message.command, ClientCommand::Publish);
        assert_eq!(message.stream.unwrap().as_str(), "cam-7");
        assert_eq!(message.room.unwrap().as_str(), "room1");
        assert!(!message.has_token);
    }

    #[test]
    fn absent_empty_and_null_ids_are_the_same_and_illegal_ones_are_not() {
        for json in
            [r#"{"command":"play"}"#, r#"{"command":"play","streamId":""}"#, r#"{"command":"play","streamId":null}"#]
        {
            assert_eq!(client(json).unwrap().stream, None, "{json}");
        }
        assert_eq!(client(r#"{"command":"play","streamId":"a/b"}"#), Err(BadMessage::BadStreamId));
        assert_eq!(client(r#"{"command":"play","streamId":7}"#), Err(BadMessage::Malformed));
    }

    #[test]
    fn what_is_not_an_object_with_a_command_is_malformed() {
        let deep = format!(r#"{{"command":"play","x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        for json in [
            "",
            "hello",
            "[]",
            "7",
            "{}",
            r#"{"command":5}"#,
            r#"{"command":"a","command":"b"}"#,
            "{\"command\":\"a\"}x",
            &deep,
        ] {
            assert_eq!(client(json), Err(BadMessage::Malformed), "{json}");
        }
    }

    #[test]
    fn commands_that_only_nodes_may_send_are_told_apart_from_unknown_ones() {
        for word in ["registerOriginServer", "registerEdgeServer", "registerBroadcast", "start", "notification"] {
            assert_eq!(client(&format!(r#"{{"command":"{word}"}}"#)).unwrap().command, ClientCommand::NodeOnly);
        }
        assert_eq!(client(r#"{"command":"somethingNew"}"#).unwrap().command, ClientCommand::Unknown);
    }

    #[test]
    fn a_nodes_message_that_is_not_understood_still_passes() {
        assert_eq!(node("garbage").command, NodeCommand::Other);
        assert_eq!(node(r#"{"command":"streamInformation","streamId":"a"}"#).command, NodeCommand::Other);
        assert_eq!(
            node(r#"{"command":"error","definition":"highResourceUsage","streamId":"a"}"#).command,
            NodeCommand::Error(Refusal::Full)
        );
    }

    #[test]
    fn the_ufrag_is_found_in_sdp_and_in_candidates_also_when_the_slash_is_escaped() {
        let sdp = Text::from(r#"{"sdp":"v=0\r\na=ice-ufrag:aB\/1\r\na=ice-pwd:x"}"#.to_owned());
        assert_eq!(first_ufrag(&sdp).as_deref(), Some("aB/1"));
        let candidate =
            Text::from(r#"{"candidate":"candidate:1 1 udp 1 1.2.3.4 5 typ host ufrag EEtu network-id 1"}"#.to_owned());
        assert_eq!(first_ufrag(&candidate).as_deref(), Some("EEtu"));
        assert_eq!(first_ufrag(&Text::from_static(r#"{"candidate":""}"#)), None, "Firefox's end of candidates");
    }

    #[test]
    fn the_kinds_of_an_offer_are_read_in_order() {
        let sdp = Text::from(r#"{"sdp":"v=0\r\nm=audio 9\r\na=x\r\nm=video 9\r\nm=application 9"}"#.to_owned());
        assert_eq!(media_kinds(&sdp), b"ava");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = Text::from_utf8_bytes(bytes.into());
            let _ = (decode_client(&text), decode_node(&text), first_ufrag(&text), media_kinds(&text));
        }

        #[test]
        fn a_flipped_or_cut_message_never_panics(at in 0usize..200, flip in any::<u8>(), cut in 0usize..200) {
            let mut bytes = br#"{"command":"takeConfiguration","streamId":"cam-7","type":"offer","sdp":"v=0\r\na=ice-ufrag:ab\r\nm=audio 9"}"#.to_vec();
            let len = bytes.len();
            bytes[at % len] ^= flip;
            bytes.truncate(cut.min(len));
            let text = Text::from_utf8_bytes(bytes.into());
            let _ = (decode_client(&text), decode_node(&text), first_ufrag(&text), media_kinds(&text));
        }

        #[test]
        fn every_legal_stream_id_is_read_back(stream in "[A-Za-z0-9._-]{1,40}") {
            let message = client(&serde_json::json!({"command": "play", "streamId": stream}).to_string()).unwrap();
            prop_assert_eq!(message.stream.map(|id| id.to_string()), Some(stream));
        }
    }
}
