//! Where in a segment a key may be: an index of a sealed segment, derived from it and never more than a hint.
//!
//! For each key, by its fingerprint (crc32), the granules in which records with that key lie. A granule is 2^`shift` offsets,
//! counted from the segment's base; one offset, unless that would make the index larger than it may be.
//!
//! 1. **A granule listed is only a place to look**: who reads it compares whole keys. Another key's fingerprint may be the same.
//! 2. **What is not listed is not there.** That is as sure as the checksums: the file names its partition, its segment's base and
//!    generation and the crc of the segment's bytes, and every block has a crc of its own. On any doubt the segment is scanned,
//!    and the index made again.
//! 3. It says of every [`ANCHOR_STEP`]th offset where its record begins in the payload of its batch, so that who looks for one record
//!    need not step over all that lie before it. Who begins at an anchor has to arrive at the next.
//! 4. It takes at most a twentieth of the segment's bytes, or 12 bytes for each key, whichever is more, and 64 bytes.
//! 5. It is never needed: a missing, torn or foreign file costs time. Recovery does not look at it.
//!
//! # The file
//!
//! `<base>-<generation>.keys`, little endian, written once when the segment is sealed, never flushed.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `ANNLKEY1` |
//! | 8 | 4 | version = 1 |
//! | 12 | 4 | generation of the segment |
//! | 16 | 8 | base offset of the segment |
//! | 24 | 4 | `file_crc32` of the segment's footer |
//! | 28 | 4 | shift |
//! | 32 | 4 | number of keys |
//! | 36 | 4 | number of blocks |
//! | 40 | 4 | bytes of all blocks |
//! | 44 | 4 | number of anchors |
//! | 48 | 4 | crc32 of whose segment it is (topic id, partition), of the bytes 0..48 and of the directory |
//! | 52 | 8 each | directory: first fingerprint of a block (4), where it begins, counted from the first block (4) |
//! | … | … | blocks |
//! | … | … | runs of 1,024 anchors, the last one shorter |
//!
//! A block: crc32 of the header's crc and of what follows (4), then entries by rising fingerprint, each
//! `fingerprint less the one before (of the first: less the directory's, so 0) · number of granules · first granule ·
//! distance of the next · ...`, all varints. Number 0 stands for a key that is nearly everywhere: all granules.
//!
//! A run of anchors: crc32 of the header's crc and of what follows (4), then for each 64th offset from the base on where the tag of
//! its record is in the payload of its batch (4); the largest number where there is no such place: in a packed batch, or a hole.

mod build;
mod look;
mod postings;

use std::ops::Range;

use bytes::{Buf as _, BufMut as _};

pub(crate) use build::Work;
pub use look::Places;
pub(crate) use postings::Postings;

use super::index::Owner;

const MAGIC: [u8; 8] = *b"ANNLKEY1";
const VERSION: u32 = 1;
const CRC_AT: usize = 48;
pub(crate) const HEADER_LEN: usize = CRC_AT + 4;
const PLACE_LEN: usize = 8;
/// Offsets between two anchors.
pub(crate) const ANCHOR_STEP: u64 = 64;
/// Anchors that are checked together.
const ANCHOR_RUN: usize = 1024;
const ANCHOR_LEN: usize = 4;
/// There is no such place.
const NO_ANCHOR: u32 = u32::MAX;
/// A block ends behind the entry that reaches this size.
const BLOCK_BYTES: usize = 4096;
/// A larger file is not ours.
pub(crate) const MOST_BYTES: usize = 256 << 20;
/// Bytes of log for each byte of index that is always allowed.
const LOG_SHARE: u64 = 20;
/// Bytes for each key that are always allowed.
const KEY_BYTES: u64 = 12;
/// Bytes that are always allowed: the header, and what the first block has in front of its entries.
const FIXED_BYTES: u64 = 64;
/// A key that is in more than one granule of so many is said to be everywhere.
const EVERYWHERE: u64 = 4;

/// A key's fingerprint.
pub(crate) fn fingerprint(key: &[u8]) -> u32 {
    crc32fast::hash(key)
}

/// The segment that an index is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) base: i64,
    /// Of its footer.
    pub(crate) file_crc32: u32,
}

/// The bytes in front of the blocks, checked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    crc: u32,
    shift: u32,
    keys: u32,
    directory: Vec<(u32, u32)>,
    blocks_len: u32,
    anchors: u32,
}

/// What an index says about a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is in no record.
    Nowhere,
    /// Any record may have it.
    Everywhere,
    /// Only these offsets may, counted from the base: rising, apart from each other.
    Ranges(Vec<Range<u64>>),
}

/// The fixed part of a header: how many bytes the directory has.
pub(crate) fn directory_len(header: &[u8]) -> Option<usize> {
    let blocks = header.get(36..40)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    usize::try_from(blocks).ok()?.checked_mul(PLACE_LEN).filter(|len| *len <= MOST_BYTES)
}

impl Head {
    /// Reads header and directory; `None` on any doubt.
    pub(crate) fn read(bytes: &[u8], subject: Subject<'_>) -> Option<Self> {
        let (mut header, rest) = bytes.split_at_checked(HEADER_LEN)?;
        let directory = rest.get(..directory_len(header)?)?;
        let checked = header.get(..CRC_AT)?;
        let mut magic = [0; 8];
        header.copy_to_slice(&mut magic);
        let ours = magic == MAGIC
            && header.get_u32_le() == VERSION
            && header.get_u32_le() == subject.owner.generation
            && header.get_i64_le() == subject.base
            && header.get_u32_le() == subject.file_crc32;
        if !ours {
            return None;
        }
        let (shift, keys, _blocks) = (header.get_u32_le(), header.get_u32_le(), header.get_u32_le());
        let (blocks_len, anchors) = (header.get_u32_le(), header.get_u32_le());
        let crc = header.get_u32_le();
        if checksum(subject, checked, directory) != crc || shift > 31 {
            return None;
        }
        let place = |mut place: &[u8]| (place.get_u32_le(), place.get_u32_le());
        let directory: Vec<_> = directory.chunks_exact(PLACE_LEN).map(place).collect();
        let follows = |pair: (&(u32, u32), &(u32, u32))| pair.0.0 < pair.1.0 && pair.0.1 < pair.1.1;
        let sound = directory.iter().zip(directory.iter().skip(1)).all(follows)
            && directory.first().is_none_or(|first| first.1 == 0)
            && directory.last().is_none_or(|last| last.1 < blocks_len);
        sound.then_some(Self { crc, shift, keys, directory, blocks_len, anchors })
    }

    /// Where in the file the block lies that would hold a fingerprint, and the block's first one; `None`: no block does.
    pub(crate) fn block_of(&self, fingerprint: u32) -> Option<(Range<u64>, u32)> {
        let after = self.directory.partition_point(|place| place.0 <= fingerprint);
        let (first, from) = *self.directory.get(after.checked_sub(1)?)?;
        let until = self.directory.get(after).map_or(self.blocks_len, |next| next.1);
        let begin = self.blocks_at();
        Some((begin + u64::from(from)..begin + u64::from(until), first))
    }

    fn blocks_at(&self) -> u64 {
        (HEADER_LEN + self.directory.len() * PLACE_LEN) as u64
    }

    /// Where in the file the run of anchors lies that speaks of an offset, counted from the base; and all offsets it speaks of.
    pub(crate) fn anchors_of(&self, relative: u64) -> Option<(Range<u64>, Range<u64>)> {
        let index = relative / ANCHOR_STEP;
        let run = index / ANCHOR_RUN as u64;
        if index >= u64::from(self.anchors) {
            return None;
        }
        let count = (u64::from(self.anchors) - run * ANCHOR_RUN as u64).min(ANCHOR_RUN as u64);
        let begin =
            self.blocks_at() + u64::from(self.blocks_len) + run * (4 + ANCHOR_RUN * ANCHOR_LEN) as u64;
        let first = run * ANCHOR_RUN as u64 * ANCHOR_STEP;
        Some((begin..begin + 4 + count * ANCHOR_LEN as u64, first..first + count * ANCHOR_STEP))
    }

    /// The anchors of a run; `None` on any doubt.
    pub(crate) fn anchors<'a>(
        &self,
        run: &'a [u8],
        first: u64,
    ) -> Option<impl Iterator<Item = (u64, u32)> + use<'a>> {
        let (crc, anchors) = run.split_first_chunk()?;
        if block_crc(self.crc, anchors) != u32::from_le_bytes(*crc) {
            return None;
        }
        let places = anchors.as_chunks().0.iter().map(|place| u32::from_le_bytes(*place));
        let offsets = (0..).map(move |index: u64| first + index * ANCHOR_STEP);
        Some(offsets.zip(places).filter(|anchor| anchor.1 != NO_ANCHOR))
    }

    /// What a block says about a fingerprint; `None` on any doubt.
    pub(crate) fn find(&self, block: &[u8], first: u32, fingerprint: u32) -> Option<Found> {
        let (crc, mut entries) = block.split_first_chunk()?;
        if block_crc(self.crc, entries) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut at = first;
        while !entries.is_empty() {
            at = at.checked_add(varint(&mut entries)?)?;
            let count = varint(&mut entries)?;
            if at > fingerprint {
                break;
            }
            if at == fingerprint && count == 0 {
                return Some(Found::Everywhere);
            }
            if at == fingerprint {
                return self.ranges(&mut entries, count).map(Found::Ranges);
            }
            for _ in 0..count {
                varint(&mut entries)?;
            }
        }
        Some(Found::Nowhere)
    }

    fn ranges(&self, entries: &mut &[u8], count: u32) -> Option<Vec<Range<u64>>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut granule = 0_u32;
        for index in 0..count {
            let distance = varint(entries)?;
            if index > 0 && distance == 0 {
                return None;
            }
            granule = granule.checked_add(distance)?;
            let range = u64::from(granule) << self.shift..(u64::from(granule) + 1) << self.shift;
            match ranges.last_mut().filter(|last| last.end == range.start) {
                Some(last) => last.end = range.end,
                None => ranges.push(range),
            }
        }
        Some(ranges)
    }
}

fn checksum(subject: Subject<'_>, header: &[u8], directory: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(subject.owner.partition);
    hasher.update(header);
    hasher.update(directory);
    hasher.finalize()
}

fn block_crc(head: u32, entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head.to_le_bytes());
    hasher.update(entries);
    hasher.finalize()
}

/// The bytes of an index: the finest that may be, of a log of so many bytes and offsets. `anchors` are of every
/// [`ANCHOR_STEP`]th offset.
pub(crate) fn encode(
    mut postings: Postings,
    mut anchors: &[u32],
    subject: Subject<'_>,
    log_bytes: u64,
    offsets: u64,
) -> Vec<u8> {
    loop {
        let granules = offsets >> postings.shift();
        let file = write(&postings, anchors, subject, granules);
        let most = (log_bytes / LOG_SHARE).max(KEY_BYTES * postings.keys() as u64) + FIXED_BYTES;
        if file.len() as u64 <= most || (postings.shift() == 31 && anchors.is_empty()) {
            return file;
        }
        if postings.shift() == 31 {
            anchors = &[];
        } else {
            postings = postings.coarser();
        }
    }
}

fn write(postings: &Postings, anchors: &[u32], subject: Subject<'_>, granules: u64) -> Vec<u8> {
    let mut directory = Vec::new();
    let mut blocks = Vec::new();
    let (mut begin, mut before) = (0, 0);
    // The header's crc covers the directory, and the blocks' crcs cover that: they are filled in at the end.
    let mut starts = Vec::new();
    for (fingerprint, list) in postings.iter() {
        if starts.is_empty() || blocks.len() - begin >= BLOCK_BYTES {
            begin = blocks.len();
            before = fingerprint;
            starts.push(begin);
            directory.put_u32_le(fingerprint);
            directory.put_u32_le(u32::try_from(begin).expect("an index is smaller than its segment's limit"));
            blocks.put_u32_le(0);
        }
        put_varint(&mut blocks, fingerprint - before);
        before = fingerprint;
        let count = postings::count(list);
        if u64::from(count) > granules / EVERYWHERE && granules > EVERYWHERE {
            put_varint(&mut blocks, 0);
        } else {
            put_varint(&mut blocks, count);
            blocks.extend_from_slice(list);
        }
    }
    let fits = |number: usize| u32::try_from(number).expect("an index is smaller than its segment's limit");
    let mut file = Vec::with_capacity(HEADER_LEN + directory.len() + blocks.len());
    file.put_slice(&MAGIC);
    file.put_u32_le(VERSION);
    file.put_u32_le(subject.owner.generation);
    file.put_i64_le(subject.base);
    file.put_u32_le(subject.file_crc32);
    file.put_u32_le(postings.shift());
    file.put_u32_le(fits(postings.keys()));
    file.put_u32_le(fits(starts.len()));
    file.put_u32_le(fits(blocks.len()));
    file.put_u32_le(fits(anchors.len()));
    let crc = checksum(subject, &file, &directory);
    file.put_u32_le(crc);
    file.extend_from_slice(&directory);
    let ends = starts.iter().skip(1).copied().chain([blocks.len()]);
    for (begin, end) in starts.iter().zip(ends) {
        let block = blocks.get(*begin + 4..end).unwrap_or_default();
        file.put_u32_le(block_crc(crc, block));
        file.extend_from_slice(block);
    }
    for run in anchors.chunks(ANCHOR_RUN) {
        let run: Vec<u8> = run.iter().flat_map(|at| at.to_le_bytes()).collect();
        file.put_u32_le(block_crc(crc, &run));
        file.extend_from_slice(&run);
    }
    file
}

/// Takes a varint off the front.
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return u32::try_from(value).ok();
        }
    }
    None
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7F | 0x80).to_le_bytes()[0]);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
