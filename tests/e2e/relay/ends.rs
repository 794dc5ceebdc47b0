//! Nothing of a session outlives it: what its clients still send reaches nobody, and nobody answers.

use std::time::Duration;

use super::{RELAYED, rebinds::pair};
use crate::support::{
    process::Process,
    udp_path::{Attacker, UdpPath},
    webrtc_peer,
};

/// A node's answer over loopback takes a fraction of this.
const ANSWER: Duration = Duration::from_millis(500);
/// Flows end at once; the metrics say so half a second later.
const GONE: Duration = Duration::from_secs(10);

async fn flows(door: &Process) -> f64 {
    let mut sum = 0.0;
    for state in ["new", "validated", "nominated"] {
        sum += door.metric(&format!("forebay_media_flows{{state=\"{state}\"}}")).await.unwrap_or(0.0);
    }
    sum
}

async fn until_flows(door: &Process, left: f64) {
    let wait = async {
        while flows(door).await > left {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let gone = tokio::time::timeout(GONE, wait).await;
    let now = flows(door).await;
    assert!(gone.is_ok() || now <= left, "{now} flows, where {left} should be left\n{}", door.log());
}

/// Says again, from the old tuple and from another, what the client has said.
async fn is_dead(road: &UdpPath) {
    let said = road.to_door().clone();
    let requests = said.requests.iter().rev().take(3);
    let words: Vec<_> = requests.chain(said.dtls.iter().take(3)).chain(said.media.iter().rev().take(3)).collect();
    assert!(words.len() >= 4, "the client has said something of everything");
    // What the door had sent before it knew is not its answer.
    tokio::time::sleep(ANSWER).await;
    let before = road.to_client().packets;
    let mut stranger = Attacker::of(road).await;
    for _ in 0..10 {
        for word in &words {
            road.inject(word).await;
            stranger.send(word).await;
        }
    }
    stranger.listen(ANSWER).await;
    assert_eq!(stranger.heard.packets, 0, "nobody answers another tuple");
    assert_eq!(road.to_client().packets, before, "nobody answers the old tuple");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_the_old_tuples_packets_reach_nobody() {
    let door = Process::start(&RELAYED).await;
    let pair = pair(&door, webrtc_peer::stack).await;
    until_flows(&door, 2.0).await;
    assert_eq!(flows(&door).await, 2.0, "the publisher's and the viewer's");
    pair.play.stop();
    pair.play.until_has("play_finished").await;
    until_flows(&door, 1.0).await;
    is_dead(&pair.viewers_road).await;
    pair.publish.stop();
    pair.publish.until_has("publish_finished").await;
    until_flows(&door, 0.0).await;
    is_dead(&pair.publishers_road).await;
    assert_eq!(door.metric("forebay_media_transports").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clients_socket_ends_the_old_tuples_packets_reach_nobody() {
    let door = Process::start(&RELAYED).await;
    let pair = pair(&door, webrtc_peer::stack).await;
    pair.viewer.reset();
    until_flows(&door, 1.0).await;
    is_dead(&pair.viewers_road).await;
    pair.publisher.close();
    until_flows(&door, 0.0).await;
    is_dead(&pair.publishers_road).await;
    assert_eq!(door.metric("forebay_media_transports").await, Some(0.0));
}
