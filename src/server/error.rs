//! Why a server does not start, or ended: each with what happened, the value, and what to do next.
//!
//! | exit code | errors |
//! |---|---|
//! | 1 | the system refused, the storage failed while serving, a file system that cannot hold a log |
//! | 2 | wrong configuration |
//! | 4 | the data directory may not be written |
//! | 6 | the port or the data directory is taken, or the directory belongs to something else or to a newer version |
//! | 7 | the data is damaged |

use std::{fmt, io, path::PathBuf};

/// Why a server does not start, or ended.
#[derive(Debug)]
pub enum ServeError {
    /// A setting is unknown or its value is not possible.
    Config {
        /// File, variable or flag.
        place: String,
        /// What is wrong with which value.
        what: String,
    },
    /// Somebody listens on the address.
    AddressInUse {
        /// The address.
        address: String,
    },
    /// The address cannot be listened on.
    Address {
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process has the data directory open.
    DataInUse {
        /// The directory.
        data: PathBuf,
        /// Which process, if that can be told.
        pid: Option<u32>,
    },
    /// The data directory may not be written.
    Denied {
        /// The directory.
        data: PathBuf,
        /// In what way.
        what: &'static str,
    },
    /// The path of the data directory is something else.
    NotADirectory {
        /// The path.
        data: PathBuf,
    },
    /// The directory lies on a file system whose flushes and locks cannot be relied on.
    NetworkDisk {
        /// The directory.
        data: PathBuf,
        /// Which file system.
        kind: &'static str,
    },
    /// The directory holds something that is not ours.
    Foreign {
        /// The directory.
        data: PathBuf,
        /// What was found.
        found: String,
    },
    /// A newer version wrote the directory.
    Newer {
        /// The directory.
        data: PathBuf,
        /// Which file says so, and what it says.
        what: String,
    },
    /// The data is damaged, and what that concerns cannot be told.
    Damaged {
        /// The directory.
        data: PathBuf,
        /// File, position and what is wrong.
        what: String,
    },
    /// The journal could not be written or flushed while serving.
    Failed {
        /// What storage says.
        what: String,
    },
    /// The system refused.
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ServeError {
    /// The code to end the process with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. }
            | Self::Address { .. }
            | Self::Failed { .. }
            | Self::NetworkDisk { .. }
            | Self::NotADirectory { .. } => 1,
            Self::Config { .. } => 2,
            Self::Denied { .. } => 4,
            Self::AddressInUse { .. }
            | Self::DataInUse { .. }
            | Self::Foreign { .. }
            | Self::Newer { .. } => 6,
            Self::Damaged { .. } => 7,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { place, what } => write!(f, "{place}: {what}"),
            Self::AddressInUse { address } => {
                write!(
                    f,
                    "address {address} is in use. Stop what listens there, or take another: annals serve --grpc 127.0.0.1:0"
                )
            }
            Self::Address { address, source } => {
                write!(
                    f,
                    "cannot listen on {address}: {source}. Take another: annals serve --grpc 127.0.0.1:7411"
                )
            }
            Self::DataInUse { data, pid } => {
                write!(f, "data directory {} is in use", data.display())?;
                match pid {
                    Some(pid) => write!(f, " by process {pid}. Stop it (kill {pid})")?,
                    None => write!(f, " by another process. Stop it")?,
                }
                f.write_str(", or take another directory: annals serve --data DIR")
            }
            Self::Denied { data, what } => {
                write!(
                    f,
                    "data directory {} {what}. Give this user the right to write it, or take another: annals serve --data DIR",
                    data.display()
                )
            }
            Self::NotADirectory { data } => {
                write!(f, "{} is not a directory. Take another: annals serve --data DIR", data.display())
            }
            Self::NetworkDisk { data, kind } => write!(
                f,
                "data directory {} lies on {kind}, whose locks and flushes cannot be relied on. Take a local disk: annals serve --data DIR",
                data.display()
            ),
            Self::Foreign { data, found } => write!(
                f,
                "{} is not an Annals data directory: {found}. Nothing was written; take an empty one: annals serve --data DIR",
                data.display()
            ),
            Self::Newer { data, what } => write!(
                f,
                "{} was written by a newer version: {what}. Nothing was written; start it with that version or a later one",
                data.display()
            ),
            Self::Damaged { data, what } => write!(
                f,
                "{} is damaged: {what}. Nothing was written; look closer: annals log verify {}",
                data.display(),
                data.display()
            ),
            Self::Failed { what } => write!(
                f,
                "the journal failed: {what}. No more could be acknowledged, so the server ended; mend the disk and start it again, recovery keeps every acknowledged record"
            ),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Address { source, .. } => Some(source),
            _ => None,
        }
    }
}
