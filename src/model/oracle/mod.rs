//! What was attempted and what was promised, and whether a recovered directory keeps the promises.
//!
//! | rule | what must hold after every recovery | where |
//! |---|---|---|
//! | R1 | every acked batch is there, byte for byte, at its offset | [`logs`] |
//! | R2 | what is there is a prefix of what was attempted on this timeline: no phantom, gap, reorder | [`logs`] |
//! | R3 | nothing was ever shown to a reader that is not there now; no read goes beyond the high watermark | [`logs`], [`watch`] |
//! | R4 | epoch, log start and next offset do not go back | [`logs`], [`Oracle::judge`] |
//! | R5 | committed offsets, topics, request ids and what they were answered are those of the entries found, which hold all acked ones | [`entries`] |
//! | R6 | a producer's last 64 batches in a partition, sent again, are known where they lie; its next sequence is taken, any other refused | `history::again` |
//! | R7 | look-ups by offset and by time are what a scan of everything finds | [`watch`] |
//! | R8 | a second recovery changes nothing | `history::start` |
//! | R9 | after a fence or a failed journal nothing is acked or shown | [`watch`] |
//! | R10 | a flipped bit is damage in exactly its batch, or nothing; never other bytes | `history::flip` |
//! | R11 | recovery's work is bounded by journal, snapshots and what came after them | `history::start` |
//! | R12 | the same seed is the same sequence of disk calls | `sweep` |
//! | R13 | an atomic item is there whole or not at all, in every partition and in the state | [`entries`] |
//! | R14 | no damage is reported where only a cut did its work | `history::start` |
//!
//! At `interval` and `os` a power cut may take what no flush has covered, and commits beyond are lowered; `kill -9` may not.

mod entries;
mod logs;
mod watch;

use std::collections::BTreeMap;

use annals_wire::internal::state_entry::Body;

use crate::{
    state::State,
    storage::{Level, Partition, PartitionKey, Storage},
    sync::Arc,
};

pub(super) use entries::{PRINCIPAL, same_state};
pub(super) use logs::{Batch, Log, compare_runs};

/// One partition's part of an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) key: PartitionKey,
    /// Which of the log's batches.
    pub(super) index: usize,
    /// What the ack will mean.
    pub(super) level: Level,
}

/// One call's work: batches, entries, or both.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// The request id among its entries, by which recovery is asked for it.
    pub(super) id: Option<u64>,
    /// Entries of the state with their numbers.
    pub(super) entries: Vec<(u64, Body)>,
    pub(super) parts: Vec<Part>,
    /// Partitions with any of which it may be given up.
    pub(super) touches: Vec<Arc<Partition>>,
    /// All or nothing.
    pub(super) atomic: bool,
    pub(super) acked: bool,
    /// It was given up with a fenced partition, or may have been.
    pub(super) given_up: bool,
}

/// All attempts.
#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    pub(super) logs: BTreeMap<PartitionKey, Log>,
    /// The state after the last judgement.
    pub(super) state: State,
    /// What was attempted since, in the order of the journal.
    pub(super) items: Vec<Item>,
    /// Something failed for good in this life: the journal, for everybody.
    pub(super) failed: bool,
    epoch: u32,
}

pub(super) fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Oracle {
    /// Judges a directory after a start and goes on from what it holds.
    pub(super) fn judge(
        &mut self,
        power_cut: bool,
        storage: &Arc<Storage>,
        state: &State,
    ) -> Result<(), String> {
        let epoch = storage.epoch();
        check(epoch > self.epoch, || format!("R4: epoch {epoch} after {}", self.epoch))?;
        self.epoch = epoch;
        self.failed = false;
        let items = std::mem::take(&mut self.items);
        let found = self.find_entries(&items, state)?;
        self.drop_logs()?;
        for (key, log) in &mut self.logs {
            let partition = storage.partition(*key).ok_or_else(|| format!("R1: partition {key} is gone"))?;
            log.judge(power_cut, &partition)?;
        }
        self.judge_groups(&items, &found)?;
        self.compare_state(state)?;
        self.compare_topics(storage)?;
        let topics = &self.state.topics;
        for (key, log) in &mut self.logs {
            if let Some(topic) = topics.name(key.topic).and_then(|name| topics.get(name)) {
                log.level = topic.settings.level;
            }
        }
        Ok(())
    }
}
