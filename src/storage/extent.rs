//! Extents: bytes of a partition that were flushed in their segment before the frame that names them.

use std::{collections::HashMap, io, ops::Range, sync::Arc};

use annals_wire::internal::{Entry, Extent, entry::Body};
use bytes::Bytes;
use crc32fast::Hasher;

use super::{
    frame::FrameBuilder,
    key::PartitionKey,
    partition::Partition,
    queue::{BatchWork, Upto},
    segment::{DATA_START, Segment},
};

/// An extent in the making.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) key: PartitionKey,
    number: u64,
    segment_base: i64,
    generation: u32,
    from: u64,
    to: u64,
    first_offset: i64,
    next_offset: i64,
    last_epoch: u32,
    hasher: Hasher,
}

impl Run {
    /// A run of one batch.
    pub(crate) fn begin(number: u64, batch: &BatchWork) -> Self {
        let mut run = Self {
            key: batch.partition.key(),
            number,
            segment_base: batch.segment.base,
            generation: batch.segment.generation(),
            from: batch.position,
            to: batch.position,
            first_offset: batch.base_offset,
            next_offset: batch.base_offset,
            last_epoch: batch.epoch,
            hasher: Hasher::new(),
        };
        run.take(number, batch);
        run
    }

    /// Adds a batch if it follows in the same segment.
    pub(crate) fn lengthen(&mut self, number: u64, batch: &BatchWork) -> bool {
        let follows = self.segment_base == batch.segment.base
            && self.to == batch.position
            && self.next_offset == batch.base_offset;
        if follows {
            self.take(number, batch);
        }
        follows
    }

    fn take(&mut self, number: u64, batch: &BatchWork) {
        batch.bytes.hash_into(&mut self.hasher);
        self.number = number;
        self.to += batch.bytes.len() as u64;
        self.next_offset = batch.next_offset;
        self.last_epoch = batch.epoch;
    }

    /// The journal's entry.
    pub(crate) fn entry(&self) -> Entry {
        let extent = Extent {
            topic_id: Bytes::copy_from_slice(self.key.topic.as_bytes()),
            partition: self.key.partition,
            segment_base: self.segment_base,
            generation: self.generation,
            from: self.from,
            to: self.to,
            first_offset: self.first_offset,
            next_offset: self.next_offset,
            last_epoch: self.last_epoch,
            crc32: self.hasher.clone().finalize(),
        };
        Entry { number: self.number, may_ignore: false, body: Some(Body::Extent(extent)) }
    }
}

/// What is to be entered and lies only in its segments, read back to be hashed: after their flush, and before the first frame
/// is written, because then nothing can be given up any more.
#[derive(Default)]
pub(crate) struct ReadBack {
    /// By partition and segment: bytes, and the position of the first.
    segments: HashMap<(PartitionKey, i64), (u64, Bytes)>,
}

impl ReadBack {
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
    }

    /// Reads what a segment holds beyond what was entered. A file that was cut from outside is no error: see [`runs`].
    pub(crate) fn read(&mut self, partition: &Partition, segment: &Segment) -> io::Result<()> {
        let range = not_entered(partition, segment)..segment.end();
        if range.is_empty() || self.segments.contains_key(&(partition.key(), segment.base)) {
            return Ok(());
        }
        match segment.view(range.clone()).or_else(|_| segment.copy(range.clone())) {
            Ok(bytes) => {
                self.segments.insert((partition.key(), segment.base), (range.start, bytes));
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, partition: &Partition, segment: &Segment, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = self.segments.get(&(partition.key(), segment.base))?;
        let at = |position: u64| usize::try_from(position.checked_sub(*start)?).ok();
        let (from, to) = (at(range.start)?, at(range.end)?);
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }
}

/// Where in a segment that begins at or behind the last entry what was not entered begins.
fn not_entered(partition: &Partition, segment: &Segment) -> u64 {
    let entered = *partition.entered.lock();
    let known = entered.filter(|entered| entered.segment_base == segment.base);
    known.map_or(DATA_START, |entered| entered.position)
}

/// The segments that hold what was not entered up to a place.
pub(crate) fn segments(partition: &Partition, upto: Upto) -> Vec<Arc<Segment>> {
    let entered = *partition.entered.lock();
    let from = entered.map_or(i64::MIN, |entered| entered.segment_base);
    let concerned = |segment: &&Arc<Segment>| segment.base >= from && segment.base <= upto.segment_base;
    partition.segments().iter().filter(concerned).cloned().collect()
}

/// What was not entered up to a place, one run a segment.
pub(crate) fn runs(partition: &Partition, number: u64, upto: Upto, back: &ReadBack) -> Vec<Run> {
    let entered = *partition.entered.lock();
    let concerned = segments(partition, upto);
    let mut first_offset =
        entered.map_or_else(|| partition.bounds().log_start, |entered| entered.next_offset);
    let mut out = Vec::with_capacity(concerned.len());
    for (index, segment) in concerned.iter().enumerate() {
        let from = not_entered(partition, segment);
        let next_segment = concerned.get(index + 1);
        let to = if segment.base == upto.segment_base { upto.position } else { segment.end() };
        if from >= to {
            continue;
        }
        let mut hasher = Hasher::new();
        match back.bytes(partition, segment, &(from..to)).map_or_else(|| segment.view(from..to), Ok) {
            Ok(bytes) => hasher.update(&bytes),
            // Flushed, and gone since: the extent says so by a crc that does not hold. The journal needs it without a gap.
            Err(error) => {
                tracing::error!(partition = %partition.key(), %error, from, to, "flushed bytes cannot be read back");
                partition.lost(segment);
            }
        }
        let next_offset = next_segment.map_or(upto.next_offset, |next| next.base);
        out.push(Run {
            key: partition.key(),
            number,
            segment_base: segment.base,
            generation: segment.generation(),
            from,
            to,
            first_offset,
            next_offset,
            last_epoch: upto.epoch,
            hasher,
        });
        first_offset = next_offset;
    }
    out
}

/// Extents that the next batch of their partition may still lengthen.
#[derive(Default)]
pub(crate) struct OpenRuns {
    runs: Vec<Run>,
}

impl OpenRuns {
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Bytes the runs take when they are closed.
    pub(crate) fn size(&self) -> u64 {
        self.runs.len() as u64 * 256
    }

    pub(crate) fn add(&mut self, number: u64, batch: &BatchWork, frame: &mut FrameBuilder) {
        let key = batch.partition.key();
        let at = self.runs.iter().position(|run| run.key == key);
        if let Some(run) = at.and_then(|at| self.runs.get_mut(at))
            && run.lengthen(number, batch)
        {
            return;
        }
        self.close(key, frame);
        self.runs.push(Run::begin(number, batch));
    }

    pub(crate) fn close(&mut self, key: PartitionKey, frame: &mut FrameBuilder) {
        if let Some(at) = self.runs.iter().position(|run| run.key == key) {
            frame.push(&self.runs.swap_remove(at).entry());
        }
    }

    pub(crate) fn close_all(&mut self, frame: &mut FrameBuilder) {
        self.runs.drain(..).for_each(|run| frame.push(&run.entry()));
    }
}
