//! Bytes that somebody made on purpose: records that look like something else, batches that no broker of ours writes.

use annals_wire::{
    header::{BATCH_PREFIX_LEN, BatchHeader},
    segment::{SEGMENT_FOOTER_LEN, SegmentSummary},
};

use super::*;
use crate::storage::{
    disk::Access,
    partition::Recovered,
    producers::Windows,
    segment::{DATA_START, Segment},
};

/// A batch of one topic whose offsets are as given.
fn batch(base_offset: i64, last_offset: i64, sound: bool) -> Vec<u8> {
    let payload = payload(format!("{base_offset} to {last_offset}").as_bytes());
    let header = BatchHeader {
        base_offset,
        last_offset_delta: u32::try_from(last_offset - base_offset).unwrap(),
        leader_epoch: 1,
        record_count: u32::try_from(last_offset - base_offset + 1).unwrap(),
        attributes: Attributes(0),
        append_time_ms: 0,
        max_timestamp_ms: 0,
        producer_id: 0,
        producer_epoch: 0,
        base_sequence: 0,
        records_crc32: crc32fast::hash(&payload) ^ u32::from(!sound),
    };
    [&header.encode(payload.len(), &topic(1), 0)[..], &payload].concat()
}

/// What a reader is given of a segment with such batches, read after read: first and last offset, and whether they are there.
fn read(batches: &[(i64, i64, bool)], next_offset: i64, most: usize) -> Vec<(i64, i64, bool)> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let segment = Arc::new(Segment::closed(&disk, key(1, 0), 0, 0));
    for dir in ["topics", &format!("topics/{}", topic(1)), &key(1, 0).dir()] {
        disk.create_dir(dir).unwrap();
    }
    let file = disk.create(&segment.id().path()).unwrap();
    let bytes: Vec<u8> = batches.iter().flat_map(|(base, last, sound)| batch(*base, *last, *sound)).collect();
    file.write_at(&[&bytes], DATA_START).unwrap();
    segment.set_end_known(DATA_START + bytes.len() as u64);
    let found = Recovered {
        barrier: 0,
        log_start: 0,
        next_offset,
        segments: vec![segment],
        epochs: Vec::new(),
        append_time_ms: 0,
        producers: Windows::default(),
    };
    let partition = Partition::recovered(key(1, 0), settings(Level::Fsync), 1, found);
    let (mut out, mut from) = (Vec::new(), 0);
    while from < next_offset {
        let read = partition.read(from, most, true).unwrap();
        assert!(read.next_offset > from && read.next_offset <= next_offset, "{from}: {read:?}");
        out.extend(read.gaps.iter().map(|gap| (gap.first, gap.last, false)));
        for mut run in read.batches {
            while !run.is_empty() {
                let found = annals_wire::header::verify_batch(&run, &topic(1), 0).unwrap();
                out.push((found.header.base_offset, found.header.next_offset().unwrap() - 1, true));
                run = run.slice(found.batch_len..);
            }
        }
        from = read.next_offset;
    }
    out.sort_unstable();
    out
}

#[test]
fn a_reader_never_goes_back_whatever_offsets_a_file_has() {
    // In order.
    assert_eq!(read(&[(0, 4, true), (5, 6, true)], 7, 9000), [(0, 4, true), (5, 6, true)]);
    // One that lies wholly behind is passed over, sound or not.
    for sound in [false, true] {
        let batches = [(0, 4, true), (1, 3, sound), (0, 4, sound), (5, 6, true)];
        assert_eq!(read(&batches, 7, 9000), [(0, 4, true), (5, 6, true)]);
    }
    // One that begins within another is nothing that we wrote.
    assert_eq!(
        read(&[(0, 4, true), (3, 6, true), (7, 7, true)], 8, 9000),
        [(0, 4, true), (5, 6, false), (7, 7, true)]
    );
    // One that reaches beyond the end is not shown, nor is the end moved.
    for sound in [false, true] {
        assert_eq!(read(&[(0, 4, true), (5, 900, sound)], 7, 9000), [(0, 4, true), (5, 6, false)]);
    }
    // A batch at a time.
    assert_eq!(read(&[(0, 4, true), (1, 2, true), (5, 6, true)], 7, 1), [(0, 4, true), (5, 6, true)]);
}

/// A record that ends as a sealed segment does.
fn ends_like_a_footer() -> Vec<u8> {
    let footer = SegmentSummary {
        batch_count: 1,
        record_count: 1,
        last_offset: 1,
        last_epoch: 1,
        max_timestamp_ms: 0,
        file_crc32: 0,
    };
    [&[7; 100][..], &footer.encode()].concat()
}

#[test]
fn a_record_that_ends_like_a_footer_at_the_end_of_a_file_is_a_record() {
    let bench = Bench::new();
    bench.declare(1, 1, Level::Fsync);
    bench.put(1, 0, b"a");
    let value = ends_like_a_footer();
    bench.put(1, 0, &value);
    bench.storage.commit_step();
    assert!(payload(&value).ends_with(&value[100..]), "the value is the last thing in a batch");
    // A power cut that takes the length of the file and what lies there: the start writes the batch again, at the very end.
    let segment = Arc::clone(&bench.partition(1, 0).segments()[0]);
    let (path, end) = (segment.id().path(), segment.end());
    bench.disk.open(&path, Access::Write).unwrap().set_len(end - (BATCH_PREFIX_LEN + 150) as u64).unwrap();
    let bench = bench.reopen().unwrap();
    let length = bench.disk.open(&path, Access::Read).unwrap().len().unwrap();
    assert!(length >= end + SEGMENT_FOOTER_LEN as u64, "the room of a footer stays free: {end} of {length}");
    // It rolls, and the end comes before it is sealed.
    bench.put(1, 0, &[8; 3900]);
    bench.storage.commit_step();
    assert_eq!(bench.partition(1, 0).segments().len(), 2);
    assert!(bench.snapshot(false));
    let bench = bench.reopen().unwrap();
    assert_eq!(bench.values(1, 0)[1], (1, value));
    assert_eq!(bench.values(1, 0).len(), 3);
}
