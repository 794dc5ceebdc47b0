//! A cluster as it is deployed: a door, origins and edges as processes, a real MongoDB, and a stream that is live.

use std::collections::BTreeSet;

use super::{ask, body, header, status};
use crate::support::{
    ams_client::Plan,
    cluster::{Door, Place, Processes},
    mongod::Shape,
    webrtc_peer,
};

/// Status, the node that answered, and the body.
async fn call(door: &Door, line: &str, headers: &[&str]) -> (u16, String, String) {
    let answer = ask(door, line, headers, "").await;
    let node = header(&answer, "X-Demo-Node").unwrap_or_default().to_owned();
    (status(&answer), node, body(&answer).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_stream_is_watched_on_its_edge_and_changed_on_its_origin() {
    let places = [(Place::OriginA, 1), (Place::OriginA, 2), (Place::EdgeA, 1), (Place::EdgeA, 2), (Place::EdgeA, 3)];
    let cluster = Processes::start(Shape::Standalone, &places, &[("FOREBAY_HTTP__EXPOSE_REST", "true")]).await;
    let origins = [1, 2].map(|number| cluster.id(Place::OriginA, number));
    let door = &cluster.door;
    let publisher = door.open().await;
    let publish = publisher.begin(Plan::publish("cam"), webrtc_peer::stack);
    publish.until_has("publish_started").await;
    crate::support::cluster::eventually("the nodes know the stream", async || {
        call(door, "GET /LiveApp/streams/cam.m3u8", &[]).await.0 == 200
    })
    .await;

    let mut edges = BTreeSet::new();
    for agent in ["User-Agent: one", "User-Agent: two", "User-Agent: three"] {
        let (status, edge, playlist) = call(door, "GET /LiveApp/streams/cam.m3u8", &[agent]).await;
        assert_eq!(status, 200, "{playlist}");
        let segments: Vec<&str> = playlist.lines().filter(|line| line.ends_with(".ts")).collect();
        assert_eq!(segments.len(), 3, "{playlist}");
        for segment in segments {
            let (status, node, _) = call(door, &format!("GET /LiveApp/streams/{segment}"), &[agent]).await;
            assert_eq!((status, &node), (200, &edge), "a viewer's segments come from his playlist's edge");
        }
        edges.insert(edge);
    }
    assert_eq!(edges.len(), 1, "viewers of one stream share an edge: {edges:?}");
    let edge = edges.pop_first().unwrap();
    assert!(!origins.contains(&edge), "and it is an edge");

    let explained = door.explain("play", "cam").await;
    let origin = explained["record"]["origin"].as_str().expect("it is live").to_owned();
    for change in ["POST /LiveApp/rest/v2/broadcasts/cam/stop", "PUT /LiveApp/rest/v2/broadcasts/cam"] {
        assert_eq!(call(door, change, &["Content-Length: 0"]).await.1, origin, "{change}");
    }
    let (status, stats, _) = call(door, "GET /LiveApp/rest/v2/broadcasts/cam/broadcast-statistics", &[]).await;
    assert_eq!((status, &stats), (200, &origin), "only the origin knows");
    let (status, node, record) = call(door, "GET /LiveApp/rest/v2/broadcasts/cam", &[]).await;
    assert!(status == 200 && !origins.contains(&node) && record.contains("broadcasting"), "{node}: {record}");
    let (status, node, made) = call(door, "POST /LiveApp/rest/v2/broadcasts/create", &["Content-Length: 0"]).await;
    assert!(status == 200 && origins.contains(&node) && made.contains("streamId"), "{node}: {made}");
    assert_eq!(call(door, "GET /LiveApp/streams/nobody.m3u8", &[]).await.0, 404);
    assert_eq!(call(door, "GET /LiveApp/", &[]).await.0, 200);

    cluster.kill(&edge);
    let (status, next, _) = call(door, "GET /LiveApp/streams/cam.m3u8", &["User-Agent: one"]).await;
    assert_eq!(status, 200, "his edge died and he does not notice");
    assert!(next != edge && !origins.contains(&next), "{next}");
}
