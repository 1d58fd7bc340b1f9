//! A journal frame: header, payload, chain. Pure bytes; `docs/format.md` has the table.
//!
//! A frame is gathered, never copied: batches stay where the request put them, and only the small parts
//! around them are encoded here. [`FrameBuilder::finish`] yields the parts in file order, padded to a block. One
//! builder serves frame after frame: it keeps its room.
//!
//! 1. Zeros never decode: the magic is not zero.
//! 2. A frame carries the crc of the frame before it, so that a stale frame of an earlier lap of the ring,
//!    even one that starts at the right block, never chains.

use std::ops::Range;

use annals_wire::{
    chunks::Chunks,
    ids::TopicId,
    internal::{Entry, InlineBatch},
};
use bytes::{BufMut, Bytes};
use crc32fast::Hasher;
use prost::Message;
use smallvec::SmallVec;

use super::mutant::{Mutant, planted};

/// Frames start at multiples of this and are padded to it.
pub(crate) const BLOCK: u64 = 4096;
/// Bytes before the payload.
pub(crate) const HEADER_LEN: usize = 64;
const VERSION: u16 = 1;
const FLAG_LINK: u16 = 1;
/// What a frame is padded with.
static ZEROS: [u8; 4096] = [0; 4096];
const _: () = assert!(ZEROS.len() as u64 == BLOCK, "padding is less than a block");
/// Room that a builder keeps after a large frame: parts, and bytes of what is encoded here.
const KEPT_PARTS: usize = 1024;
const KEPT_BYTES: usize = 64 * 1024;
/// Payload parts this long are not hashed again: their own crc is combined in.
const COMBINE_FROM: usize = 32 * 1024;

/// Rounds up to whole blocks.
pub(crate) fn padded(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Header and payload, without padding.
    pub(crate) length: u32,
    /// The chain goes on in `successor`.
    pub(crate) link: bool,
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    /// Highest sequence known durable when this was written.
    pub(crate) durable: u64,
    /// Number of the last entry in or before it.
    pub(crate) last_number: u64,
    pub(crate) previous_crc: u32,
    pub(crate) successor: u32,
    pub(crate) entries: u32,
    pub(crate) crc: u32,
}

impl FrameHeader {
    pub(crate) fn encode(&self, magic: u64) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let mut at = &mut out[..];
        at.put_u64_le(magic);
        at.put_u32_le(self.length);
        at.put_u16_le(VERSION);
        at.put_u16_le(if self.link { FLAG_LINK } else { 0 });
        at.put_u32_le(0);
        at.put_u32_le(self.epoch);
        at.put_u64_le(self.sequence);
        at.put_u64_le(self.durable);
        at.put_u64_le(self.last_number);
        at.put_u32_le(self.previous_crc);
        at.put_u32_le(self.successor);
        at.put_u32_le(self.entries);
        at.put_u32_le(self.crc);
        out
    }

    /// Reads a header; `None` unless magic, version, flags, shard and a plausible length are there.
    /// The crc is not looked at: see [`payload_of`].
    pub(crate) fn decode(bytes: &[u8], magic: u64) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let mut at = Fields(bytes);
        if at.u64() != magic {
            return None;
        }
        let length = at.u32();
        let version = at.u16();
        let flags = at.u16();
        let shard = at.u32();
        let header = Self {
            length,
            link: flags & FLAG_LINK != 0,
            epoch: at.u32(),
            sequence: at.u64(),
            durable: at.u64(),
            last_number: at.u64(),
            previous_crc: at.u32(),
            successor: at.u32(),
            entries: at.u32(),
            crc: at.u32(),
        };
        let sane =
            version == VERSION && flags & !FLAG_LINK == 0 && shard == 0 && length as usize >= HEADER_LEN;
        sane.then_some(header)
    }
}

/// The payload of a frame whose header was decoded from the same bytes, if its crc holds.
pub(crate) fn payload_of<'a>(header: &FrameHeader, frame: &'a [u8]) -> Option<&'a [u8]> {
    let frame = frame.get(..header.length as usize)?;
    let (head, payload) = frame.split_at_checked(HEADER_LEN)?;
    let mut hasher = Hasher::new();
    hasher.update(head.get(..HEADER_LEN - 4)?);
    hasher.update(payload);
    let holds = hasher.finalize() == header.crc || planted(Mutant::FrameCrcUnchecked);
    holds.then_some(payload)
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_first_chunk().expect("a header has room for all its fields");
        self.0 = rest;
        *head
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

/// A stored batch in the hands of the commit cycle: its prefix, then its payload as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct BatchBytes {
    pub(crate) prefix: [u8; annals_wire::header::BATCH_PREFIX_LEN],
    pub(crate) payload: Chunks,
    pub(crate) payload_len: usize,
    /// crc32 of the payload.
    pub(crate) payload_crc: u32,
}

impl BatchBytes {
    pub(crate) fn len(&self) -> usize {
        self.prefix.len() + self.payload_len
    }

    /// Hashes the batch, without reading a large payload again.
    pub(crate) fn hash_into(&self, hasher: &mut Hasher) {
        hasher.update(&self.prefix);
        if self.payload_len >= COMBINE_FROM {
            hasher.combine(&Hasher::new_with_initial_len(self.payload_crc, self.payload_len as u64));
        } else {
            self.payload.iter().for_each(|part| hasher.update(part));
        }
    }
}

/// A part of a frame's payload.
#[derive(Debug)]
enum Part {
    /// These bytes of what is encoded here.
    Encoded(Range<usize>),
    /// A piece of a batch.
    Lent(Bytes),
}

/// Gathers the entries of one frame after the other.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    parts: Vec<Part>,
    encoded: Vec<u8>,
    hasher: Hasher,
    length: usize,
    entries: u32,
    last_number: u64,
}

impl FrameBuilder {
    /// Bytes of payload so far.
    pub(crate) fn payload_len(&self) -> usize {
        self.length
    }

    /// Adds an entry.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let length = entry.encoded_len();
        let before = self.encoded.len();
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut self.encoded);
        prost::encoding::encode_varint(length as u64, &mut self.encoded);
        entry.encode_raw(&mut self.encoded);
        self.hasher.update(self.encoded.get(before..).unwrap_or_default());
        self.encoded_from(before);
        self.count(self.encoded.len() - before, entry.number);
    }

    /// Adds a batch without copying its payload. `place` carries everything but the topic's id and the bytes.
    pub(crate) fn push_batch(
        &mut self,
        number: u64,
        topic: &TopicId,
        place: &InlineBatch,
        batch: &BatchBytes,
    ) {
        use prost::encoding::{WireType::LengthDelimited, encode_key, encode_varint, encoded_len_varint};
        let topic_len = 1 + encoded_len_varint(TopicId::LEN as u64) + TopicId::LEN;
        let bytes_len = 1 + encoded_len_varint(batch.len() as u64) + batch.len();
        let inner = topic_len + place.encoded_len() + bytes_len;
        let outer =
            prost::encoding::uint64::encoded_len(1, &number) + 1 + encoded_len_varint(inner as u64) + inner;
        let before = self.encoded.len();
        let out = &mut self.encoded;
        encode_key(1, LengthDelimited, out);
        encode_varint(outer as u64, out);
        prost::encoding::uint64::encode(1, &number, out);
        encode_key(3, LengthDelimited, out);
        encode_varint(inner as u64, out);
        encode_key(1, LengthDelimited, out);
        encode_varint(TopicId::LEN as u64, out);
        out.put_slice(topic.as_bytes());
        place.encode_raw(out);
        encode_key(6, LengthDelimited, out);
        encode_varint(batch.len() as u64, out);
        self.hasher.update(out.get(before..).unwrap_or_default());
        let head = out.len() - before;
        out.put_slice(&batch.prefix);
        batch.hash_into(&mut self.hasher);
        self.encoded_from(before);
        self.parts.extend(batch.payload.iter().cloned().map(Part::Lent));
        self.count(head + batch.len(), number);
    }

    /// Everything encoded since is the next part, or the rest of the last one.
    fn encoded_from(&mut self, before: usize) {
        let end = self.encoded.len();
        match self.parts.last_mut() {
            Some(Part::Encoded(last)) => last.end = end,
            _ => self.parts.push(Part::Encoded(before..end)),
        }
    }

    /// The frame stands for all numbers up to this one, also those whose entries were given up.
    pub(crate) fn reaches(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    fn count(&mut self, bytes: usize, number: u64) {
        self.length += bytes;
        self.entries += 1;
        self.last_number = self.last_number.max(number);
    }

    /// The frame's parts in file order, padded with zeros to a block, and its header.
    pub(crate) fn finish(&self, magic: u64, mut header: FrameHeader) -> FinishedFrame<'_> {
        header.length = u32::try_from(HEADER_LEN + self.length).expect("a frame is far below 4 GiB");
        header.entries = self.entries;
        header.last_number = header.last_number.max(self.last_number);
        let head = header.encode(magic);
        let mut hasher = Hasher::new();
        hasher.update(head.get(..HEADER_LEN - 4).unwrap_or_default());
        hasher.combine(&self.hasher);
        header.crc = hasher.finalize();
        let length = u64::from(header.length);
        FinishedFrame { header, head: header.encode(magic), builder: self, size: padded(length) }
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| match part {
            Part::Encoded(range) => self.encoded.get(range.clone()).unwrap_or_default(),
            Part::Lent(bytes) => bytes,
        })
    }

    /// Forgets everything but the room it takes.
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.parts.shrink_to(KEPT_PARTS);
        self.encoded.clear();
        self.encoded.shrink_to(KEPT_BYTES);
        self.hasher.reset();
        (self.length, self.entries, self.last_number) = (0, 0, 0);
    }
}

/// A frame ready to be written.
#[derive(Debug)]
pub(crate) struct FinishedFrame<'a> {
    pub(crate) header: FrameHeader,
    head: [u8; HEADER_LEN],
    builder: &'a FrameBuilder,
    /// Bytes in the file, padding included.
    pub(crate) size: u64,
}

impl FinishedFrame<'_> {
    pub(crate) fn slices(&self) -> SmallVec<[&[u8]; 16]> {
        let padding = usize::try_from(self.size - u64::from(self.header.length)).unwrap_or_default();
        std::iter::once(self.head.as_slice())
            .chain(self.builder.slices())
            .chain([ZEROS.get(..padding).unwrap_or_default()])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals_wire::internal::{Frame, entry::Body};

    fn header() -> FrameHeader {
        FrameHeader {
            length: 0,
            link: false,
            epoch: 3,
            sequence: 9,
            durable: 8,
            last_number: 0,
            previous_crc: 77,
            successor: 0,
            entries: 0,
            crc: 0,
        }
    }

    fn batch(length: usize) -> BatchBytes {
        let pieces = [Bytes::from(vec![7; length / 2]), Bytes::from(vec![9; length - length / 2])];
        let payload = Chunks::of(&pieces);
        BatchBytes { prefix: [5; 81], payload_crc: payload.crc32(), payload_len: length, payload }
    }

    #[test]
    fn what_is_gathered_decodes_as_protobuf() {
        // One builder for all: nothing of a frame is left in the next.
        let mut frame = FrameBuilder::default();
        for length in [0, 1, 300, 4096, COMBINE_FROM, COMBINE_FROM + 1, 200_000] {
            frame.push(&Entry {
                number: 4,
                body: Some(Body::State(vec![1, 2].into())),
                ..Default::default()
            });
            let place = InlineBatch { partition: 3, position: 96, ..Default::default() };
            frame.push_batch(5, &TopicId([1; 16]), &place, &batch(length));
            frame.push(&Entry { number: 6, body: Some(Body::State(vec![].into())), ..Default::default() });
            let finished = frame.finish(0xfeed, header());
            let bytes = finished.slices().concat();
            assert_eq!(bytes.len() as u64 % BLOCK, 0);
            let decoded = FrameHeader::decode(&bytes, 0xfeed).unwrap();
            assert_eq!(decoded, finished.header);
            assert_eq!((decoded.entries, decoded.last_number), (3, 6));
            let payload = payload_of(&decoded, &bytes).expect("the combined crc is the crc of the bytes");
            let read = Frame::decode(payload).unwrap();
            let Some(Body::Batch(inline)) = &read.entries[1].body else { panic!("{read:?}") };
            assert_eq!((inline.partition, inline.position, read.entries[1].number), (3, 96, 5));
            assert_eq!((&inline.topic_id[..], inline.batch.len()), (&[1; 16][..], 81 + length));
            frame.clear();
        }
    }

    #[test]
    fn every_flipped_bit_is_caught() {
        let mut frame = FrameBuilder::default();
        frame.push(&Entry { number: 1, body: Some(Body::State(vec![1; 40].into())), ..Default::default() });
        let good = frame.finish(0xfeed, header()).slices().concat();
        let length = FrameHeader::decode(&good, 0xfeed).unwrap().length as usize;
        for bit in 0..length * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let caught =
                FrameHeader::decode(&bad, 0xfeed).is_none_or(|header| payload_of(&header, &bad).is_none());
            assert!(caught, "bit {bit}");
        }
        assert!(FrameHeader::decode(&[0; 64], 0xfeed).is_none());
    }
}
