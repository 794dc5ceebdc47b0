//! What holds of every store: the same promises in memory, on a replica set, and on a standalone server.

use std::time::Duration;

use forebay::{clock, domain::routing::Lookup, registry::Hint};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::rig::{Kind, PATIENCE, Rig, is_ended, is_live, is_live_on, key, live, object};
use crate::support::mongod::Shape;

macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        /// The promises, one after the other on one store: each uses streams of its own.
        async fn keep_every_promise(kind: Kind) {
            let rig = Rig::start(kind).await;
            rig.until_up().await;
            $(
                eprintln!("{kind:?}: {}", stringify!($promise));
                $promise(&rig).await;
            )*
        }
    };
}

contract![
    a_live_record_is_found_with_its_origin,
    a_record_older_than_amss_window_is_not_live,
    a_finished_record_is_not_live_however_fresh,
    a_room_is_live_without_a_heartbeat,
    a_stream_without_a_record_is_missing,
    a_cached_live_record_ends_when_its_heartbeat_does,
    a_stream_that_moves_is_followed,
    a_deleted_record_ends_its_stream,
    a_wait_ends_as_soon_as_the_record_is_written,
    a_wait_ends_with_the_last_verdict_when_nothing_comes,
    what_the_door_saw_start_outranks_an_older_record_and_wakes_waiters,
    what_the_door_saw_end_is_not_live_although_its_record_is,
    an_end_seen_on_a_node_that_the_stream_has_left_changes_nothing,
    many_look_ups_of_one_stream_are_one_read,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_in_memory() {
    keep_every_promise(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_a_replica_set() {
    keep_every_promise(Kind::Mongo(Shape::ReplicaSet)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_a_standalone_server() {
    keep_every_promise(Kind::Mongo(Shape::Standalone)).await;
}

async fn a_live_record_is_found_with_its_origin(rig: &Rig) {
    let key = key("found");
    let mut fields = live("10.0.1.11", 0);
    fields["mainTrackStreamId"] = "room-9".into();
    rig.write(&key, fields).await;

    let lookup = rig.registry.look_up(&key).await;
    let record = lookup.live().unwrap_or_else(|| panic!("{lookup:?}"));
    assert_eq!(record.origin.as_deref(), Some("10.0.1.11"));
    assert_eq!(record.main_track.as_ref().map(|room| room.as_str()), Some("room-9"));
    let view = rig.registry.record_view(&key).expect("it is cached now");
    assert!(view.live && !view.hinted && view.record.is_some());
}

async fn a_record_older_than_amss_window_is_not_live(rig: &Rig) {
    rig.write(&key("old"), live("10.0.1.11", 20_000)).await;
    assert!(is_ended(&rig.registry.look_up(&key("old")).await));
    rig.write(&key("not-so-old"), live("10.0.1.11", 15_000)).await;
    assert!(is_live(&rig.registry.look_up(&key("not-so-old")).await));
}

async fn a_finished_record_is_not_live_however_fresh(rig: &Rig) {
    let mut fields = live("10.0.1.11", 0);
    fields["status"] = "finished".into();
    rig.write(&key("finished"), fields).await;
    assert!(is_ended(&rig.registry.look_up(&key("finished")).await));
}

async fn a_room_is_live_without_a_heartbeat(rig: &Rig) {
    let room = json!({ "status": "broadcasting", "virtual": true, "zombi": true, "updateTime": 0, "startTime": 5 });
    rig.write(&key("room1"), room).await;
    let lookup = rig.registry.look_up(&key("room1")).await;
    assert!(lookup.live().is_some_and(|record| record.is_virtual && record.origin.is_none()), "{lookup:?}");
}

async fn a_stream_without_a_record_is_missing(rig: &Rig) {
    assert_eq!(rig.registry.look_up(&key("never")).await, Lookup::Missing);
}

async fn a_cached_live_record_ends_when_its_heartbeat_does(rig: &Rig) {
    let key = key("dies");
    rig.write(&key, live("10.0.1.11", 18_500)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    let after = rig.until(&key, "the window has passed", is_ended).await;
    assert!(after < Duration::from_secs(8), "it had 1.5 s left, and took {after:?}");
}

async fn a_stream_that_moves_is_followed(rig: &Rig) {
    let key = key("moves");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live_on(&rig.registry.look_up(&key).await, "10.0.1.11"));
    rig.write(&key, live("10.0.1.12", 0)).await;
    let after = rig.until(&key, "the new origin", |lookup| is_live_on(lookup, "10.0.1.12")).await;
    assert!(after < Duration::from_secs(8), "a record is fresh for 3 s at most, and it took {after:?}");
}

async fn a_deleted_record_ends_its_stream(rig: &Rig) {
    let key = key("zombi");
    rig.write(&key, live("10.0.1.11", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    rig.db.delete_broadcast(&key).await.expect("a member can delete");
    let after = rig.until(&key, "it is gone", |lookup| *lookup == Lookup::Missing).await;
    assert!(after < Duration::from_secs(8), "took {after:?}");
}

async fn a_wait_ends_as_soon_as_the_record_is_written(rig: &Rig) {
    let key = key("awaited");
    let waiting = {
        let (registry, key) = (rig.registry.clone(), key.clone());
        tokio::spawn(async move {
            let lookup = registry.wait_live(&key, clock::now() + PATIENCE).await;
            (lookup, Instant::now())
        })
    };
    super::rig::eventually("somebody waits", async || rig.registry.facts().waiting.get() == 1).await;
    rig.write(&key, live("10.0.1.11", 0)).await;
    let written = Instant::now();
    let (lookup, woken) = timeout(PATIENCE, waiting).await.expect("it ends").expect("it does not panic");
    assert!(is_live_on(&lookup, "10.0.1.11"), "{lookup:?}");
    let after = woken.saturating_duration_since(written);
    eprintln!("  from the record to the waiter: {after:?}");
    assert!(after < Duration::from_secs(5), "took {after:?}");
    assert_eq!(rig.registry.facts().waiting.get(), 0);
}

async fn a_wait_ends_with_the_last_verdict_when_nothing_comes(rig: &Rig) {
    let begun = Instant::now();
    let lookup = rig.registry.wait_live(&key("in-vain"), clock::now() + Duration::from_millis(300)).await;
    assert_eq!(lookup, Lookup::Missing);
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5));
}

async fn what_the_door_saw_start_outranks_an_older_record_and_wakes_waiters(rig: &Rig) {
    let key = key("hinted");
    let mut old = live("10.0.1.11", 60_000);
    old["status"] = "finished".into();
    rig.write(&key, old).await;
    let waiting = {
        let (registry, key) = (rig.registry.clone(), key.clone());
        tokio::spawn(async move { registry.wait_live(&key, clock::now() + PATIENCE).await })
    };
    super::rig::eventually("somebody waits", async || rig.registry.facts().waiting.get() == 1).await;
    rig.registry.hint(&key, Hint::Started { node: "origin-7".parse().expect("legal") });
    let lookup = timeout(PATIENCE, waiting).await.expect("it ends").expect("it does not panic");
    assert!(is_live_on(&lookup, "origin-7"), "{lookup:?}");
    assert!(rig.registry.record_view(&key).is_some_and(|view| view.hinted && view.live));
}

async fn what_the_door_saw_end_is_not_live_although_its_record_is(rig: &Rig) {
    let key = key("seen-end");
    rig.write(&key, live("10.0.1.11", 1_000)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    rig.registry.hint(&key, Hint::Ended { node: "10.0.1.11".parse().expect("legal") });
    assert!(!is_live(&rig.registry.look_up(&key).await));
    // A publish that begins later has a newer record.
    rig.write(&key, live("10.0.1.12", -5)).await;
    rig.until(&key, "the next publish", |lookup| is_live_on(lookup, "10.0.1.12")).await;
}

async fn an_end_seen_on_a_node_that_the_stream_has_left_changes_nothing(rig: &Rig) {
    for address in ["10.0.2.21", "10.0.2.22"] {
        let row = json!({ "ip": address, "lastUpdateTime": clock::wall_ms(), "cpu": "5", "memory": "1/10" });
        rig.db.set_cluster_node(&format!("n-{address}"), object(row)).await.expect("a member can write");
    }
    super::rig::eventually("the nodes are known", async || rig.registry.snapshot().nodes.len() >= 2).await;
    let key = key("moved-on");
    rig.write(&key, live("10.0.2.22", 0)).await;
    assert!(is_live(&rig.registry.look_up(&key).await));
    rig.registry.hint(&key, Hint::Ended { node: "10.0.2.21".parse().expect("legal") });
    assert!(is_live_on(&rig.registry.look_up(&key).await, "10.0.2.22"));
    rig.registry.hint(&key, Hint::Ended { node: "10.0.2.22".parse().expect("legal") });
    assert!(!is_live(&rig.registry.look_up(&key).await));
}

async fn many_look_ups_of_one_stream_are_one_read(rig: &Rig) {
    let key = key("crowd");
    rig.write(&key, live("10.0.1.11", 0)).await;
    // Some of the server's own finds (the poll of nodes) fall into the window; a crowd of them does not.
    let before = match &rig.mongod {
        Some(mongod) => mongod.finds().await,
        None => 0,
    };
    let crowd: Vec<_> = (0..200)
        .map(|_| {
            let (registry, key) = (rig.registry.clone(), key.clone());
            tokio::spawn(async move { registry.look_up(&key).await })
        })
        .collect();
    for look_up in crowd {
        assert!(is_live(&look_up.await.expect("it does not panic")));
    }
    if let Some(mongod) = &rig.mongod {
        let finds = mongod.finds().await - before;
        eprintln!("  200 look-ups, {finds} finds on the server, polls of nodes included");
        assert!(finds <= 20, "{finds} finds");
    }
}
