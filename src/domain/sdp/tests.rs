//! Promises about whole descriptions, held over what eight WebRTC stacks write.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use proptest::{prelude::*, sample::Index};

use super::*;

const NODE_PORTS: RangeInclusive<u16> = 50_000..=60_000;
const NO_ONE: [IpAddr; 0] = [];

macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../tests/golden/sdp/", $name, ".sdp")))),*]
    };
}

const GOLDEN: [(&str, &str); 15] = golden![
    "aiortc-offer",
    "ams-answer",
    "ams-offer",
    "chromium-answer",
    "chromium-offer",
    "chromium-restart",
    "firefox-answer",
    "firefox-offer",
    "gstreamer-offer",
    "obs-whip-offer",
    "str0m-answer",
    "str0m-offer",
    "unbundled-offer",
    "webrtc-rs-answer",
    "webrtc-rs-offer",
];

#[test]
fn what_holds_no_address_passes_byte_for_byte() {
    for (name, sdp) in GOLDEN {
        for out in both_ways(sdp) {
            assert_eq!(untouched(&out), untouched(sdp), "{name}");
            assert_eq!(out.contains('\r'), sdp.contains('\r'), "{name} keeps its line endings");
        }
    }
}

#[test]
fn rewriting_twice_is_rewriting_once() {
    for (name, sdp) in GOLDEN {
        let (client, _) = to_client(sdp, &ours(), &NODE_PORTS).unwrap();
        let (node, _) = to_node(sdp, Some(private())).unwrap();

        assert_eq!(to_client(&client, &ours(), &NODE_PORTS).unwrap().0, client, "{name}");
        assert_eq!(to_node(&node, Some(private())).unwrap().0, node, "{name}");
    }
}

#[test]
fn no_golden_description_lets_an_address_out() {
    for (name, sdp) in GOLDEN {
        assert_eq!(leaks(&to_client(sdp, &ours(), &NODE_PORTS).unwrap().0, &public_addresses()), NO_ONE, "{name}");
        assert_eq!(leaks(&to_node(sdp, Some(private())).unwrap().0, &[private().ip()]), NO_ONE, "{name}");
        assert_eq!(leaks(&to_node(sdp, None).unwrap().0, &[]), NO_ONE, "{name}");
    }
}

#[test]
fn each_transport_gets_the_doors_candidates_once() {
    for (name, sdp) in GOLDEN {
        let (out, description) = to_client(sdp, &ours(), &NODE_PORTS).unwrap();
        let tagged = description.media.iter().filter(|media| media.tagged).count();
        let lines = |out: &str, line: &str| out.lines().filter(|one| *one == line).count();

        assert_eq!(tagged, if name == "unbundled-offer" { 2 } else { 1 }, "{name}");
        for line in [
            "a=candidate:1 1 udp 2130706431 198.51.100.10 5000 typ host",
            "a=candidate:2 1 udp 2130706430 2001:db8::10 5000 typ host",
            "a=candidate:3 1 tcp 1518280447 198.51.100.10 443 typ host tcptype passive",
            "a=end-of-candidates",
        ] {
            assert_eq!(lines(&out, line), tagged, "{name}: {line}");
        }
        assert_eq!(out.matches("a=candidate").count(), 3 * tagged, "{name}");

        let (out, _) = to_node(sdp, Some(private())).unwrap();
        assert_eq!(lines(&out, "a=candidate:1 1 udp 2130706431 10.0.0.5 6000 typ host"), tagged, "{name}");
        assert_eq!(out.matches("a=candidate").count(), tagged, "{name}");
        assert_eq!(out.matches("a=end-of-candidates").count(), 0, "{name}");
    }
}

#[test]
fn candidates_that_will_be_trickled_are_not_declared_complete() {
    for (name, sdp) in GOLDEN {
        let (out, _) = to_client(sdp, &[], &NODE_PORTS).unwrap();

        assert_eq!(to_node(sdp, None).unwrap().0, out, "{name}");
        assert!(!out.contains("candidate"), "{name}");
    }
}

#[test]
fn a_node_that_offers_several_interfaces_is_read_as_it_means_it() {
    let (out, offer) = to_client(golden("ams-offer"), &ours(), &NODE_PORTS).unwrap();

    assert_eq!(ufrags(&offer), ["vYna"]);
    assert_eq!(&*offer.transports[0].pwd, "Oc1mxQX8rIJrD1J0Q1u1d9Zc");
    assert_eq!(kinds(&offer), [MediaKind::Video, MediaKind::Audio, MediaKind::Application]);
    // Not the server-reflexive one, nor TCP, nor the port below the node's range.
    let ports: Vec<_> = offer.candidates.iter().map(|one| (one.section, one.port)).collect();
    assert_eq!(ports, [(Some(0), 51012), (Some(0), 51044), (Some(1), 52199), (Some(2), 50310)]);
    assert_eq!(offer.port_of(0, None, ip("10.0.1.20")), Some(51044), "the node's own address is preferred");
    assert_eq!(offer.port_of(0, None, ip("10.0.1.99")), Some(51012), "else the first");
    assert!(out.starts_with("v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\n"));
    assert!(out.contains("\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"));
    let at = out.find("a=candidate").unwrap();
    assert!(out[..at].ends_with("a=ssrc:305419896 cname:Vq0Tg4Z2HDEEmRzU\r\n"), "at the end of the tagged section");
}

#[test]
fn the_answer_decides_which_port_of_an_offer_is_in_use() {
    let (_, offer) = to_client(golden("ams-offer"), &ours(), &NODE_PORTS).unwrap();
    let (_, answer) = to_node(golden("firefox-answer"), None).unwrap();

    // The answer rejects the first section, so the second one leads the bundle.
    assert_eq!(answer.media[0].transport, None);
    assert!(answer.media[1].tagged);
    assert_eq!(offer.port_of(0, Some(&answer), ip("10.0.1.20")), Some(52199));
    let peers = offer.peers(&answer);
    assert_eq!(peers.len(), 1);
    assert_eq!(peers[0].map(|peer| &*peer.ufrag), Some("c0ffee42"));
}

#[test]
fn an_offer_whose_sections_have_credentials_of_their_own_has_a_transport_for_each() {
    let (out, offer) = to_node(golden("firefox-offer"), Some(private())).unwrap();

    assert_eq!(ufrags(&offer), ["5d1fa0c9", "a20b77e1", "77e1a20b"]);
    assert_eq!(offer.candidates, [], "a client's candidates count for nothing");
    assert!(offer.media[0].tagged && !offer.media[1].tagged && !offer.media[2].tagged);
    assert!(out.contains("\r\nm=application 0 UDP/DTLS/SCTP"), "what came with port 0 keeps it");
    let (_, answer) = to_client(golden("ams-answer"), &ours(), &NODE_PORTS).unwrap();
    assert_eq!(answer.peers(&offer)[0].map(|peer| &*peer.ufrag), Some("5d1fa0c9"));
}

#[test]
fn without_a_bundle_each_section_is_a_transport() {
    let (_, offer) = to_client(golden("unbundled-offer"), &ours(), &NODE_PORTS).unwrap();

    assert_eq!(ufrags(&offer), ["ETEn", "BGKk"]);
    assert_eq!([0, 1].map(|at| offer.port_of(at, None, ip("192.0.2.4"))), [Some(51556), Some(51558)]);
    assert_eq!(offer.port_of(2, None, ip("192.0.2.4")), None);
}

#[test]
fn free_text_is_left_alone() {
    let (out, _) = to_client(golden("unbundled-offer"), &ours(), &NODE_PORTS).unwrap();

    assert!(out.contains("\ns=A session on 10.9.8.7\n"));
}

#[test]
fn credentials_of_the_session_level_hold_for_every_section() {
    let (_, offer) = to_node(golden("obs-whip-offer"), None).unwrap();

    assert_eq!(ufrags(&offer), ["Rp4X"]);
    assert!(offer.media.iter().all(|media| media.transport == Some(0)));
}

#[test]
fn an_ice_restart_is_just_another_description() {
    let (_, before) = to_node(golden("chromium-offer"), None).unwrap();
    let (_, after) = to_node(golden("chromium-restart"), None).unwrap();

    assert_ne!(ufrags(&before), ufrags(&after));
    assert_eq!(before.media.len(), after.media.len());
}

#[test]
fn rejected_sections_stay_rejected() {
    let (out, answer) = to_client(golden("ams-answer"), &ours(), &NODE_PORTS).unwrap();

    assert!(out.contains("\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\n"));
    assert_eq!(answer.media.iter().map(|media| media.transport).collect::<Vec<_>>(), [Some(0), Some(0), None]);
}

#[test]
fn a_trickled_candidate_belongs_to_its_section_and_generation() {
    let (_, mut answer) = to_client(golden("ams-answer"), &ours(), &NODE_PORTS).unwrap();
    let usable = |line: &str| match trickled(line, &NODE_PORTS) {
        Trickled::Usable(candidate) => candidate,
        other => panic!("{line}: {other:?}"),
    };
    let ours = usable("candidate:1 1 udp 2122194687 10.0.1.20 53011 typ host generation 0 ufrag yQ8k network-id 1");
    let old = usable("candidate:1 1 udp 2122194687 10.0.1.20 53012 typ host generation 0 ufrag OLDG");
    let silent = usable("candidate:1 1 udp 2122194687 10.0.1.21 53013 typ host");

    assert_eq!(answer.port_of(0, None, ip("10.0.1.20")), None);
    assert!(!answer.add(old, Some("0"), Some(0)), "of an earlier generation");
    assert!(answer.add(silent.clone(), Some("1"), Some(0)), "the mid is believed before the index");
    assert!(!answer.add(silent.clone(), Some("1"), None), "already there");
    assert_eq!(answer.port_of(0, None, ip("10.0.1.20")), None, "the second section's port is never used");
    assert!(answer.add(ours.clone(), None, Some(0)));
    assert_eq!(answer.port_of(0, None, ip("10.0.1.20")), Some(53011));
    for (mid, section) in [(Some("2"), None), (None, Some(2)), (None, Some(9)), (None, None)] {
        assert!(!answer.add(silent.clone(), mid, section), "{mid:?} {section:?} is rejected or unknown");
    }
    for port in 0..200 {
        answer.add(NodeCandidate { port, ..silent.clone() }, Some("0"), None);
    }
    assert_eq!(answer.candidates.len(), MAX_CANDIDATES);
}

#[test]
fn what_ice_forbids_is_refused() {
    let sdp = |ufrag: &str, pwd: &str| {
        format!("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=audio 9 RTP 0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n")
    };
    let refused = |sdp: String| to_node(&sdp, None).map(|_| ()).unwrap_err();
    let (longest, too_long) = ("a".repeat(256), "a".repeat(257));
    let pwd = "p".repeat(22);

    assert!(to_node(&sdp(&longest, &longest), None).is_ok());
    assert!(to_node(&sdp("a+/9", &pwd), None).is_ok());
    for (ufrag, pwd) in [("abc", &pwd), (&too_long, &pwd), ("abcd", &pwd[1..].to_owned()), ("abcd", &too_long)] {
        assert_eq!(refused(sdp(ufrag, pwd)), SdpError::BadCredentials, "{ufrag} {pwd}");
    }
    for ufrag in ["a:cd", "a cd", "äbcd", "ab\tcd", ""] {
        assert_eq!(refused(sdp(ufrag, &pwd)), SdpError::BadCredentials, "{ufrag:?}");
    }
    let twice = sdp("abcd", &pwd) + "a=ice-pwd:" + &"q".repeat(22) + "\r\n";
    assert_eq!(refused(twice), SdpError::BadCredentials, "two passwords in a section");
    let other_section = sdp("abcd", &pwd) + "m=video 9 RTP 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:" + &"q".repeat(22);
    assert_eq!(refused(other_section), SdpError::BadCredentials, "two passwords of a user fragment");
    assert_eq!(refused("v=0\r\nm=audio 9 RTP 0\r\n".into()), SdpError::NoCredentials);
    assert_eq!(refused("v=0\r\nm=audio 9 RTP 0\r\na=ice-ufrag:abcd\r\n".into()), SdpError::NoCredentials);
    assert_eq!(refused(sdp("abcd", &pwd).replace("audio 9", "audio 0")), SdpError::NoCredentials, "nothing in use");
    assert_eq!(refused(String::new()), SdpError::NoCredentials);
}

#[test]
fn more_than_the_named_limits_is_refused() {
    let head = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let with = |line: &str, times: usize| to_node(&(head.to_owned() + &line.repeat(times)), None).map(|_| ());
    let candidate = "a=candidate:1 1 udp 1 10.0.0.1 50000 typ host\r\n";
    let section = "m=audio 9 RTP 0\r\n";

    assert_eq!(with(section, MAX_SECTIONS), Ok(()));
    assert_eq!(with(section, MAX_SECTIONS + 1), Err(SdpError::TooManySections));
    assert_eq!(with(candidate, MAX_CANDIDATES + 1), Err(SdpError::TooManyCandidates));
    assert_eq!(with(&(section.to_owned() + &candidate.repeat(MAX_CANDIDATES)), 1), Ok(()));
    assert_eq!(with("a", MAX_SDP), Err(SdpError::TooLarge));
    for line in [
        "hello\r\n",
        " a=x\r\n",
        "A=x\r\n",
        "m=audio\r\n",
        "m=audio 9\r\n",
        "m=audio x RTP 0\r\n",
        "a=x\0\r\n",
        "a=x\ra=y\r\n",
        "\r\r\n",
    ] {
        assert_eq!(with(line, 1), Err(SdpError::Malformed), "{line:?}");
    }
    assert_eq!(with("m=audio 65536 RTP 0\r\n", 1), Err(SdpError::Malformed));
    assert_eq!(with("m=audio 9 RTP 0\r\no=nobody\r\n", 1), Err(SdpError::Malformed));
}

#[test]
fn passwords_are_never_shown() {
    let (_, offer) = to_node(golden("ams-offer"), None).unwrap();

    assert!(!format!("{offer:?}").contains(&*offer.transports[0].pwd));
}

#[test]
fn fragments_are_rewritten_like_descriptions() {
    let trickle = "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
        a=candidate:1387637174 1 udp 2122260223 192.168.0.7 55231 typ host generation 0 ufrag EsAw network-id 1\r\n\
        a=end-of-candidates\r\n";
    let restart = "a=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
        a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n\
        a=candidate:1 1 udp 2122260223 10.0.1.20 51000 typ host\r\n";

    let (out, fragment) = frag_to_node(trickle, None).unwrap();
    assert_eq!(out, "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n");
    assert_eq!((fragment.transports.len(), fragment.candidates.len()), (0, 0));
    let (out, fragment) = frag_to_client(restart, &ours()[..1], &NODE_PORTS).unwrap();
    assert_eq!(ufrags(&fragment), ["ysXw"]);
    assert_eq!(fragment.port_of(0, None, ip("10.0.1.20")), Some(51000));
    let kept = restart.split_once("a=candidate").unwrap().0.to_owned();
    let added = "a=candidate:1 1 udp 2130706431 198.51.100.10 5000 typ host\r\na=end-of-candidates\r\n";
    assert_eq!(out, kept + added);
    let (_, fragment) = frag_to_client(trickle, &ours(), &NODE_PORTS).unwrap();
    assert_eq!(fragment.candidates[0].ufrag.as_deref(), Some("EsAw"), "without credentials the candidate says whose");
    assert_eq!(frag_to_node("", None).unwrap().0, "");
    assert_eq!(frag_to_node("a=ice-ufrag:x\r\n", None).map(|_| ()), Err(SdpError::BadCredentials));
}

proptest! {
    #[test]
    fn no_address_leaves_wherever_an_sdp_can_carry_one(
        base in any::<Index>(),
        planted in prop::collection::vec((any::<Index>(), 0..PLACES, inside_address()), 1..8),
    ) {
        let (name, sdp) = GOLDEN[base.index(GOLDEN.len())];
        let mut text = sdp.to_owned();
        for (at, place, address) in &planted {
            text = plant(&text, *at, *place, *address);
        }
        let mut allowed = public_addresses();
        let (client, description) = to_client(&text, &ours(), &NODE_PORTS).unwrap();
        prop_assert_eq!(leaks(&client, &allowed), NO_ONE, "{} to the client", name);
        allowed.push(private().ip());
        let (node, _) = to_node(&text, Some(private())).unwrap();
        prop_assert_eq!(leaks(&node, &allowed), NO_ONE, "{} to the node", name);
        // The same by plain search, which shares nothing with the leak check.
        let shown = |address: &IpAddr| {
            let written = format!(" {address}");
            client.lines().any(|line| !line.starts_with("s=") && line.contains(&written))
        };
        prop_assert!(!planted.iter().any(|(_, _, address)| shown(address)), "{}", client);
        prop_assert_eq!(untouched(&client), untouched(&text));
        prop_assert!(description.candidates.iter().all(|one| NODE_PORTS.contains(&one.port)));
        prop_assert_eq!(to_client(&client, &ours(), &NODE_PORTS).unwrap().0, client);
    }

    #[test]
    fn a_leak_is_seen(
        address in inside_address(),
        base in any::<Index>(),
        at in any::<Index>(),
        prefix in "(|x-[a-z]{1,5}:|[a-z:= ]{0,6} )",
    ) {
        let (_, sdp) = GOLDEN[base.index(GOLDEN.len())];
        let (mut text, _) = to_client(sdp, &ours(), &NODE_PORTS).unwrap();
        let line = at.index(text.lines().count());
        let offset: usize = lines::lines(&text).take(line).map(|line| line.body.len() + line.ending.len()).sum();
        text.insert_str(offset, &format!("a={prefix}{address}\r\n"));
        prop_assert!(leaks(&text, &public_addresses()).contains(&address.to_canonical()), "a={}{}", prefix, address);
    }

    #[test]
    fn every_way_of_ending_lines_is_kept(
        base in any::<Index>(),
        ending in prop::sample::select(vec!["\r\n", "\n"]),
        ended: bool,
        blanks in 0..3usize,
    ) {
        let (_, sdp) = GOLDEN[base.index(GOLDEN.len())];
        let mut text = sdp.lines().collect::<Vec<_>>().join(ending);
        if ended {
            text.push_str(&ending.repeat(1 + blanks));
        }
        let (out, _) = to_client(&text, &ours(), &NODE_PORTS).unwrap();
        prop_assert!(lines::lines(&out).filter(|line| !line.ending.is_empty()).all(|line| line.ending == ending));
        prop_assert_eq!(out.ends_with(ending), ended);
        prop_assert_eq!(to_client(&out, &ours(), &NODE_PORTS).unwrap().0, out);
    }

    #[test]
    fn no_text_makes_the_rewriter_panic(
        text in "([acmos]=|candidate:|a=ice-ufrag:abcd|m=audio 9 x |0|\\[|::|[ \r\n:.]|\\PC){0,60}",
    ) {
        survives(&text);
    }

    #[test]
    fn broken_descriptions_are_refused_or_rewritten_but_never_leak_candidates(
        base in any::<Index>(),
        edits in prop::collection::vec((any::<Index>(), any::<char>()), 0..6),
        cut in any::<Index>(),
    ) {
        let (_, sdp) = GOLDEN[base.index(GOLDEN.len())];
        let mut text: Vec<char> = sdp.chars().take(1 + cut.index(sdp.len())).collect();
        for (at, with) in edits {
            let at = at.index(text.len());
            text[at] = with;
        }
        survives(&text.into_iter().collect::<String>());
    }
}

/// Holds for any text at all: what is accepted settles at once, and has no candidates but the door's.
fn survives(text: &str) {
    if let Ok((out, description)) = to_client(text, &ours(), &NODE_PORTS) {
        let tagged = description.media.iter().filter(|media| media.tagged).count();
        assert_eq!(out.matches("a=candidate").count(), ours().len() * tagged + hidden(text));
        assert_eq!(to_client(&out, &ours(), &NODE_PORTS).unwrap().0, out);
        assert!(!description.transports.is_empty() && description.transports.len() <= MAX_SECTIONS);
    }
    if let Ok((out, description)) = frag_to_node(text, Some(private())) {
        assert_eq!(frag_to_node(&out, Some(private())).unwrap(), (out, description));
    }
    leaks(text, &[]);
    parse_candidate(text);
    trickled(text, &NODE_PORTS);
}

/// `a=candidate` that is no attribute: inside another line's value, or the beginning of a longer name.
fn hidden(text: &str) -> usize {
    let lines = lines::lines(text).filter(|line| !line.is_any_of(&["candidate"]));
    lines.map(|line| line.body.matches("a=candidate").count()).sum()
}

/// How many places [`plant`] knows.
const PLACES: usize = 12;

/// Puts an address into one of the places where an SDP can carry one.
fn plant(text: &str, at: Index, place: usize, address: IpAddr) -> String {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let line = match place {
        0 => {
            let origin = text.lines().find(|line| line.starts_with("o=")).unwrap();
            return text.replacen(origin, &format!("o=- 1 2 IN {family} {address}"), 1);
        }
        1 => {
            let name = text.lines().find(|line| line.starts_with("s=")).unwrap();
            return text.replacen(name, &format!("s=at {address}"), 1);
        }
        2 => format!("c=IN {family} {address}"),
        3 => format!("c=IN {family} {address}/127"),
        4 => format!("a=rtcp:50001 IN {family} {address}"),
        5 => format!("a=candidate:1 1 udp 2122194687 {address} 50001 typ host generation 0"),
        6 => format!("a=candidate:2 1 UDP 1685987071 203.0.113.9 50001 typ srflx raddr {address} rport 50001"),
        7 => format!("a=candidate:3 1 udp 41885439 {address} 50001 typ relay raddr {address} rport 1"),
        8 => format!("a=candidate:4 1 tcp 1518214911 {address} 9 typ host tcptype active"),
        9 => format!("a=remote-candidates:1 {address} 50001 2 {address} 50002"),
        10 => format!("a=candidate:5 2 udp 2122194686 {address} 50002 typ host"),
        _ => format!("a=candidate:x {address} not a candidate"),
    };
    let ending = if text.contains('\r') { "\r\n" } else { "\n" };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (before, after) = lines.split_at(1 + at.index(lines.len()));
    before.concat() + &line + ending + &after.concat()
}

prop_compose! {
    fn inside_address()(kind in 0..8u8, low: u64) -> IpAddr {
        let [.., a, b, c] = low.to_be_bytes();
        // None is one that the door itself writes.
        match kind {
            0 => Ipv4Addr::new(10, a, b, c).into(),
            1 => Ipv4Addr::new(172, 16 + a % 16, b, c).into(),
            2 => Ipv4Addr::new(192, 168, a, b).into(),
            3 => Ipv4Addr::new(127, 1, a, b).into(),
            4 => Ipv4Addr::new(169, 254, a, b).into(),
            5 => Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(low)).into(),
            6 => Ipv6Addr::from(0xfe80_u128 << 112 | u128::from(low)).into(),
            _ => Ipv4Addr::new(10, a, b, c).to_ipv6_mapped().into(),
        }
    }
}

fn both_ways(sdp: &str) -> [String; 2] {
    [to_client(sdp, &ours(), &NODE_PORTS).unwrap().0, to_node(sdp, Some(private())).unwrap().0]
}

/// The lines that no rule names.
fn untouched(sdp: &str) -> Vec<&str> {
    const TOUCHED: [&str; 7] =
        ["c=", "o=", "m=", "a=rtcp:", "a=candidate:", "a=end-of-candidates", "a=remote-candidates:"];
    sdp.split_inclusive('\n').filter(|line| !TOUCHED.iter().any(|touched| line.starts_with(touched))).collect()
}

fn golden(name: &str) -> &'static str {
    GOLDEN.iter().find(|(one, _)| *one == name).unwrap().1
}

fn ours() -> [PublicCandidate; 3] {
    let one = |address: &str, transport| PublicCandidate { address: address.parse().unwrap(), transport };
    [
        one("198.51.100.10:5000", Transport::Udp),
        one("[2001:db8::10]:5000", Transport::Udp),
        one("198.51.100.10:443", Transport::TcpPassive),
    ]
}

fn public_addresses() -> Vec<IpAddr> {
    ours().iter().map(|one| one.address.ip()).collect()
}

fn private() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 5], 6000))
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn ufrags(description: &Description) -> Vec<&str> {
    description.transports.iter().map(|one| &*one.ufrag).collect()
}

fn kinds(description: &Description) -> Vec<MediaKind> {
    description.media.iter().map(|media| media.kind).collect()
}
