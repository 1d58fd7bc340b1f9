//! Producers at a rate, readers at the end, readers far behind: what `e2e`, `mixed` and `produce --rate` run.
//!
//! A record's first bytes say when it was meant to be sent, so whoever reads it knows how late it is. Every record that was
//! sent has to be acked, and has to reach every reader at the end, or the run has failed.

use std::{fmt, ops::ControlFlow, time::Duration};

use annals_client::{Ack, Client, Event, NewRecord, Producer, Reader, ReaderOptions, Start, TrySendError};
use tokio::sync::mpsc;

use super::{
    args::{Batching, STAMP, TopicArgs},
    consume, history, many,
    observe::{Bounds, Counter, Observed, Stop, Tasks, Watch, finish},
    pacer,
    payload::Payload,
    produce::counted,
    schedule::{Latencies, Schedule, Shared},
    session::Session,
};
use crate::{
    cli::{
        exit::{Exit, Failure},
        progress::Progress,
        rows::grouped,
    },
    clock::Clock,
    sync::{Arc, AtomicBool, Ordering},
};

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) rate: u64,
    pub(super) record_bytes: usize,
    pub(super) producers: u32,
    /// Readers at the end.
    pub(super) consumers: u32,
    /// Readers that begin at the first record, again and again.
    pub(super) behind: u32,
    /// What the topic holds before.
    pub(super) history: u64,
    pub(super) batching: Batching,
    pub(super) topic: TopicArgs,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records/s of {} bytes, {}, {}, {}, {}",
            grouped(i64::try_from(self.rate).unwrap_or(i64::MAX)),
            self.record_bytes,
            many(self.producers, "producer"),
            many(self.consumers, "consumer"),
            many(self.topic.partitions, "partition"),
            super::level(self.topic.durability)
        )?;
        if self.behind > 0 {
            let readers = many(self.behind, "reader");
            write!(f, ", {readers} behind, in {} MB and what comes", self.history / 1_000_000)?;
        }
        Ok(())
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Seen {
    /// Acked in the window, and what it cost; aside, what the readers behind have read.
    pub(super) published: Observed,
    /// From the time meant to the ack.
    pub(super) acks: Latencies,
    /// From the time meant to the reader.
    pub(super) delivered: Latencies,
}

/// Acks that one producer may wait for.
const UNANSWERED: usize = 1 << 16;
/// Until everything is set up.
const LEAD: Duration = Duration::from_millis(100);
/// How long what was sent may take to arrive once nothing more is sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Only what was meant in this span counts.
#[derive(Clone, Copy)]
struct Span {
    begin: Duration,
    end: Duration,
}

impl Span {
    fn holds(self, time: Duration) -> bool {
        (self.begin..self.end).contains(&time)
    }
}

struct Stage<'a> {
    session: &'a Session,
    load: &'a Load,
    topic: &'a str,
    span: Span,
    stop: Stop,
    readers: Tasks,
    collectors: Tasks,
    acked: Arc<Counter>,
    delivered_count: Arc<Counter>,
    behind: Arc<Counter>,
    acks: Shared,
    delivered: Shared,
}

/// One run.
pub(super) async fn once(load: &Load, session: &mut Session) -> Result<Seen, Failure> {
    let topic = session.topic(load.topic).await?;
    if load.history > 0 {
        history::fill(session, &topic, load.record_bytes, load.history, 256 << 10).await?;
    }
    let seen = Stage::run(session, load, &topic).await?;
    session.delete(&topic).await?;
    Ok(seen)
}

impl<'a> Stage<'a> {
    async fn run(session: &'a Session, load: &'a Load, topic: &'a str) -> Result<Seen, Failure> {
        let common = &session.common;
        let producers = session.connect_all(load.producers).await?;
        let (tails, behind) =
            (session.connect_all(load.consumers).await?, session.connect_all(load.behind).await?);
        let start = session.clock.monotonic() + LEAD;
        let begin = start + common.warmup;
        let mut stage = Stage {
            session,
            load,
            topic,
            span: Span { begin, end: begin + common.duration },
            stop: Stop::default(),
            readers: Tasks::new(),
            collectors: Tasks::new(),
            acked: Arc::default(),
            delivered_count: Arc::default(),
            behind: Arc::default(),
            acks: Latencies::shared(),
            delivered: Latencies::shared(),
        };
        for client in tails {
            stage.read_the_end(client).await?;
        }
        for client in behind {
            let (counter, stop) = (Arc::clone(&stage.behind), stage.stop.flag());
            stage.readers.spawn(consume::subscribe(client, topic.to_owned(), 1 << 20, counter, stop));
        }
        for (lane, client) in (0..).zip(producers) {
            stage
                .publish(client, Schedule { start, rate: load.rate, lane, lanes: load.producers.into() })
                .await?;
        }
        stage.watch().await
    }

    async fn read_the_end(&mut self, client: Client) -> Result<(), Failure> {
        let positions = client.positions(self.topic, &[], &Start::Latest).await?;
        let reader = client.subscribe(positions, ReaderOptions::default()).await?;
        let latencies = Arc::clone(&self.delivered);
        let (clock, counter) = (Arc::clone(&self.session.clock), Arc::clone(&self.delivered_count));
        self.readers.spawn(tail(reader, clock, self.span, latencies, counter));
        Ok(())
    }

    async fn publish(&mut self, client: Client, schedule: Schedule) -> Result<(), Failure> {
        let options = self.load.batching.options(Duration::ZERO)?;
        let options = counted(options, &self.acked, self.load.record_bytes);
        let producer = client.producer(self.topic, options).await?;
        let (sender, receiver) = mpsc::channel(UNANSWERED);
        let latencies = Arc::clone(&self.acks);
        self.collectors.spawn(collect(receiver, Arc::clone(&self.session.clock), self.span, latencies));
        let mut payload = Payload::new(&*self.session.clock, self.load.record_bytes, self.load.producers);
        let stop = self.stop.flag();
        let clock = Arc::clone(&self.session.clock);
        pacer::start(clock, schedule, self.span.end, self.stop.flag(), move |intended| {
            let ns = u64::try_from(intended.as_nanos()).unwrap_or(u64::MAX);
            let record = NewRecord::new(payload.stamped(ns));
            let Some(ack) = send(&producer, &record, &stop) else { return ControlFlow::Break(()) };
            // Whoever collects is gone if an ack was a failure.
            sender.blocking_send((intended, ack)).map_or(ControlFlow::Break(()), ControlFlow::Continue)
        })
    }

    async fn watch(mut self) -> Result<Seen, Failure> {
        let progress = Progress::bytes(None);
        let now = self.session.clock.monotonic();
        let bounds = Bounds {
            warmup: self.span.begin.saturating_sub(now),
            duration: self.session.common.duration,
            volume: u64::MAX,
        };
        let watch = Watch { session: self.session, bounds, counter: &self.acked, aside: Some(&self.behind) };
        let published = tokio::select! {
            published = watch.observe(&mut self.collectors, &progress) => published,
            Err(failure) = finish(&mut self.readers) => Err(failure),
        };
        progress.clear();
        let published = published?;
        let settled = tokio::time::timeout(PATIENCE, async {
            finish(&mut self.collectors).await?;
            while self.delivered_count.records() < self.acked.records() * u64::from(self.load.consumers) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        });
        settled.await.unwrap_or_else(|_| {
            let (acked, arrived) = (self.acked.records(), self.delivered_count.records());
            let what = format!(
                "{acked} records are acked and {arrived} have arrived at {} readers, {} s after the last was sent",
                self.load.consumers,
                PATIENCE.as_secs()
            );
            Err(Failure::new(Exit::Failed, what))
        })?;
        let (acks, delivered) = (self.acks.lock().clone(), self.delivered.lock().clone());
        Ok(Seen { published, acks, delivered })
    }
}

/// Hands a record over; waits while too much is unanswered, and gives up when told to stop.
fn send(producer: &Producer, record: &NewRecord<'_>, stop: &AtomicBool) -> Option<Ack> {
    loop {
        match producer.try_send(record) {
            Ok(ack) => return Some(ack),
            Err(TrySendError::Full) if !stop.load(Ordering::Relaxed) => {
                // Its lateness counts, as everything's does.
                std::thread::sleep(Duration::from_micros(100));
            }
            // The failure itself comes with the acks.
            Err(_) => return None,
        }
    }
}

/// Awaits acks in the order of sending, as an application does.
async fn collect(
    mut acks: mpsc::Receiver<(Duration, Ack)>,
    clock: Arc<dyn Clock>,
    span: Span,
    latencies: Shared,
) -> Result<(), Failure> {
    while let Some((intended, ack)) = acks.recv().await {
        ack.await?;
        if span.holds(intended) {
            latencies.lock().record(intended, clock.monotonic());
        }
    }
    Ok(())
}

/// Reads at the end for as long as it is let.
async fn tail(
    mut reader: Reader,
    clock: Arc<dyn Clock>,
    span: Span,
    latencies: Shared,
    counter: Arc<Counter>,
) -> Result<(), Failure> {
    while let Some(event) = reader.next().await? {
        let records = match event {
            Event::Records(records) => records,
            Event::Failed(failed) => return Err(failed.error.into()),
            Event::CaughtUp { .. } => continue,
        };
        let now = clock.monotonic();
        let mut count = 0;
        for batch in records.batches() {
            let batch = batch?;
            let mut latencies = latencies.lock();
            for record in batch.records() {
                let intended = stamp(record?.value).ok_or_else(|| {
                    Failure::new(Exit::Failed, "a record arrived that this bench has not sent")
                })?;
                if span.holds(intended) {
                    latencies.record(intended, now);
                }
                count += 1;
            }
        }
        counter.add(count, 0);
    }
    Ok(())
}

fn stamp(value: Option<&[u8]>) -> Option<Duration> {
    let bytes = value?.first_chunk::<STAMP>()?;
    Some(Duration::from_nanos(u64::from_le_bytes(*bytes)))
}
