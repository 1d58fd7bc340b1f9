//! The fields of a message held in one piece, one after the other, as a stock decoder takes them.
//!
//! For what is read, not for what is judged: any order, any width of varints (lengths up to five bytes, as no writer of ours
//! makes longer ones). Groups are refused; no message here has any, and none of our peers sends one.

use crate::varint;
use crate::walk::whole_records;

/// Bytes that are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotFields;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Varint.
    Number(u64),
    /// Fixed 64.
    Eight(u64),
    /// Fixed 32.
    Four(u32),
    /// String, bytes or message.
    Bytes(&'a [u8]),
}

/// A field number and what it holds.
pub(crate) type Field<'a> = (u32, Value<'a>);

/// Reads fields from the front of what is left.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// What the next field holds if its tag is this byte, else nothing is taken: the short way to what is nearly always there.
    #[inline]
    pub(crate) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        debug_assert!(tag & 0b111 == 2 && tag < 0x80, "the tag of bytes, in one byte");
        let (first, rest) = self.rest.split_first()?;
        if *first != tag {
            return None;
        }
        let (len, width) = varint::read_length(rest)?;
        let (bytes, rest) = rest.get(width..)?.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }

    /// Steps over the records that come next, as far as they are written as every writer writes them: field 15, and a length no
    /// longer than need be. How many bytes they are.
    pub(crate) fn skip_records(&mut self) -> usize {
        let run = whole_records(self.rest);
        self.rest = self.rest.get(run..).unwrap_or_default();
        run
    }

    /// The next field, `None` at the end. After an error nothing is left.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, NotFields> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let field = self.read();
        if field.is_none() {
            self.rest = &[];
        }
        field.map(Some).ok_or(NotFields)
    }

    #[inline]
    fn read(&mut self) -> Option<Field<'a>> {
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 0b111 {
            0 => Value::Number(self.varint()?),
            1 => Value::Eight(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(self.delimited()?),
            5 => Value::Four(u32::from_le_bytes(self.array()?)),
            _ => return None,
        };
        let number = key >> 3;
        (number != 0).then_some((number, value))
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        if let [byte @ ..=0x7F, rest @ ..] = self.rest {
            self.rest = rest;
            return Some(u64::from(*byte));
        }
        let (value, width) = varint::read(self.rest)?;
        self.rest = self.rest.get(width..)?;
        Some(value)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*array)
    }

    #[inline]
    fn delimited(&mut self) -> Option<&'a [u8]> {
        let (len, width) = varint::read_length(self.rest)?;
        let (bytes, rest) = self.rest.get(width..)?.split_at_checked(len)?;
        self.rest = rest;
        Some(bytes)
    }
}

/// The low half of a varint, as the format has it for 32-bit fields.
#[allow(clippy::cast_possible_truncation, reason = "that is what the format says")]
pub(crate) fn low_u32(value: u64) -> u32 {
    value as u32
}
