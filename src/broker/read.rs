//! One read of one partition: from stored batches to a slice as a reader is to get it.
//!
//! The bytes are the file's own. Only two things are ever made anew: the header of a first batch that began before the
//! offset asked for (the batch is cut at a record), and batches in a codec that the reader does not unpack.

use annals_wire::{
    compress,
    header::{self, Attributes, BATCH_LEAD_LEN, BATCH_PREFIX_LEN, BatchHeader},
    limits::{HARD_MAX_BATCH_BYTES, MAX_GAPS_PER_SLICE},
    slice as wire, trim,
    v1::Codec,
};
use bytes::Bytes;

use super::{
    CodecSet, Error, Filter, RETRY_SOON, Slice,
    catalog::{Lane, Topic},
    sift::sift,
};
use crate::{
    storage::{Gap, GapReason, Read, ReadError, Runs, is_out_of_files},
    sync::Arc,
};

/// How to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadRules {
    pub(crate) accept: CodecSet,
    pub(crate) skip_damaged: bool,
    /// `None` = everything is sent.
    pub(crate) filter: Option<Arc<Filter>>,
    /// Nothing is sent from this offset on: it is as good as the high watermark. `None` = there is no such offset.
    pub(crate) until: Option<i64>,
}

impl CodecSet {
    pub(super) fn accepts(self, attributes: Attributes) -> bool {
        match attributes.codec() {
            Some(Codec::Unspecified) => true,
            Some(Codec::Lz4) => self.lz4,
            Some(Codec::Zstd) => self.zstd,
            None => false,
        }
    }
}

/// Reads at most `max_bytes`, unless the first batch alone is larger. An empty slice that has not moved = the offset is the
/// high watermark.
pub(crate) fn read(
    topic: &Topic,
    lane: &Lane,
    from: i64,
    max_bytes: usize,
    rules: &ReadRules,
) -> Result<Slice, Error> {
    if rules.filter.is_some() || rules.until.is_some() {
        return sift(topic, lane, from, max_bytes, rules);
    }
    let mut budget = max_bytes;
    let mut read = stored(lane, from, &mut budget, rules.skip_damaged)
        .map_err(|error| read_error(topic, lane, from, error))?;
    let mut gaps = std::mem::take(&mut read.gaps);
    let mut slice = Builder { lane, accept: rules.accept, budget, from, bytes: 0, out: Runs::new() };
    let next_offset = slice.take(read).map_err(|damage| damage.at(topic, lane))?;
    let batches = slice.out;
    gaps.retain(|gap| gap.first < next_offset);
    Ok(Slice { next_offset, gaps, batches, ..empty(topic, lane, from) })
}

/// What is stored from an offset on, with no more gaps than a slice can tell; `budget` is lowered until that holds.
pub(super) fn stored(
    lane: &Lane,
    from: i64,
    budget: &mut usize,
    skip_damaged: bool,
) -> Result<Read, ReadError> {
    let mut read = lane.partition.read(from, *budget, skip_damaged)?;
    merge(&mut read.gaps);
    while read.gaps.len() > MAX_GAPS_PER_SLICE && *budget > 1 {
        *budget /= 8;
        read = lane.partition.read(from, *budget, skip_damaged)?;
        merge(&mut read.gaps);
    }
    Ok(read)
}

/// A slice without batches, where nothing is to be read but the reader wants to know where it stands.
pub(crate) fn standing(topic: &Topic, lane: &Lane, from: i64) -> Result<Slice, Error> {
    let slice = empty(topic, lane, from);
    let (log_start, high_watermark) = (slice.log_start_offset, slice.high_watermark);
    if lane.partition.is_removed() {
        return Err(read_error(topic, lane, from, ReadError::Removed));
    }
    if from < log_start {
        return Err(read_error(topic, lane, from, ReadError::Truncated { log_start }));
    }
    if from > high_watermark {
        return Err(read_error(topic, lane, from, ReadError::Ahead { high_watermark }));
    }
    Ok(slice)
}

/// A slice without batches over offsets that are no longer kept.
pub(crate) fn missing(topic: &Topic, lane: &Lane, from: i64, earliest: i64) -> Slice {
    let gap = Gap { first: from, last: earliest - 1, reason: GapReason::Removed };
    Slice { next_offset: earliest, gaps: vec![gap], ..empty(topic, lane, from) }
}

/// The bounds are taken after what was read: the high watermark never lies below it.
pub(super) fn empty(topic: &Topic, lane: &Lane, from: i64) -> Slice {
    let bounds = lane.partition.bounds();
    Slice {
        topic: Arc::clone(topic.name()),
        topic_id: topic.id(),
        partition: lane.partition.key().partition,
        high_watermark: bounds.high_watermark,
        log_start_offset: bounds.log_start,
        next_offset: from,
        start_offset: from,
        leader_epoch: bounds.leader_epoch,
        looked_at: 0,
        gaps: Vec::new(),
        batches: Runs::new(),
    }
}

/// Gaps that follow each other are one.
pub(super) fn merge(gaps: &mut Vec<Gap>) {
    gaps.dedup_by(|next, kept| {
        let follows = kept.reason == next.reason && kept.last.checked_add(1) == Some(next.first);
        if follows {
            kept.last = next.last;
        }
        follows
    });
}

/// A stored batch that is not what its header says, although its checksums hold.
#[derive(Debug)]
pub(super) struct Damage {
    first: i64,
    last: i64,
}

impl Damage {
    pub(super) fn at(&self, topic: &Topic, lane: &Lane) -> Error {
        Error::CorruptData {
            topic: topic.name().to_string(),
            partition: lane.partition.key().partition,
            first: self.first,
            last: self.last,
        }
    }
}

struct Builder<'a> {
    lane: &'a Lane,
    accept: CodecSet,
    budget: usize,
    from: i64,
    bytes: usize,
    out: Runs,
}

impl Builder<'_> {
    /// Takes what was read, as far as the budget goes, and returns where to read on.
    fn take(&mut self, read: Read) -> Result<i64, Damage> {
        let trims = read.first_base < self.from;
        if !trims && !read.compressed {
            self.out = read.batches;
            return Ok(read.next_offset);
        }
        let mut first = trims;
        for mut rest in read.batches {
            while !rest.is_empty() {
                if !first && !read.compressed {
                    self.push(rest);
                    break;
                }
                let batch = split_batch(&mut rest, self.from)?;
                if !self.batch(&batch, std::mem::take(&mut first))? {
                    return Ok(batch.header.base_offset);
                }
            }
        }
        Ok(read.next_offset)
    }

    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.out.push(bytes);
    }

    /// Takes a batch, cut or unpacked as need be; false = it would be too much.
    fn batch(&mut self, batch: &Batch, cut: bool) -> Result<bool, Damage> {
        let plain = batch.header.attributes.codec() == Some(Codec::Unspecified);
        let as_it_is = self.accept.accepts(batch.header.attributes) && (plain || !cut);
        let pieces = match (as_it_is, cut) {
            (true, false) => [batch.bytes.clone(), Bytes::new()],
            (true, true) => self.cut(batch, &batch.header, &batch.payload())?,
            (false, _) => {
                let unpacked = unpack(self.lane, batch)?;
                if cut {
                    self.cut(batch, &unpacked.header, &unpacked.payload)?
                } else {
                    [Bytes::copy_from_slice(&unpacked.prefix), unpacked.payload]
                }
            }
        };
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if self.bytes > 0 && self.bytes + len > self.budget {
            return Ok(false);
        }
        pieces.into_iter().filter(|piece| !piece.is_empty()).for_each(|piece| self.push(piece));
        Ok(true)
    }

    fn cut(&self, batch: &Batch, header: &BatchHeader, payload: &Bytes) -> Result<[Bytes; 2], Damage> {
        let key = self.lane.partition.key();
        let trimmed =
            trim::trim(header, payload, &key.topic, key.partition, self.from).map_err(|_| batch.damage())?;
        Ok([Bytes::copy_from_slice(&trimmed.prefix), payload.slice(trimmed.skip.min(payload.len())..)])
    }
}

/// Cuts the first batch off a run that was read at `from`.
pub(super) fn split_batch(run: &mut Bytes, from: i64) -> Result<Batch, Damage> {
    let damage = Damage { first: from, last: from };
    let Ok(decoded) = header::decode(run) else { return Err(damage) };
    if decoded.batch_len > run.len() {
        return Err(damage);
    }
    Ok(Batch { header: decoded.header, bytes: run.split_to(decoded.batch_len) })
}

/// A packed batch as a plain one.
pub(super) fn unpack(lane: &Lane, batch: &Batch) -> Result<compress::PlainBatch, Damage> {
    let key = lane.partition.key();
    compress::unpack_batch(&batch.header, &batch.payload(), &key.topic, key.partition, HARD_MAX_BATCH_BYTES)
        .map_err(|_| batch.damage())
}

/// A whole stored batch.
pub(super) struct Batch {
    pub(super) header: BatchHeader,
    pub(super) bytes: Bytes,
}

impl Batch {
    pub(super) fn payload(&self) -> Bytes {
        self.bytes.slice(BATCH_PREFIX_LEN.min(self.bytes.len())..)
    }

    pub(super) fn damage(&self) -> Damage {
        let first = self.header.base_offset;
        Damage { first, last: self.header.last_offset().unwrap_or(first) }
    }
}

/// First offset in a run of stored batches whose record has this time or a later one; looks at the first batch only.
pub(crate) fn first_at_time(run: &Bytes, timestamp_ms: i64) -> Option<i64> {
    let decoded = header::decode(run).ok()?;
    let body = decoded.batch_len.min(run.len());
    let batch = wire::Batch::parse(&run.slice(BATCH_LEAD_LEN.min(body)..body)).ok()?.unpacked().ok()?;
    let mut records = batch.records().ok()?;
    records
        .find_map(|record| record.ok().filter(|record| record.timestamp_ms >= timestamp_ms))
        .map(|record| record.offset)
}

/// What a failed read of a partition means to a caller.
pub(crate) fn read_error(topic: &Topic, lane: &Lane, requested: i64, error: ReadError) -> Error {
    let partition = lane.partition.key().partition;
    let topic = topic.name().to_string();
    match error {
        ReadError::Truncated { log_start } => {
            Error::OffsetTruncated { topic, partition, requested, earliest: log_start }
        }
        ReadError::Ahead { high_watermark } => {
            Error::OffsetAhead { topic, partition, requested, next: high_watermark }
        }
        ReadError::Damaged { first, last } => Error::CorruptData { topic, partition, first, last },
        ReadError::Removed => Error::TopicNotFound { topic, did_you_mean: None },
        ReadError::Io(error) if is_out_of_files(&error) => Error::Throttled { retry_delay: RETRY_SOON },
        ReadError::Io(error) => Error::ReadFailed { topic, partition, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_gaps_are_one() {
        let gap = |first, last, reason| Gap { first, last, reason };
        let (damaged, lost) = (GapReason::Damaged, GapReason::Lost);
        let mut gaps = vec![gap(0, 4, damaged), gap(5, 9, damaged), gap(10, 11, lost), gap(13, 13, lost)];
        merge(&mut gaps);
        assert_eq!(gaps, [gap(0, 9, damaged), gap(10, 11, lost), gap(13, 13, lost)]);
    }
}
