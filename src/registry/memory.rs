//! The cluster's database inside this process: what `forebay demo` runs on when no MongoDB is named.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value};
use tokio::sync::broadcast;

use super::own_memory::OwnMemory;
use super::store::{Bookmark, Change, DocId, Feed, NodeRow, NodeStore, Row, StoreError, StreamStore, Subject};
use crate::{
    clock,
    domain::{
        ids::{AppName, StreamKey},
        record::{Record, Status},
    },
};

/// Changes that a slow listener may be behind; one that lags re-reads what it waits for.
const CHANGES_KEPT: usize = 1024;

/// A document store with just the operations that AMS members use.
#[derive(Debug, Clone)]
pub struct MemoryDb {
    inner: Arc<Mutex<Inner>>,
    own: Arc<Mutex<OwnMemory>>,
    changes: broadcast::Sender<StreamKey>,
}

#[derive(Debug, Default)]
struct Inner {
    broadcasts: HashMap<StreamKey, Map<String, Value>>,
    nodes: HashMap<String, Map<String, Value>>,
}

impl Default for MemoryDb {
    fn default() -> Self {
        Self { inner: Arc::default(), own: Arc::default(), changes: broadcast::channel(CHANGES_KEPT).0 }
    }
}

impl MemoryDb {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What doors keep for themselves.
    pub(super) fn own(&self) -> MutexGuard<'_, OwnMemory> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records of these apps that stream, were written since `since_ms`, and name one of `names`.
    pub(super) fn live_streams(&self, apps: &[AppName], names: &[String], since_ms: i64) -> u32 {
        let inner = self.lock();
        let lives = |key: &StreamKey, document: &Map<String, Value>| {
            let record = row(document).record;
            let origin = record.origin.as_deref().unwrap_or_default();
            apps.contains(&key.app)
                && record.updated_ms > since_ms
                && matches!(record.status, Status::Broadcasting | Status::Preparing)
                && names.iter().any(|name| name == origin)
        };
        let counted = inner.broadcasts.iter().filter(|(key, document)| lives(key, document)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }

    /// Hears of every changed or deleted `broadcast` document.
    pub fn changes(&self) -> broadcast::Receiver<StreamKey> {
        self.changes.subscribe()
    }

    /// The `broadcast` document of a stream.
    pub fn find_broadcast(&self, key: &StreamKey) -> Option<Map<String, Value>> {
        self.lock().broadcasts.get(key).cloned()
    }

    /// `$set`s fields, making the document if `upsert`; says whether one was there or made.
    pub fn set_broadcast(&self, key: &StreamKey, fields: Map<String, Value>, upsert: bool) -> bool {
        {
            let mut inner = self.lock();
            match inner.broadcasts.get_mut(key) {
                Some(document) => document.extend(fields),
                None if upsert => {
                    inner.broadcasts.insert(key.clone(), fields);
                }
                None => return false,
            }
        }
        // No listener is fine: nobody waits for a stream now.
        let _ = self.changes.send(key.clone());
        true
    }

    /// `$inc`s one number, if there is such a document.
    pub fn inc_broadcast(&self, key: &StreamKey, field: &str, by: i64) {
        if let Some(document) = self.lock().broadcasts.get_mut(key) {
            let value = document.get(field).and_then(Value::as_i64).unwrap_or(0) + by;
            document.insert(field.to_owned(), value.into());
        }
    }

    /// Deletes a `broadcast` document.
    pub fn delete_broadcast(&self, key: &StreamKey) {
        if self.lock().broadcasts.remove(key).is_some() {
            let _ = self.changes.send(key.clone());
        }
    }

    /// Upserts a `clusternode` document.
    pub fn set_cluster_node(&self, id: &str, fields: Map<String, Value>) {
        self.lock().nodes.entry(id.to_owned()).or_default().extend(fields);
    }

    /// All `clusternode` documents.
    pub fn cluster_nodes(&self) -> Vec<Map<String, Value>> {
        self.lock().nodes.values().cloned().collect()
    }
}

/// Changes of one app's records in a [`MemoryDb`].
#[derive(Debug)]
pub struct MemoryFeed {
    db: MemoryDb,
    app: AppName,
    changes: broadcast::Receiver<StreamKey>,
}

impl MemoryFeed {
    pub(super) async fn next(&mut self) -> Result<Option<Change>, StoreError> {
        match self.changes.recv().await {
            Ok(key) if key.app != self.app => Ok(None),
            Ok(key) => Ok(Some(match self.db.find_broadcast(&key) {
                Some(document) => Change::Put(key.stream, row(&document)),
                None => Change::Gone(Subject::Stream(key.stream)),
            })),
            Err(broadcast::error::RecvError::Lagged(_)) => Ok(Some(Change::Unsure)),
            Err(broadcast::error::RecvError::Closed) => Err(StoreError::Away("the database is gone".into())),
        }
    }
}

impl StreamStore for MemoryDb {
    async fn find(&self, key: &StreamKey) -> Result<Option<Row>, StoreError> {
        Ok(self.find_broadcast(key).as_ref().map(row))
    }

    async fn watch(&self, app: &AppName, _resume: Option<Bookmark>) -> Result<Feed, StoreError> {
        Ok(Feed::Memory(MemoryFeed { db: self.clone(), app: app.clone(), changes: self.changes() }))
    }
}

impl NodeStore for MemoryDb {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(self.cluster_nodes().iter().filter_map(node_row).collect())
    }

    async fn wall_ms(&self) -> Result<i64, StoreError> {
        Ok(clock::wall_ms())
    }
}

fn row(document: &Map<String, Value>) -> Row {
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| document.get(name).and_then(Value::as_i64).unwrap_or(0);
    let origin = text("originAdress");
    let record = Record {
        status: Status::from_ams(text("status")),
        origin: (!origin.is_empty()).then(|| origin.into()),
        updated_ms: number("updateTime"),
        started_ms: number("startTime"),
        is_virtual: document.get("virtual").and_then(Value::as_bool).unwrap_or(false),
        main_track: text("mainTrackStreamId").parse().ok(),
    };
    let id = document.get("_id").and_then(|id| id.get("$oid")?.as_str()).and_then(DocId::from_hex);
    Row { id, record }
}

fn node_row(document: &Map<String, Value>) -> Option<NodeRow> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let number = |name: &str| document.get(name).and_then(Value::as_i64);
    let percent = |value: &Value| value.as_f64().map(|percent| (percent as f32 / 100.0).clamp(0.0, 1.0));
    Some(NodeRow {
        id: text("_id").unwrap_or_default().to_owned(),
        ip: text("ip").filter(|ip| !ip.is_empty())?.to_owned(),
        updated_ms: number("lastUpdateTime").unwrap_or(0),
        cpu: text("cpu").and_then(NodeRow::cpu_fraction).or_else(|| document.get("cpu").and_then(percent)),
        memory: text("memory").and_then(NodeRow::memory_fraction),
        db_query_ms: number("dbQueryAveargeTimeMs"),
    })
}
