//! `annals stats`, and what other commands show of the rates.

use std::time::Duration;

use annals_client::{Client, v1};
use clap::{Args, ValueEnum};

use super::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    format::Format,
    out::{Out, Reader},
    rows::{Cell, Rows},
};

/// Show the three rates: published (P), processed (R), and how long that took (L)
///
/// P counts records as they become visible, R those that a group confirms for the first time, D those handed to its
/// members; all per second. L is from append to confirmation, of the last minute. LAG is how many records and how old the
/// first of them is; ETA is when the lag is gone if it goes on as in the last minute, "-" if it does not shrink. Rates begin anew when the server
/// starts.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals stats --topic orders --over 1m")]
pub(crate) struct Stats {
    /// Only this topic; more than once for several
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Only this group; more than once for several
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    #[command(flatten)]
    shown: Shown,
    /// Again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

/// How rates are shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Shown {
    /// Rates over so long
    #[arg(long, value_name = "WINDOW", value_enum, default_value = "1m")]
    over: Over,
    /// Also partition by partition
    #[arg(long)]
    partitions: bool,
    /// Watch: time between two looks, 100ms to 1h
    #[arg(long, value_name = "T", default_value = "1s", value_parser = every)]
    every: Duration,
    /// Watch: end after so many looks
    #[arg(long, value_name = "N")]
    times: Option<u64>,
}

impl Shown {
    /// Also partition by partition.
    pub(crate) fn per_partition(self) -> bool {
        self.partitions
    }
}

/// A window of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Over {
    /// The last whole second
    #[value(name = "1s")]
    Second,
    /// The last minute
    #[value(name = "1m")]
    Minute,
    /// The last 15 minutes
    #[value(name = "15m")]
    Quarter,
}

fn every(text: &str) -> Result<Duration, String> {
    let ms = super::position::milliseconds(text)?;
    let every = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let range = Duration::from_millis(100)..=Duration::from_secs(3600);
    if range.contains(&every) { Ok(every) } else { Err(format!("{text}: 100ms to 1h")) }
}

const COLUMNS: &[&str] = &[
    "topic",
    "partition",
    "group",
    "p_per_s",
    "r_per_s",
    "d_per_s",
    "l50_ms",
    "l99_ms",
    "lag",
    "lag_age_ms",
    "eta_ms",
];

pub(crate) fn run(args: &Stats) -> Result<Exit, Failure> {
    connect::run(async {
        let client = args.server.connect().await?;
        let selection = v1::StatsSelection {
            topics: args.topic.clone(),
            groups: args.group.clone(),
            per_partition: args.shown.partitions,
        };
        if args.watch {
            return watch(&client, selection, args.shown, args.output.format.as_ref()).await;
        }
        let stats = client.stats(selection).await?;
        rows(&stats, args.shown.over).print(Out::new(), args.output.format.as_ref(), Exit::Ok)
    })
}

/// Shows them again and again: over each other for a person, one behind the other for a pipe.
pub(crate) async fn watch(
    client: &Client,
    selection: v1::StatsSelection,
    shown: Shown,
    format: Option<&Format>,
) -> Result<Exit, Failure> {
    let out = Out::new();
    let redraw = out.terminal && Format::choose(format, out.terminal) == Format::Table;
    let mut watch = client.watch_stats(selection, shown.every).await?;
    let mut looks = 0;
    while let Some(stats) = watch.next().await? {
        let mut bytes = rows(&stats, shown.over).bytes(out, format)?;
        if redraw {
            // Home, and nothing of the last picture behind this one.
            bytes.splice(0..0, *b"\x1b[H\x1b[J");
        }
        if out.write(&bytes)? == Reader::Gone {
            return Ok(Exit::Ok);
        }
        looks += 1;
        if shown.times == Some(looks) {
            return Ok(Exit::Ok);
        }
    }
    Err(Failure::new(Exit::Unavailable, "the server goes away"))
}

/// Each topic, behind it the groups that stand in it.
fn rows(stats: &v1::Stats, over: Over) -> Rows {
    let mut rows = Rows::new(COLUMNS);
    for topic in &stats.topics {
        let published = per_second(topic.published_records.as_ref(), over);
        rows.push([
            topic.topic.as_str().into(),
            topic.partition.map_or(Cell::Nothing, Cell::from),
            Cell::Nothing,
            published.clone(),
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
            Cell::Nothing,
        ]);
        let here = |group: &&v1::GroupStats| group.topic == topic.topic && group.partition == topic.partition;
        for group in stats.groups.iter().filter(here) {
            rows.push(group_row(group, published.clone(), over));
        }
    }
    rows
}

fn group_row(group: &v1::GroupStats, published: Cell, over: Over) -> [Cell; 11] {
    let quantile = |of: fn(&v1::Latency) -> f64| {
        let latency = group.processing.as_ref().filter(|latency| latency.count > 0);
        latency.map_or(Cell::Nothing, |latency| Cell::Real(of(latency)))
    };
    [
        group.topic.as_str().into(),
        group.partition.map_or(Cell::Nothing, Cell::from),
        group.group.as_str().into(),
        published,
        per_second(group.processed_records.as_ref(), over),
        per_second(group.delivered_records.as_ref(), over),
        quantile(|latency| latency.p50_ms),
        quantile(|latency| latency.p99_ms),
        group.lag_records.into(),
        Cell::Span(group.lag_ms),
        group.eta_ms.map_or(Cell::Nothing, Cell::Span),
    ]
}

fn per_second(rate: Option<&v1::Rate>, over: Over) -> Cell {
    let rate = rate.copied().unwrap_or_default();
    Cell::Real(match over {
        Over::Second => rate.per_second_1s,
        Over::Minute => rate.per_second_1m,
        Over::Quarter => rate.per_second_15m,
    })
}
