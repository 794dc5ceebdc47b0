//! Under systemd: sockets that it holds, and what it is told.

use std::{net::TcpListener, time::Duration};

use tokio::net::TcpStream;

use crate::support::{
    cluster::{Door, eventually},
    mongod::TempDir,
    process::{Process, http},
    systemd::Manager,
};

/// A configuration whose addresses nobody can bind: they must come from systemd.
fn config(listen: &str, dir: &TempDir) -> String {
    let file = dir.path().join("forebay.toml");
    let text = format!(
        "[[listen]]\nbind = \"{listen}\"\n[admin]\nbind = \"127.0.0.1:1\"\n[health]\nbind = \"127.0.0.1:2\"\n\
         [apps]\nLiveApp = {{}}\n[nodes]\ndiscover = false\n[media]\nbind = \"127.0.0.1\"\nports = [0]\n\
         [[nodes.static]]\naddress = \"127.0.0.1:3\"\nrole = \"both\"\n"
    );
    std::fs::write(&file, text).expect("the directory is writable");
    file.to_str().expect("a path of ASCII").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_systemd_are_served_by_name_and_by_address_and_clients_wait_in_them() {
    let dir = TempDir::new("activated");
    let sockets: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at: Vec<String> = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
    // Before there is a process at all.
    let early = TcpStream::connect(&at[0]).await.expect("systemd listens");
    let file = config(&at[0], &dir);
    let named = [("forebay.socket", &sockets[0]), ("health", &sockets[1]), ("admin", &sockets[2])];
    let mut door = Process::start_activated(&["serve", "--config", &file], &[], &named).await;

    assert_eq!(door.http(), at[0]);
    assert_eq!(door.ready["health"], format!("http://{}", at[1]));
    assert_eq!(door.admin(), at[2]);
    for address in &at[..2] {
        assert!(http(address, "GET /healthz HTTP/1.0\r\n\r\n").await.contains(" 200 "), "{address}");
    }
    drop(early);
    door.signal("INT");
    assert_eq!(door.ended(Duration::from_secs(2)).await, Some(0));
    TcpStream::connect(&at[0]).await.expect("systemd still listens");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_over_and_not_configured_is_closed_and_named() {
    let dir = TempDir::new("activated");
    let sockets: Vec<TcpListener> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let at = sockets[0].local_addr().unwrap().to_string();
    let file = config(&at, &dir);
    let named = [("a", &sockets[0]), ("health", &sockets[1]), ("admin", &sockets[2]), ("stray", &sockets[3])];
    let door = Process::start_activated(&["serve", "--config", &file], &[], &named).await;
    eventually("it says so", async || door.log().contains("stray")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_the_door_is_ready_alive_reloading_and_ending() {
    let manager = Manager::new();
    let environment =
        [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "200000"), ("FOREBAY_SHUTDOWN__LAME_DUCK", "0s")];
    let mut door = Door::serve("[mongo]\nuri = \"mongodb://127.0.0.1:1\"\n", &environment).await;

    let ready = manager.until("READY=1").await;
    assert!(ready.contains(&format!("MAINPID={}", door.pid())), "{ready}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1").await;
    }
    door.signal("HUP");
    assert!(manager.until("RELOADING=1").await.contains("MONOTONIC_USEC="));
    manager.until("READY=1").await;
    door.signal("TERM");
    assert!(manager.until("STOPPING=1").await.contains("EXTEND_TIMEOUT_USEC="));
    assert_eq!(door.process().ended(Duration::from_secs(10)).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_of_another_process_is_not_fed() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut door = Door::serve("[mongo]\nuri = \"mongodb://127.0.0.1:1\"\n", &environment).await;
    manager.until("READY=1").await;
    door.signal("INT");
    assert_eq!(door.process().ended(Duration::from_secs(5)).await, Some(0));
    assert!(!manager.has_heard("WATCHDOG=1"));
}
