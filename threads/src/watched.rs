//! A disk that knows what a power cut now would leave: bytes that were written before a flush of their file began, once
//! that flush has returned; names whose directory was flushed.
//!
//! From it [`Proof`] reads what is certain: which frames of the journal are on the disk, and with them which numbers and
//! offsets. It is the storage's own promise, looked up where it must hold and not where the storage says it does:
//!
//! 1. A frame counts only if every frame before it is there.
//! 2. The bytes an extent names were flushed in their segment before the frame that names them was written.
//! 3. A segment that an entry lists has its final name, flushed, before that frame was written.
//!
//! 2 and 3 are checked when a frame is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use annals_wire::{
    header,
    ids::TopicId,
    internal::{Frame, entry::Body},
};
use bytes::Bytes;
use prost::Message as _;

use crate::storage::{
    Disk, MemoryDisk, PartitionKey,
    disk::{Access, Call, Entry, File},
};

/// What is certain.
#[derive(Debug, Default)]
pub struct Proof {
    /// Files by number: what a flush covers of each, and which flush that was.
    contents: Vec<(u64, Vec<u8>)>,
    /// Which file a name stands for.
    names: BTreeMap<String, usize>,
    /// Names whose directory was flushed since.
    named: BTreeSet<String>,
    flushes: u64,
    /// Entries of frames on the disk by sequence, and the last number of each.
    frames: BTreeMap<u64, u64>,
    magic: u64,
    offsets: BTreeMap<PartitionKey, i64>,
}

impl Proof {
    /// Highest number such that it and all before it are on the disk.
    pub fn number(&self) -> u64 {
        let chain = self.frames.iter().zip(1..).take_while(|((sequence, _), expected)| *sequence == expected);
        chain.map(|((_, number), _)| *number).last().unwrap_or(0)
    }

    /// Offset up to which a partition's records are on the disk by the journal's word.
    pub fn offset(&self, key: PartitionKey) -> i64 {
        self.offsets.get(&key).copied().unwrap_or(0)
    }

    fn file(&self, name: &str) -> &[u8] {
        self.names.get(name).and_then(|file| self.contents.get(*file)).map_or(&[], |(_, bytes)| bytes)
    }

    /// Takes what a flush of the journal brought.
    fn read_journal(&mut self) {
        let root = self.file("ANNALS");
        let Some(magic) = root.get(52..60).and_then(|bytes| bytes.try_into().ok()) else { return };
        self.magic = u64::from_le_bytes(magic);
        let journals: Vec<Vec<u8>> = self
            .names
            .keys()
            .filter(|name| name.starts_with("journal/"))
            .map(|name| self.file(name).to_vec())
            .collect();
        for block in journals
            .iter()
            .flat_map(|file| file.chunks(4096).enumerate().map(move |(at, _)| &file[at * 4096..]))
        {
            let Some((sequence, number, payload)) = frame(block, self.magic) else { continue };
            if self.frames.insert(sequence, number).is_none() {
                self.take(Frame::decode(payload).expect("a frame that verifies decodes"));
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        for entry in frame.entries {
            let (key, offset) = match entry.body.expect("every entry says something") {
                Body::Batch(batch) => {
                    let found = header::decode(&batch.batch).expect("a batch that was appended");
                    (key(&batch.topic_id, batch.partition), found.header.next_offset().expect("in range"))
                }
                Body::Extent(extent) => {
                    let key = key(&extent.topic_id, extent.partition);
                    let name = segment(key, extent.segment_base, extent.generation);
                    let range = usize::try_from(extent.from).unwrap()..usize::try_from(extent.to).unwrap();
                    let flushed = self.file(&name).get(range).map(crc32fast::hash);
                    assert_eq!(
                        flushed,
                        Some(extent.crc32),
                        "{name} was not flushed before its extent was written"
                    );
                    (key, extent.next_offset)
                }
                Body::Segments(list) => {
                    let key = key(&list.topic_id, list.partition);
                    for added in list.added {
                        let name = segment(key, added.base, added.generation);
                        assert!(self.named.contains(&name), "{name} was listed before its name was flushed");
                    }
                    continue;
                }
                _ => continue,
            };
            let known = self.offsets.entry(key).or_default();
            *known = offset.max(*known);
        }
    }
}

fn key(topic: &[u8], partition: u32) -> PartitionKey {
    PartitionKey { topic: TopicId::from_slice(topic).expect("an id"), partition }
}

fn segment(key: PartitionKey, base: i64, generation: u32) -> String {
    format!("topics/{}/{}/{base:020}-{generation}.log", key.topic, key.partition)
}

/// Sequence, last number and payload of the frame at the start of `block`, if there is one and its crc holds.
fn frame(block: &[u8], magic: u64) -> Option<(u64, u64, &[u8])> {
    let (head, _) = block.split_first_chunk::<64>()?;
    let eight = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight"));
    let four = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four"));
    let whole = block.get(..usize::try_from(four(8)).ok()?).filter(|whole| whole.len() >= 64)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&whole[..60]);
    hasher.update(&whole[64..]);
    (eight(0) == magic && hasher.finalize() == four(60)).then(|| (eight(24), eight(40), &whole[64..]))
}

/// A disk in memory, watched.
#[derive(Clone, Debug)]
pub struct Watched {
    disk: MemoryDisk,
    proof: Arc<Mutex<Proof>>,
}

impl Watched {
    /// An empty disk.
    pub fn new() -> Self {
        Self { disk: MemoryDisk::new(), proof: Arc::default() }
    }

    /// What a power cut now would leave. The answer is given in one step: no other thread runs meanwhile.
    pub fn proof<T>(&self, ask: impl FnOnce(&Proof) -> T) -> T {
        ask(&self.proof.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The `n`th flush of a file from now on fails.
    pub fn break_flush(&self, n: u64) {
        self.disk.fail_nth(Call::Sync, n);
    }

    fn note<T>(&self, note: impl FnOnce(&mut Proof) -> T) -> T {
        note(&mut self.proof.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn opened(&self, path: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        let number = self.note(|proof| match proof.names.get(path) {
            Some(number) => *number,
            None => {
                proof.contents.push((0, Vec::new()));
                let number = proof.contents.len() - 1;
                proof.names.insert(path.to_owned(), number);
                number
            }
        });
        let journal = path.starts_with("journal/");
        Arc::new(WatchedFile { disk: self.clone(), file, number, journal })
    }
}

impl Default for Watched {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk for Watched {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = self.disk.create(path)?;
        self.note(|proof| proof.names.remove(path));
        Ok(self.opened(path, file))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(self.opened(path, self.disk.open(path, access)?))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<Entry>> {
        self.disk.list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.note(|proof| {
            let file = proof.names.remove(from);
            proof.named.remove(from);
            proof.named.remove(to);
            proof.names.extend(file.map(|file| (to.to_owned(), file)));
        });
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)?;
        self.note(|proof| {
            proof.names.remove(path);
            proof.named.remove(path);
        });
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let in_it = |name: &&String| name.rsplit_once('/').map_or("", |(parent, _)| parent) == dir;
        let names: Vec<String> = self.note(|proof| proof.names.keys().filter(in_it).cloned().collect());
        self.disk.sync_dir(dir)?;
        self.note(|proof| {
            let still_there = names.into_iter().filter(|name| proof.names.contains_key(name));
            let still_there: Vec<String> = still_there.collect();
            proof.named.extend(still_there);
        });
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

#[derive(Debug)]
struct WatchedFile {
    disk: Watched,
    file: Arc<dyn File>,
    number: usize,
    journal: bool,
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.file.write_at(parts, position)
    }

    /// What lies in the file when the flush begins is on the disk when it returns, and not before.
    fn sync(&self) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(self.file.len()?).expect("a small file")];
        let read = self.file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let flush = self.disk.note(|proof| {
            proof.flushes += 1;
            proof.flushes
        });
        self.file.sync()?;
        self.disk.note(|proof| {
            let known = &mut proof.contents[self.number];
            // A flush that began later may have returned before.
            if known.0 < flush {
                *known = (flush, bytes);
            }
            if self.journal {
                proof.read_journal();
            }
        });
        Ok(())
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
        self.file.view(position, length)
    }
}
