//! ICE-TCP over real sockets on loopback: a client that signs and frames its STUN, and a socket in the place of a node.

use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::{
    config::Config,
    domain::{
        ids::{ClientAddr, SessionId},
        relay::{Command, Credentials, EventKind, FlowEnd, TransportId, TransportSpec, stun::written},
    },
    media::{Media, MediaEvent},
};

const SERVER_PWD: &str = "server-password-of-22-x";
const CLIENT_PWD: &str = "client-password-of-22-x";
const REQUEST: u16 = 0x0001;
const SUCCESS: u16 = 0x0101;
const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
/// No wait of these tests is longer.
const LIMIT: Duration = Duration::from_secs(10);

/// A relay, one client and one node.
struct Rig {
    media: Media,
    metrics: Metrics,
    listener: TcpListener,
    node: UdpSocket,
    _shutdown: Shutdown,
}

async fn rig() -> Rig {
    let text = "[apps]\nLiveApp = {}\n[mongo]\nuri = \"mongodb://127.0.0.1\"\n[media]\nports = [0]\n\
                bind = \"127.0.0.1\"\nnode_ports = \"1-65535\"\n";
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let media =
        Media::start_with(&Config::from_toml_str(text).unwrap().media, &[at], metrics.clone(), &shutdown).unwrap();
    let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig { media, metrics, listener, node, _shutdown: shutdown };
    let credentials = |ufrag: &str, pwd: &str| Credentials { ufrag: ufrag.into(), pwd: pwd.into() };
    let spec = TransportSpec {
        id: TransportId(1),
        session: SessionId(9),
        line: 0,
        succeeds: None,
        node: [127, 0, 0, 1].into(),
        server: credentials("srv1", SERVER_PWD),
        client: Some(credentials("cli1", CLIENT_PWD)),
        backend_port: Some(rig.node.local_addr().unwrap().port()),
        node_is_lite: false,
        bytes_per_second: None,
    };
    rig.media.command(Command::Open(spec)).unwrap();
    rig
}

impl Rig {
    /// A connection that the relay has taken, after `read` was read of it.
    async fn client(&self, read: &[u8]) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, peer) = self.listener.accept().await.unwrap();
        self.media.take_tcp(stream, ClientAddr(peer), read);
        client
    }

    /// Goes through the checks of both sides; returns the pool socket that the node sees the client at.
    async fn connect(&self, client: &mut TcpStream) -> SocketAddr {
        client.write_all(&framed(&request())).await.unwrap();
        let (bytes, pool) = self.heard().await;
        assert_eq!(bytes, request(), "byte for byte");
        let check = written::message(REQUEST, [8; 12], "cli1:srv1", false, CLIENT_PWD);
        self.node.send_to(&check, pool).await.unwrap();
        assert_eq!(frame(client).await, check);
        let answer = written::message(SUCCESS, [8; 12], "", false, CLIENT_PWD);
        client.write_all(&framed(&answer)).await.unwrap();
        assert_eq!(self.heard().await, (answer, pool));
        pool
    }

    async fn heard(&self) -> (Vec<u8>, SocketAddr) {
        let mut bytes = [0; 2048];
        let (len, from) = timeout(LIMIT, self.node.recv_from(&mut bytes)).await.expect("in time").unwrap();
        (bytes[..len].to_vec(), from)
    }

    fn counted(&self, sample: &str) -> bool {
        self.metrics.encode().lines().any(|line| line == sample)
    }

    /// The connection is closed by the relay, for this reason.
    async fn closed(&self, client: &mut TcpStream, reason: &str) {
        let end = timeout(LIMIT, client.read(&mut [0; 1])).await.expect("it is closed in time");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        let sample = format!("forebay_media_tcp_closed_total{{reason=\"{reason}\"}} 1");
        // The socket closes a moment before the task has said so.
        let counted = async {
            while !self.counted(&sample) {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, counted).await.unwrap_or_else(|_| panic!("no {sample}"));
        assert!(self.counted("forebay_media_tcp_connections 0"));
    }
}

fn request() -> Vec<u8> {
    written::message(REQUEST, [7; 12], "srv1:cli1", true, SERVER_PWD)
}

fn framed(datagram: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames::put(datagram, &mut bytes);
    bytes
}

async fn frame(client: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut bytes = vec![0; usize::from(client.read_u16().await.unwrap())];
        client.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    timeout(LIMIT, read).await.expect("a frame in time")
}

#[tokio::test]
async fn a_clients_checks_and_media_pass_both_ways_and_stay_after_the_time_to_authenticate() {
    let rig = rig().await;
    assert!(rig.media.public().iter().any(|one| one.address == rig.listener.local_addr().unwrap()));
    let mut client = rig.client(&[]).await;
    let pool = rig.connect(&mut client).await;
    tokio::time::pause();
    tokio::time::advance(2 * UNPROVEN).await;
    tokio::time::resume();

    client.write_all(&[framed(&RTP), framed(&RTP)].concat()).await.unwrap();
    assert_eq!(rig.heard().await, (RTP.to_vec(), pool));
    assert_eq!(rig.heard().await, (RTP.to_vec(), pool));
    rig.node.send_to(&RTP, pool).await.unwrap();
    assert_eq!(frame(&mut client).await, RTP);
}

#[tokio::test]
async fn what_was_read_before_counts() {
    let rig = rig().await;
    let first = framed(&request());
    let mut client = rig.client(&first[..10]).await;
    client.write_all(&first[10..]).await.unwrap();
    assert_eq!(rig.heard().await.0, request());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_authenticate_is_closed_in_time_and_reaches_no_node() {
    let rig = rig().await;
    let begun = tokio::time::Instant::now();
    let mut client = rig.client(&[]).await;
    let forged = written::message(REQUEST, [7; 12], "srv1:cli1", true, "another-password-of-22-x");
    client.write_all(&[framed(&forged), framed(&RTP)].concat()).await.unwrap();

    let end = client.read(&mut [0; 1]).await;

    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(begun.elapsed().as_secs(), UNPROVEN.as_secs());
    assert!(rig.node.try_recv(&mut [0; 2048]).is_err());
    assert!(rig.counted("forebay_media_tcp_closed_total{reason=\"unproven\"} 1"));
}

#[tokio::test]
async fn a_frame_longer_than_a_datagram_closes_the_connection() {
    let rig = rig().await;
    let mut client = rig.client(&[]).await;
    rig.connect(&mut client).await;
    client.write_all(&1501u16.to_be_bytes()).await.unwrap();
    rig.closed(&mut client, "bad_frame").await;
}

#[tokio::test]
async fn a_connection_ends_with_its_session() {
    let rig = rig().await;
    let mut client = rig.client(&[]).await;
    rig.connect(&mut client).await;
    rig.media.command(Command::CloseSession(SessionId(9))).unwrap();
    rig.closed(&mut client, "flow_closed").await;
}

#[tokio::test]
async fn a_flow_ends_with_its_connection() {
    let rig = rig().await;
    let mut events = rig.media.events();
    let mut client = rig.client(&[]).await;
    rig.connect(&mut client).await;
    drop(client);

    let search = async {
        loop {
            if let MediaEvent::Relay(event) = events.recv().await.unwrap()
                && let EventKind::FlowClosed { client, reason } = event.kind
            {
                return (client, reason);
            }
        }
    };
    let (client, reason) = timeout(LIMIT, search).await.expect("it is told in time");
    assert!(matches!(client, ClientKey::Tcp { .. }));
    assert_eq!(reason, FlowEnd::HungUp);
}

#[tokio::test]
async fn a_viewer_that_takes_nothing_loses_frames_and_nobody_waits_for_him() {
    let rig = rig().await;
    let mut client = rig.client(&[]).await;
    let pool = rig.connect(&mut client).await;
    let packet = [&RTP[..], &[0; 1200]].concat();
    let none = "forebay_media_tcp_drops_total{reason=\"client_full\"} 0";
    let flood = async {
        while rig.counted(none) {
            for _ in 0..64 {
                rig.node.send_to(&packet, pool).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, flood).await.expect("frames are dropped");
    client.write_all(&framed(&RTP)).await.unwrap();
    assert_eq!(rig.heard().await, (RTP.to_vec(), pool), "the other way is free");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let (metrics, shutdown) = (Metrics::new(), Shutdown::new());
    let acceptor = Acceptor::with_room_for(0, 1, metrics.clone(), shutdown);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();

    acceptor.take(stream, peer, &[]);

    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(metrics.encode().contains("forebay_media_tcp_closed_total{reason=\"full\"} 1"));
}
