//! How a data directory of the machine's file system is opened: made if need be, judged, locked.
//!
//! The lock is on the directory itself, not on a file in it: nothing is written into a directory that turns out to be
//! somebody else's, and no file can be unlinked from under the lock. It goes with the process, however that ends.
//! Who holds it is read from the kernel's list of locks.

use std::{
    fmt, fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, CWD, FlockOperation, Mode, OFlags, StatVfsMountFlags},
    process::{Resource, getrlimit},
};

use super::{RealDisk, Room, kernel_error, retry};
use crate::{storage::map::Usage, sync::Arc};

/// Why a data directory cannot be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it.
    InUse {
        /// Which one, where the kernel says so.
        pid: Option<u32>,
    },
    /// There is nothing at the path, and it was to be opened for reading only.
    NotFound,
    /// The path, or a part of it, is something else than a directory.
    NotADirectory,
    /// The file system is mounted read-only.
    ReadOnly,
    /// This user may not read and write there.
    Permission,
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: String,
        /// Its answer.
        source: io::Error,
    },
}

impl LockError {
    fn new(doing: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::NotADirectory => Self::NotADirectory,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            io::ErrorKind::PermissionDenied => Self::Permission,
            _ => Self::Io { doing: doing.to_owned(), source },
        }
    }

    /// For `map_err`: what was being done when the error came.
    fn while_doing(doing: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::new(doing, source)
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { pid: Some(pid) } => write!(f, "in use by process {pid}"),
            Self::InUse { pid: None } => write!(f, "in use by another process"),
            Self::NotFound => write!(f, "there is no such directory"),
            Self::NotADirectory => write!(f, "not a directory"),
            Self::ReadOnly => write!(f, "on a file system that is mounted read-only"),
            Self::Permission => write!(f, "this user may not read and write there"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io { source, .. } = self { Some(source) } else { None }
    }
}

impl RealDisk {
    /// Opens a data directory and keeps it locked. It is made, with its parents, if there is none; the names made
    /// are durable then. Nothing is written into a directory that is there.
    pub fn open(root: &Path) -> Result<Self, LockError> {
        make_durably(root)?;
        let fd = open_dir(root).map_err(LockError::while_doing("opening the directory"))?;
        let mount = rustix::fs::fstatvfs(&fd).map_err(io::Error::from);
        let mount = mount.map_err(LockError::while_doing("asking about the file system"))?;
        if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(LockError::ReadOnly);
        }
        let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        retry(|| rustix::fs::accessat(&fd, ".", rights, AtFlags::EACCESS))
            .map_err(LockError::while_doing("asking about rights"))?;
        match retry(|| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => Ok(Self::over(fd, true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(LockError::InUse { pid: owner_of(&fd) })
            }
            Err(error) => Err(LockError::new("locking the directory", error)),
        }
    }

    /// Opens a data directory to be looked at: no lock, no change, and media that cannot be written to are fine. What
    /// a running server changes meanwhile is seen as it happens to be.
    pub fn open_read_only(root: &Path) -> Result<Self, LockError> {
        let fd = open_dir(root).map_err(LockError::while_doing("opening the directory"))?;
        Ok(Self::over(fd, false))
    }

    /// Opens a data directory to be judged: no change, and refused while a server has it, whose half-done work would look
    /// like damage. No server can start on it meanwhile.
    pub fn open_at_rest(root: &Path) -> Result<Self, LockError> {
        let fd = open_dir(root).map_err(LockError::while_doing("opening the directory"))?;
        match retry(|| rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared)) {
            Ok(()) => Ok(Self::over(fd, false)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(LockError::InUse { pid: owner_of(&fd) })
            }
            Err(error) => Err(LockError::new("locking the directory", error)),
        }
    }

    fn over(root: OwnedFd, writable: bool) -> Self {
        let maps = Usage::new(max_maps(), max_mapped_bytes());
        Self { root, writable, maps, files: Arc::default(), room: Room::Kernel }
    }

    /// The name of the file system the directory is on, if what the acks promise does not hold there.
    ///
    /// `nfs`, `cifs`, `fuse`, `9p`, `ceph`, `afs`: elsewhere, so locks, flushes and maps are somebody else's word.
    /// `tmpfs`, `ramfs`: gone with the power. `overlay`: gone with the container.
    /// `None`: none of these, or the kernel would not say.
    pub fn is_tmpfs_or_network(&self) -> Option<&'static str> {
        let status = rustix::fs::fstatfs(&self.root).ok()?;
        // The kernel's numbers have 32 bits, in a field that is wider on some machines.
        file_system_name(u32::try_from(status.f_type & 0xFFFF_FFFF).ok()?)
    }
}

/// Names of the numbers in the kernel's `magic.h`, of those file systems only that matter here.
pub(super) fn file_system_name(magic: u32) -> Option<&'static str> {
    match magic {
        0x0000_6969 => Some("nfs"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x0000_517B => Some("cifs"),
        0x6573_5546 => Some("fuse"),
        0x0102_1997 => Some("9p"),
        0x00C3_6400 => Some("ceph"),
        0x5346_414F | 0x6B41_4653 => Some("afs"),
        0x0102_1994 => Some("tmpfs"),
        0x8584_58F6 => Some("ramfs"),
        0x794C_7630 => Some("overlay"),
        _ => None,
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Makes a directory and those above it, each flushed into its parent before the next is made. So a crash leaves at
/// most the name of the last one it made in doubt, and that one's parent is flushed at the next start.
fn make_durably(root: &Path) -> Result<(), LockError> {
    let mut missing = Vec::new();
    let mut there = absolute(root)?;
    while !exists(&there)? {
        let Some(parent) = there.parent().map(Path::to_path_buf) else { break };
        missing.push(std::mem::replace(&mut there, parent));
    }
    if let Some(parent) = there.parent() {
        // Who may not read a directory cannot flush it; whoever made this one has.
        let _ = flush_dir(parent);
    }
    for dir in missing.iter().rev() {
        match retry(|| rustix::fs::mkdirat(CWD, dir, Mode::RWXU)) {
            // Somebody else was quicker; the lock tells us apart.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(LockError::while_doing("making the directory"))?,
        }
        if let Some(parent) = dir.parent() {
            flush_dir(parent).map_err(LockError::while_doing("flushing the directory above"))?;
        }
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, LockError> {
    std::path::absolute(path).map_err(LockError::while_doing("finding the directory"))
}

fn exists(path: &Path) -> Result<bool, LockError> {
    match retry(|| rustix::fs::statat(CWD, path, AtFlags::empty())) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LockError::new("looking for the directory", error)),
    }
}

fn flush_dir(path: &Path) -> io::Result<()> {
    rustix::fs::fsync(open_dir(path)?).map_err(kernel_error)
}

/// The process that holds the lock on a directory, as far as the kernel shows it: not one of another container.
fn owner_of(dir: impl AsFd) -> Option<u32> {
    let status = rustix::fs::fstat(dir).ok()?;
    let (major, minor) = (rustix::fs::major(status.st_dev), rustix::fs::minor(status.st_dev));
    find_owner(&fs::read_to_string("/proc/locks").ok()?, &format!("{major:02x}:{minor:02x}"), status.st_ino)
}

/// Finds `N: FLOCK ADVISORY WRITE <pid> <device>:<inode> 0 EOF`; who only looks at the directory has READ there.
///
/// Some file systems show another device here than to `stat`: if no line has ours, the inode alone counts,
/// as long as it leaves no doubt.
pub(super) fn find_owner(locks: &str, device: &str, inode: u64) -> Option<u32> {
    let mut elsewhere = Vec::new();
    for line in locks.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE" | "READ", pid, place, ..] = words.as_slice() else { continue };
        let Some((its_device, its_inode)) = place.rsplit_once(':') else { continue };
        // Waiters have another form ("->"), and a holder this container may not see has the number 0.
        let Some(pid) = pid.parse().ok().filter(|pid| *pid > 0) else { continue };
        if its_inode.parse() != Ok(inode) {
            continue;
        }
        if its_device == device {
            return Some(pid);
        }
        elsewhere.push(pid);
    }
    if let [pid] = elsewhere.as_slice() { Some(*pid) } else { None }
}

/// Half of the address space, where there is a limit; the other half is for memory.
fn max_mapped_bytes() -> u64 {
    getrlimit(Resource::As).current.map_or(u64::MAX, |limit| limit / 2)
}

/// Half of the maps the kernel allows a process; the other half is for memory.
fn max_maps() -> usize {
    const USUAL: usize = 65_530;
    let said = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    said.and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL) / 2
}
