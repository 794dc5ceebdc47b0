//! What clients send to be understood differently by the door and by a node.

use super::{Client, Node, ask, door, ok, status};

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_readers_could_frame_differently_are_refused_or_made_plain() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true").await;
    let post = "POST /LiveApp/rest/v2/broadcasts/create HTTP/1.1\r\nHost: a\r\n";
    for (what, request) in [
        ("two lengths", format!("{post}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")),
        ("a list of lengths", format!("{post}Content-Length: 3, 4\r\n\r\nabcd")),
        ("a signed length", format!("{post}Content-Length: +3\r\n\r\nabc")),
        ("no length", format!("{post}Content-Length: x\r\n\r\nabc")),
        ("chunked not last", format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n")),
        ("chunked in HTTP/1.0", post.replace("HTTP/1.1", "HTTP/1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a space before the colon", format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("a folded header", format!("{post}X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n")),
        ("a NUL in a header", format!("{post}X-A: 1\0\r\n\r\n")),
        ("a bare CR in a header", format!("{post}X-A: 1\rX-B: 2\r\n\r\n")),
        ("no Host", post.replace("Host: a\r\n", "") + "\r\n"),
        ("two Hosts", format!("{post}Host: b\r\n\r\n")),
        ("a Host with a path", post.replace("Host: a", "Host: a/b") + "\r\n"),
        ("an encoded slash", "GET /LiveApp/a%2frest/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a backslash", "GET /LiveApp/a\\rest/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("above the root", "GET /LiveApp/../../x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("a NUL in the path", "GET /LiveApp/a%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let mut client = Client::connect(&door).await;
        let answer = client.send(&request).await.until("\r\n\r\n").await;
        assert_eq!(status(&answer), 400, "{what}: {answer}");
    }
    let gzip = format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(status(&Client::connect(&door).await.send(gzip).await.until("\r\n\r\n").await), 501);
    assert!(node.seen().is_empty(), "nothing of it reached the node: {:?}", node.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_beside_a_length_reaches_the_node_as_one_plain_request_and_ends_the_connection() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true").await;
    let smuggled = "GET /LiveApp/rest/v2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (first, second) in
        [("Content-Length: 5", "Transfer-Encoding: chunked"), ("Transfer-Encoding: chunked", "Content-Length: 5")]
    {
        let before = node.seen().len();
        let request = format!(
            "POST /LiveApp/rest/v2/broadcasts/create HTTP/1.1\r\nHost: a\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let answer = Client::connect(&door).await.send(request).await.rest().await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer, then the end: {answer}");
        let seen = node.seen();
        assert_eq!(seen.len(), before + 1, "{seen:?}");
        let seen = seen.last().unwrap();
        let (length, coding) = (seen.header("Content-Length"), seen.header("Transfer-Encoding"));
        assert!(length.is_some() != coding.is_some(), "one framing and no other: {}", seen.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_body_is_the_next_request_for_the_door_too() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true").await;
    let body = "GET /LiveApp/rest/v2/inner HTTP/1.1\r\nHost: a\r\n\r\n";
    let request = format!(
        "GET /LiveApp/rest/v2/outer HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}GET /LiveApp/rest/v2/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        body.len()
    );
    Client::connect(&door).await.send(request).await.rest().await;
    let lines: Vec<String> = node.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines, ["GET /LiveApp/rest/v2/outer HTTP/1.1", "GET /LiveApp/rest/v2/next HTTP/1.1"]);
    assert_eq!(node.seen()[0].body, body.as_bytes(), "a body stays a body");

    let chunked = format!(
        "GET /LiveApp/rest/v2/chunky HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    Client::connect(&door).await.send(chunked).await.rest().await;
    let seen = node.seen();
    assert_eq!((seen.len(), seen[2].header("Transfer-Encoding")), (3, Some("chunked")), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_chunks_end_the_request_at_the_node_too() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true").await;
    for broken in
        ["zz\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-3\r\nabc\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"]
    {
        let head = "POST /LiveApp/rest/v2/broadcasts/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let answer = Client::connect(&door).await.send(format!("{head}{broken}")).await.rest().await;
        assert_eq!(status(&answer), 400, "{broken:?}: {answer}");
    }
    let whole = node.seen().iter().filter(|seen| seen.body.ends_with(b"0\r\n\r\n")).count();
    assert_eq!(whole, 0, "no node took one of them for a whole request");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_name_the_doors_own_headers_away() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let headers = ["Connection: X-Real-IP, X-Forwarded-For, Host, X-Forwarded-Proto", "X-Real-IP: 127.0.0.9"];
    ask(&door, "GET /LiveApp/", &headers, "").await;
    let seen = node.only();
    assert_eq!((seen.header("X-Real-IP"), seen.header("X-Forwarded-For")), (Some("127.0.0.1"), Some("127.0.0.1")));
    assert_eq!((seen.header("Host"), seen.header("X-Forwarded-Proto")), (Some("tv.example"), Some("http")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_is_sent_on_in_origin_form_for_its_own_host() {
    let node = Node::start(|_| ok("x")).await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    ask(&door, "GET http://other.example/LiveApp/a?b", &["Host: tv.example"], "").await;
    let seen = node.only();
    assert_eq!(seen.line(), "GET /LiveApp/a?b HTTP/1.1");
    assert_eq!(seen.header("Host"), Some("other.example"));
}
