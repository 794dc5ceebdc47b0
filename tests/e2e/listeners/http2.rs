//! HTTP/2: WebSockets over it (RFC 8441), and clients that abuse it.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http2::{self, SendRequest},
    ext::Protocol,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use crate::support::{
    cluster::PATIENCE,
    front::{FrontDoor, Identity, NotingNode, any_client, ping, tls, websocket},
    mongod::TempDir,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ENHANCE_YOUR_CALM: u32 = 0xb;

async fn door(tables: &str) -> FrontDoor {
    let dir = TempDir::new("http2");
    let entry = Identity::new(&["live.example"], 2090).write(dir.path(), "live");
    let tables = format!("[tls]\ncertificates = [{entry}]\n{tables}\n");
    FrontDoor::serve(dir, &["tls = true"], &tables).await
}

/// A connection of HTTP/2.
struct Client {
    send: SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn open(door: &FrontDoor) -> Self {
        let stream = tls(door.at[0], "live.example", &any_client(&["h2"])).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (send, connection) = builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await.unwrap();
        let mut client = Self { send, connection: tokio::spawn(connection) };
        // Only once the door's settings are here may a WebSocket be asked for.
        assert_eq!(client.get("/healthz").await, StatusCode::OK);
        client
    }

    async fn get(&mut self, path: &str) -> StatusCode {
        let request = Request::get(format!("https://live.example{path}")).body(Empty::new()).unwrap();
        let answer = timeout(PATIENCE, self.send.send_request(request)).await.unwrap().unwrap();
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        status
    }

    async fn connect(&mut self, path: &str, version: &str) -> hyper::Response<hyper::body::Incoming> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("https://live.example{path}"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", version)
            .body(Empty::new())
            .unwrap();
        timeout(PATIENCE, self.send.send_request(request)).await.unwrap().unwrap()
    }

    async fn websocket(&mut self) -> WebSocketStream<TokioIo<Upgraded>> {
        let answer = self.connect("/LiveApp/websocket", "13").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let upgraded = hyper::upgrade::on(answer).await.unwrap();
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_sessions_and_requests_share_one_connection() {
    let mut node = NotingNode::start().await;
    let door = door(&node.table()).await;
    let mut client = Client::open(&door).await;
    let (mut one, mut two) = (client.websocket().await, client.websocket().await);
    ping(&mut one).await;
    assert_eq!(client.get("/livez").await, StatusCode::OK);
    ping(&mut two).await;
    assert_eq!(door.metric("forebay_sessions_open").await, Some(2.0));
    assert_eq!(door.metric("forebay_connections_open").await, Some(1.0));
    // The door may have ended the stream (RST_STREAM with NO_ERROR, RFC 9113 §8.1) before all of it is written.
    let _ = one.close(None).await;
    door.until_metric("forebay_sessions_closed_total{reason=\"client_closed\"}", 1.0).await;
    ping(&mut two).await;
    crate::support::cluster::eventually("the node serves", async || {
        door.admin_get("/v1/nodes").await["nodes"][0]["state"] == "serving"
    })
    .await;
    assert_eq!(node.told_of(&mut two).await, ("127.0.0.1".to_owned(), "https".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_may_not_be_is_refused_and_the_connection_lives_on() {
    let door = door("").await;
    let mut client = Client::open(&door).await;
    assert_eq!(client.connect("/NoSuchApp/websocket", "13").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(client.connect("/LiveApp/websocket", "12").await.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(client.connect("/nothing", "13").await.status(), StatusCode::NOT_FOUND);
    assert!(client.get("/LiveApp/websocket").await.is_client_error());
    assert_eq!(client.get("/healthz").await, StatusCode::OK);
    ping(&mut client.websocket().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_ends_and_one_with_a_session_stays() {
    let door = door("[limits]\nidle_timeout = \"1s\"\nheader_timeout = \"1s\"\n").await;
    let (idle, mut busy) = (Client::open(&door).await, Client::open(&door).await);
    let mut socket = busy.websocket().await;
    let ended = timeout(PATIENCE, idle.connection).await.expect("the door ends it");
    assert!(ended.unwrap().is_ok(), "politely");
    door.until_ended_for("idle", 1.0).await;
    ping(&mut socket).await;
    assert_eq!(busy.get("/healthz").await, StatusCode::OK);
    drop(socket);
    timeout(PATIENCE, busy.connection).await.expect("and now this one").unwrap().unwrap();
}

/// A client that writes frames by hand.
struct Raw(TlsStream<TcpStream>);

impl Raw {
    async fn open(door: &FrontDoor) -> Self {
        let mut stream = tls(door.at[0], "live.example", &any_client(&["h2"])).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        let mut raw = Self(stream);
        raw.send(&frame(4, 0, 0, &[])).await;
        raw
    }

    /// Whether the door still reads.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async { self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok() };
        timeout(PATIENCE, sent).await.unwrap_or(false)
    }

    /// The next frame: type, flags, stream, payload.
    async fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let next = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; size];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
        };
        timeout(PATIENCE, next).await.expect("a frame, or the end")
    }

    /// The reason of the door's GOAWAY; `None` if it closed without.
    async fn went_away(&mut self) -> Option<u32> {
        let mut reason = None;
        while let Some((kind, _, _, payload)) = self.next().await {
            if kind == 7 {
                reason = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
            }
        }
        reason
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![size[1], size[2], size[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET /livez`, with these fields of HPACK behind it.
fn get(more: &[u8]) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, 6];
    block.extend(b"/livez");
    block.extend([0x41, 1, b'x']);
    block.extend_from_slice(more);
    block
}

/// A literal field that is not indexed.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| {
        let size = text.len();
        if size < 127 {
            return vec![u8::try_from(size).unwrap()];
        }
        let (mut bytes, mut rest) = (vec![127], size - 127);
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
        bytes
    };
    [&[0][..], &length(name), name.as_bytes(), &length(value), value.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_says_what_it_allows() {
    let door = door("").await;
    let mut raw = Raw::open(&door).await;
    let (kind, flags, _, payload) = raw.next().await.expect("settings come first");
    assert_eq!((kind, flags), (4, 0));
    let settings: HashMap<u16, u32> = payload
        .chunks_exact(6)
        .map(|at| (u16::from_be_bytes([at[0], at[1]]), u32::from_be_bytes([at[2], at[3], at[4], at[5]])))
        .collect();
    assert_eq!(settings.get(&8), Some(&1), "WebSockets: {settings:?}");
    assert_eq!(settings.get(&3), Some(&256), "streams at a time: {settings:?}");
    assert_eq!(settings.get(&6), Some(&16_384), "bytes of headers: {settings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connection_and_no_other() {
    let door = door("").await;
    let mut other = websocket(tls(door.at[0], "live.example", &any_client(&["http/1.1"])).await.unwrap()).await;
    let mut raw = Raw::open(&door).await;
    let mut stream = 1;
    while stream < 20_000 {
        let mut burst = Vec::new();
        for _ in 0..100 {
            burst.extend(frame(1, 0b101, stream, &get(&[])));
            burst.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
            stream += 2;
        }
        if !raw.send(&burst).await {
            break;
        }
    }
    let reason = raw.went_away().await;
    assert!(reason.is_none_or(|reason| reason == ENHANCE_YOUR_CALM), "{reason:?}");
    door.until_ended_for("bad_http", 1.0).await;
    ping(&mut other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_ends_its_connection_and_no_other() {
    let door = door("").await;
    let mut other = websocket(tls(door.at[0], "live.example", &any_client(&["http/1.1"])).await.unwrap()).await;
    let mut raw = Raw::open(&door).await;
    raw.send(&frame(1, 0b001, 1, &get(&[]))).await;
    let piece = field("x", &"y".repeat(8000));
    let mut sent = 0;
    while sent < 10_000 && raw.send(&frame(9, 0, 1, &piece)).await {
        sent += 1;
    }
    assert!(sent < 10_000, "80 MB of one head were read");
    raw.went_away().await;
    door.until_ended_for("bad_http", 1.0).await;
    ping(&mut other).await;
    assert!(!door.log().contains("panicked"), "{}", door.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_continuations_without_end_are_no_way_to_stay() {
    let door = door("").await;
    let mut raw = Raw::open(&door).await;
    raw.send(&frame(1, 0b001, 1, &get(&[]))).await;
    let flood: Vec<u8> = (0..1000).flat_map(|_| frame(9, 0, 1, &[])).collect();
    let mut bursts = 0;
    while bursts < 1000 && raw.send(&flood).await {
        bursts += 1;
    }
    assert!(bursts < 1000, "a million empty frames were read");
    door.until_ended_for("bad_http", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused_and_the_next_is_not() {
    let door = door("").await;
    let mut raw = Raw::open(&door).await;
    let large = get(&field("x", &"y".repeat(16_000)));
    raw.send(&frame(1, 0b001, 1, &large)).await;
    raw.send(&frame(9, 0b100, 1, &field("z", &"y".repeat(2000)))).await;
    raw.send(&frame(1, 0b101, 3, &get(&[]))).await;
    let (mut refused, mut served) = (false, false);
    while !(refused && served) {
        let (kind, _, stream, payload) = raw.next().await.expect("the connection stays");
        match (kind, stream) {
            // A status of the static table would be 200, 204, 206, 304, 400, 404 or 500: 431 is a literal.
            (1, 1) => refused = payload[0] != 0x88,
            (3, 1) => refused = true,
            (1, 3) => served = payload[0] == 0x88,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http2_ends_at_once() {
    let door = door("[limits]\nheader_timeout = \"500ms\"\n").await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 64], &[PREFACE, &[0xff; 40]].concat()] {
        let mut stream = tls(door.at[0], "live.example", &any_client(&["h2"])).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut raw = Raw(stream);
        raw.went_away().await;
    }
    door.until_ended_for("bad_http", 3.0).await;
    // Half a preface, then nothing.
    let mut stream = tls(door.at[0], "live.example", &any_client(&["h2"])).await.unwrap();
    stream.write_all(&PREFACE[..10]).await.unwrap();
    let begun = std::time::Instant::now();
    Raw(stream).went_away().await;
    assert!(begun.elapsed() > Duration::from_millis(300));
    door.until_ended_for("slow_head", 1.0).await;
}
