//! A door, its nodes and a real MongoDB together: what a play is routed by, and how legs spread.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use forebay::{
    clock,
    demo::{ClusterOptions, Traits},
};
use futures_util::future::join_all;
use mongodb::bson::doc;
use serde_json::Value;

use crate::support::{
    ams_client::{Plan, Socket},
    cluster::{Door, Nodes, asked, broadcasts, eventually, members, moving, mute, node_id, write_live},
    mongod::{Mongod, Shape},
    process::Process,
    webrtc_peer,
};

/// AMS's window: a record that was not refreshed for so long has ended.
const WINDOW_MS: i64 = 20_000;
/// How far a question's own time, and clocks measured over a busy machine, may move the end of the window.
const SLACK_MS: i64 = 1_500;

async fn door_before(nodes: &Nodes, mongod: &Mongod, zones: bool, environment: &[(&str, &str)]) -> Door {
    let tables = format!("[mongo]\nuri = \"{}\"\n{}", mongod.uri(), nodes.tables(zones));
    Door::serve(&tables, environment).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_records_in_mongodb_are_what_plays_are_routed_by_until_amss_window_ends() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let arguments = [
        "demo",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--media",
        "127.0.0.1:0",
        "--mongo",
        &mongod.uri(),
    ];
    let door = Process::start(&arguments).await;
    let records = broadcasts(&mongod).await;
    let written = write_live(&records, "by-hand", "127.0.1.2", 16_000).await;

    let explain = async |stream: &str| {
        let question = serde_json::json!({ "app": "LiveApp", "stream": stream, "kind": "play" });
        door.admin_post("/v1/explain", &question).await
    };
    let mut asked_while_live = 0;
    loop {
        let before = clock::wall_ms() - written;
        let explained = explain("by-hand").await;
        let after = clock::wall_ms() - written;
        let live = explained["outcome"] == "placed";
        if after < WINDOW_MS - SLACK_MS {
            assert!(live, "{after} ms after its last heartbeat: {explained}");
            assert_eq!(explained["record"]["origin_node"], "origin-2");
            asked_while_live += 1;
        }
        if before > WINDOW_MS + SLACK_MS {
            assert!(!live, "{before} ms after its last heartbeat: {explained}");
        }
        if !live {
            println!("ended between {before} and {after} ms after its last heartbeat");
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked_while_live > 0, "it was live before");

    let publisher = Socket::open(&door.url()).await.unwrap();
    let publish = publisher.begin(Plan::publish("s"), webrtc_peer::stack);
    publish.until_has("publish_started").await;
    let viewer = Socket::open(&door.url()).await.unwrap();
    viewer.begin(Plan::play("s"), webrtc_peer::stack).until_more_video(5).await;
    let by_stream = doc! { "streamId": "s" };
    let record = records.find_one(by_stream.clone()).await.unwrap().expect("the node has written it");
    assert_eq!(record.get_str("status").unwrap(), "broadcasting");
    let origin = record.get_str("originAdress").unwrap().to_owned();
    eventually("the record has replaced what the door saw", async || {
        let explained = explain("s").await;
        explained["record"]["origin"] == origin && explained["record"]["hinted"] == false
    })
    .await;
    publish.stop();
    publish.until_has("publish_finished").await;
    eventually("its record is gone", async || records.find_one(by_stream.clone()).await.unwrap().is_none()).await;
    eventually("the next play waits", async || explain("s").await["outcome"] == "waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_heartbeat_and_its_plays_follow_it_to_another_origin() {
    let mongod = Mongod::start(Shape::ReplicaSet).await;
    let traits = Traits { record_heartbeat: Duration::from_millis(200), ..Traits::kind() };
    let options = ClusterOptions { origins: 2, edges: 2, traits, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, members(&mongod).await).await;
    let door = door_before(&nodes, &mongod, true, &[("FOREBAY_MONGO__LIVE_WINDOW", "2s")]).await;
    let records = broadcasts(&mongod).await;
    // The stream is at both origins, so that either can serve it; the record says which one does.
    let mut publishers = Vec::new();
    for origin in ["origin-1", "origin-2"] {
        let publisher = Socket::open(&nodes.url(origin)).await.unwrap();
        let publish = publisher.begin(Plan::publish("s"), webrtc_peer::stack);
        publish.until_has("publish_started").await;
        eventually("its record names it", async || {
            let record = records.find_one(doc! { "streamId": "s" }).await.unwrap();
            let origin = if origin == "origin-1" { "127.0.1.1" } else { "127.0.1.2" };
            record.is_some_and(|record| record.get_str("originAdress").is_ok_and(|named| named == origin))
        })
        .await;
        publishers.push((publisher, publish));
    }

    let mut viewers = Vec::new();
    for (origin, address, edge) in [("origin-1", "127.0.1.1", "edge-1"), ("origin-2", "127.0.1.2", "edge-2")] {
        let moved = Instant::now();
        records.update_one(doc! { "streamId": "s" }, doc! { "$set": { "originAdress": address } }).await.unwrap();
        eventually("the next play goes to the zone of the new origin", async || {
            let explained = door.explain("play", "s").await;
            explained["record"]["origin_node"] == origin && explained["node"] == edge
        })
        .await;
        println!("the record says {origin}: plays follow after {:?}", moved.elapsed());
        let viewer = door.open().await;
        let play = viewer.begin(Plan::play("s"), moving);
        play.until_more_video(5).await;
        assert_eq!(door.legs("play").await.get(edge), Some(&1), "{:?}", door.legs("play").await);
        viewers.push((viewer, play));
    }

    nodes.cluster.stop_heartbeat(&node_id("origin-1"), true).unwrap();
    nodes.cluster.stop_heartbeat(&node_id("origin-2"), true).unwrap();
    eventually("the stream counts as ended", async || door.explain("play", "s").await["outcome"] == "waits").await;
    let record = records.find_one(doc! { "streamId": "s" }).await.unwrap().expect("nobody deletes it");
    let silent_ms = clock::wall_ms() - record.get_i64("updateTime").unwrap();
    println!("ended {silent_ms} ms after its last heartbeat");
    assert!(silent_ms > 1_500, "not before its window: {silent_ms} ms");
    let late = door.open().await;
    late.begin(Plan::play("s"), mute).until_has("no_stream_exist").await;
    nodes.cluster.stop_heartbeat(&node_id("origin-2"), false).unwrap();
    asked(&late, Plan::play("s")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_arrive_within_a_second_spread_evenly_over_equal_origins() {
    const PUBLISHES: usize = 200;
    const ORIGINS: usize = 4;
    let mongod = Mongod::start(Shape::Standalone).await;
    let traits = Traits { cpu_per_publish: 0.5, start_timeout: Duration::from_secs(60), ..Traits::default() };
    let options = ClusterOptions { origins: ORIGINS, edges: 0, traits, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, members(&mongod).await).await;
    let door = door_before(&nodes, &mongod, false, &[]).await;
    let clients = door.open_many(PUBLISHES).await;

    let begun = Instant::now();
    let legs: Vec<_> =
        clients.iter().enumerate().map(|(n, client)| client.begin(Plan::publish(&format!("s-{n}")), mute)).collect();
    let sent = begun.elapsed();
    join_all(legs.iter().map(|leg| leg.until("a start", |report| !report.messages.is_empty()))).await;
    println!("{PUBLISHES} publishes sent within {sent:?}, all answered after {:?}", begun.elapsed());
    assert!(sent < Duration::from_secs(1), "{sent:?}");
    assert!(legs.iter().all(|leg| leg.report().messages[0]["command"] == "start"));

    let counted = door.legs("publish").await;
    println!("publishes per origin: {counted:?}");
    let equal = (PUBLISHES / ORIGINS) as f64;
    assert_eq!(counted.values().sum::<u64>(), PUBLISHES as u64);
    for (node, count) in &counted {
        assert!((*count as f64 - equal).abs() <= equal * 0.1, "{node} has {count}");
        assert_eq!(nodes.cluster.stats(&node_id(node)).unwrap().publishes as u64, *count, "as the node counts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plays_of_one_stream_sit_on_few_edges_and_the_origin_serves_each_edge_once() {
    const PLAYS: usize = 100;
    let mongod = Mongod::start(Shape::Standalone).await;
    let traits = Traits { start_timeout: Duration::from_secs(60), ..Traits::default() };
    let options = ClusterOptions { origins: 2, edges: 5, traits, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, members(&mongod).await).await;
    let door = door_before(&nodes, &mongod, false, &[]).await;
    let publisher = door.open().await;
    publisher.begin(Plan::publish("s"), webrtc_peer::stack).until_has("publish_started").await;
    eventually("the record is written", async || {
        broadcasts(&mongod).await.find_one(doc! { "streamId": "s" }).await.unwrap().is_some()
    })
    .await;

    let clients = door.open_many(PLAYS).await;
    let begun = Instant::now();
    let answered = join_all(clients.iter().map(|client| asked(client, Plan::play("s")))).await;
    let longest = answered.iter().map(|(_, took)| *took).max().expect("some");
    println!("{PLAYS} plays answered after {:?}, the slowest {longest:?}", begun.elapsed());
    let counted = door.legs("play").await;
    let pulled: BTreeMap<_, _> = ["origin-1", "origin-2"]
        .map(|origin| (origin, nodes.cluster.stats(&node_id(origin)).unwrap().pulled))
        .into_iter()
        .filter(|(_, pulls)| *pulls > 0)
        .collect();
    println!("plays per edge: {counted:?}; pulls that the origin serves: {pulled:?}");
    assert_eq!(counted.values().sum::<u64>(), PLAYS as u64);
    assert!(counted.len() <= 2, "viewers of one stream share edges until they are half full: {counted:?}");
    assert_eq!(pulled.into_values().collect::<Vec<_>>(), [counted.len()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_full_is_passed_over_and_when_all_are_the_client_hears_it() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let traits = Traits { node_heartbeat: Duration::from_millis(500), ..Traits::default() };
    let options = ClusterOptions { origins: 2, edges: 0, traits, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, members(&mongod).await).await;
    let door = door_before(&nodes, &mongod, false, &[]).await;
    let (one, two) = (node_id("origin-1"), node_id("origin-2"));
    let client = door.open().await;

    nodes.cluster.refuse(&one, true).unwrap();
    for n in 0..4 {
        asked(&client, Plan::publish(&format!("refused-{n}"))).await;
    }
    assert_eq!(door.legs("publish").await, [("origin-2".to_owned(), 4)].into());
    assert_eq!(door.total("forebay_rejects_total").await, 0.0, "no client heard of it");

    nodes.cluster.refuse(&two, true).unwrap();
    let refused = client.begin(Plan::publish("all-refuse"), mute).until_has("highResourceUsage").await;
    println!("all refuse: {}", refused.messages[0]);
    assert_eq!(refused.messages[0]["streamId"], "all-refuse");
    nodes.cluster.refuse(&one, false).unwrap();
    nodes.cluster.refuse(&two, false).unwrap();

    // What the nodes report is enough: nobody has to be refused to learn that one is full.
    let full = async |node: &str, full: bool| {
        eventually("the report is read", async || {
            let cpu = door.node(node).await["load"]["parts"]["cpu"].as_f64().unwrap_or(0.0);
            (cpu > 0.75) == full
        })
        .await
    };
    nodes.cluster.set_load(&two, 90.0).await.unwrap();
    full("origin-2", true).await;
    eventually("the refusals are forgotten", async || {
        let explained: Value = door.explain("publish", "x").await;
        explained["node"] == "origin-1"
    })
    .await;
    let before = door.total("forebay_retries_total").await;
    asked(&client, Plan::publish("by-report")).await;
    assert_eq!(door.total("forebay_retries_total").await, before, "the full one was not asked");
    nodes.cluster.set_load(&one, 90.0).await.unwrap();
    full("origin-1", true).await;
    let refused = client.begin(Plan::publish("all-full"), mute).until_has("highResourceUsage").await;
    assert_eq!(refused.messages[0]["streamId"], "all-full");
    assert_eq!(door.metric("forebay_rejects_total{reason=\"busy\"}").await, Some(1.0), "the door's own word, counted");
}
