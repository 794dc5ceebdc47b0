//! Nodes from `clusternode`, their reports and their clocks, on each store.

use std::time::Duration;

use forebay::{
    clock,
    domain::ids::{NodeId, Role},
};
use serde_json::json;
use tokio::time::sleep;

use super::rig::{Kind, PATIENCE, Rig, eventually, is_live, key, live, object};
use crate::support::mongod::Shape;

async fn write_node(rig: &Rig, ip: &str, ms_off: i64, cpu: serde_json::Value) {
    let row = json!({
        "ip": ip, "lastUpdateTime": clock::wall_ms() + ms_off, "memory": "5000/10000", "cpu": cpu,
        "dbQueryAveargeTimeMs": 3
    });
    rig.db.set_cluster_node(&format!("uuid-{ip}"), object(row)).await.expect("a member can write");
}

async fn nodes_are_discovered(rig: &Rig) {
    write_node(rig, "10.0.2.12", 0, "34".into()).await;
    write_node(rig, "10.0.3.1", 0, 80.into()).await;
    write_node(rig, "192.168.7.7", 0, "1".into()).await;
    write_node(rig, "10.0.3.2", -25 * 3_600_000, "1".into()).await;
    eventually("both nodes are known", async || rig.registry.snapshot().nodes.len() == 2).await;
    let snapshot = rig.registry.snapshot();
    let edge = snapshot.get(&id("10.0.2.12")).expect("by its address");
    assert_eq!((edge.spec.role, edge.spec.address.0.port()), (Role::Edge, 5080));
    assert_eq!(edge.spec.zone.as_ref().map(|zone| zone.as_str()), Some("b"));
    let both = snapshot.get(&id("10.0.3.1")).expect("by its address");
    assert_eq!(both.spec.role, Role::Both);
    eventually("the reports arrive", async || {
        let snapshot = rig.registry.snapshot();
        let load = |node: &str| snapshot.get(&id(node)).map(|node| (node.load.cpu, node.load.memory));
        load("10.0.2.12") == Some((Some(0.34), Some(0.5))) && load("10.0.3.1") == Some((Some(0.8), Some(0.5)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_discovered_by_rule_and_range_in_memory() {
    nodes_are_discovered(&Rig::start(Kind::Memory).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_discovered_by_rule_and_range_in_mongodb() {
    nodes_are_discovered(&Rig::start(Kind::Mongo(Shape::Standalone)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_a_node_whose_clock_is_a_minute_behind_is_live() {
    let rig = Rig::start(Kind::Mongo(Shape::Standalone)).await;
    let behind_ms = 60_000;
    // Heartbeats and refreshed records, as a node writes them by its own clock.
    let beating = async {
        for _ in 0..PATIENCE.as_millis() / 50 {
            write_node(&rig, "10.0.2.30", -behind_ms, "10".into()).await;
            rig.write(&key("slow-clock"), live("10.0.2.30", behind_ms)).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let judged = async {
        rig.until(&key("slow-clock"), "the skew is measured", is_live).await;
        let skew = rig.registry.store_state().clock_skew_ms;
        eprintln!("measured {skew} ms");
        assert!((skew + behind_ms).abs() < 1_000, "measured {skew} ms");
    };
    tokio::select! {
        () = beating => panic!("the skew was never measured"),
        () = judged => {}
    }
}

fn id(name: &str) -> NodeId {
    name.parse().expect("legal")
}
