//! Drains with several doors, of which one is killed.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use super::{Client, drain, home, until_drained};
use crate::support::{
    cluster::{Door, Place, Processes, eventually},
    mongod::Shape,
    process::http,
};

const QUICK: [(&str, &str); 2] = [("FOREBAY_HEALTH__PROBE_INTERVAL", "500ms"), ("FOREBAY_NODES__SLOW_START", "0s")];

#[tokio::test(flavor = "multi_thread")]
async fn viewers_at_one_door_follow_a_publisher_that_another_door_moves() {
    let nodes = [(Place::OriginA, 1), (Place::OriginB, 1), (Place::EdgeA, 1)];
    let cluster = Processes::start(Shape::ReplicaSet, &nodes, &QUICK).await;
    let other = cluster.another_door(&QUICK).await;
    let publisher = Client::publish(&cluster.door, "s").await;
    let viewers = join_all((0..2).map(|_| Client::play(&other, "s"))).await;
    eventually("both doors count all legs", async || {
        let (here, there) = (cluster.door.legs("play").await, other.legs("publish").await);
        here.values().sum::<u64>() == 2 && there.values().sum::<u64>() == 1
    })
    .await;
    let origin = home(&other, "publish").await;
    let begun = Instant::now();
    // At the door that has no leg there.
    assert_eq!(drain(&other, &origin, "{}").await.0, 200);
    publisher.leg.until("it publishes again", |report| report.count("publish_started") == 2).await;
    join_all(viewers.iter().map(|viewer| viewer.plays_again(2))).await;
    println!("viewers at another door have media again after {:?}", begun.elapsed());
    until_drained(&other, &origin).await;
    until_drained(&cluster.door, &origin).await;
}

/// Where a client is told to go.
async fn located(door: &Door) -> String {
    let answer = http(door.http(), "GET /forebay/locate?app=LiveApp HTTP/1.0\r\nHost: lb.example\r\n\r\n").await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}"));
    body["websocket_url"].as_str().expect("a URL").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_drains_sends_clients_to_another_one() {
    let named = |url| [("FOREBAY_DOOR__PUBLIC_URL", url)];
    let nodes = [(Place::OriginA, 1)];
    let cluster = Processes::start(Shape::Standalone, &nodes, &named("https://one.example")).await;
    let other = cluster.another_door(&named("https://two.example")).await;
    assert_eq!(located(&cluster.door).await, "wss://one.example/LiveApp/websocket");
    let answer = http(cluster.door.admin(), "PUT /v1/door/drain HTTP/1.0\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.split(' ').nth(1) == Some("200"), "{answer}");
    eventually("it names the other", async || located(&cluster.door).await == "wss://two.example/LiveApp/websocket")
        .await;
    assert_eq!(located(&other).await, "wss://two.example/LiveApp/websocket", "which keeps its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_when_the_door_that_began_it_is_killed() {
    let nodes = [(Place::OriginA, 1), (Place::OriginB, 1)];
    let mut cluster = Processes::start(Shape::Standalone, &nodes, &QUICK).await;
    let other = cluster.another_door(&QUICK).await;
    let doors = [&cluster.door, &other];
    let clients = (0..8).map(|nth| async move { Client::publish(doors[nth % 2], &format!("s-{nth}")).await });
    let clients = join_all(clients).await;
    let drained = cluster.id(Place::OriginA, 1);
    let had = other.legs("publish").await.get(&drained).copied().unwrap_or(0);
    assert_eq!(drain(&cluster.door, &drained, r#"{"per_second":2}"#).await.0, 200);
    eventually("the other door sees it", async || other.node(&drained).await["state"] == "draining").await;
    cluster.door.signal("KILL");
    cluster.door.process().ended(Duration::from_secs(5)).await;
    println!("killed with some of {had} legs on the node");
    let again = cluster.another_door(&QUICK).await;
    assert!(["draining", "drained"].contains(&again.node(&drained).await["state"].as_str().unwrap()));
    let took = until_drained(&again, &drained).await;
    println!("the doors that are left have drained it {took:?} later");
    until_drained(&other, &drained).await;
    for client in clients.iter().skip(1).step_by(2) {
        assert!(client.socket.report().closed.is_none(), "the other door's clients are still there");
        assert!(!client.leg.report().has("publish_finished"), "and publish");
    }
    let legs = other.legs("publish").await;
    assert!(!legs.contains_key(&drained), "{legs:?}");
}
