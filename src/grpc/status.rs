//! The one place where an error becomes a gRPC status.
//!
//! | part | when |
//! |---|---|
//! | code and sentence | always |
//! | `ErrorInfo{reason, domain "annals", metadata}` | always: clients decide by the reason, and find the numbers of the sentence in the metadata |
//! | `BadRequest` with the field's path | `INVALID_ARGUMENT` |
//! | `RetryInfo` | `RESOURCE_EXHAUSTED` and `UNAVAILABLE`, if the same call may succeed later by itself |
//! | `PreconditionFailure` | `FAILED_PRECONDITION`: what was violated, on which subject |
//!
//! The match over the broker's errors names every variant: a new one does not compile until it is decided here.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::refusal::Refusal;
use crate::broker::Error;

/// Domain of every reason.
pub const DOMAIN: &str = "annals";
/// When to come back while the server starts.
const RECOVERY_RETRY: Duration = Duration::from_millis(100);
/// When to come back after a stream was drained: somebody else has to start first.
const DRAIN_RETRY: Duration = Duration::from_millis(500);

/// What a status is made of; a `PartitionError` within an answer is made of the same.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The gRPC code.
    pub(crate) code: Code,
    /// The reason; a promise to clients.
    pub(crate) reason: &'static str,
    /// Names and numbers of the sentence.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What happened, the value, what to do next.
    pub(crate) message: String,
    /// When the same call may succeed by itself.
    retry: Option<Duration>,
    /// Path of the bad field, or subject of the failed precondition.
    subject: Option<String>,
}

impl Verdict {
    fn new(code: Code, reason: &'static str, message: impl Display) -> Self {
        let message = message.to_string();
        Self { code, reason, metadata: BTreeMap::new(), message, retry: None, subject: None }
    }

    fn with(mut self, name: &str, value: impl Display) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    fn place(self, topic: &str, partition: u32) -> Self {
        let mut placed = self.with("topic", topic).with("partition", partition);
        placed.subject = Some(format!("{topic}[{partition}]"));
        placed
    }

    fn field(mut self, path: &str) -> Self {
        self.subject = Some(path.to_owned());
        self.with("field", path)
    }

    fn subject(mut self, subject: &str) -> Self {
        self.subject = Some(subject.to_owned());
        self
    }

    fn retry(mut self, delay: Duration) -> Self {
        self.retry = Some(delay);
        self.with("retry_delay_ms", delay.as_millis())
    }

    fn hint(self, did_you_mean: Option<&String>) -> Self {
        match did_you_mean {
            Some(name) => self.with("did_you_mean", name),
            None => self,
        }
    }
}

/// What an error of the broker is to a caller.
#[expect(clippy::too_many_lines, reason = "each variant once, in one place")]
pub(crate) fn verdict(error: &Error) -> Verdict {
    let new = |code| Verdict::new(code, error.reason(), error);
    match error {
        Error::TopicNotFound { topic, did_you_mean } => {
            new(Code::NotFound).with("topic", topic).hint(did_you_mean.as_ref())
        }
        Error::TopicReplaced { topic, meant, now } => new(Code::FailedPrecondition)
            .with("topic", topic)
            .with("meant_topic_id", meant)
            .with("topic_id", now)
            .subject(topic),
        Error::TopicExists { topic, differs } => {
            new(Code::AlreadyExists).with("topic", topic).with("differs", differs)
        }
        Error::PartitionUnknown { topic, partition, partitions } => {
            new(Code::NotFound).place(topic, *partition).with("partitions", partitions)
        }
        Error::GroupNotFound { group, did_you_mean } => {
            new(Code::NotFound).with("group", group).hint(did_you_mean.as_ref())
        }
        Error::InvalidName { field, name, .. } => new(Code::InvalidArgument).field(field).with("name", name),
        Error::InvalidArgument { field, .. } | Error::Malformed { field, .. } => {
            new(Code::InvalidArgument).field(field)
        }
        Error::RecordTooLarge { size, limit } => {
            new(Code::InvalidArgument).with("size", size).with("limit", limit).field("records")
        }
        Error::BatchTooLarge { size, limit, what } => new(Code::InvalidArgument)
            .with("size", size)
            .with("limit", limit)
            .with("unit", what)
            .field("records"),
        Error::RequestTooLarge { size, limit } => {
            new(Code::InvalidArgument).with("size", size).with("limit", limit).field("body")
        }
        Error::OffsetTruncated { topic, partition, requested, earliest } => new(Code::OutOfRange)
            .place(topic, *partition)
            .with("requested", requested)
            .with("earliest", earliest),
        Error::OffsetAhead { topic, partition, requested, next } => {
            new(Code::OutOfRange).place(topic, *partition).with("requested", requested).with("next", next)
        }
        Error::LogTruncated { topic, partition, requested, diverging } => new(Code::OutOfRange)
            .place(topic, *partition)
            .with("requested", requested)
            .with("diverging", diverging),
        Error::ExpectedOffsetMismatch { topic, partition, expected, actual } => {
            new(Code::Aborted).place(topic, *partition).with("expected", expected).with("actual", actual)
        }
        Error::CommitBackwards { topic, partition, requested, committed } => {
            new(Code::Aborted).place(topic, *partition).with("requested", requested).with("actual", committed)
        }
        Error::RequestIdReused { request_id } => {
            new(Code::InvalidArgument).field("request_id").with("request_id", request_id)
        }
        Error::SequenceGap { topic, partition, sequence, expected } => new(Code::FailedPrecondition)
            .place(topic, *partition)
            .with("sequence", sequence)
            .with("expected", expected),
        Error::ProducerFenced { producer_id, epoch, current } => new(Code::FailedPrecondition)
            .subject(&format!("producer {producer_id}"))
            .with("producer_id", producer_id)
            .with("epoch", epoch)
            .with("current", current),
        Error::ProducerExpired { producer_id } => new(Code::FailedPrecondition)
            .subject(&format!("producer {producer_id}"))
            .with("producer_id", producer_id),
        Error::DiskFull { retry_delay } | Error::Throttled { retry_delay } => {
            new(Code::ResourceExhausted).retry(*retry_delay)
        }
        Error::PartitionFenced { topic, partition } => new(Code::FailedPrecondition).place(topic, *partition),
        Error::OutcomeUnknown => new(Code::Unavailable),
        Error::CorruptData { topic, partition, first, last } => {
            new(Code::DataLoss).place(topic, *partition).with("first", first).with("last", last)
        }
        Error::ReadFailed { topic, partition, .. } => new(Code::DataLoss).place(topic, *partition),
        Error::NotOwner { group, topic, partition, assignment_epoch } => new(Code::FailedPrecondition)
            .place(topic, *partition)
            .with("group", group)
            .with("assignment_epoch", assignment_epoch),
        Error::MemberOut { group, member_id, .. } => {
            new(Code::FailedPrecondition).with("group", group).with("member_id", member_id).subject(group)
        }
        Error::MemberNameInUse { group, member_name } => {
            new(Code::FailedPrecondition).with("group", group).with("member_name", member_name).subject(group)
        }
        Error::GroupHasMembers { group, members, .. } => {
            new(Code::FailedPrecondition).with("group", group).with("members", members).subject(group)
        }
        Error::ShadowGroup { group } => new(Code::FailedPrecondition).with("group", group).subject(group),
        Error::GroupExists { group, differs } => {
            new(Code::AlreadyExists).with("group", group).with("differs", differs)
        }
        Error::LimitReached { what, limit } => {
            new(Code::ResourceExhausted).with("what", what).with("limit", limit)
        }
        Error::ShuttingDown { retry_delay } => new(Code::Unavailable).retry(*retry_delay),
    }
}

/// What an error of the door is to a caller.
fn door_verdict(refusal: Refusal) -> Verdict {
    match refusal {
        Refusal::Broker(error) => verdict(&error),
        Refusal::MethodUnknown { path } => Verdict::new(
            Code::Unimplemented,
            "METHOD_UNKNOWN",
            format!("no method {path:?} here. List: grpcurl -plaintext HOST:PORT list"),
        )
        .with("path", path),
        Refusal::EncodingUnsupported { encoding } => Verdict::new(
            Code::Unimplemented,
            "ENCODING_UNSUPPORTED",
            format!("grpc-encoding {encoding:?} is not served. Send messages uncompressed; records may be packed with lz4 or zstd in the field `compressed`"),
        )
        .with("encoding", encoding)
        .with("accepted", "identity"),
        Refusal::MessageCompressed => Verdict::new(
            Code::InvalidArgument,
            "MALFORMED",
            "malformed body: a message is marked as compressed, but the call names no grpc-encoding. Send messages uncompressed",
        )
        .field("body"),
        Refusal::DeadlineExceeded { timeout, may_have_happened } => {
            let after = if may_have_happened {
                "It may have been stored all the same: only a request with a request_id can be sent again safely"
            } else {
                "Nothing was changed; allow more time"
            };
            let ms = timeout.as_millis();
            Verdict::new(
                Code::DeadlineExceeded,
                "DEADLINE_EXCEEDED",
                format!("not done within the caller's deadline of {ms} ms. {after}"),
            )
            .with("timeout_ms", ms)
            .with("outcome", if may_have_happened { "unknown" } else { "unchanged" })
        }
        Refusal::Stalled { silence } => Verdict::new(
            Code::ResourceExhausted,
            "STALLED",
            format!("the request did not arrive: nothing came for {} s. Send requests whole", silence.as_secs()),
        )
        .with("silence_ms", silence.as_millis()),
        Refusal::Disconnected => {
            Verdict::new(Code::Cancelled, "CANCELLED", "the request was cut off before its end")
        }
        Refusal::Recovering => Verdict::new(
            Code::Unavailable,
            "RECOVERING",
            "the server is starting: it recovers what was stored. Try again in 100 ms",
        )
        .retry(RECOVERY_RETRY),
        Refusal::Drained => Verdict::new(
            Code::Unavailable,
            "SHUTTING_DOWN",
            "the server is shutting down; everything sent so far was answered. Reconnect in 500 ms",
        )
        .retry(DRAIN_RETRY),
        Refusal::Framework { code, message } => framework_verdict(code, message),
    }
}

/// What the generated services' framework says by itself, in our terms.
fn framework_verdict(code: Code, message: String) -> Verdict {
    match code {
        // tonic's word for bytes that are not the message they should be, and for a missing message.
        Code::Internal => Verdict::new(
            Code::InvalidArgument,
            "MALFORMED",
            format!("malformed body: {message}. Check the request against the schema: grpcurl -plaintext HOST:PORT describe"),
        )
        .field("body"),
        Code::Unimplemented => {
            Verdict::new(code, "METHOD_UNKNOWN", "no such method here. List: grpcurl -plaintext HOST:PORT list")
        }
        Code::NotFound => Verdict::new(code, "SERVICE_UNKNOWN", format!("{message}. List: grpcurl -plaintext HOST:PORT list")),
        Code::Cancelled => Verdict::new(code, "CANCELLED", message),
        other => Verdict::new(other, "INTERNAL", message),
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        door_verdict(refusal).into()
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        verdict(&error).into()
    }
}

impl From<Verdict> for Status {
    fn from(verdict: Verdict) -> Self {
        let Verdict { code, reason, metadata, message, retry, subject } = verdict;
        let mut details = ErrorDetails::new();
        details.set_error_info(
            reason,
            DOMAIN,
            metadata.into_iter().collect::<std::collections::HashMap<String, String>>(),
        );
        if let Some(retry) = retry {
            details.set_retry_info(Some(retry));
        }
        match (code, subject) {
            (Code::InvalidArgument, Some(field)) => {
                details.add_bad_request_violation(field, message.as_str());
            }
            (Code::FailedPrecondition, Some(subject)) => {
                details.add_precondition_failure_violation(reason, subject, message.as_str());
            }
            _ => {}
        }
        Status::with_error_details(code, message, details)
    }
}

#[cfg(test)]
mod tests;
