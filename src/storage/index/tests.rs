//! The index against a plain scan of the same batches.

use proptest::prelude::*;

use super::*;

const OWNER: Owner<'_> = Owner { partition: b"topic 7, partition 3", generation: 2 };

#[derive(Clone, Copy, Debug)]
struct Batch {
    base_offset: i64,
    position: u64,
    max_timestamp_ms: i64,
}

/// Batches one behind the other, from lengths, offsets spanned and timestamps.
fn log(base: i64, parts: &[(u16, u16, i64)]) -> Vec<Batch> {
    let (mut offset, mut position) = (base, 100);
    let mut batches = Vec::new();
    for (length, span, time) in parts {
        batches.push(Batch { base_offset: offset, position, max_timestamp_ms: *time });
        offset += i64::from(*span) + 1;
        position += u64::from(*length) + 1;
    }
    batches
}

fn index_of(base: i64, step: u32, batches: &[Batch]) -> SparseIndex {
    let mut index = SparseIndex::new(base, step);
    for batch in batches {
        index.push(batch.base_offset, batch.position, batch.max_timestamp_ms);
    }
    index
}

fn parts() -> impl Strategy<Value = Vec<(u16, u16, i64)>> {
    prop::collection::vec((0..3_000_u16, 0..20_u16, -50..50_i64), 0..200)
}

proptest! {
    /// A scan from where the index points finds what a scan of everything finds, and is short.
    #[test]
    fn a_scan_from_there_finds_it(base in 0..1_000_i64, step in 0..10_000_u32, parts in parts()) {
        let batches = log(base, &parts);
        let index = index_of(base, step, &batches);
        let end = batches.last().map_or(base, |last| last.base_offset + 30);
        for offset in base - 2..end {
            let truth = batches.iter().rposition(|batch| batch.base_offset <= offset);
            let from = index.lookup(offset);
            prop_assert_eq!(from.is_some(), truth.is_some());
            if let (Some(from), Some(truth)) = (from, truth) {
                let start = batches.iter().position(|batch| batch.position == from);
                let start = start.expect("a batch begins where the index points");
                prop_assert!(start <= truth);
                // Were a batch more than a step behind the entry, it would have an entry of its own.
                prop_assert!(start == truth || batches[truth].position - from < u64::from(step));
            }
        }
        for time in -52..52 {
            let truth = batches.iter().position(|batch| batch.max_timestamp_ms >= time);
            let from = index.lookup_time(time);
            prop_assert_eq!(from.is_some(), !batches.is_empty());
            if let Some(from) = from {
                let found = batches.iter().position(|batch| batch.position >= from && batch.max_timestamp_ms >= time);
                prop_assert_eq!(found, truth);
                let until = truth.map_or(u64::MAX, |truth| batches[truth].position);
                let entries = batches.iter().filter(|batch| index.last_at_or_before(batch.position) == Some(batch.position));
                let nearest = entries.map(|batch| batch.position).filter(|position| *position <= until).max();
                prop_assert_eq!(Some(from), nearest, "no nearer entry would have done");
            }
        }
    }

    /// An index made in two halves is the one made in one go.
    #[test]
    fn two_halves_make_a_whole(base in 0..1_000_i64, parts in parts(), cut in 0..200_usize) {
        let batches = log(base, &parts);
        let (early, late) = batches.split_at(cut.min(batches.len()));
        let mut joined = index_of(base, 4_096, early);
        joined.append(&index_of(base, 4_096, late));
        let whole = index_of(base, 4_096, &batches);
        prop_assert_eq!(joined.newest, whole.newest);
        for batch in &batches {
            let from = joined.lookup(batch.base_offset).unwrap();
            prop_assert!(batch.position - from < 4_096 || batch.position == from);
        }
        for time in -52..52 {
            let truth = batches.iter().find(|batch| batch.max_timestamp_ms >= time);
            if let (Some(truth), Some(from)) = (truth, joined.lookup_time(time)) {
                prop_assert!(from <= truth.position);
            }
        }
    }

    #[test]
    fn files_bring_back_the_same_index(base in 0..i64::MAX / 2, parts in parts()) {
        let index = index_of(base, 1_000, &log(base, &parts));
        let (offsets, times) = (index.encode_offsets(OWNER), index.encode_times(OWNER));
        prop_assert_eq!(SparseIndex::decode(base, 1_000, OWNER, &offsets, &times), Some(index));
    }

    #[test]
    fn no_bytes_make_it_panic(offsets: Vec<u8>, times: Vec<u8>) {
        prop_assert_eq!(SparseIndex::decode(0, 1, OWNER, &offsets, &times), None);
    }
}

impl SparseIndex {
    fn last_at_or_before(&self, position: u64) -> Option<u64> {
        self.last_where(|entry| u64::from(entry.position) <= position)
    }
}

fn sample() -> SparseIndex {
    index_of(500, 1_000, &log(500, &[(900, 3, 10), (900, 0, 30), (900, 5, 20), (900, 0, 40), (900, 1, 35)]))
}

#[test]
fn an_example() {
    let index = sample();
    let kept: Vec<_> =
        index.entries.iter().map(|entry| (entry.relative, entry.position, entry.newest_before)).collect();
    assert_eq!(kept, [(0, 100, i64::MIN), (5, 1_902, 30), (12, 3_704, 40)]);
    assert_eq!(index.lookup(499), None);
    assert_eq!(index.lookup(504), Some(100));
    assert_eq!(index.lookup(505), Some(1_902));
    assert_eq!(index.lookup(i64::MAX), Some(3_704));
    assert_eq!(index.lookup(i64::MIN), None);
    assert_eq!(index.lookup_time(30), Some(100), "30 lies in the second batch, before the second entry");
    assert_eq!(index.lookup_time(31), Some(1_902));
    assert_eq!(index.lookup_time(41), Some(3_704));
    assert_eq!(index.lookup_time(i64::MIN), None);
    assert_eq!(index.last_position(), Some(3_704));
    assert_eq!(SparseIndex::new(0, 1).last_position(), None);
}

#[test]
fn what_does_not_fit_or_goes_back_gets_no_entry_but_counts_as_time() {
    let mut index = SparseIndex::new(10, 1);
    for (offset, position) in [(9, 5), (i64::MIN, 5), (10 + (1 << 32), 5), (11, 1 << 32)] {
        index.push(offset, position, 77);
    }
    assert!(index.entries.is_empty());
    index.push(20, 50, 5);
    for (offset, position) in [(20, 60), (19, 60), (21, 50), (21, 49)] {
        index.push(offset, position, 78);
    }
    index.push(21, 60, 0);
    let times: Vec<_> = index.entries.iter().map(|entry| entry.newest_before).collect();
    assert_eq!(times, [77, 78]);
    assert_eq!(index.newest, 78);
}

#[test]
fn any_flipped_bit_any_cut_and_any_addition_is_a_doubt() {
    let index = sample();
    let good = [index.encode_offsets(OWNER).to_vec(), index.encode_times(OWNER).to_vec()];
    let decode = |files: &[Vec<u8>; 2]| SparseIndex::decode(500, 1_000, OWNER, &files[0], &files[1]);
    assert_eq!(decode(&good), Some(index));
    for file in 0..2 {
        for bit in 0..good[file].len() * 8 {
            let mut bad = good.clone();
            bad[file][bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), None, "file {file}, bit {bit}");
        }
        for length in 0..good[file].len() {
            let mut bad = good.clone();
            bad[file].truncate(length);
            assert_eq!(decode(&bad), None, "file {file}, cut at {length}");
        }
        let mut bad = good.clone();
        bad[file].extend([0; 12]);
        assert_eq!(decode(&bad), None, "zeros behind file {file}");
    }
    assert_eq!(decode(&[good[1].clone(), good[0].clone()]), None, "the wrong way round");
}

#[test]
fn a_file_of_another_segment_is_a_doubt() {
    let index = sample();
    let (offsets, times) = (index.encode_offsets(OWNER), index.encode_times(OWNER));
    let other_partition = Owner { partition: b"topic 7, partition 4", ..OWNER };
    let other_generation = Owner { generation: 3, ..OWNER };
    assert_eq!(SparseIndex::decode(501, 1_000, OWNER, &offsets, &times), None);
    assert_eq!(SparseIndex::decode(500, 1_000, other_partition, &offsets, &times), None);
    assert_eq!(SparseIndex::decode(500, 1_000, other_generation, &offsets, &times), None);
    let mut longer = index.clone();
    longer.push(900, 90_000, 50);
    assert_eq!(SparseIndex::decode(500, 1_000, OWNER, &longer.encode_offsets(OWNER), &times), None);
}

/// Files whose crc holds, but which no index could have written.
#[test]
fn entries_out_of_order_are_a_doubt() {
    let swap = |index: &SparseIndex| {
        SparseIndex::decode(500, 1_000, OWNER, &index.encode_offsets(OWNER), &index.encode_times(OWNER))
    };
    let good = sample();
    let spoilt: [fn(&mut SparseIndex); 5] = [
        |index| index.entries.swap(0, 1),
        |index| index.entries[1].relative = 0,
        |index| index.entries[1].position = 100,
        |index| index.entries[1].newest_before = i64::MAX,
        |index| index.newest = 0,
    ];
    for spoil in spoilt {
        let mut bad = good.clone();
        spoil(&mut bad);
        assert_eq!(swap(&bad), None, "{bad:?}");
    }
}
