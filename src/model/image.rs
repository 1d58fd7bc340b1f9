//! One file of the model's disk: what the process sees, what a cut would leave, and which pages may differ.

use std::collections::BTreeSet;

use super::rng::Rng;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// The two images of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What the process sees.
    pub(super) seen: Vec<u8>,
    /// What a cut would leave.
    kept: Vec<u8>,
    /// Pages that differ, or may.
    pub(super) dirty: BTreeSet<usize>,
}

impl Image {
    fn page(bytes: &[u8], page: usize) -> [u8; PAGE] {
        let mut out = [0; PAGE];
        let from = (page * PAGE).min(bytes.len());
        let to = (from + PAGE).min(bytes.len());
        let part = bytes.get(from..to).unwrap_or_default();
        if let Some(target) = out.get_mut(..part.len()) {
            target.copy_from_slice(part);
        }
        out
    }

    fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
        if bytes.len() < at + part.len() {
            bytes.resize(at + part.len(), 0);
        }
        if let Some(target) = bytes.get_mut(at..at + part.len()) {
            target.copy_from_slice(part);
        }
    }

    pub(super) fn pages(at: usize, length: usize) -> std::ops::Range<usize> {
        at / PAGE..(at + length).div_ceil(PAGE)
    }

    pub(super) fn write_back(&mut self, page: usize) {
        let bytes = Self::page(&self.seen, page);
        let length = self.seen.len().saturating_sub(page * PAGE).min(PAGE);
        Self::put(&mut self.kept, page * PAGE, bytes.get(..length).unwrap_or_default());
    }

    pub(super) fn write(&mut self, rng: &mut Rng, at: usize, part: &[u8]) {
        for page in Self::pages(at, part.len()) {
            // The version before may have reached the disk.
            if self.dirty.contains(&page) && rng.one_in(8) {
                self.write_back(page);
            }
            self.dirty.insert(page);
        }
        Self::put(&mut self.seen, at, part);
    }

    pub(super) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.write_back(page);
        }
        self.kept.truncate(self.seen.len());
        self.kept.resize(self.seen.len(), 0);
    }

    /// The flush failed: its pages are clean all the same, and half of them are not there.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        for page in std::mem::take(&mut self.dirty) {
            if rng.one_in(2) {
                self.write_back(page);
            }
        }
    }

    pub(super) fn cut(&mut self, rng: &mut Rng) {
        let dirty = std::mem::take(&mut self.dirty);
        let style = rng.below(4);
        for page in dirty {
            match if style == 3 { rng.below(3) } else { style } {
                0 => {}
                1 => self.write_back(page),
                _ => {
                    let bytes = Self::page(&self.seen, page);
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = page * PAGE + index * SECTOR;
                        let length = self.seen.len().saturating_sub(at).min(SECTOR);
                        if rng.one_in(2) {
                            Self::put(&mut self.kept, at, sector.get(..length).unwrap_or_default());
                        }
                    }
                }
            }
        }
        // Size without data, data without size.
        let (low, high) = (self.kept.len().min(self.seen.len()), self.kept.len().max(self.seen.len()));
        let length = match rng.below(3) {
            0 => self.kept.len(),
            1 => self.seen.len(),
            _ => low + rng.below(high - low + 1),
        };
        self.kept.resize(length, 0);
        self.seen = self.kept.clone();
    }
}
