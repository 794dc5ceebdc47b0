//! `forebay status`, `drain` and `undrain`, and the calls that they make.

use serde_json::json;

use super::{DEMO, ask};
use crate::support::{
    cluster::{Door, eventually},
    process::{Process, run},
};

const NODES: &str = "[[nodes.static]]\nname = \"o1\"\naddress = \"127.0.0.1:9\"\nrole = \"origin\"\n\
                     [[nodes.static]]\nname = \"e1\"\naddress = \"127.0.0.2:9\"\nrole = \"edge\"\n";

async fn forebay(door: &Process, arguments: &str) -> (Option<i32>, String, String) {
    let admin = format!("http://{}", door.admin());
    let mut words: Vec<&str> = arguments.split(' ').collect();
    words.extend(["--admin", &admin]);
    run(&words).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_node_is_drained_shown_and_taken_back_by_commands() {
    let door = Process::start(&DEMO).await;
    let (code, text, _) = forebay(&door, "status").await;
    assert_eq!(code, Some(0));
    let edge = text.lines().find(|line| line.starts_with("edge-1")).expect("a line per node");
    assert!(edge.contains("serving") && text.contains("more publishes fit"), "{text}");

    let (code, text, progress) = forebay(&door, "drain edge-1 --deadline 10m --wait").await;
    assert_eq!((code, text.as_str()), (Some(0), "edge-1: drained\n"), "{progress}");
    assert!(progress.contains("edge-1: "), "{progress}");
    let node = door.admin_get("/v1/nodes/edge-1").await;
    assert_eq!((&node["state"], &node["drain"]["migrate"]), (&json!("drained"), &json!("paced")));
    assert_eq!(forebay(&door, "drain edge-1").await.0, Some(0), "the same again is no mistake");

    let (code, text, _) = forebay(&door, "undrain 127.0.1.3").await;
    assert!(code == Some(0) && text.starts_with("edge-1: joining"), "{text}");
    let (code, _, error) = forebay(&door, "undrain edge-1").await;
    assert!(code == Some(75) && error.contains("not being drained"), "{error}");
    let (code, json, _) = forebay(&door, "status --json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["nodes"].as_array().unwrap().len()), (Some(0), 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_an_exit_code_that_scripts_can_tell_apart() {
    let door = Door::serve(NODES, &[("FOREBAY_ADMIN__TOKEN_ENV", "TOKENS"), ("TOKENS", "ci: s3cret")]).await;
    let (code, _, error) = forebay(&door, "status").await;
    assert!(code == Some(77) && error.contains("token"), "{error}");
    let file = std::env::temp_dir().join(format!("forebay-token-{}", door.pid()));
    std::fs::write(&file, "s3cret\n").unwrap();
    let with = |arguments: &str| format!("{arguments} --token-file {}", file.display());
    assert_eq!(forebay(&door, &with("status")).await.0, Some(0));
    for (arguments, exit, says) in [
        ("drain nobody", 64, "no node has that id"),
        ("drain e1 --deadline soon", 64, "deadline"),
        ("drain e1 --deadline 2020-01-01T00:00:00Z", 64, "past"),
        ("drain e1", 75, "last node that serves"),
        ("undrain e1", 75, "not being drained"),
    ] {
        let (code, _, error) = forebay(&door, &with(arguments)).await;
        assert!(code == Some(exit) && error.contains(says), "{arguments}: {code:?} {error}");
    }
    assert_eq!(forebay(&door, &with("drain e1 --force")).await.0, Some(0));
    let audit = door.logged(&["forebay::audit"]).await;
    assert!(audit.contains("ci") && audit.contains("e1") && !door.log().contains("s3cret"), "{audit}");
    std::fs::remove_file(&file).unwrap();
    let (code, _, error) = run(&["status", "--admin", "http://127.0.0.1:1"]).await;
    assert!(code == Some(69) && error.contains("does not answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_drain_as_long_as_it_was_told_to() {
    let door = Process::start(&DEMO).await;
    let done = ask(&door, "PUT", "/v1/nodes/127.0.1.3/drain?wait=20s", "").await;
    assert_eq!((done.status, &done.body["id"], &done.body["state"]), (200, &json!("edge-1"), &json!("drained")));

    let publisher = crate::support::ams_client::Socket::open(&door.url()).await.unwrap();
    let plan = crate::support::ams_client::Plan::publish("s");
    publisher.begin(plan, crate::support::webrtc_peer::stack).until_has("publish_started").await;
    let origin = door.admin_get("/v1/streams/LiveApp/s").await["origin"].as_str().unwrap().to_owned();
    let path = format!("/v1/nodes/{origin}/drain");
    let waits = ask(&door, "PUT", &format!("{path}?wait=200ms"), r#"{"migrate":"wait"}"#).await;
    assert_eq!((waits.status, &waits.body["state"]), (202, &json!("draining")), "{waits:?}");
    assert!(waits.head.contains("retry-after: "), "{}", waits.head);
    assert_eq!(waits.body["drain"]["legs"], json!({"publish": 1, "play": 0}));
    publisher.close();
    let (door, path) = (&door, &path);
    eventually("it drains once its publisher has left", async || {
        ask(door, "PUT", &format!("{path}?wait=1s"), "").await.status == 200
    })
    .await;
}
