//! What a server at rest holds on to: no map that nobody reads through. On the machine's own file system.

use super::*;

/// Segments and a journal that are worth a map.
fn large(level: Level) -> PartitionSettings {
    PartitionSettings { segment_bytes: 1 << 20, ..settings(level) }
}

fn open(disk: &Arc<RealDisk>) -> Bench {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
    Bench::over(Arc::clone(disk) as _, MemoryDisk::new(), roomy(), clock).unwrap()
}

/// A directory whose journal names batches and extents, and with something behind its end.
fn crashed(disk: &Arc<RealDisk>) {
    let bench = open(disk);
    let room = bench.storage.reserve(8192, Class::Control).unwrap();
    let declare = |(n, level)| Change::Declare { topic: topic(n), partitions: 1, settings: large(level) };
    bench.storage.submit(room, [(1, Level::Fsync), (2, Level::Os)].map(declare).to_vec()).unwrap();
    for (size, times) in [(100, 1), (10_000, 20)] {
        for _ in 0..times {
            bench.put(1, 0, &vec![1; size]);
            bench.put(2, 0, &vec![2; size]);
        }
        bench.storage.commit_step();
    }
    bench.put(2, 0, &[3; 10_000]);
}

#[test]
fn a_start_leaves_no_map_behind() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(locked(dir.path()));
    crashed(&disk);
    assert_eq!(disk.map_usage().maps, 0);
    let bench = open(&disk);
    let walked: u64 = bench.report.partitions.iter().map(|partition| partition.walked_records).sum();
    let replayed: u64 = bench.report.partitions.iter().map(|partition| partition.replayed_batches).sum();
    assert!(walked > 0 && replayed > 0, "{:?}", bench.report);
    assert_eq!(disk.map_usage().maps, 0);
    assert_eq!((bench.values(1, 0).len(), bench.values(2, 0).len()), (21, 22));
    assert_eq!(disk.map_usage().maps, 2, "what is read is mapped");
}

#[test]
fn what_was_read_once_is_given_back_and_mapped_again_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(locked(dir.path()));
    crashed(&disk);
    let bench = open(&disk);
    let lent = bench.partition(1, 0).read(0, 2000, false).unwrap();
    assert_eq!(bench.values(2, 0).len(), 22);
    assert_eq!(disk.map_usage().maps, 2);
    bench.storage.close_step();
    assert_eq!(disk.map_usage().maps, 2, "both were read through just now");
    assert_eq!(bench.values(2, 0).len(), 22);
    bench.put(1, 0, b"writing is no reading");
    bench.storage.close_step();
    assert_eq!(disk.map_usage().maps, 2, "one is lent still, the other one was read");
    drop(lent);
    assert_eq!(disk.map_usage().maps, 1);
    bench.storage.close_step();
    assert_eq!(disk.map_usage().maps, 0);
    assert_eq!((bench.values(1, 0).len(), bench.values(2, 0).len()), (21, 22));
}
