//! Records as bytes: how they are built, checked and read, each beside what a generated codec would do.
//!
//! `cargo bench --bench wire`

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a bench: what does not hold must stop it"
)]
#![allow(missing_docs, reason = "the macros of criterion make functions without")]

use std::{hint::black_box, time::Duration};

use annals_wire::{
    builder::{BatchBuilder, RecordParts},
    header::BatchHeader,
    ids::TopicId,
    slice::{Slice, Subscribed},
    v1,
    walk::{WalkRules, walk},
};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;

const TOPIC: TopicId = TopicId([7; 16]);
const BATCH: usize = 256 << 10;
const SIZES: [usize; 3] = [10, 100, 1024];

fn values(size: usize) -> Vec<Vec<u8>> {
    (0..BATCH / (size + 8)).map(|n| vec![n as u8; size]).collect()
}

fn built(values: &[Vec<u8>]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for value in values {
        let none: [(&str, Option<&[u8]>); 0] = [];
        builder
            .push(RecordParts { key: None, value: Some(value), headers: none, timestamp_ms: None })
            .unwrap();
    }
    builder.finish().bytes
}

/// The same with the generated structs.
fn built_by_prost(values: &[Vec<u8>]) -> Vec<u8> {
    let record =
        |value: &Vec<u8>| v1::Record { value: Some(Bytes::copy_from_slice(value)), ..Default::default() };
    v1::ProduceRequest { records: values.iter().map(record).collect(), ..Default::default() }.encode_to_vec()
}

/// Checked by decoding, as a server with generated stubs does; stored by encoding.
fn checked_by_prost(run: &Bytes) -> (u32, Vec<u8>) {
    let request = v1::ProduceRequest::decode(run.clone()).unwrap();
    assert!(request.records.iter().all(|record| record.headers.iter().all(|header| !header.key.is_empty())));
    let stored = v1::RecordBatch { records: request.records, ..Default::default() }.encode_to_vec();
    (crc32fast::hash(&stored), stored)
}

/// A message of a subscription with one batch.
fn message(values: &[Vec<u8>]) -> Bytes {
    let run = built(values);
    let header = BatchHeader {
        last_offset_delta: values.len() as u32 - 1,
        record_count: values.len() as u32,
        records_crc32: crc32fast::hash(&run),
        ..BatchHeader::default()
    };
    let batch = [header.encode(run.len(), &TOPIC, 0).as_slice(), &run].concat();
    let slice = v1::LogSlice {
        topic: "t".into(),
        topic_id: Bytes::copy_from_slice(TOPIC.as_bytes()),
        next_offset: values.len() as i64,
        ..Default::default()
    };
    // The batch is field 1 of the slice with its own tag in front, and may come last.
    let slice = [slice.encode_to_vec(), batch].concat();
    let mut out = vec![0x0A];
    prost::encoding::encode_varint(slice.len() as u64, &mut out);
    out.extend_from_slice(&slice);
    out.into()
}

fn read(message: &Bytes) -> usize {
    let Subscribed::Slice(slice) = Subscribed::parse(message).unwrap() else { panic!("a slice") };
    let each = |slice: &Slice| -> usize {
        slice
            .batches()
            .map(|batch| {
                let batch = batch.unwrap();
                batch.verify_in(slice).unwrap();
                batch
                    .records()
                    .unwrap()
                    .map(|record| black_box(record.unwrap()).value.unwrap().len())
                    .sum::<usize>()
            })
            .sum()
    };
    each(&slice)
}

fn read_by_prost(message: &Bytes) -> usize {
    let response = v1::SubscribeResponse::decode(message.clone()).unwrap();
    let Some(v1::subscribe_response::Event::Slice(slice)) = response.event else { panic!("a slice") };
    slice
        .batches
        .iter()
        .map(|batch| {
            // The checksum is over encoded records, so they have to be encoded for it.
            let records = v1::RecordBatch { records: batch.records.clone(), ..Default::default() };
            assert_eq!(crc32fast::hash(&records.encode_to_vec()), batch.records_crc32);
            batch.records.iter().map(|record| black_box(record).value.as_ref().unwrap().len()).sum::<usize>()
        })
        .sum()
}

/// A byte at a time, by table.
fn crc_by_table(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xFF;
        (crc >> 8) ^ table.get(index as usize).unwrap()
    })
}

fn table() -> [u32; 256] {
    std::array::from_fn(|n| {
        (0..8).fold(n as u32, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

fn benches(criterion: &mut Criterion) {
    for size in SIZES {
        let values = values(size);
        let run = built(&values);
        assert_eq!(run, built_by_prost(&values));
        let message = message(&values);
        assert_eq!(read(&message), read_by_prost(&message));
        let bytes = Throughput::Bytes(run.len() as u64);
        let mut compare = |what: &str, ours: &mut dyn FnMut(), naive: &mut dyn FnMut()| {
            let mut group = criterion.benchmark_group(what);
            group.throughput(bytes.clone());
            group.bench_function(BenchmarkId::new("ours", size), |bencher| bencher.iter(&mut *ours));
            group.bench_function(BenchmarkId::new("prost", size), |bencher| bencher.iter(&mut *naive));
            group.finish();
        };
        compare("encode a batch", &mut || drop(black_box(built(&values))), &mut || {
            drop(black_box(built_by_prost(&values)));
        });
        compare(
            "check a batch",
            &mut || {
                black_box(walk(std::slice::from_ref(&run), &WalkRules::CLIENT).unwrap());
            },
            &mut || drop(black_box(checked_by_prost(&run))),
        );
        compare(
            "read a batch",
            &mut || {
                black_box(read(&message));
            },
            &mut || {
                black_box(read_by_prost(&message));
            },
        );
    }
    let (table, bytes) = (table(), vec![7; BATCH]);
    assert_eq!(crc_by_table(&table, &bytes), crc32fast::hash(&bytes));
    let mut group = criterion.benchmark_group("crc32");
    group.throughput(Throughput::Bytes(BATCH as u64));
    group.bench_function("ours", |bencher| bencher.iter(|| crc32fast::hash(black_box(&bytes))));
    group.bench_function("by table", |bencher| bencher.iter(|| crc_by_table(&table, black_box(&bytes))));
    group.finish();
}

criterion_group! {
    name = wire;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = benches
}
criterion_main!(wire);
