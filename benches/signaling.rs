//! Decoding a message, and the session that passes it on: the pure part of a signalling round trip.
//!
//! `cargo bench --bench signaling`

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::domain::{
    ids::{NodeId, SessionId},
    session::{Input, Output, Placed, Session, SessionSettings},
    signaling::{Text, decode_client, decode_node, ice_server_config},
};

/// A candidate of 200 bytes, which is what most messages are.
fn candidate() -> Text {
    let head =
        r#"{"command":"takeCandidate","streamId":"bench-000001","label":0,"id":"0","candidate":"candidate:1 1 udp "#;
    filled(head.to_owned(), 200)
}

/// An offer of 7 kB, escaped as JSON has it.
fn offer() -> Text {
    let mut text = r#"{"command":"takeConfiguration","streamId":"bench-000001","type":"offer","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:EEtu\r\n"#.to_owned();
    while text.len() < 6900 {
        text.push_str(r"a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n");
    }
    filled(text, 7000)
}

fn filled(mut text: String, len: usize) -> Text {
    text.extend(std::iter::repeat_n('x', len - text.len() - 2));
    text.push_str("\"}");
    Text::from(text)
}

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, text) in [("200 B", candidate()), ("SDP of 7 kB", offer())] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("client, {name}"), |b| b.iter(|| decode_client(black_box(&text))));
        group.bench_function(format!("node, {name}"), |b| b.iter(|| decode_node(black_box(&text))));
    }
}

/// A session whose publish is live on `node`.
fn live_session(node: &NodeId, now: Instant) -> Session {
    let settings = SessionSettings {
        give_up: Duration::from_millis(2700),
        attempt: Duration::from_millis(1200),
        confirm: Duration::from_secs(8),
        max_to_node: 80 * 1024,
        max_legs: 64,
        messages_per_second: u32::MAX,
        with_publisher: true,
        ice_servers: ice_server_config("", "", ""),
        relay: None,
    };
    let mut session = Session::new(Arc::new(settings), SessionId(1), now);
    session.handle(Input::Client(Text::from_static(r#"{"command":"publish","streamId":"bench-000001"}"#)), now);
    let ticket = std::iter::from_fn(|| session.poll_output()).find_map(|output| match output {
        Output::Place(ticket, _) => Some(ticket),
        _ => None,
    });
    let placed = Placed { node: node.clone(), address: [127, 0, 0, 1].into(), origin: None };
    session.handle(Input::Placed { ticket: ticket.expect("a publish is placed"), result: Ok(placed) }, now);
    session.handle(Input::LinkUp(node.clone()), now);
    session
        .handle(Input::Node(node.clone(), Text::from_static(r#"{"command":"start","streamId":"bench-000001"}"#)), now);
    session.handle(
        Input::Node(
            node.clone(),
            Text::from_static(r#"{"command":"notification","definition":"publish_started","streamId":"bench-000001"}"#),
        ),
        now,
    );
    while session.poll_output().is_some() {}
    session
}

fn forwarding(c: &mut Criterion) {
    let mut group = c.benchmark_group("forward 200 B");
    let node: NodeId = "origin-1".parse().expect("a legal name");
    let (now, text) = (Instant::now(), candidate());
    let mut session = live_session(&node, now);
    group.bench_function("client to node", |b| {
        b.iter(|| {
            session.handle(Input::Client(black_box(&text).clone()), now);
            let output = session.poll_output();
            assert!(matches!(output, Some(Output::ToNode(..))));
            (output, session.poll_timeout())
        });
    });
    group.bench_function("node to client", |b| {
        b.iter(|| {
            session.handle(Input::Node(node.clone(), black_box(&text).clone()), now);
            let output = session.poll_output();
            assert!(matches!(output, Some(Output::ToClient(..))));
            (output, session.poll_timeout())
        });
    });
}

criterion_group!(benches, decoding, forwarding);
criterion_main!(benches);
