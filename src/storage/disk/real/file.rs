//! An open file of the machine's file system.
//!
//! 1. The map covers the file as long as it was when the map was made, and is made again when more is asked for. Maps
//!    that were replaced live as long as bytes of them do.
//! 2. Nothing is lent from a map behind the file's end, as far as it is known at that moment, nor from a map that has lost
//!    pages.
//! 3. Cutting the file drops the map first, so that no later `view` can reach behind the new end.
//! 4. Files below [`MAP_FROM`] bytes, files of a disk that is only looked at (it may be cut or fail under us) and files
//!    beyond the budget of maps are read and copied instead.

use std::{
    fmt,
    io::{self, IoSlice},
    os::fd::OwnedFd,
};

use bytes::Bytes;
use rustix::{fs::FallocateFlags, io::Errno};

use super::{File, Room, kernel_error, retry};
use crate::{
    storage::map::{self, Usage},
    sync::{Arc, AtomicBool, Mutex, Ordering},
};

/// A file shorter than this is not worth a map.
const MAP_FROM: u64 = 64 * 1024;
/// Parts handed to the kernel in one call; it takes at most 1,024.
const PARTS_A_CALL: usize = 64;
/// Zeros are written in pieces of this size where the file system cannot make them.
const ZEROS: &[u8] = &[0; 256 * 1024];

/// An open file.
pub(super) struct RealFile {
    fd: OwnedFd,
    /// The budget of maps; none for a disk that is only looked at.
    maps: Option<Arc<Usage>>,
    map: Mutex<Option<Bytes>>,
    /// A page of a map of it could not be read.
    lost: Arc<AtomicBool>,
    /// Counts it among the open ones.
    _open: Arc<()>,
    room: Room,
}

impl RealFile {
    pub(super) fn new(fd: OwnedFd, maps: Option<Arc<Usage>>, open: Arc<()>, room: Room) -> Self {
        Self { fd, maps, _open: open, map: Mutex::new(None), lost: Arc::default(), room }
    }

    /// Asks the kernel for room or zeros. `false`: the file system cannot.
    fn fallocate(&self, flags: FallocateFlags, position: u64, length: u64) -> io::Result<bool> {
        if self.room != Room::Kernel {
            return Ok(false);
        }
        loop {
            match rustix::fs::fallocate(&self.fd, flags, position, length) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
                Err(error) => return Err(kernel_error(error)),
            }
        }
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let mut position = from;
        while position < to {
            let left = usize::try_from(to - position).unwrap_or(usize::MAX);
            let piece = ZEROS.get(..left).unwrap_or(ZEROS);
            self.write_at(&[piece], position)?;
            position += piece.len() as u64;
        }
        Ok(())
    }

    /// Room for a range. The kernel is asked twice: first for blocks alone, then to move the file's end over them, so
    /// that a disk that fills up halfway leaves the length as it was.
    fn reserve(&self, position: u64, length: u64, before: u64) -> io::Result<()> {
        if self.fallocate(FallocateFlags::KEEP_SIZE, position, length)? {
            return self.fallocate(FallocateFlags::empty(), position, length).map(drop);
        }
        self.write_zeros(position.max(before), position + length)
    }

    /// The map's bytes of a range, `None` if there is none that reaches so far and none can be had.
    fn mapped(&self, position: u64, length: usize) -> io::Result<Option<Bytes>> {
        let Some(usage) = &self.maps else { return Ok(None) };
        let whole = self.len()?;
        let mut slot = self.map.lock();
        if self.lost() {
            *slot = None;
        }
        if self.lost() || position.checked_add(length as u64).is_none_or(|end| end > whole) {
            return Ok(None);
        }
        if let Some(bytes) = slot.as_ref().and_then(|map| part_of(map, position, length)) {
            return Ok(Some(bytes));
        }
        if whole < MAP_FROM {
            return Ok(None);
        }
        let Ok(whole) = usize::try_from(whole) else { return Ok(None) };
        // The old map goes first: two of one file at a time count only if a reader holds on to one.
        *slot = None;
        *slot = map::map(&self.fd, whole, usage, &self.lost)?;
        Ok(slot.as_ref().and_then(|map| part_of(map, position, length)))
    }
}

/// A slice of a map, if the map covers it.
fn part_of(map: &Bytes, position: u64, length: usize) -> Option<Bytes> {
    let from = usize::try_from(position).ok()?;
    let to = from.checked_add(length)?;
    (to <= map.len()).then(|| map.slice(from..to))
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        let status = rustix::fs::fstat(&self.fd)?;
        u64::try_from(status.st_size).map_err(io::Error::other)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = retry(|| rustix::io::pread(&self.fd, &mut *rest, position + filled as u64))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let mut position = position;
        for group in parts.chunks(PARTS_A_CALL) {
            let mut slots = [IoSlice::new(&[]); PARTS_A_CALL];
            for (slot, part) in slots.iter_mut().zip(group) {
                *slot = IoSlice::new(part);
            }
            let mut left = slots.get_mut(..group.len()).unwrap_or_default();
            // Empty parts in front count as written; they would make the kernel answer 0.
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                let written = retry(|| rustix::io::pwritev(&self.fd, left, position))?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                position += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // Never repeated, not even when interrupted: an answer other than Ok is final.
        rustix::fs::fdatasync(&self.fd).map_err(kernel_error)
    }

    fn start_write_back(&self, position: u64, length: u64) {
        // Only a hint: what goes wrong with the bytes comes back from `sync`.
        let _ = map::start_write_back(&self.fd, position, length);
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let before = self.len()?;
        position.checked_add(length).ok_or(io::ErrorKind::FileTooLarge)?;
        self.reserve(position, length, before).inspect_err(|_| {
            // Room that was got before the disk was full would be held for nothing. To cut a file at its own length
            // frees the blocks behind it. Nobody writes there: the engine writes only where it has been given room.
            let _ = rustix::fs::ftruncate(&self.fd, before);
        })
    }

    fn zero(&self, position: u64, length: u64) -> io::Result<()> {
        let whole = self.len()?;
        let end =
            position.checked_add(length).filter(|end| *end <= whole).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        if length == 0 || self.fallocate(flags, position, length)? {
            return Ok(());
        }
        self.write_zeros(position, end)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut slot = self.map.lock();
        *slot = None;
        retry(|| rustix::fs::ftruncate(&self.fd, length))
    }

    fn view(&self, position: u64, length: usize) -> io::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.mapped(position, length)? {
            return Ok(bytes);
        }
        // The length may come from a damaged place: nothing is taken for it before the file is known to have it.
        let available = self.len()?;
        if position.checked_add(length as u64).is_none_or(|end| end > available) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        let read = self.read_at(&mut bytes, position)?;
        if read < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes.into()) }
    }

    fn unmap(&self) {
        // Outside the lock: giving back many pages takes a while.
        let map = self.map.lock().take();
        drop(map);
    }

    fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

impl fmt::Debug for RealFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealFile").field("fd", &self.fd).finish_non_exhaustive()
    }
}
