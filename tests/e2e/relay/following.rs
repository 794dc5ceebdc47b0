//! A viewer's source port changes, and its node leaves the dead path for the new one, as libwebrtc does. The demo's nodes
//! cannot; so here the node is another stack, between which and the viewer stands nothing but the relay. That stack
//! leaves a path only for one of higher priority, which the test sees to.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use forebay::{
    config::{Config, Media as MediaConfig},
    domain::{
        ids::SessionId,
        relay::{Command, Credentials, TransportId, TransportSpec},
        sdp,
    },
    media::Media,
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};

use crate::support::{
    ams_client::{Alone, MediaOrder, Plan, Report},
    str0m_peer,
    udp_path::UdpPath,
};

/// After its source port has changed, a viewer has its media back within this.
const BACK: Duration = Duration::from_secs(3);
const NODE: &str = "127.0.1.1";

fn config() -> MediaConfig {
    let bind = Ipv4Addr::LOCALHOST.into();
    MediaConfig { bind, ports: vec![0], node_ports: 1024..=65535, ..Config::demo().media }
}

fn credentials(of: &sdp::Credentials) -> Credentials {
    Credentials { ufrag: of.ufrag.clone(), pwd: of.pwd.clone() }
}

/// The node's first path is the one that it is told; this makes it leave that one for any other that proves to work.
fn least_preferred(sdp: &str) -> String {
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if line.starts_with("a=candidate:") {
            words[3] = "1";
        }
        words.join(" ")
    };
    let lines: Vec<String> = sdp.lines().map(line).collect();
    assert!(lines.iter().any(|line| line.starts_with("a=candidate:")), "the node is told a candidate: {sdp}");
    lines.join("\r\n") + "\r\n"
}

/// Brings a node and a viewer together through the relay, as the door's sessions do.
async fn connect(media: &Media, road: &UdpPath, node: &mut Alone, viewer: &mut Alone) {
    let ip: IpAddr = NODE.parse().unwrap();
    let ports = config().node_ports;
    node.orders.send(MediaOrder::MakeOffer).unwrap();
    let offer = node.description().await;
    let (told, offered) = sdp::to_client(&offer, &media.public(), &ports).unwrap();
    let id = TransportId(1);
    let spec = TransportSpec {
        id,
        session: SessionId(1),
        line: 1,
        succeeds: None,
        node: ip,
        server: credentials(&offered.transports[0]),
        client: None,
        backend_port: offered.port_of(0, None, ip),
        node_is_lite: false,
        bytes_per_second: None,
    };
    assert!(spec.backend_port.is_some(), "the offer names the node's port");
    media.command(Command::Open(spec)).unwrap();
    viewer.orders.send(MediaOrder::TakeOffer(road.hook()(told))).unwrap();
    let answer = viewer.description().await;
    let (told, answered) = sdp::to_node(&answer, media.private()).unwrap();
    media.command(Command::SetClient { id, client: credentials(&answered.transports[0]) }).unwrap();
    node.orders.send(MediaOrder::TakeAnswer(least_preferred(&told))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn media_is_back_within_three_seconds_after_a_viewers_source_port_changes() {
    let shutdown = Shutdown::new();
    let media = Media::start(&config(), Metrics::new(), &shutdown).unwrap();
    let road = UdpPath::to(&format!("udp://{}", media.address())).await;
    let mut node = Alone::start(Plan::publish("s").at(NODE.parse().unwrap()), str0m_peer::stack);
    let mut viewer = Alone::start(Plan::play("s"), str0m_peer::stack);
    connect(&media, &road, &mut node, &mut viewer).await;
    viewer.until("video comes", |report| report.video_packets > 50).await;
    let begun = Instant::now();
    road.rebind().await;
    let late = begun + Duration::from_millis(100);
    let is_back = |report: &Report| report.video_at.iter().filter(|at| **at > late).count() > 50;
    let report = viewer.until("video is back", is_back).await;
    let gap = report.longest_gap(begun, Instant::now());
    println!("viewer: media is back {gap:?} after the rebind");
    assert!(gap < BACK, "{gap:?}");
    shutdown.stop();
}
