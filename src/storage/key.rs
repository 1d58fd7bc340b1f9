//! Names and levels that every part of storage uses.

use std::fmt;

use annals_wire::ids::TopicId;

/// A partition, by ids: names live in the state, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    /// Topic.
    pub topic: TopicId,
    /// Partition, from 0.
    pub partition: u32,
}

impl PartitionKey {
    /// The partition's directory.
    pub(crate) fn dir(&self) -> String {
        format!("topics/{}/{}", self.topic, self.partition)
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// When an append counts; stronger is greater. Numbers as in `annals.v1.Durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// In the page cache.
    Os = 1,
    /// In the page cache; made durable every N ms or M bytes.
    Interval = 2,
    /// A flush covers it.
    Fsync = 3,
}

impl Level {
    /// From the number of `annals.v1.Durability`; `None` for UNSPECIFIED and unknown ones.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Os),
            2 => Some(Self::Interval),
            3 => Some(Self::Fsync),
            _ => None,
        }
    }

    /// The number of `annals.v1.Durability`.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// Settings of a topic's partitions that storage needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSettings {
    /// When an append counts.
    pub level: Level,
    /// Size at which segments roll, in bytes.
    pub segment_bytes: u64,
    /// Longest time between sync points of the interval level, in milliseconds.
    pub interval_ms: u32,
    /// Most bytes between sync points of the interval level.
    pub interval_bytes: u64,
}
