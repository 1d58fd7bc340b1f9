//! Storing records.

use annals_wire::{
    compress::pack,
    murmur2::partition_of,
    v1::{Codec, Durability},
};

use super::*;
use crate::storage::Level;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_produced_is_fetched_also_after_a_crash() {
    let house = House::new();
    assert_eq!(house.put("orders", &["a", "b", "c"]).await, 0);
    assert_eq!(house.put("orders", &["d"]).await, 3);
    assert_eq!(house.values("orders", 0).await, numbered(0, &["a", "b", "c", "d"]));
    let after = house.crashed();
    assert!(!after.report.created);
    assert_eq!(after.values("orders", 0).await, numbered(0, &["a", "b", "c", "d"]));
    assert_eq!(after.put("orders", &["e"]).await, 4);
    let info = after.broker.get_topic("orders").await.unwrap();
    assert_eq!((info.partitions.len(), info.partitions[0].high_watermark), (4, 5));
    assert!(
        info.partitions[0].leader_epoch
            > house.broker.get_topic("orders").await.unwrap().partitions[0].leader_epoch
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_one_partition_and_every_record_is_told_its_place() {
    let house = House::new();
    let keys: Vec<String> = (0..60).map(|n| format!("key-{}", n % 20)).collect();
    let records = keys.iter().enumerate().map(|(n, key)| record(Some(key), &format!("{n}"))).collect();
    let request = ProduceRequest { topic: "t".into(), records, ..ProduceRequest::default() };
    let produced = house.produce(request).await.unwrap();
    assert!(produced.appends.len() > 1 && !produced.duplicate);
    assert!(produced.appends.windows(2).all(|pair| pair[0].partition < pair[1].partition));
    let mut seen = vec![false; keys.len()];
    for append in &produced.appends {
        assert_eq!(append.record_indexes.len(), append.record_count as usize);
        assert_eq!((append.level, append.base_offset), (Level::Fsync, 0));
        let fetched = house.fetch(vec![at("t", append.partition, Start::Earliest)]).await.unwrap();
        let stored = values(&fetched.slices[0]);
        for (index, (_, value)) in append.record_indexes.iter().zip(&stored) {
            assert_eq!(*value, index.to_string(), "record_indexes[i] is at base_offset + i");
            let key = &keys[*index as usize];
            assert_eq!(partition_of(key.as_bytes(), 4), append.partition);
            assert!(!std::mem::replace(&mut seen[*index as usize], true));
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_for_one_partition_alone_are_not_told_one_by_one() {
    let house = House::new();
    let records = vec![record(Some("k"), "1"), record(Some("k"), "2")];
    let request = ProduceRequest { topic: "t".into(), records, ..ProduceRequest::default() };
    let produced = house.produce(request).await.unwrap();
    assert_eq!(produced.appends.len(), 1);
    assert!(produced.appends[0].record_indexes.is_empty());
    assert_eq!(produced.appends[0].partition, partition_of(b"k", 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn keyless_records_of_a_request_stay_together_and_partitions_take_turns() {
    let house = House::new();
    let mut touched = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let records = vec![record(None, &"x".repeat(20_000)), record(None, "y")];
        let request = ProduceRequest { topic: "t".into(), records, ..ProduceRequest::default() };
        let produced = house.produce(request).await.unwrap();
        assert_eq!(produced.appends.len(), 1);
        touched.insert(produced.appends[0].partition);
    }
    assert_eq!(touched.len(), 4);
    // Mixed: the keyless ones go together, wherever the keyed ones go.
    let records = ["a", "b", "c", "d", "e"].map(|key| record(Some(key), "v")).into_iter();
    let records = records.flat_map(|keyed| [keyed, record(None, "none")]).collect();
    let request = ProduceRequest { topic: "t".into(), records, ..ProduceRequest::default() };
    let produced = house.produce(request).await.unwrap();
    let keyless: Vec<_> =
        produced.appends.iter().filter(|append| append.record_indexes.contains(&1)).collect();
    assert!([1, 3, 5, 7, 9].iter().all(|index| keyless[0].record_indexes.contains(index)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let house = House::new();
    let good = || to("t", 0, &["v"]);
    let cases: Vec<(ProduceRequest, &str)> = vec![
        (ProduceRequest { records: vec![], ..good() }, "MALFORMED"),
        (ProduceRequest { topic: String::new(), ..good() }, "INVALID_NAME"),
        (ProduceRequest { topic: "a/b".into(), ..good() }, "INVALID_NAME"),
        (ProduceRequest { topic: "__reserved".into(), ..good() }, "INVALID_NAME"),
        (ProduceRequest { partition: Some(4), ..good() }, "PARTITION_UNKNOWN"),
        (ProduceRequest { durability: 9, ..good() }, "MALFORMED"),
        (ProduceRequest { codec: 1, ..good() }, "MALFORMED"),
        (ProduceRequest { codec: 77, ..good() }, "MALFORMED"),
        (ProduceRequest { records_crc32: Some(1), ..good() }, "MALFORMED"),
        (ProduceRequest { partition: None, expected_next_offset: Some(0), ..good() }, "MALFORMED"),
        (ProduceRequest { request_id: "x".repeat(129), ..good() }, "MALFORMED"),
        (ProduceRequest { records: vec![record(None, &"x".repeat(1 << 20))], ..good() }, "RECORD_TOO_LARGE"),
        (
            ProduceRequest { records: vec![record(None, &"x".repeat(600_000)); 2], ..good() },
            "BATCH_TOO_LARGE",
        ),
        (
            ProduceRequest {
                records: vec![],
                codec: Codec::Lz4.into(),
                compressed: Bytes::from_static(b"not a frame"),
                ..good()
            },
            "MALFORMED",
        ),
        (
            ProduceRequest { records: vec![Record { offset_delta: Some(1), ..record(None, "v") }], ..good() },
            "MALFORMED",
        ),
    ];
    for (request, reason) in cases {
        let error = house.produce(request).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    assert!(house.broker.list_topics(PageRequest::default()).await.unwrap().items.is_empty());
    assert_eq!(house.put("t", &["v"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_only_where_that_is_allowed() {
    let config = Config { auto_create: false, ..config() };
    let house = House::with(MemoryDisk::new(), config, true);
    house.topic("orders", 1).await;
    let error = house.produce(to("ordrs", 0, &["v"])).await.unwrap_err();
    assert_eq!(error, Error::TopicNotFound { topic: "ordrs".into(), did_you_mean: Some("orders".into()) });
    assert_eq!(house.put("orders", &["v"]).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_expect_the_same_offset_one_wins() {
    let house = House::new();
    house.topic("t", 1).await;
    for round in 0..20_i64 {
        let racers = (0..8).map(|n| {
            let broker = Arc::clone(&house.broker);
            let request = ProduceRequest {
                expected_next_offset: Some(round),
                ..to("t", 0, &[&format!("{round}/{n}")])
            };
            tokio::spawn(async move { broker.produce(call(&request)).await })
        });
        let mut won = 0;
        for racer in racers.collect::<Vec<_>>() {
            match racer.await.unwrap() {
                Ok(produced) => {
                    won += 1;
                    assert_eq!(produced.appends[0].base_offset, round);
                }
                Err(Error::ExpectedOffsetMismatch { expected, actual, .. }) => {
                    assert_eq!((expected, actual), (round, round + 1));
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(house.values("t", 0).await.len(), 20);
}

fn identified(id: &str, values: &[&str]) -> ProduceRequest {
    let records = values.iter().map(|value| record(Some(value), value)).collect();
    ProduceRequest { topic: "t".into(), request_id: id.into(), records, ..ProduceRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_an_id_is_stored_once_and_answered_the_same() {
    let house = House::new();
    let many: Vec<String> = (0..40).map(|n| format!("v{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let first = house.produce(identified("id-1", &many)).await.unwrap();
    assert!(!first.duplicate && first.appends.len() > 1);
    house.put("t", &["between"]).await;
    // Growing the topic changes where keys go, but not the answer.
    let grown = TopicSettings { partitions: Some(9), ..TopicSettings::default() };
    house.broker.update_topic("t", grown).await.unwrap();
    let same = |again: &Produced| {
        assert!(again.duplicate);
        for (one, other) in first.appends.iter().zip(&again.appends) {
            assert!(other.duplicate);
            assert_eq!(super::super::PartitionAppend { duplicate: false, ..other.clone() }, *one);
        }
        assert_eq!(first.appends.len(), again.appends.len());
    };
    same(&house.produce(identified("id-1", &many)).await.unwrap());
    let error = house.produce(identified("id-1", &["other"])).await.unwrap_err();
    assert_eq!(error, Error::RequestIdReused { request_id: "id-1".into() });
    let after = house.crashed();
    same(&after.produce(identified("id-1", &many)).await.unwrap());
    let stored: i64 =
        after.broker.get_topic("t").await.unwrap().partitions.iter().map(|one| one.high_watermark).sum();
    assert_eq!(stored, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_many_times_at_once_is_stored_once() {
    let house = House::new();
    for round in 0..20 {
        let racers: Vec<_> = (0..6)
            .map(|_| {
                let broker = Arc::clone(&house.broker);
                let request = identified(&format!("id-{round}"), &["a", "b", "c"]);
                tokio::spawn(async move { broker.produce(call(&request)).await.unwrap() })
            })
            .collect();
        let mut answers = Vec::new();
        for racer in racers {
            answers.push(racer.await.unwrap());
        }
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1);
        let places = |answer: &Produced| -> Vec<_> {
            answer
                .appends
                .iter()
                .map(|one| (one.partition, one.base_offset, one.record_indexes.clone()))
                .collect()
        };
        assert!(answers.iter().all(|answer| places(answer) == places(&answers[0])));
    }
    let stored: i64 =
        house.broker.get_topic("t").await.unwrap().partitions.iter().map(|one| one.high_watermark).sum();
    assert_eq!(stored, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_records_are_stored_as_sent_and_unpacked_for_who_cannot() {
    let house = House::new();
    let strings: Vec<String> = (0..50).map(|n| format!("value {n}")).collect();
    let texts: Vec<&str> = strings.iter().map(String::as_str).collect();
    for codec in [Codec::Lz4, Codec::Zstd] {
        let topic = codec.as_str_name();
        let records = to(topic, 0, &texts).records;
        let run = ProduceRequest { records, ..ProduceRequest::default() }.encode_to_vec();
        let compressed = Bytes::from(pack(codec, &run).unwrap());
        let field =
            ProduceRequest { compressed: compressed.clone(), ..ProduceRequest::default() }.encode_to_vec();
        let records_crc32 = Some(crc32fast::hash(&field));
        let request = ProduceRequest { codec: codec.into(), compressed, records_crc32, ..to(topic, 0, &[]) };
        let produced = house.produce(request).await.unwrap();
        assert_eq!(produced.appends[0].record_count, 50);
        let packed = house.fetch(vec![at(topic, 0, Start::Offset(0))]).await.unwrap();
        assert_eq!(values(&packed.slices[0]), numbered(0, &texts));
        let plain = |from| Fetch {
            accept_codecs: CodecSet::default(),
            ..fetch(vec![at(topic, 0, Start::Offset(from))])
        };
        let unpacked = house.broker.fetch(plain(0)).await.unwrap();
        assert!(unpacked.slices[0].len() > packed.slices[0].len());
        assert_eq!(values(&unpacked.slices[0]), numbered(0, &texts));
        // Nobody can cut a packed batch, so from its middle it comes unpacked, whoever asks.
        for found in
            [house.fetch(vec![at(topic, 0, Start::Offset(17))]).await, house.broker.fetch(plain(17)).await]
        {
            let found = found.unwrap();
            assert_eq!(values(&found.slices[0]), numbered(17, &texts[17..]));
            assert_eq!((found.slices[0].start_offset, found.slices[0].next_offset), (17, 50));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_names_the_level_it_reached_never_below_the_topics() {
    let house = House::new();
    let level = |level| TopicSettings { level: Some(level), partitions: Some(1), ..TopicSettings::default() };
    let me = Principal::anonymous();
    house.broker.create_topic(&me, "os", level(Level::Os), "").await.unwrap();
    house.broker.create_topic(&me, "fsync", level(Level::Fsync), "").await.unwrap();
    for (topic, asked, reached) in [
        ("os", Durability::Unspecified, Level::Os),
        ("os", Durability::Interval, Level::Interval),
        ("os", Durability::Fsync, Level::Fsync),
        ("fsync", Durability::Os, Level::Fsync),
        ("fsync", Durability::Unspecified, Level::Fsync),
    ] {
        let request = ProduceRequest { durability: asked.into(), ..to(topic, 0, &["v"]) };
        let produced = house.produce(request).await.unwrap();
        assert_eq!(produced.appends[0].level, reached, "{topic} {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_records_and_nothing_else() {
    let house = House::new();
    house.topic("t", 1).await;
    let kilobyte = "x".repeat(100_000);
    house.put("t", &[&kilobyte]).await;
    house.disk.set_capacity(0);
    let mut offsets = 1;
    let error = loop {
        match house.produce(to("t", 0, &[&kilobyte])).await {
            Ok(_) => offsets += 1,
            Err(error) => break error,
        }
        assert!(offsets < 100, "never full");
    };
    assert_eq!(error.reason(), "DISK_FULL");
    assert!(error.retry_delay().is_some());
    assert_eq!(house.values("t", 0).await.len(), offsets);
    house.commit_at("g", "t", 1).await.unwrap();
    house.disk.set_capacity(1 << 40);
    let next = house.put("t", &[&kilobyte]).await;
    assert_eq!(usize::try_from(next).unwrap(), offsets, "no offset was lost to the refusals");
    assert_eq!(house.crashed().values("t", 0).await.len(), offsets + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_broker_takes_no_records_but_commits() {
    let house = House::new();
    house.put("t", &["v"]).await;
    house.broker.drain(Duration::from_secs(1));
    let error = house.produce(to("t", 0, &["v"])).await.unwrap_err();
    assert_eq!(error.reason(), "SHUTTING_DOWN");
    house.commit_at("g", "t", 1).await.unwrap();
    assert_eq!(house.values("t", 0).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_partitions_at_fsync_are_one_group_and_only_then() {
    let house = House::new();
    let os = TopicSettings { level: Some(Level::Os), ..TopicSettings::default() };
    house.broker.create_topic(&Principal::anonymous(), "os", os, "").await.unwrap();
    let keyed = |topic: &str, keys: &[&str], durability: Durability, id: &str| ProduceRequest {
        topic: topic.into(),
        durability: durability.into(),
        request_id: id.into(),
        records: keys.iter().map(|key| record(Some(key), key)).collect(),
        ..ProduceRequest::default()
    };
    let many = ["a", "b", "c", "d", "e", "f"];
    for (request, atomic) in [
        (keyed("fsync", &many, Durability::Unspecified, ""), true),
        (keyed("fsync", &["a"], Durability::Unspecified, ""), false),
        (keyed("fsync", &["a"], Durability::Unspecified, "id-1"), true),
        (keyed("os", &many, Durability::Os, ""), false),
        (keyed("os", &many, Durability::Fsync, ""), true),
        (keyed("os", &["a"], Durability::Os, "id-2"), true),
    ] {
        let produced = house.produce(request.clone()).await.unwrap();
        for append in produced.appends {
            let start = Start::Offset(append.base_offset);
            let fetched = house.fetch(vec![at(&request.topic, append.partition, start)]).await.unwrap();
            let bytes = fetched.slices[0].batches.concat();
            let header = annals_wire::header::decode(&bytes).unwrap().header;
            assert_eq!(header.attributes.atomic(), atomic, "{request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_answer_is_given_again_also_under_smaller_limits() {
    let house = House::new();
    let keys: Vec<String> = (0..30).map(|n| format!("key {n}")).collect();
    let records = keys.iter().map(|key| record(Some(key), key)).collect();
    let request =
        ProduceRequest { topic: "t".into(), request_id: "id".into(), records, ..ProduceRequest::default() };
    let first = house.produce(request.clone()).await.unwrap();
    assert!(first.appends.len() > 1);
    let mut smaller = config();
    smaller.limits.max_record_bytes = 3;
    let after = House::with(house.disk.snapshot(), smaller, true);
    let again = after.produce(request).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.appends[1].record_indexes, first.appends[1].record_indexes);
    assert_eq!(after.produce(to("t", 0, &["four"])).await.unwrap_err().reason(), "RECORD_TOO_LARGE");
}
