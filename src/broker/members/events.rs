//! What a member is told.

use annals_wire::ids::TopicId;

use super::super::{Error, PartitionFailure, Slice, Watermark};
use crate::sync::Arc;

/// What a member is told.
#[derive(Clone, Debug)]
pub enum MemberEvent {
    /// It is a member.
    Joined {
        /// Given by the broker.
        member_id: Arc<str>,
        /// Of the group, for people.
        generation: u32,
        /// Silence after which it is out.
        session_timeout_ms: u32,
        /// How often to speak at least.
        heartbeat_interval_ms: u32,
        /// Time it gets to hand a partition over.
        revoke_timeout_ms: u32,
    },
    /// More partitions.
    Assigned {
        /// Of the group, for people.
        generation: u32,
        /// Which, and where each starts.
        partitions: Vec<AssignedPartition>,
    },
    /// Fewer partitions: nothing more comes of them.
    Revoked {
        /// Which.
        places: Vec<Place>,
        /// Time left to commit and release; 0 = already lost.
        deadline_ms: u32,
    },
    /// The answer to a commit.
    Committed {
        /// As sent.
        commit_id: u64,
        /// Nothing of it was stored, and why.
        refused: Option<Error>,
    },
    /// Records of one partition.
    Slice(Slice),
    /// The member has everything of this partition.
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
    /// Nothing happened for a while.
    Heartbeat {
        /// The broker's clock.
        now_ms: i64,
        /// Where each partition stands.
        watermarks: Vec<Watermark>,
    },
    /// This partition stops here; the others go on.
    PartitionError(PartitionFailure),
    /// The broker goes away.
    Drain {
        /// Time left until streams are cut.
        deadline_ms: u32,
    },
}

/// A partition by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
}

/// A partition given to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignedPartition {
    /// Which.
    pub place: Place,
    /// Topic id.
    pub topic_id: TopicId,
    /// First offset that will be sent.
    pub next_offset: i64,
    /// Leader epoch.
    pub leader_epoch: u32,
    /// Goes with every commit of this partition.
    pub assignment_epoch: u32,
}
