//! Cuts the front off a stored batch, so that a fetch from offset N begins with N.
//!
//! The payload is a run of records, so what is left of it is its tail: only the 81 bytes in front of it are written anew, and
//! nothing is copied.
//!
//! ```text
//! stored   [ prefix ][ r0 ][ r1 ][ r2 ][ r3 ]
//! from r2  [ prefix']      .     [ r2 ][ r3 ]     skip = bytes of r0 and r1
//! ```
//!
//! * Without holes the batch now begins at N: base offset and sequence rise, delta and count fall.
//! * With holes every record carries its distance from `base_offset`, so that stays, and with it delta and sequence; only the
//!   count falls, perhaps to none.
//! * `max_timestamp_ms` stays: an upper bound.
//! * The new checksums would make damage look sound, so the old ones are checked first, always.
//!
//! A packed batch cannot be cut: it is unpacked first ([`crate::compress::unpack_batch`]).

use std::ops::Range;

use crate::fields::{Fields, NotFields, Value};
use crate::header::{
    self, BATCH_PREFIX_LEN, BatchHeader, DecodedHeader, HEADER_LEN, HeaderError, PayloadKind, verify_payload,
};
use crate::ids::TopicId;
use crate::limits::MAX_STORED_BODY_BYTES;
use crate::slice::RecordRef;
use crate::v1::Codec;

/// A batch that begins later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Its header.
    pub header: BatchHeader,
    /// Its first bytes, both checksums included.
    pub prefix: [u8; BATCH_PREFIX_LEN],
    /// Bytes of the stored payload that it leaves out; the rest follows the prefix.
    pub skip: usize,
}

impl Trimmed {
    /// Where the rest of the payload lies within the stored batch of `batch_len` bytes, counted from that batch's tag.
    pub fn payload_in(&self, batch_len: usize) -> Range<usize> {
        let start = BATCH_PREFIX_LEN.saturating_add(self.skip).min(batch_len);
        start..batch_len
    }
}

/// Why a batch cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrimError {
    /// It does not verify.
    #[error(transparent)]
    Damaged(#[from] HeaderError),
    /// It verifies, but its records are not as its header says.
    #[error("the records are not as the header says")]
    Records,
    /// It is packed, or holds something else than records.
    #[error("only plain records can be cut")]
    NotPlain,
    /// It ends before that offset.
    #[error("the batch ends before offset {0}")]
    Beyond(i64),
    /// A record does not begin where an anchor says: the anchors are of something else.
    #[error("an anchor leads astray")]
    Astray,
}

/// Cuts the stored batch at the start of `batch` (which may go on behind it) so that it holds no offset below `from`. Where that is
/// nothing to cut, the prefix is as it was.
///
/// # Errors
/// If it cannot be cut there.
pub fn trim_to(batch: &[u8], topic: &TopicId, partition: u32, from: i64) -> Result<Trimmed, TrimError> {
    let decoded = header::verify_header(batch, topic, partition)?;
    let DecodedHeader { header, batch_len, .. } = decoded;
    let payload = batch
        .get(BATCH_PREFIX_LEN..batch_len)
        .ok_or(HeaderError::Short { have: batch.len(), need: batch_len })?;
    trim(&header, payload, topic, partition, from)
}

/// As [`trim_to`], for a header that has been verified and its payload.
///
/// # Errors
/// If it cannot be cut there.
pub fn trim(
    header: &BatchHeader,
    payload: &[u8],
    topic: &TopicId,
    partition: u32,
    from: i64,
) -> Result<Trimmed, TrimError> {
    let last = header.last_offset().ok_or(HeaderError::Range)?;
    if from > last {
        return Err(TrimError::Beyond(from));
    }
    if payload.len() > MAX_STORED_BODY_BYTES - HEADER_LEN {
        return Err(HeaderError::Length.into());
    }
    verify_payload(header, payload)?;
    let mut header = *header;
    let mut skip = 0;
    if from > header.base_offset {
        plain(&header)?;
        let cut = find(&header, payload, from).map_err(|NotFields| TrimError::Records)?;
        skip = cut.skip;
        header.record_count = header.record_count.checked_sub(cut.records).ok_or(TrimError::Records)?;
        if !header.attributes.holes() {
            // No holes: as many offsets as records.
            header.base_offset = from;
            header.last_offset_delta =
                header.last_offset_delta.checked_sub(cut.records).ok_or(TrimError::Records)?;
            if header.producer_id != 0 {
                header.base_sequence = header.base_sequence.wrapping_add(cut.records);
            }
        }
        header.records_crc32 = crc32fast::hash(payload.get(skip..).unwrap_or_default());
    }
    let prefix = header.encode(payload.len().saturating_sub(skip), topic, partition);
    Ok(Trimmed { header, prefix, skip })
}

pub(crate) fn plain(header: &BatchHeader) -> Result<(), TrimError> {
    let flags = header.attributes;
    let records = flags.payload_kind() == Some(PayloadKind::Records) && !flags.control();
    if records && flags.codec() == Some(Codec::Unspecified) { Ok(()) } else { Err(TrimError::NotPlain) }
}

/// What lies before an offset.
struct Cut {
    records: u32,
    skip: usize,
}

/// Finds the first record at or after `from`, or the end.
fn find(header: &BatchHeader, payload: &[u8], from: i64) -> Result<Cut, NotFields> {
    let holes = header.attributes.holes();
    let mut cut = Cut { records: 0, skip: 0 };
    let mut fields = Fields::new(payload);
    loop {
        if !holes && header.base_offset + i64::from(cut.records) >= from {
            return Ok(cut);
        }
        match fields.next()? {
            Some((15, Value::Bytes(record))) => {
                if holes && RecordRef::parse(record, header, cut.records)?.offset >= from {
                    return Ok(cut);
                }
            }
            // Without holes `from` lies before the end.
            None if holes => return Ok(cut),
            _ => return Err(NotFields),
        }
        cut.records += 1;
        cut.skip = payload.len() - fields.left();
    }
}

#[cfg(test)]
#[path = "trim_tests.rs"]
mod tests;
