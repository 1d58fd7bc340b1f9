//! The layer in front of every call, of the hot roads and the generated services alike.
//!
//! Here a request becomes a [`Call`]: it is gRPC (method, content type, encoding), it has a deadline or none, and it
//! has a [`Principal`]. Nothing behind this layer takes anything but a `Call`, so there is no road around it; checks
//! of credentials and rights belong here and nowhere else.
//!
//! It also counts calls and failures, and opens the tracing span of the call.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tower::{Layer, Service};
use tracing::Span;

use super::{
    answer::{self, Answer},
    refusal::Refusal,
};
use crate::{
    broker::Principal,
    sync::{Arc, AtomicU64, Ordering},
};

/// Longest `x-request-id` that is taken over.
const MAX_REQUEST_ID: usize = 128;
/// Name of the header by which a caller finds its call in the server's log.
const REQUEST_ID: &str = "x-request-id";
const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
const TIMEOUT: &str = "grpc-timeout";

/// A request that may be served.
#[derive(Debug)]
pub struct Call<B> {
    /// Path, headers, body.
    pub request: Request<B>,
    /// Who calls.
    pub principal: Principal,
    /// How long the caller waits.
    pub timeout: Option<Duration>,
}

/// What passed the front so far.
#[derive(Debug, Default)]
pub struct Counts {
    calls: AtomicU64,
    failed: AtomicU64,
    open: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Calls begun.
    pub calls: u64,
    /// Of these refused before their first message; failures of streams come later and are not counted.
    pub failed: u64,
    /// Calls whose response has not begun.
    pub open: u64,
}

impl Counts {
    /// The counts now.
    pub fn tally(&self) -> Tally {
        Tally {
            calls: self.calls.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
        }
    }
}

/// One call that is open, for as long as this lives.
#[derive(Debug)]
struct Open {
    counts: Arc<Counts>,
    /// Of the calls of this process.
    number: u64,
}

impl Open {
    fn new(counts: &Arc<Counts>) -> Self {
        let number = counts.calls.fetch_add(1, Ordering::Relaxed) + 1;
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self { counts: Arc::clone(counts), number }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts a [`Front`] before a service.
#[derive(Clone, Debug)]
pub(super) struct FrontLayer {
    principal: Principal,
    counts: Arc<Counts>,
}

impl FrontLayer {
    /// Until callers can prove who they are, everybody is `anonymous`.
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self { principal: Principal::anonymous(), counts }
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl<S> Layer<S> for FrontLayer {
    type Service = Front<S>;

    fn layer(&self, inner: S) -> Front<S> {
        Front { inner, layer: self.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Front<S> {
    inner: S,
    layer: FrontLayer,
}

impl<S> fmt::Debug for Front<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("counts", &self.layer.counts.tally()).finish_non_exhaustive()
    }
}

/// A call on its way through the service behind the front.
#[derive(Debug)]
pub struct Passing<F> {
    admitted: Admitted<F>,
    open: Open,
    /// The caller's own name for it.
    id: Option<HeaderValue>,
    span: Span,
}

#[derive(Debug)]
enum Admitted<F> {
    Yes(F),
    /// Refused; `None` once that was said.
    No(Option<Box<Response<Answer>>>),
}

impl<F> Future for Passing<F>
where
    F: Future<Output = Result<Response<Answer>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { admitted, open, id, span } = self.get_mut();
        let _entered = span.enter();
        let mut response = match admitted {
            Admitted::Yes(answering) => ready!(Pin::new(answering).poll(context))?,
            Admitted::No(refused) => *refused.take().expect("nobody polls a future that is done"),
        };
        if let Some(status) = response.headers().get(tonic::Status::GRPC_STATUS) {
            open.counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(?status, "refused");
            let id = id.take().unwrap_or_else(|| HeaderValue::from(open.number));
            response.headers_mut().insert(REQUEST_ID, id);
        }
        Poll::Ready(Ok(response))
    }
}

impl<S, B> Service<Request<B>> for Front<S>
where
    S: Service<Call<B>, Response = Response<Answer>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Passing<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Passing<S::Future> {
        let open = Open::new(&self.layer.counts);
        let id = request_id(request.headers());
        let span = tracing::debug_span!("call", path = request.uri().path(), id = ?id, number = open.number);
        let admitted = match admit(request.method(), request.headers()) {
            Ok(timeout) => {
                let principal = self.layer.principal.clone();
                Admitted::Yes(self.inner.call(Call { request, principal, timeout }))
            }
            Err(response) => Admitted::No(Some(response)),
        };
        Passing { admitted, open, id, span }
    }
}

/// Who makes a call to a generated service.
pub(super) fn principal<T>(request: &tonic::Request<T>) -> Principal {
    request.extensions().get().cloned().unwrap_or_else(Principal::anonymous)
}

/// The caller's own name for its call.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(REQUEST_ID).filter(|id| id.len() <= MAX_REQUEST_ID).cloned()
}

/// Whether this is a gRPC call in a form that is served; gives its deadline.
fn admit(method: &Method, headers: &HeaderMap) -> Result<Option<Duration>, Box<Response<Answer>>> {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if method != Method::POST || !content_type.is_some_and(is_grpc) {
        let mut response = Response::new(answer::text(
            "This is the gRPC port of Annals: POST with content-type application/grpc. Try: grpcurl -plaintext HOST:PORT list\n",
        ));
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        return Err(Box::new(response));
    }
    let encoding = headers.get(ENCODING).map(HeaderValue::as_bytes).filter(|name| *name != b"identity");
    if let Some(encoding) = encoding {
        let encoding = String::from_utf8_lossy(encoding.get(..64).unwrap_or(encoding)).into_owned();
        let mut response = answer::refused(Refusal::EncodingUnsupported { encoding });
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return Err(Box::new(response));
    }
    match headers.get(TIMEOUT) {
        None => Ok(None),
        Some(value) => parse_timeout(value.as_bytes()).map(Some).ok_or_else(|| {
            Box::new(answer::refused(Refusal::argument(
                TIMEOUT,
                "must be at most eight digits and one of H M S m u n, as in 500m",
            )))
        }),
    }
}

fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b";") || rest.starts_with(b"+proto"))
}

/// A `grpc-timeout`: at most eight digits and a unit.
pub(super) fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("500m", Some(Duration::from_millis(500))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("1", None),
            ("1x", None),
            ("-1S", None),
            ("+1S", None),
            ("123456789S", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn content_types_of_grpc_and_of_others() {
        for good in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for bad in
            ["application/grpc-web", "application/json", "", "application/grpcx", "application/grpc+json"]
        {
            assert!(!is_grpc(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn counts_follow_calls_that_end_and_calls_that_are_dropped() {
        let counts = Arc::new(Counts::default());
        let (first, second) = (Open::new(&counts), Open::new(&counts));
        assert_eq!((first.number, second.number), (1, 2));
        drop(first);
        assert_eq!(counts.tally(), Tally { calls: 2, failed: 0, open: 1 });
    }
}
