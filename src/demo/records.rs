//! The records that a node keeps in the cluster's database, field by field as AMS writes them, misspellings included.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::{
    clock,
    domain::ids::{AppName, StreamId, StreamKey},
    registry::cluster_db::ClusterDb,
};

/// AMS's window: a streaming record that was not refreshed for this long counts as ended.
const LIVE_WINDOW_MS: i64 = 20_000;
/// Records that one node remembers; above it the memory is emptied.
const REMEMBERED: usize = 1000;

/// The records, as one node writes and reads them.
pub(super) struct Records {
    db: ClusterDb,
    app: AppName,
    /// What stands in `originAdress` and `ip`.
    address: String,
    /// How long a record that was found is believed.
    believed: Duration,
    memory: Mutex<HashMap<StreamId, (Instant, Record)>>,
}

/// What a node reads from a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// AMS's verdict at the moment of reading.
    pub(super) live: bool,
    pub(super) origin: Option<String>,
    pub(super) is_virtual: bool,
    pub(super) document: Map<String, Value>,
}

/// The store did not say what there is: not the same as nothing. What runs goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread;

/// What a publisher says of its stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) main_track: Option<StreamId>,
    pub(super) meta_data: String,
    pub(super) role: String,
}

impl Record {
    fn read(document: Map<String, Value>) -> Self {
        let word = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
        let is_virtual = document.get("virtual").and_then(Value::as_bool).unwrap_or(false);
        let updated = document.get("updateTime").and_then(Value::as_i64).unwrap_or(0);
        let fresh = is_virtual || clock::wall_ms().saturating_sub(updated) < LIVE_WINDOW_MS;
        let live = matches!(word("status"), "broadcasting" | "preparing") && fresh;
        let origin = Some(word("originAdress").to_owned()).filter(|origin| !origin.is_empty());
        Self { live, origin, is_virtual, document }
    }
}

impl Records {
    pub(super) fn new(db: ClusterDb, app: AppName, address: String, believed: Duration) -> Self {
        Self { db, app, address, believed, memory: Mutex::default() }
    }

    fn key(&self, stream: &StreamId) -> StreamKey {
        StreamKey { app: self.app.clone(), stream: stream.clone() }
    }

    /// The record, possibly as it was a moment ago: AMS believes what it found for 3 s, and asks again for what it did not.
    pub(super) async fn find(&self, stream: &StreamId) -> Result<Option<Record>, Unread> {
        let now = clock::now();
        {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((read, record)) = memory.get(stream) {
                if now.duration_since(*read) < self.believed {
                    return Ok(Some(Record::read(record.document.clone())));
                }
                memory.remove(stream);
            }
        }
        let Some(record) = self.find_now(stream).await? else { return Ok(None) };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() >= REMEMBERED {
            memory.clear();
        }
        memory.insert(stream.clone(), (now, record.clone()));
        Ok(Some(record))
    }

    /// The record as the database has it.
    pub(super) async fn find_now(&self, stream: &StreamId) -> Result<Option<Record>, Unread> {
        match self.db.find_broadcast(&self.key(stream)).await {
            Ok(document) => Ok(document.map(Record::read)),
            Err(error) => {
                tracing::debug!(%error, %stream, "a record could not be read");
                Err(Unread)
            }
        }
    }

    /// The origin that a record names is this node.
    pub(super) fn is_ours(&self, record: &Record) -> bool {
        record.origin.as_deref() == Some(self.address.as_str())
    }

    /// A publish has media: takes the record over, or makes one that goes when the stream goes. False: the store did not
    /// take it.
    pub(super) async fn publish_started(&self, stream: &StreamId, about: &About) -> bool {
        let now = clock::wall_ms();
        let taken_over = fields(json!({
            "status": "broadcasting",
            "startTime": now,
            "updateTime": now,
            "originAdress": self.address,
            "publishType": "WebRTC",
            "webRTCViewerCount": 0,
            "hlsViewerCount": 0,
            "dashViewerCount": 0,
            "rtmpViewerCount": 0,
        }));
        match self.set(stream, taken_over.clone(), false).await {
            Ok(true) => return true,
            Ok(false) => {}
            Err(Unread) => return false,
        }
        let mut made = fields(json!({
            "_t": "Broadcast",
            "streamId": stream,
            "type": "liveStream",
            "name": if about.name.is_empty() { stream.as_str() } else { about.name.as_str() },
            "publish": true,
            "date": now,
            "rtmpURL": format!("rtmp://{}/{}/{stream}", self.address, self.app),
            "zombi": true,
            "virtual": false,
            "mainTrackStreamId": about.main_track.as_ref().map_or("", StreamId::as_str),
            "webRTCViewerLimit": -1,
            "hlsViewerLimit": -1,
            "dashViewerLimit": -1,
            "bitrate": 0,
            "speed": 1.0,
            "width": 0,
            "height": 0,
            "packetLostRatio": 0.0,
            "packetsLost": 0,
            "jitterMs": 0,
            "rttMs": 0,
            "metaData": about.meta_data,
            "role": about.role,
            "subtracksLimit": -1,
            "maxIdleTime": 0,
            "publicStream": true,
            "playlistLoopEnabled": true,
            "autoStartStopEnabled": false,
        }));
        made.extend(taken_over);
        self.set(stream, made, true).await.is_ok()
    }

    /// A record made by REST, before anybody publishes: this node's address stands in it all the same.
    pub(super) async fn created(&self, stream: &StreamId) {
        let now = clock::wall_ms();
        let made = fields(json!({
            "_t": "Broadcast",
            "streamId": stream,
            "status": "created",
            "type": "liveStream",
            "publish": true,
            "date": now,
            "originAdress": self.address,
            "rtmpURL": format!("rtmp://{}/{}/{stream}", self.address, self.app),
            "zombi": false,
            "virtual": false,
            "updateTime": 0,
            "startTime": 0,
        }));
        let _ = self.set(stream, made, true).await; // said in the log
    }

    /// A record deleted by REST.
    pub(super) async fn removed(&self, stream: &StreamId) {
        self.delete(stream).await;
    }

    /// The record of a room; AMS gives it no origin and no heartbeat.
    pub(super) async fn room_joined(&self, room: &StreamId) {
        if matches!(self.find_now(room).await, Ok(Some(record)) if record.live) {
            return;
        }
        let made = fields(json!({
            "_t": "Broadcast",
            "streamId": room,
            "status": "broadcasting",
            "type": "liveStream",
            "zombi": true,
            "virtual": true,
            "startTime": clock::wall_ms(),
            "updateTime": 0,
        }));
        let _ = self.set(room, made, true).await; // said in the log
    }

    /// The last stream of a room has gone.
    pub(super) async fn room_left(&self, room: &StreamId) {
        if matches!(self.find_now(room).await, Ok(Some(record)) if record.is_virtual) {
            self.delete(room).await;
        }
    }

    /// A live stream's heartbeat. False: the store did not take it.
    pub(super) async fn refresh(&self, stream: &StreamId, bits_per_second: u64) -> bool {
        let refreshed = fields(json!({ "updateTime": clock::wall_ms(), "bitrate": bits_per_second, "speed": 1.0 }));
        self.set(stream, refreshed, false).await.is_ok()
    }

    /// A publish has ended: a record made by publishing goes, any other is finished. One that another origin has taken
    /// over meanwhile is left alone.
    pub(super) async fn publish_ended(&self, stream: &StreamId) {
        let Ok(Some(record)) = self.find_now(stream).await else { return };
        if !self.is_ours(&record) {
            return;
        }
        if record.document.get("zombi").and_then(Value::as_bool).unwrap_or(false) {
            self.delete(stream).await;
        } else {
            let finished = json!({
                "status": "finished",
                "updateTime": clock::wall_ms(),
                "webRTCViewerCount": 0,
                "hlsViewerCount": 0,
                "dashViewerCount": 0,
                "rtmpViewerCount": 0,
            });
            let _ = self.set(stream, fields(finished), false).await; // said in the log
        }
    }

    /// What a client says of a stream.
    pub(super) async fn set_meta_data(&self, stream: &StreamId, meta_data: &str) {
        let _ = self.set(stream, fields(json!({ "metaData": meta_data })), false).await; // said in the log
    }

    /// Viewers of a stream came (`1`) or went (`-1`); AMS counts them for the whole cluster.
    pub(super) async fn viewers(&self, stream: &StreamId, by: i64) {
        if let Err(error) = self.db.inc_broadcast(&self.key(stream), "webRTCViewerCount", by).await {
            tracing::debug!(%error, %stream, "a viewer was not counted");
        }
    }

    /// The node has started its app.
    pub(super) async fn app_started(&self) {
        self.db.app_started(&self.app).await;
    }

    /// The node's own heartbeat. AMS stores CPU and memory as text.
    pub(super) async fn node_alive(&self, id: &str, cpu: f64) {
        let alive = fields(json!({
            "_t": "ClusterNode",
            "ip": self.address,
            "lastUpdateTime": clock::wall_ms(),
            "memory": "586/1945",
            "cpu": format!("{}", cpu.round()),
            "dbQueryAveargeTimeMs": 1,
        }));
        if let Err(error) = self.db.set_cluster_node(id, alive).await {
            tracing::debug!(%error, "the node's heartbeat was not written");
        }
    }

    /// The addresses of the cluster's other members that say they are alive.
    pub(super) async fn other_nodes(&self) -> Result<Vec<IpAddr>, Unread> {
        let documents = self.db.cluster_nodes().await.map_err(|error| {
            tracing::debug!(%error, "the cluster's members could not be read");
            Unread
        })?;
        let now = clock::wall_ms();
        let alive = documents.into_iter().filter(|document| {
            let beat = document.get("lastUpdateTime").and_then(Value::as_i64).unwrap_or(0);
            now.saturating_sub(beat) < LIVE_WINDOW_MS
        });
        let ips = alive.filter_map(|document| Some(document.get("ip")?.as_str()?.to_owned()));
        Ok(ips.filter(|ip| *ip != self.address).filter_map(|ip| ip.parse().ok()).collect())
    }

    /// Whether there was a record, or one was made.
    async fn set(&self, stream: &StreamId, fields: Map<String, Value>, upsert: bool) -> Result<bool, Unread> {
        self.db.set_broadcast(&self.key(stream), fields, upsert).await.map_err(|error| {
            tracing::debug!(%error, %stream, "a record was not written");
            Unread
        })
    }

    async fn delete(&self, stream: &StreamId) {
        if let Err(error) = self.db.delete_broadcast(&self.key(stream)).await {
            tracing::debug!(%error, %stream, "a record was not deleted");
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
