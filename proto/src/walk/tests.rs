use super::*;
use crate::murmur2::murmur2;
use crate::testing::{any_cuts, any_records, run_of, split};
use crate::v1::{Header, Record, RecordBatch};
use proptest::prelude::*;
use prost::Message as _;

fn one(bytes: &[u8]) -> Result<Walked, Malformed> {
    walk(&[Bytes::copy_from_slice(bytes)], &WalkRules::CLIENT)
}

/// The verdict on a record with the given body, whole and in pieces of one byte.
fn body(body: &[u8], origin: Origin) -> Result<Walked, Reason> {
    let run = [&[RECORD_TAG, u8::try_from(body.len()).unwrap()], body].concat();
    let rules = WalkRules { origin, ..WalkRules::CLIENT };
    let whole = walk(&split(&run, &[]), &rules);
    let pieces = walk(&split(&run, &vec![1; run.len()]), &rules);
    assert_eq!(whole, pieces, "{body:x?}");
    whole.map_err(|malformed| malformed.reason)
}

#[test]
fn each_oddity_has_its_reason() {
    let cases: &[(&[u8], Reason)] = &[
        (b"\x0a\x02k", Reason::Truncated),
        (b"\x0a", Reason::Truncated),
        (b"\x0a\x81\x00k", Reason::Padded),
        (b"\x8a\x00\x01k", Reason::UnknownField),
        (b"\x42\x00", Reason::UnknownField),
        (b"\x02\x00", Reason::UnknownField),
        (b"\x08\x00", Reason::WireType),
        (b"\x22\x00", Reason::WireType),
        (b"\x12\x00\x0a\x00", Reason::Order),
        (b"\x0a\x00\x0a\x00", Reason::Repeated),
        (b"\x20\x01\x20\x01", Reason::Repeated),
        (b"\x20\x01\x1a\x03\x0a\x01h", Reason::Order),
        (b"\x20\x80\x00", Reason::Padded),
        (b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Reason::NegativeTime),
        (b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Reason::Overflow),
        (b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Reason::Overflow),
        (b"\x1a\x00", Reason::HeaderUnnamed),
        (b"\x1a\x02\x0a\x00", Reason::HeaderUnnamed),
        (b"\x1a\x03\x12\x01v", Reason::HeaderUnnamed),
        (b"\x1a\x03\x0a\x02h", Reason::Truncated),
        (b"\x1a\x03\x0a\x02hh", Reason::Truncated),
        (b"\x1a\x05\x0a\x01h\x12\x01vv", Reason::Truncated),
        (b"\x1a\x06\x0a\x01h\x0a\x01h", Reason::Repeated),
        (b"\x1a\x08\x0a\x01h\x12\x00\x12\x00x", Reason::Repeated),
        (b"\x1a\x05\x0a\x01h\x18\x01", Reason::UnknownField),
        (b"\x1a\x07\x0a\x01h\x12\x00\x18\x01", Reason::UnknownField),
        (b"\x1a\x03\x0a\x01\xff", Reason::HeaderNameUtf8),
        (b"\x1a\x0a\x0a\x08annals-x", Reason::HeaderReserved),
        (b"\x28\x01", Reason::OffsetDelta),
        (b"\x30\x01", Reason::NotServed),
        (b"\x38\x01", Reason::NotServed),
    ];
    for &(bytes, reason) in cases {
        assert_eq!(body(bytes, Origin::Client), Err(reason), "{bytes:x?}");
    }
}

#[test]
fn what_is_canonical_passes() {
    let cases: &[&[u8]] = &[
        b"",
        b"\x0a\x00\x12\x00",
        b"\x20\x00",
        b"\x1a\x03\x0a\x01h\x1a\x03\x0a\x01h\x20\x01",
        b"\x1a\x05\x0a\x01h\x12\x00",
        b"\x1a\x09\x0a\x07annals_",
    ];
    for &bytes in cases {
        assert!(body(bytes, Origin::Client).is_ok(), "{bytes:x?}");
        assert!(body(bytes, Origin::Stored).is_ok(), "{bytes:x?}");
    }
}

#[test]
fn stored_runs_may_carry_what_the_broker_wrote() {
    assert_eq!(
        body(b"\x28\x07", Origin::Stored).map(|walked| (walked.deltas, walked.last_delta)),
        Ok((1, 7))
    );
    assert!(body(b"\x1a\x0a\x0a\x08annals-x", Origin::Stored).is_ok());
    assert!(body(b"\x30\x01\x38\x02", Origin::Stored).is_ok());
    assert_eq!(body(b"\x28\xff\xff\xff\xff\x10", Origin::Stored), Err(Reason::Overflow));
    let falling = b"\x7a\x02\x28\x03\x7a\x02\x28\x03";
    let error = walk(&[Bytes::from_static(falling)], &WalkRules::STORED).unwrap_err();
    assert_eq!((error.record, error.reason), (1, Reason::DeltaOrder));
}

#[test]
fn a_header_name_has_at_most_255_bytes() {
    for (len, good) in [(255, true), (256, false)] {
        let header = Header { key: "n".repeat(len), value: None };
        let run = run_of(vec![Record { headers: vec![header], ..Record::default() }]);
        for cuts in [vec![], vec![1; run.len()]] {
            let verdict = walk(&split(&run, &cuts), &WalkRules::CLIENT).map_err(|malformed| malformed.reason);
            assert_eq!(verdict.is_ok(), good);
            assert!(good || verdict == Err(Reason::HeaderNameLong(256)));
        }
    }
}

#[test]
fn limits_hold_exactly() {
    let run = run_of(vec![Record { value: Some(vec![1; 98].into()), ..Record::default() }; 3]);
    assert_eq!(run.len(), 3 * 102);
    let at = WalkRules { max_record_bytes: 102, max_run_bytes: 306, max_records: 3, origin: Origin::Client };
    let reasons = [
        WalkRules { max_record_bytes: 101, ..at },
        WalkRules { max_run_bytes: 305, ..at },
        WalkRules { max_records: 2, ..at },
    ]
    .map(|rules| walk(&split(&run, &[]), &rules).unwrap_err().reason);
    assert_eq!(
        reasons,
        [
            Reason::RecordTooLarge { size: 102, limit: 101 },
            Reason::RunTooLarge { size: 306, limit: 305 },
            Reason::TooManyRecords { limit: 2 },
        ]
    );
    for cuts in [vec![], vec![1; 306], vec![100; 2]] {
        assert!(walk(&split(&run, &cuts), &at).is_ok());
        let error = walk(&split(&run, &cuts), &WalkRules { max_record_bytes: 101, ..at }).unwrap_err();
        assert_eq!((error.record, error.at), (0, 0));
    }
}

#[test]
fn large_records_with_lengths_of_every_width() {
    for size in [0, 1, 120, 130, 16_000, 17_000, 2_000_000, 2_200_000] {
        let run = run_of(vec![Record { value: Some(vec![7; size].into()), ..Record::default() }; 2]);
        for cuts in [vec![], vec![size / 2 + 1], vec![1; 7], vec![size + 3, 2, 2]] {
            let walked = walk(&split(&run, &cuts), &WalkRules::STORED).unwrap();
            assert_eq!((walked.record_count, walked.crc32), (2, crc32fast::hash(&run)));
        }
    }
}

#[test]
fn a_fault_says_where() {
    let error = one(b"\x7a\x06\x0a\x01k\x12\x01v\x7a\x03\x0a\x01k\x7a\x03\x08\x01k").unwrap_err();
    assert_eq!((error.record, error.at, error.reason), (2, 16, Reason::WireType));
    assert_eq!(error.to_string(), "record 2, byte 16 of the records: a field of the wrong wire type");
    assert_eq!(one(b"\x72\x00").unwrap_err().reason, Reason::NotARecord);
    assert_eq!(one(b"\x7a").unwrap_err().reason, Reason::Truncated);
    assert_eq!(one(b"\x7a\x05abc").unwrap_err().reason, Reason::Truncated);
    assert_eq!(one(b"\x7a\x80\x00").unwrap_err().reason, Reason::Padded);
    assert_eq!(one(b"\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap_err().reason, {
        Reason::RecordTooLarge { size: u64::MAX, limit: MAX_RECORD_BYTES as u64 }
    });
}

#[test]
fn nothing_is_a_run_too() {
    assert_eq!(walk(&[], &WalkRules::CLIENT), Ok(Walked::default()));
    assert_eq!(walk(&[Bytes::new(), Bytes::new()], &WalkRules::CLIENT), Ok(Walked::default()));
}

proptest! {
    /// What a stock encoder writes is taken, however it arrives, and told truly.
    #[test]
    fn stock_runs_pass(records in any_records(12), cuts in any_cuts()) {
        let run = run_of(records.clone());
        let chunks = split(&run, &cuts);
        let mut spans = Vec::new();
        let walked = walk_each(&chunks, &WalkRules::CLIENT, |span| spans.push(span)).unwrap();
        prop_assert_eq!(walk(&chunks, &WalkRules::CLIENT), Ok(walked));

        let times = records.iter().map(|record| record.timestamp_ms.unwrap_or(0));
        prop_assert_eq!(walked.record_count as usize, records.len());
        prop_assert_eq!(walked.bytes, run.len() as u64);
        prop_assert_eq!(walked.crc32, crc32fast::hash(&run));
        prop_assert_eq!(walked.max_timestamp_ms, times.clone().max().unwrap_or(0));
        prop_assert_eq!(walked.timestamps_missing, times.clone().any(|time| time == 0));
        prop_assert_eq!(walked.keyed as usize, records.iter().filter(|record| record.key.is_some()).count());
        prop_assert_eq!(spans.len(), records.len());
        let mut end = 0;
        for (span, record) in spans.iter().zip(records) {
            prop_assert_eq!(span.start, end);
            end += span.len;
            prop_assert_eq!(&run[span.start..end], &run_of(vec![record.clone()]));
            prop_assert_eq!(span.key_hash, record.key.as_deref().map(murmur2));
            prop_assert_eq!(span.timestamp_ms, record.timestamp_ms.unwrap_or(0));
        }
    }

    /// What passes is what a stock encoder would write again: the heart of being canonical.
    #[test]
    fn what_passes_is_encoded_to_the_same_bytes(
        records in any_records(4), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4), cuts in any_cuts(),
    ) {
        let mut run = run_of(records);
        for (at, byte) in damage {
            let len = run.len();
            if len != 0 {
                run[usize::from(at) % len] = byte;
            }
        }
        let rules = WalkRules { origin: Origin::Stored, ..WalkRules::CLIENT };
        let chunks = split(&run, &cuts);
        prop_assert_eq!(walk(&chunks, &rules), walk(&split(&run, &[]), &rules));
        if walk(&chunks, &rules).is_ok() {
            let decoded = RecordBatch::decode(run.as_slice()).unwrap();
            prop_assert_eq!(decoded.encode_to_vec(), run);
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cuts in any_cuts()) {
        let chunks = split(&bytes, &cuts);
        let _ = walk(&chunks, &WalkRules::CLIENT);
        let tagged = [&[RECORD_TAG, 40], bytes.as_slice()].concat();
        let _ = walk_each(&split(&tagged, &cuts), &WalkRules::STORED, |_| ());
    }
}
