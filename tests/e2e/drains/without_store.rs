//! MongoDB stopped under load, with two doors, a drain that began before and others that begin meanwhile.
//!
//! The nodes are without their store, too: they play what they have, and refuse what they would have to read a record for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::sleep;

use super::{Client, drain, undrain, until_drained};
use crate::support::{
    ams_client::Plan,
    cluster::{Door, Place, Processes, eventually, mute, offered},
    mongod::Shape,
};

/// How long MongoDB is stopped: what is promised, and more than AMS's window of a record.
const PROMISED: Duration = Duration::from_secs(120);
const SHORTER: Duration = Duration::from_secs(30);
/// Between two new clients, and between two looks at the doors' health.
const PACE: Duration = Duration::from_millis(500);
/// New clients between two looks at everything.
const CLIENTS: usize = 8;
/// Streams, at least; and at most, until several edges play some.
const STREAMS: usize = 3;
const MOST_STREAMS: usize = 12;
/// How often a new client asks again, as SDKs do, until a busy machine's node has an offer for it.
const ASKS: usize = 5;
/// A heartbeat or a record that is younger was written since MongoDB is back.
const FRESH_MS: u64 = 11_000;

const QUICK: [(&str, &str); 2] = [("FOREBAY_HEALTH__PROBE_INTERVAL", "500ms"), ("FOREBAY_NODES__SLOW_START", "0s")];

struct Rig {
    cluster: Processes,
    other: Door,
    streams: Vec<String>,
    publishers: Vec<Client>,
    viewers: Vec<Client>,
    /// An edge that drains since before. Its legs stay; all of them are the first door's.
    waits: String,
    /// An edge and an origin whose drains begin while MongoDB is away.
    edge: String,
    origin: String,
}

impl Rig {
    /// Streams on two origins, viewers on two edges that will drain, and one viewer of each stream on the third edge.
    async fn start(shape: Shape) -> Self {
        let edges = [1, 2, 3].map(|number| (Place::EdgeA, number));
        let nodes = [&[(Place::OriginA, 1), (Place::OriginA, 2)][..], &edges[..]].concat();
        let cluster = Processes::start(shape, &nodes, &QUICK).await;
        let other = cluster.another_door(&QUICK).await;
        let (mut streams, mut publishers, mut viewers) = (Vec::new(), Vec::new(), Vec::new());
        let (mut origins, mut homes) = (Vec::new(), Vec::new());
        for number in 0..MOST_STREAMS {
            let stream = format!("s-{number}");
            publishers.push(publish([&cluster.door, &other][number % 2], &stream).await);
            for door in [&cluster.door, &other] {
                eventually("its record is read", async || {
                    let explained = door.explain("play", &stream).await;
                    explained["outcome"] == "placed" && explained["record"]["hinted"] == false
                })
                .await;
            }
            viewers.push(play(&cluster.door, &stream).await);
            streams.push(stream);
            if number + 1 < STREAMS {
                continue;
            }
            eventually("all publishes are counted", async || {
                let publishes = cluster.door.legs("publish").await;
                let count = publishes.values().sum::<u64>();
                origins = publishes.into_keys().collect();
                count == publishers.len() as u64
            })
            .await;
            homes = cluster.door.legs("play").await.into_keys().collect();
            if origins.len() == 2 && homes.len() >= 2 {
                break;
            }
        }
        // The first stream's publisher stays, and so does its viewer.
        let first = cluster.door.admin_get(&format!("/v1/streams/LiveApp/{}", streams[0])).await;
        let waits = first["edges"][0]["node"].as_str().expect("it is played").to_owned();
        let other_than = |nodes: &[String], not: &str| nodes.iter().find(|node| **node != not).cloned();
        let edge = other_than(&homes, &waits).expect("streams are played on several edges");
        let origin = other_than(&origins, first["origin"].as_str().expect("it is published"));
        let origin = origin.expect("streams are published on both origins");
        let mut rig = Self { cluster, other, streams, publishers, viewers, waits, edge, origin };
        rig.fill_the_third_edge().await;
        rig
    }

    async fn fill_the_third_edge(&mut self) {
        let Self { cluster, other, waits, edge, .. } = self;
        for (node, migrate) in [(&*waits, r#"{"migrate":"wait"}"#), (&*edge, r#"{"migrate":"none"}"#)] {
            let (status, answer) = drain(&cluster.door, node, migrate).await;
            assert_eq!((status, &answer["state"]), (200, &"draining".into()), "{answer}");
            other.until_state(node, &["draining"]).await;
        }
        for stream in &self.streams {
            self.viewers.push(play(other, stream).await);
        }
        undrain(&cluster.door, edge).await;
        for door in [&cluster.door, &*other] {
            door.until_state(edge, &["serving"]).await;
        }
        // The other door has none of its legs: that it is not empty is known to it from the first door's heartbeat alone.
        let known = async || other.node(waits).await["drain"]["legs"]["play"].as_u64().is_some_and(|legs| legs > 0);
        eventually("the other door knows of its legs", known).await;
    }

    fn doors(&self) -> [&Door; 2] {
        [&self.cluster.door, &self.other]
    }

    async fn until_store(&self, status: &str) {
        for door in self.doors() {
            eventually(&format!("the store is {status}"), async || store(door).await["status"] == status).await;
        }
    }

    /// Never ends: both doors take new sessions all the time.
    async fn ask_health(&self) {
        loop {
            for door in self.doors() {
                assert_eq!(door.health().await, 200, "health knows nothing of MongoDB");
            }
            // The test's own pace, not a wait for something.
            sleep(PACE).await;
        }
    }

    /// MongoDB has just been stopped: new clients come for known streams, drains hold, and nobody is ended.
    async fn endure(&self, lasts: Duration) {
        let begun = Instant::now();
        self.until_store("away").await;
        println!("both doors knew after {:?}", begun.elapsed());
        for (door, node) in [(&self.other, &self.origin), (&self.cluster.door, &self.edge)] {
            let (status, answer) = drain(door, node, "{}").await;
            assert_eq!((status, &answer["state"]), (200, &"draining".into()), "{answer}");
            assert_eq!(answer["drain"]["kept"], "memory", "{answer}");
        }
        let (mut clients, mut refused, mut longest) = (0, 0, Duration::ZERO);
        while begun.elapsed() < lasts {
            for _ in 0..CLIENTS {
                let asked = Instant::now();
                let stream = &self.streams[clients % self.streams.len()];
                refused += newcomer(self.doors()[clients % 2], stream).await;
                longest = longest.max(asked.elapsed());
                clients += 1;
                // The clients' own pace, not a wait for something.
                sleep(PACE).await;
            }
            self.look(begun).await;
        }
        let more = join_all(self.viewers.iter().map(|viewer| viewer.leg.until_more_video(10)));
        more.await;
        println!("{clients} new clients in {:?}, {refused} asked again, the longest wait {longest:?}", begun.elapsed());
    }

    /// What the doors say while MongoDB is away, and that nobody has been ended.
    async fn look(&self, stopped: Instant) {
        self.nobody_has_been_ended();
        for door in self.doors() {
            let away = stopped.elapsed();
            let view = door.admin_get("/v1/door").await;
            assert_eq!(view["store"]["status"], "away", "{view}");
            assert!(view["store"]["away_since"].is_string(), "since when is said: {view}");
            assert_eq!(door.metric("forebay_store_up").await, Some(0.0));
            let peers = view["peers"].as_array().expect("a list");
            assert_eq!(peers.len(), 1, "the other door is not forgotten: {view}");
            let age = Duration::from_millis(peers[0]["age_ms"].as_u64().expect("a number"));
            assert!(age + PACE > away, "it says how old that is: {view}");
            assert_eq!(door.node(&self.waits).await["state"], "draining");
            for stream in &self.streams {
                let explained = door.explain("play", stream).await;
                assert_eq!(
                    (&explained["outcome"], &explained["blind"]),
                    (&"placed".into(), &false.into()),
                    "{explained}"
                );
                assert!(explained["node"] != self.waits.as_str(), "not on a node that drains: {explained}");
                assert!(explained["record"]["age_ms"].is_u64(), "how old the record is, is said: {explained}");
            }
        }
        for (door, node) in [(&self.other, &self.origin), (&self.cluster.door, &self.edge)] {
            let view = door.node(node).await;
            assert_eq!((&view["state"], &view["drain"]["moved"]), (&"draining".into(), &0.into()), "{view}");
        }
    }

    fn nobody_has_been_ended(&self) {
        for client in self.publishers.iter().chain(&self.viewers) {
            let (socket, leg) = (client.socket.report(), client.leg.report());
            let name = &client.leg.stream;
            assert!(socket.closed.is_none(), "{name}: {:?}", socket.closed);
            assert!(!leg.has("play_finished") && !leg.has("publish_finished"), "{name}: {:?}", leg.messages);
            assert!(!socket.messages.iter().any(|message| message["definition"] == "server_will_stop"), "{name}");
        }
    }

    /// MongoDB is back: nothing is stale any more, what drains goes on, and still nobody is ended.
    async fn recover(&self) {
        let back = Instant::now();
        let found = async {
            self.until_store("up").await;
            println!("both doors found it after {:?}", back.elapsed());
        };
        // They have not heard of any of it.
        let clients = async {
            for (number, stream) in self.streams.iter().enumerate() {
                let again = newcomer(self.doors()[number % 2], stream).await;
                println!("a new client for {stream} was refused {again} times");
            }
        };
        tokio::join!(found, clients);
        for door in self.doors() {
            eventually("the other door is heard of again", async || {
                let view = door.admin_get("/v1/door").await;
                view["peers"]
                    .as_array()
                    .is_some_and(|peers| peers.len() == 1 && peers[0]["age_ms"].as_u64() < Some(3_000))
            })
            .await;
            assert!(store(door).await["away_since"].is_null());
            assert_eq!(door.metric("forebay_store_up").await, Some(1.0));
            let view = door.node(&self.waits).await;
            assert_eq!(view["state"], "draining", "a leg of the first door has been there all the time: {view}");
        }
        assert_eq!(drain(&self.other, &self.waits, r#"{"migrate":"paced"}"#).await.0, 200);
        for node in [&self.origin, &self.edge, &self.waits] {
            for door in self.doors() {
                until_drained(door, node).await;
            }
            let view = self.other.node(node).await;
            println!("{node} was drained {:?} after MongoDB was back: {}", back.elapsed(), view["drain"]);
            assert_eq!((&view["drain"]["failed"], &view["drain"]["kept"]), (&0.into(), &"cluster".into()), "{view}");
            assert_eq!(view["legs"]["play"], 0, "nobody is placed on a node that has been called drained: {view}");
        }
        for door in self.doors() {
            for stream in &self.streams {
                eventually("records are fresh", async || {
                    let record = &door.explain("play", stream).await["record"];
                    record["live"] == true && record["age_ms"].as_u64() < Some(FRESH_MS)
                })
                .await;
            }
        }
        let more = join_all(self.viewers.iter().map(|viewer| viewer.leg.until_more_video(10)));
        more.await;
        self.nobody_has_been_ended();
        for door in self.doors() {
            eventually("all legs are counted on what is left", async || {
                let (plays, publishes) = (door.legs("play").await, door.legs("publish").await);
                let all = |legs: &BTreeMap<String, u64>| (legs.len(), legs.values().sum::<u64>());
                all(&plays) == (1, self.viewers.len() as u64) && all(&publishes) == (1, self.publishers.len() as u64)
            })
            .await;
        }
    }
}

async fn publish(door: &Door, stream: &str) -> Client {
    Client::begin(door, Plan { audio: false, ..Plan::publish(stream) }, "publish_started").await
}

async fn play(door: &Door, stream: &str) -> Client {
    let viewer = Client::begin(door, Plan { audio: false, ..Plan::play(stream) }, "play_started").await;
    viewer.leg.until_more_video(5).await;
    viewer
}

/// How the door says the store does.
async fn store(door: &Door) -> Value {
    door.admin_get("/v1/door").await["store"].clone()
}

/// A new client asks for a known stream until a node offers it, and goes. How often it was refused before.
async fn newcomer(door: &Door, stream: &str) -> usize {
    for refused in 0..ASKS {
        let socket = door.open().await;
        let leg = socket.begin(Plan::play(stream), mute);
        let error = |message: &Value| message["command"] == "error";
        let answered = leg.until("an answer", |report| offered(report) || report.messages.iter().any(error)).await;
        if offered(&answered) {
            return refused;
        }
        println!("a new client for {stream} was refused: {:?}", answered.messages.last());
    }
    panic!("a known stream is not placed: {stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_frozen_for_two_minutes_ends_no_session_and_drains_hold_and_go_on_after() {
    let rig = Rig::start(Shape::Standalone).await;
    rig.cluster.mongod.freeze();
    tokio::select! {
        () = rig.ask_health() => {}
        () = async {
            rig.endure(PROMISED).await;
            rig.cluster.mongod.thaw();
            rig.recover().await;
        } => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mongodb_that_is_killed_and_comes_back_ends_no_session_and_drains_hold_and_go_on_after() {
    let mut rig = Rig::start(Shape::ReplicaSet).await;
    rig.cluster.mongod.kill().await;
    tokio::select! {
        () = rig.ask_health() => {}
        () = rig.endure(SHORTER) => {}
    }
    rig.cluster.mongod.restart().await;
    tokio::select! {
        () = rig.ask_health() => {}
        () = rig.recover() => {}
    }
}
