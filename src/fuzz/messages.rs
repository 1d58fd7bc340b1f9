//! Requests and answers that carry records: what is scanned in place, held against the generated decoders.

use annals_wire::{
    request::{Payload, ScanError, ScanReason, ScannedProduce, ScannedStep, scan, scan_step, scan_stream},
    slice::{Batch, FetchBody, Slice, Subscribed},
    v1::{self, subscribe_response::Event},
    walk::{WalkRules, walk},
};
use bytes::Bytes;
use prost::{DecodeError, Message as _};

use crate::grpc::fuzz::pieces;

/// The body of a produce call.
pub(super) fn produce_request(input: &[u8]) -> bool {
    let whole = scan(&[Bytes::copy_from_slice(input)]);
    judge(&whole, &scan(&pieces(input)), v1::ProduceRequest::decode(input))
}

/// A message of a stream of produce calls.
pub(super) fn produce_stream_request(input: &[u8]) -> bool {
    let whole = scan_stream(&[Bytes::copy_from_slice(input)]);
    let stock = v1::ProduceStreamRequest::decode(input).map(|stock| stock.append);
    if let Ok(None) = stock {
        assert!(whole.is_err());
        return false;
    }
    judge(&whole, &scan_stream(&pieces(input)), stock.map(Option::unwrap_or_default))
}

type Scanned = Result<ScannedProduce, ScanError>;

/// `cut`: the same bytes in pieces. `stock`: what the generated decoder makes of them.
fn judge(whole: &Scanned, cut: &Scanned, stock: Result<v1::ProduceRequest, DecodeError>) -> bool {
    let scanned = match (whole, cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(read(whole), read(cut), "in pieces");
            whole
        }
        (Err(whole), Err(cut)) => {
            assert_eq!(whole.reason, cut.reason, "in pieces");
            // Stricter than a stock decoder only where readers would be told something else.
            assert!(
                stock.is_err() || matches!(whole.reason, ScanReason::Padded | ScanReason::TwoPayloads),
                "{whole}, but {stock:?}"
            );
            return false;
        }
        _ => panic!("{whole:?}, but in pieces {cut:?}"),
    };
    match (stock, &scanned.payload) {
        (Ok(stock), payload) => {
            let records = match payload {
                Payload::None => Vec::new(),
                Payload::Compressed(packed) => {
                    assert_eq!(packed.content().to_bytes(), stock.compressed);
                    Vec::new()
                }
                Payload::Records(run) => {
                    v1::RecordBatch::decode(run.to_bytes()).expect("they decode as a whole").records
                }
            };
            assert_eq!(records, stock.records);
            let same = v1::ProduceRequest {
                topic: scanned.topic.clone(),
                partition: scanned.partition,
                durability: scanned.durability_number,
                expected_next_offset: scanned.expected_next_offset,
                producer: scanned.producer,
                records_crc32: scanned.records_crc32,
                codec: scanned.codec_number,
                request_id: scanned.request_id.clone(),
                compressed: stock.compressed.clone(),
                records: stock.records.clone(),
            };
            assert_eq!(same, stock);
            true
        }
        // A record is stepped over here and looked at by the walk: it is a record that the decoder refuses.
        (Err(error), Payload::Records(run)) => {
            let verdict = walk(run, &WalkRules { max_run_bytes: usize::MAX, ..WalkRules::STORED });
            assert!(verdict.is_err(), "{error}, but accepted");
            false
        }
        (Err(error), _) => panic!("{error}, but scanned: {scanned:?}"),
    }
}

/// Everything of a scanned call that can be compared.
fn read(scanned: &ScannedProduce) -> (String, Option<Bytes>) {
    let payload = match &scanned.payload {
        Payload::None => None,
        Payload::Records(run) => Some(run.to_bytes()),
        Payload::Compressed(packed) => Some(packed.field.to_bytes()),
    };
    let scanned = ScannedProduce { payload: Payload::None, ..scanned.clone() };
    (format!("{scanned:?}"), payload)
}

/// The body of a read-process-write step.
pub(super) fn step_request(input: &[u8]) -> bool {
    let whole = scan_step(&[Bytes::copy_from_slice(input)]);
    let cut = scan_step(&pieces(input));
    let stock = v1::AppendAndCommitRequest::decode(input);
    let scanned = match (whole, cut) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(read_step(&whole), read_step(&cut), "in pieces");
            whole
        }
        (Err(whole), Err(cut)) => {
            assert_eq!(whole.reason, cut.reason, "in pieces");
            assert!(
                stock.is_err() || matches!(whole.reason, ScanReason::TooMany(..)),
                "{whole}, but {stock:?}"
            );
            return false;
        }
        (whole, cut) => panic!("{whole:?}, but in pieces {cut:?}"),
    };
    let Ok(stock) = stock else {
        let poisoned = scanned.outputs.iter().any(|output| {
            walk(&output.records, &WalkRules { max_run_bytes: usize::MAX, ..WalkRules::STORED }).is_err()
        });
        assert!(poisoned, "only the stock decoder refused it");
        return false;
    };
    assert_eq!(
        (&scanned.request_id, &scanned.group, &scanned.offsets),
        (&stock.request_id, &stock.group, &stock.offsets)
    );
    assert_eq!(scanned.outputs.len(), stock.outputs.len());
    for (scanned, stock) in scanned.outputs.iter().zip(stock.outputs) {
        let records =
            v1::RecordBatch::decode(scanned.records.to_bytes()).expect("they decode as a whole").records;
        let (topic, partition) = (scanned.topic.clone(), scanned.partition);
        assert_eq!(v1::Output { topic, partition, records_crc32: scanned.records_crc32, records }, stock);
    }
    true
}

/// Everything of a scanned step that can be compared.
fn read_step(scanned: &ScannedStep) -> (String, Vec<Bytes>) {
    let outputs = scanned.outputs.iter().map(|output| {
        (
            format!("{:?} {:?} {:?}", output.topic, output.partition, output.records_crc32),
            output.records.to_bytes(),
        )
    });
    let (heads, runs): (Vec<_>, Vec<_>) = outputs.unzip();
    (format!("{:?} {:?} {:?} {heads:?}", scanned.request_id, scanned.group, scanned.offsets), runs)
}

/// The body of a fetch's answer, as a client reads it.
pub(super) fn fetch_response(input: &[u8]) -> bool {
    let message = Bytes::copy_from_slice(input);
    let Ok(body) = FetchBody::parse(&message) else { return false };
    let batches: Vec<_> = body.slices.iter().map(batches_of).collect();
    if let Ok(stock) = v1::FetchResponse::decode(message) {
        assert_eq!(body.errors, stock.errors);
        assert_eq!(body.slices.len(), stock.slices.len());
        for ((slice, batches), stock) in body.slices.iter().zip(&batches).zip(&stock.slices) {
            same_slice(slice, batches, stock);
        }
    }
    true
}

/// A message of a subscription, as a client reads it.
pub(super) fn subscribe_response(input: &[u8]) -> bool {
    let message = Bytes::copy_from_slice(input);
    let Ok(ours) = Subscribed::parse(&message) else { return false };
    let stock = v1::SubscribeResponse::decode(message);
    let event = stock.as_ref().ok().and_then(|stock| stock.event.as_ref());
    match (&ours, event) {
        (Subscribed::Slice(slice), Some(Event::Slice(stock))) => same_slice(slice, &batches_of(slice), stock),
        (Subscribed::Slice(slice), None) if stock.is_err() => drop(batches_of(slice)),
        (Subscribed::Heartbeat(ours), Some(Event::Heartbeat(stock))) => assert_eq!(ours, stock),
        (Subscribed::CaughtUp(ours), Some(Event::CaughtUp(stock))) => assert_eq!(ours, stock),
        (Subscribed::Drain(ours), Some(Event::Drain(stock))) => assert_eq!(ours, stock),
        (Subscribed::PartitionError(ours), Some(Event::PartitionError(stock))) => assert_eq!(ours, stock),
        (Subscribed::Unknown, None) if stock.is_ok() => {}
        _ => panic!("{ours:?}, but {stock:?}"),
    }
    true
}

/// What a reader finds in one batch: base offset, and the records if they can be read.
type Found = (i64, Option<Vec<(i64, Bytes)>>);

/// The batches of a slice up to the first that is none, read as a client reads them.
fn batches_of(slice: &Slice) -> Vec<Option<Found>> {
    slice.batches().map(|batch| batch.ok().map(|batch| records_of(slice, batch))).collect()
}

fn records_of(slice: &Slice, batch: Batch) -> Found {
    let header = *batch.header();
    let verified = batch.verify_in(slice).is_ok();
    let plain = batch.payload().clone();
    let Ok(batch) = batch.unpacked() else { return (header.base_offset, None) };
    let spanned = header.base_offset..=header.last_offset().expect("in range");
    let Ok(records) = batch.records() else { return (header.base_offset, None) };
    let mut found = Vec::new();
    for record in records {
        let Ok(record) = record else { return (header.base_offset, None) };
        assert!(spanned.contains(&record.offset));
        for (name, value) in record.headers() {
            assert_eq!(record.header(name).is_some(), record.headers().any(|(other, _)| other == name));
            assert!(value.is_none_or(|value| value.len() <= record.as_bytes().len()));
        }
        for part in record.key.into_iter().chain(record.value) {
            assert_eq!(batch.share(part), part);
        }
        found.push((record.offset, Bytes::copy_from_slice(record.as_bytes())));
    }
    assert!(!verified || crc32fast::hash(&plain) == header.records_crc32);
    (header.base_offset, Some(found))
}

fn same_slice(slice: &Slice, batches: &[Option<Found>], stock: &v1::LogSlice) {
    assert_eq!((&slice.topic, slice.partition), (&stock.topic, stock.partition));
    assert_eq!(
        (slice.next_offset, slice.high_watermark, slice.log_start_offset, slice.start_offset),
        (stock.next_offset, stock.high_watermark, stock.log_start_offset, stock.start_offset)
    );
    assert_eq!((slice.leader_epoch, &slice.gaps), (stock.leader_epoch, &stock.gaps));
    assert_eq!(batches.len(), stock.batches.len());
    for (ours, stock) in batches.iter().zip(&stock.batches) {
        let Some((base_offset, records)) = ours else { continue };
        assert_eq!(*base_offset, stock.base_offset);
        let plain = stock.compressed.is_empty() && stock.attributes & 0x10 == 0;
        if let (Some(records), true) = (records, plain) {
            let theirs = stock.records.iter().map(prost::Message::encode_to_vec);
            assert_eq!(records.len(), stock.records.len());
            for ((_, ours), theirs) in records.iter().zip(theirs) {
                let again = v1::Record::decode(ours.clone()).expect("both read it").encode_to_vec();
                assert_eq!(again, theirs);
            }
        }
    }
}
