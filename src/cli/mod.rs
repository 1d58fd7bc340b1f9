//! The command line: one file per command, one way to fail (`exit`), one way to print (`out`, `format`, `rows`).
//!
//! Commands talk to servers through `annals-client` alone; only `serve`, `demo`, `log` and `crash-test` know what is behind it.
//! Standard output is data and standard error is talk, so that a pipe never gets a byte that is no data.

mod bench;
mod broker;
mod completions;
mod confirm;
mod connect;
mod consume;
mod crash_model;
mod crash_test;
mod demo;
mod exit;
mod filter;
mod format;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod group;
mod input;
mod log;
mod out;
mod ping;
mod plan;
mod position;
mod produce;
mod progress;
mod reference;
mod replay;
mod reset;
mod rows;
mod serve;
mod stats;
mod topic;
mod values;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use exit::{Exit, Failure};
use out::talk;
pub use reference::reference;

/// An append-only event log: publish events, read them by offset, replay them after a crash.
#[derive(Debug, Parser)]
#[command(name = "annals", version, after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "Example:
  annals demo

Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable, 6 conflict, 7 damaged, 8 a dry run found \
                     something, 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Produce(produce::Produce),
    Consume(consume::Consume),
    Replay(replay::Replay),
    Topic(topic::Topic),
    Group(group::Group),
    Stats(stats::Stats),
    Log(log::Log),
    CrashTest(crash_test::CrashTest),
    Ping(ping::Ping),
    CrashModel(crash_model::CrashModel),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

/// All commands and their options.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name (the first is the program's own name) and says how it ended.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version go to standard output and are no error. Nobody reading them is none either.
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match dispatch(&cli.command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            talk(format_args!("annals: {failure}"));
            failure.exit.into()
        }
    }
}

fn dispatch(command: &Command) -> Result<Exit, Failure> {
    match command {
        Command::Demo(_) => demo::run(),
        Command::Serve(args) => serve::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Group(args) => group::run(args),
        Command::Stats(args) => stats::run(args),
        Command::Log(args) => log::run(args),
        Command::CrashTest(args) => crash_test::run(args),
        Command::Ping(args) => ping::run(args),
        Command::CrashModel(args) => crash_model::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Completions(args) => completions::run(args, self::command()),
    }
}
