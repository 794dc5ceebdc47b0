//! What operators read: a session's story, streams, the placement that would be made, and the log.

use serde_json::{Value, json};

use super::{DEMO, ask};
use crate::support::{
    ams_client::{Plan, Socket},
    cluster::{Door, eventually},
    mongod::{Mongod, Shape},
    process::{Process, http},
    webrtc_peer,
};

fn events(session: &Value) -> Vec<&str> {
    session["story"].as_array().unwrap().iter().map(|line| line["event"].as_str().unwrap()).collect()
}

/// Whether these come in this order, whatever is between them.
fn in_order(events: &[&str], wanted: &[&str]) -> bool {
    let mut events = events.iter();
    wanted.iter().all(|wanted| events.any(|event| event == wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_story_tells_what_happened_and_can_be_read_after_its_end() {
    let door = Process::start(&DEMO).await;
    let (publisher, viewer) = (Socket::open(&door.url()).await.unwrap(), Socket::open(&door.url()).await.unwrap());
    publisher.begin(Plan::publish("s"), webrtc_peer::stack).until_has("publish_started").await;
    let play = viewer.begin(Plan::play("s"), webrtc_peer::stack);
    play.until_more_video(5).await;

    let list = door.admin_get("/v1/sessions?kind=play&app=LiveApp&stream=s").await;
    let sessions = list["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &list["next"]), (1, &Value::Null), "{list}");
    let (session, leg) = (&sessions[0], &sessions[0]["legs"][0]);
    assert_eq!((&leg["stream"], &leg["kind"], &leg["state"]), (&json!("s"), &json!("play"), &json!("live")));
    assert_eq!(session["app"], "LiveApp");
    let node = leg["node"].as_str().unwrap();
    assert!(node.starts_with("edge-"), "{leg}");
    let path = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
    let on_node = door.admin_get(&format!("/v1/sessions?node={node}")).await;
    assert_eq!(on_node["sessions"][0]["id"], session["id"]);

    // The relay's threads and the session's task tell each their own part, and neither waits for the other.
    let said = ["opened", "command", "placement", "link", "offer", "answer"];
    let seen = ["opened", "first_stun", "first_media"];
    eventually("the story has signalling and media", async || {
        let detail = door.admin_get(&path).await;
        in_order(&events(&detail), &said) && in_order(&events(&detail), &seen)
    })
    .await;
    let detail = door.admin_get(&path).await;
    assert!(events(&detail).contains(&"node_answered") && events(&detail).contains(&"started"), "{detail}");
    let placement = &detail["placements"][0];
    assert_eq!((&placement["node"], &placement["rule"]), (&leg["node"], &json!("bounded_hash")), "{detail}");
    assert_eq!(placement["candidates"][0]["verdict"], "chosen");
    assert!(placement["candidates"].as_array().unwrap().len() >= 3, "all edges: {placement}");

    viewer.close();
    eventually("the session has ended", async || !door.admin_get(&path).await["ended_at"].is_null()).await;
    let ended = door.admin_get(&path).await;
    assert_eq!((&ended["ended_by"], &ended["legs"]), (&json!("client_closed"), &json!([])));
    assert_eq!(events(&ended).last(), Some(&"close"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_an_operator_closes_ends() {
    let door = Process::start(&DEMO).await;
    let client = Socket::open(&door.url()).await.unwrap();
    eventually("it is listed", async || !door.admin_get("/v1/sessions").await["sessions"][0].is_null()).await;
    let id = door.admin_get("/v1/sessions").await["sessions"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&door, "DELETE", &format!("/v1/sessions/{id}"), "").await.status, 204);
    client.until("the door closes it", |report| report.closed.is_some()).await;
    eventually("the story says so", async || {
        door.admin_get(&format!("/v1/sessions/{id}")).await["ended_by"] == "admin"
    })
    .await;
    door.logged(&["forebay::audit"]).await;
    assert_eq!(ask(&door, "DELETE", &format!("/v1/sessions/{id}"), "").await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_say_where_they_are_and_explain_says_what_placement_then_does() {
    let door = Process::start(&DEMO).await;
    for stream in ["a", "b", "c", "d"] {
        let explain = async |kind: &str| {
            let question = json!({"app": "LiveApp", "stream": stream, "kind": kind});
            door.admin_post("/v1/explain", &question).await
        };
        let (publisher, foretold) = (Socket::open(&door.url()).await.unwrap(), explain("publish").await);
        let publish = publisher.begin(Plan::publish(stream), webrtc_peer::stack);
        publish.until_has("publish_started").await;
        let path = format!("/v1/streams/LiveApp/{stream}");
        let detail = door.admin_get(&path).await;
        // Origins whose loads are within 2 % of each other are drawn at random, each time anew.
        let candidates = foretold["candidates"].as_array().unwrap();
        let of = |node: &Value| candidates.iter().find(|one| one["node"] == *node).unwrap()["score"].as_f64().unwrap();
        assert!(of(&detail["origin"]) <= of(&foretold["node"]) * 1.02 + 0.02, "{foretold}, and then {detail}");
        let again = explain("publish").await;
        assert_eq!((&again["node"], &again["rule"]), (&detail["origin"], &json!("live_on_origin")));
        let foretold = explain("play").await;
        assert_eq!(foretold["node"], detail["play"]["node"], "the page about a stream says the same");
        let viewer = Socket::open(&door.url()).await.unwrap();
        viewer.begin(Plan::play(stream), webrtc_peer::stack).until_has("play_started").await;
        let detail = door.admin_get(&path).await;
        assert_eq!((&detail["edges"][0]["node"], &detail["edges"][0]["viewers"]), (&foretold["node"], &json!(1)));
        assert_eq!((&detail["record"]["live"], &detail["publishers"]), (&json!(true), &json!(1)), "{detail}");
        assert_eq!(detail["legs"].as_array().unwrap().len(), 2);
        // Both stay, so that the next stream finds other loads.
        std::mem::forget((publisher, viewer, publish));
    }
    let first = door.admin_get("/v1/streams?limit=3").await;
    let names = |list: &Value| -> String {
        list["streams"].as_array().unwrap().iter().map(|stream| stream["stream"].as_str().unwrap()).collect()
    };
    assert_eq!((names(&first), &first["next"]), ("abc".into(), &json!("LiveApp/c")));
    let second = door.admin_get("/v1/streams?cursor=LiveApp/c").await;
    assert_eq!((names(&second), &second["next"]), ("d".into(), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_filter_changes_while_the_door_runs_and_the_audit_log_says_by_whom() {
    let door = Process::start(&DEMO).await;
    let bad = ask(&door, "PUT", "/v1/log", r#"{"filter":"forebay=loud"}"#).await;
    assert_eq!((bad.status, &bad.body["code"]), (400, &json!("bad_filter")));
    let changed = ask(&door, "PUT", "/v1/log", r#"{"filter":"forebay=debug"}"#).await;
    assert_eq!((changed.status, &changed.body), (200, &json!({"filter": "forebay=debug"})));
    let begun = door.log();
    assert!(!begun.contains("message dropped"), "{begun}");
    let client = Socket::open(&door.url()).await.unwrap();
    client.say(json!({"command": "stop", "streamId": "nothing"}));
    door.logged(&["message dropped"]).await;
    let audit = door.logged(&["forebay::audit"]).await;
    assert!(audit.contains("forebay=debug") && audit.contains("127.0.0.1:"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_door_says_503_closes_its_sessions_and_comes_back() {
    let door = Process::start(&DEMO).await;
    let health = async || {
        let answer = http(door.http(), "GET /healthz HTTP/1.0\r\n\r\n").await;
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let client = Socket::open(&door.url()).await.unwrap();
    let drained = ask(&door, "PUT", "/v1/door/drain", r#"{"lame_duck":"300ms","deadline":"300ms"}"#).await;
    assert_eq!((drained.status, &drained.body["state"]), (200, &json!("draining")), "{drained:?}");
    assert_eq!(health().await, "503", "at once");
    client.until("the door closes it", |report| report.closed.is_some()).await;
    eventually("it is empty", async || door.admin_get("/v1/door").await["drain"]["drained"] == true).await;
    assert!(Socket::open(&door.url()).await.is_err(), "no new sessions");
    assert_eq!(ask(&door, "DELETE", "/v1/door/drain", "").await.status, 200);
    assert_eq!(health().await, "200");
    Socket::open(&door.url()).await.expect("it takes sessions again");
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_shrinks_with_what_is_placed_and_names_a_node_to_spare() {
    let door = Process::start(&DEMO).await;
    let before = door.admin_get("/v1/capacity").await;
    let fit = |capacity: &Value, kind: &str| capacity[kind]["fit"].as_u64().unwrap();
    assert!(fit(&before, "publish") > 0 && fit(&before, "play") > 0, "{before}");
    let publisher = Socket::open(&door.url()).await.unwrap();
    publisher.begin(Plan::publish("s"), webrtc_peer::stack).until_has("publish_started").await;
    let origin = door.admin_get("/v1/streams/LiveApp/s").await["origin"].clone();
    let after = door.admin_get("/v1/capacity").await;
    assert!(fit(&after, "publish") < fit(&before, "publish"), "{after}");
    let spare = after["cheapest_to_remove"].as_array().unwrap();
    let of = |role: &str| spare.iter().find(|one| one["role"] == role).unwrap_or_else(|| panic!("{role}: {after}"));
    assert_ne!(of("origin")["node"], origin, "the one without a publish");
    assert_eq!(of("edge")["fits"], true);
    let metric = door.metric("forebay_capacity_legs{kind=\"publish\"}").await;
    assert_eq!(metric, Some(fit(&after, "publish") as f64));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_mongodb_is_away_the_door_says_so_and_drains_go_on_being_taken() {
    let mut mongod = Mongod::start(Shape::Standalone).await;
    let nodes = "[[nodes.static]]\nname = \"e1\"\naddress = \"127.0.0.1:9\"\nrole = \"edge\"\n\
                 [[nodes.static]]\nname = \"e2\"\naddress = \"127.0.0.2:9\"\nrole = \"edge\"\n";
    let door = Door::serve(&format!("[mongo]\nuri = \"{}\"\n{nodes}", mongod.uri()), &[]).await;
    let store = async || door.admin_get("/v1/door").await["store"].clone();
    eventually("the store is up", async || store().await["status"] == "up").await;
    assert_eq!(store().await["away_since"], Value::Null);
    mongod.kill().await;
    eventually("the store is away", async || store().await["status"] == "away").await;
    assert!(store().await["away_since"].is_string());
    let drained = ask(&door, "PUT", "/v1/nodes/e1/drain", r#"{"force":true}"#).await;
    assert_eq!((drained.status, &drained.body["drain"]["kept"]), (200, &json!("memory")), "{drained:?}");
    let unknown = ask(&door, "GET", "/v1/streams/LiveApp/nobody-knows", "").await;
    assert_eq!((unknown.status, &unknown.body["code"]), (503, &json!("store_away")));
}
