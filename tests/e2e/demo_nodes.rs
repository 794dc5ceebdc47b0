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
    str0m_peer, webrtc_peer,
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
    assert_eq!(Vec::from_iter(&report.marks), ["cam"]);
    assert_eq!(report.id_mapping, json!({ "0": "cam", "1": "cam" }));
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_at_edges_get_the_right_stream_from_its_origin_over_one_pull() {
    let demo = Demo::start(2, 2, Traits::default()).await;
    let (_one, _) = demo.publish("origin-1", "red").await;
    let (_two, _) = demo.publish("origin-2", "blue").await;
    for stream in ["red", "blue"] {
        demo.until_record(stream, "it is written", |record| record.is_some()).await;
    }

    let mut viewers = Vec::new();
    for (edge, stream) in [("edge-1", "red"), ("edge-1", "blue"), ("edge-1", "red"), ("edge-2", "red")] {
        viewers.push((demo.play(edge, stream).await, stream));
    }

    for ((_socket, play), stream) in &viewers {
        let report = play.until("media came", |report| report.video_packets > 5 && report.audio_packets > 5).await;
        assert_eq!(Vec::from_iter(&report.marks), [*stream]);
        assert!(report.has("play_started"));
        println!("{stream}: first media after {:?}", report.first_media);
    }
    assert_eq!(demo.cluster.stats(&id("edge-1")).unwrap().pulls, 2);
    assert_eq!(demo.cluster.stats(&id("origin-1")).unwrap().pulled, 2);
    demo.until_record("red", "three watch", |record| record.is_some_and(|record| record["webRTCViewerCount"] == 3)).await;
    drop(viewers);
    demo.until_record("red", "nobody watches", |record| record.is_some_and(|record| record["webRTCViewerCount"] == 0)).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_webrtc_implementation_publishes_and_plays() {
    let demo = Demo::start(1, 1, Traits::default()).await;
    let (_socket, publish) = demo.begin("origin-1", Plan::publish("cam"), str0m_peer::stack).await;
    publish.until_has("publish_started").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;

    let (_one, at_edge) = demo.begin("edge-1", Plan::play("cam"), str0m_peer::stack).await;
    let (_two, at_origin) = demo.begin("origin-1", Plan::play("cam"), str0m_peer::stack).await;
    let (_three, other) = demo.play("edge-1", "cam").await;

    for play in [&at_edge, &at_origin, &other] {
        let report = play.until("media came", |report| report.video_packets > 5 && report.audio_packets > 5).await;
        assert_eq!(Vec::from_iter(&report.marks), ["cam"]);
    }
    let before = publish.report().key_frame_requests;
    at_edge.ask_for_key_frame();
    publish.until("a key frame was asked for", |report| report.key_frame_requests > before).await;
    at_edge.until("data is open", |report| report.data_open).await;
    publish.until("data is open", |report| report.data_open).await;
    publish.send_data("to all");
    at_edge.until("data came", |report| report.data == ["to all"]).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_is_forwarded_as_it_is() {
    let demo = Demo::start(1, 1, Traits::kind()).await;
    let h264 = json!({ "h264": true });
    let plan = Plan::publish("cam").with(h264.clone());
    let (_socket, publish) = demo.begin("origin-1", plan, str0m_peer::stack).await;
    publish.until_has("publish_started").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;

    let (_one, second) = demo.begin("edge-1", Plan::play("cam").with(h264), str0m_peer::stack).await;
    let (_two, first) = demo.play("edge-1", "cam").await;

    for play in [&first, &second] {
        let report = play.until("video came", |report| report.video_packets > 5).await;
        assert_eq!(Vec::from_iter(&report.marks), ["cam"]);
    }
    demo.end().await;
}
