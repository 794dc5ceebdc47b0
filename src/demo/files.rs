//! What a node serves over HTTP beside its pages: playlists and segments of live streams, and the calls of AMS's REST API
//! that a front door tells apart. The bytes of segments are made up; their names and headers are AMS's.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE},
};
use serde_json::{Value, json};

use super::node::Node;
use crate::{clock, domain::ids::StreamId};

/// Seconds of one segment.
const SEGMENT_SECONDS: i64 = 2;
/// Segments of a playlist.
const SEGMENTS: i64 = 3;
/// A packet of MPEG transport stream.
const PACKET: usize = 188;
/// Packets of a segment.
const PACKETS: usize = 64;

/// The answer to a path below the app; `None`: it is none of these.
pub(super) async fn answer(
    node: &Arc<Node>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Option<Response<Full<Bytes>>> {
    let mut answer = if let Some(file) = path.strip_prefix("/streams/") {
        stream_file(node, file, headers).await
    } else {
        rest(node, method, path.strip_prefix("/rest/v2/")?).await
    };
    // AMS says nothing of the kind; the demo's page and tests show who has answered.
    if let Ok(id) = HeaderValue::from_str(node.options.id.as_str()) {
        answer.headers_mut().insert("x-demo-node", id);
    }
    Some(answer)
}

async fn stream_file(node: &Arc<Node>, file: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let named = file.strip_suffix(".m3u8").map(|stem| (stem, None));
    let named = named.or_else(|| {
        let stem = file.strip_suffix(".ts")?;
        let (stream, number) = stem.split_at_checked(stem.len().checked_sub(9)?)?;
        Some((stream, Some(number.parse::<i64>().ok()?)))
    });
    let Some((Ok(stream), number)) = named.map(|(stem, number)| (stem.parse::<StreamId>(), number)) else {
        return missing();
    };
    if !matches!(node.records.find(&stream).await, Ok(Some(record)) if record.live) {
        return missing();
    }
    match number {
        None => playlist(&stream, headers),
        Some(number) => typed("video/mp2t", segment(number)),
    }
}

fn playlist(stream: &StreamId, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let newest = clock::wall_ms() / 1000 / SEGMENT_SECONDS;
    let first = newest - SEGMENTS;
    let mut text =
        format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:{SEGMENT_SECONDS}\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
    for number in first..newest {
        text.push_str(&format!("#EXTINF:{SEGMENT_SECONDS}.000,\n{stream}{number:09}.ts\n"));
    }
    let mut answer = typed("application/vnd.apple.mpegurl", text.into());
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tomcat's session, by which AMS counts a viewer.
    let known = headers.get(COOKIE).is_some_and(|cookie| cookie.as_bytes().windows(11).any(|at| at == b"JSESSIONID="));
    if !known && let Ok(cookie) = format!("JSESSIONID={:032X}; HttpOnly", fastrand::u128(..)).parse() {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// Null packets, numbered so that two segments differ.
fn segment(number: i64) -> Bytes {
    let mut bytes = Vec::with_capacity(PACKET * PACKETS);
    for nth in 0..PACKETS {
        let mut packet = [0xff; PACKET];
        packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10 | (nth as u8 & 0x0f)]);
        packet[4..12].copy_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&packet);
    }
    bytes.into()
}

async fn rest(node: &Arc<Node>, method: &Method, call: &str) -> Response<Full<Bytes>> {
    let result = |success: bool| json!({ "success": success, "message": null, "dataId": null, "errorId": 0 });
    let Some(below) = call.strip_prefix("broadcasts/") else {
        return match call {
            "version" => {
                document(StatusCode::OK, &json!({ "versionName": "demo", "versionType": "Enterprise Edition" }))
            }
            _ => missing(),
        };
    };
    let (first, rest) = below.split_once('/').unwrap_or((below, ""));
    if (method, first) == (&Method::POST, "create") {
        let stream: StreamId = format!("{:024x}", fastrand::u128(..) >> 32).parse().expect("hexadecimal digits");
        node.records.created(&stream).await;
        return document(StatusCode::OK, &json!({ "streamId": stream, "status": "created", "type": "liveStream" }));
    }
    let Ok(stream) = first.parse::<StreamId>() else { return missing() };
    let record = node.records.find(&stream).await.ok().flatten();
    match (method, record) {
        (&Method::GET | &Method::HEAD, Some(record)) => {
            document(StatusCode::OK, &Value::Object(record.document.clone()))
        }
        (&Method::GET | &Method::HEAD, None) => missing(),
        (&Method::DELETE, record) if rest.is_empty() => {
            node.records.removed(&stream).await;
            document(StatusCode::OK, &result(record.is_some()))
        }
        (_, record) => document(StatusCode::OK, &result(record.is_some())),
    }
}

fn missing() -> Response<Full<Bytes>> {
    let mut answer = typed("text/plain", Bytes::from_static(b"not found\n"));
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

fn document(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut answer = typed("application/json", value.to_string().into());
    *answer.status_mut() = status;
    answer
}

fn typed(content_type: &'static str, bytes: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(bytes));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
