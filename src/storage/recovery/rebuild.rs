//! Pass two: partitions on the disk become what the journal says, and flushed.

use std::{collections::BTreeMap, io, sync::Arc};

use annals_wire::{
    internal::{Extent, InlineBatch, SegmentList, entry::Body},
    segment::{SEGMENT_HEADER_LEN, SegmentIdentity},
};
use bytes::Bytes;

use super::{
    PartitionReport, Report,
    found::{FoundPartition, FoundSegment},
    replay::Replayed,
    sequences, tail,
};
use crate::storage::{
    PartitionKey,
    disk::Disk,
    key::{Level, PartitionSettings},
    mutant::{Mutant, planted},
    partition::{EpochStart, Partition, Recovered},
    producers::Windows,
    root::Root,
    scan::Scan,
    segment::{DATA_START, FOOTER_ROOM, Segment},
};

/// Bytes verified at a time.
const WINDOW: u64 = 4 * 1024 * 1024;

/// A partition after pass two.
#[derive(Debug)]
pub(crate) struct RebuiltPartition {
    pub(crate) log_start: i64,
    pub(crate) next_offset: i64,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) append_time_ms: i64,
    pub(crate) producers: Windows,
    /// Why it could not be rebuilt, and what its segments may lack for that.
    closed: Option<(String, Vec<InlineBatch>)>,
    /// Before this offset `producers` counts.
    pub(super) counted: i64,
}

impl RebuiltPartition {
    /// As snapshot and journal have it.
    fn as_found(disk: &Arc<dyn Disk>, key: PartitionKey, found: &FoundPartition) -> Self {
        Self {
            log_start: found.log_start,
            next_offset: found.next_offset,
            segments: segments_of(disk, key, found),
            epochs: found.epochs.clone(),
            append_time_ms: found.append_time_ms,
            producers: found.producers.clone(),
            counted: found.counted,
            closed: None,
        }
    }

    /// Nothing of it was decided, and the next start has all it needs to try again.
    fn closed(disk: &Arc<dyn Disk>, key: PartitionKey, found: &FoundPartition, why: &str) -> Self {
        let unwritten = found.inline.iter().map(|inline| inline.to_entry(key)).collect();
        Self { closed: Some((why.to_owned(), unwritten)), ..Self::as_found(disk, key, found) }
    }

    pub(crate) fn open(&self, key: PartitionKey, settings: PartitionSettings, epoch: u32) -> Arc<Partition> {
        let found = Recovered {
            barrier: 0,
            log_start: self.log_start,
            next_offset: self.next_offset,
            segments: self.segments.clone(),
            epochs: self.epochs.clone(),
            append_time_ms: self.append_time_ms,
            producers: self.producers.clone(),
        };
        let partition = Partition::recovered(key, settings, epoch, found);
        if let Some((why, unwritten)) = &self.closed {
            partition.close(why.clone(), unwritten.clone(), self.counted);
        }
        partition
    }
}

/// All of them, and the decisions that the `started` frame must carry.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    pub(crate) partitions: BTreeMap<PartitionKey, RebuiltPartition>,
    pub(crate) decisions: Vec<Body>,
}

/// Why a partition could not be rebuilt.
pub(crate) enum Trouble {
    Io(io::Error),
    Damaged(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Damaged(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Rebuilds every partition. One that cannot be read stays closed; the others go on.
pub(crate) fn rebuild(
    disk: &Arc<dyn Disk>,
    root: &Root,
    replayed: &Replayed,
    clean: bool,
    report: &mut Report,
) -> Rebuilt {
    let mut rebuilt = Rebuilt::default();
    for (key, found) in &replayed.partitions {
        let level = replayed.topics.get(&key.topic).map_or(Level::Fsync, |topic| topic.settings.level);
        let mut partition = RebuiltPartition::as_found(disk, *key, found);
        let mut line = PartitionReport {
            key: *key,
            replayed_batches: 0,
            walked_records: 0,
            cut_bytes: 0,
            log_start: found.log_start,
            end: found.next_offset,
            closed: None,
        };
        let work = Work { root, key: *key, found, level, newest_epoch: replayed.epoch };
        let mut decisions = Vec::new();
        if !clean || found.closed || !found.inline.is_empty() {
            match work.run(&mut partition, &mut line, &mut decisions, &mut report.damages) {
                Ok(()) => rebuilt.decisions.append(&mut decisions),
                Err(trouble) => {
                    let why = trouble.to_string();
                    report.damages.push(format!("partition {key} is closed: {why}"));
                    partition = RebuiltPartition::closed(disk, *key, found, &why);
                    line.closed = Some(why);
                }
            }
        }
        partition.segments.iter().for_each(|segment| segment.unmap());
        line.end = partition.next_offset;
        report.records += u64::try_from(partition.next_offset - partition.log_start).unwrap_or(0);
        report.cut_bytes += line.cut_bytes;
        if line.replayed_batches + line.walked_records + line.cut_bytes > 0 || line.closed.is_some() {
            report.partitions.push(line);
        }
        rebuilt.partitions.insert(*key, partition);
    }
    rebuilt
}

/// All but the last end where a footer, or the base of the next one, says; that is found out when they are read.
fn segments_of(disk: &Arc<dyn Disk>, key: PartitionKey, found: &FoundPartition) -> Vec<Arc<Segment>> {
    let make = |(base, segment): (&i64, &FoundSegment)| {
        // An end above the start was seen in the snapshot or the journal; else the file itself will tell.
        Arc::new(if segment.end == 0 {
            Segment::closed(disk, key, *base, segment.generation)
        } else {
            Segment::at(disk, key, *base, segment.generation, segment.end)
        })
    };
    found.segments.iter().map(make).collect()
}

struct Work<'a> {
    root: &'a Root,
    key: PartitionKey,
    found: &'a FoundPartition,
    level: Level,
    newest_epoch: u32,
}

impl Work<'_> {
    fn run(
        &self,
        partition: &mut RebuiltPartition,
        line: &mut PartitionReport,
        decisions: &mut Vec<Body>,
        damages: &mut Vec<String>,
    ) -> Result<(), Trouble> {
        if let Some(active) = partition.segments.last() {
            self.check_identity(active, damages)?;
        }
        let mut touched: Vec<Arc<Segment>> = Vec::new();
        for inline in &self.found.inline {
            let listed = partition.segments.iter().find(|segment| segment.base == inline.segment_base);
            let Some(segment) = listed.filter(|segment| segment.generation() == inline.generation) else {
                continue;
            };
            let end = inline.position + inline.bytes.len() as u64;
            let seems_there = || segment.view(inline.position..end).is_ok_and(|there| there == inline.bytes);
            if !(planted(Mutant::InlineCompared) && seems_there()) {
                segment.file()?.write_at(&[&inline.bytes], inline.position)?;
            }
            line.replayed_batches += 1;
            if !touched.iter().any(|known| Arc::ptr_eq(known, segment)) {
                touched.push(Arc::clone(segment));
            }
        }
        self.verify_extents(partition, damages)?;
        self.walk(partition, line, decisions)?;
        if let Some(active) = partition.segments.last().filter(|_| !planted(Mutant::NoWipe)) {
            line.cut_bytes += tail::wipe(active)?;
            if !planted(Mutant::WipeUnflushed) && !touched.iter().any(|known| Arc::ptr_eq(known, active)) {
                touched.push(Arc::clone(active));
            }
        }
        for segment in touched {
            keep_room(&segment)?;
            if !planted(Mutant::RebuildUnflushed) {
                segment.file()?.sync()?;
            }
            segment.set_end(segment.end());
        }
        sequences::count(self.found, partition, line.walked_records > 0)?;
        Ok(())
    }

    /// The right file in the right place.
    fn check_identity(&self, segment: &Segment, damages: &mut Vec<String>) -> Result<(), Trouble> {
        let name = segment.id().path();
        let header = segment.view(0..SEGMENT_HEADER_LEN as u64).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Trouble::Damaged(format!("{name} is missing")),
            io::ErrorKind::UnexpectedEof => Trouble::Damaged(format!("{name} was cut short")),
            io::ErrorKind::InvalidData => Trouble::Damaged(error.to_string()),
            _ => Trouble::Io(error),
        })?;
        let identity = match SegmentIdentity::verify(&header) {
            Ok(identity) => identity,
            // A batch says whose it is, too: no need to lose what follows for the sake of the header.
            Err(error) if begins_as_ours(segment)? => {
                damages.push(format!(
                    "partition {}: {name}: its header does not verify ({error}); what follows does and is served",
                    self.key
                ));
                return Ok(());
            }
            Err(error) => return Err(Trouble::Damaged(format!("{name}: {error}"))),
        };
        let ours = identity.cluster_id == self.root.cluster_id
            && identity.topic_id == self.key.topic
            && identity.partition == self.key.partition
            && identity.base_offset == segment.base
            && identity.generation == segment.generation();
        if ours { Ok(()) } else { Err(Trouble::Damaged(format!("{name} is the file of another place"))) }
    }

    fn verify_extents(&self, partition: &RebuiltPartition, damages: &mut Vec<String>) -> Result<(), Trouble> {
        for extent in &self.found.extents {
            let listed = partition.segments.iter().find(|segment| segment.base == extent.segment_base);
            let Some(segment) = listed.filter(|segment| segment.generation() == extent.generation) else {
                continue;
            };
            let mut hasher = crc32fast::Hasher::new();
            let mut at = extent.from;
            while at < extent.to {
                let until = (at + WINDOW).min(extent.to);
                match segment.view(at..until) {
                    Ok(bytes) => hasher.update(&bytes),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(error.into()),
                }
                at = until;
            }
            if hasher.finalize() == extent.crc32 || planted(Mutant::ExtentsUnverified) {
                segment.mark_good(extent.from..extent.to);
            } else {
                let (first, last) = (extent.first_offset, extent.next_offset - 1);
                damages.push(format!(
                    "partition {}: offsets {first}..={last} ({} from byte {}) do not verify, although they were flushed",
                    self.key,
                    segment.id().path(),
                    extent.from
                ));
            }
        }
        Ok(())
    }

    /// Takes what lies whole behind the journal's end, where the level allows it, and drops segments that nothing reaches.
    fn walk(
        &self,
        partition: &mut RebuiltPartition,
        line: &mut PartitionReport,
        decisions: &mut Vec<Body>,
    ) -> Result<(), Trouble> {
        let from =
            partition.segments.iter().rposition(|segment| segment.base <= partition.next_offset).unwrap_or(0);
        let from = last_with_data(&partition.segments, from, self.found);
        let mut reached = from;
        for index in from..partition.segments.len() {
            let Some(segment) = partition.segments.get(index).cloned() else { break };
            if segment.base > partition.next_offset {
                break;
            }
            reached = index;
            // What lies behind an end that nobody knows must neither be walked nor wiped.
            if segment.known_end().is_none() {
                let name = segment.id().path();
                return Err(Trouble::Damaged(format!("nothing says where the data in {name} ends")));
            }
            if self.level == Level::Fsync {
                continue;
            }
            let rules = tail::Rules {
                next_offset: partition.next_offset,
                epochs: &partition.epochs,
                newest_epoch: self.newest_epoch,
            };
            let taken = tail::walk(&segment, &rules)?;
            let Some(taken) = taken else { continue };
            decisions.push(Body::Extent(Extent {
                topic_id: Bytes::copy_from_slice(self.key.topic.as_bytes()),
                partition: self.key.partition,
                segment_base: segment.base,
                generation: segment.generation(),
                from: segment.end(),
                to: taken.to,
                first_offset: partition.next_offset,
                next_offset: taken.next_offset,
                last_epoch: taken.last_epoch,
                crc32: taken.crc32,
            }));
            line.walked_records += u64::try_from(taken.next_offset - partition.next_offset).unwrap_or(0);
            for start in &taken.epochs {
                crate::storage::partition::note_epoch(&mut partition.epochs, start.epoch, start.offset);
            }
            if !planted(Mutant::WalkUnflushed) {
                segment.file()?.sync()?;
            }
            segment.set_end(taken.to);
            partition.next_offset = taken.next_offset;
            partition.append_time_ms = partition.append_time_ms.max(taken.append_time_ms);
        }
        let kept = if planted(Mutant::LaterSegmentsKept) { partition.segments.len() } else { reached + 1 };
        let dropped: Vec<i64> =
            partition.segments.drain(kept.min(partition.segments.len())..).map(|s| s.base).collect();
        if !dropped.is_empty() {
            decisions.push(Body::Segments(SegmentList {
                topic_id: Bytes::copy_from_slice(self.key.topic.as_bytes()),
                partition: self.key.partition,
                added: Vec::new(),
                removed: dropped,
            }));
        }
        Ok(())
    }
}

/// An unsealed file goes on behind its data for as long as a footer would be, also where a cut took its length and what was
/// written again is its end now: else the end of a record, which anybody may have written, would stand where a footer does.
fn keep_room(segment: &Segment) -> io::Result<()> {
    let (file, end) = (segment.file()?, segment.end());
    // One that was cut within its data is left as it is.
    let bare = (end..end + FOOTER_ROOM).contains(&file.len()?);
    if bare { file.set_len(end + FOOTER_ROOM) } else { Ok(()) }
}

/// The first batch is that of this partition and offset.
fn begins_as_ours(segment: &Segment) -> io::Result<bool> {
    let first = Scan::new(segment, DATA_START, segment.file()?.len()?).next();
    Ok(matches!(first, Some(Ok(found)) if found.header.base_offset == segment.base))
}

/// The segment in which the journal's end lies: the last one that any batch, extent or snapshot put data into.
fn last_with_data(segments: &[Arc<Segment>], at_most: usize, found: &FoundPartition) -> usize {
    let has_data = |segment: &Arc<Segment>| {
        found.segments.get(&segment.base).is_some_and(|known| known.end > DATA_START)
    };
    let upto = segments.get(..=at_most).unwrap_or(segments);
    upto.iter().rposition(has_data).unwrap_or(at_most.min(upto.len().saturating_sub(1)))
}
