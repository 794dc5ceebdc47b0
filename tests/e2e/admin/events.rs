//! `GET /v1/events`, heard as a dashboard hears it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    time::timeout,
};

use super::{DEMO, ask};
use crate::support::{
    ams_client::{Plan, Socket},
    process::Process,
    webrtc_peer,
};

struct Listener(Lines<BufReader<TcpStream>>);

impl Listener {
    async fn open(door: &Process) -> Self {
        let mut stream = TcpStream::connect(door.admin()).await.unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        let mut listener = Self(lines);
        while !listener.line().await.starts_with(": listening") {}
        listener
    }

    async fn line(&mut self) -> String {
        let line = timeout(Duration::from_secs(20), self.0.next_line()).await.expect("something is told in time");
        line.unwrap().expect("the stream goes on")
    }

    /// The next event of this name for which this holds.
    async fn until(&mut self, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            if self.line().await != format!("event: {name}") {
                continue;
            }
            let data = self.line().await;
            let json = serde_json::from_str(data.strip_prefix("data: ").expect("data follows")).unwrap();
            if holds(&json) {
                return json;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_hears_of_sessions_nodes_and_operators() {
    let door = Process::start(&DEMO).await;
    let mut listener = Listener::open(&door).await;
    let publisher = Socket::open(&door.url()).await.unwrap();
    publisher.begin(Plan::publish("s"), webrtc_peer::stack);
    let opened = listener.until("session", |event| event["event"] == "opened").await;
    let started = listener.until("session", |event| event["event"] == "started").await;
    assert_eq!((&started["session"], &started["stream"]), (&opened["session"], &json!("s")));

    let drain = ask(&door, "PUT", "/v1/nodes/edge-1/drain", r#"{"deadline":"1m"}"#).await;
    assert_eq!(drain.status, 200, "{drain:?}");
    let change = listener.until("change", |event| event["what"] == "drain").await;
    assert_eq!((&change["of"], &change["who"], &change["before"]), (&json!("edge-1"), &json!("anyone"), &Value::Null));
    let node = listener.until("node", |node| node["id"] == "edge-1" && node["state"] == "drained").await;
    assert!(node["drain"]["drained_at"].is_string(), "{node}");
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_are_bounded_and_their_seats_come_back() {
    let door = Process::start(&DEMO).await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        listeners.push(Listener::open(&door).await);
    }
    let refused = ask(&door, "GET", "/v1/events", "").await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("too_many_listeners")));
    assert!(refused.head.contains("retry-after"), "{}", refused.head);
    assert_eq!(ask(&door, "GET", "/v1/nodes", "").await.status, 200, "everything else is answered");
    drop(listeners);
    // A connection that is gone is noticed when something is told on it.
    crate::support::cluster::eventually("a seat is free", async || {
        let mut stream = TcpStream::connect(door.admin()).await.unwrap();
        stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        lines.next_line().await.unwrap().unwrap().contains(" 200 ")
    })
    .await;
}
