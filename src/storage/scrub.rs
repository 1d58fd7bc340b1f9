//! The scrubber: sealed segments are read again, all of them, slowly and for ever, so that a bit that rots is found
//! before a reader needs it and while there may still be a backup.
//!
//! 1. One step reads a little; whoever calls it decides how fast ([`Options::scrub_bytes_per_second`]). The place is
//!    kept between steps: partition by partition, segment by segment, round and round.
//! 2. It reads by calls, not through maps: a disk that does not read answers with an error, and no reader's pages are touched.
//!    What the page cache still holds is verified there; the disk behind it comes when that is gone.
//! 3. What it finds is noted, counted and served as damage, as if a reader had met it; nothing is changed or fenced.
//! 4. When it is through it rests until [`PAUSE`] after it began. A directory without sealed segments costs one look a pause.
//!
//! [`Options::scrub_bytes_per_second`]: super::Options::scrub_bytes_per_second

use std::{sync::Arc, time::Duration};

use super::{
    mutant::{Mutant, planted},
    partition::Partition,
    read::Reader,
    segment::{DATA_START, Segment},
    storage::Storage,
};
use crate::metrics;

/// From the beginning of one pass to the beginning of the next, unless it takes longer.
pub(crate) const PAUSE: Duration = Duration::from_secs(3600);

/// Where the scrubber is.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    /// None: between two passes.
    at: Option<Place>,
    /// When the next pass may begin, on the monotonic clock.
    next_pass: Duration,
}

#[derive(Debug)]
struct Place {
    partition: Arc<Partition>,
    /// Offset that is looked at next.
    next_offset: i64,
    /// Where that is in its segment; 0: at the beginning of it.
    position: u64,
}

impl Storage {
    /// Verifies about `bytes` more of the sealed segments, at least one batch. Returns how many were read; 0 = the
    /// scrubber is through and rests.
    pub fn scrub_step(&self, bytes: u64) -> u64 {
        let mut scrub = self.scrub().lock();
        if scrub.at.is_none() {
            let now = self.clock().monotonic();
            if now < scrub.next_pass {
                return 0;
            }
            scrub.next_pass = now + PAUSE;
            scrub.at = self.next_partition(None).map(begin);
        }
        while let Some(place) = &mut scrub.at {
            let read = place.step(bytes);
            if read > 0 {
                metrics::scrubbed(read);
                return read;
            }
            let next = self.next_partition(Some(place.partition.key())).map(begin);
            if next.is_none() {
                metrics::scrub_pass();
            }
            scrub.at = next;
        }
        0
    }
}

fn begin(partition: Arc<Partition>) -> Place {
    let next_offset = partition.bounds().log_start;
    Place { partition, next_offset, position: 0 }
}

impl Place {
    /// Reads on in this partition; 0 = it is done.
    fn step(&mut self, bytes: u64) -> u64 {
        let mut read = 0;
        while read == 0 && !self.partition.is_removed() {
            let segments = self.partition.segments();
            let sealed = segments.windows(2).find_map(|pair| {
                let [segment, next] = pair else { return None };
                (next.base > self.next_offset).then(|| (Arc::clone(segment), next.base))
            });
            let Some((segment, until)) = sealed else { return 0 };
            let was_open = segment.is_open();
            read = self.look(&segment, until, bytes);
            if !was_open {
                segment.close_if_clean();
            }
        }
        read
    }

    /// Verifies on in a segment that ends before offset `until`.
    fn look(&mut self, segment: &Segment, until: i64, bytes: u64) -> u64 {
        let from = self.position.max(DATA_START);
        let most = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut reader = Reader::looking(&self.partition, from, self.next_offset, most);
        let through = match segment.resolve(until) {
            Ok(()) if planted(Mutant::ScrubIgnored) => {
                reader.position = segment.end();
                Ok(true)
            }
            Ok(()) => reader.batches(segment, until),
            Err(error) => reader.unreadable(error, until),
        };
        if !reader.out.gaps.is_empty() {
            // A reader must not be given what was good once.
            segment.forget_good();
        }
        let read = reader.position.saturating_sub(from);
        match through {
            // There is more in this segment.
            Ok(false) => (self.next_offset, self.position) = (reader.out.next_offset, reader.position),
            Ok(true) => (self.next_offset, self.position) = (until, 0),
            Err(error) => {
                tracing::debug!(?error, segment = segment.id().path(), "not scrubbed this time");
                (self.next_offset, self.position) = (until, 0);
            }
        }
        read
    }
}
