//! Seeds of what groups and their members are asked and told.

use annals_wire::v1::{self, consume_request::Command};
use bytes::Bytes;

use super::{Seed, TOPIC, messages};

fn position() -> v1::CommitPosition {
    v1::CommitPosition {
        topic: "orders".into(),
        partition: 1,
        next_offset: 7,
        expected_offset: Some(3),
        leader_epoch: Some(1),
        metadata: "note".into(),
        topic_id: Bytes::copy_from_slice(TOPIC.as_bytes()),
        assignment_epoch: 9,
    }
}

/// Commits, settings, and what a member says.
pub(super) fn requests() -> Vec<Seed> {
    let commit = v1::CommitOffsetsRequest {
        group: "billing".into(),
        offsets: vec![position()],
        allow_backwards: true,
        member_id: "m1".into(),
        override_members: true,
    };
    let config = v1::GroupConfig {
        start: 2,
        heartbeat_interval_ms: 500,
        session_timeout_ms: 1500,
        revoke_timeout_ms: 1000,
        gap: 2,
        filter: Some(v1::Filter { key: Some("k".into()), ..Default::default() }),
    };
    let mask = prost_types::FieldMask { paths: vec!["start".into(), "gap".into()] };
    let group =
        v1::UpdateGroupRequest { group: "billing".into(), config: Some(config), update_mask: Some(mask) };
    let join = v1::ConsumeJoin {
        group: "billing".into(),
        topics: vec!["orders".into()],
        topic_prefix: "shop.".into(),
        member_name: "one".into(),
        credit: Some(v1::ConsumeCredit { bytes: 1 << 20 }),
        accept_codecs: vec![1, 2],
        filter: None,
        skip_damaged: true,
    };
    let partitions = vec![v1::TopicPartition { topic: "orders".into(), partition: 1 }];
    let commands = [
        Command::Join(join),
        Command::Commit(v1::ConsumeCommit { commit_id: 5, offsets: vec![position()] }),
        Command::Released(v1::ConsumeReleased { partitions }),
    ];
    let says = commands.map(|command| v1::ConsumeRequest { command: Some(command) });
    [messages("commit", [commit]), messages("group", [group]), messages("member", says)].concat()
}
