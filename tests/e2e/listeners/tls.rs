//! TLS: certificates by name, reloads that drop nobody, handshakes that are none.

use std::{fs, sync::Arc, time::Duration};

use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    cluster::eventually,
    front::{
        FrontDoor, Identity, any_client, client, exchange, files, ping, put, read_all, shake_hands, shown, tls,
        websocket,
    },
    mongod::TempDir,
    process::run,
};

const REFUSED: &str = "forebay_tls_reloads_total{result=\"refused\"}";
const LOADED: &str = "forebay_tls_reloads_total{result=\"loaded\"}";

/// A door with one listener for TLS and certificates for `live.example` and `*.tv.example`.
async fn two_hosts(limits: &str) -> (FrontDoor, Identity, Identity) {
    let dir = TempDir::new("tls");
    let (live, tv) = (Identity::new(&["live.example"], 2090), Identity::new(&["*.tv.example"], 2080));
    let (one, two) = (live.write(dir.path(), "live"), tv.write(dir.path(), "tv"));
    let tables = format!("[tls]\ncertificates = [{one}, {two}]\n[limits]\n{limits}\n");
    (FrontDoor::serve(dir, &["tls = true"], &tables).await, live, tv)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_host_gets_its_certificate_and_any_other_the_first() {
    let (door, live, tv) = two_hosts("").await;
    let any = any_client(&["http/1.1"]);
    for (name, expected) in [
        ("live.example", &live),
        ("LIVE.example", &live),
        ("a.tv.example", &tv),
        ("a.b.tv.example", &live),
        ("tv.example", &live),
        ("stranger.example", &live),
        ("127.0.0.1", &live),
    ] {
        let stream = tls(door.at[0], name, &any).await.unwrap();
        assert!(shown(&stream) == expected.der, "{name}");
    }
    assert_eq!(door.metric("forebay_tls_unknown_names_total").await, Some(3.0), "an address is no name");
    let expiry = door.metric("forebay_tls_certificate_expiry_timestamp_seconds").await.unwrap();
    assert!((3.5e9..3.53e9).contains(&expiry), "the end of 2080: {expiry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_over_either_version_and_a_client_may_resume() {
    let (door, ..) = two_hosts("").await;
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(client(&[version], &["http/1.1"]));
        let stream = tls(door.at[0], "live.example", &client).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let mut socket = websocket(stream).await;
        ping(&mut socket).await;
        let again = tls(door.at[0], "live.example", &client).await.unwrap();
        assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        ping(&mut socket).await;
    }
    assert_eq!(door.metric("forebay_tls_handshakes_total{kind=\"resumed\"}").await, Some(2.0));
    door.until_metric("forebay_connections_open", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_version_is_refused_where_the_least_is_newer() {
    let dir = TempDir::new("tls");
    let entry = Identity::new(&["live.example"], 2090).write(dir.path(), "live");
    let tables = format!("[tls]\nmin_version = \"1.3\"\ncertificates = [{entry}]\n");
    let door = FrontDoor::serve(dir, &["tls = true"], &tables).await;
    let old = Arc::new(client(&[&TLS12], &[]));
    assert!(tls(door.at[0], "live.example", &old).await.is_err());
    assert!(tls(door.at[0], "live.example", &any_client(&[])).await.is_ok());
    door.until_ended_for("bad_tls", 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_are_none_or_never_end_harm_nobody() {
    let (door, ..) = two_hosts("header_timeout = \"400ms\"").await;
    let at = door.at[0];
    let mut socket = websocket(tls(at, "live.example", &any_client(&["http/1.1"])).await.unwrap()).await;
    for bytes in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"\x16\x03\x01\xff\xff\x01\x00\x00",
        b"\x16\x00\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    ] {
        exchange(at, bytes).await;
    }
    // Half a record, then nothing.
    let mut half = TcpStream::connect(at).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    read_all(&mut half).await;
    // No byte at all.
    let mut silent = TcpStream::connect(at).await.unwrap();
    assert!(read_all(&mut silent).await.is_empty());
    // One byte after the other: each is progress, the whole is not.
    let mut slow = TcpStream::connect(at).await.unwrap();
    slow.write_all(b"\x16").await.unwrap();
    let (mut from, mut to) = slow.split();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if to.write_all(b"\x03").await.is_err() {
                break std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = drip => {}
        _ = read_all(&mut from) => {}
    }
    door.until_ended_for("bad_tls", 2.0).await;
    door.until_ended_for("slow_tls", 1.0).await;
    door.until_ended_for("silent", 1.0).await;
    ping(&mut socket).await;
    assert!(!door.log().contains("panicked"), "{}", door.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_a_port_for_tls_is_told_so_and_may_ask_for_health() {
    let (door, ..) = two_hosts("").await;
    let answer = exchange(door.at[0], b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let answer = exchange(door.at[0], b"GET /LiveApp/websocket HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("TLS"), "{answer}");
    assert!((door.ended_for("not_tls").await - 1.0).abs() < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_taken_without_dropping_anyone() {
    let (door, live, _) = two_hosts("").await;
    let any = any_client(&["http/1.1"]);
    let mut socket = websocket(tls(door.at[0], "live.example", &any).await.unwrap()).await;

    let renewed = Identity::new(&["live.example"], 2070);
    renewed.write(door.dir.path(), "live");

    eventually("new connections get the new certificate", async || {
        let stream = tls(door.at[0], "live.example", &any_client(&[])).await.unwrap();
        let now = shown(&stream);
        assert!(now == renewed.der || now == live.der);
        now == renewed.der
    })
    .await;
    ping(&mut socket).await;
    door.until_metric(LOADED, 1.0).await;
    let expiry = door.metric("forebay_tls_certificate_expiry_timestamp_seconds").await.unwrap();
    assert!(expiry < 3.3e9, "the end of 2070: {expiry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_certificate_at_a_reload_leaves_the_old_one_and_says_so() {
    let (door, live, _) = two_hosts("").await;
    let [cert, key] = files(door.dir.path(), "live");
    let expired = Identity::new(&["live.example"], 2021);
    let other = Identity::new(&["live.example"], 2060);
    let steps: [(&str, &dyn Fn()); 6] = [
        ("holds no certificate", &|| put(&cert, "not a certificate")),
        ("does not fit", &|| put(&cert, &other.cert_pem)),
        ("cannot be read", &|| put(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ("No such file", &|| fs::remove_file(&cert).unwrap()),
        ("expired at 2021", &|| drop(expired.write(door.dir.path(), "live"))),
        ("holds no private key", &|| put(&key, "no key")),
    ];
    for (nth, (what, spoil)) in (1u8..).zip(steps) {
        spoil();
        eventually(&format!("the log says that it {what}"), async || door.log().contains(what)).await;
        door.until_metric(REFUSED, nth.into()).await;
        let stream = tls(door.at[0], "live.example", &any_client(&[])).await.unwrap();
        assert!(shown(&stream) == live.der, "{what}");
    }
    assert_eq!(door.metric(LOADED).await, Some(0.0));
    live.write(door.dir.path(), "live");
    door.until_metric(LOADED, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_door_without_its_certificate_does_not_start() {
    let dir = TempDir::new("tls");
    let file = dir.path().join("forebay.toml");
    let [cert, key] = files(dir.path(), "none");
    let text = format!(
        "[[listen]]\nbind = \"127.0.0.1:0\"\ntls = true\n[tls]\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n[apps]\nLiveApp = {{}}\n[[nodes.static]]\naddress = \"127.0.0.1:9\"\n"
    );
    fs::write(&file, text).unwrap();
    for command in ["serve", "check"] {
        let (code, _, error) = run(&[command, "--config", file.to_str().unwrap()]).await;
        assert_eq!(code, Some(78), "{command}: {error}");
        assert!(error.contains("tls.certificates") && error.contains("none.pem"), "{command}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_tls_are_answered_whatever_alpn_the_client_offers() {
    let (door, ..) = two_hosts("").await;
    for alpn in [&[][..], &["http/1.1"], &["http/1.1", "unknown"]] {
        let stream = TcpStream::connect(door.at[0]).await.unwrap();
        let mut stream = shake_hands(stream, "live.example", &any_client(alpn)).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: live.example\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{alpn:?}: {answer}");
    }
    let strange = any_client(&["spdy/3"]);
    assert!(tls(door.at[0], "live.example", &strange).await.is_err(), "nothing in common is no connection");
}
