//! Through the door: `forebay demo` as its user runs it, over real sockets and real WebRTC.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use crate::support::{
    ams_client::{Plan, Socket, Stack},
    process::{Process, http, run},
    str0m_peer, webrtc_peer,
};

const DEMO: [&str; 7] = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_gets_the_stream_that_he_asked_for_and_no_other() {
    let door = Process::start(&DEMO).await;
    let (one, two) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
    let published =
        [one.begin(Plan::publish("red"), webrtc_peer::stack), two.begin(Plan::publish("blue"), webrtc_peer::stack)];
    for leg in &published {
        leg.until_has("publish_started").await;
    }
    let mut viewers = Vec::new();
    for stack in [webrtc_peer::stack as Stack, str0m_peer::stack] {
        // Both plays on one socket: one client, two legs, perhaps two nodes.
        let viewer = Socket::open(&door.url()).await.unwrap();
        let plays = [viewer.begin(Plan::play("red"), stack), viewer.begin(Plan::play("blue"), stack)];
        for (play, publish) in plays.iter().zip(&published) {
            play.until_has("play_started").await;
            play.until_more_video(20).await;
            let marks = play.report().marks;
            assert_eq!(
                marks.into_iter().collect::<Vec<_>>(),
                [publish.stream.as_str()],
                "the right stream on each player"
            );
        }
        viewers.push((viewer, plays));
    }
    let nodes = door.admin_get("/v1/nodes").await;
    let legs = |kind: &str| {
        nodes["nodes"].as_array().unwrap().iter().map(|node| node["legs"][kind].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((legs("publish"), legs("play")), (2, 4), "{nodes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_webrtc_stack_publishes_and_data_passes_both_ways() {
    let door = Process::start(&DEMO).await;
    let (publisher, viewer) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
    let publish = publisher.begin(Plan::publish("s"), str0m_peer::stack);
    publish.until_has("publish_started").await;
    let play = viewer.begin(Plan::play("s"), webrtc_peer::stack);
    play.until_more_video(10).await;
    play.until("the data channel is open", |report| report.data_open).await;
    publish.until("the data channel is open", |report| report.data_open).await;
    publish.send_data("from the publisher");
    play.until("data arrives", |report| report.data.iter().any(|data| data == "from the publisher")).await;
    play.ask_for_key_frame();
    publish.until("the publisher is asked for a key frame", |report| report.key_frame_requests > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_play_before_its_publish_waits_and_one_without_is_refused_in_amss_words() {
    let door = Process::start(&DEMO).await;
    let viewer = Socket::open(&door.url()).await.unwrap();
    let asked = Instant::now();
    let nobody = viewer.begin(Plan::play("nobody"), webrtc_peer::stack);
    let refusal = nobody.until_has("no_stream_exist").await.messages.pop().unwrap();
    assert_eq!((refusal["error_code"].as_str(), refusal["streamId"].as_str()), (Some("404"), Some("nobody")));
    let took = asked.elapsed();
    assert!(
        took >= Duration::from_millis(1900) && took < Duration::from_secs(3),
        "play.wait, inside the watchdog: {took:?}"
    );

    let early = viewer.begin(Plan::play("late"), webrtc_peer::stack);
    let publisher = Socket::open(&door.url()).await.unwrap();
    publisher.begin(Plan::publish("late"), webrtc_peer::stack).until_has("publish_started").await;
    early.until_more_video(5).await;
    assert!(!early.report().has("no_stream_exist"), "the wait was worth it");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_socket_publishes_and_plays_also_under_one_id_and_again_after_a_stop() {
    let door = Process::start(&DEMO).await;
    let socket = Socket::open(&door.url()).await.unwrap();
    let publish = socket.begin(Plan::publish("mine"), webrtc_peer::stack);
    publish.until_has("publish_started").await;
    let play = socket.begin(Plan::play("mine"), webrtc_peer::stack);
    play.until_more_video(10).await;
    socket.say(json!({"command": "ping"}));
    socket.until_message("the door's pong", |message| message["command"] == "pong").await;
    publish.stop();
    publish.until_has("publish_finished").await;
    let again = socket.begin(Plan::publish("mine"), webrtc_peer::stack);
    again.until_has("publish_started").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_client_sends_it_harms_only_itself() {
    let door = Process::start(&DEMO).await;
    let publisher = Socket::open(&door.url()).await.unwrap();
    publisher.begin(Plan::publish("s"), webrtc_peer::stack).until_has("publish_started").await;
    let viewer = Socket::open(&door.url()).await.unwrap();
    let play = viewer.begin(Plan::play("s"), webrtc_peer::stack);
    play.until_more_video(5).await;

    let mut bad = raw(&door).await;
    for (nonsense, definition) in [
        ("not json", "missingParameter"),
        (r#"{"command":7}"#, "missingParameter"),
        (r#"{"command":"play"}"#, "noStreamNameSpecified"),
        (r#"{"command":"play","streamId":"../../etc"}"#, "invalidStreamName"),
        (r#"{"command":"registerOriginServer","linkSession":"x"}"#, "unauthorized_access"),
    ] {
        bad.send(Message::text(nonsense)).await.unwrap();
        assert_eq!(next(&mut bad).await["definition"], definition, "{nonsense}");
    }
    let deep = format!(r#"{{"command":"play","streamId":"s","x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    bad.send(Message::text(deep)).await.unwrap();
    assert_eq!(next(&mut bad).await["definition"], "missingParameter");
    let large = format!(r#"{{"command":"publish","streamId":"big","metaData":"{}"}}"#, "x".repeat(90_000));
    bad.send(Message::text(large)).await.unwrap();
    assert_eq!(next(&mut bad).await["streamId"], "big", "larger than a node takes");

    assert_eq!(close_code(&door, Message::binary(vec![1, 2, 3])).await, 1003);
    assert_eq!(close_code(&door, Message::text("x".repeat(300_000))).await, 1009);
    let mut flood = raw(&door).await;
    for _ in 0..1100 {
        if flood.send(Message::text(r#"{"command":"ping"}"#)).await.is_err() {
            break;
        }
    }
    assert_eq!(closed(&mut flood).await, Some(1008), "a flood ends its sender");
    let mut legs = raw(&door).await;
    for n in 0..70 {
        legs.send(Message::text(format!(r#"{{"command":"publish","streamId":"leg-{n}"}}"#))).await.unwrap();
    }
    let refused = loop {
        let message = next(&mut legs).await;
        if message["command"] == "error" {
            break message;
        }
    };
    assert_eq!(refused["definition"], "highResourceUsage", "legs have a bound too: {refused}");
    play.until_more_video(20).await;
    assert!(!door.log().contains("panicked"), "{}", door.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_http_side_says_plainly_what_it_does_not_do() {
    let door = Process::start(&DEMO).await;
    let status = |answer: String| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let ws = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for (request, expected) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), "200"),
        ("HEAD /livez HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "200"),
        ("POST /healthz HTTP/1.0\r\n\r\n".to_owned(), "405"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("GET /nothing HTTP/1.0\r\n\r\n".to_owned(), "404"),
        ("GET /LiveApp/websocket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), "426"),
        (
            format!("GET /NoSuchApp/websocket HTTP/1.1\r\nHost: x\r\n{ws}\r\n")
                .replace("Connection: Upgrade", "Connection: Upgrade, close"),
            "404",
        ),
        ("GET /rest/v2/liveness HTTP/1.0\r\n\r\n".to_owned(), "404"),
        ("GET /LiveApp/rest/cluster-communication/x HTTP/1.0\r\n\r\n".to_owned(), "404"),
        ("NONSENSE\r\n\r\n".to_owned(), "400"),
    ] {
        assert_eq!(status(http(door.http(), &request).await), expected, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_exit_as_sysexits_say_and_the_demo_ends_within_2_seconds() {
    let mut door = Process::start(&DEMO).await;
    let (code, _, error) =
        run(&["demo", "--listen", door.http(), "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"]).await;
    assert_eq!(code, Some(69), "a taken port: {error}");
    assert!(error.contains(door.http()), "it is named: {error}");
    assert_eq!(run(&["frobnicate"]).await.0, Some(64));
    assert_eq!(run(&["serve", "--config", "/nonexistent.toml"]).await.0, Some(78));
    let (code, version, _) = run(&["--version"]).await;
    assert!(code == Some(0) && version.contains("commit"), "{version}");
    door.signal("TERM");
    assert_eq!(door.ended(Duration::from_secs(2)).await, Some(0));
}

async fn raw(door: &Process) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(door.http()).await.unwrap();
    client_async_with_config(door.url(), stream, Some(WebSocketConfig::default())).await.unwrap().0
}

/// The next text message; pings are answered by the library.
async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    let text = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return text,
                Some(Ok(_)) => {}
                other => panic!("no more messages: {other:?}"),
            }
        }
    });
    serde_json::from_str(&text.await.expect("an answer")).unwrap()
}

async fn close_code(door: &Process, message: Message) -> u16 {
    let mut socket = raw(door).await;
    socket.send(message).await.unwrap();
    closed(&mut socket).await.expect("a close frame")
}

async fn closed(socket: &mut WebSocketStream<TcpStream>) -> Option<u16> {
    let end = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(Some(frame)) = message {
                return Some(frame.code.into());
            }
        }
        None
    };
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the socket ends")
}
