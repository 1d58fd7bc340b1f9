//! What reading found of a partition: segments, where they end, and what the journal still holds for them.

use std::collections::BTreeMap;

use annals_wire::internal;
use bytes::Bytes;

use crate::storage::{PartitionKey, partition::EpochStart, producers::Windows};

/// A batch that the journal holds.
#[derive(Clone, Debug)]
pub(crate) struct Inline {
    pub(crate) segment_base: i64,
    pub(crate) generation: u32,
    pub(crate) position: u64,
    pub(crate) bytes: Bytes,
}

impl From<internal::InlineBatch> for Inline {
    fn from(message: internal::InlineBatch) -> Self {
        Self {
            segment_base: message.segment_base,
            generation: message.generation,
            position: message.position,
            bytes: message.batch,
        }
    }
}

impl Inline {
    /// The entry it came from, with bytes of its own: these may be a view of the journal, which is written to again.
    pub(super) fn to_entry(&self, key: PartitionKey) -> internal::InlineBatch {
        internal::InlineBatch {
            topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
            partition: key.partition,
            segment_base: self.segment_base,
            generation: self.generation,
            position: self.position,
            batch: Bytes::copy_from_slice(&self.bytes),
        }
    }
}

/// A run of bytes that the journal says is flushed.
#[derive(Clone, Debug)]
pub(crate) struct FoundExtent {
    pub(crate) segment_base: i64,
    pub(crate) generation: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) first_offset: i64,
    pub(crate) next_offset: i64,
    pub(crate) crc32: u32,
}

/// A segment in a partition's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundSegment {
    pub(crate) generation: u32,
    /// Where its data ends, if the journal or the snapshot says so.
    pub(crate) end: u64,
}

/// A partition as snapshot and journal have it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundPartition {
    /// Number its section is exact at.
    pub(super) number: u64,
    pub(crate) log_start: i64,
    pub(crate) next_offset: i64,
    pub(crate) segments: BTreeMap<i64, FoundSegment>,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) append_time_ms: i64,
    pub(crate) inline: Vec<Inline>,
    pub(crate) extents: Vec<FoundExtent>,
    /// The start before could not open it: nothing behind its end was looked at.
    pub(crate) closed: bool,
    /// What producers stored last before offset `counted`, and where in which segment that is, if it is known.
    pub(crate) producers: Windows,
    pub(crate) counted: i64,
    pub(crate) counted_at: Option<(i64, u64)>,
    /// That is before the snapshot's end: the journal need not have what follows.
    pub(crate) counted_late: bool,
}

impl FoundPartition {
    /// A batch or extent follows, or lies below what the snapshot has; anything else is a gap.
    pub(super) fn go_on(
        &mut self,
        base: i64,
        generation: u32,
        from: u64,
        to: u64,
        first: i64,
        next: i64,
    ) -> Result<(), String> {
        if next <= self.next_offset {
            return Ok(());
        }
        if first > self.next_offset {
            return Err(format!("offsets {}..{first} are missing from the journal", self.next_offset));
        }
        let Some(segment) = self.segments.get_mut(&base).filter(|known| known.generation == generation)
        else {
            return Err(format!(
                "offsets {first}..{next} lie in segment {base}-{generation}, which is not listed"
            ));
        };
        if from > segment.end || to < from {
            return Err(format!(
                "bytes {}..{from} of segment {base}-{generation} are missing from the journal",
                segment.end
            ));
        }
        segment.end = to;
        self.next_offset = next;
        Ok(())
    }
}
