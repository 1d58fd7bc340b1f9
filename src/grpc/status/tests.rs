//! Every reason has a status, and every status says what a caller needs.

use std::collections::HashSet;

use annals_wire::ids::TopicId;
use tonic_types::StatusExt as _;

use super::*;

/// One error of each kind, with the code it must have.
fn errors() -> Vec<(Error, Code)> {
    let topic = || "orders".to_owned();
    let retry_delay = Duration::from_millis(250);
    vec![
        (Error::TopicNotFound { topic: topic(), did_you_mean: Some("order".into()) }, Code::NotFound),
        (
            Error::TopicReplaced { topic: topic(), meant: TopicId([1; 16]), now: TopicId([2; 16]) },
            Code::FailedPrecondition,
        ),
        (Error::TopicExists { topic: topic(), differs: "partitions".into() }, Code::AlreadyExists),
        (Error::PartitionUnknown { topic: topic(), partition: 9, partitions: 8 }, Code::NotFound),
        (Error::GroupNotFound { group: "g".into(), did_you_mean: None }, Code::NotFound),
        (
            Error::InvalidName { field: "topic", name: "a/b".into(), why: "it holds /".into() },
            Code::InvalidArgument,
        ),
        (Error::InvalidArgument { field: "positions".into(), why: "none".into() }, Code::InvalidArgument),
        (Error::Malformed { field: "records".into(), why: "odd".into() }, Code::InvalidArgument),
        (Error::RecordTooLarge { size: 2, limit: 1 }, Code::InvalidArgument),
        (Error::BatchTooLarge { size: 2, limit: 1, what: "bytes" }, Code::InvalidArgument),
        (Error::RequestTooLarge { size: 2, limit: 1 }, Code::InvalidArgument),
        (
            Error::OffsetTruncated { topic: topic(), partition: 1, requested: 0, earliest: 5 },
            Code::OutOfRange,
        ),
        (Error::OffsetAhead { topic: topic(), partition: 1, requested: 9, next: 5 }, Code::OutOfRange),
        (Error::LogTruncated { topic: topic(), partition: 1, requested: 9, diverging: 5 }, Code::OutOfRange),
        (
            Error::ExpectedOffsetMismatch { topic: topic(), partition: 1, expected: 9, actual: 5 },
            Code::Aborted,
        ),
        (Error::CommitBackwards { topic: topic(), partition: 1, requested: 1, committed: 5 }, Code::Aborted),
        (Error::RequestIdReused { request_id: "r".into() }, Code::InvalidArgument),
        (
            Error::SequenceGap { topic: topic(), partition: 1, sequence: 9, expected: 5 },
            Code::FailedPrecondition,
        ),
        (Error::ProducerFenced { producer_id: 7, epoch: 1, current: 2 }, Code::FailedPrecondition),
        (Error::ProducerExpired { producer_id: 7 }, Code::FailedPrecondition),
        (Error::DiskFull { retry_delay }, Code::ResourceExhausted),
        (Error::Throttled { retry_delay }, Code::ResourceExhausted),
        (Error::PartitionFenced { topic: topic(), partition: 1 }, Code::FailedPrecondition),
        (Error::OutcomeUnknown, Code::Unavailable),
        (Error::CorruptData { topic: topic(), partition: 1, first: 3, last: 4 }, Code::DataLoss),
        (Error::ReadFailed { topic: topic(), partition: 1, why: "EIO".into() }, Code::DataLoss),
        (
            Error::NotOwner { group: "g".into(), topic: topic(), partition: 1, assignment_epoch: 3 },
            Code::FailedPrecondition,
        ),
        (
            Error::MemberOut { group: "g".into(), member_id: "m".into(), why: "silent".into() },
            Code::FailedPrecondition,
        ),
        (Error::MemberNameInUse { group: "g".into(), member_name: "m".into() }, Code::FailedPrecondition),
        (Error::ShadowGroup { group: "g".into() }, Code::FailedPrecondition),
        (Error::GroupHasMembers { group: "g".into(), members: 2, way_out: "Wait" }, Code::FailedPrecondition),
        (Error::GroupExists { group: "g".into(), differs: "start".into() }, Code::AlreadyExists),
        (Error::LimitReached { what: "topics", limit: 3 }, Code::ResourceExhausted),
        (Error::ShuttingDown { retry_delay }, Code::Unavailable),
    ]
}

#[test]
fn every_error_has_its_code_its_reason_and_what_its_code_asks_for() {
    for (error, code) in errors() {
        let status = Status::from(error.clone());
        assert_eq!(status.code(), code, "{error:?}");
        assert_eq!(status.message(), error.to_string());
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{error:?} has no ErrorInfo"));
        assert_eq!((info.reason.as_str(), info.domain.as_str()), (error.reason(), DOMAIN));
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, error.retry_delay(), "{error:?}");
        assert_eq!(details.bad_request().is_some(), code == Code::InvalidArgument, "{error:?}");
        assert_eq!(details.precondition_failure().is_some(), code == Code::FailedPrecondition, "{error:?}");
    }
}

#[test]
fn every_reason_is_in_the_catalogue_with_its_code() {
    let catalogue = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md")).unwrap();
    let mut seen = HashSet::new();
    let doors = [
        Refusal::MethodUnknown { path: "/x".into() },
        Refusal::EncodingUnsupported { encoding: "gzip".into() },
        Refusal::DeadlineExceeded { timeout: Duration::from_secs(1), may_have_happened: true },
        Refusal::Stalled { silence: Duration::from_secs(1) },
        Refusal::Disconnected,
        Refusal::Recovering,
        Refusal::Framework { code: Code::NotFound, message: "unknown service".into() },
        Refusal::Framework { code: Code::Unknown, message: "odd".into() },
    ];
    let verdicts = errors().into_iter().map(|(error, _)| verdict(&error)).chain(doors.map(door_verdict));
    for verdict in verdicts {
        let code = match verdict.code {
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Aborted => "ABORTED",
            Code::OutOfRange => "OUT_OF_RANGE",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Unavailable => "UNAVAILABLE",
            Code::DataLoss => "DATA_LOSS",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::Cancelled => "CANCELLED",
            Code::Unknown => "UNKNOWN",
            other => panic!("{other:?} is not a code of ours"),
        };
        let row = format!("| `{}` | {code} |", verdict.reason);
        assert!(catalogue.contains(&row), "docs/errors.md lacks a row that begins {row}");
        seen.insert(verdict.reason);
    }
    let rows = catalogue.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, seen.len(), "docs/errors.md has rows for reasons that do not exist");
}

#[test]
fn numbers_of_the_sentence_are_in_the_metadata() {
    let status =
        Status::from(Error::OffsetTruncated { topic: "t".into(), partition: 3, requested: 1, earliest: 9 });
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    for (name, value) in [("topic", "t"), ("partition", "3"), ("requested", "1"), ("earliest", "9")] {
        assert_eq!(metadata.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn a_bad_field_is_named_by_its_path() {
    let status = Status::from(Refusal::argument("positions[3].anchor", "there is no anchor 9"));
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "positions[3].anchor");
    assert!(violation.description.contains("there is no anchor 9"));
}

/// Whoever cancelled has gone, and a fault of ours cannot be made to happen.
#[test]
fn what_nobody_can_hear_over_a_connection_is_said_all_the_same() {
    let odd = Refusal::Framework { code: Code::Unknown, message: "odd".into() };
    for (refusal, code, reason) in
        [(Refusal::Disconnected, Code::Cancelled, "CANCELLED"), (odd, Code::Unknown, "INTERNAL")]
    {
        let status = Status::from(refusal);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, DOMAIN));
        assert!(!status.message().is_empty());
    }
}
