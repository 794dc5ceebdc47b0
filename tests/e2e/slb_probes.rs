//! Load balancers ask for health each in its own way (facts/alibaba.md §6): every way is answered alike on a public
//! listener and on `[health] bind`, says nothing in the log, and needs neither MongoDB nor nodes.

use std::time::Duration;

use forebay::{
    demo::ClusterOptions,
    registry::{cluster_db::ClusterDb, memory::MemoryDb},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    ams_client::{Plan, Socket},
    cluster::{Door, Nodes, asked, eventually},
    process::http,
};

/// What each product sends, word for word as far as it is known, and whether it leaves the connection open.
const PROBES: [(&str, &str, Keeps); 9] = [
    ("CLB, HTTP, no domain set", "HEAD /healthz HTTP/1.0\r\n\r\n", Keeps::Closed),
    (
        "CLB, HTTP, curl -0 -I -H Host:",
        "HEAD /healthz HTTP/1.0\r\nUser-Agent: curl\r\nAccept: */*\r\n\r\n",
        Keeps::Closed,
    ),
    ("CLB, HTTP, an empty Host", "HEAD /healthz HTTP/1.0\r\nHost: \r\n\r\n", Keeps::Closed),
    ("CLB, HTTP, GET chosen", "GET /healthz HTTP/1.0\r\n\r\n", Keeps::Closed),
    ("CLB, HTTP, a domain set", "HEAD /healthz HTTP/1.0\r\nHost: lb.example\r\n\r\n", Keeps::Closed),
    ("ALB, HTTP", "HEAD /healthz HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n", Keeps::Open),
    ("ALB, HTTP, GET chosen", "GET /healthz HTTP/1.1\r\nHost: 10.0.0.7\r\nConnection: close\r\n\r\n", Keeps::Closed),
    ("NLB, HTTP", "GET /healthz HTTP/1.0\r\nHost: 10.0.0.7\r\n\r\n", Keeps::Closed),
    ("NLB, HTTP, 1.1 without Host", "GET /healthz HTTP/1.1\r\n\r\n", Keeps::Open),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Open,
    Closed,
}

/// A door whose MongoDB is not there, with a health port of its own.
async fn lonely_door() -> Door {
    let tables = "[mongo]\nuri = \"mongodb://127.0.0.1:1\"\n[health]\nbind = \"127.0.0.1:0\"\n";
    Door::serve(tables, &[("FOREBAY_SHUTDOWN__LAME_DUCK", "30s")]).await
}

fn health_port(door: &Door) -> String {
    door.ready["health"].strip_prefix("http://").expect("an http URL").to_owned()
}

/// One probe; the status that it saw.
async fn probe(address: &str, request: &str, keeps: Keeps) -> u16 {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("it answers"), 0, "a whole head");
        }
        if keeps == Keeps::Closed {
            stream.read_to_end(&mut answer).await.expect("it closes");
            let text = String::from_utf8_lossy(&answer);
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert_eq!(body.is_empty(), request.starts_with("HEAD"), "{request:?}: {text}");
        }
        let head = String::from_utf8_lossy(&answer).into_owned();
        assert!(!head.to_lowercase().contains("location:"), "no redirect: {head}");
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("an answer well within a prober's patience")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_products_probe_is_answered_without_mongodb_without_host_and_without_a_log_line() {
    let door = lonely_door().await;
    // What the start itself has to say comes first.
    eventually("the store's absence is told", async || door.log().contains("MongoDB") || door.log().contains("store"))
        .await;
    // Lines come in their order: once a session's is there, all before it are.
    let lines = async |nth: usize| {
        let session = Socket::open(&door.url()).await.unwrap();
        let opened = |log: &str| log.lines().filter(|line| line.contains("session opened")).count();
        eventually("a session's line is there", async || opened(&door.log()) == nth).await;
        drop(session);
        let own = ["store", "mongo", "session"];
        door.log().lines().filter(|line| !own.iter().any(|word| line.contains(word))).count()
    };
    let before = lines(1).await;
    for address in [door.http().to_owned(), health_port(&door)] {
        for (who, request, keeps) in PROBES {
            assert_eq!(probe(&address, request, keeps).await, 200, "{who} at {address}");
        }
    }
    assert_eq!(lines(2).await, before, "{}", door.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_probe_may_close_or_reset_its_connection_as_often_as_it_likes() {
    let door = lonely_door().await;
    for address in [door.http().to_owned(), health_port(&door)] {
        for nth in 0..200 {
            let stream = TcpStream::connect(&address).await.expect("it listens");
            if nth % 2 == 0 {
                // CLB and NLB answer the SYN+ACK of a good server with a RST.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
            }
            drop(stream);
        }
        assert_eq!(probe(&address, "HEAD /healthz HTTP/1.0\r\n\r\n", Keeps::Closed).await, 200, "{address}");
    }
    assert_eq!(door.total("forebay_accept_errors_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_may_ask_again_and_again() {
    let door = lonely_door().await;
    let mut stream = TcpStream::connect(door.http()).await.unwrap();
    for _ in 0..20 {
        stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: 10.0.0.7\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_ends_fails_its_probes_in_both_places_while_it_serves_and_lives() {
    let options = ClusterOptions { origins: 1, edges: 0, ..ClusterOptions::default() };
    let nodes = Nodes::start(options, ClusterDb::Memory(MemoryDb::default())).await;
    let tables = format!("{}[health]\nbind = \"127.0.0.1:0\"\n", nodes.tables(false));
    let door = Door::serve(&tables, &[("FOREBAY_SHUTDOWN__LAME_DUCK", "30s")]).await;
    let places = [door.http().to_owned(), health_port(&door)];
    door.signal("TERM");
    for address in &places {
        for (who, request, keeps) in PROBES {
            eventually(who, async || probe(address, request, keeps).await == 503).await;
        }
        assert_eq!(probe(address, "GET /livez HTTP/1.0\r\n\r\n", Keeps::Closed).await, 200, "{address}");
    }
    // Who probes by TCP only, or has not looked yet, still sends clients.
    asked(&door.open().await, Plan::publish("late")).await;
    door.signal("INT");
}

#[tokio::test(flavor = "multi_thread")]
async fn locate_answers_pages_of_any_origin_as_the_sdk_wants_it() {
    let door = lonely_door().await;
    let ask = async |line: &str, headers: &str| http(door.http(), &format!("{line} HTTP/1.0\r\n{headers}\r\n")).await;
    let found =
        ask("GET /forebay/locate?app=LiveApp&source=sdk", "Host: lb.example:8443\r\nOrigin: https://a.example\r\n");
    let found = found.await;
    let (head, body) = found.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.contains(" 200 ") && head.contains("access-control-allow-origin: *"), "{found}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["websocket_url"], "ws://lb.example:8443/LiveApp/websocket");
    assert_eq!(body["http_url"], "http://lb.example:8443/healthz");
    assert_eq!(body["fqdn"], "lb.example");
    // Which the page then asks by HEAD, also from another origin.
    let health = ask("HEAD /healthz", "Origin: https://a.example\r\n").await.to_lowercase();
    assert!(health.contains(" 200 ") && health.contains("access-control-allow-origin: *"), "{health}");
    for (line, headers, status) in [
        ("GET /forebay/locate?app=NoSuchApp", "Host: x\r\n", 404),
        ("GET /forebay/locate", "Host: x\r\n", 404),
        ("GET /forebay/locate?app=LiveApp", "", 400),
        ("POST /forebay/locate?app=LiveApp", "Host: x\r\nContent-Length: 0\r\n", 405),
        ("OPTIONS /forebay/locate?app=LiveApp", "Host: x\r\n", 204),
    ] {
        let answer = ask(line, headers).await;
        assert!(answer.contains(&format!(" {status} ")), "{line}: {answer}");
        assert!(answer.to_lowercase().contains("access-control-allow-origin: *"), "{line}: {answer}");
    }
}
