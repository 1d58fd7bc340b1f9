//! The one error of this crate.
//!
//! Every refusal of a server carries a gRPC status, a reason (a stable word such as `TOPIC_NOT_FOUND`) and metadata (the
//! values a program may want). [`Error`] keeps all three beside the sentence for people. What never reached a server, or
//! whose answer got lost, has no reason of the server's: [`Error::is_unreachable`] and [`Error::is_outcome_unknown`] tell.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use annals_wire::v1::PartitionError;
use prost::Message as _;
pub use tonic::Code;
use tonic::Status;
use tonic_types::pb;

/// Reasons a server gives, as in `google.rpc.ErrorInfo`. More may come: treat unknown ones by their [`Code`].
pub mod reason {
    /// The topic does not exist.
    pub const TOPIC_NOT_FOUND: &str = "TOPIC_NOT_FOUND";
    /// The group has committed nothing.
    pub const GROUP_NOT_FOUND: &str = "GROUP_NOT_FOUND";
    /// The topic exists with other settings.
    pub const TOPIC_EXISTS: &str = "TOPIC_EXISTS";
    /// The topic has no such partition.
    pub const PARTITION_UNKNOWN: &str = "PARTITION_UNKNOWN";
    /// The offset lies below the first one kept (metadata `earliest`).
    pub const OFFSET_TRUNCATED: &str = "OFFSET_TRUNCATED";
    /// The offset lies beyond the high watermark (metadata `next`).
    pub const OFFSET_AHEAD: &str = "OFFSET_AHEAD";
    /// What was read before is no longer the log's history (metadata `diverging_offset`).
    pub const LOG_TRUNCATED: &str = "LOG_TRUNCATED";
    /// Somebody else was faster (metadata `actual`).
    pub const EXPECTED_OFFSET_MISMATCH: &str = "EXPECTED_OFFSET_MISMATCH";
    /// The server expects another sequence of this producer (metadata `expected`).
    pub const SEQUENCE_GAP: &str = "SEQUENCE_GAP";
    /// Somebody else took over: the producer was opened again, or the partition has another owner.
    pub const FENCED: &str = "FENCED";
    /// The server does not know the producer any more.
    pub const PRODUCER_EXPIRED: &str = "PRODUCER_EXPIRED";
    /// There are as many as the server allows (metadata `what`, `limit`).
    pub const LIMIT_REACHED: &str = "LIMIT_REACHED";
    /// Too much at once; goes away by itself.
    pub const THROTTLED: &str = "THROTTLED";
    /// The server's disk is full; service goes on by itself when there is space.
    pub const DISK_FULL: &str = "DISK_FULL";
    /// The server is stopping.
    pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
    /// The server is starting.
    pub const RECOVERING: &str = "RECOVERING";
    /// The record is larger than the server's limit.
    pub const RECORD_TOO_LARGE: &str = "RECORD_TOO_LARGE";
    /// The request is larger than the server's limit.
    pub const REQUEST_TOO_LARGE: &str = "REQUEST_TOO_LARGE";
    /// What was sent is not as it must be (metadata `field`).
    pub const MALFORMED: &str = "MALFORMED";
    /// Whether the records are stored is not known: an answer got lost, or a flush failed.
    pub const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
    /// Bytes on the server's disk do not verify (metadata `first`, `last`).
    pub const CORRUPT_DATA: &str = "CORRUPT_DATA";
    /// A member of this name lives.
    pub const MEMBER_NAME_IN_USE: &str = "MEMBER_NAME_IN_USE";
    /// The group has live members.
    pub const GROUP_HAS_MEMBERS: &str = "GROUP_HAS_MEMBERS";

    /// Ours: no server was reached.
    pub const UNREACHABLE: &str = "UNREACHABLE";
    /// Ours: the producer was closed before these records were sent. They are not stored.
    pub const PRODUCER_CLOSED: &str = "PRODUCER_CLOSED";
    /// Ours: the member has left its group.
    pub const CONSUMER_CLOSED: &str = "CONSUMER_CLOSED";
    /// Ours: the server's answer makes no sense to this client.
    pub const BAD_ANSWER: &str = "BAD_ANSWER";
}

/// What went wrong. Cheap to clone: one failure often concerns many records.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    code: Code,
    reason: String,
    metadata: BTreeMap<String, String>,
    message: String,
    retry_after: Option<Duration>,
}

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this client's own making.
    pub(crate) fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self::build(code, reason.to_owned(), BTreeMap::new(), message.into(), None)
    }

    fn build(
        code: Code,
        reason: String,
        metadata: BTreeMap<String, String>,
        message: String,
        retry_after: Option<Duration>,
    ) -> Self {
        Self { inner: Arc::new(Inner { code, reason, metadata, message, retry_after }) }
    }

    /// Records went out and no answer came back.
    pub(crate) fn outcome_unknown(cause: &Self) -> Self {
        let message = format!(
            "the connection broke before the server's answer came ({}): these records may be stored or not",
            cause.message()
        );
        Self::new(Code::Unavailable, reason::OUTCOME_UNKNOWN, message)
    }

    /// The server sent what this client cannot understand.
    pub(crate) fn bad_answer(what: impl fmt::Display) -> Self {
        Self::new(
            Code::Internal,
            reason::BAD_ANSWER,
            format!("the server's answer is not understood: {what}"),
        )
    }

    /// gRPC status code.
    pub fn code(&self) -> Code {
        self.inner.code
    }

    /// The stable word for what happened, see [`reason`]; empty if whoever answered gave none.
    pub fn reason(&self) -> &str {
        &self.inner.reason
    }

    /// A value that goes with the reason, e.g. `earliest` with `OFFSET_TRUNCATED`.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.inner.metadata.get(name).map(String::as_str)
    }

    /// A sentence for people: what happened, the value, often the next command.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// How long the server asks to wait before trying again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// No connection could be made: nothing was sent.
    pub fn is_unreachable(&self) -> bool {
        self.reason() == reason::UNREACHABLE
    }

    /// The server answered, and its answer is a definite refusal: nothing was stored.
    pub fn is_refusal(&self) -> bool {
        !matches!(self.reason(), "" | reason::OUTCOME_UNKNOWN | reason::BAD_ANSWER)
    }

    /// The records may be stored or not. Sending them again may store them twice, unless by the same `request_id`.
    pub fn is_outcome_unknown(&self) -> bool {
        self.reason() == reason::OUTCOME_UNKNOWN
    }

    /// Somebody else took over: the partition is not this member's any more, or the member is out. Nothing was stored.
    pub fn is_fenced(&self) -> bool {
        self.reason() == reason::FENCED
    }

    /// It does not exist: topic, group, partition.
    pub fn is_not_found(&self) -> bool {
        self.code() == Code::NotFound
    }

    /// Goes away by itself: the same call, made later, may succeed.
    pub fn is_temporary(&self) -> bool {
        match self.reason() {
            reason::THROTTLED | reason::DISK_FULL | reason::SHUTTING_DOWN | reason::RECOVERING => true,
            "" | reason::UNREACHABLE | reason::OUTCOME_UNKNOWN => self.code() == Code::Unavailable,
            _ => self.retry_after().is_some(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let (info, retry_after) = details_of(status.details());
        if let Some(pb::ErrorInfo { reason, metadata, .. }) = info {
            let metadata = metadata.into_iter().collect();
            return Self::build(status.code(), reason, metadata, status.message().to_owned(), retry_after);
        }
        if let Some(cause) = cause_of_connect_error(&status) {
            return Self::new(Code::Unavailable, reason::UNREACHABLE, cause);
        }
        // A broken connection shows as various codes; to the caller they are one: the answer did not come.
        let lost = std::error::Error::source(&status).is_some();
        let code = if lost { Code::Unavailable } else { status.code() };
        let message = match status.message() {
            "" => format!("the call ended with {code:?}"),
            message => message.to_owned(),
        };
        Self::build(code, String::new(), BTreeMap::new(), message, retry_after)
    }
}

impl From<&PartitionError> for Error {
    fn from(error: &PartitionError) -> Self {
        Self::build(
            Code::from(error.code),
            error.reason.clone(),
            error.metadata.clone(),
            error.message.clone(),
            None,
        )
    }
}

/// Reason and delay in the details of a status. Read here and not by `get_error_details`, which panics on a delay that
/// lies too far back; what cannot be read is not there.
fn details_of(details: &[u8]) -> (Option<pb::ErrorInfo>, Option<Duration>) {
    let (mut reason, mut delay) = (None, None);
    for detail in pb::Status::decode(details).unwrap_or_default().details {
        match detail.type_url.as_str() {
            "type.googleapis.com/google.rpc.ErrorInfo" => {
                reason = pb::ErrorInfo::decode(detail.value.as_slice()).ok();
            }
            "type.googleapis.com/google.rpc.RetryInfo" => {
                let asked =
                    pb::RetryInfo::decode(detail.value.as_slice()).ok().and_then(|info| info.retry_delay);
                delay = asked.map(|asked| {
                    let seconds = u64::try_from(asked.seconds).unwrap_or(0);
                    let nanos = u32::try_from(asked.nanos).unwrap_or(0).min(999_999_999);
                    Duration::new(seconds, nanos)
                });
            }
            _ => {}
        }
    }
    (reason, delay)
}

/// The innermost cause, if the error says that no connection could be made.
fn cause_of_connect_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut source = Some(error);
    let mut connecting = false;
    let mut innermost = String::new();
    while let Some(error) = source {
        connecting |= error.is::<tonic::ConnectError>();
        innermost = error.to_string();
        source = error.source();
    }
    connecting.then_some(innermost)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        if self.reason().is_empty() {
            write!(f, " ({:?})", self.code())
        } else {
            write!(f, " ({})", self.reason())
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.code())
            .field("reason", &self.reason())
            .field("metadata", &self.inner.metadata)
            .field("message", &self.message())
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn a_refusal_keeps_reason_values_and_delay() {
        let mut details = ErrorDetails::new();
        details.set_error_info("DISK_FULL", "annals", [("free".to_owned(), "0".to_owned())]);
        details.set_retry_info(Some(Duration::from_secs(2)));
        let error = Error::from(Status::with_error_details(Code::ResourceExhausted, "disk full", details));
        assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, reason::DISK_FULL));
        assert_eq!(error.metadata("free"), Some("0"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        assert!(error.is_temporary() && error.is_refusal() && !error.is_outcome_unknown());
        assert_eq!(error.to_string(), "disk full (DISK_FULL)");
    }

    /// Found by the fuzz target `error_details`: tonic-types panics on it.
    #[test]
    fn a_delay_that_lies_too_far_back_is_none() {
        for (seconds, nanos, want) in [
            (i64::MIN, i32::MIN, Duration::ZERO),
            (-1, 5, Duration::from_nanos(5)),
            (3, 0, Duration::from_secs(3)),
        ] {
            let info = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds, nanos }) };
            let any = prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec(),
            };
            let details = pb::Status { details: vec![any], ..pb::Status::default() }.encode_to_vec();
            let error = Error::from(Status::with_details(Code::Aborted, "", details.into()));
            assert_eq!(error.retry_after(), Some(want));
        }
    }

    #[test]
    fn an_answer_without_reason_is_no_refusal() {
        let error = Error::from(Status::unavailable("gone"));
        assert!(error.is_temporary() && !error.is_refusal() && !error.is_unreachable());
        let error = Error::from(Status::internal("odd"));
        assert!(!error.is_temporary() && !error.is_refusal());
    }

    #[test]
    fn an_unknown_outcome_is_temporary_but_no_refusal() {
        let error = Error::outcome_unknown(&Error::from(Status::unavailable("reset")));
        assert!(error.is_outcome_unknown() && !error.is_refusal() && error.is_temporary());
        assert!(error.message().contains("reset"));
    }
}
