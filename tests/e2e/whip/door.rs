//! Through `forebay demo`: real peers publish by WHIP and watch by WHEP.

use super::RELAYED;
use crate::support::{
    ams_client::{Plan, Socket, Stack},
    process::Process,
    str0m_peer, webrtc_peer,
    whip_client::WhipClient,
};

const STACKS: [(&str, Stack); 2] = [("webrtc", webrtc_peer::stack), ("str0m", str0m_peer::stack)];

#[tokio::test(flavor = "multi_thread")]
async fn two_stacks_publish_by_whip_and_watch_by_whep_and_by_ams_signalling() {
    let door = Process::start(&RELAYED).await;
    for (name, stack) in STACKS {
        let publisher = WhipClient::post(door.http(), Plan::publish(name), stack).await.expect("created");
        assert!(!publisher.created.body.contains("127.0.1."), "no node shows itself: {}", publisher.created.body);
        publisher.until("it is connected", |report| report.connected).await;
        for (other, viewing) in STACKS {
            let viewer = WhipClient::post(door.http(), Plan::play(name), viewing).await.expect("created");
            assert!(!viewer.created.body.contains("127.0.1."), "no node shows itself: {}", viewer.created.body);
            let report = viewer.until_more_video(30).await;
            assert!(report.audio_packets > 0 && report.marks.contains(name), "{other} watches {name}: {report:?}");
            assert_eq!(viewer.delete().await.status, 200);
        }
        let socket = Socket::open(&door.url()).await.unwrap();
        let play = socket.begin(Plan::play(name), stack);
        play.until_more_video(30).await;
        assert_eq!(publisher.delete().await.status, 200);
        play.until_has("play_finished").await;
    }
    assert!(!door.log().contains("panicked"), "{}", door.log());
}
