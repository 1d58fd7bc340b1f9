//! What was attempted and what was promised, and whether a recovered directory keeps the promises.

use std::collections::{BTreeMap, BTreeSet};

use annals_wire::v1::LogSlice;
use prost::Message;

use crate::{
    storage::{Level, Partition, ReadError},
    sync::Arc,
};

/// One partition's attempts on the present timeline.
#[derive(Debug)]
pub(super) struct Attempts {
    pub(super) level: Level,
    /// Values in offset order, each with the group it belongs to.
    pub(super) values: Vec<(Vec<u8>, Option<u64>)>,
    /// So many of them must survive a power cut.
    pub(super) durable: usize,
    /// So many of them must survive `kill -9`.
    pub(super) acked: usize,
}

/// All attempts.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) logs: BTreeMap<(u8, u32), Attempts>,
    /// The last state entry attempted; they are numbered from 1.
    pub(super) last_state: u64,
    /// Those that were acked or found.
    pub(super) acked_states: BTreeSet<u64>,
    /// Those that were given up with a fenced partition; others may well be durable behind them.
    pub(super) failed_states: BTreeSet<u64>,
    /// The state entry that belongs to a group, and how many batches do.
    pub(super) group_state: BTreeMap<u64, (u64, usize)>,
    epoch: u32,
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// All records of a partition with the epochs of their batches.
pub(super) fn read_all(partition: &Partition) -> Result<Vec<(i64, u32, Vec<u8>)>, String> {
    let mut out = Vec::new();
    let mut from = partition.bounds().log_start;
    loop {
        let read = match partition.read(from, 3000, false) {
            Ok(read) => read,
            Err(ReadError::Damaged { first, last }) => {
                return Err(format!("{}: damage at {first}..={last}", partition.key()));
            }
            Err(error) => return Err(format!("{}: {error:?}", partition.key())),
        };
        if read.next_offset == from {
            return Ok(out);
        }
        for bytes in &read.batches {
            let slice = LogSlice::decode(bytes.clone()).map_err(|error| error.to_string())?;
            for batch in slice.batches {
                for (index, record) in (0_i64..).zip(&batch.records) {
                    let value = record.value.clone().unwrap_or_default().to_vec();
                    out.push((batch.base_offset + index, batch.leader_epoch, value));
                }
            }
        }
        from = read.next_offset;
    }
}

impl Oracle {
    /// Judges a directory after a start and goes on from what it holds.
    pub(super) fn judge(
        &mut self,
        power_cut: bool,
        epoch: u32,
        states: &[u64],
        partition: &dyn Fn(u8, u32) -> Option<Arc<Partition>>,
    ) -> Result<(), String> {
        check(epoch > self.epoch, || format!("epoch {epoch} after {}", self.epoch))?;
        self.epoch = epoch;
        check(states.is_sorted_by(|a, b| a < b), || format!("state entries {states:?}"))?;
        let found_states: BTreeSet<u64> = states.iter().copied().collect();
        let lost: Vec<_> = self.acked_states.difference(&found_states).collect();
        check(lost.is_empty(), || format!("acked state entries {lost:?} are gone"))?;
        let newest = states.last().copied().unwrap_or(0);
        check(newest <= self.last_state, || format!("state entry {newest} was never attempted"))?;
        let skipped =
            (1..newest).filter(|state| !found_states.contains(state) && !self.failed_states.contains(state));
        let skipped: Vec<u64> = skipped.collect();
        check(skipped.is_empty(), || format!("state entries {skipped:?} are missing before {newest}"))?;
        // What was attempted and is not there never will be.
        self.failed_states.extend((1..=self.last_state).filter(|state| !found_states.contains(state)));
        let mut groups: BTreeMap<u64, usize> = BTreeMap::new();
        for ((topic, number), log) in &mut self.logs {
            let name = format!("{topic}/{number}");
            let Some(partition) = partition(*topic, *number) else {
                check(log.acked == 0, || format!("{name} is gone"))?;
                log.values.clear();
                continue;
            };
            let found = read_all(&partition)?;
            let bounds = partition.bounds();
            check(bounds.high_watermark == bounds.log_end, || format!("{name}: {bounds:?}"))?;
            let must = if power_cut { log.durable } else { log.acked };
            check(found.len() >= must, || {
                format!("{name} ({:?}): {must} promised, {} found", log.level, found.len())
            })?;
            check(found.len() <= log.values.len(), || format!("{name}: more than was ever attempted"))?;
            for ((offset, _, value), ((attempted, group), at)) in
                found.iter().zip(log.values.iter().zip(0_i64..))
            {
                check(*offset == at, || format!("{name}: offset {offset} where {at} belongs"))?;
                check(value == attempted, || format!("{name}: other bytes at offset {at}"))?;
                if let Some(group) = group {
                    *groups.entry(*group).or_default() += 1;
                }
            }
            check(found.windows(2).all(|pair| matches!(pair, [a, b] if a.1 <= b.1)), || {
                format!("{name}: epochs fall")
            })?;
            log.values.truncate(found.len());
            (log.durable, log.acked) = (found.len(), found.len());
        }
        for (group, (state, size)) in &self.group_state {
            let parts = groups.get(group).copied().unwrap_or(0);
            let there = found_states.contains(state);
            check(parts == if there { *size } else { 0 }, || {
                format!(
                    "group {group}: {parts} of {size} records, its state entry is {}",
                    if there { "there" } else { "not there" }
                )
            })?;
        }
        self.group_state.retain(|_, (state, _)| found_states.contains(state));
        self.acked_states = found_states;
        Ok(())
    }
}
