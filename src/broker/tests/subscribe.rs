//! Reading on and on.

use super::super::{SubEvent, Subscribe, Subscription};
use super::*;

fn subscribe(positions: Vec<Position>) -> Subscribe {
    Subscribe {
        positions,
        max_bytes: 0,
        accept_codecs: CodecSet::default(),
        skip_damaged: false,
        filter: None,
    }
}

async fn next(subscription: &mut Subscription) -> SubEvent {
    tokio::time::timeout(Duration::from_secs(20), subscription.next())
        .await
        .expect("silence")
        .expect("the end")
}

fn slice(event: SubEvent) -> Slice {
    match event {
        SubEvent::Slice(slice) => slice,
        other => panic!("{other:?}"),
    }
}

fn caught_up_at(event: &SubEvent) -> (u32, i64) {
    match event {
        SubEvent::CaughtUp { partition, next_offset, .. } => (*partition, *next_offset),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_then_caught_up_then_what_is_new() {
    let house = House::new();
    house.put("t", &["a", "b", "c"]).await;
    let from = vec![at("t", 0, Start::Offset(1))];
    let mut subscription = house.broker.subscribe(subscribe(from)).await.unwrap();
    assert_eq!(values(&slice(next(&mut subscription).await)), numbered(1, &["b", "c"]));
    assert_eq!(caught_up_at(&next(&mut subscription).await), (0, 3));
    for n in 3..10 {
        house.put("t", &["x"]).await;
        let found = slice(next(&mut subscription).await);
        assert_eq!((found.start_offset, found.next_offset), (n, n + 1));
    }
    // It kept up all the time, so it is not told again.
    house.put("t", &["last"]).await;
    assert_eq!(values(&slice(next(&mut subscription).await)), numbered(10, &["last"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_falls_behind_is_told_when_it_has_caught_up_again() {
    let house = House::new();
    house.topic("t", 1).await;
    let call = Subscribe { max_bytes: 1, ..subscribe(vec![at("t", 0, Start::Earliest)]) };
    let mut subscription = house.broker.subscribe(call).await.unwrap();
    assert_eq!(caught_up_at(&next(&mut subscription).await), (0, 0));
    house.put("t", &["a"]).await;
    house.put("t", &["b"]).await;
    assert_eq!(slice(next(&mut subscription).await).next_offset, 1);
    assert_eq!(slice(next(&mut subscription).await).next_offset, 2);
    assert_eq!(caught_up_at(&next(&mut subscription).await), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_followed_as_it_grows() {
    let house = House::new();
    house.topic("t", 1).await;
    house.put("t", &["before"]).await;
    let mut subscription = house.broker.subscribe(subscribe(vec![all_of("t", Start::Latest)])).await.unwrap();
    assert_eq!(caught_up_at(&next(&mut subscription).await), (0, 1));
    let three = TopicSettings { partitions: Some(3), ..TopicSettings::default() };
    house.broker.update_topic("t", three).await.unwrap();
    house.produce(to("t", 2, &["new"])).await.unwrap();
    let mut found = Vec::new();
    while found.is_empty() {
        if let SubEvent::Slice(slice) = next(&mut subscription).await {
            found = values(&slice);
            assert_eq!(slice.partition, 2);
        }
    }
    assert_eq!(found, numbered(0, &["new"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_its_last_partition() {
    let house = House::new();
    house.put("t", &["a"]).await;
    house.put("u", &["a"]).await;
    let positions = vec![at("t", 0, Start::Latest), at("u", 0, Start::Latest), at("gone", 0, Start::Latest)];
    let mut subscription = house.broker.subscribe(subscribe(positions)).await.unwrap();
    let SubEvent::PartitionError(failure) = next(&mut subscription).await else {
        panic!("the unknown one first")
    };
    assert_eq!((&*failure.topic, failure.error.reason()), ("gone", "TOPIC_NOT_FOUND"));
    caught_up_at(&next(&mut subscription).await);
    caught_up_at(&next(&mut subscription).await);
    for topic in ["t", "u"] {
        house.broker.delete_topic(topic, None).await.unwrap();
        let SubEvent::PartitionError(failure) = next(&mut subscription).await else {
            panic!("it was deleted")
        };
        assert_eq!((&*failure.topic, failure.error.reason()), (topic, "TOPIC_NOT_FOUND"));
    }
    assert!(subscription.next().await.is_none());
    let error = house.broker.subscribe(subscribe(vec![at("t", 0, Start::Latest)])).await.unwrap_err();
    assert_eq!(error.reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_broken_by_heartbeats_and_drain_is_said_once() {
    let house = House::new();
    house.put("t", &["a"]).await;
    let mut subscription = house.broker.subscribe(subscribe(vec![at("t", 0, Start::Latest)])).await.unwrap();
    caught_up_at(&next(&mut subscription).await);
    for _ in 0..2 {
        house.clock.advance(Duration::from_millis(60));
        let SubEvent::Heartbeat { now_ms, watermarks } = next(&mut subscription).await else {
            panic!("no heartbeat")
        };
        assert!(now_ms > 1_700_000_000_000);
        assert_eq!((watermarks[0].high_watermark, watermarks[0].next_offset), (1, 1));
    }
    let waiting = tokio::spawn(async move {
        let event = subscription.next().await;
        (subscription, event)
    });
    tokio::time::sleep(Duration::from_millis(5)).await;
    house.broker.drain(Duration::from_millis(1234));
    let (mut subscription, event) = waiting.await.unwrap();
    assert!(matches!(event, Some(SubEvent::Drain { deadline_ms: 1234 })), "{event:?}");
    // It goes on until it is cut: there may still be something to read.
    house.clock.advance(Duration::from_millis(60));
    assert!(matches!(next(&mut subscription).await, SubEvent::Heartbeat { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_wait_loses_nothing() {
    let house = House::new();
    house.topic("t", 1).await;
    let mut subscription =
        house.broker.subscribe(subscribe(vec![at("t", 0, Start::Earliest)])).await.unwrap();
    caught_up_at(&next(&mut subscription).await);
    let mut got = Vec::new();
    for n in 0..30_i64 {
        // A wait that is given up, before, while and after the news comes.
        let wait = Duration::from_micros(50 * (n.cast_unsigned() % 7));
        let (early, _) =
            tokio::join!(tokio::time::timeout(wait, subscription.next()), house.put("t", &["x"]));
        let event = match early {
            Ok(event) => event.unwrap(),
            Err(_elapsed) => next(&mut subscription).await,
        };
        got.extend(values(&slice(event)).into_iter().map(|(offset, _)| offset));
        while i64::try_from(got.len()).unwrap() <= n {
            got.extend(values(&slice(next(&mut subscription).await)).into_iter().map(|(offset, _)| offset));
        }
    }
    assert_eq!(got, (0..30).collect::<Vec<_>>());
}
