//! What of a partition may be seen: written, then durable, then published.
//!
//! The high watermark moves under the lock of the log, in the order of offsets, and never past a batch whose number is not
//! durable yet. What is counted as published moves with it.

use super::{Log, Partition};
use crate::{
    storage::mutant::{Mutant, planted},
    sync::Ordering,
};

/// Visible once `number` is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) end: i64,
    pub(super) bytes: u64,
}

/// What became visible since this run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records.
    pub records: u64,
    /// Their batches, headers included, in bytes.
    pub bytes: u64,
}

impl Partition {
    /// What became visible since this run began. The two numbers may be of moments a batch apart.
    pub fn published(&self) -> Published {
        let records = self.high_watermark().saturating_sub(self.opened_at);
        Published {
            records: u64::try_from(records).unwrap_or(0),
            bytes: self.published_bytes.load(Ordering::Relaxed),
        }
    }

    /// A batch of so many bytes up to `end` was written; visible once `number` is durable. `durable`: it is already.
    pub(crate) fn written(&self, log: &mut Log, end: i64, bytes: u64, number: u64, durable: bool) {
        log.next_offset = end;
        self.log_end.store(end, Ordering::Release);
        if (durable && log.pending.is_empty()) || planted(Mutant::PublishedEarly) {
            self.high_watermark.store(end, Ordering::Release);
            self.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            log.pending.push_back(Pending { number, end, bytes });
        }
    }

    /// Moves the high watermark over all that is durable. Returns whether it moved.
    pub(crate) fn publish(&self, durable: u64) -> bool {
        let mut log = self.log.lock();
        let (mut end, mut bytes) = (None, 0);
        while let Some(next) = log.pending.front().filter(|next| next.number <= durable) {
            end = Some(next.end);
            bytes += next.bytes;
            log.pending.pop_front();
        }
        // Under the lock: an append that needs no entry publishes by itself, in the same order.
        if let Some(end) = end.filter(|_| !self.is_fenced()) {
            self.high_watermark.fetch_max(end, Ordering::AcqRel);
            self.published_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        drop(log);
        if end.is_some() {
            self.notify();
        }
        end.is_some()
    }
}
