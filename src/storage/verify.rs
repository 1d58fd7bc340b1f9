//! `log verify`: one verdict over a data directory, reading only.
//!
//! It reads what a start would read (snapshot, journal) and then every batch of every segment. What recovery would
//! simply do is not damage: a torn tail of the journal, batches that the journal holds and the segment does not yet,
//! bytes behind a partition's end, an index that will be rebuilt.

use std::{io, sync::Arc};

use annals_wire::{
    header::{BATCH_PREFIX_LEN, verify_header},
    segment::{SEGMENT_HEADER_LEN, SegmentIdentity},
};
use bytes::Bytes;
use crc32fast::Hasher;

use super::{
    PartitionKey,
    disk::{Access, Disk},
    error::OpenError,
    recovery::{FoundPartition, Machine, replay},
    replace::join,
    root::{self, Found, Root},
    segment::{DATA_START, FOOTER_ROOM, Segment, SegmentId, parse_name},
};

/// Something that was durable and does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File, relative to the data directory.
    pub file: String,
    /// Byte position in it.
    pub position: u64,
    /// The partition, where it is one's.
    pub partition: Option<PartitionKey>,
    /// First and last offset concerned, inclusive, where that is known.
    pub offsets: Option<(i64, i64)>,
    /// What is wrong and what it means.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Nothing = intact.
    pub damages: Vec<Damage>,
    /// Harmless things a start will deal with by itself.
    pub notes: Vec<String>,
    /// Topics.
    pub topics: usize,
    /// Partitions that hold anything.
    pub partitions: usize,
    /// Segment files read.
    pub segments: u64,
    /// Batches verified.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads everything and judges. `progress` is told the bytes read so far. An error means that it could not be checked,
/// or that it is no directory of ours.
pub fn verify(
    disk: &Arc<dyn Disk>,
    machine: &mut dyn Machine,
    progress: &mut dyn FnMut(u64),
) -> Result<Verdict, OpenError> {
    let root = match root::read(disk)? {
        Found::Root(root) => root,
        Found::Empty => return Err(OpenError::Foreign { found: "it is empty".into() }),
    };
    let mut verdict = Verdict::default();
    let replayed = match replay(disk, &root, Access::Read, machine) {
        Ok(replayed) => replayed,
        Err(OpenError::Damaged { file, position, what }) => {
            let what = format!("{what}; the server will not start on it");
            verdict.damages.push(Damage { file, position, partition: None, offsets: None, what });
            return Ok(verdict);
        }
        Err(error) => return Err(error),
    };
    for what in replayed.damages {
        let file = what.split_whitespace().nth(1).unwrap_or("snapshot").to_owned();
        verdict.damages.push(Damage { file, position: 0, partition: None, offsets: None, what });
    }
    verdict.topics = replayed.topics.len();
    verdict.partitions = replayed.partitions.len();
    for (key, found) in &replayed.partitions {
        let mut check =
            Check { disk, root: &root, key: *key, found, verdict: &mut verdict, progress: &mut *progress };
        check.partition()?;
    }
    Ok(verdict)
}

struct Check<'a> {
    disk: &'a Arc<dyn Disk>,
    root: &'a Root,
    key: PartitionKey,
    found: &'a FoundPartition,
    verdict: &'a mut Verdict,
    progress: &'a mut dyn FnMut(u64),
}

impl Check<'_> {
    fn partition(&mut self) -> Result<(), OpenError> {
        let bases: Vec<i64> = self.found.segments.keys().copied().collect();
        for (index, base) in bases.iter().enumerate() {
            let until = bases.get(index + 1).copied().unwrap_or(self.found.next_offset);
            let generation = self.found.segments.get(base).map_or(0, |segment| segment.generation);
            let id = SegmentId { key: self.key, base: *base, generation };
            match self.segment(id, until, index + 1 == bases.len()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.damage(&id, 0, Some((*base, until - 1)), "the file is missing".into());
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
                {
                    self.damage(
                        &id,
                        0,
                        Some((*base, until - 1)),
                        format!("the file cannot be read as a segment: {error}"),
                    );
                }
                Err(source) => return Err(OpenError::Io { doing: format!("reading {}", id.path()), source }),
            }
        }
        let names = self.disk.list(&self.key.dir()).unwrap_or_default();
        for entry in names {
            let listed = parse_name(&entry.name).is_none_or(|(base, generation)| {
                self.found.segments.get(&base).is_some_and(|known| known.generation == generation)
            });
            if !listed {
                let file = join(&self.key.dir(), &entry.name);
                self.verdict.notes.push(format!("{file} is not listed and will not be opened"));
            }
        }
        Ok(())
    }

    fn damage(&mut self, id: &SegmentId, position: u64, offsets: Option<(i64, i64)>, what: String) {
        let offsets = offsets.filter(|(first, last)| first <= last);
        self.verdict.damages.push(Damage {
            file: id.path(),
            position,
            partition: Some(id.key),
            offsets,
            what,
        });
    }

    fn segment(&mut self, id: SegmentId, until: i64, last: bool) -> io::Result<()> {
        let segment = Segment::closed(self.disk, id.key, id.base, id.generation);
        segment.open_read_only()?;
        let header = segment.view(0..SEGMENT_HEADER_LEN as u64)?;
        self.identity(&id, &header);
        if last {
            segment.set_end_known(self.found.segments.get(&id.base).map_or(DATA_START, |known| known.end));
        } else {
            segment.resolve(until)?;
        }
        self.verdict.segments += 1;
        let mut hasher = Hasher::new();
        hasher.update(&header);
        let (mut position, mut expected) = (DATA_START, id.base);
        while expected < until {
            match self.batch(&segment, position) {
                Ok(batch) if batch.base_offset == expected => {
                    hasher.update(&batch.bytes);
                    position += batch.bytes.len() as u64;
                    expected = batch.next_offset;
                    self.verdict.batches += 1;
                    self.verdict.records += u64::from(batch.records);
                    self.verdict.bytes += batch.bytes.len() as u64;
                    (self.progress)(self.verdict.bytes);
                    if !batch.payload_good {
                        self.damage(
                            &id,
                            position,
                            Some((batch.base_offset, expected - 1)),
                            "the records do not match their crc".into(),
                        );
                    }
                }
                Ok(batch) => {
                    let what = format!("a batch of offset {} where {expected} belongs", batch.base_offset);
                    self.damage(&id, position, Some((expected, until - 1)), what);
                    return Ok(());
                }
                Err(what) => {
                    self.damage(&id, position, Some((expected, until - 1)), what);
                    return Ok(());
                }
            }
        }
        self.footer(&id, &segment, position, &hasher);
        Ok(())
    }

    fn identity(&mut self, id: &SegmentId, header: &Bytes) {
        let what = match SegmentIdentity::verify(header) {
            Err(error) => format!("its header: {error}"),
            Ok(identity) => {
                let ours = identity.cluster_id == self.root.cluster_id
                    && identity.topic_id == id.key.topic
                    && identity.partition == id.key.partition
                    && identity.base_offset == id.base
                    && identity.generation == id.generation;
                if ours {
                    return;
                }
                "it is the file of another place".to_owned()
            }
        };
        self.damage(id, 0, None, what);
    }

    /// A sealed segment's footer speaks for the whole file.
    fn footer(&mut self, id: &SegmentId, segment: &Segment, position: u64, hasher: &Hasher) {
        segment.set_end_known(position);
        if let Some(summary) = segment.footer() {
            self.verdict.bytes += FOOTER_ROOM;
            if summary.file_crc32 != hasher.clone().finalize() {
                self.damage(id, position, None, "the crc of the whole file does not hold".into());
            }
        }
    }

    /// The batch at a position: from the journal if it holds it, else from the file.
    fn batch(&self, segment: &Segment, position: u64) -> Result<Checked, String> {
        let held = self.found.inline.iter().find(|inline| {
            inline.segment_base == segment.base
                && inline.generation == segment.generation()
                && inline.position == position
        });
        let bytes = match held {
            Some(inline) => inline.bytes.clone(),
            None => whole_batch(segment, position).map_err(|error| error.to_string())?,
        };
        let decoded = verify_header(&bytes, &self.key.topic, self.key.partition)
            .map_err(|error| format!("no batch of this partition: {error}"))?;
        let header = decoded.header;
        let next_offset = header.next_offset().ok_or("an impossible offset")?;
        let payload = bytes.get(BATCH_PREFIX_LEN..decoded.batch_len).ok_or("the batch is cut short")?;
        let payload_good = crc32fast::hash(payload) == header.records_crc32;
        Ok(Checked {
            base_offset: header.base_offset,
            next_offset,
            records: header.record_count,
            payload_good,
            bytes,
        })
    }
}

struct Checked {
    base_offset: i64,
    next_offset: i64,
    records: u32,
    payload_good: bool,
    bytes: Bytes,
}

fn whole_batch(segment: &Segment, position: u64) -> io::Result<Bytes> {
    let prefix = segment.view(position..position + BATCH_PREFIX_LEN as u64)?;
    let length = annals_wire::header::decode(&prefix)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?
        .batch_len;
    segment.view(position..position + length as u64)
}
