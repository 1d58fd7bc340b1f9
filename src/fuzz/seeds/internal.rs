//! Seeds of what the server keeps for itself: entries, snapshots, state.

use annals_wire::internal::{self, StateEntry, entry::Body, request_done, state_entry, state_image::Part};
use bytes::Bytes;
use prost::Message as _;

use super::{run, stored};
use crate::storage::fuzz::{PARTITION, TOPIC};

fn topic_id() -> Bytes {
    Bytes::copy_from_slice(TOPIC.as_bytes())
}

fn partitions() -> internal::Partitions {
    internal::Partitions {
        topic_id: topic_id(),
        count: PARTITION + 1,
        level: 3,
        segment_bytes: 1 << 20,
        interval_ms: 5,
        interval_bytes: 4096,
    }
}

/// Every kind of entry, in an order that a journal could have.
pub(super) fn journal() -> internal::Frame {
    let batch = stored(0, (3, 3), 0, &run(3));
    let end = 103 + batch.len() as u64;
    let segment = internal::SegmentRef { base: 0, generation: 0, location: String::new(), end: 0 };
    let list = internal::SegmentList {
        topic_id: topic_id(),
        partition: PARTITION,
        added: vec![segment],
        removed: vec![-1],
    };
    let inline = internal::InlineBatch {
        topic_id: topic_id(),
        partition: PARTITION,
        segment_base: 0,
        generation: 0,
        position: 103,
        batch: batch.into(),
    };
    let extent = internal::Extent {
        topic_id: topic_id(),
        partition: PARTITION,
        segment_base: 0,
        generation: 0,
        from: end,
        to: end + 100,
        first_offset: 3,
        next_offset: 5,
        last_epoch: 1,
        crc32: 9,
    };
    let start = internal::LogStart { topic_id: topic_id(), partition: PARTITION, log_start: 1 };
    let other = internal::Partitions { topic_id: Bytes::from_static(&[8; 16]), count: 1, ..partitions() };
    let removed = internal::PartitionsRemoved { topic_id: Bytes::from_static(&[8; 16]) };
    let bodies = [
        Body::Started(internal::Started { epoch: 1, time_ms: 1_700_000_000_000 }),
        Body::Partitions(partitions()),
        Body::Segments(list),
        Body::Batch(inline),
        Body::Extent(extent),
        Body::LogStart(start),
        Body::Partitions(other),
        Body::Removed(removed),
        Body::State(created().encode_to_vec().into()),
    ];
    numbered(bodies)
}

fn numbered(bodies: impl IntoIterator<Item = Body>) -> internal::Frame {
    let entry = |(number, body)| internal::Entry { number, may_ignore: false, body: Some(body) };
    internal::Frame { entries: (1..).zip(bodies).map(entry).collect() }
}

pub(super) fn snapshot() -> internal::Snapshot {
    let producer = internal::ProducerWindow {
        producer_id: 3,
        base_sequence: 7,
        record_counts: vec![2, 1],
        skipped: vec![1, 0],
        waited_ms: vec![1_700_000_000_000, 5],
        records_crc32: vec![0x1234_5678, 0x9abc_def0],
    };
    let section = internal::PartitionSection {
        producers: Some(internal::ProducerWindows { next_offset: 5, producers: vec![producer] }),
        number: 5,
        topic_id: topic_id(),
        partition: PARTITION,
        log_start: 0,
        next_offset: 5,
        end_position: 103,
        segments: Vec::new(),
        epochs: vec![internal::EpochStart { epoch: 1, offset: 0 }],
        append_time_ms: 1_700_000_000_000,
        unwritten: Vec::new(),
        closed: false,
    };
    internal::Snapshot {
        start: Some(internal::JournalPosition { sequence: 1, file: 1, position: 4096, previous_crc: 0 }),
        epoch: 1,
        highest_number: 6,
        topics: vec![internal::TopicSection { number: 4, partitions: Some(partitions()) }],
        partitions: vec![section],
        states: vec![internal::StateSection {
            number: 6,
            bytes: state_images().remove(0).encode_to_vec().into(),
        }],
        tombstones: vec![Bytes::from_static(&[8; 16])],
    }
}

fn topic_created() -> internal::TopicCreated {
    let settings = internal::TopicSettings {
        partitions: 8,
        durability: 3,
        segment_bytes: 1 << 20,
        interval_ms: 5,
        interval_bytes: 4096,
    };
    internal::TopicCreated {
        topic_id: topic_id(),
        name: "orders".into(),
        settings: Some(settings),
        created_ms: 17,
    }
}

fn state(body: state_entry::Body) -> StateEntry {
    StateEntry { may_ignore: false, body: Some(body) }
}

fn created() -> StateEntry {
    state(state_entry::Body::TopicCreated(topic_created()))
}

fn committed() -> internal::OffsetsCommitted {
    let position = internal::GroupPosition {
        topic_id: topic_id(),
        partition: 1,
        next_offset: 42,
        leader_epoch: 1,
        commit_time_ms: 18,
        metadata: "note".into(),
    };
    internal::OffsetsCommitted { group: "billing".into(), positions: vec![position] }
}

fn group_settings() -> internal::GroupSettings {
    internal::GroupSettings {
        start: 2,
        heartbeat_interval_ms: 500,
        session_timeout_ms: 1500,
        revoke_timeout_ms: 1000,
        ends: committed().positions,
        ..Default::default()
    }
}

fn group_moved() -> internal::GroupMoved {
    let member = internal::GroupMember {
        member_id: "m1".into(),
        name: "billing-a".into(),
        topics: vec!["orders".into()],
        topic_prefix: Some("shop.".into()),
    };
    let partitions = internal::GroupPartitions { topic_id: topic_id(), partitions: vec![1] };
    let assigned = internal::GroupAssigned {
        member_id: "m1".into(),
        topic_id: topic_id(),
        partitions: vec![0, 1],
        epochs: vec![3, 4],
    };
    internal::GroupMoved {
        group: "billing".into(),
        generation: 2,
        next_epoch: 5,
        left: vec!["m0".into()],
        joined: vec![member],
        released: vec![partitions.clone()],
        revoking: vec![partitions],
        assigned: vec![assigned],
    }
}

fn request_done(time_ms: i64) -> internal::RequestDone {
    let batch = internal::BatchDone { partition: 3, base_offset: 7, record_count: 2, ..Default::default() };
    let produced = internal::ProduceDone { topic_id: topic_id(), batches: vec![batch], ..Default::default() };
    internal::RequestDone {
        principal: "anyone".into(),
        request_id: format!("r{time_ms}"),
        time_ms,
        digest: Bytes::from_static(b"digest"),
        result: Some(request_done::Result::Produced(produced)),
    }
}

pub(super) fn state_frame() -> internal::Frame {
    use state_entry::Body as Kind;
    let settings =
        topic_created().settings.map(|settings| internal::TopicSettings { partitions: 9, ..settings });
    let entries = [
        created(),
        state(Kind::TopicChanged(internal::TopicChanged { topic_id: topic_id(), settings })),
        state(Kind::OffsetsCommitted(committed())),
        state(Kind::RequestDone(request_done(20))),
        state(Kind::RequestDone(request_done(21))),
        state(Kind::GroupConfigured(internal::GroupConfigured {
            group: "billing".into(),
            settings: Some(group_settings()),
        })),
        state(Kind::GroupMoved(group_moved())),
        state(Kind::GroupDeleted(internal::GroupDeleted { group: "billing".into() })),
        state(Kind::OffsetsCommitted(committed())),
        state(Kind::TopicDeleted(internal::TopicDeleted { topic_id: topic_id() })),
    ];
    numbered(entries.into_iter().map(|entry| Body::State(entry.encode_to_vec().into())))
}

pub(super) fn state_images() -> Vec<internal::StateImage> {
    let topic = internal::TopicImage { number: 4, topic: Some(topic_created()) };
    let group = internal::GroupImage {
        number: 5,
        group: Some(committed()),
        settings: Some(group_settings()),
        members: Some(group_moved()),
    };
    let requests = (20..23).map(|time| internal::RequestImage { number: 6, done: Some(request_done(time)) });
    let parts = [
        Part::Topics(internal::TopicsImage { topics: vec![topic] }),
        Part::Groups(internal::GroupsImage { groups: vec![group], first_epoch: 3 }),
        Part::Requests(internal::RequestsImage { latest_ms: 22, requests: requests.collect() }),
    ];
    parts.map(|part| internal::StateImage { may_ignore: false, part: Some(part) }).into()
}
