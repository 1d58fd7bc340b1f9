//! A set of byte ranges that grows: merged, ordered, bounded.

use std::ops::Range;

/// More separate ranges than this are forgotten, smallest first; forgetting only costs a check.
const MOST: usize = 64;

/// Disjoint ranges in order.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    sorted: Vec<Range<u64>>,
}

impl Ranges {
    /// Adds a range, merging what touches it.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let from = self.sorted.partition_point(|known| known.end < range.start);
        let to = self.sorted.partition_point(|known| known.start <= range.end);
        let touched = self.sorted.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(range.start, |first| first.start.min(range.start));
        let end = touched.last().map_or(range.end, |last| last.end.max(range.end));
        self.sorted.splice(from..to, std::iter::once(start..end));
        if self.sorted.len() > MOST {
            let shortest = self.sorted.iter().enumerate().min_by_key(|(_, known)| known.end - known.start);
            if let Some((index, _)) = shortest {
                self.sorted.remove(index);
            }
        }
    }

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.sorted.iter()
    }

    /// Whether all of a range is in the set.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        let index = self.sorted.partition_point(|known| known.end < range.end);
        range.is_empty() || self.sorted.get(index).is_some_and(|known| known.start <= range.start)
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::needless_for_each, reason = "test data is small")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_claims_what_was_not_added(adds in prop::collection::vec((0u64..200, 0u64..20), 0..200), ask in 0u64..200, length in 0u64..30) {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 256]);
            for (start, length) in adds {
                ranges.add(start..start + length);
                bytes[start as usize..(start + length) as usize].fill(true);
            }
            let all = bytes[ask as usize..(ask + length) as usize].iter().all(|known| *known);
            // At most 200 / 2 separate ranges exist here, so that forgetting is exercised, too.
            prop_assert!(!ranges.covers(&(ask..ask + length)) || all);
            prop_assert!(ranges.sorted.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }

    #[test]
    fn adjacent_ranges_become_one() {
        let mut ranges = Ranges::default();
        (0..1000).for_each(|i| ranges.add(i * 10..i * 10 + 10));
        assert!(ranges.covers(&(0..10_000)));
        assert!(!ranges.covers(&(0..10_001)));
        assert_eq!(ranges.sorted.len(), 1);
    }
}
