//! First and last field of a segment file.
//!
//! A segment file is the body of a `LogSlice`. Its first field says which segment it is, its last, written when the file is
//! closed, what the file holds. Both have a fixed size: every field is written, zero or not, in ascending order.
//!
//! ```text
//!   0  72 65 SegmentHeader   magic format features cluster topic partition base generation log_start created crc   103 bytes
//! 103  0A .. RecordBatch     again and again (crate::header)
//!      7A 33 SegmentFooter   batches records last_offset last_epoch max_timestamp file_crc crc                      53 bytes
//! ```
//!
//! Each carries its own checksum over the bytes of its fields before it, tags included; the outer tag and length are fixed, so
//! they need none. The footer's `file_crc32` covers every byte of the file before the footer's tag.

use crate::fixed::Writer;
use crate::ids::TopicId;

/// Format version this release writes.
pub const FORMAT_VERSION: u32 = 1;
/// "ANNLSEG1" as a little-endian number.
pub const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"ANNLSEG1");
/// Tag of the header, field 14 of a `LogSlice`.
pub const SEGMENT_HEADER_TAG: u8 = 0x72;
/// Tag of the footer, field 15 of a `LogSlice`.
pub const SEGMENT_FOOTER_TAG: u8 = 0x7A;
/// Bytes of the header, tag and length included.
pub const SEGMENT_HEADER_LEN: usize = 2 + 101;
/// Bytes of the footer, tag and length included.
pub const SEGMENT_FOOTER_LEN: usize = 2 + 51;

/// Which segment a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentIdentity {
    /// Format version, [`FORMAT_VERSION`] in what this release writes.
    pub format_version: u32,
    /// Features a reader must know.
    pub feature_bits: u64,
    /// UUID of the cluster.
    pub cluster_id: [u8; 16],
    /// Topic.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// Offset the file name carries.
    pub base_offset: i64,
    /// Rewrites of this range so far.
    pub generation: u32,
    /// Log start when the file was made.
    pub log_start_offset: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// What a closed segment file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Batches in the file.
    pub batch_count: u64,
    /// Records in the file.
    pub record_count: u64,
    /// Last offset of the file.
    pub last_offset: i64,
    /// Leader epoch of the last batch.
    pub last_epoch: u32,
    /// Largest `max_timestamp_ms` of its batches.
    pub max_timestamp_ms: i64,
    /// crc32 of every byte before the footer's tag.
    pub file_crc32: u32,
}

/// Why bytes are not the header or footer of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Too few bytes.
    #[error("too short")]
    Short,
    /// Not laid out as it has to be.
    #[error("not laid out as a segment's header or footer")]
    Layout,
    /// Laid out right, but of other bytes than its checksum.
    #[error("does not verify")]
    Crc,
    /// It verifies, but has another magic number.
    #[error("not a segment of this log")]
    Magic,
    /// It verifies, but was written by a newer release.
    #[error("format version {version}, feature bits {feature_bits:#x}: written by a newer release")]
    Newer {
        /// Its format version.
        version: u32,
        /// Its feature bits.
        feature_bits: u64,
    },
}

impl SegmentIdentity {
    /// The whole field, tag and length included.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut field = [0_u8; SEGMENT_HEADER_LEN];
        let mut out = Writer::new(&mut field);
        out.tagged(SEGMENT_HEADER_TAG, [short(SEGMENT_HEADER_LEN - 2)]);
        out.tagged(0x09, SEGMENT_MAGIC.to_le_bytes());
        out.tagged(0x15, self.format_version.to_le_bytes());
        out.tagged(0x19, self.feature_bits.to_le_bytes());
        out.raw(&[0x22, 16]);
        out.raw(&self.cluster_id);
        out.raw(&[0x2A, 16]);
        out.raw(&self.topic_id.0);
        out.tagged(0x35, self.partition.to_le_bytes());
        out.tagged(0x39, self.base_offset.to_le_bytes());
        out.tagged(0x45, self.generation.to_le_bytes());
        out.tagged(0x49, self.log_start_offset.to_le_bytes());
        out.tagged(0x51, self.created_ms.to_le_bytes());
        close(field, 0x5D)
    }

    /// The header at the start of `bytes` (which may go on behind it), if it verifies and this release knows its format.
    ///
    /// # Errors
    /// What is wrong with it. Version and features are looked at only once the checksum holds.
    pub fn verify(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut fields = open::<SEGMENT_HEADER_LEN>(bytes, SEGMENT_HEADER_TAG)?;
        let magic = u64::from_le_bytes(fields.tagged(0x09)?);
        let identity = Self {
            format_version: u32::from_le_bytes(fields.tagged(0x15)?),
            feature_bits: u64::from_le_bytes(fields.tagged(0x19)?),
            cluster_id: fields.id(0x22)?,
            topic_id: TopicId(fields.id(0x2A)?),
            partition: u32::from_le_bytes(fields.tagged(0x35)?),
            base_offset: i64::from_le_bytes(fields.tagged(0x39)?),
            generation: u32::from_le_bytes(fields.tagged(0x45)?),
            log_start_offset: i64::from_le_bytes(fields.tagged(0x49)?),
            created_ms: i64::from_le_bytes(fields.tagged(0x51)?),
        };
        fields.close(0x5D)?;
        if magic != SEGMENT_MAGIC {
            return Err(SegmentError::Magic);
        }
        if identity.format_version == 0
            || identity.format_version > FORMAT_VERSION
            || identity.feature_bits != 0
        {
            let (version, feature_bits) = (identity.format_version, identity.feature_bits);
            return Err(SegmentError::Newer { version, feature_bits });
        }
        Ok(identity)
    }
}

impl SegmentSummary {
    /// The whole field, tag and length included.
    pub fn encode(&self) -> [u8; SEGMENT_FOOTER_LEN] {
        let mut field = [0_u8; SEGMENT_FOOTER_LEN];
        let mut out = Writer::new(&mut field);
        out.tagged(SEGMENT_FOOTER_TAG, [short(SEGMENT_FOOTER_LEN - 2)]);
        out.tagged(0x09, self.batch_count.to_le_bytes());
        out.tagged(0x11, self.record_count.to_le_bytes());
        out.tagged(0x19, self.last_offset.to_le_bytes());
        out.tagged(0x25, self.last_epoch.to_le_bytes());
        out.tagged(0x29, self.max_timestamp_ms.to_le_bytes());
        out.tagged(0x35, self.file_crc32.to_le_bytes());
        close(field, 0x3D)
    }

    /// The footer at the start of `bytes` (which may go on behind it), if it verifies.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(bytes: &[u8]) -> Result<Self, SegmentError> {
        let mut fields = open::<SEGMENT_FOOTER_LEN>(bytes, SEGMENT_FOOTER_TAG)?;
        let summary = Self {
            batch_count: u64::from_le_bytes(fields.tagged(0x09)?),
            record_count: u64::from_le_bytes(fields.tagged(0x11)?),
            last_offset: i64::from_le_bytes(fields.tagged(0x19)?),
            last_epoch: u32::from_le_bytes(fields.tagged(0x25)?),
            max_timestamp_ms: i64::from_le_bytes(fields.tagged(0x29)?),
            file_crc32: u32::from_le_bytes(fields.tagged(0x35)?),
        };
        fields.close(0x3D)?;
        Ok(summary)
    }
}

/// Bytes of the closing crc field.
const CRC_FIELD_LEN: usize = 5;

/// A length that fits one byte of varint; both fields are far below 128 bytes.
const fn short(len: usize) -> u8 {
    assert!(len < 0x80, "one byte of length");
    #[allow(clippy::cast_possible_truncation, reason = "below 0x80")]
    return len as u8;
}

/// Writes the closing checksum.
fn close<const LEN: usize>(mut field: [u8; LEN], tag: u8) -> [u8; LEN] {
    let crc = crc32fast::hash(field.get(2..LEN - CRC_FIELD_LEN).unwrap_or_default());
    if let Some(rest) = field.get_mut(LEN - CRC_FIELD_LEN..) {
        Writer::new(rest).tagged(tag, crc.to_le_bytes());
    }
    field
}

struct Reader<'a> {
    body: &'a [u8],
    rest: &'a [u8],
}

/// The fields of a header or footer, once tag and length are right.
fn open<const LEN: usize>(bytes: &[u8], tag: u8) -> Result<Reader<'_>, SegmentError> {
    let field = bytes.first_chunk::<LEN>().ok_or(SegmentError::Short)?;
    let (lead, body) = field.split_first_chunk::<2>().ok_or(SegmentError::Short)?;
    if usize::from(lead[1]) + 2 != LEN || lead[0] != tag {
        return Err(SegmentError::Layout);
    }
    Ok(Reader { body, rest: body })
}

impl Reader<'_> {
    fn tagged<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], SegmentError> {
        let rest = self.rest.strip_prefix(&[tag]).ok_or(SegmentError::Layout)?;
        let (value, rest) = rest.split_first_chunk::<N>().ok_or(SegmentError::Short)?;
        self.rest = rest;
        Ok(*value)
    }

    fn id(&mut self, tag: u8) -> Result<[u8; 16], SegmentError> {
        self.rest = self.rest.strip_prefix(&[tag]).ok_or(SegmentError::Layout)?;
        self.tagged(16)
    }

    /// Reads the closing checksum and compares.
    fn close(mut self, tag: u8) -> Result<(), SegmentError> {
        let covered = self.body.len() - self.rest.len();
        let crc = u32::from_le_bytes(self.tagged(tag)?);
        let covered = self.body.get(..covered).unwrap_or_default();
        if crc32fast::hash(covered) == crc { Ok(()) } else { Err(SegmentError::Crc) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;
    use prost::Message as _;

    fn identity() -> SegmentIdentity {
        SegmentIdentity {
            format_version: FORMAT_VERSION,
            feature_bits: 0,
            cluster_id: [1; 16],
            topic_id: TopicId([2; 16]),
            partition: 3,
            base_offset: 4,
            generation: 0,
            log_start_offset: 0,
            created_ms: 1_700_000_000_000,
        }
    }

    fn summary() -> SegmentSummary {
        SegmentSummary {
            batch_count: 2,
            record_count: 0,
            last_offset: 9,
            last_epoch: 1,
            max_timestamp_ms: -1,
            file_crc32: 0xDEAD_BEEF,
        }
    }

    #[test]
    fn both_read_back_and_parse_as_a_slice() {
        let file = [identity().encode().as_slice(), &summary().encode()].concat();
        assert_eq!(&file[3..11], b"ANNLSEG1");
        assert_eq!(SegmentIdentity::verify(&file), Ok(identity()));
        assert_eq!(SegmentSummary::verify(&file[SEGMENT_HEADER_LEN..]), Ok(summary()));
        let slice = v1::LogSlice::decode(file.as_slice()).unwrap();
        let (header, footer) = (slice.segment.unwrap(), slice.sealed.unwrap());
        assert_eq!((header.magic, header.format_version, header.partition), (SEGMENT_MAGIC, 1, 3));
        assert_eq!((header.base_offset, header.created_ms), (4, 1_700_000_000_000));
        assert_eq!(
            (header.cluster_id.as_ref(), header.topic_id.as_ref()),
            ([1; 16].as_slice(), [2; 16].as_slice())
        );
        assert_eq!((footer.batch_count, footer.last_offset, footer.last_epoch), (2, 9, 1));
        assert_eq!((footer.max_timestamp_ms, footer.file_crc32), (-1, 0xDEAD_BEEF));
    }

    #[test]
    fn every_damaged_byte_is_caught() {
        let (header, footer) = (identity().encode(), summary().encode());
        for mask in 1..=255_u8 {
            for at in 0..header.len() {
                let mut damaged = header;
                damaged[at] ^= mask;
                assert!(SegmentIdentity::verify(&damaged).is_err(), "header byte {at} xor {mask:#x}");
            }
            for at in 0..footer.len() {
                let mut damaged = footer;
                damaged[at] ^= mask;
                assert!(SegmentSummary::verify(&damaged).is_err(), "footer byte {at} xor {mask:#x}");
            }
        }
        assert_eq!(SegmentIdentity::verify(&header[..102]), Err(SegmentError::Short));
        assert_eq!(SegmentSummary::verify(&footer[..52]), Err(SegmentError::Short));
        assert!(SegmentIdentity::verify(&[0; SEGMENT_HEADER_LEN]).is_err());
    }

    #[test]
    fn a_newer_format_is_named() {
        let newer = SegmentIdentity { format_version: 2, ..identity() };
        let error = SegmentIdentity::verify(&newer.encode()).unwrap_err();
        assert_eq!(error.to_string(), "format version 2, feature bits 0x0: written by a newer release");
        let featured = SegmentIdentity { feature_bits: 4, ..identity() };
        assert_eq!(
            SegmentIdentity::verify(&featured.encode()),
            Err(SegmentError::Newer { version: 1, feature_bits: 4 })
        );
    }
}
