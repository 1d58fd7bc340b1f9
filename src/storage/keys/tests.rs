//! The index against a plain list of the same records, and against every way to spoil its bytes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};

use super::*;

const SUBJECT: Subject<'_> =
    Subject { owner: Owner { partition: b"topic 7, partition 3", generation: 2 }, base: 100, file_crc32: 77 };

/// Key and offset less the base.
type Records = Vec<(u32, u32)>;

fn postings(records: &Records, chunks: usize) -> Postings {
    let mut out = Postings::default();
    for chunk in records.chunks(records.len().div_ceil(chunks).max(1)) {
        let mut packed: Vec<u64> = chunk
            .iter()
            .map(|(key, offset)| u64::from(fingerprint(&key.to_le_bytes())) << 32 | u64::from(*offset))
            .collect();
        packed.reverse();
        out = out.merged(&Postings::of(&mut packed, 0));
    }
    out
}

fn look(file: &[u8], key: u32) -> Option<Found> {
    let head = Head::read(file, SUBJECT)?;
    let fingerprint = fingerprint(&key.to_le_bytes());
    let Some((place, first)) = head.block_of(fingerprint) else { return Some(Found::Nowhere) };
    let place = usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap();
    head.find(file.get(place)?, first, fingerprint)
}

/// Rising offsets of a few keys.
fn records(most: usize) -> impl Strategy<Value = Records> {
    vec((prop_oneof![0_u32..4, 0_u32..2000], 1_u32..9), 0..most).prop_map(|steps| {
        let mut offset = 0;
        steps
            .into_iter()
            .map(|(key, step)| {
                offset += step;
                (key, offset)
            })
            .collect()
    })
}

fn holds(found: &Found, offset: u32) -> bool {
    match found {
        Found::Nowhere => false,
        Found::Everywhere => true,
        Found::Ranges(ranges) => ranges.iter().any(|range| range.contains(&u64::from(offset))),
    }
}

proptest! {
    #[test]
    fn what_is_there_is_found_and_nothing_is_made_up(
        records in records(3000),
        chunks in 1_usize..5,
        log_bytes in 0_u64..100_000,
    ) {
        let offsets = records.last().map_or(0, |last| u64::from(last.1) + 1);
        let anchors: Vec<u32> = (0..u32::try_from(offsets.div_ceil(ANCHOR_STEP)).unwrap()).map(|n| n * 7).collect();
        let file = encode(postings(&records, chunks), &anchors, SUBJECT, log_bytes, offsets);
        let keys: BTreeSet<u32> = records.iter().map(|record| record.0).collect();
        let most = (log_bytes / LOG_SHARE).max(KEY_BYTES * keys.len() as u64) + FIXED_BYTES;
        prop_assert!(file.len() as u64 <= most, "{} of {most}", file.len());
        for (key, offset) in &records {
            let found = look(&file, *key).unwrap();
            prop_assert!(holds(&found, *offset), "{key} at {offset}: {found:?}");
        }
        for key in 2000..2050 {
            prop_assert_eq!(look(&file, key), Some(Found::Nowhere));
        }
    }

    /// Room for all of it: granules are single offsets, and lists are exact.
    #[test]
    fn with_room_enough_it_is_exact(records in records(500), chunks in 1_usize..5) {
        let mut truth: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for (key, offset) in &records {
            truth.entry(*key).or_default().insert(u64::from(*offset));
        }
        let file = encode(postings(&records, chunks), &[], SUBJECT, 1 << 30, 1 << 20);
        for (key, offsets) in truth {
            let Some(Found::Ranges(ranges)) = look(&file, key) else { panic!("key {key}") };
            prop_assert_eq!(ranges.into_iter().flatten().collect::<BTreeSet<_>>(), offsets);
        }
    }

    #[test]
    fn in_chunks_or_at_once_it_is_the_same(records in records(2000), chunks in 2_usize..9) {
        prop_assert_eq!(postings(&records, chunks), postings(&records, 1));
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..200), key: u32) {
        let _nothing = look(&bytes, key);
        if let Some(start) = bytes.first_chunk_mut::<16>() {
            start[..8].copy_from_slice(&MAGIC);
            start[8..12].copy_from_slice(&VERSION.to_le_bytes());
        }
        let _nothing = look(&bytes, key);
        let head = Head { crc: 1, shift: 31, keys: 1, directory: vec![(0, 0)], blocks_len: 9, anchors: 3 };
        let sealed = [&block_crc(1, &bytes).to_le_bytes()[..], &bytes].concat();
        let _nothing = head.find(&sealed, 0, key);
        let _nothing = head.anchors(&sealed, u64::from(key)).map(Iterator::count);
    }
}

#[test]
fn one_bit_more_or_less_is_doubt_and_never_absence() {
    let records: Records = (0..3000).map(|n| (n * n % 700, n)).collect();
    let file = encode(postings(&records, 1), &[], SUBJECT, 1 << 20, 3000);
    let keys = [0, 1, 4, 9, 699];
    let truth = keys.map(|key| look(&file, key));
    let mut spoilt = file.clone();
    for at in 0..file.len() {
        for bit in [1, 0x80] {
            spoilt[at] ^= bit;
            for (key, truth) in keys.iter().zip(&truth) {
                let found = look(&spoilt, *key);
                assert!(found.is_none() || found == *truth, "byte {at}, key {key}");
            }
            spoilt[at] ^= bit;
        }
    }
    for len in 0..file.len() {
        for (key, truth) in keys.iter().zip(&truth) {
            let found = look(&file[..len], *key);
            assert!(found.is_none() || found == *truth, "cut at {len}, key {key}");
        }
    }
}

fn anchors_at(file: &[u8], relative: u64) -> Option<Vec<(u64, u32)>> {
    let head = Head::read(file, SUBJECT)?;
    let (place, offsets) = head.anchors_of(relative)?;
    let run = file.get(usize::try_from(place.start).unwrap()..usize::try_from(place.end).unwrap())?;
    Some(head.anchors(run, offsets.start)?.collect())
}

#[test]
fn anchors_are_found_by_offset_or_doubted() {
    let truth = |n: u32| (u64::from(n) * ANCHOR_STEP, n * 11);
    let mut anchors: Vec<u32> = (0..2500).map(|n| truth(n).1).collect();
    anchors[1030] = NO_ANCHOR;
    let file = encode(postings(&vec![(1, 1)], 1), &anchors, SUBJECT, 1 << 20, 160_000);
    for (offset, run) in [(0, 0..1024), (65_535, 0..1024), (65_536, 1024..2048), (159_999, 2048..2500)] {
        let expected: Vec<_> = run.filter(|n| *n != 1030).map(truth).collect();
        assert_eq!(anchors_at(&file, offset), Some(expected), "{offset}");
    }
    assert_eq!(anchors_at(&file, 160_000), None, "behind the last");
    let mut spoilt = file.clone();
    let last = spoilt.len() - 1;
    spoilt[last] ^= 1;
    assert_eq!(anchors_at(&spoilt, 159_999), None);
    assert_eq!(anchors_at(&spoilt, 0), anchors_at(&file, 0), "each run is checked by itself");
    assert_eq!(anchors_at(&file[..last], 159_999), None);
}

#[test]
fn another_segment_s_index_is_none() {
    let file = encode(postings(&vec![(1, 1)], 1), &[], SUBJECT, 1 << 20, 3);
    assert!(Head::read(&file, SUBJECT).is_some());
    let owner = SUBJECT.owner;
    for other in [
        Subject { base: 101, ..SUBJECT },
        Subject { file_crc32: 78, ..SUBJECT },
        Subject { owner: Owner { generation: 3, ..owner }, ..SUBJECT },
        Subject { owner: Owner { partition: b"topic 7, partition 4", ..owner }, ..SUBJECT },
    ] {
        assert_eq!(Head::read(&file, other), None);
    }
}

#[test]
fn a_key_that_is_nearly_everywhere_takes_no_room() {
    let everywhere: Records = (0..10_000).map(|n| (u32::from(n % 2 == 0), n)).collect();
    let file = encode(postings(&everywhere, 3), &[], SUBJECT, 1 << 20, 10_000);
    assert!(file.len() < 100, "{}", file.len());
    assert_eq!(look(&file, 0), Some(Found::Everywhere));
    assert_eq!(look(&file, 5), Some(Found::Nowhere));
}

#[test]
fn an_empty_index_says_that_there_is_nothing() {
    let file = encode(Postings::default(), &[], SUBJECT, 0, 0);
    assert_eq!(file.len(), HEADER_LEN);
    assert_eq!(look(&file, 1), Some(Found::Nowhere));
}
