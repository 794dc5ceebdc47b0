//! Media through the door: no client ever learns where a node is.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    ams_client::{Plan, Socket, Stack},
    process::Process,
    str0m_peer, webrtc_peer,
};

mod attacks;
mod ends;
mod following;
mod junk;
mod namespaces;
mod rebinds;
mod restarts;

const RELAYED: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];

#[tokio::test(flavor = "multi_thread")]
async fn media_and_data_pass_the_relay_with_two_stacks_and_no_node_shows_itself() {
    let door = Process::start(&RELAYED).await;
    let media = door.ready["media"].strip_prefix("udp://").expect("a relay").to_owned();
    let (_, port) = media.rsplit_once(':').unwrap();
    for (stack, stream) in [(webrtc_peer::stack as Stack, "one"), (str0m_peer::stack, "two")] {
        let (publisher, viewer) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
        let publish = publisher.begin(Plan::publish(stream), stack);
        publish.until_has("publish_started").await;
        let play = viewer.begin(Plan::play(stream), stack);
        play.until_more_video(30).await;
        play.until("the data channel is open", |report| report.data_open).await;
        publish.until("the data channel is open", |report| report.data_open).await;
        publish.send_data("through the relay");
        play.until("data arrives", |report| report.data.iter().any(|data| data == "through the relay")).await;
        for socket in [&publisher, &viewer] {
            let heard = json!(socket.report().messages).to_string();
            assert!(!heard.contains("127.0.1."), "a node's address reached a client: {heard}");
            assert!(heard.contains(&format!("127.0.0.1 {port} typ host")), "the door's own candidate did: {heard}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_flows_of_its_leg_and_of_no_other() {
    let door = Process::start(&RELAYED).await;
    let (publisher, viewer) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
    let publish = publisher.begin(Plan::publish("s"), webrtc_peer::stack);
    publish.until_has("publish_started").await;
    let plays = [viewer.begin(Plan::play("s"), webrtc_peer::stack)];
    plays[0].until_more_video(10).await;
    let other = Socket::open(&door.url()).await.unwrap();
    let stays = other.begin(Plan::play("s"), webrtc_peer::stack);
    stays.until_more_video(10).await;

    plays[0].stop();
    plays[0].until_has("play_finished").await;
    stays.until_more_video(30).await;
    let flows = async {
        loop {
            let open = door.metric("forebay_media_flows{state=\"nominated\"}").await;
            if open.is_some_and(|open| open <= 2.0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), flows)
        .await
        .expect("two flows are left: the publisher's and the viewer's");
}
