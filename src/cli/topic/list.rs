//! `annals topic list`.

use clap::Args;

use super::{COLUMNS, push_topic};
use crate::cli::{
    connect::{self, ListFormat, Server},
    exit::{Exit, Failure},
    out::{Out, talk},
    rows::Rows,
};

const EXAMPLE: &str = "Example:\n  annals topic list";

/// List topics
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(super) struct List {
    /// Only topics whose names start so
    prefix: Option<String>,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: ListFormat,
}

pub(super) fn run(args: &List) -> Result<Exit, Failure> {
    connect::run(async {
        let prefix = args.prefix.as_deref().unwrap_or_default();
        let topics = args.server.connect().await?.topics(prefix).await?;
        let mut rows = Rows::new(COLUMNS);
        for topic in &topics {
            push_topic(&mut rows, topic);
        }
        let out = Out::new();
        if rows.is_empty() && out.terminal {
            talk("no topics yet. Make one: annals topic create NAME");
            return Ok(Exit::Ok);
        }
        rows.print(out, args.output.format.as_ref(), Exit::Ok)
    })
}
