//! `--dry-run`: what a range holds, partition by partition.

use std::collections::BTreeMap;

use super::{
    Replay,
    source::{Piece, Source},
    spans, total,
};
use crate::cli::{
    exit::{Exit, Failure},
    out::Out,
    progress::Progress,
    rows::{Cell, Rows},
};

/// What a partition's range holds.
#[derive(Debug, Default)]
struct Count {
    records: i64,
    bytes: i64,
}

pub(super) async fn count(args: &Replay) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let spans = spans(args, &client, args.range).await?;
    let mut counts: BTreeMap<u32, Count> =
        spans.keys().map(|partition| (*partition, Count::default())).collect();
    let progress = Progress::records(total(&spans));
    let filter = args.filter.filter();
    let mut source = Source::new(&client, &args.topic, filter, spans.clone());
    while !source.is_done() {
        let left: Vec<u32> = source.left().collect();
        for piece in source.read(&left).await? {
            let count = counts.entry(piece.partition()).or_default();
            progress.add(add(count, &piece)?);
        }
    }
    progress.clear();
    let mut rows = Rows::new(&["topic", "partition", "from", "to", "records", "bytes"]);
    for (partition, span) in &spans {
        let Some(count) = counts.get(partition) else { continue };
        let (from, to) = (span.next.into(), span.to.into());
        let topic = args.topic.as_str().into();
        rows.push([topic, (*partition).into(), from, to, count.records.into(), Cell::Bytes(count.bytes)]);
    }
    let any = counts.values().any(|count| count.records > 0);
    rows.print(Out::new(), args.format.as_ref(), if any { Exit::Differences } else { Exit::Ok })
}

/// Counts the records of the range; returns how many there were.
fn add(count: &mut Count, piece: &Piece) -> Result<u64, Failure> {
    let mut seen = 0;
    for batch in piece.records.batches() {
        for record in batch?.records() {
            let record = record?;
            if record.offset >= piece.to {
                break;
            }
            seen += 1;
            count.records += 1;
            count.bytes += i64::try_from(record.as_bytes().len()).unwrap_or(i64::MAX);
        }
    }
    Ok(seen)
}
