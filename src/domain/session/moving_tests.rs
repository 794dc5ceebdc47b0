//! Legs that leave a node which still serves them, or follow their stream.

#![allow(clippy::disallowed_methods, reason = "a test owns its time, and starts it somewhere")]

use super::{
    tests::{Bench, OFFER, PLAY, PUBLISH, START, STOP, id, to_client, to_node},
    *,
};

const PLAY_STARTED: &str = r#"{"command":"notification","definition":"play_started","streamId":"s"}"#;
const PLAY_FINISHED: &str = r#"{"command":"notification","definition":"play_finished","streamId":"s"}"#;
const PUBLISH_STARTED: &str = r#"{"command":"notification","definition":"publish_started","streamId":"s"}"#;
const PUBLISH_FINISHED: &str = r#"{"command":"notification","definition":"publish_finished","streamId":"s"}"#;
const BITRATE: &str = r#"{"command":"notification","definition":"bitrateMeasurement","streamId":"s"}"#;
const IN_USE: &str = r#"{"command":"error","definition":"streamIdInUse","streamId":"s"}"#;
const WILL_STOP: &str = r#"{"command":"notification","definition":"server_will_stop"}"#;

fn playing() -> Bench {
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").node("e1", OFFER).node("e1", PLAY_STARTED).said();
    bench
}

fn publishing() -> Bench {
    let mut bench = Bench::new();
    bench.client(PUBLISH).place_on("o1").up("o1").node("o1", START).node("o1", PUBLISH_STARTED).said();
    bench
}

fn leave(node: &str, kind: Kind) -> Input {
    Input::Move { node: id(node), stream: "s".parse().unwrap(), kind }
}

fn states(bench: &Bench) -> Vec<(String, &'static str)> {
    bench
        .views()
        .into_iter()
        .map(|leg| (leg.node.map_or_else(String::new, |node| node.to_string()), leg.state))
        .collect()
}

#[test]
fn a_play_is_served_by_its_old_edge_until_the_new_one_has_made_its_offer() {
    let mut bench = playing();
    bench.take(leave("e1", Kind::Play));
    assert_eq!(bench.moves().len(), 1);
    let ask = bench.asked();
    assert!(ask.is_move && ask.is_served && ask.avoid == [id("e1")]);
    assert_eq!(states(&bench), [("e1".into(), "placing")], "others still see it where it is served");

    bench.take(leave("e1", Kind::Play));
    assert!(bench.said().is_empty(), "a leg that leaves already is not told twice");
    assert_eq!(bench.node("e1", BITRATE).said(), [to_client(BITRATE)]);
    bench.take(Input::Placed { ticket: Ticket(2), result: Ok(tests::placed("e2")) });
    assert_eq!(bench.up("e2").said(), [Output::Dial(id("e2")), to_node("e2", PLAY)]);
    assert_eq!(
        bench.node("e2", OFFER).said(),
        [to_node("e1", STOP), Output::Release(Ticket(1)), to_client(OFFER)],
        "only now the old edge is told"
    );
    assert!(bench.node("e1", PLAY_FINISHED).said().is_empty(), "what the old edge says then is swallowed");
    assert_eq!(bench.node("e2", PLAY_STARTED).said(), [to_client(PLAY_STARTED)]);
    let moves = bench.moves();
    assert!(
        matches!(&moves[..], [Fact::Moved { from, node, cause: MoveCause::Drain, .. }, Fact::Gap { .. }]
            if *from == id("e1") && *node == id("e2")),
        "{moves:?}"
    );
    assert_eq!(states(&bench), [("e2".into(), "live")]);
}

#[test]
fn others_hear_that_a_moved_leg_has_media_again() {
    let mut bench = playing();
    let now = bench.now;
    bench.session.legs[0].gap = Some(leg::Gap { last: now, closed_at: now, closed: Vec::new() });
    let (before, moving) = (bench.session.revision(), bench.views()[0].moving);
    bench.session.tell_gap(0, now);
    assert_eq!((moving, bench.views()[0].moving), (true, false));
    assert_ne!(bench.session.revision(), before, "else a drain would take it for one that is still on its way");
}

#[test]
fn a_publisher_is_stopped_on_its_old_origin_before_the_new_one_is_asked() {
    let mut bench = publishing();
    bench.take(leave("o1", Kind::Publish)).place_on("o2").said();
    assert_eq!(bench.up("o2").said(), [to_node("o1", STOP)]);
    assert_eq!(
        bench.node("o1", PUBLISH_FINISHED).said(),
        [Output::Release(Ticket(1)), to_node("o2", PUBLISH)],
        "its end is not the client's business"
    );
    assert_eq!(bench.node("o2", START).said(), [to_client(START)]);
    bench.node("o2", PUBLISH_STARTED);
    assert!(matches!(bench.moves()[..], [Fact::Moving { .. }, Fact::Moved { .. }, Fact::Gap { .. }]));
}

#[test]
fn an_origin_that_does_not_say_that_it_has_stopped_is_waited_for_a_second() {
    let mut bench = publishing();
    bench.take(leave("o1", Kind::Publish)).place_on("o2").up("o2").said();
    assert!(bench.wait(990).said().is_empty());
    assert_eq!(bench.wait(20).said(), [Output::Release(Ticket(1)), to_node("o2", PUBLISH)]);
    // The record of the old session is not written yet.
    assert_eq!(bench.node("o2", IN_USE).said(), [Output::Release(Ticket(2))]);
    bench.wait(300).place_on("o2").said();
    assert_eq!(bench.node("o2", START).said(), [to_client(START)]);
}

#[test]
fn a_leg_that_no_other_node_takes_stays_where_it_is() {
    let mut bench = playing();
    bench.take(leave("e1", Kind::Play)).place_nowhere(Reject::Busy);
    assert!(matches!(bench.moves()[..], [Fact::Moving { .. }, Fact::Stayed { .. }]));
    bench.said();
    assert_eq!(states(&bench), [("e1".into(), "live")]);
    assert_eq!(bench.node("e1", BITRATE).said(), [to_client(BITRATE)]);

    let mut bench = publishing();
    bench.take(leave("o1", Kind::Publish)).place_on("o2").said();
    bench.take(Input::LinkDown(id("o2"), LinkLoss::Connect)).place_nowhere(Reject::Busy).said();
    assert_eq!(states(&bench), [("o1".into(), "live")]);
    assert_eq!(bench.client(STOP).said(), [Output::Release(Ticket(1)), to_node("o1", STOP)]);
}

#[test]
fn an_old_node_that_is_lost_meanwhile_is_no_way_back() {
    let mut bench = playing();
    bench.take(leave("e1", Kind::Play)).place_on("e2").said();
    bench.take(Input::LinkDown(id("e1"), LinkLoss::Io));
    assert_eq!(bench.said(), [Output::Release(Ticket(1))]);
    bench.up("e2").node("e2", OFFER).said();
    let said = bench.wait(8_000).said();
    assert!(said.contains(&to_client(WILL_STOP)), "nobody confirmed: {said:?}");
}

#[test]
fn a_client_that_stops_a_moving_leg_stops_it_on_both_nodes() {
    let mut bench = playing();
    bench.take(leave("e1", Kind::Play)).place_on("e2").up("e2").said();
    let said = bench.client(STOP).said();
    assert!(said.contains(&to_node("e1", STOP)) && said.contains(&to_node("e2", STOP)), "{said:?}");
    assert!(said.contains(&Output::Release(Ticket(1))) && said.contains(&Output::Release(Ticket(2))), "{said:?}");
    assert!(bench.views().is_empty());
}

#[test]
fn a_play_whose_stream_has_moved_follows_it_and_its_client_does_not_hear_of_an_end() {
    let mut bench = playing();
    bench.node("e1", PLAY_FINISHED);
    let ask = bench.asked();
    assert!(ask.after_end.is_some() && !ask.is_served && ask.avoid.is_empty(), "the same edge will do");
    bench.take(Input::Placed { ticket: Ticket(2), result: Ok(tests::placed("e1")) });
    assert_eq!(bench.said(), [to_node("e1", PLAY)]);
    bench.node("e1", OFFER).node("e1", PLAY_STARTED);
    assert_eq!(bench.said(), [to_client(OFFER), to_client(PLAY_STARTED)]);
    assert!(matches!(
        bench.moves()[..],
        [Fact::Moving { cause: MoveCause::Finished, .. }, Fact::Moved { .. }, Fact::Gap { .. }]
    ));
}

#[test]
fn a_play_that_follows_its_stream_to_a_node_that_has_not_let_go_of_it_is_asked_again() {
    let mut bench = playing();
    bench.node("e1", PLAY_FINISHED);
    let mut ticket = 2;
    for refusal in ["already_playing", "no_stream_exist"] {
        bench.take(Input::Placed { ticket: Ticket(ticket), result: Ok(tests::placed("e1")) });
        bench.node("e1", &format!(r#"{{"command":"error","definition":"{refusal}","streamId":"s"}}"#));
        assert!(!bench.said().iter().any(|said| matches!(said, Output::ToClient(_))));
        bench.wait(250);
        ticket += 1;
    }
    bench.take(Input::Placed { ticket: Ticket(ticket), result: Ok(tests::placed("e1")) });
    bench.node("e1", OFFER).node("e1", PLAY_STARTED);
    assert_eq!(bench.said().last(), Some(&to_client(PLAY_STARTED)));
    let told = bench.moves().iter().filter(|fact| matches!(fact, Fact::Moving { .. })).count();
    assert_eq!(told, 1, "one move, however often it was asked for");
}

#[test]
fn a_play_that_leaves_its_node_waits_for_a_publisher_that_leaves_as_well() {
    for asked in [false, true] {
        let mut bench = playing();
        bench.take(leave("e1", Kind::Play));
        if asked {
            bench.place_on("e2").up("e2");
        }
        bench.said();
        bench.node("e1", PLAY_FINISHED);
        let mut ticket = 2;
        if asked {
            assert_eq!(bench.said(), [Output::Release(Ticket(1))], "who is asked may have it in a moment");
        } else {
            assert!(bench.asked().after_end.is_some(), "placement knows that it has to wait");
            ticket = 3;
            bench.said();
            bench.take(Input::Placed { ticket: Ticket(ticket), result: Ok(tests::placed("e2")) }).up("e2");
        }
        // The edge has read the record before the publisher was back.
        for _ in 0..20 {
            bench.node("e2", r#"{"command":"error","definition":"no_stream_exist","streamId":"s"}"#).wait(250);
            ticket += 1;
            assert!(bench.asked().after_end.is_some());
            bench.take(Input::Placed { ticket: Ticket(ticket), result: Ok(tests::placed("e2")) });
        }
        assert!(!bench.said().iter().any(|said| matches!(said, Output::ToClient(_))), "5 s are no end");
        bench.node("e2", OFFER).node("e2", PLAY_STARTED);
        assert_eq!(bench.said().last(), Some(&to_client(PLAY_STARTED)));
    }
}

#[test]
fn a_play_whose_stream_has_ended_hears_its_nodes_own_words() {
    let mut bench = playing();
    bench.node("e1", PLAY_FINISHED);
    assert_eq!(bench.said.iter().filter(|said| matches!(said, Output::ToClient(_))).count(), 0);
    bench.place_nowhere(Reject::NoSuchStream);
    let said = bench.said();
    assert_eq!(said.last(), Some(&to_client(PLAY_FINISHED)), "{said:?}");
    assert!(bench.views().is_empty() && bench.moves().is_empty());
}

#[test]
fn a_play_that_never_started_hears_of_its_end_at_once() {
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").node("e1", OFFER).said();
    assert!(bench.node("e1", PLAY_FINISHED).said().contains(&to_client(PLAY_FINISHED)));
}

#[test]
fn at_the_deadline_a_session_that_is_still_there_is_asked_to_come_again() {
    let mut bench = playing();
    bench.take(Input::EndOn(id("e2")));
    assert!(bench.said().is_empty(), "it is not there");
    bench.take(Input::EndOn(id("e1")));
    assert_eq!(bench.said(), [Output::Release(Ticket(1)), to_node("e1", STOP), to_client(WILL_STOP)]);
    assert_eq!(bench.wait(1000).said().last(), Some(&Output::Close(CloseReason::MoveFailed)));
}

#[test]
fn a_leg_that_is_not_on_the_node_or_not_settled_there_is_not_moved() {
    let mut bench = Bench::new();
    bench.client(PLAY).place_on("e1").up("e1").said();
    bench.take(leave("e1", Kind::Play)).take(leave("e2", Kind::Play)).take(leave("e1", Kind::Publish));
    assert!(bench.said().is_empty());
}
