use super::*;
use crate::v1;
use proptest::prelude::*;
use prost::Message as _;

const TOPIC: TopicId = TopicId([7; 16]);

pub(crate) fn any_header() -> impl Strategy<Value = BatchHeader> {
    let first =
        (0..i64::MAX / 2, 0..MAX_RECORDS_PER_BATCH, any::<u32>(), 0..8_u32, any::<i64>(), any::<i64>());
    let second = (any::<i64>(), any::<u32>(), any::<u32>(), any::<u32>());
    (first, second).prop_map(
        |((base_offset, delta, leader_epoch, flags, append, max), (id, epoch, sequence, crc))| {
            let attributes = Attributes(((flags << 3) & 0b11_1000) | (flags % 3));
            BatchHeader {
                base_offset,
                last_offset_delta: delta,
                leader_epoch,
                record_count: if attributes.holes() { delta / 2 } else { delta + 1 },
                attributes,
                append_time_ms: append,
                max_timestamp_ms: max,
                producer_id: id,
                producer_epoch: epoch,
                base_sequence: sequence,
                records_crc32: crc,
            }
        },
    )
}

fn batch_of(payload: &[u8]) -> Vec<u8> {
    let header = BatchHeader {
        base_offset: 41,
        last_offset_delta: 1,
        record_count: 2,
        leader_epoch: 3,
        append_time_ms: 1_700_000_000_000,
        max_timestamp_ms: 1_700_000_000_001,
        records_crc32: crc32fast::hash(payload),
        ..BatchHeader::default()
    };
    [header.encode(payload.len(), &TOPIC, 5).as_slice(), payload].concat()
}

#[test]
fn places_are_where_the_picture_says() {
    let header = BatchHeader {
        base_offset: 0x0101_0101_0101_0101,
        last_offset_delta: 0x0202_0202,
        leader_epoch: 0x0303_0303,
        record_count: 0x0404_0404,
        attributes: Attributes(0x0505_0505),
        append_time_ms: 0x0606_0606_0606_0606,
        max_timestamp_ms: 0x0707_0707_0707_0707,
        producer_id: 0x0808_0808_0808_0808,
        producer_epoch: 0x0909_0909,
        base_sequence: 0x0A0A_0A0A,
        records_crc32: 0x0B0B_0B0B,
    };
    let bytes = header.encode(0, &TOPIC, 0);
    let places = [
        (at::BASE_OFFSET, 1, 8),
        (at::LAST_OFFSET_DELTA, 2, 4),
        (at::LEADER_EPOCH, 3, 4),
        (at::RECORD_COUNT, 4, 4),
        (at::ATTRIBUTES, 5, 4),
        (at::APPEND_TIME_MS, 6, 8),
        (at::MAX_TIMESTAMP_MS, 7, 8),
        (at::PRODUCER_ID, 8, 8),
        (at::PRODUCER_EPOCH, 9, 4),
        (at::BASE_SEQUENCE, 10, 4),
        (at::RECORDS_CRC32, 11, 4),
    ];
    for (place, value, width) in places {
        assert_eq!(bytes[place..place + width], vec![value; width], "field {value}");
    }
    assert_eq!(at::HEADER_CRC32, BATCH_PREFIX_LEN - 4);
}

#[test]
fn zeros_end_the_log_and_never_verify() {
    assert_eq!(decode(&[0; BATCH_PREFIX_LEN]), Err(HeaderError::End));
    assert_eq!(decode(&[0]), Err(HeaderError::End));
    assert_eq!(decode(&[]), Err(HeaderError::Short { have: 0, need: BATCH_PREFIX_LEN }));
    let mut zeros = [0; BATCH_PREFIX_LEN];
    zeros[0] = BATCH_TAG;
    assert_eq!(decode(&zeros), Err(HeaderError::Length));
}

#[test]
fn every_damaged_byte_and_every_flipped_bit_is_caught() {
    let batch = batch_of(b"\x7a\x06\x0a\x01k\x12\x01v\x7a\x00");
    assert!(verify_batch(&batch, &TOPIC, 5).is_ok());
    for at in 0..batch.len() {
        for mask in 1..=255_u8 {
            let mut damaged = batch.clone();
            damaged[at] ^= mask;
            assert!(verify_batch(&damaged, &TOPIC, 5).is_err(), "byte {at} xor {mask:#x}");
        }
    }
    for len in 0..batch.len() {
        assert!(verify_batch(&batch[..len], &TOPIC, 5).is_err(), "cut at {len}");
    }
}

#[test]
fn a_batch_verifies_only_where_it_belongs() {
    let batch = batch_of(b"\x7a\x00\x7a\x00");
    assert_eq!(verify_batch(&batch, &TOPIC, 6), Err(HeaderError::HeaderCrc));
    assert_eq!(verify_batch(&batch, &TopicId([8; 16]), 5), Err(HeaderError::HeaderCrc));
}

#[test]
fn bits_of_a_newer_release_are_refused_after_they_verify() {
    for bits in [1 << 8, 1 << 15, 7, 3 << 6, 3] {
        let header = BatchHeader { attributes: Attributes(bits), record_count: 1, ..BatchHeader::default() };
        let prefix = header.encode(0, &TOPIC, 0);
        assert_eq!(verify_header(&prefix, &TOPIC, 0), Err(HeaderError::NotUnderstood(bits)));
    }
    let ignorable =
        BatchHeader { attributes: Attributes(0xFFFF_0000), record_count: 1, ..BatchHeader::default() };
    assert!(verify_header(&ignorable.encode(0, &TOPIC, 0), &TOPIC, 0).is_ok());
}

#[test]
fn numbers_no_batch_has_are_refused() {
    let good = BatchHeader { record_count: 1, ..BatchHeader::default() };
    let cases = [
        BatchHeader { base_offset: -1, ..good },
        BatchHeader { base_offset: i64::MAX, ..good },
        BatchHeader { record_count: 2, ..good },
        BatchHeader { record_count: 0, ..good },
        BatchHeader { last_offset_delta: u32::MAX, record_count: u32::MAX, ..good },
    ];
    for case in cases {
        assert_eq!(decode(&case.encode(0, &TOPIC, 0)), Err(HeaderError::Range), "{case:?}");
    }
    let emptied = BatchHeader { record_count: 0, attributes: Attributes::default().with_holes(), ..good };
    assert!(decode(&emptied.encode(0, &TOPIC, 0)).is_ok());
}

#[test]
fn attributes_say_what_they_hold() {
    let all = Attributes(0).with_codec(Codec::Zstd).with_atomic().with_holes();
    assert_eq!(all.0, 0b10_1010);
    assert_eq!(all.codec(), Some(Codec::Zstd));
    assert!(all.atomic() && all.holes() && !all.control());
    assert_eq!(all.payload_kind(), Some(PayloadKind::Records));
    assert_eq!(all.with_codec(Codec::Unspecified).codec(), Some(Codec::Unspecified));
}

proptest! {
    #[test]
    fn ours_and_the_generated_decoder_agree(header in any_header(), partition: u32) {
        let prefix = header.encode(0, &TOPIC, partition);
        let decoded = verify_header(&prefix, &TOPIC, partition).unwrap();
        prop_assert_eq!(decoded.header, header);
        prop_assert_eq!(decoded.batch_len, BATCH_PREFIX_LEN);

        let batch = v1::LogSlice::decode(prefix.as_slice()).unwrap().batches.remove(0);
        prop_assert_eq!(batch.base_offset, header.base_offset);
        prop_assert_eq!(batch.last_offset_delta, header.last_offset_delta);
        prop_assert_eq!(batch.leader_epoch, header.leader_epoch);
        prop_assert_eq!(batch.record_count, header.record_count);
        prop_assert_eq!(batch.attributes, header.attributes.0);
        prop_assert_eq!(batch.append_time_ms, header.append_time_ms);
        prop_assert_eq!(batch.max_timestamp_ms, header.max_timestamp_ms);
        prop_assert_eq!(batch.producer_id, header.producer_id);
        prop_assert_eq!(batch.producer_epoch, header.producer_epoch);
        prop_assert_eq!(batch.base_sequence, header.base_sequence);
        prop_assert_eq!(batch.records_crc32, header.records_crc32);
        prop_assert_eq!(batch.header_crc32, decoded.header_crc32);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = verify_batch(&bytes, &TOPIC, 0);
    }

    /// Bytes that begin as a header does come further than random ones.
    #[test]
    fn no_damaged_header_panics(header in any_header(), at in 0..BATCH_PREFIX_LEN, byte: u8) {
        let mut prefix = header.encode(0, &TOPIC, 0);
        prefix[at] = byte;
        let _ = verify_batch(&prefix, &TOPIC, 0);
    }
}
