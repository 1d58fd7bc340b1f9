//! Open files are a budget, however many partitions there are. On the machine's own file system.

use super::*;

const SEGMENTS: usize = 24;

fn options() -> Options {
    Options { open_segments: SEGMENTS, ..roomy() }
}

#[test]
fn declared_partitions_take_neither_files_nor_directories() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), options()).unwrap();
    let before = bench.storage.disk().open_files();
    for n in 0..20 {
        bench.declare(n, 1000, Level::Fsync);
    }
    bench.storage.commit_step();
    assert_eq!(bench.storage.disk().open_files(), before);
    assert!(bench.storage.disk().list("topics").unwrap().is_empty());
    bench.put(7, 999, b"a");
    bench.storage.commit_step();
    assert_eq!(bench.storage.disk().open_files(), before + 1);
    assert_eq!(bench.storage.disk().list("topics").unwrap().len(), 1);
}

#[test]
fn more_active_partitions_than_files_may_be_open() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), options()).unwrap();
    bench.declare(1, 100, Level::Fsync);
    bench.declare(2, 100, Level::Os);
    bench.storage.commit_step();
    let most = SEGMENTS + bench.options.other_files();
    for round in 0..2_u8 {
        for partition in 0..100 {
            for n in [1, 2] {
                let lane = bench.partition(n, partition);
                if bench.storage.needs_prepare(&lane, 300) {
                    bench.storage.prepare(&lane, 300).unwrap();
                }
                bench.put(n, partition, &[round; 100]);
            }
            if partition % 8 == 7 {
                bench.storage.commit_step();
            }
            let open = bench.storage.disk().open_files();
            assert!(open <= most + 1, "{open} of {most}");
        }
        bench.storage.commit_step();
        assert!(bench.snapshot(false));
    }
    bench.storage.close_step();
    assert!(bench.storage.disk().open_files() <= most);
    assert!(bench.storage.failure().is_none());
    for partition in 0..100 {
        assert_eq!(bench.values(1, partition).len(), 2);
        assert_eq!(bench.values(2, partition).len(), 2);
    }
    drop(bench);
    let bench = Bench::on(dir.path(), options()).unwrap();
    assert!((0..100).all(|partition| bench.values(1, partition).len() == 2));
    bench.storage.close_step();
    let open = bench.storage.disk().open_files();
    assert!(open <= most, "also after a start: {open}");
}

#[test]
fn what_cannot_be_closed_is_refused_politely_and_nothing_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::on(dir.path(), options()).unwrap();
    bench.declare(1, 100, Level::Fsync);
    bench.storage.commit_step();
    let mode = Mode { level: Level::Fsync, atomic: false };
    // None of these has a name before the commit cycle, so none can be closed and opened again.
    let refused = (0..100).find_map(|partition| {
        let outcome = bench.append(&[(bench.partition(1, partition), b"a")], mode, &[]);
        outcome.err().map(|error| (partition, error))
    });
    let (at, error) = refused.expect("a hundred files are too many");
    assert_eq!(error, AppendError::NoFiles { limit: SEGMENTS as u64 });
    assert!(at >= SEGMENTS as u32, "{at}");
    bench.storage.commit_step();
    bench.append(&[(bench.partition(1, at), b"a")], mode, &[]).expect("there is room again by itself");
    assert!((0..100).all(|partition| !bench.partition(1, partition).is_fenced()));
}
