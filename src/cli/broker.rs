//! A broker of a command's own: this very binary, as a child process, for the demo, the tests of crashes, the bench and
//! whoever else kills or measures one. It lives no longer than its [`Broker`].

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;

use super::exit::{Exit, Failure, io_failure};

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker that was started and has not said yet that it is ready; killed when dropped.
#[derive(Debug)]
pub(crate) struct Starting {
    process: Process,
}

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    process: Process,
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

#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn kill(&mut self) -> Result<(), Failure> {
        self.0.kill().map_err(|error| io_failure("the broker cannot be killed", &error))?;
        self.0.wait().map_err(|error| io_failure("the broker does not end", &error))?;
        Ok(())
    }
}

impl Starting {
    /// Starts one. What it says of itself goes to `log`, else to this command's standard error.
    pub(crate) fn spawn(data: &Path, grpc: &str, log: Option<&Path>) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|error| io_failure("this program cannot be found", &error))?;
        let said = match log {
            None => Stdio::inherit(),
            Some(path) => File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| io_failure(path.display(), &error))?
                .into(),
        };
        let child = Command::new(program)
            .args(["serve", "--data"])
            .arg(data)
            .args(["--grpc", grpc, "-f", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .map_err(|error| io_failure("the broker cannot be started", &error))?;
        Ok(Self { process: Process(child) })
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(mut self) -> Result<Broker, Failure> {
        let stdout = self.stdout()?;
        let line = tokio::task::spawn_blocking(move || first_line(stdout));
        let Ok(line) = tokio::time::timeout(PATIENCE, line).await else {
            let seconds = PATIENCE.as_secs();
            return Err(Failure::new(Exit::Failed, format!("the broker was not ready within {seconds} s")));
        };
        self.said(&line.unwrap_or_default())
    }

    fn stdout(&mut self) -> Result<ChildStdout, Failure> {
        let stdout = self.process.0.stdout.take();
        stdout.ok_or_else(|| Failure::new(Exit::Failed, "the broker has no output"))
    }

    /// Its first line came, or its end.
    fn said(self, line: &str) -> Result<Broker, Failure> {
        // It has said why on standard error, and may be gone.
        let ready = serde_json::from_str(line);
        let ready = ready.map_err(|_| Failure::new(Exit::Failed, "the broker did not start"))?;
        Ok(Broker { process: self.process, ready })
    }

    /// SIGKILL, wherever it is in its start.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.process.kill()
    }
}

impl Broker {
    /// Starts one and waits until it is ready.
    pub(crate) fn start(data: &Path, grpc: &str) -> Result<Self, Failure> {
        let mut starting = Starting::spawn(data, grpc, None)?;
        let line = first_line(starting.stdout()?);
        starting.said(&line)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// SIGKILL: no warning, no last words, nothing flushed.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.process.kill()
    }
}

fn first_line(stdout: ChildStdout) -> String {
    let mut line = String::new();
    // Whatever is wrong with it, it is not the line that was waited for.
    let _ = BufReader::new(stdout).read_line(&mut line);
    line
}
