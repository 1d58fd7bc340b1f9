//! Recovery: from whatever a crash left to a directory that serves.
//!
//! ```text
//! ANNALS -> newest valid snapshot -> frames in order (replay: reads only)
//!        -> frames not known durable are written again, the ring is flushed
//!        -> inline batches are written again, extents verified           (rebuild)
//!        -> tails of os and interval partitions are walked, the rest wiped, all flushed
//!        -> snapshot with the new epoch -> started frame -> serve
//! ```
//!
//! 1. Reading comes first and decides; if it finds damage in the journal nothing has been written.
//! 2. Inline batches are always written again, never compared: the page cache may hold bytes the disk never got.
//! 3. Every step may be cut and repeated: the decisions are made from the same bytes again.
//! 4. The work is bounded by the ring and the snapshot interval, not by history.
//! 5. The snapshot with the new epoch is durable before the `started` frame, so that a crash loop does not eat the ring.
//! 6. What was read through maps is given back: a start holds no pages of files, and no bytes of the journal, which is
//!    written to from now on.

mod base;
mod found;
mod open;
mod rebuild;
mod replay;
mod report;
mod sequences;
mod tail;
mod torn;

pub(crate) use found::{FoundSegment, Inline};
pub(crate) use replay::{Replayed, replay, replay_from, replay_running};
pub use report::{PartitionReport, Report};

use super::snapshot::Section;
use crate::storage::PartitionKey;

/// The state machine, as recovery drives it.
pub trait Machine {
    /// A section of the snapshot, as [`Machine::capture`] once gave it out.
    fn restore(&mut self, section: &Section) -> Result<(), String>;
    /// One entry, in journal order. Entries a section already holds are not given again unless the machine has several
    /// sections of different numbers: it ignores numbers it has.
    fn apply(&mut self, number: u64, entry: &[u8]) -> Result<(), String>;
    /// Where partitions end now. Positions beyond, in logs that lost their tail to a power cut, are lowered; returns the
    /// entries that say so, already applied.
    fn lower_commits(&mut self, end: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>>;
    /// Its sections, exact at this moment; `number` is the last entry it was given.
    fn capture(&self, number: u64) -> Vec<Section>;
}
