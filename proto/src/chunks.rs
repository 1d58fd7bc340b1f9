//! Bytes in several pieces, as a network delivers them.
//!
//! A request body arrives in frames. Putting them together would copy every record once more, so everything that reads
//! a request reads it in pieces: a cursor walks over the seams, [`Chunks`] is a part of such a body that shares its memory.

use std::ops::{Deref, Range};

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

/// A body arrives in one piece or a few: so many are listed without a list on the heap.
const FEW: usize = 4;

/// More pieces than this are put together where pieces are added.
const MANY: usize = 64;

/// Part of a body in pieces, sharing the body's memory. No piece is empty.
#[derive(Debug, Clone, Default)]
pub struct Chunks(SmallVec<[Bytes; FEW]>);

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
    fn push_cut(&mut self, chunks: &[Bytes], range: Range<usize>) {
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

    /// Puts `more` behind these. Copied into one piece once there are so many that handing them to the system would cost
    /// more than the copy.
    pub fn append(&mut self, more: Self) {
        self.0.extend(more.0);
        if self.0.len() > MANY {
            *self = Self::from(self.to_bytes());
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
                for chunk in several {
                    out.put_slice(chunk);
                }
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
        Self((!bytes.is_empty()).then_some(bytes).into_iter().collect())
    }
}

/// A body as it arrives: large pieces are kept as they are, small ones are put together, so that a sender of tiny frames costs no
/// more than the bytes it sends.
#[derive(Debug, Default)]
pub struct Arriving {
    pieces: SmallVec<[Bytes; FEW]>,
    small: BytesMut,
    len: usize,
}

impl Arriving {
    /// Pieces below this are copied.
    const SMALL: usize = 1024;

    /// Takes the next piece.
    pub fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < Self::SMALL {
            self.small.put_slice(&piece);
        } else {
            self.settle();
            self.pieces.push(piece);
        }
    }

    /// Bytes so far.
    pub fn byte_len(&self) -> usize {
        self.len
    }

    /// All of it.
    pub fn finish(mut self) -> Chunks {
        self.settle();
        Chunks(self.pieces)
    }

    fn settle(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }
}

/// Parts of a body put one behind the other: shared while they are few, as they are in every honest body, copied once they are many, so
/// that thousands of tiny parts cost no more than their bytes.
pub(crate) struct Parts<'a> {
    body: &'a [Bytes],
    ranges: SmallVec<[Range<usize>; FEW]>,
    /// Where it copies from and to, once it copies.
    copy: Option<(Cursor<'a>, BytesMut)>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(body: &'a [Bytes]) -> Self {
        Self { body, ranges: SmallVec::new(), copy: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes the next part, which lies behind those before it. One that follows the last immediately is one with it.
    pub(crate) fn push(&mut self, range: Range<usize>) {
        if let Some((cursor, out)) = &mut self.copy {
            let _ = copy(cursor, &range, out);
            return;
        }
        if let Some(last) = self.ranges.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
            return;
        }
        if self.ranges.len() < FEW {
            self.ranges.push(range);
            return;
        }
        let (mut cursor, mut out) = (Cursor::new(self.body), BytesMut::new());
        for range in self.ranges.iter().chain([&range]) {
            let _ = copy(&mut cursor, range, &mut out);
        }
        self.copy = Some((cursor, out));
    }

    pub(crate) fn finish(self) -> Chunks {
        if let Some((_, out)) = self.copy {
            return out.freeze().into();
        }
        let mut out = Chunks::default();
        for range in self.ranges {
            out.push_cut(self.body, range);
        }
        out
    }
}

/// Copies `range`, which lies not before the cursor; `None` if it goes beyond the end.
fn copy(cursor: &mut Cursor<'_>, range: &Range<usize>, out: &mut BytesMut) -> Option<()> {
    cursor.skip(range.start.saturating_sub(cursor.pos()))?;
    cursor.pieces(range.end.saturating_sub(cursor.pos()), |piece| out.put_slice(piece))
}

/// Copies `ranges` of `chunks`, which must ascend, into one piece: the records of one partition out of a request for several.
/// What lies outside of `chunks` is left out.
pub fn gather(chunks: &[Bytes], ranges: impl IntoIterator<Item = Range<usize>>) -> Bytes {
    let mut out = BytesMut::new();
    let mut cursor = Cursor::new(chunks);
    for range in ranges {
        if copy(&mut cursor, &range, &mut out).is_none() {
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
    /// Bytes before it and after it.
    len: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(chunks: &'a [Bytes]) -> Self {
        Self { rest: &[], next: chunks.iter(), pos: 0, len: chunks.iter().map(Bytes::len).sum() }
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
        self.len - self.pos
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{any_cuts, split};
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

    #[test]
    fn tiny_pieces_are_put_together() {
        let mut arriving = Arriving::default();
        for _ in 0..100_000 {
            arriving.push(Bytes::from_static(b"x"));
        }
        let large = Bytes::from(vec![b'y'; 5000]);
        arriving.push(large.clone());
        arriving.push(Bytes::new());
        arriving.push(Bytes::from_static(b"z"));
        assert_eq!(arriving.byte_len(), 105_001);
        let chunks = arriving.finish();
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [100_000, 5000, 1]);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    proptest! {
        #[test]
        fn parts_are_their_ranges(
            bytes: Vec<u8>, cuts in any_cuts(), steps in proptest::collection::vec((0_usize..3, 0_usize..9), 0..20),
        ) {
            let chunks = split(&bytes, &cuts);
            let mut parts = Parts::new(&chunks);
            let (mut want, mut at) = (Vec::new(), 0);
            for (gap, len) in steps {
                let range = (at + gap).min(bytes.len())..(at + gap + len).min(bytes.len());
                want.extend_from_slice(&bytes[range.clone()]);
                at = range.end;
                parts.push(range);
            }
            prop_assert_eq!(parts.finish().to_bytes(), want);
        }

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
