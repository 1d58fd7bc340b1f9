//! Why a call fails, as the door sees it: the broker's reasons, and those for which no broker is needed.

use std::time::Duration;

use crate::broker;

/// Why a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The broker says no.
    Broker(broker::Error),
    /// No such service or method.
    MethodUnknown {
        /// Path of the request.
        path: String,
    },
    /// Compressed in a way that is not served.
    EncodingUnsupported {
        /// What the request names.
        encoding: String,
    },
    /// A message says it is compressed, the call does not say how.
    MessageCompressed,
    /// The caller's deadline passed.
    DeadlineExceeded {
        /// How long the caller gave.
        timeout: Duration,
        /// The call may have changed something all the same.
        may_have_happened: bool,
    },
    /// Nothing came from the caller for long.
    Stalled {
        /// For how long.
        silence: Duration,
    },
    /// The connection broke, or the caller cancelled.
    Disconnected,
    /// The data is still being recovered.
    Recovering,
    /// The server stops; the stream ends here.
    Drained,
    /// The framework answered without saying why in our terms.
    Framework {
        /// Its code.
        code: tonic::Code,
        /// Its sentence.
        message: String,
    },
}

impl Refusal {
    /// The bytes of a request do not hold what they should.
    pub(crate) fn malformed(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Broker(broker::Error::Malformed { field: field.into(), why: why.into() })
    }

    /// The request is larger than the limit.
    pub(crate) fn too_large(size: u64, limit: usize) -> Self {
        Self::Broker(broker::Error::RequestTooLarge { size, limit: u64::try_from(limit).unwrap_or(u64::MAX) })
    }

    /// A field's value is out of range.
    pub(crate) fn argument(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Broker(broker::Error::InvalidArgument { field: field.into(), why: why.into() })
    }
}

impl From<broker::Error> for Refusal {
    fn from(error: broker::Error) -> Self {
        Self::Broker(error)
    }
}
