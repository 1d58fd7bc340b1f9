//! The corpus's beginnings: real encodings of everything, what is poison to stock decoders, and the golden directory's files.
//!
//! `fuzz/corpus/<target>/` holds them as files, for fuzzers that know nothing of this code; a test keeps the two equal, and
//! `ANNALS_WRITE_CORPUS=1 cargo test --lib fuzz::tests::the_corpus` writes them. Whatever else lies there is a seed as well:
//! inputs that once failed.

mod groups;
mod internal;
mod steps;

use std::{fs, path::Path};

use annals_wire::{
    compress::{pack, pack_field},
    header::{Attributes, BatchHeader},
    segment::{SegmentIdentity, SegmentSummary},
    slice::Prefix,
    v1::{self, Codec, fetch_position::Start, subscribe_response::Event},
};
use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{Target, repair};
use crate::{
    grpc,
    storage::fuzz::{self as storage, PARTITION, TOPIC},
};

type Seed = (String, Vec<u8>);

fn named(seeds: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Vec<Seed> {
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn texts(seeds: &[&str]) -> Vec<Seed> {
    seeds.iter().enumerate().map(|(index, text)| (format!("{index:02}"), text.as_bytes().to_vec())).collect()
}

fn messages<M: prost::Message>(name: &str, seeds: impl IntoIterator<Item = M>) -> Vec<Seed> {
    let encoded = seeds.into_iter().map(|message| message.encode_to_vec());
    encoded.enumerate().map(|(index, bytes)| (format!("{name}-{index}"), bytes)).collect()
}

/// The seeds of a target.
pub(super) fn of(target: &Target) -> Vec<Seed> {
    match target.name {
        "batch_header" | "stored_batch" => stored_batches(),
        "payload_walk" => {
            [named([("records", run(3)), ("one", run(1)), ("holes", holes())]), poison()].concat()
        }
        "segment_edges" => named([("header", identity()), ("footer", summary())]),
        "segment_scan" => segments(),
        "packed_lz4" => packed(Codec::Lz4),
        "packed_zstd" => packed(Codec::Zstd),
        "names" => texts(&[
            "orders",
            "..",
            "__x",
            "a.b_c-D9",
            "00112233-4455-6677-8899-aabbccddeeff",
            "best\u{e9}",
            &"x".repeat(249),
        ]),
        "produce_request" => produce_requests(),
        "produce_stream_request" => {
            let wrap = |(name, bytes): Seed| (name, [delimited(1, &bytes)].concat());
            produce_requests().into_iter().map(wrap).collect()
        }
        "step_request" => steps::steps(),
        "fetch_response" => named([("slices", fetched()), ("nothing", Vec::new())]),
        "subscribe_response" => subscribed(),
        "requests" => requests(),
        "framing" => framed(),
        "call_timeout" => texts(&["500m", "99999999H", "1n", "0S", "12345678u", "7M"]),
        "error_details" => named([("throttled", grpc::fuzz::example_details())]),
        _ => of_files(target),
    }
}

/// Those of the targets that read files and arguments.
fn of_files(target: &Target) -> Vec<Seed> {
    match target.name {
        "root" => named([("new", storage::ROOT.encode().to_vec()), ("golden", golden("ANNALS"))]),
        "ring_header" => named([("new", storage::ring_header_seed())]),
        "frame" => frames(),
        "snapshot" => snapshots(),
        "index" => named([("few", 3), ("many", 40), ("none", 0)].map(|(n, k)| (n, storage::index_seed(k)))),
        "keys" => named([("few", storage::keys_seed(3)), ("many", storage::keys_seed(900))]),
        "journal_entries" => {
            named([("all-kinds", internal::journal().encode_to_vec()), ("none", Vec::new())])
        }
        "recovered_snapshot" => {
            let body = |bytes: Vec<u8>| bytes.get(64..).unwrap().to_vec();
            let golden = [golden(FIRST_SNAPSHOT), golden(SECOND_SNAPSHOT)].map(body);
            let [first, second] = golden;
            named([
                ("all-kinds", internal::snapshot().encode_to_vec()),
                ("golden-1", first),
                ("golden-2", second),
            ])
        }
        "state_entries" => named([("all-kinds", internal::state_frame().encode_to_vec())]),
        "state_image" => messages("image", internal::state_images()),
        "config" => texts(&[
            "data = '/var/lib/annals'\ngrpc = \"0.0.0.0:7411\"\nephemeral = false\n",
            "[topics]\nauto_create = true\npartitions = 8\ndurability = 'interval'\n[storage]\nsegment_bytes = '256MiB'\njournal_bytes = 268435456\n",
            "[limits]\nconnections = 4096\nstreams_per_connection = 256\ninflight_bytes = '1GiB'\n\n# how long\nshutdown_ms = 10000\n",
        ]),
        "position" => texts(&[
            "start",
            "end",
            "42",
            "-10",
            "+5",
            "@-1h30m",
            "@2026-11-01T00:00Z",
            "@2026-11-01T00:00:00.5+01:00",
            "start..end",
            "@-7d..-10",
            "@-1w2h",
            "64KiB",
            "9223372036854775807",
            "@-250ms",
        ]),
        "lines" => {
            texts(&["one\ntwo\r\n\nfour", "\n", "a long line of some forty letters and more\nx\n", "no end"])
        }
        "json_record" => texts(&[
            r#"{"topic":"orders","partition":2,"offset":7,"timestamp_ms":1793491200123,"key":"k","value":"{\"a\":1}","headers":[["n","v"],["e",null],["b",{"base64":"/w=="}]]}"#,
            r#"{"key_base64":"gA==","value_base64":"//4=","headers":[]}"#,
            r#"{"topic":"t","tstype":"create","ts":1700000000000,"broker":1,"headers":["h1","v1","h2",null],"key":"k","payload":"v"}"#,
            r#"{"value":null}"#,
        ]),
        "key_field" => texts(&[
            r#"{"a":{"key":"inner"},"key":"JFK-\u00e4","delay":[1,2]}"#,
            r#" { "key" : -1.50e3 } "#,
            r#"{"key":true,"key":"last"}"#,
            "a::b::c",
        ]),
        "output_format" => texts(&[
            "table\nkeyvalue",
            "json\n\u{7}\u{1b}[2J",
            "csv\na,\"b\"",
            "%t[%p]@%o %k %v %h{name} %T %%\\n\nabc",
            "raw\n",
        ]),
        other => panic!("{other} has no seeds"),
    }
}

// Records and batches

fn record(index: u8) -> v1::Record {
    let header =
        v1::Header { key: format!("h{index}"), value: (index > 1).then(|| Bytes::from_static(b"v")) };
    v1::Record {
        key: (index != 0).then(|| Bytes::from(vec![b'k', index])),
        value: Some(Bytes::from(vec![index; usize::from(index) * 9])),
        headers: vec![header; usize::from(index % 3)],
        timestamp_ms: index.is_multiple_of(2).then(|| 1_700_000_000_000 + i64::from(index)),
        ..v1::Record::default()
    }
}

fn run(records: u8) -> Vec<u8> {
    let records = (0..records).map(record).collect();
    v1::RecordBatch { records, ..v1::RecordBatch::default() }.encode_to_vec()
}

fn holes() -> Vec<u8> {
    let records = [1, 4, 6].map(|index| v1::Record { offset_delta: Some(index.into()), ..record(index) });
    v1::RecordBatch { records: records.into(), ..v1::RecordBatch::default() }.encode_to_vec()
}

/// A stored batch of that payload. `spanned`: offsets it takes, of which `count` are there.
fn stored(base_offset: i64, (count, spanned): (u32, u32), attributes: u32, payload: &[u8]) -> Vec<u8> {
    let header = BatchHeader {
        base_offset,
        last_offset_delta: spanned - 1,
        leader_epoch: 1,
        record_count: count,
        attributes: Attributes(attributes),
        append_time_ms: 1_700_000_000_000,
        max_timestamp_ms: 1_700_000_000_004,
        records_crc32: crc32fast::hash(payload),
        ..BatchHeader::default()
    };
    [&header.encode(payload.len(), &TOPIC, PARTITION)[..], payload].concat()
}

fn packed_batch(codec: Codec, bits: u32) -> Vec<u8> {
    stored(40, (4, 4), bits, &pack_field(codec, &run(4)).unwrap())
}

fn stored_batches() -> Vec<Seed> {
    named([
        ("plain", stored(0, (3, 3), 0, &run(3))),
        ("one", stored(i64::from(u32::MAX), (1, 1), 0, &run(1))),
        ("holes", stored(20, (3, 8), 1 << 5, &holes())),
        ("lz4", packed_batch(Codec::Lz4, 1)),
        ("zstd", packed_batch(Codec::Zstd, 2)),
        ("atomic", stored(9, (2, 2), 1 << 3, &run(2))),
        ("control", stored(11, (0, 1), 1 << 4, &[])),
        ("kafka", stored(12, (1, 1), 1 << 6, &delimited(16, b"kafka"))),
        ("last", stored(i64::MAX - 3, (3, 3), 0, &run(3))),
    ])
}

fn identity() -> Vec<u8> {
    let identity = SegmentIdentity {
        format_version: 1,
        feature_bits: 0,
        cluster_id: storage::ROOT.cluster_id,
        topic_id: TOPIC,
        partition: PARTITION,
        base_offset: 0,
        generation: 0,
        log_start_offset: 0,
        created_ms: 1_700_000_000_000,
    };
    identity.encode().to_vec()
}

fn summary() -> Vec<u8> {
    let summary = SegmentSummary {
        batch_count: 3,
        record_count: 8,
        last_offset: 7,
        last_epoch: 1,
        max_timestamp_ms: 1_700_000_000_004,
        file_crc32: 0xDEAD_BEEF,
    };
    summary.encode().to_vec()
}

fn segments() -> Vec<Seed> {
    let batches = [
        stored(0, (3, 3), 0, &run(3)),
        stored(3, (0, 1), 1 << 4, &[]),
        stored(4, (4, 4), 2, &pack_field(Codec::Zstd, &run(4)).unwrap()),
    ]
    .concat();
    let mut seeds = named([
        ("sealed", [identity(), batches.clone(), summary()].concat()),
        ("active", [identity(), batches, vec![0; 300]].concat()),
        ("gap", [identity(), stored(0, (1, 1), 0, &run(1)), stored(5, (2, 2), 0, &run(2))].concat()),
    ]);
    for partition in ["0", "1"] {
        let file =
            format!("topics/01a0c450-6c00-7280-b826-7b1b35cd8f29/{partition}/00000000000000000000-0.log");
        let mut bytes = golden(&file);
        repair::batches(&mut bytes);
        seeds.push((format!("golden-{partition}"), bytes));
    }
    seeds
}

fn packed(codec: Codec) -> Vec<Seed> {
    let pack = |plain: &[u8]| pack(codec, plain).unwrap();
    let noise: Vec<u8> =
        (0..300_u32).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    named([
        ("records", pack(&run(6))),
        ("nothing", pack(b"")),
        ("noise", pack(&noise)),
        ("bomb", pack(&vec![0; 1 << 20])),
        ("two-frames", [pack(b"abc"), pack(b"def")].concat()),
    ])
}

// Messages

fn delimited(field: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    [out, content.to_vec()].concat()
}

fn produce_requests() -> Vec<Seed> {
    let full = v1::ProduceRequest {
        topic: "orders".into(),
        partition: Some(PARTITION),
        durability: v1::Durability::Fsync.into(),
        expected_next_offset: Some(7),
        records_crc32: Some(crc32fast::hash(&run(3))),
        request_id: "a-request".into(),
        records: (0..3).map(record).collect(),
        ..v1::ProduceRequest::default()
    };
    let packed = v1::ProduceRequest {
        records: Vec::new(),
        codec: Codec::Zstd.into(),
        compressed: pack(Codec::Zstd, &run(3)).unwrap().into(),
        ..full.clone()
    };
    let bytes = full.encode_to_vec();
    // An unknown group in a group, and the topic again behind the records.
    let odd = [&bytes[..], &[0xA3, 6, 0xAB, 6, 0x08, 1, 0xAC, 6, 0xA4, 6], &delimited(1, b"again"), &run(1)]
        .concat();
    let mut seeds = named([
        ("full", bytes),
        ("packed", packed.encode_to_vec()),
        ("odd", odd),
        ("both", [packed.encode_to_vec(), run(1)].concat()),
        ("nothing", Vec::new()),
    ]);
    seeds.extend(poison());
    seeds
}

fn slice(batches: &[Vec<u8>]) -> Vec<u8> {
    let gaps = [v1::OffsetGap { first_offset: 3, last_offset: 5, reason: v1::GapReason::Damaged.into() }];
    let prefix = Prefix {
        topic: "orders",
        partition: PARTITION,
        high_watermark: 99,
        log_start_offset: 0,
        next_offset: 44,
        leader_epoch: 1,
        topic_id: TOPIC,
        gaps: &gaps,
        start_offset: 1,
    };
    let batches = batches.concat();
    let mut out = BytesMut::new();
    prefix.put(batches.len(), &mut out);
    [&out[..], &batches].concat()
}

fn partition_error() -> v1::PartitionError {
    v1::PartitionError {
        topic: "orders".into(),
        partition: 1,
        code: 5,
        reason: "TOPIC_NOT_FOUND".into(),
        message: "there is no such topic".into(),
        metadata: [("topic".to_owned(), "orders".to_owned())].into(),
    }
}

fn fetched() -> Vec<u8> {
    let all: Vec<Vec<u8>> = stored_batches().into_iter().map(|(_, bytes)| bytes).collect();
    [slice(&all[..4]), slice(&all[4..6]), delimited(2, &partition_error().encode_to_vec()), slice(&[])]
        .concat()
}

fn subscribed() -> Vec<Seed> {
    let event = |event| v1::SubscribeResponse { event: Some(event) };
    let watermark =
        v1::PartitionWatermark { topic: "orders".into(), high_watermark: 9, ..Default::default() };
    let mut seeds = messages(
        "event",
        [
            event(Event::Heartbeat(v1::Heartbeat { now_ms: 5, watermarks: vec![watermark] })),
            event(Event::CaughtUp(v1::CaughtUp {
                topic: "orders".into(),
                next_offset: 9,
                ..Default::default()
            })),
            event(Event::Drain(v1::Drain { deadline_ms: 700 })),
            event(Event::PartitionError(partition_error())),
        ],
    );
    let batches = [stored(0, (3, 3), 0, &run(3)), packed_batch(Codec::Lz4, 1)];
    let scattered = [slice(&batches[..1]), slice(&batches[1..])].concat();
    seeds.extend(named([("slice", slice(&batches)), ("scattered", scattered)]));
    seeds
}

fn position(start: Start) -> v1::FetchPosition {
    v1::FetchPosition { topic: "orders".into(), partition: Some(1), start: Some(start), ..Default::default() }
}

fn requests() -> Vec<Seed> {
    let positions = vec![
        position(Start::Offset(42)),
        position(Start::TimestampMs(1_700_000_000_000)),
        position(Start::Anchor(2)),
        position(Start::LastRecords(10)),
        position(Start::CommittedBy("billing".into())),
    ];
    let config = v1::TopicConfig {
        partitions: 8,
        durability: 2,
        segment_bytes: Some(1 << 20),
        interval_ms: Some(5),
        interval_bytes: Some(4096),
    };
    let mask = prost_types::FieldMask { paths: vec!["partitions".into(), "interval_ms".into()] };
    let fetch = v1::FetchRequest {
        positions: positions.clone(),
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        accept_codecs: vec![1, 2],
        filter: Some(v1::Filter { key: Some("k".into()), ..Default::default() }),
        skip_damaged: true,
    };
    let subscribe =
        v1::SubscribeRequest { positions, max_bytes: 9, accept_codecs: vec![2], ..Default::default() };
    let create =
        v1::CreateTopicRequest { topic: "orders".into(), config: Some(config), request_id: "r".into() };
    let update =
        v1::UpdateTopicRequest { topic: "orders".into(), config: Some(config), update_mask: Some(mask) };
    let list = v1::ListTopicsRequest { page_size: 10, page_token: "token".into(), prefix: "or".into() };
    let delete =
        v1::DeleteTopicRequest { topic: "orders".into(), topic_id: Bytes::copy_from_slice(TOPIC.as_bytes()) };
    [
        messages("fetch", [fetch]),
        messages("subscribe", [subscribe]),
        messages("create", [create]),
        messages("update", [update]),
        messages("delete", [delete]),
        messages("list", [list]),
        groups::requests(),
    ]
    .concat()
}

fn framed() -> Vec<Seed> {
    let frame = |bytes: &[u8]| [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    named([
        ("one", frame(&run(2))),
        ("three", [frame(b"abc"), frame(b""), frame(&[7; 200])].concat()),
        ("packed", [&[1][..], &frame(b"abc")[1..]].concat()),
        ("large", [0, 0, 0, 16, 1, 9].to_vec()),
    ])
}

// Files

const FIRST_SNAPSHOT: &str = "snapshot-00000000000000000034";
const SECOND_SNAPSHOT: &str = "snapshot-00000000000000000038";

fn golden(file: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/1/valid").join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn poison() -> Vec<Seed> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/tests/poison");
    let file = |entry: fs::DirEntry| {
        let name = entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        (format!("poison-{name}"), fs::read(entry.path()).unwrap())
    };
    let mut seeds: Vec<Seed> = fs::read_dir(directory).unwrap().map(|entry| file(entry.unwrap())).collect();
    seeds.sort();
    seeds
}

/// The first frames of the golden journal, and one of every kind of entry.
fn frames() -> Vec<Seed> {
    let mut journal = golden("journal/1").into_iter().skip(4096).collect::<Vec<u8>>();
    let mut seeds =
        vec![("all-kinds".to_owned(), [vec![0; 64], internal::journal().encode_to_vec()].concat())];
    for index in 0..6 {
        let length = u32::from_le_bytes(journal[8..12].try_into().unwrap()) as usize;
        seeds.push((format!("golden-{index}"), journal[..length].to_vec()));
        journal.drain(..length.div_ceil(4096) * 4096);
    }
    let header = seeds[1].1[..64].to_vec();
    seeds[0].1[..64].copy_from_slice(&header);
    for (_, frame) in &mut seeds {
        frame[..8].copy_from_slice(&storage::ROOT.frame_magic.to_le_bytes());
        repair::frame(frame);
    }
    seeds
}

fn snapshots() -> Vec<Seed> {
    let new = storage::snapshot_seed(&internal::snapshot());
    let mut seeds =
        named([("new", new), ("golden-1", golden(FIRST_SNAPSHOT)), ("golden-2", golden(SECOND_SNAPSHOT))]);
    for (_, file) in &mut seeds {
        file[20..36].copy_from_slice(&storage::ROOT.cluster_id);
        file[36..52].copy_from_slice(&storage::ROOT.directory_id);
        repair::snapshot(file);
    }
    seeds
}
