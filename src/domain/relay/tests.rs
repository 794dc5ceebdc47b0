//! One test per rule: who gets in, where packets go, what ends a flow.
#![allow(clippy::disallowed_methods, reason = "a test owns its time, and starts it somewhere")]

use std::time::{Duration, Instant};

use super::{
    stun::{TransactionId, written},
    *,
};
use crate::domain::ids::SessionId;

pub(super) const SERVER_PWD: &str = "server-password-of-22-x";
pub(super) const CLIENT_PWD: &str = "client-password-of-22-x";
const NODE: &str = "10.0.1.20";
const PORT: u16 = 53_011;
pub(super) const RTP: [u8; 12] = [0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
const DTLS: [u8; 4] = [22, 0xfe, 0xfd, 0];

pub(super) const REQUEST: u16 = 0x0001;
pub(super) const SUCCESS: u16 = 0x0101;

/// A relay with a clock of its own, and the packets of one client and its node.
pub(super) struct Rig {
    pub(super) core: Core,
    pub(super) now: Instant,
    ids: u32,
}

pub(super) fn rig() -> Rig {
    rig_with(RelaySettings::default())
}

pub(super) fn rig_with(settings: RelaySettings) -> Rig {
    let now = Instant::now();
    Rig { core: Core::new(settings, 1, now), now, ids: 0 }
}

pub(super) fn credentials(ufrag: &str, pwd: &str) -> Credentials {
    Credentials { ufrag: ufrag.into(), pwd: pwd.into() }
}

pub(super) fn spec(id: u64) -> TransportSpec {
    TransportSpec {
        id: TransportId(id),
        session: SessionId(id),
        line: 0,
        succeeds: None,
        node: NODE.parse().unwrap(),
        server: credentials(&format!("srv{id}"), SERVER_PWD),
        client: Some(credentials(&format!("cli{id}"), CLIENT_PWD)),
        backend_port: Some(PORT + u16::try_from(id).unwrap()),
        node_is_lite: false,
        bytes_per_second: None,
    }
}

/// The transport `id` as the next generation of session and line 1.
fn restart(id: u64) -> TransportSpec {
    TransportSpec { session: SessionId(1), ..spec(id) }
}

pub(super) fn client(port: u16) -> ClientKey {
    ClientKey::Udp(([203, 0, 113, 7], port).into())
}

pub(super) fn backend(id: u64) -> std::net::SocketAddr {
    std::net::SocketAddr::new(NODE.parse().unwrap(), PORT + u16::try_from(id).unwrap())
}

pub(super) fn to_node(pool: u8, id: u64) -> Verdict {
    Verdict::ToNode { pool, to: backend(id) }
}

impl Rig {
    pub(super) fn open(&mut self, spec: TransportSpec) {
        self.core.command(Command::Open(spec), self.now).unwrap();
    }

    pub(super) fn send(&mut self, from: ClientKey, bytes: &[u8]) -> Verdict {
        self.core.from_client(from, bytes, self.now)
    }

    pub(super) fn node_sends(&mut self, pool: u8, id: u64, bytes: &[u8]) -> Verdict {
        self.core.from_node(pool, backend(id), bytes, self.now)
    }

    pub(super) fn id(&mut self) -> TransactionId {
        self.ids += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.ids.to_be_bytes());
        id
    }

    pub(super) fn request(&mut self, transport: u64) -> Vec<u8> {
        self.request_naming(&format!("srv{transport}:cli{transport}"), false)
    }

    pub(super) fn request_naming(&mut self, username: &str, nominate: bool) -> Vec<u8> {
        written::message(REQUEST, self.id(), username, nominate, SERVER_PWD)
    }

    pub(super) fn check(&mut self, id: TransactionId, nominate: bool) -> Vec<u8> {
        written::message(REQUEST, id, "cli:srv", nominate, CLIENT_PWD)
    }

    /// Opens a flow and validates it; returns its pool socket.
    pub(super) fn validated(&mut self, transport: u64, from: ClientKey) -> u8 {
        let request = self.request(transport);
        let verdict = self.send(from, &request);
        let Verdict::ToNode { pool, .. } = verdict else { panic!("the request did not pass: {verdict:?}") };
        self.validate(transport, from, pool);
        pool
    }

    pub(super) fn validate(&mut self, transport: u64, from: ClientKey, pool: u8) {
        let id = self.id();
        let check = self.check(id, false);
        assert_eq!(self.node_sends(pool, transport, &check), Verdict::ToClient(from));
        let answer = written::message(SUCCESS, id, "", false, CLIENT_PWD);
        assert_eq!(self.send(from, &answer), to_node(pool, transport));
    }

    pub(super) fn nominate(&mut self, transport: u64, from: ClientKey) {
        let request = self.request_naming(&format!("srv{transport}:cli{transport}"), true);
        assert!(matches!(self.send(from, &request), Verdict::ToNode { .. }));
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.core.tick(self.now);
        }
        self.now = end;
    }

    pub(super) fn events(&mut self) -> Vec<EventKind> {
        std::iter::from_fn(|| self.core.poll_event()).map(|event| event.kind).collect()
    }
}

pub(super) fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

// === who gets in ===

#[test]
fn an_authenticated_request_opens_a_flow_to_the_nodes_address_and_the_answer_comes_back() {
    let mut rig = rig();
    rig.open(spec(1));
    let request = rig.request(1);

    assert_eq!(rig.send(client(1), &request), to_node(0, 1));
    let answer = written::message(SUCCESS, [9; 12], "", false, SERVER_PWD);
    assert_eq!(rig.node_sends(0, 1, &answer), Verdict::ToClient(client(1)));
    assert_eq!(rig.events(), [EventKind::FirstStun]);
    assert_eq!(rig.core.stats().flows_in(FlowState::New), 1);
}

#[test]
fn nothing_else_opens_a_flow_and_nothing_is_answered() {
    let mut rig = rig();
    rig.open(spec(1));
    let good = rig.request(1);
    let mut no_fingerprint = good.clone();
    no_fingerprint.truncate(good.len() - 8);
    let length = u16::try_from(no_fingerprint.len() - 20).unwrap().to_be_bytes();
    no_fingerprint[2..4].copy_from_slice(&length);
    let mut bad_fingerprint = good.clone();
    *bad_fingerprint.last_mut().unwrap() ^= 1;
    let cases = [
        (written::message(REQUEST, [1; 12], "srv1:cli1", false, CLIENT_PWD), DropReason::BadIntegrity),
        (written::message(REQUEST, [1; 12], "srv9:cli1", false, SERVER_PWD), DropReason::UnknownUfrag),
        (written::message(REQUEST, [1; 12], "srv1:cli9", false, SERVER_PWD), DropReason::UnknownUfrag),
        (written::message(REQUEST, [1; 12], "srv1", false, SERVER_PWD), DropReason::UnknownUfrag),
        (written::message(REQUEST, [1; 12], "", false, SERVER_PWD), DropReason::UnknownUfrag),
        (written::message(SUCCESS, [1; 12], "srv1:cli1", false, SERVER_PWD), DropReason::StunClass),
        (written::message(0x0011, [1; 12], "srv1:cli1", false, SERVER_PWD), DropReason::StunClass),
        (no_fingerprint, DropReason::BadFingerprint),
        (bad_fingerprint, DropReason::BadFingerprint),
        (good[..good.len() - 4].to_vec(), DropReason::BadStun),
        (RTP.to_vec(), DropReason::UnknownTuple),
        (DTLS.to_vec(), DropReason::UnknownTuple),
        (vec![0x40; 20], DropReason::BadClass),
        (vec![], DropReason::BadClass),
        (vec![0x80; 1501], DropReason::Oversized),
    ];
    for (datagram, reason) in cases {
        assert_eq!(rig.send(client(1), &datagram), dropped(reason), "{datagram:02x?}");
        assert_eq!(rig.core.stats().dropped(reason), rig.core.stats().drops[reason as usize]);
        assert!(!rig.core.has_flow(client(1)));
    }
    assert_eq!(rig.core.stats().auth_failures, 10);
    assert_eq!(rig.core.stats().traffic, TrafficCount::default());
}

#[test]
fn a_request_of_1500_bytes_passes() {
    let mut rig = rig();
    rig.open(spec(1));
    let mut datagram = written::message(REQUEST, [1; 12], "srv1:cli1", false, SERVER_PWD);
    datagram.truncate(datagram.len() - 32);
    let filler = vec![7; 1500 - datagram.len() - 4 - 32];
    written::attribute(&mut datagram, 0xc070, &filler);
    written::sign(&mut datagram, SERVER_PWD);
    written::fingerprint(&mut datagram);

    assert_eq!(datagram.len(), 1500);
    assert_eq!(rig.send(client(1), &datagram), to_node(0, 1));
}

#[test]
fn dtls_and_media_pass_only_once_the_tuple_is_more_than_a_replay() {
    let mut rig = rig();
    rig.open(spec(1));
    let request = rig.request(1);
    rig.send(client(1), &request);

    assert_eq!(rig.send(client(1), &DTLS), dropped(DropReason::DtlsBeforeValidation));
    assert_eq!(rig.send(client(1), &RTP), dropped(DropReason::MediaBeforeValidation));
    assert_eq!(rig.node_sends(0, 1, &DTLS), dropped(DropReason::DtlsBeforeValidation));
    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::MediaBeforeValidation));
    rig.validate(1, client(1), 0);

    assert_eq!(rig.send(client(1), &DTLS), to_node(0, 1));
    assert_eq!(rig.send(client(1), &RTP), to_node(0, 1));
    assert_eq!(rig.node_sends(0, 1, &DTLS), Verdict::ToClient(client(1)));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn a_success_of_the_node_lets_dtls_up_but_no_media_down() {
    let mut rig = rig();
    rig.open(spec(1));
    let request = rig.request(1);
    rig.send(client(1), &request);
    let answer = written::message(SUCCESS, [9; 12], "", false, SERVER_PWD);
    rig.node_sends(0, 1, &answer);

    assert_eq!(rig.send(client(1), &DTLS), to_node(0, 1));
    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::MediaBeforeValidation));
}

#[test]
fn a_lite_node_validates_by_its_success() {
    let mut rig = rig();
    rig.open(TransportSpec { node_is_lite: true, ..spec(1) });
    let request = rig.request(1);
    rig.send(client(1), &request);
    let answer = written::message(SUCCESS, [9; 12], "", false, SERVER_PWD);
    rig.node_sends(0, 1, &answer);

    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn a_response_validates_only_where_it_was_asked_for_and_only_with_the_clients_password() {
    let mut rig = rig();
    rig.open(spec(1));
    for port in [1, 2] {
        let request = rig.request(1);
        rig.send(client(port), &request);
    }
    let check = rig.check([5; 12], false);
    rig.node_sends(0, 1, &check);
    let answer = written::message(SUCCESS, [5; 12], "", false, CLIENT_PWD);
    let forged = written::message(SUCCESS, [5; 12], "", false, SERVER_PWD);

    assert_eq!(rig.send(client(2), &answer), dropped(DropReason::StunClass), "sniffed, sent from elsewhere");
    assert_eq!(rig.send(client(1), &forged), dropped(DropReason::BadIntegrity));
    assert_eq!(rig.core.stats().flows_in(FlowState::Validated), 0);
    assert_eq!(rig.send(client(1), &answer), to_node(0, 1));
    assert_eq!(rig.core.stats().flows_in(FlowState::Validated), 1);
}

#[test]
fn a_tuple_that_proved_nothing_is_sent_at_most_three_times_what_it_sent() {
    let mut rig = rig();
    rig.open(spec(1));
    let request = rig.request(1);
    rig.send(client(1), &request);
    let mut sent = 0;
    for n in 0..100 {
        let check = rig.check([n; 12], false);
        if rig.node_sends(0, 1, &check) == Verdict::ToClient(client(1)) {
            sent += check.len();
        }
    }

    assert!(sent >= 2 * request.len() && sent <= 3 * request.len(), "{sent} for {}", request.len());
    assert!(rig.core.stats().dropped(DropReason::Unproven) > 90);
}

#[test]
fn only_the_very_address_of_the_node_is_heard() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));

    assert_eq!(rig.core.from_node(1, backend(1), &RTP, rig.now), dropped(DropReason::UnknownNode));
    assert_eq!(rig.core.from_node(0, backend(2), &RTP, rig.now), dropped(DropReason::UnknownNode));
    let elsewhere = format!("10.0.1.21:{}", backend(1).port()).parse().unwrap();
    assert_eq!(rig.core.from_node(0, elsewhere, &RTP, rig.now), dropped(DropReason::UnknownNode));
    let mapped = format!("[::ffff:{NODE}]:{}", backend(1).port()).parse().unwrap();
    assert_eq!(rig.core.from_node(0, mapped, &RTP, rig.now), Verdict::ToClient(client(1)));
}

// === commands ===

#[test]
fn what_signalling_may_not_ask_for_is_refused_by_name() {
    let mut rig = rig_with(RelaySettings { max_transports: 2, ..RelaySettings::default() });
    rig.open(spec(1));
    let mut refusal = |spec| rig.core.command(Command::Open(spec), rig.now).unwrap_err();

    for node in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "::ffff:0.0.0.0", "ff02::1"] {
        assert_eq!(refusal(TransportSpec { node: node.parse().unwrap(), ..spec(2) }), Refused::BadNode, "{node}");
    }
    for port in [0, 1, 5080, 49_999, 60_001] {
        assert_eq!(refusal(TransportSpec { backend_port: Some(port), ..spec(2) }), Refused::BadPort, "{port}");
    }
    for (ufrag, pwd) in [("abc", SERVER_PWD), ("a:bc", SERVER_PWD), ("abcd", "too-short"), ("ab\nd", SERVER_PWD)] {
        let bad = credentials(ufrag, pwd);
        assert_eq!(refusal(TransportSpec { server: bad.clone(), ..spec(2) }), Refused::BadCredentials);
        assert_eq!(refusal(TransportSpec { client: Some(bad), ..spec(2) }), Refused::BadCredentials);
    }
    assert_eq!(refusal(spec(1)), Refused::Duplicate);
    rig.open(spec(2));
    assert_eq!(rig.core.command(Command::Open(spec(3)), rig.now), Err(Refused::Full));
    let unknown = [
        Command::SetClient { id: TransportId(3), client: credentials("abcd", CLIENT_PWD) },
        Command::SetBackend { id: TransportId(3), port: PORT },
        Command::Close(TransportId(3)),
        Command::CloseSession(SessionId(3)),
    ];
    for command in unknown {
        assert_eq!(rig.core.command(command, rig.now), Err(Refused::Unknown));
    }
    assert_eq!(rig.core.stats().transports, 2);
}

#[test]
fn a_session_may_have_only_so_many_transports_and_a_ufrag_only_so_many_owners() {
    let mut rig = rig();
    for id in 0..128 {
        rig.open(TransportSpec { session: SessionId(7), line: u32::try_from(id).unwrap(), ..spec(id + 100) });
    }
    let one_more = TransportSpec { session: SessionId(7), line: 999, ..spec(999) };
    assert_eq!(rig.core.command(Command::Open(one_more), rig.now), Err(Refused::SessionFull));

    for id in 0..8 {
        rig.open(TransportSpec { server: credentials("same", SERVER_PWD), ..spec(id + 1000) });
    }
    let one_more = TransportSpec { server: credentials("same", SERVER_PWD), ..spec(1100) };
    assert_eq!(rig.core.command(Command::Open(one_more), rig.now), Err(Refused::UfragTaken));
}

#[test]
fn early_stun_waits_for_the_port_and_then_passes() {
    let mut rig = rig();
    rig.open(TransportSpec { backend_port: None, ..spec(1) });
    let request = rig.request(1);

    assert_eq!(rig.send(client(1), &request), dropped(DropReason::NoBackend));
    rig.core.command(Command::SetBackend { id: TransportId(1), port: PORT + 1 }, rig.now).unwrap();
    assert_eq!(rig.send(client(1), &request), to_node(0, 1));
    assert_eq!(rig.events(), [EventKind::FirstStun]);
    assert_eq!(rig.core.stats().auth_failures, 0);
}

#[test]
fn another_port_moves_what_is_not_validated() {
    let mut rig = rig();
    rig.open(spec(1));
    let request = rig.request(1);
    rig.send(client(1), &request);
    rig.core.command(Command::SetBackend { id: TransportId(1), port: PORT + 9 }, rig.now).unwrap();

    assert!(matches!(rig.send(client(1), &request), Verdict::ToNode { to, .. } if to == backend(9)));
}

#[test]
fn stun_before_the_answer_passes_and_its_claim_is_held_against_the_answer() {
    let mut rig = rig();
    rig.open(TransportSpec { client: None, ..spec(1) });
    let honest = rig.request_naming("srv1:cli1", false);
    let other = rig.request_naming("srv1:cliX", false);
    assert!(matches!(rig.send(client(1), &honest), Verdict::ToNode { .. }));
    assert!(matches!(rig.send(client(2), &other), Verdict::ToNode { .. }));
    rig.events();

    let answer = Command::SetClient { id: TransportId(1), client: credentials("cli1", CLIENT_PWD) };
    rig.core.command(answer, rig.now).unwrap();

    assert!(rig.core.has_flow(client(1)));
    assert_eq!(rig.events(), [EventKind::FlowClosed { client: client(2), reason: FlowEnd::ClaimMismatch }]);
    assert_eq!(rig.send(client(2), &other), dropped(DropReason::Tombstone));
}

#[test]
fn sessions_with_one_ufrag_are_told_apart_by_the_clients_ufrag_and_else_by_the_password() {
    let mut rig = rig();
    let pwd = |n| format!("server-password-number-{n}");
    for id in 1..=3 {
        let client = (id != 3).then(|| credentials(&format!("cli{id}"), CLIENT_PWD));
        rig.open(TransportSpec { server: credentials("same", &pwd(id)), client, ..spec(id) });
    }
    for id in [2, 1, 3] {
        let request = written::message(REQUEST, [1; 12], &format!("same:cli{id}"), false, &pwd(id));
        assert_eq!(rig.send(client(u16::try_from(id).unwrap()), &request), to_node(0, id));
    }
    rig.core.command(Command::Close(TransportId(2)), rig.now).unwrap();
    for (id, passes) in [(1, true), (2, false), (3, true)] {
        let request = written::message(REQUEST, [2; 12], &format!("same:cli{id}"), false, &pwd(id));
        let verdict = rig.send(client(100 + u16::try_from(id).unwrap()), &request);
        assert_eq!(matches!(verdict, Verdict::ToNode { .. }), passes, "{id}");
    }
}

// === many tuples of one client ===

#[test]
fn every_tuple_has_a_private_socket_of_its_own() {
    let mut rig = rig();
    rig.open(spec(1));
    let pools: Vec<u8> = (1..=8).map(|port| rig.validated(1, client(port))).collect();

    assert_eq!(pools, [0, 1, 2, 3, 4, 5, 6, 7]);
    for (pool, port) in (0u8..).zip(1..=8) {
        assert_eq!(rig.node_sends(pool, 1, &RTP), Verdict::ToClient(client(port)));
    }
}

#[test]
fn a_ninth_tuple_replaces_the_oldest_that_proved_nothing_and_never_a_live_one() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    for port in 2..=8 {
        rig.now += Duration::from_millis(10);
        let request = rig.request(1);
        rig.send(client(port), &request);
    }
    rig.events();
    let request = rig.request(1);

    assert_eq!(rig.send(client(9), &request), to_node(1, 1));
    assert_eq!(rig.events(), [EventKind::FlowClosed { client: client(2), reason: FlowEnd::Replaced }]);
    assert!(rig.core.has_flow(client(1)));
}

#[test]
fn eight_live_tuples_yield_only_once_one_is_silent_for_thirty_seconds() {
    let mut rig = rig();
    rig.open(spec(1));
    for port in 1..=8 {
        rig.validated(1, client(port));
    }
    rig.now += Duration::from_secs(20);
    for port in 2..=8 {
        let request = rig.request(1);
        rig.send(client(port), &request);
    }
    rig.now += Duration::from_secs(9);
    let request = rig.request(1);
    assert_eq!(rig.send(client(9), &request), dropped(DropReason::TuplesFull));

    rig.now += Duration::from_secs(1);
    assert!(matches!(rig.send(client(9), &request), Verdict::ToNode { .. }));
    assert!(!rig.core.has_flow(client(1)));
}

#[test]
fn a_session_may_roam_only_so_often() {
    let mut rig = rig();
    rig.open(spec(1));
    let passed = (1..=100).filter(|port| {
        let request = rig.request(1);
        matches!(rig.send(client(*port), &request), Verdict::ToNode { .. })
    });

    assert_eq!(passed.count(), 20);
    assert!(rig.core.stats().dropped(DropReason::TupleRate) > 0);
}

#[test]
fn tuples_that_prove_themselves_do_not_count() {
    let mut rig = rig();
    rig.open(spec(1));
    for port in 1..=100 {
        rig.validated(1, client(port));
        rig.now += Duration::from_secs(5);
    }
    assert_eq!(rig.core.stats().dropped(DropReason::TupleRate), 0);
}

#[test]
fn a_request_that_has_passed_is_good_for_no_other_tuple_and_its_replays_cost_the_client_nothing() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    let sniffed: Vec<Vec<u8>> = (0..100).map(|_| rig.request(1)).collect();
    for request in &sniffed {
        rig.now += Duration::from_millis(100);
        assert_eq!(rig.send(client(1), request), to_node(0, 1));
    }
    for (request, port) in sniffed.iter().cycle().zip(1000..9000) {
        assert_eq!(rig.send(client(port), request), dropped(DropReason::Replayed));
    }
    assert_eq!(rig.send(client(1), &sniffed[0]), to_node(0, 1), "the client itself may say it again");
    assert_eq!(rig.core.stats().auth_failures, 0);

    let request = rig.request(1);
    assert_eq!(rig.send(client(2), &request), to_node(1, 1), "the client moves in the midst of it");
    rig.validate(1, client(2), 1);
}

// === a client that moves ===

/// A client at port 1 whose node has chosen its path, and asks `[77; 12]` on it.
fn asked() -> Rig {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig.now += Duration::from_secs(1);
    let check = rig.check([77; 12], false);
    assert_eq!(rig.node_sends(0, 1, &check), Verdict::ToClient(client(1)));
    rig
}

/// A client at port 1 whose node has chosen its path, and which has moved to port 2 and proved it; the node's check of the
/// old tuple is unanswered for so long.
fn moved(unanswered: Duration) -> Rig {
    let mut rig = asked();
    assert_eq!(rig.validated(1, client(2)), 1);
    rig.now += unanswered;
    rig.events();
    rig
}

#[test]
fn a_client_that_moved_takes_over_the_path_that_its_node_has_chosen() {
    let mut rig = moved(Duration::from_millis(500));

    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(2)));
    assert_eq!(
        rig.events()[..2],
        [
            EventKind::FlowClosed { client: client(1), reason: FlowEnd::Moved },
            EventKind::Nominated { client: client(2) }
        ]
    );
    assert_eq!(rig.send(client(2), &RTP), to_node(0, 1), "the node hears it where it heard it before");
    assert_eq!(rig.send(client(1), &RTP), dropped(DropReason::Tombstone));
    assert_eq!(rig.core.stats().flows, [0, 0, 1]);

    // What the node asks on either path is answered there.
    for (pool, id) in [(0, [1; 12]), (1, [2; 12])] {
        let check = rig.check(id, false);
        assert_eq!(rig.node_sends(pool, 1, &check), Verdict::ToClient(client(2)));
        let answer = written::message(SUCCESS, id, "", false, CLIENT_PWD);
        assert_eq!(rig.send(client(2), &answer), to_node(pool, 1));
    }
    rig.pass(Duration::from_secs(6));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(2)), "the old tuple is forgotten, its path is not");
}

#[test]
fn a_client_may_move_again_and_again() {
    let mut rig = moved(Duration::from_millis(500));
    rig.node_sends(0, 1, &RTP);
    for port in 3..50 {
        let check = rig.check([port as u8; 12], false);
        assert_eq!(rig.node_sends(0, 1, &check), Verdict::ToClient(client(port - 1)));
        rig.validated(1, client(port));
        rig.now += Duration::from_secs(1);
        assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(port)));
    }
    assert_eq!(rig.core.stats().flows, [0, 0, 1]);
}

#[test]
fn a_tuple_that_answers_its_node_keeps_its_path_whoever_else_proves_itself() {
    let mut rig = moved(Duration::from_millis(499));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)), "it still may answer");

    let answer = written::message(SUCCESS, [77; 12], "", false, CLIENT_PWD);
    assert_eq!(rig.send(client(1), &answer), to_node(0, 1));
    rig.now += Duration::from_secs(1);
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
    assert_eq!(rig.node_sends(1, 1, &RTP), Verdict::ToClient(client(2)));
}

#[test]
fn nobody_inherits_who_has_not_proved_himself_since() {
    let mut rig = rig();
    rig.open(spec(1));
    assert_eq!(rig.validated(1, client(2)), 0, "this one proved itself before");
    rig.now += Duration::from_millis(1);
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig.now += Duration::from_secs(1);
    let check = rig.check([77; 12], false);
    rig.node_sends(1, 1, &check);
    let held_back = rig.request(1);
    assert!(matches!(rig.send(client(3), &held_back), Verdict::ToNode { .. }), "an attacker kept this one to itself");
    rig.now += Duration::from_secs(5);

    assert_eq!(rig.node_sends(1, 1, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn a_node_that_checks_no_new_path_finds_its_client_by_the_checks_that_the_old_tuple_does_not_answer() {
    let mut rig = asked();
    let (held_back, request) = (rig.request(1), rig.request(1));
    assert_eq!(rig.send(client(3), &held_back), to_node(1, 1), "an attacker's");
    assert_eq!(rig.send(client(2), &request), to_node(2, 1), "the client's");
    rig.now += Duration::from_millis(500);
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));

    // Every other check still asks the old tuple, the others ask who was heard since.
    let mut asked = Vec::new();
    for id in 1..=4 {
        let check = rig.check([id; 12], false);
        let Verdict::ToClient(whom) = rig.node_sends(0, 1, &check) else { panic!("the check went nowhere") };
        asked.push(whom);
        assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)), "media goes where it went");
        let forged = written::message(SUCCESS, [id; 12], "", false, SERVER_PWD);
        assert!(matches!(rig.send(client(3), &forged), Verdict::Drop(_)));
    }
    assert_eq!((asked[1], asked[3]), (client(1), client(1)));
    assert!(asked.contains(&client(2)) && asked.contains(&client(3)), "{asked:?}");

    let id = if asked[0] == client(2) { [1; 12] } else { [3; 12] };
    let answer = written::message(SUCCESS, id, "", false, CLIENT_PWD);
    assert_eq!(rig.send(client(3), &answer), dropped(DropReason::StunClass), "sniffed, and sent before its sender's");
    assert_eq!(rig.send(client(2), &answer), to_node(0, 1));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(2)));
    assert!(!rig.core.has_flow(client(1)));
}

#[test]
fn a_check_that_is_sent_again_is_asked_of_nobody_else() {
    let mut rig = asked();
    let mut seen = Vec::new();
    for port in [2, 3] {
        let request = rig.request(1);
        rig.send(client(port), &request);
    }
    rig.now += Duration::from_millis(500);
    rig.node_sends(0, 1, &RTP);
    for id in [[77; 12], [1; 12], [1; 12], [2; 12], [3; 12], [2; 12], [3; 12], [1; 12]] {
        let check = rig.check(id, false);
        if let Verdict::ToClient(whom) = rig.node_sends(0, 1, &check) {
            seen.push((id[0], whom));
        }
    }
    assert!(seen.contains(&(77, client(1))), "{seen:?}");
    seen.sort_by_key(|(id, whom)| (*id, whom.source()));
    seen.dedup();
    let ids: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3, 77], "{seen:?}");
    assert!(seen.iter().any(|(_, whom)| *whom != client(1)), "{seen:?}");
}

#[test]
fn an_old_tuple_that_answers_after_all_keeps_its_path() {
    let mut rig = asked();
    let request = rig.request(1);
    rig.send(client(2), &request);
    rig.now += Duration::from_millis(500);
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
    let check = rig.check([1; 12], false);
    assert_eq!(rig.node_sends(0, 1, &check), Verdict::ToClient(client(2)));
    assert_eq!(rig.send(client(1), &written::message(SUCCESS, [77; 12], "", false, CLIENT_PWD)), to_node(0, 1));

    let late = written::message(SUCCESS, [1; 12], "", false, CLIENT_PWD);
    assert_eq!(rig.send(client(2), &late), dropped(DropReason::StunClass));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn where_the_agents_chose_the_new_path_themselves_both_lead_to_the_client() {
    let mut rig = moved(Duration::from_millis(500));
    rig.nominate(1, client(2));

    assert_eq!(rig.node_sends(1, 1, &RTP), Verdict::ToClient(client(2)));
    assert!(rig.core.has_flow(client(1)), "nothing shows that the node has not left it");
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(2)));
    assert_eq!(rig.send(client(2), &RTP), to_node(1, 1));
    assert_eq!(rig.core.stats().flows, [0, 0, 1]);
}

#[test]
fn a_full_table_admits_nobody_and_ends_nobody() {
    let mut rig = rig_with(RelaySettings { max_flows: 1, ..RelaySettings::default() });
    rig.open(spec(1));
    rig.validated(1, client(1));
    let request = rig.request(1);

    assert_eq!(rig.send(client(2), &request), dropped(DropReason::TableFull));
    assert!(rig.core.has_flow(client(1)));
}

#[test]
fn a_tuple_with_a_live_flow_is_not_taken_over_by_another_session() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.open(spec(2));
    rig.validated(1, client(1));
    let request = rig.request(2);

    assert_eq!(rig.send(client(1), &request), dropped(DropReason::TupleTaken));
    rig.now += Duration::from_secs(30);
    assert_eq!(rig.send(client(1), &request), to_node(0, 2));
}

#[test]
fn a_node_that_gives_its_port_to_another_session_ends_the_one_that_had_it() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.open(TransportSpec { backend_port: spec(1).backend_port, ..spec(2) });
    rig.validated(1, client(1));
    rig.events();
    let request = rig.request(2);

    assert_eq!(rig.send(client(2), &request), to_node(0, 1));
    assert!(!rig.core.has_flow(client(1)));
    assert_eq!(rig.core.stats().backend_port_reuse, 1);
    assert!(rig.events().contains(&EventKind::FlowClosed { client: client(1), reason: FlowEnd::BackendReused }));
}

// === rates ===

#[test]
fn a_source_that_keeps_failing_is_not_parsed_any_more_but_its_neighbours_known_tuples_are_served() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    let junk = written::message(REQUEST, [1; 12], "none:none", false, SERVER_PWD);
    let mut reasons = Vec::new();
    for port in 1000..1200 {
        let Verdict::Drop(reason) = rig.send(client(port), &junk) else { panic!("junk passed") };
        reasons.push(reason);
    }

    assert_eq!(reasons.iter().filter(|reason| **reason == DropReason::UnknownUfrag).count(), 100);
    assert_eq!(reasons.last(), Some(&DropReason::SourceLimited));
    let request = rig.request(1);
    assert_eq!(rig.send(client(1), &request), to_node(0, 1), "a known tuple of the same address");
    let request = rig.request(1);
    assert_eq!(rig.send(client(2), &request), dropped(DropReason::SourceLimited));
    rig.now += Duration::from_millis(20);
    assert!(matches!(rig.send(client(2), &request), Verdict::ToNode { .. }), "forgiven at 50 per second");
}

#[test]
fn authenticated_clients_behind_one_address_are_never_charged() {
    let mut rig = rig();
    for id in 1..=500 {
        rig.open(spec(id));
        let request = rig.request(id);
        assert!(matches!(rig.send(client(u16::try_from(id).unwrap()), &request), Verdict::ToNode { .. }));
    }
}

#[test]
fn forged_integrity_from_everywhere_together_is_bounded() {
    let mut rig = rig_with(RelaySettings { failures_per_second: 100, ..RelaySettings::default() });
    rig.open(spec(1));
    let forged = written::message(REQUEST, [1; 12], "srv1:cli1", false, CLIENT_PWD);
    for source in 0..100u8 {
        let from = ClientKey::Udp(([192, 0, 2, source], 9).into());
        let reason = if source < 10 { DropReason::BadIntegrity } else { DropReason::GlobalLimited };
        assert_eq!(rig.send(from, &forged), dropped(reason), "{source}");
    }
}

#[test]
fn a_replay_flood_from_elsewhere_cannot_starve_the_clients_own_checks() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    let sniffed = rig.request(1);
    let mut passed = 0;
    for _ in 0..1000 {
        passed += usize::from(matches!(rig.send(client(2), &sniffed), Verdict::ToNode { .. }));
    }
    assert!(passed <= 100, "{passed}");
    assert!(rig.core.stats().dropped(DropReason::StunRate) >= 900);
    let request = rig.request(1);
    assert_eq!(rig.send(client(1), &request), to_node(0, 1));
}

#[test]
fn bytes_beyond_the_policy_and_its_half_are_dropped_in_either_direction() {
    let mut rig = rig();
    rig.open(TransportSpec { bytes_per_second: Some(100_000), ..spec(1) });
    rig.validated(1, client(1));
    let packet = [[0x80; 1].as_slice(), &[96; 999]].concat();
    let (mut up, mut down) = (0, 0);
    for _ in 0..5000 {
        rig.now += Duration::from_millis(1);
        up += usize::from(rig.send(client(1), &packet) == to_node(0, 1));
        down += usize::from(rig.node_sends(0, 1, &packet) == Verdict::ToClient(client(1)));
    }

    for passed in [up, down] {
        assert!((895..=905).contains(&passed), "150 packets per second over 5 s, and one second's worth: {passed}");
    }
}

// === generations ===

#[test]
fn a_restart_moves_the_tuple_and_media_of_the_old_generation_still_comes() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig.open(restart(2));
    let (request, old) = (rig.request(2), rig.request(1));

    assert_eq!(rig.send(client(1), &request), to_node(0, 2));
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)), "the old port");
    assert_eq!(rig.send(client(1), &old), to_node(0, 1), "the old generation is still checked");
    assert_eq!(rig.send(client(1), &RTP), to_node(0, 2), "and changes nothing");
    assert_eq!(rig.core.stats().flows_in(FlowState::Validated), 1);
}

#[test]
fn the_old_generation_ends_thirty_seconds_after_the_new_one_nominates() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig.open(restart(2));
    rig.validated(2, client(2));
    rig.pass(Duration::from_secs(29));
    for id in [1u16, 2] {
        let request = rig.request(u64::from(id));
        assert!(matches!(rig.send(client(id), &request), Verdict::ToNode { .. }), "not nominated, so both live");
    }
    rig.nominate(2, client(2));
    rig.pass(Duration::from_secs(29));
    assert!(rig.core.has_flow(client(1)));
    rig.events();
    rig.pass(Duration::from_secs(2));

    let events = rig.events();
    assert_eq!(events[0], EventKind::FlowClosed { client: client(1), reason: FlowEnd::Closed });
    assert!(matches!(events[1], EventKind::Closed { reason: TransportEnd::Superseded, .. }));
    let request = rig.request(1);
    assert!(matches!(rig.send(client(1), &request), Verdict::Drop(_)));
    assert!(rig.core.has_flow(client(2)));
}

#[test]
fn a_tuple_that_moved_on_outlives_its_old_generation_and_forgets_its_port() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.open(restart(2));
    let request = rig.request(2);
    rig.send(client(1), &request);
    rig.core.command(Command::Close(TransportId(1)), rig.now).unwrap();

    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::UnknownNode));
    assert_eq!(rig.node_sends(0, 2, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn a_third_generation_ends_the_second_if_that_carried_nothing_and_else_the_first() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.nominate(1, client(1));
    rig.open(restart(2));
    rig.open(restart(3));
    assert!(rig.core.traffic(TransportId(1)).is_some() && rig.core.traffic(TransportId(2)).is_none());

    rig.validated(3, client(3));
    rig.nominate(3, client(3));
    rig.open(restart(4));
    assert!(rig.core.traffic(TransportId(1)).is_none() && rig.core.traffic(TransportId(3)).is_some());
    assert_eq!(rig.core.stats().transports, 2);
}

#[test]
fn a_restart_on_the_nodes_same_port_shares_the_path() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.open(TransportSpec { backend_port: spec(1).backend_port, ..restart(2) });
    let (new, old) = (rig.request(2), rig.request(1));

    assert_eq!(rig.send(client(1), &new), to_node(0, 1));
    assert_eq!(rig.send(client(1), &old), to_node(0, 1));
    let other = rig.request(2);
    assert_eq!(rig.send(client(2), &other), to_node(1, 1), "another tuple takes another socket");
    rig.core.command(Command::Close(TransportId(1)), rig.now).unwrap();
    assert_eq!(rig.node_sends(0, 1, &RTP), Verdict::ToClient(client(1)));
}

// === ends ===

#[test]
fn closing_a_session_ends_its_flows_at_once_and_their_late_packets_are_nobodys_fault() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.open(TransportSpec { line: 1, ..restart(2) });
    rig.validated(1, client(1));
    rig.validated(2, client(2));
    rig.events();
    rig.core.command(Command::CloseSession(SessionId(1)), rig.now).unwrap();

    let request = rig.request(1);
    for _ in 0..300 {
        assert_eq!(rig.send(client(1), &request), dropped(DropReason::Tombstone));
    }
    assert_eq!(rig.send(client(1), &RTP), dropped(DropReason::Tombstone));
    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::Tombstone));
    assert_eq!(rig.core.stats().auth_failures, 0);
    assert_eq!(rig.core.stats().flows, [0, 0, 0]);
    assert_eq!(rig.events().len(), 4, "a flow and a transport, twice");

    rig.pass(Duration::from_secs(6));
    assert_eq!(rig.send(client(1), &RTP), dropped(DropReason::UnknownTuple));
    assert_eq!(rig.node_sends(0, 1, &RTP), dropped(DropReason::UnknownNode));
    assert_eq!(rig.core.poll_timeout(), None);
}

#[test]
fn a_tuple_whose_session_ended_may_begin_another_at_once() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    rig.core.command(Command::Close(TransportId(1)), rig.now).unwrap();
    rig.open(spec(2));
    rig.validated(2, client(1));
    rig.pass(Duration::from_secs(6));

    assert_eq!(rig.node_sends(0, 2, &RTP), Verdict::ToClient(client(1)));
}

#[test]
fn a_flow_without_authenticated_stun_ends_after_thirty_five_seconds_whatever_else_it_sends() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    for _ in 0..34 {
        rig.pass(Duration::from_secs(1));
        assert_eq!(rig.send(client(1), &RTP), to_node(0, 1));
    }
    rig.events();
    rig.pass(Duration::from_secs(3));

    assert!(rig.events().contains(&EventKind::FlowClosed { client: client(1), reason: FlowEnd::Consent }));
    assert!(rig.core.traffic(TransportId(1)).is_some(), "the session decides about the transport");
    let request = rig.request(1);
    assert!(matches!(rig.send(client(1), &request), Verdict::ToNode { .. }));
}

#[test]
fn a_transport_that_no_client_ever_used_ends_after_fifteen_seconds() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.open(TransportSpec { client: None, ..spec(2) });
    rig.pass(Duration::from_secs(14));
    assert_eq!(rig.core.stats().transports, 2);
    rig.pass(Duration::from_secs(3));

    assert!(matches!(rig.events()[..], [EventKind::Closed { reason: TransportEnd::HalfOpen, .. }]));
    assert!(rig.core.traffic(TransportId(2)).is_some(), "its signalling is not done");
}

#[test]
fn a_tcp_connection_that_hangs_up_takes_its_flow_along() {
    let mut rig = rig();
    rig.open(spec(1));
    let tcp = ClientKey::Tcp { conn: 4, source: [203, 0, 113, 7].into() };
    rig.validated(1, tcp);
    assert!(rig.core.has_flow(tcp));
    rig.events();
    rig.core.client_gone(tcp, rig.now);

    assert_eq!(rig.events(), [EventKind::FlowClosed { client: tcp, reason: FlowEnd::HungUp }]);
    assert!(!rig.core.has_flow(tcp));
}

// === what is told ===

#[test]
fn a_play_tells_its_steps_its_stall_and_its_return() {
    let mut rig = rig();
    rig.open(TransportSpec { client: None, ..spec(1) });
    let request = rig.request(1);
    rig.send(client(1), &request);
    let answer = Command::SetClient { id: TransportId(1), client: credentials("cli1", CLIENT_PWD) };
    rig.core.command(answer, rig.now).unwrap();
    let check = rig.check([5; 12], true);
    rig.node_sends(0, 1, &check);
    rig.now += Duration::from_millis(40);
    rig.send(client(1), &written::message(SUCCESS, [5; 12], "", false, CLIENT_PWD));
    rig.node_sends(0, 1, &RTP);
    let steps = rig.events();
    rig.pass(Duration::from_secs(4));
    rig.node_sends(0, 1, &RTP);

    let from = client(1);
    assert_eq!(
        steps,
        [
            EventKind::FirstStun,
            EventKind::Validated { client: from },
            EventKind::Nominated { client: from },
            EventKind::FirstMedia { after: Duration::from_millis(40) },
        ]
    );
    assert_eq!(rig.events(), [EventKind::Stalled, EventKind::Resumed { after: Duration::from_secs(4) }]);
    assert_eq!(rig.core.stats().stalls, 1);
}

#[test]
fn all_that_passes_is_counted_by_direction_and_told_at_the_end() {
    let mut rig = rig();
    rig.open(spec(1));
    rig.validated(1, client(1));
    let before = rig.core.traffic(TransportId(1)).unwrap();
    rig.send(client(1), &RTP);
    rig.send(client(1), &DTLS);
    rig.node_sends(0, 1, &RTP);
    let after = rig.core.traffic(TransportId(1)).unwrap();

    assert_eq!(after.to_node.packets - before.to_node.packets, 2);
    assert_eq!(after.to_node.bytes - before.to_node.bytes, 16);
    assert_eq!(after.to_client.packets - before.to_client.packets, 1);
    assert_eq!(rig.core.stats().traffic, after);
    rig.core.command(Command::Close(TransportId(1)), rig.now).unwrap();
    let silent = Some(Duration::ZERO);
    assert!(rig.events().contains(&EventKind::Closed { reason: TransportEnd::Closed, silent, traffic: after }));
}

#[test]
fn events_that_nobody_polls_are_bounded_and_their_loss_is_counted() {
    let mut rig = rig();
    for id in 1..=5000 {
        rig.open(TransportSpec { backend_port: None, ..spec(id) });
        rig.core.command(Command::Close(TransportId(id)), rig.now).unwrap();
    }

    assert_eq!(rig.events().len(), 4096);
    assert_eq!(rig.core.stats().events_lost, 904);
}

#[test]
fn every_reason_has_its_own_cell_and_its_own_name() {
    let mut names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    for (at, reason) in DropReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, at);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DropReason::ALL.len());
    assert!(FlowState::ALL.iter().enumerate().all(|(at, state)| *state as usize == at));
}
