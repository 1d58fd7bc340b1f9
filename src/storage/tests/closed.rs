//! A partition that a start cannot open, one that was fenced, one that was removed: what becomes of the journal that all share.

use super::*;
use crate::storage::disk::Access;

/// A small ring that takes what the tests append between two snapshots.
fn small_ring() -> Options {
    Options { ring_bytes: 1 << 20, ring_file_bytes: 256 << 10, pending_bytes: 1 << 20, ..tiny() }
}

/// Appends to topic 2 more than the ring holds, with snapshots as the runner takes them.
fn fill_the_ring_twice(bench: &Bench) {
    let mut written = 0;
    while written < 2 * small_ring().ring_bytes {
        bench.put(2, 0, &[7; 2000]);
        bench.storage.commit_step();
        written += 2000;
        if bench.storage.snapshot_due() {
            assert!(bench.snapshot(false));
        }
        while bench.storage.upkeep_step() {}
        bench.storage.grow_step().unwrap();
    }
}

fn segment_path(bench: &Bench) -> String {
    bench.partition(1, 0).active().unwrap().id().path()
}

#[test]
fn a_closed_partition_does_not_keep_the_journal_and_comes_back_whole() {
    let bench = Bench::open(&MemoryDisk::new(), small_ring()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    bench.declare(2, 1, Level::Fsync);
    bench.put(1, 0, b"first");
    bench.put(1, 0, b"second");
    bench.put(2, 0, b"another's");
    bench.storage.commit_step();
    let (path, aside) = (segment_path(&bench), "topics/aside");
    bench.disk.rename(&path, aside).unwrap();

    for _ in 0..3 {
        let bench = Bench::open(&bench.disk, small_ring()).unwrap();
        let why = bench.partition(1, 0).closed_because().map(str::to_owned).unwrap();
        assert!(why.contains("missing"), "{why}");
        assert_eq!(bench.report.damages.len(), 1, "{:?}", bench.report.damages);
        fill_the_ring_twice(&bench);
    }

    // The file is back with its header, but nothing of what only the journal held.
    bench.disk.rename(aside, &path).unwrap();
    let file = bench.disk.open(&path, Access::Write).unwrap();
    let header = annals_wire::segment::SEGMENT_HEADER_LEN as u64;
    file.zero(header, file.len().unwrap() - header).unwrap();
    let bench = Bench::open(&bench.disk, small_ring()).unwrap();
    assert_eq!(bench.report.damages, Vec::<String>::new());
    assert_eq!(bench.values(1, 0), [(0, b"first".to_vec()), (1, b"second".to_vec())]);
    bench.put(1, 0, b"third");
    bench.storage.commit_step();
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0).len(), 3);
}

#[test]
fn what_a_closed_partition_lacks_does_not_change_with_the_journal_it_was_read_from() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), small_ring()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    bench.declare(2, 1, Level::Fsync);
    bench.put(1, 0, b"first");
    bench.put(1, 0, b"second");
    bench.put(2, 0, b"another's");
    bench.storage.commit_step();
    let (path, aside) = (segment_path(&bench), "topics/aside");
    bench.storage.disk().rename(&path, aside).unwrap();
    drop(bench);

    // On the machine's disk the journal's files are mapped, and written to again when the ring comes round.
    let bench = Bench::on(dir.path(), small_ring()).unwrap();
    let lacking = || bench.partition(1, 0).unwritten().to_vec();
    let before: Vec<Vec<u8>> = lacking().iter().map(|entry| entry.batch.to_vec()).collect();
    assert_eq!(before.len(), 2);
    fill_the_ring_twice(&bench);
    assert_eq!(lacking().iter().map(|entry| entry.batch.to_vec()).collect::<Vec<_>>(), before);
    drop(bench);

    let bench = Bench::on(dir.path(), small_ring()).unwrap();
    bench.storage.disk().rename(aside, &path).unwrap();
    drop(bench);
    let bench = Bench::on(dir.path(), small_ring()).unwrap();
    assert_eq!(bench.report.damages, Vec::<String>::new());
    assert_eq!(bench.values(1, 0), [(0, b"first".to_vec()), (1, b"second".to_vec())]);
}

#[test]
fn a_flush_that_fails_in_recovery_decides_nothing() {
    let bench = Bench::open(&MemoryDisk::new(), small_ring()).unwrap();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"journaled, for the topic is new");
    bench.storage.commit_step();
    bench.put(1, 0, b"walked");
    let disk = bench.disk.clone();
    drop(bench);
    let flushes = |disk: &MemoryDisk| disk.calls(Call::Sync);
    // Count the flushes of a start on a copy, then let each of them fail in turn.
    let copy = disk.snapshot();
    drop(Bench::open(&copy, small_ring()).unwrap());
    for nth in 1..=flushes(&copy) {
        let broken = disk.snapshot();
        fail(&broken, Call::Sync, nth);
        let opened = Bench::open(&broken, small_ring());
        if let Ok(bench) = &opened {
            assert!(bench.partition(1, 0).closed_because().is_some(), "flush {nth}");
            // Also where the run ends in order, and the next start has nothing to replay.
            assert!(bench.snapshot(true));
        }
        drop(opened);
        let bench = Bench::open(&broken, small_ring()).unwrap();
        assert_eq!(bench.report.damages, Vec::<String>::new(), "flush {nth}");
        assert_eq!(bench.values(1, 0).len(), 2, "flush {nth}");
    }
}

/// The end of what the journal knows lies in a segment that is not the last: behind it there is more, below `fsync`, and
/// then a segment that has its name already.
#[test]
fn a_flush_that_fails_in_recovery_forgets_no_end() {
    let bench = Bench::open(&MemoryDisk::new(), small_ring()).unwrap();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"journaled, for the topic is new");
    bench.storage.commit_step();
    let mut batches = 1;
    while bench.partition(1, 0).segments().len() < 2 {
        bench.put(1, 0, &[7; 900]);
        while bench.storage.upkeep_step() {}
        batches += 1;
    }
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).high_watermark(), batches);
    let disk = bench.disk.clone();
    drop(bench);
    let copy = disk.snapshot();
    drop(Bench::open(&copy, small_ring()).unwrap());
    let mut closed = 0;
    for nth in 1..=copy.calls(Call::Sync) {
        for orderly in [false, true] {
            let broken = disk.snapshot();
            fail(&broken, Call::Sync, nth);
            if let Ok(bench) = Bench::open(&broken, small_ring()) {
                closed += u64::from(bench.partition(1, 0).closed_because().is_some());
                assert!(!orderly || bench.snapshot(true));
            }
            let bench = Bench::open(&broken, small_ring()).unwrap();
            assert_eq!(bench.report.damages, Vec::<String>::new(), "flush {nth}");
            assert_eq!(bench.values(1, 0).len() as i64, batches, "flush {nth}");
        }
    }
    assert!(closed >= 4, "{closed}: two segments are walked and flushed");
}

#[test]
fn a_full_journal_after_a_fence_ends_the_process() {
    let bench = Bench::open(&MemoryDisk::new(), small_ring()).unwrap();
    bench.declare(1, 1, Level::Fsync);
    bench.declare(2, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    bench.put(2, 0, b"b");
    bench.storage.commit_step();
    // More than inline_bytes, so that the segment is flushed.
    bench.put(1, 0, &[1; 1000]);
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert!(bench.partition(1, 0).is_fenced() && !bench.partition(2, 0).is_fenced());
    let mode = Mode { level: Level::Os, atomic: false };
    for _ in 0..1000 {
        assert!(!bench.snapshot(false) && !bench.storage.full_step());
        let done = bench.append(&[(bench.partition(2, 0), &[7; 2000])], mode, &[]);
        bench.storage.commit_step();
        bench.storage.grow_step().unwrap();
        if done.is_err() {
            break;
        }
    }
    bench.storage.on_room(Box::new(|| ()));
    assert!(bench.storage.full_step());
    assert!(bench.storage.failure().is_some());
    let acked = bench.partition(2, 0).high_watermark();
    let bench = bench.reopen().unwrap();
    assert_eq!(i64::try_from(bench.values(2, 0).len()).unwrap(), acked);
    bench.put(2, 0, b"goes on");
    bench.storage.commit_step();
    assert_eq!(bench.partition(2, 0).high_watermark(), acked + 1);
}

#[test]
fn a_full_ring_that_cannot_grow_is_freed_although_nothing_changes() {
    // Two files, and no step that adds one, as on a small disk.
    let options = Options { ring_file_bytes: 128 << 10, ring_bytes: 256 << 10, ..small_ring() };
    let bench = Bench::open(&MemoryDisk::new(), options).unwrap();
    bench.declare(1, 1, Level::Fsync);
    let (mut refused, mode) = (0, Mode { level: Level::Os, atomic: false });
    for n in 0..400 {
        let append = || bench.append(&[(bench.partition(1, 0), &[7; 2000])], mode, &[]);
        let mut tries = 0;
        while append().is_err() {
            // Whoever is refused waits, and is told after each snapshot.
            bench.storage.on_room(Box::new(|| ()));
            assert!(tries < 4 && bench.storage.snapshot_due(), "append {n} finds no room, {tries} times");
            assert!(bench.snapshot(false));
            tries += 1;
        }
        refused += usize::from(tries > 0);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    assert!(refused > 2, "the ring was full {refused} times");
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0).len(), 400);
}

#[test]
fn room_made_for_a_topic_that_goes_away_does_not_stop_snapshots() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.declare(2, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let partition = bench.partition(1, 0);
    // Between its look at the partition and its work on the files the topic is deleted, and they are gone.
    let mine = Arc::clone(&partition);
    bench.disk.rename(&format!("topics/{}", topic(1)), "gone").unwrap();
    let before = partition.preparing.lock();
    let storage = Arc::clone(&bench.storage);
    let preparing = std::thread::spawn(move || storage.prepare(&mine, 8000));
    // Long enough to be past that look; a machine too slow for it only tests less.
    std::thread::sleep(std::time::Duration::from_millis(100));
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    bench.storage.submit(room, vec![Change::Remove { topic: topic(1) }]).unwrap();
    drop(before);
    assert!(matches!(preparing.join().unwrap(), Err(AppendError::Removed { .. })));
    bench.put(2, 0, b"others go on");
    bench.storage.commit_step();
    assert!(bench.snapshot(false), "nothing was fenced");
}
