//! Moving a group that nobody is a member of: forwards, backwards, to a time.
//!
//! A dry run and a real one are the same decision under the lock of the groups; only the real one enters what it decided. Where
//! a time lies in a partition is looked up before the lock, since that may read from the disk.

use std::collections::BTreeSet;

use annals_wire::{
    internal::{GroupPosition, OffsetsCommitted, state_entry::Body},
    names::check_group_name,
};
use bytes::Bytes;

use super::{
    Broker, Error, RETRY_SOON,
    catalog::{Lane, Topic},
    position::offset_at_time,
    read::read_error,
    settle::room_for,
};
use crate::{
    state::{Group, write_entry},
    storage::{Change, Class, Room},
    sync::Arc,
};

/// Bytes of a position in an entry.
const POSITION_BYTES: u64 = 64;

/// A move of a group that has no members.
#[derive(Clone, Debug)]
pub struct Reset {
    /// Group; made if it is new.
    pub group: String,
    /// Topic name.
    pub topic: String,
    /// Partitions; none = all of the topic.
    pub partitions: Vec<u32>,
    /// Where to.
    pub to: ResetTo,
    /// Only say what it would do.
    pub dry_run: bool,
}

/// Where a group is moved to. What a partition does not reach means its nearest end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// This offset.
    Offset(i64),
    /// The first record of this time or later; the high watermark if there is none.
    Timestamp(i64),
    /// The first offset kept.
    Earliest,
    /// The high watermark.
    Latest,
    /// So many offsets before the high watermark.
    LastRecords(u32),
    /// So many offsets from where it stands, backwards if negative; where it has not committed, from the first offset kept.
    Shift(i64),
}

/// How a group moves in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetMove {
    /// Partition.
    pub partition: u32,
    /// Where it stood; `None` = it had not committed.
    pub from_offset: Option<i64>,
    /// Where it stands now, or would.
    pub to_offset: i64,
    /// Offsets that will be read again.
    pub records_reread: i64,
    /// Offsets that will not be read.
    pub records_skipped: i64,
    /// Leader epoch of the broker.
    pub leader_epoch: u32,
}

/// A partition to be moved in.
#[derive(Clone)]
struct Target {
    lane: Arc<Lane>,
    /// What the time asked for means here, if a time was asked for.
    at_time: Option<i64>,
}

impl Broker {
    /// Moves a group in partitions of a topic, all or none; a dry run says what that would do. It is on disk when this returns.
    ///
    /// # Errors
    /// `GroupHasMembers`, `TopicNotFound`, `PartitionUnknown`, `InvalidName`, `InvalidArgument`, `LimitReached`, `CorruptData`.
    pub async fn reset_offsets(&self, call: Reset) -> Result<Vec<OffsetMove>, Error> {
        check_group_name(&call.group).map_err(|error| Error::InvalidName {
            field: "group",
            name: call.group.chars().take(64).collect(),
            why: error.to_string(),
        })?;
        if let ResetTo::Offset(offset) = call.to
            && offset < 0
        {
            return Err(Error::argument("offset", format!("{offset} is negative")));
        }
        let topic = self.topic(&call.topic).await?;
        let targets = match targets(&topic, &call).await {
            Ok(targets) => targets,
            Err(error) => return self.refuse(error).await,
        };
        let bytes = call.group.len() as u64 + POSITION_BYTES * targets.len() as u64;
        let room = self.room(room_for(bytes, 1), Class::Control).await?;
        match self.decide_reset(room, &topic, &targets, &call) {
            Ok((moves, number)) => {
                self.written(number).await?;
                Ok(moves)
            }
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_reset(
        &self,
        room: Room,
        topic: &Topic,
        targets: &[Target],
        call: &Reset,
    ) -> Result<(Vec<OffsetMove>, u64), Error> {
        let mut groups = self.truth.groups.lock();
        // Deleting a topic takes the groups' lock: one that is there now is there when the entry is enqueued.
        if self.catalog.get(topic.name()).is_none_or(|now| now.id() != topic.id()) {
            return Err(self.topic_not_found(topic.name()));
        }
        let group = groups.get(&call.group);
        let members = group.map_or(0, |group| group.membership.members.len());
        if members > 0 {
            let way_out = "A reset would go behind their backs: stop them first, and reset then";
            return Err(Error::GroupHasMembers { group: call.group.clone(), members, way_out });
        }
        let moves: Vec<_> =
            targets.iter().map(|target| target.moved(group.map(Arc::as_ref), call.to)).collect();
        let number = group.map_or(groups.number(), |group| group.number);
        let changed: Vec<_> = moves.iter().filter(|one| one.from_offset != Some(one.to_offset)).collect();
        if call.dry_run || changed.is_empty() {
            return Ok((moves, number));
        }
        let new = changed.iter().filter(|one| one.from_offset.is_none()).count();
        self.check_room_for_groups(&groups, group.is_none(), new)?;
        let commit_time_ms = self.clock.wall_ms();
        let position = |one: &&OffsetMove| GroupPosition {
            topic_id: Bytes::copy_from_slice(topic.id().as_bytes()),
            partition: one.partition,
            next_offset: one.to_offset,
            leader_epoch: one.leader_epoch,
            commit_time_ms,
            metadata: String::new(),
        };
        let positions = changed.iter().map(position).collect();
        let body = Body::OffsetsCommitted(OffsetsCommitted { group: call.group.clone(), positions });
        let number = self.enqueue(room, vec![Change::State(write_entry(body.clone()))])?;
        self.apply_move(&mut groups, number, &body);
        Ok((moves, number))
    }
}

/// The partitions asked for, and what a time asked for means in each.
async fn targets(topic: &Arc<Topic>, call: &Reset) -> Result<Vec<Target>, Error> {
    let mut lanes = Vec::with_capacity(call.partitions.len());
    for partition in call.partitions.iter().collect::<BTreeSet<_>>() {
        lanes.push(Arc::clone(topic.lane(*partition)?));
    }
    if lanes.is_empty() {
        lanes.clone_from(&topic.lanes);
    }
    let ResetTo::Timestamp(timestamp_ms) = call.to else {
        return Ok(lanes.into_iter().map(|lane| Target { lane, at_time: None }).collect());
    };
    let topic = Arc::clone(topic);
    let found = tokio::task::spawn_blocking(move || {
        let target = |lane: Arc<Lane>| match offset_at_time(&lane, timestamp_ms) {
            Ok(found) => {
                let end = lane.partition.bounds().high_watermark;
                Ok(Target { lane, at_time: Some(found.unwrap_or(end)) })
            }
            Err(error) => Err(read_error(&topic, &lane, lane.partition.bounds().log_start, error)),
        };
        lanes.into_iter().map(target).collect()
    });
    found.await.unwrap_or(Err(Error::ShuttingDown { retry_delay: RETRY_SOON }))
}

impl Target {
    /// Where the group goes in this partition, and what that means to it.
    fn moved(&self, group: Option<&Group>, to: ResetTo) -> OffsetMove {
        let bounds = self.lane.partition.bounds();
        let key = self.lane.partition.key();
        let from_offset =
            group.and_then(|group| group.positions.get(&key)).map(|committed| committed.next_offset);
        // Where it would read on if nothing was done.
        let stands = from_offset.unwrap_or(bounds.log_start).clamp(bounds.log_start, bounds.high_watermark);
        let wanted = match to {
            ResetTo::Offset(offset) => offset,
            ResetTo::Timestamp(_) => self.at_time.unwrap_or(bounds.high_watermark),
            ResetTo::Earliest => bounds.log_start,
            ResetTo::Latest => bounds.high_watermark,
            ResetTo::LastRecords(count) => bounds.high_watermark.saturating_sub(count.into()),
            ResetTo::Shift(by) => stands.saturating_add(by),
        };
        let to_offset = wanted.clamp(bounds.log_start, bounds.high_watermark);
        OffsetMove {
            partition: key.partition,
            from_offset,
            to_offset,
            records_reread: (stands - to_offset).max(0),
            records_skipped: (to_offset - stands).max(0),
            leader_epoch: bounds.leader_epoch,
        }
    }
}
