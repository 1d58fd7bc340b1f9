//! What is visible and acked when.

use super::*;

const WEAK: Mode = Mode { level: Level::Os, atomic: false };
const STRONG: Mode = Mode { level: Level::Fsync, atomic: false };
const ATOMIC: Mode = Mode { level: Level::Fsync, atomic: true };

#[test]
fn an_fsync_append_is_neither_acked_nor_visible_before_its_frame() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    let receipt = bench.put(1, 0, b"a");
    assert!(!bench.acked(&receipt));
    assert_eq!(bench.partition(1, 0).high_watermark(), 0);
    bench.storage.commit_step();
    assert!(bench.acked(&receipt));
    assert_eq!(bench.values(1, 0), [(0, b"a".to_vec())]);
    assert_eq!(receipt.appended[0].level, Level::Fsync);
}

#[test]
fn an_os_append_waits_for_topic_and_segment_only() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    let first = bench.put(1, 0, b"a");
    assert!(!bench.acked(&first), "neither the topic nor the segment is named yet");
    assert_eq!(bench.partition(1, 0).high_watermark(), 0);
    bench.storage.commit_step();
    assert!(bench.acked(&first));
    assert_eq!(
        bench.partition(1, 0).high_watermark(),
        1,
        "published although no item of the cycle was its own"
    );
    let second = bench.put(1, 0, b"b");
    assert!(bench.acked(&second));
    assert_eq!(bench.values(1, 0).len(), 2);
}

#[test]
fn a_stronger_wish_raises_only_its_own_ack() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let strong = bench.append(&[(bench.partition(1, 0), b"b")], STRONG, &[]).unwrap();
    assert!(!bench.acked(&strong));
    assert_eq!(bench.partition(1, 0).high_watermark(), 2, "readers see it at the topic's level");
    let weak = bench.put(1, 0, b"c");
    assert!(bench.acked(&weak));
    bench.storage.commit_step();
    assert!(bench.acked(&strong));
}

#[test]
fn weak_appends_behind_an_undecided_group_wait() {
    let bench = Bench::new();
    bench.declare(1, 2, Level::Os);
    bench.put(1, 0, b"a");
    bench.put(1, 1, b"b");
    bench.storage.commit_step();
    let both = [(bench.partition(1, 0), &b"g"[..]), (bench.partition(1, 1), &b"h"[..])];
    let group = bench.append(&both, ATOMIC, &[[9; 8]]).unwrap();
    let behind = bench.append(&[(bench.partition(1, 0), b"i")], WEAK, &[]).unwrap();
    assert!(!bench.acked(&group) && !bench.acked(&behind));
    assert_eq!(bench.partition(1, 0).high_watermark(), 1);
    bench.storage.commit_step();
    assert!(bench.acked(&group) && bench.acked(&behind));
    assert_eq!(bench.partition(1, 0).high_watermark(), 3);
}

#[test]
fn kill_9_keeps_every_level_and_an_unacked_group_is_whole_or_gone() {
    for committed in [false, true] {
        let bench = Bench::new();
        for (n, level) in [(1, Level::Fsync), (2, Level::Interval), (3, Level::Os)] {
            bench.declare(n, 1, level);
            bench.put(n, 0, b"first");
        }
        bench.storage.commit_step();
        for n in 1..=3 {
            bench.put(n, 0, b"second");
        }
        let all: Vec<_> = (1..=3).map(|n| (bench.partition(n, 0), &b"group"[..])).collect();
        bench.append(&all, ATOMIC, &[[7; 8]]).unwrap();
        bench.put(3, 0, b"behind");
        if committed {
            bench.storage.commit_step();
        }
        let bench = bench.reopen().unwrap();
        let count = |n| bench.values(n, 0).len();
        if committed {
            assert_eq!([count(1), count(2), count(3)], [3, 3, 4]);
        } else {
            assert_eq!(
                [count(1), count(2), count(3)],
                [1, 2, 2],
                "page cache kept for the weak levels, no group"
            );
        }
        assert_eq!(bench.listed.lock().entries.len(), usize::from(committed));
    }
}

#[test]
fn much_pending_goes_as_an_extent_and_comes_back() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    let value = vec![5; 300];
    let receipts: Vec<Receipt> = (0..40).map(|_| bench.put(1, 0, &value)).collect();
    let flushes = bench.disk.calls(Call::Sync);
    bench.storage.commit_step();
    assert!(bench.disk.calls(Call::Sync) > flushes + 1, "segments and ring");
    assert!(bench.storage.failure().is_none(), "{:?}", bench.storage.failure());
    assert!(receipts.iter().all(|receipt| bench.acked(receipt)));
    let written = bench.storage.tip().place.position;
    assert!(written < 4096 + 3 * 4096, "the ring holds no copy of 13 kB: {written}");
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0).len(), 40);
    assert!(bench.report.damages.is_empty(), "{:?}", bench.report.damages);
}

#[test]
fn raising_the_level_enters_what_was_written_below_it() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0).len(), 1, "no walk at fsync: the entry must be there");
}

#[test]
fn a_failed_segment_flush_fences_that_partition_and_those_it_took_along() {
    let bench = Bench::new();
    bench.declare(1, 3, Level::Os);
    for partition in 0..3 {
        bench.put(1, partition, b"a");
    }
    bench.storage.commit_step();
    let lone = bench.append(&[(bench.partition(1, 0), b"x")], STRONG, &[]).unwrap();
    let group = [(bench.partition(1, 0), &b"g"[..]), (bench.partition(1, 1), &b"h"[..])];
    let group = bench.append(&group, ATOMIC, &[[1; 8]]).unwrap();
    let other = bench.append(&[(bench.partition(1, 2), b"y")], STRONG, &[]).unwrap();
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert!(!bench.acked(&lone) && !bench.acked(&group));
    assert!(bench.acked(&other), "another partition's item goes on");
    let fenced: Vec<bool> = (0..3).map(|partition| bench.partition(1, partition).is_fenced()).collect();
    assert_eq!(fenced, [true, true, false]);
    assert_eq!(
        bench.append(&[(bench.partition(1, 0), b"z")], WEAK, &[]).unwrap_err(),
        AppendError::Fenced { batch: 0 }
    );
    assert!(!bench.snapshot(false), "no snapshot after a failed flush");
    let bench = bench.reopen().unwrap();
    assert!(bench.listed.lock().entries.is_empty());
    assert!(!bench.partition(1, 0).is_fenced());
}

#[test]
fn a_failed_journal_flush_ends_everything() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let lost = bench.put(1, 0, b"b");
    fail(&bench.disk, Call::Sync, 1);
    assert_eq!(bench.storage.commit_step(), crate::storage::Step::Failed);
    assert!(bench.storage.failure().is_some());
    assert!(!bench.acked(&lost));
    assert_eq!(bench.partition(1, 0).high_watermark(), 1);
    assert_eq!(bench.storage.reserve(1, Class::Control).unwrap_err(), crate::storage::NoRoom::Closed);
}
