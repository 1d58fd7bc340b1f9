use super::*;
use crate::testing::{any_records, run_of};
use crate::v1::Record;
use crate::walk::{WalkRules, walk};
use proptest::prelude::*;

type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

fn parts(record: &Record) -> RecordParts<'_, Headers<'_>> {
    RecordParts {
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref())).collect(),
        timestamp_ms: record.timestamp_ms,
    }
}

fn value(value: &[u8]) -> RecordParts<'_, Headers<'static>> {
    RecordParts { key: None, value: Some(value), headers: Vec::new(), timestamp_ms: None }
}

#[test]
fn what_a_server_refuses_is_refused_before() {
    let mut builder = BatchBuilder::new(102, 200);
    assert_eq!(builder.push(value(&[0; 99])), Err(PushError::TooLarge { size: 103, limit: 102 }));
    assert_eq!(builder.push(value(&[0; 98])), Ok(()));
    assert_eq!(builder.push(value(&[0; 98])), Err(PushError::Full));
    assert_eq!((builder.len(), builder.count()), (102, 1));
    let named = |name: &'static str| RecordParts { headers: vec![(name, None)], ..value(b"") };
    assert_eq!(builder.push(named("")), Err(PushError::HeaderName { len: 0 }));
    assert_eq!(builder.push(named("annals-x")), Err(PushError::HeaderReserved));
    let past = RecordParts { timestamp_ms: Some(-1), ..value(b"") };
    assert_eq!(builder.push(past), Err(PushError::NegativeTime));
    assert_eq!(builder.finish().bytes.len(), 102);
    assert!(builder.is_empty());
    assert_eq!(builder.push(value(&[0; 98])), Ok(()));
}

#[test]
fn a_batch_has_a_largest_count() {
    let mut builder = BatchBuilder::default().with_capacity(1000);
    let nothing = RecordParts { value: None, ..value(b"") };
    for _ in 0..MAX_RECORDS_PER_BATCH {
        builder.push(nothing.clone()).unwrap();
    }
    assert_eq!(builder.push(nothing), Err(PushError::Full));
}

proptest! {
    /// Ours and the generated encoder write the same bytes, and a server takes them.
    #[test]
    fn same_bytes(records in any_records(10)) {
        let mut builder = BatchBuilder::default();
        for record in &records {
            builder.push(parts(record)).unwrap();
        }
        let run = builder.finish();
        let walked = walk(std::slice::from_ref(&run.bytes), &WalkRules::CLIENT).unwrap();
        prop_assert_eq!((walked.record_count, walked.crc32), (run.count, run.crc32));
        prop_assert_eq!(run.bytes, run_of(records));
    }
}
