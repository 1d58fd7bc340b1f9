//! What is visible and acked when.

use super::*;
use crate::storage::Step;

const WEAK: Mode = Mode { level: Level::Os, atomic: false };
const STRONG: Mode = Mode { level: Level::Fsync, atomic: false };
pub(super) const ATOMIC: Mode = Mode { level: Level::Fsync, atomic: true };

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

/// A raise that was given up is in the state, and not in the journal. What is decided on top of it may not bring it there.
#[test]
fn a_raise_that_failed_is_not_made_good_by_the_next_change_of_its_topic() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    let weak = bench.put(1, 0, b"a");
    bench.storage.commit_step();
    assert!(bench.acked(&weak));
    let raised = bench.declare(1, 1, Level::Fsync);
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert!(bench.partition(1, 0).is_fenced() && bench.storage.is_durable(raised));
    let wider = bench.try_declare(1, 2, Level::Fsync);
    assert_eq!(wider, Err(AppendError::Unsettled { key: key(1, 0) }));
    assert!(bench.try_declare(1, 2, Level::Interval).is_ok(), "the next start walks all the same");
    bench.storage.commit_step();
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0), [(0, b"a".to_vec())], "acked, and only a walk finds it");
}

#[test]
fn an_append_that_waits_for_a_lowering_is_not_acked_behind_what_was_given_up() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    let strong = bench.put(1, 0, b"a");
    bench.declare(1, 1, Level::Os);
    let weak = bench.put(1, 0, b"b");
    // The header of the first segment.
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert!(bench.partition(1, 0).is_fenced() && bench.storage.failure().is_none());
    assert!(!bench.acked(&strong) && !bench.acked(&weak), "the next start finds neither");
    assert!(bench.reopen().unwrap().values(1, 0).is_empty());
}

#[test]
fn what_was_acked_at_os_is_synced_once_its_topic_is_raised_to_interval() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.declare(1, 1, Level::Interval);
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).entered_offset(), 0);
    bench.clock.advance(std::time::Duration::from_millis(150));
    assert_eq!(bench.storage.interval_step(), 1);
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).entered_offset(), 1);
}

/// Memory has the new partition, the journal does not.
#[test]
fn a_partition_made_in_vain_takes_no_records() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    bench.declare(1, 2, Level::Fsync);
    let early = bench.put(1, 1, b"in the same cycle");
    fail(&bench.disk, Call::Sync, 2);
    bench.storage.commit_step();
    assert!(bench.partition(1, 0).is_fenced());
    assert!(!bench.acked(&early), "the next start does not know the partition");
    let late = bench.append(&[(bench.partition(1, 1), b"late")], WEAK, &[]);
    assert_eq!(late.unwrap_err(), AppendError::Fenced { batch: 0 });
    assert!(bench.reopen().unwrap().storage.partition(key(1, 1)).is_none());
}

#[test]
fn a_raise_that_cannot_be_had_takes_no_other_partition_along() {
    let bench = Bench::new();
    bench.declare(1, 2, Level::Os);
    for partition in 0..2 {
        bench.put(1, partition, b"a");
    }
    bench.storage.commit_step();
    bench.append(&[(bench.partition(1, 0), b"x")], STRONG, &[]).unwrap();
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert_eq!(bench.try_declare(1, 2, Level::Fsync), Err(AppendError::Unsettled { key: key(1, 0) }));
    assert_eq!(bench.partition(1, 1).level(), Level::Os);
    let weak = bench.put(1, 1, b"b");
    bench.storage.commit_step();
    assert!(bench.acked(&weak) && !bench.partition(1, 1).is_fenced());
}

#[test]
fn a_topic_raised_for_good_may_be_changed_although_a_partition_is_fenced() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.declare(1, 1, Level::Fsync);
    bench.storage.commit_step();
    bench.put(1, 0, &[7; 3000]);
    fail(&bench.disk, Call::Sync, 1);
    bench.storage.commit_step();
    assert!(bench.partition(1, 0).is_fenced());
    bench.declare(1, 2, Level::Fsync);
    bench.storage.commit_step();
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0), [(0, b"a".to_vec())]);
    assert!(bench.values(1, 1).is_empty());
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
fn a_failed_journal_shows_nobody_what_it_would_have_named() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.storage.commit_step();
    let receipt = bench.put(1, 0, b"in a segment that no frame names yet");
    fail(&bench.disk, Call::Sync, 1);
    assert_eq!(bench.storage.idle_step(), Step::Failed);
    assert!(!bench.acked(&receipt));
    assert_eq!(
        bench.partition(1, 0).high_watermark(),
        0,
        "a reader would see what the next start does not find"
    );
    assert!(bench.reopen().unwrap().values(1, 0).is_empty());
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
    assert_eq!(bench.storage.commit_step(), Step::Failed);
    assert!(bench.storage.failure().is_some());
    assert!(!bench.acked(&lost));
    assert_eq!(bench.partition(1, 0).high_watermark(), 1);
    assert_eq!(bench.storage.reserve(1, Class::Control).unwrap_err(), crate::storage::NoRoom::Closed);
}

#[test]
fn what_a_failed_journal_did_not_take_nobody_sees() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let group = bench.append(&[(bench.partition(1, 0), b"g")], ATOMIC, &[[9; 8]]).unwrap();
    let behind = bench.put(1, 0, b"behind");
    // The first flush is the segment's, for what lies before the group.
    fail(&bench.disk, Call::Sync, 2);
    assert_eq!(bench.storage.commit_step(), Step::Failed);
    assert!(!bench.acked(&group) && !bench.acked(&behind));
    assert_eq!(bench.values(1, 0), [(0, b"a".to_vec())]);
}

/// A group of two whose second write fails takes the first one back whole: what its record held, where a later batch
/// happens to end, is nothing the next start may find.
#[test]
fn a_batch_taken_back_leaves_nothing_behind_the_next() {
    let bench = Bench::new();
    bench.declare(1, 2, Level::Os);
    bench.put(1, 0, b"a");
    bench.put(1, 1, b"b");
    bench.storage.commit_step();
    let inner = payload(b"never appended");
    let header = annals_wire::header::BatchHeader {
        base_offset: 2,
        leader_epoch: bench.storage.epoch(),
        record_count: 1,
        records_crc32: crc32fast::hash(&inner),
        ..Default::default()
    };
    let mut value = b"c".to_vec();
    // A record this long has two more bytes of lengths in front of it than a short one.
    value.resize(8 - 2, 0);
    value.extend(header.encode(inner.len(), &topic(1), 0));
    value.extend_from_slice(&inner);
    value.resize(200, 0);
    fail(&bench.disk, Call::Write, 2);
    let both = [(bench.partition(1, 0), &value[..]), (bench.partition(1, 1), &b"d"[..])];
    assert!(bench.append(&both, WEAK, &[]).is_err());
    bench.put(1, 0, b"01234567");
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0), [(0, b"a".to_vec()), (1, b"01234567".to_vec())]);
}

#[test]
fn what_is_appended_while_the_journal_closes_is_neither_acked_nor_seen() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Os);
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let bytes = [payload(b"late")];
    let partition = bench.partition(1, 0);
    let room = bench.storage.reserve(16 * 1024, Class::Data).unwrap();
    let append = Append {
        partition: &partition,
        payload: &bytes,
        payload_len: bytes[0].len(),
        record_count: 1,
        max_timestamp_ms: 0,
        timestamps_missing: true,
        records_crc32: crc32fast::hash(&bytes[0]),
        attributes: Attributes(0),
        expected_next_offset: None,
        sequence: None,
    };
    // Closing comes between the first look and the queue.
    let mut close = |_: &[Appended]| {
        bench.storage.close();
        Vec::new()
    };
    let receipt = bench.storage.append(room, &[append], WEAK, &mut close).unwrap();
    assert!(!bench.acked(&receipt), "the last snapshot may be written already");
    assert_eq!(partition.high_watermark(), 1);
    assert!(!bench.snapshot(true), "a snapshot may not show it either");
}

#[test]
fn a_lowered_level_counts_once_it_is_durable() {
    for committed in [false, true] {
        let bench = Bench::new();
        bench.declare(1, 1, Level::Fsync);
        bench.put(1, 0, b"a");
        bench.storage.commit_step();
        bench.declare(1, 1, Level::Os);
        let weak = bench.put(1, 0, b"b");
        assert!(!bench.acked(&weak), "a start would hold the topic to fsync, and not look for the batch");
        assert_eq!(bench.partition(1, 0).high_watermark(), 1);
        if committed {
            bench.storage.commit_step();
            assert!(bench.acked(&weak));
            assert_eq!(bench.partition(1, 0).high_watermark(), 2);
        }
        let bench = bench.reopen().unwrap();
        assert_eq!(bench.values(1, 0).len(), if committed { 2 } else { 1 });
    }
}

/// Asks where a partition ends, as a machine with commits in it does.
#[derive(Default)]
struct Asks(Option<i64>);

impl Machine for Asks {
    fn restore(&mut self, _: &Section) -> Result<(), String> {
        Ok(())
    }
    fn apply(&mut self, _: u64, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn lower_commits(&mut self, end: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        self.0 = end(key(1, 0));
        Vec::new()
    }
    fn capture(&self, _: u64) -> Vec<Section> {
        Vec::new()
    }
}

#[test]
fn commits_are_not_lowered_to_the_end_of_a_partition_that_did_not_open() {
    let mut closed = 0;
    for nth in 1..=8 {
        let bench = Bench::new();
        bench.declare(1, 1, Level::Os);
        bench.put(1, 0, b"a");
        bench.storage.commit_step();
        bench.put(1, 0, b"b");
        let disk = bench.disk.clone();
        drop(bench);
        fail(&disk, Call::Sync, nth);
        let (clock, mut asks) = (Arc::new(ManualClock::new(1_700_000_000_000, 9)), Asks::default());
        let Ok((storage, _)) = Storage::open(Arc::new(disk), clock, roomy(), &mut asks) else { continue };
        let opened = storage.partition(key(1, 0)).unwrap().closed_because().is_none();
        assert_eq!(asks.0, opened.then_some(2), "flush {nth} failed");
        closed += u64::from(!opened);
    }
    assert!(closed > 0, "some flush of a start is a segment's");
}

#[test]
fn a_sync_point_that_finds_no_room_is_asked_for_again() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Interval);
    bench.storage.commit_step();
    bench.put(1, 0, b"a");
    bench.storage.commit_step();
    let all: Vec<_> = std::iter::from_fn(|| bench.storage.reserve(8192, Class::Control).ok()).collect();
    assert!(!all.is_empty());
    bench.clock.advance(std::time::Duration::from_millis(150));
    assert_eq!(bench.storage.interval_step(), 0, "nothing could be asked for");
    drop(all);
    bench.clock.advance(std::time::Duration::from_millis(150));
    assert_eq!(bench.storage.interval_step(), 1);
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).entered_offset(), 1);
}

#[test]
fn what_cannot_be_read_back_for_the_journal_is_given_up_and_not_entered_as_damage() {
    for read_fails in [false, true] {
        let bench = Bench::new();
        bench.declare(1, 1, Level::Os);
        bench.put(1, 0, b"a");
        bench.storage.commit_step();
        let strong = bench.append(&[(bench.partition(1, 0), b"b")], STRONG, &[]).unwrap();
        fail(&bench.disk, Call::View, 1);
        if read_fails {
            fail(&bench.disk, Call::Read, 1);
        }
        assert_eq!(bench.storage.commit_step(), Step::Committed);
        assert_eq!(bench.acked(&strong), !read_fails);
        assert_eq!(bench.partition(1, 0).is_fenced(), read_fails);
        // The disk was never at fault but for that moment: nothing may say later that it is.
        let bench = bench.reopen().unwrap();
        assert_eq!(bench.report.damages, [""; 0]);
        assert_eq!(bench.values(1, 0).len(), 2);
    }
}

#[test]
fn without_a_file_to_open_a_seal_is_left_out_and_fences_nobody() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    for _ in 0..3 {
        bench.put(1, 0, &[7; 2000]);
        bench.storage.commit_step();
    }
    let error = std::io::Error::from(rustix::io::Errno::MFILE);
    let partition = bench.partition(1, 0);
    let segment = Arc::clone(&partition.segments()[0]);
    bench.storage.seal_failed(&partition, &segment, &error);
    assert!(!partition.is_fenced());
    bench.storage.seal_failed(&partition, &segment, &rustix::io::Errno::IO.into());
    assert!(partition.is_fenced());
}
