//! What the book promises as a whole: table tests of decisions and states, and properties over random clusters.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::domain::ids::{Kind, NodeAddr, NodeId, Role, StreamKey};

#[expect(clippy::disallowed_methods, reason = "std has no other way to make an Instant")]
fn any_moment() -> Instant {
    Instant::now()
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn stream(name: &str) -> StreamKey {
    StreamKey { app: "LiveApp".parse().unwrap(), stream: name.parse().unwrap() }
}

/// `role name [@zone]`, such as `edge e1 @a`.
fn spec(words: &str) -> NodeSpec {
    let words: Vec<&str> = words.split(' ').collect();
    let role = match words[0] {
        "origin" => Role::Origin,
        "edge" => Role::Edge,
        _ => Role::Both,
    };
    NodeSpec {
        id: id(words[1]),
        address: NodeAddr("10.0.0.1:5080".parse().unwrap()),
        role,
        zone: words.get(2).map(|zone| zone.trim_start_matches('@').parse().unwrap()),
        aliases: Vec::new(),
        max_publishes: None,
        max_plays: None,
    }
}

fn book_of(specs: &[&str], now: Instant) -> Book {
    let mut book = Book::new(BalanceSettings::default());
    book.set_nodes(specs.iter().map(|words| spec(words)).collect(), now);
    book
}

fn load(book: &mut Book, node: &str, cpu: f32, at: Instant) {
    book.report(&id(node), Report { cpu: Some(cpu), memory: None, at });
}

/// A question without exclusions, counted as what it wants.
fn ask(key: &StreamKey, want: Want, seed: u64) -> Request<'_> {
    let kind = match want {
        Want::Play { .. } => Some(Kind::Play),
        Want::Publish | Want::Only(_) => Some(Kind::Publish),
        Want::Home | Want::Read => None,
    };
    Request { stream: key, want, rule: "asked", kind, exclude: &[], seed }
}

fn play_near(zone: Option<&str>) -> Want {
    Want::Play { origin_zone: zone.map(|zone| zone.parse().unwrap()), origin: None }
}

fn chosen(book: &mut Book, request: &Request<'_>, now: Instant) -> String {
    book.place(request, now).map_or_else(|_| "nobody".into(), |placement| placement.node.to_string())
}

fn count(tally: &[(Verdict, u32)], verdict: Verdict) -> u32 {
    tally.iter().find(|(found, _)| *found == verdict).map_or(0, |(_, count)| *count)
}

fn state(book: &Book, node: &str) -> NodeState {
    book.view().get(&id(node)).unwrap().state
}

// === publishes ===

#[test]
fn a_publish_goes_to_the_origin_with_the_lowest_predicted_load() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2", "origin o3", "edge e1"], t0);
    for (node, cpu) in [("o1", 0.4), ("o2", 0.3), ("o3", 0.33)] {
        load(&mut book, node, cpu, t0);
    }
    let key = stream("cam");
    let placement = book.place(&ask(&key, Want::Publish, 1), t0).unwrap();
    assert_eq!((placement.node.as_str(), placement.rule), ("o2", "least_loaded"));
    assert_eq!(placement.tally, [(Verdict::Chosen, 1), (Verdict::Outscored, 2), (Verdict::WrongRole, 1)]);
    let ranked: Vec<&str> = placement.candidates.iter().map(|candidate| candidate.node.as_str()).collect();
    assert_eq!(ranked, ["o2", "o3", "o1"]);
    // Six more legs at the floor's 0.5 % each lift it to the next one's load.
    let nodes: Vec<String> = (0..7).map(|n| chosen(&mut book, &ask(&key, Want::Publish, n), t0)).collect();
    assert_eq!(nodes[..4], ["o2", "o2", "o2", "o2"]);
    assert!(nodes[4..].contains(&"o3".into()), "{nodes:?}");
}

#[test]
fn near_ties_are_broken_by_the_seed_and_by_nothing_else() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2", "origin o3"], t0);
    for (node, cpu) in [("o1", 0.500), ("o2", 0.509), ("o3", 0.511)] {
        load(&mut book, node, cpu, t0);
    }
    let key = stream("cam");
    let pick = |seed| book.explain(&ask(&key, Want::Publish, seed), t0).unwrap().node;
    let picks: Vec<NodeId> = (0..200).map(pick).collect();
    assert!(picks.contains(&id("o1")) && picks.contains(&id("o2")));
    assert!(!picks.contains(&id("o3")), "2.2 % above the lowest");
    assert_eq!(picks, (0..200).map(pick).collect::<Vec<_>>());
}

#[test]
fn an_origin_at_one_of_its_limits_takes_no_publish_and_nobody_is_overloaded_in_silence() {
    let t0 = any_moment();
    let mut book = Book::new(BalanceSettings::default());
    let limited = NodeSpec { max_publishes: Some(2), ..spec("origin o1") };
    let forbidden = NodeSpec { max_publishes: Some(0), ..spec("both o2") };
    book.set_nodes(vec![limited, forbidden, spec("origin o3")], t0);
    load(&mut book, "o3", 0.746, t0);
    let key = stream("cam");
    for _ in 0..2 {
        assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, 0), t0), "o1");
    }
    let refusal = book.place(&ask(&key, Want::Publish, 0), t0).unwrap_err();
    assert_eq!(refusal, PlaceError::NoCapacity(vec![(Verdict::AtLimit, 3)]));
    let why: Vec<Verdict> = book.candidates(&ask(&key, Want::Publish, 0)).iter().map(|found| found.verdict).collect();
    assert_eq!(why, [Verdict::AtLimit; 3]);
    assert_eq!(book.view().get(&id("o1")).unwrap().load.legs, Some(1.0));
    book.leg_ended(&id("o1"), Kind::Publish, t0);
    assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, 0), t0), "o1");
}

#[test]
fn the_larger_of_cpu_and_memory_counts() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    book.report(&id("o1"), Report { cpu: Some(0.1), memory: Some(0.6), at: t0 });
    book.report(&id("o2"), Report { cpu: Some(0.5), memory: None, at: t0 });
    assert_eq!(chosen(&mut book, &ask(&stream("cam"), Want::Publish, 0), t0), "o2");
    let shown = book.view().get(&id("o1")).unwrap().load;
    assert_eq!((shown.reported, shown.cpu, shown.memory), (0.6, Some(0.1), Some(0.6)));
}

#[test]
fn a_node_that_refused_is_full_until_its_next_report() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    load(&mut book, "o1", 0.1, t0);
    load(&mut book, "o2", 0.5, t0);
    book.refused(&id("o1"), t0 + secs(1));
    assert_eq!(chosen(&mut book, &ask(&stream("cam"), Want::Publish, 0), t0 + secs(1)), "o2");
    assert_eq!(book.view().get(&id("o1")).unwrap().load.predicted, 1.0);
    load(&mut book, "o1", 0.1, t0 + secs(2));
    assert_eq!(chosen(&mut book, &ask(&stream("cam"), Want::Publish, 0), t0 + secs(2)), "o1");
}

#[test]
fn every_policy_spreads_as_its_name_says_and_skips_who_is_down() {
    let t0 = any_moment();
    let names = ["origin o1", "origin o2", "origin o3", "origin o4"];
    let picks = |policy| {
        let mut book = Book::new(BalanceSettings { publish_policy: policy, ..BalanceSettings::default() });
        book.set_nodes(names.iter().map(|words| spec(words)).collect(), t0);
        for _ in 0..3 {
            book.probe(&id("o3"), ProbeOutcome::Failed("refused".into()), t0);
        }
        load(&mut book, "o4", 0.7, t0);
        (0..90).map(|n| chosen(&mut book, &ask(&stream("cam"), Want::Publish, n), t0)).collect::<Vec<_>>()
    };
    let times = |nodes: &[String], name: &str| nodes.iter().filter(|node| *node == name).count();

    let turns = picks(PublishPolicy::RoundRobin);
    assert_eq!(turns[..4], ["o1", "o2", "o4", "o1"]);
    let homes = picks(PublishPolicy::Hash);
    assert!(homes[..9].iter().all(|node| *node == homes[0]), "one stream, one node, while it has room");
    let least = picks(PublishPolicy::LeastLoaded);
    assert_eq!((times(&least, "o3"), times(&least, "o4")), (0, 0));
    let two = picks(PublishPolicy::TwoChoices);
    assert_eq!((times(&two, "o3"), times(&two, "o4")), (0, 0), "the worst of three never wins a draw of two");
    assert!(times(&two, "o1") > 30 && times(&two, "o2") > 30, "{two:?}");
}

// === plays ===

#[test]
fn viewers_of_a_stream_share_an_edge_in_the_origins_zone_and_spill_in_a_stable_order() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1 @a", "edge a1 @a", "edge a2 @a", "edge b1 @b", "edge b2 @b"], t0);
    let key = stream("match");
    let mut order = Vec::new();
    for _ in 0..1_400 {
        let node = chosen(&mut book, &ask(&key, play_near(Some("a")), 7), t0);
        if !order.contains(&node) {
            order.push(node);
        }
    }
    // At 0.2 % each the first zone is shared until half, then up to the mean, which the second zone joins.
    assert_eq!(order.len(), 4, "{order:?}");
    assert!(order[0].starts_with('a') && order[1].starts_with('a'), "{order:?}");
    let mut again = book_of(&["origin o1 @a", "edge a1 @a", "edge a2 @a", "edge b1 @b", "edge b2 @b"], t0);
    let mut second = Vec::new();
    for seed in 0..1_400 {
        let node = chosen(&mut again, &ask(&key, play_near(Some("a")), seed), t0);
        if !second.contains(&node) {
            second.push(node);
        }
    }
    assert_eq!(order, second, "no seed matters");
}

#[test]
fn a_play_says_who_stood_elsewhere_and_who_was_too_full() {
    let t0 = any_moment();
    let mut book = book_of(&["edge a1 @a", "edge a2 @a", "edge b1 @b", "origin o1 @a"], t0);
    load(&mut book, "a1", 0.7, t0);
    let placement = book.place(&ask(&stream("s"), play_near(Some("a")), 0), t0).unwrap();
    assert_eq!((placement.node.as_str(), placement.rule), ("a2", "bounded_hash"));
    let tally = [(Verdict::Chosen, 1), (Verdict::OtherZone, 1), (Verdict::AboveBound, 1), (Verdict::WrongRole, 1)];
    assert_eq!(placement.tally, tally);
    let unknown_zone = book.place(&ask(&stream("s"), play_near(Some("nowhere")), 0), t0).unwrap();
    assert_eq!(count(&unknown_zone.tally, Verdict::OtherZone), 0);
}

#[test]
fn without_any_edge_plays_go_to_the_streams_origin_and_spill_to_the_others() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2", "origin o3"], t0);
    for home in ["o1", "o2", "o3"] {
        let want = Want::Play { origin_zone: None, origin: Some(id(home)) };
        assert_eq!(chosen(&mut book, &ask(&stream("s"), want, 0), t0), home);
    }
    load(&mut book, "o2", 0.74, t0);
    let want = Want::Play { origin_zone: None, origin: Some(id("o2")) };
    assert_ne!(chosen(&mut book, &ask(&stream("s"), want, 0), t0), "o2");

    let mut with_edges = book_of(&["origin o1", "edge e1"], t0);
    for _ in 0..3 {
        with_edges.probe(&id("e1"), ProbeOutcome::Failed("refused".into()), t0);
    }
    let want = Want::Play { origin_zone: None, origin: Some(id("o1")) };
    assert_eq!(chosen(&mut with_edges, &ask(&stream("s"), want, 0), t0), "nobody", "edges that are down are edges");
}

// === the other wants ===

#[test]
fn a_node_asked_for_by_name_is_taken_whatever_its_role_or_not_at_all() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "edge e1", "edge e2"], t0);
    let key = stream("s");
    let only = |kind| Request { kind, rule: "with_publisher", ..ask(&key, Want::Only(id("o1")), 0) };
    let placement = book.place(&only(Some(Kind::Play)), t0).unwrap();
    assert_eq!((placement.node.as_str(), placement.rule), ("o1", "with_publisher"));
    assert_eq!(placement.tally, [(Verdict::Chosen, 1), (Verdict::NotAsked, 2)]);
    assert_eq!(book.view().get(&id("o1")).unwrap().legs, Legs { publish: 0, play: 1 });

    load(&mut book, "o1", 0.75, t0);
    let at_limit = PlaceError::NoCapacity(vec![(Verdict::AtLimit, 1), (Verdict::NotAsked, 2)]);
    assert_eq!(book.place(&only(Some(Kind::Play)), t0), Err(at_limit));
    assert!(book.place(&only(None), t0).is_ok(), "what counts nothing needs no room");
    let excluded = [id("o1")];
    let failed = Request { exclude: &excluded, ..only(None) };
    assert_eq!(
        book.place(&failed, t0),
        Err(PlaceError::NoCapacity(vec![(Verdict::Excluded, 1), (Verdict::NotAsked, 2)]))
    );
    let stranger = ask(&key, Want::Only(id("o9")), 0);
    assert_eq!(book.place(&stranger, t0), Err(PlaceError::NoCapacity(vec![(Verdict::NotAsked, 3)])));
}

#[test]
fn homes_are_origins_and_stay_whatever_the_loads() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2", "origin o3", "edge e1"], t0);
    let key = stream("room");
    let home = chosen(&mut book, &ask(&key, Want::Home, 1), t0);
    assert!(home.starts_with('o'));
    load(&mut book, &home, 0.99, t0);
    assert_eq!(chosen(&mut book, &ask(&key, Want::Home, 2), t0), home);
}

#[test]
fn a_read_goes_to_any_edge_and_else_to_whoever_serves() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "edge e1"], t0);
    let key = stream("s");
    assert_eq!(chosen(&mut book, &ask(&key, Want::Read, 0), t0), "e1");
    for _ in 0..3 {
        book.probe(&id("e1"), ProbeOutcome::Failed("refused".into()), t0);
    }
    assert_eq!(chosen(&mut book, &ask(&key, Want::Read, 0), t0), "o1");
    for _ in 0..3 {
        book.probe(&id("o1"), ProbeOutcome::Failed("refused".into()), t0);
    }
    assert_eq!(chosen(&mut book, &ask(&key, Want::Read, 0), t0), "nobody");
}

#[test]
fn who_has_already_failed_a_leg_is_not_asked_again() {
    let t0 = any_moment();
    let mut book = book_of(&["both n1", "both n2", "both n3"], t0);
    let key = stream("s");
    for want in [Want::Publish, play_near(None), Want::Home, Want::Read] {
        let mut failed = Vec::new();
        for _ in 0..3 {
            let request = Request { exclude: &failed, ..ask(&key, want.clone(), 3) };
            let placement = book.place(&request, t0).unwrap();
            assert_eq!(count(&placement.tally, Verdict::Excluded) as usize, failed.len(), "{want:?}");
            failed.push(placement.node);
        }
        let request = Request { exclude: &failed, ..ask(&key, want, 3) };
        assert_eq!(book.place(&request, t0), Err(PlaceError::NoCapacity(vec![(Verdict::Excluded, 3)])));
    }
}

// === states ===

#[test]
fn probes_alone_end_and_begin_a_nodes_life_whatever_its_reports_say() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    assert_eq!(state(&book, "o1"), NodeState::Serving, "the door is new, the nodes are not");
    let failed = || ProbeOutcome::Failed("connection refused".into());
    for n in 0..3 {
        assert_eq!(state(&book, "o1"), NodeState::Serving);
        book.probe(&id("o1"), failed(), t0 + secs(n));
        load(&mut book, "o1", 0.01, t0 + secs(n));
    }
    let down = book.view().get(&id("o1")).unwrap();
    assert_eq!((down.state, down.since), (NodeState::Down, t0 + secs(2)));
    assert_eq!(&*down.reason, "3 probes in a row failed: connection refused");
    assert_eq!(down.errors.first().map(|error| &*error.cause), Some("connection refused"));

    book.probe(&id("o1"), ProbeOutcome::Answered, t0 + secs(10));
    book.probe(&id("o1"), failed(), t0 + secs(11));
    book.probe(&id("o1"), ProbeOutcome::Answered, t0 + secs(12));
    assert_eq!(state(&book, "o1"), NodeState::Down, "two answers in a row are wanted");
    book.probe(&id("o1"), ProbeOutcome::Answered, t0 + secs(13));
    assert_eq!(state(&book, "o1"), NodeState::Joining);
    book.tick(t0 + secs(72));
    assert_eq!(state(&book, "o1"), NodeState::Joining);
    book.tick(t0 + secs(73));
    assert_eq!(state(&book, "o1"), NodeState::Serving);
    // Its last report is as old as can be, and it answers.
    book.tick(t0 + secs(100_000));
    assert_eq!(state(&book, "o1"), NodeState::Serving);
}

#[test]
fn failing_links_take_a_node_out_and_a_few_legs_bring_it_back_slowly() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    load(&mut book, "o2", 0.6, t0);
    let key = stream("s");
    for _ in 0..3 {
        assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, 0), t0), "o1");
        book.leg_ended(&id("o1"), Kind::Publish, t0);
        book.link_failed(&id("o1"), "timed out", t0);
    }
    assert_eq!(state(&book, "o1"), NodeState::Down);
    assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, 0), t0), "o2");
    book.probe(&id("o1"), ProbeOutcome::Answered, t0 + secs(1));
    assert_eq!(state(&book, "o1"), NodeState::Down, "a port that answers is no link that holds");

    book.tick(t0 + secs(5));
    assert_eq!(state(&book, "o1"), NodeState::Joining);
    let picks: Vec<String> = (0..4).map(|_| chosen(&mut book, &ask(&key, Want::Publish, 0), t0 + secs(5))).collect();
    assert_eq!(picks, ["o1", "o1", "o2", "o2"], "few legs, however empty it looks");
    book.link_ok(&id("o1"), t0 + secs(6));
    let view = book.view().get(&id("o1")).unwrap();
    assert_eq!((view.state, &*view.reason), (NodeState::Joining, "links to it hold again"));
    book.tick(t0 + secs(66));
    assert_eq!(state(&book, "o1"), NodeState::Serving);
}

#[test]
fn a_later_node_joins_slowly_unless_nobody_else_could_take_the_leg() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    load(&mut book, "o1", 0.5, t0);
    load(&mut book, "o2", 0.5, t0);
    book.set_nodes(vec![spec("origin o1"), spec("origin o2"), spec("origin o3")], t0);
    assert_eq!(state(&book, "o3"), NodeState::Joining);
    let key = stream("s");
    let mut placed = 0;
    let mut on_new = 0;
    for n in 0..45 {
        placed += 1;
        on_new += u32::from(chosen(&mut book, &ask(&key, Want::Publish, n), t0) == "o3");
    }
    // A tenth of a third of them, and its first leg.
    assert_eq!((placed, on_new), (45, 2));
    let refusal = book.place(&ask(&key, Want::Publish, 0), t0).unwrap();
    assert_eq!(count(&refusal.tally, Verdict::JoiningTooFast), 1);

    for old in ["o1", "o2"] {
        load(&mut book, old, 0.9, t0 + secs(1));
    }
    for n in 0..45 {
        assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, n), t0 + secs(1)), "o3");
    }
}

#[test]
fn a_drained_node_takes_nothing_until_its_drain_is_cancelled_and_then_joins() {
    let t0 = any_moment();
    let mut book = book_of(&["both n1"], t0);
    let key = stream("s");
    for (drain, expected) in [(Drain::Draining, NodeState::Draining), (Drain::Drained, NodeState::Drained)] {
        book.set_drain(&id("n1"), Some(drain), t0);
        assert_eq!(state(&book, "n1"), expected);
        for want in [Want::Publish, play_near(None), Want::Only(id("n1")), Want::Home, Want::Read] {
            assert_eq!(chosen(&mut book, &ask(&key, want, 0), t0), "nobody");
        }
    }
    book.set_drain(&id("n1"), None, t0 + secs(9));
    assert_eq!(state(&book, "n1"), NodeState::Joining);
    assert_eq!(chosen(&mut book, &ask(&key, Want::Publish, 0), t0 + secs(9)), "n1");
}

#[test]
fn legs_of_a_node_that_vanishes_for_a_while_are_not_forgotten() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2"], t0);
    let only = |key| ask(key, Want::Only(id("o1")), 0);
    let key = stream("s");
    for _ in 0..3 {
        book.place(&only(&key), t0).unwrap();
    }
    book.set_nodes(vec![spec("origin o2")], t0);
    book.leg_ended(&id("o1"), Kind::Publish, t0);
    book.set_nodes(vec![spec("origin o1"), spec("origin o2")], t0);
    assert_eq!(book.view().get(&id("o1")).unwrap().legs.publish, 2);
    let moved = NodeSpec { address: NodeAddr("10.0.0.7:5080".parse().unwrap()), ..spec("origin o1") };
    book.set_nodes(vec![moved, spec("origin o2")], t0);
    let view = book.view().get(&id("o1")).unwrap();
    assert_eq!((view.legs.publish, view.state), (2, NodeState::Joining), "another server under the same name");
}

#[test]
fn an_unchanged_node_set_keeps_the_very_snapshot() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "edge e1"], t0);
    let before = book.snapshot();
    book.set_nodes(vec![spec("edge e1"), spec("origin o1"), spec("origin o1")], t0);
    assert!(std::sync::Arc::ptr_eq(&before, &book.snapshot()));
    book.place(&ask(&stream("s"), Want::Publish, 0), t0).unwrap();
    assert_eq!(before.get(&id("o1")).unwrap().legs.publish, 0, "a reader's snapshot never changes");
    assert_eq!(book.view().get(&id("o1")).unwrap().legs.publish, 1);
}

// === properties ===

prop_compose! {
    fn any_spec()(at in 0u32..60, role in 0..3, zone in 0..4, max in prop::option::of(0u32..40)) -> NodeSpec {
        let roles = ["origin", "edge", "both"];
        let words = format!("{} n{at} @z{zone}", roles[role as usize]);
        let spec = spec(&words);
        NodeSpec { zone: spec.zone.filter(|_| zone > 0), max_plays: max, max_publishes: max, ..spec }
    }
}

prop_compose! {
    /// Nodes with loads, some of them down, and the book's `share_until`.
    fn any_book_sharing()(
        nodes in prop::collection::vec((any_spec(), 0f32..1.0, 0u8..10), 0..60),
        share_until in prop_oneof![Just(0.0f32), Just(0.5f32)],
    ) -> (Book, f64) {
        let t0 = any_moment();
        let mut book = Book::new(BalanceSettings { share_until, ..BalanceSettings::default() });
        book.set_nodes(nodes.iter().map(|(spec, _, _)| spec.clone()).collect(), t0);
        for (spec, cpu, luck) in nodes {
            book.report(&spec.id, Report { cpu: Some(cpu), memory: None, at: t0 });
            for _ in 0..(if luck == 0 { 3 } else { 0 }) {
                book.probe(&spec.id, ProbeOutcome::Failed("refused".into()), t0);
            }
        }
        (book, f64::from(share_until))
    }
}

fn any_want() -> impl Strategy<Value = Want> {
    prop_oneof![
        Just(Want::Publish),
        (0..5).prop_map(|zone| play_near(Some(&format!("z{zone}")))),
        Just(play_near(None)),
        Just(Want::Home),
        Just(Want::Read),
        (0..60).prop_map(|at| Want::Only(id(&format!("n{at}")))),
    ]
}

#[test]
fn legs_of_other_doors_count_as_load_but_are_not_this_doors_to_end() {
    let t0 = any_moment();
    let mut book = book_of(&["edge e1", "edge e2"], t0);
    let key = stream("s");
    let want = || Want::Only(id("e1"));
    let play = |book: &mut Book| book.place(&Request { kind: Some(Kind::Play), ..ask(&key, want(), 1) }, t0).unwrap();
    play(&mut book);
    let others = |play| BTreeMap::from([(id("e1"), Legs { publish: 0, play })]);
    book.set_others(&others(7), t0);
    assert_eq!(book.view().get(&id("e1")).unwrap().legs, Legs { publish: 0, play: 8 });
    assert_eq!(book.own_legs(), BTreeMap::from([(id("e1"), Legs { publish: 0, play: 1 })]));
    book.leg_ended(&id("e1"), Kind::Play, t0);
    book.leg_ended(&id("e1"), Kind::Play, t0);
    assert_eq!(book.view().get(&id("e1")).unwrap().legs.play, 7, "what this door does not have it cannot end");
    book.set_others(&others(3), t0);
    assert_eq!(book.view().get(&id("e1")).unwrap().legs.play, 3);
    book.set_others(&BTreeMap::new(), t0);
    assert_eq!(book.view().get(&id("e1")).unwrap().legs.play, 0);
    assert!(book.own_legs().is_empty());
}

#[test]
fn a_drain_holds_for_a_node_that_comes_later_and_for_one_that_comes_back() {
    let t0 = any_moment();
    let mut book = book_of(&["edge e1", "edge e2"], t0);
    book.set_drains(&BTreeMap::from([(id("e2"), Drain::Draining), (id("e3"), Drain::Drained)]), t0);
    let state = |book: &Book, node: &str| book.view().get(&id(node)).unwrap().state;
    assert_eq!(state(&book, "e2"), NodeState::Draining);
    book.set_nodes(vec![spec("edge e1"), spec("edge e3")], t0);
    book.set_nodes(vec![spec("edge e1"), spec("edge e2"), spec("edge e3")], t0);
    assert_eq!((state(&book, "e2"), state(&book, "e3")), (NodeState::Draining, NodeState::Drained));
    book.set_drains(&BTreeMap::new(), t0);
    assert_eq!((state(&book, "e1"), state(&book, "e3")), (NodeState::Serving, NodeState::Joining));
}

#[test]
fn the_last_node_that_takes_a_kind_of_leg_is_known() {
    let t0 = any_moment();
    let mut book = book_of(&["origin o1", "origin o2", "edge e1", "both b1"], t0);
    let sole = |book: &Book, node: &str| book.view().sole_server(&id(node));
    assert_eq!((sole(&book, "o1"), sole(&book, "e1"), sole(&book, "b1")), (None, None, None));
    book.set_drain(&id("b1"), Some(Drain::Draining), t0);
    assert_eq!((sole(&book, "o1"), sole(&book, "e1")), (None, Some(Kind::Play)));
    book.set_drain(&id("o2"), Some(Drain::Draining), t0);
    assert_eq!((sole(&book, "o1"), sole(&book, "b1")), (Some(Kind::Publish), None));
    let edgeless = book_of(&["origin o1"], t0);
    assert_eq!(sole(&edgeless, "o1"), Some(Kind::Publish));
}

#[test]
fn two_doors_have_one_table_hash_exactly_if_they_know_the_same_nodes() {
    let t0 = any_moment();
    let hash = |specs: &[&str]| book_of(specs, t0).view().table_hash();
    assert_eq!(hash(&["origin o1", "edge e1 @a"]), hash(&["edge e1 @a", "origin o1"]));
    assert_ne!(hash(&["origin o1", "edge e1 @a"]), hash(&["origin o1", "edge e1 @b"]));
    assert_ne!(hash(&["origin o1", "edge e1"]), hash(&["origin o1", "origin e1"]));
    assert_ne!(hash(&["origin o1", "edge e1"]), hash(&["origin o1"]));
}

proptest! {
    #[test]
    fn losing_a_node_moves_only_its_own_streams(count in 2usize..20, lost: usize, name in "[a-z]{1,12}", home: bool) {
        let t0 = any_moment();
        let (key, lost) = (stream(&name), lost % count);
        let specs: Vec<NodeSpec> = (0..count).map(|at| spec(&format!("both n{at}"))).collect();
        let want = if home { Want::Home } else { play_near(None) };
        let mut book = Book::new(BalanceSettings::default());
        book.set_nodes(specs.clone(), t0);
        let before = chosen(&mut book, &ask(&key, want.clone(), 0), t0);

        for _ in 0..3 {
            book.probe(&specs[lost].id, ProbeOutcome::Failed("refused".into()), t0);
        }
        let after = chosen(&mut book, &ask(&key, want, 1), t0);
        prop_assert_eq!(after == before, before != specs[lost].id.as_str());
    }

    #[test]
    fn every_placement_explains_itself((book, _) in any_book_sharing(), want in any_want(), name in "[a-z]{1,6}", seed: u64) {
        let (key, now) = (stream(&name), any_moment());
        let request = ask(&key, want, seed);
        let nodes = book.view().nodes.len();
        let all = book.candidates(&request);
        prop_assert_eq!(all.len(), nodes);
        let (tally, won) = match book.explain(&request, now) {
            Ok(placement) => {
                prop_assert_eq!(&placement.candidates[0].node, &placement.node);
                prop_assert_eq!(placement.candidates[0].verdict, Verdict::Chosen);
                prop_assert_eq!(&placement.candidates[..], &all[..placement.candidates.len()]);
                prop_assert!(book.view().get(&placement.node).unwrap().state.takes_legs());
                (placement.tally, 1)
            }
            Err(PlaceError::NoCapacity(tally)) => (tally, 0),
        };
        prop_assert_eq!(count(&tally, Verdict::Chosen), won);
        for verdict in Verdict::ALL {
            let listed = all.iter().filter(|candidate| candidate.verdict == verdict).count();
            prop_assert_eq!(count(&tally, verdict) as usize, listed, "{:?} in {:?}", verdict, &tally);
        }
    }

    #[test]
    fn a_play_takes_the_first_that_stays_within_the_bound(
        (book, share_until) in any_book_sharing(), name in "[a-z]{1,6}", zone in prop::option::of(0..5),
    ) {
        let key = stream(&name);
        let zone = zone.map(|zone| format!("z{zone}"));
        let request = ask(&key, play_near(zone.as_deref()), 0);
        let Ok(placement) = book.explain(&request, any_moment()) else { return Ok(()) };
        let (view, side) = (book.view(), &book.view().play);
        let fit: Vec<&_> = side.facts.iter().filter(|fact| fact.unfit.is_none()).collect();
        let mean = fit.iter().map(|fact| f64::from(fact.predicted)).sum::<f64>() / fit.len() as f64;
        // One millionth is the grain of loads.
        let bound = (share_until * 1e6).max(mean + f64::from(side.leg_cost)).max(1.25 * mean) + 1.0;
        let with_leg = |node: &NodeId| f64::from(side.facts[view.position(node).unwrap()].with_leg);
        let least = fit.iter().map(|fact| f64::from(fact.with_leg)).fold(f64::MAX, f64::min);
        let taken = with_leg(&placement.node);
        prop_assert!(taken <= bound || (taken == least && least > bound), "{} above {}", taken, bound);

        let all = book.candidates(&request);
        for rival in all[1..].iter().filter(|rival| rival.verdict == Verdict::Outscored) {
            prop_assert!(rival.score <= all[0].score, "{:?} is before {:?}", rival, all[0]);
        }
        for rival in all[1..].iter().filter(|rival| rival.verdict == Verdict::AboveBound) {
            prop_assert!(with_leg(&rival.node) >= bound - 2.0, "{:?}", rival);
        }
    }

    #[test]
    fn every_door_chooses_alike_from_equal_snapshots(
        nodes in prop::collection::vec((any_spec(), 0f32..0.7), 1..30),
        name in "[a-z]{1,6}", seeds in (any::<u64>(), any::<u64>()), zone in 0..4,
    ) {
        let t0 = any_moment();
        let mut nodes = nodes;
        nodes.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        nodes.dedup_by(|a, b| a.0.id == b.0.id);
        let door = |nodes: &[(NodeSpec, f32)]| {
            let mut book = Book::new(BalanceSettings::default());
            book.set_nodes(nodes.iter().map(|(spec, _)| spec.clone()).collect(), t0);
            for (spec, cpu) in nodes {
                book.report(&spec.id, Report { cpu: Some(*cpu), memory: None, at: t0 });
            }
            book
        };
        let one = door(&nodes);
        nodes.reverse();
        let other = door(&nodes);
        let key = stream(&name);
        for want in [play_near(Some(&format!("z{zone}"))), Want::Home, Want::Read] {
            let here = one.explain(&ask(&key, want.clone(), seeds.0), t0);
            prop_assert_eq!(here, other.explain(&ask(&key, want, seeds.1), t0));
        }
        let publish = ask(&key, Want::Publish, seeds.0);
        prop_assert_eq!(one.explain(&publish, t0), other.explain(&publish, t0));
    }

    #[test]
    fn absurd_numbers_never_panic(
        raw in prop::collection::vec(prop_oneof![
            Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY), Just(f32::MAX), Just(-1.0f32), Just(0.5f32),
        ], 13),
        nodes in 0usize..4, max in prop::option::of(prop_oneof![Just(0u32), Just(1), Just(u32::MAX)]), seed: u64,
        policy in 0usize..4,
    ) {
        let t0 = any_moment();
        let policies =
            [PublishPolicy::LeastLoaded, PublishPolicy::TwoChoices, PublishPolicy::RoundRobin, PublishPolicy::Hash];
        let mut book = Book::new(BalanceSettings {
            publish_policy: policies[policy],
            publish_max_load: raw[0], play_max_load: raw[1], share_until: raw[2], epsilon: raw[3],
            publish_cost_floor: raw[4], play_cost_floor: raw[5],
            slow_start: if seed.is_multiple_of(2) { Duration::ZERO } else { Duration::MAX },
            probe_fall: 0, probe_rise: 0, breaker_failures: 0, breaker_open: Duration::MAX,
        });
        let key = stream("s");
        let specs: Vec<NodeSpec> = (0..nodes)
            .map(|at| NodeSpec { max_plays: max, max_publishes: max, ..spec(&format!("both n{at}")) })
            .collect();
        for round in 0..3u64 {
            let now = t0 + secs(round * 20);
            book.set_nodes(specs[..specs.len().min(round as usize + 1)].to_vec(), now);
            for (at, spec) in specs.iter().enumerate() {
                book.report(&spec.id, Report { cpu: Some(raw[6 + at]), memory: Some(raw[9 + at]), at: now });
                if seed >> (round * 4 + at as u64) & 1 == 1 {
                    book.link_failed(&spec.id, "lost", now);
                    book.probe(&spec.id, ProbeOutcome::Failed("refused".into()), now);
                    book.refused(&spec.id, now);
                }
            }
            for want in [Want::Publish, play_near(None), Want::Home, Want::Read, Want::Only(id("n0"))] {
                for _ in 0..5 {
                    let _ = book.place(&ask(&key, want.clone(), seed), now);
                }
            }
            book.tick(now);
            book.leg_ended(&id("n1"), Kind::Play, now);
        }
        let loads: Vec<f32> = book.view().nodes.iter().map(|node| node.load.predicted).collect();
        prop_assert!(loads.iter().all(|load| load.is_finite()), "{:?}", loads);
    }

    #[test]
    fn reservations_and_ends_balance(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), any::<u64>()), 0..200),
    ) {
        let t0 = any_moment();
        let mut book = book_of(&["both n1", "both n2", "both n3"], t0);
        let mut open: Vec<(NodeId, Kind)> = Vec::new();
        for (at, (begin, publish, seed)) in steps.into_iter().enumerate() {
            let now = t0 + Duration::from_millis(at as u64 * 50);
            if begin || open.is_empty() {
                let key = stream(&format!("s{}", seed % 5));
                let want = if publish { Want::Publish } else { play_near(None) };
                let request = ask(&key, want, seed);
                open.push((book.place(&request, now).unwrap().node, request.kind.unwrap()));
            } else {
                let (node, kind) = open.swap_remove(seed as usize % open.len());
                book.leg_ended(&node, kind, now);
            }
            for node in &book.view().nodes {
                let of = |kind| open.iter().filter(|leg| **leg == (node.spec.id.clone(), kind)).count() as u32;
                prop_assert_eq!(node.legs, Legs { publish: of(Kind::Publish), play: of(Kind::Play) });
            }
        }
        for (node, kind) in open {
            book.leg_ended(&node, kind, t0 + secs(60));
        }
        prop_assert!(book.view().nodes.iter().all(|node| node.legs == Legs::default() && node.load.predicted == 0.0));
    }
}
