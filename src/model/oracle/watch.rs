//! What can be judged while the broker runs: acks, high watermarks, reads, look-ups (R3, R7, R9).

use annals_wire::internal::state_entry::Body;

use super::{Log, Oracle, check, logs::compare_runs};
use crate::storage::{Level, Partition, PartitionKey};

impl Oracle {
    /// An item was acked.
    pub(in crate::model) fn acked(&mut self, index: usize) -> Result<(), String> {
        check(!self.failed, || "R9: an ack after the journal failed".into())?;
        let Some(item) = self.items.get_mut(index) else { return Ok(()) };
        item.acked = true;
        // From here on what readers see of a topic that was raised survives a power cut.
        for (_, body) in &item.entries {
            if let Body::TopicChanged(changed) = body
                && let Some(level) =
                    changed.settings.as_ref().and_then(|to| Level::from_number(to.durability))
            {
                let of = |key: &PartitionKey| key.topic.as_bytes()[..] == changed.topic_id[..];
                self.logs.iter_mut().filter(|(key, _)| of(key)).for_each(|(_, log)| log.level = level);
            }
        }
        for part in &item.parts {
            let Some(log) = self.logs.get_mut(&part.key) else { continue };
            check(!log.fenced, || format!("R9: an ack of fenced partition {}", part.key))?;
            log.acked = log.acked.max(part.index + 1);
            if part.level == Level::Fsync {
                log.durable = log.durable.max(part.index + 1);
            }
        }
        Ok(())
    }

    /// Looks at a partition's high watermark: what a reader may see must survive as its level says. `alive`: the last append
    /// got an answer.
    pub(in crate::model) fn look(&mut self, partition: &Partition, alive: bool) -> Result<(), String> {
        let (key, bounds) = (partition.key(), partition.bounds());
        let Some(log) = self.logs.get_mut(&key) else { return Ok(()) };
        check(bounds.log_start <= bounds.high_watermark && bounds.high_watermark <= bounds.log_end, || {
            format!("R3: {key}: {bounds:?}")
        })?;
        check(bounds.log_end == log.end() || !alive, || {
            format!("R4: {key} ends at {}, not {}", bounds.log_end, log.end())
        })?;
        let visible = log.prefix_to(bounds.high_watermark);
        let visible =
            visible.ok_or_else(|| format!("R3: {key}: a high watermark within a batch: {bounds:?}"))?;
        check(visible >= log.visible, || {
            format!("R3: {key}: the high watermark fell to {}", bounds.high_watermark)
        })?;
        check(visible == log.visible || !log.fenced, || format!("R9: {key} is fenced and shows more"))?;
        log.visible = visible;
        log.acked = log.acked.max(visible);
        if log.level == Level::Fsync {
            log.durable = log.durable.max(visible);
        }
        log.fenced |= partition.is_fenced();
        Ok(())
    }
}

impl Log {
    /// A read from an offset: whole batches from the one that holds it, none beyond the high watermark.
    pub(in crate::model) fn check_read(
        &self,
        partition: &Partition,
        from: i64,
        most: usize,
    ) -> Result<(), String> {
        let key = partition.key();
        let read =
            partition.read(from, most, false).map_err(|error| format!("R7: {key} from {from}: {error:?}"))?;
        let high_watermark = partition.high_watermark();
        check(read.next_offset <= high_watermark, || {
            format!("R3: {key}: a read to {} beyond {high_watermark}", read.next_offset)
        })?;
        let first = self.batches.partition_point(|batch| batch.next <= from);
        compare_runs(key, &read.batches, &mut self.batches.iter().skip(first))?;
        let wanted = self.batches.get(first).filter(|batch| batch.next <= high_watermark);
        check(read.batches.is_empty() == wanted.is_none(), || format!("R7: {key}: nothing at {from}"))?;
        let base = wanted.map_or(from, |batch| batch.base);
        check(read.first_base == base, || format!("R7: {key}: {from} is in {base}, not {}", read.first_base))
    }

    /// A look-up by time, against a look at every batch.
    pub(in crate::model) fn check_time(
        &self,
        partition: &Partition,
        timestamp_ms: i64,
    ) -> Result<(), String> {
        let key = partition.key();
        let found = partition.find_time(timestamp_ms).map_err(|error| format!("R7: {key}: {error:?}"))?;
        let visible = self.batches.iter().take(self.visible);
        let wanted =
            visible.clone().find(|batch| batch.max_timestamp_ms >= timestamp_ms).map(|batch| batch.base);
        check(found == wanted, || format!("R7: {key}: {timestamp_ms} is at {wanted:?}, found {found:?}"))
    }
}
