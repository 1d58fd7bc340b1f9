//! What the check of a record reads from: a slice that is exactly the record, or a cursor over pieces with a limit.

use crate::chunks::Cursor;
use crate::limits::MAX_HEADER_NAME_BYTES;

/// Bytes of one record. What lies beyond its end is never read.
pub(super) trait Source {
    /// Bytes left of the record.
    fn left(&self) -> usize;

    /// The next byte, `None` at the record's end.
    fn byte(&mut self) -> Option<u8>;

    /// Steps over `n` bytes, if there are so many left.
    fn skip(&mut self, n: usize) -> Option<()>;

    /// Hands out the next `n` bytes in pieces, if there are so many left.
    fn pieces(&mut self, n: usize, each: impl FnMut(&[u8])) -> Option<()>;

    /// The next `n` bytes, at most [`MAX_HEADER_NAME_BYTES`], in one piece.
    fn name<R>(&mut self, n: usize, look: impl FnOnce(&[u8]) -> R) -> Option<R>;
}

impl Source for &[u8] {
    #[inline]
    fn left(&self) -> usize {
        self.len()
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.split_first()?;
        *self = rest;
        Some(byte)
    }

    #[inline]
    fn skip(&mut self, n: usize) -> Option<()> {
        *self = self.get(n..)?;
        Some(())
    }

    #[inline]
    fn pieces(&mut self, n: usize, mut each: impl FnMut(&[u8])) -> Option<()> {
        let (piece, rest) = self.split_at_checked(n)?;
        each(piece);
        *self = rest;
        Some(())
    }

    #[inline]
    fn name<R>(&mut self, n: usize, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let (name, rest) = self.split_at_checked(n)?;
        *self = rest;
        Some(look(name))
    }
}

/// A cursor that ends where the record ends.
pub(super) struct Limited<'c, 'a> {
    cursor: &'c mut Cursor<'a>,
    left: usize,
}

impl<'c, 'a> Limited<'c, 'a> {
    pub(super) fn new(cursor: &'c mut Cursor<'a>, left: usize) -> Self {
        Self { cursor, left }
    }

    fn take(&mut self, n: usize) -> Option<()> {
        self.left = self.left.checked_sub(n)?;
        Some(())
    }
}

impl Source for Limited<'_, '_> {
    fn left(&self) -> usize {
        self.left
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?;
        self.cursor.byte()
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n)?;
        self.cursor.skip(n)
    }

    fn pieces(&mut self, n: usize, each: impl FnMut(&[u8])) -> Option<()> {
        self.take(n)?;
        self.cursor.pieces(n, each)
    }

    fn name<R>(&mut self, n: usize, look: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut room = [0; MAX_HEADER_NAME_BYTES];
        let name = room.get_mut(..n)?;
        for place in &mut *name {
            *place = self.byte()?;
        }
        Some(look(name))
    }
}
