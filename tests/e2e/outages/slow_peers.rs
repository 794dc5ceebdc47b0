//! A client that stops reading while its node has much to say, and a node that does while its client has.

use std::time::{Duration, Instant};

use forebay::{
    demo::ClusterOptions,
    domain::ids::StreamKey,
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::support::{
    ams_client::{Plan, SocketReport},
    cluster::{Door, Nodes, asked, eventually, node_id, starts},
};

/// What a node answers to one small question.
const ANSWER: usize = 60_000;
/// Questions: their answers are more than all buffers between node and client hold.
const QUESTIONS: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_closed_with_a_reason_and_costs_the_others_nothing() {
    let db = MemoryDb::default();
    let Value::Object(record) = json!({
        "streamId": "large", "status": "broadcasting", "originAdress": "127.0.1.1", "metaData": "x".repeat(ANSWER),
    }) else {
        unreachable!("an object")
    };
    let key = StreamKey { app: "LiveApp".parse().unwrap(), stream: "large".parse().unwrap() };
    db.set_broadcast(&key, record, true);
    let options = ClusterOptions { origins: 1, edges: 1, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, ClusterDb::Memory(db)).await;
    let door = Door::serve(&nodes.tables(false), &[("FOREBAY_LIMITS__WRITE_TIMEOUT", "1s")]).await;
    let other = door.open().await;
    asked(&other, Plan::publish("before")).await;
    let (memory, descriptors) = (door.resident_mib(), door.descriptors());

    let mut slow = client_with_small_window(&door).await;
    let begun = Instant::now();
    for _ in 0..QUESTIONS {
        let question = json!({ "command": "getBroadcastObject", "streamId": "large" });
        if slow.send(Message::text(question.to_string())).await.is_err() {
            break;
        }
    }
    let mut largest = memory;
    eventually("the slow client is closed", async || {
        largest = largest.max(door.resident_mib());
        let (asked_at, pongs) = (Instant::now(), pongs(&other.report()));
        other.say(json!({ "command": "ping" }));
        other.until("a pong", |report| self::pongs(report) > pongs).await;
        assert!(asked_at.elapsed() < Duration::from_secs(1), "another client waits: {:?}", asked_at.elapsed());
        door.metric("forebay_sessions_closed_total{reason=\"client_slow\"}").await == Some(1.0)
    })
    .await;
    println!("closed as slow after {:?}; memory {memory:.1} MiB before, {largest:.1} MiB at most", begun.elapsed());
    assert!(largest - memory < 16.0, "what waits for one client is bounded: {memory} MiB, {largest} MiB");
    door.logged(&["reason=\"client_slow\""]).await;
    asked(&other, Plan::publish("after")).await;

    let mut read = 0;
    while let Some(Ok(message)) = slow.next().await {
        read += message.len();
    }
    println!("{read} of {} bytes had left the door", ANSWER * QUESTIONS);
    assert!(read < ANSWER * QUESTIONS, "the rest was never kept");
    eventually("its socket and its link are gone", async || door.descriptors() <= descriptors + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_reading_loses_its_link_with_a_reason_and_the_leg_goes_on_elsewhere() {
    let options = ClusterOptions { origins: 2, edges: 0, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await;
    let door = Door::serve(&nodes.tables(false), &[("FOREBAY_LIMITS__WRITE_TIMEOUT", "1s")]).await;
    let eager = door.open().await;
    let (leg, _) = asked(&eager, Plan::publish("s")).await;
    let home = door.legs("publish").await.into_keys().next().expect("it was placed");
    let memory = door.resident_mib();

    nodes.cluster.freeze(&node_id(&home), true).expect("a node of this cluster");
    let begun = Instant::now();
    let candidate = json!({
        "command": "updateStreamMetaData", "streamId": "s", "metaData": "x".repeat(ANSWER),
    });
    for _ in 0..QUESTIONS {
        eager.say(candidate.clone());
    }
    let mut largest = memory;
    let slow = format!("forebay_link_failures_total{{node=\"{home}\",cause=\"slow\"}}");
    eventually("the link is given up as slow", async || {
        largest = largest.max(door.resident_mib());
        door.metric(&slow).await == Some(1.0)
    })
    .await;
    println!("lost as slow after {:?}; memory {memory:.1} MiB before, {largest:.1} MiB at most", begun.elapsed());
    assert!(largest - memory < 16.0, "what waits for one node is bounded: {memory} MiB, {largest} MiB");
    leg.until("a start of the other origin", |report| starts(report) == 2).await;
    assert!(eager.report().closed.is_none(), "the client did nothing wrong");
    assert!(!door.legs("publish").await.contains_key(&home));
}

fn pongs(report: &SocketReport) -> usize {
    report.messages.iter().filter(|message| message["command"] == "pong").count()
}

/// The kernel would take megabytes for a client that does not read.
async fn client_with_small_window(door: &Door) -> WebSocketStream<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    let stream = socket.connect(door.http().parse().expect("an address")).await.expect("the door listens");
    client_async(door.url(), stream).await.expect("the door takes sessions").0
}
