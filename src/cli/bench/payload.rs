//! What records hold: bytes that do not compress, taken from memory as an application has them, not from one hot line of the
//! cache.

use super::args::STAMP;
use crate::clock::Clock;

/// Bytes that values are cut from.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pool: Vec<u8>,
    size: usize,
    at: usize,
}

/// Enough in all that the cache next to the processor does not hold it.
const POOL: usize = 4 << 20;

impl Payload {
    /// Values of `size` bytes, for one of so many that publish.
    pub(super) fn new(clock: &dyn Clock, size: usize, publishers: u32) -> Self {
        let mut state = clock.random_u64() | 1;
        let words = (POOL / publishers.max(1) as usize).max(2 * size) / 8;
        let pool = (0..words)
            .flat_map(|_| {
                // xorshift64: fast, and no pattern that a compressor finds.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        Self { pool, size, at: 0 }
    }

    /// The next value.
    pub(super) fn next(&mut self) -> &[u8] {
        self.take()
    }

    /// The next value, with a number in its first bytes.
    pub(super) fn stamped(&mut self, stamp: u64) -> &[u8] {
        let value = self.take();
        if let Some(place) = value.first_chunk_mut::<STAMP>() {
            *place = stamp.to_le_bytes();
        }
        value
    }

    fn take(&mut self) -> &mut [u8] {
        if self.at + self.size > self.pool.len() {
            self.at = 0;
        }
        let place = self.at..self.at + self.size;
        self.at = place.end;
        self.pool.get_mut(place).expect("the pool is larger than a value, and there is room for one here")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn values_have_their_size_and_go_round() {
        let clock = ManualClock::new(0, 1);
        for size in [8, 100, 1 << 20, (8 << 20) - 1] {
            let mut payload = Payload::new(&clock, size, 1);
            let first = payload.next().to_vec();
            assert_eq!(first.len(), size);
            let again = (0..POOL / 8 + 2).any(|_| payload.next() == first);
            assert!(again, "values of {size} bytes come round");
        }
    }

    #[test]
    fn many_publishers_share_the_memory() {
        let clock = ManualClock::new(0, 1);
        assert_eq!(Payload::new(&clock, 100, 4).pool.len(), POOL / 4);
        assert_eq!(Payload::new(&clock, 1000, 1_000_000).pool.len(), 2000);
    }

    #[test]
    fn values_do_not_repeat_soon() {
        let clock = ManualClock::new(0, 1);
        let mut payload = Payload::new(&clock, 100, 1);
        let values: std::collections::BTreeSet<Vec<u8>> =
            (0..10_000).map(|_| payload.next().to_vec()).collect();
        assert_eq!(values.len(), 10_000);
    }
}
