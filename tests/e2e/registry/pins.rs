//! Two doors that place at the same time: what one of them decides, the other follows.

use std::{collections::BTreeMap, time::Duration};

use forebay::{
    clock,
    config::Config,
    domain::{
        ids::{AppName, NodeId},
        session::{Ask, Purpose},
    },
    registry::{Backing, Registry},
    sessions::Router,
    shutdown::Shutdown,
};
use futures_util::{StreamExt, future::join, stream};

use super::rig::{config_for, door};
use crate::support::mongod::{Mongod, Shape};

/// Publishes of all doors together, two of each stream.
const PUBLISHES: usize = 10_000;
/// Rooms whose members come at the same time, by either door.
const ROOMS: u64 = 20;
/// No play waits here.
const WAIT: Duration = Duration::ZERO;
/// Streams that are raced for at a time.
const AT_ONCE: usize = 16;

fn origins(mongod: &Mongod) -> Config {
    let mut config = config_for(mongod);
    config.nodes.discover = false;
    config.nodes.fixed = (1..=4)
        .map(|number| forebay::config::StaticNode {
            id: format!("origin-{number}").parse().unwrap(),
            address: ([10, 0, 1, number], 5080).into(),
            role: forebay::domain::ids::Role::Origin,
            zone: None,
            aliases: Vec::new(),
            max_publishes: None,
            max_plays: None,
        })
        .collect();
    config
}

async fn router(config: &Config) -> (Router, Registry, Shutdown) {
    let (registry, shutdown) = door(config, Backing::Mongo).await;
    (Router::new(registry.clone()), registry, shutdown)
}

fn ask(stream: &str, room: Option<&str>) -> Ask {
    Ask {
        purpose: Purpose::Publish,
        stream: Some(stream.parse().unwrap()),
        room: room.map(|room| room.parse().unwrap()),
        with_publisher: None,
        avoid: Vec::new(),
        is_move: false,
        after_end: None,
        until: clock::now() + Duration::from_secs(3),
    }
}

fn app() -> AppName {
    "LiveApp".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_doors_that_place_one_stream_at_the_same_time_place_it_on_one_origin() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let config = origins(&mongod);
    let (one, one_registry, end_one) = router(&config).await;
    let (two, two_registry, end_two) = router(&config).await;
    let begun = clock::now();
    let races = stream::iter(0..PUBLISHES / 2).map(async |nth| {
        let ask = ask(&format!("race-{nth}"), None);
        let (seed, app) = (fastrand::u64(..), app());
        let (a, b) = join(one.place(&app, &ask, seed, WAIT), two.place(&app, &ask, !seed, WAIT)).await;
        let (a, b) = (a.expect("origins take it"), b.expect("origins take it"));
        (a.node().clone(), b.node().clone())
    });
    let placed: Vec<(NodeId, NodeId)> = races.buffer_unordered(AT_ONCE).collect().await;
    let took = clock::now() - begun;
    let split = placed.iter().filter(|(a, b)| a != b).count();
    let late = one_registry.facts().pins_late.get() + two_registry.facts().pins_late.get();
    let followed = one_registry.facts().pins_lost.get() + two_registry.facts().pins_lost.get();
    let mut spread: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for (a, _) in &placed {
        *spread.entry(a).or_default() += 1;
    }
    println!(
        "{PUBLISHES} publishes in {took:?}: {split} split, {followed} followed the other door, {late} late; {spread:?}"
    );
    // A store that takes longer than 300 ms is not waited for: only then may two doors differ.
    assert!(split == 0 || late > 0, "{split} streams were placed on two origins");
    assert!(late < PUBLISHES as u64 / 100, "{late} placements did not wait for their pin");
    assert!(followed > 0, "nobody raced anybody");
    assert!(spread.len() == 4, "the load spreads as without pins: {spread:?}");
    end_one.stop();
    end_two.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_room_meet_on_one_origin_whichever_door_they_come_by() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let config = origins(&mongod);
    let (one, one_registry, end_one) = router(&config).await;
    let (two, two_registry, end_two) = router(&config).await;
    let app = app();
    let late = || one_registry.facts().pins_late.get() + two_registry.facts().pins_late.get();
    // Where two members of a room that come at the same time are placed; `None` if the store took longer than is waited.
    let meet = async |room: &str, names: [&str; 2], seed: u64| {
        let before = late();
        let [first, second] = names.map(|name| ask(&format!("{room}-{name}"), Some(room)));
        let (a, b) = join(one.place(&app, &first, seed, WAIT), two.place(&app, &second, !seed, WAIT)).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        let met = a.node() == b.node();
        assert!(met || late() > before, "{room}: {:?} and {:?}", a.node(), b.node());
        met.then(|| a.node().clone())
    };
    let mut homes = Vec::new();
    for nth in 0..ROOMS {
        let room = format!("room-{nth}");
        if let Some(home) = meet(&room, ["a", "b"], nth).await {
            homes.push((room, home));
        }
    }
    assert!(homes.len() as u64 > ROOMS / 2, "{} placements did not wait for their pin", late());
    // An origin that takes no legs any more is nobody's home.
    let drained = homes[0].1.clone();
    one_registry.drain(drained.as_str(), &forebay::domain::drain::DrainWish::default()).await.unwrap();
    super::rig::eventually("both doors know", async || {
        [&one_registry, &two_registry]
            .iter()
            .all(|door| door.snapshot().get(&drained).is_some_and(|node| !node.state.takes_legs()))
    })
    .await;
    let mut moved = 0;
    for (room, _) in homes.iter().filter(|(_, home)| *home == drained) {
        if let Some(home) = meet(room, ["c", "d"], moved).await {
            assert!(home != drained, "{room}");
            moved += 1;
        }
    }
    assert!(moved > 0, "{} placements did not wait for their pin", late());
    end_one.stop();
    end_two.stop();
}
