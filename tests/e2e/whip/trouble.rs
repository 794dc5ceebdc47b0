//! Nodes that die, freeze or refuse, a door that is full or ends, clients that vanish: every wait ends, and says how.

use std::time::{Duration, Instant};

use forebay::{
    demo::{ClusterOptions, Traits},
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};

use super::RELAYED;
use crate::support::{
    ams_client::Plan,
    cluster::{Door, Nodes, eventually, node_id},
    process::Process,
    str0m_peer,
    whip_client::{SDP, WhipClient, offer, request},
};

/// The answer to a POST comes within this whatever a node does: less than browsers' users wait.
const ANSWER: Duration = Duration::from_secs(10);

async fn rig(traits: Traits, environment: &[(&str, &str)]) -> (Nodes, Door) {
    let options = ClusterOptions { origins: 1, edges: 0, traits, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await;
    let door = Door::serve(&nodes.tables(false), environment).await;
    (nodes, door)
}

async fn begin(door: &Process, plan: Plan) -> WhipClient {
    WhipClient::post(door.http(), plan, str0m_peer::stack).await.expect("created")
}

async fn until_gone(door: &Process, path: &str) {
    eventually("the resource has ended", async || request(door.http(), "GET", path, &[], "").await.status == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_resources_end_and_their_delete_is_still_answered() {
    let (nodes, door) = rig(Traits::default(), &[]).await;
    let publisher = begin(&door, Plan::publish("s")).await;
    publisher.until("it is connected", |report| report.connected).await;
    let viewer = begin(&door, Plan::play("s")).await;
    viewer.until_more_video(10).await;

    nodes.cluster.kill(&node_id("origin-1")).unwrap();

    for client in [publisher, viewer] {
        until_gone(&door, &client.resource).await;
        assert_eq!(client.delete().await.status, 200);
        assert_eq!(client.patch(Some("*"), &client.frag()).await.status, 404);
    }
    assert_eq!(door.metric("forebay_sessions_open").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_freezes_or_refuses_is_a_503_in_time() {
    let (nodes, door) = rig(Traits::default(), &[]).await;
    let origin = node_id("origin-1");
    nodes.cluster.refuse(&origin, true).unwrap();
    let full = WhipClient::post(door.http(), Plan::publish("s"), str0m_peer::stack).await.err().expect("refused");
    assert_eq!(full.status, 503);
    assert!(full.header("retry-after").is_some(), "{full:?}");
    nodes.cluster.refuse(&origin, false).unwrap();

    nodes.cluster.freeze(&origin, true).unwrap();
    let begun = Instant::now();
    let mute = WhipClient::post(door.http(), Plan::publish("t"), str0m_peer::stack).await.err().expect("refused");
    assert_eq!(mute.status, 503, "{mute:?}");
    assert!(begun.elapsed() < ANSWER, "{:?}", begun.elapsed());
    nodes.cluster.freeze(&origin, false).unwrap();
    eventually("the door sees it again", async || {
        let posted = WhipClient::post(door.http(), Plan::publish("u"), str0m_peer::stack).await;
        posted.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_take_seats_and_a_door_that_ends_gives_none() {
    let environment = [
        ("FOREBAY_LIMITS__SESSIONS_PER_CLIENT", "1"),
        ("FOREBAY_SHUTDOWN__LAME_DUCK", "0s"),
        ("FOREBAY_SHUTDOWN__DEADLINE", "30s"),
    ];
    let (_nodes, mut door) = rig(Traits::default(), &environment).await;
    let first = begin(&door, Plan::publish("one")).await;
    let second = WhipClient::post(door.http(), Plan::publish("two"), str0m_peer::stack).await.err().expect("full");
    assert_eq!(second.status, 503);
    assert_eq!(first.delete().await.status, 200);
    eventually("its seat is free", async || door.metric("forebay_sessions_open").await == Some(0.0)).await;
    let _staying = begin(&door, Plan::publish("two")).await;

    door.signal("TERM");
    eventually("health is off", async || door.health().await == 503).await;
    let answer = request(door.http(), "POST", "/LiveApp/whip/three", &[SDP], "v=0").await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    door.signal("INT");
    assert_eq!(door.process().ended(Duration::from_secs(2)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_media_never_comes_is_ended() {
    let traits = Traits { start_timeout: Duration::from_secs(1), ..Traits::default() };
    let (_nodes, door) = rig(traits, &[("FOREBAY_DOOR__PUBLIC_URL", "https://door-1.example")]).await;
    let (offer, _silent) = offer(Plan::publish("s"), str0m_peer::stack).await;
    let created = request(door.http(), "POST", "/LiveApp/whip/s", &[SDP], &offer).await;
    assert_eq!(created.status, 201, "{created:?}");
    // Another door behind the same name would not know it.
    let resource =
        created.header("location").unwrap().strip_prefix("https://door-1.example").expect("this very door's");
    until_gone(&door, resource).await;
    eventually("the relay has let go", async || door.metric("forebay_media_transports").await == Some(0.0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_vanishes_without_a_word_is_ended_when_its_consent_has_run_out() {
    let door = Process::start(&RELAYED).await;
    let publisher = begin(&door, Plan::publish("s")).await;
    publisher.until("it is connected", |report| report.connected).await;
    let viewer = begin(&door, Plan::play("s")).await;
    viewer.until_more_video(10).await;
    let (_, resource) = viewer.vanish();

    // The relay gives a silent client 35 s; an end before 30 s would be too early.
    let begun = Instant::now();
    let gone = async {
        while request(door.http(), "GET", &resource, &[], "").await.status != 404 {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("it ends by itself");
    assert!(begun.elapsed() > Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(door.metric("forebay_sessions_open").await, Some(1.0), "the publisher's");
    publisher.delete().await;
}
