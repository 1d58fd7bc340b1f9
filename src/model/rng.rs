//! A small seeded generator (SplitMix64): the same numbers on every machine, for ever.

/// Where a sequence of numbers stands.
#[derive(Clone, Debug)]
pub(super) struct Rng {
    at: u64,
    still: bool,
}

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self { at: seed, still: false }
    }

    /// Nothing happens by chance: [`Rng::one_in`] is never true.
    pub(super) fn still() -> Self {
        Self { at: 0, still: true }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.at = self.at.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.at;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        usize::try_from(self.next().checked_rem(bound).unwrap_or(0)).unwrap_or(0)
    }

    /// True once in `n` times; never if that is 0.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        n > 0 && !self.still && self.below(n) == 0
    }

    /// One of them.
    pub(super) fn pick<T: Copy + Default>(&mut self, of: &[T]) -> T {
        of.get(self.below(of.len())).copied().unwrap_or_default()
    }
}
