//! A client in a network from which only the door can be reached: the nodes' addresses mean nothing there, and in one of
//! these networks UDP does not get through either.

use std::{net::IpAddr, process::Stdio, time::Duration};

use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime};

use crate::support::{
    ams_client::{Plan, Socket, Stack},
    namespaces::Namespaces,
    process::Process,
    str0m_peer, webrtc_peer,
};

/// A test here runs its own program a second time as the client; this variable tells that one where the door is.
const CLIENT_OF: &str = "FOREBAY_TEST_CLIENT_OF";
/// What the second run takes at most.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn publish_and_play_work_where_a_client_can_reach_nothing_but_the_door() {
    const NAME: &str = "relay::namespaces::publish_and_play_work_where_a_client_can_reach_nothing_but_the_door";
    match std::env::var(CLIENT_OF) {
        Ok(door) => run(client(&door)),
        Err(_) => run(both_networks(NAME, |_| {})),
    }
}

#[test]
fn publish_and_play_work_over_tcp_where_no_udp_gets_through() {
    const NAME: &str = "relay::namespaces::publish_and_play_work_over_tcp_where_no_udp_gets_through";
    match std::env::var(CLIENT_OF) {
        Ok(door) => run(client_without_udp(&door)),
        Err(_) => run(both_networks(NAME, Namespaces::lose_udp)),
    }
}

fn run(what: impl Future<Output = ()>) {
    Runtime::new().unwrap().block_on(what);
}

/// Starts a door in one network, and the test `name` once more in the other.
async fn both_networks(name: &str, spoil: fn(&Namespaces)) {
    let networks = Namespaces::new();
    spoil(&networks);
    let (listen, media) = (format!("{}:0", Namespaces::DOOR), format!("{}:0", Namespaces::DOOR));
    let args = ["demo", "--listen", &listen, "--admin", "127.0.0.1:0", "--media", &media];
    let door = Process::start_in(&networks.door, &args).await;
    let told = format!("{} {}", door.http(), door.ready["media"].strip_prefix("udp://").expect("a relay"));

    let mut client = tokio::process::Command::new("ip");
    client.args(["netns", "exec", &networks.client]).arg(std::env::current_exe().unwrap());
    client.args(["--exact", name, "--nocapture"]).env(CLIENT_OF, told);
    client.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(LIMIT, client.output()).await.expect("the client ends").unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ended.status.success(), "the client failed: {said}\nthe door: {}", door.log());
    assert!(said.contains("1 passed"), "the client ran: {said}");
    for line in said.lines().filter(|line| line.contains("first media after")) {
        println!("{line}");
    }
}

/// What runs in the client's network.
async fn client(door: &str) {
    let (http, media) = door.split_once(' ').unwrap();
    let (_, port) = media.rsplit_once(':').unwrap();
    let (_, http_port) = http.rsplit_once(':').unwrap();
    let nobody = TcpStream::connect(format!("127.0.1.1:{http_port}")).await;
    assert!(nobody.is_err(), "a node's address leads nowhere from here");
    for (name, stack, stream) in [("webrtc", webrtc_peer::stack as Stack, "one"), ("str0m", str0m_peer::stack, "two")] {
        let (publisher, viewer) = publish_and_play(http, name, stack, stream).await;
        for socket in [&publisher, &viewer] {
            let heard = json!(socket.report().messages).to_string();
            assert!(!heard.contains("127.0.1."), "a node's address reached a client: {heard}");
            assert!(heard.contains(&format!("{} {port} typ host", Namespaces::DOOR)), "only the door's did: {heard}");
        }
    }
}

/// The same where UDP is lost on its way: the client tries both, as browsers do.
async fn client_without_udp(door: &str) {
    let (http, _) = door.split_once(' ').unwrap();
    let _open = publish_and_play(http, "webrtc without UDP", webrtc_peer::any_stack, "one").await;
    let (received, sent) = udp_datagrams();
    assert!(sent > 0, "it tried");
    assert_eq!(received, 0, "of {sent} datagrams none was answered");
}

async fn publish_and_play(http: &str, name: &str, stack: Stack, stream: &str) -> (Socket, Socket) {
    let ip: IpAddr = Namespaces::CLIENT.parse().unwrap();
    let url = format!("ws://{http}/LiveApp/websocket");
    let (publisher, viewer) = (Socket::open(&url).await.unwrap(), Socket::open(&url).await.unwrap());
    let publish = publisher.begin(Plan::publish(stream).at(ip), stack);
    publish.until_has("publish_started").await;
    let play = viewer.begin(Plan::play(stream).at(ip), stack);
    let report = play.until_more_video(50).await;
    println!("{name}: first media after {:?}", report.first_media);
    (publisher, viewer)
}

/// What this network has received and sent since it was made.
fn udp_datagrams() -> (u64, u64) {
    let counted = std::fs::read_to_string("/proc/self/net/snmp").unwrap();
    let mut lines = counted.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let value = |name: &str| {
        let at = names.split(' ').position(|held| held == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    };
    (value("InDatagrams"), value("OutDatagrams"))
}
