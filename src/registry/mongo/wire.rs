//! Between AMS's documents on the wire and our own shapes. Lenient in what it reads, exact in what it writes.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use mongodb::{
    bson::{Bson, Document},
    error::{Error, ErrorKind},
};
use serde_json::{Map, Value, json};

use crate::{
    domain::record::{Record, Status},
    registry::store::{DocId, NodeRow, Patch, Row, StoreError},
};

/// What a read of a `broadcast` document asks for; `password`, URLs and statistics stay where they are.
pub(super) const FIELDS: [&str; 7] =
    ["streamId", "status", "originAdress", "updateTime", "startTime", "virtual", "mainTrackStreamId"];

/// Integer fields that AMS keeps as 64-bit numbers (facts of `Broadcast.java` and `ClusterNode.java`); every other
/// integer is a 32-bit one.
const INT64: [&str; 12] = [
    "updateTime",
    "startTime",
    "absoluteStartTimeMs",
    "date",
    "duration",
    "receivedBytes",
    "bitrate",
    "plannedStartDate",
    "plannedEndDate",
    "seekTimeInMs",
    "lastUpdateTime",
    "dbQueryAveargeTimeMs",
];

/// Fields that AMS keeps as doubles even when the value is whole.
const DOUBLE: [&str; 2] = ["packetLostRatio", "speed"];

/// A member's fields as AMS's mapper stores them: nulls are left out.
pub(super) fn to_bson(fields: Map<String, Value>) -> Document {
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| field_to_bson(name, value)).collect()
}

fn field_to_bson(name: String, value: Value) -> (String, Bson) {
    let value = match value {
        Value::Null => Bson::Null,
        Value::Bool(flag) => Bson::Boolean(flag),
        Value::String(text) => Bson::String(text),
        Value::Number(number) => number_to_bson(&name, &number),
        Value::Array(items) => Bson::Array(items.into_iter().map(|item| field_to_bson(name.clone(), item).1).collect()),
        Value::Object(fields) => Bson::Document(to_bson(fields)),
    };
    (name, value)
}

fn number_to_bson(name: &str, number: &serde_json::Number) -> Bson {
    match number.as_i64() {
        Some(whole) if !DOUBLE.contains(&name) => integer(name, whole),
        _ => Bson::Double(number.as_f64().unwrap_or(0.0)),
    }
}

/// One integer in the width that AMS stores; one that does not fit 32 bits keeps 64.
pub(super) fn integer(name: &str, whole: i64) -> Bson {
    match i32::try_from(whole) {
        Ok(small) if !INT64.contains(&name) => Bson::Int32(small),
        _ => Bson::Int64(whole),
    }
}

/// A stored document as plain JSON; an `ObjectId` is `{"$oid": hex}`.
pub(super) fn to_json(document: Document) -> Map<String, Value> {
    document.into_iter().map(|(name, value)| (name, value_to_json(value))).collect()
}

fn value_to_json(value: Bson) -> Value {
    match value {
        Bson::Int32(whole) => whole.into(),
        Bson::Int64(whole) => whole.into(),
        Bson::Array(items) => items.into_iter().map(value_to_json).collect(),
        Bson::Document(fields) => Value::Object(to_json(fields)),
        Bson::Null => Value::Null,
        Bson::Boolean(flag) => flag.into(),
        Bson::String(text) => text.into(),
        Bson::Double(number) => number.into(),
        Bson::ObjectId(id) => json!({ "$oid": id.to_hex() }),
        other => other.to_string().into(),
    }
}

/// A projected `broadcast` document. A field of an unexpected type counts as absent.
pub(super) fn row(document: &Document) -> Row {
    let mut record = Record {
        status: Status::Other,
        origin: None,
        updated_ms: 0,
        started_ms: 0,
        is_virtual: false,
        main_track: None,
    };
    patch(document).apply(&mut record);
    Row { id: document.get("_id").map(doc_id), record }
}

/// The fields of an update that routing reads.
pub(super) fn patch(fields: &Document) -> Patch {
    let text = |name: &str| fields.get(name).map(|value| value.as_str().unwrap_or_default());
    Patch {
        status: text("status").map(Status::from_ams),
        origin: text("originAdress").map(|origin| Some(origin).filter(|o| !o.is_empty()).map(Arc::from)),
        updated_ms: fields.get("updateTime").and_then(whole_number),
        started_ms: fields.get("startTime").and_then(whole_number),
        is_virtual: fields.get("virtual").and_then(Bson::as_bool),
        main_track: text("mainTrackStreamId").map(|room| room.parse().ok()),
    }
}

/// A document's id. One that others than AMS made may have any type: it is known by a hash, the same for every event.
pub(super) fn doc_id(value: &Bson) -> DocId {
    match value {
        Bson::ObjectId(id) => DocId(id.bytes()),
        other => {
            let mut hasher = DefaultHasher::new();
            other.hash(&mut hasher);
            let mut bytes = [0; 12];
            bytes[4..].copy_from_slice(&hasher.finish().to_be_bytes());
            DocId(bytes)
        }
    }
}

/// A `clusternode` document; `None` if it has no address.
pub(super) fn node_row(document: &Document) -> Option<NodeRow> {
    let id = match document.get("_id") {
        Some(Bson::String(id)) => id.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    Some(NodeRow {
        id,
        ip: document.get_str("ip").ok().map(str::trim).filter(|ip| !ip.is_empty())?.to_owned(),
        updated_ms: document.get("lastUpdateTime").and_then(whole_number).unwrap_or(0),
        cpu: document.get("cpu").and_then(percent),
        memory: document.get_str("memory").ok().and_then(NodeRow::memory_fraction),
        db_query_ms: document.get("dbQueryAveargeTimeMs").and_then(whole_number),
    })
}

/// CPU as a fraction: the MongoDB store writes a string, other stores and releases a number.
fn percent(value: &Bson) -> Option<f32> {
    match value {
        Bson::String(text) => NodeRow::cpu_fraction(text),
        other => whole_number(other).map(|percent| (percent as f32 / 100.0).clamp(0.0, 1.0)),
    }
}

pub(super) fn whole_number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(whole) => Some((*whole).into()),
        Bson::Int64(whole) => Some(*whole),
        Bson::Double(number) => Some(*number as i64),
        Bson::DateTime(at) => Some(at.timestamp_millis()),
        _ => None,
    }
}

/// What a failure of the driver means for the door.
pub(super) fn store_error(error: &Error) -> StoreError {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => match command.code {
            13 | 18 => StoreError::Unauthorized(command.message.clone()),
            280 | 286 => StoreError::HistoryLost(command.message.clone()),
            // Standing down, starting up or shutting down: the server is there, but does not serve.
            91 | 189 | 10107 | 11600 | 11602 | 13435 | 13436 => StoreError::Away(command.message.clone()),
            code => StoreError::Refused { code, message: command.message.clone() },
        },
        ErrorKind::Authentication { message, .. } => StoreError::Unauthorized(message.clone()),
        _ => StoreError::Away(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{doc, oid::ObjectId};

    use super::*;

    #[test]
    fn a_written_document_has_the_number_widths_that_ams_stores() {
        let Value::Object(fields) = json!({
            "updateTime": 1_767_225_641_123_i64, "bitrate": 7, "webRTCViewerCount": 3, "webRTCViewerLimit": -1,
            "speed": 1, "name": null, "virtual": false, "endPointList": [{"bitrate": 1, "width": 2}]
        }) else {
            unreachable!("an object")
        };
        let expected = doc! {
            "updateTime": 1_767_225_641_123_i64, "bitrate": 7_i64, "webRTCViewerCount": 3_i32, "webRTCViewerLimit": -1_i32,
            "speed": 1.0_f64, "virtual": false, "endPointList": [{"bitrate": 1_i64, "width": 2_i32}]
        };
        let written = to_bson(fields);
        assert_eq!(written.len(), expected.len());
        for (name, value) in &expected {
            assert_eq!(written.get(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_record_is_read_leniently() {
        let id = ObjectId::from_bytes([7; 12]);
        let row = row(&doc! {
            "_id": id, "streamId": "cam-7", "status": "broadcasting", "originAdress": "10.0.1.11",
            "updateTime": 5.0_f64, "startTime": 4_i32, "virtual": 1, "mainTrackStreamId": ""
        });
        assert_eq!(row.id, Some(DocId([7; 12])));
        assert_eq!(row.record.status, Status::Broadcasting);
        assert_eq!(row.record.origin.as_deref(), Some("10.0.1.11"));
        assert_eq!((row.record.updated_ms, row.record.started_ms), (5, 4));
        assert!(!row.record.is_virtual && row.record.main_track.is_none());
    }

    #[test]
    fn a_node_row_is_read_from_both_of_amss_shapes() {
        let new = node_row(&doc! {
            "_id": "n-1", "ip": "10.0.2.12", "lastUpdateTime": 9_i64, "memory": "6800/16031", "cpu": "34",
            "dbQueryAveargeTimeMs": 3_i64
        })
        .unwrap();
        assert_eq!((new.cpu, new.updated_ms, new.db_query_ms), (Some(0.34), 9, Some(3)));
        assert!(new.memory.is_some_and(|used| (used - 0.4242).abs() < 0.001));

        let old = node_row(&doc! { "_id": ObjectId::new(), "ip": "10.0.2.13", "cpu": 134, "memory": "x" }).unwrap();
        assert_eq!((old.cpu, old.memory, old.updated_ms), (Some(1.0), None, 0));
        assert_eq!(node_row(&doc! { "_id": "x" }), None);
    }
}
