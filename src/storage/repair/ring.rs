//! The frames that are left, without a snapshot to say where the chain begins: the newest one, and backwards from it as
//! long as each names the crc of the one before.

use std::{collections::BTreeMap, io, sync::Arc};

use annals_wire::{
    header::verify_header,
    ids::TopicId,
    internal::{Frame, entry::Body},
};
use prost::Message as _;

use crate::storage::{
    PartitionKey,
    disk::{Access, Disk, EntryKind},
    frame::{BLOCK, FrameHeader, HEADER_LEN, padded, payload_of},
    ring::{self, Place, RingFile},
    root::Root,
};

/// Where the journal first names a partition's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstEntry {
    pub(super) offset: i64,
    pub(super) base: i64,
    pub(super) generation: u32,
    pub(super) position: u64,
}

/// What the chain says that a base for it must fit to.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) start: Place,
    /// Number of its first entry.
    pub(super) first_number: u64,
    pub(super) frames: usize,
    /// Epoch of its first frame; those behind are of the same or a higher one.
    pub(super) epoch: u32,
    /// Topics that are made in it.
    pub(super) declared: Vec<TopicId>,
    pub(super) firsts: BTreeMap<PartitionKey, FirstEntry>,
}

/// A frame, by where it is.
#[derive(Clone, Copy, Debug)]
struct Seen {
    header: FrameHeader,
    file: u32,
    position: u64,
}

/// The longest chain that ends with the newest frame; `None`: there is no frame.
pub(super) fn longest_chain(disk: &Arc<dyn Disk>, root: &Root) -> io::Result<Option<Chain>> {
    let mut files = BTreeMap::new();
    for entry in disk.list(ring::DIR)?.iter().filter(|entry| entry.kind == EntryKind::File) {
        let Ok(id) = entry.name.parse() else { continue };
        if let Ok(file) = ring::open_file(disk, root, id, Access::Read) {
            files.insert(id, file);
        }
    }
    let mut by_sequence: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
    for file in files.values() {
        for seen in frames_of(file, root)? {
            by_sequence.entry(seen.header.sequence).or_default().push(seen);
        }
    }
    let newest =
        by_sequence.values().next_back().and_then(|seen| seen.iter().max_by_key(|seen| seen.header.epoch));
    let Some(newest) = newest.copied() else { return Ok(None) };
    let mut chain = vec![newest];
    while let Some(first) = chain.last() {
        let before = first.header.sequence.checked_sub(1).and_then(|sequence| by_sequence.get(&sequence));
        let before =
            before.and_then(|seen| seen.iter().find(|seen| seen.header.crc == first.header.previous_crc));
        match before {
            Some(before) => chain.push(*before),
            None => break,
        }
    }
    chain.reverse();
    describe(&chain, &files, root).map(Some)
}

fn frames_of(file: &RingFile, root: &Root) -> io::Result<Vec<Seen>> {
    let mut found = Vec::new();
    let mut position = BLOCK;
    while position + BLOCK <= file.size {
        let head = file.file.view(position, HEADER_LEN)?;
        let header = FrameHeader::decode(&head, root.frame_magic);
        let header = header.filter(|header| position + padded(header.length.into()) <= file.size);
        let mut step = BLOCK;
        if let Some(header) = header {
            let whole = file.file.view(position, header.length as usize)?;
            if payload_of(&header, &whole).is_some() {
                found.push(Seen { header, file: file.id, position });
                step = padded(header.length.into());
            }
        }
        position += step;
    }
    Ok(found)
}

fn describe(chain: &[Seen], files: &BTreeMap<u32, RingFile>, root: &Root) -> io::Result<Chain> {
    let broken = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let first = chain.first().expect("a chain has the newest frame");
    let mut described = Chain {
        start: Place {
            sequence: first.header.sequence,
            file: first.file,
            position: first.position,
            previous_crc: first.header.previous_crc,
        },
        first_number: 0,
        frames: chain.len(),
        epoch: first.header.epoch,
        declared: Vec::new(),
        firsts: BTreeMap::new(),
    };
    for seen in chain {
        let file = files.get(&seen.file).expect("frames were found in it");
        let whole = file.file.view(seen.position, seen.header.length as usize)?;
        let header = FrameHeader::decode(&whole, root.frame_magic);
        let payload = header.as_ref().and_then(|header| payload_of(header, &whole));
        let payload = payload.ok_or_else(|| broken(format!("frame {} changed", seen.header.sequence)))?;
        let frame = Frame::decode(payload).map_err(|error| broken(error.to_string()))?;
        for entry in frame.entries {
            if described.first_number == 0 {
                described.first_number = entry.number;
            }
            if let Some(body) = entry.body {
                described.take(&body);
            }
        }
    }
    Ok(described)
}

impl Chain {
    fn take(&mut self, body: &Body) {
        let key = |topic: &[u8], partition| {
            TopicId::from_slice(topic).map(|topic| PartitionKey { topic, partition })
        };
        let (key, first) = match body {
            Body::Partitions(made) => {
                self.declared.extend(TopicId::from_slice(&made.topic_id));
                return;
            }
            Body::Batch(batch) => {
                let Some(key) = key(&batch.topic_id, batch.partition) else { return };
                let Ok(decoded) = verify_header(&batch.batch, &key.topic, key.partition) else { return };
                let first = FirstEntry {
                    offset: decoded.header.base_offset,
                    base: batch.segment_base,
                    generation: batch.generation,
                    position: batch.position,
                };
                (key, first)
            }
            Body::Extent(extent) => {
                let Some(key) = key(&extent.topic_id, extent.partition) else { return };
                let first = FirstEntry {
                    offset: extent.first_offset,
                    base: extent.segment_base,
                    generation: extent.generation,
                    position: extent.from,
                };
                (key, first)
            }
            _ => return,
        };
        self.firsts.entry(key).or_insert(first);
    }
}
