//! Nodes that are emptied, or die, under clients that stay: real nodes, real media, a real MongoDB.

mod doors;
mod nodes;
mod without_store;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{
    ams_client::{Leg, Plan, Socket},
    cluster::{Door, PATIENCE, eventually, moving, offers},
    process::http,
};

/// `PUT /v1/nodes/{node}/drain`: the answer's status and body.
async fn drain(door: &Door, node: &str, wish: &str) -> (u16, Value) {
    let head = format!("PUT /v1/nodes/{node}/drain HTTP/1.0\r\nContent-Type: application/json");
    let answer = http(door.admin(), &format!("{head}\r\nContent-Length: {}\r\n\r\n{wish}", wish.len())).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("not JSON: {answer}")))
}

/// `DELETE /v1/nodes/{node}/drain`
async fn undrain(door: &Door, node: &str) {
    let answer = http(door.admin(), &format!("DELETE /v1/nodes/{node}/drain HTTP/1.0\r\n\r\n")).await;
    assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{answer}");
}

/// A client with one leg.
struct Client {
    socket: Socket,
    leg: Leg,
}

impl Client {
    async fn publish(door: &Door, stream: &str) -> Self {
        Self::begin(door, Plan::publish(stream), "publish_started").await
    }

    async fn play(door: &Door, stream: &str) -> Self {
        let client = Self::begin(door, Plan::play(stream), "play_started").await;
        client.leg.until_more_video(5).await;
        client
    }

    /// Begins the leg and waits until its node says that it has.
    async fn begin(door: &Door, plan: Plan, started: &str) -> Self {
        let socket = door.open().await;
        let leg = socket.begin(plan, moving);
        leg.until_has(started).await;
        Self { socket, leg }
    }

    /// It got its `nth` offer, and has media from there; its socket stayed up, and it heard of no end.
    async fn plays_again(&self, nth: usize) {
        self.leg.until("another offer", |report| offers(report) >= nth).await;
        self.leg.until("play_started again", |report| report.count("play_started") >= nth).await;
        self.leg.until_more_video(10).await;
        assert!(!self.leg.report().has("play_finished"), "it heard of an end");
        assert!(self.socket.report().closed.is_none(), "its socket stays up");
    }
}

/// What became of moves so far, and how long they took on the way.
async fn gaps(door: &Door, kind: &str) -> (f64, f64) {
    let name = format!("forebay_migration_{kind}_gap_seconds");
    (door.total(&format!("{name}_count")).await, door.total(&format!("{name}_sum")).await)
}

async fn until_drained(door: &Door, node: &str) -> Duration {
    let begun = Instant::now();
    eventually(&format!("{node} is drained"), async || door.node(node).await["state"] == "drained").await;
    assert!(begun.elapsed() < PATIENCE);
    begun.elapsed()
}

/// The only node with legs of this kind.
async fn home(door: &Door, kind: &str) -> String {
    let legs = door.legs(kind).await;
    assert_eq!(legs.len(), 1, "{kind}: {legs:?}");
    legs.into_keys().next().expect("just counted")
}
