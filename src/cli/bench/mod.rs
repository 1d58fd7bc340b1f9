//! `annals bench`: what a server does on this machine, beside what the machine can do.
//!
//! 1. As an application: records go in and come out through `annals-client`, are encoded, checked and looked at; nothing
//!    reaches around it.
//! 2. Latency is open-loop: it counts from the time that was meant ([`schedule`]). Only `unary` without a rate, where the
//!    number in flight is what is fixed, counts from the call.
//! 3. What the machine can do is measured in each run, right before the work, and every figure that has such a limit is told
//!    as a fraction of it ([`limits`], [`figures`]).
//! 4. The warm-up does not count, several runs do: the median, with the range.
//! 5. The server is a child process, so that what each side costs is told apart ([`process`]).
//!
//! ```text
//!   session (a server, topics) ──> limit ──> work: producers, readers, pacers ──> figures ──> report (table, json, files)
//!                                              counter <──┘   └──> latencies
//!                                              observe (window, processors, memory)
//! ```

mod args;
mod consume;
mod e2e;
mod figures;
mod history;
mod limits;
mod live;
mod mixed;
mod observe;
mod pacer;
mod payload;
mod process;
mod produce;
mod report;
mod schedule;
mod session;
mod unary;

use clap::{Args, Subcommand};

use self::session::Session;
use super::{
    connect,
    exit::{Exit, Failure},
    values::{Level, level_name},
};

/// Measure a server, and this machine beside it
///
/// Without --server each bench starts a server of its own on a temporary directory. Latency counts from the time at which a
/// record was meant to be sent, so a server that stands still is seen to. 1 MB is a million bytes of records' values.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Produce),
    Consume(consume::Consume),
    E2e(e2e::E2e),
    Unary(unary::Unary),
    Mixed(mixed::Mixed),
    Limits(limits::Limits),
}

pub(crate) fn run(args: &Bench) -> Result<Exit, Failure> {
    connect::run_to_end(async |mut interrupt| {
        let mut session = args.command.session()?;
        let done = tokio::select! {
            done = measure(&args.command, &mut session) => done,
            () = interrupt.came() => Ok(Exit::Interrupted),
        };
        session.clean_up().await;
        done
    })
}

async fn measure(command: &Command, session: &mut Session) -> Result<Exit, Failure> {
    if session.common.server.is_some() {
        // Before limits are measured for nothing.
        session.connect().await?;
    }
    command.run(session).await
}

impl Command {
    fn session(&self) -> Result<Session, Failure> {
        match self {
            Self::Produce(args) => Session::start(&args.common),
            Self::Consume(args) => Session::start(&args.common),
            Self::E2e(args) => Session::start(&args.common),
            Self::Unary(args) => Session::start(&args.common),
            Self::Mixed(args) => Session::start(&args.common),
            Self::Limits(args) => Session::without_server(&args.common()),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<Exit, Failure> {
        match self {
            Self::Produce(args) => produce::run(args, session).await,
            Self::Consume(args) => consume::run(args, session).await,
            Self::E2e(args) => e2e::run(args, session).await,
            Self::Unary(args) => unary::run(args, session).await,
            Self::Mixed(args) => mixed::run(args, session).await,
            Self::Limits(_) => limits::run(session).await,
        }
    }
}

fn level(level: Level) -> &'static str {
    level_name(level.into())
}

/// A count with its word.
fn many(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
