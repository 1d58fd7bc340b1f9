//! Takes the records that a reader asked for out of a stored batch.
//!
//! What is left of a batch is runs of records that lie one behind the other. Each is sent as a batch of its own, so nothing is
//! decoded or encoded again, and no reader has to know that there was more:
//!
//! ```text
//! stored   [ prefix  ][ r0 ][ r1 ][ r2 ][ r3 ][ r4 ]         base offset 10
//! picked              [ r0 ][ r1 ]        [ r3 ]
//! sent     [ prefix' ][ r0 ][ r1 ]  [ prefix''][ r3 ]        base offsets 10 and 13
//! ```
//!
//! * Without holes every run begins at the offset of its first record, and base sequence, delta and count follow from that.
//! * In a batch with holes every record carries its distance from `base_offset`: all that is left is sent as one batch, in which
//!   that, delta and sequence stay; only the count falls.
//! * `max_timestamp_ms` stays: an upper bound.
//! * The new checksums would make damage look sound, so the old one is checked first, once there is anything to send; unless the
//!   caller knows that the payload was verified.
//!
//! Who knows where some of the records begin ([`Anchor`]) need not step over all that lie before the wanted ones. An anchor
//! is a hint: the walk that began at one goes on to the next, or to the end of the batch, and has to arrive there.
//!
//! A packed batch cannot be picked from: it is unpacked first ([`crate::compress::unpack_batch`]).

use std::ops::Range;

use crate::fields::{Fields, NotFields, Value};
use crate::header::{BATCH_PREFIX_LEN, BatchHeader, HEADER_LEN, HeaderError, verify_payload};
use crate::ids::TopicId;
use crate::limits::MAX_STORED_BODY_BYTES;
use crate::slice::RecordRef;
use crate::trim::{TrimError, plain};
use crate::walk::whole_record;

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picked {
    /// All of it: it can be sent as it is stored.
    Whole,
    /// These batches; none if no record was wanted.
    Parts(Vec<Part>),
}

/// A batch made of some of the records of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its header.
    pub header: BatchHeader,
    /// Its first bytes, both checksums included.
    pub prefix: [u8; BATCH_PREFIX_LEN],
    /// Where its records lie in the payload of the other, in order: one range, or several of a batch with holes.
    pub records: Vec<Range<usize>>,
    /// Offset of its first record.
    pub first_offset: i64,
}

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Its offset.
    pub offset: i64,
    /// Where its tag is in the payload of its batch, which has no holes.
    pub at: u32,
}

/// Which records are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Looks<'a> {
    /// Offsets, ascending and apart from each other; records elsewhere are not wanted.
    pub places: &'a [Range<i64>],
    /// Where some records begin, ascending; those of other batches do no harm.
    pub anchors: &'a [Anchor],
    /// The payload is known to be what its checksum says.
    pub verified: bool,
}

/// Picks the records that lie in one of the places looked at, and for which `wanted` says so. `header` has been verified.
///
/// # Errors
/// If the payload does not verify, is no plain run of records, or is not as the header says; [`TrimError::Astray`] if it is not
/// as the anchors say.
pub fn pick(
    header: &BatchHeader,
    payload: &[u8],
    topic: &TopicId,
    partition: u32,
    looks: Looks<'_>,
    wanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Picked, TrimError> {
    plain(header)?;
    if payload.len() > MAX_STORED_BODY_BYTES - HEADER_LEN {
        return Err(HeaderError::Length.into());
    }
    let mut walk = Walk::new(header, payload, looks);
    let runs = walk.find(wanted).map_err(|NotFields| {
        if walk.jumped {
            return TrimError::Astray;
        }
        // What does not verify is damage, whatever else it looks like.
        verify_payload(header, payload).map_or_else(TrimError::from, |()| TrimError::Records)
    })?;
    if runs.is_empty() {
        return Ok(Picked::Parts(Vec::new()));
    }
    if !looks.verified {
        verify_payload(header, payload)?;
    }
    let picked: u32 = runs.iter().map(|run| run.count).sum();
    if picked == header.record_count {
        return Ok(Picked::Whole);
    }
    let part = |header: BatchHeader, first_offset: i64, runs: &[Run]| {
        let mut hasher = crc32fast::Hasher::new();
        let mut len = 0;
        for run in runs {
            hasher.update(payload.get(run.bytes.clone()).unwrap_or_default());
            len += run.bytes.len();
        }
        let header = BatchHeader { records_crc32: hasher.finalize(), ..header };
        let records = runs.iter().map(|run| run.bytes.clone()).collect();
        Part { header, prefix: header.encode(len, topic, partition), records, first_offset }
    };
    let first_offset = runs.first().map_or(header.base_offset, |run| run.first_offset);
    let parts = if header.attributes.holes() {
        vec![part(BatchHeader { record_count: picked, ..*header }, first_offset, &runs)]
    } else {
        runs.iter()
            .map(|run| part(run.header_without_holes(header), run.first_offset, std::slice::from_ref(run)))
            .collect()
    };
    Ok(Picked::Parts(parts))
}

/// Records that lie one behind the other.
struct Run {
    bytes: Range<usize>,
    /// Index of the first.
    index: u32,
    first_offset: i64,
    count: u32,
}

impl Run {
    fn header_without_holes(&self, header: &BatchHeader) -> BatchHeader {
        let base_sequence = match header.producer_id {
            0 => header.base_sequence,
            _ => header.base_sequence.wrapping_add(self.index),
        };
        BatchHeader {
            base_offset: self.first_offset,
            last_offset_delta: self.count.saturating_sub(1),
            record_count: self.count,
            base_sequence,
            ..*header
        }
    }
}

/// A walk through a payload.
struct Walk<'a> {
    header: &'a BatchHeader,
    payload: &'a [u8],
    /// Those of this batch that are not passed yet.
    places: &'a [Range<i64>],
    /// Those of this batch that are still ahead.
    anchors: &'a [Anchor],
    at: usize,
    index: u32,
    /// It began anew at an anchor.
    jumped: bool,
    /// It has not met an anchor since.
    owes: bool,
}

impl<'a> Walk<'a> {
    fn new(header: &'a BatchHeader, payload: &'a [u8], looks: Looks<'a>) -> Self {
        // Those that lie in this batch, at least in part.
        let before = looks.places.partition_point(|place| place.end <= header.base_offset);
        let next = header.next_offset().unwrap_or(i64::MAX);
        let behind = looks.places.partition_point(|place| place.start < next);
        let places = looks.places.get(before..behind).unwrap_or_default();
        let mut walk = Self {
            header,
            payload,
            places,
            anchors: looks.anchors,
            at: 0,
            index: 0,
            jumped: false,
            owes: false,
        };
        walk.pass_anchors(header.base_offset);
        if header.attributes.holes() {
            walk.anchors = &[];
        }
        walk
    }

    /// Anchors before an offset are of no more use.
    fn pass_anchors(&mut self, offset: i64) {
        let passed = self.anchors.partition_point(|anchor| anchor.offset < offset);
        self.anchors = self.anchors.get(passed..).unwrap_or_default();
    }

    fn offset(&self) -> i64 {
        self.header.base_offset.saturating_add(self.index.into())
    }

    /// Goes to the last anchor that is not behind the next place, if there is one ahead.
    fn jump(&mut self, to: i64) {
        let before = self.anchors.partition_point(|anchor| anchor.offset <= to);
        let Some(anchor) = before.checked_sub(1).and_then(|last| self.anchors.get(last)) else { return };
        let index = u32::try_from(anchor.offset - self.header.base_offset);
        let (Ok(index), Ok(at)) = (index, usize::try_from(anchor.at)) else { return };
        if index > self.index && index < self.header.record_count {
            (self.index, self.at, self.jumped, self.owes) = (index, at, true, true);
            self.anchors = self.anchors.get(before..).unwrap_or_default();
        }
    }

    /// Whether the walk is where an anchor says, if one speaks of this record.
    fn meets(&mut self, offset: i64) -> bool {
        match self.anchors.first().filter(|anchor| anchor.offset == offset) {
            None => true,
            Some(anchor) => {
                let here = usize::try_from(anchor.at) == Ok(self.at);
                self.anchors = self.anchors.get(1..).unwrap_or_default();
                self.owes = false;
                here
            }
        }
    }

    /// The runs of records that are wanted.
    fn find(&mut self, mut wanted: impl FnMut(&RecordRef<'_>) -> bool) -> Result<Vec<Run>, NotFields> {
        let holes = self.header.attributes.holes();
        let mut runs: Vec<Run> = Vec::new();
        while self.at < self.payload.len() {
            // Where there are no holes a record's offset is known before it is read.
            if !holes {
                let offset = self.offset();
                if !self.meets(offset) {
                    self.jumped = true;
                    return Err(NotFields);
                }
                if let Some(place) = self.places.first().filter(|place| place.start > offset && !self.owes) {
                    self.jump(place.start);
                }
            }
            if self.places.is_empty() && !self.owes {
                // Nothing behind this is asked for: that the records are as many as the header says is for who reads them.
                return Ok(runs);
            }
            let (len, body) = next_record(self.payload.get(self.at..).ok_or(NotFields)?)?;
            if holes || self.places.first().is_some_and(|place| place.start <= self.offset()) {
                let record = RecordRef::parse(body, self.header, self.index)?;
                let passed = self.places.iter().take_while(|place| place.end <= record.offset).count();
                self.places = self.places.get(passed..).unwrap_or_default();
                let here = self.places.first().is_some_and(|place| place.start <= record.offset);
                if here && wanted(&record) {
                    self.add(&mut runs, record.offset, len);
                }
            }
            self.at += len;
            self.index += 1;
        }
        if self.index == self.header.record_count { Ok(runs) } else { Err(NotFields) }
    }

    fn add(&self, runs: &mut Vec<Run>, first_offset: i64, len: usize) {
        if let Some(run) = runs.last_mut().filter(|run| run.bytes.end == self.at) {
            run.bytes.end += len;
            run.count += 1;
        } else {
            let bytes = self.at..self.at + len;
            runs.push(Run { bytes, index: self.index, first_offset, count: 1 });
        }
    }
}

/// Bytes of the record at the front, and its body.
#[inline]
fn next_record(rest: &[u8]) -> Result<(usize, &[u8]), NotFields> {
    if let Some((lead, body)) = whole_record(rest) {
        return Ok((lead + body.len(), body));
    }
    let mut fields = Fields::new(rest);
    match fields.next()? {
        Some((15, Value::Bytes(body))) => Ok((rest.len() - fields.left(), body)),
        _ => Err(NotFields),
    }
}

#[cfg(test)]
#[path = "pick_tests.rs"]
mod tests;
