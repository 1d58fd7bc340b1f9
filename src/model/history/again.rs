//! Producers: batches with sequences, and the same sent again (R6).
//!
//! No lots are drawn for it: the records made so far decide, so that a history is what it was before.

use super::{
    Run,
    batch::Draft,
    life::{Life, Refused, try_append},
};
use crate::{
    model::oracle::{Batch, Item, Part, check},
    storage::{AppendError, Level, Mode, Partition, PartitionKey, Receipt, Sequence, Storage},
    sync::Arc,
};

/// Producers of a history; what has no sequence is nobody's.
const PRODUCERS: u64 = 2;
const WEAKLY: Mode = Mode { level: Level::Os, atomic: false };
const STRONGLY: Mode = Mode { level: Level::Fsync, atomic: false };

impl Run<'_> {
    /// Under which the next batch of a partition goes.
    pub(super) fn next_sequence(&self, key: PartitionKey) -> Option<Sequence> {
        let log = self.oracle.logs.get(&key).filter(|_| self.plan.again_one_in > 0)?;
        let producer_id = i64::try_from(self.records % (PRODUCERS + 1)).ok().filter(|id| *id > 0)?;
        Some(sequence(producer_id, log.next_sequence(producer_id)))
    }

    /// Now and then somebody sends a batch again, mostly while it is not durable yet.
    pub(super) fn send_again(&mut self, life: &Life, to: &Arc<Partition>) -> Result<(), String> {
        let sends = self.plan.again_one_in > 0 && self.records.is_multiple_of(self.plan.again_one_in);
        let Some(log) = self.oracle.logs.get(&to.key()).filter(|_| sends && !self.disk.is_dead()) else {
            return Ok(());
        };
        let producer_id = 1 + i64::try_from(self.records / 3 % PRODUCERS).unwrap_or_default();
        let back = usize::try_from(self.records / 5 % 3).unwrap_or_default();
        let Some((index, batch)) = log.window(producer_id).nth(back) else { return Ok(()) };
        let (batch, mode) = (batch.clone(), if self.records.is_multiple_of(2) { STRONGLY } else { WEAKLY });
        let Some(receipt) = send(&life.storage, to, &batch, mode)? else { return Ok(()) };
        self.note(|| format!("again {mode:?} {:?}: {receipt:?}", batch.sequence));
        let level = receipt.appended.first().map_or(Level::Os, |appended| appended.level);
        let parts = vec![Part { key: to.key(), index, level }];
        let (entries, touches) = (Vec::new(), vec![Arc::clone(to)]);
        let item = Item { id: None, entries, parts, touches, atomic: false, acked: false, given_up: false };
        self.wait(life, item, receipt.ack);
        Ok(())
    }

    /// After a start: of every producer in every partition the last batches are known, and a gap is told from the next.
    pub(super) fn judge_sequences(&self, storage: &Arc<Storage>) -> Result<(), String> {
        for (key, log) in &self.oracle.logs {
            let Some(partition) = storage.partition(*key) else { continue };
            for producer_id in 1..=i64::try_from(PRODUCERS).unwrap_or_default() {
                for (_, batch) in log.window(producer_id) {
                    send(storage, &partition, batch, WEAKLY)?;
                }
                let next = log.next_sequence(producer_id);
                if let Some((_, last)) = log.window(producer_id).next() {
                    let gap = Some(sequence(producer_id, next.wrapping_add(1)));
                    judge_gap(storage, &partition, &Batch { sequence: gap, ..last.clone() }, next)?;
                }
            }
        }
        Ok(())
    }
}

fn sequence(producer_id: i64, base_sequence: u32) -> Sequence {
    Sequence { producer_id, producer_epoch: 1, base_sequence }
}

/// Sends a stored batch again: it must be known. `None`: there is no room, or the partition answers nobody.
fn send(
    storage: &Arc<Storage>,
    to: &Arc<Partition>,
    batch: &Batch,
    mode: Mode,
) -> Result<Option<Receipt>, String> {
    let draft = Draft::again(batch, Arc::clone(to));
    let told = |what: String| format!("R6: {}: {:?}, at {}, {what}", to.key(), batch.sequence, batch.base);
    match try_append(storage, std::slice::from_ref(&draft), mode, &mut |_| Vec::new()) {
        Ok(receipt) => {
            let is_it = |appended: &crate::storage::Appended| {
                appended.duplicate && appended.base_offset == batch.base
            };
            check(receipt.appended.iter().all(is_it), || told(format!("is {:?}", receipt.appended)))?;
            Ok(Some(receipt))
        }
        Err(refused) if is_unknown(&refused) => Err(told(format!("is not known: {refused:?}"))),
        Err(_) => Ok(None),
    }
}

fn judge_gap(storage: &Arc<Storage>, to: &Arc<Partition>, batch: &Batch, next: u32) -> Result<(), String> {
    let draft = Draft::again(batch, Arc::clone(to));
    match try_append(storage, std::slice::from_ref(&draft), WEAKLY, &mut |_| Vec::new()) {
        Err(Refused::Error(AppendError::SequenceGap { expected, .. })) if expected == next => Ok(()),
        Err(Refused::NoRoom(_)) => Ok(()),
        other => Err(format!("R6: {}: {next} is next, {:?} came: {other:?}", to.key(), batch.sequence)),
    }
}

/// The sequence, or the producer, is not what the storage knows.
pub(super) fn is_unknown(refused: &Refused) -> bool {
    matches!(refused, Refused::Error(AppendError::SequenceGap { .. } | AppendError::TooManyProducers { .. }))
}
