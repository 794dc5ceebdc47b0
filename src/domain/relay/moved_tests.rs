//! Legs that were moved to another node while their client stays where it is.

#![allow(clippy::disallowed_methods, reason = "a test owns its time, and starts it somewhere")]

use std::time::Duration;

use super::{
    stun::{Key, Message, written},
    tests::{
        CLIENT_PWD, REQUEST, RTP, Rig, SERVER_PWD, SUCCESS, backend, client, credentials, dropped, rig, spec, to_node,
    },
    *,
};
use crate::domain::ids::SessionId;

const NEXT_PWD: &str = "the-password-of-the-next-node";
const HELLO: [u8; 14] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

/// The leg of transport 1 on its next node; its client knows that by the names of the first one.
fn next(id: u64) -> TransportSpec {
    TransportSpec {
        session: SessionId(1),
        line: 2,
        succeeds: Some(Predecessor { id: TransportId(1), shown: credentials("srv1", SERVER_PWD) }),
        server: credentials("srv2", NEXT_PWD),
        client: Some(credentials("cli1", CLIENT_PWD)),
        ..spec(id)
    }
}

/// A relay in which the client of transport 1 has chosen `client(1)`.
fn chosen() -> Rig {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig
}

fn close(rig: &mut Rig) {
    rig.core.command(Command::Close(TransportId(1)), rig.now).unwrap();
    rig.events();
}

/// A message signed with `pwd`, by its receiver's and its sender's ufrag.
fn reads(bytes: &[u8], pwd: &str) -> Option<(String, String)> {
    let message = Message::parse(bytes).unwrap();
    assert!(message.has_fingerprint() && message.is_authentic(&Key::new(pwd)), "{bytes:02x?}");
    let text = |ufrag: &[u8]| String::from_utf8(ufrag.to_vec()).unwrap();
    message.ufrags().map(|(to, from)| (text(to), text(from)))
}

fn named(to: &str, from: &str) -> Option<(String, String)> {
    Some((to.to_owned(), from.to_owned()))
}

/// The new node's check, and the client's answer to it.
fn checked(rig: &mut Rig) {
    let id = rig.id();
    let check = written::message(REQUEST, id, "cli1:srv2", false, CLIENT_PWD);
    assert_eq!(rig.node_sends(0, 2, &check), Verdict::TranslatedToClient(client(1)));
    assert_eq!(reads(rig.core.translated(), CLIENT_PWD), named("cli1", "srv1"));
    let answer = written::message(SUCCESS, id, "", false, CLIENT_PWD);
    assert_eq!(rig.send(client(1), &answer), to_node(0, 2), "whose signature is the same for both");
}

#[test]
fn a_moved_leg_goes_on_at_the_tuple_that_was_chosen_and_each_side_hears_the_names_that_it_knows() {
    let mut rig = chosen();
    close(&mut rig);
    assert_eq!(rig.send(client(1), &HELLO), dropped(DropReason::Tombstone), "nobody succeeds it yet");
    rig.open(next(2));
    assert_eq!(rig.events(), [EventKind::Validated { client: client(1) }]);

    assert_eq!(rig.send(client(1), &HELLO), to_node(0, 2), "the client need not choose anew");
    assert_eq!(rig.node_sends(0, 2, &HELLO), Verdict::ToClient(client(1)));
    checked(&mut rig);
    let check = written::message(REQUEST, rig.id(), "srv1:cli1", true, SERVER_PWD);
    assert_eq!(rig.send(client(1), &check), Verdict::TranslatedToNode { pool: 0, to: backend(2) });
    assert_eq!(reads(rig.core.translated(), NEXT_PWD), named("srv2", "cli1"));
    assert!(Message::parse(rig.core.translated()).unwrap().use_candidate());
    let answer = written::message(SUCCESS, rig.id(), "", false, NEXT_PWD);
    assert_eq!(rig.node_sends(0, 2, &answer), Verdict::TranslatedToClient(client(1)));
    assert_eq!(reads(rig.core.translated(), SERVER_PWD), None);
}

#[test]
fn the_relay_puts_its_name_under_nothing_that_its_own_side_did_not_sign() {
    let mut rig = chosen();
    close(&mut rig);
    rig.open(next(2));
    checked(&mut rig);
    for (kind, username, pwd) in [
        (SUCCESS, "", CLIENT_PWD),
        (0x0111, "", "somebody-elses-password"),
        (REQUEST, "cli1:srv2", NEXT_PWD),
        (REQUEST, "cli1:srv1", CLIENT_PWD),
        (0x0011, "", CLIENT_PWD),
    ] {
        let message = written::message(kind, rig.id(), username, false, pwd);
        assert_eq!(rig.node_sends(0, 2, &message), Verdict::ToClient(client(1)), "as it is: {kind} {username}");
    }
    let own_name = written::message(REQUEST, rig.id(), "srv2:cli1", false, NEXT_PWD);
    assert_eq!(rig.send(client(1), &own_name), dropped(DropReason::UnknownUfrag), "clients never learn that name");
}

#[test]
fn a_node_hears_what_its_client_has_chosen_once_it_has_asked_it_and_only_if_the_client_chose() {
    let mut rig = chosen();
    close(&mut rig);
    rig.open(next(2));
    assert_eq!(rig.core.poll_nomination(), None);
    checked(&mut rig);
    let said = rig.core.poll_nomination().unwrap();
    assert_eq!((said.pool, said.to), (0, backend(2)));
    assert_eq!(reads(&said.bytes, NEXT_PWD), named("srv2", "cli1"));
    assert!(Message::parse(&said.bytes).unwrap().use_candidate());
    checked(&mut rig);
    assert_eq!(rig.core.poll_nomination(), None, "once");

    let mut rig = super::tests::rig();
    rig.open(spec(1));
    let pool = rig.validated(1, client(1));
    let check = written::message(REQUEST, rig.id(), "cli1:srv1", true, CLIENT_PWD);
    rig.node_sends(pool, 1, &check);
    close(&mut rig);
    rig.open(next(2));
    checked(&mut rig);
    assert_eq!(rig.core.poll_nomination(), None, "the node chose, as it does now");
}

#[test]
fn media_of_the_old_node_reaches_the_client_until_its_transport_is_closed() {
    let mut rig = chosen();
    rig.open(next(2));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
    assert_eq!(rig.send(client(1), &HELLO), to_node(0, 2));
    checked(&mut rig);
    close(&mut rig);
    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::UnknownNode));
    checked(&mut rig);
}

#[test]
fn only_the_chosen_tuple_of_the_same_client_and_session_is_inherited_and_not_for_long() {
    let unchosen = || {
        let mut rig = rig();
        rig.open(spec(1));
        rig.validated(1, client(1));
        rig
    };
    let other_client = TransportSpec { client: Some(credentials("cli2", CLIENT_PWD)), ..next(2) };
    let other_session = TransportSpec { session: SessionId(2), ..next(2) };
    let other_leg = TransportSpec { succeeds: None, ..next(2) };
    for (mut rig, spec, why) in [
        (unchosen(), next(2), "it was never chosen"),
        (chosen(), other_client, "that client calls itself otherwise"),
        (chosen(), other_session, "that is another session"),
        (chosen(), other_leg, "that is another leg"),
    ] {
        close(&mut rig);
        rig.open(spec);
        assert_eq!(rig.send(client(1), &HELLO), dropped(DropReason::Tombstone), "{why}");
        assert!(!rig.core.has_flow(client(1)), "{why}");
    }
    let mut rig = chosen();
    close(&mut rig);
    rig.pass(Duration::from_secs(6));
    rig.open(next(2));
    assert!(!rig.core.has_flow(client(1)), "it was left too long ago");
    let check = written::message(REQUEST, rig.id(), "srv1:cli1", true, SERVER_PWD);
    assert_eq!(rig.send(client(1), &check), Verdict::TranslatedToNode { pool: 0, to: backend(2) }, "but may ask");
}

#[test]
fn a_tuple_that_is_somebody_elses_by_now_is_not_inherited() {
    let mut rig = chosen();
    close(&mut rig);
    rig.open(spec(3));
    rig.validated(3, client(1));
    rig.open(next(2));
    assert_eq!(rig.send(client(1), &HELLO), to_node(0, 3));
}

#[test]
fn what_a_client_still_sends_to_the_node_before_is_no_sign_of_media() {
    let mut rig = chosen();
    close(&mut rig);
    rig.open(next(2));
    rig.events();
    assert_eq!(rig.send(client(1), &RTP), to_node(0, 2));
    assert_eq!(rig.events(), []);
    rig.send(client(1), &HELLO);
    rig.send(client(1), &RTP);
    assert!(matches!(rig.events()[..], [EventKind::FirstMedia { .. }]));
}

#[test]
fn an_inherited_tuple_goes_along_where_the_node_says_another_port_before_it_is_heard() {
    for known in [None, Some(spec(3).backend_port.unwrap())] {
        let mut rig = chosen();
        close(&mut rig);
        rig.open(TransportSpec { backend_port: known, ..next(2) });
        let port = spec(2).backend_port.unwrap();
        rig.core.command(Command::SetBackend { id: TransportId(2), port }, rig.now).unwrap();
        assert_eq!(rig.send(client(1), &HELLO), to_node(0, 2), "on the pool socket that the node was told of");
        checked(&mut rig);
        rig.core.command(Command::SetBackend { id: TransportId(2), port: port + 1 }, rig.now).unwrap();
        assert_eq!(rig.send(client(1), &HELLO), to_node(0, 2), "it was heard there: there it is");
        assert_eq!(rig.node_sends(0, 3, &HELLO), dropped(DropReason::UnknownNode));
    }
}

#[test]
fn a_copy_of_a_check_from_before_the_move_is_still_a_copy() {
    for living in [true, false] {
        let mut rig = rig();
        rig.open(spec(1));
        rig.validated(1, client(1));
        let check = rig.request_naming("srv1:cli1", true);
        rig.send(client(1), &check);
        if living {
            rig.open(next(2));
        } else {
            close(&mut rig);
            rig.open(next(2));
        }
        assert_eq!(rig.send(client(2), &check), dropped(DropReason::Replayed));
    }
}

#[test]
fn a_connection_waits_for_its_legs_next_node_but_not_for_long_and_not_after_its_session() {
    let tcp = ClientKey::Tcp { conn: 7, source: [203, 0, 113, 7].into() };
    let left = |command| {
        let mut rig = rig();
        rig.open(spec(1));
        rig.validated(1, tcp);
        rig.nominate(1, tcp);
        rig.core.command(command, rig.now).unwrap();
        rig
    };
    let mut rig = left(Command::Close(TransportId(1)));
    assert!(rig.core.awaits_heir(tcp));
    rig.open(next(2));
    assert_eq!(rig.send(tcp, &HELLO), to_node(0, 2));

    let mut rig = left(Command::Close(TransportId(1)));
    rig.pass(Duration::from_secs(6));
    assert!(!rig.core.awaits_heir(tcp));
    assert_eq!((rig.core.poll_deserted(), rig.core.poll_deserted()), (Some(tcp), None));

    let mut rig = left(Command::Close(TransportId(1)));
    rig.core.client_gone(tcp, rig.now);
    rig.open(next(2));
    assert!(!rig.core.has_flow(tcp), "it hung up meanwhile");

    assert!(!left(Command::CloseSession(SessionId(1))).core.awaits_heir(tcp));
}
