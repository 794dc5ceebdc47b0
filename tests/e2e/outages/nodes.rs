//! Nodes killed with SIGKILL and frozen with SIGSTOP, while legs are being placed and while they live.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{
    ams_client::{Leg, Plan, Socket},
    cluster::{Place, Processes, WATCHDOG, asked, eventually, moving, mute, offers, starts},
    mongod::Shape,
};

/// A door that notices a dead node after about 2 s by its own probes, as an operator in a hurry sets it.
const QUICK_PROBES: [(&str, &str); 1] = [("FOREBAY_HEALTH__PROBE_INTERVAL", "500ms")];

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_on_a_node_that_freezes_before_its_answer_starts_elsewhere_within_the_watchdog() {
    let cluster = Processes::start(Shape::Standalone, &[(Place::OriginA, 1), (Place::OriginB, 1)], &[]).await;
    let (lost, left) = (cluster.id(Place::OriginA, 1), cluster.id(Place::OriginB, 1));
    // One client with a link to each origin, and some that have none yet.
    let linked = cluster.door.open().await;
    let first = publish_on_both(&cluster, &linked).await;
    let on_lost = cluster.door.legs("publish").await[&lost];
    let unlinked = cluster.door.open_many(4).await;

    cluster.freeze(&lost);
    let clients = std::iter::repeat_n(&linked, 4).chain(&unlinked);
    let publishes = clients.enumerate().map(|(n, client)| async move {
        let stream = format!("frozen-{n}");
        asked(client, Plan::publish(&stream)).await
    });
    let frozen = join_all(publishes).await;
    let times: Vec<Duration> = frozen.iter().map(|(_, took)| *took).collect();
    println!("start after, with one of two origins frozen: {times:?}");
    assert!(times.iter().all(|took| *took < WATCHDOG), "{times:?}");
    assert!(cluster.door.total("forebay_retries_total").await >= 1.0, "some had been placed on the frozen node");
    let legs = cluster.door.legs("publish").await;
    assert_eq!((legs[&lost], legs[&left]), (on_lost, first.len() as u64 - on_lost + 8), "those without an answer left");

    cluster.thaw(&lost);
    let back = cluster.door.until_state(&lost, &["joining", "serving"]).await;
    let node = cluster.door.node(&lost).await;
    println!("thawed, and {} after {back:?}: {}", node["state"], node["reason"]);
    let mut more = 0;
    eventually("the node that came back gets a leg", async || {
        more += 1;
        asked(&unlinked[0], Plan::publish(&format!("back-{more}"))).await;
        cluster.door.legs("publish").await.get(&lost).is_some_and(|legs| *legs > on_lost)
    })
    .await;
    assert_eq!(cluster.door.total("forebay_rejects_total").await, 0.0, "nobody was refused anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_on_a_node_that_dies_start_elsewhere_also_those_that_had_their_answer() {
    let mut cluster = Processes::start(Shape::Standalone, &[(Place::OriginA, 1), (Place::OriginB, 1)], &[]).await;
    let (lost, left) = (cluster.id(Place::OriginA, 1), cluster.id(Place::OriginB, 1));
    let client = cluster.door.open().await;
    let answered = publish_on_both(&cluster, &client).await;
    let on_lost = cluster.door.legs("publish").await[&lost];

    // Frozen first, so that it certainly dies between the command and its answer.
    cluster.freeze(&lost);
    let unanswered: Vec<Leg> = (0..12).map(|n| client.begin(Plan::publish(&format!("unanswered-{n}")), mute)).collect();
    eventually("some are placed on it", async || cluster.door.legs("publish").await[&lost] > on_lost).await;
    let killed = Instant::now();
    cluster.kill(&lost);
    for leg in &unanswered {
        leg.until("a start", |report| starts(report) == 1).await;
    }
    eventually("second starts", async || {
        answered.iter().filter(|leg| starts(&leg.report()) == 2).count() as u64 == on_lost
    })
    .await;
    println!("every leg has its start {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < WATCHDOG);
    assert_eq!(cluster.door.legs("publish").await, [(left, answered.len() as u64 + 12)].into());
    assert!(client.report().closed.is_none(), "the client's socket stays up");

    cluster.restart(Place::OriginA, 1).await;
    cluster.door.until_state(&lost, &["joining", "serving"]).await;
    assert_eq!(cluster.door.total("forebay_rejects_total").await, 0.0, "nobody was refused anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_plays_leave_an_edge_that_dies_or_freezes_and_it_comes_back() {
    let edges = [Place::EdgeA, Place::EdgeA, Place::EdgeA].into_iter().zip(1..);
    let nodes: Vec<_> = std::iter::once((Place::OriginA, 1)).chain(edges).collect();
    let mut cluster = Processes::start(Shape::Standalone, &nodes, &QUICK_PROBES).await;
    let publisher = cluster.door.open().await;
    publisher.begin(Plan::publish("s"), moving).until_has("publish_started").await;
    let viewer = cluster.door.open().await;
    let play = viewer.begin(Plan::play("s"), moving);
    play.until_has("play_started").await;
    play.until_more_video(10).await;

    let first = only_leg(&cluster).await;
    let killed = Instant::now();
    cluster.kill(&first);
    until_moved(&play, 2).await;
    println!("an edge was killed: media again after {:?}", killed.elapsed());
    let second = only_leg(&cluster).await;
    assert_ne!(first, second);

    cluster.freeze(&second);
    let frozen = Instant::now();
    // Another viewer comes while the door still takes the frozen edge for alive.
    let (newcomer, took) = asked(&cluster.door.open().await, Plan::play("s")).await;
    println!("a play whose edge had just frozen: an offer after {took:?}");
    assert!(took < WATCHDOG, "{took:?}");
    until_moved(&play, 3).await;
    println!("an edge froze: media again after {:?}", frozen.elapsed());
    assert_eq!(offers(&newcomer.report()), 1);
    assert!(viewer.report().closed.is_none() && publisher.report().closed.is_none(), "the sockets stay up");

    cluster.door.until_state(&second, &["down"]).await;
    cluster.thaw(&second);
    let back = cluster.door.until_state(&second, &["joining", "serving"]).await;
    let node = cluster.door.node(&second).await;
    println!("thawed, and {} after {back:?}: {}", node["state"], node["reason"]);
    cluster.door.until_state(&second, &["serving"]).await;
    let place = edges_of(&cluster).into_iter().find(|(id, _)| *id == first).expect("it is one of the three").1;
    cluster.restart(Place::EdgeA, place).await;
    cluster.door.until_state(&first, &["serving"]).await;
    assert_eq!(cluster.door.explain("play", "s").await["node"], first, "its streams come home by hash");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_publish_leaves_an_origin_that_dies_or_freezes_and_its_plays_follow() {
    let nodes = [(Place::OriginA, 1), (Place::OriginB, 1), (Place::EdgeA, 1), (Place::EdgeB, 1)];
    let mut cluster = Processes::start(Shape::ReplicaSet, &nodes, &QUICK_PROBES).await;
    let publisher = cluster.door.open().await;
    let publish = publisher.begin(Plan::publish("s"), moving);
    publish.until_has("publish_started").await;
    let home = cluster.door.legs("publish").await.into_keys().next().expect("it was placed");
    let (near, far) = ((Place::OriginA, Place::EdgeA), (Place::OriginB, Place::EdgeB));
    let (here, there) = if home == cluster.id(near.0, 1) { (near, far) } else { (far, near) };
    let other = cluster.id(there.0, 1);
    plays_from(&cluster, here.1).await;

    let killed = Instant::now();
    cluster.kill(&home);
    publish.until("another start", |report| starts(report) == 2).await;
    println!("an origin was killed: a new start after {:?}", killed.elapsed());
    publish.until("it has started again", |report| report.count("publish_started") == 2).await;
    println!("an origin was killed: publish_started again after {:?}", killed.elapsed());
    assert_eq!(cluster.door.legs("publish").await, [(other.clone(), 1)].into());
    plays_from(&cluster, there.1).await;

    cluster.restart(here.0, 1).await;
    cluster.door.until_state(&home, &["joining", "serving"]).await;
    let frozen = Instant::now();
    cluster.freeze(&other);
    publish.until("a third start", |report| starts(report) == 3).await;
    println!("an origin froze: a new start after {:?}", frozen.elapsed());
    publish.until("it has started again", |report| report.count("publish_started") == 3).await;
    plays_from(&cluster, here.1).await;

    cluster.thaw(&other);
    cluster.door.until_state(&other, &["joining", "serving"]).await;
    // What it still had of the stream ends there, and changes nothing where the stream lives now.
    plays_from(&cluster, here.1).await;
    assert!(publisher.report().closed.is_none(), "the publisher's socket stayed up");
    assert_eq!(starts(&publish.report()), 3);
}

/// One client's publishes, until both origins have one.
async fn publish_on_both(cluster: &Processes, client: &Socket) -> Vec<Leg> {
    let mut legs = Vec::new();
    // Near ties are broken at random, but not for long.
    while cluster.door.legs("publish").await.len() < 2 {
        legs.push(asked(client, Plan::publish(&format!("first-{}", legs.len()))).await.0);
    }
    legs
}

/// The node of the only play that there is.
async fn only_leg(cluster: &Processes) -> String {
    let legs = cluster.door.legs("play").await;
    assert_eq!(legs.values().sum::<u64>(), 1, "{legs:?}");
    legs.into_keys().next().expect("just counted")
}

fn edges_of(cluster: &Processes) -> Vec<(String, u8)> {
    (1..=3).map(|number| (cluster.id(Place::EdgeA, number), number)).collect()
}

/// Waits until a play has its `nth` offer answered and media from there.
async fn until_moved(play: &Leg, nth: usize) {
    play.until("an offer of another edge", |report| offers(report) == nth).await;
    play.until("play_started again", |report| report.count("play_started") == nth).await;
    play.until_more_video(10).await;
}

/// A new viewer gets media, from the edge of this zone.
async fn plays_from(cluster: &Processes, edge: Place) {
    let edge = cluster.id(edge, 1);
    // An edge that is asked before the record has followed its stream believes the old one for 3 s.
    eventually("the record names the stream's home", async || {
        let explained = cluster.door.explain("play", "s").await;
        explained["node"] == edge && explained["record"]["hinted"] == false
    })
    .await;
    let viewer: Socket = cluster.door.open().await;
    let play = viewer.begin(Plan::play("s"), moving);
    play.until_more_video(5).await;
    let legs = cluster.door.legs("play").await;
    assert!(legs.contains_key(&edge), "{edge} has none of {legs:?}");
    play.stop();
    play.until_has("play_finished").await;
}
