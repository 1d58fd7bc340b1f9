//! Verdicts on runs of records of which one is odd. Each file is the bytes of a `RecordBatch`'s payload: good records around one that
//! breaks, or silently misleads, some stock decoder, or that a stub would encode to other bytes.

#![allow(clippy::unwrap_used, reason = "a test: to panic is its verdict")]

use std::fs;
use std::path::Path;

use annals_wire::request::{Payload, scan};
use annals_wire::walk::{Reason, WalkRules, walk};
use bytes::Bytes;

fn verdict_on(name: &str) -> Result<u32, Reason> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/poison").join(name).with_extension("bin");
    let run = fs::read(path).unwrap();
    let whole = walk(&[Bytes::from(run.clone())], &WalkRules::CLIENT);
    let pieces: Vec<_> = run.iter().map(|&byte| Bytes::from(vec![byte])).collect();
    assert_eq!(walk(&pieces, &WalkRules::CLIENT), whole, "{name}: in pieces");
    assert_eq!(walk(&pieces, &WalkRules::STORED).is_err(), whole.is_err(), "{name}: stored");
    // As a request: the scan either refuses it or hands the same bytes to the walk.
    match scan(&[Bytes::from(run)]).map(|scanned| scanned.payload) {
        Ok(Payload::Records(found)) => {
            assert_eq!(walk(&found, &WalkRules::CLIENT).is_err(), whole.is_err(), "{name}");
        }
        Ok(_) => panic!("{name}: no records"),
        Err(_) => assert!(whole.is_err(), "{name}: refused by the scan alone"),
    }
    whole.map(|walked| walked.record_count).map_err(|malformed| malformed.reason)
}

#[test]
fn verdicts() {
    let verdicts = [
        ("ok", Ok(3)),
        ("explicit_zero_ts", Ok(3)),
        ("nul_header_key", Ok(3)),
        ("dup_key", Err(Reason::Repeated)),
        ("explicit_empty_hdr", Err(Reason::HeaderUnnamed)),
        ("field_zero", Err(Reason::UnknownField)),
        ("inner_len_varint_5", Err(Reason::Padded)),
        ("inner_len_varint_6", Err(Reason::Padded)),
        ("len_varint_10", Err(Reason::Padded)),
        ("len_varint_5", Err(Reason::Padded)),
        ("len_varint_6", Err(Reason::Padded)),
        ("order_swapped", Err(Reason::Order)),
        ("outer_tag_varint_2", Err(Reason::NotARecord)),
        ("tag_varint_2", Err(Reason::UnknownField)),
        ("tag_varint_5", Err(Reason::UnknownField)),
        ("tag_varint_6", Err(Reason::UnknownField)),
        ("ts_negative", Err(Reason::NegativeTime)),
        ("ts_varint_10_ok", Err(Reason::Padded)),
        ("ts_varint_11", Err(Reason::Overflow)),
        ("two_batches_fields", Err(Reason::NotARecord)),
        ("uint32_overflow", Err(Reason::OffsetDelta)),
        ("unknown_group", Err(Reason::UnknownField)),
        ("unknown_group_open", Err(Reason::UnknownField)),
        ("unknown_varint", Err(Reason::UnknownField)),
        ("utf8_header_key", Err(Reason::HeaderNameUtf8)),
        ("utf8_surrogate_header_key", Err(Reason::HeaderNameUtf8)),
        ("wire_type_6", Err(Reason::WireType)),
        ("wire_type_wrong", Err(Reason::WireType)),
    ];
    for (name, verdict) in verdicts {
        assert_eq!(verdict_on(name), verdict, "{name}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/poison");
    assert_eq!(fs::read_dir(folder).unwrap().count(), verdicts.len(), "every file has a verdict");
}
