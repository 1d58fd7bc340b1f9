//! `annals topic create`.

use clap::Args;

use super::{Settings, one};
use crate::cli::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    out::Out,
};

const EXAMPLE: &str = "Example:\n  annals topic create orders --partitions 16";

/// Make a topic; the same settings again are fine, others are a conflict
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Create {
    /// Its name: 1 to 249 of A-Z a-z 0-9 . _ -
    topic: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

pub(super) fn run(args: &Create) -> Result<Exit, Failure> {
    connect::run(async {
        let (config, _) = args.settings.config()?;
        let topic = args.server.connect().await?.create_topic(&args.topic, config).await?;
        one(&topic).print(Out::new(), args.output.format.as_ref(), Exit::Ok)
    })
}
