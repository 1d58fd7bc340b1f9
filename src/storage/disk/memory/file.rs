//! A file in memory: the pages that were written to, zeros everywhere else.
//!
//! 1. No page lies wholly at or behind the file's length, and the part of a page behind it is zero.
//! 2. The length is counted against the disk's room for as long as a name or a handle holds the file.

use std::{collections::BTreeMap, fmt, io};

use bytes::Bytes;

use super::{Access, Call, Faults, File};
use crate::sync::{Arc, AtomicU64, Ordering, RwLock};

const PAGE: usize = 16 * 1024;
const PAGE_U64: u64 = PAGE as u64;

/// How much the files of a disk may have, and have.
#[derive(Debug)]
pub(super) struct Room {
    capacity: AtomicU64,
    used: AtomicU64,
}

impl Room {
    pub(super) fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self { capacity: AtomicU64::new(capacity), used: AtomicU64::new(0) })
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::SeqCst)
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.capacity.store(bytes, Ordering::SeqCst);
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity().saturating_sub(self.used.load(Ordering::SeqCst))
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let capacity = self.capacity();
        let grown = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= capacity || bytes == 0);
        match self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, grown) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
    }
}

/// What a file's name and its handles share.
pub(super) struct Content {
    pages: RwLock<Pages>,
    room: Arc<Room>,
}

#[derive(Clone, Default)]
struct Pages {
    length: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

impl Content {
    pub(super) fn empty(room: &Arc<Room>) -> Arc<Self> {
        Arc::new(Self { pages: RwLock::default(), room: Arc::clone(room) })
    }

    /// The same bytes on another disk.
    pub(super) fn copy_to(&self, room: &Arc<Room>) -> Arc<Self> {
        let pages = self.pages.read().clone();
        room.used.fetch_add(pages.length, Ordering::SeqCst);
        Arc::new(Self { pages: RwLock::new(pages), room: Arc::clone(room) })
    }

    /// Makes the file at least `length` long.
    fn grow(&self, pages: &mut Pages, length: u64) -> io::Result<()> {
        if length > pages.length {
            self.room.take(length - pages.length)?;
            pages.length = length;
        }
        Ok(())
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.room.give_back(self.pages.get_mut().length);
    }
}

impl Pages {
    fn read(&self, out: &mut [u8], position: u64) {
        let mut position = position;
        for piece in pieces(out.len(), position) {
            let Some(target) = out.get_mut(piece.buffer.clone()) else { return };
            match self.written.get(&(position / PAGE_U64)).and_then(|page| page.get(piece.page.clone())) {
                Some(source) => target.copy_from_slice(source),
                None => target.fill(0),
            }
            position += target.len() as u64;
        }
    }

    fn write(&mut self, bytes: &[u8], position: u64) {
        let mut position = position;
        for piece in pieces(bytes.len(), position) {
            let page = self.written.entry(position / PAGE_U64).or_insert_with(|| vec![0; PAGE].into());
            if let (Some(target), Some(source)) = (page.get_mut(piece.page), bytes.get(piece.buffer)) {
                target.copy_from_slice(source);
                position += source.len() as u64;
            }
        }
    }

    /// Zeros in the range; pages that hold nothing else go.
    fn clear(&mut self, from: u64, to: u64) {
        let touched: Vec<u64> = self.written.range(from / PAGE_U64..).map(|(number, _)| *number).collect();
        for number in touched.into_iter().take_while(|number| number * PAGE_U64 < to) {
            let start = number * PAGE_U64;
            if from <= start && start + PAGE_U64 <= to {
                self.written.remove(&number);
                continue;
            }
            let within = |position: u64| {
                usize::try_from(position.clamp(start, start + PAGE_U64) - start).expect("less than a page")
            };
            if let Some(part) =
                self.written.get_mut(&number).and_then(|page| page.get_mut(within(from)..within(to)))
            {
                part.fill(0);
            }
        }
    }
}

/// A range of a buffer and where in one page it lies.
struct Piece {
    buffer: std::ops::Range<usize>,
    page: std::ops::Range<usize>,
}

/// Cuts a buffer at the borders of the pages it falls on.
fn pieces(length: usize, position: u64) -> impl Iterator<Item = Piece> {
    let mut in_page = usize::try_from(position % PAGE_U64).expect("less than a page");
    let mut done = 0;
    std::iter::from_fn(move || {
        let count = (length - done).min(PAGE - in_page);
        let piece = Piece { buffer: done..done + count, page: in_page..in_page + count };
        done += count;
        in_page = 0;
        (count > 0).then_some(piece)
    })
}

/// An open file.
pub(super) struct MemoryFile {
    content: Arc<Content>,
    access: Access,
    faults: Arc<Faults>,
}

impl MemoryFile {
    pub(super) fn new(content: Arc<Content>, access: Access, faults: Arc<Faults>) -> Self {
        Self { content, access, faults }
    }

    fn permit_change(&self) -> io::Result<()> {
        match self.access {
            Access::Write => Ok(()),
            Access::Read => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn write_whole(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Ok(());
        }
        let end = end_of(position, length as u64)?;
        let mut pages = self.content.pages.write();
        self.content.grow(&mut pages, end)?;
        let mut position = position;
        for part in parts {
            pages.write(part, position);
            position += part.len() as u64;
        }
        Ok(())
    }
}

/// Where a range ends; an error of the machine's kind if no file can be so long.
fn end_of(position: u64, length: u64) -> io::Result<u64> {
    let end = position.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
    end.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.pages.read().length)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.faults.pass(Call::Read)?;
        let pages = self.content.pages.read();
        let left = usize::try_from(pages.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        pages.read(buffer.get_mut(..count).unwrap_or_default(), position);
        Ok(count)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.permit_change()?;
        if let Err(fault) = self.faults.pass(Call::Write) {
            let whole = parts.concat();
            let half = whole.get(..whole.len() / 2).unwrap_or_default();
            return self.write_whole(&[half], position).and(Err(fault));
        }
        self.write_whole(parts, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.pass(Call::Sync)
    }

    fn start_write_back(&self, _position: u64, _length: u64) {}

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.permit_change()?;
        self.faults.pass(Call::Allocate)?;
        let end = end_of(position, length)?;
        if length == 0 { Ok(()) } else { self.content.grow(&mut self.content.pages.write(), end) }
    }

    fn zero(&self, position: u64, length: u64) -> io::Result<()> {
        self.permit_change()?;
        self.faults.pass(Call::Zero)?;
        let mut pages = self.content.pages.write();
        let end = end_of(position, length).ok().filter(|end| *end <= pages.length);
        pages.clear(position, end.ok_or(io::ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.permit_change()?;
        self.faults.pass(Call::SetLen)?;
        end_of(length, 0)?;
        let mut pages = self.content.pages.write();
        self.content.grow(&mut pages, length)?;
        let before = pages.length;
        if length < before {
            pages.clear(length, before.next_multiple_of(PAGE_U64));
            pages.length = length;
            self.content.room.give_back(before - length);
        }
        Ok(())
    }

    fn view(&self, position: u64, length: usize) -> io::Result<Bytes> {
        self.faults.pass(Call::View)?;
        let pages = self.content.pages.read();
        if position.checked_add(length as u64).is_none_or(|end| end > pages.length) && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        pages.read(&mut bytes, position);
        Ok(bytes.into())
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("access", &self.access).finish_non_exhaustive()
    }
}
