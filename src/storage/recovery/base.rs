//! What replay starts from: the newest snapshot that verifies.

use std::sync::Arc;

use annals_wire::{ids::TopicId, internal};

use super::{
    Machine,
    found::{FoundPartition, FoundSegment, Inline},
    replay::{FoundTopic, Replayed, settings_of},
};
use crate::storage::{
    PartitionKey, Section,
    disk::Disk,
    error::OpenError,
    partition::EpochStart,
    producers::Windows,
    ring::Place,
    root::Root,
    snapshot::{self, Kept},
};

/// Where replay begins.
pub(super) struct Base {
    /// The newest snapshot that verifies.
    pub(super) snapshot: Option<internal::Snapshot>,
    /// All that do, oldest first, at most two.
    pub(super) kept: Vec<Kept>,
    /// Highest sequence that the name of a snapshot, valid or not, says was durable.
    pub(super) proven: u64,
}

/// Reads the snapshots, newest first, until two verify.
pub(super) fn newest(
    disk: &Arc<dyn Disk>,
    root: &Root,
    damages: &mut Vec<String>,
) -> Result<Base, OpenError> {
    let io = |source| OpenError::Io { doing: "listing the data directory".into(), source };
    let names = disk.list("").map_err(io)?;
    let mut sequences: Vec<u64> =
        names.iter().filter_map(|entry| snapshot::parse_name(&entry.name)).collect();
    sequences.sort_unstable();
    let proven = sequences.last().copied().unwrap_or(0);
    let (mut newest, mut kept, mut bad) = (None, Vec::new(), None);
    for sequence in sequences.into_iter().rev().take(4) {
        match snapshot::read(disk, root, sequence) {
            Ok(found) => {
                let Some(start) = start_of(&found) else { continue };
                kept.insert(0, Kept { sequence, start });
                newest.get_or_insert(found);
                if kept.len() == 2 {
                    break;
                }
            }
            Err(error @ OpenError::Damaged { .. }) => {
                damages.push(error.to_string());
                bad = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match (newest, bad) {
        (None, Some(error)) => Err(error),
        (snapshot, _) => Ok(Base { snapshot, kept, proven }),
    }
}

/// The place of the first frame that a snapshot does not hold.
pub(super) fn start_of(snapshot: &internal::Snapshot) -> Option<Place> {
    snapshot.start.as_ref().map(|start| Place {
        sequence: start.sequence,
        file: start.file,
        position: start.position,
        previous_crc: start.previous_crc,
    })
}

/// What the snapshot holds.
pub(super) fn restore(
    found: &mut Replayed,
    snapshot: internal::Snapshot,
    machine: &mut dyn Machine,
) -> Result<(), OpenError> {
    let bad = |what: String| OpenError::Damaged { file: "snapshot".into(), position: 0, what };
    found.epoch = snapshot.epoch;
    found.last_number = snapshot.highest_number;
    for topic in snapshot.topics {
        let Some(message) = topic.partitions else { continue };
        let (id, settings) = settings_of(&message).ok_or_else(|| bad("a topic's section".into()))?;
        found.topics.insert(id, FoundTopic { number: topic.number, count: message.count, settings });
    }
    for section in snapshot.partitions {
        let topic = TopicId::from_slice(&section.topic_id).ok_or_else(|| bad("a topic id".into()))?;
        let key = PartitionKey { topic, partition: section.partition };
        let last = section.segments.last().map(|segment| segment.base);
        let segments = section.segments.iter().map(|segment| {
            let end = if Some(segment.base) == last { section.end_position } else { segment.end };
            (segment.base, FoundSegment { generation: segment.generation, end })
        });
        let epochs =
            section.epochs.iter().map(|start| EpochStart { epoch: start.epoch, offset: start.offset });
        let producers = section.producers.as_ref();
        let counted = producers.map_or(section.next_offset, |windows| windows.next_offset);
        let at_the_end = (counted == section.next_offset).then_some(section.end_position);
        let partition = FoundPartition {
            producers: producers.map(Windows::of_section).unwrap_or_default(),
            counted,
            counted_at: last.zip(at_the_end),
            counted_late: counted < section.next_offset,
            number: section.number,
            log_start: section.log_start,
            next_offset: section.next_offset,
            segments: segments.collect(),
            epochs: epochs.collect(),
            append_time_ms: section.append_time_ms,
            inline: section.unwritten.into_iter().map(Inline::from).collect(),
            closed: section.closed,
            ..FoundPartition::default()
        };
        found.partitions.insert(key, partition);
    }
    found.tombstones = snapshot.tombstones.iter().filter_map(|id| TopicId::from_slice(id)).collect();
    for section in snapshot.states {
        let section = Section { number: section.number, bytes: section.bytes.to_vec() };
        machine.restore(&section).map_err(bad)?;
    }
    Ok(())
}
