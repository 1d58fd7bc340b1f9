//! The file system of the machine.
//!
//! ```text
//! RealDisk   one open directory, locked for as long as it is open    real/start.rs: how it is opened
//!   RealFile an open file, and a map of it                           real/file.rs
//!     map    the maps themselves                                     ../map.rs
//! ```
//!
//! 1. Every name is resolved below the open directory, one part at a time, and no part may be a link: nobody who can
//!    write into the data directory leads the engine out of it, and moving the directory changes nothing.
//! 2. Only plain files are opened; opening anything else neither waits nor has an effect.
//! 3. "No space" and "over quota" are one kind, `StorageFull`: the caller does the same about both.
//! 4. An interrupted call goes on; any other error is handed up as it came, once.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::{Access, Disk, Entry, EntryKind, File};
use crate::{storage::map::Usage, sync::Arc};

mod file;
mod start;

use file::RealFile;
pub use start::LockError;

/// A data directory on the machine's file system.
pub struct RealDisk {
    root: OwnedFd,
    /// False: opened to be looked at, without a lock.
    writable: bool,
    maps: Arc<Usage>,
    /// One more for each open file, and one for this.
    files: Arc<()>,
    /// How files get room; only tests say anything but `Kernel`.
    room: Room,
}

/// Who gives a file room and turns ranges into zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// `fallocate`, and zeros where the file system has none.
    Kernel,
    /// Written zeros, as on a file system without `fallocate`.
    #[cfg(test)]
    Zeros,
}

/// Address space in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// Maps alive, those held only by readers of closed files included.
    pub maps: usize,
    /// Bytes of address space they take.
    pub bytes: u64,
}

impl RealDisk {
    /// What the maps of this directory's files take at the moment.
    pub fn map_usage(&self) -> MapUsage {
        MapUsage { maps: self.maps.maps(), bytes: self.maps.bytes() }
    }

    fn permit_change(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::ReadOnlyFilesystem.into()) }
    }

    /// The directory a path lies in, and its last part.
    fn resolve<'p>(&self, path: &'p str) -> io::Result<(Place<'_>, &'p str)> {
        check_path(path)?;
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.walk(parents)?, name))
    }

    /// A directory, found part by part; `""` is the data directory.
    fn walk(&self, dir: &str) -> io::Result<Place<'_>> {
        let mut place = Place::Root(self.root.as_fd());
        if dir.is_empty() {
            return Ok(place);
        }
        check_path(dir)?;
        for part in dir.split('/') {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next = retry(|| rustix::fs::openat(&place, part, flags, Mode::empty()))?;
            place = Place::Below(next);
        }
        Ok(place)
    }

    fn open_file(&self, path: &str, flags: OFlags) -> io::Result<Arc<dyn File>> {
        let (place, name) = self.resolve(path)?;
        // NONBLOCK, so that opening a fifo does not wait for its other end; it means nothing to plain files.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match retry(|| rustix::fs::openat(&place, name, flags, Mode::RUSR | Mode::WUSR)) {
            Ok(fd) => fd,
            // A link, a directory, a socket or a device without a driver.
            Err(error) if is_not_plain(&error) => return Err(not_plain(path)),
            Err(error) => return Err(error),
        };
        let status = rustix::fs::fstat(&fd)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(not_plain(path));
        }
        let maps = self.writable.then(|| Arc::clone(&self.maps));
        Ok(Arc::new(RealFile::new(fd, maps, Arc::clone(&self.files), self.room)))
    }
}

/// An open directory: the data directory itself, or one below it.
enum Place<'a> {
    Root(BorrowedFd<'a>),
    Below(OwnedFd),
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Below(fd) => fd.as_fd(),
        }
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.permit_change()?;
        self.open_file(path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        match access {
            Access::Read => self.open_file(path, OFlags::RDONLY),
            Access::Write => {
                self.permit_change()?;
                self.open_file(path, OFlags::RDWR)
            }
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let place = match self.walk(dir) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for found in Dir::read_from(&place)? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match found.file_type() {
                // Not every file system says it here.
                FileType::Unknown => match rustix::fs::statat(&place, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(status) => FileType::from_raw_mode(status.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                known => known,
            };
            let kind = match kind {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Directory,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: name.to_string_lossy().into_owned(), kind });
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.permit_change()?;
        let (place, name) = self.resolve(dir)?;
        match retry(|| rustix::fs::mkdirat(&place, name, Mode::RWXU)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.walk(dir).map(drop),
            other => other,
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.permit_change()?;
        let (old_place, old) = self.resolve(from)?;
        let (new_place, new) = self.resolve(to)?;
        retry(|| rustix::fs::renameat(&old_place, old, &new_place, new))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.permit_change()?;
        let (place, name) = self.resolve(path)?;
        retry(|| rustix::fs::unlinkat(&place, name, AtFlags::empty()))
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.permit_change()?;
        let (place, name) = self.resolve(dir)?;
        retry(|| rustix::fs::unlinkat(&place, name, AtFlags::REMOVEDIR))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.walk(dir)?)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let status = rustix::fs::fstatvfs(&self.root)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn open_files(&self) -> usize {
        Arc::strong_count(&self.files) - 1
    }
}

impl fmt::Debug for RealDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealDisk").field("writable", &self.writable).finish_non_exhaustive()
    }
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(kernel_error),
        }
    }
}

/// The kernel's error; a full disk and a full quota are the same to the caller.
fn kernel_error(error: Errno) -> io::Error {
    if error == Errno::DQUOT { io::Error::new(io::ErrorKind::StorageFull, error) } else { error.into() }
}

fn is_not_plain(error: &io::Error) -> bool {
    let codes = [Errno::LOOP, Errno::ISDIR, Errno::NXIO, Errno::NODEV];
    Errno::from_io_error(error).is_some_and(|code| codes.contains(&code))
}

fn not_plain(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not a plain file"))
}

/// Refuses what is not a path below the data directory: no part may be empty, `.`, `..` or hold a zero byte.
pub(super) fn check_path(path: &str) -> io::Result<()> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if path.split('/').all(plain) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
