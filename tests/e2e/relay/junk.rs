//! What is no authenticated STUN of a live session and of no live flow is dropped without an answer, and counted.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    RELAYED,
    rebinds::{Pair, pair},
};
use crate::support::{
    process::Process,
    udp_path::{Attacker, UdpPath},
    webrtc_peer,
};

/// An answer over loopback takes a fraction of this.
const ANSWER: Duration = Duration::from_millis(300);
/// Counters are published twice a second.
const COUNTED: Duration = Duration::from_secs(5);
/// The longest time without video that a viewer may see meanwhile.
const UNNOTICED: Duration = Duration::from_millis(200);
/// How often each kind of junk is sent.
const TIMES: usize = 20;

const FINGERPRINT: usize = 8;
const INTEGRITY: usize = 24;

/// Writes a right FINGERPRINT at the end of a message that has one.
fn fingerprinted(mut message: Vec<u8>) -> Vec<u8> {
    let at = message.len() - FINGERPRINT;
    let value = crc32fast::hash(&message[..at]) ^ 0x5354_554e;
    message[at + 4..].copy_from_slice(&value.to_be_bytes());
    message
}

/// A fingerprinted request of `length` bytes whose USERNAME names nobody, filled up with a comprehension-optional
/// attribute.
fn request_of_nobody(length: usize) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend((0..12).map(|_| fastrand::u8(..)));
    message.extend([0, 6, 0, 8]);
    message.extend(b"nobo:dy0");
    let filler = length - message.len() - 4 - FINGERPRINT;
    message.extend([0x80, 0x22]);
    message.extend(u16::try_from(filler).unwrap().to_be_bytes());
    message.extend(std::iter::repeat_n(b'x', filler));
    message.extend([0x80, 0x28, 0, 4, 0, 0, 0, 0]);
    let body = u16::try_from(message.len() - 20).unwrap();
    message[2..4].copy_from_slice(&body.to_be_bytes());
    fingerprinted(message)
}

/// Enough of a ClientHello for its first byte and its record header to be right.
fn client_hello() -> Vec<u8> {
    let mut hello = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 48, 1];
    hello.resize(61, 0);
    hello
}

/// What there is of junk: a name, how to make one, and what it is counted as.
fn junk(request: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |at: usize| {
        let mut message = request.to_vec();
        message[at] ^= 1;
        message
    };
    let end = request.len();
    // A client's request ends with MESSAGE-INTEGRITY and FINGERPRINT.
    assert_eq!(request[end - FINGERPRINT..end - FINGERPRINT + 2], [0x80, 0x28]);
    assert_eq!(request[end - FINGERPRINT - INTEGRITY..end - FINGERPRINT - INTEGRITY + 2], [0, 8]);
    let noise: Vec<u8> = std::iter::once(200).chain((0..500).map(|_| fastrand::u8(..))).collect();
    let mut longer = request_of_nobody(1500);
    longer.extend([0; 4]);
    vec![
        ("nothing", Vec::new(), "bad_class"),
        ("noise", noise, "bad_class"),
        ("one byte", vec![0], "bad_stun"),
        ("truncated STUN", request[..end - 5].to_vec(), "bad_stun"),
        ("half a STUN header", request[..10].to_vec(), "bad_stun"),
        ("1500 bytes of STUN", request_of_nobody(1500), "unknown_ufrag"),
        ("1504 bytes", longer, "oversized"),
        ("a wrong FINGERPRINT", with(end - 1), "bad_fingerprint"),
        ("a wrong MESSAGE-INTEGRITY", fingerprinted(with(end - FINGERPRINT - 1)), "bad_integrity"),
        ("a changed transaction", fingerprinted(with(9)), "bad_integrity"),
        ("an unknown ufrag", request_of_nobody(100), "unknown_ufrag"),
        ("a ClientHello", client_hello(), "unknown_tuple"),
        ("RTP", vec![0x80; 200], "unknown_tuple"),
        ("a TURN channel", vec![64; 100], "bad_class"),
        ("a Binding response", [&[1, 1], &request[2..]].concat(), "bad_fingerprint"),
        ("a Binding indication", fingerprinted([&[0, 0x11], &request[2..]].concat()), "stun_class"),
    ]
}

async fn dropped(door: &Process, reason: &str) -> u64 {
    door.metric(&format!("forebay_media_drops_total{{reason=\"{reason}\"}}")).await.unwrap_or(0.0) as u64
}

/// Waits until at least so many more drops were counted than `before`, and returns how many were.
async fn until_dropped(door: &Process, before: &BTreeMap<&'static str, u64>, more: &BTreeMap<&'static str, u64>) {
    let all = async {
        for (reason, more) in more {
            while dropped(door, reason).await < before[reason] + more {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    let counted = tokio::time::timeout(COUNTED, all).await;
    for (reason, more) in more {
        let now = dropped(door, reason).await - before[reason];
        println!("{reason}: {more} sent, {now} counted");
        assert!(counted.is_ok() || now >= *more, "{reason}: {more} sent, only {now} counted");
    }
}

async fn one_request(road: &UdpPath) -> Vec<u8> {
    road.to_door().requests.last().expect("a client checks").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_never_answered_is_counted_by_reason_and_no_viewer_notices() {
    let door = Process::start(&RELAYED).await;
    let pair: Pair = pair(&door, webrtc_peer::stack).await;
    let request = one_request(&pair.viewers_road).await;
    let junk = junk(&request);
    let mut more = BTreeMap::new();
    for (_, _, reason) in &junk {
        *more.entry(*reason).or_insert(0) += TIMES as u64;
    }
    let mut before = BTreeMap::new();
    for reason in more.keys() {
        before.insert(*reason, dropped(&door, reason).await);
    }
    let begun = Instant::now();
    let mut senders = Vec::new();
    for (name, datagram, _) in &junk {
        let mut sender = Attacker::of(&pair.viewers_road).await;
        // Slower than a source may fail: what is dropped unparsed would be counted as something else.
        let mut pace = tokio::time::interval(Duration::from_millis(25));
        for _ in 0..TIMES {
            pace.tick().await;
            sender.send(datagram).await;
        }
        senders.push((*name, sender));
    }
    for (name, sender) in &mut senders {
        sender.listen(ANSWER / 10).await;
        assert_eq!(sender.heard.packets, 0, "{name} was answered");
    }
    until_dropped(&door, &before, &more).await;
    let gap = pair.play.report().longest_gap(begun, Instant::now());
    println!("junk of {} kinds: no answer; the viewer's longest gap {gap:?}", junk.len());
    assert!(gap < UNNOTICED, "the viewer noticed: {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_in_a_viewers_own_name_changes_nothing_for_it() {
    let door = Process::start(&RELAYED).await;
    let pair = pair(&door, webrtc_peer::stack).await;
    let request = one_request(&pair.viewers_road).await;
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..TIMES {
        for (_, datagram, _) in junk(&request) {
            pace.tick().await;
            // Its address can be faked by anybody.
            pair.viewers_road.inject(&datagram).await;
        }
    }
    pair.play.until_more_video(50).await;
    let gap = pair.play.report().longest_gap(begun, Instant::now());
    println!("junk in the viewer's name: its longest gap {gap:?}");
    assert!(gap < UNNOTICED, "the viewer noticed: {gap:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_too_often_is_dropped_unparsed() {
    let door = Process::start(&RELAYED).await;
    let pair = pair(&door, webrtc_peer::stack).await;
    let begun = Instant::now();
    let mut sender = Attacker::of(&pair.viewers_road).await;
    for _ in 0..1000 {
        sender.send(&request_of_nobody(100)).await;
    }
    let more = BTreeMap::from([("source_limited", 500)]);
    until_dropped(&door, &BTreeMap::from([("source_limited", 0)]), &more).await;
    sender.listen(ANSWER).await;
    assert_eq!(sender.heard.packets, 0);
    pair.play.until_more_video(25).await;
    let gap = pair.play.report().longest_gap(begun, Instant::now());
    println!("a flood from one source: the viewer's longest gap {gap:?}");
    // The viewer's own address is the flood's, on loopback: its flow is live, so the limit is not for it.
    assert!(gap < UNNOTICED, "the viewer noticed: {gap:?}");
}
