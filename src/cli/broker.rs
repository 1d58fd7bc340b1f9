//! A broker of a command's own: this very binary, as a child process, for the demo, the bench and whoever else kills or
//! measures one. It lives no longer than its [`Broker`].

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde::Deserialize;

use super::exit::{Exit, Failure, io_failure};

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// What it said when it was ready.
    pub(crate) ready: Ready,
}

/// The first line of `serve -f json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    /// Where it listens.
    pub(crate) grpc: String,
    /// What it found in its directory.
    pub(crate) recovery: Recovery,
}

/// What recovery found.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) records: u64,
    pub(crate) topics: u64,
    pub(crate) cut: u64,
    pub(crate) milliseconds: f64,
}

impl Broker {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(data: &Path, grpc: &str) -> Result<Self, Failure> {
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

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no warning, no last words, nothing flushed.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
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
