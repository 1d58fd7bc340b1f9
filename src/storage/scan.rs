//! Walking the batches of a segment by their headers.
//!
//! A header's crc covers its partition, its offset and the length of the batch, so a walk cannot leave the
//! road without noticing. Payloads are not touched: [`Found::verify`] does that.

use std::{io, ops::Range};

use annals_wire::header::{BATCH_PREFIX_LEN, BATCH_TAG, BatchHeader, decode, verify_header};
use bytes::Bytes;

use super::{
    mutant::{Mutant, planted},
    segment::Segment,
};

/// Bytes looked at together; more than the largest batch. Where the file is mapped this costs nothing.
const WINDOW: u64 = 4 * 1024 * 1024;
/// The same where they are copied.
const COPIED: u64 = 256 * 1024;
/// Bytes searched at a time for the next batch behind damage, and where some of them cannot be read.
const SEARCH: u64 = 1024 * 1024;
const PAGE: u64 = 4096;

/// How a scan gets at the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Through the file's map.
    Map,
    /// By calls: an error is an error, no page is mapped, nothing is lent.
    Copy,
}

impl Source {
    fn window(self) -> u64 {
        match self {
            Self::Map => WINDOW,
            Self::Copy => COPIED,
        }
    }

    fn read(self, segment: &Segment, range: Range<u64>) -> io::Result<Bytes> {
        match self {
            Self::Map => segment.view(range),
            Self::Copy => segment.copy(range),
        }
    }

    /// The first batch of the partition that begins in a range with an offset of at least `least`: its position and offset.
    /// Bytes that cannot be read hold none.
    pub(crate) fn find(self, segment: &Segment, range: Range<u64>, least: i64) -> Option<(u64, i64)> {
        let prefix = BATCH_PREFIX_LEN as u64;
        let mut from = range.start;
        while from < range.end {
            let mut step = SEARCH;
            let read = |length: u64| self.read(segment, from..(from + length).min(range.end));
            let window = read(step + prefix).or_else(|_| {
                // Page by page, and a page whose successor cannot be read by itself.
                step = PAGE - from % PAGE;
                read(step + prefix).or_else(|_| read(step))
            });
            let Ok(window) = window else {
                from += step;
                continue;
            };
            let places = window.windows(BATCH_PREFIX_LEN).zip(from..from + step);
            let found = places.into_iter().find_map(|(bytes, position)| {
                (bytes.first() == Some(&BATCH_TAG)).then_some(())?;
                let decoded = verify_header(bytes, &segment.key.topic, segment.key.partition).ok()?;
                let (offset, next) = (decoded.header.base_offset, decoded.header.next_offset()?);
                (offset >= least && next > offset).then_some((position, offset))
            });
            if found.is_some() {
                return found;
            }
            from += step;
        }
        None
    }
}

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
    /// A batch begins, but not all of its bytes can be read.
    Unreadable {
        /// Offset after it.
        next_offset: i64,
        /// Position after it.
        end: u64,
        error: io::Error,
    },
    /// The operating system refused.
    Io(io::Error),
}

impl From<ScanError> for io::Error {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Io(error) | ScanError::Unreadable { error, .. } => error,
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
    source: Source,
    window: Bytes,
    window_start: u64,
    next: u64,
    end: u64,
    done: bool,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(segment: &'a Segment, from: u64, end: u64) -> Self {
        Self::of(Source::Map, segment, from, end)
    }

    pub(crate) fn of(source: Source, segment: &'a Segment, from: u64, end: u64) -> Self {
        Self { segment, source, window: Bytes::new(), window_start: from, next: from, end, done: false }
    }

    /// `length` bytes at `next`, or as many as there are before the end.
    fn look(&mut self, length: u64) -> io::Result<(usize, usize)> {
        let until = (self.next + length).min(self.end);
        if self.next < self.window_start || until > self.window_start + self.window.len() as u64 {
            let window_end = (self.next + self.source.window().max(length)).min(self.end);
            self.window = match self.source.read(self.segment, self.next..window_end) {
                // What lies further on must not spoil what is asked for.
                Err(_) if window_end > until => self.source.read(self.segment, self.next..until)?,
                other => other?,
            };
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
        let (next_offset, end) =
            (header.base_offset + i64::from(header.last_offset_delta) + 1, self.next + length as u64);
        let (from, to) =
            self.look(length as u64).map_err(|error| ScanError::Unreadable { next_offset, end, error })?;
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
