//! One segment file: every batch of it, each byte read once.

use std::{collections::BTreeMap, io, sync::Arc};

use annals_wire::{
    header::{BATCH_PREFIX_LEN, BatchHeader, verify_header},
    segment::{SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentIdentity, SegmentSummary},
};
use crc32fast::Hasher;

use super::{
    Damage, Verdict,
    window::{WINDOW, Window},
};
use crate::{
    storage::{
        disk::{Access, Disk, File},
        recovery::Inline,
        root::Root,
        segment::{DATA_START, FOOTER_ROOM, SegmentId},
    },
    sync::{AtomicU64, Ordering},
};

/// Payloads this long are not hashed again for the whole file: their own crc is combined in.
const COMBINE_FROM: usize = 32 * 1024;

const CORRUPT: &str =
    "these offsets are answered with CORRUPT_DATA, or stepped over with skip_damaged; the others are served";

/// Batches that the journal holds, by where a start writes them again.
pub(super) type Held<'a> = BTreeMap<(SegmentId, u64), &'a Inline>;

/// Bytes between two words on the progress.
const TELL_EVERY: u64 = 4 * 1024 * 1024;

/// A segment to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) id: SegmentId,
    /// First offset that is not in it.
    pub(super) until: i64,
    /// Where its data ends, of a partition's last segment.
    pub(super) end: Option<u64>,
}

/// A thread's work.
pub(super) struct Work<'a> {
    disk: &'a Arc<dyn Disk>,
    root: &'a Root,
    held: &'a Held<'a>,
    bytes: &'a AtomicU64,
    window: Window,
    untold: u64,
    pub(super) verdict: Verdict,
}

/// Where a walk through a segment stands.
struct Walk<'a> {
    job: &'a Job,
    file: Arc<dyn File>,
    position: u64,
    expected: i64,
    /// Over the whole file so far; nothing if it has no footer to compare it with.
    whole: Option<Hasher>,
}

/// A batch at a position.
struct Batch {
    header: BatchHeader,
    length: usize,
    next_offset: i64,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        disk: &'a Arc<dyn Disk>,
        root: &'a Root,
        held: &'a Held<'a>,
        bytes: &'a AtomicU64,
    ) -> Self {
        Self { disk, root, held, bytes, window: Window::new(), untold: 0, verdict: Verdict::default() }
    }

    /// Looks at a segment; what is wrong with it goes to the verdict. `told` is called now and then.
    pub(super) fn judge(&mut self, job: &Job, told: &mut dyn FnMut()) -> io::Result<()> {
        let whole = (job.id.base, job.until - 1);
        match self.walk(job, told) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let means = "these offsets are gone; the others are served";
                self.damage(job, 0, Some(whole), "the file is missing", means);
                Ok(())
            }
            // A link or a fifo in its place; a disk that cannot read it.
            Err(error) if error.kind() == io::ErrorKind::InvalidData || is_unreadable(&error) => {
                let means = "these offsets cannot be read; the others are served";
                self.damage(job, 0, Some(whole), &format!("the file cannot be read: {error}"), means);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn damage(&mut self, job: &Job, position: u64, offsets: Option<(i64, i64)>, what: &str, means: &str) {
        self.verdict.damages.push(Damage {
            file: job.id.path(),
            position,
            partition: Some(job.id.key),
            offsets: offsets.filter(|(first, last)| first <= last),
            what: what.to_owned(),
            means: means.to_owned(),
        });
    }

    fn walk(&mut self, job: &Job, told: &mut dyn FnMut()) -> io::Result<()> {
        let file = self.disk.open(&job.id.path(), Access::Read)?;
        self.window.clear();
        self.verdict.segments += 1;
        let header = self.window.at(&*file, 0, SEGMENT_HEADER_LEN)?;
        let header: Vec<u8> = header.get(..SEGMENT_HEADER_LEN).unwrap_or(header).to_vec();
        if !self.identity(job, &header) {
            return Ok(());
        }
        let footer = footer(&*file)?;
        let whole = footer.as_ref().map(|_| {
            let mut hasher = Hasher::new();
            hasher.update(&header);
            hasher
        });
        let mut walk = Walk { job, file, position: DATA_START, expected: job.id.base, whole };
        while walk.expected < job.until {
            if !self.step(&mut walk)? {
                return Ok(());
            }
            if self.untold >= TELL_EVERY {
                self.untold = 0;
                told();
            }
        }
        self.ending(&walk, footer)
    }

    /// The right file in the right place. `false`: it is not, and nothing in it would verify.
    fn identity(&mut self, job: &Job, header: &[u8]) -> bool {
        let means =
            "the partition is not served, or only its other segments: the file may not be what its name says";
        match SegmentIdentity::verify(header) {
            // The batches speak for themselves.
            Err(error) => {
                self.damage(job, 0, None, &format!("its header: {error}"), means);
                true
            }
            Ok(identity) => {
                let ours = identity.cluster_id == self.root.cluster_id
                    && identity.topic_id == job.id.key.topic
                    && identity.partition == job.id.key.partition
                    && identity.base_offset == job.id.base
                    && identity.generation == job.id.generation;
                if !ours {
                    let offsets = Some((job.id.base, job.until - 1));
                    self.damage(job, 0, offsets, "it is the file of another place", CORRUPT);
                }
                ours
            }
        }
    }

    /// One batch, or the damage up to the next. `false`: there is no next.
    fn step(&mut self, walk: &mut Walk<'_>) -> io::Result<bool> {
        let job = walk.job;
        if let Some(inline) = self.held.get(&(job.id, walk.position)) {
            return Ok(self.inline(walk, inline));
        }
        let found = match self.header(walk, walk.position)? {
            Some(batch) if batch.header.base_offset == walk.expected => Some((walk.position, batch)),
            Some(batch) if batch.header.base_offset > walk.expected => Some((walk.position, batch)),
            _ => self.next_batch(walk)?,
        };
        let Some((position, batch)) = found else {
            let what = "no batch of this partition is here, nor behind it";
            self.damage(job, walk.position, Some((walk.expected, job.until - 1)), what, CORRUPT);
            return Ok(false);
        };
        if batch.header.base_offset > walk.expected {
            let missing = Some((walk.expected, batch.header.base_offset - 1));
            self.damage(job, walk.position, missing, "no batch of these offsets is here", CORRUPT);
            // Nothing can be said of the file as a whole any more that was not said.
            walk.whole = None;
        }
        walk.position = position;
        let good = self.payload(walk, &batch)?;
        if !good {
            let offsets = Some((batch.header.base_offset, batch.next_offset - 1));
            self.damage(job, position, offsets, "the records do not match their crc", CORRUPT);
            walk.whole = None;
        }
        walk.position += batch.length as u64;
        walk.expected = batch.next_offset;
        self.count(batch.header.record_count, batch.length);
        Ok(true)
    }

    fn count(&mut self, records: u32, length: usize) {
        self.verdict.batches += 1;
        self.verdict.records += u64::from(records);
        self.verdict.bytes += length as u64;
        self.untold += length as u64;
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }

    /// A batch that the journal holds. Its frame's crc was right, and its header was looked at with it.
    fn inline(&mut self, walk: &mut Walk<'_>, inline: &Inline) -> bool {
        let id = walk.job.id;
        let Ok(decoded) = verify_header(&inline.bytes, &id.key.topic, id.key.partition) else { return false };
        let Some(next_offset) = decoded.header.next_offset() else { return false };
        if let Some(whole) = &mut walk.whole {
            whole.update(&inline.bytes);
        }
        walk.position += inline.bytes.len() as u64;
        walk.expected = next_offset;
        self.count(decoded.header.record_count, inline.bytes.len());
        true
    }

    /// The batch whose header is at a position, if one is.
    fn header(&mut self, walk: &Walk<'_>, position: u64) -> io::Result<Option<Batch>> {
        let id = walk.job.id;
        let bytes = self.window.at(&*walk.file, position, BATCH_PREFIX_LEN)?;
        let Ok(decoded) = verify_header(bytes, &id.key.topic, id.key.partition) else { return Ok(None) };
        let fits = |next: &i64| *next <= walk.job.until && decoded.header.base_offset >= walk.expected;
        let next_offset = decoded.header.next_offset().filter(fits);
        Ok(next_offset.map(|next_offset| Batch {
            header: decoded.header,
            length: decoded.batch_len,
            next_offset,
        }))
    }

    /// The next place at which a batch begins. Its header's crc covers topic, partition and offset: no other bytes pass.
    fn next_batch(&mut self, walk: &Walk<'_>) -> io::Result<Option<(u64, Batch)>> {
        let until = walk.job.end.unwrap_or(u64::MAX);
        let mut position = walk.position + 1;
        while position < until {
            let bytes = self.window.at(&*walk.file, position, BATCH_PREFIX_LEN)?;
            if bytes.len() < BATCH_PREFIX_LEN {
                return Ok(None);
            }
            let searched = bytes.len() - BATCH_PREFIX_LEN + 1;
            let at = memchr::memchr(0x0A, bytes.get(..searched).unwrap_or_default());
            position += at.unwrap_or(searched) as u64;
            if at.is_some() {
                if let Some(batch) = self.header(walk, position)? {
                    return Ok(Some((position, batch)));
                }
                position += 1;
            }
        }
        Ok(None)
    }

    /// Whether a payload is what its header says; a file that ends in it is not.
    fn payload(&mut self, walk: &mut Walk<'_>, batch: &Batch) -> io::Result<bool> {
        let (mut at, end) = (walk.position, walk.position + batch.length as u64);
        let mut prefix = Hasher::new();
        let mut payload = Hasher::new();
        let long = batch.length >= COMBINE_FROM;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let bytes = self.window.at(&*walk.file, at, left.min(WINDOW))?;
            let bytes = bytes.get(..left).unwrap_or(bytes);
            if bytes.is_empty() {
                return Ok(false);
            }
            let head = if at == walk.position { BATCH_PREFIX_LEN.min(bytes.len()) } else { 0 };
            let (head, rest) = bytes.split_at_checked(head).unwrap_or_default();
            prefix.update(head);
            payload.update(rest);
            if let Some(whole) = walk.whole.as_mut().filter(|_| !long) {
                whole.update(bytes);
            }
            at += bytes.len() as u64;
        }
        if let Some(whole) = walk.whole.as_mut().filter(|_| long) {
            whole.combine(&prefix);
            whole.combine(&payload);
        }
        Ok(payload.finalize() == batch.header.records_crc32)
    }

    /// What is behind the last batch: a sealed segment's footer speaks for the whole file.
    fn ending(&mut self, walk: &Walk<'_>, footer: Option<(u64, SegmentSummary)>) -> io::Result<()> {
        let job = walk.job;
        let means = "no record is concerned: each was verified by itself";
        match footer {
            Some((at, summary)) if at == walk.position => {
                self.verdict.bytes += FOOTER_ROOM;
                let crc = walk.whole.clone().map(Hasher::finalize);
                if crc.is_some_and(|crc| crc != summary.file_crc32) {
                    self.damage(job, at, None, "the crc of the whole file does not hold", means);
                }
            }
            Some(_) => {}
            None => {
                // Sealed, to the byte, and yet no footer.
                let sealed = walk.file.len()? == walk.position + FOOTER_ROOM;
                let mut bytes = [0; SEGMENT_FOOTER_LEN];
                let read = walk.file.read_at(&mut bytes, walk.position)?;
                if sealed && bytes.get(..read).is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
                    self.damage(job, walk.position, None, "its footer does not verify", means);
                }
            }
        }
        Ok(())
    }
}

/// A footer at the file's end.
fn footer(file: &dyn File) -> io::Result<Option<(u64, SegmentSummary)>> {
    let at = file.len()?.saturating_sub(FOOTER_ROOM);
    let mut bytes = [0; SEGMENT_FOOTER_LEN];
    let read = file.read_at(&mut bytes, at)?;
    Ok(SegmentSummary::verify(bytes.get(..read).unwrap_or_default()).ok().map(|summary| (at, summary)))
}

/// The disk itself says that it cannot.
fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}
