//! Producers and their sequences.

use super::*;
use crate::{
    broker::{
        OpenedProducer,
        producers::{EXPIRES_MS, NAMELESS_MS},
    },
    storage::Level,
};

async fn open(house: &House, name: &str) -> OpenedProducer {
    house.broker.open_producer(&Principal::anonymous(), name).await.unwrap()
}

/// Records for partition 0 under a sequence.
fn under(producer: &OpenedProducer, topic: &str, base_sequence: u32, values: &[&str]) -> ProduceRequest {
    let (producer_id, producer_epoch) = (producer.producer_id, producer.producer_epoch);
    let producer = Some(v1::ProducerSequence { producer_id, producer_epoch, base_sequence });
    ProduceRequest { producer, ..to(topic, 0, values) }
}

/// Offset of the first record, and whether it was there before.
async fn store(house: &House, request: &ProduceRequest) -> Result<(i64, bool), Error> {
    let produced = house.produce(request.clone()).await?;
    let [one] = &produced.appends[..] else { panic!("one partition") };
    assert!(!produced.duplicate, "that is said of request ids");
    Ok((one.base_offset, one.duplicate))
}

fn advance(house: &House, ms: i64) {
    house.clock.advance(Duration::from_millis(ms.unsigned_abs()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_stored_once_and_a_gap_refused_also_after_a_crash() {
    let house = House::new();
    let producer = open(&house, "").await;
    let first = under(&producer, "t", 0, &["a", "b"]);
    let second = under(&producer, "t", 2, &["c"]);
    assert_eq!(store(&house, &first).await, Ok((0, false)));
    assert_eq!(store(&house, &first).await, Ok((0, true)));
    house.put("t", &["somebody else"]).await;
    assert_eq!(store(&house, &second).await, Ok((3, false)));
    let gap = |sequence, expected| Error::SequenceGap { topic: "t".into(), partition: 0, sequence, expected };
    for house in [&house, &house.crashed(), &house.crashed().crashed()] {
        assert_eq!(store(house, &first).await, Ok((0, true)));
        assert_eq!(store(house, &second).await, Ok((3, true)));
        assert_eq!(store(house, &under(&producer, "t", 5, &["x"])).await, Err(gap(5, 3)));
        let other = under(&producer, "t", 2, &["other records"]);
        assert_eq!(store(house, &other).await, Err(gap(2, 3)), "a known sequence with other records");
        assert_eq!(store(house, &ProduceRequest { partition: Some(1), ..second.clone() }).await, {
            Err(Error::SequenceGap { topic: "t".into(), partition: 1, sequence: 2, expected: 0 })
        });
        assert_eq!(house.values("t", 0).await, numbered(0, &["a", "b", "somebody else", "c"]));
    }
    assert_eq!(store(&house.crashed(), &under(&producer, "t", 3, &["d"])).await, Ok((4, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_answered_as_the_first_was() {
    let house = House::new();
    let producer = open(&house, "").await;
    let request = under(&producer, "t", 0, &["a", "b"]);
    let first = house.produce(request.clone()).await.unwrap().appends.remove(0);
    advance(&house, 5000);
    let house = house.crashed();
    let again = house.produce(request).await.unwrap().appends.remove(0);
    assert_eq!(again, super::super::PartitionAppend { duplicate: true, ..first });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retry_comes_before_the_expected_offset() {
    let house = House::new();
    let producer = open(&house, "").await;
    let request = ProduceRequest { expected_next_offset: Some(0), ..under(&producer, "t", 0, &["a"]) };
    assert_eq!(store(&house, &request).await, Ok((0, false)));
    assert_eq!(store(&house, &request).await, Ok((0, true)), "it was the next offset when it was stored");
    let next = ProduceRequest { expected_next_offset: Some(0), ..under(&producer, "t", 1, &["b"]) };
    assert_eq!(store(&house, &next).await.unwrap_err().reason(), "EXPECTED_OFFSET_MISMATCH");
    let next = ProduceRequest { expected_next_offset: Some(1), ..next };
    assert_eq!(store(&house, &next).await, Ok((1, false)), "a refused batch takes no sequence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_keeps_its_id_fences_who_had_it_and_knows_where_it_stands() {
    let house = House::new();
    house.topic("u", 2).await;
    let old = open(&house, "loader").await;
    assert_eq!((old.producer_epoch, old.positions.len()), (1, 0));
    store(&house, &under(&old, "t", 0, &["a", "b"])).await.unwrap();
    store(&house, &under(&old, "u", 0, &["c"])).await.unwrap();
    for house in [&house, &house.crashed()] {
        let new = open(house, "loader").await;
        assert_eq!(new.producer_id, old.producer_id);
        assert!(new.producer_epoch > old.producer_epoch);
        let stands: Vec<_> = new
            .positions
            .iter()
            .map(|one| (&*one.topic, one.partition, one.next_sequence, one.last_offset))
            .collect();
        assert_eq!(stands, [("t", 0, 2, 1), ("u", 0, 1, 0)]);
        let late = store(house, &under(&old, "t", 2, &["late"])).await.unwrap_err();
        assert_eq!(late.reason(), "FENCED", "{late}");
        let retry = store(house, &under(&old, "t", 0, &["a", "b"])).await.unwrap_err();
        assert_eq!(retry.reason(), "FENCED", "who is fenced hears nothing else");
        assert_eq!(store(house, &under(&new, "t", 0, &["a", "b"])).await, Ok((0, true)), "sequences go on");
        assert_eq!(store(house, &under(&new, "t", 2, &["d"])).await, Ok((2, false)));
        assert_ne!(open(house, "other").await.producer_id, old.producer_id);
        assert_ne!(open(house, "").await.producer_id, open(house, "").await.producer_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_producer_expires_and_its_id_is_never_given_again() {
    let house = House::new();
    let idle = open(&house, "idle").await;
    let busy = open(&house, "busy").await;
    store(&house, &under(&idle, "t", 0, &["a"])).await.unwrap();
    advance(&house, EXPIRES_MS - 1);
    store(&house, &under(&busy, "t", 0, &["b"])).await.unwrap();
    let house = house.crashed();
    advance(&house, EXPIRES_MS);
    let expired = Error::ProducerExpired { producer_id: idle.producer_id };
    assert_eq!(store(&house, &under(&idle, "t", 1, &["c"])).await, Err(expired.clone()));
    let mut ids = vec![idle.producer_id, busy.producer_id];
    let anew = open(&house, "idle").await;
    assert_eq!((anew.producer_epoch, anew.positions.len()), (1, 0), "the name is free again");
    ids.push(anew.producer_id);
    assert_eq!(house.broker.storage.known_producers(), 1, "what it stored last is forgotten with it");
    for house in [&house, &house.crashed()] {
        assert_eq!(store(house, &under(&idle, "t", 1, &["c"])).await, Err(expired.clone()));
        assert_eq!(store(house, &under(&busy, "t", 1, &["d"])).await.map(|stored| stored.1), Ok(false));
        ids.push(open(house, "").await.producer_id);
    }
    ids.sort_unstable();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let never = Error::ProducerExpired { producer_id: 99 };
    assert_eq!(
        store(&house, &under(&OpenedProducer { producer_id: 99, ..busy }, "t", 0, &["e"])).await,
        Err(never)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_room_for_more_nothing_known_is_forgotten() {
    let mut config = config();
    config.limits.max_producers = 2;
    let house = House::with(MemoryDisk::new(), config, true);
    let (named, nameless) = (open(&house, "named").await, open(&house, "").await);
    let refused = house.broker.open_producer(&Principal::anonymous(), "").await.unwrap_err();
    assert_eq!(refused, Error::LimitReached { what: "producers", limit: 2 });
    assert_eq!(open(&house, "named").await.producer_id, named.producer_id, "a known name needs no room");
    advance(&house, NAMELESS_MS);
    let third = open(&house, "third").await;
    let gone = store(&house, &under(&nameless, "t", 0, &["a"])).await.unwrap_err();
    assert_eq!(gone.reason(), "PRODUCER_EXPIRED", "an hour unused and nobody else can know it");
    assert_eq!(store(&house, &under(&third, "t", 0, &["a"])).await, Ok((0, false)));
    let refused = house.broker.open_producer(&Principal::anonymous(), "fourth").await.unwrap_err();
    assert_eq!(refused.reason(), "LIMIT_REACHED", "names are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_goes_with_a_partition_and_without_a_request_id() {
    let house = House::new();
    let producer = open(&house, "").await;
    let base = under(&producer, "t", 0, &["a"]);
    let future = OpenedProducer { producer_epoch: 2, ..producer };
    for wrong in [
        ProduceRequest { partition: None, ..base.clone() },
        ProduceRequest { request_id: "id".into(), ..base.clone() },
        under(&future, "t", 0, &["a"]),
    ] {
        assert_eq!(store(&house, &wrong).await.unwrap_err().reason(), "MALFORMED");
    }
    let name = house.broker.open_producer(&Principal::anonymous(), "a/b").await.unwrap_err();
    assert_eq!(name.reason(), "INVALID_NAME");
    assert_eq!(store(&house, &base).await, Ok((0, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn below_fsync_a_retry_may_wish_for_more_than_the_first() {
    let house = House::new();
    let os = TopicSettings { level: Some(Level::Os), ..TopicSettings::default() };
    house.broker.create_topic(&Principal::anonymous(), "os", os, "").await.unwrap();
    let producer = open(&house, "").await;
    let weak = under(&producer, "os", 0, &["a"]);
    assert_eq!(house.produce(weak.clone()).await.unwrap().appends[0].level, Level::Os);
    let strong = ProduceRequest { durability: 3, ..weak.clone() };
    let before = house.broker.storage.last_number();
    let again = house.produce(strong).await.unwrap().appends.remove(0);
    assert_eq!((again.level, again.duplicate), (Level::Fsync, true));
    assert!(house.broker.storage.last_number() > before, "a sync point covers it");
    assert_eq!(store(&house.crashed(), &weak).await, Ok((0, true)), "what a walk finds is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_takes_what_is_known_of_its_producers_along() {
    let house = House::new();
    let producer = open(&house, "p").await;
    store(&house, &under(&producer, "t", 0, &["a"])).await.unwrap();
    assert_eq!(house.broker.storage.known_producers(), 1);
    house.broker.delete_topic("t", None).await.unwrap();
    assert_eq!(house.broker.storage.known_producers(), 0);
    assert_eq!(open(&house, "p").await.positions, []);
    let producer = open(&house, "p").await;
    assert_eq!(store(&house, &under(&producer, "t", 1, &["b"])).await.unwrap_err().reason(), "SEQUENCE_GAP");
    assert_eq!(
        store(&house, &under(&producer, "t", 0, &["a"])).await,
        Ok((0, false)),
        "a new topic begins at 0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_send_the_same_one_is_stored() {
    let house = House::new();
    let producer = open(&house, "").await;
    house.topic("t", 1).await;
    for n in 0..20 {
        let request = under(&producer, "t", n, &["x"]);
        let both = [0, 1].map(|_| {
            let (broker, call) = (Arc::clone(&house.broker), call(&request));
            tokio::spawn(async move { broker.produce(call).await })
        });
        let mut duplicates = 0;
        for one in both {
            let stored = one.await.unwrap().unwrap();
            assert_eq!(stored.appends[0].base_offset, i64::from(n));
            duplicates += u32::from(stored.appends[0].duplicate);
        }
        assert_eq!(duplicates, 1);
    }
}
