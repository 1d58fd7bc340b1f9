//! The scrubber, step by step.

use std::time::Duration;

use super::*;
use crate::{
    metrics,
    storage::{disk::Access, scrub::PAUSE},
};

/// A partition of several sealed segments, read by nobody since the start.
fn cold() -> Bench {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.declare(2, 3, Level::Fsync);
    for n in 0..40_u8 {
        bench.put(1, 0, &[n; 700]);
        bench.put(2, 2, &[n; 900]);
        bench.storage.commit_step();
        while bench.storage.upkeep_step() {}
    }
    assert!(bench.snapshot(true));
    bench.reopen().unwrap()
}

/// One pass; returns its steps and the bytes they read.
fn pass(bench: &Bench, bytes: u64) -> (u64, u64) {
    let (mut steps, mut sum) = (0, 0);
    loop {
        match bench.storage.scrub_step(bytes) {
            0 => return (steps, sum),
            read => (steps, sum) = (steps + 1, sum + read),
        }
        assert!(steps < 10_000, "the scrubber does not come to an end");
    }
}

fn sealed_bytes(bench: &Bench) -> u64 {
    let of = |partition: Arc<Partition>| {
        let segments = partition.segments();
        let sealed = segments.iter().take(segments.len() - 1);
        sealed.map(|segment| segment.end() - crate::storage::segment::DATA_START).sum::<u64>()
    };
    of(bench.partition(1, 0)) + of(bench.partition(2, 2))
}

#[test]
fn a_clean_directory_is_read_whole_and_makes_no_noise() {
    let bench = cold();
    let views = bench.disk.calls(Call::View);
    let (steps, read) = pass(&bench, 2000);
    assert_eq!(read, sealed_bytes(&bench), "every sealed byte once");
    assert!(steps > read / 4000, "in small steps: {steps}");
    assert_eq!(bench.disk.calls(Call::View), views, "by calls, not through maps");
    assert!(bench.partition(1, 0).damages().is_empty() && bench.partition(2, 2).damages().is_empty());
    assert_eq!(pass(&bench, 2000), (0, 0), "then it rests");
    bench.clock.advance(PAUSE + Duration::from_millis(1));
    let passes = metrics::read().scrub_passes;
    assert_eq!(pass(&bench, 1 << 20).1, read, "and begins again");
    assert!(metrics::read().scrub_passes > passes);
}

#[test]
fn a_bit_that_rots_is_found_before_a_reader_needs_it() {
    let bench = cold();
    let partition = bench.partition(2, 2);
    // Once read, so known good; then it rots.
    assert_eq!(values_of(&partition).len(), 40);
    let segment = Arc::clone(&partition.segments()[3]);
    let file = bench.disk.open(&segment.id().path(), Access::Write).unwrap();
    let at = crate::storage::segment::DATA_START + 81 + 400;
    file.write_at(&[b"\xEE"], at).unwrap();
    let lost = segment.base;
    assert!(partition.read(lost, 1 << 20, false).is_ok(), "verified once since it was loaded");
    let before = metrics::read();
    pass(&bench, 3000);
    assert_eq!(partition.damages(), [(lost, lost)]);
    assert!(metrics::read().damaged_ranges > before.damaged_ranges);
    match partition.read(lost, 1 << 20, false) {
        Err(crate::storage::ReadError::Damaged { first, last }) => assert_eq!((first, last), (lost, lost)),
        other => panic!("a reader is given it: {other:?}"),
    }
    let read = partition.read(lost - 1, 1 << 20, true).unwrap();
    assert_eq!(read.gaps.len(), 1);
    assert!(!partition.is_fenced() && bench.partition(1, 0).damages().is_empty());
    bench.put(2, 2, b"goes on");
}

#[test]
fn headers_that_rot_and_files_that_go_cost_no_more_than_themselves() {
    let bench = cold();
    let partition = bench.partition(1, 0);
    let segments = partition.segments();
    let (header, gone) = (&segments[1], &segments[4]);
    let file = bench.disk.open(&header.id().path(), Access::Write).unwrap();
    file.write_at(&[b"\xEE"], crate::storage::segment::DATA_START + 20).unwrap();
    gone.close_if_clean();
    bench.disk.remove(&gone.id().path()).unwrap();
    pass(&bench, 1 << 20);
    assert_eq!(partition.damages(), [(header.base, header.base), (gone.base, segments[5].base - 1)]);
    assert!(bench.partition(2, 2).damages().is_empty());
}

#[test]
fn a_topic_that_goes_meanwhile_is_left() {
    let bench = cold();
    assert!(bench.storage.scrub_step(1) > 0);
    for n in [1, 2] {
        let room = bench.storage.reserve(8192, Class::Control).unwrap();
        bench.storage.submit(room, vec![Change::Remove { topic: topic(n) }]).unwrap();
    }
    bench.storage.commit_step();
    while bench.storage.upkeep_step() {}
    assert_eq!(pass(&bench, 1), (0, 0));
}
