//! The members' side: reads and writes as AMS's own nodes do (Morphia's shapes and indexes).

use std::{collections::HashSet, fmt, future::IntoFuture, sync::Arc, time::Duration};

use mongodb::{
    Client, Collection, IndexModel,
    bson::{Document, doc},
    options::{ClientOptions, IndexOptions},
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::wire;
use crate::{
    domain::ids::{AppName, StreamKey},
    registry::cluster_db::ClusterDbError,
};

/// How long a member looks for a server, and for the connection to it.
const FIND_SERVER: Duration = Duration::from_secs(2);
/// Each question to a server that is found. AMS's driver would wait for half a minute and more; a node of the demo has
/// clients to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Databases whose indexes were made; above it they are made again, which changes nothing.
const INDEXED_APPS: usize = 256;
/// MongoDB's code for a value that a unique index already has.
const DUPLICATE_KEY: i32 = 11_000;

/// A real MongoDB as the cluster's members write it. Clones share one pool of connections.
#[derive(Clone)]
pub struct MongoClusterDb {
    client: Client,
    database: Arc<dyn Fn(&AppName) -> String + Send + Sync>,
    indexed: Arc<tokio::sync::Mutex<HashSet<AppName>>>,
}

impl fmt::Debug for MongoClusterDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MongoClusterDb")
    }
}

impl From<mongodb::error::Error> for ClusterDbError {
    fn from(error: mongodb::error::Error) -> Self {
        Self(error.to_string())
    }
}

impl MongoClusterDb {
    /// Connects the members' side and waits (at most 2 s) until the server answers. `database` names an app's database.
    pub async fn connect(
        uri: &str,
        database: impl Fn(&AppName) -> String + Send + Sync + 'static,
    ) -> Result<Self, ClusterDbError> {
        let mut options = ClientOptions::parse(uri).await?;
        options.app_name = Some("forebay-demo-node".into());
        options.server_selection_timeout = Some(FIND_SERVER);
        options.connect_timeout = Some(FIND_SERVER);
        let client = Client::with_options(options)?;
        client.database("admin").run_command(doc! { "ping": 1 }).await?;
        Ok(Self { client, database: Arc::new(database), indexed: Arc::default() })
    }

    /// The `broadcast` document of a stream.
    pub async fn find_broadcast(&self, key: &StreamKey) -> Result<Option<Map<String, Value>>, ClusterDbError> {
        let found = answered(self.broadcasts(&key.app).find_one(by_stream(key))).await?;
        Ok(found.map(wire::to_json))
    }

    /// A member has started an app: its indexes are made, as AMS does then. Where this was not said, the first record
    /// waits for them.
    pub async fn app_started(&self, app: &AppName) {
        self.ensure_indexes(app).await;
    }

    /// `$set`s fields, making the document if `upsert`; says whether one was there or made.
    pub async fn set_broadcast(
        &self,
        key: &StreamKey,
        fields: Map<String, Value>,
        upsert: bool,
    ) -> Result<bool, ClusterDbError> {
        if upsert {
            self.ensure_indexes(&key.app).await;
        }
        let update = set(fields, "Broadcast");
        let broadcasts = self.broadcasts(&key.app);
        let outcome = answered(async {
            let once = || broadcasts.update_one(by_stream(key), update.clone()).upsert(upsert);
            match once().await {
                // Two members made it at once: the unique index let one win, and the other one's fields go on top.
                Err(error) if is_duplicate(&error) => once().await,
                other => other,
            }
        })
        .await?;
        Ok(outcome.matched_count > 0 || outcome.upserted_id.is_some())
    }

    /// `$inc`s one number, if there is such a document.
    pub async fn inc_broadcast(&self, key: &StreamKey, field: &str, by: i64) -> Result<(), ClusterDbError> {
        let mut change = Document::new();
        change.insert(field, wire::integer(field, by));
        answered(self.broadcasts(&key.app).update_one(by_stream(key), doc! { "$inc": change })).await?;
        Ok(())
    }

    /// Deletes a document.
    pub async fn delete_broadcast(&self, key: &StreamKey) -> Result<(), ClusterDbError> {
        answered(self.broadcasts(&key.app).delete_one(by_stream(key))).await?;
        Ok(())
    }

    /// Upserts a `clusternode` document by its `_id`.
    pub async fn set_cluster_node(&self, id: &str, fields: Map<String, Value>) -> Result<(), ClusterDbError> {
        let update = set(fields, "ClusterNode");
        answered(self.nodes().update_one(doc! { "_id": id }, update).upsert(true)).await?;
        Ok(())
    }

    /// All `clusternode` documents.
    pub async fn cluster_nodes(&self) -> Result<Vec<Map<String, Value>>, ClusterDbError> {
        answered(async {
            let mut cursor = self.nodes().find(doc! {}).await?;
            let mut rows = Vec::new();
            while cursor.advance().await? {
                rows.push(wire::to_json(cursor.deserialize_current()?));
            }
            Ok(rows)
        })
        .await
    }

    fn broadcasts(&self, app: &AppName) -> Collection<Document> {
        self.client.database(&(self.database)(app)).collection("broadcast")
    }

    fn nodes(&self) -> Collection<Document> {
        self.client.database("clusterdb").collection("clusternode")
    }

    /// An index that is refused is reported, and nothing else changes.
    async fn ensure_indexes(&self, app: &AppName) {
        // Held until they are there: who comes second must not write before.
        let mut indexed = self.indexed.lock().await;
        if indexed.len() >= INDEXED_APPS {
            indexed.clear();
        }
        if !indexed.insert(app.clone()) {
            return;
        }
        let unique = IndexOptions::builder().name("streamId_unique_index".to_owned()).unique(true).build();
        let indexes = [
            IndexModel::builder().keys(doc! { "streamId": 1 }).options(unique).build(),
            IndexModel::builder().keys(doc! { "status": 1 }).build(),
            IndexModel::builder().keys(doc! { "name": "text" }).build(),
        ];
        if let Err(error) = self.broadcasts(app).create_indexes(indexes).await {
            tracing::warn!(%app, %error, "indexes were refused");
        }
    }
}

/// What the server says, if it says so in time.
async fn answered<T>(question: impl IntoFuture<Output = mongodb::error::Result<T>>) -> Result<T, ClusterDbError> {
    match timeout(ANSWER, question.into_future()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ClusterDbError(format!("not within {} ms", ANSWER.as_millis()))),
    }
}

fn by_stream(key: &StreamKey) -> Document {
    doc! { "streamId": key.stream.as_str() }
}

/// `$set` of the fields; a document that this makes also gets the mapper's discriminator.
fn set(fields: Map<String, Value>, kind: &str) -> Document {
    let mut fields = wire::to_bson(fields);
    fields.remove("_id");
    fields.insert("_t", kind);
    doc! { "$set": fields }
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    use mongodb::error::{ErrorKind, WriteFailure};
    match error.kind.as_ref() {
        ErrorKind::Write(WriteFailure::WriteError(write)) => write.code == DUPLICATE_KEY,
        ErrorKind::Command(command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}
