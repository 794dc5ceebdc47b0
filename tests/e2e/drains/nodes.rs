//! An edge, then an origin, drained or killed under a publisher and its viewers.

use std::time::Instant;

use futures_util::future::join_all;

use super::{Client, drain, gaps, home, undrain, until_drained};
use crate::support::{
    cluster::{Place, Processes, eventually, starts},
    mongod::Shape,
};

const VIEWERS: usize = 3;

async fn cluster() -> Processes {
    let nodes = [(Place::OriginA, 1), (Place::OriginB, 1), (Place::EdgeA, 1), (Place::EdgeA, 2)];
    let quick = [("FOREBAY_HEALTH__PROBE_INTERVAL", "500ms"), ("FOREBAY_NODES__SLOW_START", "0s")];
    Processes::start(Shape::Standalone, &nodes, &quick).await
}

async fn viewers(cluster: &Processes) -> Vec<Client> {
    eventually("the record names the stream's home", async || {
        cluster.door.explain("play", "s").await["record"]["hinted"] == false
    })
    .await;
    join_all((0..VIEWERS).map(|_| Client::play(&cluster.door, "s"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_keep_their_sockets_and_get_their_media_back_when_their_edge_and_then_their_origin_is_drained() {
    let cluster = cluster().await;
    let publisher = Client::publish(&cluster.door, "s").await;
    let viewers = viewers(&cluster).await;
    let edge = home(&cluster.door, "play").await;

    let (status, answer) = drain(&cluster.door, &edge, r#"{"per_second":20}"#).await;
    assert_eq!((status, &answer["state"]), (200, &"draining".into()), "{answer}");
    join_all(viewers.iter().map(|viewer| viewer.plays_again(2))).await;
    let took = until_drained(&cluster.door, &edge).await;
    let (count, sum) = gaps(&cluster.door, "play").await;
    println!("an edge was drained {took:?} after its viewers had left; {count} gaps, {:.2} s on average", sum / count);
    assert_eq!(count, VIEWERS as f64);
    let view = cluster.door.node(&edge).await;
    assert_eq!((&view["drain"]["moved"], &view["drain"]["failed"]), (&VIEWERS.into(), &0.into()), "{view}");
    assert!(home(&cluster.door, "play").await != edge);
    undrain(&cluster.door, &edge).await;
    cluster.door.until_state(&edge, &["joining", "serving"]).await;

    let origin = home(&cluster.door, "publish").await;
    let begun = Instant::now();
    let (status, answer) = drain(&cluster.door, &origin, "{}").await;
    assert_eq!(status, 200, "{answer}");
    publisher.leg.until("another start", |report| starts(report) == 2).await;
    publisher.leg.until("it publishes again", |report| report.count("publish_started") == 2).await;
    println!("an origin is drained: its publisher publishes again after {:?}", begun.elapsed());
    join_all(viewers.iter().map(|viewer| viewer.plays_again(3))).await;
    println!("its viewers have media again after {:?}", begun.elapsed());
    until_drained(&cluster.door, &origin).await;
    println!("it is drained after {:?}", begun.elapsed());
    assert!(home(&cluster.door, "publish").await != origin);
    assert!(!publisher.leg.report().has("publish_finished") && publisher.socket.report().closed.is_none());
    let (published, played) = (gaps(&cluster.door, "publish").await, gaps(&cluster.door, "play").await);
    println!("gaps of the publisher {published:?}, of the viewers {played:?} (count, sum in s)");
    assert_eq!((published.0, played.0), (1.0, 2.0 * VIEWERS as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_keep_their_sockets_and_get_their_media_back_when_their_origin_and_then_their_edge_is_killed() {
    let cluster = cluster().await;
    let publisher = Client::publish(&cluster.door, "s").await;
    let viewers = viewers(&cluster).await;

    let origin = home(&cluster.door, "publish").await;
    let begun = Instant::now();
    cluster.kill(&origin);
    publisher.leg.until("it publishes again", |report| report.count("publish_started") == 2).await;
    println!("an origin was killed: its publisher publishes again after {:?}", begun.elapsed());
    join_all(viewers.iter().map(|viewer| viewer.plays_again(2))).await;
    println!("its viewers have media again after {:?}", begun.elapsed());

    let edge = home(&cluster.door, "play").await;
    let begun = Instant::now();
    cluster.kill(&edge);
    join_all(viewers.iter().map(|viewer| viewer.plays_again(3))).await;
    println!("an edge was killed: its viewers have media again after {:?}", begun.elapsed());
    assert!(publisher.socket.report().closed.is_none());
    assert_eq!(cluster.door.total("forebay_sessions_closed_total").await, 0.0);
    let (published, played) = (gaps(&cluster.door, "publish").await, gaps(&cluster.door, "play").await);
    println!("gaps of the publisher {published:?}, of the viewers {played:?} (count, sum in s)");
    assert_eq!((published.0, played.0), (1.0, 2.0 * VIEWERS as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_whose_publisher_stops_hears_of_the_end_also_while_its_origin_drains() {
    let cluster = cluster().await;
    let publisher = Client::publish(&cluster.door, "s").await;
    let viewer = Client::play(&cluster.door, "s").await;
    let begun = Instant::now();
    publisher.leg.stop();
    viewer.leg.until_has("play_finished").await;
    println!("an end was heard of after {:?}", begun.elapsed());

    let publisher = Client::publish(&cluster.door, "t").await;
    let viewer = Client::play(&cluster.door, "t").await;
    let origin = home(&cluster.door, "publish").await;
    drain(&cluster.door, &origin, r#"{"migrate":"wait"}"#).await;
    let begun = Instant::now();
    publisher.leg.stop();
    viewer.leg.until_has("play_finished").await;
    println!("an end on a draining origin was heard of after {:?}", begun.elapsed());
    until_drained(&cluster.door, &origin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_at_the_deadline_is_asked_to_come_again() {
    let cluster = cluster().await;
    let publisher = Client::publish(&cluster.door, "s").await;
    let origin = home(&cluster.door, "publish").await;
    let (status, answer) = drain(&cluster.door, &origin, r#"{"migrate":"wait","deadline":"1s"}"#).await;
    assert_eq!(status, 200, "{answer}");
    publisher.socket.until("the end", |report| report.closed.is_some()).await;
    assert!(publisher.leg.report().has("server_will_stop") || publisher.socket.report().closed.is_some());
    until_drained(&cluster.door, &origin).await;
    let again = Client::publish(&cluster.door, "s").await;
    assert!(home(&cluster.door, "publish").await != origin);
    drop(again);
}
