//! `annals bench e2e`: from publishing to an open subscription.

use clap::Args;

use super::{
    args::{Batching, Common, TopicArgs, record_size},
    figures::{Per, Run, micros},
    live::{self, Load},
    report,
    session::Session,
};
use crate::cli::exit::{Exit, Failure};

const EXAMPLE: &str = "Example:\n  annals bench e2e --rate 1000";

/// Publish at a rate to open subscriptions: how late records are acked, and how late they arrive
///
/// Beside the time to arrive, in each run: the time to the ack.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct E2e {
    /// Records per second, of all producers together
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Bytes of a record's value
    #[arg(long, value_name = "SIZE", value_parser = record_size, default_value = "100")]
    record_bytes: usize,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    producers: u32,
    /// Readers, each with a connection of its own and each of the whole topic
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    consumers: u32,
    #[command(flatten)]
    batching: Batching,
    #[command(flatten)]
    topic: TopicArgs,
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) async fn run(args: &E2e, session: &mut Session) -> Result<Exit, Failure> {
    let load = Load {
        rate: args.rate,
        record_bytes: args.record_bytes,
        producers: args.producers,
        consumers: args.consumers,
        behind: 0,
        history: 0,
        batching: args.batching,
        topic: args.topic,
    };
    let mut runs = Vec::new();
    for _ in 0..args.common.runs {
        let seen = live::once(&load, session).await?;
        let mut run = Run::default();
        run.rates(&seen.published, None);
        arrivals(&mut run, seen.acks, seen.delivered);
        run.costs(&seen.published, Per::Record);
        runs.push(run);
    }
    report::print(session, "e2e", &load.to_string(), &runs)
}

/// Acks, and arrivals beside them.
pub(super) fn arrivals(
    run: &mut Run,
    acks: super::schedule::Latencies,
    delivered: super::schedule::Latencies,
) {
    let (p50, p99) = (micros(acks.percentile(50.0)), micros(acks.percentile(99.0)));
    run.latencies("ack", acks, |_| None);
    run.latencies("delivered", delivered, |point| match point {
        "p50" => Some(("ack p50".to_owned(), p50)),
        "p99" => Some(("ack p99".to_owned(), p99)),
        _ => None,
    });
}
