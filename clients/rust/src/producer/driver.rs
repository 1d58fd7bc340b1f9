//! The task that carries a producer's batches to the server and brings the acks back.
//!
//! One stream at a time. The connection *pulls* batches as fast as it takes them ([`Puller`]), so what counts as sent is
//! exactly what left; responses, timers and failures are handled here. All decisions are [`State`]'s.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use annals_wire::v1::{self, produce_stream_response::Event, producer_service_client::ProducerServiceClient};
use bytes::Bytes;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;
use tokio_stream::Stream;

use super::{
    identity::Identity,
    options::ProducerOptions,
    state::{AfterFailure, State},
};
use crate::{
    client::Client,
    clock, endpoint,
    error::{Code, Error, Result, reason},
    raw::{self, Messages, RawMessage},
};

const PATH: PathAndQuery = PathAndQuery::from_static("/annals.v1.ProducerService/ProduceStream");
/// Two heartbeats of a server that speaks at least each ten seconds, and some grace.
const SILENCE: Duration = Duration::from_secs(25);
/// How often a topic is asked whether it has grown.
const REFRESH: Duration = Duration::from_secs(30);

/// What producer and driver share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) topic: String,
    pub(super) options: ProducerOptions,
    state: Mutex<Guarded>,
    /// Something to send, a timer to set, or the end: for the driver.
    work: Notify,
    /// Answers came: for those who wait for room or for everything to be answered.
    progress: Notify,
}

struct Guarded {
    state: State,
    /// Which stream may pull.
    stream: u64,
    puller: Option<Waker>,
}

impl Shared {
    pub(super) fn new(client: Client, topic: &str, options: ProducerOptions, state: State) -> Self {
        let guarded = Guarded { state, stream: 0, puller: None };
        Self {
            client,
            topic: topic.to_owned(),
            options,
            state: Mutex::new(guarded),
            work: Notify::new(),
            progress: Notify::new(),
        }
    }

    /// Reads or changes the state; `changed` tells whether there is something new to send or to time.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let (result, puller, changed) = {
            let mut guarded = self.state.lock();
            let (result, changed) = change(&mut guarded.state);
            // Something to send, or nothing ever again: either way the stream has to look.
            let look = changed && (guarded.state.has_ready() || guarded.state.is_closed());
            (result, if look { guarded.puller.take() } else { None }, changed)
        };
        if let Some(puller) = puller {
            puller.wake();
        }
        if changed {
            self.work.notify_one();
        }
        result
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().state)
    }

    /// Waits until `done` holds; it is looked at after every answer.
    pub(super) async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let mut progress = std::pin::pin!(self.progress.notified());
            // Registered before looking, so that an answer in between is not missed.
            progress.as_mut().enable();
            if self.read(|state| done(state)) {
                return;
            }
            progress.await;
        }
    }

    /// Tells the caller's hook and everyone who waits.
    fn tell(&self) {
        if let Some(hook) = &self.options.on_outcome {
            let outcomes = self.read(State::take_outcomes);
            for outcome in &outcomes {
                hook(outcome);
            }
        }
        self.progress.notify_waiters();
    }

    fn begin_stream(&self) -> u64 {
        let mut guarded = self.state.lock();
        guarded.stream += 1;
        guarded.stream
    }

    /// No stream may pull any more; returns once none does.
    fn end_stream(&self) {
        let puller = {
            let mut guarded = self.state.lock();
            guarded.stream += 1;
            guarded.puller.take()
        };
        if let Some(puller) = puller {
            puller.wake();
        }
    }
}

/// The request stream: yields ready batches until its stream is over.
struct Puller {
    shared: Arc<Shared>,
    stream: u64,
}

impl Stream for Puller {
    type Item = RawMessage;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        let mut guarded = self.shared.state.lock();
        if guarded.stream != self.stream {
            return Poll::Ready(None);
        }
        if let Some(message) = guarded.state.pull() {
            return Poll::Ready(Some(message));
        }
        if guarded.state.is_closed() {
            return Poll::Ready(None);
        }
        guarded.puller = Some(context.waker().clone());
        Poll::Pending
    }
}

/// How a stream ended.
enum Ended {
    /// Nothing is left to do.
    Done,
    /// The server goes away, everything sent is answered.
    Drained,
    /// Otherwise.
    Failed(Error),
}

/// Runs until the producer is closed and everything has an outcome.
pub(super) async fn drive(shared: Arc<Shared>) {
    loop {
        if !wait_for_work(&shared).await {
            break;
        }
        let ended = match identify(&shared).await {
            Ok(()) => run_stream(&shared).await,
            Err(error) => Ended::Failed(error),
        };
        shared.end_stream();
        let wait = match ended {
            Ended::Done => None,
            Ended::Drained => Some(shared.options.backoff.first),
            Ended::Failed(error) => {
                let error = endpoint::name_server(error, shared.client.server());
                let after = shared.read(|state| state.failed(&error));
                shared.tell();
                match after {
                    AfterFailure::GoOn | AfterFailure::Stop => None,
                    AfterFailure::TryAgain(attempt) => shared.options.backoff.wait(attempt, &error),
                }
            }
        };
        if let Some(wait) = wait {
            tokio::time::sleep_until(clock::now() + wait).await;
        }
    }
    shared.tell();
}

/// Waits, closing batches that have lingered, until something is ready; `false` = closed and nothing is left.
async fn wait_for_work(shared: &Shared) -> bool {
    loop {
        let (ready, closed, due) = shared.read(|state| {
            state.close_due(clock::now());
            (state.has_ready(), state.is_closed(), state.next_due())
        });
        if ready {
            return true;
        }
        if closed {
            return false;
        }
        tokio::select! {
            () = shared.work.notified() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(clock::far_future)) => {}
        }
    }
}

/// Asks for a producer id, if one is wanted. A server that gives none is sent batches without sequences.
async fn identify(shared: &Shared) -> Result<()> {
    if !shared.read(|state| state.wants_identity()) {
        return Ok(());
    }
    let asked = v1::OpenProducerRequest::default();
    let opened = ProducerServiceClient::new(shared.client.channel()).open_producer(asked).await;
    let identity = match opened.map_err(Error::from) {
        Ok(opened) => Identity::of(opened.get_ref()),
        Err(error) if error.reason() == reason::LIMIT_REACHED || error.code() == Code::Unimplemented => {
            Identity::None
        }
        Err(error) => return Err(error),
    };
    shared.read(|state| state.identify(identity));
    Ok(())
}

async fn run_stream(shared: &Arc<Shared>) -> Ended {
    let stream = shared.begin_stream();
    let puller = Puller { shared: Arc::clone(shared), stream };
    let channel = shared.client.channel();
    let open = async move { raw::call(channel, PATH, puller).await.map_err(Error::from) };
    match carry(shared, open).await {
        Ok(ended) => ended,
        Err(error) => Ended::Failed(error),
    }
}

/// Opens the stream, then takes what comes: answers, silence, timers. The server may answer the call itself only with its
/// first ack, so timers run from the beginning.
async fn carry(shared: &Arc<Shared>, open: impl Future<Output = Result<Messages>>) -> Result<Ended> {
    let mut open = std::pin::pin!(open);
    let mut responses: Option<Messages> = None;
    let mut heard = clock::now();
    let mut refresh =
        clock::now() + if shared.read(|state| state.is_unassigned()) { REFRESH / 30 } else { REFRESH };
    let mut draining = false;
    loop {
        let due = shared.read(|state| state.next_due()).unwrap_or_else(clock::far_future);
        tokio::select! {
            opened = &mut open, if responses.is_none() => {
                responses = Some(opened?);
                heard = clock::now();
            }
            message = next(&mut responses) => {
                heard = clock::now();
                match message? {
                    None => return ended(shared, draining),
                    Some(message) => {
                        let took = take(shared, &message)?;
                        draining |= took.drain;
                        if took.stored && shared.read(|state| state.is_unassigned()) {
                            tokio::spawn(learn_partitions(Arc::clone(shared)));
                        }
                    }
                }
                if draining && !shared.read(|state| state.has_in_flight()) {
                    return Ok(Ended::Drained);
                }
            }
            () = shared.work.notified() => {}
            () = tokio::time::sleep_until(due) => {
                shared.with(|state| ((), state.close_due(clock::now())));
            }
            () = tokio::time::sleep_until(heard + SILENCE) => return Err(silent()),
            () = tokio::time::sleep_until(refresh) => {
                refresh = clock::now() + REFRESH;
                tokio::spawn(learn_partitions(Arc::clone(shared)));
            }
        }
    }
}

async fn next(responses: &mut Option<Messages>) -> Result<Option<Bytes>> {
    match responses {
        Some(responses) => Ok(responses.next().await?.map(raw::joined)),
        None => std::future::pending().await,
    }
}

fn silent() -> Error {
    Error::from(tonic::Status::unavailable("no sign of life from the server for 25 s"))
}

fn ended(shared: &Shared, draining: bool) -> Result<Ended> {
    let (in_flight, closed) = shared.read(|state| (state.has_in_flight(), state.is_closed()));
    match (in_flight, closed) {
        (true, _) => Err(Error::from(tonic::Status::unavailable("the server ended the stream"))),
        (false, true) if !draining => Ok(Ended::Done),
        (false, _) => Ok(Ended::Drained),
    }
}

struct Took {
    stored: bool,
    drain: bool,
}

fn take(shared: &Shared, message: &Bytes) -> Result<Took> {
    let response = v1::ProduceStreamResponse::decode(message.clone()).map_err(Error::bad_answer)?;
    match response.event {
        Some(Event::Stored(stored)) => {
            // A window may have been full.
            shared.with(|state| (state.stored(stored.appends), state.has_ready()))?;
            shared.tell();
            Ok(Took { stored: true, drain: false })
        }
        Some(Event::Drain(_)) => {
            shared.end_stream();
            Ok(Took { stored: false, drain: true })
        }
        Some(Event::Heartbeat(_)) | None => Ok(Took { stored: false, drain: false }),
    }
}

/// Asks how many partitions the topic has. What cannot be learnt now is learnt the next time.
async fn learn_partitions(shared: Arc<Shared>) {
    if let Ok(topic) = shared.client.topic(&shared.topic).await {
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        shared.with(|state| ((), state.set_partitions(partitions)));
    }
}
