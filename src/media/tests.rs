//! The relay over real sockets on loopback: a client that signs its STUN, and a socket in the place of a node.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    config::Config,
    domain::{
        ids::SessionId,
        relay::{
            ClientKey, Credentials, DropReason, EventKind, FlowEnd, FlowState, MediaState, TransportEnd, TransportSpec,
            stun::written,
        },
    },
};

const SERVER_PWD: &str = "server-password-of-22-x";
const CLIENT_PWD: &str = "client-password-of-22-x";
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
/// No wait of these tests is longer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a socket is listened to for what must not come.
const SILENCE: Duration = Duration::from_millis(20);

/// A relay, one client and one node.
struct Rig {
    media: Media,
    metrics: Metrics,
    shutdown: Shutdown,
    events: broadcast::Receiver<MediaEvent>,
    client: UdpSocket,
    node: UdpSocket,
}

fn rig(media: &str) -> Rig {
    let text = format!(
        "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nports = [0]\nnode_ports = \"1-65535\"\n{media}\n"
    );
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let config = Config::from_toml_str(&text).unwrap().media;
    let media = Media::start(&config, metrics.clone(), &shutdown).unwrap();
    let events = media.events();
    Rig { media, metrics, shutdown, events, client: endpoint(), node: endpoint() }
}

fn endpoint() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn port(socket: &UdpSocket) -> u16 {
    socket.local_addr().unwrap().port()
}

fn credentials(ufrag: &str, pwd: &str) -> Credentials {
    Credentials { ufrag: ufrag.into(), pwd: pwd.into() }
}

fn request() -> Vec<u8> {
    written::message(REQUEST, [7; 12], "srv1:cli1", true, SERVER_PWD)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 2048];
    let (len, from) = socket.recv_from(&mut bytes).expect("a datagram within the limit");
    (bytes[..len].to_vec(), from)
}

impl Rig {
    fn open(&self) {
        let spec = TransportSpec {
            id: TransportId(1),
            session: SessionId(9),
            line: 0,
            succeeds: None,
            node: self.node.local_addr().unwrap().ip(),
            server: credentials("srv1", SERVER_PWD),
            client: Some(credentials("cli1", CLIENT_PWD)),
            backend_port: Some(port(&self.node)),
            node_is_lite: false,
            bytes_per_second: None,
        };
        self.media.command(Command::Open(spec)).unwrap();
    }

    fn to_relay(&self, socket: &UdpSocket, bytes: &[u8]) {
        let at = SocketAddr::new([127, 0, 0, 1].into(), self.media.address().port());
        socket.send_to(bytes, at).unwrap();
    }

    /// Goes through the checks of both sides; returns the pool socket that the node sees the client at.
    fn connect(&self) -> SocketAddr {
        self.to_relay(&self.client, &request());
        let (bytes, pool) = receive(&self.node);
        assert_eq!(bytes, request(), "byte for byte");
        let check = written::message(REQUEST, [8; 12], "cli1:srv1", false, CLIENT_PWD);
        self.node.send_to(&check, pool).unwrap();
        let (bytes, from) = receive(&self.client);
        assert_eq!((bytes, from.port()), (check, self.media.address().port()));
        let answer = written::message(SUCCESS, [8; 12], "", false, CLIENT_PWD);
        self.to_relay(&self.client, &answer);
        assert_eq!(receive(&self.node), (answer, pool));
        pool
    }

    /// The next event that `wanted` takes.
    async fn event<T>(&mut self, mut wanted: impl FnMut(&MediaEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(&self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, search).await.expect("the event comes within the limit")
    }

    /// Waits for the counters, and hears nothing from the relay meanwhile.
    fn counts(&self, socket: &UdpSocket, mut wanted: impl FnMut(&Stats) -> bool) {
        let end = Instant::now() + LIMIT;
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        while !self.media.stats().any(|stats| wanted(&stats)) {
            assert!(Instant::now() < end, "{:?}", self.media.stats().collect::<Vec<_>>());
            silent(socket);
        }
        silent(socket);
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
}

fn silent(socket: &UdpSocket) {
    let heard = socket.recv_from(&mut [0; 2048]);
    let nothing =
        heard.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(nothing, "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_authenticated_client_and_its_node_reach_each_other_byte_for_byte() {
    let mut rig = rig("bind = \"127.0.0.1\"");
    rig.open();

    let pool = rig.connect();

    rig.to_relay(&rig.client, &RTP);
    assert_eq!(receive(&rig.node), (RTP.to_vec(), pool));
    rig.node.send_to(&[RTP, RTP].concat(), pool).unwrap();
    assert_eq!(receive(&rig.client).0, [RTP, RTP].concat());
    assert_eq!(rig.media.private(), Some(pool), "the node was told the socket that it then hears from");
    rig.event(|event| match event {
        MediaEvent::Relay(relay::Event { kind: EventKind::FirstMedia { .. }, .. }) => Some(()),
        _ => None,
    })
    .await;
    rig.counts(&rig.client, |stats| stats.traffic.to_client.packets == 2 && stats.traffic.to_node.packets == 3);
    let text = rig.metrics.encode();
    for line in [
        "forebay_media_packets_total{direction=\"to_node\"} 3",
        "forebay_media_bytes_total{direction=\"to_client\"} ",
        "forebay_media_transports 1",
        "forebay_media_start_seconds_count 1",
    ] {
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{line} is not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn junk_is_counted_and_never_answered() {
    let rig = rig("bind = \"127.0.0.1\"");
    rig.open();
    let stranger = endpoint();

    let forged = written::message(REQUEST, [7; 12], "srv1:cli1", true, "another-password-of-22-");
    for junk in [&RTP[..], b"", b"GET / HTTP/1.1\r\n", &forged, &[0; 1800], &[0, 1, 0, 0]] {
        rig.to_relay(&stranger, junk);
    }

    rig.counts(&stranger, |stats| {
        let counts = [
            (DropReason::UnknownTuple, 1),
            (DropReason::BadClass, 2),
            (DropReason::BadIntegrity, 1),
            (DropReason::Oversized, 1),
            (DropReason::BadStun, 1),
        ];
        counts.iter().all(|(reason, count)| stats.dropped(*reason) == *count)
    });
    assert!(rig.media.stats().all(|stats| FlowState::ALL.iter().all(|state| stats.flows_in(*state) == 0)));
    silent_now(&rig.node);
}

fn silent_now(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    silent(socket);
    socket.set_nonblocking(false).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_strangers_packets_to_the_private_sockets_go_nowhere() {
    let rig = rig("bind = \"127.0.0.1\"");
    rig.open();
    let pool = rig.connect();

    endpoint().send_to(&RTP, pool).unwrap();

    rig.counts(&rig.client, |stats| stats.dropped(DropReason::UnknownNode) == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_session_that_ends_takes_its_flows_with_it() {
    let mut rig = rig("bind = \"127.0.0.1\"");
    rig.open();
    let pool = rig.connect();

    rig.media.command(Command::CloseSession(SessionId(9))).unwrap();
    let client = ClientKey::Udp(rig.client.local_addr().unwrap());
    let mut flow_ended = false;
    rig.event(|event| {
        let MediaEvent::Relay(event) = event else { return None };
        assert_eq!(event.session, SessionId(9));
        flow_ended |= event.kind == EventKind::FlowClosed { client, reason: FlowEnd::Closed };
        matches!(event.kind, EventKind::Closed { reason: TransportEnd::Closed, .. }).then_some(())
    })
    .await;
    assert!(flow_ended);

    rig.to_relay(&rig.client, &request());
    rig.node.send_to(&RTP, pool).unwrap();
    rig.counts(&rig.client, |stats| stats.transports == 0 && stats.dropped(DropReason::Tombstone) == 2);
    silent_now(&rig.node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_command_that_is_refused_is_told_to_whoever_listens() {
    let mut rig = rig("bind = \"127.0.0.1\"");
    rig.open();
    rig.open();
    let why = |event: &MediaEvent| match event {
        MediaEvent::Refused { transport, why } => Some((*transport, *why)),
        MediaEvent::Relay(_) => None,
    };
    assert_eq!(rig.event(why).await, (TransportId(1), Refused::Duplicate));
    assert!(rig.metrics.encode().contains("forebay_media_commands_refused_total{reason=\"duplicate\"} 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_transport_is_known_to_whoever_is_heard_after_it_was_posted() {
    let mut rig = rig("bind = \"127.0.0.1\"");
    for _ in 0..200 {
        rig.client = endpoint();
        rig.open();
        rig.to_relay(&rig.client, &request());
        assert_eq!(receive(&rig.node).0, request());
        rig.media.command(Command::CloseSession(SessionId(9))).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_threads_end_with_the_process() {
    let rig = rig("bind = \"127.0.0.1\"\nthreads = 3");

    assert!(rig.shutdown.finish(Duration::from_millis(200)).await, "ended and joined");

    assert_eq!(rig.media.command(Command::Close(TransportId(1))), Err(MediaBusy));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_thread_knows_every_transport_since_the_kernel_chooses_who_hears_a_client() {
    let mut rig = rig("bind = \"127.0.0.1\"\nthreads = 3");
    rig.open();
    let mut heard = [0; 3];
    // Each thread is hit within a few ports; a seat at the transport is given back by closing and opening it again.
    for _ in 0..64 {
        rig.client = endpoint();
        rig.connect();
        rig.media.command(Command::CloseSession(SessionId(9))).unwrap();
        rig.open();
        if heard.iter().all(|count| *count > 0) {
            break;
        }
        rig.counts(&rig.client, |stats| stats.traffic.to_node.packets > 0);
        heard = std::array::from_fn(|nth| rig.media.stats().nth(nth).unwrap().traffic.to_node.packets);
    }
    assert!(heard.iter().all(|count| *count > 0), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_second_port_is_taken_where_another_door_has_the_first() {
    let first = rig("bind = \"127.0.0.1\"\nthreads = 2");
    let other = endpoint();
    let ports = [first.media.address().port(), port(&other)];
    drop(other);

    let text = format!(
        "[apps]\nLiveApp = {{}}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nbind = \"127.0.0.1\"\nthreads = 2\nports = {ports:?}\n"
    );
    let config = Config::from_toml_str(&text).unwrap().media;
    let second = Media::start(&config, Metrics::new(), &first.shutdown).unwrap();
    assert_eq!(second.address().port(), ports[1], "a shared port would split the first door's flows");

    let why = Media::start(&config, Metrics::new(), &first.shutdown).unwrap_err();
    assert!(matches!(&why, MediaError::Ports { ports: tried, .. } if *tried == ports), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_relay_on_both_families_serves_ipv4_clients_and_nodes() {
    let rig = rig("bind = \"::\"\nexternal_ips = [\"127.0.0.1\"]\nallow_private_public_ip = true");
    rig.open();

    let pool = rig.connect();

    rig.to_relay(&rig.client, &RTP);
    assert_eq!(receive(&rig.node), (RTP.to_vec(), pool));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_watches_a_session_hears_its_steps_and_who_asks_is_told_what_passed() {
    for threads in [1, 2] {
        let rig = rig(&format!("bind = \"127.0.0.1\"\nthreads = {threads}"));
        let (mut watch, mut other) = (rig.media.watch(SessionId(9)), rig.media.watch(SessionId(8)));
        rig.open();
        let pool = rig.connect();
        rig.node.send_to(&RTP, pool).unwrap();
        receive(&rig.client);

        let mut steps = Vec::new();
        while !matches!(steps.last(), Some(EventKind::FirstMedia { .. })) {
            let event = tokio::time::timeout(LIMIT, watch.next()).await.expect("the steps come within the limit");
            let MediaEvent::Relay(event) = event else { panic!("nothing was refused: {event:?}") };
            steps.push(event.kind);
        }
        assert!(matches!(
            steps[..],
            [EventKind::FirstStun, EventKind::Validated { .. }, EventKind::Nominated { .. }, _]
        ));
        assert_eq!(other.try_next(), None, "another session's events are not heard");

        let facts = rig.media.facts(SessionId(9)).await.unwrap();
        assert_eq!(facts.transports.len(), 1, "{threads} threads know of one transport: {facts:?}");
        let transport = &facts.transports[0];
        assert_eq!((transport.id, transport.node), (TransportId(1), Some(rig.node.local_addr().unwrap())));
        assert_eq!((transport.media, transport.stalls, transport.is_superseded), (MediaState::Flowing, 0, false));
        assert!(transport.first_stun > transport.first_media && transport.first_media.is_some());
        assert_eq!((transport.traffic.to_node.packets, transport.traffic.to_client.packets), (2, 2));
        assert_eq!(transport.flows.len(), 1);
        assert_eq!(transport.flows[0].client, ClientKey::Udp(rig.client.local_addr().unwrap()));
        assert_eq!(transport.flows[0].state, FlowState::Nominated);
        assert_eq!(rig.media.facts(SessionId(8)).await.unwrap(), SessionFacts::default());

        rig.media.command(Command::CloseSession(SessionId(9))).unwrap();
        let closed = async {
            while !matches!(watch.next().await, MediaEvent::Relay(relay::Event { kind: EventKind::Closed { .. }, .. }))
            {
            }
        };
        tokio::time::timeout(LIMIT, closed).await.expect("the end comes within the limit");
        assert_eq!(rig.media.facts(SessionId(9)).await.unwrap(), SessionFacts::default());
        rig.shutdown.stop();
    }
}
