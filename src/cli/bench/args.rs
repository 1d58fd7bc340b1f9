//! The flags that benches share.

use std::{path::PathBuf, time::Duration};

use annals_client::{Backoff, ProducerOptions};
use clap::Args;

use crate::cli::{
    exit::Failure,
    format::Format,
    position::milliseconds,
    values::{Level, bytes},
};

/// How long, how often, where.
#[derive(Args, Clone, Debug)]
pub(super) struct Common {
    /// Measure for so long, each run
    #[arg(long, value_name = "T", value_parser = time, default_value = "5s")]
    pub(super) duration: Duration,
    /// ... after so much that does not count
    #[arg(long, value_name = "T", value_parser = time, default_value = "1s")]
    pub(super) warmup: Duration,
    /// Runs; the median counts, and the range is told
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) runs: u32,
    /// Server to load: HOST:PORT, HOST (port 7411) or unix:PATH [default: one of its own, gone afterwards]
    #[arg(long, value_name = "ADDR")]
    pub(super) server: Option<String>,
    /// Directory for what its own server and the limits write; removed afterwards [default: that for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Write the report and every latency here: report.json, and a histogram log (HDR, V2 deflate) for each kind
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// How to print: table, json, csv or raw (cells with tabs between) [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) format: Option<Format>,
}

/// The topic under load.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct TopicArgs {
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) partitions: u32,
    /// What an ack means
    #[arg(long, value_name = "LEVEL", default_value = "fsync")]
    pub(super) durability: Level,
}

/// How producers batch.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Batching {
    /// A batch is sent when it has so many bytes
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "256KiB")]
    pub(super) batch_bytes: u64,
    /// ... or when it is so old [default: 5ms; 0 where latency is what is measured]
    #[arg(long, value_name = "T", value_parser = time)]
    pub(super) linger: Option<Duration>,
    /// Bytes of a producer that may be unanswered
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "16MiB")]
    pub(super) in_flight_bytes: u64,
}

impl Batching {
    /// For `annals-client`. What fails is not tried again: it is to be seen.
    pub(super) fn options(&self, linger: Duration) -> Result<ProducerOptions, Failure> {
        Ok(ProducerOptions {
            batch_bytes: in_memory(self.batch_bytes)?,
            linger: self.linger.unwrap_or(linger),
            max_in_flight_bytes: in_memory(self.in_flight_bytes)?,
            backoff: Backoff::NEVER,
            stop_on_failure: true,
            ..ProducerOptions::default()
        })
    }
}

/// A size that this machine can address.
pub(super) fn in_memory(bytes: u64) -> Result<usize, Failure> {
    usize::try_from(bytes).map_err(|_| Failure::usage(format!("{bytes} bytes are too many for this machine")))
}

/// A size of records, checked against what a record can be.
pub(super) fn record_size(text: &str) -> Result<usize, String> {
    let size = bytes(text)?;
    // Room for key, tags and lengths.
    let most = annals_client::MAX_RECORD_BYTES - 64;
    usize::try_from(size)
        .ok()
        .filter(|size| (STAMP..=most).contains(size))
        .ok_or_else(|| format!("{size} bytes: a record here has {STAMP} to {most}"))
}

/// Bytes of a record that tell when it was meant to be sent.
pub(super) const STAMP: usize = 8;

/// A length of time such as `500ms`, `90s` or `0s`.
fn time(text: &str) -> Result<Duration, String> {
    let ms = milliseconds(text)?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}
