//! Who the client is: PROXY headers and forwarded headers, of peers that are trusted and of others.

use std::net::SocketAddr;

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::support::{
    front::{FrontDoor, Identity, NotingNode, any_client, exchange, ping, read_all, shake_hands, websocket},
    mongod::TempDir,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client at 203.0.113.7:4711, with these TLVs.
fn v2(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = vec![203, 0, 113, 7, 10, 0, 0, 1];
    body.extend(4711u16.to_be_bytes());
    body.extend(443u16.to_be_bytes());
    for (kind, value) in tlvs {
        body.push(*kind);
        body.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value);
    }
    with_head(0x21, 0x11, &body)
}

fn with_head(version: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([version, family]);
    header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    header.extend_from_slice(body);
    header
}

/// `required`, `optional`, and one that trusts nobody here.
async fn three(tables: &str) -> FrontDoor {
    let trusted = "trusted = [\"127.0.0.0/8\"]";
    let [required, optional] = ["required", "optional"].map(|proxy| format!("proxy = \"{proxy}\"\n{trusted}"));
    let stranger = "proxy = \"optional\"\ntrusted = [\"10.0.0.0/8\"]";
    let door = FrontDoor::serve(TempDir::new("proxy"), &[&required, &optional, stranger], tables).await;
    eventually_serving(&door).await;
    door
}

async fn eventually_serving(door: &FrontDoor) {
    crate::support::cluster::eventually("nodes are serving or there are none to wait for", async || {
        let nodes = door.admin_get("/v1/nodes").await;
        nodes["nodes"].as_array().unwrap().iter().all(|node| node["id"] != "only" || node["state"] == "serving")
    })
    .await;
}

async fn connect(at: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_peers_header_says_who_the_client_is() {
    let mut node = NotingNode::start().await;
    let door = three(&node.table()).await;
    for header in [
        b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(),
        b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n".to_vec(),
        v2(&[]),
        v2(&[(0xe1, b"\x02ep-hp33b2e43fays7s8"), (0xee, b"unknown")]),
        v2(&[(0xea, b"\x01vpce-08d2bf15fac5001c9"), (0x04, &[0; 300])]),
    ] {
        for listener in 0..2 {
            let mut socket = websocket(connect(door.at[listener], &header).await).await;
            assert_eq!(node.told_of(&mut socket).await, ("203.0.113.7".to_owned(), "http".to_owned()), "{header:?}");
        }
    }
    let mut secure = websocket(connect(door.at[0], &v2(&[(0x20, &[1, 0, 0, 0, 0])])).await).await;
    assert_eq!(node.told_of(&mut secure).await.1, "https", "the load balancer took the TLS off");
    for own in [&b"PROXY UNKNOWN\r\n"[..], &with_head(0x20, 0, b"")] {
        let mut socket = websocket(connect(door.at[0], own).await).await;
        assert_eq!(node.told_of(&mut socket).await.0, "127.0.0.1", "a connection of the peer itself");
    }
    let mut without = websocket(connect(door.at[1], b"").await).await;
    assert_eq!(node.told_of(&mut without).await.0, "127.0.0.1", "optional");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_in_pieces_is_the_same_header() {
    let mut node = NotingNode::start().await;
    let door = three(&node.table()).await;
    for header in [b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n".to_vec(), v2(&[(0x04, b"padding")])] {
        let mut stream = connect(door.at[1], b"").await;
        for piece in header.chunks(5) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let mut socket = websocket(stream).await;
        assert_eq!(node.told_of(&mut socket).await.0, "203.0.113.7");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_comes_before_tls() {
    let mut node = NotingNode::start().await;
    let dir = TempDir::new("proxy");
    let entry = Identity::new(&["live.example"], 2090).write(dir.path(), "live");
    let tables = format!("[tls]\ncertificates = [{entry}]\n{}", node.table());
    let listen = "tls = true\nproxy = \"required\"\ntrusted = [\"127.0.0.1\"]";
    let door = FrontDoor::serve(dir, &[listen], &tables).await;
    eventually_serving(&door).await;
    let stream = connect(door.at[0], &v2(&[])).await;
    let stream = shake_hands(stream, "live.example", &any_client(&["http/1.1"])).await.unwrap();
    let mut socket = websocket(stream).await;
    assert_eq!(node.told_of(&mut socket).await, ("203.0.113.7".to_owned(), "https".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_header_a_trusted_peer_may_ask_for_health_only() {
    let door = three("").await;
    let required = door.at[0];
    for probe in [
        "HEAD /healthz HTTP/1.0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n",
        "GET /livez HTTP/1.0\r\n\r\n",
    ] {
        let answer = exchange(required, probe.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.") && answer[8..].starts_with(" 200 "), "{probe}: {answer}");
    }
    let answer = exchange(required, b"GET /LiveApp/websocket HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    drop(TcpStream::connect(required).await.unwrap());
    assert!((door.ended_for("no_proxy").await - 1.0).abs() < 0.5, "what connects and closes is no trouble");
    let answer = exchange(door.at[1], b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(door.is_well(2).await, "an untrusted peer of an optional listener is a client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_is_none_ends_its_connection_only() {
    let door = three("[limits]\nheader_timeout = \"500ms\"\n").await;
    let mut good = websocket(connect(door.at[0], &v2(&[])).await).await;
    let too_long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
    let cut_tlv = with_head(0x21, 0x11, &[&[203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2][..], &[0xe1, 0, 9, 1]].concat());
    let bad = [
        b"PROXY TCP4 999.0.0.1 10.0.0.1 1 2\r\n".to_vec(),
        b"PROXY \r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4\r\n".to_vec(),
        b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 1\r\n".to_vec(),
        too_long,
        with_head(0x31, 0x11, &[0; 12]),
        with_head(0x21, 0x11, &[0; 3]),
        with_head(0x21, 0x11, &vec![0; 5000]),
        cut_tlv,
    ];
    for header in &bad {
        let answer = exchange(door.at[0], &[header, &b"GET /healthz HTTP/1.0\r\n\r\n"[..]].concat()).await;
        assert_eq!(answer, "", "{header:?}");
    }
    door.until_ended_for("bad_proxy", f64::from(u32::try_from(bad.len()).unwrap())).await;
    let mut half = connect(door.at[0], &SIGNATURE[..7]).await;
    assert!(read_all(&mut half).await.is_empty());
    door.until_ended_for("silent", 1.0).await;
    ping(&mut good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_is_believed() {
    let mut node = NotingNode::start().await;
    let door = three(&node.table()).await;
    // A stranger's PROXY header is bytes that are no request.
    let answer = exchange(door.at[2], b"PROXY TCP4 203.0.113.7 10.0.0.1 4711 443\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    for (listener, expected) in [(2, ("127.0.0.1", "http")), (1, ("198.51.100.9", "https"))] {
        let mut request = "ws://live.example/LiveApp/websocket".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("x-forwarded-for", "6.6.6.6, 198.51.100.9".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        headers.insert("x-real-ip", "6.6.6.6".parse().unwrap());
        let stream = connect(door.at[listener], b"").await;
        let (mut socket, _) = client_async(request, stream).await.unwrap();
        let told = node.told_of(&mut socket).await;
        assert_eq!((told.0.as_str(), told.1.as_str()), expected, "listener {listener}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_come_through_the_load_balancer_a_stranger_is_sent_away() {
    let listen = "proxy = \"required\"\ntrusted = [\"10.0.0.0/8\"]";
    let door = FrontDoor::serve(TempDir::new("proxy"), &[listen], "").await;
    for bytes in [v2(&[]), b"GET /healthz HTTP/1.0\r\n\r\n".to_vec(), Vec::new()] {
        assert_eq!(exchange(door.at[0], &bytes).await, "");
    }
    door.until_ended_for("untrusted", 3.0).await;
}
