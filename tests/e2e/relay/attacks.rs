//! What others send to the door's media port: nobody gets media, nobody gets an answer, no viewer notices.

use std::time::{Duration, Instant};

use super::{
    RELAYED,
    rebinds::{BACK, Pair, gap_after_rebind, pair},
};
use crate::support::{
    process::Process,
    udp_path::{Attacker, UdpPath},
    webrtc_peer,
};

/// The longest time without video that a viewer may see during an attack.
const UNNOTICED: Duration = Duration::from_millis(200);
/// How often an attacker sends what it has sniffed.
const REPLAYS: usize = 40;
/// Between two of an attacker's sendings.
const PACE: Duration = Duration::from_millis(50);

/// The longest gap of the viewer in the past `window`.
fn gap(pair: &Pair, since: Instant) -> Duration {
    pair.play.report().longest_gap(since, Instant::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_replays_a_sniffed_request_from_other_ports_gets_no_media_and_no_viewer_notices() {
    let door = Process::start(&RELAYED).await;
    for ports in [1, 20] {
        for victim in ["viewer", "publisher"] {
            let pair = pair(&door, webrtc_peer::stack).await;
            let quiet = Instant::now();
            pair.play.until_more_video(100).await;
            let before = gap(&pair, quiet);

            let road = if victim == "viewer" { &pair.viewers_road } else { &pair.publishers_road };
            let heard = road.to_door().clone();
            let request = heard.requests.last().expect("a client checks").clone();
            let mut attackers = Vec::new();
            for _ in 0..ports {
                attackers.push(Attacker::of(road).await);
            }
            let attack = Instant::now();
            let mut pace = tokio::time::interval(PACE);
            for nth in 0..REPLAYS {
                pace.tick().await;
                let attacker = &mut attackers[nth % ports];
                attacker.send(&request).await;
                for sniffed in heard.dtls.iter().take(4).chain(heard.media.iter().rev().take(4)) {
                    attacker.send(sniffed).await;
                }
            }
            pair.play.until_more_video(50).await;
            let during = gap(&pair, attack);
            let (mut media, mut dtls, mut checks, mut answers, mut bytes) = (0, 0, 0, 0, 0);
            for attacker in &mut attackers {
                attacker.listen(Duration::from_millis(20)).await;
                let heard = &attacker.heard;
                media += heard.media_bytes;
                dtls += heard.dtls.len();
                checks += heard.requests.len();
                answers += heard.responses;
                bytes += heard.bytes;
            }
            println!(
                "replay of a {victim}'s request from {ports} ports: {media} bytes of media, {dtls} DTLS, {answers} STUN \
                 answers, {checks} STUN checks, {bytes} bytes in all for {} of requests; longest gap {before:?} before, \
                 {during:?} during",
                REPLAYS * request.len()
            );
            assert_eq!((media, dtls), (0, 0), "an attacker gets neither media nor DTLS");
            assert!(answers <= REPLAYS as u64, "{answers} answers to {REPLAYS} requests");
            assert!(bytes <= 3 * (REPLAYS * request.len()) as u64, "the node's checks make no amplifier");
            assert!(during < UNNOTICED, "the viewer noticed: {during:?}, before {before:?}");
            pair.play.stop();
            pair.publish.stop();
            pair.publish.until_has("publish_finished").await;
        }
    }
}

/// Replays all that it has sniffed of a client, and goes on sniffing, from as many ports, in rotation; never ends.
async fn replay_all(road: &UdpPath, attackers: &mut [Attacker]) {
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    for nth in 0.. {
        pace.tick().await;
        let sniffed = {
            let heard = road.to_door();
            heard.requests[nth % heard.requests.len()].clone()
        };
        attackers[nth % attackers.len()].send(&sniffed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_replays_does_not_keep_a_client_that_moves_from_its_media() {
    let door = Process::start(&RELAYED).await;
    for victim in ["viewer", "publisher"] {
        let pair = pair(&door, webrtc_peer::stack).await;
        let road = if victim == "viewer" { &pair.viewers_road } else { &pair.publishers_road };
        let mut attackers = Vec::new();
        for _ in 0..100 {
            attackers.push(Attacker::of(road).await);
        }
        let gap = tokio::select! {
            () = replay_all(road, &mut attackers) => unreachable!("it never ends"),
            gap = async {
                pair.play.until_more_video(50).await;
                gap_after_rebind(road, &pair.play).await
            } => gap,
        };
        let mut media = 0;
        for attacker in &mut attackers {
            attacker.listen(Duration::from_millis(1)).await;
            media += attacker.heard.media_bytes;
        }
        let replayed = door.metric("forebay_media_drops_total{reason=\"replayed\"}").await.unwrap_or(0.0);
        println!(
            "a {victim} moves under {replayed} replays: media is back after {gap:?}; {media} bytes of it elsewhere"
        );
        assert!(gap < BACK, "{gap:?}");
        assert_eq!(media, 0);
        assert!(replayed > 100.0, "{replayed} of the replays were known as such");
        pair.play.stop();
        pair.publish.stop();
        pair.publish.until_has("publish_finished").await;
    }
}
