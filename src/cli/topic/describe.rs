//! `annals topic describe`.

use std::fmt::Write as _;

use annals_client::v1;
use clap::Args;

use crate::cli::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    format::Format,
    out::{Out, talk},
    rows::{Cell, Rows, size, span},
    values::level_name,
};

const EXAMPLE: &str = "Example:\n  annals topic describe orders";

/// Show a topic's partitions; on a terminal its settings too
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Describe {
    /// Its name
    topic: String,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

const COLUMNS: &[&str] =
    &["topic", "partition", "first_offset", "next_offset", "records", "bytes", "epoch", "durability"];

pub(super) fn run(args: &Describe) -> Result<Exit, Failure> {
    connect::run(async {
        let topic = args.server.connect().await?.topic(&args.topic).await?;
        let config = topic.config.unwrap_or_default();
        let out = Out::new();
        if Format::choose(args.output.format.as_ref(), out.terminal) == Format::Table {
            talk(settings(&topic, &config));
        }
        let mut rows = Rows::new(COLUMNS);
        for partition in &topic.partitions {
            rows.push([
                topic.name.as_str().into(),
                partition.partition.into(),
                partition.log_start_offset.into(),
                partition.high_watermark.into(),
                (partition.high_watermark - partition.log_start_offset).into(),
                Cell::Bytes(partition.bytes),
                partition.leader_epoch.into(),
                level_name(config.durability()).into(),
            ]);
        }
        rows.print(out, args.output.format.as_ref(), Exit::Ok)
    })
}

fn settings(topic: &v1::Topic, config: &v1::TopicConfig) -> String {
    let id = uuid::Uuid::from_slice(&topic.topic_id).map(|id| id.to_string()).unwrap_or_default();
    // Writing to a String cannot fail.
    let mut text = format!("{}  id {id}  acks at {}", topic.name, level_name(config.durability()));
    if let Some(bytes) = config.segment_bytes {
        let _ = write!(text, "  segments of {}", size(bytes));
    }
    if let (v1::Durability::Interval, Some(ms)) = (config.durability(), config.interval_ms) {
        let _ = write!(text, "  flushed every {}", span(i64::from(ms)));
        if let Some(bytes) = config.interval_bytes {
            let _ = write!(text, " or {}", size(bytes));
        }
    }
    text
}
