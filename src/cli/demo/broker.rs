//! A broker of the demo's own: this very binary, as a child, on a directory that goes away with the demo.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde::Deserialize;

use crate::cli::exit::{Exit, Failure, io_failure};

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(super) struct Broker {
    child: Child,
    /// What it said when it was ready.
    pub(super) ready: Ready,
}

/// The first line of `serve -f json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ready {
    /// Where it listens.
    pub(super) grpc: String,
    /// What it found in its directory.
    pub(super) recovery: Recovery,
}

/// What recovery found.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Recovery {
    pub(super) records: u64,
    pub(super) topics: u64,
    pub(super) cut: u64,
    pub(super) milliseconds: f64,
}

impl Broker {
    /// Starts one and waits until it is ready.
    pub(super) fn start(data: &Path, grpc: &str) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|error| io_failure("this program cannot be found", &error))?;
        let mut child = Command::new(program)
            .args(["serve", "--data"])
            .arg(data)
            .args(["--grpc", grpc, "-f", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io_failure("the broker cannot be started", &error))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(Failure::new(Exit::Failed, "the broker has no output"));
        };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if let Some(ready) = read.ok().and_then(|_| serde_json::from_str(&line).ok()) {
            return Ok(Self { child, ready });
        }
        // It has said why on standard error, and may be gone.
        let _ = child.kill();
        let _ = child.wait();
        Err(Failure::new(Exit::Failed, "the broker did not start"))
    }

    /// SIGKILL: no warning, no last words, nothing flushed.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().map_err(|error| io_failure("the broker cannot be killed", &error))?;
        self.child.wait().map_err(|error| io_failure("the broker does not end", &error))?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
