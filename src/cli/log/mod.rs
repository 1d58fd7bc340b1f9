//! `annals log`: looks at a data directory without a server, and repairs one.

mod dump;
mod repair;
mod verify;

use std::{path::Path, sync::Arc};

use clap::{Args, Subcommand};

use super::{
    exit::{Exit, Failure},
    format::{Format, push_json_string},
    out::Out,
};
use crate::storage::{Disk, LockError, OpenError, RealDisk};

/// Look at a data directory without a server
#[derive(Args, Debug)]
pub(crate) struct Log {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::Verify),
    Repair(repair::Repair),
    Dump(dump::Dump),
}

pub(crate) fn run(args: &Log) -> Result<Exit, Failure> {
    match &args.command {
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Dump(args) => dump::run(args),
    }
}

/// `true` for JSON lines.
fn is_json(asked: Option<&Format>, out: Out) -> Result<bool, Failure> {
    match Format::choose(asked, out.terminal) {
        Format::Table => Ok(false),
        Format::Json => Ok(true),
        Format::Csv | Format::Raw | Format::Template(_) => Err(Failure::usage("-f is table or json here")),
    }
}

/// A directory to look at.
struct Opened {
    disk: Arc<dyn Disk>,
    /// A server runs on it.
    running: Option<Running>,
}

/// Who has a directory.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// Which process, where the kernel says so.
    pid: Option<u32>,
}

impl Running {
    /// ` (process 17)`, or nothing.
    fn which(self) -> String {
        self.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    }
}

/// Opens a directory to look at it; no server can start on it meanwhile, unless one runs already.
fn open(directory: &Path) -> Result<Opened, Failure> {
    match RealDisk::open_at_rest(directory) {
        Ok(disk) => Ok(Opened { disk: Arc::new(disk), running: None }),
        Err(LockError::InUse { pid }) => {
            let disk = RealDisk::open_read_only(directory).map_err(|error| not_opened(directory, &error))?;
            Ok(Opened { disk: Arc::new(disk), running: Some(Running { pid }) })
        }
        Err(error) => Err(not_opened(directory, &error)),
    }
}

fn not_opened(directory: &Path, error: &LockError) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("{} cannot be checked: {error}", directory.display()));
    match error {
        LockError::NotFound => failure.next("Give the server's --data directory"),
        _ => failure,
    }
}

fn not_checked(directory: &Path, error: &OpenError) -> Failure {
    Failure::new(Exit::Failed, format!("{} could not be checked: {error}", directory.display()))
}

fn push_text(out: &mut Vec<u8>, before: &str, text: &str) {
    out.extend_from_slice(before.as_bytes());
    push_json_string(out, text);
}
