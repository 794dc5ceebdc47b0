//! Change streams where the server has them, expiry where it has not.

use std::time::Duration;

use forebay::{
    domain::routing::Lookup,
    registry::{Backing, Watching},
};
use mongodb::bson::{Document, doc};
use serde_json::json;
use tokio::time::Instant;

use super::rig::{Kind, Rig, config_for, door, eventually, is_ended, is_live, is_live_on, key, live};
use crate::support::mongod::{Mongod, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_change_reaches_the_cache_without_a_read() {
    let rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    let key = key("pushed");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    let reads = rig.registry.facts().store_reads.get();

    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let origin = format!("10.0.1.{}", 20 + n);
        rig.write(&key, live(&origin, 0)).await;
        slowest = slowest.max(rig.until(&key, "the new origin", |lookup| is_live_on(lookup, &origin)).await);
    }
    rig.write(&key, json!({ "status": "finished" })).await;
    rig.until(&key, "the end", is_ended).await;
    eprintln!("slowest of 20 moves: {slowest:?} after the write");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert_eq!(rig.registry.facts().store_reads.get(), reads, "nothing was read again");

    rig.db.delete_broadcast(&key).await.unwrap();
    rig.until(&key, "its deletion, which names only the document", |lookup| *lookup == Lookup::Missing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_asked_for_is_not_cached_by_its_changes() {
    let rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    for n in 0..50 {
        rig.write(&key(&format!("stranger-{n}")), live("10.0.1.11", 0)).await;
    }
    eventually("the changes arrive", async || rig.registry.facts().changes.get() >= 50).await;
    assert_eq!(rig.registry.store_state().cached_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_change_streams_is_served_by_expiry() {
    let rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    let key = key("expires");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    assert_eq!(rig.registry.store_state().watching, Watching::Expiry);
    rig.write(&key, json!({ "status": "finished" })).await;
    let after = rig.until(&key, "the end", is_ended).await;
    assert!(after > Duration::from_secs(1) && after < Duration::from_secs(10), "fresh for 3 s, took {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_change_streams_leaves_look_ups_working() {
    let mut rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    // What a standalone, FerretDB, older servers and a forbidden one answer, each to a door of its own.
    for code in [40_573, 238, 1, 40_324, 13] {
        rig.mongod().fail(&["aggregate"], doc! { "errorCode": code }).await;
        let (door, shutdown) = door(&config_for(rig.mongod()), Backing::Mongo).await;
        let key = key(&format!("refused-{code}"));
        rig.write(&key, live("10.0.1.11", 0)).await;
        assert!(is_live(&door.look_up(&key).await), "code {code}");
        assert_eq!(door.store_state().watching, Watching::Expiry, "code {code}");
        shutdown.stop();
        rig.mongod().heal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_no_configuration_names_is_followed_from_its_first_record_on() {
    let mongod = Mongod::start(Shape::ReplicaSet).await;
    let rig = Rig::with(mongod, |config| {
        config.apps.any = config.apps.named.values().next().cloned();
        config.apps.named.clear();
    })
    .await;
    rig.until_up().await;
    let key = key("star");
    assert_eq!(rig.registry.look_up(&key).await, Lookup::Missing);
    assert_eq!(rig.registry.store_state().watching, Watching::Expiry, "a name alone opens no change stream");
    rig.write(&key, live("10.0.1.11", 0)).await;
    rig.until(&key, "its record", is_live).await;
    rig.until_pushed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_were_missed_are_read_again() {
    let mut rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    let key = key("missed");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));

    // The server has thrown away what the feed has not read yet, and no feed can be opened meanwhile.
    rig.mongod().fail(&["getMore", "aggregate"], doc! { "errorCode": 286 }).await;
    eventually("the feed is lost", async || rig.registry.store_state().watching == Watching::Expiry).await;
    rig.write(&key, live("10.0.1.12", 0)).await;
    rig.mongod().heal().await;
    rig.until_pushed().await;
    assert!(is_live_on(&rig.registry.look_up(&key).await, "10.0.1.12"));
    rig.write(&key, json!({ "status": "finished" })).await;
    rig.until(&key, "changes are pushed again", is_ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_breaks_is_taken_up_where_it_was() {
    let mut rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    let key = key("resumed");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    rig.mongod().fail(&["getMore", "aggregate"], doc! { "closeConnection": true }).await;
    eventually("the feed is lost", async || rig.registry.store_state().watching == Watching::Expiry).await;
    rig.write(&key, live("10.0.1.12", 0)).await;
    rig.mongod().heal().await;
    rig.until(&key, "what was written meanwhile", |lookup| is_live_on(lookup, "10.0.1.12")).await;
    rig.until_pushed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_collection_makes_every_record_doubtful() {
    let rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    let key = key("dropped");
    rig.write(&key, live("10.0.1.11", 0)).await;
    rig.until_pushed().await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    let database = rig.mongod.as_ref().unwrap().client().await.database("liveapp");
    database.collection::<Document>("broadcast").drop().await.unwrap();
    let begun = Instant::now();
    rig.until(&key, "it is gone", |lookup| *lookup == Lookup::Missing).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    rig.write(&key, live("10.0.1.12", 0)).await;
    rig.until(&key, "the new collection is followed", |lookup| is_live_on(lookup, "10.0.1.12")).await;
}
