//! Another configuration comes into force while clients are served: none of them notices, and a bad one changes nothing.

use forebay::{
    demo::ClusterOptions,
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use serde_json::json;

use crate::support::{
    ams_client::{Plan, Socket},
    cluster::{Door, Nodes, asked, door_text, eventually},
    process::http,
};

const TAKEN: &str = "forebay_config_reloads_total{result=\"taken\"}";
const REFUSED: &str = "forebay_config_reloads_total{result=\"refused\"}";

async fn nodes() -> Nodes {
    let options = ClusterOptions { origins: 2, edges: 1, ..ClusterOptions::default() };
    Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await
}

async fn until_counted(door: &Door, metric: &str, times: f64) {
    eventually(metric, async || door.metric(metric).await == Some(times)).await;
}

/// The status of an upgrade for an app.
async fn status(door: &Door, app: &str) -> String {
    let upgrade = format!(
        "GET /{app}/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 8\r\n\r\n"
    );
    http(door.http(), &upgrade).await.split(' ').nth(1).expect("a status line").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_comes_into_force_and_every_session_goes_on() {
    let nodes = nodes().await;
    let text = door_text(&nodes.tables(false));
    let door = Door::serve_text(&text, &[]).await;
    let (client, idle) = (door.open().await, door.open_many(10).await);
    let (leg, _) = asked(&client, Plan::publish("s")).await;
    assert_eq!(status(&door, "Other").await, "404");
    assert_eq!(door.explain("publish", "x").await["candidates"].as_array().map(Vec::len), Some(3));

    // Another app, one origin less, fewer sessions, more in the log.
    let gone = text.find("[[nodes.static]]\nname = \"origin-2\"").expect("its table");
    let after = text[gone + 2..].find("[[").map_or(text.len(), |at| gone + 2 + at);
    let new = format!("{}{}[limits]\nsessions = 11\n[telemetry]\nlog = \"debug\"\n", &text[..gone], &text[after..]);
    door.rewrite(&new.replace("LiveApp = {}\n", "LiveApp = {}\nOther = {}\n"));

    until_counted(&door, TAKEN, 1.0).await;
    assert_eq!(status(&door, "Other").await, "426", "the app is there now");
    eventually("the origin is gone", async || {
        door.explain("publish", "x").await["candidates"].as_array().map(Vec::len) == Some(2)
    })
    .await;
    assert_eq!(door.health().await, 503, "all seats are taken");
    assert!(Socket::open(&door.url()).await.is_err());
    door.logged(&[" DEBUG "]).await;
    for socket in idle.iter().chain([&client]) {
        socket.say(json!({ "command": "ping" }));
        socket.until_message("a pong", |message| message["command"] == "pong").await;
    }
    assert!(leg.report().messages.iter().any(|message| message["command"] == "start"));
    let at = door.metric("forebay_config_reload_timestamp_seconds{result=\"taken\"}").await;
    assert!(at.is_some_and(|at| at > 1_700_000_000.0), "{at:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_is_named_and_nothing_of_the_rest_is_taken() {
    let nodes = nodes().await;
    let text = door_text(&nodes.tables(false));
    let door = Door::serve_text(&text, &[]).await;
    let client = door.open().await;

    door.rewrite(&text.replace("ports = [0]", "ports = [1]").replace("LiveApp = {}\n", "LiveApp = {}\nOther = {}\n"));

    until_counted(&door, REFUSED, 1.0).await;
    door.logged(&["media.ports"]).await;
    assert_eq!(status(&door, "Other").await, "404");
    // A file that is no configuration at all, asked for by signal.
    door.rewrite("nonsense");
    until_counted(&door, REFUSED, 2.0).await;
    door.signal("HUP");
    until_counted(&door, REFUSED, 3.0).await;
    // And the way back is open.
    door.rewrite(&text.replace("LiveApp = {}\n", "LiveApp = {}\nOther = {}\n"));
    until_counted(&door, TAKEN, 1.0).await;
    assert_eq!(status(&door, "Other").await, "426");
    client.say(json!({ "command": "ping" }));
    client.until_message("a pong", |message| message["command"] == "pong").await;
    assert_eq!(door.health().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_that_were_lowered_hold_for_the_next_session_only() {
    let nodes = nodes().await;
    let text = door_text(&nodes.tables(false));
    let door = Door::serve_text(&text, &[]).await;
    let before = door.open().await;
    door.rewrite(&format!("{text}[limits]\nlegs_per_session = 1\n"));
    until_counted(&door, TAKEN, 1.0).await;

    let after = door.open().await;
    for stream in ["a", "b"] {
        asked(&before, Plan::publish(&format!("before-{stream}"))).await;
    }
    asked(&after, Plan::publish("after-a")).await;
    after.say(json!({ "command": "publish", "streamId": "after-b", "video": true, "audio": true }));
    after.until_message("a refusal", |message| message["command"] == "error" && message["streamId"] == "after-b").await;
}
