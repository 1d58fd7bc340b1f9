//! Checks a run of records in place, before a byte of it reaches a file.
//!
//! A run is what a producer sends and what a batch holds: field 15, again and again.
//!
//! ```text
//! 7A len Record  7A len Record  7A len Record ...
//!        0A len key   12 len value   1A len { 0A len name  12 len value } ...   20 timestamp  28 delta  30 deliver  38 expire
//! ```
//!
//! The bytes are kept as they came and handed to every later reader, so one odd record would break them all: some stock
//! decoders refuse it, some read something else, and a stub that re-encodes it gets other bytes and another checksum.
//! Therefore a run must be **canonical**: exactly the bytes that every serialiser writes.
//!
//! 1. Tags are those of `Record` and `Header`, one byte each, ascending; only headers may come again.
//! 2. Varints and lengths are as short as they can be.
//! 3. Header names are 1..=255 bytes of UTF-8; a header without a name does not exist.
//! 4. Times are not negative.
//! 5. From clients: no `offset_delta`, no header beginning `annals-`, nothing that is not served yet. In stored runs a delta is
//!    allowed, ascending.
//!
//! An explicitly present zero in an `optional` field is canonical: a stub that set it writes it again.
//!
//! Nothing is allocated. A record that lies within one piece of the body is checked over a plain slice, one that straddles
//! two over a cursor; both are the same code, compiled twice.

mod record;
mod source;

use bytes::Bytes;

use crate::chunks::Cursor;
use crate::limits::{DEFAULT_MAX_BATCH_BYTES, MAX_RECORD_BYTES, MAX_RECORDS_PER_BATCH, MAX_REQUEST_BYTES};
use record::{Checked, Tally, check_record, minimal_varint};
use source::{Limited, Source};

/// Tag of a record within a run.
pub const RECORD_TAG: u8 = 0x7A;

/// Who wrote the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer.
    Client,
    /// The broker: a batch from a file.
    Stored,
}

/// What to hold a run to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkRules {
    /// Largest record, tag and length included.
    pub max_record_bytes: usize,
    /// Largest run.
    pub max_run_bytes: usize,
    /// Most records.
    pub max_records: u32,
    /// Who wrote it.
    pub origin: Origin,
}

impl WalkRules {
    /// For a producer's run that goes to one partition: the default limits.
    pub const CLIENT: Self = Self {
        max_record_bytes: MAX_RECORD_BYTES,
        max_run_bytes: DEFAULT_MAX_BATCH_BYTES,
        max_records: MAX_RECORDS_PER_BATCH,
        origin: Origin::Client,
    };

    /// For a producer's run that is yet to be spread over partitions: the batch limit is checked after that.
    pub const CLIENT_SPREAD: Self =
        Self { max_run_bytes: MAX_REQUEST_BYTES, max_records: u32::MAX, ..Self::CLIENT };

    /// For the payload of a stored batch.
    pub const STORED: Self = Self {
        max_record_bytes: usize::MAX,
        max_run_bytes: usize::MAX,
        max_records: u32::MAX,
        origin: Origin::Stored,
    };
}

/// What a run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Records.
    pub record_count: u32,
    /// Bytes, tags and lengths included.
    pub bytes: u64,
    /// Largest timestamp set; 0 if none is.
    pub max_timestamp_ms: i64,
    /// Some record has no timestamp, or an explicit 0: for it the append time counts.
    pub timestamps_missing: bool,
    /// Records with a key.
    pub keyed: u32,
    /// Records with an `offset_delta`.
    pub deltas: u32,
    /// The largest `offset_delta`, that of the last record; 0 if there is none.
    pub last_delta: u32,
    /// crc32 of the run, tags and lengths included.
    pub crc32: u32,
}

/// Where one record of a run lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSpan {
    /// Its index.
    pub index: u32,
    /// Where its tag is, counted from the run's first byte.
    pub start: usize,
    /// Its bytes, tag and length included.
    pub len: usize,
    /// murmur2 of its key, if it has one.
    pub key_hash: Option<u32>,
    /// Its time; 0 if it has none: then the append time counts.
    pub timestamp_ms: i64,
}

/// A run that must not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {record}, byte {at} of the records: {reason}")]
pub struct Malformed {
    /// Index of the record.
    pub record: u32,
    /// Where it went wrong, counted from the run's first byte.
    pub at: u64,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The record, or a field of it, ends too early.
    #[error("it ends within a field")]
    Truncated,
    /// Where a record has to begin there is another field, or its tag is padded.
    #[error("a record has to begin here")]
    NotARecord,
    /// A field that no record has, or a padded tag.
    #[error("an unknown field, or a tag that is longer than need be")]
    UnknownField,
    /// A field of the wrong wire type.
    #[error("a field of the wrong wire type")]
    WireType,
    /// A lower field number after a higher one.
    #[error("fields are not in ascending order")]
    Order,
    /// A field that must come once came again.
    #[error("a field is set twice")]
    Repeated,
    /// A varint or length that is longer than need be.
    #[error("a varint that is longer than need be")]
    Padded,
    /// A varint beyond what the field holds.
    #[error("a number beyond what the field holds")]
    Overflow,
    /// A header without a name.
    #[error("a header has no name")]
    HeaderUnnamed,
    /// A header name that is too long.
    #[error("a header's name has {0} bytes, at most 255 are allowed")]
    HeaderNameLong(u64),
    /// A header name that is not UTF-8.
    #[error("a header's name is not UTF-8")]
    HeaderNameUtf8,
    /// A header name that only the broker writes.
    #[error("header names beginning \"annals-\" are the broker's")]
    HeaderReserved,
    /// A negative time.
    #[error("a negative time")]
    NegativeTime,
    /// `offset_delta` from a client.
    #[error("offset_delta is the broker's")]
    OffsetDelta,
    /// `offset_delta` that does not ascend.
    #[error("offset_delta does not ascend")]
    DeltaOrder,
    /// `deliver_at_ms` or `expires_at_ms`.
    #[error("deliver_at_ms and expires_at_ms are not served yet")]
    NotServed,
    /// The record is too large.
    #[error("the record has {size} bytes, at most {limit} are allowed")]
    RecordTooLarge {
        /// Its bytes, tag and length included.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The run is too large.
    #[error("the records have {size} bytes together, at most {limit} are allowed")]
    RunTooLarge {
        /// Its bytes.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// There are too many records.
    #[error("more than {limit} records")]
    TooManyRecords {
        /// The limit.
        limit: u32,
    },
}

/// Checks a run and tells what it holds.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn walk(chunks: &[Bytes], rules: &WalkRules) -> Result<Walked, Malformed> {
    run::<false>(chunks, rules, |_| ())
}

/// Checks a run, hashes the keys, and hands every record to `each` as soon as it is checked. If a later one is wrong, `each` has
/// seen those before it.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn walk_each(
    chunks: &[Bytes],
    rules: &WalkRules,
    each: impl FnMut(RecordSpan),
) -> Result<Walked, Malformed> {
    run::<true>(chunks, rules, each)
}

fn run<const HASH: bool>(
    chunks: &[Bytes],
    rules: &WalkRules,
    mut each: impl FnMut(RecordSpan),
) -> Result<Walked, Malformed> {
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    if bytes > rules.max_run_bytes {
        let reason = Reason::RunTooLarge { size: bytes as u64, limit: rules.max_run_bytes as u64 };
        return Err(Malformed { record: 0, at: 0, reason });
    }
    let mut tally = Tally::default();
    let mut index = 0_u32;
    let mut cursor = Cursor::new(chunks);
    while !cursor.rest().is_empty() {
        let start = cursor.pos();
        let fault = |(at, reason)| Malformed { record: index, at: at as u64, reason };
        if index >= rules.max_records {
            return Err(fault((start, Reason::TooManyRecords { limit: rules.max_records })));
        }
        let Checked { key_hash, timestamp_ms } =
            next_record::<HASH>(&mut cursor, rules, &mut tally).map_err(fault)?;
        each(RecordSpan { index, start, len: cursor.pos() - start, key_hash, timestamp_ms });
        index = index.saturating_add(1);
    }
    let mut hasher = crc32fast::Hasher::new();
    for chunk in chunks {
        hasher.update(chunk);
    }
    Ok(tally.finish(index, bytes as u64, hasher.finalize()))
}

/// Checks the record at the cursor and steps over it, or tells where it went wrong and why.
#[inline]
fn next_record<const HASH: bool>(
    cursor: &mut Cursor<'_>,
    rules: &WalkRules,
    tally: &mut Tally,
) -> Result<Checked, (usize, Reason)> {
    let start = cursor.pos();
    if let Some((lead, mut body)) = whole_record(cursor.rest()) {
        let len = lead + body.len();
        fits(len, rules).map_err(|reason| (start, reason))?;
        let end = start + len;
        let checked = check_record::<_, HASH>(&mut body, rules.origin, tally)
            .map_err(|reason| (end - body.left(), reason))?;
        let _ = cursor.skip(len);
        return Ok(checked);
    }
    // It straddles two pieces, or something is wrong with it.
    let mut lead = Limited::new(cursor, usize::MAX);
    match lead.byte() {
        Some(RECORD_TAG) => {}
        Some(_) => return Err((start, Reason::NotARecord)),
        None => return Err((start, Reason::Truncated)),
    }
    let len = minimal_varint(&mut lead).map_err(|reason| (start + 1, reason))?;
    let len = usize::try_from(len).map_err(|_| (start + 1, Reason::Overflow))?;
    let lead = cursor.pos() - start;
    fits(len.saturating_add(lead), rules).map_err(|reason| (start, reason))?;
    if len > cursor.remaining() {
        return Err((start, Reason::Truncated));
    }
    let end = cursor.pos() + len;
    let mut body = Limited::new(cursor, len);
    check_record::<_, HASH>(&mut body, rules.origin, tally).map_err(|reason| (end - body.left(), reason))
}

fn fits(len: usize, rules: &WalkRules) -> Result<(), Reason> {
    if len > rules.max_record_bytes {
        return Err(Reason::RecordTooLarge { size: len as u64, limit: rules.max_record_bytes as u64 });
    }
    Ok(())
}

/// The width of tag and length, and the body, of a record that lies whole in `bytes`, if its tag and length are canonical.
#[inline]
pub(crate) fn whole_record(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let group = |byte: u8| usize::from(byte & 0x7F);
    let (lead, len, body) = match bytes {
        [RECORD_TAG, a @ ..=0x7F, body @ ..] => (2, group(*a), body),
        [RECORD_TAG, a, b @ 1..=0x7F, body @ ..] => (3, group(*a) | group(*b) << 7, body),
        [RECORD_TAG, a, b @ 0x80..=0xFF, c @ 1..=0x7F, body @ ..] => {
            (4, group(*a) | group(*b) << 7 | group(*c) << 14, body)
        }
        _ => return None,
    };
    body.get(..len).map(|body| (lead, body))
}

/// How many records ahead [`whole_records`] reads.
const AHEAD: usize = 8;

/// How many bytes of `bytes` are whole records whose tags and lengths are canonical, one behind the other from its beginning.
///
/// Who asks is the first to look at bytes that the kernel has just copied, past the caches, and where a record begins is known
/// only once the length of the one before has arrived: one trip to memory after the other. So a byte is read where a later
/// record begins if those in between are as long as this one; nobody waits for it, and it brings its line along.
pub(crate) fn whole_records(bytes: &[u8]) -> usize {
    let (mut end, mut ahead) = (0, 0);
    while let Some((lead, body)) = bytes.get(end..).and_then(whole_record) {
        let len = lead + body.len();
        end += len;
        ahead ^= bytes.get(end + AHEAD * len).copied().unwrap_or(0);
    }
    std::hint::black_box(ahead);
    end
}

#[cfg(test)]
#[path = "walk/tests.rs"]
mod tests;
