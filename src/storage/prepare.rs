//! Making room ahead of appends: allocating the active segment's file, having the next one's file ready.
//!
//! Everything here may block and is done without the partition's lock; an append that finds no room says so
//! and is repeated after [`Partition::prepare`](super::Storage::prepare).

use std::{io, sync::Arc};

use super::{
    disk::{Disk, is_out_of_files},
    error::AppendError,
    mutant::{Mutant, planted},
    partition::{Fit, Partition, Spare},
    replace::{create_anew, join},
    segment::{DATA_START, FOOTER_ROOM},
    storage::Storage,
};

/// First allocation of a segment.
const FIRST_STEP: u64 = 256 * 1024;
/// Largest step.
const LAST_STEP: u64 = 64 * 1024 * 1024;

/// What a spare file must have allocated to take a batch.
pub(crate) fn spare_needs(bytes: u64) -> u64 {
    DATA_START + bytes + FOOTER_ROOM
}

/// Bytes to allocate so that `needed` fit, in steps that double.
fn step(allocated: u64, needed: u64, segment_bytes: u64) -> u64 {
    let doubled = allocated + allocated.clamp(FIRST_STEP, LAST_STEP);
    doubled.min(segment_bytes).max(needed).div_ceil(4096) * 4096
}

impl Storage {
    /// Whether an append of so many bytes would find no room.
    pub fn needs_prepare(&self, partition: &Partition, bytes: u64) -> bool {
        match partition.fits(bytes) {
            // A file that was closed is better opened where it may take time.
            Fit::Now(active) => !active.is_open(),
            Fit::Allocate(..) => true,
            Fit::Roll => {
                partition.lock().spare.as_ref().is_none_or(|spare| spare.allocated < spare_needs(bytes))
            }
        }
    }

    /// Makes room for an append of so many bytes. Blocking: call it off the threads that must not block.
    pub fn prepare(&self, partition: &Arc<Partition>, bytes: u64) -> Result<(), AppendError> {
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        if partition.is_removed() {
            return Err(AppendError::Removed { batch: 0 });
        }
        if partition.is_fenced() {
            return Err(AppendError::Fenced { batch: 0 });
        }
        self.room_for_a_file()?;
        let _one_at_a_time = partition.preparing.lock();
        let made = match partition.fits(bytes) {
            Fit::Now(active) => active.file().map(drop),
            Fit::Allocate(active, needed) => {
                let wanted = step(active.allocated(), needed, partition.segment_bytes());
                self.with_reserve(wanted - active.allocated(), || active.allocate_to(wanted))
            }
            Fit::Roll => self.make_spare(partition, spare_needs(bytes)),
        };
        made.map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull,
            _ if is_out_of_files(&error) => self.no_files(),
            // Its topic was deleted meanwhile, and the directory with it.
            _ if partition.is_removed() => AppendError::Removed { batch: 0 },
            _ => {
                self.fence(partition, &error);
                AppendError::Fenced { batch: 0 }
            }
        })
    }

    /// Makes room for one more open file, or says that there is none: the files that the journal, snapshots and connections
    /// need are never touched for a segment.
    fn room_for_a_file(&self) -> Result<(), AppendError> {
        // Segments without a name, and those just being opened by readers, cannot be closed.
        let most = self.options().open_segments + self.options().other_files();
        if self.disk().open_files() < most {
            return Ok(());
        }
        self.close_step();
        if self.disk().open_files() < most { Ok(()) } else { Err(self.no_files()) }
    }

    pub(crate) fn no_files(&self) -> AppendError {
        AppendError::NoFiles { limit: self.options().open_segments as u64 }
    }

    /// Has the file of the next segment ready.
    pub(crate) fn prepare_next(&self, partition: &Arc<Partition>) -> io::Result<()> {
        let _one_at_a_time = partition.preparing.lock();
        self.make_spare(partition, spare_needs(0))
    }

    fn make_spare(&self, partition: &Arc<Partition>, needed: u64) -> io::Result<()> {
        let known = partition.lock().spare.as_ref().map(|spare| spare.allocated);
        if known.is_some_and(|allocated| allocated >= needed) {
            return Ok(());
        }
        if partition.active().is_none() {
            self.make_dirs(partition)?;
        }
        let allocated = step(0, needed, partition.segment_bytes());
        let number = partition.next_spare();
        if number == 0 {
            self.remove_old_spares(partition)?;
        }
        // A name of its own: the spare before it may wait for its final name.
        let path = join(&partition.key().dir(), &format!("spare-{number}.tmp"));
        let file = self.with_reserve(allocated, || {
            let file = create_anew(self.disk(), &path)?;
            file.allocate(0, allocated)?;
            Ok(file)
        })?;
        let unused = partition.lock().spare.replace(Spare { file, allocated, path });
        match unused {
            Some(unused) => self.disk().remove(&unused.path),
            None => Ok(()),
        }
    }

    /// Spares of an earlier run.
    fn remove_old_spares(&self, partition: &Partition) -> io::Result<()> {
        let dir = partition.key().dir();
        for entry in self.disk().list(&dir)?.iter().filter(|entry| entry.name.starts_with("spare-")) {
            self.disk().remove(&join(&dir, &entry.name))?;
        }
        Ok(())
    }

    /// The partition's directory, with every new parent flushed up to the data directory.
    fn make_dirs(&self, partition: &Partition) -> io::Result<()> {
        let topic = format!("topics/{}", partition.key().topic);
        let disk: &Arc<dyn Disk> = self.disk();
        for (parent, dir) in [("", "topics"), ("topics", &topic), (&topic, &partition.key().dir())] {
            disk.create_dir(dir)?;
            if !planted(Mutant::TopicNameUnflushed) {
                disk.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    /// Runs an allocation unless it would eat what is kept free for the journal and snapshots.
    fn with_reserve<T>(&self, bytes: u64, allocate: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let free = self.disk().free_bytes()?;
        if free < bytes.saturating_add(self.options().keep_free_bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        allocate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_double_up_to_64_mib_and_stop_at_the_segment() {
        let mib = 1024 * 1024;
        assert_eq!(step(0, 10, 256 * mib), FIRST_STEP);
        assert_eq!(step(FIRST_STEP, FIRST_STEP + 10, 256 * mib), 2 * FIRST_STEP);
        assert_eq!(step(128 * mib, 128 * mib + 1, 256 * mib), 192 * mib);
        assert_eq!(step(192 * mib, 192 * mib + 1, 200 * mib), 200 * mib);
        assert_eq!(step(0, 3 * mib, mib), 3 * mib);
    }
}
