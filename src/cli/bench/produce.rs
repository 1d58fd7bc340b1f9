//! `annals bench produce`: producers as fast as they can, or at a rate.

use annals_client::{Client, NewRecord, Outcome, ProducerOptions};
use clap::Args;

use super::{
    args::{Batching, Common, TopicArgs, in_memory, record_size},
    figures::{Per, Run},
    limits::{
        disk,
        tcp::{self, Work},
    },
    live, many,
    observe::{Bounds, Counter, Observed, Stop, Tasks, Watch, finish},
    payload::Payload,
    report,
    session::Session,
};
use crate::{
    cli::{
        exit::{Exit, Failure},
        progress::Progress,
        rows::{grouped, size},
        values::{Level, bytes},
    },
    sync::{Arc, AtomicBool, Ordering},
};

const EXAMPLE: &str = "Example:\n  annals bench produce --record-bytes 100 --durability os";

/// Publish over streams: how many records and bytes per second are acked
///
/// Records are encoded as an application's are, batch by batch. What counts is what was acked. Beside it, in each run: TCP
/// whose receiver computes the checksum and writes to the page cache, and at fsync the disk's own writes and flushes of
/// pieces as large as a batch.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Produce {
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = record_size, default_value = "1KiB")]
    pub(super) record_bytes: usize,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) producers: u32,
    /// Records per second, of all producers together, and how late their acks are [default: as many as go, no latency]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) rate: Option<u64>,
    /// A run is over when it has published so much, too; what is behind it would measure how the kernel writes back
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "3GiB")]
    pub(super) volume: u64,
    #[command(flatten)]
    pub(super) batching: Batching,
    #[command(flatten)]
    pub(super) topic: TopicArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Produce, session: &mut Session) -> Result<Exit, Failure> {
    let mut runs = Vec::new();
    for _ in 0..args.common.runs {
        let mut run = Run::default();
        if let Some(rate) = args.rate {
            let live = live::Load {
                rate,
                record_bytes: args.record_bytes,
                producers: args.producers,
                batching: args.batching,
                topic: args.topic,
                consumers: 0,
                behind: 0,
                history: 0,
            };
            let seen = live::once(&live, session).await?;
            run.rates(&seen.published, None);
            run.latencies("ack", seen.acks, |_| None);
            run.costs(&seen.published, Per::Record);
        } else {
            let limit = limit(args, session).await?;
            let observed = once(args, session).await?;
            run.rates(&observed, Some(limit));
            run.costs(&observed, Per::Gigabyte);
        }
        runs.push(run);
    }
    report::print(session, "produce", &settings(args), &runs)
}

fn settings(args: &Produce) -> String {
    format!(
        "records of {} bytes, batches of {}, {}, {}, {}{}",
        args.record_bytes,
        size(i64::try_from(args.batching.batch_bytes).unwrap_or(i64::MAX)),
        many(args.topic.partitions, "partition"),
        many(args.producers, "producer"),
        super::level(args.topic.durability),
        args.rate
            .map(|rate| format!(", {} records/s", grouped(i64::try_from(rate).unwrap_or(i64::MAX))))
            .unwrap_or_default()
    )
}

/// What the machine does with the same bytes.
async fn limit(args: &Produce, session: &Session) -> Result<(String, f64), Failure> {
    if args.topic.durability == Level::Fsync {
        let piece = in_memory(args.batching.batch_bytes)?.clamp(4096, 8 << 20);
        let flush = disk::flush(session, piece).await?;
        let name = format!("write and flush {}", size(i64::try_from(piece).unwrap_or(i64::MAX)));
        return Ok((name, flush.megabytes_per_second));
    }
    let work = Work::CrcAndWrite;
    Ok((work.name().to_owned(), tcp::throughput(session, work).await?))
}

async fn once(args: &Produce, session: &mut Session) -> Result<Observed, Failure> {
    let topic = session.topic(args.topic).await?;
    let clients = session.connect_all(args.producers).await?;
    let bounds = Bounds { warmup: args.common.warmup, duration: args.common.duration, volume: args.volume };
    let options = args.batching.options(std::time::Duration::from_millis(5))?;
    let progress = Progress::bytes(None);
    let (counter, stop, mut tasks) = (Arc::new(Counter::default()), Stop::default(), Tasks::new());
    for client in clients {
        let options = counted(options.clone(), &counter, args.record_bytes);
        let payload = Payload::new(&*session.clock, args.record_bytes, args.producers);
        tasks.spawn(publish(client, topic.clone(), options, payload, stop.flag()));
    }
    let watch = Watch { session, bounds, counter: &counter, aside: None };
    let observed = watch.observe(&mut tasks, &progress).await;
    progress.clear();
    drop(stop);
    let observed = observed?;
    finish(&mut tasks).await?;
    session.delete(&topic).await?;
    Ok(observed)
}

/// Counts every acked record.
pub(super) fn counted(
    mut options: ProducerOptions,
    counter: &Arc<Counter>,
    record_bytes: usize,
) -> ProducerOptions {
    let counter = Arc::clone(counter);
    options.on_outcome = Some(Arc::new(move |outcome| {
        if let Outcome::Stored { append, .. } = outcome {
            let records = u64::from(append.record_count);
            counter.add(records, records * record_bytes as u64);
        }
    }));
    options
}

/// One producer, until it is told to stop; everything it sent is acked when this returns.
pub(super) async fn publish(
    client: Client,
    topic: String,
    options: ProducerOptions,
    mut payload: Payload,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let producer = client.producer(&topic, options).await?;
    while !stop.load(Ordering::Relaxed) {
        // Looked at now and then, as the application under measure would look at nothing.
        for _ in 0..100 {
            producer.send(&NewRecord::new(payload.next())).await?;
        }
    }
    Ok(producer.close().await?)
}
