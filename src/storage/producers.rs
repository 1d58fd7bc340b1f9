//! What producers stored in a partition last: by it a retry is known, and a gap.
//!
//! A producer numbers its records in a partition from 0, without holes: the first of a batch is the batch's sequence.
//!
//! ```text
//!   stored      0..3   3..4   4..9        next: 9
//!   comes       9..11  is the next         stored
//!               3..4   is known            not stored again: the answer is where it lies
//!               12..   is a gap            refused: something was lost on the way
//!               0..5   is neither          refused: no batch was ever that
//! ```
//!
//! 1. It follows from the batches: each carries its producer and sequence in its header. So it needs no entries of its own. A
//!    snapshot holds what was there at its end of the partition, and a start reads the headers of what came after.
//! 2. It is looked up and changed under the partition's lock, and changed only once the batch is written.
//! 3. A producer's last [`WINDOW`] batches are kept. What is older is known to be stored, not where.
//! 4. It is never forgotten while the producer is known: an answer to a retry may depend on it at any time. How much of it
//!    there may be is bounded, and more is refused.

use std::collections::{BTreeMap, VecDeque};

use annals_wire::{header::BatchHeader, internal};

use super::{
    error::AppendError,
    key::PartitionKey,
    partition::{Log, Partition},
    segment::Segment,
    storage::Storage,
};
use crate::sync::{Arc, Ordering};

/// Batches of a producer in a partition that are known again.
pub const WINDOW: usize = 64;

/// Whose batch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Above 0.
    pub producer_id: i64,
    /// Of the producer.
    pub producer_epoch: u32,
    /// Of the first record.
    pub base_sequence: u32,
}

/// A batch that a producer stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) base_offset: i64,
    pub(crate) append_time_ms: i64,
    base_sequence: u32,
    record_count: u32,
    records_crc32: u32,
}

impl Stored {
    fn next_sequence(&self) -> u32 {
        self.base_sequence.wrapping_add(self.record_count)
    }

    fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.record_count)
    }
}

/// A producer's last batches, oldest first; at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Window(VecDeque<Stored>);

/// What a batch with a sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The next one.
    Next,
    /// It is stored.
    Stored(Stored),
    /// Something else should have come.
    Gap {
        /// Its sequence.
        expected: u32,
    },
}

/// What the producers of a partition stored last. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Windows(BTreeMap<i64, Arc<Window>>);

impl Windows {
    /// What a batch of so many records, of this crc, is.
    pub(crate) fn look(&self, sequence: &Sequence, record_count: u32, records_crc32: u32) -> Known {
        let Some(window) = self.0.get(&sequence.producer_id) else {
            let first = sequence.base_sequence == 0;
            return if first { Known::Next } else { Known::Gap { expected: 0 } };
        };
        let expected = window.next_sequence();
        if sequence.base_sequence == expected {
            return Known::Next;
        }
        let same = |stored: &&Stored| {
            (stored.base_sequence, stored.record_count, stored.records_crc32)
                == (sequence.base_sequence, record_count, records_crc32)
        };
        window.0.iter().rev().find(same).map_or(Known::Gap { expected }, |stored| Known::Stored(*stored))
    }

    pub(crate) fn knows(&self, producer_id: i64) -> bool {
        self.0.contains_key(&producer_id)
    }

    /// How many producers there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes note of a batch. One that does not follow the last of its producer follows what was lost to damage; from there on
    /// sequences are without holes again.
    pub(crate) fn note(&mut self, header: &BatchHeader) {
        if header.producer_id <= 0 {
            return;
        }
        let stored = Stored {
            base_offset: header.base_offset,
            append_time_ms: header.append_time_ms,
            base_sequence: header.base_sequence,
            record_count: header.last_offset_delta + 1,
            records_crc32: header.records_crc32,
        };
        let window = Arc::make_mut(self.0.entry(header.producer_id).or_default());
        if window.next_sequence() != stored.base_sequence {
            window.0.clear();
        }
        if window.0.len() == WINDOW {
            window.0.pop_front();
        }
        window.0.push_back(stored);
    }

    /// Where a producer stands: its next sequence, and the offset of its last record.
    pub(crate) fn position(&self, producer_id: i64) -> Option<(u32, i64)> {
        let last = self.0.get(&producer_id)?.0.back()?;
        Some((last.next_sequence(), last.next_offset() - 1))
    }

    /// Each producer, and when it stored its last batch, milliseconds since 1970.
    pub(crate) fn last_used(&self) -> impl Iterator<Item = (i64, i64)> {
        self.0.iter().filter_map(|(id, window)| Some((*id, window.0.back()?.append_time_ms)))
    }

    /// Forgets those that are not to be kept; tells how many.
    pub(crate) fn retain(&mut self, keep: impl Fn(i64) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|id, _| keep(*id));
        before - self.0.len()
    }

    /// As a snapshot has it: exact before `next_offset`. `None` where there is nothing to say.
    pub(crate) fn to_section(&self, next_offset: i64, end: i64) -> Option<internal::ProducerWindows> {
        if self.0.is_empty() && next_offset == end {
            return None;
        }
        let producers = self.0.iter().map(|(id, window)| window.to_section(*id)).collect();
        Some(internal::ProducerWindows { next_offset, producers })
    }

    /// What a snapshot has, whose numbers were found possible ([`check`]).
    pub(crate) fn of_section(section: &internal::ProducerWindows) -> Self {
        let windows =
            section.producers.iter().map(|window| (window.producer_id, Arc::new(Window::of_section(window))));
        Self(windows.collect())
    }
}

impl Window {
    fn next_sequence(&self) -> u32 {
        self.0.back().map_or(0, Stored::next_sequence)
    }

    fn to_section(&self, producer_id: i64) -> internal::ProducerWindow {
        let mut section = internal::ProducerWindow {
            producer_id,
            base_sequence: self.0.front().map_or(0, |first| first.base_sequence),
            ..internal::ProducerWindow::default()
        };
        let (mut end, mut time) = (0, 0);
        for stored in &self.0 {
            section.record_counts.push(stored.record_count);
            section.skipped.push(stored.base_offset.saturating_sub(end).unsigned_abs());
            section.waited_ms.push(stored.append_time_ms.wrapping_sub(time));
            section.records_crc32.push(stored.records_crc32);
            (end, time) = (stored.next_offset(), stored.append_time_ms);
        }
        section
    }

    fn of_section(section: &internal::ProducerWindow) -> Self {
        let (mut base_sequence, mut end, mut time) = (section.base_sequence, 0_i64, 0_i64);
        let columns = section
            .record_counts
            .iter()
            .zip(&section.skipped)
            .zip(&section.waited_ms)
            .zip(&section.records_crc32);
        let batches = columns.map(|(((count, skipped), waited), crc)| {
            time = time.wrapping_add(*waited);
            let stored = Stored {
                base_offset: end.saturating_add_unsigned(*skipped),
                append_time_ms: time,
                base_sequence,
                record_count: *count,
                records_crc32: *crc,
            };
            (base_sequence, end) = (stored.next_sequence(), stored.next_offset());
            stored
        });
        Self(batches.collect())
    }
}

/// Whether a section's numbers can be: lists of one length, batches with records, in order, below the end.
pub(crate) fn check(section: &internal::ProducerWindows) -> bool {
    let ids = || section.producers.iter().map(|window| window.producer_id);
    ids().all(|id| id > 0)
        && ids().zip(ids().skip(1)).all(|(a, b)| a < b)
        && section.producers.iter().all(|window| is_possible(window, section.next_offset))
}

fn is_possible(window: &internal::ProducerWindow, end: i64) -> bool {
    let length = window.record_counts.len();
    let lengths = [window.skipped.len(), window.waited_ms.len(), window.records_crc32.len()];
    let counted = window.record_counts.iter().zip(&window.skipped).try_fold(0_i64, |at, (count, skipped)| {
        at.checked_add_unsigned(*skipped)?.checked_add((*count).into()).filter(|at| *count > 0 && *at <= end)
    });
    (1..=WINDOW).contains(&length) && lengths == [length; 3] && counted.is_some()
}

impl Log {
    /// The partition goes on in another segment: what producers stored before it, for as long as it has no name.
    pub(crate) fn remember_producers(&mut self, segments: &[Arc<Segment>]) {
        self.at_rolls
            .retain(|(base, _)| segments.iter().any(|segment| segment.base == *base && !segment.is_named()));
        self.at_rolls.push((self.next_offset, self.producers.clone()));
    }
}

/// Where a producer stands in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Topic and partition.
    pub key: PartitionKey,
    /// Sequence of its next record.
    pub next_sequence: u32,
    /// Offset of its last.
    pub last_offset: i64,
    /// No answer that says so before this number is durable.
    pub number: u64,
}

impl Storage {
    /// Where a producer stands, in all partitions it stored something in. The caller keeps it from storing more.
    pub fn standing(&self, producer_id: i64) -> Vec<Standing> {
        let standing = |partition: &Arc<Partition>| {
            let log = partition.lock();
            let (next_sequence, last_offset) = log.producers.position(producer_id)?;
            Some(Standing { key: partition.key(), next_sequence, last_offset, number: log.barrier })
        };
        self.all_partitions().iter().filter_map(standing).collect()
    }

    /// When each producer stored something last, milliseconds since 1970.
    pub fn producers_used(&self) -> BTreeMap<i64, i64> {
        let mut used = BTreeMap::new();
        for partition in self.all_partitions() {
            for (id, time_ms) in partition.lock().producers.last_used() {
                let latest = used.entry(id).or_insert(time_ms);
                *latest = time_ms.max(*latest);
            }
        }
        used
    }

    /// Forgets what all other producers stored. For those that are gone for good, whose ids nobody can use any more.
    pub fn keep_producers(&self, keep: &dyn Fn(i64) -> bool) {
        for partition in self.all_partitions() {
            self.forget_producers(&mut partition.lock(), keep);
        }
    }

    pub(crate) fn forget_producers(&self, log: &mut Log, keep: impl Fn(i64) -> bool) {
        let forgotten = log.producers.retain(keep);
        self.producer_windows.fetch_sub(forgotten, Ordering::Relaxed);
    }

    /// In how many partitions producers are known, counted once in each.
    pub fn known_producers(&self) -> usize {
        self.producer_windows.load(Ordering::Relaxed)
    }

    pub(super) fn count_windows(&self) {
        let windows = self.all_partitions().iter().map(|partition| partition.lock().producers.len()).sum();
        self.producer_windows.store(windows, Ordering::Relaxed);
    }

    /// Whether a partition may know one producer more. Those who ask at the same time may be a few too many together.
    pub(super) fn may_know_one_more(&self) -> Result<(), AppendError> {
        let limit = self.options().producers;
        let full = self.known_producers() >= limit;
        if full { Err(AppendError::TooManyProducers { limit: limit as u64 }) } else { Ok(()) }
    }

    /// A batch was written. The caller holds the partition's lock.
    pub(super) fn note_sequence(&self, log: &mut Log, header: &BatchHeader) {
        let before = log.producers.len();
        log.producers.note(header);
        self.producer_windows.fetch_add(log.producers.len() - before, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;

    fn header(producer_id: i64, base_sequence: u32, base_offset: i64, records: u32) -> BatchHeader {
        BatchHeader {
            base_offset,
            last_offset_delta: records - 1,
            record_count: records,
            append_time_ms: 1000 + base_offset,
            producer_id,
            base_sequence,
            records_crc32: base_sequence ^ 0x5555,
            ..BatchHeader::default()
        }
    }

    fn sequence(producer_id: i64, base_sequence: u32) -> Sequence {
        Sequence { producer_id, producer_epoch: 1, base_sequence }
    }

    fn look(windows: &Windows, base_sequence: u32, records: u32) -> Known {
        windows.look(&sequence(7, base_sequence), records, base_sequence ^ 0x5555)
    }

    #[test]
    fn the_next_is_taken_a_known_one_found_and_anything_else_a_gap() {
        let mut windows = Windows::default();
        assert_eq!(look(&windows, 0, 3), Known::Next);
        assert_eq!(look(&windows, 3, 3), Known::Gap { expected: 0 });
        for (base, offset, records) in [(0, 10, 3), (3, 20, 1), (4, 21, 5)] {
            assert_eq!(look(&windows, base, records), Known::Next);
            windows.note(&header(7, base, offset, records));
        }
        assert_eq!(look(&windows, 9, 1), Known::Next);
        assert!(matches!(
            look(&windows, 3, 1),
            Known::Stored(Stored { base_offset: 20, append_time_ms: 1020, .. })
        ));
        for (base, records) in [(10, 1), (3, 2), (2, 1), (u32::MAX, 1)] {
            assert_eq!(look(&windows, base, records), Known::Gap { expected: 9 });
        }
        let other = windows.look(&sequence(7, 3), 1, 1);
        assert_eq!(other, Known::Gap { expected: 9 }, "other records under a known sequence");
        assert_eq!(windows.look(&sequence(8, 0), 1, 1), Known::Next, "another producer counts for itself");
        assert_eq!(windows.position(7), Some((9, 25)));
    }

    #[test]
    fn sequences_go_on_at_zero_behind_the_last_number() {
        let mut windows = Windows::default();
        windows.note(&header(7, u32::MAX - 1, 0, 2));
        assert_eq!(look(&windows, 0, 4), Known::Next);
        windows.note(&header(7, 0, 2, 4));
        assert!(matches!(look(&windows, u32::MAX - 1, 2), Known::Stored(Stored { base_offset: 0, .. })));
        windows.note(&header(7, 4, 6, 1));
        windows.note(&header(7, 5, 7, u32::MAX));
        assert_eq!(look(&windows, 4, 1), Known::Next, "4294967295 records later the same number comes again");
    }

    #[test]
    fn the_last_sixty_four_batches_are_known() {
        let mut windows = Windows::default();
        for n in 0..100 {
            windows.note(&header(7, n, n.into(), 1));
        }
        assert_eq!(look(&windows, 35, 1), Known::Gap { expected: 100 });
        assert!(matches!(look(&windows, 36, 1), Known::Stored(Stored { base_offset: 36, .. })));
        assert_eq!(windows.retain(|id| id != 7), 1);
        assert_eq!((windows.len(), windows.knows(7)), (0, false));
    }

    #[test]
    fn a_full_window_takes_two_kibibytes_and_a_third_of_that_in_a_snapshot() {
        let mut windows = Windows::default();
        for n in 0..200 {
            let batch = header(7, 300 * n, i64::from(n) * 1000, 300);
            windows.note(&BatchHeader { append_time_ms: 1_700_000_000_000 + i64::from(n) * 50, ..batch });
        }
        let room = windows.0[&7].0.capacity() * size_of::<Stored>();
        assert!(room <= 2048, "{room} bytes");
        let section = windows.to_section(1 << 20, 1 << 20).unwrap().encoded_len();
        assert!(section <= 704, "{section} bytes");
    }

    #[test]
    fn what_damage_took_is_not_missed() {
        let mut windows = Windows::default();
        windows.note(&header(7, 0, 0, 1));
        windows.note(&header(7, 5, 5, 1));
        assert_eq!(look(&windows, 0, 1), Known::Gap { expected: 6 });
        assert!(matches!(look(&windows, 5, 1), Known::Stored(_)));
    }

    proptest! {
        #[test]
        fn a_section_is_read_as_it_was_written(
            batches in vec((1_i64..4, 0_i64..5, 1_u32..9, -5_i64..2000), 0..300),
            first in any::<u32>(),
        ) {
            let (mut windows, mut offset, mut time) = (Windows::default(), 0, 1_700_000_000_000);
            let mut next = [first; 4];
            for (id, skipped, records, waited) in batches {
                (offset, time) = (offset + skipped, time + waited);
                let sequence = &mut next[usize::try_from(id).unwrap()];
                let batch = header(id, *sequence, offset, records);
                windows.note(&BatchHeader { append_time_ms: time, ..batch });
                *sequence = sequence.wrapping_add(records);
                offset += i64::from(records);
            }
            let section = windows.to_section(offset, offset);
            prop_assert_eq!(section.is_none(), windows.len() == 0);
            if let Some(section) = section {
                prop_assert!(check(&section));
                prop_assert_eq!(Windows::of_section(&section), windows);
            }
        }
    }

    #[test]
    fn impossible_sections_are_refused() {
        let mut windows = Windows::default();
        windows.note(&header(7, 0, 3, 2));
        let good = windows.to_section(5, 5).unwrap();
        assert!(check(&good));
        let with = |change: &dyn Fn(&mut internal::ProducerWindow)| {
            let mut section = good.clone();
            change(&mut section.producers[0]);
            check(&section)
        };
        assert!(!with(&|window| window.producer_id = 0));
        assert!(!with(&|window| window.skipped.clear()));
        assert!(!with(&|window| window.skipped = vec![u64::MAX]));
        assert!(!with(&|window| window.record_counts = vec![0]));
        assert!(!with(&|window| window.record_counts = vec![3]));
        assert!(!with(&|window| *window = internal::ProducerWindow { producer_id: 7, ..Default::default() }));
        let twice = [good.producers.clone(), good.producers.clone()].concat();
        assert!(!check(&internal::ProducerWindows { producers: twice, ..good.clone() }));
    }
}
