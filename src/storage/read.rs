//! Reading a partition: whole stored batches, lent from the segment's map, as far as the high watermark.
//!
//! 1. Nothing at or above the high watermark is ever returned.
//! 2. Nothing is returned that was not written by this process or verified since it was opened.
//! 3. Damage is never stepped over silently: it is an error, or, if the reader asked for that, a gap with its offsets.

use std::{io, sync::Arc};

use annals_wire::header::BATCH_PREFIX_LEN;
use bytes::Bytes;
use rustix::io::Errno;
use smallvec::SmallVec;

use super::{
    error::ReadError,
    mutant::{Mutant, planted},
    partition::Partition,
    scan::{Found, Scan, ScanError, Source},
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

/// A walk through a partition, to lend what it finds or, by calls instead of through maps, only to look at it.
pub(crate) struct Reader<'a> {
    partition: &'a Partition,
    source: Source,
    /// Position to go on at in the present segment.
    pub(crate) position: u64,
    /// Where the walk began: only there may a batch have begun before.
    asked: i64,
    pub(crate) out: Read,
    bytes: usize,
    max_bytes: usize,
    high_watermark: i64,
    skip_damaged: bool,
    /// A file that was read has lost bytes meanwhile.
    lost: bool,
}

/// What a stored batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchAt {
    /// Milliseconds since 1970.
    pub append_time_ms: i64,
    /// Offset after its last record.
    pub next_offset: i64,
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
        let high_watermark = bounds.high_watermark;
        let read = || {
            let out = out.clone();
            let mut reader = Reader {
                partition: self,
                source: Source::Map,
                position: DATA_START,
                asked: from,
                out,
                bytes: 0,
                max_bytes,
                high_watermark,
                skip_damaged,
                lost: false,
            };
            let outcome = reader.run(from);
            (outcome.map(|()| reader.out), reader.lost)
        };
        match read() {
            // A file was lost meanwhile. The second time it is read, not mapped, and nothing in it is taken for good.
            (_, true) => read().0,
            (outcome, false) => outcome,
        }
    }

    /// Append time of the batch that holds an offset, in milliseconds since 1970; `None` at the high watermark.
    pub fn append_time_of(&self, offset: i64) -> Result<Option<i64>, ReadError> {
        Ok(self.batch_at(offset)?.map(|batch| batch.append_time_ms))
    }

    /// The batch that holds an offset, or the next where that is damaged; `None` at the high watermark.
    pub fn batch_at(&self, offset: i64) -> Result<Option<BatchAt>, ReadError> {
        let read = self.read(offset, 1, true)?;
        let key = self.key();
        let header = read.batches.first().and_then(|bytes| {
            annals_wire::header::verify_header(bytes.get(..BATCH_PREFIX_LEN)?, &key.topic, key.partition).ok()
        });
        Ok(header.and_then(|decoded| {
            let next_offset = decoded.header.next_offset()?;
            Some(BatchAt { append_time_ms: decoded.header.append_time_ms, next_offset })
        }))
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

impl<'a> Reader<'a> {
    /// Looks at what lies in sealed segments, `max_bytes` at a time: verifies, notes damage and goes on behind it.
    pub(crate) fn looking(
        partition: &'a Partition,
        position: u64,
        next_offset: i64,
        max_bytes: usize,
    ) -> Self {
        Self {
            partition,
            source: Source::Copy,
            position,
            asked: next_offset,
            out: Read { next_offset, ..Read::default() },
            bytes: 0,
            max_bytes,
            high_watermark: partition.high_watermark(),
            skip_damaged: true,
            lost: false,
        }
    }

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
                Err(error) => {
                    if !self.unreadable(error, next_base.min(self.high_watermark))? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing can be had of a segment that ends before `until`. `true` = go on behind it.
    pub(crate) fn unreadable(&mut self, error: io::Error, until: i64) -> Result<bool, ReadError> {
        if is_damage(&error) { self.damaged(until - 1) } else { Err(ReadError::Io(error)) }
    }

    /// Reads on in a segment; `false` = there is enough.
    fn segment(&mut self, segment: &Arc<Segment>, until: i64) -> Result<bool, ReadError> {
        let was_lost = segment.is_lost();
        self.position = segment.position_before(self.out.next_offset);
        let trusted = planted(Mutant::IndexTrusted) || self.leads_here(segment, self.position);
        if self.position > DATA_START && !trusted {
            segment.distrust_index();
            self.position = DATA_START;
        }
        let enough = self.batches(segment, until);
        if !was_lost && segment.is_lost() {
            self.lost = true;
            self.partition.lost(segment);
        }
        enough
    }

    /// Goes on at `position`; `false` = there is enough.
    pub(crate) fn batches(&mut self, segment: &Segment, until: i64) -> Result<bool, ReadError> {
        while self.out.next_offset < until {
            let mut run: Option<Run> = None;
            let mut stop = Stop::End;
            for found in Scan::of(self.source, segment, self.position, segment.end()) {
                match found {
                    Ok(found) if found.next_offset() <= self.out.next_offset => {
                        // A run is whole: what is passed over is not in it.
                        self.close(segment, run.take())?;
                        self.position = found.end();
                        continue;
                    }
                    Ok(found) => {
                        if let Some(verdict) = self.judge(segment, &found, until) {
                            stop = verdict;
                        } else {
                            self.take(segment, &mut run, &found)?;
                            self.position = found.end();
                            continue;
                        }
                    }
                    Err(error) => stop = self.step_over(segment, error, until)?,
                }
                break;
            }
            self.close(segment, run)?;
            match stop {
                Stop::Full => return Ok(false),
                // Of offsets that are behind: whatever a file holds, a walk does not go back.
                Stop::Damaged { last, position: next } if last < self.out.next_offset => self.position = next,
                Stop::Damaged { last, position: next } => {
                    if !self.damaged(last)? {
                        return Ok(false);
                    }
                    self.position = next;
                }
                Stop::End if self.out.next_offset < until => return self.damaged(until - 1),
                Stop::End => {}
            }
        }
        Ok(true)
    }

    /// Why a batch is not taken; `None`: it is.
    fn judge(&self, segment: &Segment, found: &Found, until: i64) -> Option<Stop> {
        let base = found.header.base_offset;
        if base >= until {
            return Some(Stop::End);
        }
        // Offsets have no holes, unless the reader began in the middle of nothing.
        if base > self.out.next_offset {
            return Some(Stop::Damaged { last: base - 1, position: found.position });
        }
        // No batch of ours goes into the next segment, or begins within another.
        let fits = found.next_offset() <= until
            && (base == self.out.next_offset || self.out.next_offset == self.asked);
        if !fits || !self.verified(segment, found) {
            return Some(Stop::Damaged { last: found.next_offset().min(until) - 1, position: found.end() });
        }
        (self.bytes > 0 && self.bytes + found.bytes.len() > self.max_bytes).then_some(Stop::Full)
    }

    /// Where to go on behind what is no batch, or cannot be read.
    fn step_over(&self, segment: &Segment, error: ScanError, until: i64) -> Result<Stop, ReadError> {
        let from = match error {
            ScanError::Io(error) | ScanError::Unreadable { error, .. } if !is_damage(&error) => {
                return Err(ReadError::Io(error));
            }
            ScanError::Unreadable { next_offset, end, .. } => {
                return Ok(Stop::Damaged { last: next_offset.min(until) - 1, position: end });
            }
            ScanError::NotABatch(at) => at,
            ScanError::Io(_) => self.position,
        };
        let end = segment.end();
        let found = self.source.find(segment, from + 1..end, self.out.next_offset + 1);
        Ok(match found {
            Some((position, base)) => Stop::Damaged { last: base.min(until) - 1, position },
            None => Stop::Damaged { last: until - 1, position: end },
        })
    }

    /// What was not written by this process is verified once; who only looks does so again, every time.
    fn verified(&self, segment: &Segment, found: &Found) -> bool {
        if self.source == Source::Map && segment.is_known_good(&found.range())
            || planted(Mutant::ServedUnverified)
        {
            return true;
        }
        let good = found.verify();
        if good {
            segment.mark_good(found.range());
        }
        good
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
        if let Some(run) = run.filter(|_| self.source == Source::Map) {
            self.out.batches.push(segment.view(run.start..run.end).map_err(ReadError::Io)?);
        }
        Ok(())
    }

    /// The offsets from here to `last` are damaged. `true` = go on behind them.
    fn damaged(&mut self, last: i64) -> Result<bool, ReadError> {
        let first = self.out.next_offset;
        self.partition.note_damage(first, last);
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
}

enum Stop {
    /// The next segment, or the high watermark, begins.
    End,
    /// There is enough.
    Full,
    /// These offsets do not verify; read on at the position.
    Damaged { last: i64, position: u64 },
}

/// Whether an error says that bytes are gone. Anything else, as too many open files, may be over the next time.
fn is_damage(error: &io::Error) -> bool {
    const LOST: [Errno; 6] =
        [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO, Errno::HWPOISON];
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    ) || Errno::from_io_error(error).is_some_and(|code| LOST.contains(&code))
}
