//! Configuration: one struct, filled once at start.
//!
//! A value comes from the first of these that has one: a flag, an environment variable (`ANNALS_*`), the
//! configuration file (TOML), the default. Where it came from is kept beside it, because "which of the three
//! won?" is the first question when a server does not do what was asked.
//!
//! 1. Every setting is one row of [`SETTINGS`]: its name in the file, what it is, how it is read and shown. The
//!    environment variable follows from the name (`topics.partitions` is `ANNALS_TOPICS_PARTITIONS`), and
//!    `docs/configuration.md` from the table.
//! 2. An unknown name in the file is refused, with the nearest known one.
//! 3. A value is checked when it is read, not when it is first used.

#[cfg(any(test, feature = "fuzz"))]
mod fuzz;
mod settings;
mod source;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use fuzz::config as fuzz_config;
pub(super) use settings::level_name;
pub use settings::{SETTINGS, Setting, reference};
pub use source::Source;

use crate::{server::ServeError, storage::Level};

/// Where the server listens unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7411";

/// What was said on the command line. `None` and `false` mean: nothing.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--data DIR`.
    pub data: Option<PathBuf>,
    /// `--grpc ADDR`.
    pub grpc: Option<String>,
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--ephemeral`.
    pub ephemeral: bool,
}

/// Every setting of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory.
    pub data: PathBuf,
    /// Address of the gRPC port: `host:port`, where port 0 takes a free one, or `unix:PATH`.
    pub grpc: String,
    /// Keep everything in memory and nothing on disk.
    pub ephemeral: bool,
    /// Make a topic when somebody first produces to it.
    pub auto_create: bool,
    /// Partitions of a topic that was made without saying how many.
    pub partitions: u32,
    /// Durability of a topic that was made without saying which.
    pub durability: Level,
    /// Size of a segment, bytes.
    pub segment_bytes: u64,
    /// Size to which the journal grows, bytes.
    pub journal_bytes: u64,
    /// Bytes of closed segments read again in a second; 0 = none.
    pub scrub_bytes_per_second: u64,
    /// Bytes of closed segments whose keys are indexed in a second; 0 = none.
    pub index_bytes_per_second: u64,
    /// Connections at a time.
    pub connections: u32,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// Bytes of requests held at a time, over all connections.
    pub inflight_bytes: u64,
    /// How long a stopping server waits for calls that run, milliseconds.
    pub shutdown_ms: u64,
    sources: BTreeMap<&'static str, Source>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from("./annals-data"),
            grpc: DEFAULT_ADDRESS.into(),
            ephemeral: false,
            auto_create: true,
            partitions: 8,
            durability: Level::Fsync,
            segment_bytes: 256 << 20,
            journal_bytes: 256 << 20,
            scrub_bytes_per_second: 8 << 20,
            index_bytes_per_second: 64 << 20,
            connections: 4096,
            streams: 256,
            inflight_bytes: 256 << 20,
            shutdown_ms: 10_000,
            sources: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads the configuration: flags over `env` over the file over the defaults.
    pub fn load(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ServeError> {
        let mut config = Self::default();
        let file = flags.config.clone().or_else(|| env("ANNALS_CONFIG").map(PathBuf::from));
        if let Some(path) = file {
            let text = std::fs::read_to_string(&path).map_err(|error| ServeError::Config {
                place: path.display().to_string(),
                what: format!("the configuration file cannot be read: {error}"),
            })?;
            config.read_file(&path, &text)?;
        }
        config.read_env(env)?;
        config.read_flags(flags)?;
        Ok(config)
    }

    /// Applies a configuration file's text.
    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ServeError> {
        let refuse = |what: String| ServeError::Config { place: path.display().to_string(), what };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            refuse(format!("line {line}: {}", error.message()))
        })?;
        let mut values = Vec::new();
        flatten("", &table, &mut values).map_err(refuse)?;
        for (key, value) in values {
            let Some(setting) = Setting::find(&key) else {
                return Err(refuse(unknown(&key)));
            };
            (setting.set)(self, &value).map_err(|why| refuse(format!("{key} = {value:?}: {why}")))?;
            self.sources.insert(setting.key, Source::File(path.to_path_buf()));
        }
        Ok(())
    }

    fn read_env(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ServeError> {
        for setting in &SETTINGS {
            let name = setting.env();
            let Some(value) = env(&name) else { continue };
            (setting.set)(self, &value).map_err(|why| ServeError::Config {
                place: name.clone(),
                what: format!("{value:?}: {why}"),
            })?;
            self.sources.insert(setting.key, Source::Environment(name));
        }
        Ok(())
    }

    fn read_flags(&mut self, flags: &Flags) -> Result<(), ServeError> {
        let data = flags.data.as_ref().map(|path| path.to_string_lossy().into_owned());
        let ephemeral = flags.ephemeral.then(|| "true".to_owned());
        for (key, value) in [("data", data), ("grpc", flags.grpc.clone()), ("ephemeral", ephemeral)] {
            let (Some(value), Some(setting)) = (value, Setting::find(key)) else { continue };
            (setting.set)(self, &value).map_err(|why| ServeError::Config {
                place: format!("--{key}"),
                what: format!("{value:?}: {why}"),
            })?;
            self.sources.insert(setting.key, Source::Flag);
        }
        if let Some(path) = &flags.data {
            self.data.clone_from(path); // as it was given: a path need not be UTF-8
        }
        Ok(())
    }

    /// Where a setting's value came from.
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or_default()
    }
}

/// One line per setting: name, value, where it came from.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for setting in &SETTINGS {
            let value = one_line(&(setting.get)(self));
            writeln!(f, "{:28} {value:24} {}", setting.key, self.source(setting.key))?;
        }
        Ok(())
    }
}

/// A value as it is shown: a path may hold any character, and a line stays a line.
fn one_line(value: &str) -> String {
    let shown =
        |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    value.chars().map(shown).collect()
}

/// Turns tables into dotted names; every value becomes the text that an environment variable would hold.
fn flatten(prefix: &str, table: &toml::Table, into: &mut Vec<(String, String)>) -> Result<(), String> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, into)?,
            toml::Value::String(text) => into.push((key, text.clone())),
            toml::Value::Integer(number) => into.push((key, number.to_string())),
            toml::Value::Boolean(truth) => into.push((key, truth.to_string())),
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) => {
                return Err(format!("{key} must be a string, a whole number, true or false"));
            }
        }
    }
    Ok(())
}

fn line_of(text: &str, position: usize) -> usize {
    text.bytes().take(position).filter(|byte| *byte == b'\n').count() + 1
}

fn unknown(key: &str) -> String {
    let nearest = SETTINGS
        .iter()
        .map(|setting| (source::distance(key, setting.key), setting.key))
        .min()
        .filter(|(distance, _)| *distance <= 4);
    match nearest {
        Some((_, name)) => format!("unknown setting {key:?}. Did you mean {name:?}?"),
        None => format!(
            "unknown setting {key:?}. There are: {}",
            SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>().join(", ")
        ),
    }
}

#[cfg(test)]
mod tests;
