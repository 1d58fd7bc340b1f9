//! Response bodies written by hand: bytes from the broker leave as they are, each piece a frame of its own.
//!
//! A body is one of four: nothing (a refusal stands in the headers alone), the pieces of one message, a stream that
//! writes its messages as it goes ([`Script`]), or what the generated services made.
//!
//! A stream is an `async fn` that puts pieces into an [`Outbox`]. It runs inside [`http_body::Body::poll_frame`], so
//! it runs only while the connection has room to send (HTTP/2's windows are its back-pressure), and when the caller
//! goes away it is dropped where it stands: no task outlives its stream.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;
use tonic::Status;

use super::{framework::Framework, refusal::Refusal};
use crate::sync::{Arc, Mutex};

/// Pieces of a message, in the order in which they are sent; the first begins with the gRPC prefix.
pub(crate) type Pieces = SmallVec<[Bytes; 4]>;

/// Body of a response.
#[derive(Debug, Default)]
pub enum Answer {
    /// Nothing more.
    #[default]
    Over,
    /// A sentence for a caller that does not speak gRPC.
    Text(&'static str),
    /// One message, then success.
    Whole(Whole),
    /// Messages as they come.
    Stream(Script),
    /// From a generated service.
    Framework(Framework),
}

/// The rest of a message.
#[derive(Debug)]
pub struct Whole {
    pieces: smallvec::IntoIter<[Bytes; 4]>,
}

/// A response that carries one message.
pub(crate) fn whole(pieces: Pieces) -> Response<Answer> {
    respond(Answer::Whole(Whole { pieces: pieces.into_iter() }))
}

/// A response without a message: the refusal is in its headers.
pub(crate) fn refused(refusal: Refusal) -> Response<Answer> {
    Status::from(refusal).into_http()
}

/// A body for a caller that does not speak gRPC.
pub(crate) fn text(sentence: &'static str) -> Answer {
    Answer::Text(sentence)
}

fn respond(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

pub(super) fn failure(refusal: Refusal) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(3);
    if Status::from(refusal).add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("13"));
    }
    trailers
}

/// Where a stream puts its messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Mutex<VecDeque<Bytes>>>);

impl Outbox {
    /// Adds a piece; the stream decides how many lie here at a time, see [`Self::sent`].
    pub(crate) fn push(&self, piece: Bytes) {
        self.0.lock().push_back(piece);
    }

    /// Waits until everything here has been taken by the connection. The body asks again after each piece, so
    /// nobody has to be woken.
    pub(crate) async fn sent(&self) {
        poll_fn(|_| if self.0.lock().is_empty() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Pieces that wait.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn pop(&self) -> Option<Bytes> {
        self.0.lock().pop_front()
    }
}

/// What writes a stream.
type Running = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// A stream and what it has written.
pub struct Script {
    run: Option<Running>,
    outbox: Outbox,
    end: Option<HeaderMap>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("running", &self.run.is_some())
            .field("waiting", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

/// A response that carries messages as `script` writes them.
pub(crate) fn stream<F>(script: impl FnOnce(Outbox) -> F) -> Response<Answer>
where
    F: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    let outbox = Outbox::default();
    let run: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(script(outbox.clone()));
    respond(Answer::Stream(Script { run: Some(run), outbox, end: None }))
}

impl Script {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            if let Some(piece) = self.outbox.pop() {
                return Poll::Ready(Some(Frame::data(piece)));
            }
            let Some(run) = &mut self.run else {
                return Poll::Ready(self.end.take().map(Frame::trailers));
            };
            match run.as_mut().poll(context) {
                Poll::Ready(outcome) => {
                    self.run = None;
                    self.end = Some(outcome.map_or_else(failure, |()| success()));
                }
                Poll::Pending if self.outbox.len() == 0 => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let answer = self.get_mut();
        match answer {
            Self::Over => Poll::Ready(None),
            Self::Text(sentence) => {
                let frame = Frame::data(Bytes::from_static(sentence.as_bytes()));
                *answer = Self::Over;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Whole(whole) => Poll::Ready(Some(Ok(if let Some(piece) = whole.pieces.next() {
                Frame::data(piece)
            } else {
                *answer = Self::Over;
                Frame::trailers(success())
            }))),
            Self::Stream(script) => script.poll(context).map(|frame| frame.map(Ok)),
            Self::Framework(framework) => framework.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Over => true,
            Self::Framework(framework) => framework.is_end_stream(),
            Self::Text(_) | Self::Whole(_) | Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Over => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}
