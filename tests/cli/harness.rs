//! A server in a directory of its own, and ways to run commands against it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) const ANNALS: &str = env!("CARGO_BIN_EXE_annals");

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    directory: Option<tempfile::TempDir>,
    ready: Value,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0", tempfile::tempdir().unwrap())
    }

    /// One that listens here, with its files in `data` below this directory.
    pub(crate) fn start_on(listen: &str, directory: tempfile::TempDir) -> Self {
        let mut child = Command::new(ANNALS)
            .args(["serve", "--grpc", listen, "-f", "json", "--data", "data"])
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("the first line is one object");
        let address = ready["grpc"].as_str().unwrap().to_owned();
        Self { child, address, directory: Some(directory), ready }
    }

    /// The first line it printed.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM: it ends in order.
    pub(crate) fn stop(&mut self) {
        signal(&self.child, Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }

    /// Its directory, for another server, once it is dead.
    pub(crate) fn leave(mut self) -> tempfile::TempDir {
        self.directory.take().expect("it is left once")
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.scratch().join("data")
    }

    /// A directory for the test's own files.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.as_ref().expect("it has not been left").path()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A command that talks to it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = annals(args);
        command.env("ANNALS_SERVER", &self.address);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.feed(args, b"")
    }

    /// Runs a command to its end, with this on its standard input.
    pub(crate) fn feed(&self, args: &[&str], input: &[u8]) -> Ran {
        feed(self.command(args), input)
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let ran = self.feed(args, input);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.said);
        ran.printed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) printed: Vec<u8>,
    pub(crate) said: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            printed: output.stdout,
            said: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A command with an environment of its own.
pub(crate) fn annals(args: &[&str]) -> Command {
    let mut command = Command::new(ANNALS);
    command.args(args).env_remove("ANNALS_SERVER").env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn feed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command that fails early does not read all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// Ctrl-C.
pub(crate) fn interrupt(child: &Child) {
    signal(child, Signal::INT);
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Every line as JSON; fails on any byte that is none.
pub(crate) fn json_lines(printed: &[u8]) -> Vec<Value> {
    assert!(printed.is_empty() || printed.ends_with(b"\n"));
    let lines = printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
        .collect()
}

/// Numbered lines.
pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<u8> {
    range.map(|number| format!("{number}\n")).collect::<String>().into_bytes()
}
