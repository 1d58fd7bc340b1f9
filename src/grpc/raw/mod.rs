//! The hot calls, and those that go with them: OpenProducer, Produce, ProduceStream, AppendAndCommit, Fetch and Subscribe, without a decoder or an encoder in the way.
//!
//! They stand beside the generated services and answer exactly as those would (`twin` compares the two), but the
//! records in a request stay in the frames in which they came until they are in a file, and the records of an answer
//! leave as slices of the file's map.
//!
//! ```text
//! frames -> message (sliced out of frames) -> annals_wire::request (finds the records) -> Broker
//! Broker -> slices -> encode (heads in one buffer, records lent) -> answer (frames)
//! ```
//!
//! | file | what |
//! |---|---|
//! | `message` | gRPC messages out of frames; limits |
//! | `budget` | bounds the memory for requests |
//! | `encode`, `ack` | messages into frames; the answer to a produce |
//! | `open_producer`, `produce`, `produce_stream`, `step`, `fetch`, `subscribe` | one call each |

mod ack;
pub(crate) mod budget;
mod consume;
pub(crate) mod encode;
mod fetch;
pub(crate) mod message;
mod open_producer;
mod produce;
mod produce_stream;
mod step;
mod subscribe;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::sync::{Notify, watch};

use self::{
    budget::Budget,
    message::{Message, Messages},
};
use super::{
    answer::{self, Answer},
    front::Call,
    refusal::Refusal,
};
use crate::{
    broker::Broker,
    clock::Clock,
    sync::{Arc, AtomicUsize, Ordering},
};

/// Largest request of a call that carries no records.
pub(crate) const MAX_SMALL_REQUEST: usize = 1 << 20;
/// A message that has begun has to be there after this long.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// Tells streams that the server goes away, and how many milliseconds are left.
pub(crate) type DrainSignal = watch::Receiver<Option<u32>>;

/// A hot call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hot {
    /// `ProducerService/OpenProducer`.
    OpenProducer,
    /// `ProducerService/Produce`.
    Produce,
    /// `ProducerService/ProduceStream`.
    ProduceStream,
    /// `ProducerService/AppendAndCommit`.
    AppendAndCommit,
    /// `ConsumerService/Fetch`.
    Fetch,
    /// `ConsumerService/Subscribe`.
    Subscribe,
    /// `ConsumerService/Consume`.
    Consume,
}

impl Hot {
    /// The hot call of this path, if it is one.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/annals.v1.ProducerService/OpenProducer" => Some(Self::OpenProducer),
            "/annals.v1.ProducerService/Produce" => Some(Self::Produce),
            "/annals.v1.ProducerService/ProduceStream" => Some(Self::ProduceStream),
            "/annals.v1.ProducerService/AppendAndCommit" => Some(Self::AppendAndCommit),
            "/annals.v1.ConsumerService/Fetch" => Some(Self::Fetch),
            "/annals.v1.ConsumerService/Subscribe" => Some(Self::Subscribe),
            "/annals.v1.ConsumerService/Consume" => Some(Self::Consume),
            _ => None,
        }
    }
}

/// How many calls are writing.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    count: AtomicUsize,
    left: Notify,
}

/// A call that writes, for as long as this lives.
#[derive(Debug)]
struct Writing<'a>(&'a Writers);

impl Writers {
    fn enter(&self) -> Writing<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        Writing(self)
    }

    /// Returns once nobody writes.
    pub(crate) async fn none(&self) {
        loop {
            // Counts who leaves from here on, whether or not it is waited for yet.
            let left = self.left.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

/// What the hot calls need.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) broker: Arc<Broker>,
    /// Room for requests that carry records.
    pub(crate) records: Budget,
    /// Room for the others, apart: reading goes on when writing fills its room.
    pub(crate) small: Budget,
    pub(crate) drain: DrainSignal,
    pub(crate) writers: Arc<Writers>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Raw {
    /// Serves a hot call.
    pub(crate) async fn serve<B>(self: Arc<Self>, hot: Hot, call: Call<B>) -> Response<Answer>
    where
        B: Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let answered = match hot {
            Hot::OpenProducer => open_producer::serve(&self, call).await,
            Hot::Produce => produce::serve(&self, call).await,
            Hot::ProduceStream => return produce_stream::serve(self, call),
            Hot::AppendAndCommit => step::serve(&self, call).await,
            Hot::Fetch => fetch::serve(&self, call).await,
            Hot::Subscribe => subscribe::serve(&self, call).await,
            Hot::Consume => return consume::serve(self, call),
        };
        answered.unwrap_or_else(answer::refused)
    }

    fn record_messages<B: Body<Data = Bytes> + Unpin>(&self, body: B) -> Messages<B> {
        let limit = usize::try_from(self.broker.limits().max_request_bytes).unwrap_or(usize::MAX);
        Messages::new(body, limit, self.records.clone())
    }

    /// The message of a call that takes one small one.
    async fn small_message<B: Body<Data = Bytes> + Unpin>(&self, body: B) -> Result<Message, Refusal> {
        let mut messages = Messages::new(body, MAX_SMALL_REQUEST, self.small.clone());
        in_time(message::only(&mut messages)).await
    }
}

/// Refuses a message that does not arrive.
async fn in_time<T>(arriving: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    tokio::time::timeout(MESSAGE_TIME, arriving)
        .await
        .unwrap_or(Err(Refusal::Stalled { silence: MESSAGE_TIME }))
}

/// Ends a call at its caller's deadline.
async fn until_deadline<T>(
    timeout: Option<Duration>,
    may_have_happened: bool,
    call: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match timeout {
        None => call.await,
        Some(timeout) => tokio::time::timeout(timeout, call)
            .await
            .unwrap_or(Err(Refusal::DeadlineExceeded { timeout, may_have_happened })),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_writers_sees_the_last_one_leave() {
        let writers = Writers::default();
        writers.none().await;
        let (first, second) = (writers.enter(), writers.enter());
        let mut none = pin!(writers.none());
        let mut is_over =
            async || poll_fn(|context| Poll::Ready(none.as_mut().poll(context).is_ready())).await;
        assert!(!is_over().await);
        drop(first);
        assert!(!is_over().await, "one still writes");
        drop(second);
        assert!(is_over().await);
    }
}

#[cfg(test)]
mod twin;
