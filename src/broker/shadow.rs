//! Shadow groups: a range of history, given to a group of its own, that the groups at work never notice.
//!
//! A shadow group begins where it is told and ends where it is told; its members are served as any others, up to its ends. What it
//! holds is its own positions, and nothing else waits for it: it is gone once nobody has committed in it for its time to
//! live. Its positions are of a rehearsal, so a step that stores outputs together with one is refused unless it was made
//! for that.

use std::collections::BTreeSet;

use annals_wire::internal::{GroupConfigured, GroupDeleted, OffsetsCommitted, state_entry::Body};
use bytes::Bytes;
use prost::Message as _;

use super::{
    Broker, Error, Filter, GroupInfo,
    groups::{SETTINGS_BYTES, check_name},
    settle::room_for,
};
use crate::{
    state::{GroupSettings, Groups, position_entry, write_entry},
    storage::{Change, Class, PartitionKey, Room},
    sync::Arc,
};

/// Bytes of a partition in both entries.
const RANGE_BYTES: u64 = 128;
/// Shortest and longest time to live.
const SHORTEST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 400 * 24 * 60 * 60 * 1000;

/// A range of history for a group of its own.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// Group; must not be there.
    pub group: String,
    /// At least one; each partition at most once.
    pub ranges: Vec<ShadowRange>,
    /// What its members are not sent.
    pub filter: Option<Arc<Filter>>,
    /// Without commits for so long it is removed, milliseconds.
    pub ttl_ms: u64,
    /// Steps may store outputs together with its positions.
    pub allow_outputs: bool,
}

/// A range of offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowRange {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub from: i64,
    /// First offset that is not in it.
    pub to: i64,
}

/// A range, found.
struct Found {
    key: PartitionKey,
    from: i64,
    to: i64,
    leader_epoch: u32,
}

impl Broker {
    /// Makes a shadow group, with its positions: all of it or nothing.
    ///
    /// # Errors
    /// `GroupExists`, `TopicNotFound`, `PartitionUnknown`, `OffsetTruncated`, `OffsetAhead`, `InvalidName`, `InvalidArgument`,
    /// `LimitReached`.
    pub async fn create_shadow_group(&self, call: Shadow) -> Result<GroupInfo, Error> {
        check_name(&call.group)?;
        let most = self.config.limits.max_read_partitions;
        let count = call.ranges.len();
        if count == 0 || count > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Error::argument("shadow.ranges", format!("{count} ranges; 1..={most} are taken")));
        }
        if !(SHORTEST_MS..=LONGEST_MS).contains(&call.ttl_ms) {
            let why = format!("{} ms; {SHORTEST_MS}..={LONGEST_MS} are taken", call.ttl_ms);
            return Err(Error::argument("shadow.ttl_ms", why));
        }
        let filter = call.filter.as_ref().map_or(0, |filter| filter.message().encoded_len());
        let bytes = SETTINGS_BYTES + (call.group.len() + filter) as u64 + RANGE_BYTES * count as u64;
        let room = self.room(room_for(bytes, 2), Class::Control).await?;
        let decided = self.decide_shadow(room, &call);
        self.configured(decided).await
    }

    fn decide_shadow(&self, room: Room, call: &Shadow) -> Result<(GroupInfo, u64), Error> {
        let mut groups = self.truth.groups.lock();
        if groups.get(&call.group).is_some() {
            let differs = "it is there already, and a shadow group is always new".to_owned();
            return Err(Error::GroupExists { group: call.group.clone(), differs });
        }
        let mut found = Vec::with_capacity(call.ranges.len());
        for (index, range) in call.ranges.iter().enumerate() {
            found.push(self.find_range(index, range)?);
        }
        found.sort_by_key(|range| range.key);
        let keys: BTreeSet<_> = found.iter().map(|range| range.key).collect();
        if keys.len() < found.len() {
            return Err(Error::argument("shadow.ranges", "a partition comes twice"));
        }
        self.check_room_for_groups(&groups, true, found.len())?;
        let filter = call.filter.as_ref().map(|filter| filter.message().encode_to_vec()).unwrap_or_default();
        let settings = GroupSettings {
            filter: Bytes::from(filter),
            ttl_ms: call.ttl_ms,
            shadow: true,
            shadow_outputs: call.allow_outputs,
            ends: found.iter().map(|range| (range.key, range.to)).collect(),
            ..GroupSettings::default()
        };
        let commit_time_ms = self.clock.wall_ms();
        let position = |range: &Found| annals_wire::internal::GroupPosition {
            leader_epoch: range.leader_epoch,
            commit_time_ms,
            ..position_entry(range.key, range.from)
        };
        let group = call.group.clone();
        let configured = GroupConfigured { group: group.clone(), settings: Some(settings.to_entry()) };
        let committed = OffsetsCommitted { group, positions: found.iter().map(position).collect() };
        let bodies = [Body::GroupConfigured(configured), Body::OffsetsCommitted(committed)];
        let changes = bodies.iter().map(|body| Change::State(write_entry(body.clone()))).collect();
        // The number is that of the last.
        let number = self.enqueue(room, changes)?;
        for (number, body) in (number - 1..).zip(&bodies) {
            groups.apply(number, body);
        }
        Ok((self.described(&groups, &call.group)?, number))
    }

    fn find_range(&self, index: usize, range: &ShadowRange) -> Result<Found, Error> {
        let topic = self.catalog.get(&range.topic).ok_or_else(|| self.topic_not_found(&range.topic))?;
        let lane = topic.lane(range.partition)?;
        let bounds = lane.partition.bounds();
        let (name, partition) = (|| range.topic.clone(), range.partition);
        if range.from < bounds.log_start {
            let (requested, earliest) = (range.from, bounds.log_start);
            return Err(Error::OffsetTruncated { topic: name(), partition, requested, earliest });
        }
        if range.to > bounds.high_watermark {
            let (requested, next) = (range.to, bounds.high_watermark);
            return Err(Error::OffsetAhead { topic: name(), partition, requested, next });
        }
        if range.from > range.to {
            let why = format!("{} is behind {}", range.from, range.to);
            return Err(Error::argument(format!("shadow.ranges[{index}].from_offset"), why));
        }
        let key = lane.partition.key();
        Ok(Found { key, from: range.from, to: range.to, leader_epoch: bounds.leader_epoch })
    }

    /// Whether a step of this group may store outputs.
    pub(super) fn check_outputs(groups: &Groups, group: &str) -> Result<(), Error> {
        let settings = groups.get(group).and_then(|group| group.settings.as_ref());
        match settings.filter(|settings| settings.shadow && !settings.shadow_outputs) {
            None => Ok(()),
            Some(_) => Err(Error::ShadowGroup { group: group.to_owned() }),
        }
    }

    /// Removes groups that have outlived their time.
    pub(super) fn expire_groups(&self) {
        let now_ms = self.clock.wall_ms();
        let expired = |groups: &Groups| -> Vec<Arc<str>> {
            let over = groups.page("", "").filter(|(_, group)| group.is_over(now_ms));
            over.map(|(name, _)| Arc::clone(name)).collect()
        };
        let names = expired(&self.truth.groups.lock());
        for name in names {
            let Ok(room) = self.storage.reserve(room_for(name.len() as u64, 1), Class::Control) else {
                return;
            };
            let mut groups = self.truth.groups.lock();
            if !groups.get(&name).is_some_and(|group| group.is_over(now_ms)) {
                continue;
            }
            let body = Body::GroupDeleted(GroupDeleted { group: name.to_string() });
            if let Ok(number) = self.enqueue(room, vec![Change::State(write_entry(body.clone()))]) {
                groups.apply(number, &body);
                tracing::info!(group = &*name, "its time to live is over");
            }
        }
    }
}
