//! The binary: arguments, tracing, command, exit code.

use std::{io, process::ExitCode};

use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    annals::server::keep_memory();
    // Standard output belongs to data; what is told about the running goes to standard error.
    let filter = EnvFilter::try_from_env("ANNALS_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    annals::cli::run(std::env::args_os())
}
