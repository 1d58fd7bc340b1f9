//! A disk whose power can go.
//!
//! Each file has two images: what the process sees, and what would be there after a cut. Only a flush that returned makes
//! them equal. Any other page that changed may have been written back at any moment and in any order, also in an older
//! version, and at the cut each of its 512-byte sectors may be old or new. Names survive as a prefix of
//! what was done in their directory since it was last flushed. A flush that fails leaves its pages clean, half of them
//! lost, and the next flush succeeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use bytes::Bytes;

use super::{image::Image, rng::Rng};
use crate::{
    storage::disk::{Access, Disk, Entry, EntryKind, File},
    sync::{Arc, Mutex},
};

type Node = u64;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Node),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(String, Kind),
    Unset(String),
    Rename(String, String),
}

/// The machine's disk in the model.
#[derive(Debug)]
struct State {
    rng: Rng,
    files: BTreeMap<Node, Image>,
    next_node: Node,
    /// Whole path to what it stands for.
    names: BTreeMap<String, Kind>,
    kept_names: BTreeMap<String, Kind>,
    /// Changes since the last flush, by directory.
    pending: BTreeMap<String, Vec<NameChange>>,
    /// Calls until the power goes.
    fuse: Option<u64>,
    dead: bool,
    /// Flushes until one fails.
    flush_fuse: Option<u64>,
    /// Handles of an earlier life do nothing.
    life: u64,
    calls: u64,
}

/// A disk whose power can go. Clones are the same disk.
#[derive(Clone)]
pub struct PowerDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerDisk")
    }
}

fn dead() -> io::Error {
    io::Error::other("the power is gone")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl State {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        if self.dead {
            return Err(dead());
        }
        if let Some(left) = &mut self.fuse {
            if *left == 0 {
                self.dead = true;
                return Err(dead());
            }
            *left -= 1;
        }
        // Anything that changed may be written back at any moment.
        if self.rng.one_in(16) {
            let rng = &mut self.rng;
            for image in self.files.values_mut() {
                let dirty: Vec<usize> = image.dirty.iter().copied().filter(|_| rng.one_in(3)).collect();
                for page in dirty {
                    image.write_back(page);
                    image.dirty.remove(&page);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        let path = match &change {
            NameChange::Set(path, _) | NameChange::Unset(path) | NameChange::Rename(path, _) => path,
        };
        let dir = parent(path).to_owned();
        apply(&mut self.names, &change);
        self.pending.entry(dir).or_default().push(change);
    }
}

fn apply(names: &mut BTreeMap<String, Kind>, change: &NameChange) {
    match change {
        NameChange::Set(path, kind) => {
            names.insert(path.clone(), *kind);
        }
        NameChange::Unset(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to) => {
            let below = format!("{from}/");
            let moved: Vec<String> =
                names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
            for old in moved {
                if let Some(kind) = names.remove(&old) {
                    names.insert(format!("{to}{}", old.strip_prefix(from.as_str()).unwrap_or("")), kind);
                }
            }
        }
    }
}

impl PowerDisk {
    /// An empty disk whose behaviour is all in the seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                rng: Rng::new(seed),
                files: BTreeMap::new(),
                next_node: 1,
                names: BTreeMap::new(),
                kept_names: BTreeMap::new(),
                pending: BTreeMap::new(),
                fuse: None,
                dead: false,
                flush_fuse: None,
                life: 0,
                calls: 0,
            })),
        }
    }

    /// The power goes at the call after so many.
    pub fn cut_after(&self, calls: u64) {
        self.state.lock().fuse = Some(calls);
    }

    /// The flush after so many fails, once.
    pub fn fail_flush_after(&self, flushes: u64) {
        self.state.lock().flush_fuse = Some(flushes);
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// The power comes back: what a cut left is what there is. Handles of the life before are dead for good.
    pub fn power_up(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let mut kept = std::mem::take(&mut state.kept_names);
        for changes in std::mem::take(&mut state.pending).into_values() {
            let survive = state.rng.below(changes.len() + 1);
            changes.iter().take(survive).for_each(|change| apply(&mut kept, change));
        }
        // A name below a directory that is not there is not there.
        let orphan = |names: &BTreeMap<String, Kind>, path: &str| {
            path.match_indices('/').any(|(end, _)| path.get(..end).is_none_or(|dir| !names.contains_key(dir)))
        };
        let gone: Vec<String> = kept.keys().filter(|path| orphan(&kept, path)).cloned().collect();
        for path in gone {
            kept.remove(&path);
        }
        state.kept_names.clone_from(&kept);
        state.names = kept;
        for image in state.files.values_mut() {
            image.cut(&mut state.rng);
        }
        state.revive();
    }

    /// `kill -9` and a start: everything written is seen, flushed or not.
    pub fn restart_process(&self) {
        self.state.lock().revive();
    }

    /// A hash over everything that is seen: names and bytes.
    pub fn fingerprint(&self) -> u32 {
        let state = self.state.lock();
        let mut hasher = crc32fast::Hasher::new();
        for (path, kind) in &state.names {
            hasher.update(path.as_bytes());
            if let Kind::File(node) = kind
                && let Some(image) = state.files.get(node)
            {
                hasher.update(&image.seen);
            }
        }
        hasher.finalize()
    }
}

impl State {
    fn revive(&mut self) {
        self.dead = false;
        self.fuse = None;
        self.flush_fuse = None;
        self.life += 1;
        let named: BTreeSet<Node> = self
            .names
            .values()
            .chain(self.kept_names.values())
            .filter_map(|kind| if let Kind::File(node) = kind { Some(*node) } else { None })
            .collect();
        self.files.retain(|node, _| named.contains(node));
    }
}

impl Disk for PowerDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.call()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !parent(path).is_empty() && state.names.get(parent(path)) != Some(&Kind::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let node = state.next_node;
        state.next_node += 1;
        state.files.insert(node, Image::default());
        state.change(NameChange::Set(path.to_owned(), Kind::File(node)));
        Ok(Arc::new(PowerFile { disk: self.clone(), node, life: state.life }))
    }

    fn open(&self, path: &str, _access: Access) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.call()?;
        match state.names.get(path) {
            Some(Kind::File(node)) => {
                Ok(Arc::new(PowerFile { disk: self.clone(), node: *node, life: state.life }))
            }
            Some(Kind::Directory) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut state = self.state.lock();
        state.call()?;
        let direct = state.names.iter().filter(|(path, _)| parent(path) == dir);
        let entries = direct.map(|(path, kind)| Entry {
            name: path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name).to_owned(),
            kind: if *kind == Kind::Directory { EntryKind::Directory } else { EntryKind::File },
        });
        Ok(entries.collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        match state.names.get(dir) {
            Some(Kind::Directory) => {}
            Some(Kind::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => state.change(NameChange::Set(dir.to_owned(), Kind::Directory)),
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Unset(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        if !state.names.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if state.names.keys().any(|path| parent(path) == dir) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change(NameChange::Unset(dir.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call()?;
        let changes = state.pending.remove(dir).unwrap_or_default();
        for change in &changes {
            apply(&mut state.kept_names, change);
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    node: Node,
    life: u64,
}

impl PowerFile {
    fn with<T>(&self, run: impl FnOnce(&mut Image, &mut Rng) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.life != self.life {
            return Err(dead());
        }
        state.call()?;
        let state = &mut *state;
        let image = state.files.get_mut(&self.node).ok_or(io::ErrorKind::NotFound)?;
        run(image, &mut state.rng)
    }
}

fn number(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl File for PowerFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|image, _| Ok(image.seen.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|image, _| {
            let part = image.seen.get(number(position)..).unwrap_or_default();
            let length = part.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..length), part.get(..length)) {
                to.copy_from_slice(from);
            }
            Ok(length)
        })
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.with(|image, rng| {
            image.write(rng, number(position), &parts.concat());
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let fails = {
            let mut state = self.disk.state.lock();
            match &mut state.flush_fuse {
                Some(0) => {
                    state.flush_fuse = None;
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        self.with(|image, rng| {
            if fails {
                image.fail_sync(rng);
                return Err(io::Error::other("an error of the model's disk"));
            }
            image.sync();
            Ok(())
        })
    }

    fn start_write_back(&self, position: u64, length: u64) {
        let _nothing_is_promised = self.with(|image, rng| {
            for page in Image::pages(number(position), number(length)) {
                if rng.one_in(2) && image.dirty.remove(&page) {
                    image.write_back(page);
                }
            }
            Ok(())
        });
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.with(|image, rng| {
            let (from, to) = (image.seen.len(), number(position + length));
            if to > from {
                image.write(rng, from, &vec![0; to - from]);
            }
            Ok(())
        })
    }

    fn zero(&self, position: u64, length: u64) -> io::Result<()> {
        self.with(|image, rng| {
            let to = number(position + length).min(image.seen.len());
            let from = number(position).min(to);
            image.write(rng, from, &vec![0; to - from]);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|image, _| {
            image.seen.resize(number(length), 0);
            Ok(())
        })
    }

    fn view(&self, position: u64, length: usize) -> io::Result<Bytes> {
        self.with(|image, _| {
            let from = number(position);
            let part = from.checked_add(length).and_then(|to| image.seen.get(from..to));
            part.map(Bytes::copy_from_slice).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
    }
}
