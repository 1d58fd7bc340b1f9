//! A read of one partition that leaves something out: what a filter lets through, or what lies before an end, as batches of their
//! own, and how far was looked.
//!
//! 1. The records are exactly those an unfiltered read would bring and the filter admits, with the same bytes and offsets.
//! 2. Whether or not anything matches, `next_offset` says how far was looked: from there to `start_offset` nothing that the
//!    filter admits was left out.
//! 3. One read looks at [`LOOK_BYTES`] of the log, and one batch more: whoever goes on gives the others their turn in between.
//! 4. With one key named, an index says where it may be, and the rest is passed over unread: damage there is not met.
//! 5. A batch that matches as a whole is lent as it is stored, packed or not; runs of records that are large are lent, too, small
//!    ones copied behind their headers, so that an answer is made of few pieces.

use std::ops::Range;

use annals_wire::{
    limits::MAX_GAPS_PER_SLICE,
    pick::{Looks, Part, Picked, pick},
    trim::TrimError,
    v1::Codec,
};
use bytes::{Bytes, BytesMut};

use super::{
    Error, Few, Filter, Slice,
    catalog::{Lane, Topic},
    read::{Batch, Damage, ReadRules, empty, merge, read_error, split_batch, standing, stored, unpack},
};
use crate::storage::{Gap, Places, Read, ReadError, Runs};

/// Bytes of the log that one read looks at.
pub(crate) const LOOK_BYTES: usize = 4 << 20;
/// Bytes that are asked of the storage at a time.
const STEP_BYTES: usize = 1 << 20;
/// Runs of at least so many bytes are lent instead of copied.
const LEND_BYTES: usize = 16 << 10;
/// What a batch counts for that is looked at from an anchor on.
const ANCHORED: usize = 16 << 10;
/// Places asked of the index of keys at a time.
const PLACES: usize = 1024;
/// Of fewer offsets, batches are read one by one: the rest of a step would be read for nothing.
const MANY: i64 = 4096;

/// Reads at most `max_bytes`, unless the first batch alone is larger. An empty slice whose `next_offset` has not moved = the
/// offset is the high watermark.
pub(crate) fn sift(
    topic: &Topic,
    lane: &Lane,
    from: i64,
    max_bytes: usize,
    rules: &ReadRules,
) -> Result<Slice, Error> {
    standing(topic, lane, from)?;
    let run = || {
        let mut sieve = Sieve {
            lane,
            rules,
            filter: rules.filter.as_deref(),
            until: rules.until.unwrap_or(i64::MAX),
            budget: max_bytes,
            next_offset: from,
            looked_at: 0,
            bytes: 0,
            small: BytesMut::new(),
            gaps: Vec::new(),
            out: Runs::new(),
        };
        (sieve.run(), sieve)
    };
    let (mut ended, mut sieve) = run();
    if lane.partition.has_lost(&(from..sieve.next_offset.max(from + 1))) {
        // Zeros that stood for what the disk did not give may have been taken for records. The second time nothing is mapped.
        (ended, sieve) = run();
    }
    match ended {
        Err(error) if sieve.next_offset == from => return Err(error.of(topic, lane, from)),
        // What was found before an error is good; the next read begins with it.
        _ => sieve.close(),
    }
    let Sieve { next_offset, looked_at, gaps, out: batches, .. } = sieve;
    Ok(Slice { next_offset, gaps, looked_at, batches, ..empty(topic, lane, from) })
}

/// Why it cannot go on.
enum Stopped {
    Read(ReadError),
    Damage(Damage),
}

impl Stopped {
    fn of(self, topic: &Topic, lane: &Lane, from: i64) -> Error {
        match self {
            Self::Read(error) => read_error(topic, lane, from, error),
            Self::Damage(damage) => damage.at(topic, lane),
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Go {
    On,
    /// There is enough.
    Full,
    /// There is no more.
    End,
}

struct Sieve<'a> {
    lane: &'a Lane,
    rules: &'a ReadRules,
    filter: Option<&'a Filter>,
    until: i64,
    budget: usize,
    next_offset: i64,
    looked_at: usize,
    /// Of the batches taken.
    bytes: usize,
    /// Batches copied since the last one that was lent.
    small: BytesMut,
    gaps: Vec<Gap>,
    out: Runs,
}

impl Sieve<'_> {
    fn run(&mut self) -> Result<(), Stopped> {
        loop {
            let places = self.places();
            if places.until <= self.next_offset {
                return Ok(());
            }
            for (index, place) in places.ranges.iter().enumerate() {
                self.next_offset = self.next_offset.max(place.start);
                while self.next_offset < place.end {
                    let few = place.end - self.next_offset < MANY;
                    let looks = Looks {
                        places: places.ranges.get(index..).unwrap_or_default(),
                        anchors: &places.anchors,
                        // The storage lends what it wrote or verified; a batch for a record or two is not summed up again.
                        verified: few && self.filter.is_some_and(|filter| filter.key().is_some()),
                    };
                    if self.looked_at >= LOOK_BYTES || self.step(looks, few, places.until)? != Go::On {
                        return Ok(());
                    }
                }
            }
            self.next_offset = self.next_offset.max(places.until);
            if self.looked_at >= LOOK_BYTES {
                return Ok(());
            }
        }
    }

    /// Where to look.
    fn places(&mut self) -> Places {
        let partition = &self.lane.partition;
        if let Some(key) = self.filter.and_then(Filter::key) {
            let mut places = partition.places(key, self.next_offset, PLACES);
            self.looked_at += places.read;
            places.end_at(self.until);
            return places;
        }
        let until = partition.high_watermark().min(self.until);
        Places {
            ranges: std::iter::once(self.next_offset..until).collect(),
            until,
            anchors: Vec::new(),
            read: 0,
        }
    }

    /// Reads on, in the first of these places; of few offsets, a batch. Nothing is known of what lies at `until` or behind it.
    fn step(&mut self, looks: Looks<'_>, few: bool, until: i64) -> Result<Go, Stopped> {
        let mut bytes = if few { 1 } else { STEP_BYTES };
        let read = stored(self.lane, self.next_offset, &mut bytes, self.rules.skip_damaged);
        self.take(read.map_err(Stopped::Read)?, looks, few, until).map_err(Stopped::Damage)
    }

    fn take(&mut self, read: Read, looks: Looks<'_>, few: bool, until: i64) -> Result<Go, Damage> {
        let until = read.next_offset.min(until);
        if until <= self.next_offset {
            return Ok(Go::End);
        }
        if !self.gaps.is_empty() && self.gaps.len() + read.gaps.len() > MAX_GAPS_PER_SLICE {
            return Ok(Go::Full);
        }
        let mut go = Go::On;
        'all: for mut run in read.batches {
            while !run.is_empty() {
                let batch = split_batch(&mut run, self.next_offset)?;
                if batch.header.base_offset >= until {
                    break 'all;
                }
                // What lies before an anchor is not looked at.
                let anchored = few && !looks.anchors.is_empty();
                self.looked_at += if anchored { batch.bytes.len().min(ANCHORED) } else { batch.bytes.len() };
                if !self.batch(&batch, looks)? {
                    go = Go::Full;
                    break 'all;
                }
                self.next_offset = batch.header.next_offset().unwrap_or(until).min(until);
            }
        }
        if go == Go::On {
            self.next_offset = until;
        }
        let next_offset = self.next_offset;
        self.gaps.extend(read.gaps.into_iter().filter(|gap| gap.first < next_offset));
        merge(&mut self.gaps);
        Ok(go)
    }

    /// Takes what is wanted of a batch; false = it would be too much, and `next_offset` is where to go on.
    fn batch(&mut self, batch: &Batch, looks: Looks<'_>) -> Result<bool, Damage> {
        let next = batch.header.next_offset().unwrap_or(i64::MAX);
        let accepted = self.rules.accept.accepts(batch.header.attributes);
        if self.filter.is_none()
            && batch.header.base_offset >= self.next_offset
            && next <= self.until
            && accepted
        {
            return Ok(self.put(batch.header.base_offset, &[], std::slice::from_ref(&batch.bytes)));
        }
        let unpacked = if batch.header.attributes.codec() == Some(Codec::Unspecified) {
            None
        } else {
            let plain = unpack(self.lane, batch)?;
            self.looked_at += plain.payload.len();
            Some(plain)
        };
        let (header, payload) = match &unpacked {
            Some(plain) => (plain.header, plain.payload.clone()),
            None => (batch.header, batch.payload()),
        };
        let (key, from) = (self.lane.partition.key(), self.next_offset);
        let pick = |looks| {
            pick(&header, &payload, &key.topic, key.partition, looks, |record| {
                record.offset >= from && self.filter.is_none_or(|filter| filter.admits(record))
            })
        };
        let mut picked = pick(looks);
        if picked == Err(TrimError::Astray) {
            self.lane.partition.doubt_keys(header.base_offset);
            picked = pick(Looks { anchors: &[], verified: false, ..looks });
        }
        match (picked.map_err(|_| batch.damage())?, unpacked) {
            (Picked::Whole, Some(plain)) if !accepted => {
                Ok(self.put(header.base_offset, &plain.prefix, &[plain.payload]))
            }
            (Picked::Whole, _) => Ok(self.put(header.base_offset, &[], std::slice::from_ref(&batch.bytes))),
            (Picked::Parts(parts), _) => Ok(parts.iter().all(|part| self.part(part, &payload))),
        }
    }

    fn part(&mut self, part: &Part, payload: &Bytes) -> bool {
        let cut = |range: &Range<usize>| payload.slice(range.clone());
        let records: Few<Bytes> = part.records.iter().map(cut).collect();
        self.put(part.first_offset, &part.prefix, &records)
    }

    /// Puts a batch behind the others; false = it would be too much.
    fn put(&mut self, first_offset: i64, prefix: &[u8], records: &[Bytes]) -> bool {
        let len = prefix.len() + records.iter().map(Bytes::len).sum::<usize>();
        if self.bytes > 0 && self.bytes + len > self.budget {
            self.next_offset = self.next_offset.max(first_offset);
            return false;
        }
        self.bytes += len;
        self.small.extend_from_slice(prefix);
        for run in records {
            if run.len() < LEND_BYTES {
                self.small.extend_from_slice(run);
            } else {
                self.close();
                self.out.push(run.clone());
            }
        }
        true
    }

    /// Ends the piece of what was copied.
    fn close(&mut self) {
        if !self.small.is_empty() {
            self.out.push(self.small.split().freeze());
        }
    }
}
