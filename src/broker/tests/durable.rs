//! Nothing is answered before what it was decided from is on disk. Here nobody commits but the test.

use std::{future::Future, pin::Pin, task::Poll};

use super::{
    super::{SubEvent, Subscribe},
    *,
};
use crate::storage::Level;

/// A call that has been started and is looked at, step by step.
struct Started<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> Started<T> {
    async fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut started = Self(Box::pin(future));
        assert!(started.look().await.is_none(), "answered before anything was durable");
        started
    }

    /// Lets it run as far as it gets. Blocking helpers get time to finish.
    async fn look(&mut self) -> Option<T> {
        for _ in 0..20 {
            let polled = std::future::poll_fn(|context| Poll::Ready(self.0.as_mut().poll(context))).await;
            if let Poll::Ready(value) = polled {
                return Some(value);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    }

    async fn answer(mut self) -> T {
        self.look().await.expect("everything it waits for is durable")
    }
}

/// A house with a topic `t` of one partition, and everything so far on disk.
async fn house() -> House {
    let house = House::by_hand();
    let broker = Arc::clone(&house.broker);
    let one = TopicSettings { partitions: Some(1), ..TopicSettings::default() };
    let making =
        Started::new(async move { broker.create_topic(&Principal::anonymous(), "t", one, "").await }).await;
    house.commit();
    making.answer().await.unwrap();
    house
}

#[tokio::test]
async fn a_topic_is_not_told_of_before_it_is_durable() {
    let house = House::by_hand();
    let broker = Arc::clone(&house.broker);
    let making = Started::new(async move {
        broker.create_topic(&Principal::anonymous(), "t", TopicSettings::default(), "").await
    })
    .await;
    let broker = Arc::clone(&house.broker);
    let getting = Started::new(async move { broker.get_topic("t").await }).await;
    let broker = Arc::clone(&house.broker);
    let listing = Started::new(async move { broker.list_topics(PageRequest::default()).await }).await;
    let broker = Arc::clone(&house.broker);
    let same = Started::new(async move {
        broker.create_topic(&Principal::anonymous(), "t", TopicSettings::default(), "").await
    })
    .await;
    house.commit();
    making.answer().await.unwrap();
    assert_eq!(&*getting.answer().await.unwrap().name, "t");
    assert_eq!(listing.answer().await.unwrap().items.len(), 1);
    same.answer().await.unwrap();
}

#[tokio::test]
async fn records_are_neither_acked_nor_seen_before_they_are_durable() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let storing = Started::new(async move { broker.produce(call(&to("t", 0, &["a"]))).await }).await;
    assert!(house.fetch(vec![at("t", 0, Start::Offset(0))]).await.unwrap().slices[0].is_empty());
    house.commit();
    storing.answer().await.unwrap();
    assert_eq!(house.values("t", 0).await, numbered(0, &["a"]));
}

#[tokio::test]
async fn a_refusal_waits_for_what_it_was_decided_from() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let first = Started::new(async move { broker.produce(call(&to("t", 0, &["a"]))).await }).await;
    let broker = Arc::clone(&house.broker);
    let request = ProduceRequest { expected_next_offset: Some(0), ..to("t", 0, &["b"]) };
    let second = Started::new(async move { broker.produce(call(&request)).await }).await;
    house.commit();
    first.answer().await.unwrap();
    let error = second.answer().await.unwrap_err();
    assert!(matches!(error, Error::ExpectedOffsetMismatch { expected: 0, actual: 1, .. }), "{error}");

    let broker = Arc::clone(&house.broker);
    let deleting = Started::new(async move { broker.delete_topic("t", None).await }).await;
    let broker = Arc::clone(&house.broker);
    let getting = Started::new(async move { broker.get_topic("t").await }).await;
    let broker = Arc::clone(&house.broker);
    let reading =
        Started::new(async move { broker.fetch(fetch(vec![at("t", 0, Start::Earliest)])).await }).await;
    house.commit();
    deleting.answer().await.unwrap();
    assert_eq!(getting.answer().await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
    assert_eq!(reading.answer().await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn a_duplicate_waits_for_the_first() {
    let house = house().await;
    let request = ProduceRequest { request_id: "id".into(), ..to("t", 0, &["a"]) };
    let broker = Arc::clone(&house.broker);
    let (one, other) = (call(&request), call(&request));
    let first = Started::new(async move { broker.produce(one).await }).await;
    let broker = Arc::clone(&house.broker);
    let second = Started::new(async move { broker.produce(other).await }).await;
    let reused = ProduceRequest { request_id: "id".into(), ..to("t", 0, &["b"]) };
    let broker = Arc::clone(&house.broker);
    let third = Started::new(async move { broker.produce(call(&reused)).await }).await;
    house.commit();
    assert!(!first.answer().await.unwrap().duplicate);
    assert!(second.answer().await.unwrap().duplicate);
    assert_eq!(third.answer().await.unwrap_err().reason(), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn a_retry_waits_for_the_batch_it_is_about() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let opening = Started::new(async move { broker.open_producer(&Principal::anonymous(), "p").await }).await;
    house.commit();
    let producer = opening.answer().await.unwrap();
    let sequence = v1::ProducerSequence {
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
        base_sequence: 0,
    };
    let request = ProduceRequest { producer: Some(sequence), ..to("t", 0, &["a"]) };
    let (broker, one) = (Arc::clone(&house.broker), call(&request));
    let first = Started::new(async move { broker.produce(one).await }).await;
    let (broker, one) = (Arc::clone(&house.broker), call(&request));
    let again = Started::new(async move { broker.produce(one).await }).await;
    let broker = Arc::clone(&house.broker);
    let opening = Started::new(async move { broker.open_producer(&Principal::anonymous(), "p").await }).await;
    let after = house.crashed();
    let lost = after.produce(request).await.unwrap();
    assert!(!lost.appends[0].duplicate, "it was not stored, so it is stored now");
    house.commit();
    assert!(!first.answer().await.unwrap().appends[0].duplicate);
    assert!(again.answer().await.unwrap().appends[0].duplicate);
    assert_eq!(opening.answer().await.unwrap().positions[0].next_sequence, 1);
}

#[tokio::test]
async fn a_step_is_told_of_once_all_of_it_is_on_disk() {
    let house = house().await;
    let step = || steps::step("s", None, vec![steps::plain("t", 0, &["a"])]);
    let (broker, one) = (Arc::clone(&house.broker), step());
    let first = Started::new(async move { broker.append_and_commit(one).await }).await;
    let (broker, one) = (Arc::clone(&house.broker), step());
    let same = Started::new(async move { broker.append_and_commit(one).await }).await;
    assert!(house.fetch(vec![at("t", 0, Start::Offset(0))]).await.unwrap().slices[0].is_empty());
    assert!(house.crashed().values("t", 0).await.is_empty());
    house.commit();
    assert!(!first.answer().await.unwrap().duplicate);
    assert!(same.answer().await.unwrap().duplicate);
    assert_eq!(house.crashed().values("t", 0).await, numbered(0, &["a"]));
}

#[tokio::test]
async fn commits_and_what_is_read_of_them_wait() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let first = Started::new(async move { broker.commit_offsets(one_commit("g", "t", 0)).await }).await;
    let broker = Arc::clone(&house.broker);
    let same = Started::new(async move { broker.commit_offsets(one_commit("g", "t", 0)).await }).await;
    let broker = Arc::clone(&house.broker);
    let getting = Started::new(async move { broker.get_offsets("g", &[]).await }).await;
    let broker = Arc::clone(&house.broker);
    let positions = vec![at("t", 0, Start::CommittedBy("g".into()))];
    let reading = Started::new(async move { broker.fetch(fetch(positions)).await }).await;
    let broker = Arc::clone(&house.broker);
    let group = Started::new(async move { broker.get_group("g").await }).await;
    house.commit();
    first.answer().await.unwrap();
    same.answer().await.unwrap();
    assert_eq!(getting.answer().await.unwrap().len(), 1);
    assert_eq!(reading.answer().await.unwrap().slices[0].start_offset, 0);
    assert_eq!(group.answer().await.unwrap().committed_partitions, 1);
}

#[tokio::test]
async fn what_was_not_durable_at_a_crash_was_never_told() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let request = ProduceRequest { request_id: "id".into(), ..to("t", 0, &["a"]) };
    let one = call(&request);
    let _storing = Started::new(async move { broker.produce(one).await }).await;
    let broker = Arc::clone(&house.broker);
    let _committing = Started::new(async move { broker.commit_offsets(one_commit("g", "t", 0)).await }).await;
    let after = house.crashed();
    assert_eq!(after.broker.get_offsets("g", &[]).await.unwrap(), []);
    assert!(after.values("t", 0).await.is_empty());
    let again = after.produce(request).await.unwrap();
    assert!(!again.duplicate, "it was not stored, so it is stored now");
    assert_eq!(after.values("t", 0).await, numbered(0, &["a"]));
}

#[tokio::test]
async fn a_producer_waits_for_room_and_is_told_to_come_back() {
    let config = Config { room_wait: Duration::from_millis(200), ..config() };
    let house = House::with(MemoryDisk::new(), config, false);
    let large = "x".repeat(900_000);
    // Nobody commits: the room for what is pending runs out.
    let mut pending = Vec::new();
    for text in [large.as_str(), "small"] {
        let error = loop {
            match house.broker.submit(call(&to("t", 0, &[text]))).await {
                Ok(ack) => pending.push(ack),
                Err(error) => break error,
            }
            assert!(pending.len() < 2000, "there is no end to the room");
        };
        assert_eq!(error.reason(), "THROTTLED");
    }
    // Commits have room of their own, even now.
    let before = house.broker.storage.last_number();
    let broker = Arc::clone(&house.broker);
    let mut commit = one_commit("g", "t", 0);
    // More than the small ones left over.
    commit.positions[0].metadata = "x".repeat(1000);
    let committing = Started::new(async move { broker.commit_offsets(commit).await }).await;
    assert_eq!(house.broker.storage.last_number(), before + 1, "it waits for the disk, not for room");
    house.commit();
    committing.answer().await.unwrap();
    for (n, ack) in pending.into_iter().enumerate() {
        assert_eq!(ack.acked().await.unwrap().appends[0].base_offset, i64::try_from(n).unwrap());
    }
    house.broker.submit(call(&to("t", 0, &[&large]))).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_leaves_nothing() {
    let config = Config { room_wait: Duration::from_secs(5), ..config() };
    let house = House::with(MemoryDisk::new(), config, false);
    let large = "x".repeat(900_000);
    while let Ok(stored) =
        tokio::time::timeout(Duration::from_millis(300), house.broker.submit(call(&to("t", 0, &[&large]))))
            .await
    {
        drop(stored.unwrap());
    }
    // The last one was dropped while it waited for room. What was submitted before stays, acks or no acks.
    let end = house.broker.catalog.get("t").unwrap().lanes[0].partition.bounds().log_end;
    house.commit();
    assert_eq!(house.broker.submit(call(&to("t", 0, &["small"]))).await.map(drop), Ok(()));
    assert_eq!(house.broker.catalog.get("t").unwrap().lanes[0].partition.bounds().log_end, end + 1);
}

#[tokio::test]
async fn that_a_topic_is_gone_is_told_once_that_is_durable() {
    let house = house().await;
    let broker = Arc::clone(&house.broker);
    let call = Fetch { max_wait: Duration::from_secs(20), ..fetch(vec![at("t", 0, Start::Latest)]) };
    let polling = Started::new(async move { broker.fetch(call).await }).await;
    let subscribe = Subscribe {
        positions: vec![all_of("t", Start::Latest)],
        max_bytes: 0,
        accept_codecs: CodecSet::default(),
        skip_damaged: false,
        filter: None,
    };
    let mut subscription = house.broker.subscribe(subscribe).await.unwrap();
    assert!(matches!(subscription.next().await, Some(SubEvent::CaughtUp { .. })));
    let broker = Arc::clone(&house.broker);
    let deleting = Started::new(async move { broker.delete_topic("t", None).await }).await;
    let mut polling = polling;
    assert!(polling.look().await.is_none(), "told before the deletion was durable");
    let mut reading = Started::new(async move { subscription.next().await }).await;
    assert!(reading.look().await.is_none());
    house.commit();
    deleting.answer().await.unwrap();
    assert_eq!(polling.answer().await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
    let Some(SubEvent::PartitionError(failure)) = reading.answer().await else { panic!("it is gone") };
    assert_eq!(failure.error.reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn that_a_topic_has_grown_is_told_once_that_is_durable() {
    let house = house().await;
    let subscribe = Subscribe {
        positions: vec![all_of("t", Start::Latest)],
        max_bytes: 0,
        accept_codecs: CodecSet::default(),
        skip_damaged: false,
        filter: None,
    };
    let mut subscription = house.broker.subscribe(subscribe).await.unwrap();
    assert!(matches!(subscription.next().await, Some(SubEvent::CaughtUp { partition: 0, .. })));
    let broker = Arc::clone(&house.broker);
    let two = TopicSettings { partitions: Some(2), ..TopicSettings::default() };
    let growing = Started::new(async move { broker.update_topic("t", two).await }).await;
    let mut reading = Started::new(async move { subscription.next().await }).await;
    assert!(reading.look().await.is_none(), "told before the growth was durable");
    house.commit();
    growing.answer().await.unwrap();
    assert!(matches!(reading.answer().await, Some(SubEvent::CaughtUp { partition: 1, next_offset: 0, .. })));
}

/// Both look the id up before there is room, and find nothing; only what they find under the lock counts.
#[tokio::test]
async fn two_of_one_id_that_waited_for_room_together_are_stored_once() {
    let house = house().await;
    let filler = "x".repeat(900_000);
    let mut pending = Vec::new();
    while let Ok(stored) =
        tokio::time::timeout(Duration::from_millis(200), house.broker.submit(call(&to("t", 0, &[&filler]))))
            .await
    {
        pending.push(stored.unwrap());
    }
    let request = ProduceRequest { request_id: "id".into(), ..to("t", 0, &[&filler]) };
    let both = [call(&request), call(&request)].map(|call| {
        let broker = Arc::clone(&house.broker);
        tokio::spawn(async move { broker.produce(call).await })
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut duplicates = Vec::new();
    for one in both {
        while !one.is_finished() {
            house.commit();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        duplicates.push(one.await.unwrap().unwrap().duplicate);
    }
    duplicates.sort_unstable();
    assert_eq!(duplicates, [false, true]);
}

/// What is acked below `fsync` is found by a walk, and a raise ends the walks: it needs a flush, which is not to be had.
#[tokio::test]
async fn a_topic_with_a_fenced_partition_is_not_raised() {
    let house = house().await;
    let change = async |settings: TopicSettings| {
        let broker = Arc::clone(&house.broker);
        let changing = Started::new(async move { broker.update_topic("t", settings).await }).await;
        house.commit();
        changing.answer().await
    };
    let level = |level| TopicSettings { level: Some(level), ..TopicSettings::default() };
    change(level(Level::Os)).await.unwrap();
    let broker = Arc::clone(&house.broker);
    let weak = Started::new(async move { broker.produce(call(&to("t", 0, &["a"]))).await }).await;
    house.commit();
    weak.answer().await.unwrap();
    let strong = ProduceRequest { durability: 3, ..to("t", 0, &["b"]) };
    let broker = Arc::clone(&house.broker);
    let strong = Started::new(async move { broker.produce(call(&strong)).await }).await;
    house.disk.fail_nth(crate::storage::disk::Call::Sync, 1);
    house.commit();
    assert_eq!(strong.answer().await.unwrap_err().reason(), "OUTCOME_UNKNOWN");
    let refused = house.broker.update_topic("t", level(Level::Fsync)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::PartitionFenced { topic, partition: 0 } if topic == "t"),
        "{refused:?}"
    );
    assert_eq!(house.broker.get_topic("t").await.unwrap().level, Level::Os);
    change(level(Level::Interval)).await.unwrap();
    let after = house.crashed();
    assert_eq!(after.values("t", 0).await.first(), Some(&(0, "a".to_owned())));
}
