//! Puts checksums right after a mutation, so that what lies behind them is reached. What cannot be repaired stays.

use annals_wire::header::{BATCH_PREFIX_LEN, BATCH_TAG, CRC_COVERED_LEN, at};
use annals_wire::segment::{SEGMENT_FOOTER_LEN, SEGMENT_FOOTER_TAG, SEGMENT_HEADER_LEN, SEGMENT_HEADER_TAG};

use crate::storage::fuzz::{PARTITION, TOPIC};

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn four(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

/// Batches one behind the other, as in a segment, with its header before and its footer behind them.
pub(super) fn batches(bytes: &mut [u8]) {
    let mut from = 0;
    while let Some(&tag) = bytes.get(from) {
        let rest = &mut bytes[from..];
        let length = match tag {
            SEGMENT_HEADER_TAG => edge::<SEGMENT_HEADER_LEN>(rest, 0x5D),
            SEGMENT_FOOTER_TAG => edge::<SEGMENT_FOOTER_LEN>(rest, 0x3D),
            BATCH_TAG => batch(rest),
            _ => None,
        };
        let Some(length) = length else { return };
        from += length;
    }
}

fn edge<const LENGTH: usize>(rest: &mut [u8], tag: u8) -> Option<usize> {
    let field = rest.first_chunk_mut::<LENGTH>()?;
    field[1] = u8::try_from(LENGTH - 2).ok()?;
    field[LENGTH - 5] = tag;
    let crc = crc32fast::hash(&field[2..LENGTH - 5]);
    put(field, LENGTH - 4, crc);
    Some(LENGTH)
}

/// Lengths that lead out of the input are left alone.
fn batch(rest: &mut [u8]) -> Option<usize> {
    let lead: [u8; 4] = rest.get(1..5)?.try_into().ok()?;
    let body = lead.iter().rev().fold(0_usize, |value, byte| value << 7 | usize::from(byte & 0x7F));
    let length = 5 + body;
    if !(BATCH_PREFIX_LEN..=rest.len()).contains(&length) {
        return None;
    }
    let crc = crc32fast::hash(&rest[BATCH_PREFIX_LEN..length]);
    put(rest, at::RECORDS_CRC32, crc);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(TOPIC.as_bytes());
    hasher.update(&PARTITION.to_le_bytes());
    hasher.update(&rest[..CRC_COVERED_LEN]);
    put(rest, at::HEADER_CRC32, hasher.finalize());
    Some(length)
}

/// The crc of everything before the last four bytes.
pub(super) fn root(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(4) {
        let crc = crc32fast::hash(&bytes[..at]);
        put(bytes, at, crc);
    }
}

/// The crc of the first 60 bytes.
pub(super) fn ring_header(bytes: &mut [u8]) {
    if bytes.len() >= 64 {
        let crc = crc32fast::hash(&bytes[..60]);
        put(bytes, 60, crc);
    }
}

/// A frame with its length and crc.
pub(super) fn frame(bytes: &mut [u8]) {
    guard(bytes, |bytes, length| put(bytes, 8, length));
}

/// A snapshot with the length of its body and its crc.
pub(super) fn snapshot(bytes: &mut [u8]) {
    guard(bytes, |bytes, length| {
        put(bytes, 52, length - 64);
        put(bytes, 56, 0);
    });
}

/// Both have 64 bytes of header, whose last four are the crc of the rest.
fn guard(bytes: &mut [u8], set_length: impl Fn(&mut [u8], u32)) {
    if bytes.len() < 64 {
        return;
    }
    set_length(bytes, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..60]);
    hasher.update(&bytes[64..]);
    put(bytes, 60, hasher.finalize());
}

/// Both files of an index: number of entries and crc of each.
pub(super) fn index(bytes: &mut [u8]) {
    if bytes.len() < 4 {
        return;
    }
    let middle = (four(bytes, 0) & 0xFFFF).min(bytes.len() - 4) + 4;
    let (offsets, times) = bytes.split_at_mut(middle);
    for (file, entry) in [(&mut offsets[4..], 8), (times, 12)] {
        if file.len() >= 40 {
            put(file, 32, u32::try_from((file.len() - 40) / entry).unwrap_or(u32::MAX));
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(TOPIC.as_bytes());
            hasher.update(&file[..36]);
            hasher.update(&file[40..]);
            put(file, 36, hasher.finalize());
        }
    }
}

/// An index of keys with no more than one block and one run of anchors: the crc of its header and directory, then those of the two.
pub(super) fn keys(bytes: &mut [u8]) {
    if bytes.len() < 64 {
        return;
    }
    let (header, rest) = bytes.split_at_mut(52);
    let blocks = four(header, 36).min(rest.len() / 8);
    let (directory, rest) = rest.split_at_mut(blocks * 8);
    let mut anchored = match four(header, 44) {
        0 => 0,
        anchors => anchors.saturating_mul(4).saturating_add(4),
    };
    if anchored > rest.len() {
        put(header, 44, 0);
        anchored = 0;
    }
    let (block, anchors) = rest.split_at_mut(rest.len() - anchored);
    put(header, 40, u32::try_from(block.len()).unwrap_or(u32::MAX));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(TOPIC.as_bytes());
    hasher.update(&header[..48]);
    hasher.update(directory);
    let crc = hasher.finalize();
    put(header, 48, crc);
    for run in [block, anchors] {
        if run.len() >= 4 {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&crc.to_le_bytes());
            hasher.update(&run[4..]);
            put(run, 0, hasher.finalize());
        }
    }
}
