//! A file system in memory: for tests, and for servers that keep nothing.
//!
//! ```text
//! MemoryDisk   names -> directories and files       memory/faults.rs: calls that are made to fail
//!   MemoryFile an open file: pages, zeros between   memory/file.rs
//! ```
//!
//! 1. It answers as the machine's file system does, with errors of the same kinds: both pass the same tests.
//! 2. Clones are the same disk. So dropping everything that uses one and opening it again through another is what
//!    `kill -9` does to a process: whatever was written is there, flushed or not. It does not cut the power.
//! 3. Room is counted by the lengths of files, holes included, until the last handle of a removed file is gone.
//! 4. There is no lock against a second process: there is no second process.

use std::{collections::BTreeMap, fmt, io};

use super::{Access, Disk, Entry, EntryKind, File, real::check_path};
use crate::sync::{Arc, Mutex};

mod faults;
mod file;

pub use faults::Call;
use faults::Faults;
use file::{Content, MemoryFile, Room};

/// A data directory in memory. Clones are the same directory.
#[derive(Clone)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

struct Shared {
    /// Every name below the root by its whole path. The parent of each is a directory in here, or the root.
    names: Mutex<BTreeMap<String, Node>>,
    room: Arc<Room>,
    faults: Arc<Faults>,
}

#[derive(Clone)]
enum Node {
    Directory,
    File(Arc<Content>),
}

/// More than any test or server has, and far enough from the end of numbers to count with.
const UNLIMITED: u64 = 1 << 62;

impl MemoryDisk {
    /// An empty disk without a limit.
    pub fn new() -> Self {
        Self::with_capacity(UNLIMITED)
    }

    /// An empty disk on which all files together may have `bytes`.
    pub fn with_capacity(bytes: u64) -> Self {
        Self::over(BTreeMap::new(), Room::new(bytes))
    }

    fn over(names: BTreeMap<String, Node>, room: Arc<Room>) -> Self {
        Self { shared: Arc::new(Shared { names: Mutex::new(names), room, faults: Arc::default() }) }
    }

    /// Changes the limit; below what is used already, nothing grows until enough is removed.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.room.set_capacity(bytes);
    }

    /// Another disk with the same names and bytes; from here on the two know nothing of each other. Faults that were
    /// ordered are not taken along. Writers must stand still for the copy to be one moment's.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let names = self.shared.names.lock();
        let room = Room::new(self.shared.room.capacity());
        let copy = |node: &Node| match node {
            Node::Directory => Node::Directory,
            Node::File(content) => Node::File(content.copy_to(&room)),
        };
        let names = names.iter().map(|(path, node)| (path.clone(), copy(node))).collect();
        Self::over(names, room)
    }

    /// Makes the `n`th call of a kind from now on fail as a broken device does; 1 is the next. A failing write writes
    /// half of its bytes. One order per kind: the newest counts.
    pub fn fail_nth(&self, call: Call, n: u64) {
        self.shared.faults.fail_nth(call, n);
    }

    /// How often a kind of call was made so far, failed ones included.
    pub fn calls(&self, call: Call) -> u64 {
        self.shared.faults.calls(call)
    }

    fn handle(&self, content: &Arc<Content>, access: Access) -> Arc<dyn File> {
        Arc::new(MemoryFile::new(Arc::clone(content), access, Arc::clone(&self.shared.faults)))
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

/// The node at a path, `""` being the root; an error of the machine's kind if it or a part of the way is not there.
fn find(names: &BTreeMap<String, Node>, path: &str) -> io::Result<Node> {
    if path.is_empty() {
        return Ok(Node::Directory);
    }
    check_path(path)?;
    parent_of(names, path)?;
    names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Checks that a path's parent is a directory.
fn parent_of(names: &BTreeMap<String, Node>, path: &str) -> io::Result<()> {
    check_path(path)?;
    for (end, _) in path.match_indices('/') {
        match path.get(..end).and_then(|part| names.get(part)) {
            Some(Node::Directory) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
    }
    Ok(())
}

/// Everything below a directory.
fn below<'a>(names: &'a BTreeMap<String, Node>, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    let from = prefix.clone();
    names.range(from..).map_while(move |(path, node)| Some((path.strip_prefix(&prefix)?, node)))
}

/// Whether `path` lies somewhere below `dir`.
fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

impl Disk for MemoryDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.shared.faults.pass(Call::Create)?;
        let mut names = self.shared.names.lock();
        parent_of(&names, path)?;
        if names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Content::empty(&self.shared.room);
        names.insert(path.to_owned(), Node::File(Arc::clone(&content)));
        Ok(self.handle(&content, Access::Write))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        self.shared.faults.pass(Call::Open)?;
        check_path(path)?;
        match find(&self.shared.names.lock(), path)? {
            Node::File(content) => Ok(self.handle(&content, access)),
            Node::Directory => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.shared.faults.pass(Call::List)?;
        let names = self.shared.names.lock();
        match find(&names, dir) {
            Ok(Node::Directory) => {}
            Ok(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let direct = below(&names, dir).filter(|(name, _)| !name.contains('/'));
        let mut entries: Vec<Entry> = direct
            .map(|(name, node)| {
                let kind = match node {
                    Node::Directory => EntryKind::Directory,
                    Node::File(_) => EntryKind::File,
                };
                Entry { name: name.to_owned(), kind }
            })
            .collect();
        entries.sort_unstable();
        Ok(entries)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.faults.pass(Call::CreateDir)?;
        let mut names = self.shared.names.lock();
        parent_of(&names, dir)?;
        match names.get(dir) {
            None => {
                names.insert(dir.to_owned(), Node::Directory);
                Ok(())
            }
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.faults.pass(Call::Rename)?;
        let mut names = self.shared.names.lock();
        parent_of(&names, from)?;
        parent_of(&names, to)?;
        let node = find(&names, from)?;
        if from == to {
            return Ok(());
        }
        if is_below(to, from) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if is_below(from, to) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        match (&node, names.get(to)) {
            (Node::Directory, Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::File(_), Some(Node::Directory)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory, Some(Node::Directory)) if below(&names, to).next().is_some() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            _ => {}
        }
        let moved: Vec<String> = below(&names, from).map(|(rest, _)| rest.to_owned()).collect();
        for rest in moved {
            if let Some(node) = names.remove(&format!("{from}/{rest}")) {
                names.insert(format!("{to}/{rest}"), node);
            }
        }
        names.remove(from);
        names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.shared.faults.pass(Call::Remove)?;
        check_path(path)?;
        let mut names = self.shared.names.lock();
        match find(&names, path)? {
            Node::File(_) => names.remove(path),
            Node::Directory => return Err(io::ErrorKind::IsADirectory.into()),
        };
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.faults.pass(Call::RemoveDir)?;
        check_path(dir)?;
        let mut names = self.shared.names.lock();
        match find(&names, dir)? {
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            Node::Directory if below(&names, dir).next().is_some() => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            Node::Directory => {
                names.remove(dir);
                Ok(())
            }
        }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.faults.pass(Call::SyncDir)?;
        match find(&self.shared.names.lock(), dir)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.shared.room.free())
    }
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk").field("room", &self.shared.room).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
