//! Promises about two answers, held over what eight WebRTC stacks offer.

use proptest::{prelude::*, sample::Index};

use super::{super::leaks, *};

macro_rules! golden {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../../tests/golden/sdp/", $name, ".sdp")))),*]
    };
}

/// Offers that a viewer may make; what they would send does not matter.
const VIEWERS: [(&str, &str); 5] =
    golden!["aiortc-offer", "chromium-offer", "firefox-offer", "str0m-offer", "webrtc-rs-offer"];
/// Offers that a node may make.
const NODES: [(&str, &str); 5] =
    golden!["ams-offer", "chromium-offer", "gstreamer-offer", "str0m-offer", "webrtc-rs-offer"];

#[test]
fn each_answer_has_the_shape_of_its_own_offer() {
    for (client, node, answers) in every_pair() {
        for (offer, answer) in [(client.1, &answers.to_client), (node.1, &answers.to_node)] {
            let (offer, answer) = (Offer::read(offer).unwrap(), Offer::read(answer).unwrap());
            assert_eq!(shape(&offer), shape(&answer), "{} watches {}", client.0, node.0);
        }
    }
}

#[test]
fn each_side_gets_the_others_transport_in_every_section_that_is_used() {
    for (client, node, answers) in every_pair() {
        for (peer, answer) in [(node.1, &answers.to_client), (client.1, &answers.to_node)] {
            let (peer, read) = (Offer::read(peer).unwrap(), Offer::read(answer).unwrap());
            let used = || (0..read.sections.len()).filter(|at| read.description.media[*at].transport.is_some());
            assert!(used().count() >= 1);
            assert_eq!(read.description.transports.len(), 1, "one transport: {answer}");
            let credentials = &read.description.transports[0];
            assert!(peer.description.transports.contains(credentials), "{} watches {}", client.0, node.0);
            for at in used() {
                let own = read.inherited(at, "fingerprint");
                assert!(!own.is_empty());
                assert!((0..peer.sections.len()).any(|other| peer.inherited(other, "fingerprint") == own));
            }
            assert_eq!(read.description.media.iter().filter(|media| media.tagged).count(), 1, "one bundle: {answer}");
        }
    }
}

#[test]
fn one_side_begins_the_handshake_and_the_other_waits() {
    for (_, _, answers) in every_pair() {
        assert!(answers.to_client.contains("a=setup:passive\r\n") && !answers.to_client.contains("a=setup:act"));
        assert!(answers.to_node.contains("a=setup:active\r\n") && !answers.to_node.contains("a=setup:pass"));
    }
    let (client, node) = (viewer("chromium-offer"), of(&NODES, "ams-offer"));
    let refusing = client.replace("a=setup:actpass", "a=setup:passive");
    let answers = answer_both(&refusing, node).unwrap();
    assert!(answers.to_client.contains("a=setup:active\r\n") && answers.to_node.contains("a=setup:passive\r\n"));
    let both_passive = node.replace("a=setup:actpass", "a=setup:passive");
    assert_eq!(answer_both(&refusing, &both_passive), Err(Unanswerable::NothingInCommon));
}

#[test]
fn both_answers_name_the_same_codecs_by_the_clients_numbers() {
    for (client, node, answers) in every_pair() {
        let maps = |text: &str| {
            let mut maps: Vec<String> = accepted(text)
                .iter()
                .flat_map(|section| section.lines())
                .filter(|line| line.starts_with("a=rtpmap:"))
                .map(str::to_owned)
                .collect();
            maps.sort_unstable();
            maps
        };
        let (own, other) = (maps(&answers.to_client), maps(&answers.to_node));
        assert!(!own.is_empty() && own == other, "{} watches {}", client.0, node.0);
        assert!(own.iter().all(|map| client.1.contains(map.as_str())), "{own:?}");
    }
}

#[test]
fn no_mid_extension_and_no_number_that_was_not_offered_by_both() {
    for (client, node, answers) in every_pair() {
        for answer in [&answers.to_client, &answers.to_node] {
            assert!(!answer.contains("sdes:"), "{answer}");
            for line in answer.lines().filter(|line| line.starts_with("a=extmap:")) {
                assert!(client.1.contains(line) && node.1.contains(line), "{line}");
            }
        }
    }
}

#[test]
fn a_browser_watches_ams_in_its_own_numbers() {
    let Answers { to_client, to_node } = answer_both(viewer("chromium-offer"), of(&NODES, "ams-offer")).unwrap();

    for line in [
        "a=ice-ufrag:vYna",
        "a=ice-pwd:Oc1mxQX8rIJrD1J0Q1u1d9Zc",
        "m=video 9 UDP/TLS/RTP/SAVPF 108 109",
        "a=rtpmap:108 H264/90000",
        "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "a=fmtp:109 apt=108",
        "a=rtcp-fb:108 transport-cc",
        "a=ssrc-group:FID 3735928559 305419896",
        "a=ssrc:2596996162 cname:Vq0Tg4Z2HDEEmRzU",
        "a=msid:stream1 ARDAMSvstream1",
        "a=sendonly",
        "a=sctp-port:5000",
    ] {
        assert!(to_client.lines().any(|own| own == line), "{line} is missing in\n{to_client}");
    }
    for line in [
        "a=ice-ufrag:Ex2S",
        "a=group:BUNDLE 0 1 2",
        "m=video 9 UDP/TLS/RTP/SAVPF 108 109",
        "a=rtpmap:108 H264/90000",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "a=recvonly",
    ] {
        assert!(to_node.lines().any(|own| own == line), "{line} is missing in\n{to_node}");
    }
    assert!(!to_node.contains("a=ssrc:") && !to_node.contains("a=msid:"), "it sends nothing to the node");
}

#[test]
fn what_only_one_side_has_is_rejected_there() {
    let node = of(&NODES, "ams-offer");
    let audio = only(viewer("chromium-offer"), "audio");
    let Answers { to_client, to_node } = answer_both(&audio, node).unwrap();
    assert_eq!(ports(&to_client), [("audio", "9")]);
    assert_eq!(ports(&to_node), [("video", "0"), ("audio", "9"), ("application", "0")]);
    assert!(to_node.contains("a=group:BUNDLE 1\r\n"), "{to_node}");
    assert!(to_node.lines().any(|line| line.starts_with("a=candidate:")), "the leader has moved: {to_node}");

    let audio = only(node, "audio");
    let Answers { to_client, .. } = answer_both(viewer("chromium-offer"), &audio).unwrap();
    assert_eq!(ports(&to_client), [("audio", "9"), ("video", "0"), ("application", "0")]);
}

#[test]
fn an_offer_that_can_receive_nothing_of_it_is_not_answered() {
    let node = of(&NODES, "ams-offer");
    let client = viewer("chromium-offer");
    for (name, client, node) in [
        ("sends only", client.replace("a=sendrecv", "a=sendonly"), node.to_owned()),
        ("other codecs", only(&client.replace("H264", "H999"), "video"), node.to_owned()),
        ("data only", only(client, "application"), node.to_owned()),
        ("no rtcp-mux", client.replace("a=rtcp-mux\r\n", ""), node.to_owned()),
    ] {
        assert_eq!(answer_both(&client, &node), Err(Unanswerable::NothingInCommon), "{name}");
    }
    assert!(matches!(answer_both("v=0\r\n", node), Err(Unanswerable::Client(_))));
    assert!(matches!(answer_both(client, "junk"), Err(Unanswerable::Node(_))));
}

#[test]
fn candidates_cross_to_the_section_that_leads() {
    let Answers { to_client, to_node } = answer_both(viewer("chromium-offer"), of(&NODES, "ams-offer")).unwrap();
    let candidates = |text: &str| text.lines().filter(|line| line.starts_with("a=candidate:")).count();
    // AMS has ports of its own for each section until they are bundled: those of the leader count.
    assert_eq!(candidates(&to_client), 5);
    assert!(to_client.contains("10.0.1.20 51044") && !to_client.contains("52199"));
    assert_eq!(candidates(&to_node), 8);
}

#[test]
fn the_answers_hold_no_address_but_in_candidates() {
    for (client, node, answers) in every_pair() {
        for answer in [answers.to_client, answers.to_node] {
            let rest: String = answer
                .lines()
                .filter(|line| !line.starts_with("a=candidate:"))
                .flat_map(|line| [line, "\r\n"])
                .collect();
            assert!(leaks(&rest, &[]).is_empty(), "{} watches {}: {rest}", client.0, node.0);
        }
    }
}

proptest! {
    #[test]
    fn no_two_texts_make_it_panic(a: Index, b: Index, cut in 0usize..4000, at in 0usize..4000, with in "\\PC{0,12}") {
        let (client, node) = (a.get(&VIEWERS).1, b.get(&NODES).1);
        let broken = |text: &str| {
            let mut text: String = text.chars().take(text.len().saturating_sub(cut)).collect();
            let at = at.min(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &with);
            }
            text
        };
        let _ = answer_both(&broken(client), node);
        let _ = answer_both(client, &broken(node));
    }
}

type Named = (&'static str, &'static str);

fn every_pair() -> Vec<(Named, Named, Answers)> {
    let mut all = Vec::new();
    for client in VIEWERS {
        for node in NODES {
            match answer_both(client.1, node.1) {
                Ok(answers) => all.push((client, node, answers)),
                Err(error) => assert_eq!(error, Unanswerable::NothingInCommon, "{} watches {}", client.0, node.0),
            }
        }
    }
    assert!(all.len() >= 15, "most stacks can watch each other: {}", all.len());
    all
}

fn viewer(name: &str) -> &'static str {
    of(&VIEWERS, name)
}

fn of(all: &[Named], name: &str) -> &'static str {
    all.iter().find(|(own, _)| *own == name).unwrap().1
}

fn shape(offer: &Offer<'_>) -> Vec<(String, String, Option<String>)> {
    let one = |section: &offer::Section<'_>| {
        (section.word.to_owned(), section.protocol.to_owned(), section.mid().map(str::to_owned))
    };
    offer.sections.iter().map(one).collect()
}

/// The accepted sections of a description, each as text.
fn accepted(text: &str) -> Vec<String> {
    let sections = text.split("\r\nm=").skip(1);
    sections.filter(|section| section.split(' ').nth(1) == Some("9")).map(str::to_owned).collect()
}

fn ports(text: &str) -> Vec<(&str, &str)> {
    let media = text.lines().filter_map(|line| line.strip_prefix("m="));
    media
        .map(|line| {
            let mut words = line.split(' ');
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect()
}

/// The description with the sections of one kind only.
fn only(text: &str, kind: &str) -> String {
    let mut parts = text.split("\r\nm=");
    let session = parts.next().unwrap().to_owned();
    let kept = parts.filter(|part| part.starts_with(kind)).map(|part| format!("\r\nm={}", part.trim_end()));
    session + &kept.collect::<String>() + "\r\n"
}
