//! What the tests of several modules need: records as any stub may send them, and bodies in pieces.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use crate::header::{Attributes, BatchHeader};
use crate::ids::TopicId;
use crate::v1::{Header, Record, RecordBatch};

fn any_bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn any_header() -> impl Strategy<Value = Header> {
    ("[a-z\u{e9}\0]{1,12}", option::of(any_bytes(20))).prop_map(|(key, value)| Header { key, value })
}

/// A record that a server takes.
pub(crate) fn any_record() -> impl Strategy<Value = Record> {
    let time = option::of(prop_oneof![Just(0), 0..i64::MAX, 1_600_000_000_000..1_800_000_000_000_i64]);
    let value = prop_oneof![8 => any_bytes(40), 1 => any_bytes(400)];
    (option::of(any_bytes(20)), option::of(value), vec(any_header(), 0..3), time).prop_map(
        |(key, value, headers, timestamp_ms)| Record {
            key,
            value,
            headers,
            timestamp_ms,
            ..Record::default()
        },
    )
}

pub(crate) fn any_records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    vec(any_record(), 0..most)
}

/// At least one record.
pub(crate) fn some_records(most: usize) -> impl Strategy<Value = Vec<Record>> {
    vec(any_record(), 1..most)
}

/// The run that a stock encoder makes of `records`.
pub(crate) fn run_of(records: Vec<Record>) -> Vec<u8> {
    RecordBatch { records, ..RecordBatch::default() }.encode_to_vec()
}

/// Where to cut a body: sizes of its pieces, the rest is one.
pub(crate) fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![Just(Vec::new()), vec(0_usize..30, 0..40), vec(Just(1_usize), 0..300)]
}

/// `bytes` in pieces of the sizes `cuts`, and the rest.
pub(crate) fn split(bytes: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let mut rest = bytes;
    let mut out = Vec::new();
    for &cut in cuts {
        let (piece, left) = rest.split_at(cut.min(rest.len()));
        out.push(Bytes::copy_from_slice(piece));
        rest = left;
    }
    out.push(Bytes::copy_from_slice(rest));
    out
}

pub(crate) const TOPIC: TopicId = TopicId([7; 16]);
pub(crate) const PARTITION: u32 = 5;

/// A batch of `records` as it lies in a file, from `base_offset` on.
pub(crate) fn stored(base_offset: i64, records: Vec<Record>) -> Vec<u8> {
    let count = u32::try_from(records.len()).unwrap();
    let header = BatchHeader {
        base_offset,
        last_offset_delta: count.saturating_sub(1),
        leader_epoch: 3,
        record_count: count,
        append_time_ms: 1_700_000_000_000,
        max_timestamp_ms: 1_700_000_000_001,
        ..BatchHeader::default()
    };
    stored_with(header, &run_of(records))
}

/// A batch of that header around `payload`, its checksum filled in.
pub(crate) fn stored_with(header: BatchHeader, payload: &[u8]) -> Vec<u8> {
    let header = BatchHeader { records_crc32: crc32fast::hash(payload), ..header };
    [header.encode(payload.len(), &TOPIC, PARTITION).as_slice(), payload].concat()
}

/// The payload of a batch with holes: every `keep`th of `records`, with their deltas.
pub(crate) fn with_holes(mut records: Vec<Record>, keep: usize) -> (BatchHeader, Vec<Record>) {
    let spanned = u32::try_from(records.len()).unwrap();
    for (delta, record) in records.iter_mut().enumerate() {
        record.offset_delta = u32::try_from(delta).ok();
    }
    let records: Vec<_> = records.into_iter().step_by(keep).collect();
    let header = BatchHeader {
        base_offset: 100,
        last_offset_delta: spanned.saturating_sub(1),
        record_count: u32::try_from(records.len()).unwrap(),
        attributes: Attributes::default().with_holes(),
        append_time_ms: 1_700_000_000_000,
        producer_id: 9,
        base_sequence: 50,
        ..BatchHeader::default()
    };
    (header, records)
}
