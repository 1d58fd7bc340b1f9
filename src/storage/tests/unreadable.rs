//! A journal that the disk does not give all of: a start says so, and takes it neither for its end nor for damage.

use std::io;

use super::*;
use crate::{
    storage::disk::{Access, Entry, File},
    sync::{AtomicBool, Ordering},
};

/// A disk in memory that gives zeros for one page of each file of the journal, as a map of an unreadable page does.
#[derive(Debug)]
struct Holed {
    disk: MemoryDisk,
    hole: u64,
}

#[derive(Debug)]
struct HoledFile {
    file: Arc<dyn File>,
    hole: u64,
    lost: AtomicBool,
}

impl Holed {
    fn wrap(&self, path: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        if path.starts_with("journal/") {
            Arc::new(HoledFile { file, hole: self.hole, lost: AtomicBool::new(false) })
        } else {
            file
        }
    }
}

impl Disk for Holed {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, self.disk.create(path)?))
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(path, self.disk.open(path, access)?))
    }
    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

impl File for HoledFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_at(parts, position)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn start_write_back(&self, position: u64, length: u64) {
        self.file.start_write_back(position, length);
    }
    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.file.allocate(position, length)
    }
    fn zero(&self, position: u64, length: u64) -> io::Result<()> {
        self.file.zero(position, length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn view(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = self.file.view(position, length)?.to_vec();
        for (byte, at) in bytes.iter_mut().zip(position..) {
            if (self.hole..self.hole + 4096).contains(&at) {
                *byte = 0;
                self.lost.store(true, Ordering::Release);
            }
        }
        Ok(bytes.into())
    }
    fn lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

#[test]
fn a_frame_that_cannot_be_read_is_not_the_end_of_the_journal() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.put(1, 0, b"first");
    bench.storage.commit_step();
    let hole = bench.storage.committer().lock().ring.next().position;
    let last = bench.put(1, 0, b"second");
    bench.storage.commit_step();
    assert!(bench.acked(&last));
    let (disk, clock) = (bench.disk.clone(), Arc::clone(&bench.clock));
    drop(bench);

    let holed = Arc::new(Holed { disk: disk.clone(), hole });
    let refused = Bench::over(holed, disk.clone(), roomy(), clock).err();
    assert!(
        matches!(&refused, Some(OpenError::Io { doing, .. }) if doing.contains("journal/")),
        "{refused:?}"
    );

    // A disk that reads again has lost nothing.
    let bench = Bench::open(&disk, roomy()).unwrap();
    assert_eq!(bench.values(1, 0).len(), 2);
}
