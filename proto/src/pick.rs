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
//! * The new checksums would make damage look sound, so the old one is checked first, once there is anything to send.
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

/// Picks the records whose offset is in one of `places` (ascending, apart from each other) and for which `wanted` says so.
/// `header` has been verified.
///
/// # Errors
/// If the payload does not verify, is no plain run of records, or is not as the header says.
pub fn pick(
    header: &BatchHeader,
    payload: &[u8],
    topic: &TopicId,
    partition: u32,
    places: &[Range<i64>],
    wanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Picked, TrimError> {
    plain(header)?;
    if payload.len() > MAX_STORED_BODY_BYTES - HEADER_LEN {
        return Err(HeaderError::Length.into());
    }
    let runs = find(header, payload, places, wanted).map_err(|NotFields| {
        // What does not verify is damage, whatever else it looks like.
        verify_payload(header, payload).map_or_else(TrimError::from, |()| TrimError::Records)
    })?;
    if runs.is_empty() {
        return Ok(Picked::Parts(Vec::new()));
    }
    verify_payload(header, payload)?;
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

/// The runs of records that are wanted.
fn find(
    header: &BatchHeader,
    payload: &[u8],
    places: &[Range<i64>],
    mut wanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Vec<Run>, NotFields> {
    let holes = header.attributes.holes();
    let mut places = places.iter().filter(|place| place.end > header.base_offset);
    let mut place = places.next();
    let mut runs: Vec<Run> = Vec::new();
    let (mut at, mut index) = (0, 0_u32);
    while let Some(rest) = payload.get(at..).filter(|rest| !rest.is_empty()) {
        let (len, body) = next_record(rest)?;
        // Where there are no holes a record's offset is known before it is read.
        let offset = header.base_offset.saturating_add(index.into());
        let unread = !holes && place.is_none_or(|place| offset < place.start);
        if !unread {
            let record = RecordRef::parse(body, header, index)?;
            while place.is_some_and(|place| place.end <= record.offset) {
                place = places.next();
            }
            if place.is_some_and(|place| place.start <= record.offset) && wanted(&record) {
                if let Some(run) = runs.last_mut().filter(|run| run.bytes.end == at) {
                    run.bytes.end += len;
                    run.count += 1;
                } else {
                    runs.push(Run { bytes: at..at + len, index, first_offset: record.offset, count: 1 });
                }
            }
        }
        at += len;
        index += 1;
        if place.is_none() {
            // Nothing behind this is asked for: that the records are as many as the header says is for who reads them.
            return Ok(runs);
        }
    }
    if index == header.record_count { Ok(runs) } else { Err(NotFields) }
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
