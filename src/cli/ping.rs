//! `annals ping`: is a server there, and ready?

use std::time::Duration;

use annals_client::{Backoff, Client, ClientOptions, Error};
use clap::Args;

use super::{
    connect::{self, Server},
    exit::{Exit, Failure},
    format::Format,
    out::Out,
    position::milliseconds,
    rows::{Cell, Rows},
};
use crate::clock::{Clock as _, SystemClock};

const EXAMPLE: &str = "Example:\n  annals ping --wait 10s";

/// Ask whether a server is there and ready
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Ping {
    /// Keep asking for so long until it answers, e.g. 10s
    #[arg(long, value_name = "T", value_parser = milliseconds)]
    wait: Option<i64>,
    #[command(flatten)]
    server: Server,
    /// How to print: table, json, csv or raw [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<Format>,
}

pub(crate) fn run(args: &Ping) -> Result<Exit, Failure> {
    connect::run(async {
        let clock = SystemClock::new();
        let client = reach(args, &clock).await?;
        let before = clock.monotonic();
        let info = client.ping().await?;
        let took = clock.monotonic().saturating_sub(before);
        let out = Out::new();
        let format = Format::choose(args.format.as_ref(), out.terminal);
        if format == Format::Table {
            let mut text = format!(
                "Annals {} at {} answers in {:.1} ms\n",
                info.version,
                args.server.name(),
                took.as_secs_f64() * 1000.0
            );
            for warning in &info.warnings {
                text.push_str("  warning: ");
                text.push_str(warning);
                text.push('\n');
            }
            return out.finish(text.as_bytes(), Exit::Ok);
        }
        let mut rows = Rows::new(&["server", "version", "cluster_id", "format_version", "round_trip_us"]);
        let cluster = uuid::Uuid::from_slice(&info.cluster_id).map(|id| id.to_string()).unwrap_or_default();
        rows.push([
            args.server.name().into(),
            Cell::Text(info.version),
            Cell::Text(cluster),
            info.format_version.into(),
            Cell::Number(i64::try_from(took.as_micros()).unwrap_or(i64::MAX)),
        ]);
        rows.print(out, Some(&format), Exit::Ok)
    })
}

async fn reach(args: &Ping, clock: &SystemClock) -> Result<Client, Failure> {
    let wait = Duration::from_millis(args.wait.unwrap_or(0).unsigned_abs());
    let begin = clock.monotonic();
    let options = ClientOptions { connect: Backoff::NEVER, ..ClientOptions::default() };
    loop {
        let error = match Client::connect_with(args.server.name(), options).await {
            Ok(client) => return Ok(client),
            Err(error) => error,
        };
        let waited = clock.monotonic().saturating_sub(begin);
        if waited >= wait || !Error::is_temporary(&error) {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(20).min(wait.saturating_sub(waited))).await;
    }
}
