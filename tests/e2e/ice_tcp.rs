//! Clients whose network lets no UDP through: their media comes over the door's own TCP port.

use crate::support::{
    ams_client::{Plan, Socket, Stack},
    process::Process,
    webrtc_peer,
};

const DEMO: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_udp_publish_and_play_through_the_doors_tcp_port() {
    let door = Process::start(&DEMO).await;
    let (publisher, viewer) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
    let tcp: Stack = webrtc_peer::tcp_stack;
    let publish = publisher.begin(Plan::publish("without-udp"), tcp);
    publish.until_has("publish_started").await;
    let play = viewer.begin(Plan::play("without-udp"), tcp);
    play.until_more_video(30).await;

    play.until("the data channel is open", |report| report.data_open).await;
    publish.until("the data channel is open", |report| report.data_open).await;
    publish.send_data("over tcp");
    play.until("data arrives", |report| report.data.iter().any(|data| data == "over tcp")).await;
    assert_eq!(door.metric("forebay_media_tcp_connections").await, Some(2.0));
}
