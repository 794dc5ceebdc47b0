//! Drains as two doors of one cluster keep them: in a real MongoDB, while it is away, and over a restart.

use std::{path::Path, time::Duration};

use forebay::{
    clock,
    config::Config,
    domain::{
        balance::NodeState,
        drain::{Deadline, DrainWish, Migrate},
        ids::{Kind, NodeId, Role},
    },
    registry::{Backing, DrainError, Kept, Registry},
};
use futures_util::future::join;

use super::rig::{config_for, door, eventually};
use crate::support::mongod::{Mongod, Shape, TempDir};

fn cluster(mongod: &Mongod, state_dir: Option<&Path>) -> Config {
    let mut config = config_for(mongod);
    config.nodes.discover = false;
    let roles =
        [("origin-1", Role::Origin), ("origin-2", Role::Origin), ("edge-1", Role::Edge), ("edge-2", Role::Edge)];
    let fixed = roles.into_iter().zip(1..).map(|((id, role), number)| forebay::config::StaticNode {
        id: id.parse().unwrap(),
        address: ([10, 0, 1, number], 5080).into(),
        role,
        zone: None,
        aliases: Vec::new(),
        max_publishes: None,
        max_plays: None,
    });
    config.nodes.fixed = fixed.collect();
    config.door.state_dir = state_dir.map(Path::to_owned);
    config
}

fn id(node: &str) -> NodeId {
    node.parse().unwrap()
}

fn state(registry: &Registry, node: &str) -> NodeState {
    registry.snapshot().get(&id(node)).unwrap().state
}

async fn until_state(registry: &Registry, node: &str, wanted: NodeState) -> Duration {
    let begun = clock::now();
    eventually(&format!("{node} is {wanted:?}"), async || state(registry, node) == wanted).await;
    clock::now() - begun
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_seen_by_every_door_within_two_seconds_and_ends_when_the_node_is_empty() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let (one, end_one) = door(&cluster(&mongod, None), Backing::Mongo).await;
    let (two, end_two) = door(&cluster(&mongod, None), Backing::Mongo).await;
    eventually("they know each other", async || one.doors().len() == 2 && two.doors().len() == 2).await;
    assert!(one.doors().iter().all(|door| door.agrees), "{:?}", one.doors());

    let view = one.drain("10.0.1.3", &DrainWish::default()).await.unwrap();
    assert_eq!((view.node.as_str(), view.kept, view.revision), ("edge-1", Kept::Cluster, 1));
    assert!(matches!(state(&one, "edge-1"), NodeState::Draining | NodeState::Drained));
    let seen = clock::now();
    eventually("the other door sees it", async || two.drain_of(&id("edge-1")).is_some()).await;
    let seen = clock::now() - seen;
    println!("a drain was seen by the other door after {seen:?}");
    assert!(seen < Duration::from_secs(2));
    let done = one.wait_drained(&id("edge-1"), clock::now() + Duration::from_secs(10)).await.unwrap();
    assert!(done.is_complete(), "nobody has a leg there: {done:?}");
    until_state(&two, "edge-1", NodeState::Drained).await;

    assert_eq!(two.drain("edge-2", &DrainWish::default()).await, Err(DrainError::LastServing(Kind::Play)));
    assert_eq!(two.drain_of(&id("edge-2")), None, "nothing half done");
    two.undrain("edge-1").await.unwrap();
    assert_eq!(two.undrain("edge-1").await, Err(DrainError::NotDraining));
    until_state(&one, "edge-1", NodeState::Joining).await;
    assert_eq!(one.drain("edge-7", &DrainWish::default()).await, Err(DrainError::UnknownNode));
    end_one.stop();
    end_two.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_at_once_never_drain_both_of_the_last_two_nodes() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let (one, end_one) = door(&cluster(&mongod, None), Backing::Mongo).await;
    let (two, end_two) = door(&cluster(&mongod, None), Backing::Mongo).await;
    let wish = DrainWish { migrate: Some(Migrate::None), ..DrainWish::default() };
    for round in 0..10 {
        let (a, b) = join(one.drain("edge-1", &wish), two.drain("edge-2", &wish)).await;
        assert!(a.is_err() || b.is_err(), "round {round}: nobody is left to play from");
        for refused in [&a, &b].into_iter().filter_map(|drained| drained.as_ref().err()) {
            assert_eq!(*refused, DrainError::LastServing(Kind::Play));
        }
        let drained: Vec<&str> =
            [("edge-1", &a), ("edge-2", &b)].into_iter().filter(|(_, x)| x.is_ok()).map(|(node, _)| node).collect();
        for node in drained {
            one.undrain(node).await.unwrap();
        }
        for registry in [&one, &two] {
            for node in ["edge-1", "edge-2"] {
                eventually("all is as before", async || state(registry, node).takes_legs()).await;
            }
        }
    }
    // Two changes of one node's drain: one after the other, whoever is first.
    let (a, b) = join(
        one.drain("origin-1", &DrainWish { per_second: Some(7), ..DrainWish::default() }),
        two.drain(
            "origin-1",
            &DrainWish { deadline: Some(Deadline::After(Duration::from_secs(90))), ..DrainWish::default() },
        ),
    )
    .await;
    let (a, b) = (a.unwrap(), b.unwrap());
    let last = if a.revision > b.revision { a } else { b };
    eventually("both doors hold the last one", async || {
        [&one, &two].into_iter().all(|registry| {
            let view = registry.drain_of(&id("origin-1"));
            view.is_some_and(|view| {
                view.order.per_second == 7 && view.order.asked_ms == Some(90_000) && view.revision >= last.revision
            })
        })
    })
    .await;
    end_one.stop();
    end_two.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_made_while_mongodb_is_away_holds_survives_a_restart_and_reaches_the_others_later() {
    let dir = TempDir::new("state");
    let mut mongod = Mongod::start(Shape::Standalone).await;
    let config = cluster(&mongod, Some(dir.path()));
    let (one, end_one) = door(&config, Backing::Mongo).await;
    one.drain("origin-1", &DrainWish::default()).await.unwrap();
    until_state(&one, "origin-1", NodeState::Drained).await;
    mongod.kill().await;
    eventually("the store is away", async || one.store_state().status != forebay::registry::StoreStatus::Up).await;
    let asked = clock::now();
    let view = one.drain("edge-1", &DrainWish::default()).await.unwrap();
    println!("a drain without MongoDB took {:?}", clock::now() - asked);
    assert_eq!((view.kept, state(&one, "edge-1")), (Kept::Door, NodeState::Draining));
    eventually("it is on disk", async || {
        std::fs::read_to_string(dir.path().join("drains.json")).is_ok_and(|kept| kept.contains("edge-1"))
    })
    .await;
    assert_eq!(state(&one, "origin-1"), NodeState::Drained, "what was drained stays so");
    end_one.finish(Duration::from_secs(5)).await;
    drop(one);

    let (again, end_again) = door(&config, Backing::Mongo).await;
    assert_eq!((state(&again, "origin-1"), state(&again, "edge-1")), (NodeState::Drained, NodeState::Draining));
    mongod.restart().await;
    let (two, end_two) = door(&cluster(&mongod, None), Backing::Mongo).await;
    eventually("the other door sees it", async || two.drain_of(&id("edge-1")).is_some()).await;
    eventually("it is the cluster's now", async || {
        again.drain_of(&id("edge-1")).is_some_and(|view| view.kept == Kept::Cluster)
    })
    .await;
    until_state(&two, "edge-1", NodeState::Drained).await;
    end_again.stop();
    end_two.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_drained_only_when_no_fresh_record_names_it() {
    let mongod = Mongod::start(Shape::Standalone).await;
    let (registry, end) = door(&cluster(&mongod, None), Backing::Mongo).await;
    let records = crate::support::cluster::broadcasts(&mongod).await;
    crate::support::cluster::write_live(&records, "elsewhere", "10.0.1.2", 0).await;
    // Nobody refreshes it: by AMS's rule it is live for two more seconds.
    crate::support::cluster::write_live(&records, "rtmp", "10.0.1.1", 17_000).await;
    registry.drain("origin-1", &DrainWish::default()).await.unwrap();
    eventually("its stream is counted", async || {
        registry.drain_of(&id("origin-1")).is_some_and(|view| view.streams == Some(1))
    })
    .await;
    assert_eq!(state(&registry, "origin-1"), NodeState::Draining);
    let took = until_state(&registry, "origin-1", NodeState::Drained).await;
    println!("drained {took:?} after its stream was counted");
    end.stop();
}
