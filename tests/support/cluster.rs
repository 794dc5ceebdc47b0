//! A door in front of a cluster that tests kill, freeze and starve: `forebay serve` as a process, its nodes as processes
//! too or inside the test, a real mongod, and loopback addresses that no other test uses.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    ops::Deref,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use forebay::{
    demo::{self, ClusterOptions},
    domain::ids::{AppName, NodeId},
    registry::{cluster_db::ClusterDb, mongo::MongoClusterDb},
    shutdown::Shutdown,
};
use futures_util::future::join_all;
use mongodb::{
    Collection,
    bson::{Document, doc},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    ams_client::{Leg, MediaOrder, MediaPorts, Plan, Report, Socket, Stack},
    mongod::{Mongod, Shape, TempDir},
    process::{Process, http},
    webrtc_peer,
};

/// Longer than anything that is waited for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The SDK's watchdog: a command without its `start` or offer by then is said again (facts/clients.md §0.2).
pub const WATCHDOG: Duration = Duration::from_secs(3);

/// Asks again until it is so; there is nothing to wait on from outside a process.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

/// A running `forebay serve`. Its log is printed if the test fails.
pub struct Door {
    process: Process,
    dir: TempDir,
}

impl Door {
    /// Starts a door on free ports with these tables, and these overrides in its environment.
    pub async fn serve(tables: &str, environment: &[(&str, &str)]) -> Self {
        Self::serve_text(&door_text(tables), environment).await
    }

    /// The same with a whole configuration.
    pub async fn serve_text(text: &str, environment: &[(&str, &str)]) -> Self {
        let dir = TempDir::new("door");
        let file = dir.path().join("forebay.toml");
        std::fs::write(&file, text).expect("the temporary directory is writable");
        let file = file.to_str().expect("a path of ASCII");
        let process = Process::start_with(&["serve", "--config", file], environment).await;
        Self { process, dir }
    }

    /// Puts another configuration in the place of the one that it was started with, as an editor does.
    pub fn rewrite(&self, text: &str) {
        let (file, new) = (self.dir.path().join("forebay.toml"), self.dir.path().join("new"));
        std::fs::write(&new, text).expect("the temporary directory is writable");
        std::fs::rename(new, file).expect("it is one directory");
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub async fn open(&self) -> Socket {
        Socket::open(&self.url()).await.expect("the door takes sessions")
    }

    /// So many clients, connected.
    pub async fn open_many(&self, count: usize) -> Vec<Socket> {
        join_all((0..count).map(|_| self.open())).await
    }

    /// The status of `GET /healthz`.
    pub async fn health(&self) -> u16 {
        let answer = http(self.http(), "GET /healthz HTTP/1.0\r\n\r\n").await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    /// `POST /v1/explain`
    pub async fn explain(&self, kind: &str, stream: &str) -> Value {
        self.admin_post("/v1/explain", &json!({ "app": "LiveApp", "stream": stream, "kind": kind })).await
    }

    /// `GET /v1/nodes/{id}`
    pub async fn node(&self, id: &str) -> Value {
        self.admin_get(&format!("/v1/nodes/{id}")).await
    }

    /// Legs of one kind on every node that has some.
    pub async fn legs(&self, kind: &str) -> BTreeMap<String, u64> {
        let nodes = self.admin_get("/v1/nodes").await;
        let nodes = nodes["nodes"].as_array().expect("a list").iter();
        let legs = nodes.map(|node| {
            let id = node["id"].as_str().expect("an id").to_owned();
            (id, node["legs"][kind].as_u64().expect("a number"))
        });
        legs.filter(|(_, legs)| *legs > 0).collect()
    }

    pub async fn until_state(&self, node: &str, states: &[&str]) -> Duration {
        let what = format!("{node} is one of {states:?}");
        eventually(&what, async || {
            let node = self.node(node).await;
            node["state"].as_str().is_some_and(|state| states.contains(&state))
        })
        .await
    }

    /// The sum of all samples of a metric, whatever their labels.
    pub async fn total(&self, name: &str) -> f64 {
        let text = http(self.admin(), "GET /metrics HTTP/1.0\r\n\r\n").await;
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Memory that the process has in RAM, in MiB.
    pub fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024.0
    }

    /// Descriptors that the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the process runs").count()
    }
}

impl Deref for Door {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the door's log\n{}", self.process.log());
        }
    }
}

/// The configuration of a door on free ports with these tables.
pub fn door_text(tables: &str) -> String {
    format!(
        "[[listen]]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n[apps]\nLiveApp = {{}}\n[media]\nbind = \"127.0.0.1\"\nports = [0]\n{tables}"
    )
}

/// Where a node stands. Its role and zone follow from its address, by the rules of the door's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    OriginA = 0,
    OriginB = 64,
    EdgeA = 128,
    EdgeB = 192,
}

/// A /24 of loopback, and a port that is free there.
pub struct Addresses {
    net: [u8; 3],
    port: u16,
}

impl Addresses {
    /// Takes addresses that no other test of this process has, nor (but for a rare chance) one of another process.
    pub fn take() -> Self {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let nth = std::process::id().wrapping_mul(32).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let [_, _, high, low] = nth.to_be_bytes();
        // Out of the way of 127.0.0.1 and of the demo's 127.0.1.x.
        let net = [127, 16 + high % 200, low];
        let first = TcpListener::bind((Ipv4Addr::new(net[0], net[1], net[2], 1), 0)).expect("loopback is a /8");
        Self { net, port: first.local_addr().expect("a bound socket has an address").port() }
    }

    /// The address, which is also the id, of the `number`th node in a place, from 1.
    pub fn id(&self, place: Place, number: u8) -> String {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, place as u8 + number).to_string()
    }

    /// The `[nodes]` of a door that discovers them.
    fn rules(&self) -> String {
        let [a, b, c] = self.net;
        let mut text = format!(
            "[nodes]\npoll = \"200ms\"\nslow_start = \"2s\"\nhttp_port = {}\npermit = [\"{a}.{b}.{c}.0/24\"]\n",
            self.port
        );
        for (place, role, zone) in [
            (Place::OriginA, "origin", "a"),
            (Place::OriginB, "origin", "b"),
            (Place::EdgeA, "edge", "a"),
            (Place::EdgeB, "edge", "b"),
        ] {
            text.push_str(&format!(
                "[[nodes.rule]]\nrange = \"{a}.{b}.{c}.{}/26\"\nrole = \"{role}\"\nzone = \"{zone}\"\n",
                place as u8
            ));
        }
        text
    }
}

/// A door in front of `forebay demo-node` processes, which it discovers in a real mongod.
pub struct Processes {
    pub door: Door,
    pub addresses: Addresses,
    nodes: BTreeMap<String, Process>,
    pub mongod: Mongod,
}

impl Processes {
    pub async fn start(shape: Shape, nodes: &[(Place, u8)], environment: &[(&str, &str)]) -> Self {
        let (mongod, addresses) = (Mongod::start(shape).await, Addresses::take());
        let started = nodes.iter().map(|(place, number)| start_node(&mongod, &addresses, *place, *number));
        let nodes = join_all(started).await.into_iter().collect();
        let tables = format!("[mongo]\nuri = \"{}\"\n{}", mongod.uri(), addresses.rules());
        let door = Door::serve(&tables, environment).await;
        Self { door, addresses, nodes, mongod }
    }

    /// Another door of the same cluster.
    pub async fn another_door(&self, environment: &[(&str, &str)]) -> Door {
        let tables = format!("[mongo]\nuri = \"{}\"\n{}", self.mongod.uri(), self.addresses.rules());
        Door::serve(&tables, environment).await
    }

    pub fn id(&self, place: Place, number: u8) -> String {
        self.addresses.id(place, number)
    }

    /// Freezes a node: its connections stay, nothing answers.
    pub fn freeze(&self, id: &str) {
        self.nodes[id].signal("STOP");
    }

    pub fn thaw(&self, id: &str) {
        self.nodes[id].signal("CONT");
    }

    /// Kills a node as a crash would.
    pub fn kill(&self, id: &str) {
        self.nodes[id].signal("KILL");
    }

    /// Starts a node that was killed, on its own address.
    pub async fn restart(&mut self, place: Place, number: u8) {
        let mut dead = self.nodes.remove(&self.id(place, number)).expect("it was started before");
        dead.ended(PATIENCE).await;
        let (id, node) = start_node(&self.mongod, &self.addresses, place, number).await;
        self.nodes.insert(id, node);
    }
}

async fn start_node(mongod: &Mongod, addresses: &Addresses, place: Place, number: u8) -> (String, Process) {
    let id = addresses.id(place, number);
    let role = if matches!(place, Place::OriginA | Place::OriginB) { "origin" } else { "edge" };
    let bind = format!("{id}:{}", addresses.port);
    let node = Process::start(&["demo-node", "--role", role, "--bind", &bind, "--mongo", &mongod.uri()]).await;
    (id, node)
}

/// Demo nodes inside the test, whose traits it may choose. They end with this.
pub struct Nodes {
    pub cluster: demo::Cluster,
    shutdown: Shutdown,
}

impl Nodes {
    pub async fn start(options: ClusterOptions, db: ClusterDb) -> Self {
        let shutdown = Shutdown::new();
        let cluster = demo::Cluster::start(options, db, &shutdown).await.expect("loopback has a free port");
        Self { cluster, shutdown }
    }

    /// The `[nodes]` of a door that knows them by hand. `zones`: nodes with an odd number stand in zone a, the others in b.
    pub fn tables(&self, zones: bool) -> String {
        let mut text = "[nodes]\npoll = \"200ms\"\ndiscover = false\n".to_owned();
        for node in self.cluster.nodes() {
            let (id, address, role) = (&node.id, node.address, node.role.as_str());
            text.push_str(&format!("[[nodes.static]]\nname = \"{id}\"\naddress = \"{address}\"\nrole = \"{role}\"\n"));
            if zones {
                let odd = id.as_str().ends_with(['1', '3', '5', '7', '9']);
                text.push_str(&format!("zone = \"{}\"\n", if odd { "a" } else { "b" }));
            }
        }
        text
    }

    /// Where clients reach a node without the door.
    pub fn url(&self, id: &str) -> String {
        let nodes = self.cluster.nodes();
        let node = nodes.iter().find(|node| node.id.as_str() == id).expect("a node of this cluster");
        format!("ws://{}/LiveApp/websocket", node.address)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

pub fn node_id(id: &str) -> NodeId {
    id.parse().expect("a legal id")
}

/// The members' side of a database.
pub async fn members(mongod: &Mongod) -> ClusterDb {
    let database = |app: &AppName| app.as_str().to_ascii_lowercase();
    ClusterDb::Mongo(MongoClusterDb::connect(&mongod.uri(), database).await.expect("the server runs"))
}

/// The records of LiveApp, as an operator's shell sees them.
pub async fn broadcasts(mongod: &Mongod) -> Collection<Document> {
    mongod.client().await.database("liveapp").collection("broadcast")
}

/// Writes a record by hand, as AMS has it while a stream runs; refreshed `age_ms` ago.
pub async fn write_live(records: &Collection<Document>, stream: &str, origin: &str, age_ms: i64) -> i64 {
    let updated = forebay::clock::wall_ms() - age_ms;
    let fields = doc! {
        "status": "broadcasting", "originAdress": origin, "updateTime": updated, "startTime": updated,
        "type": "liveStream", "zombi": true, "virtual": false,
    };
    let update = doc! { "$set": fields };
    records.update_one(doc! { "streamId": stream }, update).upsert(true).await.expect("the server takes writes");
    updated
}

/// A client without media: it says its command and takes what comes.
pub fn mute(_: Plan, mut ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { while ports.orders.recv().await.is_some() {} })
}

/// A browser as far as moves are concerned: a second `start` or offer, from another node, is taken with fresh transports
/// (facts/clients.md §0.9); the `webrtc` crate cannot take it on the old ones.
pub fn moving(plan: Plan, mut ports: MediaPorts) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let stack: Stack = webrtc_peer::stack;
        let begin = || {
            let (orders, taken) = mpsc::unbounded_channel();
            let (events, report) = (ports.events.clone(), ports.report.clone());
            (orders, tokio::spawn(stack(plan.clone(), MediaPorts { orders: taken, events, report })))
        };
        let (mut orders, mut running) = begin();
        let mut used = false;
        while let Some(order) = ports.orders.recv().await {
            if matches!(order, MediaOrder::MakeOffer | MediaOrder::TakeOffer(_)) && std::mem::replace(&mut used, true) {
                drop(orders);
                running.await.expect("the stack does not panic");
                ports.report.note(|report| report.connected = false);
                (orders, running) = begin();
            }
            // A stack that has failed says so in its report.
            let _ = orders.send(order);
        }
    })
}

/// The node's first answer to a publish.
pub fn started(report: &Report) -> bool {
    starts(report) > 0
}

pub fn starts(report: &Report) -> usize {
    report.messages.iter().filter(|message| message["command"] == "start").count()
}

/// Offers that a node made to a play.
pub fn offers(report: &Report) -> usize {
    report.messages.iter().filter(|message| message["command"] == "takeConfiguration").count()
}

pub fn offered(report: &Report) -> bool {
    offers(report) > 0
}

/// Begins a leg without media and waits for the node's first answer: how long that took.
pub async fn asked(socket: &Socket, plan: Plan) -> (Leg, Duration) {
    let begun = Instant::now();
    let (leg, publish) = (socket.begin(plan.clone(), mute), plan.kind == super::ams_client::Kind::Publish);
    leg.until("the node's first answer", |report| if publish { started(report) } else { offered(report) }).await;
    (leg, begun.elapsed())
}
