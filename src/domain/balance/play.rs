//! Where plays go: rendezvous hashing with bounded load, so that viewers of one stream share few edges, and hot streams
//! spill in a stable order that every door finds alone.

use std::ops::Range;

use super::{
    Verdict,
    contest::{Contest, LISTED, Outcome},
    hash::{Seed, score},
    load::WHOLE,
    rank::{Hashing, Scoring, Top, preferred},
    settings::Knobs,
    snapshot::UNFIT,
};

/// The first in the stream's order (the origin's zone first) that with this leg stays within
/// max(`share_until`, mean + one leg's cost, (1 + ε) × mean); the mean is over the candidates. One always does, but for
/// nodes whose own limit makes a leg dearer than its cost: then the one that comes nearest. `first` is asked before all.
pub(super) fn bounded_hash(
    contest: &Contest<'_>,
    hashing: Hashing,
    first: Option<usize>,
    leg_cost: u32,
    knobs: &Knobs,
) -> Option<Outcome> {
    if contest.fit == 0 {
        return None;
    }
    by_hash(contest, hashing, first, Some(bound(contest, leg_cost, knobs)), "bounded_hash")
}

/// What no candidate should exceed with this leg, millionths.
fn bound(contest: &Contest<'_>, leg_cost: u32, knobs: &Knobs) -> u32 {
    // Rounded up, or equal nodes would all be above their own mean.
    let mean = contest.sum.div_ceil(u64::from(contest.fit));
    let with_headroom = mean * u64::from(knobs.headroom) / u64::from(WHOLE);
    let bound = u64::from(knobs.share_until).max(mean + u64::from(leg_cost)).max(with_headroom);
    u32::try_from(bound).unwrap_or(UNFIT - 1)
}

/// The candidate of the highest hash that stays within the bound, if there is one, or `first` if that one does.
pub(super) fn by_hash(
    contest: &Contest<'_>,
    hashing: Hashing,
    first: Option<usize>,
    bound: Option<u32>,
    rule: &'static str,
) -> Option<Outcome> {
    let limit = bound.unwrap_or(UNFIT - 1);
    let plan = &contest.snapshot.plan;
    let members = plan.members(hashing.zone);
    let mut search = Search { contest, stream: hashing.stream, limit, top: Top::new(), best: None };
    search.pass(members.clone(), true);
    if search.best.is_none() || !search.top.is_full() {
        search.pass(0..members.start, false);
        search.pass(members.end..plan.grouped.len(), false);
    }
    let within = first.filter(|&first| contest.with_leg[first] <= limit).or(search.best.map(|(_, at)| at));
    let chosen = within.or_else(|| nearest(contest, &hashing))?;

    let mut lost = [(Verdict::AboveBound, 0), (Verdict::OtherZone, 0)];
    if bound.is_some() {
        let fitting: u32 = contest.with_leg.iter().map(|&with_leg| u32::from(with_leg <= limit)).sum();
        lost[0].1 = contest.fit - fitting - u32::from(within.is_none());
    }
    if hashing.prefers(plan.zones[chosen]) {
        let nodes = contest.with_leg.iter().zip(&plan.zones);
        lost[1].1 = nodes.map(|(&with_leg, &zone)| u32::from((with_leg <= limit) & (zone != hashing.zone))).sum();
    }
    Some(Outcome { chosen, rule, top: search.top, scoring: Scoring::Hash(hashing), bound, lost })
}

/// A search in a stream's order.
struct Search<'a> {
    contest: &'a Contest<'a>,
    stream: Seed,
    limit: u32,
    /// The best few candidates, within the limit or not.
    top: Top,
    /// The best candidate within the limit, with its order (lower is better).
    best: Option<(u64, usize)>,
}

/// Nodes that a pass expects to look at closely, where it has that many times more to pass over.
const CLOSE_LOOKS: usize = 3 * LISTED;

impl Search<'_> {
    /// Searches some nodes of [`super::snapshot::Plan::grouped`].
    fn pass(&mut self, nodes: Range<usize>, is_preferred: bool) {
        // Hashes are uniform, so the best few lie above a floor that is known beforehand; below it a pass is one
        // multiplication and one foreseen branch per node.
        let looks = CLOSE_LOOKS * self.contest.with_leg.len() / (self.contest.fit as usize).max(1);
        if nodes.len() > 2 * looks {
            let floor = u64::MAX - u64::MAX / nodes.len() as u64 * looks as u64;
            let before = (self.top, self.best);
            self.pass_above(floor, nodes.clone(), is_preferred);
            let settled = !preferred(floor, is_preferred);
            if self.top.bar() <= settled && self.best.is_some_and(|(best, _)| best <= settled) {
                return;
            }
            (self.top, self.best) = before;
        }
        self.pass_above(0, nodes, is_preferred);
    }

    fn pass_above(&mut self, floor: u64, nodes: Range<usize>, is_preferred: bool) {
        let plan = &self.contest.snapshot.plan;
        for (seed, &at) in plan.grouped_seeds[nodes.clone()].iter().zip(&plan.grouped[nodes]) {
            let score = score(self.stream, *seed);
            if score < floor {
                continue;
            }
            let at = at as usize;
            let with_leg = self.contest.with_leg[at];
            if with_leg == UNFIT {
                continue;
            }
            let order = !preferred(score, is_preferred);
            self.top.offer(order, at);
            if with_leg <= self.limit && self.best.is_none_or(|(best, _)| order < best) {
                self.best = Some((order, at));
            }
        }
    }
}

/// The candidate with the least load with this leg; of equals the first in the stream's order.
fn nearest(contest: &Contest<'_>, hashing: &Hashing) -> Option<usize> {
    let candidates = (0..contest.with_leg.len()).filter(|&at| contest.with_leg[at] != UNFIT);
    candidates.min_by_key(|&at| (contest.with_leg[at], !contest.word(hashing, at)))
}
