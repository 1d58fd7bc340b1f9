//! Bytes in several pieces, as a network delivers them.
//!
//! A request body arrives in frames. Putting them together would copy every record once more, so everything that reads
//! a request reads it in pieces: [`Cursor`] walks over the seams, [`Chunks`] is a part of such a body that shares its memory.

use std::ops::{Deref, Range};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Part of a body in pieces, sharing the body's memory. No piece is empty.
#[derive(Debug, Clone, Default)]
pub struct Chunks(Vec<Bytes>);

impl Chunks {
    /// All of `chunks`.
    pub fn of(chunks: &[Bytes]) -> Self {
        Self(chunks.iter().filter(|chunk| !chunk.is_empty()).cloned().collect())
    }

    /// The bytes `range` of `chunks`, as far as there are any.
    pub fn cut(chunks: &[Bytes], range: Range<usize>) -> Self {
        let mut out = Self::default();
        out.push_cut(chunks, range);
        out
    }

    /// Appends the bytes `range` of `chunks`, as far as there are any.
    pub(crate) fn push_cut(&mut self, chunks: &[Bytes], range: Range<usize>) {
        let mut begin = 0;
        for chunk in chunks {
            let end = begin + chunk.len();
            let (from, to) = (range.start.max(begin), range.end.min(end));
            if from < to {
                self.0.push(chunk.slice(from - begin..to - begin));
            }
            if range.end <= end {
                break;
            }
            begin = end;
        }
    }

    /// Bytes in all pieces together.
    pub fn byte_len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// crc32 of all pieces, one after the other.
    pub fn crc32(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for chunk in &self.0 {
            hasher.update(chunk);
        }
        hasher.finalize()
    }

    /// All of it in one piece; copies only if there are several.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            several => {
                let mut out = BytesMut::with_capacity(self.byte_len());
                several.iter().for_each(|chunk| out.put_slice(chunk));
                out.freeze()
            }
        }
    }
}

impl Deref for Chunks {
    type Target = [Bytes];

    fn deref(&self) -> &[Bytes] {
        &self.0
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        Self::of(&[bytes])
    }
}

/// Copies `ranges` of `chunks`, which must ascend, into one piece: the records of one partition out of a request for several.
/// What lies outside of `chunks` is left out.
pub fn gather(chunks: &[Bytes], ranges: impl IntoIterator<Item = Range<usize>>) -> Bytes {
    let mut out = BytesMut::new();
    let mut cursor = Cursor::new(chunks);
    for range in ranges {
        let skipped = cursor.skip(range.start.saturating_sub(cursor.pos()));
        let copied = cursor.pieces(range.end.saturating_sub(cursor.pos()), |piece| out.put_slice(piece));
        if skipped.is_none() || copied.is_none() {
            break;
        }
    }
    out.freeze()
}

/// Reads over pieces as if they were one. Nothing is read beyond the end: then the answer is `None`.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    /// What is left of the piece it stands in.
    rest: &'a [u8],
    /// The pieces after it.
    next: std::slice::Iter<'a, Bytes>,
    /// Bytes before it.
    pos: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(chunks: &'a [Bytes]) -> Self {
        Self { rest: &[], next: chunks.iter(), pos: 0 }
    }

    /// Bytes before the cursor.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// What is left of the piece it stands in; empty only at the end.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        while self.rest.is_empty() {
            match self.next.next() {
                Some(chunk) => self.rest = chunk,
                None => break,
            }
        }
        self.rest
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest().split_first()?;
        self.rest = rest;
        self.pos += 1;
        Some(byte)
    }

    /// Steps over `n` bytes; if there are fewer, to the end.
    pub(crate) fn skip(&mut self, n: usize) -> Option<()> {
        if let Some((_, rest)) = self.rest.split_at_checked(n) {
            self.rest = rest;
            self.pos += n;
            return Some(());
        }
        self.pieces(n, |_| ())
    }

    /// Hands out the next `n` bytes piece by piece; if there are fewer, those, and then `None`.
    pub(crate) fn pieces(&mut self, mut n: usize, mut each: impl FnMut(&'a [u8])) -> Option<()> {
        while n != 0 {
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            let (piece, rest) = rest.split_at_checked(n).unwrap_or((rest, &[]));
            each(piece);
            self.rest = rest;
            self.pos += piece.len();
            n -= piece.len();
        }
        Some(())
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut out = [0; N];
        let mut room = out.as_mut_slice();
        self.pieces(N, |piece| room.put_slice(piece))?;
        Some(out)
    }

    /// A varint of any width, as stock decoders take it.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut bytes = [0; 10];
        for filled in 0..10 {
            let byte = self.byte()?;
            *bytes.get_mut(filled)? = byte;
            if byte < 0x80 {
                return crate::varint::read(&bytes).map(|(value, _)| value);
            }
        }
        None
    }

    /// Bytes left, from here to the end.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.remaining() + self.next.as_slice().iter().map(Bytes::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::split;
    use proptest::prelude::*;

    #[test]
    fn the_end_is_none() {
        let chunks = split(b"abc", &[1, 0, 1]);
        let mut cursor = Cursor::new(&chunks);
        assert_eq!(cursor.array::<2>(), Some(*b"ab"));
        assert_eq!(cursor.clone().array::<2>(), None);
        assert_eq!(cursor.remaining(), 1);
        assert_eq!(cursor.skip(2), None);
        assert_eq!((cursor.pos(), cursor.byte()), (3, None));
    }

    proptest! {
        #[test]
        fn cuts_are_slices(bytes: Vec<u8>, cuts in proptest::collection::vec(0_usize..9, 0..9), from in 0_usize..99, len in 0_usize..99) {
            let chunks = split(&bytes, &cuts);
            let range = from.min(bytes.len())..(from + len).min(bytes.len());
            let cut = Chunks::cut(&chunks, range.clone());
            prop_assert_eq!(cut.to_bytes(), &bytes[range.clone()]);
            prop_assert_eq!(cut.crc32(), crc32fast::hash(&bytes[range.clone()]));
            prop_assert!(cut.iter().all(|chunk| !chunk.is_empty()));
            let middle = range.start + range.len() / 2;
            let gathered = gather(&chunks, [range.start..middle, middle..range.end]);
            prop_assert_eq!(gathered, &bytes[range]);
        }
    }
}
