//! Sorting a request's records by partition while they are walked.
//!
//! As long as all go to one partition nothing is copied. From the first one for another partition on, each is copied once,
//! into its partition's bin; what stood before it goes to the first bin. Records of a bin keep their order, and what a
//! bin's records come to is added up on the way: nothing is walked twice.

use annals_wire::walk::RecordSpan;
use bytes::{Bytes, BytesMut};

/// What records come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) records: u32,
    pub(super) max_timestamp_ms: i64,
    pub(super) timestamps_missing: bool,
}

impl Sum {
    fn add(&mut self, span: &RecordSpan) {
        self.records += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(span.timestamp_ms);
        self.timestamps_missing |= span.timestamp_ms == 0;
    }
}

/// Records of one partition.
#[derive(Debug)]
pub(super) struct Bin {
    pub(super) partition: u32,
    pub(super) run: BytesMut,
    /// Which of the request's records these are.
    pub(super) indexes: Vec<u32>,
    pub(super) sum: Sum,
}

/// Takes the records in their order.
pub(super) struct Sorter<'a> {
    partitions: u32,
    /// Bytes of all records.
    len: usize,
    /// Where the first record goes.
    first: u32,
    /// What the records come to as long as all go there.
    together: Sum,
    /// One for each partition, once there are several.
    bins: Vec<Option<Bin>>,
    /// Room to begin with in a bin, in bytes and in records; it grows where keys are not spread evenly.
    fair: (usize, usize),
    copier: Copier<'a>,
}

impl<'a> Sorter<'a> {
    /// For the records of `run`, and so many partitions.
    pub(super) fn new(run: &'a [Bytes], partitions: u32) -> Self {
        Self {
            partitions,
            len: run.iter().map(Bytes::len).sum(),
            first: 0,
            together: Sum::default(),
            bins: Vec::new(),
            fair: (0, 0),
            copier: Copier { rest: &[], next: run.iter() },
        }
    }

    /// The next record goes to this partition.
    pub(super) fn put(&mut self, span: &RecordSpan, partition: u32) {
        if self.bins.is_empty() {
            if span.index == 0 {
                self.first = partition;
            }
            if self.first == partition {
                self.together.add(span);
                return;
            }
            self.separate(span);
        }
        let Some(bin) = bin(&mut self.bins, partition, self.fair) else { return };
        self.copier.copy(span.len, &mut bin.run);
        bin.indexes.push(span.index);
        bin.sum.add(span);
    }

    /// The partition to which all went.
    pub(super) fn only(&self) -> Option<u32> {
        self.bins.is_empty().then_some(self.first)
    }

    /// The bins with something in them, in order of partition.
    pub(super) fn into_bins(self) -> impl Iterator<Item = Bin> {
        self.bins.into_iter().flatten()
    }

    /// The first record for another partition: everything before it went to one.
    fn separate(&mut self, span: &RecordSpan) {
        let partitions = usize::try_from(self.partitions).unwrap_or(usize::MAX).max(1);
        let records = span.index as usize * self.len.div_ceil(span.start.max(1));
        self.fair = (fair(self.len, partitions), fair(records, partitions));
        self.bins.resize_with(partitions, || None);
        let Some(bin) = bin(&mut self.bins, self.first, self.fair) else { return };
        self.copier.copy(span.start, &mut bin.run);
        bin.indexes.extend(0..span.index);
        bin.sum = self.together;
    }
}

/// An even share, and an eighth more.
fn fair(whole: usize, partitions: usize) -> usize {
    let share = whole.div_ceil(partitions);
    share + share / 8
}

fn bin(bins: &mut [Option<Bin>], partition: u32, fair: (usize, usize)) -> Option<&mut Bin> {
    let slot = bins.get_mut(usize::try_from(partition).ok()?)?;
    Some(slot.get_or_insert_with(|| Bin {
        partition,
        run: BytesMut::with_capacity(fair.0),
        indexes: Vec::with_capacity(fair.1),
        sum: Sum::default(),
    }))
}

/// Copies a run in pieces, front to back.
struct Copier<'a> {
    rest: &'a [u8],
    next: std::slice::Iter<'a, Bytes>,
}

impl Copier<'_> {
    fn copy(&mut self, mut len: usize, to: &mut BytesMut) {
        while len > 0 {
            if self.rest.is_empty() {
                let Some(piece) = self.next.next() else { return };
                self.rest = piece;
                continue;
            }
            let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
            to.extend_from_slice(taken);
            self.rest = rest;
            len -= taken.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use annals_wire::walk::{WalkRules, walk, walk_each};
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        /// Each bin is what a walk of its own would find, and the bins together are the run.
        #[test]
        fn bins_are_the_run_sorted(
            records in prop::collection::vec((0_u32..5, 0_usize..40, 0_i64..3), 1..60),
            cuts in prop::collection::vec(1_usize..50, 0..20),
        ) {
            let record = |(_, size, time): &(u32, usize, i64)| annals_wire::v1::Record {
                value: Some(vec![b'x'; *size].into()),
                timestamp_ms: (*time > 0).then_some(*time),
                ..Default::default()
            };
            let run = |records: &mut dyn Iterator<Item = annals_wire::v1::Record>| {
                annals_wire::v1::RecordBatch { records: records.collect(), ..Default::default() }.encode_to_vec()
            };
            let mut rest = Bytes::from(run(&mut records.iter().map(record)));
            let mut pieces: Vec<Bytes> = cuts.iter().map(|cut| rest.split_to((*cut).min(rest.len()))).collect();
            pieces.push(rest);
            let mut sorter = Sorter::new(&pieces, 5);
            walk_each(&pieces, &WalkRules::CLIENT, |span| sorter.put(&span, records[span.index as usize].0)).unwrap();
            let one = records.iter().all(|(partition, ..)| *partition == records[0].0);
            prop_assert_eq!(sorter.only(), one.then_some(records[0].0));
            let mut seen = if one { records.len() } else { 0 };
            for bin in sorter.into_bins() {
                let mine = |index: &usize| records[*index].0 == bin.partition;
                let indexes: Vec<usize> = (0..records.len()).filter(mine).collect();
                prop_assert_eq!(&bin.run, &run(&mut indexes.iter().map(|index| record(&records[*index]))));
                prop_assert!(bin.indexes.iter().map(|index| *index as usize).eq(indexes.iter().copied()));
                let walked = walk(&[bin.run.freeze()], &WalkRules::CLIENT).unwrap();
                let sum = (bin.sum.records, bin.sum.max_timestamp_ms, bin.sum.timestamps_missing);
                prop_assert_eq!(sum, (walked.record_count, walked.max_timestamp_ms, walked.timestamps_missing));
                seen += indexes.len();
            }
            prop_assert_eq!(seen, records.len());
        }
    }
}
