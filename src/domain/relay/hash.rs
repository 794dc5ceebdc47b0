//! The hash of the relay's tables: keyed by the core's seed, so that nobody outside can aim at one bucket, and equal
//! for equal seeds, so that a simulation replays.

use std::hash::{BuildHasher, Hasher};

/// Odd constants without structure: fractional bits of the square roots of 2 and 3.
const SALT: [u64; 2] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b];

/// Builds the hashers of one core.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(fold(seed ^ SALT[0], SALT[1]))
    }

    /// The hash of some text.
    pub(super) fn of(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding { key: self.0, state: self.0 ^ SALT[0] }
    }
}

/// Folds eight bytes at a time into its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folding {
    key: u64,
    state: u64,
}

impl Folding {
    fn absorb(&mut self, word: u64) {
        self.state = fold(self.state ^ word, self.key | 1);
    }
}

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.absorb(u64::from_le_bytes(chunk.try_into().expect("the chunk has eight bytes")));
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        // The length keeps texts apart that differ in trailing zeros only.
        self.absorb(u64::from_le_bytes(word) ^ (bytes.len() as u64).rotate_left(56));
    }

    fn write_u8(&mut self, value: u8) {
        self.absorb(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.absorb(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.absorb(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.absorb(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.absorb(value as u64);
    }

    fn finish(&self) -> u64 {
        fold(self.state ^ SALT[1], self.key.rotate_left(32) | 1)
    }
}

/// Both halves of the full product, folded together.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    // Truncation takes the low half: that is the point.
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_seed_gives_another_order_and_the_same_seed_the_same() {
        assert_eq!(Seeded::new(1).of(b"vYna"), Seeded::new(1).of(b"vYna"));
        assert_ne!(Seeded::new(1).of(b"vYna"), Seeded::new(2).of(b"vYna"));
        assert_ne!(Seeded::new(1).of(b"vYna"), Seeded::new(1).of(b"vYnb"));
        assert_ne!(Seeded::new(1).of(b"a\0"), Seeded::new(1).of(b"a"));
    }
}
