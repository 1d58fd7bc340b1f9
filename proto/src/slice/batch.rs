//! One batch of a slice.

use std::ops::Range;

use bytes::Bytes;

use super::pieces::PieceFields;
use super::record::Records;
use super::{Slice, SliceError};
use crate::compress;
use crate::fields::{Fields, NotFields, Value};
use crate::header::{self, Attributes, BatchHeader, HEADER_LEN, HeaderError, PayloadKind};
use crate::ids::TopicId;
use crate::limits::{HARD_MAX_BATCH_BYTES, MAX_STORED_BODY_BYTES};
use crate::v1::Codec;

/// The batches of a slice.
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    fields: PieceFields<'a>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(message: &'a [Bytes]) -> Self {
        Self { fields: PieceFields::new(message) }
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, SliceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.fields.next() {
                Ok(Some((1, held))) => {
                    if let Some(batch) = self.fields.bytes(held) {
                        return Some(Batch::parse(&batch));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(NotFields) => return Some(Err(SliceError::Malformed("LogSlice"))),
            }
        }
    }
}

/// A batch as it came, its payload in the message's memory.
#[derive(Debug, Clone)]
pub struct Batch {
    header: BatchHeader,
    header_crc32: u32,
    /// The payload field or fields, tags and lengths included.
    payload: Bytes,
    /// What the codec unpacks, in a packed batch.
    packed: Option<Bytes>,
}

impl Batch {
    /// Reads a `RecordBatch`: any width of lengths and any order of fields, its records in one run.
    ///
    /// # Errors
    /// If it is not one, or is one that this release must not read.
    pub fn parse(message: &Bytes) -> Result<Self, SliceError> {
        if message.len() > MAX_STORED_BODY_BYTES {
            return Err(SliceError::BatchTooLarge { size: message.len() });
        }
        let mut parts = Parts::default();
        let mut fields = Fields::new(message);
        let wrong = || SliceError::Malformed("RecordBatch");
        loop {
            let start = message.len() - fields.left();
            let run = fields.skip_records();
            if run > 0 {
                parts.take_records(start..start + run).ok_or_else(wrong)?;
                continue;
            }
            let Some(field) = fields.next().map_err(|NotFields| wrong())? else { break };
            parts.take(field, start..message.len() - fields.left()).ok_or_else(wrong)?;
        }
        let Parts { header, header_crc32, payload, packed } = parts;
        let payload = payload.unwrap_or_default();
        // What the header's checksum is computed over must fit the fixed form.
        if payload.len() > MAX_STORED_BODY_BYTES - HEADER_LEN {
            return Err(SliceError::BatchTooLarge { size: payload.len() });
        }
        if !header.in_range() || packed.is_some() != (header.attributes.codec() != Some(Codec::Unspecified)) {
            return Err(wrong());
        }
        if header.attributes.not_understood() != 0 {
            return Err(SliceError::Unsupported { base_offset: header.base_offset });
        }
        let packed = packed.map(|packed| message.slice_ref(packed));
        Ok(Self { header, header_crc32, payload: message.slice(payload), packed })
    }

    /// Its header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its payload field or fields, tags and lengths included.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Checks that its bytes are those that were stored in this partition: header and payload. For a slice with a topic id,
    /// [`Self::verify_in`].
    ///
    /// # Errors
    /// [`SliceError::Damaged`].
    pub fn verify(&self, topic: &TopicId, partition: u32) -> Result<(), SliceError> {
        let prefix = self.header.encode(self.payload.len(), topic, partition);
        let crc = prefix.last_chunk::<4>().copied().map(u32::from_le_bytes);
        let verdict = if crc == Some(self.header_crc32) {
            header::verify_payload(&self.header, &self.payload)
        } else {
            Err(HeaderError::HeaderCrc)
        };
        verdict.map_err(|error| SliceError::Damaged { base_offset: self.header.base_offset, error })
    }

    /// [`Self::verify`] with the partition and topic id of the slice it came in.
    ///
    /// # Errors
    /// [`SliceError::Damaged`]; [`SliceError::Malformed`] if the slice has no topic id.
    pub fn verify_in(&self, slice: &Slice) -> Result<(), SliceError> {
        let topic = slice.topic_id.ok_or(SliceError::Malformed("topic id"))?;
        self.verify(&topic, slice.partition)
    }

    /// The batch with its records unpacked, if they were packed. Its header is as it was but for the codec and the payload's
    /// checksum, so [`Self::verify`] is for the batch before.
    ///
    /// # Errors
    /// [`SliceError::Unpack`].
    pub fn unpacked(mut self) -> Result<Self, SliceError> {
        let Some(packed) = self.packed.take() else { return Ok(self) };
        let base_offset = self.header.base_offset;
        let codec = self.header.attributes.codec().unwrap_or_default();
        self.payload = compress::unpack(codec, &[packed], HARD_MAX_BATCH_BYTES)
            .map_err(|error| SliceError::Unpack { base_offset, error })?;
        self.header.attributes = self.header.attributes.with_codec(Codec::Unspecified);
        self.header.records_crc32 = crc32fast::hash(&self.payload);
        Ok(self)
    }

    /// Its records, in offset order. A control batch has none for readers.
    ///
    /// # Errors
    /// [`SliceError::Packed`] if it is packed, [`SliceError::Unsupported`] if it holds something else than records.
    pub fn records(&self) -> Result<Records<'_>, SliceError> {
        if self.header.attributes.control() {
            return Ok(Records::none(&self.header));
        }
        if self.header.attributes.payload_kind() != Some(PayloadKind::Records) {
            return Err(SliceError::Unsupported { base_offset: self.header.base_offset });
        }
        if self.packed.is_some() {
            return Err(SliceError::Packed);
        }
        Ok(Records::new(&self.header, &self.payload))
    }

    /// `part` of this batch (a key, a value) as bytes that live as long as they are held: the message's memory, shared. What is no part of
    /// it is copied.
    pub fn share(&self, part: &[u8]) -> Bytes {
        let (begin, from) = (self.payload.as_ptr().addr(), part.as_ptr().addr());
        match from.checked_sub(begin) {
            Some(at) if at.saturating_add(part.len()) <= self.payload.len() => {
                self.payload.slice(at..at + part.len())
            }
            _ => Bytes::copy_from_slice(part),
        }
    }
}

/// What is found of a batch, field by field.
#[derive(Default)]
struct Parts<'a> {
    header: BatchHeader,
    header_crc32: u32,
    payload: Option<Range<usize>>,
    packed: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// Takes a field that lies at `place`; `None` if a batch has no such field.
    fn take(&mut self, field: (u32, Value<'a>), place: Range<usize>) -> Option<()> {
        let header = &mut self.header;
        match field {
            (1, Value::Eight(value)) => header.base_offset = value.cast_signed(),
            (2, Value::Four(value)) => header.last_offset_delta = value,
            (3, Value::Four(value)) => header.leader_epoch = value,
            (4, Value::Four(value)) => header.record_count = value,
            (5, Value::Four(value)) => header.attributes = Attributes(value),
            (6, Value::Eight(value)) => header.append_time_ms = value.cast_signed(),
            (7, Value::Eight(value)) => header.max_timestamp_ms = value.cast_signed(),
            (8, Value::Eight(value)) => header.producer_id = value.cast_signed(),
            (9, Value::Four(value)) => header.producer_epoch = value,
            (10, Value::Four(value)) => header.base_sequence = value,
            (11, Value::Four(value)) => header.records_crc32 = value,
            (12, Value::Four(value)) => self.header_crc32 = value,
            (15, Value::Bytes(_)) => self.take_records(place)?,
            (number @ (14 | 16 | 17), Value::Bytes(content)) => {
                if self.payload.replace(place).is_some() {
                    return None;
                }
                self.packed = (number == 14).then_some(content);
            }
            (1..=12 | 14..=17, _) => return None,
            _ => {}
        }
        Some(())
    }

    /// Takes records, which follow those before them or are the first.
    fn take_records(&mut self, place: Range<usize>) -> Option<()> {
        match &mut self.payload {
            Some(run) if run.end == place.start => run.end = place.end,
            Some(_) => return None,
            none => *none = Some(place),
        }
        Some(())
    }
}
