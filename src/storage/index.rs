//! Where in a segment an offset or a time is found: a sparse index, derived from the log and never more than a hint.
//!
//! An entry is kept for the first batch, and for each that begins at least a step of bytes behind the last one kept:
//!
//! ```text
//! log      | batch 0 | batch 3 | batch 4 |   batch 9   | batch 12 | ...
//! entries  ^ 0                           ^ 9                        offset, position, newest time before it
//! ```
//!
//! 1. Offsets and positions of the entries rise; the times never fall.
//! 2. An entry's time is the greatest timestamp of **all** batches before it, kept or not. So everything a search by
//!    time looks for lies at or behind the last entry whose time is still older.
//! 3. A look-up answers a position at or before what is looked for, from which a short scan finds it. Who scans checks
//!    that the batch there carries the offset it should; if it does not, the index is thrown away.
//!
//! # The files of a sealed segment
//!
//! `<base>-<generation>.index` and `.time`, little endian. They are not flushed before anything depends on them: a
//! missing, torn or foreign one is no more than a reason to read the segment once.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `ANNLIDX1` or `ANNLTIM1` |
//! | 8 | 4 | version = 1 |
//! | 12 | 4 | generation of the segment |
//! | 16 | 8 | base offset of the segment |
//! | 24 | 8 | greatest timestamp in the segment |
//! | 32 | 4 | number of entries |
//! | 36 | 4 | crc32 of whose segment it is (topic id, partition), of the bytes 0..36 and of the entries |
//! | 40 | 8 each | `.index`: offset less the base offset (4), position (4) |
//! | 40 | 12 each | `.time`: greatest timestamp before the entry (8), offset less the base offset (4) |
//!
//! The entries of both are the same, in the same order. A timestamp that is not there is the least number.

use bytes::{BufMut, BytesMut};

use super::mutant::{Mutant, planted};

const OFFSETS_MAGIC: [u8; 8] = *b"ANNLIDX1";
const TIMES_MAGIC: [u8; 8] = *b"ANNLTIM1";
const VERSION: u32 = 1;
const CRC_AT: usize = 36;
const HEADER_LEN: usize = CRC_AT + 4;

/// The index of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseIndex {
    base: i64,
    step: u32,
    entries: Vec<Entry>,
    /// Greatest timestamp of all batches so far.
    newest: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Greatest timestamp of all batches before this one.
    newest_before: i64,
    /// Base offset of the batch, less that of the segment.
    relative: u32,
    position: u32,
}

/// Whose index a file is: mixed into its crc, so that a file put in another's place is no index at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// Bytes that name the partition.
    pub(crate) partition: &'a [u8],
    pub(crate) generation: u32,
}

impl SparseIndex {
    /// An empty index of the segment that begins at `base`, with an entry every `step` bytes of log.
    pub(crate) fn new(base: i64, step: u32) -> Self {
        Self { base, step, entries: Vec::new(), newest: i64::MIN }
    }

    /// Takes a batch; each must lie behind the one before it. What does not fit the numbers of an entry gets none,
    /// which only makes the scans longer.
    pub(crate) fn push(&mut self, base_offset: i64, position: u64, max_timestamp_ms: i64) {
        self.keep(base_offset, position);
        self.newest = self.newest.max(max_timestamp_ms);
    }

    fn keep(&mut self, base_offset: i64, position: u64) {
        let relative = base_offset.checked_sub(self.base).and_then(|distance| u32::try_from(distance).ok());
        let (Some(relative), Ok(position)) = (relative, u32::try_from(position)) else { return };
        let due = self.entries.last().is_none_or(|last| {
            relative > last.relative
                && position.checked_sub(last.position).is_some_and(|since| since >= self.step)
        });
        if due {
            self.entries.push(Entry { newest_before: self.newest, relative, position });
        }
    }

    /// Takes what another index of the same segment knows of the batches behind all of this one's.
    pub(crate) fn append(&mut self, later: &Self) {
        let known = self.entries.last().copied();
        for entry in &later.entries {
            if known.is_none_or(|known| entry.relative > known.relative && entry.position > known.position) {
                self.entries.push(Entry { newest_before: entry.newest_before.max(self.newest), ..*entry });
            }
        }
        self.newest = self.newest.max(later.newest);
    }

    /// Position of the last kept batch whose base offset is not above `offset`.
    pub(crate) fn lookup(&self, offset: i64) -> Option<u64> {
        let distance = offset.checked_sub(self.base)?;
        self.last_where(|entry| i64::from(entry.relative) <= distance)
    }

    /// Position of the last kept batch before which every record is older than `timestamp_ms`.
    pub(crate) fn lookup_time(&self, timestamp_ms: i64) -> Option<u64> {
        self.last_where(|entry| entry.newest_before < timestamp_ms)
    }

    /// Position of the last batch kept.
    pub(crate) fn last_position(&self) -> Option<u64> {
        self.last_where(|_| true)
    }

    /// The last entry for which `holds`, which must hold for a first part of the entries and for no other.
    fn last_where(&self, holds: impl Fn(&Entry) -> bool) -> Option<u64> {
        let after = self.entries.partition_point(holds);
        Some(self.entries.get(after.checked_sub(1)?)?.position.into())
    }

    /// The `.index` file.
    pub(crate) fn encode_offsets(&self, owner: Owner<'_>) -> BytesMut {
        self.encode(OFFSETS_MAGIC, owner, |out, entry| {
            out.put_u32_le(entry.relative);
            out.put_u32_le(entry.position);
        })
    }

    /// The `.time` file.
    pub(crate) fn encode_times(&self, owner: Owner<'_>) -> BytesMut {
        self.encode(TIMES_MAGIC, owner, |out, entry| {
            out.put_i64_le(entry.newest_before);
            out.put_u32_le(entry.relative);
        })
    }

    fn encode(&self, magic: [u8; 8], owner: Owner<'_>, put: impl Fn(&mut BytesMut, &Entry)) -> BytesMut {
        let count = u32::try_from(self.entries.len()).expect("entries have different offsets of 32 bits");
        let mut entries = BytesMut::with_capacity(self.entries.len() * 12);
        self.entries.iter().for_each(|entry| put(&mut entries, entry));
        let mut out = BytesMut::with_capacity(HEADER_LEN + entries.len());
        out.put_slice(&magic);
        out.put_u32_le(VERSION);
        out.put_u32_le(owner.generation);
        out.put_i64_le(self.base);
        out.put_i64_le(self.newest);
        out.put_u32_le(count);
        let crc = checksum(owner, &out, &entries);
        out.put_u32_le(crc);
        out.unsplit(entries);
        out
    }

    /// The index that was written as these two files for the segment at `base`; `None` on any doubt.
    pub(crate) fn decode(
        base: i64,
        step: u32,
        owner: Owner<'_>,
        offsets: &[u8],
        times: &[u8],
    ) -> Option<Self> {
        let (newest, offsets) = open::<8>(OFFSETS_MAGIC, base, owner, offsets)?;
        let (also_newest, times) = open::<12>(TIMES_MAGIC, base, owner, times)?;
        if newest != also_newest || offsets.len() != times.len() {
            return None;
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(offsets.len());
        for (mut offset, mut time) in offsets.iter().map(Fields::of).zip(times.iter().map(Fields::of)) {
            let (relative, position) = (offset.u32()?, offset.u32()?);
            let entry = Entry { newest_before: time.i64()?, relative, position };
            let follows = entries.last().is_none_or(|last| {
                last.relative < relative
                    && last.position < position
                    && last.newest_before <= entry.newest_before
            });
            if !follows || time.u32()? != relative || entry.newest_before > newest {
                return None;
            }
            entries.push(entry);
        }
        Some(Self { base, step, entries, newest })
    }
}

/// Checks a file's header and crc; its greatest timestamp and its entries.
fn open<'a, const N: usize>(
    magic: [u8; 8],
    base: i64,
    owner: Owner<'_>,
    file: &'a [u8],
) -> Option<(i64, &'a [[u8; N]])> {
    let (header, rest) = file.split_at_checked(CRC_AT)?;
    let (crc, entries) = rest.split_first_chunk()?;
    let mut fields = Fields(header);
    let ours = fields.array() == Some(magic)
        && fields.u32() == Some(VERSION)
        && fields.u32() == Some(owner.generation)
        && fields.i64() == Some(base);
    let (newest, count) = (fields.i64()?, fields.u32()?);
    let (entries_whole, odd) = entries.as_chunks();
    let whole = odd.is_empty() && u32::try_from(entries_whole.len()) == Ok(count);
    let holds = checksum(owner, header, entries) == u32::from_le_bytes(*crc);
    let intact = ours && whole && (holds || planted(Mutant::IndexCrcUnchecked));
    intact.then_some((newest, entries_whole))
}

fn checksum(owner: Owner<'_>, header: &[u8], entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(owner.partition);
    hasher.update(header);
    hasher.update(entries);
    hasher.finalize()
}

/// Reads little-endian fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of<const N: usize>(entry: &'a [u8; N]) -> Self {
        Self(entry)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests;
