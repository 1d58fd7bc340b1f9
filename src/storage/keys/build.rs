//! Making the indexes of sealed segments, in the background: segment by segment, a little at a time.
//!
//! 1. Whoever calls [`Storage::keys_step`] decides how fast ([`Options::index_bytes_per_second`]). It reads by calls, not through
//!    maps, mostly from the page cache: a segment is indexed soon after it is sealed.
//! 2. Every batch is verified first: a segment with damage gets no index, and readers who scan it find the damage.
//! 3. Memory is bounded by the size of the index and [`CHUNK`] records.
//!
//! [`Options::index_bytes_per_second`]: crate::storage::Options::index_bytes_per_second

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use annals_wire::{header::BATCH_LEAD_LEN, slice::Batch, v1::Codec};

use super::{ANCHOR_STEP, KEY_BYTES, LOG_SHARE, NO_ANCHOR, encode, fingerprint, postings::Postings};
use crate::storage::{
    partition::Partition,
    replace::{create_anew, temporary},
    scan::{Found, Scan, Source},
    segment::{DATA_START, KeyHints, Segment},
    storage::Storage,
};

/// Records sorted at a time.
const CHUNK: usize = 1 << 20;
/// Between two looks for indexes that a reader found wanting.
const PAUSE: Duration = Duration::from_secs(10);

/// What is to be indexed.
#[derive(Debug, Default)]
pub(crate) struct Work {
    queue: VecDeque<(Arc<Partition>, i64)>,
    building: Option<Build>,
    /// The directories were searched for segments without an index.
    searched: bool,
    /// When to look again, on the monotonic clock.
    next_look: Duration,
}

#[derive(Debug)]
struct Build {
    partition: Arc<Partition>,
    segment: Arc<Segment>,
    file_crc32: u32,
    last_offset: i64,
    /// What was read so far.
    position: u64,
    /// Fingerprint and offset less the base of records since the last chunk.
    records: Vec<u64>,
    postings: Postings,
    anchors: Vec<u32>,
}

impl Storage {
    /// A segment was sealed.
    pub(crate) fn index_keys_of(&self, partition: &Arc<Partition>, segment: &Segment) {
        self.keys().lock().queue.push_back((Arc::clone(partition), segment.base));
    }

    /// Indexes about `bytes` more of the sealed segments that have no index, at least one batch. Returns how many were read; 0 =
    /// there is nothing to do.
    pub fn keys_step(&self, bytes: u64) -> u64 {
        let mut work = self.keys().lock();
        while work.building.is_none() {
            let Some((partition, base)) = work.queue.pop_front() else {
                if self.look_for_work(&mut work) {
                    continue;
                }
                return 0;
            };
            work.building = Build::begin(partition, base);
        }
        let Some(build) = &mut work.building else { return 0 };
        let from = build.position;
        let outcome = build.step(bytes);
        let read = build.position - from;
        if !matches!(outcome, Ok(false)) {
            let written = outcome.and_then(|_| build.finish(self));
            if let Err(error) = written {
                build.segment.set_key_hints(KeyHints::Refused);
                tracing::debug!(%error, segment = %build.segment.id().path(), "no index of keys");
            }
            work.building = None;
        }
        read.max(1)
    }

    /// Enqueues what has no index: at first what the directories show, later what a reader found wanting.
    fn look_for_work(&self, work: &mut Work) -> bool {
        let now = self.clock().monotonic();
        if now < work.next_look {
            return false;
        }
        work.next_look = now + PAUSE;
        let searched = std::mem::replace(&mut work.searched, true);
        for partition in self.all_partitions() {
            let segments = partition.segments();
            let sealed = segments.split_last().map_or(&[][..], |(_active, sealed)| sealed);
            if sealed.is_empty() {
                continue;
            }
            let names = if searched {
                Vec::new()
            } else {
                self.disk().list(&partition.key().dir()).unwrap_or_default()
            };
            let has = |segment: &Segment| {
                let path = segment.keys_path();
                names.iter().any(|entry| path.ends_with(&entry.name))
            };
            for segment in sealed {
                let wanted = match segment.key_hints() {
                    KeyHints::Refused => false,
                    KeyHints::Doubted => true,
                    KeyHints::Fine => !searched && !has(segment),
                };
                if wanted {
                    work.queue.push_back((Arc::clone(&partition), segment.base));
                }
            }
        }
        !work.queue.is_empty()
    }
}

impl Build {
    /// `None`: it has gone, or cannot be indexed.
    fn begin(partition: Arc<Partition>, base: i64) -> Option<Self> {
        let segments = partition.segments();
        let at = segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        let (segment, next) = (Arc::clone(segments.get(at)?), segments.get(at + 1)?);
        if partition.is_removed() {
            return None;
        }
        let summary = segment.resolve(next.base).ok().and_then(|()| segment.footer());
        let Some(summary) = summary else {
            segment.set_key_hints(KeyHints::Refused);
            return None;
        };
        Some(Self {
            partition,
            segment,
            file_crc32: summary.file_crc32,
            last_offset: summary.last_offset,
            position: DATA_START,
            records: Vec::new(),
            postings: Postings::default(),
            anchors: Vec::new(),
        })
    }

    /// Reads on; `true` = that was all.
    fn step(&mut self, bytes: u64) -> io::Result<bool> {
        let segment = Arc::clone(&self.segment);
        let until = self.position + bytes;
        for found in Scan::of(Source::Copy, &segment, self.position, segment.end()) {
            let found = found?;
            if !found.verify() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch does not verify"));
            }
            self.take(&found)?;
            self.position = found.end();
            if self.records.len() >= CHUNK {
                self.pack();
            }
            if self.position >= until {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, found: &Found) -> io::Result<()> {
        if found.header.attributes.control() {
            return Ok(());
        }
        let body = found.bytes.slice(BATCH_LEAD_LEN..);
        let batch = Batch::parse(&body).map_err(io::Error::other)?;
        let flags = batch.header().attributes;
        let anchored = flags.codec() == Some(Codec::Unspecified) && !flags.holes();
        let batch = batch.unpacked().map_err(io::Error::other)?;
        let mut at = 0;
        for record in batch.records().map_err(io::Error::other)? {
            let record = record.map_err(io::Error::other)?;
            let relative = u32::try_from(record.offset - self.segment.base).map_err(io::Error::other)?;
            if anchored {
                self.anchor(relative, at);
                at = end_of(batch.payload(), record.as_bytes());
            }
            if let Some(key) = record.key {
                self.records.push(u64::from(fingerprint(key)) << 32 | u64::from(relative));
            }
        }
        Ok(())
    }

    /// The record of this offset begins there in its payload.
    fn anchor(&mut self, relative: u32, at: usize) {
        let (relative, step) = (u64::from(relative), ANCHOR_STEP);
        if relative.is_multiple_of(step)
            && let (Ok(index), Ok(at)) = (usize::try_from(relative / step), u32::try_from(at))
        {
            self.anchors.resize(index, NO_ANCHOR);
            self.anchors.push(at);
        }
    }

    /// Sorts what was read into the rest.
    fn pack(&mut self) {
        let chunk = Postings::of(&mut self.records, self.postings.shift());
        self.records.clear();
        self.postings = self.postings.merged(&chunk);
        let most =
            |postings: &Postings| (self.segment.end() / LOG_SHARE).max(KEY_BYTES * postings.keys() as u64);
        while self.postings.bytes() as u64 > most(&self.postings) && self.postings.shift() < 31 {
            self.postings = self.postings.coarser();
        }
    }

    /// Writes the file, under its name at once.
    fn finish(&mut self, storage: &Storage) -> io::Result<()> {
        self.pack();
        if self.partition.is_removed() {
            return Ok(());
        }
        let segment = &self.segment;
        let postings = std::mem::take(&mut self.postings);
        let offsets = u64::try_from(self.last_offset + 1 - segment.base).unwrap_or(0);
        let partition = segment.owner_bytes();
        let subject = segment.key_subject(&partition, self.file_crc32);
        let file = encode(postings, &self.anchors, subject, segment.end(), offsets);
        let disk = storage.disk();
        if disk.free_bytes()? < storage.options().keep_free_bytes + file.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = segment.keys_path();
        let unfinished = temporary("", &path);
        create_anew(disk, &unfinished)?.write_at(&[&file], 0)?;
        disk.rename(&unfinished, &path)?;
        segment.set_key_hints(KeyHints::Fine);
        Ok(())
    }
}

/// Where a record whose body is this part of a payload ends in it.
fn end_of(payload: &[u8], body: &[u8]) -> usize {
    (body.as_ptr().addr() - payload.as_ptr().addr()) + body.len()
}
