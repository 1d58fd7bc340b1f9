//! Encodes records into a run, for clients.
//!
//! Records go straight into one buffer, in the very bytes a log keeps: `7A len Record`, again and again. So a batch is
//! built once, sent as field 15 of a `ProduceRequest`, stored and read without being encoded again, and its checksum can be
//! sent along. Only canonical bytes come out (see [`crate::walk`](mod@crate::walk)); what a server would refuse is refused here, before it is
//! sent. Nothing is allocated per record.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{
    DEFAULT_MAX_BATCH_BYTES, MAX_HEADER_NAME_BYTES, MAX_RECORD_BYTES, MAX_RECORDS_PER_BATCH,
    RESERVED_HEADER_PREFIX,
};
use crate::varint;
use crate::walk::RECORD_TAG;

/// A record to push. `H` yields names and values of headers, twice (once to measure, once to write).
#[derive(Debug, Clone, Copy)]
pub struct RecordParts<'a, H> {
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none = tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: H,
    /// Milliseconds since 1970; none = the broker's clock at append counts.
    pub timestamp_ms: Option<i64>,
}

/// Why a record was not taken. The builder is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It does not fit into this batch any more, but would fit into an empty one.
    #[error("the batch is full")]
    Full,
    /// It is too large for any batch.
    #[error("the record has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its bytes, tag and length included.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A header's name is empty or too long.
    #[error("a header's name has {len} bytes, 1..={MAX_HEADER_NAME_BYTES} are allowed")]
    HeaderName {
        /// Its length.
        len: usize,
    },
    /// A header's name begins as only the broker's do.
    #[error("header names beginning {RESERVED_HEADER_PREFIX:?} are the broker's")]
    HeaderReserved,
    /// The time is negative.
    #[error("a negative time")]
    NegativeTime,
}

/// A run that grows.
#[derive(Debug)]
pub struct BatchBuilder {
    run: BytesMut,
    count: u32,
    max_record_bytes: usize,
    max_batch_bytes: usize,
    max_records: u32,
}

/// A run that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its bytes: field 15, again and again.
    pub bytes: Bytes,
    /// Records in it.
    pub count: u32,
    /// crc32 of its bytes, for `ProduceRequest.records_crc32`.
    pub crc32: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(MAX_RECORD_BYTES, DEFAULT_MAX_BATCH_BYTES)
    }
}

impl BatchBuilder {
    /// An empty run with the limits the server has told.
    pub fn new(max_record_bytes: usize, max_batch_bytes: usize) -> Self {
        let max_record_bytes = max_record_bytes.min(max_batch_bytes);
        Self {
            run: BytesMut::new(),
            count: 0,
            max_record_bytes,
            max_batch_bytes,
            max_records: MAX_RECORDS_PER_BATCH,
        }
    }

    /// The same builder with room for `bytes` already allocated.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.run.reserve(bytes);
        self
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If it does not fit or is not one a server takes; then nothing has changed.
    pub fn push<'h, H>(&mut self, record: RecordParts<'_, H>) -> Result<(), PushError>
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
    {
        let body = measure(&record)?;
        let size = delimited(body);
        if size > self.max_record_bytes {
            return Err(PushError::TooLarge { size, limit: self.max_record_bytes });
        }
        if self.run.len() + size > self.max_batch_bytes || self.count >= self.max_records {
            return Err(PushError::Full);
        }
        self.run.reserve(size + Lead::MOST);
        self.write(record, body);
        self.count += 1;
        Ok(())
    }

    fn write<'h, H>(&mut self, record: RecordParts<'_, H>, body: usize)
    where
        H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    {
        let out = &mut self.run;
        let mut lead = Lead::default().field(RECORD_TAG, body);
        if let Some(key) = record.key {
            lead.field(0x0A, key.len()).put(out);
            out.put_slice(key);
            lead = Lead::default();
        }
        if let Some(value) = record.value {
            lead.field(0x12, value.len()).put(out);
            out.put_slice(value);
        } else {
            lead.put(out);
        }
        for (name, value) in record.headers {
            Lead::default().field(0x1A, header_body(name, value)).field(0x0A, name.len()).put(out);
            out.put_slice(name.as_bytes());
            if let Some(value) = value {
                Lead::default().field(0x12, value.len()).put(out);
                out.put_slice(value);
            }
        }
        if let Some(time) = record.timestamp_ms {
            out.put_u8(0x20);
            varint::put(out, time.cast_unsigned());
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.run.len()
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// crc32 of the bytes so far.
    pub fn crc32(&self) -> u32 {
        crc32fast::hash(&self.run)
    }

    /// The run; the builder is empty afterwards and can be used again.
    pub fn finish(&mut self) -> Run {
        let crc32 = self.crc32();
        let count = std::mem::take(&mut self.count);
        Run { bytes: self.run.split().freeze(), count, crc32 }
    }
}

/// Up to two tags with their lengths, gathered in a register: small records are many, and copying byte by byte is most of what
/// they cost. Lengths are below 2^35, so each pair takes at most six bytes.
#[derive(Clone, Copy, Default)]
struct Lead {
    bytes: u128,
    len: usize,
}

impl Lead {
    /// Bytes that [`Self::put`] writes before it takes back what is too much.
    const MOST: usize = size_of::<u128>();

    #[inline]
    fn field(self, tag: u8, length: usize) -> Self {
        let mut lead = self.byte(tag);
        let mut length = length as u64;
        while length >= 0x80 {
            lead = lead.byte((length & 0x7F) as u8 | 0x80);
            length >>= 7;
        }
        lead.byte((length & 0x7F) as u8)
    }

    #[inline]
    fn byte(self, byte: u8) -> Self {
        debug_assert!(self.len < Self::MOST, "two tags with their lengths fit");
        Self { bytes: self.bytes | u128::from(byte) << (8 * self.len), len: self.len + 1 }
    }

    #[inline]
    fn put(self, out: &mut BytesMut) {
        let end = out.len() + self.len;
        // All sixteen bytes at once are one store; a copy of just as many as needed is a call.
        out.put_slice(&self.bytes.to_le_bytes());
        out.truncate(end);
    }
}

/// Bytes of a field with a one-byte tag whose content has `len`.
fn delimited(len: usize) -> usize {
    1 + varint::len(len as u64) + len
}

fn header_body(name: &str, value: Option<&[u8]>) -> usize {
    delimited(name.len()) + value.map_or(0, |value| delimited(value.len()))
}

/// Bytes of the record's body, once it is clear that a server takes it.
fn measure<'h, H>(record: &RecordParts<'_, H>) -> Result<usize, PushError>
where
    H: IntoIterator<Item = (&'h str, Option<&'h [u8]>)> + Clone,
{
    let mut body = record.key.map_or(0, |key| delimited(key.len()));
    body += record.value.map_or(0, |value| delimited(value.len()));
    for (name, value) in record.headers.clone() {
        if name.is_empty() || name.len() > MAX_HEADER_NAME_BYTES {
            return Err(PushError::HeaderName { len: name.len() });
        }
        if name.starts_with(RESERVED_HEADER_PREFIX) {
            return Err(PushError::HeaderReserved);
        }
        body += delimited(header_body(name, value));
    }
    if let Some(time) = record.timestamp_ms {
        let time = u64::try_from(time).map_err(|_| PushError::NegativeTime)?;
        body += 1 + varint::len(time);
    }
    Ok(body)
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
