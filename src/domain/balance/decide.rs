//! From a request and a snapshot to a placement: who may compete, by which policy, and for what reasons.

use super::{
    Candidate, PlaceError, Placement, PublishPolicy, Request, Snapshot, Verdict, Want,
    contest::{Contest, Outcome},
    hash::Seed,
    play, publish,
    rank::Hashing,
    settings::Knobs,
};
use crate::domain::ids::{Kind, NodeId};

/// A placement and the position of its node.
pub(super) type Decided = (usize, Placement);

/// Chooses a node. `turn` is the position that had the last turn of round robin.
pub(super) fn place(
    snapshot: &Snapshot,
    request: &Request<'_>,
    knobs: &Knobs,
    turn: Option<usize>,
) -> Result<Decided, PlaceError> {
    if let Want::Only(id) = &request.want {
        return only(snapshot, request, id);
    }
    let (contest, outcome) = compete(snapshot, request, knobs, turn);
    let Some(outcome) = outcome else { return Err(PlaceError::NoCapacity(contest.tally(false, &[]))) };
    let placement = Placement {
        node: snapshot.nodes[outcome.chosen].spec.id.clone(),
        rule: outcome.rule,
        candidates: contest.listed(&outcome),
        tally: contest.tally(true, &outcome.lost),
    };
    Ok((outcome.chosen, placement))
}

/// Every node with its score and verdict for this request, the best first.
pub(super) fn candidates(
    snapshot: &Snapshot,
    request: &Request<'_>,
    knobs: &Knobs,
    turn: Option<usize>,
) -> Vec<Candidate> {
    if let Want::Only(id) = &request.want {
        let named = snapshot.position(id);
        let mut order: Vec<usize> = (0..snapshot.nodes.len()).collect();
        order.sort_by_key(|&at| Some(at) != named);
        let verdict = |at| match named {
            Some(named) if named == at => refusal(snapshot, request, at).unwrap_or(Verdict::Chosen),
            _ => Verdict::NotAsked,
        };
        return order.into_iter().map(|at| named_candidate(snapshot, request, at, verdict(at))).collect();
    }
    let (contest, outcome) = compete(snapshot, request, knobs, turn);
    contest.all(outcome.as_ref())
}

/// Holds the contest of any want but [`Want::Only`].
fn compete<'a>(
    snapshot: &'a Snapshot,
    request: &Request<'_>,
    knobs: &Knobs,
    turn: Option<usize>,
) -> (Contest<'a>, Option<Outcome>) {
    let excluded: Vec<usize> = request.exclude.iter().filter_map(|id| snapshot.position(id)).collect();
    let stream = Seed::of_stream(request.stream);
    match &request.want {
        Want::Publish => {
            let contest = open(snapshot, Kind::Publish, &excluded);
            let outcome = match knobs.policy {
                PublishPolicy::LeastLoaded => publish::least_loaded(&contest, request.seed),
                PublishPolicy::TwoChoices => publish::two_choices(&contest, request.seed),
                PublishPolicy::RoundRobin => publish::round_robin(&contest, turn),
                PublishPolicy::Hash => publish::hash(&contest, stream),
            };
            (contest, outcome)
        }
        Want::Play { origin_zone, origin } => {
            let contest = open(snapshot, Kind::Play, &excluded);
            let hashing = Hashing { stream, zone: snapshot.plan.zone(origin_zone.as_ref()) };
            let origin = origin.as_ref().filter(|_| snapshot.plan.is_edgeless());
            let first = origin.and_then(|id| snapshot.position(id));
            let outcome = play::bounded_hash(&contest, hashing, first, snapshot.play.leg_cost, knobs);
            (contest, outcome)
        }
        // Two peers must meet whatever the loads, so only states count.
        Want::Home => hashed(Contest::admitting(snapshot, Kind::Publish, &excluded, is_busy), stream, "home"),
        Want::Read => {
            let edges = Contest::admitting(snapshot, Kind::Play, &excluded, is_busy);
            if edges.fit > 0 {
                return hashed(edges, stream, "read");
            }
            let any = |verdict| is_busy(verdict) || verdict == Verdict::WrongRole;
            hashed(Contest::admitting(snapshot, Kind::Play, &excluded, any), stream, "read")
        }
        Want::Only(_) => unreachable!("answered before any contest"),
    }
}

/// The candidates that fit; where there are none but joining ones, those: slow start never refuses a leg.
fn open<'a>(snapshot: &'a Snapshot, kind: Kind, excluded: &[usize]) -> Contest<'a> {
    let contest = Contest::open(snapshot, kind, excluded);
    if contest.fit > 0 || snapshot.side(kind).tally[Verdict::JoiningTooFast as usize] == 0 {
        return contest;
    }
    Contest::admitting(snapshot, kind, excluded, |verdict| verdict == Verdict::JoiningTooFast)
}

fn hashed<'a>(contest: Contest<'a>, stream: Seed, rule: &'static str) -> (Contest<'a>, Option<Outcome>) {
    let outcome = play::by_hash(&contest, Hashing::plain(stream), None, None, rule);
    (contest, outcome)
}

/// A node that serves, though it should get no new leg by policy.
fn is_busy(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::AtLimit | Verdict::JoiningTooFast)
}

/// The one node that was asked for by name.
fn only(snapshot: &Snapshot, request: &Request<'_>, id: &NodeId) -> Result<Decided, PlaceError> {
    let nodes = u32::try_from(snapshot.nodes.len()).unwrap_or(u32::MAX);
    let tally = |verdict| {
        let others = (nodes > 1).then_some((Verdict::NotAsked, nodes - 1));
        std::iter::once((verdict, 1)).chain(others).collect()
    };
    let Some(at) = snapshot.position(id) else {
        let nobody = (nodes > 0).then_some((Verdict::NotAsked, nodes));
        return Err(PlaceError::NoCapacity(nobody.into_iter().collect()));
    };
    if let Some(verdict) = refusal(snapshot, request, at) {
        return Err(PlaceError::NoCapacity(tally(verdict)));
    }
    let placement = Placement {
        node: id.clone(),
        rule: request.rule,
        candidates: vec![named_candidate(snapshot, request, at, Verdict::Chosen)],
        tally: tally(Verdict::Chosen),
    };
    Ok((at, placement))
}

/// Why a node that was asked for by name may not take the leg. Its role does not matter: the stream is there. Slow start
/// does not either, since nobody else could take it.
fn refusal(snapshot: &Snapshot, request: &Request<'_>, at: usize) -> Option<Verdict> {
    let node = &snapshot.nodes[at];
    if request.exclude.contains(&node.spec.id) {
        return Some(Verdict::Excluded);
    }
    if !node.state.takes_legs() {
        return Some(Verdict::NotServing);
    }
    let has_room = request.kind.is_none_or(|kind| snapshot.side(kind).facts[at].has_room);
    (!has_room).then_some(Verdict::AtLimit)
}

fn named_candidate(snapshot: &Snapshot, request: &Request<'_>, at: usize, verdict: Verdict) -> Candidate {
    let node = &snapshot.nodes[at];
    let predicted = match request.kind {
        Some(kind) => super::load::fraction(snapshot.side(kind).facts[at].predicted),
        None => node.load.predicted,
    };
    Candidate { node: node.spec.id.clone(), score: f64::from(predicted), predicted, verdict }
}
