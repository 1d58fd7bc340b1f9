//! Everything at once: writers, readers, committers and somebody who makes and deletes topics. Then a crash.

use std::collections::BTreeMap;

use super::super::{SubEvent, Subscribe};
use super::*;

const WRITERS: u32 = 4;
const ROUNDS: u32 = 60;

/// Writes numbered records; returns what was acked, by partition.
async fn write(broker: Arc<Broker>, writer: u32) -> Vec<(u32, i64, String)> {
    let mut acked = Vec::new();
    for round in 0..ROUNDS {
        let texts: Vec<String> = (0..=round % 5).map(|n| format!("{writer}/{round}/{n}")).collect();
        let records = texts.iter().map(|text| record(Some(text), text)).collect();
        let request_id = if round % 3 == 0 { format!("{writer}-{round}") } else { String::new() };
        let request =
            ProduceRequest { topic: "storm".into(), records, request_id, ..ProduceRequest::default() };
        let produced = broker.produce(call(&request)).await.unwrap();
        if round % 6 == 0 {
            assert!(broker.produce(call(&request)).await.unwrap().duplicate);
        }
        for append in produced.appends {
            let all: Vec<u32> = (0..append.record_count).collect();
            let indexes = if append.record_indexes.is_empty() { &all } else { &append.record_indexes };
            for (index, offset) in indexes.iter().zip(append.base_offset..) {
                acked.push((append.partition, offset, texts[*index as usize].clone()));
            }
        }
    }
    acked
}

/// Follows the topic until it has so many records; every partition's offsets must come without holes.
async fn follow(broker: Arc<Broker>, wanted: usize) -> BTreeMap<(u32, i64), String> {
    let call = Subscribe {
        positions: vec![all_of("storm", Start::Earliest)],
        max_bytes: 2_000,
        accept_codecs: CodecSet::default(),
        skip_damaged: false,
        filter: None,
    };
    let mut subscription = broker.subscribe(call).await.unwrap();
    let (mut seen, mut next) = (BTreeMap::new(), BTreeMap::new());
    while seen.len() < wanted {
        let event = tokio::time::timeout(Duration::from_secs(30), subscription.next()).await;
        let event = event.unwrap_or_else(|_| panic!("lost wake-up: {} of {wanted}", seen.len()));
        if let Some(SubEvent::Slice(slice)) = event {
            let expected = next.entry(slice.partition).or_insert(0);
            assert_eq!(slice.start_offset, *expected);
            *expected = slice.next_offset;
            assert!(slice.next_offset <= slice.high_watermark);
            seen.extend(values(&slice).into_iter().map(|(offset, value)| ((slice.partition, offset), value)));
        }
    }
    seen
}

/// The same with long polls, and commits where it stands.
async fn poll(broker: Arc<Broker>, group: String, wanted: i64) {
    let mut next = [0_i64; 4];
    while next.iter().sum::<i64>() < wanted {
        let positions =
            (0..4).map(|partition| at("storm", partition, Start::CommittedBy(group.clone()))).collect();
        let call = Fetch { max_wait: Duration::from_secs(30), max_bytes: 3_000, ..fetch(positions) };
        let fetched =
            tokio::time::timeout(Duration::from_secs(30), broker.fetch(call)).await.expect("lost wake-up");
        let mut commit = one_commit(&group, "storm", 0);
        commit.positions.clear();
        for slice in fetched.unwrap().slices.iter().filter(|slice| !slice.is_empty()) {
            assert_eq!(slice.start_offset, next[slice.partition as usize], "reads on where it committed");
            next[slice.partition as usize] = slice.next_offset;
            commit.positions.push(CommitPosition {
                partition: slice.partition,
                next_offset: slice.next_offset,
                expected_offset: Some(slice.start_offset),
                topic_id: Some(slice.topic_id),
                leader_epoch: Some(slice.leader_epoch),
                ..one_commit(&group, "storm", 0).positions.remove(0)
            });
        }
        if !commit.positions.is_empty() {
            broker.commit_offsets(commit).await.unwrap();
        }
    }
}

/// Makes and deletes a topic while others write to it; both must only ever see whole topics.
async fn churn(broker: Arc<Broker>) {
    let writer = {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            let mut stored = 0;
            for n in 0..120 {
                let request = ProduceRequest { durability: 1, ..to("churn", n % 4, &["v"]) };
                match broker.produce(call(&request)).await {
                    Ok(_) => stored += 1,
                    Err(error) => assert_eq!(error.reason(), "THROTTLED", "{error}"),
                }
            }
            stored
        })
    };
    for _ in 0..25 {
        match broker.delete_topic("churn", None).await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.reason(), "TOPIC_NOT_FOUND"),
        }
        if let Err(error) = broker.fetch(fetch(vec![all_of("churn", Start::Earliest)])).await {
            assert_eq!(error.reason(), "TOPIC_NOT_FOUND");
        }
        match broker.commit_offsets(one_commit("churners", "churn", 0)).await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.reason(), "TOPIC_NOT_FOUND"),
        }
    }
    assert!(writer.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_at_once_and_then_a_crash() {
    let house = House::new();
    house.topic("storm", 4).await;
    let total: usize = (0..ROUNDS).map(|round| round as usize % 5 + 1).sum::<usize>() * WRITERS as usize;
    let follower = tokio::spawn(follow(Arc::clone(&house.broker), total));
    let pollers: Vec<_> = (0..2)
        .map(|n| {
            let wanted = i64::try_from(total).unwrap();
            tokio::spawn(poll(Arc::clone(&house.broker), format!("group-{n}"), wanted))
        })
        .collect();
    let churning = tokio::spawn(churn(Arc::clone(&house.broker)));
    let writers: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(write(Arc::clone(&house.broker), n))).collect();
    let mut acked = Vec::new();
    for writer in writers {
        acked.extend(writer.await.unwrap());
    }
    assert_eq!(acked.len(), total);
    let seen = follower.await.unwrap();
    for (partition, offset, value) in &acked {
        assert_eq!(&seen[&(*partition, *offset)], value);
    }
    assert_eq!(seen.len(), total, "nothing came twice, nothing else came");
    for poller in pollers {
        poller.await.unwrap();
    }
    churning.await.unwrap();

    let after = house.crashed();
    let seen = follow(Arc::clone(&after.broker), total).await;
    for (partition, offset, value) in &acked {
        assert_eq!(&seen[&(*partition, *offset)], value, "acked, so there");
    }
    for group in ["group-0", "group-1"] {
        let offsets = after.broker.get_offsets(group, &["storm".into()]).await.unwrap();
        assert_eq!(offsets.iter().map(|one| one.lag_records).sum::<i64>(), 0);
        assert_eq!(offsets.iter().map(|one| one.next_offset).sum::<i64>(), i64::try_from(total).unwrap());
    }
    after.broker.truth.groups.lock().check();
    after.broker.truth.topics.lock().check();
    after.broker.truth.requests.lock().check();
}

/// Stopping in the middle of everything: every call ends, and what was acked is there at the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stop_under_fire_leaves_nobody_waiting() {
    for round in 0..10 {
        let mut house = House::new();
        house.topic("t", 1).await;
        let writers: Vec<_> = (0..6)
            .map(|writer| {
                let broker = Arc::clone(&house.broker);
                tokio::spawn(async move {
                    let mut acked = Vec::new();
                    for n in 0.. {
                        let text = format!("{writer}/{n}");
                        let request_id = if n % 2 == 0 { text.clone() } else { String::new() };
                        let request = ProduceRequest { request_id, ..to("t", 0, &[&text]) };
                        match broker.produce(call(&request)).await {
                            Ok(produced) => acked.push((produced.appends[0].base_offset, text)),
                            Err(error) => {
                                assert!(
                                    ["SHUTTING_DOWN", "OUTCOME_UNKNOWN"].contains(&error.reason()),
                                    "{error}"
                                );
                                break;
                            }
                        }
                    }
                    acked
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        let running = house.running.take().unwrap();
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
        let mut acked = Vec::new();
        for writer in writers {
            let ended = tokio::time::timeout(Duration::from_secs(20), writer).await;
            acked.extend(ended.expect("a call waits for ever").unwrap());
        }
        let after = house.crashed();
        let stored: BTreeMap<i64, String> = after.values("t", 0).await.into_iter().collect();
        for (offset, text) in acked {
            assert_eq!(stored.get(&offset), Some(&text));
        }
    }
}
