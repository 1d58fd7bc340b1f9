//! The records of a batch.

use crate::fields::{Fields, NotFields, Value, low_u32};
use crate::header::BatchHeader;
use crate::slice::SliceError;
use crate::walk::RECORD_TAG;

const KEY_TAG: u8 = 0x0A;
const VALUE_TAG: u8 = 0x12;

/// The records of a plain batch, in offset order. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: &'a BatchHeader,
    fields: Fields<'a>,
    index: u32,
    count: u32,
}

impl<'a> Records<'a> {
    pub(super) fn new(header: &'a BatchHeader, payload: &'a [u8]) -> Self {
        Self { header, fields: Fields::new(payload), index: 0, count: header.record_count }
    }

    pub(super) fn none(header: &'a BatchHeader) -> Self {
        Self { header, fields: Fields::new(&[]), index: 0, count: 0 }
    }

    /// The next record; `Ok(None)` if the payload ends where the header says.
    #[inline]
    fn read(&mut self) -> Result<Option<RecordRef<'a>>, NotFields> {
        let body = match self.fields.take(RECORD_TAG) {
            Some(body) => body,
            None => match self.fields.next()? {
                Some((15, Value::Bytes(body))) => body,
                Some(_) => return Err(NotFields),
                None => return if self.index == self.count { Ok(None) } else { Err(NotFields) },
            },
        };
        let record = RecordRef::parse(body, self.header, self.index)?;
        self.index = self.index.saturating_add(1);
        Ok(Some(record))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, SliceError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose().map(|read| {
            read.map_err(|NotFields| {
                self.fields = Fields::new(&[]);
                self.index = self.count;
                SliceError::Malformed("Record")
            })
        })
    }
}

/// A record in the memory of its batch. To keep a part of it longer: [`crate::slice::Batch::share`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970: the producer's, or the time of append where the producer gave none.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; none = tombstone.
    pub value: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// Reads a record, the `index`-th of its batch.
    #[inline]
    pub(crate) fn parse(body: &'a [u8], header: &BatchHeader, index: u32) -> Result<Self, NotFields> {
        let mut out = Self { offset: 0, timestamp_ms: 0, key: None, value: None, body };
        let mut delta = index;
        let mut fields = Fields::new(body);
        // As every writer writes them: a key perhaps, a value perhaps. Whatever else there is, and in any order, comes after.
        out.key = fields.take(KEY_TAG);
        out.value = fields.take(VALUE_TAG);
        if fields.left() > 0 {
            out.take(fields, &mut delta)?;
        }
        if out.timestamp_ms == 0 {
            out.timestamp_ms = header.append_time_ms;
        }
        if delta > header.last_offset_delta {
            return Err(NotFields);
        }
        out.offset = header.base_offset.checked_add(i64::from(delta)).ok_or(NotFields)?;
        Ok(out)
    }

    /// Takes any fields in any order.
    fn take(&mut self, mut fields: Fields<'a>, delta: &mut u32) -> Result<(), NotFields> {
        while let Some(field) = fields.next()? {
            match field {
                (1, Value::Bytes(key)) => self.key = Some(key),
                (2, Value::Bytes(value)) => self.value = Some(value),
                (3, Value::Bytes(header)) => drop(header_of(header)?),
                (4, Value::Number(time)) => self.timestamp_ms = time.cast_signed(),
                (5, Value::Number(value)) => *delta = low_u32(value),
                (1..=7, Value::Bytes(_) | Value::Four(_) | Value::Eight(_)) | (1..=3, _) => {
                    return Err(NotFields);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Names and values of its headers, in the producer's order.
    pub fn headers(&self) -> Headers<'a> {
        Headers { fields: Fields::new(self.body) }
    }

    /// The value of the first header of that name: outer `None` if there is no such header, inner if it has no value.
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.headers().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Its bytes as a `Record` message, without tag and length.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.body
    }
}

/// Headers of a record: name, and value if it has one.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        // Every header was read once when the record was.
        while let Ok(Some(field)) = self.fields.next() {
            if let (3, Value::Bytes(header)) = field {
                return header_of(header).ok();
            }
        }
        None
    }
}

/// Name and value of a header.
fn header_of(message: &[u8]) -> Result<(&str, Option<&[u8]>), NotFields> {
    let mut header = ("", None);
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(name)) => header.0 = str::from_utf8(name).map_err(|_| NotFields)?,
            (2, Value::Bytes(value)) => header.1 = Some(value),
            (1 | 2, _) => return Err(NotFields),
            _ => {}
        }
    }
    Ok(header)
}
