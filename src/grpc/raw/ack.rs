//! The answer to a produce, written from the broker's own values: no message is built first.
//!
//! ```text
//! ProduceResponse        0A len PartitionAppend   0A len PartitionAppend   ...   10 duplicate
//! ProduceStreamResponse  0A len ProduceResponse
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::message::PREFIX;
use crate::{
    broker::{PartitionAppend, Produced},
    grpc::convert,
};

/// Bytes of a `PartitionAppend` without its topic and indexes, at most, and what stands around it.
const APPEND: usize = 96;

/// A `ProduceResponse` behind its prefix.
pub(super) fn unary(produced: &Produced) -> Bytes {
    let room = |append: &PartitionAppend| APPEND + append.topic.len() + 5 * append.record_indexes.len();
    let mut out = BytesMut::with_capacity(PREFIX + produced.appends.iter().map(room).sum::<usize>());
    framed(&mut out, |out| response(out, produced));
    out.freeze()
}

/// Appends a `ProduceStreamResponse` and its prefix.
pub(super) fn put_streamed(out: &mut BytesMut, produced: &Produced) {
    framed(out, |out| delimited(out, 1, |out| response(out, produced)));
}

fn response(out: &mut BytesMut, produced: &Produced) {
    for append in &produced.appends {
        delimited(out, 1, |out| partition_append(out, append));
    }
    number(out, 2, produced.duplicate.into());
}

fn partition_append(out: &mut BytesMut, append: &PartitionAppend) {
    if !append.topic.is_empty() {
        delimited(out, 1, |out| out.put_slice(append.topic.as_bytes()));
    }
    number(out, 2, append.partition.into());
    number(out, 3, append.base_offset.cast_unsigned());
    number(out, 4, append.record_count.into());
    number(out, 5, append.leader_epoch.into());
    number(out, 6, append.append_time_ms.cast_unsigned());
    number(out, 7, i64::from(i32::from(convert::durability(append.level))).cast_unsigned());
    number(out, 8, append.duplicate.into());
    if !append.record_indexes.is_empty() {
        delimited(out, 9, |out| {
            for index in &append.record_indexes {
                encode_varint((*index).into(), out);
            }
        });
    }
    delimited(out, 10, |out| out.put_slice(append.topic_id.as_bytes()));
}

/// A number; as in every proto3 serialiser there is no field for 0.
fn number(out: &mut BytesMut, field: u32, value: u64) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

/// A field whose length stands before it. It is written first and moved: shorter than to count its bytes beforehand.
fn delimited(out: &mut BytesMut, field: u32, write: impl FnOnce(&mut BytesMut)) {
    encode_key(field, WireType::LengthDelimited, out);
    let at = out.len();
    write(out);
    let length = out.len() - at;
    let width = encoded_len_varint(length as u64);
    out.put_bytes(0, width);
    let field = out.get_mut(at..).unwrap_or_default();
    field.copy_within(..length, width);
    let mut slot = field.get_mut(..width).unwrap_or_default();
    encode_varint(length as u64, &mut slot);
}

/// A message behind its prefix.
fn framed(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_bytes(0, PREFIX);
    write(out);
    let length = u32::try_from(out.len() - at - PREFIX).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at + 1..at + PREFIX) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use annals_wire::{ids::TopicId, v1};

    use super::*;
    use crate::{broker::Few, grpc::raw::encode, storage::Level};

    fn append(topic: &str, partition: u32, record_indexes: Vec<u32>) -> PartitionAppend {
        PartitionAppend {
            topic: topic.into(),
            topic_id: TopicId([7; 16]),
            partition,
            base_offset: i64::from(partition) << 40,
            record_count: 1000 * partition,
            leader_epoch: 3,
            append_time_ms: 1_700_000_000_000,
            level: Level::Interval,
            duplicate: partition == 2,
            record_indexes,
        }
    }

    /// The message that stock code would build.
    fn stock(produced: &Produced) -> v1::ProduceResponse {
        let appends = produced.appends.iter().map(|append| v1::PartitionAppend {
            topic: append.topic.as_ref().into(),
            partition: append.partition,
            base_offset: append.base_offset,
            record_count: append.record_count,
            leader_epoch: append.leader_epoch,
            append_time_ms: append.append_time_ms,
            durability: convert::durability(append.level).into(),
            duplicate: append.duplicate,
            record_indexes: append.record_indexes.clone(),
            topic_id: Bytes::copy_from_slice(append.topic_id.as_bytes()),
        });
        v1::ProduceResponse { appends: appends.collect(), duplicate: produced.duplicate }
    }

    #[test]
    fn it_is_what_stock_code_writes() {
        let long = "t".repeat(249);
        let several = [
            append("t", 0, vec![]),
            append(&long, 2, vec![0, 1, 300]),
            append("u", 9, (0..50_000).collect()),
        ];
        for appends in [Few::new(), Few::from_iter(several)] {
            for duplicate in [false, true] {
                let produced = Produced { appends: appends.clone(), duplicate };
                let stock = stock(&produced);
                assert_eq!(unary(&produced), encode::message(&stock));
                let event = Some(v1::produce_stream_response::Event::Stored(stock));
                let mut streamed = BytesMut::from(&b"before"[..]);
                put_streamed(&mut streamed, &produced);
                assert_eq!(streamed[6..], encode::message(&v1::ProduceStreamResponse { event }));
            }
        }
    }
}
