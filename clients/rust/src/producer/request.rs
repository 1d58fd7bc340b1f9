//! The head of a produce request: its small fields, encoded by hand in front of the records.
//!
//! ```text
//! ProduceStreamRequest   0A len ( ProduceRequest )
//! ProduceRequest         0A len topic | 10 partition | 18 durability | 20 expected_next_offset | 2A len producer | 35 crc32 | 42 len request_id | records...
//! ```
//!
//! `records` is the last field, so the run of the batch builder follows as it is.

use annals_wire::v1;
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::raw::RawMessage;

/// The fields of a `ProduceRequest` beside its records.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<u32>,
    pub(crate) durability: v1::Durability,
    pub(crate) expected_next_offset: Option<i64>,
    pub(crate) producer: Option<v1::ProducerSequence>,
    pub(crate) records_crc32: u32,
    pub(crate) request_id: &'a str,
}

impl Head<'_> {
    fn encode(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.topic.len() + self.request_id.len() + 40);
        let text = |head: &mut Vec<u8>, field: u32, text: &str| {
            if !text.is_empty() {
                encode_key(field, WireType::LengthDelimited, head);
                encode_varint(text.len() as u64, head);
                head.extend_from_slice(text.as_bytes());
            }
        };
        text(&mut head, 1, self.topic);
        if let Some(partition) = self.partition {
            prost::encoding::uint32::encode(2, &partition, &mut head);
        }
        if self.durability != v1::Durability::Unspecified {
            prost::encoding::int32::encode(3, &(self.durability as i32), &mut head);
        }
        if let Some(offset) = self.expected_next_offset {
            prost::encoding::int64::encode(4, &offset, &mut head);
        }
        if let Some(producer) = &self.producer {
            prost::encoding::message::encode(5, producer, &mut head);
        }
        prost::encoding::fixed32::encode(6, &self.records_crc32, &mut head);
        text(&mut head, 8, self.request_id);
        head
    }

    /// A `ProduceRequest`.
    pub(crate) fn unary(&self, run: Bytes) -> RawMessage {
        RawMessage { head: self.encode(), run }
    }

    /// A `ProduceStreamRequest`.
    pub(crate) fn streamed(&self, run: Bytes) -> RawMessage {
        let inner = self.encode();
        let length = (inner.len() + run.len()) as u64;
        let mut head = Vec::with_capacity(1 + encoded_len_varint(length) + inner.len());
        encode_key(1, WireType::LengthDelimited, &mut head);
        encode_varint(length, &mut head);
        head.extend_from_slice(&inner);
        RawMessage { head, run }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn whole(message: &RawMessage) -> Vec<u8> {
        [message.head.as_slice(), &message.run].concat()
    }

    #[test]
    fn the_generated_decoder_reads_what_was_written_by_hand() {
        let record = v1::Record { value: Some(Bytes::from_static(b"v")), ..Default::default() };
        let producer = v1::ProducerSequence { producer_id: 1 << 40, producer_epoch: 1, base_sequence: 0 };
        let request = v1::ProduceRequest {
            topic: "orders".to_owned(),
            partition: Some(0),
            durability: v1::Durability::Fsync.into(),
            expected_next_offset: Some(0),
            producer: Some(producer),
            records_crc32: Some(7),
            request_id: "id".to_owned(),
            records: vec![record],
            ..Default::default()
        };
        let run =
            v1::ProduceRequest { records: request.records.clone(), ..Default::default() }.encode_to_vec();
        let head = Head {
            topic: "orders",
            partition: Some(0),
            durability: v1::Durability::Fsync,
            expected_next_offset: Some(0),
            producer: Some(producer),
            records_crc32: 7,
            request_id: "id",
        };
        let unary = whole(&head.unary(Bytes::from(run.clone())));
        assert_eq!(unary, request.encode_to_vec());
        let streamed = whole(&head.streamed(Bytes::from(run)));
        assert_eq!(streamed, v1::ProduceStreamRequest { append: Some(request) }.encode_to_vec());
    }
}
