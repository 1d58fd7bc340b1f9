//! What every command that talks to a server needs: where it is, a runtime, and Ctrl-C.

use std::future::Future;

use annals_client::Client;
use clap::Args;

use super::{
    exit::{Exit, Failure, io_failure},
    format::Format,
};

/// Where the server is.
#[derive(Args, Debug)]
pub(crate) struct Server {
    /// Server to talk to: HOST:PORT, HOST (port 7411) or unix:PATH
    #[arg(
        long,
        value_name = "ADDR",
        env = "ANNALS_SERVER",
        default_value = "127.0.0.1:7411",
        hide_env_values = true
    )]
    server: String,
}

impl Server {
    /// Connects, or says why not.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.server).await.map_err(Failure::from)
    }

    /// As given.
    pub(crate) fn name(&self) -> &str {
        &self.server
    }
}

/// How lists are printed.
#[derive(Args, Debug)]
pub(crate) struct ListFormat {
    /// How to print: table, json, csv or raw (cells with tabs between) [default: table on a terminal, json in a pipe]
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
}

/// Runs a command that may be interrupted anywhere.
pub(crate) fn run<F>(command: F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    run_to_end(async {
        tokio::select! {
            done = command => done,
            () = interrupted() => Ok(Exit::Interrupted),
        }
    })
}

/// Runs a command that sees to Ctrl-C itself.
pub(crate) fn run_to_end<F>(command: F) -> Result<Exit, Failure>
where
    F: Future<Output = Result<Exit, Failure>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| io_failure("no threads can be started", &error))?;
    let done = runtime.block_on(command);
    // A thread may still wait for standard input; nothing is left that needs it.
    runtime.shutdown_background();
    done
}

/// Resolves at the first Ctrl-C. Where the system gives no such signal, never.
pub(crate) async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
