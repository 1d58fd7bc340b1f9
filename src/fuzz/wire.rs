//! Headers, payloads, the edges of segments, packed records, names: what `annals-wire` reads in place.

use annals_wire::{
    compress::{self, pack, unpack, unpack_batch},
    header::{self, BATCH_PREFIX_LEN, HEADER_LEN, HeaderError},
    ids::TopicId,
    limits::{MAX_NAME_BYTES, MAX_STORED_BODY_BYTES},
    names::{check_group_name, check_topic_name},
    segment::{SegmentIdentity, SegmentSummary},
    slice::Batch,
    trim::trim_to,
    v1::{self, Codec},
    walk::{Reason, WalkRules, walk, walk_each},
};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    grpc::fuzz::pieces,
    storage::fuzz::{PARTITION, TOPIC},
};

/// The fixed header in front of a stored batch.
pub(super) fn batch_header(input: &[u8]) -> bool {
    let verified = header::verify_header(input, &TOPIC, PARTITION);
    let Ok(found) = header::decode(input) else {
        assert!(verified.is_err());
        return false;
    };
    let (prefix, header) = (&input[..BATCH_PREFIX_LEN], found.header);
    assert!(found.batch_len <= MAX_STORED_BODY_BYTES + 5);
    let again = header.encode(found.payload_len(), &TOPIC, PARTITION);
    assert_eq!(again[..BATCH_PREFIX_LEN - 5], prefix[..BATCH_PREFIX_LEN - 5]);
    let stock = v1::RecordBatch::decode(&prefix[5..]).expect("a header is protobuf");
    assert_eq!(
        (stock.base_offset, stock.last_offset_delta, stock.record_count, stock.attributes),
        (header.base_offset, header.last_offset_delta, header.record_count, header.attributes.0)
    );
    assert_eq!((stock.append_time_ms, stock.header_crc32), (header.append_time_ms, found.header_crc32));
    match verified {
        Ok(verified) => assert!(verified == found && again == prefix),
        Err(HeaderError::NotUnderstood(bits)) => assert!(bits != 0 && again == prefix),
        Err(HeaderError::HeaderCrc) => assert_ne!(again, prefix),
        Err(other) => panic!("{other} of a header that decodes"),
    }
    let whole = header::verify_batch(input, &TOPIC, PARTITION).is_ok();
    assert!(!whole || (verified.is_ok() && input.len() >= found.batch_len));
    whole
}

/// A run of records.
pub(super) fn payload_walk(input: &[u8]) -> bool {
    let (whole, pieces) = ([Bytes::copy_from_slice(input)], pieces(input));
    let [client, stored] = [WalkRules::CLIENT, WalkRules::STORED].map(|rules| {
        let verdict = walk(&whole, &rules);
        assert_eq!(walk(&pieces, &rules), verdict, "in pieces");
        let mut end = 0;
        let each = walk_each(&pieces, &rules, |span| {
            assert_eq!(span.start, end, "a record begins where the one before it ends");
            end += span.len;
        });
        assert_eq!(each, verdict, "with hashes");
        assert!(verdict.is_err() || end == input.len());
        verdict
    });
    if let Ok(walked) = stored {
        let stock = v1::RecordBatch::decode(input).expect("a stock decoder reads what is accepted");
        assert_eq!(stock.encode_to_vec(), input, "a stub encodes it to the same bytes");
        let keyed = stock.records.iter().filter(|record| record.key.is_some()).count();
        let newest = stock.records.iter().filter_map(|record| record.timestamp_ms).max();
        assert_eq!((walked.record_count as usize, walked.keyed as usize), (stock.records.len(), keyed));
        assert_eq!(walked.max_timestamp_ms, newest.unwrap_or(0));
        assert_eq!((walked.bytes, walked.crc32), (input.len() as u64, crc32fast::hash(input)));
    }
    match client.map_err(|malformed| malformed.reason) {
        Ok(_) => assert_eq!(client, stored, "what a producer may send may be stored"),
        Err(
            Reason::OffsetDelta
            | Reason::NotServed
            | Reason::HeaderReserved
            | Reason::RecordTooLarge { .. }
            | Reason::RunTooLarge { .. }
            | Reason::TooManyRecords { .. },
        ) => {}
        Err(_) => assert!(stored.is_err()),
    }
    client.is_ok()
}

/// Offsets, keys and values of a batch as it lies in a file, if they can be read.
fn records_of(batch: &[u8]) -> Option<Vec<(i64, Vec<u8>)>> {
    let lead = batch.get(5..)?;
    let batch = Batch::parse(&Bytes::copy_from_slice(lead)).ok()?.unpacked().ok()?;
    let records: Result<Vec<_>, _> = batch
        .records()
        .ok()?
        .map(|record| record.map(|record| (record.offset, record.as_bytes().to_vec())))
        .collect();
    records.ok()
}

/// A whole batch, cut at each of its offsets and unpacked.
pub(super) fn stored_batch(input: &[u8]) -> bool {
    let Ok(decoded) = header::verify_batch(input, &TOPIC, PARTITION) else { return false };
    let (header, stored) = (decoded.header, &input[..decoded.batch_len]);
    let payload = Bytes::copy_from_slice(&stored[BATCH_PREFIX_LEN..]);
    // Records whose offsets do not ascend have never been stored: where to cut them is not defined.
    let records = records_of(stored).filter(|records| records.is_sorted_by(|a, b| a.0 < b.0));
    for from in (header.base_offset..=header.last_offset().unwrap()).take(12) {
        let Ok(trimmed) = trim_to(input, &TOPIC, PARTITION, from) else { continue };
        let rest = &stored[trimmed.payload_in(stored.len())];
        let cut = [&trimmed.prefix, rest].concat();
        let again = header::verify_batch(&cut, &TOPIC, PARTITION).expect("what is cut verifies");
        assert_eq!((again.header, again.batch_len), (trimmed.header, cut.len()));
        assert_eq!(trimmed.header.next_offset(), header.next_offset());
        if let (Some(before), Some(after)) = (&records, records_of(&cut)) {
            let left: Vec<_> = before.iter().filter(|(offset, _)| *offset >= from).cloned().collect();
            assert!(from == header.base_offset || left == after, "cut at {from}: {left:?}, {after:?}");
        }
    }
    assert!(trim_to(input, &TOPIC, PARTITION, header.next_offset().unwrap()).is_err());
    if let Ok(plain) = unpack_batch(&header, &payload, &TOPIC, PARTITION, CAP) {
        assert!(plain.payload.len() <= CAP);
        let plain = [&plain.prefix[..], &plain.payload].concat();
        header::verify_batch(&plain, &TOPIC, PARTITION).expect("what is unpacked verifies");
        if let (Some(before), Some(after)) = (records, records_of(&plain)) {
            assert_eq!(before, after);
        }
    }
    true
}

/// Header and footer of a segment file.
pub(super) fn segment_edges(input: &[u8]) -> bool {
    let first = SegmentIdentity::verify(input).map(|identity| {
        assert!(input.starts_with(&identity.encode()));
        let stock = v1::LogSlice::decode(&identity.encode()[..]).expect("a header is protobuf");
        assert_eq!(stock.segment.expect("it is field 14").base_offset, identity.base_offset);
    });
    let last = SegmentSummary::verify(input).map(|summary| {
        assert!(input.starts_with(&summary.encode()));
        let stock = v1::LogSlice::decode(&summary.encode()[..]).expect("a footer is protobuf");
        assert_eq!(stock.sealed.expect("it is field 15").file_crc32, summary.file_crc32);
    });
    assert!(first.is_err() || last.is_err(), "nothing is both");
    first.is_ok() || last.is_ok()
}

/// What packed records may unpack to here.
const CAP: usize = 64 << 10;

fn packed(codec: Codec, input: &[u8]) -> bool {
    let whole = unpack(codec, &[Bytes::copy_from_slice(input)], CAP);
    let cut = unpack(codec, &pieces(input), CAP);
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut, "in pieces"),
        (Err(_), Err(_)) => {}
        _ => panic!("{whole:?}, but in pieces {cut:?}"),
    }
    let Ok(plain) = whole else { return false };
    assert!(plain.len() <= CAP);
    // Packing is dear: a few of them will do.
    if crc32fast::hash(input).is_multiple_of(64) {
        let again = pack(codec, &plain).expect("memory is there");
        assert_eq!(unpack(codec, &[Bytes::from(again)], CAP).expect("our own"), plain);
    }
    // One byte less than it needs is too little.
    if let Some(less) = plain.len().checked_sub(1) {
        let refused = unpack(codec, &[Bytes::copy_from_slice(input)], less);
        assert_eq!(refused, Err(compress::UnpackError::TooLarge { cap: less }));
    }
    true
}

/// One frame of LZ4.
pub(super) fn packed_lz4(input: &[u8]) -> bool {
    packed(Codec::Lz4, input)
}

/// One frame of Zstandard.
pub(super) fn packed_zstd(input: &[u8]) -> bool {
    packed(Codec::Zstd, input)
}

/// Names of topics and groups, and ids as text.
pub(super) fn names(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let verdict = check_topic_name(text);
    assert_eq!(check_group_name(text), verdict);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let good = (1..=MAX_NAME_BYTES).contains(&input.len())
        && input.iter().all(plain)
        && !matches!(text, "." | "..")
        && !text.starts_with("__");
    assert_eq!(verdict.is_ok(), good, "{verdict:?}");
    if let Err(why) = &verdict {
        assert!(why.to_string().len() < 200);
    }
    let id = TopicId::parse(text);
    if let Some(id) = id {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    good || id.is_some()
}

const _: () = assert!(HEADER_LEN + 5 == BATCH_PREFIX_LEN);
