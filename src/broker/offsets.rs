//! Committed offsets, and offsets of the log.
//!
//! A commit is decided under the lock of the groups. Deleting a topic takes that lock too, so a topic that is there when a
//! commit is decided is there when it is entered.

use std::collections::BTreeSet;

use annals_wire::{
    internal::{GroupPosition, OffsetsCommitted, state_entry::Body},
    limits::MAX_COMMIT_METADATA_BYTES,
    names::check_group_name,
};
use bytes::Bytes;

use super::{
    Broker, Commit, CommitPosition, CommittedOffset, Error, PartitionOffsets, RETRY_SOON, TopicOffsets,
    catalog::Topic,
    position::{check_history, offset_at_time},
    read::read_error,
    settle::room_for,
};
use crate::{
    state::{Committed, Groups, write_entry},
    storage::{Change, Class, Partition, PartitionKey, Room},
    sync::Arc,
};

/// Bytes of a position in an entry, without its note.
const POSITION_BYTES: usize = 64;

/// A committed position, and what its lag is measured against.
struct Found {
    topic: Arc<Topic>,
    partition: Arc<Partition>,
    committed: Committed,
}

impl Broker {
    /// Stores positions, all or none; they are on disk when this returns.
    ///
    /// # Errors
    /// `ExpectedOffsetMismatch`, `CommitBackwards`, `OffsetAhead`, `LogTruncated`, `TopicNotFound`, `TopicReplaced`,
    /// `PartitionUnknown`, `InvalidName`, `InvalidArgument`, `LimitReached`.
    pub async fn commit_offsets(&self, call: Commit) -> Result<(), Error> {
        self.check_commit(&call)?;
        let bytes: usize =
            call.positions.iter().map(|position| POSITION_BYTES + position.metadata.len()).sum();
        let room = self.room(room_for((bytes + call.group.len()) as u64, 1), Class::Control).await?;
        match self.decide_commit(room, call) {
            Ok(number) => self.written(number).await,
            Err(error) => self.refuse(error).await,
        }
    }

    fn check_commit(&self, call: &Commit) -> Result<(), Error> {
        check_group_name(&call.group).map_err(|error| Error::InvalidName {
            field: "group",
            name: call.group.chars().take(64).collect(),
            why: error.to_string(),
        })?;
        let most = self.config.limits.max_positions;
        let count = call.positions.len();
        if count == 0 || count > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Error::argument("offsets", format!("{count} positions; 1..={most} are taken")));
        }
        let mut seen = BTreeSet::new();
        for (index, position) in call.positions.iter().enumerate() {
            let field = |name| format!("offsets[{index}].{name}");
            if position.next_offset < 0 {
                return Err(Error::argument(
                    field("next_offset"),
                    format!("{} is negative", position.next_offset),
                ));
            }
            if position.metadata.len() > MAX_COMMIT_METADATA_BYTES {
                let why = format!(
                    "{} bytes; at most {MAX_COMMIT_METADATA_BYTES} are taken",
                    position.metadata.len()
                );
                return Err(Error::argument(field("metadata"), why));
            }
            if !seen.insert((&position.topic, position.partition)) {
                let why = format!("{}[{}] comes twice", position.topic, position.partition);
                return Err(Error::argument(field("partition"), why));
            }
        }
        Ok(())
    }

    fn decide_commit(&self, room: Room, call: Commit) -> Result<u64, Error> {
        let mut groups = self.truth.groups.lock();
        let commit_time_ms = self.clock.wall_ms();
        let (mut positions, mut news, mut more) = (Vec::with_capacity(call.positions.len()), false, 0);
        for position in call.positions {
            let key = self.check_position(&groups, &call.group, &position, call.allow_backwards)?;
            let committed = Committed {
                next_offset: position.next_offset,
                leader_epoch: position.leader_epoch.unwrap_or(0),
                commit_time_ms,
                metadata: position.metadata,
            };
            match committed_in(&groups, &call.group, key) {
                None => (more, news) = (more + 1, true),
                Some(before) => {
                    news |=
                        Committed { commit_time_ms: before.commit_time_ms, ..committed.clone() } != *before;
                }
            }
            positions.push(GroupPosition {
                topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
                partition: key.partition,
                next_offset: committed.next_offset,
                leader_epoch: committed.leader_epoch,
                commit_time_ms,
                metadata: committed.metadata,
            });
        }
        let before = groups.get(&call.group).map(|group| group.number);
        // The same again: it is stored, or will be once its entry is.
        if let Some(number) = before.filter(|_| !news) {
            return Ok(number);
        }
        self.check_room_for_groups(&groups, before.is_none(), more)?;
        let body = Body::OffsetsCommitted(OffsetsCommitted { group: call.group, positions });
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        groups.apply(number, &body);
        Ok(number)
    }

    fn check_room_for_groups(&self, groups: &Groups, new: bool, more: usize) -> Result<(), Error> {
        let limits = &self.config.limits;
        if new && groups.len() as u64 >= u64::from(limits.max_groups) {
            return Err(Error::LimitReached { what: "groups", limit: limits.max_groups.into() });
        }
        if (groups.positions() + more) as u64 > u64::from(limits.max_committed) {
            return Err(Error::LimitReached {
                what: "committed positions",
                limit: limits.max_committed.into(),
            });
        }
        Ok(())
    }

    /// Whether a position may be committed, and where.
    fn check_position(
        &self,
        groups: &Groups,
        group: &str,
        position: &CommitPosition,
        allow_backwards: bool,
    ) -> Result<PartitionKey, Error> {
        let topic = self.catalog.get(&position.topic).ok_or_else(|| self.topic_not_found(&position.topic))?;
        if let Some(meant) = position.topic_id.filter(|meant| *meant != topic.id()) {
            return Err(Error::TopicReplaced { topic: position.topic.clone(), meant, now: topic.id() });
        }
        let lane = topic.lane(position.partition)?;
        let (name, partition, requested) =
            (|| position.topic.clone(), position.partition, position.next_offset);
        let next = lane.partition.bounds().high_watermark;
        if requested > next {
            return Err(Error::OffsetAhead { topic: name(), partition, requested, next });
        }
        if let Some(epoch) = position.leader_epoch.filter(|epoch| *epoch > 0) {
            check_history(&topic, lane, requested, epoch)?;
        }
        let key = lane.partition.key();
        let Some(before) = committed_in(groups, group, key) else { return Ok(key) };
        let committed = before.next_offset;
        if let Some(expected) = position.expected_offset.filter(|expected| *expected != committed) {
            return Err(Error::ExpectedOffsetMismatch {
                topic: name(),
                partition,
                expected,
                actual: committed,
            });
        }
        if requested < committed && !allow_backwards {
            return Err(Error::CommitBackwards { topic: name(), partition, requested, committed });
        }
        Ok(key)
    }

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

    fn committed(&self, group: &str, topics: &[String]) -> (Vec<Found>, u64) {
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

fn committed_in<'a>(groups: &'a Groups, group: &str, key: PartitionKey) -> Option<&'a Committed> {
    groups.get(group)?.positions.get(&key)
}

impl Found {
    fn measured(self, now_ms: i64) -> CommittedOffset {
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
