//! `annals topic delete`.

use clap::Args;

use super::one;
use crate::cli::{
    confirm::Destroy,
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    out::Out,
};

const EXAMPLE: &str = "Example:\n  annals topic delete orders --dry-run";

/// Delete a topic, its records and the positions groups have in it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Delete {
    /// Its name
    topic: String,
    #[command(flatten)]
    destroy: Destroy,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

pub(super) fn run(args: &Delete) -> Result<Exit, Failure> {
    connect::run(async {
        let client = args.server.connect().await?;
        let topic = client.topic(&args.topic).await?;
        let rows = one(&topic);
        let (out, format) = (Out::new(), args.output.format.as_ref());
        if args.destroy.dry_run {
            return rows.print(out, format, Exit::Differences);
        }
        let records: i64 = topic.partitions.iter().map(|p| p.high_watermark - p.log_start_offset).sum();
        let s = if records == 1 { "" } else { "s" };
        let question = format!("Delete topic \"{}\" with its {records} record{s}, for ever?", args.topic);
        args.destroy.confirm(question).await?;
        // The topic that was looked at, not one made under its name since.
        client.delete_topic(&args.topic, Some(topic.topic_id.clone())).await?;
        rows.print(out, format, Exit::Ok)
    })
}
