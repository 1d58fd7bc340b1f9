//! What the numbers in our own files may be.
//!
//! Checksums keep accidents out. This keeps out what somebody made: whatever passes here can be added up without an
//! overflow, and asks for no more partitions than there can be. A file that does not pass is damaged.

use annals_wire::{
    internal::{Entry, PartitionSection, Partitions, ProducerWindows, Snapshot, entry::Body},
    limits::MAX_PARTITIONS,
};

use super::{frame::BLOCK, producers};

/// Sequences and numbers of entries: 500 years at a billion a second.
const MOST: u64 = 1 << 62;
/// Positions in a file: segments stay below 2 GiB and a batch, journal files too.
const MOST_POSITION: u64 = u32::MAX as u64;

fn check(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what} that there cannot be")) }
}

/// A sequence, or a number of an entry.
pub(crate) fn number(number: u64) -> Result<(), String> {
    check(number < MOST, "a number")
}

/// The epoch of a run; the next one has to be a number, too.
pub(crate) fn epoch(epoch: u32) -> Result<(), String> {
    check(epoch < u32::MAX, "an epoch")
}

fn position(position: u64) -> Result<(), String> {
    check(position <= MOST_POSITION, "a position")
}

fn offset(offset: i64) -> Result<(), String> {
    check(offset >= 0, "an offset")
}

fn partition(partition: u32) -> Result<(), String> {
    check(partition < MAX_PARTITIONS, "a partition")
}

fn partitions(topic: &Partitions) -> Result<(), String> {
    check(topic.count <= MAX_PARTITIONS, "more partitions")
}

/// An entry of the journal.
pub(crate) fn entry(entry: &Entry) -> Result<(), String> {
    number(entry.number)?;
    match &entry.body {
        None | Some(Body::State(_) | Body::Removed(_)) => Ok(()),
        Some(Body::Started(started)) => epoch(started.epoch),
        Some(Body::Partitions(topic)) => partitions(topic),
        Some(Body::Batch(batch)) => {
            partition(batch.partition)?;
            position(batch.position)
        }
        Some(Body::Extent(extent)) => {
            partition(extent.partition)?;
            [extent.from, extent.to].into_iter().try_for_each(position)?;
            [extent.first_offset, extent.next_offset].into_iter().try_for_each(offset)
        }
        Some(Body::Segments(list)) => {
            partition(list.partition)?;
            list.added.iter().try_for_each(|segment| offset(segment.base))
        }
        Some(Body::LogStart(start)) => {
            partition(start.partition)?;
            offset(start.log_start)
        }
    }
}

/// A snapshot.
pub(crate) fn snapshot(snapshot: &Snapshot) -> Result<(), String> {
    number(snapshot.highest_number)?;
    epoch(snapshot.epoch)?;
    if let Some(start) = &snapshot.start {
        number(start.sequence)?;
        position(start.position)?;
        let frame = start.sequence > 0 && start.position >= BLOCK && start.position.is_multiple_of(BLOCK);
        check(frame, "a place")?;
    }
    snapshot.topics.iter().filter_map(|topic| topic.partitions.as_ref()).try_for_each(partitions)?;
    snapshot.partitions.iter().try_for_each(section)
}

fn section(section: &PartitionSection) -> Result<(), String> {
    number(section.number)?;
    partition(section.partition)?;
    position(section.end_position)?;
    offset(section.log_start)?;
    check(section.log_start <= section.next_offset, "a log start")?;
    section
        .segments
        .iter()
        .try_for_each(|segment| offset(segment.base).and_then(|()| position(segment.end)))?;
    section.unwritten.iter().try_for_each(|batch| position(batch.position))?;
    let windows = section.producers.as_ref();
    let possible =
        |windows: &ProducerWindows| producers::check(windows) && windows.next_offset <= section.next_offset;
    check(windows.is_none_or(possible), "a producer's batches")
}

#[cfg(test)]
mod tests {
    use annals_wire::internal::{Extent, InlineBatch, JournalPosition, LogStart};

    use super::*;

    fn refused(body: Body) -> bool {
        entry(&Entry { number: 1, may_ignore: false, body: Some(body) }).is_err()
    }

    #[test]
    fn what_would_overflow_is_refused() {
        assert!(entry(&Entry { number: u64::MAX, ..Entry::default() }).is_err());
        assert!(refused(Body::Batch(InlineBatch { position: u64::MAX - 80, ..InlineBatch::default() })));
        assert!(refused(Body::Extent(Extent { next_offset: i64::MIN, ..Extent::default() })));
        assert!(refused(Body::LogStart(LogStart { log_start: -1, ..LogStart::default() })));
        assert!(refused(Body::Partitions(Partitions { count: u32::MAX, ..Partitions::default() })));
        assert!(!refused(Body::Partitions(Partitions { count: MAX_PARTITIONS, ..Partitions::default() })));
        let at = |sequence, position| Snapshot {
            start: Some(JournalPosition { sequence, position, ..JournalPosition::default() }),
            ..Snapshot::default()
        };
        assert!(snapshot(&at(1, BLOCK)).is_ok());
        for (sequence, position) in
            [(0, BLOCK), (u64::MAX, BLOCK), (1, 0), (1, BLOCK + 1), (1, u64::MAX - 4095)]
        {
            assert!(snapshot(&at(sequence, position)).is_err(), "{sequence} at {position}");
        }
        let backwards = PartitionSection { log_start: 9, next_offset: 8, ..PartitionSection::default() };
        assert!(snapshot(&Snapshot { partitions: vec![backwards], ..Snapshot::default() }).is_err());
    }
}
