//! Between the messages of the API and the broker's plain values. No decisions here, only names.

use std::time::Duration;

use annals_wire::{ids::TopicId, v1};
use bytes::Bytes;

use super::{refusal::Refusal, status};
use crate::{
    broker::{
        self, CodecSet, CommittedOffset, Filter, PartitionFailure, PartitionLeader, Start, TopicInfo,
        TopicSettings, Watermark,
    },
    storage::{Gap, GapReason, Level},
    sync::Arc,
};

/// Positions of a fetch or a subscription.
pub(super) fn positions(asked: Vec<v1::FetchPosition>) -> Result<Vec<broker::Position>, Refusal> {
    asked.into_iter().enumerate().map(|(index, asked)| position(index, asked)).collect()
}

fn position(index: usize, asked: v1::FetchPosition) -> Result<broker::Position, Refusal> {
    use v1::fetch_position::Start as Asked;
    let start = match asked.start {
        None => Start::Earliest,
        Some(Asked::Offset(offset)) => Start::Offset(offset),
        Some(Asked::TimestampMs(time)) => Start::Timestamp(time),
        Some(Asked::Anchor(anchor)) => match v1::Anchor::try_from(anchor) {
            Ok(v1::Anchor::Unspecified | v1::Anchor::Earliest) => Start::Earliest,
            Ok(v1::Anchor::Latest) => Start::Latest,
            Err(_) => {
                return Err(Refusal::argument(
                    format!("positions[{index}].anchor"),
                    format!("there is no anchor {anchor}; there are EARLIEST (1) and LATEST (2)"),
                ));
            }
        },
        Some(Asked::LastRecords(count)) => Start::LastRecords(count),
        Some(Asked::CommittedBy(group)) => Start::CommittedBy(group),
    };
    Ok(broker::Position {
        topic: asked.topic,
        partition: asked.partition,
        start,
        last_epoch: asked.last_epoch,
    })
}

/// Codecs that a reader names; ones that do not exist yet are none of our business.
pub(super) fn codecs(named: &[i32]) -> CodecSet {
    let has = |codec: v1::Codec| named.contains(&codec.into());
    CodecSet { lz4: has(v1::Codec::Lz4), zstd: has(v1::Codec::Zstd) }
}

/// What a fetch asks for; its wait ends early enough for an empty answer to arrive before the caller's deadline.
pub(super) fn fetch(asked: v1::FetchRequest, timeout: Option<Duration>) -> Result<broker::Fetch, Refusal> {
    let wait = Duration::from_millis(asked.max_wait_ms.into());
    let max_wait =
        timeout.map_or(wait, |timeout| wait.min(timeout.saturating_sub((timeout / 10).max(EARLY))));
    Ok(broker::Fetch {
        positions: positions(asked.positions)?,
        max_wait,
        min_bytes: asked.min_bytes,
        max_bytes: asked.max_bytes,
        accept_codecs: codecs(&asked.accept_codecs),
        skip_damaged: asked.skip_damaged,
        filter: filter(asked.filter)?,
    })
}

pub(super) fn filter(asked: Option<v1::Filter>) -> Result<Option<Arc<Filter>>, Refusal> {
    Ok(asked.map(Filter::new).transpose()?.map(Arc::new))
}

/// How long before its caller's deadline a long poll ends at least.
const EARLY: Duration = Duration::from_millis(20);

/// What a subscription asks for.
pub(super) fn subscribe(asked: v1::SubscribeRequest) -> Result<broker::Subscribe, Refusal> {
    Ok(broker::Subscribe {
        positions: positions(asked.positions)?,
        max_bytes: asked.max_bytes,
        accept_codecs: codecs(&asked.accept_codecs),
        skip_damaged: asked.skip_damaged,
        filter: filter(asked.filter)?,
    })
}

/// A level's name on the wire.
pub(super) fn durability(level: Level) -> v1::Durability {
    match level {
        Level::Os => v1::Durability::Os,
        Level::Interval => v1::Durability::Interval,
        Level::Fsync => v1::Durability::Fsync,
    }
}

/// A level by its number on the wire; `None` = not said.
pub(super) fn level(field: &str, number: i32) -> Result<Option<Level>, Refusal> {
    match v1::Durability::try_from(number) {
        Ok(v1::Durability::Unspecified) => Ok(None),
        Ok(v1::Durability::Os) => Ok(Some(Level::Os)),
        Ok(v1::Durability::Interval) => Ok(Some(Level::Interval)),
        Ok(v1::Durability::Fsync) => Ok(Some(Level::Fsync)),
        Err(_) => Err(Refusal::argument(
            field,
            format!("there is no durability {number}; there are OS (1), INTERVAL (2) and FSYNC (3)"),
        )),
    }
}

/// A topic id that may be left out.
pub(super) fn topic_id(field: &str, bytes: &[u8]) -> Result<Option<TopicId>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    TopicId::from_slice(bytes).map(Some).ok_or_else(|| {
        Refusal::argument(
            field,
            format!("a topic id is 16 bytes, not {}; leave it empty if you have none", bytes.len()),
        )
    })
}

/// Sixteen bytes of an id.
pub(super) fn id(topic: TopicId) -> Bytes {
    Bytes::copy_from_slice(topic.as_bytes())
}

/// Where a partition stands, within a heartbeat.
pub(super) fn watermark(watermark: &Watermark) -> v1::PartitionWatermark {
    v1::PartitionWatermark {
        topic: watermark.topic.as_ref().into(),
        partition: watermark.partition,
        high_watermark: watermark.high_watermark,
        next_offset: watermark.next_offset,
        leader_epoch: watermark.leader_epoch,
        topic_id: id(watermark.topic_id),
    }
}

/// A partition's failure within an answer.
pub(super) fn partition_error(failure: &PartitionFailure) -> v1::PartitionError {
    let verdict = status::verdict(&failure.error);
    v1::PartitionError {
        topic: failure.topic.as_ref().into(),
        partition: failure.partition,
        code: verdict.code.into(),
        reason: verdict.reason.into(),
        message: verdict.message,
        metadata: verdict.metadata,
    }
}

/// Offsets that were stepped over.
pub(super) fn gap(gap: &Gap) -> v1::OffsetGap {
    let reason = match gap.reason {
        GapReason::Damaged => v1::GapReason::Damaged,
        GapReason::Removed => v1::GapReason::Removed,
        GapReason::Lost => v1::GapReason::Lost,
    };
    v1::OffsetGap { first_offset: gap.first, last_offset: gap.last, reason: reason.into() }
}

/// A topic as it is.
#[expect(clippy::needless_pass_by_value, reason = "turned into, so that it can be named in a map")]
pub(super) fn topic(info: TopicInfo) -> v1::Topic {
    let partitions = info.partitions.iter().map(|partition| v1::PartitionInfo {
        partition: partition.partition,
        log_start_offset: partition.log_start_offset,
        high_watermark: partition.high_watermark,
        bytes: signed(partition.bytes),
        leader_epoch: partition.leader_epoch,
    });
    v1::Topic {
        name: info.name.as_ref().into(),
        topic_id: id(info.topic_id),
        config: Some(v1::TopicConfig {
            partitions: u32::try_from(info.partitions.len()).unwrap_or(u32::MAX),
            durability: durability(info.level).into(),
            segment_bytes: Some(signed(info.segment_bytes)),
            interval_ms: Some(info.interval_ms),
            interval_bytes: Some(signed(info.interval_bytes)),
        }),
        created_ms: info.created_ms,
        partitions: partitions.collect(),
    }
}

/// Settings asked for, under the field `config`.
pub(super) fn settings(config: &v1::TopicConfig) -> Result<TopicSettings, Refusal> {
    Ok(TopicSettings {
        partitions: (config.partitions != 0).then_some(config.partitions),
        level: level("config.durability", config.durability)?,
        segment_bytes: unsigned("config.segment_bytes", config.segment_bytes)?,
        interval_ms: config.interval_ms,
        interval_bytes: unsigned("config.interval_bytes", config.interval_bytes)?,
    })
}

/// A committed position.
pub(super) fn committed(offset: CommittedOffset) -> v1::CommittedOffset {
    v1::CommittedOffset {
        topic: offset.topic.as_ref().into(),
        partition: offset.partition,
        next_offset: offset.next_offset,
        lag_records: offset.lag_records,
        lag_ms: offset.lag_ms,
        commit_time_ms: offset.commit_time_ms,
        metadata: offset.metadata,
        leader_epoch: offset.leader_epoch,
        topic_id: id(offset.topic_id),
    }
}

/// A position to commit.
pub(super) fn commit_position(
    index: usize,
    position: v1::CommitPosition,
) -> Result<broker::CommitPosition, Refusal> {
    Ok(broker::CommitPosition {
        topic_id: topic_id(&format!("offsets[{index}].topic_id"), &position.topic_id)?,
        topic: position.topic,
        partition: position.partition,
        next_offset: position.next_offset,
        expected_offset: position.expected_offset,
        leader_epoch: position.leader_epoch,
        metadata: position.metadata,
        assignment_epoch: position.assignment_epoch,
    })
}

/// Who leads a partition: always this node.
#[expect(clippy::needless_pass_by_value, reason = "turned into, so that it can be named in a map")]
pub(super) fn leader(leader: PartitionLeader) -> v1::PartitionLeader {
    v1::PartitionLeader {
        topic: leader.topic.as_ref().into(),
        partition: leader.partition,
        node_id: super::server_info::NODE,
        leader_epoch: leader.leader_epoch,
        topic_id: id(leader.topic_id),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(field: &str, value: Option<i64>) -> Result<Option<u64>, Refusal> {
    value
        .map(|value| {
            u64::try_from(value).map_err(|_| Refusal::argument(field, format!("{value} is below zero")))
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(max_wait_ms: u32, timeout: Option<u64>) -> Duration {
        let asked = v1::FetchRequest { max_wait_ms, ..Default::default() };
        fetch(asked, timeout.map(Duration::from_millis)).unwrap().max_wait
    }

    #[test]
    fn a_long_poll_ends_before_its_caller_s_deadline() {
        assert_eq!(wait(5_000, None), Duration::from_secs(5));
        assert_eq!(wait(5_000, Some(60_000)), Duration::from_secs(5));
        assert_eq!(wait(5_000, Some(5_000)), Duration::from_millis(4_500));
        assert_eq!(wait(5_000, Some(100)), Duration::from_millis(80));
        assert_eq!(wait(5_000, Some(10)), Duration::ZERO);
    }

    #[test]
    fn odd_numbers_name_their_field() {
        let asked =
            v1::FetchPosition { start: Some(v1::fetch_position::Start::Anchor(9)), ..Default::default() };
        let refused = positions(vec![v1::FetchPosition::default(), asked]).unwrap_err();
        assert!(
            matches!(refused, Refusal::Broker(broker::Error::InvalidArgument { field, .. }) if field == "positions[1].anchor")
        );
        let config = v1::TopicConfig { segment_bytes: Some(-1), ..Default::default() };
        assert!(settings(&config).is_err());
        assert!(topic_id("topic_id", &[1, 2]).is_err());
        assert_eq!(topic_id("topic_id", &[]).unwrap(), None);
        assert!(level("durability", 7).is_err());
    }
}
