//! Sessions' stories as traces, as a collector of OpenTelemetry gets them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::support::{
    ams_client::{Plan, Socket},
    cluster::Door,
    webrtc_peer,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_is_a_trace_at_the_collector() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = format!("[telemetry]\notlp_endpoint = \"http://{}\"\n", collector.local_addr().unwrap());
    let nodes = "[[nodes.static]]\nname = \"o1\"\naddress = \"127.0.0.1:9\"\nrole = \"origin\"\n";
    let door = Door::serve(&format!("{tables}{nodes}"), &[]).await;
    let client = Socket::open(&door.url()).await.unwrap();
    client.begin(Plan::publish("s"), webrtc_peer::stack);
    client.until_message("nobody takes it", |message| message["command"] == "error").await;
    client.close();

    let body = timeout(Duration::from_secs(20), request(&collector)).await.expect("the trace comes");
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let (session, leg) = (&spans[0], &spans[1]);
    assert_eq!((&session["name"], &leg["name"]), (&json!("session"), &json!("publish")), "{body}");
    assert_eq!((&leg["parentSpanId"], &leg["traceId"]), (&session["spanId"], &session["traceId"]));
    let names: Vec<&str> = leg["events"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["command", "placement"]) && names.contains(&"link_lost"), "{names:?}");
    assert!(!body.to_string().contains("127.0.0.1"), "no client's address");
}

/// The body of the next request.
async fn request(collector: &TcpListener) -> Value {
    let (mut stream, _) = collector.accept().await.unwrap();
    let mut read = Vec::new();
    loop {
        stream.read_buf(&mut read).await.unwrap();
        let text = String::from_utf8_lossy(&read);
        let body = text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok());
        if let Some(body) = body {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            return body;
        }
    }
}
