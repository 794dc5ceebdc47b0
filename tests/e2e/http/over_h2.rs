//! Clients of HTTP/2 over TLS, and nodes that speak HTTP/1.1 all the same.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, client::conn::http2, ext::Protocol, header::SET_COOKIE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{Node, Reply, ok};
use crate::support::{
    cluster::PATIENCE,
    front::{FrontDoor, Identity, any_client, tls},
    mongod::TempDir,
};

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_websockets_of_http_2_reach_nodes_as_plain_http_1() {
    let node = Node::start(|seen| match seen.header("Sec-WebSocket-Key") {
        Some(_) => Reply::Echo(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nX-Node: 1\r\n\r\n"
                .to_vec(),
        ),
        None => ok("hello"),
    })
    .await;
    let dir = TempDir::new("http2-forward");
    let entry = Identity::new(&["live.example"], 2090).write(dir.path(), "live");
    let tables = format!(
        "[tls]\ncertificates = [{entry}]\n[health]\nprobe_path = \"\"\n[nodes]\nslow_start = \"0s\"\n{}",
        node.table("edge-1", "edge")
    );
    let door = FrontDoor::serve(dir, &["tls = true"], &tables).await;
    let stream = tls(door.at[0], "live.example", &any_client(&["h2"])).await.unwrap();
    let (mut send, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    let request = Request::get("https://live.example/LiveApp/streams/cam.m3u8").body(Empty::<Bytes>::new()).unwrap();
    let answer = timeout(PATIENCE, send.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; SameSite=None; Secure"), "{cookie}");
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    let seen = node.only();
    assert_eq!(seen.line(), "GET /LiveApp/streams/cam.m3u8 HTTP/1.1");
    assert_eq!((seen.header("Host"), seen.header("X-Forwarded-Proto")), (Some("live.example"), Some("https")));

    let request = Request::builder()
        .method(Method::CONNECT)
        .uri("https://live.example/LiveApp/chat")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::new())
        .unwrap();
    let answer = timeout(PATIENCE, send.send_request(request)).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("sec-websocket-accept"), "RFC 8441 has none");
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    tunnel.write_all(b"any bytes").await.unwrap();
    let mut back = [0; 9];
    timeout(PATIENCE, tunnel.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"any bytes");
    let opened = node.until_seen(2).await.pop().unwrap();
    assert_eq!(opened.line(), "GET /LiveApp/chat HTTP/1.1");
    assert_eq!((opened.header("Upgrade"), opened.header("Connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(opened.header("Sec-WebSocket-Key").map(str::len), Some(24));
}
