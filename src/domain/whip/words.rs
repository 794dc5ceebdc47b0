//! AMS's words, as a WHIP or WHEP resource says and reads them.

use serde_json::{Map, Value, json};

use super::{Refusal, Wish, io::WISHES};
use crate::domain::{
    ids::{Kind, StreamId},
    signaling::Text,
};

/// `publish` or `play`, with the fields that SDKs send (facts/clients.md §1.2).
pub(super) fn command(kind: Kind, stream: &StreamId, wish: &Wish, offer: &str) -> Text {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| fields.insert(key.to_owned(), value);
    put("command", kind.as_str().into());
    put("streamId", stream.as_str().into());
    put("token", wish.token.as_deref().unwrap_or_default().into());
    for name in WISHES {
        let wished = wish.fields.iter().find(|(own, _)| *own == name);
        put(name, wished.map_or("", |(_, value)| value.as_str()).into());
    }
    match kind {
        Kind::Publish => {
            let has =
                |kind: &str| offer.lines().any(|line| line.strip_prefix("m=").is_some_and(|m| m.starts_with(kind)));
            put("video", has("video ").into());
            put("audio", has("audio ").into());
        }
        Kind::Play => {
            put("room", "".into());
            put("trackList", json!([]));
            put("userPublishId", "".into());
            put("disableTracksByDefault", false.into());
        }
    }
    Text::from(Value::Object(fields).to_string())
}

pub(super) fn description(stream: &StreamId, sdp_type: &str, sdp: &str) -> Text {
    let message = json!({"command": "takeConfiguration", "streamId": stream, "type": sdp_type, "sdp": sdp});
    Text::from(message.to_string())
}

pub(super) fn candidate(stream: &StreamId, section: usize, mid: &str, candidate: &str) -> Text {
    let message =
        json!({"command": "takeCandidate", "streamId": stream, "label": section, "id": mid, "candidate": candidate});
    Text::from(message.to_string())
}

/// How an error of AMS's reads to an HTTP client (facts/ams.md §2.4).
pub(super) fn refusal(definition: &str, has_token: bool) -> Refusal {
    match definition {
        "no_stream_exist" | "stream_not_exist_or_not_streaming" | "no_active_streams_in_room" => Refusal::NotFound,
        "streamIdInUse" | "already_publishing" | "already_playing" => Refusal::InUse,
        "unauthorized_access" | "authenticationTokenNotValid" if !has_token => Refusal::Unauthorized,
        "unauthorized_access"
        | "authenticationTokenNotValid"
        | "user_blocked"
        | "not_allowed_unregistered_streams"
        | "stream_not_active_or_expired"
        | "room_not_active_or_expired"
        | "webrtc_not_enabled"
        | "main_track_has_max_subtrack_count__not_allowed_to_add_more_subtracks" => Refusal::Forbidden,
        "invalidStreamName" | "noStreamNameSpecified" | "no_room_specified" => Refusal::BadRequest,
        "missingParameter" => Refusal::TooLarge,
        "notSetRemoteDescription" => Refusal::BadSdp,
        "highResourceUsage"
        | "viewerLimitReached"
        | "not_initialized_yet"
        | "data_store_not_available"
        | "license_suspended_please_renew_license"
        | "server_error_check_logs" => Refusal::Busy,
        _ => Refusal::BadNode,
    }
}

/// The value of `Link` (RFC 9725 §4.6) for one ICE server; `None` without a URI.
pub fn ice_server_link(uri: &str, username: &str, credential: &str) -> Option<String> {
    if uri.is_empty() {
        return None;
    }
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut link = format!("<{uri}>; rel=\"ice-server\"");
    if !username.is_empty() {
        link += &format!(
            "; username={}; credential={}; credential-type=\"password\"",
            quoted(username),
            quoted(credential)
        );
    }
    Some(link)
}
