//! Where in a partition a key may be.

use std::ops::Range;

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
    /// Bytes read to find this out.
    pub read: usize,
}

impl Partition {
    /// Where from an offset on records of a key may lie: about `most` ranges, or what lies before a segment that has no index. Of
    /// such a segment all offsets are told, as one range. Says nothing at or above the high watermark.
    pub fn places(&self, key: &[u8], from: i64, most: usize) -> Places {
        let high_watermark = self.high_watermark();
        let mut places = Places { ranges: Vec::new(), until: from, read: 0 };
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        for (index, segment) in segments.iter().enumerate().skip(first) {
            let next_base = segments.get(index + 1).map(|next| next.base);
            let end = next_base.unwrap_or(high_watermark).min(high_watermark);
            let rest = from.max(segment.base)..end;
            if rest.is_empty() {
                continue;
            }
            let found = next_base.and_then(|next_base| segment.look_up(key, next_base, &mut places.read));
            let scanned = matches!(found, None | Some(Found::Everywhere));
            match found {
                None | Some(Found::Everywhere) => places.ranges.push(rest.clone()),
                Some(Found::Nowhere) => {}
                Some(Found::Ranges(ranges)) => {
                    let ranges = ranges.iter().map(|range| clip(range, segment.base, &rest));
                    places.ranges.extend(ranges.filter(|range| !range.is_empty()));
                }
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

/// A range of offsets less the base as offsets, as far as they lie in `rest`.
fn clip(range: &Range<u64>, base: i64, rest: &Range<i64>) -> Range<i64> {
    let offset = |relative: u64| base.saturating_add_unsigned(relative).clamp(rest.start, rest.end);
    offset(range.start)..offset(range.end)
}

impl Segment {
    /// What the index of a sealed segment says about a key; `None`: it has none that leaves no doubt.
    fn look_up(&self, key: &[u8], next_base: i64, read: &mut usize) -> Option<Found> {
        if self.key_hints() != KeyHints::Fine {
            return None;
        }
        self.resolve(next_base).ok()?;
        let file = self.disk.open(&self.keys_path(), Access::Read).ok()?;
        let found = self.footer().and_then(|summary| self.look_into(&*file, key, summary.file_crc32, read));
        if found.is_none() {
            tracing::debug!(file = self.keys_path(), "an index of keys that does not hold; it is made again");
            self.set_key_hints(KeyHints::Doubted);
        }
        found
    }

    fn look_into(&self, file: &dyn File, key: &[u8], file_crc32: u32, read: &mut usize) -> Option<Found> {
        let mut bytes = |from: u64, length: usize| {
            let mut bytes = vec![0; length];
            *read += length;
            (file.read_at(&mut bytes, from).ok()? == length).then_some(bytes)
        };
        let mut head = bytes(0, HEADER_LEN)?;
        let length = directory_len(&head)?;
        if (HEADER_LEN + length) as u64 > file.len().ok()? {
            return None;
        }
        head.extend(bytes(HEADER_LEN as u64, length)?);
        let partition = self.owner_bytes();
        let head = Head::read(&head, self.key_subject(&partition, file_crc32))?;
        let fingerprint = fingerprint(key);
        let Some((place, first)) = head.block_of(fingerprint) else { return Some(Found::Nowhere) };
        if place.end > file.len().ok()? {
            return None;
        }
        let block = bytes(place.start, usize::try_from(place.end - place.start).ok()?)?;
        head.find(&block, first, fingerprint)
    }
}
