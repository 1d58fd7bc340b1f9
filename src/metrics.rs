//! What is counted: every metric is one named function here, and [`read`] gives them all.
//!
//! Counts are of the process, from its start, and only rise. A count is one relaxed atomic: cheap enough for any path, and
//! permitted in a signal handler.

use crate::sync::{AtomicU64, Ordering};

static DAMAGED_RANGES: AtomicU64 = AtomicU64::new(0);
static FENCED_PARTITIONS: AtomicU64 = AtomicU64::new(0);
static GROUP_SKIPPED: AtomicU64 = AtomicU64::new(0);
static MAP_FAULTS: AtomicU64 = AtomicU64::new(0);
static SCRUBBED_BYTES: AtomicU64 = AtomicU64::new(0);
static SCRUB_PASSES: AtomicU64 = AtomicU64::new(0);

/// All counts, each one as of the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs of offsets found damaged, each counted when it is first met.
    pub damaged_ranges: u64,
    /// Partitions that stopped taking records until the next start.
    pub fenced_partitions: u64,
    /// Offsets that groups went past because they were no longer kept.
    pub group_skipped: u64,
    /// Pages of maps that the system could not read.
    pub map_faults: u64,
    /// Bytes that the scrubber read again.
    pub scrubbed_bytes: u64,
    /// Times it has been through everything.
    pub scrub_passes: u64,
}

/// All counts.
pub fn read() -> Counts {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Counts {
        damaged_ranges: of(&DAMAGED_RANGES),
        fenced_partitions: of(&FENCED_PARTITIONS),
        group_skipped: of(&GROUP_SKIPPED),
        map_faults: of(&MAP_FAULTS),
        scrubbed_bytes: of(&SCRUBBED_BYTES),
        scrub_passes: of(&SCRUB_PASSES),
    }
}

/// A run of offsets does not verify, and nobody had met it before.
pub(crate) fn damaged_range() {
    DAMAGED_RANGES.fetch_add(1, Ordering::Relaxed);
}

/// A partition takes no more records.
pub(crate) fn fenced_partition() {
    FENCED_PARTITIONS.fetch_add(1, Ordering::Relaxed);
}

/// A group went past so many offsets that were no longer kept.
pub(crate) fn group_skipped(offsets: u64) {
    GROUP_SKIPPED.fetch_add(offsets, Ordering::Relaxed);
}

/// A page of a map could not be read. Called by the signal handler.
pub(crate) fn map_fault() {
    MAP_FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// Such pages so far.
pub(crate) fn map_faults() -> u64 {
    MAP_FAULTS.load(Ordering::Relaxed)
}

/// The scrubber read so many bytes.
pub(crate) fn scrubbed(bytes: u64) {
    SCRUBBED_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

/// The scrubber is through.
pub(crate) fn scrub_pass() {
    SCRUB_PASSES.fetch_add(1, Ordering::Relaxed);
}
