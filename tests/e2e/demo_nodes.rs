//! The demo's nodes, spoken to without a door: what every other end-to-end test leans on.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests")]

use std::time::Duration;

use forebay::{
    demo::{Cluster, ClusterOptions, Traits},
    domain::ids::{NodeId, StreamKey},
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
    shutdown::Shutdown,
};
use serde_json::{Map, Value, json};

use crate::support::{
    ams_client::{Leg, MediaEvent, MediaOrder, MediaPorts, Plan, Report, Socket, SocketReport, Stack},
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

    let report =
        play.until("audio and video came", |report| report.video_packets > 10 && report.audio_packets > 10).await;
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
    }
    assert_eq!(demo.cluster.stats(&id("edge-1")).unwrap().pulls, 2);
    assert_eq!(demo.cluster.stats(&id("origin-1")).unwrap().pulled, 2);
    demo.until_record("red", "three watch", |record| record.is_some_and(|record| record["webRTCViewerCount"] == 3))
        .await;
    drop(viewers);
    demo.until_record("red", "nobody watches", |record| record.is_some_and(|record| record["webRTCViewerCount"] == 0))
        .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn key_frame_requests_and_data_travel_between_an_edges_viewer_and_the_publisher() {
    let demo = Demo::start(1, 1, Traits::kind()).await;
    let (_socket, publish) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;
    let (_one, one) = demo.play("edge-1", "cam").await;
    let (_two, two) = demo.play("edge-1", "cam").await;
    for play in [&one, &two] {
        play.until("media and data are there", |report| report.video_packets > 0 && report.data_open).await;
    }

    let before = publish.report().key_frame_requests;
    two.ask_for_key_frame();
    publish.until("a key frame was asked for", |report| report.key_frame_requests > before).await;

    publish.until("data is open", |report| report.data_open).await;
    publish.send_data("to all");
    for play in [&one, &two] {
        play.until("the publisher's word came", |report| report.data == ["to all"]).await;
    }
    two.send_data("from two");
    publish.until("the viewer's word came", |report| report.data == ["from two"]).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_there_is_refused_in_amss_words() {
    let demo = Demo::start(1, 1, Traits::default()).await;

    for node in ["edge-1", "origin-1"] {
        let (_socket, play) = demo.play(node, "nothing").await;
        let report = play.until_has("no_stream_exist").await;
        let error = &report.messages[0];
        assert_eq!((error["command"].as_str(), error["error_code"].as_str()), (Some("error"), Some("404")));
        assert_eq!(error["streamId"], "nothing");
    }
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refuses_when_told_to_and_when_its_load_is_over_the_limit() {
    let demo = Demo::start(1, 1, Traits::kind()).await;
    let (_kept, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;

    demo.cluster.refuse(&id("edge-1"), true).unwrap();
    demo.play("edge-1", "cam").await.1.until_has("highResourceUsage").await;
    demo.cluster.set_load(&id("origin-1"), 80.0).await.unwrap();
    let (_socket, publish) = demo.begin("origin-1", Plan::publish("other"), webrtc_peer::stack).await;
    publish.until_has("highResourceUsage").await;
    let nodes = demo.db.cluster_nodes();
    let origin = nodes.iter().find(|node| node["ip"] == "127.0.1.1").unwrap();
    assert_eq!(origin["cpu"], "82", "one publish counts 2 %");

    demo.cluster.refuse(&id("edge-1"), false).unwrap();
    let (_viewer, play) = demo.play("edge-1", "cam").await;
    play.until("media came", |report| report.video_packets > 0).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_another_origin_has_is_in_use_until_that_origin_is_dead() {
    let demo = Demo::start(2, 0, Traits::default()).await;
    let (_first, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;

    let (_second, refused) = demo.begin("origin-2", Plan::publish("cam"), webrtc_peer::stack).await;
    refused.until_has("streamIdInUse").await;
    let (_third, refused) = demo.begin("origin-1", Plan::publish("cam"), webrtc_peer::stack).await;
    refused.until_has("streamIdInUse").await;

    demo.cluster.kill(&id("origin-1")).unwrap();
    let (_fourth, taken_over) = demo.begin("origin-2", Plan::publish("cam"), webrtc_peer::stack).await;
    taken_over.until_has("publish_started").await;
    demo.until_record("cam", "it has moved", |record| record.is_some_and(|it| it["originAdress"] == "127.0.1.2")).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_vanished_is_held_and_its_viewers_go_on_when_it_comes_back() {
    let demo = Demo::start(1, 1, Traits::default()).await;
    let (vanishing, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;
    let (_viewer, play) = demo.play("edge-1", "cam").await;
    play.until("media came", |report| report.video_packets > 5).await;

    vanishing.reset();
    vanishing.until("it is gone", |report| report.closed.is_some()).await;
    let back = async {
        // The node may not have noticed yet; SDKs ask again, too.
        loop {
            let (socket, publish) = demo.begin("origin-1", Plan::publish("cam"), webrtc_peer::stack).await;
            let report = publish.until("an answer", |report| !report.messages.is_empty()).await;
            if !report.has("streamIdInUse") {
                return (socket, publish);
            }
        }
    };
    let (_back, publish) = back.await;
    publish.until_has("session_restored").await;
    publish.until_has("publish_started").await;

    play.until_more_video(20).await;
    assert!(!play.report().has("play_finished"), "viewers never noticed");
    assert_eq!(play.report().offers, 1);
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_stays_away_is_given_up_after_the_hold() {
    let traits = Traits { hold: Duration::from_millis(400), ..Traits::default() };
    let demo = Demo::start(1, 0, traits).await;
    let (vanishing, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;
    let (_viewer, play) = demo.play("origin-1", "cam").await;
    play.until("media came", |report| report.video_packets > 0).await;

    vanishing.close();

    play.until_has("play_finished").await;
    demo.until_record("cam", "it is gone", |record| record.is_none()).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_live_and_die_as_amss_do() {
    let traits = Traits { record_heartbeat: Duration::from_millis(100), ..Traits::default() };
    let demo = Demo::start(1, 0, traits).await;
    let made_by_rest = json!({ "streamId": "kept", "status": "created", "originAdress": "10.9.9.9", "zombi": false });
    let Value::Object(made_by_rest) = made_by_rest else { unreachable!() };
    demo.db.set_broadcast(&key("kept"), made_by_rest, true);

    let (_one, fleeting) = demo.publish("origin-1", "fleeting").await;
    let (_two, kept) = demo.publish("origin-1", "kept").await;

    for stream in ["fleeting", "kept"] {
        let broadcasting = |record: Option<&Map<String, Value>>| {
            record.is_some_and(|record| record["status"] == "broadcasting" && record["originAdress"] == "127.0.1.1")
        };
        demo.until_record(stream, "it is live", broadcasting).await;
    }
    let record = demo.db.find_broadcast(&key("fleeting")).unwrap();
    assert_eq!(
        (&record["_t"], &record["zombi"], &record["virtual"]),
        (&json!("Broadcast"), &json!(true), &json!(false))
    );
    assert_eq!(record["publishType"], "WebRTC");
    let (begun, updated) = (record["startTime"].clone(), record["updateTime"].as_i64().unwrap());
    demo.until_record("fleeting", "its heart beats", |record| {
        record.is_some_and(|record| record["updateTime"].as_i64().unwrap() > updated && record["startTime"] == begun)
    })
    .await;
    demo.cluster.stop_heartbeat(&id("origin-1"), true).unwrap();

    fleeting.stop();
    fleeting.until_has("publish_finished").await;
    kept.stop();
    demo.until_record("fleeting", "it is deleted", |record| record.is_none()).await;
    demo.until_record("kept", "it is finished", |record| record.is_some_and(|it| it["status"] == "finished")).await;
    let kept = demo.db.find_broadcast(&key("kept")).unwrap();
    assert_eq!(kept["originAdress"], "127.0.1.1", "AMS leaves it");
    let nodes = demo.db.cluster_nodes();
    assert_eq!((&nodes[0]["_t"], &nodes[0]["memory"]), (&json!("ClusterNode"), &json!("586/1945")));
    assert!(nodes[0]["dbQueryAveargeTimeMs"].is_i64() && nodes[0]["cpu"].is_string());
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_finishes_its_plays_when_the_stream_ends_moves_or_its_origin_dies() {
    let demo = Demo::start(2, 1, Traits { record_cache: Duration::ZERO, ..Traits::default() }).await;
    let mut plays = Vec::new();
    let mut sockets = Vec::new();
    for (origin, stream) in [("origin-1", "ends"), ("origin-1", "moves"), ("origin-2", "dies")] {
        let (socket, publish) = demo.publish(origin, stream).await;
        sockets.push((socket, publish));
        demo.until_record(stream, "it is written", |record| record.is_some()).await;
        let (socket, play) = demo.play("edge-1", stream).await;
        play.until("media came", |report| report.video_packets > 0).await;
        plays.push((socket, play));
    }

    sockets[0].1.stop();
    plays[0].1.until_has("play_finished").await;
    let Value::Object(moved) = json!({ "originAdress": "127.0.1.2" }) else { unreachable!() };
    demo.db.set_broadcast(&key("moves"), moved, false);
    plays[1].1.until_has("play_finished").await;
    demo.cluster.kill(&id("origin-2")).unwrap();
    plays[2].1.until_has("play_finished").await;

    assert_eq!(demo.cluster.stats(&id("edge-1")).unwrap().plays, 0);
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_believes_a_record_that_it_found_for_a_while_and_asks_again_for_what_it_did_not() {
    let demo = Demo::start(1, 1, Traits { record_cache: Duration::from_secs(6), ..Traits::default() }).await;
    let Value::Object(finished) = json!({ "streamId": "cam", "status": "finished", "updateTime": 0 }) else {
        unreachable!()
    };
    demo.db.set_broadcast(&key("cam"), finished, true);
    demo.play("edge-1", "cam").await.1.until_has("no_stream_exist").await;
    demo.play("edge-1", "new").await.1.until_has("no_stream_exist").await;

    let (_one, _) = demo.publish("origin-1", "cam").await;
    let (_two, _) = demo.publish("origin-1", "new").await;
    for stream in ["cam", "new"] {
        let live = |record: Option<&Map<String, Value>>| record.is_some_and(|it| it["status"] == "broadcasting");
        demo.until_record(stream, "it is live", live).await;
    }

    demo.play("edge-1", "new").await.1.until("media came", |report| report.video_packets > 0).await;
    let mut refused = 0;
    loop {
        let (_socket, play) = demo.play("edge-1", "cam").await;
        let report = play.until("an answer", |report| report.has("no_stream_exist") || report.offers > 0).await;
        if report.offers > 0 {
            break;
        }
        refused += 1;
    }
    assert!(refused > 0, "the old record was believed");
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_soon_after_its_last_viewer() {
    let demo = Demo::start(1, 1, Traits { pull_idle: Duration::from_millis(300), ..Traits::default() }).await;
    let (_socket, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;
    let (_viewer, play) = demo.play("edge-1", "cam").await;
    play.until("media came", |report| report.video_packets > 0).await;
    assert_eq!(demo.cluster.stats(&id("origin-1")).unwrap().pulled, 1);

    play.stop();

    play.until_has("play_finished").await;
    let pulled = || demo.cluster.stats(&id("origin-1")).unwrap().pulled;
    let none = async {
        while pulled() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), none).await.unwrap();
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_says_so_and_ends_its_records_and_one_that_is_killed_does_neither() {
    let demo = Demo::start(2, 0, Traits::default()).await;
    let (stopped, _) = demo.publish("origin-1", "one").await;
    let (killed, _) = demo.publish("origin-2", "two").await;
    for stream in ["one", "two"] {
        demo.until_record(stream, "it is written", |record| record.is_some()).await;
    }

    demo.cluster.stop(&id("origin-1")).unwrap();
    demo.cluster.kill(&id("origin-2")).unwrap();

    let report = stopped.until("it closed", |report| report.closed.is_some()).await;
    assert!(report.messages.iter().any(|message| message["definition"] == "server_will_stop"));
    assert!(report.closed.unwrap().starts_with("closed: Some"), "with a close frame");
    demo.until_record("one", "it is gone", |record| record.is_none()).await;
    let report = killed.until("it was reset", |report| report.closed.is_some()).await;
    assert!(!report.messages.iter().any(|message| message["definition"] == "server_will_stop"));
    assert!(report.closed.unwrap().starts_with("broke"), "without a word");
    demo.until_record("two", "it stays", |record| record.is_some()).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_can_come_back_on_its_address() {
    let demo = Demo::start(1, 0, Traits::kind()).await;
    demo.cluster.kill(&id("origin-1")).unwrap();
    let again = async {
        while demo.cluster.start_again(&id("origin-1")).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again).await.unwrap();

    let (_socket, _) = demo.publish("origin-1", "cam").await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_trickled_and_most_of_them_are_private() {
    let demo = Demo::start(1, 0, Traits::default()).await;

    let (_socket, publish) = demo.publish("origin-1", "cam").await;

    let report = publish.report();
    assert!(report.candidates.len() >= 4, "{:?}", report.candidates);
    assert!(report.candidates[0].contains("10.255.255.254"), "an unreachable one comes first");
    assert!(report.candidates.iter().any(|candidate| candidate.contains("127.0.1.1")));
    let answer = report.messages.iter().find(|message| message["type"] == "answer").unwrap();
    assert!(!answer["sdp"].as_str().unwrap().contains("a=candidate"), "none is in the SDP");
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_late_under_load_and_not_at_all_when_frozen() {
    let traits = Traits { late_pong: Duration::from_millis(500), ..Traits::default() };
    let demo = Demo::start(1, 0, traits).await;
    let socket = Socket::open(&demo.url("origin-1")).await.unwrap();
    let pong = async |count: usize| {
        let asked = std::time::Instant::now();
        socket.say(json!({ "command": "ping" }));
        let pongs = |report: &SocketReport| report.messages.iter().filter(|it| it["command"] == "pong").count();
        socket.until("a pong", |report| pongs(report) == count).await;
        asked.elapsed()
    };

    pong(1).await;
    demo.cluster.set_load(&id("origin-1"), 65.0).await.unwrap();
    assert!(pong(2).await >= Duration::from_millis(500));
    demo.cluster.set_load(&id("origin-1"), 1.0).await.unwrap();
    demo.cluster.freeze(&id("origin-1"), true).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), pong(3)).await.is_err());
    demo.cluster.freeze(&id("origin-1"), false).unwrap();
    socket.until("it goes on", |report| report.messages.len() == 3).await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_hurts_nobody_but_its_sender() {
    let demo = Demo::start(1, 0, Traits::kind()).await;
    let (_other, publish) = demo.publish("origin-1", "cam").await;
    let socket = Socket::open(&demo.url("origin-1")).await.unwrap();

    for junk in ["", "no json", "[1]", "{\"command\":7}", "{\"command\":\"frobnicate\"}", &"[".repeat(50_000)] {
        socket.say_text(junk);
    }
    socket.say(json!({ "command": "publish" }));
    socket.until_message("noStreamNameSpecified", |it| it["definition"] == "noStreamNameSpecified").await;
    socket.say(json!({ "command": "play", "streamId": "../../etc" }));
    socket.until_message("invalidStreamName", |it| it["definition"] == "invalidStreamName").await;
    let broken = socket.begin(Plan::publish("broken").with(json!({ "h264": true })), bad_sdp_stack);
    broken.until_has("notSetRemoteDescription").await;
    socket.say_text(&format!("{{\"command\":\"ping\",\"x\":\"{}\"}}", "x".repeat(90_000)));
    let report = socket.until("it closed", |report| report.closed.is_some()).await;
    assert!(report.closed.unwrap().contains("Size"), "1009");

    assert!(!publish.report().has("publish_finished"));
    let (_viewer, play) = demo.play("origin-1", "cam").await;
    play.until("media came", |report| report.video_packets > 0).await;
    demo.end().await;
}

/// Offers what is no SDP.
fn bad_sdp_stack(_: Plan, mut ports: MediaPorts) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        while let Some(order) = ports.orders.recv().await {
            if let MediaOrder::MakeOffer = order {
                let _ = ports.events.send(MediaEvent::Offer("v=0\r\nnonsense".to_owned()));
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_answered_in_amss_shapes() {
    let demo = Demo::start(1, 1, Traits::kind()).await;
    let (_socket, _) = demo.publish("origin-1", "cam").await;
    demo.until_record("cam", "it is written", |record| record.is_some()).await;
    let socket = Socket::open(&demo.url("edge-1")).await.unwrap();

    socket.say(json!({ "command": "getIceServerConfig" }));
    let reply = socket.until_message("ice servers", |it| it["command"] == "iceServerConfig").await;
    assert!(reply["stunServerUri"].is_string());
    socket.say(json!({ "command": "getStreamInfo", "streamId": "cam" }));
    let reply = socket.until_message("information", |it| it["command"] == "streamInformation").await;
    assert_eq!(reply["streamInfo"][0]["videoCodec"], "VP8");
    socket.say(json!({ "command": "getBroadcastObject", "streamId": "cam" }));
    let reply = socket.until_message("the record", |it| it["definition"] == "broadcastObject").await;
    let record: Value = serde_json::from_str(reply["broadcast"].as_str().unwrap()).unwrap();
    assert_eq!(record["originAdress"], "127.0.1.1");
    socket.say(json!({ "command": "getTrackList", "streamId": "cam" }));
    let reply = socket.until_message("tracks", |it| it["command"] == "trackList").await;
    assert_eq!(reply["trackList"], json!(["cam"]));
    socket.say(json!({ "command": "getRoomInfo", "room": "hall", "streamId": "cam" }));
    let reply = socket.until_message("the room", |it| it["command"] == "roomInformation").await;
    assert_eq!((&reply["room"], &reply["streams"]), (&json!("hall"), &json!([])));
    socket.say(json!({ "command": "joinRoom", "room": "hall", "streamId": null }));
    let reply = socket.until_message("joined", |it| it["definition"] == "joinedTheRoom").await;
    assert_eq!(reply["ATTR_ROOM_NAME"], "hall");
    socket.say(json!({ "command": "getStreamInfo", "streamId": "none" }));
    socket.until_message("nothing", |it| it["definition"] == "no_stream_exist").await;
    demo.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_played_as_its_streams_come_and_go() {
    let demo = Demo::start(1, 1, Traits::kind()).await;
    let in_hall = |stream: &str| Plan::publish(stream).with(json!({ "mainTrack": "hall" }));
    let (first, one) = demo.begin("origin-1", in_hall("one"), webrtc_peer::stack).await;
    one.until_has("publish_started").await;
    demo.until_record("hall", "the room is there", |record| record.is_some_and(|it| it["virtual"] == true)).await;
    demo.until_record("one", "it is in the room", |it| it.is_some_and(|it| it["mainTrackStreamId"] == "hall")).await;

    // The publisher plays its own room, without itself; a viewer at an edge sees everyone.
    let own = first.begin(Plan::play("hall").with(json!({ "userPublishId": "one" })), webrtc_peer::stack);
    own.until_has("play_started").await;
    let (_viewer, edge) = demo.play("edge-1", "hall").await;
    edge.until("one is seen", |report| report.marks.contains("one")).await;
    assert_eq!(edge.report().id_mapping, json!({ "0": "ARDAMSaone", "1": "ARDAMSvone" }));

    let (_second, two) = demo.begin("origin-1", in_hall("two"), str0m_peer::stack).await;
    two.until_has("publish_started").await;
    let seen =
        own.until("two is heard and seen", |report| report.marks.contains("two") && report.video_packets > 5).await;
    assert!(!seen.marks.contains("one"), "nobody plays itself");
    edge.until("two is seen", |report| report.marks.contains("two")).await;

    two.stop();
    two.until_has("publish_finished").await;
    let gone =
        |report: &Report| report.id_mapping.as_object().is_some_and(|map| !map.values().any(|it| it == "ARDAMSvtwo"));
    edge.until("two is gone", gone).await;
    let offers = edge.report().offers;
    assert_eq!(offers, 3);
    edge.until_more_video(10).await;
    demo.end().await;
}
