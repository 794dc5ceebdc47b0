//! MongoDB not there when the door starts, frozen and killed while clients come and go.
//!
//! The nodes keep their own records in memory here, so that what is seen is the door's own doing.

use std::time::{Duration, Instant};

use forebay::{
    clock::wall_ms,
    demo::{ClusterOptions, Traits},
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use tokio::time::sleep;

use crate::support::{
    ams_client::{Leg, Plan, Socket},
    cluster::{Door, Nodes, PATIENCE, WATCHDOG, asked, broadcasts, eventually, moving, write_live},
    mongod::{Mongod, Shape},
};

/// Between two clients of the load, each of which comes, asks for one thing and goes.
const PACE: Duration = Duration::from_millis(250);

struct Rig {
    nodes: Nodes,
    door: Door,
    mongod: Mongod,
}

impl Rig {
    async fn start(mongod: Mongod) -> Self {
        // Clients of the load leave without a word, and their streams shall not fill the nodes.
        let traits = Traits { hold: Duration::ZERO, cpu_per_publish: 0.1, cpu_per_play: 0.1, ..Traits::default() };
        let options = ClusterOptions { origins: 2, edges: 2, traits, ..ClusterOptions::default() };
        let nodes = Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await;
        let tables = format!("[mongo]\nuri = \"{}\"\n{}", mongod.uri(), nodes.tables(false));
        let door = Door::serve(&tables, &[]).await;
        Self { nodes, door, mongod }
    }

    /// A stream with media, and someone who watches it.
    async fn live(&self, stream: &str) -> (Socket, Leg, Socket, Leg) {
        let (publisher, viewer) = (self.door.open().await, self.door.open().await);
        let publish = publisher.begin(Plan::publish(stream), moving);
        publish.until_has("publish_started").await;
        let play = viewer.begin(Plan::play(stream), moving);
        play.until_more_video(10).await;
        (publisher, publish, viewer, play)
    }

    /// The address of the node that a stream was placed on.
    async fn origin_of(&self, stream: &str) -> String {
        let explained = self.door.explain("play", stream).await;
        let node = explained["record"]["origin_node"].as_str().expect("a known stream").to_owned();
        let nodes = self.nodes.cluster.nodes();
        nodes.iter().find(|demo| demo.id.as_str() == node).expect("a node").address.ip().to_string()
    }

    async fn until_store(&self, status: &str) -> Duration {
        eventually(&format!("the store is {status}"), async || {
            self.door.explain("play", "anything").await["store"]["status"] == status
        })
        .await
    }

    /// Clients come, play a known stream or publish a new one, and go. Returns the longest wait for a first answer.
    async fn load(&self, known: &str, lasts: Duration, name: &str) -> Duration {
        let begun = Instant::now();
        let (mut longest, mut clients) = (Duration::ZERO, 0);
        while begun.elapsed() < lasts {
            let fresh = format!("{name}-{clients}");
            let plan = if clients % 2 == 0 { Plan::play(known) } else { Plan::publish(&fresh) };
            let (_, took) = asked(&self.door.open().await, plan).await;
            assert!(took < WATCHDOG, "client {clients} of {name} waited {took:?}");
            assert_eq!(self.door.health().await, 200, "health knows nothing of MongoDB");
            longest = longest.max(took);
            clients += 1;
            // The clients' own pace, not a wait for something.
            sleep(PACE).await;
        }
        println!("{name}: {clients} clients in {:?}, the longest wait {longest:?}", begun.elapsed());
        longest
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_whose_mongodb_is_absent_serves_what_it_can_and_finds_it_later() {
    let begun = Instant::now();
    let mut rig = Rig::start(Mongod::prepare(Shape::Standalone)).await;
    println!("nodes and door were ready after {:?}, without MongoDB", begun.elapsed());
    eventually("the log says so", async || rig.door.log().contains("the store is away")).await;
    assert_eq!(rig.door.health().await, 200);
    assert_eq!(rig.door.metric("forebay_store_up").await, Some(0.0));

    let _live = rig.live("known").await;
    assert_eq!(rig.door.explain("play", "known").await["blind"], false, "the door saw it start");
    let blind = rig.door.total("forebay_placed_blind_total").await;
    let stranger = rig.door.open().await;
    let refused = stranger.begin(Plan::play("unknown"), moving).until_has("no_stream_exist").await;
    assert_eq!(refused.messages[0]["error_code"], "404", "the node's own word");
    assert!(rig.door.total("forebay_placed_blind_total").await > blind, "nobody knew, so the node decided");

    rig.mongod.restart().await;
    rig.until_store("up").await;
    eventually("the log says so", async || rig.door.log().contains("the store answers again")).await;
    assert_eq!(rig.door.metric("forebay_store_up").await, Some(1.0));
    let records = broadcasts(&rig.mongod).await;
    write_live(&records, "known", &rig.origin_of("known").await, 0).await;
    write_live(&records, "other", "127.0.1.2", 0).await;
    eventually("records count again", async || {
        rig.door.explain("play", "other").await["record"]["origin_node"] == "origin-2"
    })
    .await;
    let missing = rig.door.explain("play", "unknown").await;
    assert_eq!(missing["outcome"], "waits", "a store that answers says that there is none: {missing}");
    asked(&stranger, Plan::play("known")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_freezes_or_dies_under_load_is_not_missed_by_live_and_known_streams() {
    let mut rig = Rig::start(Mongod::start(Shape::Standalone).await).await;
    let (_publisher, publish, _viewer, play) = rig.live("known").await;
    let records = broadcasts(&rig.mongod).await;
    write_live(&records, "known", &rig.origin_of("known").await, 0).await;
    // Known by its record alone: no session of this door has it.
    let written = write_live(&records, "by-record", "127.0.1.1", 0).await;
    eventually("the record is read", async || rig.door.explain("play", "by-record").await["outcome"] == "placed").await;
    rig.load("known", Duration::from_secs(2), "before").await;
    let sessions = rig.door.total("forebay_sessions_open").await;
    let (memory, descriptors) = (rig.door.resident_mib(), rig.door.descriptors());

    for name in ["frozen", "killed"] {
        if name == "frozen" {
            rig.mongod.freeze();
        } else {
            rig.mongod.kill().await;
        }
        let longest = rig.load("known", Duration::from_secs(8), name).await;
        assert!(longest < Duration::from_secs(2), "at most the first client waits for the read limit: {longest:?}");
        assert_eq!(rig.door.metric("forebay_store_up").await, Some(0.0));
        let by_record = rig.door.explain("play", "by-record").await;
        assert_eq!((&by_record["outcome"], &by_record["blind"]), (&"placed".into(), &false.into()), "{by_record}");
        play.until_more_video(20).await;
        assert_eq!(publish.report().count("publish_started"), 1, "the live stream noticed nothing");
        if name == "frozen" {
            rig.mongod.thaw();
        } else {
            rig.mongod.restart().await;
        }
        let back = rig.until_store("up").await;
        println!("{name}: the store counts as up again after {back:?}");
    }

    // Nobody could refresh it, so its age is not held against it at once.
    eventually("the record is older than AMS's window", async || wall_ms() - written > 20_500).await;
    let by_record = rig.door.explain("play", "by-record").await;
    assert_eq!((&by_record["outcome"], &by_record["record"]["live"]), (&"placed".into(), &true.into()), "{by_record}");
    eventually("no session is left over", async || rig.door.total("forebay_sessions_open").await <= sessions).await;
    assert_eq!(rig.door.metric("forebay_waiters").await, Some(0.0));
    println!(
        "memory {memory:.1} MiB before, {:.1} after; descriptors {descriptors} before, {} after",
        rig.door.resident_mib(),
        rig.door.descriptors()
    );
    assert!(rig.door.resident_mib() - memory < 32.0, "nothing piles up");
    eventually("no descriptor is left over", async || rig.door.descriptors() <= descriptors + 8).await;
    // Nobody refreshes it now that it could be.
    let ended = async || rig.door.explain("play", "by-record").await["outcome"] == "waits";
    let waited = eventually("a record without heartbeat ends once the store says so", ended).await;
    assert!(waited < PATIENCE);
    write_live(&records, "by-record", "127.0.1.2", 0).await;
    eventually("a record that moved meanwhile is followed", async || {
        rig.door.explain("play", "by-record").await["record"]["origin_node"] == "origin-2"
    })
    .await;
}
