use super::*;
use crate::header::{Attributes, verify_batch};
use crate::testing::{PARTITION, TOPIC, any_cuts, any_records, run_of, split};
use crate::v1::RecordBatch;
use lz4_flex::frame::{BlockMode, BlockSize, FrameInfo};
use proptest::prelude::*;
use prost::Message as _;

const CODECS: [Codec; 2] = [Codec::Lz4, Codec::Zstd];
const MIB: usize = 1 << 20;

fn whole(codec: Codec, frame: &[u8], cap: usize) -> Result<Bytes, UnpackError> {
    unpack(codec, &[Bytes::copy_from_slice(frame)], cap)
}

/// A frame as other programs may write it.
fn lz4(plain: &[u8], info: FrameInfo) -> Vec<u8> {
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bombs_do_not_go_off() {
    for codec in CODECS {
        let bomb = pack(codec, &vec![0; 200 * MIB]).unwrap();
        assert!(bomb.len() < 2 * MIB);
        assert_eq!(whole(codec, &bomb, MIB), Err(UnpackError::TooLarge { cap: MIB }));
        let exact = pack(codec, &vec![0; MIB]).unwrap();
        assert_eq!(whole(codec, &exact, MIB).unwrap().len(), MIB);
        assert_eq!(whole(codec, &exact, MIB - 1), Err(UnpackError::TooLarge { cap: MIB - 1 }));
    }
}

#[test]
fn a_window_beyond_the_limit_is_refused() {
    let frame = |window| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        io::Write::write_all(&mut encoder, b"small").unwrap();
        encoder.finish().unwrap()
    };
    assert!(whole(Codec::Zstd, &frame(MAX_ZSTD_WINDOW_LOG), MIB).is_ok());
    assert!(matches!(
        whole(Codec::Zstd, &frame(MAX_ZSTD_WINDOW_LOG + 1), MIB),
        Err(UnpackError::Frame { .. })
    ));
}

#[test]
fn exactly_one_whole_frame() {
    for codec in CODECS {
        let frame = pack(codec, b"some bytes, some bytes, some bytes").unwrap();
        for len in 0..frame.len() {
            assert!(whole(codec, &frame[..len], MIB).is_err(), "{codec:?} cut at {len}");
        }
        for behind in [b"\0".as_slice(), &frame] {
            assert!(whole(codec, &[&frame, behind].concat(), MIB).is_err(), "{codec:?}");
        }
        assert!(whole(codec, b"", MIB).is_err());
    }
    // Skippable frames are frames to stock decoders, or not.
    let skippable = b"\x50\x2a\x4d\x18\x01\0\0\0x";
    for codec in CODECS {
        assert!(whole(codec, skippable, MIB).is_err());
    }
    assert_eq!(whole(Codec::Unspecified, b"", MIB), Err(UnpackError::NoCodec));
    // An empty block in the middle of a frame is no end.
    let mut frame = pack(Codec::Lz4, b"x").unwrap();
    let header = frame.len() - 4 - 1 - 4;
    frame.splice(header..header, [0, 0, 0, 0x80]);
    assert!(whole(Codec::Lz4, &frame, MIB).is_err());
}

#[test]
fn frames_of_every_shape() {
    let plain: Vec<u8> = (0..300_000_u32).flat_map(|i| (i / 7 % 1000).to_le_bytes()).collect();
    for size in [BlockSize::Max64KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for mode in [BlockMode::Independent, BlockMode::Linked] {
            for sums in [false, true] {
                let info = FrameInfo::new()
                    .block_size(size)
                    .block_mode(mode)
                    .block_checksums(sums)
                    .content_checksum(sums)
                    .content_size(sums.then_some(plain.len() as u64));
                let frame = lz4(&plain, info);
                assert_eq!(whole(Codec::Lz4, &frame, 2 * MIB).unwrap(), plain);
                assert!(whole(Codec::Lz4, &frame[..frame.len() - 4], 2 * MIB).is_err());
            }
        }
    }
}

fn packed(codec: Codec, field: &[u8]) -> BatchHeader {
    BatchHeader {
        base_offset: 9,
        record_count: 1,
        attributes: Attributes::default().with_codec(codec),
        records_crc32: crc32fast::hash(field),
        ..BatchHeader::default()
    }
}

#[test]
fn stored_batches_are_unpacked_with_new_checksums() {
    let run = b"\x7a\x06\x0a\x01k\x12\x01v";
    for codec in CODECS {
        let field = pack_field(codec, run).unwrap();
        let header = packed(codec, &field);
        let plain = unpack_batch(&header, &field, &TOPIC, PARTITION, MIB).unwrap();
        let bytes = [plain.prefix.as_slice(), &plain.payload].concat();
        let decoded = verify_batch(&bytes, &TOPIC, PARTITION).unwrap();
        assert_eq!((decoded.header, plain.payload.as_ref()), (plain.header, run.as_slice()));
        assert_eq!(plain.header.attributes.codec(), Some(Codec::Unspecified));
        assert_eq!(plain.header.base_offset, 9);

        let mut damaged = field.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let error = unpack_batch(&header, &damaged.into(), &TOPIC, PARTITION, MIB).unwrap_err();
        assert_eq!(error, UnpackError::Damaged(HeaderError::PayloadCrc));
        assert_eq!(
            unpack_batch(&header, &field, &TOPIC, PARTITION, 3).unwrap_err(),
            UnpackError::TooLarge { cap: 3 }
        );
    }
    let plain = Bytes::from_static(run);
    let error = unpack_batch(&packed(Codec::Zstd, &plain), &plain, &TOPIC, PARTITION, MIB).unwrap_err();
    assert_eq!(error, UnpackError::NoCodec);
}

proptest! {
    #[test]
    fn there_and_back(records in any_records(20), cuts in any_cuts()) {
        let run = run_of(records);
        for codec in CODECS {
            let field = pack_field(codec, &run).unwrap();
            let content = RecordBatch::decode(field.clone()).unwrap().compressed;
            prop_assert_eq!(unpack(codec, &split(&content, &cuts), MIB).unwrap(), &run);
        }
    }

    #[test]
    fn no_damaged_frame_panics(
        plain in proptest::collection::vec(0_u8..4, 0..3000), damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        linked: bool, sums: bool, cuts in any_cuts(),
    ) {
        let mode = if linked { BlockMode::Linked } else { BlockMode::Independent };
        let info = FrameInfo::new().block_mode(mode).block_size(BlockSize::Max64KB).block_checksums(sums);
        for (codec, mut frame) in [(Codec::Lz4, lz4(&plain, info)), (Codec::Zstd, pack(Codec::Zstd, &plain).unwrap())] {
            for &(at, byte) in &damage {
                let len = frame.len();
                frame[usize::from(at) % len] = byte;
            }
            let out = unpack(codec, &split(&frame, &cuts), MIB);
            prop_assert_eq!(out.is_ok(), whole(codec, &frame, MIB).is_ok());
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        for codec in CODECS {
            let magic = if codec == Codec::Lz4 { LZ4_MAGIC } else { ZSTD_MAGIC };
            let _ = whole(codec, &bytes, MIB);
            let _ = whole(codec, &[magic.as_slice(), &bytes].concat(), MIB);
        }
    }
}
