//! What passes, and where to.

use super::{Client, Node, Reply, ask, body, door, header, ok, status};
use crate::support::cluster::eventually;

/// Nodes that say their names.
async fn named(name: &'static str) -> Node {
    Node::start(move |_| ok(name)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sees_the_client_as_the_door_knows_it_and_the_client_sees_no_node() {
    let node = Node::start(|_| {
        let head = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:5080/LiveApp/next?a=b\r\nKeep-Alive: timeout=20\r\nConnection: keep-alive, x-inside\r\nX-Inside: 1\r\nX-Outside: 1\r\nContent-Length: 2\r\n\r\nhi";
        Reply::Keep(head.into())
    })
    .await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let headers = [
        "X-Real-IP: 127.0.0.9",
        "X-Forwarded-For: 127.0.0.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
        "Forwarded: for=127.0.0.9",
        "ClusterAuthorization: jwt",
        "ProxyAuthorization: jwt",
        "Range: bytes=0-1",
        "If-None-Match: \"x\"",
        "Cookie: JSESSIONID=1",
    ];
    let answer = ask(&door, "GET /LiveApp//./play.html?id=s&token=abc", &headers, "").await;
    let seen = node.only();
    assert_eq!(seen.line(), "GET /LiveApp/play.html?id=s&token=abc HTTP/1.1");
    for (name, value) in [
        ("Host", Some("tv.example")),
        ("X-Real-IP", Some("127.0.0.1")),
        ("X-Forwarded-For", Some("127.0.0.1")),
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-Host", Some("tv.example")),
        ("Range", Some("bytes=0-1")),
        ("If-None-Match", Some("\"x\"")),
        ("Cookie", Some("JSESSIONID=1")),
        ("Forwarded", None),
        ("ClusterAuthorization", None),
        ("ProxyAuthorization", None),
        ("Connection", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!((status(&answer), body(&answer)), (302, "hi"));
    assert_eq!(header(&answer, "Location"), Some("/LiveApp/next?a=b"), "the node's own address stays inside");
    assert_eq!((header(&answer, "Keep-Alive"), header(&answer, "X-Inside")), (None, None));
    assert_eq!(header(&answer, "X-Outside"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn head_ranges_and_conditions_keep_their_meaning() {
    let node = Node::start(|seen| {
        let answer = match seen.line() {
            line if line.starts_with("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            _ if seen.header("Range").is_some() => {
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/10\r\nContent-Length: 2\r\n\r\n23"
            }
            _ => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        };
        Reply::Keep(answer.into())
    })
    .await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let path = "/LiveApp/streams/s000000001.ts";
    let headed = ask(&door, &format!("HEAD {path}"), &[], "").await;
    assert_eq!((status(&headed), header(&headed, "Content-Length"), body(&headed)), (200, Some("1000"), ""));
    let part = ask(&door, &format!("GET {path}"), &["Range: bytes=2-3"], "").await;
    assert_eq!((status(&part), header(&part, "Content-Range"), body(&part)), (206, Some("bytes 2-3/10"), "23"));
    let same = ask(&door, &format!("GET {path}"), &["If-None-Match: \"x\""], "").await;
    assert_eq!((status(&same), header(&same, "ETag"), body(&same)), (304, Some("\"x\""), ""));
    let connections: Vec<usize> = node.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 0], "one connection served all three");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_with_their_trailers() {
    let node = Node::start(|_| {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n";
        Reply::Keep(chunked.into())
    })
    .await;
    let door = door(&[node.table("both-1", "both")], "[http]\nexpose_rest = true").await;
    let mut client = Client::connect(&door).await;
    client
        .send("POST /LiveApp/rest/v2/broadcasts/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\nTE: trailers\r\n\r\n")
        .await;
    assert_eq!(client.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n", "the door asks for the body itself");
    client.send("3\r\nabc\r\n").await.send("0\r\n\r\n").await;
    let answer = client.until("x-sum: 7\r\n\r\n").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("5\r\nhello\r\n0\r\nx-sum: 7\r\n"), "{answer}");
    let seen = node.only();
    assert_eq!(
        (seen.header("Expect"), seen.header("TE"), seen.header("Content-Length")),
        (None, Some("trailers"), None)
    );
    assert_eq!(seen.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(seen.body, b"3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_gets_its_answer_by_the_close() {
    let node = Node::start(|_| {
        Reply::Keep("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into())
    })
    .await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let answer = Client::connect(&door).await.send("GET /LiveApp/ HTTP/1.0\r\n\r\n").await.rest().await;
    assert_eq!((status(&answer), body(&answer)), (200, "hello"));
    assert_eq!((header(&answer, "Transfer-Encoding"), header(&answer, "Content-Length")), (None, None));
    let seen = node.only();
    assert!(seen.line().ends_with("HTTP/1.1") && seen.header("Host").is_some(), "{}", seen.head);
    assert_eq!(seen.header("X-Forwarded-Host"), None, "it named none");
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_is_closed_unless_opened_and_then_calls_go_where_they_belong() {
    let (origin, edge) = (named("origin").await, named("edge").await);
    let tables = [origin.table("origin-1", "origin"), edge.table("edge-1", "edge")];
    let closed = door(&tables, "").await;
    assert_eq!(status(&ask(&closed, "GET /LiveApp/rest/v2/version", &[], "").await), 404);
    let open = door(&tables, "[http]\nexpose_rest = true").await;
    let call = async |line: &str| {
        let answer = ask(&open, line, &["Content-Length: 0"], "").await;
        (status(&answer), body(&answer).to_owned())
    };
    let at = |name: &str| (200, name.to_owned());
    assert_eq!(call("GET /LiveApp/rest/v2/broadcasts/s").await, at("edge"));
    assert_eq!(call("POST /LiveApp/rest/v2/broadcasts/create").await, at("origin"));
    assert_eq!(call("DELETE /LiveApp/rest/v2/broadcasts/s").await, at("origin"));
    assert_eq!(call("POST /LiveApp/rest/v2/broadcasts/s/stop").await, at("origin"));
    assert_eq!(call("TRACE /LiveApp/rest/v2/version").await.0, 405);
    for never in ["/LiveApp/rest/cluster-communication/x", "/LiveApp/%72est/Cluster-Communication", "/rest/v2/version"]
    {
        assert_eq!(call(&format!("POST {never}")).await.0, 404, "{never}");
    }
    assert_eq!(call("GET /LiveApp/index.html").await, at("edge"), "pages too");
    assert_eq!(call("POST /LiveApp/streams/s.m3u8").await.0, 405);
    assert_eq!(call("GET /NoApp/index.html").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_stays_with_his_edge_until_it_dies_and_a_cookie_finds_it_from_anywhere() {
    let mut nodes = [named("edge-1").await, named("edge-2").await, named("edge-3").await];
    let names = ["edge-1", "edge-2", "edge-3"];
    let tables: Vec<String> = nodes.iter().zip(names).map(|(node, name)| node.table(name, "edge")).collect();
    let (here, there) = (door(&tables, "").await, door(&tables, "").await);
    let agent = "User-Agent: player/1";
    let first = ask(&here, "GET /LiveApp/streams/cam.m3u8", &[agent], "").await;
    let edge = body(&first).to_owned();
    let cookie = header(&first, "Set-Cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("forebay=") && cookie.contains("Path=/LiveApp; HttpOnly; SameSite=Lax"), "{cookie}");
    for file in ["cam000000001.ts", "cam-20260101.ts", "cam_360p800kbps.m3u8", "cam.m3u8"] {
        let answer = ask(&here, &format!("GET /LiveApp/streams/{file}"), &[agent], "").await;
        assert_eq!(body(&answer), edge, "{file}");
    }
    assert_eq!(here.legs("play").await.values().sum::<u64>(), 1, "one viewer of one stream is one play");

    let cookie = format!("Cookie: {}", cookie.split(';').next().unwrap());
    for other in ["dog", "cat", "cow", "hen"] {
        let line = format!("GET /LiveApp/streams/{other}.m3u8");
        let answer = ask(&there, &line, &["User-Agent: player/2", &cookie], "").await;
        assert_eq!(body(&answer), edge, "{other}: whatever he watches, at whichever door");
        assert_eq!(header(&answer, "Set-Cookie"), None, "he has it");
    }

    let at = names.iter().position(|name| *name == edge).unwrap();
    nodes[at].stop().await;
    let answer = ask(&here, "GET /LiveApp/streams/cam000000002.ts", &[agent], "").await;
    let next = body(&answer).to_owned();
    assert!(status(&answer) == 200 && next != edge, "{answer}");
    let again = ask(&here, "GET /LiveApp/streams/cam000000003.ts", &[agent], "").await;
    assert_eq!(body(&again), next, "and stays there");
    let answer = ask(&there, "GET /LiveApp/streams/cam.m3u8", &["User-Agent: player/2", &cookie], "").await;
    assert_eq!(body(&answer), next, "every door orders the edges alike");
    assert!(header(&answer, "Set-Cookie").is_some(), "his cookie names a node that is gone");
    let plays = |legs: std::collections::BTreeMap<String, u64>| legs.get(&edge).copied().unwrap_or(0);
    eventually("the dead edge has lost its plays", async || plays(here.legs("play").await) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_of_one_stream_share_an_edge() {
    let nodes = [named("edge-1").await, named("edge-2").await];
    let tables = [nodes[0].table("edge-1", "edge"), nodes[1].table("edge-2", "edge")];
    let door = door(&tables, "").await;
    let mut edges = std::collections::BTreeSet::new();
    for viewer in 0..8 {
        let agent = format!("User-Agent: player/{viewer}");
        edges.insert(body(&ask(&door, "GET /LiveApp/streams/cam.m3u8", &[&agent], "").await).to_owned());
    }
    assert_eq!(edges.len(), 1, "{edges:?}");
    assert_eq!(door.legs("play").await.values().sum::<u64>(), 8);
}
