//! The demo's nodes, spoken to without a door: what every other end-to-end test leans on.

use std::time::Duration;

use forebay::{
    demo::{Cluster, ClusterOptions, Traits},
    domain::ids::{NodeId, StreamKey},
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
    shutdown::Shutdown,
};
use serde_json::{Map, Value, json};

use crate::support::{
    ams_client::{Leg, Plan, Socket, Stack},
    webrtc_peer,
};

/// A cluster, its database, and what ends it.
struct Demo {
    cluster: Cluster,
    db: MemoryDb,
    shutdown: Shutdown,
}

impl Demo {
    async fn start(origins: usize, edges: usize, traits: Traits) -> Self {
        let (db, shutdown) = (MemoryDb::default(), Shutdown::new());
        let options = ClusterOptions { origins, edges, traits, ..ClusterOptions::default() };
        let cluster = Cluster::start(options, ClusterDb::Memory(db.clone()), &shutdown).await.unwrap();
        Self { cluster, db, shutdown }
    }

    fn url(&self, node: &str) -> String {
        let nodes = self.cluster.nodes();
        let address = nodes.iter().find(|demo| demo.id == id(node)).unwrap().address;
        format!("ws://{address}/LiveApp/websocket")
    }

    async fn begin(&self, node: &str, plan: Plan, stack: Stack) -> (Socket, Leg) {
        let socket = Socket::open(&self.url(node)).await.unwrap();
        let leg = socket.begin(plan, stack);
        (socket, leg)
    }

    async fn publish(&self, node: &str, stream: &str) -> (Socket, Leg) {
        let (socket, leg) = self.begin(node, Plan::publish(stream), webrtc_peer::stack).await;
        leg.until_has("publish_started").await;
        (socket, leg)
    }

    async fn play(&self, node: &str, stream: &str) -> (Socket, Leg) {
        self.begin(node, Plan::play(stream), webrtc_peer::stack).await
    }

    /// Waits until the stream's record satisfies `check`.
    async fn until_record(&self, stream: &str, what: &str, check: impl Fn(Option<&Map<String, Value>>) -> bool) {
        let key = key(stream);
        let mut changes = self.db.changes();
        let checked = async {
            while !check(self.db.find_broadcast(&key).as_ref()) {
                // Counts change without a word, so a quiet moment is a reason to look again, too.
                let _ = tokio::time::timeout(Duration::from_millis(50), changes.recv()).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(15), checked).await;
        assert!(in_time.is_ok(), "{what}: {:?}", self.db.find_broadcast(&key));
    }

    async fn end(self) {
        assert!(self.shutdown.finish(Duration::from_secs(5)).await, "every task of the cluster ends");
    }
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(stream: &str) -> StreamKey {
    StreamKey { app: "LiveApp".parse().unwrap(), stream: stream.parse().unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_at_the_origin_gets_what_is_published_there() {
    let demo = Demo::start(1, 0, Traits::kind()).await;

    let (_publisher, _) = demo.publish("origin-1", "cam").await;
    let (_viewer, play) = demo.play("origin-1", "cam").await;

    let report = play.until("audio and video came", |report| report.video_packets > 10 && report.audio_packets > 10).await;
    assert_eq!(report.marks.into_iter().collect::<Vec<_>>(), ["cam"]);
    assert_eq!(report.id_mapping, json!({ "0": "cam", "1": "cam" }));
    demo.end().await;
}
