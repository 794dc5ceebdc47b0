//! The one hash of placement: fixed, so that every door of every release orders the nodes of a stream alike.
//!
//! Node seeds are computed once per node set; a score is one multiplication, so that a pass over a thousand nodes
//! stays below two microseconds. Nothing here resists an adversary: a client that picks its stream id may pick its
//! edge, which the bound on load makes harmless.

use std::hash::{BuildHasherDefault, Hasher};

use super::NodeSpec;
use crate::domain::ids::{NodeId, StreamKey};

/// Odd constants without structure: the fractional bits of the square roots of 2, 3, 5 and 7.
const SALT: [u64; 4] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

/// What a name hashes to: two words, since a score multiplies one by the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    a: u64,
    b: u64,
}

impl Seed {
    /// The seed of a node.
    pub(super) fn of_node(id: &NodeId) -> Self {
        Self::spread(absorb(SALT[0], id.as_str().as_bytes()))
    }

    /// The seed of a stream.
    pub(super) fn of_stream(key: &StreamKey) -> Self {
        Self::spread(absorb(absorb(SALT[1], key.app.as_str().as_bytes()), key.stream.as_str().as_bytes()))
    }

    /// A seed from a random number.
    pub(super) fn of_random(random: u64) -> Self {
        Self::spread(random ^ SALT[2])
    }

    fn spread(word: u64) -> Self {
        Self { a: fold(word ^ SALT[1], SALT[2]), b: fold(word ^ SALT[3], SALT[0]) }
    }
}

/// How much a stream likes a node, uniform over `u64`: rendezvous hashing takes the highest.
#[inline]
pub(super) fn score(stream: Seed, node: Seed) -> u64 {
    fold(stream.a ^ node.a, stream.b ^ node.b)
}

/// What a table of nodes hashes to: the same in every door that knows the same nodes.
pub(super) fn table<'a>(specs: impl Iterator<Item = &'a NodeSpec>) -> u64 {
    specs.fold(SALT[3], |state, spec| {
        let zone = spec.zone.as_ref().map_or("", |zone| zone.as_str());
        let limits = format!("{:?} {:?}", spec.max_publishes, spec.max_plays);
        let words = [spec.id.as_str(), &spec.address.to_string(), spec.role.as_str(), zone, &limits];
        words.iter().fold(state, |state, word| absorb(state, word.as_bytes()))
    })
}

/// A number below `count` (which is above zero) from a random one.
pub(super) fn draw(random: u64, count: u32) -> u32 {
    let spread = fold(random ^ SALT[0], SALT[3]);
    // The high half of the product is below `count`, so it fits.
    u32::try_from((u128::from(spread) * u128::from(count)) >> 64).unwrap_or(0)
}

/// Both halves of the full product, folded together.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // Truncation takes the low half: that is the point.
    (product as u64) ^ ((product >> 64) as u64)
}

fn absorb(state: u64, bytes: &[u8]) -> u64 {
    let mut state = fold(state ^ bytes.len() as u64, SALT[2]);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = fold(state ^ u64::from_le_bytes(word), SALT[3]);
    }
    state
}

/// Builds hashers for maps of names, equal in every process.
pub(super) type FixedState = BuildHasherDefault<FixedHasher>;

/// [`absorb`] as a [`Hasher`].
#[derive(Debug, Default)]
pub(super) struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = absorb(self.0, bytes);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_never_changes_between_releases() {
        let stream = StreamKey { app: "LiveApp".parse().unwrap(), stream: "cam-7".parse().unwrap() };
        let scores: Vec<u64> = ["edge-1", "edge-2", "10.0.2.12:5080"]
            .map(|id| score(Seed::of_stream(&stream), Seed::of_node(&id.parse().unwrap())))
            .into();
        assert_eq!(scores, [13_287_341_456_306_989_266, 9_228_269_226_995_132_759, 8_014_818_737_368_762_135]);
    }

    #[test]
    fn streams_spread_evenly_over_nodes_with_similar_names() {
        let nodes: Vec<Seed> = (1..=10).map(|n| Seed::of_node(&format!("edge-{n}").parse().unwrap())).collect();
        let mut homes = [0u32; 10];
        for n in 0..10_000 {
            let stream = StreamKey { app: "LiveApp".parse().unwrap(), stream: format!("cam-{n}").parse().unwrap() };
            let key = Seed::of_stream(&stream);
            let home = (0..10).max_by_key(|&at| score(key, nodes[at])).unwrap();
            homes[home] += 1;
        }
        // Binomial: 1000 expected, standard deviation 30; five of them leave no room for chance.
        assert!(homes.iter().all(|home| (850..=1150).contains(home)), "{homes:?}");
    }

    #[test]
    fn a_draw_stays_below_its_count_and_reaches_every_number() {
        let mut seen = [false; 7];
        for random in 0..200 {
            seen[draw(random, 7) as usize] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(draw(u64::MAX, 1), 0);
    }
}
