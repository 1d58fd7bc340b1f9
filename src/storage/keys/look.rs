//! Where in a partition a key may be.

use std::ops::Range;

use annals_wire::pick::Anchor;

use super::{Found, HEADER_LEN, Head, directory_len, fingerprint};
use crate::storage::{
    disk::{Access, File},
    partition::Partition,
    segment::{KeyHints, Segment},
};

/// Where records of a key may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Offsets, rising and apart from each other. Records of the key lie nowhere else before `until`.
    pub ranges: Vec<Range<i64>>,
    /// Nothing is said about offsets from here on.
    pub until: i64,
    /// Where some records near those places begin, rising.
    pub anchors: Vec<Anchor>,
    /// Bytes read to find this out.
    pub read: usize,
}

impl Places {
    /// Nothing is said about this offset and those behind it.
    pub fn end_at(&mut self, until: i64) {
        self.until = self.until.min(until);
        self.ranges.retain(|range| range.start < until);
        if let Some(last) = self.ranges.last_mut() {
            last.end = last.end.min(until);
        }
    }
}

impl Partition {
    /// Where from an offset on records of a key may lie: about `most` ranges, or what lies before a segment that has no index. Of
    /// such a segment all offsets are told, as one range. Says nothing at or above the high watermark.
    pub fn places(&self, key: &[u8], from: i64, most: usize) -> Places {
        let high_watermark = self.high_watermark();
        let mut places = Places { ranges: Vec::new(), until: from, anchors: Vec::new(), read: 0 };
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let next_base = segments.get(index + 1).map(|next| next.base);
            let end = next_base.unwrap_or(high_watermark).min(high_watermark);
            let rest = from.max(segment.base)..end;
            if rest.is_empty() {
                continue;
            }
            let found =
                next_base.and_then(|next_base| segment.look_up(key, next_base, &rest, most, &mut places));
            let scanned = matches!(found, None | Some(Found::Everywhere));
            if scanned {
                places.ranges.push(rest.clone());
            }
            places.until = rest.end;
            if scanned || places.ranges.len() >= most {
                break;
            }
        }
        if let Some(last) = places.ranges.get(most.saturating_sub(1)).filter(|_| places.ranges.len() > most) {
            places.until = last.end;
            places.ranges.truncate(most);
        }
        places
    }
}

impl Partition {
    /// The index of keys of the segment that holds this offset led astray.
    pub fn doubt_keys(&self, offset: i64) {
        let segments = self.segments();
        let at = segments.partition_point(|segment| segment.base <= offset);
        if let Some(segment) = at.checked_sub(1).and_then(|at| segments.get(at)) {
            segment.doubt_keys();
        }
    }

    /// Bytes of a segment that holds some of these offsets went missing while it was mapped: what was read of them may have
    /// been zeros.
    pub fn has_lost(&self, offsets: &Range<i64>) -> bool {
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.base <= offsets.start).saturating_sub(1);
        segments
            .iter()
            .skip(first)
            .take_while(|segment| segment.base < offsets.end)
            .any(|segment| segment.is_lost())
    }
}

/// A range of offsets less the base as offsets, as far as they lie in `rest`.
fn clip(range: &Range<u64>, base: i64, rest: &Range<i64>) -> Range<i64> {
    let offset = |relative: u64| base.saturating_add_unsigned(relative).clamp(rest.start, rest.end);
    offset(range.start)..offset(range.end)
}

impl Segment {
    /// Adds what the index of a sealed segment says about a key in `rest`; `None`: it has none that leaves no doubt.
    fn look_up(
        &self,
        key: &[u8],
        next_base: i64,
        rest: &Range<i64>,
        most: usize,
        places: &mut Places,
    ) -> Option<Found> {
        if self.key_hints() != KeyHints::Fine {
            return None;
        }
        self.resolve(next_base).ok()?;
        let file = self.disk.open(&self.keys_path(), Access::Read).ok()?;
        let found = self.footer().and_then(|summary| {
            let mut look = Look { file: &*file, read: 0 };
            let found = self.look_into(&mut look, key, summary.file_crc32, rest, most, places);
            places.read += look.read;
            found
        });
        if found.is_none() {
            self.doubt_keys();
        }
        found
    }

    /// The index of its keys led astray: it is made again.
    fn doubt_keys(&self) {
        tracing::debug!(file = self.keys_path(), "an index of keys that does not hold; it is made again");
        self.set_key_hints(KeyHints::Doubted);
    }

    fn look_into(
        &self,
        look: &mut Look<'_>,
        key: &[u8],
        file_crc32: u32,
        rest: &Range<i64>,
        most: usize,
        places: &mut Places,
    ) -> Option<Found> {
        let mut head = look.bytes(0..HEADER_LEN as u64)?;
        let length = directory_len(&head)?;
        head.extend(look.bytes(HEADER_LEN as u64..(HEADER_LEN + length) as u64)?);
        let partition = self.owner_bytes();
        let head = Head::read(&head, self.key_subject(&partition, file_crc32))?;
        let fingerprint = fingerprint(key);
        let Some((place, first)) = head.block_of(fingerprint) else { return Some(Found::Nowhere) };
        let block = look.bytes(place)?;
        let found = head.find(&block, first, fingerprint)?;
        if let Found::Ranges(ranges) = &found {
            let clipped =
                ranges.iter().map(|range| clip(range, self.base, rest)).filter(|range| !range.is_empty());
            let ranges: Vec<_> = clipped.take((most + 1).saturating_sub(places.ranges.len())).collect();
            places.anchors.extend(self.anchors(look, &head, &ranges)?);
            places.ranges.extend(ranges);
        }
        Some(found)
    }

    /// The anchors before each of these ranges, and those behind them that a walk from there arrives at.
    fn anchors(&self, look: &mut Look<'_>, head: &Head, ranges: &[Range<i64>]) -> Option<Vec<Anchor>> {
        let mut anchors: Vec<Anchor> = Vec::new();
        let mut run = AnchorRun::default();
        for range in ranges {
            let relative = u64::try_from(range.start - self.base).ok()?;
            if !run.offsets.contains(&relative) {
                let Some((place, offsets)) = head.anchors_of(relative) else { break };
                let bytes = look.bytes(place)?;
                run = AnchorRun { anchors: head.anchors(&bytes, offsets.start)?.collect(), offsets };
            }
            let behind = run.anchors.partition_point(|anchor| anchor.0 <= relative);
            for (relative, at) in run.anchors.iter().skip(behind.saturating_sub(1)).take(2) {
                let offset = self.base.saturating_add_unsigned(*relative);
                if anchors.last().is_none_or(|last| last.offset < offset) {
                    anchors.push(Anchor { offset, at: *at });
                }
            }
        }
        Some(anchors)
    }
}

/// Anchors that are checked together: offsets less the base, and places.
#[derive(Default)]
struct AnchorRun {
    anchors: Vec<(u64, u32)>,
    /// All that they speak of.
    offsets: Range<u64>,
}

/// A file that is looked into.
struct Look<'a> {
    file: &'a dyn File,
    /// Bytes read.
    read: usize,
}

impl Look<'_> {
    fn bytes(&mut self, place: Range<u64>) -> Option<Vec<u8>> {
        if place.end > self.file.len().ok()? {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(place.end - place.start).ok()?];
        self.read += bytes.len();
        (self.file.read_at(&mut bytes, place.start).ok()? == bytes.len()).then_some(bytes)
    }
}
