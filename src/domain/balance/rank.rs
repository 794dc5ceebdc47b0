//! How candidates are ordered, and the best few of them.

use super::{
    contest::{Contest, LISTED},
    hash::{Seed, score},
    load::fraction,
    snapshot::NO_ZONE,
};

/// What orders the candidates of one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scoring {
    /// Predicted load, the lowest first.
    Load,
    /// Places after the node that had the last turn, the next first.
    Turn { after: usize },
    /// Rendezvous hash, the highest first.
    Hash(Hashing),
}

impl Scoring {
    /// The order of a candidate: lower is better.
    pub(super) fn order(&self, contest: &Contest<'_>, at: usize) -> u64 {
        match self {
            Self::Load => u64::from(contest.rank[at]),
            Self::Turn { after } => turn(*after, at, contest.rank.len()),
            Self::Hash(hashing) => !contest.word(hashing, at),
        }
    }

    /// The score that people see: load or places (lower is better), or hash order (higher is better; from 1 up in the
    /// origin's zone).
    pub(super) fn score(&self, contest: &Contest<'_>, at: usize) -> f64 {
        match self {
            Self::Load => f64::from(fraction(contest.rank[at])),
            Self::Turn { .. } => self.order(contest, at) as f64,
            Self::Hash(hashing) => contest.word(hashing, at) as f64 / (1u64 << 63) as f64,
        }
    }
}

/// How many places after `after` a position comes, from 0.
pub(super) fn turn(after: usize, at: usize, nodes: usize) -> u64 {
    let next = after + 1;
    (if at >= next { at - next } else { at + nodes - next.min(nodes) }) as u64
}

/// Rendezvous hashing of one stream, with its preference.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashing {
    pub(super) stream: Seed,
    /// Nodes of this zone come first.
    pub(super) zone: u16,
}

impl Hashing {
    /// Without a preference.
    pub(super) fn plain(stream: Seed) -> Self {
        Self { stream, zone: NO_ZONE }
    }

    /// Whether a node of this zone stands in the wanted one.
    pub(super) fn prefers(&self, zone: u16) -> bool {
        zone == self.zone && zone != NO_ZONE
    }

    /// Preference and hash as one word: higher is better.
    pub(super) fn word(&self, seed: Seed, zone: u16) -> u64 {
        preferred(score(self.stream, seed), self.prefers(zone))
    }
}

/// A hash with its preference above it.
pub(super) fn preferred(score: u64, is_preferred: bool) -> u64 {
    (u64::from(is_preferred) << 63) | (score >> 1)
}

/// The best few of a pass, in order. Lower keys are better; of equal keys the earlier stays ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Top {
    keys: [u64; LISTED],
    at: [u32; LISTED],
    len: usize,
}

impl Top {
    pub(super) fn new() -> Self {
        Self { keys: [u64::MAX; LISTED], at: [0; LISTED], len: 0 }
    }

    /// A key must be below this to enter.
    pub(super) fn bar(&self) -> u64 {
        self.keys[LISTED - 1]
    }

    /// Enters a position if its key is below the bar.
    pub(super) fn offer(&mut self, key: u64, at: usize) {
        if key < self.bar() {
            self.insert(key, at);
        }
    }

    #[inline(never)]
    fn insert(&mut self, key: u64, at: usize) {
        let mut slot = self.len.min(LISTED - 1);
        while slot > 0 && self.keys[slot - 1] > key {
            (self.keys[slot], self.at[slot]) = (self.keys[slot - 1], self.at[slot - 1]);
            slot -= 1;
        }
        // Positions come from a node list that fits in memory many times over.
        (self.keys[slot], self.at[slot]) = (key, at as u32);
        self.len = (self.len + 1).min(LISTED);
    }

    /// Whether as many as are listed have entered.
    pub(super) fn is_full(&self) -> bool {
        self.len == LISTED
    }

    /// The best, if any.
    pub(super) fn first(&self) -> Option<usize> {
        self.positions().next()
    }

    /// The best few, in order.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.at[..self.len].iter().map(|&at| at as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_turn_goes_round() {
        let from_two: Vec<u64> = (0..4).map(|at| turn(2, at, 4)).collect();
        assert_eq!(from_two, [1, 2, 3, 0]);
        let from_the_last: Vec<u64> = (0..3).map(|at| turn(2, at, 3)).collect();
        assert_eq!(from_the_last, [0, 1, 2]);
        let from_beyond: Vec<u64> = (0..3).map(|at| turn(9, at, 3)).collect();
        assert_eq!(from_beyond, [0, 1, 2], "a node set that shrank");
    }

    proptest! {
        #[test]
        fn the_top_is_what_a_stable_sort_would_begin_with(keys in prop::collection::vec(0u64..50, 0..40)) {
            let mut top = Top::new();
            for (at, &key) in keys.iter().enumerate() {
                top.offer(key, at);
            }
            let mut sorted: Vec<usize> = (0..keys.len()).collect();
            sorted.sort_by_key(|&at| keys[at]);
            sorted.truncate(LISTED);
            prop_assert_eq!(top.positions().collect::<Vec<_>>(), sorted);
        }
    }
}
