//! The media relay between two WebRTC implementations: real ICE, DTLS and SRTP, with the signalling done by hand.
//!
//! ```text
//! client peer ─► (nat) ─► public port │ relay │ pool socket ─► node peer
//! ```

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use forebay::{
    config::Config,
    domain::{
        ids::SessionId,
        relay::{Command, Credentials, TransportId, TransportSpec},
        sdp::{self, PublicCandidate, Transport, Trickled},
    },
    media::Media,
    shutdown::Shutdown,
    telemetry::metrics::Metrics,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
};

use crate::support::{
    ams_client::{MediaEvent, MediaOrder, MediaPorts, PATIENCE, Plan, Report, Reporter, Stack},
    str0m_peer, webrtc_peer,
};

const TRANSPORT: TransportId = TransportId(1);
const SESSION: SessionId = SessionId(1);
const NODE_PORTS: std::ops::RangeInclusive<u16> = 1..=65_535;

/// One side's WebRTC stack.
struct Peer {
    orders: mpsc::UnboundedSender<MediaOrder>,
    events: mpsc::UnboundedReceiver<MediaEvent>,
    report: watch::Receiver<Report>,
}

impl Peer {
    fn start(plan: Plan, stack: Stack) -> Self {
        let (orders, received) = mpsc::unbounded_channel();
        let (told, events) = mpsc::unbounded_channel();
        let (reporter, report) = watch::channel(Report::default());
        tokio::spawn(stack(plan, MediaPorts { orders: received, events: told, report: Reporter::new(reporter) }));
        Self { orders, events, report }
    }

    fn order(&self, order: MediaOrder) {
        self.orders.send(order).expect("the stack runs");
    }

    /// Its offer or answer; what is trickled before it is lost, which both stacks survive: their SDP repeats it.
    async fn description(&mut self) -> String {
        let search = async {
            loop {
                match self.events.recv().await.expect("the stack runs") {
                    MediaEvent::Offer(sdp) | MediaEvent::Answer(sdp) => return sdp,
                    MediaEvent::Candidate { .. } => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("a description in time")
    }

    async fn until(&self, what: &str, check: impl Fn(&Report) -> bool) -> Report {
        let mut report = self.report.clone();
        if let Ok(Ok(seen)) = tokio::time::timeout(PATIENCE, report.wait_for(&check)).await {
            return seen.clone();
        }
        panic!("never saw that {what}: {:?}", self.report.borrow());
    }
}

fn relay(shutdown: &Shutdown) -> Media {
    let text = "[apps]\nLiveApp = {}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nbind = \"127.0.0.1\"\n\
                ports = [0]\nnode_ports = \"1-65535\"\n";
    Media::start(&Config::from_toml_str(text).unwrap().media, Metrics::new(), shutdown).unwrap()
}

fn credentials(description: &sdp::Description) -> Credentials {
    let sdp::Credentials { ufrag, pwd } = &description.transports[0];
    Credentials { ufrag: ufrag.clone(), pwd: pwd.clone() }
}

fn open(media: &Media, node: &sdp::Description, client: Option<&sdp::Description>) {
    let spec = TransportSpec {
        id: TRANSPORT,
        session: SESSION,
        line: 0,
        node: [127, 0, 0, 1].into(),
        server: credentials(node),
        client: client.map(credentials),
        backend_port: node.candidates.first().map(|candidate| candidate.port),
        node_is_lite: false,
        bytes_per_second: None,
    };
    media.command(Command::Open(spec)).unwrap();
}

/// The client offers, as a publisher does.
async fn client_offers(media: &Media, seen: &[PublicCandidate], client: &mut Peer, node: &mut Peer) {
    client.order(MediaOrder::MakeOffer);
    let (offer, from_client) = sdp::to_node(&client.description().await, media.private()).unwrap();
    node.order(MediaOrder::TakeOffer(offer));
    let (answer, from_node) = sdp::to_client(&node.description().await, seen, &NODE_PORTS).unwrap();
    open(media, &from_node, Some(&from_client));
    client.order(MediaOrder::TakeAnswer(answer));
    trickle(media, &from_node, node).await;
}

/// The node offers, as for a viewer.
async fn node_offers(media: &Media, seen: &[PublicCandidate], client: &mut Peer, node: &mut Peer) {
    node.order(MediaOrder::MakeOffer);
    let (offer, from_node) = sdp::to_client(&node.description().await, seen, &NODE_PORTS).unwrap();
    open(media, &from_node, None);
    client.order(MediaOrder::TakeOffer(offer));
    let (answer, from_client) = sdp::to_node(&client.description().await, media.private()).unwrap();
    media.command(Command::SetClient { id: TRANSPORT, client: credentials(&from_client) }).unwrap();
    node.order(MediaOrder::TakeAnswer(answer));
    trickle(media, &from_node, node).await;
}

/// Waits for the node's first candidate where its description had none.
async fn trickle(media: &Media, from_node: &sdp::Description, node: &mut Peer) {
    while from_node.candidates.is_empty() {
        let event = tokio::time::timeout(PATIENCE, node.events.recv()).await.expect("a candidate in time");
        let Some(MediaEvent::Candidate { candidate, .. }) = event else { continue };
        if let Trickled::Usable(found) = sdp::trickled(&candidate, &NODE_PORTS) {
            return media.command(Command::SetBackend { id: TRANSPORT, port: found.port }).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_and_a_viewer_of_either_stack_pass_the_relay() {
    for (name, client, node) in [
        ("str0m", str0m_peer::stack as Stack, webrtc_peer::stack as Stack),
        ("webrtc", webrtc_peer::stack, str0m_peer::stack),
    ] {
        let shutdown = Shutdown::new();
        let media = relay(&shutdown);
        let stream = format!("up-{name}");
        let (mut publisher, mut ingest) =
            (Peer::start(Plan::publish(&stream), client), Peer::start(Plan::play(&stream), node));
        client_offers(&media, media.public(), &mut publisher, &mut ingest).await;
        ingest.until("media came up", |report| report.video_packets > 10 && report.audio_packets > 10).await;
        ingest.until("it is the publisher's", |report| report.marks.contains(&stream)).await;
        publisher.until("the data channel is open", |report| report.data_open).await;
        publisher.order(MediaOrder::SendData("hello".into()));
        ingest.until("data came up", |report| report.data.iter().any(|text| text == "hello")).await;
        media.command(Command::CloseSession(SESSION)).unwrap();

        let stream = format!("down-{name}");
        let (mut viewer, mut egress) =
            (Peer::start(Plan::play(&stream), client), Peer::start(Plan::publish(&stream), node));
        node_offers(&media, media.public(), &mut viewer, &mut egress).await;
        viewer.until("media came down", |report| report.video_packets > 10 && report.marks.contains(&stream)).await;

        // Only an end that both sides feel proves that it was the relay that carried them.
        media.command(Command::CloseSession(SESSION)).unwrap();
        let silent = async {
            loop {
                let before = viewer.report.borrow().video_packets;
                tokio::time::sleep(Duration::from_millis(200)).await;
                if viewer.report.borrow().video_packets == before {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, silent).await.expect("no media passes a closed session");
        assert!(shutdown.finish(Duration::from_secs(1)).await);
    }
}

/// What stands between a client and the relay: forwards both ways from one outside port, which it may change.
struct Nat {
    inside: PublicCandidate,
    rebind: mpsc::Sender<()>,
    seen: Arc<Mutex<Seen>>,
}

/// What a NAT, or whoever listens to it, sees.
#[derive(Default)]
struct Seen {
    /// The client's latest STUN request.
    request: Vec<u8>,
    /// When media last came down, and the longest time without.
    last: Option<Instant>,
    gap: Duration,
}

impl Nat {
    async fn start(relay: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = inside.local_addr().unwrap();
        let (rebind, asked) = mpsc::channel(1);
        let seen = Arc::<Mutex<Seen>>::default();
        tokio::spawn(forward(inside, relay, asked, Arc::clone(&seen)));
        Self { inside: PublicCandidate { address, transport: Transport::Udp }, rebind, seen }
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn forward(inside: UdpSocket, relay: SocketAddr, mut asked: mpsc::Receiver<()>, seen: Arc<Mutex<Seen>>) {
    let mut outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut up, mut down) = ([0; 2048], [0; 2048]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((len, from)) = inside.recv_from(&mut up) => {
                client = Some(from);
                if up[..2] == [0, 1] {
                    seen.lock().unwrap().request = up[..len].to_vec();
                }
                outside.send_to(&up[..len], relay).await.unwrap();
            }
            Ok((len, _)) = outside.recv_from(&mut down) => {
                if is_media(&down[..len]) {
                    seen.lock().unwrap().note(Instant::now());
                }
                if let Some(client) = client {
                    inside.send_to(&down[..len], client).await.unwrap();
                }
            }
            again = asked.recv() => match again {
                Some(()) => outside = UdpSocket::bind("127.0.0.1:0").await.unwrap(),
                None => return,
            },
        }
    }
}

impl Seen {
    fn note(&mut self, now: Instant) {
        self.gap = self.gap.max(self.last.map_or(Duration::ZERO, |last| now - last));
        self.last = Some(now);
    }
}

fn is_media(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|byte| (128..192).contains(byte))
}

/// A viewer behind a NAT whose media flows.
async fn viewer_behind_a_nat(media: &Media, stream: &str) -> (Peer, Peer, Nat) {
    let nat = Nat::start(media.address()).await;
    let (mut viewer, mut egress) =
        (Peer::start(Plan::play(stream), webrtc_peer::stack), Peer::start(Plan::publish(stream), str0m_peer::stack));
    node_offers(media, &[nat.inside], &mut viewer, &mut egress).await;
    viewer.until("media came down", |report| report.video_packets > 50).await;
    (viewer, egress, nat)
}

/// For a viewer it is up to the node to choose the new path, which neither of these stacks does once it has chosen one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publishers_media_is_back_within_3_s_of_a_new_nat_binding() {
    for (name, client, node) in [
        ("str0m", str0m_peer::stack as Stack, webrtc_peer::stack as Stack),
        ("webrtc", webrtc_peer::stack, str0m_peer::stack),
    ] {
        let shutdown = Shutdown::new();
        let media = relay(&shutdown);
        let nat = Nat::start(media.address()).await;
        let (mut publisher, mut ingest) =
            (Peer::start(Plan::publish("rebound"), client), Peer::start(Plan::play("rebound"), node));
        client_offers(&media, &[nat.inside], &mut publisher, &mut ingest).await;
        ingest.until("media came up", |report| report.video_packets > 50).await;

        nat.rebind.send(()).await.unwrap();
        let (asked, before) = (Instant::now(), ingest.report.borrow().video_packets);

        // A few may have been under way.
        ingest.until("media is back", |report| report.video_packets > before + 5).await;
        let pause = asked.elapsed();
        println!("rebind, {name}: media back after {pause:?}");
        assert!(pause < Duration::from_secs(3), "{pause:?}");
        assert!(shutdown.finish(Duration::from_secs(1)).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_replays_a_request_gets_no_media_and_the_viewer_does_not_notice() {
    let shutdown = Shutdown::new();
    let media = relay(&shutdown);
    let (viewer, _egress, nat) = viewer_behind_a_nat(&media, "watched").await;
    let request = nat.seen(|seen| {
        seen.gap = Duration::ZERO;
        seen.request.clone()
    });
    assert!(!request.is_empty());

    let before = viewer.report.borrow().video_packets;
    let mut attackers = Vec::new();
    for _ in 0..20 {
        attackers.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    }
    // How late a timer is says how much of a pause is this machine's own.
    let (mut sent, mut late) = (0, Duration::ZERO);
    let pace = Duration::from_millis(50);
    let mut clock = tokio::time::interval(pace);
    for _ in 0..40 {
        let asked = Instant::now();
        clock.tick().await;
        late = late.max(asked.elapsed().saturating_sub(pace));
        for attacker in &attackers {
            sent += attacker.send_to(&request, media.address()).await.unwrap();
        }
    }

    let (mut got, mut stolen) = (0, 0);
    for attacker in &attackers {
        let mut bytes = [0; 2048];
        while let Ok(len) = attacker.try_recv(&mut bytes) {
            got += len;
            stolen += usize::from(bytes[0] > 3) * len;
        }
    }
    viewer.until("media goes on", |report| report.video_packets > before + 50).await;
    let gap = nat.seen(|seen| seen.gap);
    println!("replay: {sent} bytes sent, {got} bytes of STUN and {stolen} of media got, longest pause {gap:?}");
    assert_eq!(stolen, 0, "media went to an attacker");
    assert!(got <= sent, "{got} bytes for {sent}: the relay amplifies");
    assert!(gap < Duration::from_millis(200) + late, "{gap:?}, with timers {late:?} late");
}
