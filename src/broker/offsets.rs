//! Where groups stand, and where the log does.

use std::collections::BTreeSet;

use annals_wire::ids::TopicId;

use super::{
    Broker, CommittedOffset, Error, PartitionOffsets, RETRY_SOON, TopicOffsets, catalog::Topic,
    position::offset_at_time, read::read_error,
};
use crate::{state::Committed, storage::Partition, sync::Arc};

/// A committed position, and what its lag is measured against.
pub(super) struct Found {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    committed: Committed,
}

impl Broker {
    /// A group's positions, by topic and partition; no topics = all. An unknown group has none.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn get_offsets(&self, group: &str, topics: &[String]) -> Result<Vec<CommittedOffset>, Error> {
        for topic in topics {
            self.topic(topic).await?;
        }
        let (found, number) = self.committed(group, topics);
        self.read_durable(number).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let now_ms = self.clock.wall_ms();
        // Measuring a lag may read from the disk.
        let measured =
            tokio::task::spawn_blocking(move || found.into_iter().map(|one| one.measured(now_ms)).collect());
        measured.await.map_err(|_| Error::ShuttingDown { retry_delay: RETRY_SOON })
    }

    /// Where a group stands, by topic and partition, and the number of the newest entry it was read from.
    pub(super) fn committed(&self, group: &str, topics: &[String]) -> (Vec<Found>, u64) {
        let groups = self.truth.groups.lock();
        let Some(group) = groups.get(group) else { return (Vec::new(), groups.number()) };
        let names = self.truth.topics.lock();
        let mut found: Vec<Found> = group
            .positions
            .iter()
            .filter_map(|(key, committed)| {
                let name = names.name(key.topic)?;
                let wanted = topics.is_empty() || topics.iter().any(|topic| **topic == **name);
                let topic = self.catalog.get(name).filter(|_| wanted)?;
                let partition = Arc::clone(&topic.lane(key.partition).ok()?.partition);
                Some(Found { topic, partition, committed: committed.clone() })
            })
            .collect();
        // The last deletion of a topic shows as well: by what is not there.
        let number = group.number.max(names.number());
        drop(names);
        found.sort_by(|a, b| {
            (a.topic.name(), a.partition.key().partition).cmp(&(b.topic.name(), b.partition.key().partition))
        });
        (found, number)
    }

    /// Offsets of a topic: earliest, latest, by time. No partitions = all.
    ///
    /// # Errors
    /// `TopicNotFound`, `PartitionUnknown`, `CorruptData`, `ReadFailed`.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partitions: &[u32],
        timestamp_ms: Option<i64>,
    ) -> Result<TopicOffsets, Error> {
        let topic = self.topic(topic).await?;
        let mut lanes = Vec::with_capacity(partitions.len());
        for partition in partitions.iter().collect::<BTreeSet<_>>() {
            lanes.push(Arc::clone(topic.lane(*partition)?));
        }
        if partitions.is_empty() {
            lanes.clone_from(&topic.lanes);
        }
        let topic_id = topic.id();
        let listed = tokio::task::spawn_blocking(move || {
            let list = lanes.iter().map(|lane| {
                let found = timestamp_ms.map(|timestamp_ms| offset_at_time(lane, timestamp_ms)).transpose();
                let bounds = lane.partition.bounds();
                Ok(PartitionOffsets {
                    partition: lane.partition.key().partition,
                    earliest_offset: bounds.log_start,
                    latest_offset: bounds.high_watermark,
                    timestamp_offset: found
                        .map_err(|error| read_error(&topic, lane, bounds.log_start, error))?
                        .flatten(),
                    leader_epoch: bounds.leader_epoch,
                })
            });
            list.collect::<Result<Vec<_>, Error>>()
        });
        match listed.await.unwrap_or(Err(Error::ShuttingDown { retry_delay: RETRY_SOON })) {
            Ok(partitions) => Ok(TopicOffsets { topic_id, partitions }),
            Err(error) => self.refuse(error).await,
        }
    }
}

impl Found {
    pub(super) fn topic_id(&self) -> TopicId {
        self.topic.id()
    }

    pub(super) fn measured(self, now_ms: i64) -> CommittedOffset {
        let bounds = self.partition.bounds();
        let first = self.committed.next_offset.max(bounds.log_start);
        let lag_records = bounds.high_watermark.saturating_sub(first).max(0);
        let mut lag_ms = 0;
        if lag_records > 0 {
            // What cannot be read has no age; that it cannot is told to who reads it.
            let appended = self.partition.append_time_of(first).ok().flatten();
            lag_ms = appended.map_or(0, |appended| now_ms.saturating_sub(appended).max(0));
        }
        CommittedOffset {
            topic: Arc::clone(self.topic.name()),
            topic_id: self.topic.id(),
            partition: self.partition.key().partition,
            next_offset: self.committed.next_offset,
            lag_records,
            lag_ms,
            commit_time_ms: self.committed.commit_time_ms,
            metadata: self.committed.metadata,
            leader_epoch: self.committed.leader_epoch,
        }
    }
}
