use super::*;
use crate::header::{Attributes, decode, verify_batch};
use crate::slice::Batch;
use crate::testing::{PARTITION, TOPIC, run_of, some_records, stored, stored_with, with_holes};
use crate::v1::Record;
use bytes::Bytes;
use proptest::prelude::*;

/// What is picked of a stored batch, as it would be sent.
fn picked(
    batch: &[u8],
    places: &[Range<i64>],
    wanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Option<Vec<Vec<u8>>>, TrimError> {
    picked_by(batch, places, &[], wanted)
}

fn picked_by(
    batch: &[u8],
    places: &[Range<i64>],
    anchors: &[Anchor],
    wanted: impl FnMut(&RecordRef<'_>) -> bool,
) -> Result<Option<Vec<Vec<u8>>>, TrimError> {
    let header = decode(batch).unwrap().header;
    let payload = &batch[BATCH_PREFIX_LEN..];
    let looks = Looks { places, anchors, verified: false };
    Ok(match pick(&header, payload, &TOPIC, PARTITION, looks, wanted)? {
        Picked::Whole => None,
        Picked::Parts(parts) => Some(
            parts
                .iter()
                .map(|part| {
                    let records = part.records.iter().map(|range| &payload[range.clone()]);
                    let sent =
                        std::iter::once(part.prefix.as_slice()).chain(records).collect::<Vec<_>>().concat();
                    assert_eq!(records_of(&sent).first().map(|record| record.0), Some(part.first_offset));
                    sent
                })
                .collect(),
        ),
    })
}

/// Offsets and bytes of the records of a stored batch, as a reader finds them.
fn records_of(batch: &[u8]) -> Vec<(i64, Vec<u8>)> {
    verify_batch(batch, &TOPIC, PARTITION).unwrap();
    let batch = Batch::parse(&Bytes::copy_from_slice(batch).slice(5..)).unwrap();
    let records = batch.records().unwrap().map(Result::unwrap);
    records.map(|record| (record.offset, record.as_bytes().to_vec())).collect()
}

const ALL: Range<i64> = 0..i64::MAX;

#[test]
fn runs_carry_their_offsets_and_sequences() {
    let header = BatchHeader {
        base_offset: 10,
        record_count: 5,
        last_offset_delta: 4,
        producer_id: 7,
        base_sequence: u32::MAX,
        ..BatchHeader::default()
    };
    let batch = stored_with(header, &b"\x7a\x00".repeat(5));
    let looks = Looks { places: std::slice::from_ref(&ALL), anchors: &[], verified: false };
    let payload = &batch[BATCH_PREFIX_LEN..];
    let picked = pick(&header_of(&batch), payload, &TOPIC, PARTITION, looks, |record| record.offset != 12);
    let Ok(Picked::Parts(parts)) = picked else { panic!("one is left out: {picked:?}") };
    let numbers = |part: &Part| {
        let header = part.header;
        (header.base_offset, header.record_count, header.last_offset_delta, header.base_sequence)
    };
    assert_eq!(parts.iter().map(numbers).collect::<Vec<_>>(), [(10, 2, 1, u32::MAX), (13, 2, 1, 2)]);
    let places: Vec<_> = parts.iter().flat_map(|part| part.records.clone()).collect();
    assert_eq!(places, [0..4, 6..10]);
}

fn header_of(batch: &[u8]) -> BatchHeader {
    decode(batch).unwrap().header
}

#[test]
fn what_is_outside_the_places_is_not_even_read() {
    let batch = stored(10, vec![Record::default(); 5]);
    let mut read = Vec::new();
    let places = [0..10, 11..12, 13..14];
    let parts = picked(&batch, &places, |record| {
        read.push(record.offset);
        true
    });
    assert_eq!(parts.unwrap().unwrap().len(), 2);
    assert_eq!(read, [11, 13]);
    assert_eq!(picked(&batch, &[], |_| true), Ok(Some(vec![])));
    assert_eq!(picked(&batch, &[0..10, 15..90], |_| true), Ok(Some(vec![])));
    assert_eq!(picked(&batch, &[0..10, 10..15], |_| true), Ok(None), "all of it");
}

/// Every `step`th record's place, counted from offset 0.
fn anchors(batch: &[u8], step: i64) -> Vec<Anchor> {
    let header = header_of(batch);
    let (payload, mut at, mut anchors) = (&batch[BATCH_PREFIX_LEN..], 0, Vec::new());
    for index in 0..i64::from(header.record_count) {
        let offset = header.base_offset + index;
        if offset % step == 0 {
            anchors.push(Anchor { offset, at: u32::try_from(at).unwrap() });
        }
        at += next_record(&payload[at..]).unwrap().0;
    }
    anchors
}

#[test]
fn anchors_that_lead_astray_are_noticed() {
    let records = (0..40).map(|n| Record { value: Some(vec![7; n % 5].into()), ..Record::default() });
    let batch = stored(100, records.collect());
    let right = anchors(&batch, 8);
    assert_eq!(right.iter().map(|anchor| anchor.offset).collect::<Vec<_>>(), [104, 112, 120, 128, 136]);
    let look = |anchors: &[Anchor], place: i64| {
        let place = place..place + 1;
        let looks = Looks { places: std::slice::from_ref(&place), anchors, verified: true };
        let mut read = Vec::new();
        let picked =
            pick(&header_of(&batch), &batch[BATCH_PREFIX_LEN..], &TOPIC, PARTITION, looks, |record| {
                read.push(record.offset);
                true
            });
        (picked, read)
    };
    for place in 100..140 {
        let (without, with) = (look(&[], place), look(&right, place));
        assert_eq!(with, without, "{place}");
        assert_eq!(with.1, [place]);
        // Each of them, one byte off in both directions: whoever begins at it, or arrives at it, notices.
        for (index, anchor) in right.iter().enumerate() {
            for at in [anchor.at - 1, anchor.at + 1] {
                let mut wrong = right.clone();
                wrong[index].at = at;
                let (picked, _) = look(&wrong, place);
                let used = place >= 104 && (anchor.offset - 8..anchor.offset + 8).contains(&place);
                assert!(picked == without.0 || picked == Err(TrimError::Astray), "{place}: {picked:?}");
                assert!(!used || picked == Err(TrimError::Astray), "{place} at {anchor:?}: {picked:?}");
            }
        }
    }
    // Those of other batches do no harm.
    let others = [(4, 1), (96, 3), (140, 0), (144, 9)].map(|(offset, at)| Anchor { offset, at });
    for place in [100, 120, 139] {
        assert_eq!(look(&others, place), look(&[], place));
        let both: Vec<_> = right.iter().chain(&others[2..]).copied().collect();
        assert_eq!(look(&both, place), look(&[], place));
    }
}

#[test]
fn only_plain_records_that_verify_are_picked() {
    let batch = stored(10, vec![Record::default(); 3]);
    let mut damaged = batch.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(picked(&damaged, &[ALL], |_| true), Err(TrimError::Damaged(HeaderError::PayloadCrc)));
    assert_eq!(picked(&damaged, &[ALL], |_| false), Err(TrimError::Damaged(HeaderError::PayloadCrc)));
    for flags in [1, 1 << 4, 1 << 6] {
        let attributes = Attributes(flags);
        let header = BatchHeader { record_count: 1, attributes, ..BatchHeader::default() };
        assert_eq!(picked(&stored_with(header, b"\x72\x01x"), &[ALL], |_| true), Err(TrimError::NotPlain));
    }
    let lying = BatchHeader { record_count: 3, last_offset_delta: 2, ..BatchHeader::default() };
    assert_eq!(picked(&stored_with(lying, b"\x7a\x00"), &[ALL], |_| true), Err(TrimError::Records));
}

proptest! {
    #[test]
    fn what_is_sent_is_what_was_wanted(
        records in some_records(12),
        wanted: u16,
        keep in 0_usize..4,
        step in 1_i64..9,
        from in 0_i64..12,
        len in 0_i64..14,
    ) {
        let base = 100;
        let batch = match keep {
            0 => stored(base, records),
            keep => {
                let (header, kept) = with_holes(records, keep);
                stored_with(header, &run_of(kept))
            }
        };
        let place = base + from..base + from + len;
        let wants = |offset: i64| wanted >> ((offset - base) % 16) & 1 == 1;
        let expected: Vec<_> = records_of(&batch)
            .into_iter()
            .filter(|(offset, _)| place.contains(offset) && wants(*offset))
            .collect();
        let places = [base - 5..base - 1, place.clone()];
        let anchors = anchors(&batch, step);
        let sent = picked_by(&batch, &places, &anchors, |record| wants(record.offset)).unwrap();
        let sent = sent.unwrap_or_else(|| vec![batch.clone()]);
        let found: Vec<_> = sent.iter().flat_map(|batch| records_of(batch)).collect();
        prop_assert_eq!(&found, &expected);
        // Batches follow each other as they do in a log.
        if header_of(&batch).attributes.holes() {
            prop_assert!(sent.len() <= 1);
        } else {
            for pair in sent.windows(2) {
                prop_assert!(header_of(&pair[0]).next_offset() <= Some(header_of(&pair[1]).base_offset));
            }
        }
    }
}
