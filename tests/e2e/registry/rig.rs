//! A registry on a store, and the cluster's members who write into that store.

use std::time::Duration;

use forebay::{
    clock,
    config::{Config, Mongo, Secret},
    domain::{
        ids::{AppName, StreamKey},
        routing::Lookup,
    },
    registry::{
        Backing, Registry, StoreStatus, Watching, cluster_db::ClusterDb, memory::MemoryDb, mongo::MongoClusterDb,
    },
    shutdown::Shutdown,
};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::support::mongod::{Mongod, Shape};

/// Longer than anything that a test waits for takes on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Where the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    Mongo(Shape),
}

/// One registry and the members' side of its store. The server, if any, ends with it.
pub(super) struct Rig {
    pub(super) registry: Registry,
    pub(super) db: ClusterDb,
    pub(super) mongod: Option<Mongod>,
    shutdown: Shutdown,
}

impl Rig {
    pub(super) async fn start(kind: Kind) -> Self {
        match kind {
            Kind::Memory => {
                let db = MemoryDb::default();
                let mut config = config();
                config.mongo = None;
                let (registry, shutdown) = door(&config, Backing::Memory(db.clone())).await;
                Self { registry, db: ClusterDb::Memory(db), mongod: None, shutdown }
            }
            Kind::Mongo(shape) => Self::on(Mongod::start(shape).await).await,
        }
    }

    /// A registry on a server that runs.
    pub(super) async fn on(mongod: Mongod) -> Self {
        Self::with(mongod, |_| {}).await
    }

    /// The same with other settings.
    pub(super) async fn with(mongod: Mongod, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config_for(&mongod);
        change(&mut config);
        let db = ClusterDb::Mongo(members(&mongod).await);
        let (registry, shutdown) = door(&config, Backing::Mongo).await;
        Self { registry, db, mongod: Some(mongod), shutdown }
    }

    pub(super) fn mongod(&mut self) -> &mut Mongod {
        self.mongod.as_mut().expect("this rig has a server")
    }

    /// Writes a record as a member does.
    pub(super) async fn write(&self, key: &StreamKey, fields: Value) {
        let mut fields = object(fields);
        fields.insert("streamId".into(), key.stream.as_str().into());
        self.db.set_broadcast(key, fields, true).await.expect("a member can write");
    }

    /// Waits until the changes of the store are pushed.
    pub(super) async fn until_pushed(&self) {
        eventually("changes are pushed", async || self.registry.store_state().watching == Watching::Pushed).await;
    }

    pub(super) async fn until_up(&self) {
        eventually("the store is up", async || self.registry.store_state().status == StoreStatus::Up).await;
    }

    pub(super) async fn until_away(&self) {
        let away = async || matches!(self.registry.store_state().status, StoreStatus::Away(_));
        eventually("the store is away", away).await;
    }

    /// Looks a stream up until `expected` holds of it.
    pub(super) async fn until(&self, key: &StreamKey, what: &str, expected: impl Fn(&Lookup) -> bool) -> Duration {
        let begun = Instant::now();
        eventually(what, async || expected(&self.registry.look_up(key).await)).await;
        begun.elapsed()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

/// A registry alone.
pub(super) async fn door(config: &Config, backing: Backing) -> (Registry, Shutdown) {
    let shutdown = Shutdown::new();
    let registry = Registry::start(config, backing, &shutdown).await.expect("the registry starts");
    (registry, shutdown)
}

/// Settings of a door whose nodes are discovered in 10.0.0.0/8 and polled quickly.
pub(super) fn config() -> Config {
    let text = r#"
        [mongo]
        uri = "mongodb://127.0.0.1:1"
        [apps]
        LiveApp = {}
        [nodes]
        poll = "100ms"
        permit = ["10.0.0.0/8"]
        [[nodes.rule]]
        range = "10.0.2.0/24"
        role = "edge"
        zone = "b"
    "#;
    Config::from_toml_str(text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// The same for a certain server.
pub(super) fn config_for(mongod: &Mongod) -> Config {
    let mut config = config();
    let mongo = config.mongo.take().expect("the text has the table");
    config.mongo = Some(Mongo { uri: Secret(mongod.uri()), ..mongo });
    config
}

pub(super) async fn members(mongod: &Mongod) -> MongoClusterDb {
    let database = |app: &AppName| app.as_str().to_ascii_lowercase();
    MongoClusterDb::connect(&mongod.uri(), database).await.expect("the server runs")
}

pub(super) fn key(stream: &str) -> StreamKey {
    StreamKey { app: "LiveApp".parse().expect("legal"), stream: stream.parse().expect("legal") }
}

/// A record as it stands while a publish runs, refreshed `age_ms` ago.
pub(super) fn live(origin: &str, age_ms: i64) -> Value {
    let now = clock::wall_ms();
    json!({
        "status": "broadcasting", "originAdress": origin, "updateTime": now - age_ms, "startTime": now - age_ms,
        "type": "liveStream", "publishType": "WebRTC", "zombi": true, "virtual": false, "password": "secret",
        "webRTCViewerCount": 0, "speed": 1.0
    })
}

pub(super) fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields,
        other => panic!("not an object: {other}"),
    }
}

pub(super) fn is_live(lookup: &Lookup) -> bool {
    lookup.live().is_some()
}

pub(super) fn is_live_on(lookup: &Lookup, origin: &str) -> bool {
    lookup.live().is_some_and(|record| record.origin.as_deref() == Some(origin))
}

pub(super) fn is_ended(lookup: &Lookup) -> bool {
    matches!(lookup, Lookup::Found { live: false, .. })
}

/// Asks again until it is so; there is nothing to wait on from outside.
pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}
