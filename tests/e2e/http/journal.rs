//! The access log.

use super::{Node, ask, door, ok};
use crate::support::cluster::Door;

/// The lines of the access log that hold all of `words`, once there is one.
async fn line(door: &Door, words: &[&str]) -> String {
    door.logged(&[&["forebay::access"], words].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_and_session_leaves_one_line_without_its_secrets() {
    let node = Node::start(|_| ok("hello")).await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    ask(&door, "GET /LiveApp/streams/s.m3u8?token=hush&x=1", &[], "").await;
    let told = line(&door, &["s.m3u8"]).await;
    for part in [
        "route=\"streams\"",
        "method=\"GET\"",
        "path=/LiveApp/streams/s.m3u8?token=…&x=1",
        "status=200",
        "client=\"127.0.0.x\"",
        "node=edge-1",
        "rule=\"bounded_hash\"",
        "bytes_out=5",
        "end=\"done\"",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    ask(&door, "GET /LiveApp/whip/s/resource-that-nobody-may-know?x", &[], "").await;
    assert!(line(&door, &["route=\"whip\""]).await.contains("path=/LiveApp/whip/s/… "));
    ask(&door, "GET /healthz", &[], "").await;
    let socket = door.open().await;
    drop(socket);
    let told = line(&door, &["session=", "took_ms"]).await;
    assert!(told.contains("app=LiveApp") && told.contains("end=\"client_"), "{told}");
    let log = door.log();
    assert!(!log.contains("route=\"websocket\""), "a session has a line of its own: {log}");
    assert!(!log.contains("hush") && !log.contains("healthz") && !log.contains("nobody-may-know"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_shows_as_much_as_it_is_told_to() {
    let node = Node::start(|_| ok("hello")).await;
    let tables = [node.table("edge-1", "edge")];
    let full = door(&tables, "[telemetry]\naccess_log = \"full\"\n").await;
    ask(&full, "GET /LiveApp/a?token=hush", &[], "").await;
    assert!(line(&full, &["/LiveApp/a?token=…"]).await.contains("client=\"127.0.0.1\""));
    let off = door(&tables, "[telemetry]\naccess_log = \"off\"\n").await;
    ask(&off, "GET /LiveApp/a", &[], "").await;
    let socket = off.open().await;
    drop(socket);
    off.logged(&["session opened"]).await;
    assert!(!off.log().contains("forebay::access"));
}
