//! `annals topic alter`.

use clap::Args;

use super::{Settings, one};
use crate::cli::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    out::{Out, talk},
};

const EXAMPLE: &str = "Example:\n  annals topic alter orders --partitions 32";

/// Change a topic's settings
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct Alter {
    /// Its name
    topic: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

pub(super) fn run(args: &Alter) -> Result<Exit, Failure> {
    connect::run(async {
        let (config, fields) = args.settings.config()?;
        if fields.is_empty() {
            return Err(Failure::usage("nothing to change is given")
                .next("For instance: annals topic alter orders --partitions 32"));
        }
        let client = args.server.connect().await?;
        let before = client.topic(&args.topic).await?.partitions.len();
        let topic = client.update_topic(&args.topic, config, &fields).await?;
        if topic.partitions.len() > before {
            talk(format_args!(
                "warning: keys move: from now on a key's records may lie in another partition than its earlier ones \
                 ({before} partitions have become {})",
                topic.partitions.len()
            ));
        }
        one(&topic).print(Out::new(), args.output.format.as_ref(), Exit::Ok)
    })
}
