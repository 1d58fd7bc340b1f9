//! Messages on their way out: heads are written into one buffer, the records' bytes stay where they lie.
//!
//! ```text
//! buffer   |flag|length|slice: tag, length, topic, ...|          |slice: tag, length, ...|
//! pieces   [----------------- head -------------------][ bytes  ][--------- head --------][ bytes ] ...
//!                                                       of a map                           of a map
//! ```
//!
//! Runs below [`SMALL`] are copied into the buffer: a frame of their own would cost more.

use annals_wire::{slice::Prefix, v1};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use smallvec::SmallVec;

use super::message::PREFIX;
use crate::{
    broker::Slice,
    grpc::{answer::Pieces, convert},
};

/// Runs up to so many bytes are copied.
const SMALL: usize = 4096;
/// Most bytes of the fields of a slice, without topic, gaps and batches.
const FIELDS: usize = 96;
/// Most bytes of a gap.
const GAP: usize = 26;

/// A message being written.
#[derive(Debug)]
pub(crate) struct Writer {
    buffer: BytesMut,
    /// Bytes that follow the buffer's first so many.
    lent: SmallVec<[(usize, Bytes); 4]>,
    lent_bytes: usize,
}

impl Writer {
    /// A message whose own bytes, those that are not lent, are about so many.
    pub(crate) fn new(capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(PREFIX + capacity);
        buffer.put_bytes(0, PREFIX);
        Self { buffer, lent: SmallVec::new(), lent_bytes: 0 }
    }

    /// A field that holds a message.
    pub(crate) fn field(&mut self, number: u32, message: &impl Message) {
        encode_key(number, WireType::LengthDelimited, &mut self.buffer);
        encode_varint(message.encoded_len() as u64, &mut self.buffer);
        message.encode(&mut self.buffer).expect("a BytesMut grows as needed");
    }

    /// A slice: field 1, in a `FetchResponse` as in a `SubscribeResponse`.
    pub(crate) fn slice(&mut self, slice: &Slice) {
        let gaps: Vec<v1::OffsetGap> = slice.gaps.iter().map(convert::gap).collect();
        let prefix = Prefix {
            topic: &slice.topic,
            partition: slice.partition,
            high_watermark: slice.high_watermark,
            log_start_offset: slice.log_start_offset,
            next_offset: slice.next_offset,
            leader_epoch: slice.leader_epoch,
            topic_id: slice.topic_id,
            gaps: &gaps,
            start_offset: slice.start_offset,
        };
        prefix.put(slice.len(), &mut self.buffer);
        for run in &slice.batches {
            self.run(run);
        }
    }

    fn run(&mut self, run: &Bytes) {
        if run.len() <= SMALL {
            self.buffer.extend_from_slice(run);
        } else {
            self.lent_bytes += run.len();
            self.lent.push((self.buffer.len(), run.clone()));
        }
    }

    /// The whole message behind its prefix.
    pub(crate) fn finish(mut self) -> Pieces {
        let length = u32::try_from(self.buffer.len() - PREFIX + self.lent_bytes).unwrap_or(u32::MAX);
        if let Some(slot) = self.buffer.get_mut(1..PREFIX) {
            slot.copy_from_slice(&length.to_be_bytes());
        }
        let mut rest = self.buffer.freeze();
        let mut pieces = Pieces::with_capacity(2 * self.lent.len() + 1);
        let mut cut = 0;
        for (position, bytes) in self.lent {
            let own = rest.split_to(position - cut);
            cut = position;
            if !own.is_empty() {
                pieces.push(own);
            }
            pieces.push(bytes);
        }
        if !rest.is_empty() {
            pieces.push(rest);
        }
        pieces
    }
}

/// A message that lends nothing, behind its prefix.
pub(crate) fn message(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    put_message(&mut buffer, message);
    buffer.freeze()
}

/// Appends a message and its prefix.
pub(crate) fn put_message(buffer: &mut BytesMut, message: &impl Message) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    message.encode(buffer).expect("a BytesMut grows as needed");
}

/// Bytes to keep ready for the head and the small runs of a slice.
pub(crate) fn room(slice: &Slice) -> usize {
    let small: usize = slice.batches.iter().map(Bytes::len).filter(|length| *length <= SMALL).sum();
    FIELDS + slice.topic.len() + slice.gaps.len() * GAP + small
}

#[cfg(test)]
mod tests {
    use annals_wire::ids::TopicId;

    use super::*;

    /// A batch that a stock decoder takes: a base offset and one record of `size` bytes.
    fn batch(base_offset: i64, size: usize) -> Bytes {
        let record = v1::Record { value: Some(vec![b'x'; size].into()), ..Default::default() };
        let batch = v1::RecordBatch { base_offset, records: vec![record], ..Default::default() };
        v1::LogSlice { batches: vec![batch], ..Default::default() }.encode_to_vec().into()
    }

    fn slice(partition: u32, batches: Vec<Bytes>) -> Slice {
        Slice {
            topic: "t".into(),
            topic_id: TopicId([1; 16]),
            partition,
            high_watermark: 9,
            log_start_offset: 1,
            next_offset: 9,
            start_offset: 2,
            leader_epoch: 1,
            gaps: vec![],
            looked_at: 0,
            batches: batches.into(),
        }
    }

    #[test]
    fn pieces_in_a_row_are_the_message_and_large_runs_are_lent() {
        let large = batch(5, 2 * SMALL);
        let slices = [
            slice(0, vec![batch(1, 10), large.clone(), batch(7, 3)]),
            slice(1, vec![]),
            slice(2, vec![large.clone(), large.clone()]),
        ];
        let error = v1::PartitionError { topic: "u".into(), code: 5, ..Default::default() };
        let mut writer = Writer::new(slices.iter().map(room).sum());
        for slice in &slices {
            writer.slice(slice);
        }
        writer.field(2, &error);
        let pieces = writer.finish();
        let lent = pieces.iter().filter(|piece| piece.as_ptr() == large.as_ptr()).count();
        assert_eq!(lent, 3, "the large runs are not copied");
        let body = pieces.concat();
        assert_eq!(body[0], 0);
        assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - PREFIX);
        let read = v1::FetchResponse::decode(&body[PREFIX..]).unwrap();
        let offsets: Vec<Vec<i64>> = read
            .slices
            .iter()
            .map(|slice| slice.batches.iter().map(|batch| batch.base_offset).collect())
            .collect();
        assert_eq!(offsets, [vec![1, 5, 7], vec![], vec![5, 5]]);
        assert_eq!(read.errors, [error]);
    }

    #[test]
    fn an_empty_message_is_a_prefix() {
        assert_eq!(Writer::new(0).finish().concat(), [0; PREFIX]);
        assert_eq!(message(&v1::ProduceResponse::default()), [0_u8; PREFIX].as_slice());
    }
}
