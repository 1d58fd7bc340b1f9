//! What the parts of a test share.

use annals_client::v1;
use annals_wire::murmur2::partition_of;

use super::{
    findings::Findings,
    journal::{Entry, Journal},
    ledger::{Acked, Ledger},
};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};

/// Acks that may wait for a check before producers pause.
const MOST_PENDING: usize = 200_000;

/// Of one test.
#[derive(Debug)]
pub(super) struct World {
    pub(super) run: u64,
    pub(super) level: v1::Durability,
    pub(super) producers: u32,
    pub(super) consumers: u32,
    pub(super) ledger: Mutex<Ledger>,
    pub(super) journal: Option<Journal>,
    /// Keys that lead to each partition.
    pub(super) keys: Vec<String>,
    /// Events whose answer has not come.
    under_way: AtomicU64,
    /// Ctrl-C came.
    pub(super) stop: AtomicBool,
    /// Counts of what is over, and of the present topic as last looked at.
    pub(super) so_far: Mutex<Findings>,
    /// What was not as it should be, in words.
    pub(super) evidence: Mutex<Vec<String>>,
}

impl World {
    pub(super) fn new(
        run: u64,
        level: v1::Durability,
        (partitions, producers, consumers): (u32, u32, u32),
        journal: Option<Journal>,
    ) -> Self {
        let keys = (0..partitions).map(|partition| key_to(partition, partitions)).collect();
        Self {
            run,
            level,
            producers,
            consumers,
            ledger: Mutex::new(Ledger::new(run, partitions, producers, consumers)),
            journal,
            keys,
            under_way: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            so_far: Mutex::default(),
            evidence: Mutex::default(),
        }
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The listener is gone: what is acked from now on would not be known to anybody but this machine.
    pub(super) fn listener_is_gone(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_gone)
    }

    /// An ack came. First to the other machine: what it does not know cannot be missed there.
    pub(super) fn acked(&self, acked: Acked) {
        if let Some(journal) = &self.journal {
            journal.tell(Entry::Ack(acked));
        }
        self.ledger.lock().ack(acked);
    }

    pub(super) fn commit_acked(&self, consumer: u32, partition: u32, next_offset: i64) {
        if let Some(journal) = &self.journal {
            journal.tell(Entry::Commit { consumer, partition, next_offset });
        }
        self.ledger.lock().commit_acked(consumer, partition, next_offset);
    }

    /// Producers may go on.
    pub(super) fn has_room(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.has_room() || journal.is_gone())
            && self.ledger.lock().pending() < MOST_PENDING
    }

    pub(super) fn sent(&self, events: u64) {
        self.under_way.fetch_add(events, Ordering::AcqRel);
    }

    pub(super) fn answered(&self, events: u64) {
        self.under_way.fetch_sub(events, Ordering::AcqRel);
    }

    /// Events whose answer has not come.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Acquire)
    }
}

/// A key of the smallest number that the server's rule leads to this partition.
fn key_to(partition: u32, partitions: u32) -> String {
    let mut keys = (0..u64::MAX).map(|number| number.to_string());
    keys.find(|key| partition_of(key.as_bytes(), partitions) == partition).unwrap_or_default()
}

/// What a task of one life needs.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) world: Arc<World>,
    pub(super) client: annals_client::Client,
    pub(super) topic: Arc<str>,
    /// Counted from 1; events carry it.
    pub(super) number: u32,
    /// Only what has no ack yet is sent, and the life ends with that.
    pub(super) finish: bool,
}

impl Life {
    /// Waits until there is room.
    pub(super) async fn room(&self) {
        while !self.world.has_room() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    /// A consumer's group.
    pub(super) fn group(&self, consumer: u32) -> String {
        format!("{}-{consumer}", self.topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_their_partitions() {
        for partition in 0..4 {
            assert_eq!(partition_of(key_to(partition, 4).as_bytes(), 4), partition);
        }
    }
}
