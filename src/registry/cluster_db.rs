//! The cluster's database as its *members* see it: what AMS nodes, and so the demo's nodes, read and write.
//!
//! The door itself never writes here (design.md §4: with AMS's databases Forebay only reads). Documents are JSON in the
//! shape of the BSON that AMS stores; 64-bit numbers are plain integers and land as int64 where AMS stores int64.

use serde_json::{Map, Value};

use super::memory::MemoryDb;
use crate::domain::ids::{AppName, StreamKey};

/// The database behind a cluster.
#[derive(Debug, Clone)]
pub enum ClusterDb {
    /// Inside this process; nothing survives it.
    Memory(MemoryDb),
    /// A real MongoDB, written exactly as AMS does.
    Mongo(super::mongo::MongoClusterDb),
}

/// Why a member could not read or write.
#[derive(Debug, thiserror::Error)]
#[error("the cluster's database did not answer: {0}")]
pub struct ClusterDbError(pub String);

impl ClusterDb {
    /// The `broadcast` document of a stream.
    pub async fn find_broadcast(&self, key: &StreamKey) -> Result<Option<Map<String, Value>>, ClusterDbError> {
        match self {
            Self::Memory(db) => Ok(db.find_broadcast(key)),
            Self::Mongo(db) => db.find_broadcast(key).await,
        }
    }

    /// A member has started an app: what its records need is made ready.
    pub async fn app_started(&self, app: &AppName) {
        match self {
            Self::Memory(_) => {}
            Self::Mongo(db) => db.app_started(app).await,
        }
    }

    /// `$set`s fields of a `broadcast` document, making it if `upsert`; says whether one was there or made.
    pub async fn set_broadcast(
        &self,
        key: &StreamKey,
        fields: Map<String, Value>,
        upsert: bool,
    ) -> Result<bool, ClusterDbError> {
        match self {
            Self::Memory(db) => Ok(db.set_broadcast(key, fields, upsert)),
            Self::Mongo(db) => db.set_broadcast(key, fields, upsert).await,
        }
    }

    /// `$inc`s one number of a `broadcast` document, if there is one (AMS's viewer counts).
    pub async fn inc_broadcast(&self, key: &StreamKey, field: &str, by: i64) -> Result<(), ClusterDbError> {
        match self {
            Self::Memory(db) => {
                db.inc_broadcast(key, field, by);
                Ok(())
            }
            Self::Mongo(db) => db.inc_broadcast(key, field, by).await,
        }
    }

    /// Deletes a `broadcast` document.
    pub async fn delete_broadcast(&self, key: &StreamKey) -> Result<(), ClusterDbError> {
        match self {
            Self::Memory(db) => {
                db.delete_broadcast(key);
                Ok(())
            }
            Self::Mongo(db) => db.delete_broadcast(key).await,
        }
    }

    /// Upserts a node's `clusterdb.clusternode` document by its `_id`.
    pub async fn set_cluster_node(&self, id: &str, fields: Map<String, Value>) -> Result<(), ClusterDbError> {
        match self {
            Self::Memory(db) => {
                db.set_cluster_node(id, fields);
                Ok(())
            }
            Self::Mongo(db) => db.set_cluster_node(id, fields).await,
        }
    }

    /// All `clusternode` documents.
    pub async fn cluster_nodes(&self) -> Result<Vec<Map<String, Value>>, ClusterDbError> {
        match self {
            Self::Memory(db) => Ok(db.cluster_nodes()),
            Self::Mongo(db) => db.cluster_nodes().await,
        }
    }
}
