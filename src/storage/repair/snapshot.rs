//! A snapshot out of segments and journal, where none verifies: the base that the frames still there can be replayed on.
//!
//! * A partition that the journal names begins, in the base, exactly where the journal first names it; from there on the
//!   journal tells all, as at any start.
//! * One that it does not name had everything flushed before the journal's beginning: it is read through, and ends behind
//!   its last whole batch.
//! * What only snapshots hold is not known any more: names and settings of topics made before the journal's beginning,
//!   positions committed before it, answers to requests. The plan says so.
//!
//! The base is tried before it is planned: the frames are replayed on it, in memory.

use std::{collections::BTreeMap, io, sync::Arc};

use annals_wire::{
    ids::TopicId,
    internal::{self, EpochStart as EpochMessage, PartitionSection, SegmentRef, StateSection, TopicSection},
};
use bytes::Bytes;

use super::{
    Adopt, Plan, Repair, Step, identity_of, place_in_quarantine,
    ring::{Chain, FirstEntry, longest_chain},
};
use crate::storage::{
    PartitionKey,
    disk::{Access, Disk, EntryKind},
    error::OpenError,
    key::{Level, PartitionSettings},
    partition::{EpochStart, note_epoch},
    producers::Windows,
    recovery::{Machine, replay_from},
    replace::join,
    root::Root,
    scan::Scan,
    segment::{DATA_START, Segment, SegmentId, parse_name as parse_segment},
    snapshot::{self, position_message},
    storage::partitions_message,
};

/// Settings of a topic of which nothing but files is left: the strongest level, the usual sizes.
const SETTINGS: PartitionSettings = PartitionSettings {
    level: Level::Fsync,
    segment_bytes: 64 * 1024 * 1024,
    interval_ms: 100,
    interval_bytes: 1024 * 1024,
};

/// A partition, as its files have it.
#[derive(Debug, Default)]
struct FromFiles {
    /// By base offset, with the generation.
    segments: BTreeMap<i64, u32>,
    log_start: i64,
    next_offset: i64,
    end_position: u64,
    epochs: Vec<EpochStart>,
    append_time_ms: i64,
    producers: Windows,
}

/// Plans a snapshot made from what is there. The inner error says why it cannot be done.
pub(super) fn rebuild<M: Machine + Default>(
    disk: &Arc<dyn Disk>,
    root: &Root,
    adopt: Adopt<'_>,
    why: &str,
    plan: &mut Plan,
) -> Result<Result<(), String>, OpenError> {
    let io = |source| OpenError::Io { doing: "reading what is left".into(), source };
    let names = disk.list("").map_err(io)?;
    let bad: Vec<&str> = names
        .iter()
        .map(|entry| entry.name.as_str())
        .filter(|name| snapshot::parse_name(name).is_some())
        .collect();
    let readable = |name: &&str| {
        snapshot::parse_name(name).is_some_and(|sequence| snapshot::read(disk, root, sequence).is_ok())
    };
    if bad.iter().any(readable) {
        return Ok(Err("a snapshot verifies, so it is the journal that is damaged".into()));
    }
    let Some(chain) = longest_chain(disk, root).map_err(io)? else {
        return Ok(Err("no frame of the journal verifies".into()));
    };
    // What the older snapshot said was to be replayed begins before the sequence in its name. If the chain begins behind
    // that, a frame that was durable is missing, and that is damage of the journal.
    let oldest = bad.iter().filter_map(|name| snapshot::parse_name(name)).min();
    if let Some(oldest) = oldest.filter(|oldest| chain.start.sequence > oldest + 1) {
        let first = chain.start.sequence;
        return Ok(Err(format!(
            "the journal begins with frame {first}, and those from {oldest} on are needed"
        )));
    }
    let mut steps: Vec<Step> = bad.iter().map(|name| Step::Quarantine((*name).to_owned())).collect();
    let sequence = chain.start.sequence.saturating_sub(1);
    let name = snapshot::name(sequence);
    let partitions = partitions(disk, root, &chain).map_err(io)?;
    let image = match image::<M>(&chain, &partitions, adopt, plan) {
        Ok(image) => image,
        Err(why) => return Ok(Err(why)),
    };
    // Every name of a snapshot says up to where the journal had been durable.
    let proven = bad.iter().filter_map(|name| snapshot::parse_name(name)).max().unwrap_or(0);
    if let Err(error) = replay_from(disk, root, image.clone(), (sequence, proven), &mut M::default()) {
        plan.unknown.clear();
        return Ok(Err(format!("the journal does not go on from the segments: {error}")));
    }
    let (head, body) = snapshot::encode(root, &image);
    steps.push(Step::Write { name: name.clone(), bytes: [&head[..], &body[..]].concat() });
    let moved = match bad.as_slice() {
        [] => String::new(),
        bad => {
            let places: Vec<String> = bad.iter().map(|name| place_in_quarantine(name)).collect();
            format!("; the bad ones go to {}", places.join(", "))
        }
    };
    plan.repairs.push(Repair {
        file: name,
        why: format!("no snapshot verifies ({why})"),
        what: format!(
            "make one from the segments of {} partitions and {} frames of the journal{moved}",
            partitions.len(),
            chain.frames
        ),
        steps,
    });
    Ok(Ok(()))
}

/// Every partition that has files.
fn partitions(
    disk: &Arc<dyn Disk>,
    root: &Root,
    chain: &Chain,
) -> io::Result<BTreeMap<PartitionKey, FromFiles>> {
    let mut all = BTreeMap::new();
    for entry in disk.list("topics")?.iter().filter(|entry| entry.kind == EntryKind::Directory) {
        let Some(topic) = TopicId::parse(&entry.name) else { continue };
        let dir = join("topics", &entry.name);
        for partition in disk.list(&dir)?.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let Ok(number) = partition.name.parse() else { continue };
            let key = PartitionKey { topic, partition: number };
            let found = from_files(disk, root, key, chain.firsts.get(&key))?;
            if !found.segments.is_empty() {
                all.insert(key, found);
            }
        }
    }
    Ok(all)
}

fn from_files(
    disk: &Arc<dyn Disk>,
    root: &Root,
    key: PartitionKey,
    first: Option<&FirstEntry>,
) -> io::Result<FromFiles> {
    let mut newest: BTreeMap<i64, u32> = BTreeMap::new();
    for entry in disk.list(&key.dir())? {
        let Some((base, generation)) = parse_segment(&entry.name) else { continue };
        let id = SegmentId { key, base, generation };
        if identity_of(disk, &id.path(), root) == Some(id) {
            let known = newest.entry(base).or_insert(generation);
            *known = (*known).max(generation);
        }
    }
    let mut found = FromFiles::default();
    let Some(lowest) = newest.keys().next().copied() else { return Ok(found) };
    (found.log_start, found.next_offset) = (lowest, lowest);
    for (base, generation) in newest {
        let beyond = first.is_some_and(|first| base > first.base);
        // One that does not begin where the one before ends was dropped from the list once, or lies behind a hole.
        if beyond || (base != found.next_offset && first.is_none()) {
            continue;
        }
        let generation =
            first.filter(|first| first.base == base).map_or(generation, |first| first.generation);
        found.segments.insert(base, generation);
        found.read(disk, SegmentId { key, base, generation }, first)?;
    }
    if let Some(first) = first {
        (found.next_offset, found.end_position) = (first.offset, first.position);
    }
    found.log_start = found.log_start.min(found.next_offset);
    Ok(found)
}

impl FromFiles {
    /// Walks a segment: where it ends, which epochs wrote it.
    fn read(&mut self, disk: &Arc<dyn Disk>, id: SegmentId, first: Option<&FirstEntry>) -> io::Result<()> {
        let length = disk.open(&id.path(), Access::Read)?.len()?;
        let segment = Segment::at(disk, id.key, id.base, id.generation, length);
        segment.open_read_only()?;
        (self.next_offset, self.end_position) = (id.base, DATA_START);
        for batch in Scan::new(&segment, DATA_START, length) {
            let Ok(batch) = batch else { break };
            let known = first.is_none_or(|first| batch.header.base_offset < first.offset);
            if batch.header.base_offset != self.next_offset || !known || !batch.verify() {
                break;
            }
            self.next_offset = batch.next_offset();
            self.end_position = batch.end();
            self.append_time_ms = self.append_time_ms.max(batch.header.append_time_ms);
            note_epoch(&mut self.epochs, batch.header.leader_epoch, batch.header.base_offset);
            self.producers.note(&batch.header);
        }
        Ok(())
    }

    fn section(&self, key: PartitionKey, number: u64) -> PartitionSection {
        let segment = |(base, generation): (&i64, &u32)| SegmentRef {
            base: *base,
            generation: *generation,
            location: String::new(),
            end: 0,
        };
        let epochs =
            self.epochs.iter().map(|start| EpochMessage { epoch: start.epoch, offset: start.offset });
        PartitionSection {
            number,
            topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
            partition: key.partition,
            log_start: self.log_start,
            next_offset: self.next_offset,
            end_position: self.end_position,
            segments: self.segments.iter().map(segment).collect(),
            epochs: epochs.collect(),
            append_time_ms: self.append_time_ms,
            unwritten: Vec::new(),
            closed: false,
            producers: self.producers.to_section(self.next_offset, self.next_offset),
        }
    }
}

/// The snapshot, exact before the journal's first entry; what is not known is told to the plan.
fn image<M: Machine + Default>(
    chain: &Chain,
    partitions: &BTreeMap<PartitionKey, FromFiles>,
    adopt: Adopt<'_>,
    plan: &mut Plan,
) -> Result<internal::Snapshot, String> {
    let mut counts: BTreeMap<TopicId, u32> = BTreeMap::new();
    for key in partitions.keys().filter(|key| !chain.declared.contains(&key.topic)) {
        let count = counts.entry(key.topic).or_default();
        *count = (*count).max(key.partition + 1);
    }
    // Each adopted topic was made by an entry before the journal's beginning, so there are numbers for them.
    let number = chain.first_number.saturating_sub(1);
    let mut machine = M::default();
    let first =
        number.checked_sub(counts.len() as u64).ok_or("more topics than entries before the journal")? + 1;
    for (number, (topic, count)) in (first..).zip(&counts) {
        machine.apply(number, &adopt(*topic, *count))?;
        plan.unknown.push(format!(
            "the name and the settings of topic {topic}, and whether it had more than {count} partitions: it comes back as \
             recovered-{topic}, at fsync"
        ));
    }
    if chain.start.sequence > 1 {
        plan.unknown.push(format!(
            "positions that groups committed before frame {} of the journal, and not again since: those groups start from \
             what they committed later, or anew",
            chain.start.sequence
        ));
        plan.unknown.push(
            "answers to requests with an id from before then: repeated, they would be stored again".into(),
        );
        plan.unknown.push(
            "producers opened before then: they are refused as expired, and open anew under other ids".into(),
        );
        plan.unknown.push(
            "topics made before then that nothing was ever written to, and deletions of records by then"
                .into(),
        );
    }
    Ok(internal::Snapshot {
        start: Some(position_message(chain.start)),
        epoch: chain.epoch,
        highest_number: number,
        topics: counts
            .iter()
            .map(|(topic, count)| TopicSection {
                number,
                partitions: Some(partitions_message(topic, SETTINGS, *count)),
            })
            .collect(),
        partitions: partitions.iter().map(|(key, found)| found.section(*key, number)).collect(),
        states: machine
            .capture(number)
            .into_iter()
            .map(|section| StateSection { number: section.number, bytes: section.bytes.into() })
            .collect(),
        tombstones: Vec::new(),
    })
}
