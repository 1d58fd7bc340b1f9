//! Settings of a group, as people chose them.

use annals_wire::internal;
use bytes::Bytes;

use super::{position_entry, position_of};
use crate::storage::PartitionKey;

/// Where a group begins in a partition in which it has no position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupStart {
    /// At the first offset kept.
    #[default]
    Earliest,
    /// At what comes after the partition is given to a member for the first time.
    Latest,
}

/// Settings of a group. The defaults are those of a group that was made by its first commit or its first member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// Where it begins.
    pub start: GroupStart,
    /// How often members speak at least, milliseconds.
    pub heartbeat_interval_ms: u32,
    /// Silence after which a member is out, milliseconds.
    pub session_timeout_ms: u32,
    /// Time a member gets to hand a partition over, milliseconds.
    pub revoke_timeout_ms: u32,
    /// An encoded `annals.v1.Filter`; empty = everything is read.
    pub filter: Bytes,
    /// A partition whose position is no longer kept stops, instead of going on at the first offset kept.
    pub stop_at_gap: bool,
    /// Without members and commits for so long it may be removed, milliseconds; 0 = never.
    pub ttl_ms: u64,
    /// Replays what another group has read; holds up nothing.
    pub shadow: bool,
    /// What a shadow group makes of what it reads may be stored in the same step as its position.
    pub shadow_outputs: bool,
    /// Where a shadow group ends, in order of partition.
    pub ends: Vec<(PartitionKey, i64)>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            start: GroupStart::Earliest,
            heartbeat_interval_ms: 3_000,
            session_timeout_ms: 10_000,
            revoke_timeout_ms: 30_000,
            filter: Bytes::new(),
            stop_at_gap: false,
            ttl_ms: 0,
            shadow: false,
            shadow_outputs: false,
            ends: Vec::new(),
        }
    }
}

impl GroupSettings {
    /// Where it ends in a partition; `None` = nowhere.
    pub fn end(&self, key: PartitionKey) -> Option<i64> {
        let at = self.ends.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.ends.get(at).map(|(_, end)| *end)
    }

    /// As entries hold them.
    pub fn to_entry(&self) -> internal::GroupSettings {
        internal::GroupSettings {
            start: match self.start {
                GroupStart::Earliest => 1,
                GroupStart::Latest => 2,
            },
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            session_timeout_ms: self.session_timeout_ms,
            revoke_timeout_ms: self.revoke_timeout_ms,
            filter: self.filter.clone(),
            stop_at_gap: self.stop_at_gap,
            ttl_ms: self.ttl_ms,
            shadow: self.shadow,
            shadow_outputs: self.shadow_outputs,
            ends: self.ends.iter().map(|(key, end)| position_entry(*key, *end)).collect(),
        }
    }

    /// From an entry.
    pub(super) fn from_entry(entry: &internal::GroupSettings) -> Self {
        let ends = entry.ends.iter().filter_map(position_of);
        Self {
            start: if entry.start == 2 { GroupStart::Latest } else { GroupStart::Earliest },
            heartbeat_interval_ms: entry.heartbeat_interval_ms,
            session_timeout_ms: entry.session_timeout_ms,
            revoke_timeout_ms: entry.revoke_timeout_ms,
            filter: entry.filter.clone(),
            stop_at_gap: entry.stop_at_gap,
            ttl_ms: entry.ttl_ms,
            shadow: entry.shadow,
            shadow_outputs: entry.shadow_outputs,
            ends: ends.map(|(key, committed)| (key, committed.next_offset)).collect(),
        }
    }
}
