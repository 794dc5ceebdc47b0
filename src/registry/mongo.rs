//! The only file that names `mongodb`.

use serde_json::{Map, Value};

use super::cluster_db::ClusterDbError;
use crate::domain::ids::{AppName, StreamKey};

/// A real MongoDB as the cluster's members write it.
#[derive(Debug, Clone)]
pub struct MongoClusterDb {}

impl MongoClusterDb {
    /// Connects the members' side. `database` names the database of an app.
    pub async fn connect(
        uri: &str,
        database: impl Fn(&AppName) -> String + Send + Sync + 'static,
    ) -> Result<Self, ClusterDbError> {
        let _ = (uri, database);
        Err(ClusterDbError("not built".into()))
    }

    /// The `broadcast` document of a stream.
    pub async fn find_broadcast(&self, _key: &StreamKey) -> Result<Option<Map<String, Value>>, ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }

    /// `$set`s fields.
    pub async fn set_broadcast(&self, _: &StreamKey, _: Map<String, Value>, _: bool) -> Result<bool, ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }

    /// `$inc`s one number.
    pub async fn inc_broadcast(&self, _: &StreamKey, _: &str, _: i64) -> Result<(), ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }

    /// Deletes a document.
    pub async fn delete_broadcast(&self, _: &StreamKey) -> Result<(), ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }

    /// Upserts a `clusternode` document.
    pub async fn set_cluster_node(&self, _: &str, _: Map<String, Value>) -> Result<(), ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }

    /// All `clusternode` documents.
    pub async fn cluster_nodes(&self) -> Result<Vec<Map<String, Value>>, ClusterDbError> {
        Err(ClusterDbError("not built".into()))
    }
}
