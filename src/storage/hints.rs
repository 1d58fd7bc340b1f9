//! The index of a sealed segment as files: hints, written once, never flushed, believed only without a doubt.

use std::io;

use super::{
    disk::Access,
    index::{Owner, SparseIndex},
    keys::Subject,
    replace::{create_anew, join},
    segment::{DATA_START, INDEX_STEP, Segment, stem},
};
use crate::sync::Ordering;

/// Larger index files are not ours.
const MOST_HINT_BYTES: usize = 64 * 1024 * 1024;

impl Segment {
    pub(super) fn write_hints(&self) -> io::Result<()> {
        let (partition, generation) = (self.owner_bytes(), self.generation());
        let owner = Owner { partition: &partition, generation };
        let (offsets, times) = {
            let index = self.index.read();
            (index.encode_offsets(owner), index.encode_times(owner))
        };
        for (ending, bytes) in [("index", offsets), ("time", times)] {
            create_anew(&self.disk, &self.hint_path(ending))?.write_at(&[&bytes], 0)?;
        }
        Ok(())
    }

    /// Takes the index of a sealed segment from its files, if they leave no doubt.
    pub(super) fn read_hints(&self) -> Option<()> {
        let (partition, generation) = (self.owner_bytes(), self.generation());
        let read = |ending: &str| {
            let file = self.disk.open(&self.hint_path(ending), Access::Read).ok()?;
            let length = usize::try_from(file.len().ok()?).ok()?.min(MOST_HINT_BYTES);
            let mut bytes = vec![0; length];
            (file.read_at(&mut bytes, 0).ok()? == length).then_some(bytes)
        };
        let owner = Owner { partition: &partition, generation };
        let index = SparseIndex::decode(self.base, INDEX_STEP, owner, &read("index")?, &read("time")?)?;
        *self.index.write() = index;
        self.indexed_from.store(DATA_START, Ordering::Release);
        Some(())
    }

    /// The index led nowhere: it is made again from the segment at the next look-up.
    pub(crate) fn distrust_index(&self) {
        *self.index.write() = SparseIndex::new(self.base, INDEX_STEP);
        self.indexed_from.store(self.end(), Ordering::Release);
    }

    /// Where the index of its keys lies.
    pub(crate) fn keys_path(&self) -> String {
        self.hint_path("keys")
    }

    pub(crate) fn key_subject<'a>(&self, partition: &'a [u8], file_crc32: u32) -> Subject<'a> {
        Subject { owner: Owner { partition, generation: self.generation() }, base: self.base, file_crc32 }
    }

    pub(crate) fn owner_bytes(&self) -> Vec<u8> {
        [&self.key.topic.as_bytes()[..], &self.key.partition.to_le_bytes()].concat()
    }

    fn hint_path(&self, ending: &str) -> String {
        join(&self.key.dir(), &format!("{}.{ending}", stem(self.base, self.generation())))
    }
}
