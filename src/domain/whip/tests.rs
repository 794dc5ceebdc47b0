//! A resource between its client and its session, as promises.
#![allow(clippy::disallowed_methods, reason = "a test owns its time, and starts it somewhere")]

use std::net::SocketAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CLIENT: &str = include_str!("../../../tests/golden/sdp/chromium-offer.sdp");
const PUBLISHER: &str = include_str!("../../../tests/golden/sdp/obs-whip-offer.sdp");
const NODE_OFFER: &str = include_str!("../../../tests/golden/sdp/ams-offer.sdp");
const NODE_ANSWER: &str = include_str!("../../../tests/golden/sdp/ams-answer.sdp");
const OURS: &str = "candidate:1 1 udp 2130706431 198.51.100.10 5000 typ host";

struct Rig {
    resource: Resource,
    now: Instant,
}

impl Rig {
    fn new(kind: Kind, offer: &str) -> Self {
        Self::with(kind, offer, &Wish::default(), true)
    }

    fn with(kind: Kind, offer: &str, wish: &Wish, relayed: bool) -> Self {
        let now = Instant::now();
        let resource = Resource::new(kind, "s".parse().unwrap(), wish, offer.to_owned(), relayed, now);
        Self { resource, now }
    }

    /// A resource whose client has its answer.
    fn up(kind: Kind) -> Self {
        let mut rig = Self::new(kind, if kind == Kind::Publish { PUBLISHER } else { CLIENT });
        rig.out();
        let out = match kind {
            Kind::Publish => {
                rig.session(json!({"command": "start"}));
                rig.session(description("answer", &node_answer()))
            }
            Kind::Play => rig.session(description("offer", NODE_OFFER)),
        };
        assert!(matches!(out.last(), Some(Output::Reply(Reply::Created { .. }))), "{out:?}");
        rig
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.resource.handle(input, self.now);
        self.out()
    }

    fn session(&mut self, message: Value) -> Vec<Output> {
        self.input(Input::Session(Text::from(message.to_string())))
    }

    fn patch(&mut self, frag: &str, condition: Condition) -> Vec<Output> {
        self.input(Input::Patch(Patch { frag: frag.to_owned(), condition }))
    }

    /// Time passes until something is due.
    fn tick(&mut self) -> Vec<Output> {
        self.now = self.resource.poll_timeout().expect("something is due");
        self.input(Input::Tick)
    }

    fn out(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.resource.poll_output()).collect()
    }
}

fn description(sdp_type: &str, sdp: &str) -> Value {
    json!({"command": "takeConfiguration", "streamId": "s", "type": sdp_type, "sdp": sdp})
}

/// The answer as it comes where the door knows the node's port already.
fn node_answer() -> String {
    sdp::with_candidates(NODE_ANSWER, &[OURS.to_owned()]).unwrap()
}

fn trickled(candidate: &str) -> Value {
    json!({"command": "takeCandidate", "streamId": "s", "label": 0, "id": "0", "candidate": candidate})
}

fn bare(sdp: &str) -> String {
    sdp.lines().filter(|line| !line.contains("candidate")).flat_map(|line| [line, "\r\n"]).collect()
}

fn said(output: &Output) -> Value {
    let Output::ToSession(text) = output else { panic!("not said to the session: {output:?}") };
    serde_json::from_slice(text.as_bytes()).unwrap()
}

fn refused(refusal: Refusal) -> Output {
    Output::Reply(Reply::Refused(refusal))
}

fn own(tag: &str) -> Condition {
    Condition::Tags(vec![tag.to_owned()])
}

fn frag_of(offer: &str) -> String {
    let line = |name: &str| offer.lines().find(|line| line.starts_with(name)).unwrap();
    let candidate = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host";
    format!("{}\r\n{}\r\nm=audio 9 X 0\r\na=mid:1\r\n{candidate}\r\n", line("a=ice-ufrag:"), line("a=ice-pwd:"))
}

const RESTART: &str = "a=ice-ufrag:NewU\r\na=ice-pwd:NewPasswordOfTwentyTwo\r\n";

#[test]
fn a_publish_becomes_amss_words_and_one_answer_with_every_candidate() {
    let wish = Wish { token: Some("t".to_owned()), fields: vec![("mainTrack", "room".to_owned())] };
    let mut rig = Rig::with(Kind::Publish, PUBLISHER, &wish, true);
    let command = said(&rig.out()[0]);
    assert_eq!(
        (&command["command"], &command["streamId"], &command["token"], &command["mainTrack"]),
        (&json!("publish"), &json!("s"), &json!("t"), &json!("room"))
    );
    assert_eq!((&command["audio"], &command["video"]), (&json!(true), &json!(true)));

    let offer = said(&rig.session(json!({"command": "start", "streamId": "s"}))[0]);
    assert_eq!((&offer["type"], &offer["sdp"]), (&json!("offer"), &json!(PUBLISHER)));
    assert_eq!(rig.session(description("answer", &bare(NODE_ANSWER))), [], "an answer without candidates waits");
    assert_eq!(rig.session(trickled(OURS)), []);
    assert_eq!(rig.session(trickled("")), [], "the end of candidates is no candidate");

    let [Output::Reply(Reply::Created { sdp, tag })] = &rig.tick()[..] else { panic!("created") };
    assert!(sdp.contains(&format!("a={OURS}\r\na=end-of-candidates\r\n")), "{sdp}");
    assert_eq!(tag, "\"ice-1\"");
}

#[test]
fn a_play_gets_two_answers_out_of_two_offers() {
    let mut rig = Rig::new(Kind::Play, CLIENT);
    assert_eq!(said(&rig.out()[0])["command"], "play");

    let out = rig.session(description("offer", NODE_OFFER));

    let answer = said(&out[0]);
    assert_eq!(answer["type"], "answer");
    assert!(answer["sdp"].as_str().unwrap().contains("a=setup:active"), "{answer}");
    let Output::Reply(Reply::Created { sdp, .. }) = &out[1] else { panic!("{out:?}") };
    assert!(sdp.contains("a=ice-ufrag:vYna") && sdp.contains("a=sendonly"), "{sdp}");
}

#[test]
fn what_a_node_gathers_itself_is_waited_for_where_nothing_is_relayed() {
    let mut rig = Rig::with(Kind::Play, CLIENT, &Wish::default(), false);
    rig.out();
    assert_eq!(rig.session(description("offer", NODE_OFFER)).len(), 1, "the answer to the node, and no more yet");
    assert_eq!(rig.session(trickled("candidate:9 1 udp 1 10.0.1.20 51044 typ host")), []);
    let [Output::Reply(Reply::Created { sdp, .. })] = &rig.tick()[..] else { panic!("created") };
    assert!(sdp.contains("candidate:9 1 udp"), "{sdp}");
    assert_eq!(rig.resource.poll_timeout(), None, "nobody can say whether its media lives");
}

#[test]
fn a_refusal_of_amss_is_one_of_https() {
    for (definition, refusal) in [
        ("no_stream_exist", Refusal::NotFound),
        ("streamIdInUse", Refusal::InUse),
        ("unauthorized_access", Refusal::Unauthorized),
        ("not_allowed_unregistered_streams", Refusal::Forbidden),
        ("highResourceUsage", Refusal::Busy),
        ("notSetRemoteDescription", Refusal::BadSdp),
        ("something_new", Refusal::BadNode),
    ] {
        let mut rig = Rig::new(Kind::Publish, PUBLISHER);
        rig.out();
        let out = rig.session(json!({"command": "error", "definition": definition, "streamId": "s"}));
        assert_eq!(out, [refused(refusal), Output::End(End::Refused)], "{definition}");
    }
    let wish = Wish { token: Some("wrong".to_owned()), fields: Vec::new() };
    let mut rig = Rig::with(Kind::Play, CLIENT, &wish, true);
    rig.out();
    let out = rig.session(json!({"command": "error", "definition": "unauthorized_access"}));
    assert_eq!(out[0], refused(Refusal::Forbidden), "it had a token");
}

#[test]
fn what_cannot_begin_says_why_and_ends() {
    let mut junk = Rig::new(Kind::Publish, "v=0\r\n");
    assert_eq!(junk.out(), [refused(Refusal::BadSdp), Output::End(End::Refused)]);

    let mut nothing = Rig::new(Kind::Play, &CLIENT.replace("sendrecv", "sendonly"));
    nothing.out();
    let out = nothing.session(description("offer", NODE_OFFER));
    assert_eq!(said(&out[0])["command"], "stop");
    assert_eq!(out[1..], [refused(Refusal::NotAcceptable), Output::End(End::Refused)]);

    let mut silent = Rig::new(Kind::Publish, PUBLISHER);
    silent.out();
    let begun = silent.now;
    assert_eq!(silent.tick(), [refused(Refusal::BadNode), Output::End(End::Refused)]);
    assert_eq!(silent.now - begun, DESCRIBE);

    let mut ended = Rig::new(Kind::Publish, PUBLISHER);
    ended.out();
    assert_eq!(ended.input(Input::SessionEnded), [refused(Refusal::Busy), Output::End(End::Refused)]);
    assert_eq!(ended.input(Input::Delete), [], "nothing follows the end");
}

#[test]
fn candidates_are_taken_for_the_present_generation_only() {
    let mut rig = Rig::up(Kind::Publish);
    let frag = frag_of(PUBLISHER);
    assert_eq!(rig.patch(&frag, Condition::Absent), [refused(Refusal::NoCondition)]);
    assert_eq!(rig.patch(&frag, own("\"ice-2\"")), [refused(Refusal::Stale)]);
    assert_eq!(rig.patch(&frag, own("W/\"ice-1\"")), [refused(Refusal::Stale)], "a weak tag never matches");
    assert_eq!(rig.patch("not a fragment", own("\"ice-1\"")), [refused(Refusal::BadSdp)]);
    for condition in [own("\"ice-1\""), Condition::Any] {
        let out = rig.patch(&frag, condition);
        let candidate = said(&out[0]);
        assert_eq!((&candidate["command"], &candidate["id"]), (&json!("takeCandidate"), &json!("1")));
        assert_eq!(out[1..], [Output::Reply(Reply::Taken)]);
    }
}

#[test]
fn a_viewers_candidates_are_said_in_the_nodes_words() {
    let mut rig = Rig::up(Kind::Play);
    let out = rig.patch(&frag_of(CLIENT), own("\"ice-1\""));
    let candidate = said(&out[0]);
    assert_eq!((&candidate["id"], &candidate["label"]), (&json!("0"), &json!(0)), "the section that leads there");
    assert_eq!(rig.patch(RESTART, Condition::Any), [refused(Refusal::NoRestart)]);
}

#[test]
fn a_restart_is_an_offer_with_new_credentials_and_begins_a_new_generation() {
    let mut rig = Rig::up(Kind::Publish);
    let out = rig.patch(RESTART, Condition::Any);
    let offer = said(&out[0]);
    assert!(offer["sdp"].as_str().unwrap().contains("a=ice-ufrag:NewU\r\n"), "{offer}");
    assert_eq!(out.len(), 1, "its answer comes with the node's");

    let again = node_answer().replace("a=ice-ufrag:", "a=ice-ufrag:next");
    let out = rig.session(description("answer", &again));
    let [Output::Reply(Reply::Restarted { frag, tag })] = &out[..] else { panic!("{out:?}") };
    assert!(frag.contains("a=ice-ufrag:next") && frag.contains("a=candidate:"), "{frag}");
    assert_eq!(tag, "\"ice-2\"");
    assert_eq!(rig.patch(&frag_of(PUBLISHER), own("\"ice-1\"")), [refused(Refusal::Stale)]);
}

#[test]
fn a_restart_that_fails_leaves_the_session_as_it_was() {
    let answers = [
        description("answer", NODE_ANSWER),
        json!({"command": "error", "definition": "notSetRemoteDescription", "streamId": "s"}),
    ];
    for answer in answers {
        let mut rig = Rig::up(Kind::Publish);
        rig.patch(RESTART, Condition::Any);
        assert_eq!(rig.session(answer), [refused(Refusal::BadNode)]);
        let taken = rig.patch(&frag_of(PUBLISHER), own("\"ice-1\""));
        assert_eq!(taken.last(), Some(&Output::Reply(Reply::Taken)));
    }
    let mut rig = Rig::up(Kind::Publish);
    rig.patch(RESTART, Condition::Any);
    assert_eq!(rig.patch(RESTART, Condition::Any), [refused(Refusal::Busy)]);
    assert_eq!(rig.tick(), [refused(Refusal::BadNode)], "and none in time is none");
}

#[test]
fn a_client_that_cannot_follow_to_another_node_is_ended() {
    let mut rig = Rig::up(Kind::Publish);
    assert_eq!(rig.session(json!({"command": "start", "streamId": "s"})), [Output::End(End::Moved)]);

    let mut rig = Rig::up(Kind::Play);
    let elsewhere = NODE_OFFER.replace("a=ice-ufrag:vYna", "a=ice-ufrag:other");
    assert_eq!(rig.session(description("offer", &elsewhere)), [Output::End(End::Moved)]);

    let mut rig = Rig::up(Kind::Play);
    let out = rig.session(description("offer", NODE_OFFER));
    assert_eq!(said(&out[0])["type"], "answer", "the same connection's next offer is answered");
    assert_eq!(out.len(), 1);
}

#[test]
fn the_end_of_the_stream_is_the_end_of_the_resource() {
    for (kind, definition) in [(Kind::Publish, "publish_finished"), (Kind::Play, "play_finished")] {
        let mut rig = Rig::up(kind);
        let out = rig.session(json!({"command": "notification", "definition": definition, "streamId": "s"}));
        assert_eq!(out, [Output::End(End::Finished)]);
    }
    let mut rig = Rig::up(Kind::Publish);
    let out = rig.input(Input::Delete);
    assert_eq!(said(&out[0])["command"], "stop");
    assert_eq!(out[1..], [Output::End(End::Deleted)]);
}

#[test]
fn a_client_whose_media_is_dead_is_ended_and_one_that_changes_its_address_is_not() {
    let tuple = |port: u16| ClientKey::Udp(SocketAddr::from(([192, 0, 2, 1], port)));
    let died = |out: &[Output]| out.last() == Some(&Output::End(End::MediaDied)) && said(&out[0])["command"] == "stop";

    let mut never = Rig::up(Kind::Publish);
    let begun = never.now;
    assert!(died(&never.tick()));
    assert!(never.now - begun <= MEDIA);

    let mut rig = Rig::up(Kind::Publish);
    assert_eq!(rig.input(Input::Media(MediaNews::Up(tuple(1)))), []);
    assert_eq!(rig.resource.poll_timeout(), None);
    rig.input(Input::Media(MediaNews::Up(tuple(2))));
    assert_eq!(rig.input(Input::Media(MediaNews::Down { client: tuple(1), consent: true })), [], "the other one lives");
    assert_eq!(rig.input(Input::Media(MediaNews::Down { client: tuple(2), consent: false })), []);
    assert!(rig.resource.poll_timeout().is_some(), "it may come back");
    rig.input(Input::Media(MediaNews::Up(tuple(3))));
    assert!(died(&rig.input(Input::Media(MediaNews::Down { client: tuple(3), consent: true }))));
}

#[test]
fn links_name_ice_servers_as_the_standard_has_it() {
    assert_eq!(ice_server_link("", "", ""), None);
    assert_eq!(ice_server_link("stun:a.example", "", "").unwrap(), r#"<stun:a.example>; rel="ice-server""#);
    let turn = ice_server_link("turn:a.example?transport=tcp", "me", r#"a"b\"#).unwrap();
    let expected = r#"<turn:a.example?transport=tcp>; rel="ice-server"; username="me"; credential="a\"b\\"; credential-type="password""#;
    assert_eq!(turn, expected);
}

fn any_input() -> impl Strategy<Value = Input> {
    let text = |message: Value| Input::Session(Text::from(message.to_string()));
    let tuple = ClientKey::Udp(SocketAddr::from(([192, 0, 2, 1], 7)));
    let tags = || Condition::Tags(vec!["\"ice-1\"".to_owned()]);
    prop::sample::select(vec![
        text(json!({"command": "start"})),
        text(description("answer", &node_answer())),
        text(description("answer", &bare(NODE_ANSWER).replace("a=ice-ufrag:", "a=ice-ufrag:x"))),
        text(description("offer", NODE_OFFER)),
        text(description("offer", "junk")),
        text(trickled(OURS)),
        text(json!({"command": "error", "definition": "no_stream_exist"})),
        text(json!({"command": "notification", "definition": "play_finished"})),
        Input::SessionEnded,
        Input::Patch(Patch { frag: RESTART.to_owned(), condition: Condition::Any }),
        Input::Patch(Patch { frag: frag_of(PUBLISHER), condition: tags() }),
        Input::Delete,
        Input::Media(MediaNews::Up(tuple)),
        Input::Media(MediaNews::Down { client: tuple, consent: false }),
        Input::Tick,
    ])
}

proptest! {
    #[test]
    fn every_request_gets_one_answer_and_nothing_follows_the_end(
        publish: bool,
        inputs in prop::collection::vec((any_input(), 0u64..20_000), 0..24),
    ) {
        let (kind, offer) = if publish { (Kind::Publish, PUBLISHER) } else { (Kind::Play, CLIENT) };
        let mut rig = Rig::new(kind, offer);
        rig.out();
        let (mut asked, mut answered, mut over) = (1, 0, false);
        for (input, later) in inputs {
            rig.now += Duration::from_millis(later);
            if matches!(input, Input::Patch(_)) && !over {
                asked += 1;
            }
            for output in rig.input(input) {
                prop_assert!(!over, "{output:?} after the end");
                match output {
                    Output::Reply(_) => answered += 1,
                    Output::End(_) => over = true,
                    Output::ToSession(_) => {}
                }
            }
            prop_assert!(answered <= asked);
        }
        prop_assert!(!over || rig.resource.poll_timeout().is_none());
    }
}
