//! The fixed header in front of every stored batch.
//!
//! A batch in a segment file is field 1 of a `LogSlice`: a tag, a length in four padded bytes, then a `RecordBatch` of which
//! every header field is written, zero or not, in this order. So the header is valid protobuf and still every
//! field has a fixed place, counted from the batch's tag:
//!
//! ```text
//!  0  0A l l l l             tag, length of all that follows (4-byte padded varint)
//!  5  09 base_offset:8       15 last_offset_delta:4   1D leader_epoch:4   25 record_count:4   2D attributes:4
//! 34  31 append_time_ms:8    39 max_timestamp_ms:8    41 producer_id:8    4D producer_epoch:4  55 base_sequence:4
//! 71  5D records_crc32:4     65 header_crc32:4
//! 81  payload: 7A len Record, again and again | 72 len packed | nothing
//! ```
//!
//! Invariants
//! 1. `header_crc32` covers topic id, partition and bytes 0..76, so a batch verifies only in its own partition, and its length
//!    is covered too. `records_crc32` covers the payload, tags and lengths included, and is inside bytes 0..76.
//! 2. A zero where the tag is expected ends the log; 81 zero bytes never verify.
//! 3. Nothing is used before its bounds are checked, and no input makes [`decode`] panic.
//!
//! [`decode`] is strict: it is for our own files. What came over a network may have been written by others; for that see
//! [`crate::slice`].

use crate::fixed::Writer;
use crate::ids::TopicId;
use crate::limits::{MAX_RECORDS_PER_BATCH, MAX_STORED_BODY_BYTES};
use crate::v1::Codec;
use crate::varint;

/// Tag of a batch within a file or a slice.
pub const BATCH_TAG: u8 = 0x0A;
/// Bytes of a batch's tag and padded length.
pub const BATCH_LEAD_LEN: usize = 5;
/// Bytes of the header's twelve fields.
pub const HEADER_LEN: usize = 76;
/// Bytes in front of a stored batch's payload.
pub const BATCH_PREFIX_LEN: usize = BATCH_LEAD_LEN + HEADER_LEN;
/// Bytes of a batch that its `header_crc32` covers, from its tag.
pub const CRC_COVERED_LEN: usize = BATCH_PREFIX_LEN - 5;

/// Where the values of the header's fields lie, counted from the batch's tag.
pub mod at {
    /// `base_offset`, 8 bytes.
    pub const BASE_OFFSET: usize = 6;
    /// `last_offset_delta`, 4 bytes.
    pub const LAST_OFFSET_DELTA: usize = 15;
    /// `leader_epoch`, 4 bytes.
    pub const LEADER_EPOCH: usize = 20;
    /// `record_count`, 4 bytes.
    pub const RECORD_COUNT: usize = 25;
    /// `attributes`, 4 bytes.
    pub const ATTRIBUTES: usize = 30;
    /// `append_time_ms`, 8 bytes.
    pub const APPEND_TIME_MS: usize = 35;
    /// `max_timestamp_ms`, 8 bytes.
    pub const MAX_TIMESTAMP_MS: usize = 44;
    /// `producer_id`, 8 bytes.
    pub const PRODUCER_ID: usize = 53;
    /// `producer_epoch`, 4 bytes.
    pub const PRODUCER_EPOCH: usize = 62;
    /// `base_sequence`, 4 bytes.
    pub const BASE_SEQUENCE: usize = 67;
    /// `records_crc32`, 4 bytes.
    pub const RECORDS_CRC32: usize = 72;
    /// `header_crc32`, 4 bytes.
    pub const HEADER_CRC32: usize = 77;
}

/// Flags of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub u32);

/// What a payload is made of (attributes bits 6-7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// [`crate::v1::Record`]s, plain or packed.
    Records,
    /// Kafka v2 records, verbatim. Not served yet.
    Kafka,
}

impl Attributes {
    const CODEC: u32 = 0b111;
    const ATOMIC: u32 = 1 << 3;
    const CONTROL: u32 = 1 << 4;
    const HOLES: u32 = 1 << 5;
    const KIND_SHIFT: u32 = 6;
    const MUST_UNDERSTAND: u32 = 0xFF00;

    /// The codec of the payload, or `None` if this release does not know it.
    pub fn codec(self) -> Option<Codec> {
        match self.0 & Self::CODEC {
            0 => Some(Codec::Unspecified),
            1 => Some(Codec::Lz4),
            2 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The same flags with another codec.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        let number = match codec {
            Codec::Unspecified => 0,
            Codec::Lz4 => 1,
            Codec::Zstd => 2,
        };
        Self(self.0 & !Self::CODEC | number)
    }

    /// What the payload is made of, or `None` if this release does not know it.
    pub fn payload_kind(self) -> Option<PayloadKind> {
        match self.0 >> Self::KIND_SHIFT & 0b11 {
            0 => Some(PayloadKind::Records),
            1 => Some(PayloadKind::Kafka),
            _ => None,
        }
    }

    /// Part of a group of batches that count together or not at all.
    pub fn atomic(self) -> bool {
        self.0 & Self::ATOMIC != 0
    }

    /// The same flags with [`Self::atomic`] set.
    #[must_use]
    pub fn with_atomic(self) -> Self {
        Self(self.0 | Self::ATOMIC)
    }

    /// The broker's own marks, never sent to readers.
    pub fn control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Records were taken out: each record left carries its `offset_delta`.
    pub fn holes(self) -> bool {
        self.0 & Self::HOLES != 0
    }

    /// The same flags with [`Self::holes`] set.
    #[must_use]
    pub fn with_holes(self) -> Self {
        Self(self.0 | Self::HOLES)
    }

    /// Set bits that a reader must understand and this release does not: such a batch must be refused. Counted are bits
    /// 8-15, an unknown codec and an unknown payload kind.
    pub fn not_understood(self) -> u32 {
        let mut bits = self.0 & Self::MUST_UNDERSTAND;
        if self.codec().is_none() {
            bits |= self.0 & Self::CODEC;
        }
        if self.payload_kind().is_none() {
            bits |= self.0 & (0b11 << Self::KIND_SHIFT);
        }
        bits
    }
}

/// A batch's header without its own checksum, which depends on where the batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchHeader {
    /// Offset of index 0.
    pub base_offset: i64,
    /// Offsets spanned, less one.
    pub last_offset_delta: u32,
    /// Epoch of the leader that wrote it.
    pub leader_epoch: u32,
    /// Records in the payload.
    pub record_count: u32,
    /// Flags.
    pub attributes: Attributes,
    /// The broker's clock at append, milliseconds since 1970.
    pub append_time_ms: i64,
    /// Largest record time, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// 0 = none.
    pub producer_id: i64,
    /// Epoch of the producer.
    pub producer_epoch: u32,
    /// Sequence of `base_offset`.
    pub base_sequence: u32,
    /// crc32 of the payload.
    pub records_crc32: u32,
}

/// A header as [`decode`] found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodedHeader {
    /// Its fields.
    pub header: BatchHeader,
    /// Bytes of the whole batch, tag and length included.
    pub batch_len: usize,
    /// Its own checksum as it stands there; not checked by [`decode`].
    pub header_crc32: u32,
}

impl DecodedHeader {
    /// Bytes of the payload.
    pub fn payload_len(&self) -> usize {
        self.batch_len.saturating_sub(BATCH_PREFIX_LEN)
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A zero where a tag is expected: here the log ends.
    #[error("the log ends here")]
    End,
    /// Fewer bytes than a header has, or than the batch's length says.
    #[error("{have} bytes where {need} are needed")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Another byte than the tag that has to be there.
    #[error("a byte that is not the expected tag, {at} bytes into the batch")]
    Tag {
        /// Its place, counted from the batch's tag.
        at: usize,
    },
    /// A length that no batch has, or not in four padded bytes.
    #[error("a length that no batch has")]
    Length,
    /// Offsets or counts that no batch has.
    #[error("offsets or counts that no batch has")]
    Range,
    /// The header's checksum is of other bytes, another topic or another partition.
    #[error("the header does not verify")]
    HeaderCrc,
    /// The payload's checksum is of other bytes.
    #[error("the records do not verify")]
    PayloadCrc,
    /// The batch verifies, but sets attribute bits that this release does not understand.
    #[error("attribute bits {0:#x} are not understood: written by a newer release")]
    NotUnderstood(u32),
}

impl BatchHeader {
    /// The bytes in front of a payload of `payload_len` bytes, both checksums included (`records_crc32` as given).
    ///
    /// # Panics
    /// If `payload_len` is beyond [`MAX_STORED_BODY_BYTES`]; limits are checked long before.
    pub fn encode(&self, payload_len: usize, topic: &TopicId, partition: u32) -> [u8; BATCH_PREFIX_LEN] {
        let body_len = payload_len.saturating_add(HEADER_LEN);
        assert!(body_len <= MAX_STORED_BODY_BYTES, "a batch within the limits");
        let body_len = u32::try_from(body_len).unwrap_or(u32::MAX);

        let mut prefix = [0_u8; BATCH_PREFIX_LEN];
        let mut out = Writer::new(&mut prefix);
        out.tagged(BATCH_TAG, varint::padded4(body_len));
        out.tagged(0x09, self.base_offset.to_le_bytes());
        out.tagged(0x15, self.last_offset_delta.to_le_bytes());
        out.tagged(0x1D, self.leader_epoch.to_le_bytes());
        out.tagged(0x25, self.record_count.to_le_bytes());
        out.tagged(0x2D, self.attributes.0.to_le_bytes());
        out.tagged(0x31, self.append_time_ms.to_le_bytes());
        out.tagged(0x39, self.max_timestamp_ms.to_le_bytes());
        out.tagged(0x41, self.producer_id.to_le_bytes());
        out.tagged(0x4D, self.producer_epoch.to_le_bytes());
        out.tagged(0x55, self.base_sequence.to_le_bytes());
        out.tagged(0x5D, self.records_crc32.to_le_bytes());
        let crc = header_crc(&prefix, topic, partition);
        if let Some((_, own)) = prefix.split_at_mut_checked(CRC_COVERED_LEN) {
            Writer::new(own).tagged(0x65, crc.to_le_bytes());
        }
        prefix
    }

    /// The offset after the batch, or `None` beyond the largest offset there is.
    pub fn next_offset(&self) -> Option<i64> {
        self.base_offset.checked_add(i64::from(self.last_offset_delta))?.checked_add(1)
    }

    /// The last offset the batch spans, or `None` beyond the largest offset there is.
    pub fn last_offset(&self) -> Option<i64> {
        self.base_offset.checked_add(i64::from(self.last_offset_delta))
    }

    /// Whether the numbers can be those of a batch: no negative or overflowing offset, no more records than offsets, and fewer
    /// only where records may be missing.
    pub fn in_range(&self) -> bool {
        let spanned = u64::from(self.last_offset_delta) + 1;
        let count = u64::from(self.record_count);
        let full = count == spanned || self.attributes.holes() || self.attributes.control();
        self.base_offset >= 0
            && self.next_offset().is_some()
            && self.record_count <= MAX_RECORDS_PER_BATCH
            && count <= spanned
            && full
    }
}

/// The checksum over where a batch lies and the first 76 bytes of its prefix.
fn header_crc(prefix: &[u8; BATCH_PREFIX_LEN], topic: &TopicId, partition: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(topic.as_bytes());
    hasher.update(&partition.to_le_bytes());
    if let Some((covered, _)) = prefix.split_at_checked(CRC_COVERED_LEN) {
        hasher.update(covered);
    }
    hasher.finalize()
}

/// Reads tagged fixed-width fields, one after the other.
struct Fields<'a> {
    rest: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], HeaderError> {
        let short = HeaderError::Short { have: self.at + self.rest.len(), need: BATCH_PREFIX_LEN };
        let (&found, rest) = self.rest.split_first().ok_or(short)?;
        if found != tag {
            return Err(HeaderError::Tag { at: self.at });
        }
        let (value, rest) = rest.split_first_chunk::<N>().ok_or(short)?;
        self.rest = rest;
        self.at += 1 + N;
        Ok(*value)
    }

    fn u32(&mut self, tag: u8) -> Result<u32, HeaderError> {
        self.take(tag).map(u32::from_le_bytes)
    }

    fn i64(&mut self, tag: u8) -> Result<i64, HeaderError> {
        self.take(tag).map(i64::from_le_bytes)
    }
}

/// Reads the header at the start of `prefix` (which may go on behind it), strictly, without any checksum.
///
/// # Errors
/// [`HeaderError::End`] where a log ends, [`HeaderError::Short`] if there are fewer than [`BATCH_PREFIX_LEN`] bytes, else
/// what is wrong with the first thing that is wrong.
pub fn decode(prefix: &[u8]) -> Result<DecodedHeader, HeaderError> {
    if prefix.first() == Some(&0) {
        return Err(HeaderError::End);
    }
    let mut fields = Fields { rest: prefix, at: 0 };
    if prefix.len() < BATCH_PREFIX_LEN {
        return Err(HeaderError::Short { have: prefix.len(), need: BATCH_PREFIX_LEN });
    }
    let body_len = varint::from_padded4(fields.take(BATCH_TAG)?).ok_or(HeaderError::Length)?;
    let body_len = usize::try_from(body_len).map_err(|_| HeaderError::Length)?;
    if !(HEADER_LEN..=MAX_STORED_BODY_BYTES).contains(&body_len) {
        return Err(HeaderError::Length);
    }
    let header = BatchHeader {
        base_offset: fields.i64(0x09)?,
        last_offset_delta: fields.u32(0x15)?,
        leader_epoch: fields.u32(0x1D)?,
        record_count: fields.u32(0x25)?,
        attributes: Attributes(fields.u32(0x2D)?),
        append_time_ms: fields.i64(0x31)?,
        max_timestamp_ms: fields.i64(0x39)?,
        producer_id: fields.i64(0x41)?,
        producer_epoch: fields.u32(0x4D)?,
        base_sequence: fields.u32(0x55)?,
        records_crc32: fields.u32(0x5D)?,
    };
    let header_crc32 = fields.u32(0x65)?;
    if !header.in_range() {
        return Err(HeaderError::Range);
    }
    Ok(DecodedHeader { header, batch_len: BATCH_LEAD_LEN + body_len, header_crc32 })
}

/// Reads the header at the start of `prefix` and checks that it was written for this topic and partition, and that this release
/// understands it.
///
/// # Errors
/// As [`decode`], and [`HeaderError::HeaderCrc`], [`HeaderError::NotUnderstood`].
pub fn verify_header(prefix: &[u8], topic: &TopicId, partition: u32) -> Result<DecodedHeader, HeaderError> {
    let decoded = decode(prefix)?;
    let fixed = prefix
        .first_chunk::<BATCH_PREFIX_LEN>()
        .ok_or(HeaderError::Short { have: prefix.len(), need: BATCH_PREFIX_LEN })?;
    if header_crc(fixed, topic, partition) != decoded.header_crc32 {
        return Err(HeaderError::HeaderCrc);
    }
    match decoded.header.attributes.not_understood() {
        0 => Ok(decoded),
        bits => Err(HeaderError::NotUnderstood(bits)),
    }
}

/// Checks a payload against its header.
///
/// # Errors
/// [`HeaderError::PayloadCrc`].
pub fn verify_payload(header: &BatchHeader, payload: &[u8]) -> Result<(), HeaderError> {
    if crc32fast::hash(payload) == header.records_crc32 { Ok(()) } else { Err(HeaderError::PayloadCrc) }
}

/// Checks a whole stored batch at the start of `bytes` (which may go on behind it): header and payload.
///
/// # Errors
/// As [`verify_header`] and [`verify_payload`]; [`HeaderError::Short`] if the payload ends behind `bytes`.
pub fn verify_batch(bytes: &[u8], topic: &TopicId, partition: u32) -> Result<DecodedHeader, HeaderError> {
    let decoded = verify_header(bytes, topic, partition)?;
    let payload = bytes
        .get(BATCH_PREFIX_LEN..decoded.batch_len)
        .ok_or(HeaderError::Short { have: bytes.len(), need: decoded.batch_len })?;
    verify_payload(&decoded.header, payload)?;
    Ok(decoded)
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
