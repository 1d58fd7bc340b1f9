//! The three rates: what they count, and that they agree with each other.
#![allow(clippy::float_cmp, clippy::cast_precision_loss, reason = "small whole numbers, divided once")]

use super::*;
use crate::{
    broker::{GroupStats, Reset, ResetTo, Stats, StatsSelection},
    storage::PartitionKey,
};

impl House {
    async fn stats(&self) -> Stats {
        self.broker.stats(StatsSelection::default()).await.unwrap()
    }

    async fn group(&self) -> GroupStats {
        self.stats().await.groups.remove(0)
    }

    fn key(&self, topic: &str) -> PartitionKey {
        self.broker.catalog.get(topic).unwrap().lanes[0].partition.key()
    }

    fn delivered(&self, topic: &str, first: i64, next: i64) {
        let records = u64::try_from(next - first).unwrap();
        self.broker.rates.delivered(&Arc::from("g"), self.key(topic), first, next, records);
    }

    /// What the clock's second is for: the broker looks.
    fn second(&self) {
        self.clock.advance(Duration::from_secs(1));
        self.broker.look_at_published();
    }
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected.abs() * 0.05, "{found}, expected {expected}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_counts_when_it_becomes_visible_and_once() {
    let house = House::new();
    house.topic("t", 2).await;
    for _ in 0..10 {
        house.put("t", &["a", "b", "c"]).await;
        house.produce(to("t", 1, &["d"])).await.unwrap();
        house.second();
    }
    let selection = StatsSelection { per_partition: true, ..StatsSelection::default() };
    let stats = house.broker.stats(selection).await.unwrap();
    let [whole, first, second] = &stats.topics[..] else { panic!("{stats:?}") };
    assert_eq!((whole.partition, first.partition, second.partition), (None, Some(0), Some(1)));
    assert_eq!(whole.published_records.total, 40);
    assert_eq!((first.published_records.total, second.published_records.total), (30, 10));
    assert_eq!(first.published_records.per_second_1s, 3.0);
    assert_eq!(first.published_records.per_second_1m, 3.0);
    let sum = first.published_bytes.total + second.published_bytes.total;
    assert_eq!(whole.published_bytes.total, sum);
    let stored = async || house.broker.get_topic("t").await.unwrap().partitions[0].bytes;
    let before = stored().await;
    house.put("t", &["one more"]).await;
    let more = house.stats().await.topics[0].published_bytes.total - whole.published_bytes.total;
    assert_eq!(more, stored().await - before);
    // A restart begins anew and does not count what it found.
    let after = house.crashed();
    let stats = after.stats().await;
    assert_eq!(stats.topics[0].published_records, crate::broker::Rate::default());
    assert_eq!(stats.since_ms, 1_700_000_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_durable_is_not_published() {
    let house = House::by_hand();
    let making = {
        let broker = Arc::clone(&house.broker);
        tokio::spawn(async move { broker.produce(call(&to("t", 0, &["first"]))).await })
    };
    while !making.is_finished() {
        house.commit();
        tokio::task::yield_now().await;
    }
    house.second();
    assert_eq!(house.broker.rates.published_records(), 1);
    let pending = house.broker.submit(call(&to("t", 0, &["a", "b"]))).await.unwrap();
    house.second();
    assert_eq!(house.broker.rates.published_records(), 1);
    house.commit();
    pending.acked().await.unwrap();
    house.second();
    assert_eq!(house.broker.rates.published_records(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_wait_and_handling_by_the_brokers_clock() {
    let house = House::new();
    house.put("t", &["a", "b"]).await;
    house.clock.advance(Duration::from_millis(20));
    house.put("t", &["c"]).await;
    house.clock.advance(Duration::from_millis(10));
    house.delivered("t", 0, 3);
    house.clock.advance(Duration::from_millis(7));
    house.commit_at("g", "t", 3).await.unwrap();
    let group = house.group().await;
    assert_eq!((group.delivered_records.total, group.processed_records.total), (3, 3));
    assert_eq!(group.processing.count, 3);
    assert_eq!(group.processing.mean_ms, (37.0 * 2.0 + 17.0) / 3.0);
    assert_eq!(group.wait.mean_ms, (30.0 * 2.0 + 10.0) / 3.0);
    assert_eq!(group.handle.mean_ms, 7.0);
    assert_eq!((group.lag_records, group.lag_ms, group.eta_ms), (0, 0, Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_and_skipping_are_told_apart_from_processing() {
    let house = House::new();
    house.put("t", &["a", "b", "c", "d", "e", "f"]).await;
    house.delivered("t", 0, 2);
    house.commit_at("g", "t", 5).await.unwrap();
    let group = house.group().await;
    assert_eq!((group.processed_records.total, group.skipped_records), (2, 3));
    let back = Commit { allow_backwards: true, ..one_commit("g", "t", 1) };
    house.broker.commit_offsets(back).await.unwrap();
    house.delivered("t", 1, 6);
    house.commit_at("g", "t", 6).await.unwrap();
    let group = house.group().await;
    assert_eq!((group.processed_records.total, group.replayed_records), (3, 4));
    assert_eq!((group.rewound_records, group.skipped_records), (4, 3));
    house.broker.delete_group("g").await.unwrap();
    assert_eq!(house.stats().await.groups, []);
}

/// Mean number of records in the system = rate x mean time in the system, in a steady run.
#[tokio::test(flavor = "multi_thread")]
async fn littles_law_holds() {
    let house = House::new();
    house.topic("t", 1).await;
    let (mut in_system, mut looks) = (0_u64, 0_u64);
    let (mut published, mut committed) = (0_i64, 0_i64);
    let mut due: std::collections::VecDeque<(u64, i64)> = std::collections::VecDeque::new();
    let mut seed = 3_u64;
    // Every 10 ms up to 5 records; each batch is confirmed 30 to 420 ms later, in order.
    for tick in 0_u64..7000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let values = &["x"; 5][..usize::try_from((seed >> 40) % 6).unwrap()];
        if !values.is_empty() {
            house.put("t", values).await;
            published += i64::try_from(values.len()).unwrap();
            let ready = (tick + 3 + (seed >> 50) % 40).max(due.back().map_or(0, |last| last.0));
            due.push_back((ready, published));
        }
        let mut upto = None;
        while due.front().is_some_and(|(ready, _)| *ready <= tick) {
            upto = due.pop_front().map(|(_, next)| next);
        }
        if let Some(next) = upto {
            house.delivered("t", committed, next);
            house.commit_at("g", "t", next).await.unwrap();
            committed = next;
        }
        if tick >= 1000 {
            in_system += u64::try_from(published - committed).unwrap();
            looks += 1;
        }
        house.clock.advance(Duration::from_millis(10));
        if tick % 100 == 99 {
            house.broker.look_at_published();
            house.broker.rates.sample();
        }
    }
    let group = house.group().await;
    let stats = house.stats().await;
    let rate = group.processed_records.per_second_1m;
    near(rate, stats.topics[0].published_records.per_second_1m);
    near(rate * group.processing.mean_ms / 1000.0, in_system as f64 / looks as f64);
    assert_eq!(group.skipped_records, 0);
    assert_eq!(group.processed_records.total, u64::try_from(committed).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lag_is_told_from_how_it_shrinks() {
    let house = House::new();
    house.put("t", &["x"; 100]).await;
    house.commit_at("g", "t", 0).await.unwrap();
    for second in 1..=5 {
        house.second();
        house.commit_at("g", "t", second * 4).await.unwrap();
    }
    house.second();
    let group = house.group().await;
    // 80 are left; 20 went and 100 came within the minute, so it does not shrink.
    assert_eq!((group.lag_records, group.eta_ms), (80, None));
    for _ in 0..60 {
        house.second();
    }
    for second in 6..=10 {
        house.commit_at("g", "t", second * 4).await.unwrap();
        house.second();
    }
    let group = house.group().await;
    assert_eq!(group.lag_records, 60);
    // 20 in a minute: 60 are gone in three.
    near(group.eta_ms.unwrap() as f64, 180_000.0);
    assert!(group.lag_ms >= 70_000, "{}", group.lag_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_filtered_slice_the_records_that_are_left_are_counted() {
    let house = House::new();
    let mut request = to("t", 0, &[]);
    request.records =
        (0..100).map(|at| record(Some(if at % 10 == 3 { "k" } else { "other" }), "v")).collect();
    house.produce(request).await.unwrap();
    let filter =
        crate::broker::Filter::new(v1::Filter { key: Some(Bytes::from_static(b"k")), ..Default::default() });
    let call = Fetch { filter: Some(Arc::new(filter.unwrap())), ..fetch(vec![at("t", 0, Start::Offset(5))]) };
    let fetched = house.broker.fetch(call).await.unwrap();
    assert_eq!(fetched.slices[0].next_offset, 100);
    let group: Arc<str> = Arc::from("g");
    house.broker.rates.handed_over(&group, &fetched.slices[0]);
    let all = house.fetch(vec![at("t", 0, Start::Offset(5))]).await.unwrap();
    house.broker.rates.handed_over(&Arc::from("h"), &all.slices[0]);
    house.commit_at("g", "t", 100).await.unwrap();
    house.commit_at("h", "t", 100).await.unwrap();
    let stats = house.stats().await;
    let counts: Vec<_> = stats
        .groups
        .iter()
        .map(|group| (group.delivered_records.total, group.processed_records.total))
        .collect();
    assert_eq!(counts, [(9, 9), (95, 95)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_moved_has_processed_nothing_by_that() {
    let house = House::new();
    house.put("t", &["x"; 10]).await;
    house.commit_at("g", "t", 6).await.unwrap();
    let reset = async |to| {
        let call = Reset { group: "g".into(), topic: "t".into(), partitions: vec![0], to, dry_run: false };
        house.broker.reset_offsets(call).await.unwrap();
    };
    reset(ResetTo::Offset(2)).await;
    house.commit_at("g", "t", 7).await.unwrap();
    let group = house.group().await;
    assert_eq!((group.processed_records.total, group.replayed_records), (7, 4));
    assert_eq!((group.rewound_records, group.skipped_records), (4, 0));
    reset(ResetTo::Latest).await;
    let group = house.group().await;
    assert_eq!((group.processed_records.total, group.skipped_records, group.lag_records), (7, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_counted_for_no_longer() {
    let house = House::new();
    for topic in ["t", "u"] {
        house.put(topic, &["a", "b"]).await;
    }
    house.commit_at("g", "t", 1).await.unwrap();
    house.commit_at("g", "u", 1).await.unwrap();
    // As for members that came and went, and never committed.
    house.broker.rates.delivered(&Arc::from("passers-by"), house.key("t"), 0, 1, 1);
    house.broker.prune_rates();
    assert_eq!(house.broker.rates.counted_for(), 2);
    house.broker.delete_topic("u", None).await.unwrap();
    house.broker.prune_rates();
    assert_eq!(house.broker.rates.counted_for(), 1);
}
