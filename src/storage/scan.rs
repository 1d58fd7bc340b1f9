//! Walking the batches of a segment by their headers.
//!
//! A header's crc covers its partition, its offset and the length of the batch, so a walk cannot leave the
//! road without noticing. Payloads are not touched: [`Found::verify`] does that.

use std::{io, ops::Range};

use annals_wire::header::{BATCH_PREFIX_LEN, BatchHeader, decode, verify_header};
use bytes::Bytes;

use super::{
    mutant::{Mutant, planted},
    segment::Segment,
};

/// Bytes looked at together; more than the largest batch. Where the file is mapped this costs nothing.
const WINDOW: u64 = 4 * 1024 * 1024;

/// A batch in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    /// The whole batch, tag and length included.
    pub(crate) bytes: Bytes,
}

impl Found {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.position..self.end()
    }

    /// Offset after the batch.
    pub(crate) fn next_offset(&self) -> i64 {
        self.header.next_offset().expect("a scan stops at a header with an impossible offset")
    }

    /// Whether the payload is what the header says.
    pub(crate) fn verify(&self) -> bool {
        self.bytes
            .get(BATCH_PREFIX_LEN..)
            .is_some_and(|payload| crc32fast::hash(payload) == self.header.records_crc32)
    }
}

/// Why a scan stopped before its end.
#[derive(Debug)]
pub(crate) enum ScanError {
    /// No batch of this partition begins at the position, or it reaches beyond the end.
    NotABatch(u64),
    /// The operating system refused.
    Io(io::Error),
}

impl From<ScanError> for io::Error {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Io(error) => error,
            ScanError::NotABatch(at) => {
                Self::new(io::ErrorKind::InvalidData, format!("no batch at byte {at}"))
            }
        }
    }
}

/// The batches of a segment from a position on, in order, up to an end that must fall between two.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    window: Bytes,
    window_start: u64,
    next: u64,
    end: u64,
    done: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(segment: &'a Segment, from: u64, end: u64) -> Self {
        Self { segment, window: Bytes::new(), window_start: from, next: from, end, done: false }
    }

    /// `length` bytes at `next`, or as many as there are before the end.
    fn look(&mut self, length: u64) -> io::Result<(usize, usize)> {
        let until = (self.next + length).min(self.end);
        if self.next < self.window_start || until > self.window_start + self.window.len() as u64 {
            let window_end = (self.next + WINDOW.max(length)).min(self.end);
            self.window = self.segment.view(self.next..window_end)?;
            self.window_start = self.next;
        }
        let at = |position| usize::try_from(position - self.window_start).map_err(io::Error::other);
        Ok((at(self.next)?, at(until)?))
    }

    fn step(&mut self) -> Result<Found, ScanError> {
        let not = ScanError::NotABatch(self.next);
        let (from, to) = self.look(BATCH_PREFIX_LEN as u64).map_err(ScanError::Io)?;
        let key = self.segment.key;
        let prefix = self.window.get(from..to).unwrap_or_default();
        let decoded = if planted(Mutant::HeaderCrcUnchecked) {
            decode(prefix)
        } else {
            verify_header(prefix, &key.topic, key.partition)
        };
        let Ok(decoded) = decoded else { return Err(not) };
        let (header, length) = (decoded.header, decoded.batch_len);
        if header.next_offset().is_none() || length as u64 > self.end - self.next {
            return Err(not);
        }
        let (from, to) = self.look(length as u64).map_err(ScanError::Io)?;
        Ok(Found { position: self.next, header, bytes: self.window.slice(from..to) })
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Found, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done || self.next >= self.end {
            return None;
        }
        let found = self.step();
        match &found {
            Ok(found) => self.next = found.end(),
            Err(_) => self.done = true,
        }
        Some(found)
    }
}
