//! A server as the whole of a process: runtime, banner, signals, end.

use std::time::Duration;

use rustix::{
    fs::Mode,
    process::{Resource, getrlimit, setrlimit},
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use super::{Config, Output, ServeError, Server, banner, start};
use crate::broker::{PageRequest, TopicInfo};

/// Serves until SIGTERM, SIGINT or a failed journal; prints the banner when it is ready. Makes its own runtime.
pub fn run(config: Config, output: Output) -> Result<(), ServeError> {
    // What the process makes is its user's alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    raise_file_limit();
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .max_blocking_threads(64)
        .thread_name("annals-door")
        .enable_all()
        .build()
        .map_err(|source| ServeError::Io { doing: "starting threads".into(), source })?;
    let outcome = runtime.block_on(serve(config, output));
    // Whatever still blocks a thread must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

async fn serve(config: Config, output: Output) -> Result<(), ServeError> {
    let signals = |kind| {
        signal(kind).map_err(|source| ServeError::Io { doing: "listening for signals".into(), source })
    };
    let (mut terminate, mut interrupt) =
        (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let server = start(config).await?;
    let topics = topics(&server).await;
    banner::print(output, &server, &topics)
        .map_err(|source| ServeError::Io { doing: "writing to standard output".into(), source })?;
    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = server.failed() => Some(failure),
    };
    if let Some(failure) = failure {
        // Nothing can be acknowledged any more: only what is on its way out is waited for, shortly.
        let _ = server.shutdown_within(Duration::from_secs(1)).await;
        return Err(failure);
    }
    tracing::info!("stopping: calls that run are waited for; a second signal ends at once");
    tokio::select! {
        outcome = server.shutdown() => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// The topics there are, as many as one page holds.
async fn topics(server: &Server) -> Vec<TopicInfo> {
    let page = PageRequest { page_size: 1000, ..PageRequest::default() };
    server.broker().list_topics(page).await.map(|page| page.items).unwrap_or_default()
}

/// Connections and segments are files: takes as many as the system lets this process have.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}
