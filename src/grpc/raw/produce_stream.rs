//! ProduceStream: requests without waiting, acks in their order.
//!
//! ```text
//! messages -> submit (one after the other: gives offsets) -> pending acks (in order) -> answers
//! ```
//!
//! 1. Requests are submitted in the order in which they came, and answered in that order.
//! 2. The first refusal ends the stream with its status, after the answers to everything before it; nothing that was
//!    sent behind it is stored. When the disk fails after records were submitted, the status is OUTCOME_UNKNOWN, and
//!    what was submitted behind them is as unknown.
//! 3. At most [`MAX_PENDING`] requests or [`MAX_PENDING_BYTES`] wait for their ack; then no further one is read.
//! 4. A message without a request is the caller's sign of life. Ours is a heartbeat after [`SILENCE`].
//! 5. When the server goes away the caller is told once, and what it sends is answered until it stops sending.

use std::{
    collections::VecDeque,
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use annals_wire::{
    limits,
    v1::{self, produce_stream_response::Event},
};
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::Body;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    DrainSignal, Raw, ack, encode,
    message::{Message, Messages},
    produce::scan_streamed,
};
use crate::{
    broker::{self, Broker, PendingAck, Principal, Produced},
    grpc::{
        answer::{self, Answer, Outbox},
        front::Call,
        refusal::Refusal,
    },
    sync::Arc,
};

/// Requests that may wait for their ack.
const MAX_PENDING: usize = 4096;
/// Bytes of requests that may wait for their ack.
const MAX_PENDING_BYTES: usize = 32 << 20;
/// Answers are written into one buffer of this size until it is full.
const ANSWER_BUFFER: usize = 16 << 10;
/// After so much silence we give a sign of life.
const SILENCE: Duration = Duration::from_millis(limits::HEARTBEAT_INTERVAL_MS as u64);
/// A drained stream on which nothing more arrives for so long is ended.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn serve<B>(raw: Arc<Raw>, call: Call<B>) -> Response<Answer>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    let messages = raw.record_messages(call.request.into_body());
    answer::stream(|outbox| run(raw, call.principal, messages, outbox))
}

/// What of the stream is not done yet, and what was said so far.
struct Progress {
    /// Submitted, oldest first, with the bytes each counts for.
    pending: VecDeque<(PendingAck, usize)>,
    /// Bytes of all that is submitted and not answered.
    pending_bytes: usize,
    /// Requests submitted and not answered.
    count: usize,
    /// More requests are read.
    reading: bool,
    /// The caller was told that the server goes away.
    drained: bool,
    /// How the stream ends once everything submitted is answered.
    end: Result<(), Refusal>,
    /// Answers not handed on yet.
    answers: BytesMut,
    /// Next sign of life, or end of a drained stream.
    pulse: Interval,
    /// What of a half-arrived message was missing at the last pulse.
    missing: Option<usize>,
}

impl Progress {
    fn new() -> Self {
        Self {
            pending: VecDeque::new(),
            pending_bytes: 0,
            count: 0,
            reading: true,
            drained: false,
            end: Ok(()),
            answers: BytesMut::new(),
            pulse: pulse(SILENCE),
            missing: None,
        }
    }

    fn may_read(&self) -> bool {
        self.reading && self.count < MAX_PENDING && self.pending_bytes < MAX_PENDING_BYTES
    }

    /// Reads no more; what is submitted is still answered.
    fn stop(&mut self, end: Result<(), Refusal>) {
        self.reading = false;
        self.end = end;
    }

    fn answered(&mut self, produced: &Produced, bytes: usize) {
        self.pending_bytes -= bytes;
        self.count -= 1;
        ack::put_streamed(self.buffer(), produced);
    }

    fn say(&mut self, event: Event) {
        encode::put_message(self.buffer(), &v1::ProduceStreamResponse { event: Some(event) });
    }

    /// Where answers are written.
    fn buffer(&mut self) -> &mut BytesMut {
        if self.answers.capacity() < ANSWER_BUFFER / 16 {
            self.answers.reserve(ANSWER_BUFFER);
        }
        &mut self.answers
    }

    /// Hands the answers to the connection and waits until it has them.
    async fn send(&mut self, outbox: &Outbox) {
        if !self.answers.is_empty() {
            outbox.push(self.answers.split().freeze());
            outbox.sent().await;
            self.pulse.reset();
        }
    }

    fn drain(&mut self, deadline_ms: u32) {
        self.drained = true;
        self.pulse = pulse(QUIET);
        self.say(Event::Drain(v1::Drain { deadline_ms }));
    }

    /// Nothing was said for a while. `missing` is what a message lacks that has begun to arrive.
    fn silence(&mut self, now_ms: i64, missing: Option<usize>) {
        if missing.is_some() && missing == self.missing {
            self.stop(Err(Refusal::Stalled { silence: SILENCE }));
        } else if self.drained && self.count == 0 {
            self.stop(Err(Refusal::Drained));
        } else if !self.drained {
            self.say(Event::Heartbeat(v1::Heartbeat { now_ms, watermarks: Vec::new() }));
        }
        self.missing = missing;
    }
}

fn pulse(period: Duration) -> Interval {
    let mut pulse = interval(period);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pulse.reset(); // the first tick of an interval is at once
    pulse
}

async fn run<B>(
    raw: Arc<Raw>,
    principal: Principal,
    mut messages: Messages<B>,
    outbox: Outbox,
) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let _writing = raw.writers.enter();
    let mut drain = raw.drain.clone();
    let mut progress = Progress::new();
    let mut submitting = pin!(None);
    let mut acking = pin!(None);
    loop {
        loop {
            if acking.is_none() {
                let Some((ack, bytes)) = progress.pending.pop_front() else { break };
                acking.set(Some(acked(ack, bytes)));
            }
            let Some((outcome, bytes)) = once(acking.as_mut().as_pin_mut()).await else { break };
            acking.set(None);
            progress.answered(&outcome?, bytes);
        }
        progress.send(&outbox).await;
        if !progress.reading && submitting.is_none() && progress.count == 0 {
            return progress.end;
        }
        tokio::select! {
            biased;
            (outcome, bytes) = maybe(acking.as_mut().as_pin_mut()) => {
                acking.set(None);
                progress.answered(&outcome?, bytes);
            }
            (outcome, bytes) = maybe(submitting.as_mut().as_pin_mut()) => {
                submitting.set(None);
                match outcome {
                    Ok(ack) => progress.pending.push_back((ack, bytes)),
                    Err(refusal) => {
                        progress.count -= 1;
                        progress.pending_bytes -= bytes;
                        progress.stop(Err(refusal));
                    }
                }
            }
            message = messages.next(), if submitting.is_none() && progress.may_read() => {
                match message.and_then(|message| message.map(|message| scanned(message, &principal)).transpose()) {
                    Ok(None) => progress.stop(Ok(())),
                    Ok(Some(None)) => {}
                    Ok(Some(Some((call, message)))) => {
                        progress.count += 1;
                        progress.pending_bytes += message.held.bytes();
                        submitting.set(Some(submit(&raw.broker, call, message)));
                    }
                    Err(refusal) => progress.stop(Err(refusal)),
                }
                if progress.drained {
                    progress.pulse.reset();
                }
            }
            deadline_ms = told_to_drain(&mut drain), if !progress.drained => progress.drain(deadline_ms),
            _ = progress.pulse.tick() => progress.silence(raw.clock.wall_ms(), messages.missing()),
        }
    }
}

/// A request, or nothing if the message was a sign of life.
fn scanned(message: Message, principal: &Principal) -> Result<Option<(broker::Produce, Message)>, Refusal> {
    let scanned = scan_streamed(&message.chunks)?;
    Ok(scanned.map(|scanned| (broker::Produce { scanned, principal: principal.clone() }, message)))
}

/// Submits a request; the message's room is given back once the broker has its records.
async fn submit(
    broker: &Arc<Broker>,
    call: broker::Produce,
    message: Message,
) -> (Result<PendingAck, Refusal>, usize) {
    let bytes = message.held.bytes();
    let outcome = broker.submit(call).await.map_err(Refusal::from);
    drop(message);
    (outcome, bytes)
}

async fn acked(ack: PendingAck, bytes: usize) -> (Result<Produced, Refusal>, usize) {
    (ack.acked().await.map_err(Refusal::from), bytes)
}

/// Milliseconds left, once the server goes away; never, if it has nobody who could say so.
async fn told_to_drain(drain: &mut DrainSignal) -> u32 {
    let told = drain.wait_for(Option::is_some).await.ok().and_then(|told| *told);
    match told {
        Some(deadline_ms) => deadline_ms,
        None => pending().await,
    }
}

/// The future's output if it is ready now.
async fn once<F: Future>(future: Option<Pin<&mut F>>) -> Option<F::Output> {
    let mut future = future?;
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// The future's output; waits for ever if there is none.
async fn maybe<F: Future>(future: Option<Pin<&mut F>>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
