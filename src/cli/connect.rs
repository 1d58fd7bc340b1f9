//! What every command that talks to a server needs: where it is, a runtime, and Ctrl-C.

use std::future::Future;

use annals_client::Client;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    run_to_end(async |mut interrupt| {
        tokio::select! {
            done = command => done,
            () = interrupt.came() => Ok(Exit::Interrupted),
        }
    })
}

/// Runs a command that sees to Ctrl-C itself.
pub(crate) fn run_to_end<F>(command: F) -> Result<Exit, Failure>
where
    F: AsyncFnOnce(Interrupt) -> Result<Exit, Failure>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| io_failure("no threads can be started", &error))?;
    let done = runtime.block_on(async { command(Interrupt::listen()?).await });
    // A thread may still wait for standard input; nothing is left that needs it.
    runtime.shutdown_background();
    done
}

/// Ctrl-C. Listens from the beginning, so that one that comes while nobody waits for it is not lost.
#[derive(Debug)]
pub(crate) struct Interrupt {
    signal: Signal,
}

impl Interrupt {
    fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt())
            .map_err(|error| io_failure("Ctrl-C cannot be listened for", &error))?;
        Ok(Self { signal })
    }

    /// Resolves once for each Ctrl-C, also for one that came before.
    pub(crate) async fn came(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
