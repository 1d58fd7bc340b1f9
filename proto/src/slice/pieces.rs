//! The fields of a message that came in several pieces.
//!
//! A field that lies within a piece is a part of that piece. One that straddles a seam is put together when it is asked for, and
//! is all that is ever copied: of a message of large frames, a batch here and there.

use std::ops::Range;

use bytes::Bytes;

use crate::chunks::{Chunks, Cursor};
use crate::fields::{Fields, NotFields, Value};

/// What a field holds.
#[derive(Debug, Clone)]
pub(super) enum Held<'a> {
    /// A number of any kind, or bytes within one piece.
    Whole(Value<'a>),
    /// Bytes that straddle a seam, by their place in the message.
    Across(Range<usize>),
}

/// Reads fields from the front of what is left.
#[derive(Debug, Clone)]
pub(super) struct PieceFields<'a> {
    pieces: &'a [Bytes],
    cursor: Cursor<'a>,
}

impl<'a> PieceFields<'a> {
    pub(super) fn new(pieces: &'a [Bytes]) -> Self {
        Self { pieces, cursor: Cursor::new(pieces) }
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.cursor.remaining()
    }

    /// The next field, `None` at the end. After an error nothing is left.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Held<'a>)>, NotFields> {
        let rest = self.cursor.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        let mut fields = Fields::new(rest);
        if let Ok(Some((number, value))) = fields.next() {
            let read = rest.len() - fields.left();
            self.cursor.skip(read).ok_or(NotFields)?;
            return Ok(Some((number, Held::Whole(value))));
        }
        let field = self.straddling();
        if field.is_none() {
            self.cursor = Cursor::new(&[]);
        }
        field.map(Some).ok_or(NotFields)
    }

    /// A field that does not lie in one piece; `None` if there is none.
    fn straddling(&mut self) -> Option<(u32, Held<'a>)> {
        let cursor = &mut self.cursor;
        let key = u32::try_from(cursor.varint()?).ok()?;
        let held = match key & 0b111 {
            0 => Held::Whole(Value::Number(cursor.varint()?)),
            1 => Held::Whole(Value::Eight(u64::from_le_bytes(cursor.array()?))),
            2 => {
                let before = cursor.pos();
                let length = usize::try_from(cursor.varint()?).ok()?;
                let begin = cursor.pos();
                // As in one piece: lengths have at most five bytes.
                if begin - before > 5 || length > cursor.remaining() {
                    return None;
                }
                cursor.skip(length)?;
                Held::Across(begin..begin + length)
            }
            5 => Held::Whole(Value::Four(u32::from_le_bytes(cursor.array()?))),
            _ => return None,
        };
        let number = key >> 3;
        (number != 0).then_some((number, held))
    }

    /// The bytes that a field holds, in one piece: shared if they lie in one, else copied. `None` if it holds a number.
    pub(super) fn bytes(&self, held: Held<'a>) -> Option<Bytes> {
        match held {
            Held::Whole(Value::Bytes(part)) => Some(self.share(part)),
            Held::Whole(_) => None,
            Held::Across(range) => Some(Chunks::cut(self.pieces, range).to_bytes()),
        }
    }

    /// The bytes that a field holds, in pieces, shared. `None` if it holds a number.
    pub(super) fn pieces(&self, held: Held<'a>) -> Option<Chunks> {
        match held {
            Held::Whole(Value::Bytes(part)) => Some(self.share(part).into()),
            Held::Whole(_) => None,
            Held::Across(range) => Some(Chunks::cut(self.pieces, range)),
        }
    }

    fn share(&self, part: &[u8]) -> Bytes {
        let holds = |piece: &&Bytes| piece.as_ptr_range().contains(&part.as_ptr());
        match self.pieces.iter().find(holds) {
            Some(piece) => piece.slice_ref(part),
            // Nothing lies nowhere.
            None => Bytes::copy_from_slice(part),
        }
    }
}
