//! WebSockets that are not signalling.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, handshake::derive_accept_key, http::HeaderValue},
};

use super::{Client, Node, Reply, door, ok, status};
use crate::support::cluster::{Door, eventually};

/// A node that takes any WebSocket and says back what it hears, frame for frame. What a client masks it would have to
/// unmask, so the test's client speaks raw bytes behind the handshake.
async fn echoing() -> Node {
    Node::start(|seen| match seen.header("Sec-WebSocket-Key") {
        Some(key) => Reply::Echo(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\nX-Node: 1\r\n\r\n",
                derive_accept_key(key.as_bytes())
            )
            .into_bytes(),
        ),
        None => ok("page"),
    })
    .await
}

const UPGRADE: &str = "GET /LiveApp/chat?room=1 HTTP/1.1\r\nHost: tv.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: chat\r\nX-Real-IP: 127.0.0.9\r\n\r\n";

async fn open(door: &Door) -> (Client, String) {
    let mut client = Client::connect(door).await;
    let answer = client.send(UPGRADE).await.until("\r\n\r\n").await;
    (client, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_of_an_app_passes_byte_for_byte_until_either_side_ends_it() {
    let node = echoing().await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let (mut client, answer) = open(&door).await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert!(answer.contains("ICX+Yqv66kxgM0FcWaLWlFLwTAI="), "the node's own handshake: {answer}");
    client.send("any bytes \u{1}\u{2}, not even frames").await.until("not even frames").await;
    let seen = node.only();
    assert_eq!(seen.line(), "GET /LiveApp/chat?room=1 HTTP/1.1");
    assert_eq!(seen.header("Sec-WebSocket-Protocol"), Some("chat"));
    assert_eq!((seen.header("X-Real-IP"), seen.header("Host")), (Some("127.0.0.1"), Some("tv.example")));
    assert_eq!(door.metric("forebay_http_tunnels").await, Some(1.0));
    drop(client);
    node.until_closed().await;
    eventually("the tunnel is over", async || door.metric("forebay_http_tunnels").await == Some(0.0)).await;
    eventually("its line is written", async || door.log().contains("status=101")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_are_bounded_in_number_and_in_silence() {
    let node = echoing().await;
    let tables = [node.table("edge-1", "edge")];
    let door = door(&tables, "[http]\ntunnels = 1\ntunnel_idle = \"1s\"\n").await;
    let (mut first, answer) = open(&door).await;
    assert_eq!(status(&answer), 101);
    let (_, refused) = open(&door).await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert_eq!(first.rest().await, "", "silent for too long");
    eventually("a place is free again", async || status(&open(&door).await.1) == 101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_answers_instead_of_switching_reaches_the_client() {
    let node = Node::start(|_| Reply::Keep(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone".to_vec())).await;
    let door = door(&[node.table("edge-1", "edge")], "").await;
    let (_, answer) = open(&door).await;
    assert_eq!(status(&answer), 404, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_origins_and_paths_that_are_not_for_the_public_get_no_tunnel() {
    let node = echoing().await;
    let tables = [node.table("edge-1", "edge")];
    let door = door(&tables, "[apps.Picky]\norigins = [\"https://tv.example\"]\n").await;
    let try_open = async |path: &str, origin: &str| {
        let stream = TcpStream::connect(door.http()).await.unwrap();
        let mut request = format!("ws://tv.example{path}").into_client_request().unwrap();
        request.headers_mut().insert("Origin", HeaderValue::from_str(origin).unwrap());
        match client_async(request, stream).await {
            Ok((mut socket, _)) => {
                socket.send(Message::Close(None)).await.unwrap();
                let _ = socket.next().await;
                101
            }
            Err(Error::Http(answer)) => answer.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(try_open("/Picky/chat", "https://tv.example").await, 101);
    assert_eq!(try_open("/Picky/chat", "https://evil.example").await, 403);
    assert_eq!(try_open("/LiveApp/chat", "https://evil.example").await, 101);
    assert_eq!(try_open("/LiveApp/websocket/signaling", "https://tv.example").await, 404);
    assert_eq!(try_open("/NoApp/chat", "https://tv.example").await, 404);
}
