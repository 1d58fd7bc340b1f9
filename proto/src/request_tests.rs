use super::*;
use crate::testing::{any_cuts, any_records, run_of, split};
use crate::v1::{ProduceRequest, ProduceStreamRequest};
use proptest::option;
use proptest::prelude::*;

fn any_request() -> impl Strategy<Value = ProduceRequest> {
    let producer = (any::<i64>(), any::<u32>(), any::<u32>()).prop_map(
        |(producer_id, producer_epoch, base_sequence)| ProducerSequence {
            producer_id,
            producer_epoch,
            base_sequence,
        },
    );
    let head =
        ("[a-z.]{0,20}", option::of(any::<u32>()), 0..5_i32, option::of(any::<i64>()), option::of(producer));
    let tail = (option::of(any::<u32>()), 0..3_i32, "[a-z]{0,9}", any_records(6));
    (head, tail).prop_map(
        |(
            (topic, partition, durability, expected_next_offset, producer),
            (crc, codec, request_id, records),
        )| {
            ProduceRequest {
                topic,
                partition,
                durability,
                expected_next_offset,
                producer,
                records_crc32: crc,
                codec,
                request_id,
                compressed: Bytes::new(),
                records,
            }
        },
    )
}

/// Whether the scan says what the generated decoder says.
fn same(scanned: &ScannedProduce, decoded: &ProduceRequest) -> Result<(), TestCaseError> {
    prop_assert_eq!(&scanned.topic, &decoded.topic);
    prop_assert_eq!(scanned.partition, decoded.partition);
    prop_assert_eq!(scanned.durability_number, decoded.durability);
    prop_assert_eq!(scanned.expected_next_offset, decoded.expected_next_offset);
    prop_assert_eq!(scanned.producer, decoded.producer);
    prop_assert_eq!(scanned.records_crc32, decoded.records_crc32);
    prop_assert_eq!(scanned.codec_number, decoded.codec);
    prop_assert_eq!(&scanned.request_id, &decoded.request_id);
    match &scanned.payload {
        Payload::None => prop_assert!(decoded.records.is_empty() && decoded.compressed.is_empty()),
        Payload::Records(run) => prop_assert_eq!(run.to_bytes(), run_of(decoded.records.clone())),
        Payload::Compressed(packed) => {
            prop_assert!(decoded.records.is_empty());
            prop_assert_eq!(packed.content().to_bytes(), &decoded.compressed);
        }
    }
    Ok(())
}

/// The fields of a message, each with its tag.
fn fields_of(message: &[u8]) -> Vec<Vec<u8>> {
    let body = [Bytes::copy_from_slice(message)];
    let mut cursor = Cursor::new(&body);
    let mut out = Vec::new();
    while !cursor.rest().is_empty() {
        let start = cursor.pos();
        let (number, wire) = tag(&mut cursor).unwrap();
        skip(&mut cursor, number, wire).unwrap();
        out.push(message[start..cursor.pos()].to_vec());
    }
    out
}

#[test]
fn the_run_shares_the_request_s_memory() {
    let run = run_of(vec![crate::v1::Record { value: Some("v".into()), ..Default::default() }; 3]);
    let body = Bytes::from([b"\x0a\x06orders\x10\x02".as_slice(), &run].concat());
    let scanned = scan(std::slice::from_ref(&body)).unwrap();
    assert_eq!((scanned.topic.as_str(), scanned.partition), ("orders", Some(2)));
    let Payload::Records(chunks) = scanned.payload else { panic!("records") };
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0].as_ptr(), body[10..].as_ptr());
    assert_eq!(chunks[0], run);
}

#[test]
fn odd_bodies_are_refused_with_a_reason() {
    let cases: &[(&[u8], usize, ScanReason)] = &[
        (b"\x0a\x05ab", 0, ScanReason::Truncated),
        (b"\x10\x01\x10", 2, ScanReason::Truncated),
        (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 0, ScanReason::Truncated),
        (b"\x7a\x05ab", 0, ScanReason::Truncated),
        (b"\x35abc", 0, ScanReason::Truncated),
        (b"\x00\x00", 0, ScanReason::Tag),
        (b"\x07\x00", 0, ScanReason::Tag),
        (b"\xf4\x06", 0, ScanReason::Tag),
        (b"\xf3\x06\xfc\x06", 0, ScanReason::Tag),
        (b"\xf3\x06", 0, ScanReason::Truncated),
        (b"\xf8\xff\xff\xff\x7f\x00", 0, ScanReason::Tag),
        (b"\x08\x00", 0, ScanReason::WireType(1)),
        (b"\x78\x00", 0, ScanReason::WireType(15)),
        (b"\x0a\x01\xff", 0, ScanReason::Utf8(1)),
        (b"\x42\x01\xff", 0, ScanReason::Utf8(8)),
        (b"\x28\x00", 0, ScanReason::WireType(5)),
        (b"\x2a\x01\x08", 0, ScanReason::Message(5)),
        (b"\x2a\x03\x08\x01", 0, ScanReason::Truncated),
        (b"\x72\x81\x00x", 0, ScanReason::Padded),
        (b"\xf2\x00\x01x", 0, ScanReason::Padded),
        (b"\x72\x01x\x7a\x00", 0, ScanReason::TwoPayloads),
    ];
    for &(body, at, reason) in cases {
        for cuts in [vec![], vec![1; body.len()]] {
            let error = scan(&split(body, &cuts)).unwrap_err();
            assert_eq!(error, ScanError { at, reason }, "{body:x?}");
        }
    }
    assert_eq!(scan_stream(&[]).unwrap_err().reason, ScanReason::NoAppend);
    assert_eq!(scan_stream(&split(b"\x08\x00", &[])).unwrap_err().reason, ScanReason::WireType(1));
}

#[test]
fn unknown_fields_are_stepped_over() {
    let body = b"\x0a\x01t\x4a\x02\x08\x01\xf9\x0612345678\xfd\x061234\xf3\x06\x08\x01\xfb\x06\xfc\x06\xf4\x06\xf8\x06\x05\x10\x07";
    let scanned = scan(&split(body, &[])).unwrap();
    assert_eq!((scanned.topic.as_str(), scanned.partition), ("t", Some(7)));
    let deep = [[0xf3, 0x06].repeat(101), [0xf4, 0x06].repeat(101)].concat();
    assert_eq!(scan(&split(&deep, &[])).unwrap_err().reason, ScanReason::Tag);
}

/// Tiny pieces and thousands of runs: work that grows with their product would not end here.
#[test]
fn hostile_bodies_cost_no_more_than_their_bytes() {
    let body = b"\x7a\x00\x10\x01".repeat(200_000);
    let pieces = split(&body, &vec![1; body.len()]);
    let Payload::Records(run) = scan(&pieces).unwrap().payload else { panic!("records") };
    assert_eq!((run.len(), run.byte_len()), (1, 400_000));
    let walked =
        crate::walk::walk(&split(&run.to_bytes(), &vec![1; 400_000]), &crate::walk::WalkRules::STORED);
    assert_eq!(walked.unwrap().record_count, 200_000);

    let stream = b"\x0a\x02\x7a\x00\x10\x01".repeat(200_000);
    let scanned = scan_stream(&split(&stream, &vec![1; stream.len()])).unwrap();
    assert!(matches!(scanned.payload, Payload::Records(run) if run.byte_len() == 400_000));
}

#[test]
fn compressed_goes_verbatim() {
    let request = ProduceRequest { compressed: Bytes::from(vec![9; 300]), codec: 2, ..Default::default() };
    let bytes = request.encode_to_vec();
    for cuts in [vec![], vec![3, 1, 1], vec![1; 400]] {
        let scanned = scan(&split(&bytes, &cuts)).unwrap();
        assert_eq!(scanned.codec(), Some(Codec::Zstd));
        let Payload::Compressed(packed) = scanned.payload else { panic!("compressed") };
        assert_eq!(packed.field.to_bytes(), bytes[2..]);
        assert_eq!(packed.content().to_bytes(), request.compressed);
    }
    assert!(matches!(scan(&split(b"\x72\x01x\x72\x00", &[])).unwrap().payload, Payload::None));
}

proptest! {
    #[test]
    fn stock_requests(request in any_request(), cuts in any_cuts()) {
        let bytes = request.encode_to_vec();
        same(&scan(&split(&bytes, &cuts)).unwrap(), &request)?;

        let stream = ProduceStreamRequest { append: Some(request.clone()) }.encode_to_vec();
        same(&scan_stream(&split(&stream, &cuts)).unwrap(), &request)?;
    }

    /// Fields in any order, some of them twice, records in several runs: still what a stock decoder reads.
    #[test]
    fn shuffled_requests(
        fields in any_request().prop_map(|request| {
            let mut fields = fields_of(&request.encode_to_vec());
            fields.push(b"\xf8\x06\x01".to_vec());
            fields.extend_from_within(..fields.len() / 2);
            fields
        }).prop_shuffle(),
        cuts in any_cuts(),
    ) {
        let bytes = fields.concat();
        let decoded = ProduceRequest::decode(bytes.as_slice()).unwrap();
        same(&scan(&split(&bytes, &cuts)).unwrap(), &decoded)?;

        // The same, torn into two `append`s: they merge.
        let (first, second) = fields.split_at(fields.len() / 2);
        let mut stream = Vec::new();
        for half in [first.concat(), second.concat()] {
            stream.push(0x0A);
            varint::put(&mut stream, half.len() as u64);
            stream.extend(half);
        }
        let decoded = ProduceStreamRequest::decode(stream.as_slice()).unwrap().append.unwrap();
        same(&scan_stream(&split(&stream, &cuts)).unwrap(), &decoded)?;
    }

    /// Damaged requests: never a panic, the pieces make no difference, and where the generated decoder and the walk are both content
    /// the scan is too and says the same.
    #[test]
    fn damaged_requests(
        request in any_request(), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4), cuts in any_cuts(),
    ) {
        let mut bytes = request.encode_to_vec();
        for (at, byte) in damage {
            let len = bytes.len();
            if len != 0 {
                bytes[usize::from(at) % len] = byte;
            }
        }
        let whole = scan(&split(&bytes, &[]));
        let pieces = scan(&split(&bytes, &cuts));
        prop_assert_eq!(whole.as_ref().err(), pieces.as_ref().err());
        let _ = scan_stream(&split(&bytes, &cuts));
        match (ProduceRequest::decode(bytes.as_slice()), whole) {
            (Ok(decoded), Ok(scanned)) => {
                let canonical = match &scanned.payload {
                    Payload::Records(run) => crate::walk::walk(run, &crate::walk::WalkRules::STORED).is_ok(),
                    _ => true,
                };
                if canonical {
                    same(&scanned, &decoded)?;
                }
            }
            (Ok(_), Err(error)) => {
                prop_assert!(matches!(error.reason, ScanReason::TwoPayloads | ScanReason::Padded), "{}", error);
            }
            // Only what lies inside a record may be left for the walk to refuse.
            (Err(_), Ok(scanned)) => match scanned.payload {
                Payload::Records(run) => prop_assert!(crate::walk::walk(&run, &crate::walk::WalkRules::STORED).is_err()),
                _ => prop_assert!(false, "only the generated decoder refused it"),
            },
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cuts in any_cuts()) {
        let _ = scan(&split(&bytes, &cuts));
        let _ = scan_stream(&split(&bytes, &cuts));
    }
}

/// Found by the fuzz target `produce_stream_request`: a field that begins in one `append` may not end in the next.
#[test]
fn a_field_ends_within_its_append() {
    let first = [0x0A, 4, 0x0A, 3, b'a', b'b'];
    let second = [0x0A, 3, b'c', 0x10, 7];
    let whole = [&first[..], &second].concat();
    assert_eq!(scan_stream(&split(&whole, &[])).unwrap_err().reason, ScanReason::Truncated);
    assert!(ProduceStreamRequest::decode(whole.as_slice()).is_err());
}
