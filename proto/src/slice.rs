//! Reading and writing what a fetch answers with.
//!
//! ```text
//! FetchResponse      0A len LogSlice   0A len LogSlice   ...   12 len PartitionError
//! LogSlice           fields 2..10 (Prefix)   0A len RecordBatch   0A len RecordBatch   ...
//! SubscribeResponse  0A len LogSlice   or one other event
//! ```
//!
//! A server never decodes a batch: [`Prefix`] writes everything that stands before the batches, and the batches follow as they lie
//! in the file. Since fields may come in any order, the two together are one valid slice.
//!
//! A reader that knows this crate need not decode either: [`FetchBody`] and [`Subscribed`] find the slices in a message, a [`Slice`]
//! its batches, a [`Batch`] its records, all as parts of the message's memory, which may be in pieces as the network delivered it. Everything is checked before it is used and nothing
//! panics; whoever wants to know that the bytes are those the producer sent calls [`Batch::verify`].
//!
//! Offsets come from the batch, never from counting across batches: `base_offset + offset_delta`, or `+ index` where a record carries no
//! delta. The place to read on is [`Slice::next_offset`] alone.

mod batch;
mod pieces;
mod prefix;
mod record;

use bytes::Bytes;
use prost::Message as _;

pub use batch::{Batch, Batches};
use pieces::{Held, PieceFields};
pub use prefix::Prefix;
pub use record::{Headers, RecordRef, Records};

use crate::chunks::Chunks;
use crate::compress::UnpackError;
use crate::fields::{NotFields, Value, low_u32};
use crate::header::HeaderError;
use crate::ids::TopicId;
use crate::v1::consume_response::Event as ConsumeEvent;
use crate::v1::subscribe_response::Event;
use crate::v1::{CaughtUp, ConsumeResponse, Drain, Heartbeat, OffsetGap, PartitionError, SubscribeResponse};

/// Why bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// Not a message of the expected kind.
    #[error("not a {0}")]
    Malformed(&'static str),
    /// A batch larger than any.
    #[error("a batch of {size} bytes")]
    BatchTooLarge {
        /// Its bytes.
        size: usize,
    },
    /// The batch is packed; see [`Batch::unpacked`].
    #[error("the batch is packed")]
    Packed,
    /// The payload is of a kind this release does not read.
    #[error("the batch at offset {base_offset} holds what this release does not read")]
    Unsupported {
        /// Offset of the batch.
        base_offset: i64,
    },
    /// Header or payload do not verify.
    #[error("the batch at offset {base_offset}: {error}")]
    Damaged {
        /// Offset of the batch.
        base_offset: i64,
        /// What does not verify.
        error: HeaderError,
    },
    /// The batch cannot be unpacked.
    #[error("the batch at offset {base_offset}: {error}")]
    Unpack {
        /// Offset of the batch.
        base_offset: i64,
        /// Why not.
        error: UnpackError,
    },
}

/// The body of a `FetchResponse`.
#[derive(Debug, Clone, Default)]
pub struct FetchBody {
    /// One per partition that could answer, in the order asked.
    pub slices: Vec<Slice>,
    /// Partitions that could not.
    pub errors: Vec<PartitionError>,
}

impl FetchBody {
    /// Reads a whole message; its slices share the message's memory.
    ///
    /// # Errors
    /// If it is not one. What is wrong inside a batch shows when the batch is read.
    pub fn parse(message: &Bytes) -> Result<Self, SliceError> {
        Self::parse_pieces(std::slice::from_ref(message))
    }

    /// [`Self::parse`] of a message in pieces.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub fn parse_pieces(message: &[Bytes]) -> Result<Self, SliceError> {
        let wrong = || SliceError::Malformed("FetchResponse");
        let mut out = Self::default();
        let mut fields = PieceFields::new(message);
        while let Some((number, held)) = fields.next().map_err(|NotFields| wrong())? {
            match number {
                1 => out.slices.push(Slice::of(fields.pieces(held).ok_or_else(wrong)?)?),
                2 => {
                    let error = PartitionError::decode(fields.bytes(held).ok_or_else(wrong)?);
                    out.errors.push(error.map_err(|_| SliceError::Malformed("PartitionError"))?);
                }
                _ => {}
            }
        }
        Ok(out)
    }
}

/// The body of a `SubscribeResponse`.
#[derive(Debug, Clone)]
pub enum Subscribed {
    /// Records of one partition.
    Slice(Slice),
    /// Sign of life.
    Heartbeat(Heartbeat),
    /// Everything of one partition is read.
    CaughtUp(CaughtUp),
    /// Reconnect.
    Drain(Drain),
    /// One partition stops here.
    PartitionError(PartitionError),
    /// An event that a later release has: to be ignored.
    Unknown,
}

impl Subscribed {
    /// Reads a whole message; a slice shares the message's memory.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(message: &Bytes) -> Result<Self, SliceError> {
        Self::parse_pieces(std::slice::from_ref(message))
    }

    /// [`Self::parse`] of a message in pieces.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub fn parse_pieces(message: &[Bytes]) -> Result<Self, SliceError> {
        let wrong = || SliceError::Malformed("SubscribeResponse");
        if let Some(slice) = lone_slice(message) {
            return slice.map(Self::Slice);
        }
        let event = SubscribeResponse::decode(Chunks::of(message).to_bytes()).map_err(|_| wrong())?.event;
        Ok(match event {
            // Scattered over several fields, which none of our servers does: put together by the decoder.
            Some(Event::Slice(slice)) => Self::Slice(Slice::parse(slice.encode_to_vec().into())?),
            Some(Event::Heartbeat(event)) => Self::Heartbeat(event),
            Some(Event::CaughtUp(event)) => Self::CaughtUp(event),
            Some(Event::Drain(event)) => Self::Drain(event),
            Some(Event::PartitionError(event)) => Self::PartitionError(event),
            None => Self::Unknown,
        })
    }
}

/// The body of a `ConsumeResponse`.
#[derive(Debug, Clone)]
pub enum ConsumerMessage {
    /// Records of one partition.
    Slice(Slice),
    /// Anything else.
    Event(ConsumeEvent),
    /// An event that a later release has: to be ignored.
    Unknown,
}

impl ConsumerMessage {
    /// Reads a whole message in pieces; a slice shares the message's memory.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse_pieces(message: &[Bytes]) -> Result<Self, SliceError> {
        if let Some(slice) = lone_slice(message) {
            return slice.map(Self::Slice);
        }
        let decoded = ConsumeResponse::decode(Chunks::of(message).to_bytes());
        Ok(match decoded.map_err(|_| SliceError::Malformed("ConsumeResponse"))?.event {
            // Scattered over several fields, which none of our servers does: put together by the decoder.
            Some(ConsumeEvent::Slice(slice)) => Self::Slice(Slice::parse(slice.encode_to_vec().into())?),
            Some(event) => Self::Event(event),
            None => Self::Unknown,
        })
    }
}

/// The usual message of a stream of records: a slice in field 1, and nothing else.
fn lone_slice(message: &[Bytes]) -> Option<Result<Slice, SliceError>> {
    let mut fields = PieceFields::new(message);
    let Ok(Some((1, held))) = fields.next() else { return None };
    let slice = fields.pieces(held).filter(|_| fields.left() == 0)?;
    Some(Slice::of(slice))
}

/// A `LogSlice`: a run of whole batches of one partition.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Topic name as asked for.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// First offset still kept.
    pub log_start_offset: i64,
    /// Where to read on, and what to commit.
    pub next_offset: i64,
    /// Leader epoch of the answering broker.
    pub leader_epoch: u32,
    /// The topic's id, if there is one of 16 bytes.
    pub topic_id: Option<TopicId>,
    /// Ranges stepped over.
    pub gaps: Vec<OffsetGap>,
    /// Where this read began.
    pub start_offset: i64,
    /// What its batches took on the wire, tags and lengths included: what a member's credit counts.
    pub batch_bytes: usize,
    message: Chunks,
}

impl Slice {
    /// Reads a message. Its batches are found, not looked into.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(message: Bytes) -> Result<Self, SliceError> {
        Self::of(message.into())
    }

    fn of(message: Chunks) -> Result<Self, SliceError> {
        let mut out = Self::default();
        let wrong = || SliceError::Malformed("LogSlice");
        let mut fields = PieceFields::new(&message);
        loop {
            let left = fields.left();
            let Some((number, held)) = fields.next().map_err(|NotFields| wrong())? else { break };
            match (number, held) {
                (1, Held::Whole(Value::Bytes(_)) | Held::Across(_)) => {
                    out.batch_bytes += left - fields.left();
                }
                (14 | 15, Held::Whole(Value::Bytes(_)) | Held::Across(_)) => {}
                (3, Held::Whole(Value::Number(value))) => out.partition = low_u32(value),
                (4, Held::Whole(Value::Number(value))) => out.high_watermark = value.cast_signed(),
                (5, Held::Whole(Value::Number(value))) => out.log_start_offset = value.cast_signed(),
                (6, Held::Whole(Value::Number(value))) => out.next_offset = value.cast_signed(),
                (7, Held::Whole(Value::Number(value))) => out.leader_epoch = low_u32(value),
                (10, Held::Whole(Value::Number(value))) => out.start_offset = value.cast_signed(),
                (2 | 8 | 9, held) => {
                    let bytes = fields.bytes(held).ok_or_else(wrong)?;
                    out.take(number, &bytes).ok_or_else(wrong)?;
                }
                (1..=10 | 14 | 15, _) => return Err(wrong()),
                _ => {}
            }
        }
        out.message = message;
        Ok(out)
    }

    /// Takes a field that is neither a number nor a batch; `None` if it is not what it should be.
    fn take(&mut self, number: u32, bytes: &Bytes) -> Option<()> {
        match number {
            2 => str::from_utf8(bytes).ok()?.clone_into(&mut self.topic),
            8 => self.topic_id = TopicId::from_slice(bytes),
            _ => self.gaps.push(OffsetGap::decode(bytes.as_ref()).ok()?),
        }
        Some(())
    }

    /// Its batches, in offset order.
    pub fn batches(&self) -> Batches<'_> {
        Batches::new(&self.message)
    }
}

#[cfg(test)]
#[path = "slice/tests.rs"]
mod tests;
