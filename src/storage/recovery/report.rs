//! What recovery found, kept and cut.

use std::time::Duration;

use crate::storage::PartitionKey;

/// What a start found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The directory was made by this start.
    pub created: bool,
    /// Everything was in the newest snapshot: the last run ended in order.
    pub clean: bool,
    /// Epoch of this run.
    pub epoch: u32,
    /// Frames replayed.
    pub frames: u64,
    /// Topics.
    pub topics: usize,
    /// Offsets held, over all partitions.
    pub records: u64,
    /// Bytes behind the end of partitions that were never acked and were wiped.
    pub cut_bytes: u64,
    /// Entries that lower committed positions, because a log lost a tail that its durability did not promise; what is in
    /// them the state machine knows.
    pub lowered_commits: Vec<Vec<u8>>,
    /// Partitions that needed anything.
    pub partitions: Vec<PartitionReport>,
    /// What is damaged but does not stop the server, one sentence each.
    pub damages: Vec<String>,
    /// How long it took.
    pub duration: Duration,
}

/// What a start found in one partition.
#[derive(Clone, Debug)]
pub struct PartitionReport {
    /// Which.
    pub key: PartitionKey,
    /// Records the journal held that were written to their segments again.
    pub replayed_batches: u64,
    /// Records found behind the journal's end and kept (`os` and `interval`).
    pub walked_records: u64,
    /// Bytes behind the end that were wiped.
    pub cut_bytes: u64,
    /// First offset kept.
    pub log_start: i64,
    /// Next offset.
    pub end: i64,
    /// Why it is not served.
    pub closed: Option<String>,
}
