//! The door's side: reads what routing needs, within a limit, and writes nothing of AMS's.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mongodb::{
    Client, Collection,
    bson::{Document, doc},
    error::{ErrorKind, Result as DriverResult},
    options::{ClientOptions, ReadPreference, ReadPreferenceOptions, SelectionCriteria},
};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{MongoFeed, wire};
use crate::{
    clock,
    config::{Apps, Secret},
    domain::ids::{AppName, StreamKey},
    registry::store::{Bookmark, Feed, MAX_NODE_ROWS, NodeRow, NodeStore, Row, StoreError, StreamStore},
};

/// How long the driver looks for a server that takes a read, and for a connection to it.
const FIND_SERVER: Duration = Duration::from_secs(1);
/// Each read; later than that, an answer no longer helps the client that waits for it.
pub(super) const READ_LIMIT: Duration = Duration::from_millis(500);
/// The slower questions, for which no client waits: `clusternode`, opening a change stream.
pub(super) const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);
/// A read that nobody waits for any more is dropped after this, and its connection with it.
const ABANDON: Duration = Duration::from_secs(10);
/// Clients' reads that may be unanswered at once; one more waits for a place within its own limit.
const READS_IN_FLIGHT: usize = 64;
/// Connections: one per read, one per watched app, some for the rest.
const CONNECTIONS: u32 = 160;
/// How often the driver looks at each server by itself.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The cluster's MongoDB as the door reads it. Clones share one pool of connections.
#[derive(Clone)]
pub struct MongoStore {
    uri: Secret,
    apps: Arc<ArcSwap<Apps>>,
    /// Made on first use: an SRV name may not resolve yet when the door starts.
    client: Arc<OnceCell<Client>>,
    reads: Arc<Semaphore>,
}

impl fmt::Debug for MongoStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MongoStore")
    }
}

impl MongoStore {
    /// A store that connects when it is first asked. Fails only if `uri` cannot be read at all; says why in words.
    pub async fn new(uri: Secret, apps: Apps) -> Result<Self, String> {
        let apps = Arc::new(ArcSwap::from_pointee(apps));
        let store = Self { uri, apps, client: Arc::default(), reads: Arc::new(Semaphore::new(READS_IN_FLIGHT)) };
        match timeout(FIND_SERVER, ClientOptions::parse(&store.uri.0)).await {
            Ok(Err(error)) if matches!(error.kind.as_ref(), ErrorKind::InvalidArgument { .. }) => {
                Err(error.to_string())
            }
            _ => Ok(store),
        }
    }

    /// Reads other apps, or the same in other databases, from now on.
    pub fn set_apps(&self, apps: Apps) {
        self.apps.store(Arc::new(apps));
    }

    async fn client(&self) -> DriverResult<&Client> {
        let connect = || async {
            let mut options = ClientOptions::parse(&self.uri.0).await?;
            options.app_name.get_or_insert_with(|| "forebay".into());
            options.server_selection_timeout = Some(FIND_SERVER);
            options.connect_timeout = Some(FIND_SERVER);
            options.heartbeat_freq = Some(HEARTBEAT);
            options.max_pool_size = Some(CONNECTIONS);
            // While a primary is missing, a secondary's answer is better than none.
            options.selection_criteria.get_or_insert_with(|| {
                SelectionCriteria::ReadPreference(ReadPreference::PrimaryPreferred {
                    options: Some(ReadPreferenceOptions::default()),
                })
            });
            Client::with_options(options)
        };
        self.client.get_or_try_init(connect).await
    }

    /// A client's read: one of a bounded number, and given up after [`READ_LIMIT`].
    async fn read<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = DriverResult<T>> + Send + 'static,
    {
        let asked = clock::now();
        let place = timeout(READ_LIMIT, Arc::clone(&self.reads).acquire_owned()).await;
        let place = place.map_err(|_| StoreError::Busy)?.expect("the semaphore is never closed");
        self.ask(READ_LIMIT.saturating_sub(clock::now() - asked), Some(place), question).await
    }

    /// Asks in a task of its own and waits for the answer at most `limit`: the driver does not like its futures to be
    /// dropped half-way, so a late question goes on, and keeps its place, until [`ABANDON`].
    pub(super) async fn ask<T, F>(
        &self,
        limit: Duration,
        place: Option<OwnedSemaphorePermit>,
        question: impl FnOnce(Client) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = DriverResult<T>> + Send + 'static,
    {
        let late = || StoreError::Away(format!("not within {} ms", limit.as_millis()));
        let asked = async {
            let client = self.client().await.map_err(|error| wire::store_error(&error))?.clone();
            let work = question(client);
            let task = tokio::spawn(async move {
                let _place = place;
                timeout(ABANDON, work).await
            });
            match task.await {
                Ok(Ok(answer)) => answer.map_err(|error| wire::store_error(&error)),
                Ok(Err(_)) | Err(_) => Err(late()),
            }
        };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(late()))
    }

    pub(super) fn database(&self, app: &AppName) -> Result<String, StoreError> {
        let unknown = || StoreError::Refused { code: 0, message: format!("app {app} has no database") };
        self.apps.load().database(app).ok_or_else(unknown)
    }
}

fn broadcasts(client: &Client, database: &str) -> Collection<Document> {
    client.database(database).collection("broadcast")
}

fn projection() -> Document {
    wire::FIELDS.iter().map(|field| ((*field).to_owned(), 1.into())).collect()
}

impl StreamStore for MongoStore {
    async fn find(&self, key: &StreamKey) -> Result<Option<Row>, StoreError> {
        let database = self.database(&key.app)?;
        let filter = doc! { "streamId": key.stream.as_str() };
        let found = self
            .read(move |client| async move {
                broadcasts(&client, &database).find_one(filter).projection(projection()).max_time(READ_LIMIT).await
            })
            .await?;
        Ok(found.as_ref().map(wire::row))
    }

    async fn watch(&self, app: &AppName, resume: Option<Bookmark>) -> Result<Feed, StoreError> {
        let database = self.database(app)?;
        let open = |client: Client| async move { MongoFeed::open(&broadcasts(&client, &database), resume).await };
        match self.ask(BACKGROUND_LIMIT, None, |client| async move { Ok(open(client).await) }).await? {
            Ok(feed) => Ok(Feed::Mongo(Box::new(feed))),
            Err(error) => Err(error),
        }
    }
}

impl NodeStore for MongoStore {
    async fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.ask(BACKGROUND_LIMIT, None, |client| async move {
            let nodes: Collection<Document> = client.database("clusterdb").collection("clusternode");
            let limit = i64::try_from(MAX_NODE_ROWS).unwrap_or(i64::MAX);
            let mut cursor = nodes.find(doc! {}).limit(limit).max_time(BACKGROUND_LIMIT).await?;
            let mut rows = Vec::new();
            while cursor.advance().await? {
                rows.extend(wire::node_row(&cursor.deserialize_current()?));
            }
            Ok(rows)
        })
        .await
    }

    async fn wall_ms(&self) -> Result<i64, StoreError> {
        let answer =
            self.ask(READ_LIMIT, None, |client| async move {
                client.database("admin").run_command(doc! { "hello": 1 }).await
            })
            .await?;
        let at = answer.get("localTime").and_then(wire::whole_number);
        at.ok_or(StoreError::Refused { code: 0, message: "hello names no localTime".into() })
    }
}
