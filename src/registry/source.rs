//! Whichever store is behind the door.

use super::{
    memory::MemoryDb,
    mongo::MongoStore,
    store::{Bookmark, Feed, NodeRow, NodeStore, Row, StoreError, StreamStore},
};
use crate::{
    config::Apps,
    domain::ids::{AppName, StreamKey},
};

/// One of the stores.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Memory(MemoryDb),
    Mongo(MongoStore),
}

impl Source {
    /// Takes which apps exist, and where their databases are.
    pub(super) fn set_apps(&self, apps: &Apps) {
        match self {
            // Its databases are the apps' own names.
            Self::Memory(_) => {}
            Self::Mongo(db) => db.set_apps(apps.clone()),
        }
    }
}

impl StreamStore for Source {
    async fn find(&self, key: &StreamKey) -> Result<Option<Row>, StoreError> {
        match self {
            Self::Memory(db) => db.find(key).await,
            Self::Mongo(db) => db.find(key).await,
        }
    }

    async fn watch(&self, app: &AppName, resume: Option<Bookmark>) -> Result<Feed, StoreError> {
        match self {
            Self::Memory(db) => db.watch(app, resume).await,
            Self::Mongo(db) => db.watch(app, resume).await,
        }
    }
}

impl NodeStore for Source {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        match self {
            Self::Memory(db) => db.nodes().await,
            Self::Mongo(db) => db.nodes().await,
        }
    }

    async fn wall_ms(&self) -> Result<i64, StoreError> {
        match self {
            Self::Memory(db) => db.wall_ms().await,
            Self::Mongo(db) => db.wall_ms().await,
        }
    }
}
