//! The data directory: opened, locked, and looked at before it is trusted with anything.

use std::path::PathBuf;

use super::{Config, ServeError};
use crate::{
    storage::{Disk, LockError, MemoryDisk, OpenError, RealDisk},
    sync::Arc,
};

/// Opens the disk that the configuration names.
pub(super) fn open(config: &Config) -> Result<Arc<dyn Disk>, ServeError> {
    if config.ephemeral {
        return Ok(Arc::new(MemoryDisk::new()));
    }
    let data = &config.data;
    let disk = RealDisk::open(data).map_err(|error| locked(data.clone(), error))?;
    match disk.is_tmpfs_or_network() {
        None => {}
        Some(kind @ ("tmpfs" | "ramfs" | "overlay")) => {
            tracing::warn!(data = %data.display(), kind, "the data directory does not outlive the machine or the container: {kind}");
        }
        Some(kind) => return Err(ServeError::NetworkDisk { data: data.clone(), kind }),
    }
    Ok(Arc::new(disk))
}

fn locked(data: PathBuf, error: LockError) -> ServeError {
    match error {
        LockError::InUse { pid } => ServeError::DataInUse { data, pid },
        LockError::NotFound => ServeError::Denied { data, what: "cannot be made" },
        LockError::NotADirectory => ServeError::NotADirectory { data },
        LockError::ReadOnly => ServeError::Denied { data, what: "is on a file system that is read-only" },
        LockError::Permission => ServeError::Denied { data, what: "may not be written by this user" },
        LockError::Io { doing, source } => {
            ServeError::Io { doing: format!("data directory {}: {doing}", data.display()), source }
        }
    }
}

/// Why the data in a directory could not be taken.
pub(super) fn refused(data: PathBuf, error: OpenError) -> ServeError {
    match error {
        OpenError::Foreign { found } => ServeError::Foreign { data, found },
        OpenError::Newer { what } => ServeError::Newer { data, what },
        OpenError::Damaged { file, position, what } => {
            ServeError::Damaged { data, what: format!("{file} at byte {position}: {what}") }
        }
        OpenError::Io { doing, source } => match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                ServeError::Denied { data, what: "may not be written by this user" }
            }
            std::io::ErrorKind::ReadOnlyFilesystem => {
                ServeError::Denied { data, what: "is on a file system that is read-only" }
            }
            _ => ServeError::Io { doing: format!("data directory {}: {doing}", data.display()), source },
        },
    }
}
