//! What the broker is told at start. Every number here bounds something that clients could otherwise grow.

use std::time::Duration;

use annals_wire::limits;

use crate::storage::Level;

/// Settings of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// A produce to a topic that does not exist makes it.
    pub auto_create: bool,
    /// Settings of topics that do not say otherwise.
    pub topic_defaults: TopicDefaults,
    /// Bounds.
    pub limits: Limits,
    /// How long a produce waits for room in the journal before it is told to come back.
    pub room_wait: Duration,
    /// Silence after which a subscription says that it lives.
    pub heartbeat: Duration,
}

/// Settings of topics that do not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDefaults {
    /// Partitions.
    pub partitions: u32,
    /// When an append counts.
    pub level: Level,
    /// Size at which segments roll, in bytes.
    pub segment_bytes: u64,
    /// Sync window of the interval level, in milliseconds.
    pub interval_ms: u32,
    /// Sync window of the interval level, in bytes.
    pub interval_bytes: u64,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One record, in bytes.
    pub max_record_bytes: u32,
    /// The records of a request for one partition, unpacked, in bytes.
    pub max_batch_bytes: u32,
    /// The records of a request for one partition.
    pub max_batch_records: u32,
    /// One request, in bytes. The door enforces it.
    pub max_request_bytes: u32,
    /// One answer, unless one batch alone is larger, in bytes.
    pub max_response_bytes: u32,
    /// One answer whose request names no size, in bytes.
    pub default_response_bytes: u32,
    /// One wait, in milliseconds.
    pub max_wait_ms: u32,
    /// Positions of a fetch, a subscription or a commit.
    pub max_positions: u32,
    /// Outputs of a read-process-write step.
    pub max_outputs: u32,
    /// Partitions of a fetch or a subscription, once its positions are spelt out.
    pub max_read_partitions: u32,
    /// Topics.
    pub max_topics: u32,
    /// Partitions of one topic.
    pub max_topic_partitions: u32,
    /// Partitions of all topics.
    pub max_partitions: u32,
    /// Producers that are known.
    pub max_producers: u32,
    /// Groups.
    pub max_groups: u32,
    /// Members of one group.
    pub max_group_members: u32,
    /// Committed positions of all groups.
    pub max_committed: u32,
    /// Reads that wait at a time, subscriptions included.
    pub max_waiting: u32,
}

impl Default for TopicDefaults {
    fn default() -> Self {
        Self {
            partitions: 8,
            level: Level::Fsync,
            segment_bytes: 256 << 20,
            interval_ms: 100,
            interval_bytes: 4 << 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let fits = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
        Self {
            max_record_bytes: fits(limits::MAX_RECORD_BYTES),
            max_batch_bytes: fits(limits::DEFAULT_MAX_BATCH_BYTES),
            max_batch_records: limits::MAX_RECORDS_PER_BATCH,
            max_request_bytes: fits(limits::MAX_REQUEST_BYTES),
            max_response_bytes: fits(limits::MAX_RESPONSE_BYTES),
            default_response_bytes: fits(limits::AIM_RESPONSE_BYTES),
            max_wait_ms: limits::MAX_WAIT_MS,
            max_positions: fits(limits::MAX_POSITIONS),
            max_outputs: fits(limits::MAX_OUTPUTS),
            max_read_partitions: 4096,
            max_topics: 10_000,
            max_topic_partitions: limits::MAX_PARTITIONS,
            max_partitions: 20_000,
            max_producers: 10_000,
            max_groups: 10_000,
            max_group_members: 1_000,
            max_committed: 500_000,
            max_waiting: 20_000,
        }
    }
}

impl Limits {
    /// None for records: for what was taken before.
    pub(crate) fn none() -> Self {
        Self {
            max_record_bytes: u32::MAX,
            max_batch_bytes: u32::MAX,
            max_batch_records: u32::MAX,
            ..Self::default()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            auto_create: true,
            topic_defaults: TopicDefaults::default(),
            limits: Limits::default(),
            room_wait: Duration::from_secs(5),
            heartbeat: Duration::from_millis(limits::HEARTBEAT_INTERVAL_MS.into()),
        }
    }
}
