//! Nodes that answer badly, and clients that do not read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Client, Node, Reply, SOON, ask, body, door, ok, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_answers_nonsense_is_a_502_and_another_one_is_asked_only_where_that_is_safe() {
    for nonsense in
        ["NONSENSE\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n"]
    {
        let node = Node::start(move |_| Reply::Close(nonsense.into())).await;
        let door = door(&[node.table("edge-1", "edge")], "").await;
        let answer = ask(&door, "GET /LiveApp/a", &[], "").await;
        assert_eq!(status(&answer), 502, "{nonsense:?}: {answer}");
        assert!(!answer.contains("127.0.0.1"), "no address: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_response_ends_the_clients_unfinished() {
    let node = Node::start(|seen| match seen.line() {
        line if line.contains("chunked") => {
            Reply::Close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".into())
        }
        _ => Reply::Close("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".into()),
    })
    .await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let sized = ask(&door, "GET /LiveApp/sized", &[], "").await;
    assert_eq!((status(&sized), body(&sized)), (200, "hello"), "and then the close, 5 bytes early");
    let chunked = ask(&door, "GET /LiveApp/chunked-answer", &[], "").await;
    assert!(body(&chunked).contains("hello") && !chunked.ends_with("0\r\n\r\n"), "{chunked}");
    assert_eq!(door.metric("forebay_http_failures_total{cause=\"body_lost\"}").await, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_costs_a_fetch_nothing_and_a_change_is_never_made_twice() {
    let mut dead = Node::start(|_| ok("dead")).await;
    let dies = Node::start(|_| Reply::Close(Vec::new())).await;
    let lives = Node::start(|_| ok("lives")).await;
    let tables = [dead.table("origin-1", "both"), dies.table("origin-2", "both"), lives.table("origin-3", "both")];
    dead.stop().await;
    let door = door(&tables, "[http]\nexpose_rest = true\n").await;
    for file in 0..6 {
        let answer = ask(&door, &format!("GET /LiveApp/streams/s{file}.m3u8"), &[], "").await;
        assert_eq!((status(&answer), body(&answer)), (200, "lives"), "{file}");
    }
    let before = dies.seen().len();
    let mut lost = 0;
    for _ in 0..12 {
        let answer = ask(&door, "POST /LiveApp/rest/v2/broadcasts/create", &["Content-Length: 3"], "abc").await;
        assert!([200, 502].contains(&status(&answer)), "{answer}");
        lost += usize::from(status(&answer) == 502);
    }
    let posts = dies.seen().iter().skip(before).filter(|seen| seen.line().starts_with("POST")).count();
    let made = lives.seen().iter().filter(|seen| seen.line().starts_with("POST")).count();
    assert_eq!((posts, made), (lost, 12 - lost), "each reached one node, once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_node_has_ended_is_no_trouble_for_anybody() {
    // Each connection answers once and is gone, without having said so.
    let node = Node::start(|_| Reply::Close("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx".into())).await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    for turn in 0..20 {
        let answer = ask(&door, "GET /LiveApp/a", &[], "").await;
        assert_eq!(status(&answer), 200, "{turn}: {answer}");
    }
    assert_eq!(door.node("edge-1").await["state"], "serving");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_is_a_504_or_an_aborted_body_after_its_time() {
    let node = Node::start(|seen| match seen.line() {
        line if line.contains("never") => Reply::Stall(Vec::new()),
        _ => Reply::Stall("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".into()),
    })
    .await;
    let door = door(&[node.table("edge-1", "edge")], "[http]\nfirst_byte = \"300ms\"\nidle = \"1s\"\n").await;
    let begun = Instant::now();
    let never = ask(&door, "GET /LiveApp/never", &[], "").await;
    assert_eq!(status(&never), 504, "{never}");
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let half = ask(&door, "GET /LiveApp/half", &[], "").await;
    assert_eq!((status(&half), body(&half)), (200, "hello"));
    node.until_closed().await;
    assert_eq!(door.metric("forebay_http_failures_total{cause=\"first_byte\"}").await, Some(1.0));
    assert_eq!(door.metric("forebay_http_failures_total{cause=\"body_idle\"}").await, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_bound_is_a_413_whether_it_says_so_or_not() {
    let node = Node::start(|_| ok("x")).await;
    let tables = [node.table("both-1", "both")];
    let door = door(&tables, "[http]\nexpose_rest = true\nmax_request_body = \"1KiB\"\n").await;
    let post = "POST /LiveApp/rest/v2/broadcasts/create";
    let told = ask(&door, post, &["Content-Length: 2000"], "").await;
    assert_eq!(status(&told), 413, "{told}");
    assert!(node.seen().is_empty());
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2000));
    let untold = ask(&door, post, &["Transfer-Encoding: chunked"], &chunk).await;
    assert_eq!(status(&untold), 413, "{untold}");
    let fits = ask(&door, post, &["Content-Length: 1024"], &"x".repeat(1024)).await;
    assert_eq!(status(&fits), 200, "{fits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_send_its_body_is_a_408_and_gives_the_node_back() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true\nidle = \"1s\"\n").await;
    let mut client = Client::connect(&door).await;
    client.send("POST /LiveApp/rest/v2/broadcasts/create HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(status(&client.rest().await), 408);
    node.until_closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_holds_back_the_node_and_is_ended_without_hurting_others() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let node = Node::start(move |seen| match seen.line() {
        line if line.contains("endless") => {
            count.fetch_add(1, Ordering::SeqCst);
            let piece = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            Reply::Flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), piece)
        }
        _ => ok("fine"),
    })
    .await;
    let mut door = door(&[node.table("edge-1", "edge")], "[http]\nclient_idle = \"1s\"\nkeep_idle = \"1s\"\n").await;
    let before = door.resident_mib();
    let mut slow = Client::connect(&door).await;
    slow.send("GET /LiveApp/endless HTTP/1.1\r\nHost: a\r\n\r\n").await.until("xxxx").await;
    node.until_seen(1).await;
    for _ in 0..5 {
        assert_eq!(body(&ask(&door, "GET /LiveApp/a", &[], "").await), "fine");
    }
    node.until_closed().await;
    let grown = door.resident_mib() - before;
    assert!(grown < 16.0, "the door kept {grown} MiB of what nobody reads");
    assert_eq!(door.metric("forebay_http_failures_total{cause=\"client_idle\"}").await, None, "he never came back");
    drop(slow);
    door.process().signal("TERM");
}
