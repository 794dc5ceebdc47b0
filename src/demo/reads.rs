//! The commands that concern no leg: what a node knows of streams and rooms, answered in AMS's shapes.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Value, json};

use super::{
    node::Node,
    records::Unread,
    room,
    sdp::Kind,
    session::Outbox,
    words::{self, BadStream, Request},
};
use crate::domain::ids::StreamId;

/// Answers a command; one that a node does not know is passed over, as AMS does.
pub(super) fn answer(node: &Arc<Node>, outbox: &Outbox, request: Request) {
    let subject = match request.command.as_str() {
        "getRoomInfo" | "joinRoom" | "leaveFromRoom" => {
            request.name("room").or_else(|_| request.name("mainTrack")).map_err(|_| "no_room_specified")
        }
        "registerPushNotificationToken" | "sendPushNotification" => return,
        _ => request.stream().map_err(BadStream::definition),
    };
    match subject {
        Ok(subject) => {
            let (owner, outbox) = (Arc::clone(node), outbox.clone());
            node.spawn(async move {
                if let Some(reply) = reply(&owner, &request, &subject).await {
                    outbox.send(reply);
                }
            });
        }
        Err(definition) => outbox.send(words::error(request.text("streamId"), definition)),
    }
}

async fn reply(node: &Arc<Node>, request: &Request, subject: &StreamId) -> Option<Value> {
    let stream = subject.as_str();
    match request.command.as_str() {
        "getStreamInfo" => Some(stream_information(node, subject).await),
        "getBroadcastObject" => Some(match node.records.find(subject).await {
            Ok(Some(record)) => noted("broadcastObject", stream, "broadcast", Value::Object(record.document)),
            Ok(None) => words::no_stream(stream),
            Err(Unread) => words::error(stream, words::NO_STORE),
        }),
        "getTrackList" => {
            let tracks: Vec<_> = members(node, subject).await.into_iter().collect();
            let tracks = if tracks.is_empty() { vec![subject.clone()] } else { tracks };
            Some(json!({ "command": "trackList", "streamId": stream, "trackList": tracks }))
        }
        "getSubtracks" => {
            let mut subtracks = Vec::new();
            for member in members(node, subject).await {
                let record = node.records.find(&member).await.ok().flatten();
                subtracks.extend(record.map(|record| Value::Object(record.document)));
            }
            Some(noted("subtrackList", stream, "subtrackList", Value::Array(subtracks)))
        }
        "getSubtracksCount" => {
            let count = members(node, subject).await.len();
            Some(counted("subtrackCount", stream, count as u64))
        }
        "getSubscriberCount" => Some(counted("subscriberCount", stream, 0)),
        "getSubscribers" => Some(noted("subscriberList", stream, "subscriberList", Value::Array(Vec::new()))),
        "getDebugInfo" => Some(noted("debugInfo", stream, "debugInfo", json!({ "node": node.options.id }))),
        "updateStreamMetaData" => {
            node.records.set_meta_data(subject, request.text("metaData")).await;
            None
        }
        "getRoomInfo" => {
            let members = members(node, subject).await;
            Some(json!({
                "command": "roomInformation",
                "room": stream,
                "streamId": request.text("streamId"),
                "streams": members,
                "streamList": names(&members),
            }))
        }
        "joinRoom" => Some(joined(node, request, subject).await),
        "leaveFromRoom" => Some(json!({
            "command": "notification",
            "definition": "leavedFromRoom",
            "streamId": request.text("streamId"),
            "ATTR_ROOM_NAME": stream,
            "room": stream,
        })),
        // Commands of a running play (enableTrack, forceStreamQuality, …) change nothing here: there is one quality.
        _ => None,
    }
}

async fn joined(node: &Arc<Node>, request: &Request, room: &StreamId) -> Value {
    node.records.room_joined(room).await;
    let wished = request.text("streamId");
    // AMS makes a name up for a client that brings none.
    let stream = if wished.is_empty() { format!("{:016x}", fastrand::u64(..)) } else { wished.to_owned() };
    let members = members(node, room).await;
    json!({
        "command": "notification",
        "definition": "joinedTheRoom",
        "streamId": stream,
        "streams": members,
        "streamList": names(&members),
        "ATTR_ROOM_NAME": room,
        "room": room,
        "maxTrackCount": -1,
    })
}

/// Who is in a room; without the store, who is in it here.
async fn members(node: &Arc<Node>, room: &StreamId) -> BTreeSet<StreamId> {
    let everywhere = room::members_everywhere(node, room).await;
    everywhere.unwrap_or_else(|Unread| node.rooms.members(room).into_iter().collect())
}

fn names(members: &BTreeSet<StreamId>) -> Vec<Value> {
    members.iter().map(|member| json!({ "streamId": member, "streamName": member })).collect()
}

async fn stream_information(node: &Arc<Node>, stream: &StreamId) -> Value {
    let source = node.publishers.source(stream);
    let live = source.is_some() || matches!(node.records.find(stream).await, Ok(Some(record)) if record.live);
    if !live {
        return words::no_stream(stream.as_str());
    }
    let video = source.as_ref().and_then(|source| {
        let video = source.tracks.iter().find(|track| track.codec.kind == Kind::Video)?;
        Some(video.codec.mime.trim_start_matches("video/").to_owned())
    });
    let information = json!({
        "streamWidth": 0,
        "streamHeight": 0,
        "videoBitrate": 0,
        "audioBitrate": 0,
        "videoCodec": video.unwrap_or_else(|| "VP8".to_owned()),
    });
    json!({ "command": "streamInformation", "streamId": stream, "streamInfo": [information] })
}

/// A notification whose payload is JSON as text, which is how AMS nests documents.
fn noted(definition: &str, stream: &str, field: &str, payload: Value) -> Value {
    let mut message = words::notification(definition, stream, "");
    message[field] = Value::from(payload.to_string());
    message
}

fn counted(definition: &str, stream: &str, count: u64) -> Value {
    let mut message = words::notification(definition, stream, "");
    message["count"] = Value::from(count);
    message
}
