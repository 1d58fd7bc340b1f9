//! Commits: a group's positions, all of a call's or none.
//!
//! A commit is judged under the lock of the groups, and entered under the same. Deleting a topic takes that lock too, so a
//! topic that is there when a commit is judged is there when it is entered.

use std::collections::BTreeSet;

use annals_wire::{
    ids::TopicId,
    internal::{GroupPosition, OffsetsCommitted, state_entry::Body},
    limits::MAX_COMMIT_METADATA_BYTES,
    names::check_group_name,
};
use bytes::Bytes;

use super::{Broker, Commit, CommitPosition, Error, position::check_history, settle::room_for};
use crate::{
    state::{Committed, Groups, write_entry},
    storage::{Change, Class, Partition, PartitionKey, Room},
    sync::Arc,
};

/// Bytes of a position in an entry, without its note.
const POSITION_BYTES: usize = 64;

/// What a commit that may be comes to.
#[derive(Debug)]
pub(super) enum Judged {
    /// Nothing new: it is stored, or will be once the entry of this number is durable.
    Before(u64),
    /// The entry that makes it so.
    News(OffsetsCommitted),
}

impl Broker {
    /// Stores positions, all or none; they are on disk when this returns.
    ///
    /// # Errors
    /// `ExpectedOffsetMismatch`, `CommitBackwards`, `OffsetAhead`, `LogTruncated`, `TopicNotFound`, `TopicReplaced`,
    /// `PartitionUnknown`, `InvalidName`, `InvalidArgument`, `LimitReached`, `NotOwner`, `GroupHasMembers`.
    pub async fn commit_offsets(&self, call: Commit) -> Result<(), Error> {
        match self.enter_commit(call).await {
            Ok(number) => self.written(number).await,
            Err(error) => self.refuse(error).await,
        }
    }

    /// Enters positions, all or none. Returns the number to wait for; a refusal, too, waits for what it was decided from.
    pub(super) async fn enter_commit(&self, call: Commit) -> Result<u64, Error> {
        self.check_commit(&call)?;
        let room = self.room(room_for(entry_bytes(&call), 1), Class::Control).await?;
        self.decide_commit(room, call)
    }

    /// What can be said of a commit without looking at what is there.
    pub(super) fn check_commit(&self, call: &Commit) -> Result<(), Error> {
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
        let entry = match self.judge_commit(&groups, call)? {
            Judged::Before(number) => return Ok(number),
            Judged::News(entry) => entry,
        };
        let body = Body::OffsetsCommitted(entry);
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        self.apply_commit(&mut groups, number, &body);
        Ok(number)
    }

    /// Applies a commit that was entered, and counts what it confirms.
    pub(super) fn apply_commit(&self, groups: &mut Groups, number: u64, body: &Body) {
        self.each_moved(groups, body, |group, partition, before, next| {
            self.rates.committed(group, partition, before, next);
        });
        groups.apply(number, body);
    }

    /// Applies positions that somebody gave a group, which confirm nothing.
    pub(super) fn apply_move(&self, groups: &mut Groups, number: u64, body: &Body) {
        self.each_moved(groups, body, |group, partition, before, next| {
            self.rates.moved(group, partition, before, next);
        });
        groups.apply(number, body);
    }

    /// Calls for each position of an entry with where the group stood before and where it stands now.
    fn each_moved(
        &self,
        groups: &Groups,
        body: &Body,
        moved: impl Fn(&str, &Arc<Partition>, Option<i64>, i64),
    ) {
        let Body::OffsetsCommitted(entry) = body else { return };
        for position in &entry.positions {
            let Some(topic) = TopicId::from_slice(&position.topic_id) else { continue };
            let key = PartitionKey { topic, partition: position.partition };
            let before = committed_in(groups, &entry.group, key).map(|before| before.next_offset);
            if let Some(partition) = self.storage.partition(key) {
                moved(&entry.group, &partition, before, position.next_offset);
            }
        }
    }

    /// Whether a commit that [`Broker::check_commit`] let pass may be, and what it comes to. The caller holds the lock of
    /// the groups until the entry is enqueued and applied.
    pub(super) fn judge_commit(&self, groups: &Groups, call: Commit) -> Result<Judged, Error> {
        check_members(groups, &call)?;
        let commit_time_ms = self.clock.wall_ms();
        let (mut positions, mut news, mut more) = (Vec::with_capacity(call.positions.len()), false, 0);
        for position in &call.positions {
            let key = self.check_position(groups, &call, position)?;
            let committed = Committed {
                next_offset: position.next_offset,
                leader_epoch: position.leader_epoch.unwrap_or(0),
                commit_time_ms,
                metadata: position.metadata.clone(),
            };
            match committed_in(groups, &call.group, key) {
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
        if let Some(number) = before.filter(|_| !news) {
            return Ok(Judged::Before(number));
        }
        self.check_room_for_groups(groups, before.is_none(), more)?;
        Ok(Judged::News(OffsetsCommitted { group: call.group, positions }))
    }

    pub(super) fn check_room_for_groups(&self, groups: &Groups, new: bool, more: usize) -> Result<(), Error> {
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
        call: &Commit,
        position: &CommitPosition,
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
        check_owner(groups, call, position, key)?;
        let Some(before) = committed_in(groups, &call.group, key) else { return Ok(key) };
        let committed = before.next_offset;
        if let Some(expected) = position.expected_offset.filter(|expected| *expected != committed) {
            return Err(Error::ExpectedOffsetMismatch {
                topic: name(),
                partition,
                expected,
                actual: committed,
            });
        }
        if requested < committed && !call.allow_backwards {
            return Err(Error::CommitBackwards { topic: name(), partition, requested, committed });
        }
        Ok(key)
    }
}

/// Who is no member does not commit behind the backs of members, unless it says that it means to.
fn check_members(groups: &Groups, call: &Commit) -> Result<(), Error> {
    if !call.member_id.is_empty() || call.override_members {
        return Ok(());
    }
    let members = groups.get(&call.group).map_or(0, |group| group.membership.members.len());
    if members > 0 {
        let way_out =
            "Let them leave, commit as one of them (member_id and assignment_epoch), or set override_members";
        return Err(Error::GroupHasMembers { group: call.group.clone(), members, way_out });
    }
    Ok(())
}

/// A member commits what it owns, under the epoch under which it owns it.
fn check_owner(
    groups: &Groups,
    call: &Commit,
    position: &CommitPosition,
    key: PartitionKey,
) -> Result<(), Error> {
    let owns = |member: &str| {
        let group = groups.get(&call.group);
        group.is_some_and(|group| group.membership.owns(member, key, position.assignment_epoch))
    };
    if call.member_id.is_empty() || owns(&call.member_id) {
        return Ok(());
    }
    Err(Error::NotOwner {
        group: call.group.clone(),
        topic: position.topic.clone(),
        partition: position.partition,
        assignment_epoch: position.assignment_epoch,
    })
}

/// A bare position as entries have it.
pub(super) fn position_entry(key: PartitionKey, next_offset: i64, commit_time_ms: i64) -> GroupPosition {
    GroupPosition {
        topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
        partition: key.partition,
        next_offset,
        commit_time_ms,
        ..GroupPosition::default()
    }
}

/// Bytes that the entry of a commit takes, at most.
pub(super) fn entry_bytes(call: &Commit) -> u64 {
    let positions: usize =
        call.positions.iter().map(|position| POSITION_BYTES + position.metadata.len()).sum();
    (positions + call.group.len()) as u64
}

fn committed_in<'a>(groups: &'a Groups, group: &str, key: PartitionKey) -> Option<&'a Committed> {
    groups.get(group)?.positions.get(&key)
}
