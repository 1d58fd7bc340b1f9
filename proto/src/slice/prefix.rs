//! What stands before the batches of a slice.

use bytes::{BufMut, BytesMut};
use prost::Message as _;

use crate::ids::TopicId;
use crate::v1::OffsetGap;
use crate::varint;

/// Everything of a slice but its batches. Written in front of batches as they lie in a file it makes an entry of
/// `FetchResponse.slices`, or the whole of a `SubscribeResponse`: both have their slice in field 1.
#[derive(Debug, Clone, Copy)]
pub struct Prefix<'a> {
    /// Topic name as asked for.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// First offset still kept.
    pub log_start_offset: i64,
    /// Where to read on.
    pub next_offset: i64,
    /// Leader epoch of this broker.
    pub leader_epoch: u32,
    /// The topic's id.
    pub topic_id: TopicId,
    /// Ranges stepped over; at most [`crate::limits::MAX_GAPS_PER_SLICE`].
    pub gaps: &'a [OffsetGap],
    /// Where this read began.
    pub start_offset: i64,
}

/// Tag of a slice in a `FetchResponse` and a `SubscribeResponse`.
const SLICE_TAG: u8 = 0x0A;

impl Prefix<'_> {
    /// Appends tag, length and fields of a slice. Exactly `batches_len` bytes of whole batches must follow.
    pub fn put(&self, batches_len: usize, out: &mut BytesMut) {
        let fields = self.fields_len();
        let slice = fields + batches_len;
        out.reserve(1 + varint::len(slice as u64) + fields);
        out.put_u8(SLICE_TAG);
        varint::put(out, slice as u64);
        let end = out.len() + fields;
        self.put_fields(out);
        debug_assert_eq!(out.len(), end, "as many bytes as were counted");
    }

    /// Bytes of the whole entry with `batches_len` bytes of batches: what [`Self::put`] writes, and the batches.
    pub fn entry_len(&self, batches_len: usize) -> usize {
        let slice = self.fields_len() + batches_len;
        1 + varint::len(slice as u64) + slice
    }

    /// Tags and values of the numbers, zero ones left out.
    fn numbers(&self) -> impl Iterator<Item = (u8, u64)> {
        [
            (0x18, u64::from(self.partition)),
            (0x20, self.high_watermark.cast_unsigned()),
            (0x28, self.log_start_offset.cast_unsigned()),
            (0x30, self.next_offset.cast_unsigned()),
            (0x38, u64::from(self.leader_epoch)),
            (0x50, self.start_offset.cast_unsigned()),
        ]
        .into_iter()
        .filter(|&(_, value)| value != 0)
    }

    fn fields_len(&self) -> usize {
        let delimited = |len: usize| 1 + varint::len(len as u64) + len;
        let topic = if self.topic.is_empty() { 0 } else { delimited(self.topic.len()) };
        let numbers: usize = self.numbers().map(|(_, value)| 1 + varint::len(value)).sum();
        let gaps: usize = self.gaps.iter().map(|gap| delimited(gap.encoded_len())).sum();
        topic + numbers + delimited(TopicId::LEN) + gaps
    }

    fn put_fields(&self, out: &mut BytesMut) {
        if !self.topic.is_empty() {
            out.put_u8(0x12);
            varint::put(out, self.topic.len() as u64);
            out.put_slice(self.topic.as_bytes());
        }
        for (tag, value) in self.numbers() {
            out.put_u8(tag);
            varint::put(out, value);
        }
        out.put_slice(&[0x42, 16]);
        out.put_slice(self.topic_id.as_bytes());
        for gap in self.gaps {
            out.put_u8(0x4A);
            varint::put(out, gap.encoded_len() as u64);
            // Room was made for it: `BytesMut` grows, so this cannot fail.
            let _ = gap.encode(out);
        }
    }
}
