//! `annals bench consume`: readers as fast as they can.

use annals_client::{Client, Event, FetchOptions, ReaderOptions, Records, Start};
use clap::{Args, ValueEnum};

use super::{
    args::{Common, TopicArgs, in_memory, record_size},
    figures::{Per, Run},
    history,
    limits::tcp::{self, Work},
    many,
    observe::{Bounds, Counter, Observed, Stop, Tasks, Watch, finish},
    report,
    session::Session,
};
use crate::{
    cli::{
        exit::{Exit, Failure},
        progress::Progress,
        rows::size,
        values::{Level, bytes},
    },
    sync::{Arc, AtomicBool, Ordering},
};

const EXAMPLE: &str = "Example:\n  annals bench consume --record-bytes 100 --volume 64MiB";

/// Read a topic again and again: how many records and bytes per second reach an application
///
/// The topic is filled first, so it lies in the page cache if that is large enough. Every batch's checksums are checked, and
/// every record is looked at. Beside it, in each run: TCP whose receiver computes the checksum.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Consume {
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = record_size, default_value = "1KiB")]
    record_bytes: usize,
    /// Readers, each with a connection of its own and each of the whole topic
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    consumers: u32,
    /// Which call
    #[arg(long, value_enum, default_value = "subscribe")]
    call: Call,
    /// What a message aims at
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "1MiB")]
    message_bytes: u64,
    /// What the topic holds
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "1GiB")]
    volume: u64,
    /// Size of the batches that it is filled with
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256KiB")]
    batch_bytes: u64,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    partitions: u32,
    #[command(flatten)]
    pub(super) common: Common,
}

/// How records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Call {
    /// One stream that goes on by itself
    Subscribe,
    /// One question, one answer, again and again
    Fetch,
}

pub(super) async fn run(args: &Consume, session: &mut Session) -> Result<Exit, Failure> {
    let topic = TopicArgs { partitions: args.partitions, durability: Level::Os };
    let topic = session.topic(topic).await?;
    history::fill(session, &topic, args.record_bytes, args.volume, in_memory(args.batch_bytes)?).await?;
    let mut runs = Vec::new();
    for _ in 0..args.common.runs {
        let limit = tcp::throughput(session, Work::Crc).await?;
        let observed = once(args, session, &topic).await?;
        let mut run = Run::default();
        run.rates(&observed, Some((Work::Crc.name().to_owned(), limit)));
        run.costs(&observed, Per::Gigabyte);
        runs.push(run);
    }
    let human = |bytes| size(i64::try_from(bytes).unwrap_or(i64::MAX));
    let settings = format!(
        "records of {} bytes in batches of {}, messages of {}, {}, {}",
        args.record_bytes,
        human(args.batch_bytes),
        human(args.message_bytes),
        many(args.partitions, "partition"),
        many(args.consumers, "consumer")
    );
    report::print(session, "consume", &settings, &runs)
}

async fn once(args: &Consume, session: &Session, topic: &str) -> Result<Observed, Failure> {
    let clients = session.connect_all(args.consumers).await?;
    let progress = Progress::bytes(None);
    let (counter, stop, mut tasks) = (Arc::new(Counter::default()), Stop::default(), Tasks::new());
    let max_bytes = u32::try_from(args.message_bytes).unwrap_or(u32::MAX);
    for client in clients {
        let (topic, counter, stop) = (topic.to_owned(), Arc::clone(&counter), stop.flag());
        match args.call {
            Call::Subscribe => tasks.spawn(subscribe(client, topic, max_bytes, counter, stop)),
            Call::Fetch => tasks.spawn(fetch(client, topic, max_bytes, counter, stop)),
        };
    }
    let (warmup, duration) = (args.common.warmup, args.common.duration);
    let bounds = Bounds { warmup, duration, volume: u64::MAX };
    let watch = Watch { session, bounds, counter: &counter, aside: None };
    let observed = watch.observe(&mut tasks, &progress).await;
    progress.clear();
    drop(stop);
    let observed = observed?;
    finish(&mut tasks).await?;
    Ok(observed)
}

/// Looks at every record, as an application does.
pub(super) fn look_at(records: &Records, counter: &Counter) -> Result<(), Failure> {
    for batch in records.batches() {
        let batch = batch?;
        let (mut count, mut bytes) = (0, 0);
        for record in batch.records() {
            let record = std::hint::black_box(record?);
            count += 1;
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
        }
        counter.add(count, bytes);
    }
    Ok(())
}

/// Reads from the first record to the last, again and again.
pub(super) async fn subscribe(
    client: Client,
    topic: String,
    max_bytes: u32,
    counter: Arc<Counter>,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    while !stop.load(Ordering::Relaxed) {
        let positions = client.positions(&topic, &[], &Start::Earliest).await?;
        let mut behind = positions.len();
        let options = ReaderOptions { max_bytes, ..ReaderOptions::default() };
        let mut reader = client.subscribe(positions, options).await?;
        while behind > 0 && !stop.load(Ordering::Relaxed) {
            match reader.next().await? {
                Some(Event::Records(records)) => look_at(&records, &counter)?,
                Some(Event::CaughtUp { .. }) => behind -= 1,
                Some(Event::Failed(failed)) => return Err(failed.error.into()),
                None => break,
            }
        }
    }
    Ok(())
}

/// As [`subscribe`], one answer at a time.
async fn fetch(
    client: Client,
    topic: String,
    max_bytes: u32,
    counter: Arc<Counter>,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let options = FetchOptions { max_bytes, ..FetchOptions::default() };
    while !stop.load(Ordering::Relaxed) {
        let mut positions = client.positions(&topic, &[], &Start::Earliest).await?;
        while !positions.is_empty() && !stop.load(Ordering::Relaxed) {
            let fetched = client.fetch(&positions, &options).await?;
            if let Some(failed) = fetched.failures.into_iter().next() {
                return Err(failed.error.into());
            }
            for records in &fetched.slices {
                look_at(records, &counter)?;
                let at = positions.iter_mut().find(|at| at.partition == records.partition());
                if let Some(at) = at {
                    at.next_offset = records.next_offset();
                }
            }
            let done = |partition| {
                let mut slices = fetched.slices.iter().filter(|records| records.partition() == partition);
                slices.any(|records| records.next_offset() >= records.high_watermark())
            };
            positions.retain(|at| !done(at.partition));
        }
    }
    Ok(())
}
