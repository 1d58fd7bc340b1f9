//! `annals group reset`: moves a group that nobody is a member of.
//!
//! The dry run and the real run print the same rows, those in which something moves; the server decides both.

use annals_client::v1::{OffsetMove, ResetOffsetsRequest, reset_offsets_request::To};
use clap::Args;

use super::{
    confirm::Destroy,
    connect::{ListFormat, Server},
    exit::{Exit, Failure},
    out::Out,
    position::Position,
    rows::{Cell, Rows},
};
use crate::clock::{Clock as _, SystemClock};

/// Move a group in a topic: to a time, an offset, the start or the end
///
/// POSITION is one of: start, end, 42 (this offset), -10 (so many before the end), +5 (so many after where the group stands),
/// @-1h, @2026-11-01T00:00Z. What a partition does not reach means its nearest end. Refused while the group has live members.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  annals group reset billing --topic orders --to @-1h --dry-run")]
pub(crate) struct Reset {
    /// Its name; made if it is new
    group: String,
    /// Topic
    #[arg(short, long)]
    topic: String,
    /// Where to, in each partition
    #[arg(long = "to", value_name = "POSITION", allow_hyphen_values = true)]
    position: Position,
    /// Only these partitions, separated by commas
    #[arg(short, long, value_name = "N,...", value_delimiter = ',')]
    partitions: Vec<u32>,
    #[command(flatten)]
    destroy: Destroy,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

const COLUMNS: &[&str] = &["group", "topic", "partition", "from", "to", "records_reread", "records_skipped"];

pub(crate) async fn reset(args: &Reset) -> Result<Exit, Failure> {
    let client = args.server.connect().await?;
    let request = |dry_run: bool, to: To| ResetOffsetsRequest {
        group: args.group.clone(),
        topic: args.topic.clone(),
        partitions: args.partitions.clone(),
        to: Some(to),
        dry_run,
    };
    let to = target(args.position, SystemClock::new().wall_ms());
    let (out, format) = (Out::new(), args.output.format.as_ref());
    let would = client.reset_offsets(request(true, to)).await?;
    let changes = would.iter().filter(|one| moves(one)).count();
    if args.destroy.dry_run {
        let exit = if changes > 0 { Exit::Differences } else { Exit::Ok };
        return rows(args, &would).print(out, format, exit);
    }
    if changes > 0 {
        let (again, skipped) =
            (sum(&would, |one| one.records_reread), sum(&would, |one| one.records_skipped));
        args.destroy
            .confirm(format!(
                "Move group \"{}\" in {changes} partitions of \"{}\": {again} records read again, {skipped} skipped?",
                args.group, args.topic
            ))
            .await?;
    }
    let moved = client.reset_offsets(request(false, to)).await?;
    rows(args, &moved).print(out, format, Exit::Ok)
}

fn target(position: Position, now_ms: i64) -> To {
    match position {
        Position::Start => To::Earliest(true),
        Position::End => To::Earliest(false),
        Position::Offset(offset) => To::Offset(offset),
        Position::BeforeEnd(count) => To::LastRecords(count),
        Position::AfterGroup(count) => To::Shift(count.into()),
        Position::Ago(_) | Position::Time(_) => {
            To::TimestampMs(position.timestamp_ms(now_ms).unwrap_or(now_ms))
        }
    }
}

fn moves(one: &OffsetMove) -> bool {
    one.from_offset != Some(one.to_offset)
}

fn sum(moves: &[OffsetMove], of: impl Fn(&OffsetMove) -> i64) -> i64 {
    moves.iter().map(of).sum()
}

fn rows(args: &Reset, all: &[OffsetMove]) -> Rows {
    let mut rows = Rows::new(COLUMNS);
    for one in all.iter().filter(|one| moves(one)) {
        rows.push([
            args.group.as_str().into(),
            args.topic.as_str().into(),
            one.partition.into(),
            one.from_offset.map_or(Cell::Nothing, Cell::from),
            one.to_offset.into(),
            one.records_reread.into(),
            one.records_skipped.into(),
        ]);
    }
    rows
}
