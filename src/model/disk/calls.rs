//! The disk's calls: each is counted, hashed into the trace, and may be the one at which the power goes.

use std::io;

use bytes::Bytes;

use super::{
    PowerDisk, State, dead,
    image::Image,
    names::{Change, Kind, Node, parent},
};
use crate::{
    model::rng::Rng,
    storage::disk::{Access, Disk, Entry, EntryKind, File},
    sync::Arc,
};

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named like the calls")]
pub enum Op {
    Create,
    Open,
    List,
    CreateDir,
    Rename,
    Remove,
    RemoveDir,
    SyncDir,
    Len,
    Read,
    Write,
    Sync,
    WriteBack,
    Allocate,
    Zero,
    SetLen,
    View,
}

impl PowerDisk {
    /// A call on a name. The power may go just before it or just after it.
    fn named<T>(&self, op: Op, path: &str, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        let life = state.life;
        let fault = state.fault(op, path, 0, life);
        let fate = state.call(op, path, 0, 0);
        state.finish(fate, |state| fault.map_or_else(|| run(state), Err))
    }
}

impl Disk for PowerDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let (node, life) = self.named(Op::Create, path, |state| {
            if state.names.get(path).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if !parent(path).is_empty() && state.names.get(parent(path)) != Some(Kind::Directory) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let node = state.files.len();
            state.files.push(Some(Box::default()));
            state.names.change(Change::Set(path.to_owned(), Kind::File(node)));
            Ok((node, state.life))
        })?;
        Ok(self.handle(node, life, path))
    }

    fn open(&self, path: &str, _access: Access) -> io::Result<Arc<dyn File>> {
        let (node, life) = self.named(Op::Open, path, |state| match state.names.get(path) {
            Some(Kind::File(node)) => Ok((node, state.life)),
            Some(Kind::Directory) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })?;
        Ok(self.handle(node, life, path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.named(Op::List, dir, |state| {
            let entries = state.names.list(dir).map(|(name, kind)| Entry {
                name: name.to_owned(),
                kind: if kind == Kind::Directory { EntryKind::Directory } else { EntryKind::File },
            });
            Ok(entries.collect())
        })
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.named(Op::CreateDir, dir, |state| match state.names.get(dir) {
            Some(Kind::Directory) => Ok(()),
            Some(Kind::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => {
                state.names.change(Change::Set(dir.to_owned(), Kind::Directory));
                Ok(())
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.named(Op::Rename, from, |state| {
            state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
            state.names.change(Change::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.named(Op::Remove, path, |state| {
            state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
            state.names.change(Change::Unset(path.to_owned()));
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.named(Op::RemoveDir, dir, |state| {
            state.names.get(dir).ok_or(io::ErrorKind::NotFound)?;
            if state.names.list(dir).next().is_some() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            state.names.change(Change::Unset(dir.to_owned()));
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.named(Op::SyncDir, dir, |state| {
            state.names.sync(dir);
            Ok(())
        })
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}

/// An open file of one life.
#[derive(Debug)]
struct PowerFile {
    disk: PowerDisk,
    node: Node,
    life: u64,
    /// The name it was opened under.
    path: String,
}

impl PowerDisk {
    fn handle(&self, node: Node, life: u64, path: &str) -> Arc<dyn File> {
        Arc::new(PowerFile { disk: self.clone(), node, life, path: path.to_owned() })
    }
}

fn number(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl PowerFile {
    /// A call on the file. If it is to fail nothing is done.
    fn with<T>(
        &self,
        op: Op,
        range: (u64, u64),
        run: impl FnOnce(&mut Image, &mut Rng) -> io::Result<T>,
    ) -> io::Result<T> {
        self.or_fail(op, range, |image, rng, fault| fault.map_or_else(|| run(image, rng), Err))
    }

    /// A call on the file. `run` is told the error if it is to fail.
    fn or_fail<T>(
        &self,
        op: Op,
        (position, length): (u64, u64),
        run: impl FnOnce(&mut Image, &mut Rng, Option<io::Error>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.life != self.life {
            return Err(dead());
        }
        let fault = state.fault(op, &self.path, position, self.life);
        let fate = state.call(op, &self.path, position, length);
        state.finish(fate, |state| {
            let image =
                state.files.get_mut(self.node).and_then(Option::as_mut).ok_or(io::ErrorKind::NotFound)?;
            run(image, &mut state.rng, fault)
        })
    }
}

impl File for PowerFile {
    fn len(&self) -> io::Result<u64> {
        self.with(Op::Len, (0, 0), |image, _| Ok(image.length() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(Op::Read, (position, buffer.len() as u64), |image, _| {
            let at = number(position).min(image.length());
            let length = buffer.len().min(image.length() - at);
            image.read(at, buffer.get_mut(..length).unwrap_or_default());
            Ok(length)
        })
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        self.or_fail(Op::Write, (position, length), |image, rng, fault| match fault {
            None => {
                image.write(rng, number(position), parts);
                Ok(())
            }
            Some(error) => {
                let whole = parts.concat();
                let half = whole.get(..whole.len() / 2).unwrap_or_default();
                image.write(rng, number(position), &[half]);
                Err(error)
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.or_fail(Op::Sync, (0, 0), |image, rng, fault| match fault {
            None => {
                image.sync();
                Ok(())
            }
            Some(error) => {
                image.fail_sync(rng);
                Err(error)
            }
        })?;
        self.disk.meanwhile();
        Ok(())
    }

    fn start_write_back(&self, position: u64, length: u64) {
        let _nothing_is_promised = self.with(Op::WriteBack, (position, length), |image, rng| {
            image.write_back_some(rng);
            Ok(())
        });
    }

    fn allocate(&self, position: u64, length: u64) -> io::Result<()> {
        self.with(Op::Allocate, (position, length), |image, _| {
            image.extend(number(position + length));
            Ok(())
        })
    }

    fn zero(&self, position: u64, length: u64) -> io::Result<()> {
        self.with(Op::Zero, (position, length), |image, rng| {
            let to = number(position + length).min(image.length());
            let from = number(position).min(to);
            image.zero(rng, from, to - from);
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(Op::SetLen, (0, length), |image, rng| {
            image.set_length(rng, number(length));
            Ok(())
        })
    }

    fn view(&self, position: u64, length: usize) -> io::Result<Bytes> {
        self.with(Op::View, (position, length as u64), |image, _| {
            let from = number(position);
            if from.checked_add(length).is_none_or(|to| to > image.length()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut out = vec![0; length];
            image.read(from, &mut out);
            Ok(Bytes::from(out))
        })
    }
}
