//! A client restarts ICE in the middle of its media: new credentials in a new offer, on the connection that it has.

use std::time::{Duration, Instant};

use super::{
    RELAYED,
    rebinds::{Pair, pair},
};
use crate::support::{
    ams_client::PATIENCE,
    process::Process,
    str0m_peer,
    udp_path::{Attacker, UdpPath},
};

/// The longest time without video that a viewer may see while its publisher restarts.
const BRIEF: Duration = Duration::from_secs(3);
/// An answer over loopback takes a fraction of this.
const ANSWER: Duration = Duration::from_millis(300);

/// USERNAME of a check: whose it is in either direction, and so which generation's.
fn username(check: &[u8]) -> String {
    let mut at = 20;
    while let Some([high, low, long, short]) = check.get(at..at + 4) {
        let length = usize::from(u16::from_be_bytes([*long, *short]));
        if (*high, *low) == (0, 6) {
            return String::from_utf8_lossy(&check[at + 4..at + 4 + length]).into_owned();
        }
        at += 4 + length.next_multiple_of(4);
    }
    panic!("a check has a USERNAME: {check:02x?}");
}

fn latest(road: &UdpPath) -> Vec<u8> {
    road.to_door().requests.last().expect("a client checks").clone()
}

/// Has the publisher restart ICE, and returns once media has passed with its new credentials.
async fn restart(pair: &Pair) {
    let before = username(&latest(&pair.publishers_road));
    let begun = Instant::now();
    pair.publish.restart_ice();
    let renewed = async {
        while username(&latest(&pair.publishers_road)) == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.expect("the publisher checks with new credentials");
    let after = username(&latest(&pair.publishers_road));
    let parts = |name: &str| name.split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("two ufrags");
    let ((old_node, old_client), (new_node, new_client)) = (parts(&before), parts(&after));
    assert!(old_node != new_node && old_client != new_client, "both sides have new ones: {before}, {after}");

    pair.play.until_more_video(100).await;
    let gap = pair.play.report().longest_gap(begun, Instant::now());
    println!("an ICE restart, and the viewer's longest gap {gap:?}");
    assert!(gap < BRIEF, "{gap:?}");
    assert!(pair.publish.report().trouble.is_empty(), "{:?}", pair.publish.report().trouble);
}

async fn until_transports(door: &Process, wanted: f64) {
    let settled = async {
        while door.metric("forebay_media_transports").await != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await;
    let now = door.metric("forebay_media_transports").await;
    assert!(settled.is_ok(), "{now:?} ICE generations, where {wanted} should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_goes_on_with_new_credentials_after_an_ice_restart_and_the_old_generation_is_retired() {
    let door = Process::start(&RELAYED).await;
    let pair = pair(&door, str0m_peer::stack).await;
    until_transports(&door, 2.0).await;
    let first = latest(&pair.publishers_road);
    restart(&pair).await;
    // The old one stays for half a minute, so that nothing on its way is lost …
    until_transports(&door, 3.0).await;
    restart(&pair).await;
    // … unless yet another one comes.
    until_transports(&door, 3.0).await;

    let refused = "forebay_media_drops_total{reason=\"unknown_ufrag\"}";
    let before = door.metric(refused).await.unwrap_or(0.0);
    let mut stranger = Attacker::of(&pair.publishers_road).await;
    stranger.send(&first).await;
    stranger.listen(ANSWER).await;
    assert_eq!(stranger.heard.packets, 0, "nobody answers to retired credentials");
    let counted = async {
        while door.metric(refused).await.unwrap_or(0.0) <= before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("retired credentials name nobody");
    pair.play.until_more_video(20).await;
}
