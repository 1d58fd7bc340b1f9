//! The table of settings: one row each, from which file, environment and documentation follow.

use std::{fmt::Write as _, path::PathBuf};

use annals_wire::limits;

use super::Config;
use crate::{server::socket, storage::Level};

/// One setting.
pub struct Setting {
    /// Its name in the file, dotted.
    pub key: &'static str,
    /// What it is: one sentence, with unit and range.
    pub about: &'static str,
    /// Its value as text.
    pub get: fn(&Config) -> String,
    /// Reads, checks and sets it.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    /// The environment variable of this setting.
    pub fn env(&self) -> String {
        format!("ANNALS_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The setting of that name.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }
}

/// All settings, in the order in which they are documented.
pub static SETTINGS: [Setting; 14] = [
    Setting {
        key: "data",
        about: "Data directory; made if it is not there.",
        get: |config| config.data.display().to_string(),
        set: |config, text| {
            config.data = PathBuf::from(filled(text)?);
            Ok(())
        },
    },
    Setting {
        key: "grpc",
        about: "Address of the gRPC port: `host:port`, where port 0 takes a free one, or `unix:PATH`, a socket file for this user alone.",
        get: |config| config.grpc.clone(),
        set: |config, text| {
            listenable(filled(text)?)?;
            text.clone_into(&mut config.grpc);
            Ok(())
        },
    },
    Setting {
        key: "ephemeral",
        about: "Keep everything in memory and nothing on disk: for tests and trying out.",
        get: |config| config.ephemeral.to_string(),
        set: |config, text| {
            config.ephemeral = truth(text)?;
            Ok(())
        },
    },
    Setting {
        key: "topics.auto_create",
        about: "Make a topic when somebody first produces to it.",
        get: |config| config.auto_create.to_string(),
        set: |config, text| {
            config.auto_create = truth(text)?;
            Ok(())
        },
    },
    Setting {
        key: "topics.partitions",
        about: "Partitions of a topic that was made without saying how many, 1 to 1024.",
        get: |config| config.partitions.to_string(),
        set: |config, text| {
            config.partitions = number(text, 1, 1024)?;
            Ok(())
        },
    },
    Setting {
        key: "topics.durability",
        about: "Durability of a topic that was made without saying which: `fsync`, `interval` or `os`.",
        get: |config| level_name(config.durability).into(),
        set: |config, text| {
            config.durability = match text {
                "fsync" => Level::Fsync,
                "interval" => Level::Interval,
                "os" => Level::Os,
                _ => return Err("must be fsync, interval or os".into()),
            };
            Ok(())
        },
    },
    Setting {
        key: "storage.segment_bytes",
        about: "Size at which a segment file is closed and the next begins, 1 MiB to 2 GiB.",
        get: |config| config.segment_bytes.to_string(),
        set: |config, text| {
            config.segment_bytes = bytes(text, limits::MIN_SEGMENT_BYTES, limits::MAX_SEGMENT_BYTES)?;
            Ok(())
        },
    },
    Setting {
        key: "storage.journal_bytes",
        about: "Size to which the journal's ring of files grows, 128 MiB to 4 GiB.",
        get: |config| config.journal_bytes.to_string(),
        set: |config, text| {
            config.journal_bytes = bytes(text, 128 << 20, 4 << 30)?;
            Ok(())
        },
    },
    Setting {
        key: "storage.scrub_bytes_per_second",
        about: "Bytes of closed segment files that are read again in a second, to find damage before a reader does, 64 KiB to 4 GiB; 0 = none. A pass begins at most once an hour.",
        get: |config| config.scrub_bytes_per_second.to_string(),
        set: |config, text| {
            config.scrub_bytes_per_second = if text == "0" { 0 } else { bytes(text, 64 << 10, 4 << 30)? };
            Ok(())
        },
    },
    Setting {
        key: "storage.index_bytes_per_second",
        about: "Bytes of closed segment files whose keys are indexed in a second, for reads of one key, 64 KiB to 4 GiB; 0 = none.",
        get: |config| config.index_bytes_per_second.to_string(),
        set: |config, text| {
            config.index_bytes_per_second = if text == "0" { 0 } else { bytes(text, 64 << 10, 4 << 30)? };
            Ok(())
        },
    },
    Setting {
        key: "limits.connections",
        about: "Connections at a time, 1 to 65536; further ones wait in the kernel's queue.",
        get: |config| config.connections.to_string(),
        set: |config, text| {
            config.connections = number(text, 1, 65_536)?;
            Ok(())
        },
    },
    Setting {
        key: "limits.streams_per_connection",
        about: "Calls at a time on one connection, 1 to 65536; HTTP/2 tells the client, which waits.",
        get: |config| config.streams.to_string(),
        set: |config, text| {
            config.streams = number(text, 1, 65_536)?;
            Ok(())
        },
    },
    Setting {
        key: "limits.inflight_bytes",
        about: "Bytes of requests held at a time over all connections, 32 MiB to 64 GiB; beyond it the server reads no further.",
        get: |config| config.inflight_bytes.to_string(),
        set: |config, text| {
            config.inflight_bytes = bytes(text, 32 << 20, 64 << 30)?;
            Ok(())
        },
    },
    Setting {
        key: "shutdown_ms",
        about: "How long a stopping server waits for calls that run, milliseconds, 0 to 600000.",
        get: |config| config.shutdown_ms.to_string(),
        set: |config, text| {
            config.shutdown_ms = number(text, 0, 600_000)?.into();
            Ok(())
        },
    },
];

/// The name of a durability level, as settings and commands spell it.
pub(in crate::server) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Os => "os",
        Level::Interval => "interval",
        Level::Fsync => "fsync",
    }
}

/// The reference of all settings, in Markdown: the body of `docs/configuration.md`.
pub fn reference() -> String {
    let defaults = Config::default();
    let mut text = String::from("| setting | environment | default | what it is |\n|---|---|---|---|\n");
    for setting in &SETTINGS {
        let (key, env, about) = (setting.key, setting.env(), setting.about);
        let default = (setting.get)(&defaults);
        writeln!(text, "| `{key}` | `{env}` | `{default}` | {about} |").expect("a String takes every write");
    }
    text
}

fn filled(text: &str) -> Result<&str, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text) }
}

/// Whether this is an address that can be listened on.
fn listenable(text: &str) -> Result<(), String> {
    let most = socket::MAX_PATH;
    match (socket::unix_path(text), text.rsplit_once(':')) {
        (Some(""), _) => Err("names no path; write unix:PATH, as in unix:/run/annals.sock".into()),
        (Some(path), _) if path.len() > most => Err(format!(
            "a path of {} bytes; the system takes at most {most} for a socket. Take a shorter one",
            path.len()
        )),
        (Some(path), _) if path.contains('\0') => Err("a path cannot hold a zero byte".into()),
        (Some(_), _) => Ok(()),
        (None, Some((host, port))) if is_host(host) && port.parse::<u16>().is_ok() => Ok(()),
        (None, _) => Err("must be host:port, as in 127.0.0.1:7411, or unix:PATH".into()),
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".into()),
    }
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("must be a whole number, {least} to {most}"))
}

/// A size: bytes, or a number with `KiB`, `MiB` or `GiB` behind it.
fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match text.get(digits.len()..).unwrap_or_default() {
        "" => Some(1_u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    scale
        .zip(digits.trim_end().parse::<u64>().ok())
        .and_then(|(scale, count)| count.checked_mul(scale))
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("must be a size from {least} to {most} bytes, as in 67108864 or 64MiB"))
}
