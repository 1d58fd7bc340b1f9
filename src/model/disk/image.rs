//! One file of the model's disk: what the process sees, what a cut would leave, and which pages may differ.
//!
//! Pages are shared until one of the two changes, so that a flush moves pointers, a copy of the whole disk costs next to
//! nothing, and a page never written costs nothing at all.

use std::ops::Range;

use super::super::rng::Rng;
use crate::sync::Arc;

pub(super) const PAGE: usize = 4096;
pub(super) const SECTOR: usize = 512;
/// Sectors of a page as a set.
pub(super) const ALL_SECTORS: u8 = u8::MAX;
const ZEROS: [u8; PAGE] = [0; PAGE];

/// A page's bytes; `None` = zeros.
type Bytes4K = Option<Arc<[u8; PAGE]>>;

#[derive(Clone, Debug, Default)]
struct Page {
    seen: Bytes4K,
    kept: Bytes4K,
    dirty: bool,
}

/// The two images of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// Behind the last one all is zeros, in both images.
    pages: Vec<Page>,
    /// Length as the process sees it; the bytes behind it are zeros.
    length: usize,
    kept_length: usize,
    /// Pages that differ, or may.
    dirty: Vec<u32>,
    /// Writes since the last flush that returned, oldest first: what a cut may tear.
    writes: Vec<Range<usize>>,
}

/// What a cut did to the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Torn {
    /// Of some write a part is there.
    pub(super) partly: bool,
    /// A whole write lies behind one that is not.
    pub(super) whole_behind_hole: bool,
}

fn bytes(page: &Bytes4K) -> &[u8; PAGE] {
    page.as_deref().unwrap_or(&ZEROS)
}

fn same(a: &Bytes4K, b: &Bytes4K) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// The parts of a range of the file that lie in one page each: page, from, to.
fn parts(at: usize, length: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = at + length;
    let pages = if length == 0 { 0..0 } else { at / PAGE..end.div_ceil(PAGE) };
    pages.map(move |page| {
        let start = page * PAGE;
        (page, at.max(start) - start, end.min(start + PAGE) - start)
    })
}

impl Image {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Copies what the process sees at a place that lies within the file.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) {
        let mut out = out;
        for (page, from, to) in parts(at, out.len()) {
            let (head, rest) = out.split_at_mut(to - from);
            let page = self.pages.get(page).map_or(&ZEROS, |page| bytes(&page.seen));
            head.copy_from_slice(page.get(from..to).unwrap_or_default());
            out = rest;
        }
    }

    fn page(&mut self, page: usize) -> &mut Page {
        if self.pages.len() <= page {
            self.pages.resize(page + 1, Page::default());
        }
        self.pages.get_mut(page).expect("made long enough")
    }

    /// Marks a page that is about to change. The version before may have reached the disk.
    fn touch(&mut self, page: usize, rng: &mut Rng) -> &mut Page {
        let known = self.page(page);
        if known.dirty {
            if rng.one_in(8) {
                known.kept.clone_from(&known.seen);
            }
        } else {
            known.dirty = true;
            self.dirty.push(u32::try_from(page).expect("the model's files are small"));
        }
        self.page(page)
    }

    pub(super) fn write(&mut self, rng: &mut Rng, at: usize, parts_of: &[&[u8]]) {
        let start = at;
        let mut at = at;
        for part in parts_of {
            let mut rest = *part;
            for (page, from, to) in parts(at, part.len()) {
                let (head, tail) = rest.split_at(to - from);
                let page = self.touch(page, rng);
                let target = page.seen.get_or_insert_with(|| Arc::new(ZEROS));
                Arc::make_mut(target).get_mut(from..to).expect("within a page").copy_from_slice(head);
                rest = tail;
            }
            at += part.len();
        }
        self.length = self.length.max(at);
        self.writes.push(start..at);
    }

    /// Turns a range within the file into zeros.
    pub(super) fn zero(&mut self, rng: &mut Rng, at: usize, length: usize) {
        for (page, from, to) in parts(at, length) {
            let zeros = self.pages.get(page).is_none_or(|page| page.seen.is_none() && page.kept.is_none());
            if zeros {
                continue;
            }
            let page = self.touch(page, rng);
            if to - from == PAGE {
                page.seen = None;
            } else if let Some(seen) = &mut page.seen {
                Arc::make_mut(seen).get_mut(from..to).expect("within a page").fill(0);
            }
        }
    }

    /// Zeros up to a new end, which need no page.
    pub(super) fn extend(&mut self, length: usize) {
        self.length = self.length.max(length);
    }

    pub(super) fn set_length(&mut self, rng: &mut Rng, length: usize) {
        if length < self.length {
            self.zero(rng, length, self.length - length);
        }
        self.length = length;
    }

    /// Any page may be written back at any moment.
    pub(super) fn write_back_some(&mut self, rng: &mut Rng) {
        let pages = &mut self.pages;
        self.dirty.retain(|index| {
            let page = pages.get_mut(*index as usize).expect("a dirty page is there");
            if rng.one_in(3) {
                page.kept.clone_from(&page.seen);
                page.dirty = false;
            }
            page.dirty
        });
    }

    pub(super) fn sync(&mut self) {
        for index in self.dirty.drain(..) {
            let page = self.pages.get_mut(index as usize).expect("a dirty page is there");
            page.kept.clone_from(&page.seen);
            page.dirty = false;
        }
        self.kept_length = self.length;
        self.writes.clear();
    }

    /// The flush failed: its pages are clean all the same, and half of them are not there.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        for index in self.dirty.drain(..) {
            let page = self.pages.get_mut(index as usize).expect("a dirty page is there");
            page.dirty = false;
            if rng.one_in(2) {
                page.kept.clone_from(&page.seen);
            }
        }
    }

    pub(super) fn cut(&mut self, rng: &mut Rng) -> Torn {
        let style = rng.below(4);
        self.settle_pages(|_| match if style == 3 { rng.below(3) } else { style } {
            0 => 0,
            1 => ALL_SECTORS,
            // Of each sector the old or the new bytes.
            _ => u8::try_from(rng.next() & 0xFF).expect("one byte"),
        });
        // Size without data, data without size.
        let (low, high) = (self.kept_length.min(self.length), self.kept_length.max(self.length));
        let length = match rng.below(3) {
            0 => self.kept_length,
            1 => self.length,
            _ => low + rng.below(high - low + 1),
        };
        self.settle(length)
    }

    /// A cut of which nothing is left to chance: the sectors that are there of each unflushed page, one bit each, and
    /// whether the length is the new one.
    pub(super) fn cut_to(&mut self, sectors: impl FnMut(u32) -> u8, new_length: bool) {
        self.settle_pages(sectors);
        self.settle(if new_length { self.length } else { self.kept_length });
    }

    /// Pages that no flush has covered.
    pub(super) fn unflushed(&self) -> &[u32] {
        &self.dirty
    }

    /// Its length is not the one a cut might leave.
    pub(super) fn length_is_unflushed(&self) -> bool {
        self.length != self.kept_length
    }

    /// Where the newest write that no flush has covered lies.
    pub(super) fn last_write(&self) -> Option<Range<usize>> {
        self.writes.last().cloned()
    }

    /// Whether a cut may change the sector that begins at a position.
    pub(super) fn differs(&self, at: usize) -> bool {
        let Some(page) = self.pages.get(at / PAGE).filter(|page| page.dirty) else { return false };
        let from = at % PAGE;
        bytes(&page.seen).get(from..from + SECTOR) != bytes(&page.kept).get(from..from + SECTOR)
    }

    fn settle_pages(&mut self, mut sectors: impl FnMut(u32) -> u8) {
        for index in self.dirty.drain(..) {
            let page = self.pages.get_mut(index as usize).expect("a dirty page is there");
            page.dirty = false;
            match sectors(index) {
                0 => {}
                ALL_SECTORS => page.kept.clone_from(&page.seen),
                some => tear(page, some),
            }
        }
    }

    /// The pages are settled; what is kept becomes what is seen.
    fn settle(&mut self, length: usize) -> Torn {
        let high = self.kept_length.max(self.length);
        let torn = self.judge_writes(length);
        for page in &mut self.pages {
            page.seen.clone_from(&page.kept);
        }
        // What a shorter length hides is gone for good.
        self.length = high;
        self.shorten(length);
        torn
    }

    fn shorten(&mut self, length: usize) {
        for (page, from, to) in parts(length, self.length - length) {
            let Some(page) = self.pages.get_mut(page) else { break };
            if let Some(seen) = &mut page.seen {
                Arc::make_mut(seen).get_mut(from..to).expect("within a page").fill(0);
            }
            page.kept.clone_from(&page.seen);
        }
        (self.length, self.kept_length) = (length, length);
    }

    /// Which of the unflushed writes are there, now that `kept` is settled and `seen` is still what was written.
    fn judge_writes(&mut self, length: usize) -> Torn {
        let mut torn = Torn::default();
        let mut hole = false;
        for range in std::mem::take(&mut self.writes) {
            let (mut there, mut missing) = (false, false);
            for (page, from, to) in parts(range.start, range.len()) {
                let Some(page_of) = self.pages.get(page) else { continue };
                let limit = length.saturating_sub(page * PAGE);
                missing |= to > limit;
                let to = to.min(limit).max(from);
                if same(&page_of.seen, &page_of.kept) {
                    there |= from < to;
                    continue;
                }
                let (seen, kept) = (bytes(&page_of.seen), bytes(&page_of.kept));
                let (seen, kept) =
                    (seen.get(from..to).unwrap_or_default(), kept.get(from..to).unwrap_or_default());
                if seen == kept {
                    there = true;
                } else {
                    missing = true;
                    // Zeros agree with zeros in a page that was lost, too.
                    there |= seen
                        .chunks(SECTOR)
                        .zip(kept.chunks(SECTOR))
                        .any(|(a, b)| a == b && a.iter().any(|byte| *byte != 0));
                }
            }
            torn.partly |= there && missing;
            torn.whole_behind_hole |= hole && !missing;
            hole |= missing;
        }
        torn
    }

    /// Changes one bit of what is there, on the disk and in memory. Returns whether the place lies within the file.
    pub(super) fn flip(&mut self, at: usize, bit: usize) -> bool {
        if at >= self.length {
            return false;
        }
        let page = self.page(at / PAGE);
        let seen = Arc::make_mut(page.seen.get_or_insert_with(|| Arc::new(ZEROS)));
        *seen.get_mut(at % PAGE).expect("within a page") ^= 1 << (bit % 8);
        page.kept.clone_from(&page.seen);
        true
    }

    pub(super) fn hash_into(&self, hasher: &mut crc32fast::Hasher) {
        hasher.update(&self.length.to_le_bytes());
        for (index, page) in self.pages.iter().enumerate() {
            if let Some(seen) = &page.seen
                && **seen != ZEROS
            {
                hasher.update(&index.to_le_bytes());
                hasher.update(&seen[..]);
            }
        }
    }
}

/// The new bytes of some sectors.
fn tear(page: &mut Page, which: u8) {
    let mut kept = *bytes(&page.kept);
    let sectors = kept.chunks_mut(SECTOR).zip(bytes(&page.seen).chunks(SECTOR));
    for (index, (kept, seen)) in sectors.enumerate() {
        if which >> index & 1 == 1 {
            kept.copy_from_slice(seen);
        }
    }
    page.kept = Some(Arc::new(kept));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(image: &Image, at: usize, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        image.read(at, &mut out);
        out
    }

    #[test]
    fn a_flush_holds_across_a_cut_and_nothing_else_need() {
        let (mut lost, mut torn) = (0, 0);
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut image = Image::default();
            image.write(&mut rng, 100, &[&[7; 5000], &[8; 100]]);
            image.sync();
            image.write(&mut rng, 4000, &[&[9; 3000]]);
            let was = image.cut(&mut rng);
            assert_eq!(read(&image, 100, 3900), [7; 3900]);
            let rest = read(&image, 5200, image.length() - 5200);
            assert!(image.length() >= 5200 && image.length() <= 7000);
            lost += u64::from(rest.iter().all(|byte| *byte == 0));
            torn += u64::from(was.partly);
        }
        assert!(lost > 20 && torn > 20, "{lost} lost, {torn} torn");
    }

    #[test]
    fn what_a_shorter_file_hid_never_comes_back() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut image = Image::default();
            image.write(&mut rng, 0, &[&[7; 9000]]);
            image.sync();
            image.set_length(&mut rng, 100);
            image.sync();
            image.extend(9000);
            image.cut(&mut rng);
            let beyond = image.length() - 100;
            assert_eq!(read(&image, 100, beyond), vec![0; beyond]);
        }
    }

    #[test]
    fn a_failed_flush_loses_pages_that_still_are_seen_and_the_next_succeeds() {
        let mut gone = 0;
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let mut image = Image::default();
            image.write(&mut rng, 0, &[&[7; 4096]]);
            image.fail_sync(&mut rng);
            image.sync();
            assert_eq!(read(&image, 0, 4096), [7; 4096]);
            image.cut(&mut rng);
            assert_eq!(image.length(), 4096);
            gone += u64::from(read(&image, 0, 1) == [0]);
        }
        assert!((30..70).contains(&gone), "{gone} of 100");
    }

    #[test]
    fn a_whole_write_behind_a_hole_is_told() {
        let found = (0..200).filter(|seed| {
            let mut rng = Rng::new(*seed);
            let mut image = Image::default();
            image.write(&mut rng, 0, &[&[7; 4096]]);
            image.write(&mut rng, 4096, &[&[8; 4096]]);
            image.cut(&mut rng).whole_behind_hole
        });
        assert!(found.count() > 5);
    }
}
