//! Clients that are slow, silent, endless or too many: each costs itself its connection, and nobody else anything.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{
    cluster::{PATIENCE, eventually},
    front::{FrontDoor, exchange, pause, ping, read_all, websocket},
    mongod::TempDir,
};

const GET: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";

async fn door(limits: &str) -> FrontDoor {
    FrontDoor::serve(TempDir::new("abuse"), &[""], &format!("[limits]\n{limits}\n")).await
}

async fn connect(at: SocketAddr) -> TcpStream {
    TcpStream::connect(at).await.unwrap()
}

/// Reads one answer that has a body of known length.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = async {
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.to_ascii_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
                });
                if length.is_none_or(|length| body.len() >= length) {
                    return text;
                }
            }
            if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                return text;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_too_slowly_ends_its_connection() {
    let door = door("header_timeout = \"400ms\"\nidle_timeout = \"1s\"").await;
    let mut session = websocket(connect(door.at[0]).await).await;
    let begun = Instant::now();
    let mut stream = connect(door.at[0]).await;
    let (mut from, mut to) = stream.split();
    let drip = async {
        to.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await.unwrap();
        loop {
            pause(Duration::from_millis(30)).await;
            if to.write_all(b"x").await.is_err() {
                break std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = drip => {}
        _ = read_all(&mut from) => {}
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "each byte was progress, the whole was not");
    door.until_ended_for("slow_head", 1.0).await;

    // The same after a proper request.
    let mut stream = connect(door.at[0]).await;
    stream.write_all(GET).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /li").await.unwrap();
    read_all(&mut stream).await;
    door.until_ended_for("slow_head", 2.0).await;

    // And one that says nothing.
    read_all(&mut connect(door.at[0]).await).await;
    door.until_ended_for("slow_head", 3.0).await;
    ping(&mut session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_pause_between_requests_but_not_for_ever() {
    let door = door("header_timeout = \"300ms\"\nidle_timeout = \"1500ms\"").await;
    let mut stream = connect(door.at[0]).await;
    for _ in 0..3 {
        stream.write_all(GET).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        pause(Duration::from_millis(600)).await;
    }
    assert!(read_all(&mut stream).await.is_empty());
    door.until_ended_for("idle", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_answer_ends_its_connection_only() {
    let door = door("write_timeout = \"500ms\"").await;
    let mut stream = connect(door.at[0]).await;
    let many: Vec<u8> = GET.repeat(1000);
    let flood = async { while stream.write_all(&many).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the door gives up on it");
    door.until_ended_for("slow_reader", 1.0).await;
    assert!(door.is_well(0).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_or_none_get_their_status() {
    let door = door("").await;
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (request, expected) in [
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\nx: {}\r\n\r\n", "y".repeat(60_000)), "431"),
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\n{headers}\r\n"), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(70_000)), "414"),
        ("GET /livez HTTP/1.1\r\nHost : x\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(), "400"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}".to_owned(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
    ] {
        let answer = exchange(door.at[0], request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(status == expected || (expected == "414" && status == "431"), "{:.60}: {answer}", request);
    }
    door.until_ended_for("bad_http", 5.0).await;
    assert!(door.is_well(0).await);
    assert!(!door.log().contains("panicked"), "{}", door.log());
}

/// Connections of another loopback address, which is another client.
async fn connect_from(last: u8, at: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(at).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_listener_answers_health_and_nothing_else() {
    let door = door("connections = 6\nconnections_per_client = 5").await;
    let mut sessions = Vec::new();
    for last in 10..16 {
        sessions.push(websocket(connect_from(last, door.at[0]).await).await);
    }
    assert!(door.is_well(0).await, "health has seats of its own");
    let refused = exchange(door.at[0], b"GET /LiveApp/websocket HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    assert!(door.ended_for("full").await >= 1.0);
    ping(&mut sessions[0]).await;
    sessions.clear();
    eventually("seats are free again", async || {
        let answer = exchange(door.at[0], b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        answer.starts_with("HTTP/1.1 404")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_may_not_take_all_seats() {
    let door = door("connections = 100\nconnections_per_client = 3").await;
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(websocket(connect_from(20, door.at[0]).await).await);
    }
    assert!(read_all(&mut connect_from(20, door.at[0]).await).await.is_empty());
    door.until_ended_for("client_full", 1.0).await;
    let mut other = websocket(connect_from(21, door.at[0]).await).await;
    ping(&mut other).await;
    drop(greedy.pop());
    eventually("the seat is free again", async || {
        let mut stream = connect_from(20, door.at[0]).await;
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.is_ok() && !read_all(&mut stream).await.is_empty()
    })
    .await;
}
