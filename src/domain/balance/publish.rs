//! The policies of publishes: each one a pure function from candidates to a winner.

use super::{
    Verdict,
    contest::{Contest, Outcome},
    hash::{Seed, draw, score},
    play::by_hash,
    rank::{Hashing, Scoring, Top, turn},
    snapshot::UNFIT,
};

/// Loads within a fiftieth (2 %) of the lowest are as good as it.
const NEAR_TIE: u32 = 50;
/// Nodes that one step of a pass looks at together: enough for the compiler's widest vectors.
const STRIDE: usize = 16;

/// The lowest predicted load; near ties are broken at random, or doors that read the same reports would all choose the
/// same node.
pub(super) fn least_loaded(contest: &Contest<'_>, random: u64) -> Option<Outcome> {
    let rank: &[u32] = &contest.rank;
    let lowest = rank.iter().copied().min().filter(|&lowest| lowest != UNFIT)?;
    let near = lowest.saturating_add(lowest / NEAR_TIE);

    let mut top = Top::new();
    let mut ties = 0;
    for (step, chunk) in rank.chunks(STRIDE).enumerate() {
        ties += count_up_to(near, chunk);
        let best = chunk.iter().copied().fold(UNFIT, u32::min);
        if best == UNFIT || u64::from(best) >= top.bar() {
            continue;
        }
        for (at, &load) in chunk.iter().enumerate().filter(|(_, load)| **load != UNFIT) {
            top.offer(u64::from(load), step * STRIDE + at);
        }
    }
    let chosen = nth_up_to(near, rank, draw(random, ties))?;
    Some(Outcome::new(chosen, "least_loaded", top, Scoring::Load))
}

/// The better of two candidates drawn at random.
pub(super) fn two_choices(contest: &Contest<'_>, random: u64) -> Option<Outcome> {
    let luck = Seed::of_random(random);
    let mut drawn = Top::new();
    for (at, _) in contest.rank.iter().enumerate().filter(|(_, load)| **load != UNFIT) {
        drawn.offer(score(luck, contest.snapshot.plan.seeds[at]), at);
    }
    let mut top = Top::new();
    for at in drawn.positions().take(2) {
        top.offer(u64::from(contest.rank[at]), at);
    }
    Some(Outcome::new(top.first()?, "two_choices", top, Scoring::Load))
}

/// The next candidate after the node that had the last turn.
pub(super) fn round_robin(contest: &Contest<'_>, after: Option<usize>) -> Option<Outcome> {
    let nodes = contest.rank.len();
    let after = after.unwrap_or(nodes.saturating_sub(1));
    let mut top = Top::new();
    for (at, _) in contest.rank.iter().enumerate().filter(|(_, load)| **load != UNFIT) {
        top.offer(turn(after, at, nodes), at);
    }
    Some(Outcome::new(top.first()?, "round_robin", top, Scoring::Turn { after }))
}

/// The rendezvous hash of the stream: a stream that comes back meets its old node, whatever the loads.
pub(super) fn hash(contest: &Contest<'_>, stream: Seed) -> Option<Outcome> {
    by_hash(contest, Hashing::plain(stream), None, None, "hash")
}

impl Outcome {
    fn new(chosen: usize, rule: &'static str, top: Top, scoring: Scoring) -> Self {
        let none = (Verdict::Outscored, 0);
        Self { chosen, rule, top, scoring, bound: None, lost: [none, none] }
    }
}

/// How many of a few loads are at most `near`.
fn count_up_to(near: u32, loads: &[u32]) -> u32 {
    loads.iter().map(|&load| u32::from(load <= near)).sum()
}

/// The position of the `nth` load (from 0) that is at most `near`.
fn nth_up_to(near: u32, loads: &[u32], nth: u32) -> Option<usize> {
    let mut left = nth;
    for (step, chunk) in loads.chunks(STRIDE).enumerate() {
        let here = count_up_to(near, chunk);
        if left >= here {
            left -= here;
            continue;
        }
        let mut near_ones = chunk.iter().enumerate().filter(|(_, load)| **load <= near);
        return near_ones.nth(left as usize).map(|(at, _)| step * STRIDE + at);
    }
    None
}
