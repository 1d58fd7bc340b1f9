use super::*;
use crate::header::{Attributes, verify_batch};
use crate::slice::Batch;
use crate::testing::{PARTITION, TOPIC, run_of, some_records, stored, stored_with, with_holes};
use crate::v1::Record;
use bytes::Bytes;
use proptest::prelude::*;

/// What is left of a batch, as it would be sent.
fn cut(batch: &[u8], from: i64) -> Result<Vec<u8>, TrimError> {
    let trimmed = trim_to(batch, &TOPIC, PARTITION, from)?;
    let batch_len = header::decode(batch).unwrap().batch_len;
    Ok([trimmed.prefix.as_slice(), &batch[trimmed.payload_in(batch_len)]].concat())
}

/// Offsets and bytes of the records of a stored batch.
fn records_of(batch: &[u8]) -> Vec<(i64, Vec<u8>)> {
    verify_batch(batch, &TOPIC, PARTITION).unwrap();
    let batch = Batch::parse(&Bytes::copy_from_slice(batch).slice(5..)).unwrap();
    batch
        .records()
        .unwrap()
        .map(Result::unwrap)
        .map(|record| (record.offset, record.as_bytes().to_vec()))
        .collect()
}

#[test]
fn only_plain_records_that_verify_are_cut() {
    let batch = stored(10, vec![Record::default(); 3]);
    assert_eq!(cut(&batch, 13), Err(TrimError::Beyond(13)));
    assert_eq!(trim_to(&batch, &TOPIC, 9, 11), Err(TrimError::Damaged(HeaderError::HeaderCrc)));
    let short = trim_to(&batch[..batch.len() - 1], &TOPIC, PARTITION, 11);
    assert_eq!(
        short,
        Err(TrimError::Damaged(HeaderError::Short { have: batch.len() - 1, need: batch.len() }))
    );
    let mut damaged = batch.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for from in [0, 10, 11, 12] {
        assert_eq!(cut(&damaged, from), Err(TrimError::Damaged(HeaderError::PayloadCrc)));
    }
    for flags in [1, 1 << 4, 1 << 6] {
        let header = BatchHeader {
            record_count: 2,
            last_offset_delta: 1,
            attributes: Attributes(flags),
            ..BatchHeader::default()
        };
        let batch = stored_with(header, b"\x72\x01x");
        assert_eq!(cut(&batch, 1), Err(TrimError::NotPlain));
        assert_eq!(cut(&batch, 0), Ok(batch));
    }
    let lying = BatchHeader { record_count: 3, last_offset_delta: 2, ..BatchHeader::default() };
    assert_eq!(cut(&stored_with(lying, b"\x7a\x00"), 2), Err(TrimError::Records));
    assert_eq!(cut(&stored_with(lying, b"\x7a\x05"), 2), Err(TrimError::Records));
}

#[test]
fn sequences_go_with_offsets() {
    let header = BatchHeader {
        base_offset: 10,
        record_count: 3,
        last_offset_delta: 2,
        producer_id: 4,
        base_sequence: u32::MAX,
        ..BatchHeader::default()
    };
    let batch = stored_with(header, b"\x7a\x00\x7a\x00\x7a\x00");
    let trimmed = trim_to(&batch, &TOPIC, PARTITION, 12).unwrap();
    assert_eq!((trimmed.header.base_sequence, trimmed.skip), (1, 4));
    assert_eq!((trimmed.header.base_offset, trimmed.header.next_offset()), (12, Some(13)));
    let none = BatchHeader { producer_id: 0, base_sequence: 0, ..header };
    let batch = stored_with(none, b"\x7a\x00\x7a\x00\x7a\x00");
    assert_eq!(trim_to(&batch, &TOPIC, PARTITION, 12).unwrap().header.base_sequence, 0);
}

proptest! {
    #[test]
    fn the_rest_is_what_it_was(records in some_records(8), base in 0_i64..1000, at in 0_i64..10, behind: Vec<u8>) {
        let mut batch = stored(base, records.clone());
        let all = records_of(&batch);
        batch.extend(behind);
        let from = base + at - 1;
        if at > i64::try_from(records.len()).unwrap() {
            prop_assert_eq!(cut(&batch, from), Err(TrimError::Beyond(from)));
            return Ok(());
        }
        let rest = cut(&batch, from).unwrap();
        let want: Vec<_> = all.into_iter().filter(|&(offset, _)| offset >= from).collect();
        prop_assert_eq!(records_of(&rest), want);
        let (was, is) = (header::decode(&batch).unwrap().header, header::decode(&rest).unwrap().header);
        prop_assert_eq!(was.next_offset(), is.next_offset());
        prop_assert_eq!(is.base_offset, from.max(base));
        if from <= base {
            prop_assert_eq!(&rest, &batch[..rest.len()]);
        }
    }

    #[test]
    fn holes_keep_their_base(records in some_records(9), keep in 1_usize..4, at in 0_i64..9) {
        let (header, kept) = with_holes(records, keep);
        let batch = stored_with(header, &run_of(kept));
        let all = records_of(&batch);
        let from = header.base_offset + at.min(i64::from(header.last_offset_delta));
        let rest = cut(&batch, from).unwrap();
        let want: Vec<_> = all.into_iter().filter(|&(offset, _)| offset >= from).collect();
        prop_assert_eq!(records_of(&rest), want);
        let is = header::decode(&rest).unwrap().header;
        prop_assert_eq!((is.base_offset, is.base_sequence), (header.base_offset, header.base_sequence));
        prop_assert_eq!(is.next_offset(), header.next_offset());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, payload in proptest::collection::vec(any::<u8>(), 0..60), count in 1_u32..6, from in 0_i64..6, flags in 0_u32..64) {
        let _ = trim_to(&bytes, &TOPIC, PARTITION, from);
        let header = BatchHeader {
            record_count: count, last_offset_delta: count - 1, attributes: Attributes(flags), ..BatchHeader::default()
        };
        let _ = trim_to(&stored_with(header, &payload), &TOPIC, PARTITION, from);
    }
}
