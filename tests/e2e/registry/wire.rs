//! What really stands in MongoDB, and what really is asked of it.

use forebay::clock;
use mongodb::bson::{Bson, Document, doc, spec::ElementType};
use serde_json::json;

use super::rig::{Kind, Rig, is_live, key, live, object};
use crate::support::mongod::Shape;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_write_documents_and_indexes_as_ams_does() {
    let rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    let (key, now) = (key("typed"), clock::wall_ms());
    let fields = json!({
        "streamId": "typed", "status": "broadcasting", "updateTime": now, "startTime": now, "date": now, "duration": 0,
        "receivedBytes": 5, "bitrate": 1_180_000, "absoluteStartTimeMs": now, "webRTCViewerCount": 0,
        "hlsViewerLimit": -1, "speed": 1, "zombi": true, "name": null, "originAdress": "10.0.1.11"
    });
    assert!(!rig.db.set_broadcast(&key, object(fields.clone()), false).await.unwrap(), "there is none to set");
    assert!(rig.db.set_broadcast(&key, object(fields), true).await.unwrap());
    rig.db.inc_broadcast(&key, "webRTCViewerCount", 2).await.unwrap();
    rig.db.inc_broadcast(&key, "receivedBytes", 7).await.unwrap();

    let database = rig.mongod.as_ref().unwrap().client().await.database("liveapp");
    let broadcasts = database.collection::<Document>("broadcast");
    let stored = broadcasts.find_one(doc! {}).await.unwrap().unwrap();
    for field in ["updateTime", "startTime", "date", "duration", "receivedBytes", "bitrate", "absoluteStartTimeMs"] {
        assert_eq!(stored.get(field).map(Bson::element_type), Some(ElementType::Int64), "{field}");
    }
    for field in ["webRTCViewerCount", "hlsViewerLimit"] {
        assert_eq!(stored.get(field).map(Bson::element_type), Some(ElementType::Int32), "{field}");
    }
    assert_eq!(stored.get("speed"), Some(&Bson::Double(1.0)));
    assert_eq!(stored.get("_t"), Some(&"Broadcast".into()));
    assert!(stored.get_object_id("_id").is_ok() && stored.get("name").is_none());
    assert_eq!(stored.get("webRTCViewerCount"), Some(&Bson::Int32(2)));
    assert_eq!(stored.get("receivedBytes"), Some(&Bson::Int64(12)));

    let names = broadcasts.list_index_names().await.unwrap();
    for index in ["streamId_unique_index", "status_1", "name_text"] {
        assert!(names.iter().any(|name| name == index), "{index} in {names:?}");
    }
    let read_back = rig.db.find_broadcast(&key).await.unwrap().unwrap();
    assert_eq!(read_back["updateTime"], json!(now));
    assert!(read_back["_id"]["$oid"].is_string());

    let row = json!({ "ip": "10.0.2.12", "lastUpdateTime": now, "cpu": "34", "dbQueryAveargeTimeMs": 3 });
    rig.db.set_cluster_node("node-1", object(row)).await.unwrap();
    let rows = rig.db.cluster_nodes().await.unwrap();
    assert_eq!(
        (&rows[0]["_id"], &rows[0]["_t"], &rows[0]["cpu"]),
        (&json!("node-1"), &json!("ClusterNode"), &json!("34"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_make_one_record_at_once_make_one() {
    let rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    let key = key("twice");
    let writes: Vec<_> = (0..32)
        .map(|n| {
            let (db, key) = (rig.db.clone(), key.clone());
            let fields = object(json!({ "status": "broadcasting", "webRTCViewerCount": n }));
            tokio::spawn(async move { db.set_broadcast(&key, fields, true).await })
        })
        .collect();
    for write in writes {
        assert!(write.await.unwrap().expect("a lost race is no error"));
    }
    let database = rig.mongod.as_ref().unwrap().client().await.database("liveapp");
    let count = database.collection::<Document>("broadcast").count_documents(doc! {}).await.unwrap();
    assert_eq!(count, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_never_reads_a_password_and_never_writes() {
    let rig = Rig::start(Kind::Mongo(Shape::ReplicaSet)).await;
    rig.until_pushed().await;
    let database = rig.mongod.as_ref().unwrap().client().await.database("liveapp");
    rig.write(&key("camera"), live("10.0.1.11", 0)).await;
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    assert!(is_live(&rig.registry.look_up(&key("camera")).await));
    database.run_command(doc! { "profile": 0 }).await.unwrap();

    let profile = database.collection::<Document>("system.profile");
    let mut cursor = profile.find(doc! { "appName": "forebay" }).await.unwrap();
    let mut finds = 0;
    while cursor.advance().await.unwrap() {
        let entry = cursor.deserialize_current().unwrap();
        let operation = entry.get_str("op").unwrap_or_default();
        assert!(!["insert", "update", "remove"].contains(&operation), "{entry}");
        let Ok(command) = entry.get_document("command") else { continue };
        if command.contains_key("find") {
            finds += 1;
            let projection = command.get_document("projection").expect("every read is projected");
            assert!(!projection.is_empty() && projection.values().all(|shown| *shown == Bson::Int32(1)));
            assert!(projection.keys().all(|field| !field.contains("password")));
        }
    }
    assert_eq!(finds, 1, "reads seen by the profiler");
    let pipelines = open_pipelines(&rig).await;
    assert!(!pipelines.is_empty(), "the change stream is open");
    for pipeline in pipelines {
        let shown = pipeline.iter().find_map(|stage| stage.as_document()?.get_document("$project").ok());
        let shown = shown.unwrap_or_else(|| panic!("every feed is projected: {pipeline:?}"));
        assert!(shown.values().all(|shown| *shown == Bson::Int32(1)));
        assert!(!shown.contains_key("fullDocument") && shown.keys().all(|field| !field.contains("password")));
    }
}

/// The pipelines of the change streams that this rig's door has open. The profiler does not show them.
async fn open_pipelines(rig: &Rig) -> Vec<Vec<Bson>> {
    let admin = rig.mongod.as_ref().expect("this rig has a server").client().await.database("admin");
    let list = [doc! { "$currentOp": { "allUsers": true, "idleCursors": true } }];
    let mut cursor = admin.aggregate(list).await.expect("the server answers");
    let mut pipelines = Vec::new();
    while cursor.advance().await.expect("the server answers") {
        let operation = cursor.deserialize_current().expect("it is a document");
        let open = operation.get_document("cursor").and_then(|cursor| cursor.get_document("originatingCommand"));
        if let Ok(pipeline) = open.and_then(|command| command.get_array("pipeline")) {
            pipelines.push(pipeline.clone());
        }
    }
    pipelines
}
