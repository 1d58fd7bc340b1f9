//! What the doors hand to the [`Broker`](super::Broker) and get back: plain values, no protobuf service types.
//!
//! Offsets are `i64` and never negative; times are milliseconds since 1970 unless a name says otherwise.

use std::{fmt, time::Duration};

use annals_wire::{ids::TopicId, request::ScannedProduce};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{Error, Filter};
use crate::{
    storage::{Gap, Level, Runs},
    sync::Arc,
};

/// Who calls. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// A caller of this name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// Nobody in particular: all there is until callers can prove who they are.
    pub fn anonymous() -> Self {
        Self::new("anonymous")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request to store records of one topic.
#[derive(Debug)]
pub struct Produce {
    /// The request as scanned, its records untouched.
    pub scanned: ScannedProduce,
    /// Who asks; request ids are kept per principal.
    pub principal: Principal,
}

/// Of something there is mostly one of: listed without a list on the heap.
pub type Few<T> = SmallVec<[T; 1]>;

/// Where records went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// One per partition touched, in order of partition.
    pub appends: Few<PartitionAppend>,
    /// This is the answer of an earlier call with the same request id.
    pub duplicate: bool,
}

/// One stored batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionAppend {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// Offset of the first record; the others follow without holes.
    pub base_offset: i64,
    /// Records.
    pub record_count: u32,
    /// Leader epoch under which they were stored.
    pub leader_epoch: u32,
    /// The broker's clock when they were stored.
    pub append_time_ms: i64,
    /// Level the ack stands for.
    pub level: Level,
    /// They had been stored by an earlier call.
    pub duplicate: bool,
    /// Which of the request's records these are, when not all of them came here.
    pub record_indexes: Vec<u32>,
}

/// A producer that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedProducer {
    /// Above 0.
    pub producer_id: i64,
    /// From 1; raised each time its name is opened.
    pub producer_epoch: u32,
    /// Where it stands, in order of topic and partition; nothing of a new one.
    pub positions: Vec<ProducerPosition>,
}

/// Where a producer stands in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerPosition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// Sequence that its next batch starts with.
    pub next_sequence: u32,
    /// Offset of its last record.
    pub last_offset: i64,
}

/// A read from any number of partitions.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// Where; answered one slice per partition, in this order.
    pub positions: Vec<Position>,
    /// How long to wait for `min_bytes`; zero = answer at once.
    pub max_wait: Duration,
    /// Fewer bytes than this are worth waiting; 0 = 1.
    pub min_bytes: u32,
    /// Of the whole answer; 0 = the default. One batch comes even if larger.
    pub max_bytes: u32,
    /// Codecs the caller unpacks.
    pub accept_codecs: CodecSet,
    /// Step over damage and say so in the gaps.
    pub skip_damaged: bool,
    /// What to leave out; `None` = nothing.
    pub filter: Option<Arc<Filter>>,
}

/// A place to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Topic name.
    pub topic: String,
    /// `None` = every partition of the topic; not with [`Start::Offset`].
    pub partition: Option<u32>,
    /// Where to begin.
    pub start: Start,
    /// Epoch of the last batch read; tells a history that was cut.
    pub last_epoch: Option<u32>,
}

/// Where in a partition a read begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(i64),
    /// At the first record of this time or later; at the high watermark if there is none.
    Timestamp(i64),
    /// At the first offset kept.
    Earliest,
    /// At the high watermark.
    Latest,
    /// This many offsets before the high watermark.
    LastRecords(u32),
    /// Where this group has committed; where it has not, at the first offset kept.
    CommittedBy(String),
}

/// Codecs a reader can unpack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodecSet {
    /// LZ4 frames.
    pub lz4: bool,
    /// Zstandard frames.
    pub zstd: bool,
}

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// One per partition that could answer, in the order asked for.
    pub slices: Few<Slice>,
    /// The partitions that could not.
    pub errors: Vec<PartitionFailure>,
}

/// A run of whole batches of one partition.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// First offset kept.
    pub log_start_offset: i64,
    /// Where to read on.
    pub next_offset: i64,
    /// Where this read began.
    pub start_offset: i64,
    /// Leader epoch of the broker.
    pub leader_epoch: u32,
    /// What was stepped over.
    pub gaps: Vec<Gap>,
    /// Bytes of the log that a filter was held to.
    pub looked_at: usize,
    /// Field 1 of `LogSlice`, again and again: the pieces in a row are the batches as they lie in the file, the first
    /// trimmed so that it starts at `start_offset`.
    pub batches: Runs,
}

impl Slice {
    /// Bytes of its batches.
    pub fn len(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }

    /// No batches.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(Bytes::is_empty)
    }
}

/// A partition's failure within a call that serves others.
#[derive(Clone, Debug)]
pub struct PartitionFailure {
    /// Topic name, as asked for.
    pub topic: Arc<str>,
    /// Partition; 0 when the topic itself is the failure.
    pub partition: u32,
    /// What is wrong.
    pub error: Error,
}

/// A read without end.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// Where to begin. A position without partition follows the topic as it grows.
    pub positions: Vec<Position>,
    /// Aim for one slice; 0 = the default.
    pub max_bytes: u32,
    /// Codecs the caller unpacks.
    pub accept_codecs: CodecSet,
    /// Step over damage and say so in the gaps.
    pub skip_damaged: bool,
    /// What to leave out; `None` = nothing.
    pub filter: Option<Arc<Filter>>,
}

/// What a subscription says next.
#[derive(Clone, Debug)]
pub enum SubEvent {
    /// Records.
    Slice(Slice),
    /// Nothing happened for a while.
    Heartbeat {
        /// The broker's clock.
        now_ms: i64,
        /// Where each partition stands.
        watermarks: Vec<Watermark>,
    },
    /// The reader has everything of this partition.
    CaughtUp {
        /// Topic name.
        topic: Arc<str>,
        /// Topic id.
        topic_id: TopicId,
        /// Partition.
        partition: u32,
        /// Offset at which it was true.
        next_offset: i64,
        /// Leader epoch.
        leader_epoch: u32,
    },
    /// This partition stops here; the others go on.
    PartitionError(PartitionFailure),
    /// The broker goes away.
    Drain {
        /// Time left until streams are cut.
        deadline_ms: u32,
    },
}

/// End of one partition, and of the reader in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// Where the reader stands.
    pub next_offset: i64,
    /// Leader epoch.
    pub leader_epoch: u32,
}

/// Positions to commit, all or none.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Group; made on first use.
    pub group: String,
    /// At least one; each partition at most once.
    pub positions: Vec<CommitPosition>,
    /// Also below what is committed.
    pub allow_backwards: bool,
    /// The member that commits; empty = none.
    pub member_id: String,
    /// Also behind the backs of live members, if `member_id` is empty.
    pub override_members: bool,
}

/// A position to commit: what to read next, never what was read last.
#[derive(Clone, Debug, Default)]
pub struct CommitPosition {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// First offset not processed.
    pub next_offset: i64,
    /// Commit only if the group stands here, or has never committed.
    pub expected_offset: Option<i64>,
    /// From the slice; tells a history that was cut.
    pub leader_epoch: Option<u32>,
    /// From the slice; refuses a topic made anew under the old name.
    pub topic_id: Option<TopicId>,
    /// Caller's note.
    pub metadata: String,
    /// Under which the member owns the partition; means nothing without one.
    pub assignment_epoch: u32,
}

/// What a group has committed in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// First offset not processed.
    pub next_offset: i64,
    /// Records from there to the high watermark.
    pub lag_records: i64,
    /// Age of the first of them; 0 = caught up.
    pub lag_ms: i64,
    /// When it was committed.
    pub commit_time_ms: i64,
    /// Caller's note.
    pub metadata: String,
    /// Leader epoch the committer named; 0 if it named none.
    pub leader_epoch: u32,
}

/// Offsets of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Topic id.
    pub topic_id: TopicId,
    /// One per partition asked for, in order of partition.
    pub partitions: Vec<PartitionOffsets>,
}

/// Offsets of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Partition.
    pub partition: u32,
    /// First offset kept.
    pub earliest_offset: i64,
    /// High watermark.
    pub latest_offset: i64,
    /// First offset of the asked time or later, if asked for and there is one.
    pub timestamp_offset: Option<i64>,
    /// Leader epoch.
    pub leader_epoch: u32,
}

/// Settings asked for; `None` = the default when a topic is made, unchanged when it is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Partitions; they only grow.
    pub partitions: Option<u32>,
    /// When an append counts.
    pub level: Option<Level>,
    /// Size at which segments roll, in bytes.
    pub segment_bytes: Option<u64>,
    /// Sync window of the interval level, in milliseconds.
    pub interval_ms: Option<u32>,
    /// Sync window of the interval level, in bytes.
    pub interval_bytes: Option<u64>,
}

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// Name.
    pub name: Arc<str>,
    /// Id; another one when the topic is made anew.
    pub topic_id: TopicId,
    /// When it was made.
    pub created_ms: i64,
    /// When an append counts.
    pub level: Level,
    /// Size at which segments roll, in bytes.
    pub segment_bytes: u64,
    /// Sync window of the interval level, in milliseconds.
    pub interval_ms: u32,
    /// Sync window of the interval level, in bytes.
    pub interval_bytes: u64,
    /// One per partition, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Partition.
    pub partition: u32,
    /// First offset kept.
    pub log_start_offset: i64,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Leader epoch.
    pub leader_epoch: u32,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// In order of name.
    pub items: Vec<T>,
    /// Ask with this for the next page; empty = this was the last.
    pub next_page_token: String,
}

/// Which page.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// At most so many; 0 = 100, more than 1,000 counts as 1,000.
    pub page_size: u32,
    /// From the page before; empty = the first page.
    pub page_token: String,
    /// Only names that start so.
    pub prefix: String,
}

/// Who leads a partition: this broker, always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLeader {
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic id.
    pub topic_id: TopicId,
    /// Partition.
    pub partition: u32,
    /// Leader epoch.
    pub leader_epoch: u32,
}

/// How the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Everything works.
    Serving,
    /// Works, but not all of it.
    Degraded {
        /// One sentence for each thing that does not.
        reasons: Vec<String>,
    },
    /// Says good-bye to its clients.
    Draining,
    /// Takes no more writes; the process has to end.
    Failed {
        /// Why.
        reason: String,
    },
}
