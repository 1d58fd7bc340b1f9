//! One segment file.
//!
//! ```text
//! header | batch | batch | ... | [footer]  or  zeros up to the allocated length
//! ```
//!
//! 1. Bytes below `end` never change while the file is open; `end` moves in whole batches, under the partition's lock.
//! 2. The handle that wrote is the handle that flushes.
//! 3. A range is served only if it was written by this process or has been verified since it was opened.
//! 4. The index is derived. A look-up that leads nowhere sensible means: scan, never: trust.

mod open;
mod seal;

use std::{io, ops::Range, sync::Arc};

use annals_wire::{
    header::BatchHeader,
    segment::{SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentIdentity, SegmentSummary},
};
use crc32fast::Hasher;
use smallvec::SmallVec;

use super::{
    disk::{Disk, File},
    frame::BatchBytes,
    index::SparseIndex,
    key::PartitionKey,
    mutant::{Mutant, flush_twice, planted},
    partition::Spare,
    ranges::Ranges,
    replace::join,
    root::{FORMAT_VERSION, Root},
    scan::{Scan, ScanError, Source},
};
use crate::sync::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Mutex, Ordering, RwLock};

/// Position of the first batch.
pub(crate) const DATA_START: u64 = SEGMENT_HEADER_LEN as u64;
/// Room a segment keeps for its footer.
pub(crate) const FOOTER_ROOM: u64 = SEGMENT_FOOTER_LEN as u64;
/// Bytes of log between two entries of the index.
pub(crate) const INDEX_STEP: u32 = 4096;

/// Name of a segment file without its ending.
pub(crate) fn stem(base: i64, generation: u32) -> String {
    format!("{base:020}-{generation}")
}

/// Base offset and generation in a segment's file name.
pub(crate) fn parse_name(name: &str) -> Option<(i64, u32)> {
    let (base, generation) = name.strip_suffix(".log")?.split_once('-')?;
    let parsed = (base.parse().ok()?, generation.parse().ok()?);
    (stem(parsed.0, parsed.1) + ".log" == name).then_some(parsed)
}

/// Counts that the footer will carry.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) last_epoch: u32,
    pub(crate) max_timestamp_ms: i64,
    /// Over the whole file so far, header included.
    pub(crate) hasher: Hasher,
}

/// Which segment a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    pub(crate) key: PartitionKey,
    pub(crate) base: i64,
    pub(crate) generation: u32,
}

impl SegmentId {
    pub(crate) fn path(&self) -> String {
        join(&self.key.dir(), &(stem(self.base, self.generation) + ".log"))
    }
}

/// A segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) key: PartitionKey,
    pub(crate) base: i64,
    /// Rises while the commit cycle looks for a free name; fixed once the file has it.
    generation: AtomicU64,
    /// Number of the entry that names it; 0 where recovery found it.
    roll_number: AtomicU64,
    /// It has its header and its final name, both flushed.
    named: AtomicBool,
    /// The name until then.
    spare_path: Mutex<String>,
    pub(super) disk: Arc<dyn Disk>,
    file: Mutex<Option<Arc<dyn File>>>,
    /// Position after the last whole batch.
    end: AtomicU64,
    /// The end is not known yet: a footer or a scan will tell.
    unresolved: AtomicBool,
    /// Largest record time, once known.
    max_timestamp_ms: AtomicI64,
    /// Bytes of the file that have room on the disk.
    allocated: AtomicU64,
    /// Position below which a returned flush covers everything.
    synced: AtomicU64,
    /// Position below which write-back was started.
    pub(crate) written_back: AtomicU64,
    pub(super) index: RwLock<SparseIndex>,
    /// The index knows nothing of batches below this position: they were there before this process.
    pub(super) indexed_from: AtomicU64,
    known_good: Mutex<Ranges>,
    /// Bytes of it went missing under this process.
    lost: AtomicBool,
    /// Somebody needed the file since [`Segment::was_used`] was asked.
    used: AtomicBool,
    /// Somebody looked at bytes of it since [`Segment::unmap_if_at_rest`] was called.
    viewed: AtomicBool,
    pub(crate) tally: Mutex<Option<Tally>>,
    /// Of [`KeyHints`].
    key_hints: AtomicU8,
}

/// What is known of the index of a sealed segment's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyHints {
    /// Nothing against it; perhaps it is not there.
    Fine,
    /// It does not hold.
    Doubted,
    /// It could not be made in this run.
    Refused,
}

impl Segment {
    /// A segment over a spare file that this process just made. Its header is not written yet.
    pub(crate) fn fresh(disk: &Arc<dyn Disk>, key: PartitionKey, base: i64, spare: Spare) -> Self {
        let segment = Self::at(disk, key, base, 0, DATA_START);
        *segment.spare_path.lock() = spare.path;
        segment.named.store(false, Ordering::Release);
        *segment.file.lock() = Some(spare.file);
        segment.allocated.store(spare.allocated, Ordering::Relaxed);
        segment.synced.store(0, Ordering::Relaxed);
        *segment.tally.lock() =
            Some(Tally { batches: 0, records: 0, last_epoch: 0, max_timestamp_ms: 0, hasher: Hasher::new() });
        segment
    }

    /// A segment that is on the disk, with `end` as the journal has it. Nothing is read.
    pub(crate) fn at(disk: &Arc<dyn Disk>, key: PartitionKey, base: i64, generation: u32, end: u64) -> Self {
        Self {
            key,
            base,
            generation: AtomicU64::new(generation.into()),
            roll_number: AtomicU64::new(0),
            named: AtomicBool::new(true),
            spare_path: Mutex::default(),
            disk: Arc::clone(disk),
            file: Mutex::new(None),
            end: AtomicU64::new(end),
            unresolved: AtomicBool::new(false),
            max_timestamp_ms: AtomicI64::new(i64::MIN),
            allocated: AtomicU64::new(end),
            synced: AtomicU64::new(end),
            written_back: AtomicU64::new(end),
            index: RwLock::new(SparseIndex::new(base, INDEX_STEP)),
            indexed_from: AtomicU64::new(end),
            known_good: Mutex::new(Ranges::default()),
            lost: AtomicBool::new(false),
            used: AtomicBool::new(true),
            viewed: AtomicBool::new(false),
            tally: Mutex::new(None),
            key_hints: AtomicU8::new(0),
        }
    }

    /// A closed segment of which only the name is known. [`Segment::resolve`] finds out where it ends.
    pub(crate) fn closed(disk: &Arc<dyn Disk>, key: PartitionKey, base: i64, generation: u32) -> Self {
        let segment = Self::at(disk, key, base, generation, DATA_START);
        segment.unresolved.store(true, Ordering::Release);
        segment
    }

    /// Finds out where a closed segment ends: its footer says so, else a scan up to the next segment's base.
    pub(crate) fn resolve(&self, next_base: i64) -> io::Result<()> {
        if !self.unresolved.load(Ordering::Acquire) {
            return Ok(());
        }
        let file = self.file()?;
        let length = file.len()?;
        let mut footer = [0; SEGMENT_FOOTER_LEN];
        let at = length.saturating_sub(FOOTER_ROOM).max(DATA_START);
        let read = file.read_at(&mut footer, at)?;
        if let Ok(summary) = SegmentSummary::verify(footer.get(..read).unwrap_or_default()) {
            self.max_timestamp_ms.fetch_max(summary.max_timestamp_ms, Ordering::AcqRel);
            self.set_end(at);
            let _scanned_at_the_first_look_up = self.read_hints();
        } else {
            self.set_end(self.end_without_footer(length, next_base));
        }
        self.unresolved.store(false, Ordering::Release);
        Ok(())
    }

    /// Position behind the last batch below an offset. Damage is stepped over: it does not take what follows along.
    fn end_without_footer(&self, length: u64, next_base: i64) -> u64 {
        let (mut end, mut from, mut next_offset) = (DATA_START, Some(DATA_START), self.base);
        while let Some(start) = from.take() {
            let mut position = start;
            for found in Scan::new(self, start, length) {
                match found {
                    Ok(found) if found.header.base_offset >= next_base => return end,
                    Ok(found) => {
                        self.max_timestamp_ms.fetch_max(found.header.max_timestamp_ms, Ordering::AcqRel);
                        (end, position, next_offset) = (found.end(), found.end(), found.next_offset());
                    }
                    Err(ScanError::Unreadable { end: next, .. }) => from = Some(next),
                    Err(ScanError::NotABatch(_) | ScanError::Io(_)) => {
                        let next = Source::Map.find(self, position + 1..length, next_offset);
                        from = next.map(|(position, _)| position);
                    }
                }
            }
        }
        end
    }

    /// Largest record time in it, as far as known without reading it: at least that of everything appended.
    pub(crate) fn max_timestamp_ms(&self) -> i64 {
        self.load_index();
        self.max_timestamp_ms.load(Ordering::Acquire)
    }

    pub(crate) fn generation(&self) -> u32 {
        u32::try_from(self.generation.load(Ordering::Acquire)).expect("generations are counted in u32")
    }

    pub(crate) fn id(&self) -> SegmentId {
        SegmentId { key: self.key, base: self.base, generation: self.generation() }
    }

    pub(crate) fn is_named(&self) -> bool {
        self.named.load(Ordering::Acquire)
    }

    pub(crate) fn roll_number(&self) -> u64 {
        self.roll_number.load(Ordering::Acquire)
    }

    /// The entry that will name it.
    pub(crate) fn set_roll_number(&self, number: u64) {
        self.roll_number.store(number, Ordering::Release);
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Where the data ends, unless only a footer or a scan can tell.
    pub(crate) fn known_end(&self) -> Option<u64> {
        (!self.unresolved.load(Ordering::Acquire)).then(|| self.end())
    }

    /// Recovery's word on where the data ends.
    pub(crate) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
        self.indexed_from.store(end, Ordering::Release);
        self.synced.store(end, Ordering::Release);
        self.written_back.store(end, Ordering::Release);
    }

    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Acquire)
    }

    /// Somebody found out where it ends.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn set_end_known(&self, end: u64) {
        self.set_end(end);
        self.unresolved.store(false, Ordering::Release);
    }

    /// Bytes of it went missing under this process: a page of its map could not be read, or the file was cut. What was
    /// known good before that is not any more.
    pub(crate) fn is_lost(&self) -> bool {
        if self.lost.load(Ordering::Acquire) {
            return true;
        }
        let lost = self.file.lock().as_ref().is_some_and(|file| file.lost());
        if lost {
            self.lose();
        }
        lost
    }

    fn lose(&self) {
        self.lost.store(true, Ordering::Release);
        self.forget_good();
    }

    /// Everything in it is verified again before it is served.
    pub(crate) fn forget_good(&self) {
        *self.known_good.lock() = Ranges::default();
    }

    /// Gives the file more room. Blocking.
    pub(crate) fn allocate_to(&self, bytes: u64) -> io::Result<()> {
        let file = self.file()?;
        let from = self.allocated();
        if bytes > from {
            file.allocate(from, bytes - from)?;
            self.allocated.fetch_max(bytes, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Writes a batch at `end` without moving it. Not behind a hole: a file that was cut ([`Segment::is_lost`]) is
    /// `UnexpectedEof`, and nothing is written.
    pub(crate) fn write(&self, batch: &BatchBytes) -> io::Result<()> {
        let file = self.file()?;
        if file.len()? < self.end() {
            self.lose();
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let prefix = std::iter::once(batch.prefix.as_slice());
        let parts: SmallVec<[&[u8]; 8]> = prefix.chain(batch.payload.iter().map(|part| &part[..])).collect();
        file.write_at(&parts, self.end())
    }

    /// Takes back a batch of so many bytes that was written at `end`, if only in part, and not counted.
    pub(crate) fn unwrite(&self, bytes: u64) -> io::Result<()> {
        self.file()?.zero(self.end(), bytes)
    }

    /// Counts the batch that was just written.
    pub(crate) fn advance(&self, header: &BatchHeader, batch: &BatchBytes) {
        let position = self.end();
        let end = position + batch.len() as u64;
        self.index.write().push(header.base_offset, position, header.max_timestamp_ms);
        self.max_timestamp_ms.fetch_max(header.max_timestamp_ms, Ordering::AcqRel);
        self.known_good.lock().add(position..end);
        if let Some(tally) = &mut *self.tally.lock() {
            tally.batches += 1;
            tally.records += u64::from(header.record_count);
            tally.last_epoch = header.leader_epoch;
            tally.max_timestamp_ms = tally.max_timestamp_ms.max(header.max_timestamp_ms);
            batch.hash_into(&mut tally.hasher);
        }
        self.end.store(end, Ordering::Release);
    }

    /// Makes everything below the present end durable. An error is final: the caller fences the partition. A file that turns
    /// out to have been cut is no error of the disk: it is lost ([`Segment::is_lost`]).
    pub(crate) fn sync(&self) -> io::Result<()> {
        let end = self.end();
        if self.synced() >= end {
            return Ok(());
        }
        let file = self.file()?;
        if planted(Mutant::SegmentFlushRetried) {
            flush_twice(&*file)?;
        } else {
            file.sync()?;
        }
        if file.len()? < end {
            self.lose();
        }
        let end = if planted(Mutant::SyncedTakenAfter) { self.end() } else { end };
        self.synced.fetch_max(end, Ordering::AcqRel);
        Ok(())
    }

    /// Gives the file its header and its name. Called by the commit cycle before the frame that names it.
    pub(crate) fn put_in_place(&self, root: &Root, log_start: i64, created_ms: i64) -> io::Result<()> {
        let dir = self.key.dir();
        let names = self.disk.list(&dir)?;
        let taken = |generation| {
            let name = stem(self.base, generation) + ".log";
            names.iter().any(|entry| entry.name == name)
        };
        let generation = (0..=u32::MAX).find(|generation| !taken(*generation)).expect("a free generation");
        let identity = SegmentIdentity {
            format_version: FORMAT_VERSION,
            feature_bits: 0,
            cluster_id: root.cluster_id,
            topic_id: self.key.topic,
            partition: self.key.partition,
            base_offset: self.base,
            generation,
            log_start_offset: log_start,
            created_ms,
        };
        let header = identity.encode();
        self.generation.store(generation.into(), Ordering::Release);
        let file = self.file()?;
        file.write_at(&[&header], 0)?;
        if !planted(Mutant::SegmentHeaderUnflushed) {
            file.sync()?;
        }
        self.disk.rename(&self.spare_path.lock(), &self.id().path())?;
        if !planted(Mutant::SegmentNameUnflushed) {
            self.disk.sync_dir(&dir)?;
        }
        if let Some(tally) = &mut *self.tally.lock() {
            let mut whole = Hasher::new();
            whole.update(&header);
            whole.combine(&tally.hasher);
            tally.hasher = whole;
        }
        self.named.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the range needs no check before it is served.
    pub(crate) fn is_known_good(&self, range: &Range<u64>) -> bool {
        self.known_good.lock().covers(range)
    }

    /// The range has been checked.
    pub(crate) fn mark_good(&self, range: Range<u64>) {
        self.known_good.lock().add(range);
    }

    pub(crate) fn key_hints(&self) -> KeyHints {
        match self.key_hints.load(Ordering::Acquire) {
            0 => KeyHints::Fine,
            1 => KeyHints::Doubted,
            _ => KeyHints::Refused,
        }
    }

    pub(crate) fn set_key_hints(&self, hints: KeyHints) {
        let number = match hints {
            KeyHints::Fine => 0,
            KeyHints::Doubted => 1,
            KeyHints::Refused => 2,
        };
        self.key_hints.store(number, Ordering::Release);
    }

    /// A position at or before the batch that holds `offset`, from which a scan finds it.
    pub(crate) fn position_before(&self, offset: i64) -> u64 {
        self.load_index();
        self.index.read().lookup(offset).unwrap_or(DATA_START)
    }

    /// A position from which a scan finds the first record at or after a time.
    pub(crate) fn position_before_time(&self, timestamp_ms: i64) -> u64 {
        self.load_index();
        self.index.read().lookup_time(timestamp_ms).unwrap_or(DATA_START)
    }

    /// Indexes what was in the file before this process appended to it.
    fn load_index(&self) {
        let until = self.indexed_from.load(Ordering::Acquire);
        if until <= DATA_START {
            return;
        }
        let mut whole = SparseIndex::new(self.base, INDEX_STEP);
        let mut scan = Scan::new(self, DATA_START, until);
        while let Some(Ok(found)) = scan.next() {
            whole.push(found.header.base_offset, found.position, found.header.max_timestamp_ms);
            self.max_timestamp_ms.fetch_max(found.header.max_timestamp_ms, Ordering::AcqRel);
        }
        let mut index = self.index.write();
        if self.indexed_from.load(Ordering::Acquire) == until {
            whole.append(&index);
            *index = whole;
            self.indexed_from.store(DATA_START, Ordering::Release);
        }
    }
}
