//! The SDP rewriter against stacks that it was not written with: their parsers read what it reads, and their peers take
//! what it writes.

use std::{
    collections::BTreeSet,
    fs,
    io::Cursor,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Instant,
};

use forebay::domain::sdp::{self, Description, PublicCandidate, Transport};
use rtc::{
    ice::candidate::unmarshal_candidate,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder, configuration::media_engine::MediaEngine,
        sdp::RTCSessionDescription, transport::RTCIceCandidateInit,
    },
    rtp_transceiver::rtp_sender::RtpCodecKind,
    sdp::description::session::SessionDescription,
};
use str0m::{
    Candidate, Rtc, RtcConfig,
    change::{SdpAnswer, SdpOffer},
    media::{Direction, MediaKind},
};

const NODE_PORTS: std::ops::RangeInclusive<u16> = 50_000..=60_000;
const PUBLIC: &str = "198.51.100.10:5000";
const PRIVATE: &str = "10.0.0.5:6000";
const NO_ONE: [IpAddr; 0] = [];

#[test]
fn another_parser_reads_the_same_credentials_sections_and_candidates() {
    let goldens = goldens();
    assert!(goldens.len() >= 15, "all stacks are there");
    for (name, text) in goldens {
        let (out, description) = sdp::to_client(&text, &ours(), &NODE_PORTS).expect("golden descriptions pass");
        same_reading(&name, &text, &description);
        let (_, again) = sdp::to_client(&out, &ours(), &NODE_PORTS).expect("what was rewritten passes");
        same_reading(&format!("{name}, rewritten"), &out, &again);
        let candidates = |text: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
            lines
                .map(|line| unmarshal_candidate(line).expect("a candidate").address().to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(candidates(&out), BTreeSet::from(["198.51.100.10".to_owned()]), "{name}");
    }
}

#[test]
fn a_webrtc_rs_offer_and_a_str0m_answer_cross_the_door() {
    let (mut client, mut node) = (webrtc_rs("192.168.0.7:40001"), str0m("10.0.1.20:53011"));
    let offer = client.create_offer(None).expect("an offer");
    client.set_local_description(Instant::now(), offer).expect("its own offer");
    let offer = client.local_description().expect("an offer").sdp;

    let (to_node, said) = sdp::to_node(&offer, Some(address(PRIVATE))).expect("the offer passes");
    assert!(!to_node.contains("192.168.0.7") && to_node.contains("10.0.0.5 6000 typ host"), "{to_node}");
    let to_node = SdpOffer::from_sdp_string(&to_node).expect("str0m reads it");
    let answer = node.sdp_api().accept_offer(to_node).expect("str0m takes it").to_sdp_string();
    let (to_client, answered) = sdp::to_client(&answer, &ours(), &NODE_PORTS).expect("the answer passes");
    assert_eq!(sdp::leaks(&to_client, &[address(PUBLIC).ip()]), NO_ONE, "{to_client}");
    let to_client = RTCSessionDescription::answer(to_client).expect("webrtc-rs reads it");
    client.set_remote_description(Instant::now(), to_client).expect("webrtc-rs takes it");

    assert_eq!(answered.port_of(0, None, address("10.0.1.20:0").ip()), Some(53011));
    assert_eq!(answered.peers(&said), [Some(&said.transports[0])]);
}

#[test]
fn a_str0m_offer_and_a_webrtc_rs_answer_cross_the_door() {
    let (mut client, mut node) = (webrtc_rs("192.168.0.7:40001"), str0m("10.0.1.20:53011"));
    let mut changes = node.sdp_api();
    changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
    changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
    changes.add_channel("data".to_owned());
    let (offer, pending) = changes.apply().expect("there are changes");

    let (to_client, offered) = sdp::to_client(&offer.to_sdp_string(), &ours(), &NODE_PORTS).expect("the offer passes");
    assert_eq!(sdp::leaks(&to_client, &[address(PUBLIC).ip()]), NO_ONE, "{to_client}");
    let to_client = RTCSessionDescription::offer(to_client).expect("webrtc-rs reads it");
    client.set_remote_description(Instant::now(), to_client).expect("webrtc-rs takes it");
    let answer = client.create_answer(None).expect("an answer");
    client.set_local_description(Instant::now(), answer).expect("its own answer");
    let answer = client.local_description().expect("an answer").sdp;
    let (to_node, said) = sdp::to_node(&answer, Some(address(PRIVATE))).expect("the answer passes");
    let to_node = SdpAnswer::from_sdp_string(&to_node).expect("str0m reads it");
    node.sdp_api().accept_answer(pending, to_node).expect("str0m takes it");

    assert_eq!(offered.port_of(0, Some(&said), address("10.0.1.20:0").ip()), Some(53011));
    assert_eq!(offered.peers(&said), [Some(&said.transports[0])]);
}

#[test]
fn two_answers_out_of_two_offers_are_read_by_other_stacks_as_they_are_meant() {
    let goldens = goldens();
    let offers: Vec<_> = goldens.iter().filter(|(name, _)| name.contains("offer")).collect();
    let mut answered = 0;
    for (client_name, client) in &offers {
        for (node_name, node) in &offers {
            let Ok(answers) = sdp::answer_both(client, node) else { continue };
            answered += 1;
            for answer in [&answers.to_client, &answers.to_node] {
                let what = format!("{client_name} watches {node_name}");
                let (_, description) = sdp::to_client(answer, &[], &NODE_PORTS).expect("an answer is a description");
                same_reading(&what, answer, &description);
                SdpAnswer::from_sdp_string(answer).unwrap_or_else(|error| panic!("{what}: {error}\n{answer}"));
            }
        }
    }
    assert!(answered >= 20, "most stacks can watch each other: {answered}");
}

#[track_caller]
fn same_reading(name: &str, text: &str, ours: &Description) {
    let theirs = SessionDescription::unmarshal(&mut Cursor::new(text)).expect("golden descriptions are SDP");
    let media = &theirs.media_descriptions;
    assert_eq!(ours.media.len(), media.len(), "{name}");
    for (ours_at, (one, theirs_at)) in ours.media.iter().zip(media).enumerate() {
        let attribute = |key: &str| {
            let session = theirs.attributes.iter().find(|one| one.key == key).and_then(|one| one.value.as_deref());
            theirs_at.attribute(key).flatten().or(session)
        };
        assert_eq!(one.mid.as_deref(), attribute("mid"), "{name}, section {ours_at}");
        let is_rejected = theirs_at.media_name.port.value == 0 && !theirs_at.has_attribute("bundle-only");
        assert_eq!(one.transport.is_none(), is_rejected, "{name}, section {ours_at}");
        if let Some(transport) = one.transport {
            let transport = &ours.transports[transport];
            assert_eq!(Some(&*transport.ufrag), attribute("ice-ufrag"), "{name}, section {ours_at}");
            assert_eq!(Some(&*transport.pwd), attribute("ice-pwd"), "{name}, section {ours_at}");
        }
    }
}

fn goldens() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sdp");
    let paths = fs::read_dir(folder).expect("golden descriptions").map(|entry| entry.expect("an entry").path());
    let read = |path: std::path::PathBuf| (path.display().to_string(), fs::read_to_string(&path).expect("text"));
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "sdp")).map(read).collect()
}

fn webrtc_rs(host: &str) -> RTCPeerConnection {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().expect("codecs");
    let mut peer =
        RTCPeerConnectionBuilder::new().with_media_engine(engine).build(Instant::now()).expect("a peer connection");
    peer.add_transceiver_from_kind(RtpCodecKind::Audio, None).expect("audio");
    peer.add_transceiver_from_kind(RtpCodecKind::Video, None).expect("video");
    peer.create_data_channel("data", None).expect("a data channel");
    let host = address(host);
    let candidate = format!("candidate:1 1 udp 2130706431 {} {} typ host", host.ip(), host.port());
    let init = RTCIceCandidateInit { candidate, ..RTCIceCandidateInit::default() };
    peer.add_local_candidate(init).expect("a candidate");
    peer
}

fn str0m(host: &str) -> Rtc {
    let crypto = Arc::new(str0m::crypto::from_feature_flags());
    let mut peer = RtcConfig::new().set_crypto_provider(crypto).build(Instant::now());
    peer.add_local_candidate(Candidate::host(address(host), "udp").expect("a candidate"));
    peer
}

fn ours() -> [PublicCandidate; 1] {
    [PublicCandidate { address: address(PUBLIC), transport: Transport::Udp }]
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
