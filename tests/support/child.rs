//! The built binary as a server of its own process: included by tests that kill it, or ask the kernel about it.

#![allow(dead_code, reason = "not every test that includes it needs all of it")]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use tonic::transport::Channel;

/// A server that serves. It is killed when it is dropped, also by a test that fails.
pub(crate) struct Server {
    pub(crate) child: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_annals"))
            .args(["serve", "--grpc", "127.0.0.1:0", "-f", "json", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
        let hello: serde_json::Value = serde_json::from_str(&line).expect("the first line is an object");
        let address = hello["grpc"].as_str().expect("it names its address").to_owned();
        Self { child, address }
    }

    /// SIGKILL, and nothing else, ends it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        let ended = self.child.wait().expect("it ends");
        assert_eq!(ended.signal(), Some(9), "it had ended by itself: {ended}");
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.expect("it answers")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
