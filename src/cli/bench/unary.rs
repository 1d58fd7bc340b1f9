//! `annals bench unary`: one record, one call, one ack.

use std::{ops::ControlFlow, time::Duration};

use annals_client::{Client, NewRecord, ProduceOptions, RequestId, v1};
use clap::Args;
use tokio::sync::mpsc;

use super::{
    args::{Common, TopicArgs, record_size},
    figures::{Figure, Per, Run, micros, per_second},
    limits::{disk, echo},
    many,
    observe::{Bounds, Counter, Observed, Stop, Tasks, Watch, finish},
    pacer,
    payload::Payload,
    report,
    schedule::{Latencies, Schedule, Shared},
    session::Session,
};
use crate::{
    cli::{
        exit::{Exit, Failure},
        progress::Progress,
        rows::grouped,
        values::Level,
    },
    clock::Clock,
    sync::{Arc, AtomicBool, Ordering},
};

const EXAMPLE: &str = "Example:\n  annals bench unary --in-flight 64 --partitions 1000";

/// Publish one record per call, so many calls in flight: calls per second, and how long each takes
///
/// Beside it, in each run: a gRPC call that does nothing, with as many in flight; and at fsync one write and flush of 4 KiB
/// more.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Unary {
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = record_size, default_value = "100")]
    record_bytes: usize,
    /// Calls that may be unanswered
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Connections that they are spread over
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Calls per second, and how late each is answered [default: a new one as soon as one is answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Each call has a request id, so that the server stores it once however often it comes: it is entered in the journal
    /// at every level, and remembered
    #[arg(long)]
    request_ids: bool,
    /// Each call is a step of a pipeline: a record to each of so many partitions and the position of a group that reads one
    /// of them, all or nothing (AppendAndCommit)
    #[arg(long, value_name = "N", conflicts_with = "request_ids", value_parser = clap::value_parser!(u32).range(1..=1000))]
    outputs: Option<u32>,
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Unary, session: &mut Session) -> Result<Exit, Failure> {
    let mut runs = Vec::new();
    for _ in 0..args.common.runs {
        let echo = echo::echo(session, args.in_flight as usize, args.record_bytes).await?;
        let mut p50 = micros(echo.latencies.percentile(50.0));
        let mut name = "bare gRPC echo".to_owned();
        if args.topic.durability == Level::Fsync {
            p50 += micros(disk::flush(session, 4096).await?.latencies.percentile(50.0));
            name.push_str(" + write and flush");
        }
        let (observed, latencies) = once(args, session).await?;
        let mut run = Run::default();
        let rate = Figure::new("calls", "calls/s", per_second(observed.records, observed.time));
        run.push(rate.against("bare gRPC echo", echo.per_second));
        run.latencies("call", latencies, |point| (point == "p50").then(|| (format!("{name} p50"), p50)));
        run.costs(&observed, Per::Record);
        runs.push(run);
    }
    let settings = format!(
        "records of {} bytes, {} in flight over {}, {}, {}{}{}",
        args.record_bytes,
        args.in_flight,
        many(args.connections, "connection"),
        many(args.topic.partitions, "partition"),
        super::level(args.topic.durability),
        aside(args),
        args.rate
            .map(|rate| format!(", {} calls/s", grouped(i64::try_from(rate).unwrap_or(i64::MAX))))
            .unwrap_or_default()
    );
    report::print(session, "unary", &settings, &runs)
}

/// What a call is beside a record.
fn aside(args: &Unary) -> String {
    match args.outputs {
        None if args.request_ids => ", with request ids".to_owned(),
        None => String::new(),
        Some(outputs) => format!(", steps of {} and a position", many(outputs, "output")),
    }
}

/// What every caller knows.
#[derive(Clone)]
struct Calls {
    topic: String,
    partitions: u32,
    clock: Arc<dyn Clock>,
    begin: Duration,
    end: Duration,
    counter: Arc<Counter>,
    latencies: Shared,
    stop: Arc<AtomicBool>,
    request_ids: bool,
    outputs: Option<u32>,
    /// Times at which calls are meant; without them a call is meant when the one before is answered.
    tickets: Option<Arc<tokio::sync::Mutex<mpsc::Receiver<Duration>>>>,
}

async fn once(args: &Unary, session: &mut Session) -> Result<(Observed, Latencies), Failure> {
    if args.outputs.is_some_and(|outputs| outputs > args.topic.partitions) {
        return Err(Failure::usage(
            "--outputs: each goes to a partition of its own; give --partitions as many",
        ));
    }
    let topic = session.topic(args.topic).await?;
    let clients = session.connect_all(args.connections.min(args.in_flight)).await?;
    let (stop, mut tasks) = (Stop::default(), Tasks::new());
    let start = session.clock.monotonic();
    let begin = start + args.common.warmup;
    let end = begin + args.common.duration;
    let mut tickets = None;
    if let Some(rate) = args.rate {
        let (sender, receiver) = mpsc::channel(1 << 16);
        tickets = Some(Arc::new(tokio::sync::Mutex::new(receiver)));
        let schedule = Schedule { start, rate, lane: 0, lanes: 1 };
        pacer::start(Arc::clone(&session.clock), schedule, end, stop.flag(), move |intended| {
            match sender.blocking_send(intended) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
    }
    let calls = Calls {
        topic: topic.clone(),
        partitions: args.topic.partitions,
        clock: Arc::clone(&session.clock),
        begin,
        end,
        counter: Arc::default(),
        latencies: Latencies::shared(),
        stop: stop.flag(),
        request_ids: args.request_ids,
        outputs: args.outputs,
        tickets,
    };
    for (caller, client) in (0..args.in_flight).zip(clients.iter().cycle()) {
        let payload = Payload::new(&*session.clock, args.record_bytes, args.in_flight);
        let caller = Caller { client: client.clone(), number: caller, next_offset: None };
        tasks.spawn(call(caller, calls.clone(), payload));
    }
    let progress = Progress::bytes(None);
    let bounds = Bounds { warmup: args.common.warmup, duration: args.common.duration, volume: u64::MAX };
    let watch = Watch { session, bounds, counter: &calls.counter, aside: None };
    let observed = watch.observe(&mut tasks, &progress).await;
    progress.clear();
    drop(stop);
    let observed = observed?;
    finish(&mut tasks).await?;
    session.delete(&topic).await?;
    let latencies = calls.latencies.lock().clone();
    Ok((observed, latencies))
}

/// One call after the other, to one partition after the other.
async fn call(mut caller: Caller, calls: Calls, mut payload: Payload) -> Result<(), Failure> {
    let mut partition = caller.number % calls.partitions;
    while !calls.stop.load(Ordering::Relaxed) {
        let intended = match &calls.tickets {
            None => calls.clock.monotonic(),
            Some(tickets) => match tickets.lock().await.recv().await {
                Some(intended) => intended,
                None => return Ok(()),
            },
        };
        let value = payload.next();
        match calls.outputs {
            None => caller.produce(&calls, partition, value).await?,
            Some(outputs) => caller.step(&calls, partition, outputs, value).await?,
        }
        if (calls.begin..calls.end).contains(&intended) {
            calls.latencies.lock().record(intended, calls.clock.monotonic());
        }
        calls.counter.add(1, value.len() as u64);
        // A step that meets all partitions, and keeps callers apart.
        partition = (partition + 1) % calls.partitions;
    }
    Ok(())
}

/// One of those that call.
struct Caller {
    client: Client,
    number: u32,
    /// Of partition 0: up to where its group has read, and where it will have once the next step is done.
    next_offset: Option<(i64, i64)>,
}

impl Caller {
    async fn produce(&self, calls: &Calls, partition: u32, value: &[u8]) -> Result<(), Failure> {
        let request_id = if calls.request_ids { RequestId::Fresh } else { RequestId::Without };
        let options = ProduceOptions { partition: Some(partition), request_id, ..ProduceOptions::default() };
        self.client.produce(&calls.topic, &[NewRecord::new(value)], options).await?;
        Ok(())
    }

    /// A step that has read what the one before it wrote.
    async fn step(&mut self, calls: &Calls, from: u32, outputs: u32, value: &[u8]) -> Result<(), Failure> {
        let mut step = self.client.step();
        for partition in (0..outputs).map(|n| (from + n) % calls.partitions) {
            step.push(&calls.topic, &NewRecord::new(value).partition(partition))?;
        }
        let (expected, next_offset) = self.next_offset.unwrap_or_default();
        let position = v1::CommitPosition {
            topic: calls.topic.clone(),
            next_offset,
            expected_offset: Some(expected),
            ..v1::CommitPosition::default()
        };
        step.commit(&format!("{}-{}", calls.topic, self.number), position);
        let done = self.client.append_and_commit(step).await?;
        let read = done.appends.iter().find(|append| append.partition == 0);
        let read = read.map_or(next_offset, |append| append.base_offset + i64::from(append.record_count));
        // A record a step: what the other callers wrote meanwhile is not this one's input.
        self.next_offset = Some((next_offset, read.min(next_offset + 1)));
        Ok(())
    }
}
