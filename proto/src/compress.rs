//! Packing and unpacking of payloads.
//!
//! A packed payload is field 14: one frame of the codec that unpacks to the bytes of field 15. It is stored as it was sent; a
//! server unpacks only to check the records, and for readers that do not list the codec.
//!
//! What is unpacked comes from strangers, so
//! 1. never more than `cap` bytes come out, whatever the frame claims, and never is more allocated for them;
//! 2. a Zstandard frame that wants a window beyond 8 MiB is refused;
//! 3. it is exactly one frame, complete, with nothing behind it: stock decoders differ in what they make of the rest.

use std::io::{self, BufRead, Read};

use bytes::{BufMut, Bytes, BytesMut};
use lz4_flex::frame::{FrameDecoder, FrameEncoder};

use crate::chunks::Cursor;
use crate::fields::{Fields, Value};
use crate::header::{self, BATCH_PREFIX_LEN, BatchHeader, HeaderError};
use crate::ids::TopicId;
use crate::limits::{HARD_MAX_BATCH_BYTES, MAX_ZSTD_WINDOW_LOG};
use crate::v1::Codec;
use crate::varint;

/// Tag of a packed payload.
pub const COMPRESSED_TAG: u8 = 0x72;

/// Why something cannot be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// More would come out than is allowed.
    #[error("unpacks to more than {cap} bytes")]
    TooLarge {
        /// The limit.
        cap: usize,
    },
    /// Not one whole frame of the codec.
    #[error("not one whole {codec} frame: {why}")]
    Frame {
        /// The codec's name.
        codec: &'static str,
        /// What the codec says.
        why: String,
    },
    /// There is no codec to unpack it with.
    #[error("nothing is packed")]
    NoCodec,
    /// The batch does not verify.
    #[error(transparent)]
    Damaged(#[from] HeaderError),
}

/// Packs bytes into one frame; [`Codec::Unspecified`] gives them back as they are.
///
/// # Errors
/// If the codec fails, which only lack of memory makes it do.
pub fn pack(codec: Codec, plain: &[u8]) -> io::Result<Vec<u8>> {
    match codec {
        Codec::Unspecified => Ok(plain.to_vec()),
        Codec::Lz4 => {
            let mut encoder = FrameEncoder::new(Vec::with_capacity(plain.len() / 2));
            io::Write::write_all(&mut encoder, plain)?;
            encoder.finish().map_err(io::Error::other)
        }
        Codec::Zstd => zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL),
    }
}

/// Packs a run of records into a whole field 14, tag and length included: what `ProduceRequest.records_crc32` then covers.
///
/// # Errors
/// As [`pack`].
pub fn pack_field(codec: Codec, run: &[u8]) -> io::Result<Bytes> {
    let packed = pack(codec, run)?;
    let mut field = BytesMut::with_capacity(packed.len() + 6);
    field.put_u8(COMPRESSED_TAG);
    varint::put(&mut field, packed.len() as u64);
    field.put_slice(&packed);
    Ok(field.freeze())
}

/// Unpacks one frame that came in pieces, to at most `cap` bytes.
///
/// # Errors
/// If it is not one whole frame, or holds more.
pub fn unpack(codec: Codec, chunks: &[Bytes], cap: usize) -> Result<Bytes, UnpackError> {
    let mut input = Input(Cursor::new(chunks));
    match codec {
        Codec::Unspecified => Err(UnpackError::NoCodec),
        Codec::Lz4 => unpack_lz4(&mut input, cap),
        Codec::Zstd => unpack_zstd(&mut input, cap),
    }
}

fn unpack_lz4(input: &mut Input<'_>, cap: usize) -> Result<Bytes, UnpackError> {
    let wrong = |why: String| UnpackError::Frame { codec: "lz4", why };
    // The decoder takes a frame that is cut between blocks, and begins another one behind the first.
    whole_lz4(input.0.clone()).ok_or_else(|| wrong("it is cut short or goes on behind its end".into()))?;
    let plain = read_capped(FrameDecoder::new(&mut *input), cap, &wrong)?;
    input.ended().then_some(plain).ok_or_else(|| wrong("an empty block".into()))
}

fn unpack_zstd(input: &mut Input<'_>, cap: usize) -> Result<Bytes, UnpackError> {
    let wrong = |why: String| UnpackError::Frame { codec: "zstd", why };
    if input.0.clone().array() != Some(ZSTD_MAGIC) {
        return Err(wrong("it does not begin as one".into()));
    }
    let decoder = zstd::Decoder::with_buffer(&mut *input).and_then(|mut decoder| {
        decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
        Ok(decoder.single_frame())
    });
    let plain = read_capped(decoder.map_err(|error| wrong(error.to_string()))?, cap, &wrong)?;
    input.ended().then_some(plain).ok_or_else(|| wrong("it goes on behind its end".into()))
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4D, 0x18];

/// Reads to the end, but never more than `cap` bytes.
fn read_capped(
    decoder: impl Read,
    cap: usize,
    wrong: &impl Fn(String) -> UnpackError,
) -> Result<Bytes, UnpackError> {
    let mut plain = Vec::new();
    // One byte more than allowed shows that there is more.
    let most = (cap as u64).saturating_add(1);
    decoder.take(most).read_to_end(&mut plain).map_err(|error| wrong(error.to_string()))?;
    if plain.len() > cap {
        return Err(UnpackError::TooLarge { cap });
    }
    Ok(plain.into())
}

/// Whether there is exactly one LZ4 frame, from its magic number to its end mark and checksum, by the lengths of its blocks.
fn whole_lz4(mut frame: Cursor<'_>) -> Option<()> {
    if frame.array()? != LZ4_MAGIC {
        return None;
    }
    let [flags, _block_size] = frame.array()?;
    let bit = |bit: u8| usize::from(flags >> bit & 1);
    let (dictionary, content_checksum, content_size, block_checksum) = (bit(0), bit(2), bit(3), bit(4));
    frame.skip(8 * content_size + 4 * dictionary + 1)?;
    loop {
        let size = u32::from_le_bytes(frame.array()?);
        if size == 0 {
            break;
        }
        // The highest bit says that the block is not packed.
        let size = usize::try_from(size & 0x7FFF_FFFF).ok()?;
        frame.skip(size)?;
        frame.skip(4 * block_checksum)?;
    }
    frame.skip(4 * content_checksum)?;
    (frame.remaining() == 0).then_some(())
}

/// A body in pieces as a decoder reads it.
struct Input<'a>(Cursor<'a>);

impl Input<'_> {
    fn ended(&mut self) -> bool {
        self.0.rest().is_empty()
    }
}

impl Read for Input<'_> {
    fn read(&mut self, mut out: &mut [u8]) -> io::Result<usize> {
        let len = self.0.rest().len().min(out.len());
        let _ = self.0.pieces(len, |piece| out.put_slice(piece));
        Ok(len)
    }
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.0.rest())
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.0.skip(amount);
    }
}

/// A stored batch with its records unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainBatch {
    /// Its header.
    pub header: BatchHeader,
    /// Its first bytes, both checksums included.
    pub prefix: [u8; BATCH_PREFIX_LEN],
    /// Its payload, which follows them.
    pub payload: Bytes,
}

/// Unpacks the payload of a stored batch whose header has been verified: the same batch with plain records and new checksums.
/// The old checksum of the payload is checked first, else damage would look sound afterwards.
///
/// # Errors
/// If it does not verify, is not packed, or cannot be unpacked within `cap` bytes.
pub fn unpack_batch(
    header: &BatchHeader,
    payload: &Bytes,
    topic: &TopicId,
    partition: u32,
    cap: usize,
) -> Result<PlainBatch, UnpackError> {
    header::verify_payload(header, payload)?;
    let codec = header.attributes.codec().unwrap_or_default();
    let Ok(Some((14, Value::Bytes(packed)))) = Fields::new(payload).next() else {
        return Err(UnpackError::NoCodec);
    };
    let payload = unpack(codec, &[payload.slice_ref(packed)], cap.min(HARD_MAX_BATCH_BYTES))?;
    let header = BatchHeader {
        attributes: header.attributes.with_codec(Codec::Unspecified),
        records_crc32: crc32fast::hash(&payload),
        ..*header
    };
    let prefix = header.encode(payload.len(), topic, partition);
    Ok(PlainBatch { header, prefix, payload })
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
