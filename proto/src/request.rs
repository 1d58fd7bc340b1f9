//! Finds the records in the body of a produce call, without decoding them and without copying them.
//!
//! ```text
//! ProduceRequest   0A topic   10 partition   18 durability   20 expected   2A producer   35 crc:4   38 codec   42 request_id
//!                  72 len packed   |   7A len Record   7A len Record   ...
//!                                      `------- the run, verbatim ------'
//! ```
//!
//! [`scan`] takes the body in the pieces in which it came. It reads every field as a stock decoder would (any order, the last of
//! a field that came twice, unknown fields skipped) but a record is only stepped over: its bytes, tag and length included, go to
//! the log as they are. The records lie in one run at the end, as every known serialiser writes them; should there be
//! several runs, they are put one behind the other (copied only if they are many). What a record holds is for [`crate::walk`] to judge.
//!
//! A `ProduceStreamRequest` is field 1 around a `ProduceRequest`. If it came twice a stock decoder would merge the two, and
//! merging messages is decoding the fields of one after those of the other: so that is what happens.
//!
//! An `AppendAndCommitRequest` ([`scan_step`]) holds several messages with records, each read in the same way.

mod step;

use std::ops::Range;

use bytes::{BufMut, Bytes};
use prost::Message as _;

use crate::chunks::{Chunks, Cursor, Parts};
use crate::v1::{Codec, Durability, ProducerSequence};
use crate::varint;
use crate::walk::whole_records;

pub use step::{ScannedOutput, ScannedStep, scan_step};

/// A produce call, its records still in their bytes.
#[derive(Debug, Clone, Default)]
pub struct ScannedProduce {
    /// Topic name, unchecked.
    pub topic: String,
    /// Partition, if the caller chose one.
    pub partition: Option<u32>,
    /// Number of the durability asked for; see [`Self::durability`].
    pub durability_number: i32,
    /// The offset the first record has to get.
    pub expected_next_offset: Option<i64>,
    /// Under which sequence of which producer it is stored.
    pub producer: Option<ProducerSequence>,
    /// What the caller computed over the payload.
    pub records_crc32: Option<u32>,
    /// Number of the codec; see [`Self::codec`].
    pub codec_number: i32,
    /// Empty = none; its length is unchecked.
    pub request_id: String,
    /// The records.
    pub payload: Payload,
}

impl ScannedProduce {
    /// The level asked for, `None` if there is no such level.
    pub fn durability(&self) -> Option<Durability> {
        Durability::try_from(self.durability_number).ok()
    }

    /// The codec, `None` if there is no such codec.
    pub fn codec(&self) -> Option<Codec> {
        Codec::try_from(self.codec_number).ok()
    }
}

/// The records of a call.
#[derive(Debug, Clone, Default)]
pub enum Payload {
    /// None were sent.
    #[default]
    None,
    /// The run of field 15, tags and lengths included: what goes into a batch.
    Records(Chunks),
    /// Field 14, tag and length included: what goes into a batch.
    Compressed(Packed),
}

/// Field 14 as it was sent.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The whole field, tag and length included.
    pub field: Chunks,
    /// Bytes of its tag and length.
    lead: usize,
}

impl Packed {
    /// What the codec unpacks: the field without its tag and length.
    pub fn content(&self) -> Chunks {
        Chunks::cut(&self.field, self.lead..self.field.byte_len())
    }
}

/// A body that is not a produce call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} of the request: {reason}")]
pub struct ScanError {
    /// Where the field begins that is wrong.
    pub at: usize,
    /// What is wrong.
    pub reason: ScanReason,
}

/// What is wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanReason {
    /// It ends within a field.
    #[error("it ends within a field")]
    Truncated,
    /// A tag that is none: field number 0, a wire type that does not exist, or a group that does not close.
    #[error("not a field")]
    Tag,
    /// A known field of the wrong wire type.
    #[error("field {0} has the wrong wire type")]
    WireType(u32),
    /// Text that is not UTF-8.
    #[error("field {0} is not UTF-8")]
    Utf8(u32),
    /// Field 14 whose length is longer than need be: readers get its bytes as they are.
    #[error("field 14 has a tag or length that is longer than need be")]
    Padded,
    /// Both plain and compressed records.
    #[error("both `records` and `compressed` are set")]
    TwoPayloads,
    /// A message within it that is none.
    #[error("field {0} does not hold the message it should")]
    Message(u32),
    /// More of a repeated field than any server takes.
    #[error("field {0} comes more than {1} times")]
    TooMany(u32, usize),
    /// A stream message without a request in it.
    #[error("`append` is not set")]
    NoAppend,
}

/// Reads a `ProduceRequest`.
///
/// # Errors
/// If it is not one. Whether its values make sense is not asked here.
pub fn scan(body: &[Bytes]) -> Result<ScannedProduce, ScanError> {
    let mut produce = Produce::new(body);
    let mut cursor = Cursor::new(body);
    let end = cursor.remaining();
    fields(&mut cursor, end, &mut produce)?;
    produce.finish(body)
}

/// Reads a `ProduceStreamRequest`.
///
/// # Errors
/// If it is not one, or holds nothing.
pub fn scan_stream(body: &[Bytes]) -> Result<ScannedProduce, ScanError> {
    let mut produce = Produce::new(body);
    let mut cursor = Cursor::new(body);
    let mut is_set = false;
    while !cursor.rest().is_empty() {
        let at = cursor.pos();
        let fault = |reason| ScanError { at, reason };
        match tag(&mut cursor).map_err(fault)? {
            (1, LEN) => {
                let end = end_of(&mut cursor).map_err(fault)?;
                fields(&mut cursor, end, &mut produce)?;
                is_set = true;
            }
            (1, _) => return Err(fault(ScanReason::WireType(1))),
            (number, wire) => skip(&mut cursor, number, wire).map_err(fault)?,
        }
    }
    if !is_set {
        return Err(ScanError { at: 0, reason: ScanReason::NoAppend });
    }
    produce.finish(body)
}

/// A message whose records stay where they are.
trait Holder<'a> {
    /// Its records so far.
    fn runs(&mut self) -> &mut Parts<'a>;
    /// Reads one field; a record only if it straddles two pieces, or is encoded as nobody does.
    fn field(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanReason>;
}

/// Reads fields up to `end`, where the last one has to end.
fn fields<'a>(cursor: &mut Cursor<'_>, end: usize, holder: &mut impl Holder<'a>) -> Result<(), ScanError> {
    while cursor.pos() < end {
        let at = cursor.pos();
        let rest = cursor.rest();
        let run = whole_records(rest.get(..end - at).unwrap_or(rest));
        if run > 0 {
            let _ = cursor.skip(run);
            holder.runs().push(at..at + run);
            continue;
        }
        let read = holder.field(cursor);
        let within = if cursor.pos() > end { Err(ScanReason::Truncated) } else { read };
        within.map_err(|reason| ScanError { at, reason })?;
    }
    Ok(())
}

const VARINT: u8 = 0;
const I64: u8 = 1;
const LEN: u8 = 2;
const GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const I32: u8 = 5;

/// Deepest nesting of unknown groups, as in stock decoders.
const MAX_GROUPS: usize = 100;

/// A produce call being read.
struct Produce<'a> {
    out: ScannedProduce,
    /// Runs of records: one, if the sender is like all known ones.
    runs: Parts<'a>,
    /// Field 14 and the width of its tag and length.
    packed: Option<(Range<usize>, usize)>,
}

impl<'a> Produce<'a> {
    fn new(body: &'a [Bytes]) -> Self {
        Self { out: ScannedProduce::default(), runs: Parts::new(body), packed: None }
    }

    fn finish(self, body: &[Bytes]) -> Result<ScannedProduce, ScanError> {
        let payload = match (self.runs.is_empty(), self.packed) {
            (true, None) => Payload::None,
            (true, Some((field, lead))) => {
                if lead != 1 + varint::len((field.len() - lead) as u64) {
                    return Err(ScanError { at: field.start, reason: ScanReason::Padded });
                }
                Payload::Compressed(Packed { field: Chunks::cut(body, field), lead })
            }
            (false, None) => Payload::Records(self.runs.finish()),
            (false, Some((field, _))) => {
                return Err(ScanError { at: field.start, reason: ScanReason::TwoPayloads });
            }
        };
        Ok(ScannedProduce { payload, ..self.out })
    }
}

impl<'a> Holder<'a> for Produce<'a> {
    fn runs(&mut self) -> &mut Parts<'a> {
        &mut self.runs
    }

    fn field(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanReason> {
        let (start, out) = (cursor.pos(), &mut self.out);
        match tag(cursor)? {
            (1, LEN) => out.topic = text(cursor, 1)?,
            (2, VARINT) => out.partition = Some(low_u32(value(cursor)?)),
            (3, VARINT) => out.durability_number = low_u32(value(cursor)?).cast_signed(),
            (4, VARINT) => out.expected_next_offset = Some(value(cursor)?.cast_signed()),
            (5, LEN) => merge(cursor, out.producer.get_or_insert_default())?,
            (6, I32) => out.records_crc32 = Some(four(cursor)?),
            (7, VARINT) => out.codec_number = low_u32(value(cursor)?).cast_signed(),
            (8, LEN) => out.request_id = text(cursor, 8)?,
            (14, LEN) => {
                let content = delimited(cursor)?;
                // An empty one is as good as none, as in stock decoders.
                self.packed = (!content.is_empty()).then_some((start..content.end, content.start - start));
            }
            (15, LEN) => {
                let record = delimited(cursor)?;
                self.runs.push(start..record.end);
            }
            (number @ (1..=8 | 14..=15), _) => return Err(ScanReason::WireType(number)),
            (number, wire) => skip(cursor, number, wire)?,
        }
        Ok(())
    }
}

/// Field number and wire type.
fn tag(cursor: &mut Cursor<'_>) -> Result<(u32, u8), ScanReason> {
    let key = u32::try_from(value(cursor)?).map_err(|_| ScanReason::Tag)?;
    let (number, wire) = (key >> 3, (key & 0b111) as u8);
    if number == 0 || wire > I32 {
        return Err(ScanReason::Tag);
    }
    Ok((number, wire))
}

fn value(cursor: &mut Cursor<'_>) -> Result<u64, ScanReason> {
    cursor.varint().ok_or(ScanReason::Truncated)
}

fn four(cursor: &mut Cursor<'_>) -> Result<u32, ScanReason> {
    cursor.array().map(u32::from_le_bytes).ok_or(ScanReason::Truncated)
}

/// As stock decoders do: the upper half of a varint for a 32-bit field is dropped.
#[allow(clippy::cast_possible_truncation, reason = "that is what the format says")]
fn low_u32(value: u64) -> u32 {
    value as u32
}

/// Reads a length; where what it spans ends.
fn end_of(cursor: &mut Cursor<'_>) -> Result<usize, ScanReason> {
    let len = usize::try_from(value(cursor)?).map_err(|_| ScanReason::Truncated)?;
    if len > cursor.remaining() {
        return Err(ScanReason::Truncated);
    }
    Ok(cursor.pos() + len)
}

/// Steps over a length and what it spans; where that lies.
fn delimited(cursor: &mut Cursor<'_>) -> Result<Range<usize>, ScanReason> {
    let len = usize::try_from(value(cursor)?).map_err(|_| ScanReason::Truncated)?;
    let start = cursor.pos();
    cursor.skip(len).ok_or(ScanReason::Truncated)?;
    Ok(start..cursor.pos())
}

fn text(cursor: &mut Cursor<'_>, number: u32) -> Result<String, ScanReason> {
    String::from_utf8(bytes(cursor)?).map_err(|_| ScanReason::Utf8(number))
}

fn bytes(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, ScanReason> {
    let len = usize::try_from(value(cursor)?).map_err(|_| ScanReason::Truncated)?;
    let mut bytes = Vec::with_capacity(len.min(cursor.remaining()));
    cursor.pieces(len, |piece| bytes.put_slice(piece)).ok_or(ScanReason::Truncated)?;
    Ok(bytes)
}

/// Bytes that are read without a list on the heap: more than any sequence takes.
const SMALL: usize = 64;

/// Reads a field that holds a sequence; should it come twice, stock decoders merge the two.
fn merge(cursor: &mut Cursor<'_>, into: &mut ProducerSequence) -> Result<(), ScanReason> {
    let content = cursor.clone();
    let range = delimited(cursor)?;
    let mut small = [0; SMALL];
    let mut room = small.as_mut_slice();
    let mut content = content;
    value(&mut content)?;
    let merged = if range.len() <= SMALL {
        content.pieces(range.len(), |piece| room.put_slice(piece)).ok_or(ScanReason::Truncated)?;
        into.merge(small.get(..range.len()).unwrap_or_default())
    } else {
        let mut large = Vec::with_capacity(range.len());
        content.pieces(range.len(), |piece| large.put_slice(piece)).ok_or(ScanReason::Truncated)?;
        into.merge(&large[..])
    };
    merged.map_err(|_| ScanReason::Message(5))
}

/// Steps over an unknown field, groups and all.
fn skip(cursor: &mut Cursor<'_>, number: u32, wire: u8) -> Result<(), ScanReason> {
    let mut open = Vec::new();
    let (mut number, mut wire) = (number, wire);
    loop {
        match wire {
            VARINT => {
                value(cursor)?;
            }
            I64 => cursor.skip(8).ok_or(ScanReason::Truncated)?,
            I32 => cursor.skip(4).ok_or(ScanReason::Truncated)?,
            LEN => {
                delimited(cursor)?;
            }
            GROUP if open.len() < MAX_GROUPS => open.push(number),
            END_GROUP if open.pop() == Some(number) => {}
            _ => return Err(ScanReason::Tag),
        }
        if open.is_empty() {
            return Ok(());
        }
        (number, wire) = tag(cursor)?;
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
