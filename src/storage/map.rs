//! Read-only maps of files, and the one call of the kernel that no safe crate offers. With `fault` all the `unsafe` of the storage.
//!
//! A map is handed out as [`Bytes`]: one owner, any number of slices, no copy; the map goes when the last of them
//! goes. So a reader may hold on to bytes of a file that has been closed, renamed or removed.
//!
//! What makes a map sound is kept by others, and is the reason why only `disk/real` may ask for one:
//! 1. The file is at least as long as the map when it is made (checked here), and the engine never cuts a file
//!    below bytes it has handed out. Cut from outside, or on a disk that does not read, the lost pages read as zeros and the
//!    flag given with the file is set (`fault`): whoever verified bytes looks at it before it hands them on.
//! 2. Bytes are lent only from ranges nobody writes to any more. The rest of a map may change under it, by
//!    `pwritev` into the same page cache; nothing reads it through the map.
//!
//! Address space is a budget ([`Usage`]): the kernel allows a process 65,530 maps unless told otherwise, and when
//! they are used up the next large allocation fails too. Half of them may be files, and half of the address space where
//! that is limited (`ulimit -v`); beyond that callers copy.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd},
};

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

use super::fault::{self, Watch};
use crate::sync::{Arc, AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How many maps and mapped bytes there are, those kept alive only by a reader included.
#[derive(Debug)]
pub(crate) struct Usage {
    maps: AtomicUsize,
    bytes: AtomicU64,
    max_maps: usize,
    max_bytes: u64,
}

impl Usage {
    /// Counts from zero; at most `max_maps` at a time, and so many bytes of address space.
    pub(crate) fn new(max_maps: usize, max_bytes: u64) -> Arc<Self> {
        Arc::new(Self { maps: AtomicUsize::new(0), bytes: AtomicU64::new(0), max_maps, max_bytes })
    }

    /// Maps alive.
    pub(crate) fn maps(&self) -> usize {
        self.maps.load(Ordering::Relaxed)
    }

    /// Bytes of address space they take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, length: u64) -> Option<Share> {
        let room = |maps| (maps < self.max_maps).then_some(maps + 1);
        self.maps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let share = Share { usage: Arc::clone(self), length };
        // Too much goes back with the share.
        (before.saturating_add(length) <= self.max_bytes).then_some(share)
    }
}

/// A map's entry in the count, taken back when it is dropped.
struct Share {
    usage: Arc<Usage>,
    length: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.usage.maps.fetch_sub(1, Ordering::Relaxed);
        self.usage.bytes.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// Owner of a map: what the [`Bytes`] of it keep alive. No longer watched first, then unmapped, then no longer counted.
struct Map {
    _watch: Watch,
    pages: Mmap,
    _share: Share,
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.pages
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("len", &self.pages.len()).finish_non_exhaustive()
    }
}

/// Maps the first `length` bytes of a file for reading.
///
/// `None` if the budget is used up or the kernel has no room for it: the caller reads in another way. `lost` is set when a
/// page of the map could not be read.
/// A file that is shorter is an error of kind `UnexpectedEof`.
#[expect(
    unsafe_code,
    reason = "a file can change under a map: the module says why ours do not where it counts"
)]
pub(crate) fn map(
    file: impl AsFd,
    length: usize,
    usage: &Arc<Usage>,
    lost: &Arc<AtomicBool>,
) -> io::Result<Option<Bytes>> {
    let fd = file.as_fd();
    let length_u64 = u64::try_from(length).unwrap_or(u64::MAX);
    if u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0) < length_u64 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file is shorter than the map asked for",
        ));
    }
    let Some(share) = usage.take(length_u64) else { return Ok(None) };
    let raw = fd.as_raw_fd();
    // SAFETY: the map is read-only and lies within the file (just checked). The engine never cuts a file below bytes
    // it has lent, and lends only ranges nobody writes to any more (the module's rules 1 and 2).
    let pages = unsafe { MmapOptions::new().len(length).map(raw) };
    match pages {
        Ok(pages) => {
            let watch = fault::watch(pages.as_ptr().addr(), pages.len(), lost);
            Ok(watch.map(|watch| Bytes::from_owner(Map { _watch: watch, pages, _share: share })))
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Ok(None),
        Err(error) => Err(error),
    }
}

/// Starts writing a range back (`sync_file_range` with `WRITE` alone): neither waits nor promises anything.
///
/// An error of the device is not taken from the flush that counts: only the flags that wait would do that.
#[expect(unsafe_code, reason = "no safe crate has this call, and without it every flush waits for megabytes")]
pub(crate) fn start_write_back(file: impl AsFd, position: u64, length: u64) -> io::Result<()> {
    let offset = i64::try_from(position).map_err(io::Error::other)?;
    let count = i64::try_from(length).map_err(io::Error::other)?;
    // SAFETY: takes numbers only; the descriptor stays open while `file` is borrowed.
    let status = unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), offset, count, libc::SYNC_FILE_RANGE_WRITE)
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(length: usize) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; length]).unwrap();
        file
    }

    #[test]
    fn slices_share_one_map_that_goes_with_the_last() {
        let usage = Usage::new(4, u64::MAX);
        let file = file_of(10_000);
        let whole = map(&file, 10_000, &usage, &Arc::default()).unwrap().unwrap();
        let part = whole.slice(5_000..5_100);
        assert_eq!((usage.maps(), usage.bytes()), (1, 10_000));
        drop((whole, file));
        assert_eq!(part, vec![7; 100], "readable after the file was closed");
        assert_eq!((usage.maps(), usage.bytes()), (1, 10_000));
        drop(part);
        assert_eq!((usage.maps(), usage.bytes()), (0, 0));
    }

    #[test]
    fn never_beyond_the_end_of_the_file() {
        let usage = Usage::new(4, u64::MAX);
        let error = map(file_of(10), 11, &usage, &Arc::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!((usage.maps(), usage.bytes()), (0, 0));
    }

    #[test]
    fn the_budget_is_a_limit_and_comes_back() {
        let usage = Usage::new(1, u64::MAX);
        let file = file_of(10);
        let first = map(&file, 10, &usage, &Arc::default()).unwrap();
        assert!(first.is_some());
        assert!(map(&file, 10, &usage, &Arc::default()).unwrap().is_none());
        assert_eq!((usage.maps(), usage.bytes()), (1, 10));
        drop(first);
        assert!(map(&file, 10, &usage, &Arc::default()).unwrap().is_some());
    }

    #[test]
    fn address_space_is_a_limit_too() {
        let usage = Usage::new(9, 20);
        let file = file_of(15);
        let first = map(&file, 15, &usage, &Arc::default()).unwrap();
        assert!(first.is_some());
        assert!(map(&file, 15, &usage, &Arc::default()).unwrap().is_none());
        assert_eq!((usage.maps(), usage.bytes()), (1, 15));
    }

    #[test]
    fn write_back_of_a_range_the_kernel_knows() {
        let file = file_of(10_000);
        start_write_back(&file, 0, 10_000).unwrap();
        assert!(start_write_back(&file, 0, u64::MAX).is_err());
    }
}
