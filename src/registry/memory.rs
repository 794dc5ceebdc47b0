//! The cluster's database inside this process: what `forebay demo` runs on when no MongoDB is named.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::domain::ids::StreamKey;

/// Changes that a slow listener may be behind; one that lags re-reads what it waits for.
const CHANGES_KEPT: usize = 1024;

/// A document store with just the operations that AMS members use.
#[derive(Debug, Clone)]
pub struct MemoryDb {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<StreamKey>,
}

#[derive(Debug, Default)]
struct Inner {
    broadcasts: HashMap<StreamKey, Map<String, Value>>,
    nodes: HashMap<String, Map<String, Value>>,
}

impl Default for MemoryDb {
    fn default() -> Self {
        Self { inner: Arc::default(), changes: broadcast::channel(CHANGES_KEPT).0 }
    }
}

impl MemoryDb {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
