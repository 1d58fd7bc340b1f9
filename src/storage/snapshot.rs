//! Snapshots: where recovery starts, so that its work is bounded by the ring and not by history.
//!
//! 1. A snapshot is made of sections, each exact after the entry it names; nothing stops while they are taken.
//! 2. First the state is captured, then everything it names is flushed, then it is written; it gets its name only
//!    when the highest number in it is durable. So it is never ahead of the journal or of the segments.
//! 3. The two newest are kept. The ring is freed behind the older one.
//! 4. After a failed flush there is no snapshot until the next start: memory may hold what the disk does not.

use std::{io, sync::Arc, time::Duration};

use annals_wire::internal::{
    EpochStart as EpochMessage, JournalPosition, PartitionSection, ProducerWindows, SegmentRef, Snapshot,
    StateSection, TopicSection,
};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{
    bounds,
    commit::{Step, Tip},
    disk::{Access, Disk},
    error::OpenError,
    mutant::{Mutant, planted},
    partition::{Log, Partition},
    replace::{create_anew, put_in_place},
    ring::Place,
    root::{FORMAT_VERSION, Head, Root, check_version},
    segment::{DATA_START, Segment},
    storage::{Storage, partitions_message},
};

const MAGIC: [u8; 8] = *b"ANNLSNP1";
const HEADER_LEN: usize = 64;
const TEMPORARY: &str = "snapshot.tmp";
/// Room kept for a snapshot on a full disk.
pub(crate) const RESERVE: &str = "reserve";
pub(crate) const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// A part of the state machine, exact after all entries up to `number`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Number of the last entry in it.
    pub number: u64,
    /// The machine's own bytes.
    pub bytes: Vec<u8>,
}

/// A snapshot that has its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Highest sequence known durable when it got its name.
    pub(crate) sequence: u64,
    pub(crate) start: Place,
}

/// What is known of the snapshots of this directory.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Oldest first, at most two.
    pub(crate) kept: Vec<Kept>,
    /// When the newest was captured, on the monotonic clock.
    pub(crate) captured_at: Duration,
    /// Number of the last entry when the newest was captured.
    pub(crate) captured_number: u64,
}

/// A snapshot that is written and flushed but has no name yet.
#[derive(Debug)]
pub struct Written {
    start: Place,
    /// It gets its name once this number is durable.
    pub(crate) highest_number: u64,
    appended: u64,
    captured_at: Duration,
    captured_number: u64,
}

pub(crate) fn name(sequence: u64) -> String {
    format!("snapshot-{sequence:020}")
}

pub(crate) fn parse_name(file: &str) -> Option<u64> {
    let sequence = file.strip_prefix("snapshot-")?.parse().ok()?;
    (name(sequence) == file).then_some(sequence)
}

/// The whole file.
pub(crate) fn encode(root: &Root, snapshot: &Snapshot) -> (BytesMut, Bytes) {
    let body = Bytes::from(snapshot.encode_to_vec());
    let mut head = BytesMut::with_capacity(HEADER_LEN);
    head.put_slice(&MAGIC);
    head.put_u32_le(FORMAT_VERSION);
    head.put_u64_le(0);
    head.put_slice(&root.cluster_id);
    head.put_slice(&root.directory_id);
    head.put_u64_le(body.len() as u64);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head);
    hasher.update(&body);
    head.put_u32_le(hasher.finalize());
    (head, body)
}

/// Reads a snapshot's bytes.
pub(crate) fn decode(root: &Root, file: &str, bytes: &Bytes) -> Result<Snapshot, OpenError> {
    let damaged = |what: &str| OpenError::Damaged { file: file.into(), position: 0, what: what.into() };
    let mut at = Head(bytes);
    if at.array() != Some(MAGIC) {
        return Err(damaged("it does not begin as a snapshot does"));
    }
    let (version, features) = (at.u32(), at.u64());
    let (cluster, directory): (Option<[u8; 16]>, Option<[u8; 16]>) = (at.array(), at.array());
    let (length, crc) = (at.u64(), at.u32());
    let body = bytes.len().checked_sub(HEADER_LEN).map(|_| bytes.slice(HEADER_LEN..)).unwrap_or_default();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..HEADER_LEN - 4).unwrap_or_default());
    hasher.update(&body);
    if length != Some(body.len() as u64) || crc != Some(hasher.finalize()) {
        return Err(damaged("its crc does not hold"));
    }
    check_version(file, version, features)?;
    if (cluster, directory) != (Some(root.cluster_id), Some(root.directory_id)) {
        return Err(damaged("it belongs to another directory"));
    }
    let snapshot =
        Snapshot::decode(body).map_err(|error| damaged(&format!("its body does not decode: {error}")))?;
    bounds::snapshot(&snapshot).map_err(|what| damaged(&format!("it says {what}")))?;
    Ok(snapshot)
}

/// Reads a snapshot file.
pub(crate) fn read(disk: &Arc<dyn Disk>, root: &Root, sequence: u64) -> Result<Snapshot, OpenError> {
    let file = name(sequence);
    let io = |source| OpenError::Io { doing: format!("reading {file}"), source };
    let handle = disk.open(&file, Access::Read).map_err(|error| match error.kind() {
        // No plain file: not ours, so as good as one that does not verify.
        io::ErrorKind::InvalidData => {
            OpenError::Damaged { file: file.clone(), position: 0, what: error.to_string() }
        }
        _ => io(error),
    })?;
    let mut bytes = vec![0; usize::try_from(handle.len().map_err(io)?).unwrap_or_default()];
    let read = handle.read_at(&mut bytes, 0).map_err(io)?;
    bytes.truncate(read);
    decode(root, &file, &Bytes::from(bytes))
}

/// Writes and flushes the temporary file; on a full disk out of what is kept for that.
pub(crate) fn write_temporary(disk: &Arc<dyn Disk>, root: &Root, snapshot: &Snapshot) -> io::Result<()> {
    let (head, body) = encode(root, snapshot);
    let write = || {
        let file = create_anew(disk, TEMPORARY)?;
        file.allocate(0, (head.len() + body.len()) as u64)?;
        file.write_at(&[&head, &body], 0)?;
        Ok(file)
    };
    let file = match write() {
        Err(error) if is_full(&error) => {
            match disk.remove(RESERVE) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            write()?
        }
        other => other?,
    };
    file.sync()
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives the temporary file its name, and removes all but the two newest. Returns what is kept.
pub(crate) fn put(disk: &Arc<dyn Disk>, kept: &mut Vec<Kept>, sequence: u64, start: Place) -> io::Result<()> {
    if planted(Mutant::SnapshotNameUnflushed) {
        disk.rename(TEMPORARY, &name(sequence))?;
    } else {
        put_in_place(disk, "", TEMPORARY, &name(sequence))?;
    }
    kept.retain(|known| known.sequence != sequence);
    kept.push(Kept { sequence, start });
    while kept.len() > 2 {
        let oldest = kept.remove(0);
        match disk.remove(&name(oldest.sequence)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The older of the two that are kept: the ring is free behind it, and behind it only.
pub(crate) fn older(kept: &[Kept]) -> Option<Kept> {
    match *kept {
        [_, newer] if planted(Mutant::RingReusedEarly) => Some(newer),
        [older, _] => Some(older),
        _ => None,
    }
}

pub(crate) fn position_message(place: Place) -> JournalPosition {
    JournalPosition {
        sequence: place.sequence,
        file: place.file,
        position: place.position,
        previous_crc: place.previous_crc,
    }
}

impl Storage {
    /// Whether a snapshot is due: a share of the ring, bytes appended, or time.
    pub fn snapshot_due(&self) -> bool {
        if self.is_tainted() || self.failure().is_some() {
            return false;
        }
        if !self.has_changed_since_snapshot() && !self.another_would_free() {
            return false;
        }
        let (kept, at) = {
            let known = self.snapshots().lock();
            (known.kept.last().copied(), known.captured_at)
        };
        let share = self.committer().lock().ring.size() / 4;
        let since = kept.map_or(u64::MAX, |kept| self.ring_bytes_since(kept.start));
        since >= share
            || self.appended() >= self.options().snapshot_bytes
            || self.clock().monotonic().saturating_sub(at) >= self.options().snapshot_interval
            || self.ledger().is_wanted()
    }

    /// Somebody waits for room, and a snapshot would free some although it says nothing new: only the older of the two
    /// holds the ring, and it begins in a file before the present one.
    fn another_would_free(&self) -> bool {
        let oldest = self.snapshots().lock().kept.first().map(|kept| kept.start.file);
        self.ledger().is_wanted() && oldest.is_some_and(|file| file != self.tip().place.file)
    }

    /// After a failed flush no snapshot may free the ring, so one day it is full: then the process ends, and the next start
    /// goes on from what the disk has. Returns whether that happened.
    pub fn full_step(&self) -> bool {
        let full = self.is_tainted() && self.ledger().is_wanted() && self.ledger().is_full();
        if full && self.failure().is_none() {
            self.fail("a partition was fenced, so nothing frees the journal, and it is full");
        }
        full
    }

    /// Whether the newest snapshot misses anything.
    pub(crate) fn has_changed_since_snapshot(&self) -> bool {
        self.last_number() != self.snapshots().lock().captured_number || self.appended() > 0
    }

    /// Captures the state, flushes all that it names, writes it. `source` captures the state machine's sections.
    pub fn snapshot_write(&self, source: &dyn Fn() -> Vec<Section>) -> io::Result<Option<Written>> {
        if self.is_tainted() || self.failure().is_some() {
            return Ok(None);
        }
        let tip = self.tip();
        let captured_at = self.clock().monotonic();
        let appended = self.appended();
        let captured_number = self.last_number();
        let mut flush = Vec::new();
        let mut snapshot = self.capture(tip, &mut flush);
        snapshot.states = source()
            .into_iter()
            .map(|section| StateSection { number: section.number, bytes: section.bytes.into() })
            .collect();
        snapshot.highest_number = self.last_number();
        if planted(Mutant::SnapshotAheadOfSegments) {
            flush.clear();
        }
        let failed = self.flush_all(&flush);
        if planted(Mutant::SnapshotCapturedAfterFlush) {
            let (states, highest_number) = (std::mem::take(&mut snapshot.states), self.last_number());
            snapshot = Snapshot { states, highest_number, ..self.capture(tip, &mut Vec::new()) };
        }
        for (partition, error) in &failed {
            self.fence(partition, error);
        }
        if !failed.is_empty() {
            return Ok(None);
        }
        write_temporary(self.disk(), self.root(), &snapshot)?;
        let highest_number = snapshot.highest_number;
        Ok(Some(Written { start: tip.place, highest_number, appended, captured_at, captured_number }))
    }

    /// Gives a written snapshot its name, if all it holds is durable by now.
    ///
    /// Unless it is the `last` of this run, a frame goes behind everything it covers first: a snapshot that covers the
    /// last frame means that the run ended in order.
    pub fn snapshot_finish(&self, written: &Written, last: bool) -> io::Result<bool> {
        let durable = self.is_durable(written.highest_number) || planted(Mutant::SnapshotAheadOfJournal);
        if !durable || self.is_tainted() || self.failure().is_some() {
            return Ok(false);
        }
        if !last && self.mark_frame() == Step::Failed {
            return Ok(false);
        }
        let durable = self.tip().place.sequence - 1;
        let oldest = {
            let mut known = self.snapshots().lock();
            if let Err(error) = put(self.disk(), &mut known.kept, durable, written.start) {
                self.fail(&format!("a snapshot could not be put in place: {error}"));
                return Err(error);
            }
            known.captured_at = written.captured_at;
            known.captured_number = written.captured_number;
            older(&known.kept)
        };
        self.uncount_appended(written.appended);
        let mut committer = self.committer().lock();
        if let Some(oldest) = oldest {
            committer.ring.free_before(oldest.start.file);
        }
        let available = committer.ring.available(self.options().largest_item());
        self.ledger().set_available(available, committer.ring.size());
        drop(committer);
        self.ledger().wake();
        Ok(true)
    }

    fn ring_bytes_since(&self, start: Place) -> u64 {
        self.committer().lock().ring.bytes_since(start)
    }

    /// Topics and partitions. What must be flushed before the snapshot may be written is added to `flush`.
    fn capture(&self, tip: Tip, flush: &mut Vec<(Arc<Partition>, Arc<Segment>)>) -> Snapshot {
        let (number, topics) = self.topic_settings();
        let topics = topics.into_iter().map(|(topic, settings, count)| TopicSection {
            number,
            partitions: Some(partitions_message(&topic, settings, count)),
        });
        let topics = topics.collect();
        let all = self.all_partitions();
        let partitions =
            all.iter().filter_map(|partition| section(partition, &|| self.last_number(), flush)).collect();
        Snapshot {
            start: Some(position_message(tip.place)),
            epoch: self.epoch(),
            highest_number: 0,
            topics,
            partitions,
            states: Vec::new(),
            tombstones: self
                .upkeep()
                .tombstones()
                .iter()
                .map(|topic| Bytes::copy_from_slice(topic.as_bytes()))
                .collect(),
        }
    }
}

/// A partition's section, exact at `number` or, where a segment has no name yet, before it. Segments to flush are added
/// to `flush`. `number` is asked under the partition's lock.
pub(crate) fn section(
    partition: &Arc<Partition>,
    number: &dyn Fn() -> u64,
    flush: &mut Vec<(Arc<Partition>, Arc<Segment>)>,
) -> Option<PartitionSection> {
    let mut log = partition.lock();
    let all = partition.segments();
    // A segment without its final name is not there yet, and neither is what was appended to it.
    let counts = |segment: &&Arc<Segment>| segment.is_named() || planted(Mutant::SnapshotListsUnnamed);
    let named = all.iter().take_while(counts).count();
    let (segments, unnamed) = all.split_at_checked(named).unwrap_or_default();
    let next_offset = unnamed.first().map_or(log.next_offset, |next| next.base);
    if segments.is_empty() && next_offset == 0 {
        return None;
    }
    // A clean segment leaves the list; the next append to it puts it there again.
    for segment in std::mem::take(&mut log.dirty) {
        if !segment.is_named() {
            log.dirty.push(segment);
        } else if segment.synced() < segment.end() {
            flush.push((Arc::clone(partition), segment));
        }
    }
    let (key, closed) = (partition.key(), partition.closed_because().is_some());
    Some(PartitionSection {
        number: if planted(Mutant::SnapshotNumberTooHigh) {
            number()
        } else {
            unnamed.first().map_or_else(number, |next| next.roll_number().saturating_sub(1))
        },
        topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
        partition: key.partition,
        log_start: partition.bounds().log_start,
        next_offset,
        end_position: segments.last().map_or(DATA_START, |active| active.end()),
        segments: segments
            .iter()
            .map(|segment| SegmentRef {
                base: segment.base,
                generation: segment.generation(),
                location: String::new(),
                // Of one that stays closed nothing was decided: its end may lie in any of them.
                end: if closed { segment.known_end().unwrap_or(0) } else { 0 },
            })
            .collect(),
        epochs: log
            .epochs
            .iter()
            .filter(|start| start.offset <= next_offset)
            .map(|start| EpochMessage { epoch: start.epoch, offset: start.offset })
            .collect(),
        append_time_ms: log.append_time.ms(),
        unwritten: partition.unwritten().to_vec(),
        closed,
        producers: producers(partition, &log, next_offset),
    })
}

/// What producers stored last before `next_offset`.
fn producers(partition: &Partition, log: &Log, next_offset: i64) -> Option<ProducerWindows> {
    let at_roll =
        log.at_rolls.iter().find(|(base, _)| *base == next_offset && next_offset != log.next_offset);
    let windows = match at_roll {
        Some((_, windows)) if !planted(Mutant::SequencesAheadOfSnapshot) => windows,
        _ => &log.producers,
    };
    if planted(Mutant::SequencesNotInSnapshot) {
        return None;
    }
    windows.to_section(partition.counted().unwrap_or(next_offset), next_offset)
}
