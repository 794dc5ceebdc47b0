#![allow(clippy::disallowed_methods, reason = "a test owns its time, and starts it somewhere")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::domain::signaling::Text;

pub(super) const PUBLISH: &str = r#"{"command":"publish","streamId":"s"}"#;
pub(super) const PLAY: &str = r#"{"command":"play","streamId":"s"}"#;
pub(super) const STOP: &str = r#"{"command":"stop","streamId":"s"}"#;
pub(super) const START: &str = r#"{"command":"start","streamId":"s"}"#;
pub(super) const OFFER: &str = r#"{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"a=ice-ufrag:pub\r\nm=audio 9\r\nm=video 9"}"#;
const ANSWER: &str = r#"{"command":"takeConfiguration","streamId":"s","type":"answer","sdp":"a=ice-ufrag:pla\r\n"}"#;

/// A session with its clock, and what it has said since it was last asked.
pub(super) struct Bench {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) said: Vec<Output>,
    facts: Vec<Fact>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(None)
    }

    pub(super) fn with(relay: Option<Arc<RelaySide>>) -> Self {
        let settings = SessionSettings {
            give_up: Duration::from_millis(2700),
            attempt: Duration::from_millis(1200),
            confirm: Duration::from_secs(8),
            max_to_node: 1000,
            max_legs: 4,
            messages_per_second: 100,
            with_publisher: true,
            ice_servers: signaling::ice_server_config("", "", ""),
            relay,
        };
        let now = Instant::now();
        Self { session: Session::new(Arc::new(settings), SessionId(1), now), now, said: Vec::new(), facts: Vec::new() }
    }

    pub(super) fn take(&mut self, input: Input) -> &mut Self {
        let before = (self.session.revision(), self.views());
        self.session.handle(input, self.now);
        let same = self.session.revision() == before.0;
        assert!(!same || self.views() == before.1, "legs that look different are another revision");
        while let Some(output) = self.session.poll_output() {
            self.said.push(output);
        }
        self
    }

    pub(super) fn client(&mut self, text: &str) -> &mut Self {
        self.take(Input::Client(Text::from(text.to_owned())))
    }

    pub(super) fn node(&mut self, at: &str, text: &str) -> &mut Self {
        self.take(Input::Node(id(at), Text::from(text.to_owned())))
    }

    /// Answers the latest question to placement.
    pub(super) fn place_on(&mut self, node: &str) -> &mut Self {
        let ticket = self.said.iter().rev().find_map(|output| match output {
            Output::Place(ticket, _) => Some(*ticket),
            _ => None,
        });
        let ticket = ticket.expect("placement was asked");
        self.take(Input::Placed { ticket, result: Ok(placed(node)) })
    }

    pub(super) fn up(&mut self, node: &str) -> &mut Self {
        self.take(Input::LinkUp(id(node)))
    }

    /// Lets time pass, with every tick that falls due.
    pub(super) fn wait(&mut self, ms: u64) -> &mut Self {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.take(Input::Tick);
        }
        self.now = end;
        self
    }

    /// What was said since the last call, without the facts.
    pub(super) fn said(&mut self) -> Vec<Output> {
        let mut said = Vec::new();
        for output in self.said.drain(..) {
            match output {
                Output::Fact(fact) => self.facts.push(fact),
                other => said.push(other),
            }
        }
        said
    }

    /// The facts of moves since the last call.
    pub(super) fn moves(&mut self) -> Vec<Fact> {
        let said = self.said();
        self.said = said;
        let of_moves = |fact: &Fact| {
            matches!(
                fact,
                Fact::Moving { .. }
                    | Fact::Moved { .. }
                    | Fact::Stayed { .. }
                    | Fact::MoveFailed { .. }
                    | Fact::Gap { .. }
            )
        };
        self.facts.drain(..).filter(of_moves).collect()
    }

    /// Placement finds no node for the latest question.
    pub(super) fn place_nowhere(&mut self, reject: Reject) -> &mut Self {
        let ticket = self.said.iter().rev().find_map(|output| match output {
            Output::Place(ticket, _) => Some(*ticket),
            _ => None,
        });
        self.take(Input::Placed { ticket: ticket.expect("placement was asked"), result: Err(reject) })
    }

    pub(super) fn views(&self) -> Vec<LegView> {
        self.session.legs().collect()
    }

    pub(super) fn asked(&mut self) -> Ask {
        let ask = self.said().into_iter().find_map(|output| match output {
            Output::Place(_, ask) => Some(ask),
            _ => None,
        });
        ask.expect("placement was asked")
    }
}

pub(super) fn id(node: &str) -> NodeId {
    node.parse().unwrap()
}

pub(super) fn placed(node: &str) -> Placed {
    Placed { node: id(node), address: IpAddr::from([10, 0, 1, 1]), origin: None }
}

pub(super) fn to_client(text: &str) -> Output {
    Output::ToClient(Text::from(text.to_owned()))
}

pub(super) fn to_node(node: &str, text: &str) -> Output {
    Output::ToNode(id(node), Text::from(text.to_owned()))
}

fn error_text(output: &Output) -> String {
    let Output::ToClient(text) = output else { panic!("not for the client: {output:?}") };
    String::from_utf8(text.as_bytes().to_vec()).unwrap()
}

fn publishing() -> Bench {
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", START).said();
    bench
}

#[test]
fn a_ping_is_answered_before_any_node_is_known() {
    assert_eq!(Bench::new().client(r#"{"command":"ping"}"#).said(), [to_client(r#"{"command":"pong"}"#)]);
}

#[test]
fn a_publish_goes_to_its_node_byte_for_byte_and_its_answer_comes_back_so() {
    let mut bench = Bench::new();
    let odd = r#" {"command" : "publish","streamId":"s", "unheardOf":[1,{"a":null}] }"#;
    bench.client(odd).place_on("o1");
    assert!(bench.said().contains(&Output::Dial(id("o1"))));
    assert_eq!(bench.up("o1").said(), [to_node("o1", odd)]);
    assert_eq!(bench.node("o1", START).said(), [to_client(START)]);
    assert_eq!(bench.client(OFFER).said(), [to_node("o1", OFFER)]);
}

#[test]
fn a_stop_cancels_a_leg_that_is_still_being_placed() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).client(STOP);
    assert!(bench.said().contains(&Output::Release(Ticket(1))));
    bench.take(Input::Placed { ticket: Ticket(1), result: Ok(placed("o1")) });
    assert_eq!(bench.said(), [], "a late placement starts nothing");
}

#[test]
fn a_stop_while_dialling_hangs_up() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").said();
    assert_eq!(bench.client(STOP).said(), [Output::Release(Ticket(1)), Output::HangUp(id("o1"))]);
}

#[test]
fn a_repeated_publish_is_the_same_leg_until_the_node_has_answered() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).said();
    assert_eq!(bench.client(PUBLISH).said(), []);
    let mut bench = publishing();
    assert_eq!(bench.client(PUBLISH).said(), [to_node("o1", PUBLISH)], "then it is the node's to answer");
}

#[test]
fn a_second_start_before_the_offer_is_swallowed_and_after_it_passes() {
    let mut bench = publishing();
    assert_eq!(bench.node("o1", START).said(), []);
    bench.client(OFFER).said();
    assert_eq!(bench.node("o1", START).said(), [to_client(START)]);
}

#[test]
fn two_legs_on_one_node_share_its_link() {
    let mut bench = publishing();
    bench.client(r#"{"command":"play","streamId":"t"}"#).place_on("o1");
    let said = bench.said();
    assert!(!said.contains(&Output::Dial(id("o1"))), "{said:?}");
    assert!(said.contains(&to_node("o1", r#"{"command":"play","streamId":"t"}"#)));
}

#[test]
fn one_stream_published_and_played_is_told_apart_by_sdp_type_ufrag_and_node() {
    let mut bench = publishing();
    bench.client(PLAY).place_on("e1").up("e1").said();
    assert_eq!(bench.node("e1", OFFER).said(), [to_client(OFFER)]);
    assert_eq!(bench.client(OFFER).said(), [to_node("o1", OFFER)]);
    assert_eq!(bench.client(ANSWER).said(), [to_node("e1", ANSWER)]);
    for (ufrag, node) in [("pub", "o1"), ("pla", "e1"), ("pub", "o1")] {
        let candidate =
            format!(r#"{{"command":"takeCandidate","streamId":"s","candidate":"candidate:1 ufrag {ufrag} x"}}"#);
        assert_eq!(bench.client(&candidate).said(), [to_node(node, &candidate)]);
    }
    let bare = r#"{"command":"takeCandidate","streamId":"s","label":0,"id":"0","candidate":""}"#;
    assert_eq!(bench.client(bare).said(), [to_node("e1", bare)], "without a ufrag the latest SDP decides");
    let started = r#"{"command":"notification","definition":"play_started","streamId":"s"}"#;
    bench.node("e1", started).said();
    let stopped = bench.client(STOP).said();
    assert!(stopped.contains(&to_node("o1", STOP)) && stopped.contains(&to_node("e1", STOP)), "{stopped:?}");
}

#[test]
fn a_node_local_refusal_is_asked_elsewhere_and_never_seen_by_the_client() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").said();
    bench.node("o1", r#"{"command":"error","definition":"highResourceUsage","streamId":"s"}"#);
    assert!(bench.said.contains(&Output::Fact(Fact::NodeFull(id("o1")))));
    assert_eq!(bench.said.iter().filter(|output| matches!(output, Output::ToClient(_))).count(), 0);
    let place = bench.said.clone();
    assert_eq!(bench.asked().avoid, [id("o1")]);
    bench.said = place;
    let said = bench.place_on("o2").up("o2").said();
    assert!(said.contains(&to_node("o2", PUBLISH)), "{said:?}");
}

#[test]
fn when_all_refuse_the_client_hears_the_last_nodes_own_words() {
    let words = r#"{"command":"error","definition":"highResourceUsage","streamId":"s","information":"o1 says"}"#;
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", words);
    let ticket = Ticket(2);
    bench.said();
    assert_eq!(
        bench.take(Input::Placed { ticket, result: Err(Reject::Busy) }).said(),
        [Output::Release(ticket), to_client(words)]
    );
}

#[test]
fn a_permanent_refusal_passes_unchanged() {
    let words = r#"{"command":"error","definition":"unauthorized_access","streamId":"s"}"#;
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").said();
    assert_eq!(bench.node("e1", words).said(), [Output::Release(Ticket(1)), to_client(words)]);
}

#[test]
fn an_edge_that_is_behind_the_record_is_asked_again_unless_a_token_is_at_stake() {
    let unknown = r#"{"command":"error","error_code":"404","definition":"no_stream_exist","streamId":"s"}"#;
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").node("e1", unknown).said();
    assert_eq!(bench.wait(300).asked().avoid, [], "the same edge may be asked");
    let mut bench = Bench::new();
    bench.client(r#"{"command":"play","streamId":"s","token":"once"}"#).place_on("e1").up("e1").said();
    assert!(bench.node("e1", unknown).said().contains(&to_client(unknown)));
}

#[test]
fn a_frozen_node_is_left_within_the_attempt_and_a_slow_one_that_lives_is_not() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").said();
    assert_eq!(bench.wait(400).said(), [Output::ToNode(id("o1"), signaling::ping())]);
    let said = bench.wait(900).said();
    assert!(said.contains(&Output::HangUp(id("o1"))), "{said:?}");

    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").wait(400).node("o1", r#"{"command":"pong"}"#).said();
    assert_eq!(bench.wait(1000).said(), [], "it lives: its answer is waited for");
    assert_eq!(bench.node("o1", START).said(), [to_client(START)]);
}

#[test]
fn the_client_hears_a_refusal_before_its_own_watchdog_barks() {
    let mut bench = Bench::new();
    bench.client(PUBLISH).said();
    let said = bench.wait(2999).said();
    assert!(error_text(&said[1]).contains("highResourceUsage") && error_text(&said[1]).contains(r#""streamId":"s""#));
    assert_eq!(bench.session.legs().count(), 0);
}

#[test]
fn a_conference_play_follows_its_publish_even_while_that_is_being_placed() {
    let mut bench = Bench::new();
    bench.client(PUBLISH);
    bench.client(r#"{"command":"play","streamId":"room","userPublishId":"s"}"#);
    assert_eq!(bench.said.iter().filter(|output| matches!(output, Output::Place(..))).count(), 1);
    bench.take(Input::Placed { ticket: Ticket(1), result: Ok(placed("o2")) });
    let asks: Vec<_> = bench
        .said()
        .into_iter()
        .filter_map(|output| match output {
            Output::Place(_, ask) => Some(ask),
            _ => None,
        })
        .collect();
    assert_eq!(asks[1].with_publisher, Some(id("o2")));
}

#[test]
fn a_lost_node_moves_its_live_legs_while_the_client_stays() {
    let started = r#"{"command":"notification","definition":"publish_started","streamId":"s"}"#;
    let mut bench = publishing();
    bench.client(OFFER).node("o1", started).said();
    bench.take(Input::LinkDown(id("o1"), LinkLoss::Closed));
    let said = bench.said.clone();
    assert_eq!(bench.asked().avoid, [id("o1")]);
    bench.said = said;
    bench.place_on("o2").up("o2");
    assert!(bench.said().contains(&to_node("o2", PUBLISH)));
    assert_eq!(bench.node("o2", START).said(), [to_client(START)]);
    bench.client(OFFER).node("o2", started);
    assert!(bench.said.iter().any(|output| matches!(output, Output::Fact(Fact::Moved { .. }))));
    assert_eq!(bench.wait(9000).said().iter().filter(|output| matches!(output, Output::Close(_))).count(), 0);
}

#[test]
fn a_move_that_nobody_confirms_asks_the_client_to_come_again_and_then_closes() {
    let mut bench = publishing();
    bench
        .client(OFFER)
        .node("o1", r#"{"command":"notification","definition":"publish_started","streamId":"s"}"#)
        .said();
    bench.take(Input::LinkDown(id("o1"), LinkLoss::Io)).place_on("o2").up("o2").node("o2", START).said();
    for _ in 0..9 {
        bench.wait(1000).node("o2", r#"{"command":"pong"}"#);
    }
    let said = bench.wait(1000).said();
    assert!(said.contains(&Output::ToClient(signaling::server_will_stop())), "{said:?}");
    assert_eq!(said.last(), Some(&Output::Close(CloseReason::MoveFailed)));
}

#[test]
fn an_offer_of_another_shape_is_not_forced_on_a_moving_player() {
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").node("e1", OFFER);
    bench.node("e1", r#"{"command":"notification","definition":"play_started","streamId":"s"}"#);
    bench.take(Input::LinkDown(id("e1"), LinkLoss::Io)).place_on("e2").up("e2").said();
    let other = r#"{"command":"takeConfiguration","streamId":"s","type":"offer","sdp":"v=0\r\nm=audio 9"}"#;
    assert!(bench.node("e2", other).said().contains(&Output::ToClient(signaling::server_will_stop())));
}

#[test]
fn a_node_that_will_stop_is_left_and_its_publisher_stopped_there_first() {
    let mut bench = publishing();
    bench
        .client(OFFER)
        .node("o1", r#"{"command":"notification","definition":"publish_started","streamId":"s"}"#)
        .said();
    let said = bench.node("o1", r#"{"command":"notification","definition":"server_will_stop"}"#).said();
    assert_eq!(said[0], Output::ToNode(id("o1"), signaling::stop(&"s".parse().unwrap())));
    assert_eq!(said[1], Output::HangUp(id("o1")));
    assert!(said.iter().any(|output| matches!(output, Output::Place(..))));
}

#[test]
fn a_silent_link_is_asked_after_5_s_and_lost_3_s_later_and_the_pong_is_swallowed() {
    let mut bench = publishing();
    bench.client(r#"{"command":"ping"}"#).said();
    assert_eq!(bench.wait(5000).said(), [Output::ToNode(id("o1"), signaling::ping())]);
    assert_eq!(bench.node("o1", r#"{"command":"pong"}"#).said(), []);
    bench.wait(5000).said();
    assert!(bench.wait(3000).said().contains(&Output::HangUp(id("o1"))));
}

#[test]
fn a_silent_client_is_pinged_thrice_and_then_closed() {
    let mut bench = Bench::new();
    assert_eq!(bench.wait(30_000).said(), [Output::PingClient, Output::PingClient, Output::PingClient]);
    assert_eq!(bench.wait(10_000).said(), [Output::Close(CloseReason::ClientSilent)]);
}

#[test]
fn a_read_without_a_leg_goes_to_any_node_and_its_answer_comes_back() {
    let read = r#"{"command":"getBroadcastObject","streamId":"other"}"#;
    let reply = r#"{"command":"notification","definition":"broadcastObject","streamId":"other","broadcast":"{}"}"#;
    let mut bench = Bench::new();
    bench.client(read).place_on("e1").said();
    let said = bench.up("e1").said();
    assert_eq!(said[0], to_node("e1", read));
    assert_eq!(bench.node("e1", reply).said(), [to_client(reply)]);
    assert_eq!(bench.wait(11_000).said().iter().filter(|output| **output == Output::HangUp(id("e1"))).count(), 1);
}

#[test]
fn what_only_nodes_may_say_is_refused_and_what_a_node_would_choke_on_too() {
    let mut bench = Bench::new();
    assert!(
        error_text(&bench.client(r#"{"command":"registerOriginServer"}"#).said()[0]).contains("unauthorized_access")
    );
    let large = format!(r#"{{"command":"publish","streamId":"s","metaData":"{}"}}"#, "x".repeat(1000));
    assert!(error_text(&bench.client(&large).said()[0]).contains(r#""streamId":"s""#));
    assert!(
        error_text(&bench.client(r#"{"command":"play","streamId":"a/b"}"#).said()[0]).contains("invalidStreamName")
    );
    assert!(error_text(&bench.client(r#"{"command":"play"}"#).said()[0]).contains("noStreamNameSpecified"));
}

#[test]
fn floods_of_messages_of_legs_and_of_nonsense_have_an_end() {
    let mut bench = Bench::new();
    for _ in 0..1001 {
        bench.client(r#"{"command":"ping"}"#);
    }
    assert_eq!(bench.said().last(), Some(&Output::Close(CloseReason::TooEager)));

    let mut bench = Bench::new();
    for n in 0..4 {
        bench.client(&format!(r#"{{"command":"play","streamId":"p{n}"}}"#));
    }
    bench.said();
    assert!(error_text(&bench.client(PLAY).said()[0]).contains("highResourceUsage"), "no fifth leg");

    let mut bench = Bench::new();
    for _ in 0..21 {
        bench.client("nonsense");
    }
    assert_eq!(bench.said().last(), Some(&Output::Close(CloseReason::BadMessages)));

    let mut bench = Bench::new();
    bench.client(PLAY);
    for _ in 0..65 {
        bench.client(r#"{"command":"enableTrack","streamId":"s"}"#);
    }
    assert_eq!(bench.said().last(), Some(&Output::Close(CloseReason::TooEager)));
}

#[test]
fn a_door_that_empties_itself_ends_its_sessions_spread_over_the_time_it_has() {
    let ends: Vec<_> = (0..10)
        .map(|seed| {
            let mut bench = Bench::new();
            bench.session.id = SessionId(seed * 100);
            let begin = bench.now;
            bench.take(Input::EndWithin(Duration::from_secs(10)));
            let due = bench.session.poll_timeout().map(|due| due - begin);
            assert!(bench.wait(10_000).said().contains(&Output::Close(CloseReason::Shutdown)));
            due
        })
        .collect();
    assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "{ends:?}");
}

#[test]
fn when_the_client_is_gone_its_links_end_at_once() {
    let mut bench = publishing();
    assert_eq!(
        bench.take(Input::ClientGone(CloseReason::ClientLost)).said(),
        [Output::Release(Ticket(1)), Output::HangUp(id("o1")), Output::Close(CloseReason::ClientLost)]
    );
}

#[test]
fn an_old_nodes_late_words_do_not_reach_the_client() {
    let mut bench = publishing();
    bench.client(OFFER).said();
    bench.client(r#"{"command":"play","streamId":"t"}"#).place_on("o1").said();
    bench.client(STOP).said();
    bench.client(PUBLISH).place_on("o2").said();
    let late = r#"{"command":"notification","definition":"publish_finished","streamId":"s"}"#;
    assert_eq!(bench.node("o1", late).said(), []);
}
