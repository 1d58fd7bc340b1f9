//! A disk in memory that stands still where a test wants it to: flushes or the first look at a directory wait, or views are
//! refused, for as long as a [`Hold`] lives.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

use annals::storage::{
    MemoryDisk,
    disk::{Access, Disk, Entry, File},
};
use bytes::Bytes;

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// `Disk::open`.
    Open,
    /// `File::sync`.
    Sync,
    /// `File::view`, which does not wait: it is refused.
    View,
}

#[derive(Debug, Default)]
struct Held {
    at: Mutex<Option<At>>,
    freed: Condvar,
}

impl Held {
    fn pass(&self, at: At) {
        let held = self.at.lock().unwrap();
        drop(self.freed.wait_while(held, |held| *held == Some(at)).unwrap());
    }
}

/// A disk that can be held.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    disk: MemoryDisk,
    held: Arc<Held>,
}

/// Whoever comes to it waits, or is refused, until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Held>);

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.at.lock().unwrap() = None;
        self.0.freed.notify_all();
    }
}

impl Gate {
    pub(crate) fn new(disk: MemoryDisk) -> Self {
        Self { disk, held: Arc::default() }
    }

    pub(crate) fn hold(&self, at: At) -> Hold {
        *self.held.at.lock().unwrap() = Some(at);
        Hold(Arc::clone(&self.held))
    }

    fn over(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GateFile { file, held: Arc::clone(&self.held) })
    }
}

impl Disk for Gate {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.disk.create(path).map(|file| self.over(file))
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.held.pass(At::Open);
        self.disk.open(path, access).map(|file| self.over(file))
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

#[derive(Debug)]
struct GateFile {
    file: Arc<dyn File>,
    held: Arc<Held>,
}

impl File for GateFile {
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
        self.held.pass(At::Sync);
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
        if *self.held.at.lock().unwrap() == Some(At::View) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.file.view(position, length)
    }
}
