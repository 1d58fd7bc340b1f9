//! What can go wrong in a call, sorted by what the caller does about it.
//!
//! Every variant has a [`reason`](Error::reason) that never changes once served and carries what its hint needs;
//! `Display` says what happened, the value, and what to do next. Doors match it exhaustively, without wildcard.

use std::{fmt, time::Duration};

use annals_wire::ids::TopicId;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no such topic.
    TopicNotFound {
        /// Name asked for.
        topic: String,
        /// The nearest name there is, if one is near.
        did_you_mean: Option<String>,
    },
    /// The topic of this name is not the one that was meant: it was made anew.
    TopicReplaced {
        /// Name.
        topic: String,
        /// Id that was meant.
        meant: TopicId,
        /// Id it has now.
        now: TopicId,
    },
    /// A topic of this name exists with other settings.
    TopicExists {
        /// Name.
        topic: String,
        /// Which setting differs, and how.
        differs: String,
    },
    /// The topic has fewer partitions.
    PartitionUnknown {
        /// Topic.
        topic: String,
        /// Partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// There is no such group.
    GroupNotFound {
        /// Name asked for.
        group: String,
        /// The nearest name there is, if one is near.
        did_you_mean: Option<String>,
    },
    /// A name breaks the rules of names.
    InvalidName {
        /// Field that holds it.
        field: &'static str,
        /// The name, cut if long.
        name: String,
        /// Which rule.
        why: String,
    },
    /// A value is out of range, or does not go with another.
    InvalidArgument {
        /// Field, as in the request's schema.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// The bytes of a request do not hold what they should.
    Malformed {
        /// Field, as in the request's schema.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// One record is too large.
    RecordTooLarge {
        /// Its size in bytes.
        size: u64,
        /// Largest size.
        limit: u64,
    },
    /// The records for one partition are too large together, or too many.
    BatchTooLarge {
        /// Size in bytes, unpacked, or records, as `what` says.
        size: u64,
        /// Largest.
        limit: u64,
        /// What is counted: "bytes" or "records".
        what: &'static str,
    },
    /// The request is too large.
    RequestTooLarge {
        /// Its size in bytes.
        size: u64,
        /// Largest size.
        limit: u64,
    },
    /// The offset is no longer kept.
    OffsetTruncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset asked for.
        requested: i64,
        /// First offset kept.
        earliest: i64,
    },
    /// The offset does not exist yet.
    OffsetAhead {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset asked for.
        requested: i64,
        /// First offset that does not exist yet.
        next: i64,
    },
    /// What the reader has read was lost by a power cut; other records may have its offsets now.
    LogTruncated {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset asked for.
        requested: i64,
        /// First offset at which the logs differ.
        diverging: i64,
    },
    /// The expected offset does not hold.
    ExpectedOffsetMismatch {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset expected.
        expected: i64,
        /// Where it stands.
        actual: i64,
    },
    /// The commit would move the group back.
    CommitBackwards {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Offset to commit.
        requested: i64,
        /// Offset committed.
        committed: i64,
    },
    /// This request id came with another request before.
    RequestIdReused {
        /// The id.
        request_id: String,
    },
    /// The producer's next batch in this partition has another sequence.
    SequenceGap {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Sequence that came.
        sequence: u32,
        /// Sequence that has to come.
        expected: u32,
    },
    /// Somebody opened the producer since.
    ProducerFenced {
        /// Id of the producer.
        producer_id: i64,
        /// Epoch of the caller.
        epoch: u32,
        /// Epoch in force.
        current: u32,
    },
    /// There is no such producer, or not any more.
    ProducerExpired {
        /// Id of the producer.
        producer_id: i64,
    },
    /// The disk is full; service resumes by itself.
    DiskFull {
        /// When to try again.
        retry_delay: Duration,
    },
    /// Too much at once.
    Throttled {
        /// When to try again.
        retry_delay: Duration,
    },
    /// A flush or write of this partition failed: a restart recovers it.
    PartitionFenced {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
    },
    /// Whether the change was made will be known after the next start only.
    OutcomeUnknown,
    /// Offsets whose bytes do not verify.
    CorruptData {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// First bad offset.
        first: i64,
        /// Last bad offset, inclusive.
        last: i64,
    },
    /// The operating system could not read what is there.
    ReadFailed {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// What it said.
        why: String,
    },
    /// Who commits does not own the partition: it was given to somebody else, or was never given.
    NotOwner {
        /// Group.
        group: String,
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// Assignment epoch that the commit names.
        assignment_epoch: u32,
    },
    /// The member is out of its group.
    MemberOut {
        /// Group.
        group: String,
        /// Its id.
        member_id: String,
        /// Why.
        why: String,
    },
    /// A member of this name lives.
    MemberNameInUse {
        /// Group.
        group: String,
        /// The name.
        member_name: String,
    },
    /// The group has members, and what was asked for would go behind their backs.
    GroupHasMembers {
        /// Group.
        group: String,
        /// How many.
        members: usize,
        /// What to do about it.
        way_out: &'static str,
    },
    /// The group replays history, and a step would store what was made of that.
    ShadowGroup {
        /// Name.
        group: String,
    },
    /// A group of this name exists with other settings.
    GroupExists {
        /// Name.
        group: String,
        /// Which setting differs, and how.
        differs: String,
    },
    /// A limit of the server is reached.
    LimitReached {
        /// What there may be no more of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// The server goes away.
    ShuttingDown {
        /// When to try again.
        retry_delay: Duration,
    },
}

impl Error {
    /// The machine-readable reason; a promise to clients.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TopicNotFound { .. } => "TOPIC_NOT_FOUND",
            Self::TopicReplaced { .. } => "TOPIC_REPLACED",
            Self::TopicExists { .. } => "TOPIC_EXISTS",
            Self::PartitionUnknown { .. } => "PARTITION_UNKNOWN",
            Self::GroupNotFound { .. } => "GROUP_NOT_FOUND",
            Self::InvalidName { .. } => "INVALID_NAME",
            Self::InvalidArgument { .. } | Self::Malformed { .. } => "MALFORMED",
            Self::RecordTooLarge { .. } => "RECORD_TOO_LARGE",
            Self::BatchTooLarge { .. } => "BATCH_TOO_LARGE",
            Self::RequestTooLarge { .. } => "REQUEST_TOO_LARGE",
            Self::OffsetTruncated { .. } => "OFFSET_TRUNCATED",
            Self::OffsetAhead { .. } => "OFFSET_AHEAD",
            Self::LogTruncated { .. } => "LOG_TRUNCATED",
            Self::ExpectedOffsetMismatch { .. } | Self::CommitBackwards { .. } => "EXPECTED_OFFSET_MISMATCH",
            Self::RequestIdReused { .. } => "REQUEST_ID_REUSED",
            Self::SequenceGap { .. } => "SEQUENCE_GAP",
            Self::ProducerFenced { .. } | Self::NotOwner { .. } | Self::MemberOut { .. } => "FENCED",
            Self::ProducerExpired { .. } => "PRODUCER_EXPIRED",
            Self::DiskFull { .. } => "DISK_FULL",
            Self::Throttled { .. } => "THROTTLED",
            Self::PartitionFenced { .. } => "PARTITION_FENCED",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
            Self::CorruptData { .. } => "CORRUPT_DATA",
            Self::ReadFailed { .. } => "READ_FAILED",
            Self::MemberNameInUse { .. } => "MEMBER_NAME_IN_USE",
            Self::GroupHasMembers { .. } => "GROUP_HAS_MEMBERS",
            Self::GroupExists { .. } => "GROUP_EXISTS",
            Self::ShadowGroup { .. } => "SHADOW_GROUP",
            Self::LimitReached { .. } => "LIMIT_REACHED",
            Self::ShuttingDown { .. } => "SHUTTING_DOWN",
        }
    }

    /// When the same call may succeed without anybody doing anything.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::DiskFull { retry_delay }
            | Self::Throttled { retry_delay }
            | Self::ShuttingDown { retry_delay } => Some(*retry_delay),
            _ => None,
        }
    }

    pub(crate) fn argument(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), why: why.into() }
    }
}

fn hint(f: &mut fmt::Formatter<'_>, did_you_mean: Option<&String>) -> fmt::Result {
    did_you_mean.map_or(Ok(()), |name| write!(f, " Did you mean {name:?}?"))
}

impl fmt::Display for Error {
    #[expect(clippy::too_many_lines, reason = "one sentence for each variant, in one place")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopicNotFound { topic, did_you_mean } => {
                write!(f, "topic {topic:?} not found.")?;
                hint(f, did_you_mean.as_ref())?;
                f.write_str(" List: annals topic list")
            }
            Self::TopicReplaced { topic, meant, now } => write!(
                f,
                "topic {topic:?} was deleted and made anew: its id is {now}, not {meant}. Read it from its start under the new id"
            ),
            Self::TopicExists { topic, differs } => {
                write!(f, "topic {topic:?} exists with other settings: {differs}. See: annals topic describe {topic}")
            }
            Self::PartitionUnknown { topic, partition, partitions } => write!(
                f,
                "topic {topic:?} has no partition {partition}: it has {partitions}, from 0. See: annals topic describe {topic}"
            ),
            Self::GroupNotFound { group, did_you_mean } => {
                write!(f, "group {group:?} not found.")?;
                hint(f, did_you_mean.as_ref())?;
                f.write_str(" List: annals group list")
            }
            Self::InvalidName { field, name, why } => write!(f, "{field} {name:?} is not a valid name: {why}"),
            Self::InvalidArgument { field, why } => write!(f, "{field}: {why}"),
            Self::Malformed { field, why } => write!(f, "malformed {field}: {why}"),
            Self::RecordTooLarge { size, limit } => {
                write!(f, "a record of {size} bytes; at most {limit} are taken. Store large bodies elsewhere and send a reference")
            }
            Self::BatchTooLarge { size, limit, what } => {
                write!(f, "{size} {what} for one partition; at most {limit} are taken in a request. Send several requests")
            }
            Self::RequestTooLarge { size, limit } => {
                write!(f, "a request of {size} bytes; at most {limit} are taken. Send several requests")
            }
            Self::OffsetTruncated { topic, partition, requested, earliest } => write!(
                f,
                "offset {requested} of {topic}[{partition}] is no longer kept: the first is {earliest}. Read from {earliest} or from the end"
            ),
            Self::OffsetAhead { topic, partition, requested, next } => write!(
                f,
                "offset {requested} of {topic}[{partition}] does not exist yet: the next is {next}. Read or commit up to {next}"
            ),
            Self::LogTruncated { topic, partition, requested, diverging } => write!(
                f,
                "{topic}[{partition}] lost records to a power cut: what was read below {requested} differs from offset {diverging} on. Read on from {diverging}"
            ),
            Self::ExpectedOffsetMismatch { topic, partition, expected, actual } => write!(
                f,
                "{topic}[{partition}] stands at {actual}, not at the expected {expected}. Read what came between, then decide again"
            ),
            Self::CommitBackwards { topic, partition, requested, committed } => write!(
                f,
                "{topic}[{partition}] is committed at {committed}; {requested} would move back. To read again on purpose, commit with allow_backwards"
            ),
            Self::RequestIdReused { request_id } => {
                write!(f, "request id {request_id:?} came with another request before. Use a new id for each new request")
            }
            Self::SequenceGap { topic, partition, sequence, expected } => write!(
                f,
                "sequence {sequence} came for {topic}[{partition}], where {expected} is next, and no batch of the last 64 is it. Send what came before first; what lies further back is stored"
            ),
            Self::ProducerFenced { producer_id, epoch, current } => write!(
                f,
                "producer {producer_id} was opened by somebody else: its epoch is {current}, not {epoch}. Stop, or open it again if this is the one to go on"
            ),
            Self::ProducerExpired { producer_id } => write!(
                f,
                "producer {producer_id} is not known, or was not used for so long that it is not known any more. Open a producer"
            ),
            Self::DiskFull { retry_delay } => write!(
                f,
                "the disk is full; reading and committing go on, and writing resumes by itself when there is space. Try again in {} ms",
                retry_delay.as_millis()
            ),
            Self::Throttled { retry_delay } => {
                write!(f, "more is being written than the disk takes. Try again in {} ms", retry_delay.as_millis())
            }
            Self::PartitionFenced { topic, partition } => write!(
                f,
                "{topic}[{partition}] takes no more records: the disk failed to store some. Restart the server; it recovers what was acked"
            ),
            Self::OutcomeUnknown => f.write_str(
                "the disk failed or the server stopped before the answer: it may or may not be stored. Only a request with a request_id can be sent again safely",
            ),
            Self::CorruptData { topic, partition, first, last } => write!(
                f,
                "offsets {first} to {last} of {topic}[{partition}] are damaged on disk. Read on from {}, or ask with skip_damaged",
                last.saturating_add(1)
            ),
            Self::ReadFailed { topic, partition, why } => {
                write!(f, "{topic}[{partition}] cannot be read: {why}. Look at the disk: annals log verify DIR")
            }
            Self::NotOwner { group, topic, partition, assignment_epoch } => write!(
                f,
                "{topic}[{partition}] is not this member's under assignment epoch {assignment_epoch}: group {group:?} has given it to somebody else, or anew. Nothing was committed; go on with what `assigned` last gave, or join again"
            ),
            Self::MemberOut { group, member_id, why } => write!(
                f,
                "member {member_id} is out of group {group:?}: {why}. Its partitions are others' by now; join again"
            ),
            Self::MemberNameInUse { group, member_name } => write!(
                f,
                "a member of group {group:?} is called {member_name:?} and lives. Take another name, or stop that member first; see: annals group describe {group}"
            ),
            Self::GroupHasMembers { group, members, way_out } => write!(
                f,
                "group {group:?} has {members} live member{}. {way_out}; see: annals group describe {group}",
                if *members == 1 { "" } else { "s" }
            ),
            Self::ShadowGroup { group } => write!(
                f,
                "group {group:?} replays history, and this step would store outputs again. Nothing was stored or committed; if that is what you want, make the group with allow_outputs (annals replay --into-group NAME --allow-outputs)"
            ),
            Self::GroupExists { group, differs } => {
                write!(f, "group {group:?} exists with other settings: {differs}. See: annals group describe {group}")
            }
            Self::LimitReached { what, limit } => write!(f, "no more {what}: the limit is {limit}"),
            Self::ShuttingDown { retry_delay } => {
                write!(f, "the server is shutting down. Try again in {} ms", retry_delay.as_millis())
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_the_value_and_the_next_step() {
        let error = Error::TopicNotFound { topic: "ordrs".into(), did_you_mean: Some("orders".into()) };
        assert_eq!(
            error.to_string(),
            r#"topic "ordrs" not found. Did you mean "orders"? List: annals topic list"#
        );
        let error = Error::OffsetTruncated { topic: "t".into(), partition: 3, requested: 5, earliest: 9 };
        assert_eq!(error.reason(), "OFFSET_TRUNCATED");
        assert!(error.to_string().contains("Read from 9"), "{error}");
    }

    #[test]
    fn only_what_heals_by_itself_names_a_delay() {
        let delay = Duration::from_millis(200);
        assert_eq!(Error::DiskFull { retry_delay: delay }.retry_delay(), Some(delay));
        assert_eq!(Error::OutcomeUnknown.retry_delay(), None);
    }
}
