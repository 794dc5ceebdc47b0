//! How the door ends: paced and announced at SIGTERM, at once when asked again.

use std::time::{Duration, Instant};

use forebay::{
    demo::ClusterOptions,
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use futures_util::{StreamExt, future::join_all};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::support::{
    ams_client::Plan,
    cluster::{Door, Nodes, asked, eventually},
    process::http,
};

const CLIENTS: usize = 20;

async fn door(environment: &[(&str, &str)]) -> (Nodes, Door) {
    let options = ClusterOptions { origins: 1, edges: 0, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await;
    let door = Door::serve(&nodes.tables(false), environment).await;
    (nodes, door)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_turns_health_off_at_once_serves_the_lame_duck_and_spreads_the_closes() {
    let lame_duck = Duration::from_secs(2);
    let environment = [("FOREBAY_SHUTDOWN__LAME_DUCK", "2s"), ("FOREBAY_SHUTDOWN__DEADLINE", "2s")];
    let (_nodes, mut door) = door(&environment).await;
    let waiting = join_all((0..CLIENTS).map(|_| raw(&door))).await;
    let client = door.open().await;
    asked(&client, Plan::publish("before")).await;
    assert_eq!(door.health().await, 200);

    let asked_to_end = Instant::now();
    door.signal("TERM");
    eventually("health is off", async || door.health().await == 503).await;
    println!("/healthz is 503 after {:?}", asked_to_end.elapsed());
    asked(&client, Plan::publish("during")).await;
    // Load balancers send clients for some seconds more.
    asked(&door.open().await, Plan::publish("late")).await;
    client.say(json!({ "command": "ping" }));
    client.until_message("a pong", |message| message["command"] == "pong").await;
    assert!(asked_to_end.elapsed() < lame_duck, "all that within the lame duck: {:?}", asked_to_end.elapsed());
    assert!(client.report().closed.is_none());

    let closes = join_all(waiting.into_iter().map(|socket| closed(socket, asked_to_end))).await;
    let mut times: Vec<Duration> = closes.iter().map(|(_, at)| *at).collect();
    times.sort();
    println!("closed after {times:?}");
    assert!(closes.iter().all(|(code, _)| *code == Some(1001)), "{closes:?}");
    assert!(times[0] >= lame_duck, "nobody is closed before the lame duck ends");
    assert!(times[CLIENTS - 1] - times[0] > Duration::from_millis(700), "they are spread over the deadline");
    assert_eq!(door.process().ended(Duration::from_secs(10)).await, Some(0));
    println!("ended after {:?}", asked_to_end.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_clients_are_refused_politely_once_the_door_ends_its_sessions() {
    let environment = [("FOREBAY_SHUTDOWN__LAME_DUCK", "0s"), ("FOREBAY_SHUTDOWN__DEADLINE", "30s")];
    let (_nodes, mut door) = door(&environment).await;
    // Of so many, some stay for long.
    let _staying = door.open_many(CLIENTS).await;
    door.signal("TERM");
    eventually("health is off", async || door.health().await == 503).await;
    let upgrade = "GET /LiveApp/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let answer = http(door.http(), upgrade).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.to_lowercase().contains("retry-after: "), "{answer}");
    door.signal("INT");
    assert_eq!(door.process().ended(Duration::from_secs(2)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_or_a_sigint_ends_within_2_seconds() {
    for signals in [&["TERM", "TERM"][..], &["INT"]] {
        let (_nodes, mut door) = door(&[]).await;
        let waiting = join_all((0..CLIENTS).map(|_| raw(&door))).await;
        let client = door.open().await;
        asked(&client, Plan::publish("s")).await;
        let asked_to_end = Instant::now();
        for signal in signals {
            door.signal(signal);
            if *signal == "TERM" {
                // The second one must not be merged with the first by the kernel.
                eventually("the first was heard", async || door.log().contains("draining")).await;
            }
        }
        let closes = join_all(waiting.into_iter().map(|socket| closed(socket, asked_to_end))).await;
        assert_eq!(door.process().ended(Duration::from_secs(2)).await, Some(0), "{signals:?}");
        let took = asked_to_end.elapsed();
        println!("{signals:?}: ended after {took:?}");
        assert!(took < Duration::from_secs(2), "{signals:?}: {took:?}");
        assert!(closes.iter().all(|(code, _)| *code == Some(1001)), "{signals:?} {closes:?}");
    }
}

async fn raw(door: &Door) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(door.http()).await.expect("the door listens");
    client_async(door.url(), stream).await.expect("the door takes sessions").0
}

/// The code that a client was closed with, and when.
async fn closed(mut socket: WebSocketStream<TcpStream>, since: Instant) -> (Option<u16>, Duration) {
    let end = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                return (Some(frame.code.into()), since.elapsed());
            }
        }
        (None, since.elapsed())
    };
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("the socket ends")
}
