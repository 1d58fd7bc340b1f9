//! What producers stored after the snapshot: counted from the headers of their batches.
//!
//! The journal holds small batches, bytes and all; where it holds nothing but those they are all there is to count. Else the
//! segments are read from where the snapshot ends: extents, and what a walk took, are only there. Damage hides batches. It
//! is told elsewhere, and here it is stepped over: the next batch of a producer behind it begins its window anew.

use std::io;

use annals_wire::header::decode;

use super::{found::FoundPartition, rebuild::RebuiltPartition};
use crate::storage::{
    mutant::{Mutant, planted},
    scan::{Scan, ScanError, Source},
    segment::{DATA_START, Segment},
};

/// Counts what lies between the snapshot's end and the partition's.
pub(super) fn count(
    found: &FoundPartition,
    partition: &mut RebuiltPartition,
    walked: bool,
) -> io::Result<()> {
    let inline_only = found.extents.is_empty() && !found.counted_late && !walked;
    if inline_only || planted(Mutant::ExtentsNotCounted) {
        let headers = found.inline.iter().filter_map(|inline| decode(&inline.bytes).ok());
        for header in
            headers.map(|decoded| decoded.header).filter(|header| header.base_offset >= found.counted)
        {
            partition.producers.note(&header);
        }
    } else {
        let first = partition.segments.iter().rposition(|segment| segment.base <= found.counted).unwrap_or(0);
        for segment in partition.segments.clone().iter().skip(first) {
            count_segment(found, partition, segment)?;
        }
    }
    partition.counted = partition.next_offset;
    Ok(())
}

fn count_segment(
    found: &FoundPartition,
    partition: &mut RebuiltPartition,
    segment: &Segment,
) -> io::Result<()> {
    let known = found.counted_at.filter(|(base, _)| *base == segment.base);
    let mut from = known.map_or(DATA_START, |(_, position)| position);
    let end = segment.known_end().map_or_else(|| segment.file()?.len(), Ok)?;
    let upto = if planted(Mutant::WalkNotCounted) { found.next_offset } else { partition.next_offset };
    while from < end {
        let mut stopped = None;
        for batch in Scan::new(segment, from, end) {
            match batch {
                Ok(batch) if (found.counted..upto).contains(&batch.header.base_offset) => {
                    partition.producers.note(&batch.header);
                }
                Ok(_) => {}
                Err(error) => stopped = Some(error),
            }
        }
        let beyond = match stopped {
            None => return Ok(()),
            Some(ScanError::Io(error)) => return Err(error),
            Some(ScanError::Unreadable { end, .. }) => end,
            Some(ScanError::NotABatch(at)) => at + 1,
        };
        let Some((next, _)) = Source::Map.find(segment, beyond..end, found.counted) else { return Ok(()) };
        from = next;
    }
    Ok(())
}
