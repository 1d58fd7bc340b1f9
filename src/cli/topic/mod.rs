//! `annals topic`: make, look at, change and delete topics.

mod alter;
mod create;
mod delete;
mod describe;
mod list;

use annals_client::v1;
use clap::{Args, Subcommand};

use super::{
    exit::{Exit, Failure},
    position::milliseconds,
    rows::{Cell, Rows},
    values::{Level, bytes, level_name},
};

/// Make, look at, change and delete topics
#[derive(Args, Debug)]
pub(crate) struct Topic {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Create),
    List(list::List),
    Describe(describe::Describe),
    Alter(alter::Alter),
    Delete(delete::Delete),
}

pub(crate) fn run(args: &Topic) -> Result<Exit, Failure> {
    match &args.command {
        Command::Create(args) => create::run(args),
        Command::List(args) => list::run(args),
        Command::Describe(args) => describe::run(args),
        Command::Alter(args) => alter::run(args),
        Command::Delete(args) => delete::run(args),
    }
}

/// Settings of a topic; what is left out is the server's to choose, or stays.
#[derive(Args, Debug)]
struct Settings {
    /// Partitions; they can grow later, which moves keys, and never shrink
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: Option<u32>,
    /// What an ack means
    #[arg(long, value_name = "LEVEL")]
    durability: Option<Level>,
    /// Size at which a segment file is closed, e.g. 256MiB
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    segment_bytes: Option<u64>,
    /// At durability interval: flush at the latest after this time, e.g. 100ms
    #[arg(long, value_name = "T", value_parser = milliseconds)]
    interval: Option<i64>,
    /// At durability interval: flush at the latest after so many bytes of a partition
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    interval_bytes: Option<u64>,
}

impl Settings {
    /// The settings given, and their names as the API has them.
    fn config(&self) -> Result<(v1::TopicConfig, Vec<&'static str>), Failure> {
        let too_large = |what: &str| Failure::usage(format!("--{what} is too large"));
        let signed = |value: Option<u64>, what: &str| {
            value.map(i64::try_from).transpose().map_err(|_| too_large(what))
        };
        let config = v1::TopicConfig {
            partitions: self.partitions.unwrap_or_default(),
            durability: self.durability.map(v1::Durability::from).unwrap_or_default().into(),
            segment_bytes: signed(self.segment_bytes, "segment-bytes")?,
            interval_ms: self.interval.map(u32::try_from).transpose().map_err(|_| too_large("interval"))?,
            interval_bytes: signed(self.interval_bytes, "interval-bytes")?,
        };
        let given = [
            (self.partitions.is_some(), "partitions"),
            (self.durability.is_some(), "durability"),
            (self.segment_bytes.is_some(), "segment_bytes"),
            (self.interval.is_some(), "interval_ms"),
            (self.interval_bytes.is_some(), "interval_bytes"),
        ];
        let names = given.iter().filter(|(given, _)| *given).map(|(_, name)| *name).collect();
        Ok((config, names))
    }
}

const COLUMNS: &[&str] = &["topic", "partitions", "records", "bytes", "durability", "created_ms"];

/// A topic as a row of a list.
fn push_topic(rows: &mut Rows, topic: &v1::Topic) {
    let records = topic.partitions.iter().map(|p| p.high_watermark - p.log_start_offset).sum::<i64>();
    let bytes = topic.partitions.iter().map(|partition| partition.bytes).sum();
    let durability = topic.config.as_ref().map(v1::TopicConfig::durability).unwrap_or_default();
    rows.push([
        topic.name.as_str().into(),
        Cell::Number(i64::try_from(topic.partitions.len()).unwrap_or(i64::MAX)),
        records.into(),
        Cell::Bytes(bytes),
        level_name(durability).into(),
        Cell::Time(topic.created_ms),
    ]);
}

/// One topic as a list of its own.
fn one(topic: &v1::Topic) -> Rows {
    let mut rows = Rows::new(COLUMNS);
    push_topic(&mut rows, topic);
    rows
}
