//! The storage engine without doors: append, commit cycle, reading, recovery, and the state machine, each beside the obvious
//! way of doing it.
//!
//! `cargo bench --bench engine`

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench: what does not hold must stop it"
)]
#![allow(missing_docs, reason = "the macros of criterion make functions without")]

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    hint::black_box,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use annals::{
    clock::SystemClock,
    state::State,
    storage::{
        Append, AppendError, Change, Class, Disk, Level, Machine as _, MemoryDisk, Mode, Options, Partition,
        PartitionSettings, RealDisk, Storage, verify,
    },
};
use annals_wire::{
    header::{self, Attributes},
    ids::TopicId,
    internal::{GroupPosition, OffsetsCommitted, state_entry::Body},
    v1,
    walk::{WalkRules, Walked, walk},
};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

const TOPIC: TopicId = TopicId([7; 16]);

fn run_of(records: usize, size: usize) -> Bytes {
    let record = v1::Record { value: Some(Bytes::from(vec![7; size])), ..Default::default() };
    v1::RecordBatch { records: vec![record; records], ..Default::default() }.encode_to_vec().into()
}

/// Storage with one topic.
struct Engine {
    storage: Arc<Storage>,
    partitions: Vec<Arc<Partition>>,
}

impl Engine {
    fn open(disk: Arc<dyn Disk>, partitions: u32, level: Level) -> Self {
        // Snapshots are asked for by nobody here; what is appended must not wait for one.
        let options = Options { snapshot_bytes: u64::MAX / 8, ..Options::default() };
        let mut state = State::default();
        let (storage, _) = Storage::open(disk, Arc::new(SystemClock::new()), options, &mut state).unwrap();
        let settings =
            PartitionSettings { level, segment_bytes: 256 << 20, interval_ms: 100, interval_bytes: 1 << 20 };
        let room = storage.reserve(8192, Class::Control).unwrap();
        storage.submit(room, vec![Change::Declare { topic: TOPIC, partitions, settings }]).unwrap();
        storage.commit_step();
        let partitions = storage.partitions(&TOPIC);
        Self { storage, partitions }
    }

    /// Appends one batch to each of these partitions; returns the number to wait for.
    fn append(&self, to: &[Arc<Partition>], run: &Bytes, walked: Walked) -> u64 {
        let payload = std::slice::from_ref(run);
        let appends: Vec<Append<'_>> = to
            .iter()
            .map(|partition| Append {
                partition,
                payload,
                payload_len: run.len(),
                record_count: walked.record_count,
                max_timestamp_ms: walked.max_timestamp_ms,
                timestamps_missing: walked.timestamps_missing,
                records_crc32: walked.crc32,
                attributes: Attributes(0),
                expected_next_offset: None,
                sequence: None,
            })
            .collect();
        loop {
            let bytes = to.len() as u64 * (run.len() as u64 + 512) + 8192;
            let room = self.storage.reserve(bytes, Class::Data).unwrap();
            let mode = Mode { level: Level::Os, atomic: false };
            match self.storage.append(room, &appends, mode, &mut |_| Vec::new()) {
                Ok(receipt) => return receipt.ack,
                Err(AppendError::NotPrepared { batch }) => {
                    self.storage.prepare(to.get(batch).unwrap(), run.len() as u64 + 81).unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

fn walked(run: &Bytes) -> Walked {
    walk(std::slice::from_ref(run), &WalkRules::CLIENT).unwrap()
}

fn real() -> (tempfile::TempDir, Arc<dyn Disk>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(&dir.path().join("data")).unwrap());
    (dir, disk)
}

/// A request's records, checked and appended to a file in the page cache.
fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check and append 256 KiB");
    for size in [100, 1024] {
        let run = run_of((256 << 10) / (size + 8), size);
        group.throughput(Throughput::Bytes(run.len() as u64));
        let (_dir, disk) = real();
        let engine = Engine::open(disk, 1, Level::Os);
        group.bench_function(BenchmarkId::new("ours", size), |bencher| {
            bencher.iter(|| {
                engine.append(&engine.partitions, &run, walked(&run));
                engine.storage.commit_step();
            });
        });
        group.bench_function(BenchmarkId::new("decoded and encoded", size), |bencher| {
            bencher.iter(|| {
                let batch = v1::RecordBatch::decode(run.clone()).unwrap();
                let again = Bytes::from(batch.encode_to_vec());
                let walked = Walked {
                    record_count: batch.records.len() as u32,
                    crc32: crc32fast::hash(&again),
                    ..Walked::default()
                };
                engine.append(&engine.partitions, &again, walked);
                engine.storage.commit_step();
            });
        });
    }
    group.finish();
}

/// From one small batch for each of some partitions to all acks, on a real disk.
fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit cycle");
    for partitions in [1, 8, 100] {
        let (dir, disk) = real();
        let engine = Engine::open(disk, partitions, Level::Fsync);
        let source = Arc::clone(&engine.storage);
        let sections = move || State::default().capture(source.last_number());
        let runner = engine.storage.start(Arc::new(sections)).unwrap();
        let run = run_of(1, 100);
        let walked = walked(&run);
        group.throughput(Throughput::Elements(partitions.into()));
        group.bench_function(BenchmarkId::new("ours, one flush", partitions), |bencher| {
            bencher.iter(|| {
                let ack = engine.append(&engine.partitions, &run, walked);
                let (done, told) = mpsc::channel();
                engine.storage.on_durable(ack, Box::new(move |fate| done.send(fate).unwrap()));
                told.recv().unwrap().unwrap();
            });
        });
        runner.stop();
        let files: Vec<File> =
            (0..partitions).map(|n| pre_written(&dir.path().join(format!("{n}")))).collect();
        let mut at = 0;
        group.bench_function(BenchmarkId::new("flush per file", partitions), |bencher| {
            bencher.iter(|| {
                at = (at + 200) % 60_000;
                for file in &files {
                    file.write_all_at(&run, at).unwrap();
                    file.sync_data().unwrap();
                }
            });
        });
    }
    group.finish();
}

fn pre_written(path: &Path) -> File {
    let file = OpenOptions::new().create_new(true).write(true).open(path).unwrap();
    file.write_all_at(&vec![1; 64 << 10], 0).unwrap();
    file.sync_all().unwrap();
    file
}

/// A log of 16,384 batches of 4 KiB.
fn long_log(disk: Arc<dyn Disk>) -> Engine {
    let engine = Engine::open(disk, 1, Level::Os);
    let run = run_of(4, 1000);
    let walked = walked(&run);
    for _ in 0..16_384 {
        engine.append(&engine.partitions, &run, walked);
        engine.storage.commit_step();
    }
    engine
}

fn read(criterion: &mut Criterion) {
    let (dir, disk) = real();
    let engine = long_log(disk);
    let partition = engine.partitions.first().unwrap();
    let end = partition.high_watermark();
    let file = segment_file(dir.path());
    let whole = std::fs::read(&file).unwrap();
    let mut group = criterion.benchmark_group("find an offset among 16,384 batches");
    let mut offset = 0;
    let mut next = || {
        offset = (offset + 40_503) % end;
        offset
    };
    group.bench_function("index", |bencher| {
        bencher.iter(|| black_box(partition.read(next(), 1, false).unwrap().first_base));
    });
    group.bench_function("from the beginning", |bencher| {
        bencher.iter(|| black_box(scan_for(&whole, next()).unwrap()));
    });
    group.finish();
    for offset in [0, 1, end / 2, end - 1] {
        assert_eq!(partition.read(offset, 1, false).unwrap().first_base, scan_for(&whole, offset).unwrap());
    }
    let mut group = criterion.benchmark_group("read 1 MiB");
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("ours, a slice of the map", |bencher| {
        bencher.iter(|| black_box(partition.read(next() / 2, 1 << 20, false).unwrap().next_offset));
    });
    let file = File::open(file).unwrap();
    group.bench_function("pread into a new buffer", |bencher| {
        bencher.iter(|| {
            let mut bytes = vec![0; 1 << 20];
            file.read_exact_at(&mut bytes, (next() / 2 * 1000) as u64).unwrap();
            black_box(bytes)
        });
    });
    group.finish();
}

/// The only file of records below a directory.
fn segment_file(dir: &Path) -> PathBuf {
    let mut places = vec![dir.join("data/topics")];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "log") {
                return path;
            }
            places.extend(path.is_dir().then_some(path));
        }
    }
    panic!("there is a segment");
}

/// Base offset of the batch that holds an offset, header by header.
fn scan_for(segment: &[u8], offset: i64) -> Option<i64> {
    let mut at = annals_wire::segment::SEGMENT_HEADER_LEN;
    loop {
        let decoded = header::decode(segment.get(at..)?).ok()?;
        if decoded.header.last_offset()? >= offset {
            return Some(decoded.header.base_offset);
        }
        at += header::BATCH_PREFIX_LEN + decoded.payload_len();
    }
}

/// A start after a kill, with everything since the directory was made in the journal.
fn recovery(criterion: &mut Criterion) {
    let disk = MemoryDisk::new();
    let engine = Engine::open(Arc::new(disk.clone()), 10, Level::Fsync);
    let run = run_of(10, 100);
    let walked = walked(&run);
    for _ in 0..2_000 {
        engine.append(&engine.partitions, &run, walked);
        engine.storage.commit_step();
    }
    drop(engine);
    let mut group = criterion.benchmark_group("recovery, 200,000 records in 20,000 batches");
    let open = |disk: MemoryDisk| {
        let mut state = State::default();
        let clock = Arc::new(SystemClock::new());
        Storage::open(Arc::new(disk), clock, Options::default(), &mut state).unwrap().1.records
    };
    assert_eq!(open(disk.snapshot()), 200_000);
    group.bench_function("from the journal", |bencher| {
        bencher.iter_batched(|| disk.snapshot(), open, BatchSize::PerIteration);
    });
    group.bench_function("reading every byte of every segment", |bencher| {
        let disk: Arc<dyn Disk> = Arc::new(disk.snapshot());
        bencher.iter(|| black_box(verify(&disk, &mut State::default(), &mut |_, _| {}).unwrap()));
    });
    group.finish();
}

/// A commit of 100 positions to a state that holds 100,000.
fn state(criterion: &mut Criterion) {
    let positions = |next_offset| -> Vec<GroupPosition> {
        let topic_id = Bytes::copy_from_slice(TOPIC.as_bytes());
        (0..100)
            .map(|partition| GroupPosition {
                topic_id: topic_id.clone(),
                partition,
                next_offset,
                ..GroupPosition::default()
            })
            .collect()
    };
    let commit = |group: usize, next_offset| {
        Body::OffsetsCommitted(OffsetsCommitted {
            group: format!("group-{group}"),
            positions: positions(next_offset),
        })
    };
    let mut state = State::default();
    let mut number = 0;
    let mut naive: HashMap<(String, String, u32), i64> = HashMap::new();
    for group in 0..1000 {
        number += 1;
        state.apply(number, &commit(group, 1)).unwrap();
        naive
            .extend((0..100).map(|partition| ((format!("group-{group}"), "topic".to_owned(), partition), 1)));
    }
    let body = commit(500, 2);
    let mut group = criterion.benchmark_group("apply a commit of 100 positions among 100,000");
    group.throughput(Throughput::Elements(100));
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            number += 1;
            state.apply(number, &body).unwrap();
        });
    });
    group.bench_function("a map by name", |bencher| {
        bencher.iter(|| {
            for partition in 0..100 {
                naive.insert(("group-500".to_owned(), "topic".to_owned(), partition), 2);
            }
        });
    });
    // A snapshot takes the state while work goes on.
    group.bench_function("ours, with an image taken before", |bencher| {
        bencher.iter(|| {
            let image = black_box(state.groups.freeze());
            number += 1;
            state.apply(number, &body).unwrap();
            drop(image);
        });
    });
    group.bench_function("a map by name, cloned before", |bencher| {
        bencher.iter(|| {
            let image = black_box(naive.clone());
            naive.insert(("group-500".to_owned(), "topic".to_owned(), 1), 2);
            drop(image);
        });
    });
    group.finish();
}

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = append, commit, read, recovery, state
}
criterion_main!(engine);
