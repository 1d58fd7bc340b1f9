//! What is printed: records into a buffer, the buffer out in large pieces.

use annals_client::{Records, v1::GapReason};

use super::Consume;
use crate::cli::{
    exit::Failure,
    format::{Format, Printer, View},
    out::{Out, Reader, talk},
    progress::Progress,
};

/// Output is written in pieces of this size, or when nothing more is at hand.
const PIECE: usize = 1 << 20;

/// Records on their way out.
pub(super) struct Sheet {
    out: Out,
    printer: Printer,
    progress: Progress,
    buffer: Vec<u8>,
    /// Records still to print.
    left: u64,
}

impl Sheet {
    /// `total`: records there are, where that is known.
    pub(super) fn new(args: &Consume, total: Option<u64>) -> Self {
        let out = Out::new();
        let format = Format::choose(args.format.as_ref(), out.terminal);
        let left = args.count.unwrap_or(u64::MAX);
        let mut sheet = Self {
            out,
            printer: Printer::new(format, out.colour, out.width()),
            // A bar between printed lines would be in the way.
            progress: Progress::records(total.filter(|_| !out.terminal).map(|total| total.min(left))),
            buffer: Vec::with_capacity(PIECE + PIECE / 4),
            left,
        };
        sheet.printer.title(&mut sheet.buffer);
        sheet
    }

    /// As many records are printed as were asked for.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// There is enough to be written.
    pub(super) fn is_due(&self) -> bool {
        self.buffer.len() >= PIECE
    }

    /// Prints the records of the offsets `from..end` into the buffer, as far as the count goes. Returns the
    /// offset before which everything is printed.
    pub(super) fn print(&mut self, records: &Records, from: i64, end: i64) -> Result<i64, Failure> {
        for gap in records.gaps() {
            talk(format_args!(
                "warning: {}[{}] offsets {} to {} are {}",
                records.topic(),
                records.partition(),
                gap.first_offset,
                gap.last_offset,
                gap_reason(gap.reason())
            ));
        }
        let mut next_offset = records.next_offset().min(end);
        let mut printed = 0;
        'all: for batch in records.batches() {
            for record in batch?.records() {
                let record = record?;
                if record.offset >= end {
                    break 'all;
                }
                if record.offset < from {
                    continue;
                }
                if self.left == 0 {
                    next_offset = record.offset;
                    break 'all;
                }
                self.printer.record(
                    &mut self.buffer,
                    &View {
                        topic: records.topic(),
                        partition: records.partition(),
                        offset: record.offset,
                        timestamp_ms: record.timestamp_ms,
                        key: record.key,
                        value: record.value,
                        headers: record.headers(),
                    },
                );
                self.left -= 1;
                printed += 1;
            }
        }
        self.progress.add(printed);
        Ok(next_offset)
    }

    /// Writes what is in the buffer.
    pub(super) fn flush(&mut self) -> Result<Reader, Failure> {
        if self.buffer.is_empty() {
            return Ok(Reader::Here);
        }
        let reader = self.out.write(&self.buffer)?;
        self.buffer.clear();
        Ok(reader)
    }

    /// Nothing more is printed: the bar goes.
    pub(super) fn end(&mut self) {
        self.progress.clear();
    }
}

fn gap_reason(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Damaged => "damaged",
        GapReason::Removed => "removed",
        GapReason::Lost => "lost in a power cut",
        GapReason::Unspecified => "missing",
    }
}
