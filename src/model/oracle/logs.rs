//! A partition's attempts, and whether a recovered partition holds what it must (R1-R4).

use bytes::Bytes;

use super::check;
use crate::storage::{Level, Partition, PartitionKey, ReadError, Sequence, WINDOW};

/// A batch as it must lie in the segment.
#[derive(Clone, Debug)]
pub(in crate::model) struct Batch {
    /// All of its bytes.
    pub(in crate::model) bytes: Bytes,
    pub(in crate::model) base: i64,
    /// Offset after it.
    pub(in crate::model) next: i64,
    pub(in crate::model) max_timestamp_ms: i64,
    /// Under which it was stored, if under any, and how many records it has.
    pub(in crate::model) sequence: Option<Sequence>,
    pub(in crate::model) records: u32,
}

/// One partition's attempts on the present timeline.
#[derive(Clone, Debug)]
pub(in crate::model) struct Log {
    pub(in crate::model) level: Level,
    pub(in crate::model) batches: Vec<Batch>,
    /// So many of them must survive a power cut.
    pub(in crate::model) durable: usize,
    /// So many of them must survive `kill -9`.
    pub(in crate::model) acked: usize,
    /// So many of them were below the high watermark.
    pub(in crate::model) visible: usize,
    /// It was seen fenced in this life.
    pub(in crate::model) fenced: bool,
    /// So many are covered by a sync point that was asked for.
    pub(in crate::model) asked: usize,
}

impl Log {
    pub(in crate::model) fn new(level: Level) -> Self {
        Self { level, batches: Vec::new(), durable: 0, acked: 0, visible: 0, fenced: false, asked: 0 }
    }

    /// A producer's last batches that a retry must find, newest first.
    pub(in crate::model) fn window(&self, producer_id: i64) -> impl Iterator<Item = (usize, &Batch)> {
        let of =
            move |batch: &&Batch| batch.sequence.is_some_and(|sequence| sequence.producer_id == producer_id);
        let batches = self.batches.iter().enumerate().rev();
        batches.filter(move |(_, batch)| of(batch)).take(WINDOW)
    }

    /// Sequence of a producer's next record.
    pub(in crate::model) fn next_sequence(&self, producer_id: i64) -> u32 {
        let last = self.window(producer_id).next();
        last.and_then(|(_, batch)| Some(batch.sequence?.base_sequence.wrapping_add(batch.records)))
            .unwrap_or(0)
    }

    /// Offset after the last attempt.
    pub(in crate::model) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |last| last.next)
    }

    pub(super) fn judge(&mut self, power_cut: bool, partition: &Partition) -> Result<(), String> {
        let (key, bounds) = (partition.key(), partition.bounds());
        check(bounds.log_start == 0, || format!("R4: {key}: log start {}", bounds.log_start))?;
        check(bounds.high_watermark == bounds.log_end, || format!("R3: {key}: {bounds:?} after a start"))?;
        let found = self
            .prefix_to(bounds.log_end)
            .ok_or_else(|| format!("R2: {key}: the log ends at {}, where no attempt did", bounds.log_end))?;
        let must = if power_cut { self.durable } else { self.acked };
        check(found >= must, || {
            format!("R1: {key} ({:?}): {must} batches promised, {found} found", self.level)
        })?;
        self.compare(partition, found)?;
        self.batches.truncate(found);
        (self.durable, self.acked, self.visible, self.asked) = (found, found, found, found);
        self.fenced = false;
        Ok(())
    }

    /// How many batches end at or before an offset, which must be the end of one.
    pub(in crate::model) fn prefix_to(&self, end: i64) -> Option<usize> {
        let count = self.batches.partition_point(|batch| batch.next <= end);
        let ends = count.checked_sub(1).and_then(|last| self.batches.get(last)).map_or(0, |last| last.next);
        (ends == end).then_some(count)
    }

    /// Reads all and compares every byte.
    fn compare(&self, partition: &Partition, found: usize) -> Result<(), String> {
        let key = partition.key();
        let mut wanted = self.batches.iter().take(found);
        let mut from = 0;
        loop {
            let read = partition.read(from, 64 * 1024, false).map_err(|error| match error {
                ReadError::Damaged { first, last } => format!("R14: {key}: damage at {first}..={last}"),
                error => format!("R1: {key}: {error:?}"),
            })?;
            if read.next_offset == from {
                return check(wanted.next().is_none(), || format!("R1: {key}: a read stops at {from}"));
            }
            compare_runs(key, &read.batches, &mut wanted)?;
            from = read.next_offset;
        }
    }
}

/// Whether runs of batches are the next of those wanted, byte for byte.
pub(in crate::model) fn compare_runs<'a>(
    key: PartitionKey,
    runs: &[Bytes],
    wanted: &mut impl Iterator<Item = &'a Batch>,
) -> Result<(), String> {
    for run in runs {
        let mut rest = &run[..];
        while !rest.is_empty() {
            let batch = wanted.next().ok_or_else(|| format!("R2: {key}: more than was ever attempted"))?;
            rest = rest
                .strip_prefix(&batch.bytes[..])
                .ok_or_else(|| format!("R1: {key}: other bytes at offset {}", batch.base))?;
        }
    }
    Ok(())
}
