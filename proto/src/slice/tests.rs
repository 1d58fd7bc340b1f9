use super::*;
use crate::compress::pack_field;
use crate::header::{Attributes, BatchHeader};
use crate::testing::{PARTITION, TOPIC, any_records, run_of, some_records, stored, stored_with, with_holes};
use crate::v1::{Codec, FetchResponse, LogSlice, Record, RecordBatch};
use crate::varint;
use bytes::BytesMut;
use proptest::prelude::*;

fn prefix(gaps: &[OffsetGap]) -> Prefix<'_> {
    Prefix {
        topic: "orders",
        partition: PARTITION,
        high_watermark: 1000,
        log_start_offset: 0,
        next_offset: 128,
        leader_epoch: 3,
        topic_id: TOPIC,
        gaps,
        start_offset: 100,
    }
}

/// An entry of a fetch response around the bytes of stored batches.
fn entry(gaps: &[OffsetGap], batches: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    prefix(gaps).put(batches.len(), &mut out);
    out.extend_from_slice(batches);
    assert_eq!(out.len(), prefix(gaps).entry_len(batches.len()));
    out.freeze()
}

/// Every record of a slice as the generated structs have it, with its offset.
fn records_of(slice: &Slice) -> Result<Vec<(i64, Record)>, SliceError> {
    let mut out = Vec::new();
    for batch in slice.batches() {
        let batch = batch?.unpacked()?;
        for record in batch.records()? {
            let record = record?;
            let mut decoded = Record::decode(record.as_bytes()).unwrap();
            assert_eq!(record.key, decoded.key.as_deref());
            assert_eq!(record.value, decoded.value.as_deref());
            let headers = decoded.headers.iter().map(|header| (header.key.as_str(), header.value.as_deref()));
            assert!(record.headers().eq(headers));
            let time = decoded.timestamp_ms.unwrap_or(0);
            assert_eq!(record.timestamp_ms, if time == 0 { batch.header().append_time_ms } else { time });
            decoded.offset_delta = None;
            out.push((record.offset, decoded));
        }
    }
    Ok(out)
}

fn one(values: &[&'static str]) -> Vec<Record> {
    values.iter().map(|&value| Record { value: Some(value.into()), ..Record::default() }).collect()
}

#[test]
fn a_body_of_two_slices_and_an_error() {
    let gaps = [OffsetGap { first_offset: 3, last_offset: i64::MAX, reason: 1 }];
    let error = PartitionError { topic: "orders".into(), partition: 9, code: 5, ..Default::default() };
    let errors = FetchResponse { slices: Vec::new(), errors: vec![error.clone()] }.encode_to_vec();
    let file = [stored(100, one(&["a", "b"])), stored(102, one(&["c"]))].concat();
    let message = Bytes::from([&entry(&gaps, &file), &entry(&[], &[]), errors.as_slice()].concat());

    // The generated decoder and ours read the same.
    let decoded = FetchResponse::decode(message.clone()).unwrap();
    let body = FetchBody::parse(&message).unwrap();
    assert_eq!((body.slices.len(), &body.errors), (2, &vec![error]));
    assert_eq!(body.errors, decoded.errors);
    for (slice, decoded) in body.slices.iter().zip(&decoded.slices) {
        assert_eq!(slice.topic, decoded.topic);
        assert_eq!(slice.partition, decoded.partition);
        assert_eq!(slice.high_watermark, decoded.high_watermark);
        assert_eq!(slice.log_start_offset, decoded.log_start_offset);
        assert_eq!(slice.next_offset, decoded.next_offset);
        assert_eq!(slice.leader_epoch, decoded.leader_epoch);
        assert_eq!(slice.topic_id.unwrap().as_bytes(), decoded.topic_id.as_ref());
        assert_eq!(slice.gaps, decoded.gaps);
        assert_eq!(slice.start_offset, decoded.start_offset);
        assert_eq!(slice.batches().count(), decoded.batches.len());
    }
    let slice = &body.slices[0];
    assert!(slice.batches().all(|batch| batch.unwrap().verify_in(slice).is_ok()));
    let offsets: Vec<_> = records_of(slice).unwrap().into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [100, 101, 102]);
}

#[test]
fn records_share_the_memory_of_the_message() {
    let message = entry(&[], &stored(0, one(&["value"])));
    let body = FetchBody::parse(&message).unwrap();
    let batch = body.slices[0].batches().next().unwrap().unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    let value = batch.share(record.value.unwrap());
    assert_eq!(value, "value");
    assert!(message.as_ptr_range().contains(&value.as_ptr()));
    assert_eq!(batch.share(b"not of it"), b"not of it".as_slice());
    assert_eq!(batch.share(b""), b"".as_slice());
}

#[test]
fn stock_encoders_write_batches_that_are_read_too() {
    // Zero fields left out, no padding: what a stub or a proxy makes of a batch when it encodes it again.
    let file = stored(0, one(&["a", "b"]));
    let batch = LogSlice::decode(file.as_slice()).unwrap().batches.remove(0);
    let encoded = Bytes::from(batch.encode_to_vec());
    assert!(encoded.len() < file.len());
    let batch = Batch::parse(&encoded).unwrap();
    assert_eq!(batch.records().unwrap().count(), 2);
    // The checksums are over the stored form, and that can be made again.
    assert_eq!(batch.verify(&TOPIC, PARTITION), Ok(()));
}

#[test]
fn lengths_of_any_width_up_to_five() {
    let record = b"\x0a\x81\x80\x80\x80\x00k\x12\x01v";
    for width in 1..=6 {
        let mut payload = vec![0x7A];
        let mut len = vec![0x80; width];
        len[0] |= u8::try_from(record.len()).unwrap();
        *len.last_mut().unwrap() &= 0x7F;
        payload.extend(len);
        payload.extend(record);
        let header = BatchHeader { record_count: 1, ..BatchHeader::default() };
        let file = stored_with(header, &payload);
        let message = entry(&[], &file);
        let body = FetchBody::parse(&message).unwrap();
        assert_eq!(records_of(&body.slices[0]).is_ok(), width <= 5, "width {width}");
    }
}

#[test]
fn damage_is_told() {
    let file = stored(7, one(&["aaaa", "bbbb"]));
    let clean = entry(&[], &file);
    let start = clean.len() - file.len();
    for at in start + 5..clean.len() {
        let mut damaged = clean.to_vec();
        damaged[at] ^= 1;
        let body = FetchBody::parse(&Bytes::from(damaged));
        let verdict = body.and_then(|body| {
            let slice = &body.slices[0];
            let batch = slice.batches().next().unwrap_or(Err(SliceError::Malformed("")))?;
            batch.verify_in(slice)
        });
        assert!(verdict.is_err(), "byte {at}");
    }
    let body = FetchBody::parse(&clean).unwrap();
    let batch = body.slices[0].batches().next().unwrap().unwrap();
    assert_eq!(
        batch.verify(&TOPIC, PARTITION + 1),
        Err(SliceError::Damaged { base_offset: 7, error: HeaderError::HeaderCrc })
    );
}

#[test]
fn batches_that_are_not_for_reading() {
    let one = BatchHeader { record_count: 1, ..BatchHeader::default() };
    let parse = |header: BatchHeader, payload: &[u8]| {
        let file = stored_with(header, payload);
        Batch::parse(&Bytes::from(file).slice(5..))
    };
    let control = BatchHeader { attributes: Attributes(1 << 4), ..one };
    assert_eq!(parse(control, b"\x8a\x01\x01c").unwrap().records().unwrap().count(), 0);
    let kafka = BatchHeader { attributes: Attributes(1 << 6), ..one };
    let error = parse(kafka, b"\x82\x01\x01k").unwrap().records().unwrap_err();
    assert_eq!(error, SliceError::Unsupported { base_offset: 0 });
    let newer = BatchHeader { attributes: Attributes(1 << 9), ..one };
    assert_eq!(parse(newer, b"\x7a\x00").unwrap_err(), SliceError::Unsupported { base_offset: 0 });
    let lying = BatchHeader { attributes: Attributes(1), ..one };
    assert_eq!(parse(lying, b"\x7a\x00").unwrap_err(), SliceError::Malformed("RecordBatch"));
    assert_eq!(parse(one, b"\x72\x00").unwrap_err(), SliceError::Malformed("RecordBatch"));
    // Fewer or more records than the header says.
    for payload in [b"".as_slice(), b"\x7a\x00\x7a\x00", b"\x7a\x03\x28\x01\x00", b"\x7a\x02\x28\x01"] {
        let batch = parse(one, payload).unwrap();
        let records: Vec<_> = batch.records().unwrap().collect();
        assert!(records.last().unwrap().is_err(), "{payload:x?}");
    }
    let huge = Bytes::from(vec![0x7A; crate::limits::MAX_STORED_BODY_BYTES + 1]);
    assert!(matches!(Batch::parse(&huge), Err(SliceError::BatchTooLarge { .. })));
}

#[test]
fn packed_batches_are_unpacked_on_request() {
    let records = one(&["aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b", "c"]);
    for codec in [Codec::Lz4, Codec::Zstd] {
        let field = pack_field(codec, &run_of(records.clone())).unwrap();
        let header = BatchHeader {
            base_offset: 40,
            record_count: 3,
            last_offset_delta: 2,
            attributes: Attributes::default().with_codec(codec),
            ..BatchHeader::default()
        };
        let message = entry(&[], &stored_with(header, &field));
        let slice = &FetchBody::parse(&message).unwrap().slices[0];
        let batch = slice.batches().next().unwrap().unwrap();
        assert_eq!(batch.verify_in(slice), Ok(()));
        assert_eq!(batch.records().unwrap_err(), SliceError::Packed);
        let offsets: Vec<_> = records_of(slice).unwrap().into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [40, 41, 42]);
    }
}

#[test]
fn events_of_a_subscription() {
    let message = entry(&[], &stored(0, one(&["a"])));
    assert!(matches!(Subscribed::parse(&message), Ok(Subscribed::Slice(slice)) if slice.next_offset == 128));
    let parse = |event| {
        let message = Bytes::from(SubscribeResponse { event }.encode_to_vec());
        Subscribed::parse(&message).unwrap()
    };
    assert!(
        matches!(parse(Some(Event::Drain(Drain { deadline_ms: 3 }))), Subscribed::Drain(drain) if drain.deadline_ms == 3)
    );
    assert!(matches!(parse(Some(Event::Heartbeat(Heartbeat::default()))), Subscribed::Heartbeat(_)));
    assert!(matches!(parse(Some(Event::CaughtUp(CaughtUp::default()))), Subscribed::CaughtUp(_)));
    assert!(matches!(
        parse(Some(Event::PartitionError(PartitionError::default()))),
        Subscribed::PartitionError(_)
    ));
    assert!(matches!(parse(None), Subscribed::Unknown));
    assert!(matches!(Subscribed::parse(&Bytes::from_static(b"\xf8\x06\x01")), Ok(Subscribed::Unknown)));
    // A slice in two parts is one slice.
    let parts = Bytes::from_static(b"\x0a\x02\x18\x05\x0a\x02\x30\x07");
    let merged = Subscribed::parse(&parts);
    assert!(matches!(merged, Ok(Subscribed::Slice(slice)) if slice.partition == 5 && slice.next_offset == 7));
}

proptest! {
    #[test]
    fn ours_and_the_generated_decoder_read_the_same(
        batches in proptest::collection::vec(any_records(5), 0..4), gap in any::<(i64, i64)>(), keep in 1_usize..4,
    ) {
        let gaps = [OffsetGap { first_offset: gap.0, last_offset: gap.1, reason: 2 }];
        let mut file = Vec::new();
        let mut want = Vec::new();
        let mut base = 0;
        for records in batches.iter().filter(|records| !records.is_empty()) {
            file.extend(stored(base, records.clone()));
            want.extend((base..).zip(records.clone()));
            base += i64::try_from(records.len()).unwrap();
        }
        if let Some(records) = batches.first().filter(|records| !records.is_empty()) {
            let (header, kept) = with_holes(records.clone(), keep);
            file.extend(stored_with(header, &run_of(kept)));
            want.extend((100..).zip(records.clone()).step_by(keep));
        }
        let message = entry(&gaps, &file);
        let body = FetchBody::parse(&message).unwrap();
        prop_assert_eq!(records_of(&body.slices[0]).unwrap(), want);

        let mut decoded = FetchResponse::decode(message).unwrap().slices.remove(0);
        for batch in &decoded.batches {
            prop_assert_eq!(batch.record_count as usize, batch.records.len());
        }
        decoded.batches.clear();
        let want = LogSlice {
            topic: "orders".into(), partition: PARTITION, high_watermark: 1000, next_offset: 128, leader_epoch: 3,
            topic_id: Bytes::copy_from_slice(TOPIC.as_bytes()), gaps: gaps.to_vec(), start_offset: 100, ..Default::default()
        };
        prop_assert_eq!(decoded, want);
    }

    /// A batch a stub encodes is read like one from a file.
    #[test]
    fn stock_batches(records in some_records(6)) {
        let file = stored(0, records.clone());
        let batch = LogSlice::decode(file.as_slice()).unwrap().batches.remove(0);
        let batch = Batch::parse(&RecordBatch { ..batch }.encode_to_vec().into()).unwrap();
        prop_assert_eq!(batch.verify(&TOPIC, PARTITION), Ok(()));
        prop_assert_eq!(batch.records().unwrap().count(), records.len());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let _ = FetchBody::parse(&bytes);
        let _ = Subscribed::parse(&bytes);
        let _ = Batch::parse(&bytes);
        let _ = Slice::parse(bytes).map(|slice| records_of(&slice));
    }

    #[test]
    fn no_damaged_message_panics(
        records in some_records(4), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..5), holes: bool,
    ) {
        let file = if holes {
            let (header, records) = with_holes(records, 2);
            stored_with(header, &run_of(records))
        } else {
            stored(i64::MAX - 100, records)
        };
        let mut message = entry(&[OffsetGap::default()], &file).to_vec();
        for (at, byte) in damage {
            let len = message.len();
            message[usize::from(at) % len] = byte;
        }
        let message = Bytes::from(message);
        let _ = Subscribed::parse(&message);
        let Ok(body) = FetchBody::parse(&message) else { return Ok(()) };
        for slice in body.slices {
            for batch in slice.batches().flatten() {
                let _ = batch.verify_in(&slice);
                let Ok(batch) = batch.unpacked() else { continue };
                let Ok(records) = batch.records() else { continue };
                for record in records.flatten() {
                    let _ = record.headers().count();
                    let _ = batch.share(record.value.unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn lengths_are_as_counted(len in 0_usize..5_000_000, partition: u32, offset: i64) {
        let prefix = Prefix { partition, next_offset: offset, ..prefix(&[]) };
        let mut out = BytesMut::new();
        prefix.put(len, &mut out);
        prop_assert_eq!(out.len() + len, prefix.entry_len(len));
        let (slice, width) = varint::read(&out[1..]).unwrap();
        prop_assert_eq!(usize::try_from(slice).unwrap(), out.len() - 1 - width + len);
    }
}

/// The same bytes, cut anywhere: the same slices, batches and records, and the same refusals.
fn same_in_pieces(message: &Bytes, cuts: &[usize]) -> Result<(), TestCaseError> {
    let pieces = crate::testing::split(message, cuts);
    match (FetchBody::parse(message), FetchBody::parse_pieces(&pieces)) {
        (Ok(whole), Ok(cut)) => {
            prop_assert_eq!(&whole.errors, &cut.errors);
            prop_assert_eq!(whole.slices.len(), cut.slices.len());
            for (whole, cut) in whole.slices.iter().zip(&cut.slices) {
                prop_assert_eq!(
                    (&whole.topic, whole.topic_id, &whole.gaps),
                    (&cut.topic, cut.topic_id, &cut.gaps)
                );
                prop_assert_eq!((whole.next_offset, whole.partition), (cut.next_offset, cut.partition));
                prop_assert_eq!(records_of(whole), records_of(cut));
            }
        }
        (whole, cut) => prop_assert_eq!(whole.err(), cut.err()),
    }
    let (whole, cut) = (Subscribed::parse(message), Subscribed::parse_pieces(&pieces));
    prop_assert_eq!(whole.map_err(|e| e.to_string()).is_ok(), cut.map_err(|e| e.to_string()).is_ok());
    Ok(())
}

proptest! {
    #[test]
    fn seams_do_not_show(records in some_records(6), more in some_records(6), cuts in crate::testing::any_cuts()) {
        let gaps = [OffsetGap { first_offset: 3, last_offset: i64::MAX, reason: 1 }];
        let next = i64::try_from(records.len()).unwrap();
        let file = [stored(0, records), stored(next, more)].concat();
        same_in_pieces(&entry(&gaps, &file), &cuts)?;
        let two = [entry(&[], &file), entry(&gaps, &[])].concat();
        same_in_pieces(&two.into(), &cuts)?;
    }

    #[test]
    fn seams_do_not_hide_damage(
        records in some_records(3), cuts in crate::testing::any_cuts(), at: proptest::sample::Index, byte: u8, short: bool,
    ) {
        let mut bytes = entry(&[], &stored(0, records)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if short {
            bytes.truncate(at);
        }
        let message = Bytes::from(bytes);
        let pieces = crate::testing::split(&message, &cuts);
        let read = |body: Result<FetchBody, SliceError>| -> Result<Vec<_>, SliceError> {
            body?.slices.iter().map(records_in).collect()
        };
        prop_assert_eq!(read(FetchBody::parse(&message)), read(FetchBody::parse_pieces(&pieces)));
    }
}

/// Offsets and bodies of the records of a slice, whatever they are.
fn records_in(slice: &Slice) -> Result<Vec<(i64, Bytes)>, SliceError> {
    let mut out = Vec::new();
    for batch in slice.batches() {
        let batch = batch?;
        for record in batch.records()? {
            let record = record?;
            out.push((record.offset, Bytes::copy_from_slice(record.as_bytes())));
        }
    }
    Ok(out)
}

#[test]
fn within_large_pieces_nothing_is_copied() {
    let batches: Vec<Vec<u8>> = (0..8).map(|n| stored(n, one(&["value"]))).collect();
    let whole = entry(&[], &batches.concat());
    // The fields in front, and a seam in the middle of a batch.
    let head = whole.len() - batches.concat().len();
    let seam = head + batches[0].len() * 4 + 10;
    let pieces = [whole.slice(..head), whole.slice(head..seam), whole.slice(seam..)];
    let Subscribed::Slice(slice) = Subscribed::parse_pieces(&pieces).unwrap() else { panic!("a slice") };
    let shared = slice.batches().filter(|batch| {
        let payload = batch.as_ref().unwrap().payload();
        whole.as_ptr_range().contains(&payload.as_ptr())
    });
    assert_eq!(shared.count(), 7, "all but the one that straddles");
}
