//! `annals replay --dry-run`: what a range of history holds, counted by reading it.

use std::collections::BTreeMap;

use annals_client::{Event, ReaderOptions, Records};
use clap::Args;

use super::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    out::Out,
    plan::{Planned, plan},
    position::Range,
    progress::Progress,
    rows::{Cell, Rows},
};
use crate::clock::{Clock as _, SystemClock};

const EXAMPLE: &str = "Example:\n  annals replay orders @-10m..end --dry-run";

/// Count what a range of history holds, partition by partition
///
/// Ends with 8 if there is anything to replay.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Replay {
    /// Topic
    topic: String,
    /// From which POSITION up to which: start, end, 42, -10, @-1h, @2026-11-01T00:00Z
    #[arg(value_name = "FROM..TO", allow_hyphen_values = true)]
    range: Range,
    /// Only records of this key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only this partition
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// Only count: the one thing it does so far
    #[arg(long, required = true)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

/// What a partition's range holds.
#[derive(Debug)]
struct Count {
    from: i64,
    to: i64,
    records: i64,
    bytes: i64,
}

pub(crate) fn run(args: &Replay) -> Result<Exit, Failure> {
    connect::run(async {
        let client = args.server.connect().await?;
        let now_ms = SystemClock::new().wall_ms();
        let from = plan(&client, &args.topic, args.partition, Some(args.range.from), None, now_ms).await?;
        let to = plan(&client, &args.topic, args.partition, Some(args.range.to), None, now_ms).await?;
        let mut counts = ranges(&from, &to);
        let wanted = |at: &&Planned| counts.get(&at.partition).is_some_and(|count| count.from < count.to);
        let positions: Vec<_> = from.iter().filter(wanted).map(|at| at.position(&args.topic)).collect();
        let mut left = positions.len();
        let total: i64 = counts.values().map(|count| count.to - count.from).sum();
        let progress = Progress::records(u64::try_from(total).ok());
        let mut reader = client.subscribe(positions, ReaderOptions::default()).await?;
        while left > 0 {
            match reader.next().await? {
                None => break,
                Some(Event::Failed(failed)) => return Err(failed.error.into()),
                Some(Event::CaughtUp { .. }) => {}
                Some(Event::Records(records)) => {
                    let Some(count) = counts.get_mut(&records.partition()) else { continue };
                    let before = records.start_offset() < count.to;
                    progress.add(add(count, &records, args.key.as_deref())?);
                    if before && records.next_offset() >= count.to {
                        left -= 1;
                    }
                }
            }
        }
        progress.clear();
        print(args, &counts)
    })
}

fn ranges(from: &[Planned], to: &[Planned]) -> BTreeMap<u32, Count> {
    let ends: BTreeMap<u32, i64> = to.iter().map(|at| (at.partition, at.from)).collect();
    from.iter()
        .map(|at| {
            let to = ends.get(&at.partition).copied().unwrap_or(at.end).max(at.from);
            (at.partition, Count { from: at.from, to, records: 0, bytes: 0 })
        })
        .collect()
}

/// Counts the records of the range; returns how many were looked at.
fn add(count: &mut Count, records: &Records, key: Option<&str>) -> Result<u64, Failure> {
    let mut seen = 0;
    for batch in records.batches() {
        for record in batch?.records() {
            let record = record?;
            if record.offset >= count.to {
                return Ok(seen);
            }
            seen += 1;
            if key.is_none_or(|key| record.key == Some(key.as_bytes())) {
                count.records += 1;
                count.bytes += i64::try_from(record.as_bytes().len()).unwrap_or(i64::MAX);
            }
        }
    }
    Ok(seen)
}

fn print(args: &Replay, counts: &BTreeMap<u32, Count>) -> Result<Exit, Failure> {
    let mut rows = Rows::new(&["topic", "partition", "from", "to", "records", "bytes"]);
    for (partition, count) in counts {
        rows.push([
            args.topic.as_str().into(),
            (*partition).into(),
            count.from.into(),
            count.to.into(),
            count.records.into(),
            Cell::Bytes(count.bytes),
        ]);
    }
    let any = counts.values().any(|count| count.records > 0);
    rows.print(Out::new(), args.output.format.as_ref(), if any { Exit::Differences } else { Exit::Ok })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let at = |from| Planned { partition: 0, from, end: 20, committed: None, last_epoch: None };
        let ranges = ranges(&[at(15)], &[at(12)]);
        assert_eq!((ranges[&0].from, ranges[&0].to), (15, 15));
    }
}
