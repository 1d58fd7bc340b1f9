//! What storage reads from its files, as functions over bytes; see [`crate::fuzz`].
//!
//! The checksums of these files keep accidents out. Here they are put right, so that what lies behind them is held to the
//! same rule: a directory that somebody else made is refused or read, and nothing in it ends the process.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "inputs are small, and a panic is the verdict"
)]

use std::{sync::Arc, time::Duration};

use annals_wire::{header::verify_batch, ids::TopicId, internal};
use bytes::Bytes;
use prost::Message as _;

use super::{
    Disk, Gap, Machine, MemoryDisk, OpenError, Options, PartitionKey, Section, Storage,
    disk::Access,
    dump, files,
    frame::{self, BLOCK, FrameHeader, HEADER_LEN},
    index::{Owner, SparseIndex},
    key::{Level, PartitionSettings},
    keys,
    partition::{Partition, Recovered},
    producers::Windows,
    ring,
    root::Root,
    scan::Scan,
    segment::{DATA_START, Segment},
    snapshot, verify,
};
use crate::clock::ManualClock;

/// Where the batches of the corpus lie.
pub(crate) const TOPIC: TopicId = TopicId([7; 16]);
pub(crate) const PARTITION: u32 = 5;
/// Identity of the corpus's directory.
pub(crate) const ROOT: Root = Root {
    cluster_id: [1; 16],
    directory_id: [2; 16],
    frame_magic: 0x1122_3344_5566_7788,
    created_ms: 1_700_000_000_000,
};

/// `ANNALS`.
pub(crate) fn root(input: &[u8]) -> bool {
    let Ok(root) = Root::decode(input) else { return false };
    // What is reserved is zero today and not looked at.
    assert_eq!(input[..68], root.encode()[..68]);
    true
}

/// The header of a file of the journal.
pub(crate) fn ring_header(input: &[u8]) -> bool {
    let verdict = ring::check_header(&ROOT, 1, input);
    assert_eq!(verdict.is_ok(), input.get(..64) == ring::file_header(&ROOT, 1).get(..64));
    verdict.is_ok()
}

/// A frame of the journal.
pub(crate) fn frame(input: &[u8]) -> bool {
    let Some(header) = FrameHeader::decode(input, ROOT.frame_magic) else { return false };
    assert_eq!(header.encode(ROOT.frame_magic), input[..HEADER_LEN]);
    assert_eq!(frame::padded(header.length.into()) % BLOCK, 0);
    let Some(payload) = frame::payload_of(&header, input) else { return false };
    assert_eq!(payload.len() + HEADER_LEN, header.length as usize);
    internal::Frame::decode(payload).is_ok()
}

/// A snapshot's file.
pub(crate) fn snapshot(input: &[u8]) -> bool {
    let read = |bytes: &[u8]| snapshot::decode(&ROOT, "snapshot", &Bytes::copy_from_slice(bytes));
    let Ok(found) = read(input) else { return false };
    let (head, body) = snapshot::encode(&ROOT, &found);
    assert_eq!(read(&[&head[..], &body].concat()).unwrap(), found);
    true
}

/// Both files of an index, one behind the other: four bytes say how long the first is.
pub(crate) fn index(input: &[u8]) -> bool {
    const BASE: i64 = 100;
    let owner = Owner { partition: TOPIC.as_bytes(), generation: 3 };
    let Some((length, rest)) = input.split_first_chunk() else { return false };
    let middle = (u32::from_le_bytes(*length) as usize & 0xFFFF).min(rest.len());
    let (offsets, times) = rest.split_at(middle);
    let Some(index) = SparseIndex::decode(BASE, 4096, owner, offsets, times) else { return false };
    assert_eq!((&index.encode_offsets(owner)[..], &index.encode_times(owner)[..]), (offsets, times));
    let mut before = None;
    for offset in [i64::MIN, BASE - 1, BASE, BASE + 7, BASE + 5000, BASE + (1 << 31), i64::MAX] {
        let found = index.lookup(offset);
        assert!(found >= before, "a later offset lies no earlier");
        assert!(offset >= BASE || found.is_none());
        before = found;
    }
    assert_eq!(before, index.last_position());
    let mut longer = index.clone();
    longer.push(i64::MAX, u64::MAX, i64::MAX);
    longer.append(&index);
    assert_eq!(longer.last_position(), index.last_position());
    assert!(index.lookup_time(i64::MAX).is_none_or(|at| Some(at) <= index.last_position()));
    true
}

fn keys_of() -> keys::Subject<'static> {
    let owner = Owner { partition: TOPIC.as_bytes(), generation: 3 };
    keys::Subject { owner, base: 100, file_crc32: 7 }
}

/// An index of keys.
pub(crate) fn keys(input: &[u8]) -> bool {
    let Some(head) = keys::Head::read(input, keys_of()) else { return false };
    let mut whole = true;
    for key in [0_u32, 1, 2, 899, 900] {
        let fingerprint = keys::fingerprint(&key.to_le_bytes());
        let Some((place, first)) = head.block_of(fingerprint) else { continue };
        assert!(first <= fingerprint && place.start < place.end);
        let Some(block) = input.get(place.start as usize..place.end as usize) else { return false };
        match head.find(block, first, fingerprint) {
            Some(keys::Found::Ranges(ranges)) => {
                assert!(ranges.iter().all(|range| range.start < range.end));
                assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "apart from each other");
            }
            found => whole &= found.is_some(),
        }
    }
    for relative in [0, 63, 64, 65_535, 65_536, u64::MAX] {
        let Some((place, offsets)) = head.anchors_of(relative) else { continue };
        assert!(offsets.contains(&relative) && place.start + 4 < place.end);
        let Some(run) = input.get(place.start as usize..place.end as usize) else { return false };
        let Some(anchors) = head.anchors(run, offsets.start) else { return false };
        assert!(anchors.map(|anchor| anchor.0).is_sorted());
    }
    whole
}

const KEY: PartitionKey = PartitionKey { topic: TOPIC, partition: PARTITION };

/// A segment file: scanned, dumped, and read as a partition of which the journal says that all of it was durable.
pub(crate) fn segment_scan(input: &[u8]) -> bool {
    let disk = MemoryDisk::new();
    put(&disk, "ANNALS", &[&ROOT.encode()]);
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let segment = Arc::new(Segment::closed(&disk, KEY, 0, 0));
    put(&*disk, &segment.id().path(), &[input]);
    segment.open_read_only().unwrap();
    let length = input.len() as u64;
    let (mut end, mut next_offset, mut batches) = (DATA_START, 0, 0);
    for found in Scan::new(&segment, DATA_START, length) {
        let Ok(found) = found else { break };
        assert_eq!((found.position, &found.bytes[..]), (end, &input[end as usize..found.end() as usize]));
        (end, next_offset, batches) = (found.end(), found.next_offset(), batches + 1);
    }
    let mut pieces = 0;
    dump(&disk, &segment.id().path(), &mut |_| {
        pieces += 1;
        true
    })
    .unwrap();
    assert!(pieces <= 3 + input.len() / 81);
    if segment.resolve(i64::MAX).is_ok() {
        assert!(segment.end() <= length.max(DATA_START));
    }
    segment.set_end_known(length.max(DATA_START));
    let missing = i64::from(end < length || length.is_multiple_of(3));
    read_all(segment, next_offset.saturating_add(missing), &control(input));
    batches > 0
}

/// Offsets of control batches, wherever they lie: first, and the one behind the last.
fn control(input: &[u8]) -> Vec<(i64, i64)> {
    let places = DATA_START as usize..input.len();
    let batches = places.filter_map(|at| verify_batch(&input[at..], &TOPIC, PARTITION).ok());
    let control = batches.filter(|batch| batch.header.attributes.control());
    control.map(|batch| (batch.header.base_offset, batch.header.next_offset().unwrap())).collect()
}

/// Reads a partition of one segment from its begin to its end: every offset once, in a whole batch that verifies, in a gap,
/// or in one of the control batches, which are not shown.
fn read_all(segment: Arc<Segment>, next_offset: i64, control: &[(i64, i64)]) {
    let settings =
        PartitionSettings { level: Level::Fsync, segment_bytes: 1 << 20, interval_ms: 1, interval_bytes: 1 };
    let found = Recovered {
        barrier: 0,
        log_start: 0,
        next_offset,
        segments: vec![segment],
        epochs: Vec::new(),
        append_time_ms: 0,
        producers: Windows::default(),
    };
    let partition = Partition::recovered(KEY, settings, 1, found);
    let mut asked = 0;
    while asked < next_offset {
        let Ok(read) = partition.read(asked, 300, true) else { panic!("damage is stepped over") };
        assert!(read.next_offset > asked && read.next_offset <= next_offset, "{asked}: {}", read.next_offset);
        let (mut from, mut gaps) = (asked, read.gaps.iter().peekable());
        for mut run in read.batches {
            while !run.is_empty() {
                let batch = verify_batch(&run, &TOPIC, PARTITION).expect("only what verifies is returned");
                let (base, end) = (batch.header.base_offset, batch.header.next_offset().unwrap());
                from = over_what_is_not_shown(&mut gaps, control, from, base);
                let right = base == from || base < from && from == asked;
                assert!(right && from < end, "{asked} {from} {:?} {control:?}", batch.header);
                from = end;
                run = run.slice(batch.batch_len..);
            }
        }
        from = over_what_is_not_shown(&mut gaps, control, from, read.next_offset);
        assert_eq!((from, gaps.next()), (read.next_offset, None));
        asked = from;
    }
    let _time_or_none = partition.find_time(1_600_000_000_000);
}

/// Steps over gaps and control batches, up to an offset at most.
fn over_what_is_not_shown<'a>(
    gaps: &mut std::iter::Peekable<impl Iterator<Item = &'a Gap>>,
    control: &[(i64, i64)],
    mut from: i64,
    to: i64,
) -> i64 {
    while from < to {
        if let Some(gap) = gaps.next_if(|gap| gap.first == from) {
            assert!(gap.last >= gap.first, "{gap:?}");
            from = gap.last + 1;
        } else if let Some((_, next)) = control.iter().find(|(base, next)| (*base..*next).contains(&from)) {
            from = *next;
        } else {
            break;
        }
    }
    from
}

/// The payload of the journal's only frame.
pub(crate) fn journal_entries(input: &[u8]) -> bool {
    if input.len() > 8000 {
        return false;
    }
    let header = FrameHeader {
        length: u32::try_from(HEADER_LEN + input.len()).unwrap(),
        link: false,
        epoch: 1,
        sequence: 1,
        durable: 0,
        last_number: internal::Frame::decode(input)
            .ok()
            .and_then(|frame| frame.entries.iter().map(|entry| entry.number).max())
            .unwrap_or(0),
        previous_crc: 0,
        successor: 0,
        entries: 0,
        crc: 0,
    };
    let bytes = header.encode(ROOT.frame_magic);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..HEADER_LEN - 4]);
    hasher.update(input);
    let header = FrameHeader { crc: hasher.finalize(), ..header };
    opened(&directory(&[&header.encode(ROOT.frame_magic), input]), input)
}

/// The body of the newest snapshot.
pub(crate) fn recovered_snapshot(input: &[u8]) -> bool {
    let disk = directory(&[]);
    let (mut head, _) = snapshot::encode(&ROOT, &internal::Snapshot::default());
    head[52..60].copy_from_slice(&(input.len() as u64).to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..60]);
    hasher.update(input);
    head[60..64].copy_from_slice(&hasher.finalize().to_le_bytes());
    put(&disk, &snapshot::name(0), &[&head, input]);
    opened(&disk, input)
}

fn put(disk: &(impl Disk + ?Sized), path: &str, parts: &[&[u8]]) {
    for (end, _) in path.match_indices('/') {
        disk.create_dir(&path[..end]).unwrap();
    }
    disk.create(path).unwrap().write_at(parts, 0).unwrap();
}

/// A directory with an empty segment of the corpus's partition and two files of the journal, the first of which has this frame.
fn directory(frame: &[&[u8]]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    put(&disk, "ANNALS", &[&ROOT.encode()]);
    for id in [1, 2] {
        put(&disk, &ring::path(id), &[&ring::file_header(&ROOT, id)]);
        disk.open(&ring::path(id), Access::Write).unwrap().set_len(16 * BLOCK).unwrap();
    }
    disk.open(&ring::path(1), Access::Write).unwrap().write_at(frame, BLOCK).unwrap();
    disk
}

/// Everything is a state.
struct Anything;

impl Machine for Anything {
    fn restore(&mut self, _: &Section) -> Result<(), String> {
        Ok(())
    }
    fn apply(&mut self, _: u64, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn lower_commits(&mut self, _: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn capture(&self, _: u64) -> Vec<Section> {
        Vec::new()
    }
}

/// Judges a directory, dumps it, and of some opens it, twice: what the first start left the second takes.
fn opened(disk: &MemoryDisk, input: &[u8]) -> bool {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let verdict = verify(&shared, &mut Anything, &mut |_, _| {});
    for file in files(&shared).unwrap() {
        let _damaged_or_not = dump(&shared, &file, &mut |_| true);
    }
    let judged = verdict.as_ref().is_ok_and(|verdict| {
        verdict.damages.iter().all(|damage| damage.partition.is_some() || damage.file.starts_with("topics"))
    });
    if crc32fast::hash(input).is_multiple_of(8) {
        let before = disk.snapshot();
        let first = start(disk);
        assert_eq!(first.is_ok(), judged, "{verdict:?}, but {first:?}");
        match first {
            Ok(bounds) => assert_eq!(start(disk).expect("a second start"), bounds),
            Err(_) => assert_eq!(files_of(disk), files_of(&before), "what is refused is left as it was"),
        }
    }
    judged
}

fn start(disk: &MemoryDisk) -> Result<Vec<(PartitionKey, i64, i64)>, OpenError> {
    let options = Options {
        ring_bytes: 128 << 10,
        ring_file_bytes: 64 << 10,
        snapshot_interval: Duration::MAX,
        keep_free_bytes: 0,
        flush_helpers: 0,
        ..Options::default()
    };
    let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
    let (storage, _) = Storage::open(Arc::new(disk.clone()), clock, options, &mut Anything)?;
    let bounds = storage.all_partitions().into_iter().map(|partition| {
        let bounds = partition.bounds();
        (partition.key(), bounds.log_start, bounds.log_end)
    });
    Ok(bounds.collect())
}

/// Every file of the journal and every snapshot with a checksum of its bytes.
fn files_of(disk: &MemoryDisk) -> Vec<(String, u32)> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let of = |path: String| {
        let file = shared.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(&mut bytes, 0).unwrap();
        (path, crc32fast::hash(&bytes))
    };
    files(&shared).unwrap().into_iter().map(of).collect()
}

/// A file header of the journal, without the zeros behind it.
#[cfg(test)]
pub(crate) fn ring_header_seed() -> Vec<u8> {
    ring::file_header(&ROOT, 1)[..64].to_vec()
}

/// A snapshot's file.
#[cfg(test)]
pub(crate) fn snapshot_seed(found: &internal::Snapshot) -> Vec<u8> {
    let (head, body) = snapshot::encode(&ROOT, found);
    [&head[..], &body].concat()
}

/// An index of so many entries, as [`index`] takes it.
#[cfg(test)]
pub(crate) fn index_seed(entries: u32) -> Vec<u8> {
    let owner = Owner { partition: TOPIC.as_bytes(), generation: 3 };
    let mut index = SparseIndex::new(100, 4096);
    for entry in 0..entries {
        let (offset, position) = (100 + i64::from(entry) * 7, u64::from(entry) * 5000);
        index.push(offset, position, 1_700_000_000_000 + i64::from(entry % 5));
    }
    let offsets = index.encode_offsets(owner);
    [&u32::try_from(offsets.len()).unwrap().to_le_bytes()[..], &offsets, &index.encode_times(owner)].concat()
}

/// An index of so many keys, as [`keys`] takes it.
#[cfg(test)]
pub(crate) fn keys_seed(keys: u32) -> Vec<u8> {
    let record = |offset: u32| {
        let key = offset % keys;
        u64::from(keys::fingerprint(&key.to_le_bytes())) << 32 | u64::from(offset)
    };
    let mut records: Vec<u64> = (0..keys * 2).map(record).collect();
    let anchors: Vec<u32> = (0..keys.div_ceil(32)).map(|n| n * 900).collect();
    keys::encode(keys::Postings::of(&mut records, 0), &anchors, keys_of(), 1 << 20, u64::from(keys) * 2)
}
