//! The file of a segment: opened when it is needed, closed when it is not, and the bytes of it.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;

use super::Segment;
use crate::{
    storage::disk::{Access, File},
    sync::Ordering,
};

impl Segment {
    /// The open file; opened for writing if it was closed.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn File>> {
        self.used.store(true, Ordering::Relaxed);
        let mut slot = self.file.lock();
        if let Some(file) = &*slot {
            return Ok(Arc::clone(file));
        }
        let file = self.disk.open(&self.id().path(), Access::Write)?;
        self.allocated.store(file.len()?, Ordering::Release);
        *slot = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Opens the file for reading, for those who may not write.
    pub(crate) fn open_read_only(&self) -> io::Result<()> {
        let file = self.disk.open(&self.id().path(), Access::Read)?;
        self.allocated.store(file.len()?, Ordering::Release);
        *self.file.lock() = Some(file);
        Ok(())
    }

    /// Bytes of a range below the end, lent from the map.
    pub(crate) fn view(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        self.viewed.store(true, Ordering::Relaxed);
        let bytes = self.file()?.view(range.start, length)?;
        if bytes.len() == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Bytes of a range, read and not mapped.
    pub(crate) fn copy(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let read = self.file()?.read_at(&mut bytes, range.start)?;
        if read == length { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Closes the file of a clean segment; the next use opens it again.
    pub(crate) fn close_if_clean(&self) -> bool {
        let mut slot = self.file.lock();
        let clean = self.is_named() && self.synced() >= self.end();
        if clean && let Some(file) = slot.take() {
            self.lost.fetch_or(file.lost(), Ordering::AcqRel);
        }
        clean
    }

    /// Whether the file was needed since the last time this was asked.
    pub(crate) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Gives the map of its file back; whoever reads next maps it again.
    pub(crate) fn unmap(&self) {
        // Outside the lock: appends need it, and giving back many pages takes a while.
        let file = self.file.lock().clone();
        if let Some(file) = file {
            file.unmap();
        }
    }

    /// The same if nobody read through it since the last time this was called: a server that was read from once does not
    /// hold all of it for ever.
    pub(crate) fn unmap_if_at_rest(&self) {
        if !self.viewed.swap(false, Ordering::Relaxed) {
            self.unmap();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.lock().is_some()
    }
}
