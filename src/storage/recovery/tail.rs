//! What lies behind the journal's end in a segment: walked where the level allows it, wiped where it does not.

use std::io;

use crc32fast::Hasher;

use crate::storage::{
    mutant::{Mutant, planted},
    partition::{EpochStart, note_epoch},
    scan::{Scan, ScanError},
    segment::Segment,
};

/// Bytes behind the end that are looked at to say what was cut.
const WINDOW: u64 = 1024 * 1024;

/// What a batch must be to be taken.
pub(crate) struct Rules<'a> {
    pub(crate) next_offset: i64,
    pub(crate) epochs: &'a [EpochStart],
    /// Batches of a later epoch than any in the journal are not ours.
    pub(crate) newest_epoch: u32,
}

/// What was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) to: u64,
    pub(crate) next_offset: i64,
    pub(crate) last_epoch: u32,
    pub(crate) crc32: u32,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) append_time_ms: i64,
}

/// Whole valid batches behind the end: offsets without holes, epochs that do not fall, none of an atomic group.
/// The caller flushes them before anything says they are there.
pub(crate) fn walk(segment: &Segment, rules: &Rules<'_>) -> io::Result<Option<Taken>> {
    let file = segment.file()?;
    let length = file.len()?;
    let mut taken: Option<Taken> = None;
    let mut hasher = Hasher::new();
    let mut next_offset = rules.next_offset;
    let mut epoch = rules.epochs.last().map_or(0, |last| last.epoch);
    let mut epochs = rules.epochs.to_vec();
    for found in Scan::new(segment, segment.end(), length) {
        let found = match found {
            Ok(found) => found,
            Err(ScanError::NotABatch(_)) => break,
            // Bytes that cannot be read are never an end.
            Err(error) => return Err(error.into()),
        };
        let header = &found.header;
        let fits = header.base_offset == next_offset
            && (header.leader_epoch >= epoch || planted(Mutant::WalkEpochFalls))
            && (header.leader_epoch <= rules.newest_epoch || planted(Mutant::WalkEpochUnknown))
            && (!header.attributes.atomic() || planted(Mutant::WalkTakesGroups))
            && (found.verify() || planted(Mutant::WalkTakesTorn));
        if !fits {
            break;
        }
        hasher.update(&found.bytes);
        next_offset = found.next_offset();
        epoch = header.leader_epoch;
        note_epoch(&mut epochs, epoch, header.base_offset);
        taken = Some(Taken {
            to: found.end(),
            next_offset,
            last_epoch: epoch,
            crc32: hasher.clone().finalize(),
            epochs: Vec::new(),
            append_time_ms: header.append_time_ms,
        });
    }
    if segment.is_lost() {
        return Err(unreadable());
    }
    if let Some(taken) = &mut taken {
        // Rewritten, so that its pages are dirty and the flush that follows means something even if an earlier one failed.
        let bytes = segment.view(segment.end()..taken.to)?;
        if !planted(Mutant::WalkNotRewritten) {
            file.write_at(&[&bytes], segment.end())?;
        }
        taken.epochs = epochs;
    }
    Ok(taken)
}

/// Turns everything behind the end into zeros, also what reads as zeros already: memory may say so and the disk may not.
/// Returns how many of the first MiB held something. Not flushed.
pub(crate) fn wipe(segment: &Segment) -> io::Result<u64> {
    let file = segment.file()?;
    let (end, length) = (segment.end(), file.len()?);
    // What lies further behind is wiped without being looked at.
    let bytes = segment.view(end.min(length)..(end + WINDOW).min(length).max(end.min(length)))?;
    let found = bytes.iter().filter(|byte| **byte != 0).count() as u64;
    if segment.is_lost() {
        return Err(unreadable());
    }
    if length > end {
        file.zero(end, length - end)?;
    }
    Ok(found)
}

/// A page of the map could not be read: nothing may be concluded from what was seen.
fn unreadable() -> io::Error {
    io::Error::other("the disk does not read all of the segment")
}
