//! A file read from front to back in large steps, through one buffer.

use std::io;

use crate::storage::disk::File;

/// Bytes read at once: few calls, and what was read is still in the processor's cache when it is hashed.
pub(super) const WINDOW: usize = 512 * 1024;

/// Part of a file.
#[derive(Debug)]
pub(super) struct Window {
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; WINDOW], start: 0, filled: 0 }
    }

    /// Forgets the file it was over.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Bytes from a position on: at least `wanted` of them (at most [`WINDOW`]) unless the file ends before.
    pub(super) fn at(&mut self, file: &dyn File, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(WINDOW);
        let from = position.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let mut from = from.filter(|from| *from <= self.filled).unwrap_or(usize::MAX);
        if from == usize::MAX || self.filled - from < wanted {
            self.filled = 0;
            self.filled = file.read_at(&mut self.buffer, position)?;
            (self.start, from) = (position, 0);
        }
        Ok(self.buffer.get(from..self.filled).unwrap_or_default())
    }
}
