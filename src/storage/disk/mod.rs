//! The only door to a file system.
//!
//! Everything the engine keeps goes through [`Disk`] and [`File`]; `tests/tidy.rs` holds that no other
//! module names `std::fs`, `rustix::fs` or a map. There are two disks: [`RealDisk`] and [`MemoryDisk`]
//! (`--ephemeral`, tests). A third, which cuts the power, belongs to the crash model.
//!
//! Paths are relative to the data directory, `/`-separated, without `.` or `..`: the engine cannot name a
//! file outside of it.
//!
//! What a disk promises:
//! 1. After `sync` of a file returned `Ok`, every byte written to it **through the same handle** before the
//!    call survives a power cut, and so does its length. Nothing else does.
//! 2. After `sync_dir` returned `Ok`, the names in that directory survive. `create`, `rename` and `remove`
//!    alone promise nothing.
//! 3. A failed `sync` is final: the caller must not sync again and hope (the kernel's second answer is
//!    `Ok` while the data is gone).
//! 4. `view` returns bytes that never change as long as the caller asks only for ranges nobody writes to.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use rustix::io::Errno;

/// A directory tree that belongs to one process.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Makes a file that must not exist, readable and writable, mode 0600.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a file. A symlink, fifo or directory is an error of kind `InvalidData`: only plain files hold data.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>>;
    /// Names in a directory, sorted; empty if there is no such directory.
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>>;
    /// Makes one directory, mode 0700; `Ok` if it is there. Its parent is not flushed.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Renames a file or a directory, replacing a file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file's name. Open handles and views stay readable.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes the names in a directory durable (`""` is the data directory itself).
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Free bytes a normal user may take.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Files open through this disk, where files are something the system may run out of.
    fn open_files(&self) -> usize {
        0
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its last part; a name that is not UTF-8 comes with replacement characters and never matches ours.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A link, a fifo, a device, a socket: never ours.
    Other,
}

/// An open file. Positions and lengths in bytes.
#[expect(clippy::len_without_is_empty, reason = "an empty file is like any other")]
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Length.
    fn len(&self) -> io::Result<u64>;
    /// Reads until `buffer` is full or the file ends; returns how many bytes.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one after the other, at `position`. On error any prefix may have been written.
    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Starts writing a range back without waiting and without any promise (`sync_file_range`).
    fn start_write_back(&self, position: u64, length: u64);
    /// Gives `length` bytes at `position` room on the disk, reading as zeros, and extends the file over them.
    /// `StorageFull` means nothing changed that matters. Falls back to writing zeros.
    fn allocate(&self, position: u64, length: u64) -> io::Result<()>;
    /// Turns a range within the file into zeros (`FALLOC_FL_ZERO_RANGE`, else written zeros).
    fn zero(&self, position: u64, length: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Bytes of a range within the file: lent from a read-only map where there is one, else copied.
    /// The range must lie below bytes the caller knows to be in the file; `UnexpectedEof` if the file was cut meanwhile.
    fn view(&self, position: u64, length: usize) -> io::Result<Bytes>;
    /// Gives back what `view` holds on to for the next time, which begins anew. Bytes that are lent stay as they are.
    fn unmap(&self) {}
    /// Whether bytes lent by `view` may read as zeros because the disk did not give them: look after having verified
    /// them. Once true it stays so, and `view` copies from then on.
    fn lost(&self) -> bool {
        false
    }
}

/// Whether a call failed because the process, or the system, has no more files.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|code| matches!(code, Errno::MFILE | Errno::NFILE))
}

mod memory;
mod real;

pub use memory::{Call, MemoryDisk};
pub use real::{LockError, MapUsage, RealDisk};
