//! One request's candidates: who may take the leg, how they rank, and the reasons that a placement carries.

use std::borrow::Cow;

use super::{
    Candidate, NodeView, Snapshot, Verdict,
    load::fraction,
    rank::{Hashing, Scoring, Top},
    snapshot::{Side, UNFIT},
};
use crate::domain::ids::Kind;

/// Candidates that a placement lists; the rest is in its tally.
pub(super) const LISTED: usize = 5;

/// The nodes that may take one leg.
#[derive(Debug)]
pub(super) struct Contest<'a> {
    pub(super) snapshot: &'a Snapshot,
    side: &'a Side,
    /// Predicted load of each candidate, [`UNFIT`] for the others.
    pub(super) rank: Cow<'a, [u32]>,
    /// The same with this leg.
    pub(super) with_leg: Cow<'a, [u32]>,
    /// How many candidates there are.
    pub(super) fit: u32,
    /// The sum of `rank` over them.
    pub(super) sum: u64,
    tally: [u32; Verdict::COUNT],
    excluded: Vec<usize>,
    admits: fn(Verdict) -> bool,
}

impl<'a> Contest<'a> {
    /// All that fit, but for `excluded` positions.
    pub(super) fn open(snapshot: &'a Snapshot, kind: Kind, excluded: &[usize]) -> Self {
        let side = snapshot.side(kind);
        let contest = Self {
            snapshot,
            side,
            rank: Cow::Borrowed(&side.rank),
            with_leg: Cow::Borrowed(&side.with_leg),
            fit: side.fit,
            sum: side.sum,
            tally: side.tally,
            excluded: Vec::new(),
            admits: |_| false,
        };
        if excluded.is_empty() { contest } else { Self::admitting(snapshot, kind, excluded, |_| false) }
    }

    /// All that fit or have only a verdict that is `admitted` here, but for `excluded` positions.
    pub(super) fn admitting(
        snapshot: &'a Snapshot,
        kind: Kind,
        excluded: &[usize],
        admits: fn(Verdict) -> bool,
    ) -> Self {
        let side = snapshot.side(kind);
        let nodes = side.facts.len();
        let mut contest = Self {
            snapshot,
            side,
            rank: Cow::Owned(vec![UNFIT; nodes]),
            with_leg: Cow::Owned(vec![UNFIT; nodes]),
            fit: 0,
            sum: 0,
            tally: [0; Verdict::COUNT],
            excluded: excluded.to_vec(),
            admits,
        };
        for at in 0..nodes {
            match contest.unfit(at) {
                Some(verdict) => contest.tally[verdict as usize] += 1,
                None => {
                    let fact = side.facts[at];
                    contest.rank.to_mut()[at] = fact.predicted;
                    contest.with_leg.to_mut()[at] = fact.with_leg;
                    contest.fit += 1;
                    contest.sum += u64::from(fact.predicted);
                }
            }
        }
        contest
    }

    /// Why the node at this position is no candidate.
    fn unfit(&self, at: usize) -> Option<Verdict> {
        if self.excluded.contains(&at) {
            return Some(Verdict::Excluded);
        }
        self.side.facts[at].unfit.filter(|&verdict| !(self.admits)(verdict))
    }

    /// Preference and hash of a node.
    pub(super) fn word(&self, hashing: &Hashing, at: usize) -> u64 {
        let plan = &self.snapshot.plan;
        hashing.word(plan.seeds[at], plan.zones[at])
    }

    /// How many nodes each verdict got, in the order of [`Verdict`]. `lost` are the candidates that lost for a reason
    /// better than being outscored.
    pub(super) fn tally(&self, won: bool, lost: &[(Verdict, u32)]) -> Vec<(Verdict, u32)> {
        let mut counts = self.tally;
        counts[Verdict::Chosen as usize] = u32::from(won);
        let mut outscored = self.fit - u32::from(won);
        for &(verdict, count) in lost {
            counts[verdict as usize] += count;
            outscored -= count;
        }
        counts[Verdict::Outscored as usize] += outscored;
        let mut tally = Vec::with_capacity(Verdict::COUNT);
        tally.extend(
            Verdict::ALL.into_iter().map(|verdict| (verdict, counts[verdict as usize])).filter(|row| row.1 > 0),
        );
        tally
    }

    /// The candidates of a placement: the chosen one, then the best of the others.
    pub(super) fn listed(&self, outcome: &Outcome) -> Vec<Candidate> {
        let mut listed = Vec::with_capacity(LISTED);
        listed.push(self.candidate(outcome.chosen, outcome));
        let others = outcome.top.positions().filter(|&at| at != outcome.chosen);
        listed.extend(others.take(LISTED - 1).map(|at| self.candidate(at, outcome)));
        listed
    }

    /// Every node with its verdict: candidates as they rank, the chosen one first, then the others by id.
    pub(super) fn all(&self, outcome: Option<&Outcome>) -> Vec<Candidate> {
        let mut all: Vec<(u8, u64, Candidate)> = (0..self.snapshot.nodes.len())
            .map(|at| match (self.unfit(at), outcome) {
                (None, Some(outcome)) => {
                    let group = u8::from(at != outcome.chosen);
                    (group, outcome.scoring.order(self, at), self.candidate(at, outcome))
                }
                (None, None) => (2, 0, self.bare(at, Verdict::Outscored)),
                (Some(verdict), _) => (2, 0, self.bare(at, verdict)),
            })
            .collect();
        all.sort_by_key(|(group, order, _)| (*group, *order));
        all.into_iter().map(|(_, _, candidate)| candidate).collect()
    }

    fn candidate(&self, at: usize, outcome: &Outcome) -> Candidate {
        let verdict = if at == outcome.chosen {
            Verdict::Chosen
        } else if outcome.bound.is_some_and(|bound| self.with_leg[at] > bound) {
            Verdict::AboveBound
        } else if outcome.other_zone(self, at) {
            Verdict::OtherZone
        } else {
            Verdict::Outscored
        };
        Candidate { score: outcome.scoring.score(self, at), ..self.bare(at, verdict) }
    }

    fn bare(&self, at: usize, verdict: Verdict) -> Candidate {
        let node: &NodeView = &self.snapshot.nodes[at];
        let predicted = fraction(self.side.facts[at].predicted);
        Candidate { node: node.spec.id.clone(), score: f64::from(predicted), predicted, verdict }
    }
}

/// Who won, and by what.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) chosen: usize,
    pub(super) rule: &'static str,
    pub(super) top: Top,
    pub(super) scoring: Scoring,
    /// The bound of bounded-load hashing, millionths with the leg.
    pub(super) bound: Option<u32>,
    /// Candidates that lost for a reason better than being outscored.
    pub(super) lost: [(Verdict, u32); 2],
}

impl Outcome {
    /// Whether a candidate lost to its zone alone.
    fn other_zone(&self, contest: &Contest<'_>, at: usize) -> bool {
        let Scoring::Hash(hashing) = &self.scoring else { return false };
        let zones = &contest.snapshot.plan.zones;
        hashing.prefers(zones[self.chosen]) && !hashing.prefers(zones[at])
    }
}
