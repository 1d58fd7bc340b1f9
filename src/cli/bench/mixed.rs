//! `annals bench mixed`: writers, readers at the end and readers far behind at the same time.

use clap::Args;

use super::{
    args::{Batching, Common, TopicArgs, record_size},
    e2e::arrivals,
    figures::{Figure, Per, Run, per_second},
    limits::tcp::{self, Work},
    live::{self, Load},
    report,
    session::Session,
};
use crate::cli::{
    exit::{Exit, Failure},
    values::bytes,
};

const EXAMPLE: &str = "Example:\n  annals bench mixed --rate 20000 --behind 2 --history 64MiB";

/// Publish at a rate while others read the end and others read from the beginning
///
/// Readers far behind go through the whole topic, again and again, as fast as they can. Beside what they read, in each run:
/// TCP whose receiver computes the checksum; beside the time to arrive: the time to the ack.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Mixed {
    /// Records per second, of all producers together
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = record_size, default_value = "1KiB")]
    record_bytes: usize,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    producers: u32,
    /// Readers at the end, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    consumers: u32,
    /// Readers far behind, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    behind: u32,
    /// What the topic holds before
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "512MiB")]
    history: u64,
    #[command(flatten)]
    batching: Batching,
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &Mixed, session: &mut Session) -> Result<Exit, Failure> {
    let load = Load {
        rate: args.rate,
        record_bytes: args.record_bytes,
        producers: args.producers,
        consumers: args.consumers,
        behind: args.behind,
        history: args.history,
        batching: args.batching,
        topic: args.topic,
    };
    let mut runs = Vec::new();
    for _ in 0..args.common.runs {
        let limit = tcp::throughput(session, Work::Crc).await?;
        let seen = live::once(&load, session).await?;
        let mut run = Run::default();
        run.rates(&seen.published, None);
        let behind = per_second(seen.published.bytes_aside, seen.published.time) / 1e6;
        run.push(Figure::new("read behind", "MB/s", behind).against(Work::Crc.name(), limit));
        arrivals(&mut run, seen.acks, seen.delivered);
        run.costs(&seen.published, Per::Record);
        runs.push(run);
    }
    report::print(session, "mixed", &load.to_string(), &runs)
}
