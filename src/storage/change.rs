//! Changes without records: topics declared and removed, entries of the state machine.
//!
//! 1. A change is decided, enqueued and carried out in memory under the locks of all partitions that it concerns: no
//!    append comes between it and its entry.
//! 2. An entry that says `fsync` ends the walks: no later start looks for what was acked from the page cache. So a sync
//!    point of every partition that is walked until then stands in the same item, and both are given up together. A
//!    fenced partition cannot have one any more; then the change is refused, for a later change of the same topic, which
//!    names its level again, would end the walks all the same. One that is given up leaves its topic fenced whole
//!    (`commit`): memory is ahead of the journal.
//! 3. From `fsync` downwards nothing is acked from the page cache before the entry that says so is durable: until then a
//!    start would not look for it. Nor behind what was given up: so the item of the change touches the partitions, too.
//! 4. From `os` to `interval` what is there already gets its sync point as well, within the interval.

use std::{collections::BTreeMap, sync::Arc};

use annals_wire::{
    ids::TopicId,
    internal::{PartitionsRemoved, entry::Body},
};
use bytes::Bytes;

use super::{
    error::{AppendError, CommitError},
    key::{Level, PartitionKey, PartitionSettings},
    mutant::{Mutant, planted},
    partition::{Log, Partition},
    queue::{Work, Works},
    room::Room,
    storage::{Storage, TopicLogs, partitions_message, sync_point},
};
use crate::sync::MutexGuard;

/// A change without records.
#[derive(Clone, Debug)]
pub enum Change {
    /// Makes or changes a topic's partitions: `0..partitions`, never fewer than before.
    Declare {
        /// Topic.
        topic: TopicId,
        /// How many.
        partitions: u32,
        /// Their settings.
        settings: PartitionSettings,
    },
    /// Drops a topic's partitions; their files go later, when no reader holds them.
    Remove {
        /// Topic.
        topic: TopicId,
    },
    /// An entry of the state machine.
    State(Vec<u8>),
}

impl Change {
    fn body(&self) -> Body {
        match self {
            Self::Declare { topic, partitions, settings } => {
                Body::Partitions(partitions_message(topic, *settings, *partitions))
            }
            Self::Remove { topic } => {
                Body::Removed(PartitionsRemoved { topic_id: Bytes::copy_from_slice(topic.as_bytes()) })
            }
            Self::State(bytes) => Body::State(Bytes::from(bytes.clone())),
        }
    }
}

/// A partition that a change concerns, and what it becomes; `None`: it goes.
type Concerned = (Arc<Partition>, Option<PartitionSettings>);

/// In the order of their locks.
fn concerned(topics: &BTreeMap<TopicId, TopicLogs>, changes: &[Change]) -> Vec<Concerned> {
    let mut concerned = Vec::new();
    for change in changes {
        let (topic, becomes) = match change {
            Change::Declare { topic, settings, .. } => (topic, Some(*settings)),
            Change::Remove { topic } => (topic, None),
            Change::State(_) => continue,
        };
        let known = topics.get(topic).map(|known| &known.partitions[..]).unwrap_or_default();
        concerned.extend(known.iter().map(|partition| (Arc::clone(partition), becomes)));
    }
    concerned.sort_unstable_by_key(|(partition, _)| partition.key());
    concerned
}

/// The same under its lock.
struct Locked<'a> {
    log: MutexGuard<'a, Log>,
    partition: &'a Arc<Partition>,
    becomes: Option<PartitionSettings>,
}

impl<'a> Locked<'a> {
    fn new((partition, becomes): &'a Concerned) -> Self {
        Self { log: partition.lock(), partition, becomes: *becomes }
    }

    fn becomes_fsync(&self) -> bool {
        self.becomes.is_some_and(|settings| settings.level == Level::Fsync)
    }

    /// The change ends the walks of this partition.
    fn is_raised(&self) -> bool {
        let walked = if planted(Mutant::RaiseBelieved) {
            self.partition.level() < Level::Fsync
        } else {
            self.log.walked
        };
        walked && self.becomes_fsync()
    }

    /// The change begins them.
    fn is_lowered(&self) -> bool {
        self.partition.level() == Level::Fsync && self.becomes.is_some() && !self.becomes_fsync()
    }

    /// What must be entered together with the change. At a lowering all is entered already, or fails with the change.
    fn sync_point(&mut self) -> Result<Option<Work>, AppendError> {
        let fenced = self.partition.is_fenced();
        if self.is_raised() && fenced && !planted(Mutant::RaiseBelieved) {
            return Err(AppendError::Unsettled { key: self.partition.key() });
        }
        let raised = self.is_raised() && !planted(Mutant::RaisedWithoutSync);
        let lowered = self.is_lowered() && !fenced && !planted(Mutant::LoweredAlone);
        Ok(if raised || lowered { sync_point(self.partition, &mut self.log) } else { None })
    }

    /// The change is enqueued under `number`.
    fn carry_out(&mut self, number: u64, storage: &Storage) {
        let Some(settings) = self.becomes else {
            self.partition.mark_removed();
            storage.forget_producers(&mut self.log, |_| false);
            return;
        };
        if self.is_lowered() && !planted(Mutant::LoweringNotAwaited) {
            self.log.barrier = self.log.barrier.max(number);
        }
        if settings.level < Level::Fsync {
            (self.log.walked, self.log.raise) = (true, 0);
        } else if self.is_raised() {
            self.log.raise = number;
        }
        let from = self.partition.level();
        self.partition.change(settings);
        if from < Level::Interval && settings.level == Level::Interval {
            storage.sync_soon(self.partition);
        }
    }
}

impl Storage {
    /// Enqueues changes and carries them out in memory. Call it under the locks under which they were decided.
    /// Returns the number to wait for.
    ///
    /// # Errors
    /// `Closed`; `Unsettled`. Nothing of the changes was taken.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a change is handed over: the caller has no use for it afterwards"
    )]
    pub fn submit(&self, room: Room, changes: Vec<Change>) -> Result<u64, AppendError> {
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        let mut topics = self.topics().write();
        let concerned = concerned(&topics, &changes);
        let mut locked: Vec<Locked<'_>> = concerned.iter().map(Locked::new).collect();
        let mut work = Works::with_capacity(changes.len());
        for item in &mut locked {
            work.extend(item.sync_point()?);
        }
        work.extend(changes.iter().map(|change| Work::Entry(change.body())));
        let length = work.len() as u64;
        let first = self.queue().push(work, Some(room)).map_err(|_closed| AppendError::Closed)?;
        let number = first + length - 1;
        for item in &mut locked {
            item.carry_out(number, self);
        }
        let raised = locked.iter().filter(|item| item.log.raise == number);
        let raised: Vec<_> = raised.map(|item| Arc::clone(item.partition)).collect();
        drop(locked);
        for change in &changes {
            self.carry_out(&mut topics, change, number);
        }
        drop(topics);
        self.once_raised(raised, number);
        if planted(Mutant::StateNotAwaited) && changes.iter().all(|change| matches!(change, Change::State(_)))
        {
            return Ok(0);
        }
        Ok(number)
    }

    /// Once the raise is durable its partitions are walked no more.
    fn once_raised(&self, partitions: Vec<Arc<Partition>>, number: u64) {
        if partitions.is_empty() {
            return;
        }
        let done = move |fate: Result<(), CommitError>| {
            for partition in partitions.iter().filter(|_| fate.is_ok()) {
                partition.lock().raised(number);
            }
        };
        self.on_durable(number, Box::new(done));
    }

    fn carry_out(&self, topics: &mut BTreeMap<TopicId, TopicLogs>, change: &Change, number: u64) {
        match *change {
            Change::Declare { topic, partitions, settings } => {
                let known =
                    topics.entry(topic).or_insert_with(|| TopicLogs { settings, partitions: Vec::new() });
                known.settings = settings;
                let from = u32::try_from(known.partitions.len()).unwrap_or(u32::MAX);
                known.partitions.extend((from..partitions).map(|partition| {
                    Partition::new(PartitionKey { topic, partition }, settings, self.epoch(), number)
                }));
            }
            Change::Remove { topic } => {
                for partition in topics.remove(&topic).map(|known| known.partitions).unwrap_or_default() {
                    partition.remove();
                }
                self.upkeep().bury(number, topic);
            }
            Change::State(_) => {}
        }
    }
}
