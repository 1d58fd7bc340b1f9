//! Closing a segment for good: flush, footer, flush, cut.

use std::io;

use annals_wire::segment::{SEGMENT_FOOTER_LEN, SegmentSummary};
use crc32fast::Hasher;

use super::{DATA_START, FOOTER_ROOM, Scan, Segment, Tally};
use crate::sync::Ordering;

impl Segment {
    /// Flush, footer, flush, cut. Called once the next segment is named durably; blocking.
    pub(crate) fn seal(&self) -> io::Result<()> {
        self.sync()?;
        let file = self.file()?;
        let end = self.end();
        if file.len()? == end + FOOTER_ROOM && self.footer().is_some() {
            return Ok(());
        }
        let tally = match self.tally.lock().take() {
            Some(tally) => tally,
            None => self.count_again()?,
        };
        let footer = SegmentSummary {
            batch_count: tally.batches,
            record_count: tally.records,
            last_offset: self.last_offset()?,
            last_epoch: tally.last_epoch,
            max_timestamp_ms: tally.max_timestamp_ms,
            file_crc32: tally.hasher.finalize(),
        };
        file.write_at(&[&footer.encode()], end)?;
        file.sync()?;
        file.set_len(end + FOOTER_ROOM)?;
        self.allocated.store(end + FOOTER_ROOM, Ordering::Release);
        self.load_index();
        // Hints: whoever finds none reads the segment once.
        if let Err(error) = self.write_hints() {
            tracing::debug!(%error, segment = %self.id().path(), "no index files");
        }
        Ok(())
    }

    /// The footer, if the file has a valid one right behind its data.
    pub(crate) fn footer(&self) -> Option<SegmentSummary> {
        let mut bytes = [0; SEGMENT_FOOTER_LEN];
        let read = self.file().ok()?.read_at(&mut bytes, self.end()).ok()?;
        SegmentSummary::verify(bytes.get(..read)?).ok()
    }

    fn last_offset(&self) -> io::Result<i64> {
        let from = self.index.read().last_position().unwrap_or(DATA_START);
        let mut last = self.base - 1;
        for found in Scan::new(self, from, self.end()) {
            last = found.map_err(io::Error::from)?.next_offset() - 1;
        }
        Ok(last)
    }

    fn count_again(&self) -> io::Result<Tally> {
        let mut tally =
            Tally { batches: 0, records: 0, last_epoch: 0, max_timestamp_ms: 0, hasher: Hasher::new() };
        tally.hasher.update(&self.view(0..DATA_START)?);
        for found in Scan::new(self, DATA_START, self.end()) {
            let found = found.map_err(io::Error::from)?;
            tally.batches += 1;
            tally.records += u64::from(found.header.record_count);
            tally.last_epoch = found.header.leader_epoch;
            tally.max_timestamp_ms = tally.max_timestamp_ms.max(found.header.max_timestamp_ms);
            tally.hasher.update(&found.bytes);
        }
        Ok(tally)
    }
}
