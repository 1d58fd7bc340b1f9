//! To standard output.
//!
//! What is printed is flushed before the file says that it was: killed at any moment, a replay that goes on prints some records
//! again and leaves none out.

use std::path::PathBuf;

use super::place::Place;
use crate::cli::{
    exit::Failure,
    format::{Format, Headers, Printer, View},
    out::{Out, Reader},
};

/// Output is written in pieces of this size, or when nothing more is at hand.
const PIECE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Print {
    out: Out,
    printer: Printer,
    buffer: Vec<u8>,
    file: Option<PathBuf>,
    place: Place,
}

impl Print {
    /// `begins`: nothing was printed before, as far as is known.
    pub(super) fn new(format: Option<&Format>, file: Option<PathBuf>, place: Place, begins: bool) -> Self {
        let out = Out::new();
        let printer = Printer::new(Format::choose(format, out.terminal), out.colour, out.width());
        let mut buffer = Vec::with_capacity(PIECE + PIECE / 4);
        if begins {
            printer.title(&mut buffer);
        }
        Self { out, printer, buffer, file, place }
    }

    pub(super) fn record<'a, H: Headers<'a>>(&mut self, record: &View<'a, H>) {
        self.printer.record(&mut self.buffer, record);
    }

    pub(super) fn reached(&mut self, partition: u32, next: i64) {
        if let Some(span) = self.place.spans.get_mut(&partition) {
            span.next = next;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= PIECE
    }

    pub(super) fn flush(&mut self) -> Result<Reader, Failure> {
        if !self.buffer.is_empty() && self.out.write(&self.buffer)? == Reader::Gone {
            return Ok(Reader::Gone);
        }
        self.buffer.clear();
        if let Some(file) = &self.file {
            self.place.save(file)?;
        }
        Ok(Reader::Here)
    }
}
