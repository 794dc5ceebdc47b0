//! MongoDB slow, frozen, killed, or not there when the door starts.

use std::time::Duration;

use forebay::{
    domain::routing::Lookup,
    registry::{Backing, Hint, StoreStatus},
};
use mongodb::bson::doc;
use tokio::time::Instant;

use super::rig::{Kind, Rig, config_for, door, eventually, is_ended, is_live, is_live_on, key, live, members};
use crate::support::mongod::{Mongod, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_read_is_given_up_after_its_limit() {
    let mut rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    rig.write(&key("known"), live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key("known")).await));
    let slow = doc! { "blockConnection": true, "blockTimeMS": 3_000 };
    rig.mongod().fail(&["find"], slow).await;
    let begun = Instant::now();
    assert_eq!(rig.registry.look_up(&key("unknown")).await, Lookup::Unknown);
    let took = begun.elapsed();
    eprintln!("given up after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    rig.mongod().heal().await;
    rig.until(&key("unknown"), "the store answers again", |lookup| *lookup == Lookup::Missing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_read_is_unknown_and_the_store_still_counts_as_up() {
    let mut rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    rig.until_up().await;
    rig.mongod().fail(&["find"], doc! { "errorCode": 13 }).await;
    assert_eq!(rig.registry.look_up(&key("forbidden")).await, Lookup::Unknown);
    assert_eq!(rig.registry.store_state().status, StoreStatus::Up);
    rig.mongod().heal().await;
    assert_eq!(rig.registry.look_up(&key("forbidden")).await, Lookup::Missing);
}

/// What holds while the store is away, whatever the reason.
async fn known_streams_are_served(rig: &Rig) {
    rig.until_away().await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert!(is_live_on(&rig.registry.look_up(&key("known")).await, "10.0.1.11"));
        assert!(is_ended(&rig.registry.look_up(&key("ended")).await));
        assert_eq!(rig.registry.look_up(&key("missing")).await, Lookup::Unknown, "only a store that answers says no");
        assert_eq!(rig.registry.look_up(&key("unknown")).await, Lookup::Unknown);
    }
    eprintln!("400 look-ups without the store: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "nobody waits for a store that is away");
    let node = || "origin-1".parse().expect("legal");
    rig.registry.hint(&key("new"), Hint::Started { node: node() });
    assert!(is_live_on(&rig.registry.look_up(&key("new")).await, "origin-1"), "the door saw it itself");
    rig.registry.hint(&key("new"), Hint::Ended { node: node() });
    assert!(!is_live(&rig.registry.look_up(&key("new")).await));
    let waited = rig.registry.wait_live(&key("unknown"), forebay::clock::now() + Duration::from_secs(9)).await;
    assert_eq!(waited, Lookup::Unknown, "a wait that nobody can end ends at once");
}

async fn before_an_outage(kind: Kind) -> Rig {
    let rig = Rig::start(kind).await;
    rig.write(&key("known"), live("10.0.1.11", 0)).await;
    let mut ended = live("10.0.1.11", 0);
    ended["status"] = "finished".into();
    rig.write(&key("ended"), ended).await;
    assert!(is_live(&rig.registry.look_up(&key("known")).await));
    assert!(is_ended(&rig.registry.look_up(&key("ended")).await));
    assert_eq!(rig.registry.look_up(&key("missing")).await, Lookup::Missing);
    rig
}

async fn after_an_outage(rig: &Rig) {
    let begun = Instant::now();
    rig.until_up().await;
    eprintln!("up again after {:?}", begun.elapsed());
    rig.write(&key("known"), live("10.0.1.12", 0)).await;
    rig.until(&key("known"), "its move is followed", |lookup| is_live_on(lookup, "10.0.1.12")).await;
    rig.until(&key("missing"), "an answer", |lookup| *lookup == Lookup::Missing).await;
    rig.write(&key("afterwards"), live("10.0.1.11", 0)).await;
    rig.until(&key("afterwards"), "a new stream", is_live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_standalone_server_is_survived() {
    let mut rig = before_an_outage(Kind::Mongo(Shape::Standalone)).await;
    rig.mongod().freeze();
    known_streams_are_served(&rig).await;
    rig.mongod().thaw();
    after_an_outage(&rig).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_set_is_survived_and_its_changes_are_pushed_again() {
    let mut rig = before_an_outage(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    rig.mongod().freeze();
    known_streams_are_served(&rig).await;
    rig.mongod().thaw();
    after_an_outage(&rig).await;
    rig.until_pushed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_survived_and_followed_when_it_comes_back() {
    let mut rig = before_an_outage(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    rig.mongod().kill().await;
    known_streams_are_served(&rig).await;
    rig.mongod().restart().await;
    after_an_outage(&rig).await;
    rig.until_pushed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_starts_without_its_mongodb_and_finds_it_later() {
    let mut mongod = Mongod::prepare(Shape::ReplicaSet);
    let begun = Instant::now();
    let (registry, shutdown) = door(&config_for(&mongod), Backing::Mongo).await;
    let took = begun.elapsed();
    eprintln!("started without MongoDB in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(matches!(registry.store_state().status, StoreStatus::Away(_)));
    assert_eq!(registry.look_up(&key("early")).await, Lookup::Unknown);

    mongod.restart().await;
    let db = forebay::registry::cluster_db::ClusterDb::Mongo(members(&mongod).await);
    let fields = super::rig::object(live("10.0.1.11", 0));
    db.set_broadcast(&key("early"), fields, true).await.unwrap();
    eventually("the record is found", async || is_live(&registry.look_up(&key("early")).await)).await;
    eventually("its changes are pushed", async || {
        registry.store_state().watching == forebay::registry::Watching::Pushed
    })
    .await;
    shutdown.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_store_only_what_the_door_saw_is_known() {
    let mut config = super::rig::config();
    config.mongo = None;
    let (registry, shutdown) = door(&config, Backing::None).await;
    assert_eq!(registry.store_state().status, StoreStatus::None);
    assert_eq!(registry.look_up(&key("blind")).await, Lookup::Unknown);
    registry.hint(&key("blind"), Hint::Started { node: "origin-1".parse().unwrap() });
    assert!(is_live_on(&registry.look_up(&key("blind")).await, "origin-1"));
    registry.hint(&key("blind"), Hint::Ended { node: "origin-1".parse().unwrap() });
    assert!(!is_live(&registry.look_up(&key("blind")).await));
    shutdown.stop();
}
