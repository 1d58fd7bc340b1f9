//! Files that lose bytes under a running process: cut from outside, unreadable. On the machine's own file system.

use std::{fs, path::Path, time::Duration};

use super::*;
use crate::{
    storage::ReadError,
    sync::{AtomicBool, AtomicU64, Ordering},
};

/// Segments large enough to be mapped.
const SEGMENT: u64 = 1024 * 1024;

fn declare(bench: &Bench, n: u8, partitions: u32, level: Level) {
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    let settings = PartitionSettings { segment_bytes: SEGMENT, ..settings(level) };
    bench.storage.submit(room, vec![Change::Declare { topic: topic(n), partitions, settings }]).unwrap();
    bench.storage.commit_step();
}

fn path(dir: &Path, partition: &Partition, segment: usize) -> std::path::PathBuf {
    dir.join(partition.segments()[segment].id().path())
}

fn cut(path: &Path, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Also if the test fails: threads that go on for ever are waited for.
struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Offsets served and skipped, both by reading everything.
fn survey(partition: &Partition) -> (Vec<i64>, Vec<(i64, i64)>) {
    use prost::Message;
    let (mut served, mut gaps, mut from) = (Vec::new(), Vec::<(i64, i64)>::new(), 0);
    while from < partition.high_watermark() {
        let read = partition.read(from, 1 << 20, true).unwrap();
        for bytes in &read.batches {
            let slice = annals_wire::v1::LogSlice::decode(bytes.clone()).unwrap();
            served.extend(slice.batches.iter().map(|batch| batch.base_offset));
        }
        for gap in &read.gaps {
            match gaps.last_mut() {
                Some((_, last)) if *last + 1 == gap.first => *last = gap.last,
                _ => gaps.push((gap.first, gap.last)),
            }
        }
        from = read.next_offset;
    }
    (served, gaps)
}

#[test]
fn a_live_segment_cut_from_outside_fences_its_partition_and_leaves_the_others_alone() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), roomy()).unwrap();
    declare(&bench, 1, 2, Level::Fsync);
    let (stop, acked) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let mode = Mode { level: Level::Fsync, atomic: false };
    std::thread::scope(|scope| {
        let (bench, stop, acked) = (&bench, &stop, &acked);
        let _at_the_end = AtTheEnd(stop);
        for partition in 0..2_u32 {
            let lane = bench.partition(1, partition);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match bench.append(&[(Arc::clone(&lane), &[7; 900])], mode, &[]) {
                        Ok(receipt) => {
                            bench.storage.commit_step();
                            let count = u64::from(bench.acked(&receipt));
                            acked[partition as usize].fetch_add(count, Ordering::Relaxed);
                        }
                        Err(AppendError::Fenced { .. } | AppendError::DiskFull) => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Err(other) => return eprintln!("the writer ends: {other:?}"),
                    }
                }
            });
            let lane = bench.partition(1, partition);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                    let from = lane.bounds().log_start;
                    // What comes of it is looked at below; here it only must not end the process.
                    let _ = lane
                        .read(from, 1 << 20, true)
                        .map(|read| read.batches.iter().map(|bytes| crc32fast::hash(bytes)).max());
                }
            });
        }
        let until = |done: &dyn Fn() -> bool| {
            for _ in 0..20_000 {
                if done() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("nothing happens any more");
        };
        let count = |partition: usize| acked[partition].load(Ordering::Relaxed);
        until(&|| count(0) > 60 && count(1) > 60);
        cut(&path(dir.path(), &bench.partition(1, 0), 0), 50_000);
        until(&|| bench.partition(1, 0).is_fenced());
        let (lost, other) = (count(0), count(1));
        until(&|| count(1) > other + 40);
        assert_eq!(count(0), lost, "nothing is acked any more once the loss is known");
    });
    assert!(bench.storage.failure().is_none() && !bench.storage.is_tainted());
    let (partition, other) = (bench.partition(1, 0), bench.partition(1, 1));
    assert!(partition.fenced_because().unwrap().contains("cut from outside"));
    let (served, gaps) = survey(&partition);
    let first = served.len() as i64;
    assert!(first > 0 && gaps == [(first, partition.high_watermark() - 1)], "{first} {gaps:?}");
    assert_eq!(partition.damages(), gaps);
    match partition.read(first, 1 << 20, false) {
        Err(ReadError::Damaged { first: from, last }) => assert!(from == first && last >= first),
        other => panic!("{other:?}"),
    }
    assert_eq!(survey(&other), ((0..other.high_watermark()).collect(), Vec::new()));
    assert!(!other.is_fenced());
    assert!(bench.snapshot(false), "the rest of the directory goes on as ever");
}

#[test]
fn bytes_lent_before_the_cut_read_as_zeros_and_fence_at_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), roomy()).unwrap();
    declare(&bench, 1, 1, Level::Os);
    for _ in 0..200 {
        bench.put(1, 0, &[7; 900]);
    }
    bench.storage.commit_step();
    let partition = bench.partition(1, 0);
    let read = partition.read(0, 1 << 20, false).unwrap();
    assert_eq!(read.next_offset, 200);
    cut(&path(dir.path(), &partition, 0), 8192);
    // Where the bytes go meanwhile, as into a socket's buffer, nobody verifies them any more: the client does.
    let zeros = read.batches[0].iter().rev().take_while(|byte| **byte == 0).count();
    assert!(zeros > 100_000, "{zeros}");
    assert!(!partition.is_fenced(), "nobody has looked yet");
    let mode = Mode { level: Level::Os, atomic: false };
    let refused = bench.append(&[(Arc::clone(&partition), b"never acked")], mode, &[]);
    assert_eq!(refused.unwrap_err(), AppendError::Fenced { batch: 0 });
    assert!(partition.is_fenced());
}

#[test]
fn an_append_and_a_flush_find_that_the_file_was_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), roomy()).unwrap();
    declare(&bench, 1, 2, Level::Os);
    for partition in 0..2 {
        bench.put(1, partition, &[7; 900]);
    }
    bench.storage.commit_step();
    cut(&path(dir.path(), &bench.partition(1, 0), 0), 200);
    let strong = Mode { level: Level::Fsync, atomic: false };
    let refused = bench.append(&[(bench.partition(1, 0), b"")], strong, &[]);
    assert_eq!(refused.unwrap_err(), AppendError::Fenced { batch: 0 }, "not behind a hole");
    cut(&path(dir.path(), &bench.partition(1, 1), 0), 200);
    assert!(bench.snapshot(false), "an externally cut file is no failed flush: the others go on");
    assert!(bench.partition(1, 1).is_fenced());
    assert!(bench.storage.failure().is_none());
    for partition in 0..2 {
        assert_eq!(survey(&bench.partition(1, partition)), (Vec::new(), vec![(0, 0)]));
    }
}

#[test]
fn a_missing_sealed_segment_is_a_gap_of_its_own_size() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), roomy()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    for n in 0..40_u8 {
        bench.put(1, 0, &[n; 1000]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    let segments = bench.partition(1, 0).segments();
    let (first, next) = (segments[1].base, segments[2].base);
    fs::remove_file(dir.path().join(segments[1].id().path())).unwrap();
    assert!(bench.snapshot(true));
    drop((segments, bench));
    let bench = Bench::on(dir.path(), roomy()).unwrap();
    let partition = bench.partition(1, 0);
    let (served, gaps) = survey(&partition);
    assert_eq!(gaps, [(first, next - 1)]);
    assert_eq!(served.len() as i64, 40 - (next - first));
    assert_eq!(survey(&partition), (served, gaps), "and again");
    assert_eq!(partition.damages(), [(first, next - 1)], "noted once");
    assert!(!partition.is_fenced(), "what is sealed does not stop the writers");
    bench.put(1, 0, b"goes on");
}
