//! Fingerprints and the granules they are in, packed: what an index is made of, and made in, so that building one takes little
//! more memory than it has.
//!
//! A list is varints: the first granule, then distances, none of them 0.

use std::cmp::Ordering;

use super::{put_varint, varint};

/// Lists by rising fingerprint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Postings {
    /// A granule is 2^`shift` offsets.
    shift: u32,
    /// A fingerprint, and where its list ends.
    ends: Vec<(u32, usize)>,
    lists: Vec<u8>,
}

impl Postings {
    /// From fingerprint (high half) and offset less the base (low half) of records; sorts them.
    pub(crate) fn of(records: &mut [u64], shift: u32) -> Self {
        records.sort_unstable();
        let mut out = Self { shift, ..Self::default() };
        let halves = |record: &u64| (high(*record), low(*record) >> shift);
        for record in records.chunk_by(|a, b| high(*a) == high(*b)) {
            let fingerprint = record.first().map_or(0, |record| high(*record));
            out.push(fingerprint, record.iter().map(|record| halves(record).1));
        }
        out
    }

    fn push(&mut self, fingerprint: u32, granules: impl Iterator<Item = u32>) {
        let mut last = None;
        for granule in granules {
            if last != Some(granule) {
                put_varint(&mut self.lists, granule - last.unwrap_or(0));
                last = Some(granule);
            }
        }
        self.ends.push((fingerprint, self.lists.len()));
    }

    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    /// Fingerprints there are.
    pub(crate) fn keys(&self) -> usize {
        self.ends.len()
    }

    /// Bytes it takes, about as many as in a file.
    pub(crate) fn bytes(&self) -> usize {
        self.lists.len() + self.ends.len() * 4
    }

    /// Fingerprints and lists, by rising fingerprint.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |(fingerprint, end)| {
            let list = self.lists.get(begin..*end).unwrap_or_default();
            begin = *end;
            (*fingerprint, list)
        })
    }

    /// With the records behind all of these.
    pub(crate) fn merged(&self, later: &Self) -> Self {
        let mut out = Self {
            shift: self.shift,
            ends: Vec::with_capacity(self.ends.len() + later.ends.len()),
            lists: Vec::with_capacity(self.lists.len() + later.lists.len()),
        };
        let (mut ours, mut theirs) = (self.iter().peekable(), later.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return out,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(our), Some(their)) => our.0.cmp(&their.0),
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            let (fingerprint, list) = our.or(their).unwrap_or_default();
            out.lists.extend_from_slice(list);
            if let (Some((_, first)), Some((_, second))) = (our, their) {
                out.append(granules(first).last().unwrap_or(0), second);
            }
            out.ends.push((fingerprint, out.lists.len()));
        }
    }

    /// Goes on with a list behind the granule `before`, which it may begin with.
    fn append(&mut self, before: u32, mut list: &[u8]) {
        let first = varint(&mut list).unwrap_or(before);
        if first > before {
            put_varint(&mut self.lists, first - before);
        }
        self.lists.extend_from_slice(list);
    }

    /// With granules twice as large.
    pub(crate) fn coarser(&self) -> Self {
        let mut out = Self {
            shift: self.shift + 1,
            ends: Vec::with_capacity(self.ends.len()),
            lists: Vec::with_capacity(self.lists.len()),
        };
        for (fingerprint, list) in self.iter() {
            out.push(fingerprint, granules(list).map(|granule| granule >> 1));
        }
        out
    }
}

fn high(record: u64) -> u32 {
    u32::try_from(record >> 32).unwrap_or(u32::MAX)
}

fn low(record: u64) -> u32 {
    u32::try_from(record & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// The granules of a list.
pub(crate) fn granules(mut list: &[u8]) -> impl Iterator<Item = u32> {
    let mut granule = 0;
    std::iter::from_fn(move || {
        granule += varint(&mut list)?;
        Some(granule)
    })
}

/// How many granules a list has.
pub(crate) fn count(list: &[u8]) -> u32 {
    u32::try_from(list.iter().filter(|byte| **byte < 0x80).count()).unwrap_or(u32::MAX)
}
