//! What the machine can do, measured beside each bench: no figure says anything without it.
//!
//! Every limit is the cheapest code that does that work and nothing else. Each takes a fraction of a second, and runs on
//! threads of its own, so that Ctrl-C need not wait for it.

pub(super) mod disk;
pub(super) mod echo;
pub(super) mod memory;
pub(super) mod tcp;

use std::time::Duration;

use clap::Args;

use super::{
    args::Common,
    figures::{Figure, Run, micros},
    report,
    session::Session,
};
use crate::cli::{
    exit::{Exit, Failure},
    rows::size,
};

/// Bytes moved at once: they fit the cache that is next to the processor.
pub(super) const PIECE: usize = 256 << 10;
/// How long each is measured.
pub(super) const TIME: Duration = Duration::from_millis(400);
/// Sizes that are written and flushed.
const FLUSHES: [usize; 4] = [4 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Calls in flight.
const CALLS: [usize; 3] = [1, 16, 64];

const EXAMPLE: &str = "Example:\n  annals bench limits";

/// Measure what this machine can do, without any server
///
/// Memory and checksum on one thread, TCP between two threads, the page cache, flushes of a file that is written already,
/// and a gRPC call that does nothing.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Limits {
    /// Rounds; the median counts, and the range is told
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Directory for what is written; removed afterwards [default: that for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
    /// Write the report and every latency here: report.json, and a histogram log (HDR, V2 deflate) for each kind
    #[arg(long, value_name = "DIR")]
    out: Option<std::path::PathBuf>,
    /// How to print: table, json, csv or raw (cells with tabs between) [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<crate::cli::format::Format>,
}

impl Limits {
    /// As the other benches have them.
    pub(super) fn common(&self) -> Common {
        Common {
            duration: TIME,
            warmup: Duration::ZERO,
            runs: self.runs,
            server: None,
            dir: self.dir.clone(),
            out: self.out.clone(),
            format: self.format.clone(),
        }
    }
}

pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let mut runs = Vec::new();
    for _ in 0..session.common.runs {
        runs.push(round(session).await?);
    }
    let settings = format!("each alone, pieces of {} KiB", PIECE >> 10);
    report::print(session, "limits", &settings, &runs)
}

async fn round(session: &Session) -> Result<Run, Failure> {
    let mut run = Run::default();
    run.push(Figure::new("memcpy", "MB/s", memory::copy(session).await?));
    run.push(Figure::new("crc32", "MB/s", memory::crc32(session).await?));
    for work in [tcp::Work::Crc, tcp::Work::CrcAndWrite] {
        run.push(Figure::new(work.name(), "MB/s", tcp::throughput(session, work).await?));
    }
    run.push(Figure::new("page-cache write", "MB/s", disk::page_cache(session).await?));
    for bytes in FLUSHES {
        let flush = disk::flush(session, bytes).await?;
        let name = format!("write and flush {}", size(i64::try_from(bytes).unwrap_or(i64::MAX)));
        run.push(Figure::new(format!("{name}, rate"), "MB/s", flush.megabytes_per_second));
        run.push(Figure::new(format!("{name}, p50"), "us", micros(flush.latencies.percentile(50.0))));
    }
    for calls in CALLS {
        let echo = echo::echo(session, calls, 100).await?;
        run.push(Figure::new(format!("bare gRPC echo, {calls} in flight, rate"), "calls/s", echo.per_second));
        let p50 = micros(echo.latencies.percentile(50.0));
        run.push(Figure::new(format!("bare gRPC echo, {calls} in flight, p50"), "us", p50));
    }
    Ok(run)
}

/// Runs what blocks on a thread of its own.
async fn apart<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| {
            crate::cli::exit::io_failure(format_args!("the limit \"{what}\" cannot be measured"), &error)
        }),
        Err(error) => Err(Failure::new(Exit::Failed, format!("the limit \"{what}\" failed: {error}"))),
    }
}
