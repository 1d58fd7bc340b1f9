//! `annals serve`: the server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::{Exit, Failure};
use crate::server::{self, Config, Flags, Output};

const EXAMPLE: &str = "Example:\n  annals serve --data ./annals-data";

/// Run the server
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Serve {
    /// Directory of the data; made if it does not exist [default: ./annals-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen: HOST:PORT, port 0 taking a free one, or unix:PATH [default: 127.0.0.1:7411]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,
    /// File with settings (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep everything in memory only: gone with the process
    #[arg(long, conflicts_with = "data")]
    ephemeral: bool,
    /// json: the first line of output is one object with grpc, port, data, version and recovery
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "table")]
    format: ServeFormat,
}

/// How the server says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServeFormat {
    /// For people
    Table,
    /// One JSON object
    Json,
}

pub(crate) fn run(args: &Serve) -> Result<Exit, Failure> {
    let flags = Flags {
        data: args.data.clone(),
        grpc: args.grpc.clone(),
        config: args.config.clone(),
        ephemeral: args.ephemeral,
    };
    let output = match args.format {
        ServeFormat::Table => Output::Text,
        ServeFormat::Json => Output::Json,
    };
    let config = Config::load(&flags, &|name| std::env::var(name).ok());
    config
        .and_then(|config| server::run(config, output))
        .map_err(|error| Failure::new(Exit::of_code(error.exit_code()), error.to_string()))?;
    Ok(Exit::Ok)
}
