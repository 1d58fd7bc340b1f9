//! Between the messages of groups and their members, and the broker's plain values.

use annals_wire::v1::{self, consume_response::Event};
use prost::Message as _;

use super::{convert, refusal::Refusal, status};
use crate::{
    broker::{
        self, AssignedPartition, Error, GroupChange, GroupInfo, Join, MemberEvent, MemberInfo,
        OwnedPartition, Place,
    },
    state::{GroupStart, Subscription},
    sync::Arc,
};

/// A wish to be a member.
pub(super) fn join(asked: v1::ConsumeJoin, peer: Arc<str>) -> Result<Join, Refusal> {
    let topics = asked.topics.iter().map(|topic| Arc::from(topic.as_str()));
    let prefix = (!asked.topic_prefix.is_empty()).then(|| Arc::from(asked.topic_prefix.as_str()));
    Ok(Join {
        group: Arc::from(asked.group.as_str()),
        subscription: Subscription { topics: topics.collect(), prefix },
        member_name: asked.member_name,
        credit: asked.credit.map_or(0, |credit| credit.bytes),
        accept_codecs: convert::codecs(&asked.accept_codecs),
        skip_damaged: asked.skip_damaged,
        filter: convert::filter(asked.filter)?,
        peer,
    })
}

/// Partitions that a member names.
pub(super) fn places(named: Vec<v1::TopicPartition>) -> Vec<(String, u32)> {
    named.into_iter().map(|place| (place.topic, place.partition)).collect()
}

fn place(place: &Place) -> v1::TopicPartition {
    v1::TopicPartition { topic: place.topic.as_ref().into(), partition: place.partition }
}

/// What a member is told; `None` for a slice, which is not encoded here.
pub(super) fn event(event: MemberEvent) -> Option<Event> {
    Some(match event {
        MemberEvent::Slice(_) => return None,
        MemberEvent::Joined {
            member_id,
            generation,
            session_timeout_ms,
            heartbeat_interval_ms,
            revoke_timeout_ms,
        } => Event::Joined(v1::ConsumeJoined {
            member_id: member_id.as_ref().into(),
            generation,
            session_timeout_ms,
            heartbeat_interval_ms,
            revoke_timeout_ms,
        }),
        MemberEvent::Assigned { generation, partitions } => Event::Assigned(v1::ConsumeAssigned {
            generation,
            partitions: partitions.iter().map(assigned).collect(),
        }),
        MemberEvent::Revoked { places, deadline_ms } => {
            Event::Revoked(v1::ConsumeRevoked { partitions: places.iter().map(place).collect(), deadline_ms })
        }
        MemberEvent::Committed { commit_id, refused } => {
            Event::Committed(v1::ConsumeCommitted { commit_id, error: refused.as_ref().map(commit_error) })
        }
        MemberEvent::CaughtUp { topic, topic_id, partition, next_offset, leader_epoch } => {
            Event::CaughtUp(v1::CaughtUp {
                topic: topic.as_ref().into(),
                partition,
                next_offset,
                leader_epoch,
                topic_id: convert::id(topic_id),
            })
        }
        MemberEvent::Heartbeat { now_ms, watermarks } => Event::Heartbeat(v1::Heartbeat {
            now_ms,
            watermarks: watermarks.iter().map(convert::watermark).collect(),
        }),
        MemberEvent::PartitionError(failure) => Event::PartitionError(convert::partition_error(&failure)),
        MemberEvent::Drain { deadline_ms } => Event::Drain(v1::Drain { deadline_ms }),
    })
}

fn assigned(given: &AssignedPartition) -> v1::AssignedPartition {
    v1::AssignedPartition {
        topic: given.place.topic.as_ref().into(),
        partition: given.place.partition,
        next_offset: given.next_offset,
        leader_epoch: given.leader_epoch,
        assignment_epoch: given.assignment_epoch,
        topic_id: convert::id(given.topic_id),
    }
}

/// Why a commit was not stored; its place is that of the first position at fault, if it is one's fault.
fn commit_error(error: &Error) -> v1::PartitionError {
    let verdict = status::verdict(error);
    v1::PartitionError {
        topic: verdict.metadata.get("topic").cloned().unwrap_or_default(),
        partition: verdict.metadata.get("partition").and_then(|number| number.parse().ok()).unwrap_or(0),
        code: verdict.code.into(),
        reason: verdict.reason.into(),
        message: verdict.message,
        metadata: verdict.metadata,
    }
}

/// A group as it is.
#[expect(clippy::needless_pass_by_value, reason = "turned into, so that it can be named in a map")]
pub(super) fn group(info: GroupInfo) -> v1::Group {
    let settings = &info.settings;
    v1::Group {
        name: info.name.as_ref().into(),
        config: Some(v1::GroupConfig {
            start: match settings.start {
                GroupStart::Earliest => v1::GroupStart::Earliest.into(),
                GroupStart::Latest => v1::GroupStart::Latest.into(),
            },
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            session_timeout_ms: settings.session_timeout_ms,
            revoke_timeout_ms: settings.revoke_timeout_ms,
            filter: if settings.filter.is_empty() {
                None
            } else {
                v1::Filter::decode(settings.filter.clone()).ok()
            },
            gap: if settings.stop_at_gap { v1::GroupGap::Stop } else { v1::GroupGap::Continue }.into(),
        }),
        generation: info.generation,
        members: info.members.iter().map(member).collect(),
        topics: info.topics.iter().map(|topic| topic.as_ref().into()).collect(),
        committed_partitions: info.committed_partitions,
        last_commit_ms: info.last_commit_ms,
        member_count: info.member_count,
    }
}

/// A shadow group asked for.
pub(super) fn shadow(group: String, asked: v1::ShadowGroup) -> Result<broker::Shadow, Refusal> {
    let range = |range: v1::ShadowRange| broker::ShadowRange {
        topic: range.topic,
        partition: range.partition,
        from: range.from_offset,
        to: range.to_offset,
    };
    Ok(broker::Shadow {
        group,
        ranges: asked.ranges.into_iter().map(range).collect(),
        filter: asked.filter.map(broker::Filter::new).transpose()?.map(Arc::new),
        ttl_ms: asked.ttl_ms,
        allow_outputs: asked.allow_outputs,
    })
}

fn member(member: &MemberInfo) -> v1::GroupMember {
    let owned = |owned: &OwnedPartition| v1::GroupPartition {
        topic: owned.place.topic.as_ref().into(),
        partition: owned.place.partition,
        assignment_epoch: owned.assignment_epoch,
        revoking: owned.revoking,
    };
    v1::GroupMember {
        member_id: member.id.as_ref().into(),
        member_name: member.name.as_ref().into(),
        peer: member.peer.as_ref().into(),
        partitions: member.partitions.iter().map(owned).collect(),
    }
}

/// Settings asked for; what is unset is not among them.
pub(super) fn settings(config: &v1::GroupConfig) -> Result<GroupChange, Refusal> {
    let unknown = |field: &str, number: i32, known: &str| {
        Refusal::argument(format!("config.{field}"), format!("there is no value {number}; there are {known}"))
    };
    let start = match v1::GroupStart::try_from(config.start) {
        Ok(v1::GroupStart::Unspecified) => None,
        Ok(v1::GroupStart::Earliest) => Some(GroupStart::Earliest),
        Ok(v1::GroupStart::Latest) => Some(GroupStart::Latest),
        Err(_) => return Err(unknown("start", config.start, "EARLIEST (1) and LATEST (2)")),
    };
    let stop_at_gap = match v1::GroupGap::try_from(config.gap) {
        Ok(v1::GroupGap::Unspecified) => None,
        Ok(v1::GroupGap::Continue) => Some(false),
        Ok(v1::GroupGap::Stop) => Some(true),
        Err(_) => return Err(unknown("gap", config.gap, "CONTINUE (1) and STOP (2)")),
    };
    let set = |value: u32| (value != 0).then_some(value);
    Ok(GroupChange {
        start,
        heartbeat_interval_ms: set(config.heartbeat_interval_ms),
        session_timeout_ms: set(config.session_timeout_ms),
        revoke_timeout_ms: set(config.revoke_timeout_ms),
        stop_at_gap,
        filter: convert::filter(config.filter.clone())?,
    })
}

/// The changes that a mask lets through: no mask = every value that is set; a named value that is not set goes back to its
/// default.
pub(super) fn masked(values: GroupChange, paths: &[String]) -> Result<GroupChange, Refusal> {
    if paths.is_empty() {
        return Ok(values);
    }
    let defaults = crate::state::GroupSettings::default();
    let mut changes = GroupChange::default();
    for path in paths {
        match path.as_str() {
            "start" => changes.start = values.start.or(Some(defaults.start)),
            "heartbeat_interval_ms" => {
                changes.heartbeat_interval_ms =
                    values.heartbeat_interval_ms.or(Some(defaults.heartbeat_interval_ms));
            }
            "session_timeout_ms" => {
                changes.session_timeout_ms = values.session_timeout_ms.or(Some(defaults.session_timeout_ms));
            }
            "revoke_timeout_ms" => {
                changes.revoke_timeout_ms = values.revoke_timeout_ms.or(Some(defaults.revoke_timeout_ms));
            }
            "filter" => changes.filter.clone_from(&values.filter),
            "gap" => changes.stop_at_gap = values.stop_at_gap.or(Some(defaults.stop_at_gap)),
            _ => {
                return Err(Refusal::argument(
                    "update_mask",
                    format!(
                        "there is no setting {path:?}; there are start, heartbeat_interval_ms, session_timeout_ms, revoke_timeout_ms, gap and filter"
                    ),
                ));
            }
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_names_what_changes_and_what_goes_back_to_its_default() {
        let values = settings(&v1::GroupConfig { start: 2, session_timeout_ms: 1_500, ..Default::default() });
        let values = values.unwrap();
        assert_eq!(masked(values.clone(), &[]).unwrap(), values);
        let changes = masked(values.clone(), &["start".into(), "gap".into()]).unwrap();
        let expected = GroupChange {
            start: Some(GroupStart::Latest),
            stop_at_gap: Some(false),
            ..GroupChange::default()
        };
        assert_eq!(changes, expected);
        assert!(masked(values, &["strat".into()]).is_err());
        assert!(settings(&v1::GroupConfig { gap: 7, ..Default::default() }).is_err());
    }
}
