//! Every reason that a caller can bring about, with its code and its hint; and the server serves on.

use annals_wire::v1::{self, fetch_position::Start};
use tonic::{Code, Status};

use crate::support::{Site, check, fact, fetch, position, produce, record, site, site_with};

async fn produce_refused(site: &Site, request: v1::ProduceRequest) -> Status {
    site.producer().produce(request).await.expect_err("it is refused")
}

#[tokio::test]
async fn produce_is_refused_with_a_reason() {
    let site = site().await;
    site.store("t", &["a"]).await;
    let base = || produce("t", &["x"]);
    let big = "x".repeat(1 << 20);
    let half = "x".repeat(700 << 10);
    let cases = [
        (v1::ProduceRequest { topic: "a/b".into(), ..base() }, Code::InvalidArgument, "INVALID_NAME", "a/b"),
        (v1::ProduceRequest { topic: "__x".into(), ..base() }, Code::InvalidArgument, "INVALID_NAME", "__x"),
        (v1::ProduceRequest { topic: String::new(), ..base() }, Code::InvalidArgument, "INVALID_NAME", ""),
        (v1::ProduceRequest { records: vec![], ..base() }, Code::InvalidArgument, "MALFORMED", "records"),
        (
            v1::ProduceRequest { partition: Some(8), ..base() },
            Code::NotFound,
            "PARTITION_UNKNOWN",
            "it has 8",
        ),
        (v1::ProduceRequest { durability: 9, ..base() }, Code::InvalidArgument, "MALFORMED", "durability"),
        (produce("t", &[&big]), Code::InvalidArgument, "RECORD_TOO_LARGE", "at most"),
        (produce("t", &[&half, &half]), Code::InvalidArgument, "BATCH_TOO_LARGE", "Send several"),
        (
            v1::ProduceRequest { records_crc32: Some(1), ..base() },
            Code::InvalidArgument,
            "MALFORMED",
            "crc32",
        ),
        (
            v1::ProduceRequest { expected_next_offset: Some(7), ..base() },
            Code::Aborted,
            "EXPECTED_OFFSET_MISMATCH",
            "stands at 1",
        ),
        (
            v1::ProduceRequest { expected_next_offset: Some(1), partition: None, ..base() },
            Code::InvalidArgument,
            "MALFORMED",
            "partition",
        ),
        (
            v1::ProduceRequest {
                records: vec![v1::Record { offset_delta: Some(0), ..record("x") }],
                ..base()
            },
            Code::InvalidArgument,
            "MALFORMED",
            "",
        ),
        (
            v1::ProduceRequest { request_id: "r".repeat(129), ..base() },
            Code::InvalidArgument,
            "MALFORMED",
            "request_id",
        ),
    ];
    for (request, code, expected, hint) in cases {
        check(&produce_refused(&site, request).await, code, expected, hint);
    }
    assert_eq!(site.values("t", 0).await, [(0, "a".into())], "nothing was written");
    assert_eq!(site.store("t", &["b"]).await, 1, "the server still serves");
}

#[tokio::test]
async fn a_request_id_with_another_body_is_refused() {
    let site = site().await;
    let request = |value| v1::ProduceRequest { request_id: "id".into(), ..produce("t", &[value]) };
    site.producer().produce(request("a")).await.unwrap();
    let status = produce_refused(&site, request("b")).await;
    check(&status, Code::InvalidArgument, "REQUEST_ID_REUSED", "new id");
}

#[tokio::test]
async fn producers_are_refused_with_a_reason() {
    let site = site().await;
    let open = async || {
        let asked = v1::OpenProducerRequest { name: "loader".into() };
        site.producer().open_producer(asked).await.unwrap().into_inner()
    };
    let old = open().await;
    assert_eq!(old.window_batches, 64);
    let under = |producer: &v1::OpenProducerResponse, base_sequence, value| {
        let (producer_id, producer_epoch) = (producer.producer_id, producer.producer_epoch);
        let sequence = v1::ProducerSequence { producer_id, producer_epoch, base_sequence };
        v1::ProduceRequest { producer: Some(sequence), ..produce("t", &[value]) }
    };
    for duplicate in [false, true] {
        let stored = site.producer().produce(under(&old, 0, "a")).await.unwrap().into_inner();
        assert_eq!((stored.appends[0].base_offset, stored.appends[0].duplicate), (0, duplicate));
    }
    let gap = produce_refused(&site, under(&old, 2, "b")).await;
    check(&gap, Code::FailedPrecondition, "SEQUENCE_GAP", "1 is next");
    assert_eq!((fact(&gap, "sequence"), fact(&gap, "expected")), ("2".into(), "1".into()));
    let new = open().await;
    assert_eq!((new.producer_id, new.producer_epoch), (old.producer_id, 2));
    assert_eq!((new.positions[0].topic.as_str(), new.positions[0].next_sequence), ("t", 1));
    let fenced = produce_refused(&site, under(&old, 1, "b")).await;
    check(&fenced, Code::FailedPrecondition, "FENCED", "its epoch is 2");
    let nobody = v1::OpenProducerResponse { producer_id: 1, ..new.clone() };
    let expired = produce_refused(&site, under(&nobody, 0, "b")).await;
    check(&expired, Code::FailedPrecondition, "PRODUCER_EXPIRED", "Open a producer");
    assert_eq!(site.values("t", 0).await, [(0, "a".into())], "nothing else was written");
    site.producer().produce(under(&new, 1, "b")).await.unwrap();
}

#[tokio::test]
async fn without_auto_create_a_topic_has_to_be_there() {
    let site = site_with(|config| config.auto_create = false).await;
    let make = v1::CreateTopicRequest { topic: "orders".into(), ..Default::default() };
    site.topics().create_topic(make).await.unwrap();
    let status = produce_refused(&site, produce("ordrs", &["a"])).await;
    check(&status, Code::NotFound, "TOPIC_NOT_FOUND", "Did you mean \"orders\"?");
    assert_eq!(fact(&status, "did_you_mean"), "orders");
}

#[tokio::test]
async fn fetch_is_refused_with_a_reason() {
    let site = site().await;
    site.store("t", &["a", "b"]).await;
    let at = |start| v1::FetchRequest {
        positions: vec![v1::FetchPosition { start: Some(start), ..position("t", 0) }],
        ..Default::default()
    };
    let anywhere = v1::FetchPosition { partition: None, ..position("t", 0) };
    let cases = [
        (fetch("nowhere", 0), Code::NotFound, "TOPIC_NOT_FOUND", "annals topic list"),
        (fetch("t", 3), Code::OutOfRange, "OFFSET_AHEAD", "the next is 2"),
        (fetch("t", i64::MAX), Code::OutOfRange, "OFFSET_AHEAD", "the next is 2"),
        (fetch("t", -1), Code::InvalidArgument, "MALFORMED", ""),
        (at(Start::Anchor(9)), Code::InvalidArgument, "MALFORMED", "no anchor 9"),
        (v1::FetchRequest::default(), Code::InvalidArgument, "MALFORMED", "positions"),
        (
            v1::FetchRequest { positions: vec![anywhere], ..Default::default() },
            Code::InvalidArgument,
            "MALFORMED",
            "",
        ),
        (
            v1::FetchRequest {
                positions: vec![v1::FetchPosition { partition: Some(99), ..position("t", 0) }],
                ..Default::default()
            },
            Code::NotFound,
            "PARTITION_UNKNOWN",
            "it has 8",
        ),
    ];
    for (request, code, expected, hint) in cases {
        let status = site.consumer().fetch(request).await.expect_err("it is refused");
        check(&status, code, expected, hint);
    }
    // One bad partition beside a good one does not fail the call.
    let both = vec![position("t", 0), position("nowhere", 0)];
    let answer =
        site.consumer().fetch(v1::FetchRequest { positions: both, ..Default::default() }).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!((answer.slices.len(), answer.errors.len()), (1, 1));
    assert_eq!((answer.errors[0].reason.as_str(), answer.errors[0].code), ("TOPIC_NOT_FOUND", 5));
}

#[tokio::test]
async fn commits_are_refused_with_a_reason() {
    let site = site().await;
    site.store("t", &["a", "b"]).await;
    let commit = |position: v1::CommitPosition| v1::CommitOffsetsRequest {
        group: "g".into(),
        offsets: vec![v1::CommitPosition { topic: "t".into(), ..position }],
        ..Default::default()
    };
    let next = |next_offset| v1::CommitPosition { next_offset, ..Default::default() };
    site.offsets().commit_offsets(commit(next(1))).await.unwrap();
    let cases = [
        (commit(next(3)), Code::OutOfRange, "OFFSET_AHEAD", "next is 2"),
        (commit(next(0)), Code::Aborted, "EXPECTED_OFFSET_MISMATCH", "allow_backwards"),
        (commit(next(-1)), Code::InvalidArgument, "MALFORMED", ""),
        (
            commit(v1::CommitPosition { expected_offset: Some(0), ..next(2) }),
            Code::Aborted,
            "EXPECTED_OFFSET_MISMATCH",
            "stands at 1",
        ),
        (
            commit(v1::CommitPosition { topic_id: vec![9; 16].into(), ..next(2) }),
            Code::FailedPrecondition,
            "TOPIC_REPLACED",
            "made anew",
        ),
        (
            commit(v1::CommitPosition { topic_id: vec![9; 3].into(), ..next(2) }),
            Code::InvalidArgument,
            "MALFORMED",
            "16 bytes",
        ),
        (
            v1::CommitOffsetsRequest { group: "a b".into(), ..commit(next(2)) },
            Code::InvalidArgument,
            "INVALID_NAME",
            "a b",
        ),
    ];
    for (request, code, expected, hint) in cases {
        let status = site.offsets().commit_offsets(request).await.expect_err("it is refused");
        check(&status, code, expected, hint);
    }
    let status =
        site.groups().get_group(v1::GetGroupRequest { group: "gg".into() }).await.expect_err("no such group");
    check(&status, Code::NotFound, "GROUP_NOT_FOUND", "annals group list");
}

#[tokio::test]
async fn topic_calls_are_refused_with_a_reason() {
    let site = site().await;
    let make = |partitions| v1::CreateTopicRequest {
        topic: "t".into(),
        config: Some(v1::TopicConfig { partitions, ..Default::default() }),
        ..Default::default()
    };
    site.topics().create_topic(make(4)).await.unwrap();
    let status = site.topics().create_topic(make(5)).await.expect_err("it differs");
    check(&status, Code::AlreadyExists, "TOPIC_EXISTS", "annals topic describe t");
    let shrink = v1::UpdateTopicRequest {
        topic: "t".into(),
        config: Some(v1::TopicConfig { partitions: 3, ..Default::default() }),
        update_mask: None,
    };
    let status = site.topics().update_topic(shrink).await.expect_err("partitions only grow");
    check(&status, Code::InvalidArgument, "MALFORMED", "partitions");
    let odd = v1::UpdateTopicRequest {
        topic: "t".into(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["colour".into()] }),
        ..Default::default()
    };
    let status = site.topics().update_topic(odd).await.expect_err("no such setting");
    check(&status, Code::InvalidArgument, "MALFORMED", "colour");
    let delete = v1::DeleteTopicRequest { topic: "u".into(), ..Default::default() };
    let status = site.topics().delete_topic(delete).await.expect_err("no such topic");
    check(&status, Code::NotFound, "TOPIC_NOT_FOUND", "annals topic list");
}
