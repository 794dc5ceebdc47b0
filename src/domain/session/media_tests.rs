//! The relayed leg's promises.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{tests::*, *};
use crate::domain::{
    relay::{self, Command},
    sdp::{self, PublicCandidate, Transport},
    signaling::{Text, string_field},
};

const PUBLIC: &str = "198.51.100.10:5000";
const PRIVATE: &str = "10.0.0.5:6000";
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));

fn relayed() -> Bench {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Bench::with(Some(Arc::new(RelaySide {
        public: vec![PublicCandidate { address: address(PUBLIC), transport: Transport::Udp }],
        private: Some(address(PRIVATE)),
        node_ports: 50_000..=60_000,
    })))
}

fn sdp(ufrag: &str, candidates: &str) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 10.9.9.9\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
         c=IN IP4 10.9.9.9\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789abcdef01234567\r\n\
         a=fingerprint:sha-256 AA\r\na=setup:actpass\r\na=rtcp-mux\r\n{candidates}"
    )
}

fn description(kind: &str, sdp: &str) -> String {
    serde_json::json!({"command": "takeConfiguration", "streamId": "s", "type": kind, "sdp": sdp}).to_string()
}

fn candidate(line: &str) -> String {
    serde_json::json!({"command": "takeCandidate", "streamId": "s", "label": 0, "id": "0", "candidate": line})
        .to_string()
}

fn commands(said: &[Output]) -> Vec<&Command> {
    said.iter().filter_map(|output| if let Output::Relay(command) = output { Some(command) } else { None }).collect()
}

fn texts(said: &[Output]) -> Vec<&Text> {
    said.iter()
        .filter_map(
            |output| if let Output::ToClient(text) | Output::ToNode(_, text) = output { Some(text) } else { None },
        )
        .collect()
}

/// A publish whose offer and answer have passed; nothing of a candidate yet.
fn answered() -> (Bench, Vec<Output>, Vec<Output>) {
    let mut bench = relayed();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", START).said();
    let offered =
        bench.client(&description("offer", &sdp("cli1", "a=candidate:1 1 udp 1 192.168.7.7 4000 typ host\r\n"))).said();
    let answered = bench.node("o1", &description("answer", &sdp("srv1", ""))).said();
    (bench, offered, answered)
}

#[test]
fn a_publish_opens_its_transport_with_both_sides_credentials_and_no_inside_address_passes() {
    let (_, offered, answered) = answered();
    let offer = string_field(texts(&offered)[0].as_bytes(), "sdp").unwrap().into_owned();
    assert!(offer.contains("10.0.0.5 6000") && !offer.contains("192.168.7.7"), "{offer}");
    let answer = string_field(texts(&answered)[0].as_bytes(), "sdp").unwrap().into_owned();
    assert_eq!(sdp::leaks(&answer, &["198.51.100.10".parse().unwrap()]), Vec::<IpAddr>::new(), "{answer}");
    let [Command::Open(spec)] = commands(&answered)[..] else { panic!("{answered:?}") };
    assert_eq!((&*spec.server.ufrag, spec.node, spec.backend_port), ("srv1", NODE, None));
    assert_eq!(spec.client.as_ref().map(|client| &*client.ufrag), Some("cli1"));
}

#[test]
fn the_nodes_first_usable_candidate_becomes_ours_and_the_others_are_swallowed() {
    let (mut bench, _, _) = answered();
    for useless in
        ["", "candidate:1 1 tcp 1 10.0.1.1 51000 typ host tcptype passive", "candidate:2 1 udp 1 10.0.1.1 22 typ host"]
    {
        assert_eq!(bench.node("o1", &candidate(useless)).said(), [], "{useless}");
    }
    let said = bench.node("o1", &candidate("candidate:3 1 udp 1 10.0.1.1 53011 typ host")).said();
    assert!(matches!(commands(&said)[..], [Command::SetBackend { port: 53011, .. }]), "{said:?}");
    let ours = string_field(texts(&said)[0].as_bytes(), "candidate").unwrap();
    assert!(ours.contains("198.51.100.10 5000 typ host") && ours.contains("ufrag srv1"), "{ours}");
    assert_eq!(texts(&bench.node("o1", &candidate("candidate:4 1 udp 1 172.17.0.1 53012 typ host")).said()).len(), 0);
    assert_eq!(
        bench.client(&candidate("candidate:1 1 udp 1 192.168.7.7 4000 typ host")).said(),
        [],
        "a client's count for nothing"
    );
}

#[test]
fn candidates_that_come_before_the_answer_are_not_lost() {
    let mut bench = relayed();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", START).said();
    bench.client(&description("offer", &sdp("cli1", ""))).said();
    assert_eq!(bench.node("o1", &candidate("candidate:3 1 udp 1 10.0.1.1 53011 typ host")).said(), []);
    let said = bench.node("o1", &description("answer", &sdp("srv1", ""))).said();
    let [Command::Open(spec)] = commands(&said)[..] else { panic!("{said:?}") };
    assert_eq!(spec.backend_port, Some(53011));
    let answer = string_field(texts(&said)[0].as_bytes(), "sdp").unwrap();
    assert!(answer.contains("198.51.100.10 5000 typ host") && answer.contains("a=end-of-candidates"), "{answer}");
}

#[test]
fn a_play_opens_at_the_offer_and_learns_the_client_from_the_answer() {
    let mut bench = relayed();
    bench.client(PLAY).place_on("e1").up("e1").said();
    let said = bench
        .node("e1", &description("offer", &sdp("srv1", "a=candidate:3 1 udp 1 10.0.1.1 53011 typ host\r\n")))
        .said();
    let [Command::Open(spec)] = commands(&said)[..] else { panic!("{said:?}") };
    assert_eq!((spec.client.is_none(), spec.backend_port), (true, Some(53011)));
    let id = spec.id;
    let said = bench.client(&description("answer", &sdp("cli1", ""))).said();
    assert!(matches!(commands(&said)[..], [Command::SetClient { id: set, .. }] if *set == id), "{said:?}");
    // A renegotiation under the same ICE credentials is the same transport; a restart is another one.
    assert_eq!(commands(&bench.node("e1", &description("offer", &sdp("srv1", ""))).said()).len(), 0);
    let said = bench.node("e1", &description("offer", &sdp("srv2", ""))).said();
    assert!(matches!(commands(&said)[..], [Command::Open(spec)] if spec.id != id && spec.line == 1), "{said:?}");
    assert!(
        matches!(commands(&said)[..], [Command::Open(spec)] if spec.client.is_none()),
        "its answer is still to come"
    );
}

#[test]
fn a_publishers_restart_leaves_the_old_generation_alone_until_the_node_has_answered() {
    let (mut bench, _, answered) = answered();
    let [Command::Open(before)] = commands(&answered)[..] else { panic!("{answered:?}") };
    let offered = bench.client(&description("offer", &sdp("cli2", ""))).said();
    assert_eq!(commands(&offered).len(), 0, "the new credentials are not the old generation's: {offered:?}");
    let host = "a=candidate:3 1 udp 1 10.0.1.1 53011 typ host\r\n";
    let answered = bench.node("o1", &description("answer", &sdp("srv2", host))).said();
    let [Command::Open(after)] = commands(&answered)[..] else { panic!("{answered:?}") };
    assert_eq!((after.line, after.backend_port), (before.line, Some(53011)));
    assert_eq!(after.client.as_ref().map(|client| &*client.ufrag), Some("cli2"));
}

#[test]
fn a_leg_that_ends_or_leaves_its_node_ends_its_transports() {
    let (mut bench, _, answered) = answered();
    let [Command::Open(spec)] = commands(&answered)[..] else { panic!("{answered:?}") };
    assert!(commands(&bench.client(STOP).said()).contains(&&Command::Close(spec.id)));
    let (mut bench, _, answered) = self::answered();
    let [Command::Open(spec)] = commands(&answered)[..] else { panic!("{answered:?}") };
    let said = bench.take(Input::LinkDown(id("o1"), LinkLoss::Io)).said();
    assert!(commands(&said).contains(&&Command::Close(spec.id)), "{said:?}");
}

#[test]
fn a_description_that_cannot_be_relayed_is_refused_and_its_node_told_to_stop() {
    let mut bench = relayed();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", START).said();
    let said = bench.client(&description("offer", "v=0\r\nm=audio 9 RTP/AVP 0\r\n")).said();
    assert!(said.contains(&to_node("o1", r#"{"command":"stop","streamId":"s"}"#)), "{said:?}");
    assert!(said.iter().any(|output| matches!(output, Output::ToClient(text) if text.as_bytes().windows(23).any(|at| at == b"notSetRemoteDescription"))));
}

const HOST: &str = "a=candidate:3 1 udp 1 10.0.1.1 53011 typ host\r\n";
const PUBLISH_STARTED: &str = r#"{"command":"notification","definition":"publish_started","streamId":"s"}"#;
const PUBLISH_FINISHED: &str = r#"{"command":"notification","definition":"publish_finished","streamId":"s"}"#;

fn opened(said: &[Output]) -> &relay::TransportSpec {
    let opened: Vec<_> = commands(said)
        .into_iter()
        .filter_map(|command| if let Command::Open(spec) = command { Some(spec) } else { None })
        .collect();
    let [spec] = opened[..] else { panic!("{said:?}") };
    spec
}

/// The publish moves to `to`, and its client, who calls itself `client`, offers again; gives what the answer gives rise to.
fn moves(bench: &mut Bench, from: &str, to: &str, client: &str, answer: &str) -> Vec<Output> {
    bench.node(from, PUBLISH_STARTED);
    bench.take(Input::Move { node: id(from), stream: "s".parse().unwrap(), kind: Kind::Publish });
    bench.place_on(to).up(to).node(from, PUBLISH_FINISHED).node(to, START);
    bench.client(&description("offer", &sdp(client, ""))).said();
    bench.node(to, &description("answer", &sdp(answer, HOST))).said()
}

fn shown(said: &[Output]) -> String {
    string_field(texts(said)[0].as_bytes(), "sdp").unwrap().into_owned()
}

#[test]
fn a_publisher_that_is_moved_goes_on_with_the_names_that_it_knows_however_often() {
    let (mut bench, _, answered) = answered();
    let mut before = opened(&answered).id;
    for (from, to, answer) in [("o1", "o2", "srv2"), ("o2", "o3", "srv3")] {
        let said = moves(&mut bench, from, to, "cli1", answer);
        let spec = opened(&said);
        let succeeds = spec.succeeds.as_ref().unwrap();
        assert_eq!((succeeds.id, &*succeeds.shown.ufrag, &*spec.server.ufrag), (before, "srv1", answer));
        assert!(shown(&said).contains("a=ice-ufrag:srv1\r\n") && !shown(&said).contains(answer), "{}", shown(&said));
        before = spec.id;
    }
}

#[test]
fn a_moved_publishers_candidate_bears_the_name_that_it_knows() {
    let (mut bench, _, _) = answered();
    bench.node("o1", PUBLISH_STARTED).take(Input::LinkDown(id("o1"), LinkLoss::Io));
    bench.place_on("o2").up("o2").node("o2", START).client(&description("offer", &sdp("cli1", ""))).said();
    let said = bench.node("o2", &description("answer", &sdp("srv2", ""))).said();
    assert!(opened(&said).succeeds.is_some());
    let said = bench.node("o2", &candidate("candidate:3 1 udp 1 10.0.1.1 53011 typ host")).said();
    let ours = string_field(texts(&said)[0].as_bytes(), "candidate").unwrap();
    assert!(ours.contains("ufrag srv1"), "{ours}");
}

#[test]
fn a_moved_publisher_that_restarts_ice_by_itself_begins_anew() {
    let (mut bench, _, _) = answered();
    let said = moves(&mut bench, "o1", "o2", "cli2", "srv2");
    assert_eq!(opened(&said).succeeds, None);
    assert!(shown(&said).contains("a=ice-ufrag:srv2\r\n"), "{}", shown(&said));
}

#[test]
fn a_viewer_that_is_moved_sees_no_restart_and_its_own_later_one_is_one() {
    let mut bench = relayed();
    bench.client(PLAY).place_on("e1").up("e1");
    bench.node("e1", &description("offer", &sdp("srv1", HOST))).client(&description("answer", &sdp("cli1", ""))).said();
    bench.take(Input::Move { node: id("e1"), stream: "s".parse().unwrap(), kind: Kind::Play });
    bench.place_on("e2").up("e2").said();
    let said = bench.node("e2", &description("offer", &sdp("srv2", HOST))).said();
    assert_eq!(opened(&said).succeeds.as_ref().map(|before| &*before.shown.ufrag), Some("srv1"));
    let offer = texts(&said).into_iter().find_map(|text| string_field(text.as_bytes(), "sdp")).unwrap();
    assert!(
        offer.contains("a=ice-ufrag:srv1\r\n") && offer.contains("a=ice-pwd:0123456789abcdef01234567\r\n"),
        "{offer}"
    );
    bench.client(&description("answer", &sdp("cli1", ""))).said();
    let said = bench.node("e2", &description("offer", &sdp("srv3", HOST))).said();
    assert_eq!(opened(&said).succeeds, None, "a node that restarts ICE means it");
    assert!(shown(&said).contains("a=ice-ufrag:srv3\r\n"));
}
