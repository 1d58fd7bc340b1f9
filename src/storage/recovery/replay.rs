//! Reading: snapshot, then frames. Nothing is written here, so `log verify` uses it too.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use annals_wire::{
    header::verify_header,
    ids::TopicId,
    internal::{self, Entry, Frame, entry::Body},
};
use bytes::Bytes;
use prost::Message;

use super::{
    Machine,
    base::{self, Base},
    found::{FoundExtent, FoundPartition, FoundSegment, Inline},
    torn::prove_torn,
};
use crate::storage::{
    PartitionKey, bounds,
    disk::{Access, Disk, EntryKind},
    error::OpenError,
    frame::{BLOCK, FrameHeader, HEADER_LEN, padded, payload_of},
    key::{Level, PartitionSettings},
    mutant::{Mutant, planted},
    partition::note_epoch,
    ring::{self, Place, RingFile},
    root::Root,
    segment::DATA_START,
    snapshot::Kept,
};

/// Where a directory without snapshots begins.
pub(crate) const FIRST_FILE: u32 = 1;
const BEGINNING: Place = Place { sequence: 1, file: FIRST_FILE, position: BLOCK, previous_crc: 0 };

/// A topic as snapshot and journal have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundTopic {
    pub(super) number: u64,
    pub(crate) count: u32,
    pub(crate) settings: PartitionSettings,
}

/// A frame of the chain, for those that must be written again.
#[derive(Clone, Debug)]
pub(crate) struct Unproven {
    pub(crate) file: u32,
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
}

/// All that reading found.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) topics: BTreeMap<TopicId, FoundTopic>,
    pub(crate) partitions: BTreeMap<PartitionKey, FoundPartition>,
    pub(crate) tombstones: Vec<TopicId>,
    pub(crate) kept: Vec<Kept>,
    /// Files of the chain, oldest first.
    pub(crate) used: VecDeque<RingFile>,
    pub(crate) free: Vec<RingFile>,
    pub(crate) highest_file: u32,
    /// Where the next frame goes.
    pub(crate) next: Place,
    pub(crate) epoch: u32,
    pub(crate) last_number: u64,
    pub(crate) frames: u64,
    /// Frames that nothing proves durable.
    pub(crate) unproven: Vec<Unproven>,
    pub(crate) damages: Vec<String>,
}

impl Replayed {
    /// The newest snapshot covers the last frame: the last run ended in order.
    pub(crate) fn is_clean(&self) -> bool {
        self.frames == 0 && !self.kept.is_empty()
    }
}

/// Times that the chain of a running server is gone on with before it is left at that.
const GO_ON: usize = 8;

/// Reads snapshot and journal; gives the state machine its sections and entries.
pub(crate) fn replay(
    disk: &Arc<dyn Disk>,
    root: &Root,
    access: Access,
    machine: &mut dyn Machine,
) -> Result<Replayed, OpenError> {
    let mut damages = Vec::new();
    let base = base::newest(disk, root, &mut damages)?;
    let mut found = replay_on(disk, root, access, base, machine)?;
    found.damages = damages;
    Ok(found)
}

/// What [`replay`] finds in a directory that was made just now: nothing, and nothing is looked for.
pub(crate) fn nothing(
    disk: &Arc<dyn Disk>,
    root: &Root,
    machine: &mut dyn Machine,
) -> Result<Replayed, OpenError> {
    let files = ring_files(disk)?;
    let base = Base { snapshot: None, kept: Vec::new(), proven: 0 };
    let mut found = begin((disk, root, Access::Write), &files, base, machine)?.found;
    open_the_rest(disk, root, Access::Write, &files, &mut found);
    Ok(found)
}

/// As [`replay`], reading only, from a snapshot that is no file, or not yet. `sequences`: the one it would have in its
/// name, and the highest that the name of any other says was durable.
pub(crate) fn replay_from(
    disk: &Arc<dyn Disk>,
    root: &Root,
    snapshot: internal::Snapshot,
    (sequence, proven): (u64, u64),
    machine: &mut dyn Machine,
) -> Result<Replayed, OpenError> {
    let start = base::start_of(&snapshot).unwrap_or(BEGINNING);
    let base = Base { snapshot: Some(snapshot), kept: vec![Kept { sequence, start }], proven };
    replay_on(disk, root, Access::Read, base, machine)
}

fn replay_on(
    disk: &Arc<dyn Disk>,
    root: &Root,
    access: Access,
    base: Base,
    machine: &mut dyn Machine,
) -> Result<Replayed, OpenError> {
    let files = ring_files(disk)?;
    let mut chain = begin((disk, root, access), &files, base, machine)?;
    let proven = chain.durable;
    chain.run()?;
    let durable = chain.durable;
    let mut found = chain.found;
    open_the_rest(disk, root, access, &files, &mut found);
    if !planted(Mutant::DamageTakenForTail) {
        prove_torn(root, &found, proven)?;
    }
    let first_unproven =
        (durable + 1).saturating_sub(found.next.sequence.saturating_sub(found.unproven.len() as u64));
    found.unproven.drain(..usize::try_from(first_unproven).unwrap_or(usize::MAX).min(found.unproven.len()));
    Ok(found)
}

/// As [`replay`], reading only, of a journal that may be written to meanwhile. Damage that is told may be the ring going
/// on under the reading: then it is another place that looks so at the next call.
pub(crate) fn replay_running(
    disk: &Arc<dyn Disk>,
    root: &Root,
    machine: &mut dyn Machine,
) -> Result<Replayed, OpenError> {
    let files = ring_files(disk)?;
    let mut damages = Vec::new();
    let base = base::newest(disk, root, &mut damages)?;
    let mut chain = begin((disk, root, Access::Read), &files, base, machine)?;
    chain.found.damages = damages;
    let proven = chain.durable;
    for _ in 0..GO_ON {
        chain.run()?;
        chain.found.free.clear();
        open_the_rest(disk, root, Access::Read, &files, &mut chain.found);
        match prove_torn(root, &chain.found, proven) {
            Ok(()) => break,
            // A frame that was not there when the chain ended may be there by now, and then it ended for no other reason.
            Err(damage) if chain.next_frame()?.is_none() => return Err(damage),
            Err(_) => {}
        }
    }
    Ok(chain.found)
}

/// The chain before its first frame, with all that the base holds.
fn begin<'a>(
    (disk, root, access): (&'a Arc<dyn Disk>, &'a Root, Access),
    files: &[u32],
    Base { snapshot, kept, proven }: Base,
    machine: &'a mut dyn Machine,
) -> Result<Chain<'a>, OpenError> {
    let start = kept.last().map_or(BEGINNING, |kept| kept.start);
    let mut found = Replayed {
        topics: BTreeMap::new(),
        partitions: BTreeMap::new(),
        tombstones: Vec::new(),
        kept,
        used: VecDeque::new(),
        free: Vec::new(),
        highest_file: files.iter().copied().max().unwrap_or(0),
        next: start,
        epoch: 0,
        last_number: 0,
        frames: 0,
        unproven: Vec::new(),
        damages: Vec::new(),
    };
    if let Some(snapshot) = snapshot {
        base::restore(&mut found, snapshot, machine)?;
    }
    let first = ring::open_file(disk, root, found.next.file, access)?;
    found.used.push_back(first);
    Ok(Chain { disk, root, access, found, machine, durable: proven })
}

fn ring_files(disk: &Arc<dyn Disk>) -> Result<Vec<u32>, OpenError> {
    let io = |source| OpenError::Io { doing: "listing the journal".into(), source };
    let names = disk.list(ring::DIR).map_err(io)?;
    let ids = names
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .filter_map(|entry| entry.name.parse().ok());
    Ok(ids.collect())
}

pub(super) fn settings_of(message: &internal::Partitions) -> Option<(TopicId, PartitionSettings)> {
    let settings = PartitionSettings {
        level: Level::from_number(message.level)?,
        segment_bytes: message.segment_bytes,
        interval_ms: message.interval_ms,
        interval_bytes: message.interval_bytes,
    };
    Some((TopicId::from_slice(&message.topic_id)?, settings))
}

/// Walks the chain of frames.
struct Chain<'a> {
    disk: &'a Arc<dyn Disk>,
    root: &'a Root,
    access: Access,
    found: Replayed,
    machine: &'a mut dyn Machine,
    /// Highest sequence that anything read proves durable.
    durable: u64,
}

impl Chain<'_> {
    fn run(&mut self) -> Result<(), OpenError> {
        while let Some((header, frame)) = self.next_frame()? {
            self.durable = self.durable.max(header.durable);
            self.found.epoch = self.found.epoch.max(header.epoch);
            let place = self.found.next;
            self.found.unproven.push(Unproven {
                file: place.file,
                position: place.position,
                bytes: frame.clone(),
            });
            self.take(&header, &frame, place)?;
            self.found.frames += 1;
            self.found.last_number = self.found.last_number.max(header.last_number);
            self.found.next = Place {
                sequence: place.sequence + 1,
                file: place.file,
                position: place.position + padded(header.length.into()),
                previous_crc: header.crc,
            };
            if header.link {
                let next = ring::open_file(self.disk, self.root, header.successor, self.access)?;
                self.found.used.push_back(next);
                self.found.next.file = header.successor;
                self.found.next.position = BLOCK;
            }
        }
        Ok(())
    }

    /// The frame at the next place, padding included, if it counts.
    fn next_frame(&self) -> Result<Option<(FrameHeader, Bytes)>, OpenError> {
        let place = self.found.next;
        let file = self.found.used.back().expect("the chain has a file");
        let io = |source| OpenError::Io { doing: format!("reading {}", ring::path(file.id)), source };
        if place.position + BLOCK > file.size {
            return Ok(None);
        }
        let head = file.file.view(place.position, HEADER_LEN).map_err(io)?;
        let Some(header) = FrameHeader::decode(&head, self.root.frame_magic) else { return Ok(None) };
        let size = padded(header.length.into());
        let chains = header.sequence == place.sequence
            && (header.previous_crc == place.previous_crc || planted(Mutant::FrameChainUnchecked))
            && (header.epoch >= self.found.epoch || planted(Mutant::FrameEpochUnchecked))
            && bounds::epoch(header.epoch).is_ok()
            && bounds::number(header.last_number).is_ok()
            && header.durable < header.sequence
            && place.position + size <= file.size;
        if !chains {
            return Ok(None);
        }
        let frame =
            file.file.view(place.position, usize::try_from(size).unwrap_or(usize::MAX)).map_err(io)?;
        Ok(payload_of(&header, &frame).is_some().then_some((header, frame)))
    }

    fn take(&mut self, header: &FrameHeader, frame: &Bytes, place: Place) -> Result<(), OpenError> {
        let damaged = |what: String| OpenError::Damaged {
            file: ring::path(place.file),
            position: place.position,
            what,
        };
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let payload = frame.slice(HEADER_LEN..length.min(frame.len()));
        let decoded =
            Frame::decode(payload).map_err(|error| damaged(format!("a frame does not decode: {error}")))?;
        for entry in decoded.entries {
            bounds::entry(&entry).and_then(|()| self.entry(entry)).map_err(damaged)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), String> {
        let number = entry.number;
        let Some(body) = entry.body else {
            return if entry.may_ignore {
                Ok(())
            } else {
                Err(format!("entry {number} is of a kind this release does not know"))
            };
        };
        match body {
            Body::State(bytes) => self.machine.apply(number, &bytes),
            Body::Started(started) => {
                self.found.epoch = self.found.epoch.max(started.epoch);
                Ok(())
            }
            Body::Partitions(message) => {
                let (id, settings) = settings_of(&message).ok_or("a topic's settings do not decode")?;
                let known =
                    self.found.topics.entry(id).or_insert(FoundTopic { number: 0, count: 0, settings });
                if known.number < number {
                    *known = FoundTopic { number, count: known.count.max(message.count), settings };
                }
                Ok(())
            }
            Body::Removed(message) => {
                let id = TopicId::from_slice(&message.topic_id).ok_or("a topic id does not decode")?;
                self.found.topics.remove(&id);
                self.found.partitions.retain(|key, _| key.topic != id);
                self.found.tombstones.push(id);
                Ok(())
            }
            Body::Batch(message) => self.batch(message),
            Body::Extent(message) => self.extent(&message),
            Body::Segments(message) => self.segments(number, &message),
            Body::LogStart(message) => {
                let partition = self.partition(&message.topic_id, message.partition)?;
                if let Some(partition) = partition {
                    partition.log_start = partition.log_start.max(message.log_start);
                    partition.next_offset = partition.next_offset.max(message.log_start);
                }
                Ok(())
            }
        }
    }

    /// The partition of an entry; `None` if its topic is gone by now.
    fn partition(&mut self, topic: &[u8], partition: u32) -> Result<Option<&mut FoundPartition>, String> {
        let topic = TopicId::from_slice(topic).ok_or("a topic id does not decode")?;
        if self.found.tombstones.contains(&topic) {
            return Ok(None);
        }
        if !self.found.topics.contains_key(&topic) {
            return Err(format!("an entry of topic {topic}, which was never made"));
        }
        Ok(Some(self.found.partitions.entry(PartitionKey { topic, partition }).or_default()))
    }

    fn batch(&mut self, message: internal::InlineBatch) -> Result<(), String> {
        let (topic, number) = (message.topic_id.clone(), message.partition);
        let id = TopicId::from_slice(&topic).ok_or("a topic id does not decode")?;
        let decoded = verify_header(&message.batch, &id, number)
            .map_err(|error| format!("a batch of {id}/{number} in the journal: {error}"))?;
        if decoded.batch_len != message.batch.len() {
            return Err(format!("a batch of {id}/{number} in the journal is cut short"));
        }
        let header = decoded.header;
        let next_offset = header.next_offset().ok_or("an impossible offset")?;
        let Some(partition) = self.partition(&topic, number)? else { return Ok(()) };
        let inline = Inline::from(message);
        let end = inline.position + inline.bytes.len() as u64;
        partition.go_on(
            inline.segment_base,
            inline.generation,
            inline.position,
            end,
            header.base_offset,
            next_offset,
        )?;
        note_epoch(&mut partition.epochs, header.leader_epoch, header.base_offset);
        partition.append_time_ms = partition.append_time_ms.max(header.append_time_ms);
        partition.inline.push(inline);
        Ok(())
    }

    fn extent(&mut self, message: &internal::Extent) -> Result<(), String> {
        let Some(partition) = self.partition(&message.topic_id, message.partition)? else { return Ok(()) };
        partition.go_on(
            message.segment_base,
            message.generation,
            message.from,
            message.to,
            message.first_offset,
            message.next_offset,
        )?;
        note_epoch(&mut partition.epochs, message.last_epoch, message.first_offset);
        partition.extents.push(FoundExtent {
            segment_base: message.segment_base,
            generation: message.generation,
            from: message.from,
            to: message.to,
            first_offset: message.first_offset,
            next_offset: message.next_offset,
            crc32: message.crc32,
        });
        Ok(())
    }

    fn segments(&mut self, number: u64, message: &internal::SegmentList) -> Result<(), String> {
        let Some(partition) = self.partition(&message.topic_id, message.partition)? else { return Ok(()) };
        if number <= partition.number {
            return Ok(());
        }
        for base in &message.removed {
            partition.segments.remove(base);
        }
        for added in &message.added {
            let segment = FoundSegment { generation: added.generation, end: DATA_START };
            partition.segments.insert(added.base, segment);
        }
        Ok(())
    }
}

/// Opens the files that are not part of the chain. One that is not ours is left alone and never used.
fn open_the_rest(disk: &Arc<dyn Disk>, root: &Root, access: Access, files: &[u32], found: &mut Replayed) {
    for id in files {
        if found.used.iter().any(|used| used.id == *id) {
            continue;
        }
        match ring::open_file(disk, root, *id, access) {
            Ok(file) => found.free.push(file),
            // A file whose making was cut short looks like this, too.
            Err(error) => tracing::debug!(%error, "a file of the journal is not used"),
        }
    }
}
