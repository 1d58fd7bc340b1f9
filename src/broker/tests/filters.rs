//! What a filter lets through: always what a reader would have kept of an unfiltered read, in the same bytes.

use std::collections::BTreeMap;

use annals_wire::{compress, v1::Header};
use proptest::{collection::vec, option, prelude::*};

use super::super::{Filter, SubEvent, Subscribe};
use super::*;

/// A record as a reader has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    offset: i64,
    timestamp_ms: i64,
    body: Vec<u8>,
}

fn seen(slice: &Slice) -> Vec<(Seen, Record)> {
    let whole = Bytes::from(slice.batches.concat());
    v1::LogSlice::decode(whole.clone()).unwrap();
    let parsed = annals_wire::slice::Slice::parse(whole).unwrap();
    let mut out = Vec::new();
    for batch in parsed.batches() {
        let batch: Batch = batch.unwrap();
        batch.verify(&slice.topic_id, slice.partition).unwrap();
        let batch = batch.unpacked().unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let (offset, timestamp_ms, body) =
                (record.offset, record.timestamp_ms, record.as_bytes().to_vec());
            out.push((Seen { offset, timestamp_ms, body }, Record::decode(record.as_bytes()).unwrap()));
        }
    }
    out
}

/// Everything from an offset on, answer by answer.
async fn all(house: &House, from: i64, call: &Fetch) -> Vec<(Seen, Record)> {
    let mut out = Vec::new();
    let mut from = from;
    loop {
        let positions = vec![at("t", 0, Start::Offset(from))];
        let fetched = house.broker.fetch(Fetch { positions, ..call.clone() }).await.unwrap();
        let slice = &fetched.slices[0];
        assert_eq!(slice.start_offset, from);
        let found = seen(slice);
        assert!(found.iter().all(|(seen, _)| (from..slice.next_offset).contains(&seen.offset)));
        out.extend(found);
        if slice.next_offset == from {
            assert_eq!(from, slice.high_watermark, "it stops only where there is no more");
            return out;
        }
        from = slice.next_offset;
    }
}

/// What the description of a filter in the API says, said once more.
fn wants(asked: &v1::Filter, record: &Record) -> bool {
    let has = |name: &str, value: Option<&Bytes>| {
        record.headers.iter().any(|header| header.key == name && header.value.as_ref() == value)
    };
    asked.key.as_ref().is_none_or(|key| record.key.as_ref() == Some(key))
        && asked.key_prefix.as_ref().is_none_or(|prefix| {
            record
                .key
                .as_ref()
                .is_some_and(|key| key.len() >= prefix.len() && key[..prefix.len()] == prefix[..])
        })
        && asked.headers.iter().all(|header| has(&header.key, header.value.as_ref()))
        && (asked.event_types.is_empty()
            || asked.event_types.iter().any(|kind| has("ce_type", Some(&Bytes::from(kind.clone())))))
}

fn filter(asked: v1::Filter) -> Arc<Filter> {
    Arc::new(Filter::new(asked).unwrap())
}

fn by_key(key: &str) -> Arc<Filter> {
    filter(v1::Filter { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..v1::Filter::default() })
}

fn keyed(key: &str, value: String) -> Record {
    Record { value: Some(value.into()), ..record(Some(key), "") }
}

fn a_record() -> impl Strategy<Value = Record> {
    let header = (prop_oneof![Just("ce_type"), Just("a"), Just("b")], option::of("[xy]{0,1}"))
        .prop_map(|(name, value)| Header { key: name.to_owned(), value: value.map(Bytes::from) });
    let value = prop_oneof![10 => 0_usize..20, 1 => 15_000_usize..40_000];
    let time = option::of(1_i64..9);
    (option::of("[ab]{0,2}"), value, vec(header, 0..3), time).prop_map(|(key, len, headers, timestamp_ms)| {
        Record {
            key: key.map(Bytes::from),
            value: Some(vec![b'v'; len].into()),
            headers,
            timestamp_ms,
            ..Record::default()
        }
    })
}

fn a_filter() -> impl Strategy<Value = v1::Filter> {
    let header = (prop_oneof![Just("ce_type"), Just("a"), Just("b")], option::of("[xy]{0,1}"))
        .prop_map(|(name, value)| Header { key: name.to_owned(), value: value.map(Bytes::from) });
    let key = prop_oneof![
        Just((None, None)),
        "[ab]{0,2}".prop_map(|key| (Some(Bytes::from(key)), None)),
        "[ab]{1,2}".prop_map(|key| (None, Some(Bytes::from(key)))),
    ];
    (key, vec(header, 0..2), vec("[xy]", 0..3))
        .prop_map(|((key, key_prefix), headers, event_types)| v1::Filter {
            key,
            key_prefix,
            headers,
            event_types,
        })
        .prop_filter("it has a condition", |asked| Filter::new(asked.clone()).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn it_is_what_a_reader_would_have_kept(
        batches in vec((vec(a_record(), 1..9), 0_i32..3), 1..9),
        asked in a_filter(),
        from in 0_i64..9,
        max_bytes in prop_oneof![Just(0_u32), 1_u32..60_000],
        lz4: bool,
        zstd: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let house = House::new();
            for (records, codec) in batches {
                house.produce(packed(records, codec)).await.unwrap();
            }
            let call = Fetch { max_bytes, accept_codecs: CodecSet { lz4, zstd }, ..fetch(vec![]) };
            let from = from.min(all(&house, 0, &call).await.len().try_into().unwrap());
            let mut kept = all(&house, from, &call).await;
            kept.retain(|(_, record)| wants(&asked, record));
            let sent = all(&house, from, &Fetch { filter: Some(filter(asked)), ..call }).await;
            assert_eq!(sent, kept);
        });
    }
}

fn packed(records: Vec<Record>, codec: i32) -> ProduceRequest {
    let request = ProduceRequest { records, ..to("t", 0, &[]) };
    if codec == 0 {
        return request;
    }
    let run = v1::RecordBatch { records: request.records.clone(), ..Default::default() }.encode_to_vec();
    let packed = compress::pack(v1::Codec::try_from(codec).unwrap(), &run).unwrap();
    ProduceRequest { records: vec![], compressed: packed.into(), codec, ..request }
}

#[tokio::test(flavor = "multi_thread")]
async fn across_segments_and_after_a_crash_nothing_is_left_out() {
    let house = House::new();
    // Segments hold a megabyte.
    for n in 0..60 {
        let records =
            (0..50).map(|m| keyed(if (n * 50 + m) % 37 == 0 { "mine" } else { "other" }, "x".repeat(1000)));
        house.produce(ProduceRequest { records: records.collect(), ..to("t", 0, &[]) }).await.unwrap();
    }
    let call = Fetch { filter: Some(by_key("mine")), ..fetch(vec![]) };
    let expected: Vec<i64> = (0..3000).filter(|n| n % 37 == 0).collect();
    for house in [&house, &house.crashed()] {
        let found = all(house, 0, &call).await;
        assert_eq!(found.iter().map(|(seen, _)| seen.offset).collect::<Vec<_>>(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_records_says_how_far_was_looked() {
    let house = House::new();
    for _ in 0..10 {
        let records = (0..10).map(|_| keyed("other", "x".repeat(90_000))).collect();
        house.produce(ProduceRequest { records, ..to("t", 0, &[]) }).await.unwrap();
    }
    let call = Fetch { filter: Some(by_key("mine")), ..fetch(vec![at("t", 0, Start::Earliest)]) };
    let fetched = house.broker.fetch(call).await.unwrap();
    let slice = &fetched.slices[0];
    assert!(slice.is_empty() && slice.looked_at > 9_000_000, "{slice:?}");
    assert_eq!((slice.start_offset, slice.next_offset, slice.high_watermark), (0, 100, 100));
    house.commit_at("g", "t", slice.next_offset).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_matches_keeps_to_the_size_of_an_answer() {
    let house = House::new();
    let records: Vec<_> =
        (0..40).map(|n| keyed(if n % 2 == 0 { "mine" } else { "other" }, "x".repeat(1000))).collect();
    house.produce(ProduceRequest { records, ..to("t", 0, &[]) }).await.unwrap();
    let call = |from| Fetch {
        filter: Some(by_key("mine")),
        max_bytes: 4000,
        ..fetch(vec![at("t", 0, Start::Offset(from))])
    };
    let mut from = 0;
    let mut sizes = BTreeMap::new();
    while from < 40 {
        let fetched = house.broker.fetch(call(from)).await.unwrap();
        let slice = &fetched.slices[0];
        assert!(slice.len() <= 4000);
        *sizes.entry(seen(slice).len()).or_insert(0) += 1;
        from = slice.next_offset;
    }
    assert_eq!(sizes, BTreeMap::from([(2, 1), (3, 6)]), "answers by their number of records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_poll_waits_for_what_matches_and_passes_the_rest() {
    let house = House::new();
    house.put("t", &["a"]).await;
    let broker = Arc::clone(&house.broker);
    let call = Fetch {
        filter: Some(by_key("mine")),
        max_wait: Duration::from_secs(3600),
        ..fetch(vec![at("t", 0, Start::Earliest)])
    };
    let polled = tokio::spawn(async move { broker.fetch(call).await });
    for _ in 0..5 {
        house.put("t", &["b"]).await;
        tokio::task::yield_now().await;
    }
    assert!(!polled.is_finished());
    house
        .produce(ProduceRequest { records: vec![keyed("mine", "c".into())], ..to("t", 0, &[]) })
        .await
        .unwrap();
    let fetched = polled.await.unwrap().unwrap();
    let slice = &fetched.slices[0];
    assert_eq!((seen(slice)[0].0.offset, seen(slice).len()), (6, 1));
    assert_eq!((slice.start_offset, slice.next_offset), (0, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_tells_how_far_it_looked_before_it_has_caught_up() {
    let house = House::new();
    for _ in 0..3 {
        house.put("t", &["a", "b"]).await;
    }
    let call = Subscribe {
        positions: vec![at("t", 0, Start::Earliest)],
        max_bytes: 0,
        accept_codecs: CodecSet::default(),
        skip_damaged: false,
        filter: Some(by_key("mine")),
    };
    let mut subscription = house.broker.subscribe(call).await.unwrap();
    let mut next = async || subscription.next().await.unwrap();
    match next().await {
        SubEvent::Slice(slice) => {
            assert_eq!((slice.is_empty(), slice.start_offset, slice.next_offset), (true, 0, 6));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(next().await, SubEvent::CaughtUp { next_offset: 6, .. }));
    // By this clock no time passes: what does not match is told by heartbeats alone, and the next slice begins where the
    // last one told ended.
    house.put("t", &["c"]).await;
    let records = vec![keyed("mine", "d".into())];
    house.produce(ProduceRequest { records, ..to("t", 0, &[]) }).await.unwrap();
    match next().await {
        SubEvent::Slice(slice) => {
            assert_eq!((seen(&slice)[0].0.offset, slice.start_offset, slice.next_offset), (7, 6, 8));
        }
        other => panic!("{other:?}"),
    }
}
