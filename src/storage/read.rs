//! Reading a partition: whole stored batches, lent from the segment's map, as far as the high watermark.
//!
//! 1. Nothing at or above the high watermark is ever returned.
//! 2. Nothing is returned that was not written by this process or verified since it was opened.
//! 3. Damage is never stepped over silently: it is an error, or, if the reader asked for that, a gap with its offsets.

use std::{io, sync::Arc};

use annals_wire::header::BATCH_PREFIX_LEN;
use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    error::ReadError,
    mutant::{Mutant, planted},
    partition::Partition,
    scan::{Found, Scan, ScanError},
    segment::{DATA_START, Segment},
};

/// Why offsets are missing from a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// Their bytes do not verify.
    Damaged,
    /// Retention or a delete removed them.
    Removed,
    /// A power cut took them from a log whose durability allowed it.
    Lost,
}

/// Offsets that were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// First skipped offset.
    pub first: i64,
    /// Last skipped offset, inclusive.
    pub last: i64,
    /// Why.
    pub reason: GapReason,
}

/// Runs of whole batches, each from one segment, in offset order: one, or two where a segment ends.
pub type Runs = SmallVec<[Bytes; 2]>;

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The first batch may begin before the offset asked for.
    pub batches: Runs,
    /// Base offset of the first batch; the offset asked for if there is none.
    pub first_base: i64,
    /// Where to read on.
    pub next_offset: i64,
    /// Epoch of the last batch; 0 if there is none.
    pub last_epoch: u32,
    /// Some batch is compressed.
    pub compressed: bool,
    /// What was stepped over.
    pub gaps: Vec<Gap>,
}

/// A run being collected in one segment.
struct Run {
    start: u64,
    end: u64,
}

struct Reader<'a> {
    partition: &'a Partition,
    out: Read,
    bytes: usize,
    max_bytes: usize,
    high_watermark: i64,
    skip_damaged: bool,
}

impl Partition {
    /// Reads from the batch that holds `from`: at most `max_bytes`, unless the first batch alone is larger. At the
    /// high watermark there is nothing, which is not an error. Control batches are left out.
    pub fn read(&self, from: i64, max_bytes: usize, skip_damaged: bool) -> Result<Read, ReadError> {
        let bounds = self.bounds();
        if self.is_removed() {
            return Err(ReadError::Removed);
        }
        if from < bounds.log_start {
            return Err(ReadError::Truncated { log_start: bounds.log_start });
        }
        if from > bounds.high_watermark {
            return Err(ReadError::Ahead { high_watermark: bounds.high_watermark });
        }
        let out = Read { first_base: from, next_offset: from, ..Read::default() };
        if from == bounds.high_watermark {
            return Ok(out);
        }
        if self.closed_because().is_some() {
            return Err(ReadError::Damaged { first: from, last: bounds.high_watermark - 1 });
        }
        let high_watermark = bounds.high_watermark;
        let mut reader = Reader { partition: self, out, bytes: 0, max_bytes, high_watermark, skip_damaged };
        reader.run(from)?;
        Ok(reader.out)
    }

    /// Append time of the batch that holds an offset, in milliseconds since 1970; `None` at the high watermark.
    pub fn append_time_of(&self, offset: i64) -> Result<Option<i64>, ReadError> {
        let read = self.read(offset, 1, true)?;
        let key = self.key();
        let header = read.batches.first().and_then(|bytes| {
            annals_wire::header::verify_header(bytes.get(..BATCH_PREFIX_LEN)?, &key.topic, key.partition).ok()
        });
        Ok(header.map(|decoded| decoded.header.append_time_ms))
    }

    /// Base offset of the first batch that has a record at or after a time; `None` if there is none so late.
    /// The caller looks for the record within the batch.
    pub fn find_time(&self, timestamp_ms: i64) -> Result<Option<i64>, ReadError> {
        let bounds = self.bounds();
        let segments = self.segments();
        for (index, segment) in segments.iter().enumerate() {
            let next_base = segments.get(index + 1).map_or(i64::MAX, |next| next.base);
            if next_base <= bounds.log_start {
                continue;
            }
            segment.resolve(next_base).map_err(ReadError::Io)?;
            if segment.max_timestamp_ms() < timestamp_ms {
                continue;
            }
            for found in Scan::new(segment, segment.position_before_time(timestamp_ms), segment.end()) {
                let Ok(found) = found else { break };
                if found.header.base_offset >= bounds.high_watermark {
                    return Ok(None);
                }
                if found.header.max_timestamp_ms >= timestamp_ms && found.next_offset() > bounds.log_start {
                    return Ok(Some(found.header.base_offset.max(bounds.log_start)));
                }
            }
        }
        Ok(None)
    }
}

impl Reader<'_> {
    fn run(&mut self, from: i64) -> Result<(), ReadError> {
        let segments = self.partition.segments();
        let first = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let next_base = segments.get(index + 1).map_or(self.high_watermark, |next| next.base);
            if segment.base >= self.high_watermark {
                break;
            }
            match segment.resolve(next_base) {
                Ok(()) => {
                    if !self.segment(segment, next_base.min(self.high_watermark))? {
                        break;
                    }
                }
                // The file is missing or shorter than its header: everything in it is damaged.
                Err(error) if is_gone(&error) => {
                    if !self.damaged(next_base.min(self.high_watermark) - 1)? {
                        break;
                    }
                }
                Err(error) => return Err(ReadError::Io(error)),
            }
        }
        Ok(())
    }

    /// Reads on in a segment; `false` = there is enough.
    fn segment(&mut self, segment: &Arc<Segment>, until: i64) -> Result<bool, ReadError> {
        let mut position = segment.position_before(self.out.next_offset);
        let trusted = planted(Mutant::IndexTrusted) || self.leads_here(segment, position);
        if position > DATA_START && !trusted {
            segment.distrust_index();
            position = DATA_START;
        }
        loop {
            let mut run: Option<Run> = None;
            let mut stop = None;
            for found in Scan::new(segment, position, segment.end()) {
                match found {
                    Ok(found) if found.next_offset() <= self.out.next_offset => {}
                    Ok(found) if found.header.base_offset >= until => {
                        stop = Some(Stop::End);
                        break;
                    }
                    Ok(found) if !verified(segment, &found) => {
                        stop = Some(Stop::Damaged { last: found.next_offset() - 1, position: found.end() });
                        break;
                    }
                    Ok(found) => {
                        if self.bytes > 0 && self.bytes + found.bytes.len() > self.max_bytes {
                            stop = Some(Stop::Full);
                            break;
                        }
                        self.take(segment, &mut run, &found)?;
                    }
                    Err(ScanError::Io(error)) if !is_gone(&error) => return Err(ReadError::Io(error)),
                    Err(ScanError::Io(_)) => {
                        stop = Some(Stop::Damaged { last: until - 1, position: segment.end() });
                        break;
                    }
                    Err(ScanError::NotABatch(at)) => {
                        stop = Some(self.beyond(segment, at, until));
                        break;
                    }
                }
            }
            self.close(segment, run)?;
            match stop {
                Some(Stop::Full) => return Ok(false),
                Some(Stop::Damaged { last, position: next }) => {
                    if !self.damaged(last)? {
                        return Ok(false);
                    }
                    position = next;
                }
                None if self.out.next_offset < until => {
                    return self.damaged(until - 1);
                }
                None | Some(Stop::End) => return Ok(true),
            }
        }
    }

    /// An index is a hint: what it points at must be a batch at or before the offset.
    fn leads_here(&self, segment: &Segment, position: u64) -> bool {
        let found = Scan::new(segment, position, segment.end()).next();
        matches!(found, Some(Ok(found)) if found.header.base_offset <= self.out.next_offset)
    }

    fn take(&mut self, segment: &Segment, run: &mut Option<Run>, found: &Found) -> Result<(), ReadError> {
        if found.header.attributes.control() {
            self.close(segment, run.take())?;
        } else {
            if self.bytes == 0 {
                self.out.first_base = found.header.base_offset;
            }
            self.bytes += found.bytes.len();
            self.out.last_epoch = found.header.leader_epoch;
            self.out.compressed |=
                found.header.attributes.codec() != Some(annals_wire::v1::Codec::Unspecified);
            let start = run.as_ref().map_or(found.position, |run| run.start);
            *run = Some(Run { start, end: found.end() });
        }
        self.out.next_offset = found.next_offset();
        Ok(())
    }

    fn close(&mut self, segment: &Segment, run: Option<Run>) -> Result<(), ReadError> {
        if let Some(run) = run {
            self.out.batches.push(segment.view(run.start..run.end).map_err(ReadError::Io)?);
        }
        Ok(())
    }

    /// The offsets from here to `last` are damaged. `true` = go on behind them.
    fn damaged(&mut self, last: i64) -> Result<bool, ReadError> {
        let first = self.out.next_offset;
        tracing::error!(partition = %self.partition.key(), first, last, "stored bytes do not verify");
        if self.skip_damaged {
            self.out.gaps.push(Gap { first, last, reason: GapReason::Damaged });
            self.out.next_offset = last + 1;
            if self.bytes == 0 {
                self.out.first_base = last + 1;
            }
            return Ok(true);
        }
        // What was read before the damage is good; the next read begins with it.
        if self.bytes > 0 { Ok(false) } else { Err(ReadError::Damaged { first, last }) }
    }

    /// Where the next batch begins behind bytes that are none.
    fn beyond(&self, segment: &Segment, at: u64, until: i64) -> Stop {
        let key = self.partition.key();
        let end = segment.end();
        let mut from = at + 1;
        while from < end {
            let to = (from + SEARCH + BATCH_PREFIX_LEN as u64).min(end);
            let Ok(window) = segment.view(from..to) else { break };
            let within = window.windows(BATCH_PREFIX_LEN).take(usize::try_from(SEARCH).unwrap_or(usize::MAX));
            for (index, prefix) in within.enumerate() {
                if prefix.first() != Some(&annals_wire::header::BATCH_TAG) {
                    continue;
                }
                if let Ok(decoded) = annals_wire::header::verify_header(prefix, &key.topic, key.partition)
                    && decoded.header.base_offset > self.out.next_offset
                {
                    let last = decoded.header.base_offset.min(until) - 1;
                    return Stop::Damaged { last, position: from + index as u64 };
                }
            }
            from += SEARCH;
        }
        Stop::Damaged { last: until - 1, position: end }
    }
}

/// Bytes searched at a time for the next batch behind damage.
const SEARCH: u64 = 1024 * 1024;

enum Stop {
    /// The next segment, or the high watermark, begins.
    End,
    /// There is enough.
    Full,
    /// These offsets do not verify; read on at the position.
    Damaged { last: i64, position: u64 },
}

/// What was not written by this process is verified once.
fn verified(segment: &Segment, found: &Found) -> bool {
    if segment.is_known_good(&found.range()) || planted(Mutant::ServedUnverified) {
        return true;
    }
    let good = found.verify();
    if good {
        segment.mark_good(found.range());
    }
    good
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    )
}
