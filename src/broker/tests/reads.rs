//! Fetching: positions, sizes, waiting.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_read_begins_exactly_where_it_is_asked_to() {
    let house = House::new();
    house.put("t", &["a", "b", "c", "d"]).await;
    house.put("t", &["e"]).await;
    let all = ["a", "b", "c", "d", "e"];
    for from in 0..=5 {
        let fetched = house.fetch(vec![at("t", 0, Start::Offset(from))]).await.unwrap();
        let slice = &fetched.slices[0];
        assert_eq!(values(slice), numbered(from, &all[usize::try_from(from).unwrap()..]));
        assert_eq!((slice.start_offset, slice.next_offset, slice.high_watermark), (from, 5, 5));
        assert_eq!(slice.is_empty(), from == 5);
    }
    let error = house.fetch(vec![at("t", 0, Start::Offset(6))]).await.unwrap_err();
    assert_eq!(error, Error::OffsetAhead { topic: "t".into(), partition: 0, requested: 6, next: 5 });
    for (start, from) in [
        (Start::Earliest, 0),
        (Start::Latest, 5),
        (Start::LastRecords(2), 3),
        (Start::LastRecords(99), 0),
        (Start::CommittedBy("nobody".into()), 0),
    ] {
        let fetched = house.fetch(vec![at("t", 0, start)]).await.unwrap();
        assert_eq!(fetched.slices[0].start_offset, from);
    }
    house.commit_at("g", "t", 2).await.unwrap();
    let fetched = house.fetch(vec![at("t", 0, Start::CommittedBy("g".into()))]).await.unwrap();
    assert_eq!(fetched.slices[0].start_offset, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_found_to_the_record() {
    let house = House::new();
    let timed = |time: Option<i64>, value: &str| Record { timestamp_ms: time, ..record(None, value) };
    let request = ProduceRequest {
        records: vec![timed(Some(100), "a"), timed(Some(300), "b"), timed(Some(200), "c")],
        ..to("t", 0, &[])
    };
    house.produce(request).await.unwrap();
    house.put("t", &["now"]).await;
    let now = 1_700_000_000_000;
    for (time, offset) in [(0, 0), (100, 0), (101, 1), (300, 1), (301, 3), (now, 3), (now + 1, 4)] {
        let fetched = house.fetch(vec![at("t", 0, Start::Timestamp(time))]).await.unwrap();
        assert_eq!(fetched.slices[0].start_offset, offset, "time {time}");
        let listed = house.broker.list_offsets("t", &[0], Some(time)).await.unwrap();
        assert_eq!(listed.partitions[0].timestamp_offset, (offset < 4).then_some(offset));
    }
    let listed = house.broker.list_offsets("t", &[], None).await.unwrap();
    let ends: Vec<_> = listed.partitions.iter().map(|one| (one.partition, one.latest_offset)).collect();
    assert_eq!(ends, [(0, 4), (1, 0), (2, 0), (3, 0)]);
    let error = house.broker.list_offsets("t", &[4], None).await.unwrap_err();
    assert_eq!(error, Error::PartitionUnknown { topic: "t".into(), partition: 4, partitions: 4 });
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_cannot_answer_do_not_silence_the_others() {
    let house = House::new();
    house.put("t", &["a"]).await;
    let positions = vec![
        at("nowhere", 0, Start::Earliest),
        at("t", 0, Start::Earliest),
        at("t", 9, Start::Earliest),
        at("t", 1, Start::Offset(5)),
    ];
    let fetched = house.fetch(positions.clone()).await.unwrap();
    assert_eq!(values(&fetched.slices[0]), numbered(0, &["a"]));
    let reasons: Vec<_> = fetched.errors.iter().map(|failure| failure.error.reason()).collect();
    assert_eq!(reasons, ["TOPIC_NOT_FOUND", "PARTITION_UNKNOWN", "OFFSET_AHEAD"]);
    let error = house.fetch(positions.into_iter().skip(2).collect()).await.unwrap_err();
    assert_eq!(error.reason(), "PARTITION_UNKNOWN", "none could answer: the first one's error");
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_make_no_sense_are_refused() {
    let house = House::new();
    house.put("t", &["a"]).await;
    let offset_of_all = Position { partition: None, ..at("t", 0, Start::Offset(0)) };
    for positions in [
        vec![],
        vec![offset_of_all],
        vec![at("t", 0, Start::Offset(-1))],
        vec![at("t", 0, Start::Earliest), at("t", 0, Start::Latest)],
        vec![all_of("t", Start::Earliest), at("t", 2, Start::Latest)],
        vec![at("t", 0, Start::Earliest); 1025],
    ] {
        let error = house.fetch(positions).await.unwrap_err();
        assert_eq!(error.reason(), "MALFORMED", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_keeps_to_its_size_and_every_partition_gets_its_turn() {
    let house = House::new();
    house.topic("t", 4).await;
    let value = "x".repeat(10_000);
    for partition in 0..4 {
        for _ in 0..10 {
            house.produce(to("t", partition, &[&value])).await.unwrap();
        }
    }
    let mut next = [0; 4];
    let mut first_served = std::collections::BTreeSet::new();
    let mut rounds = 0;
    while next.iter().sum::<i64>() < 40 {
        rounds += 1;
        let positions =
            (0..4).map(|partition| at("t", partition, Start::Offset(next[partition as usize]))).collect();
        let fetched = house.broker.fetch(Fetch { max_bytes: 35_000, ..fetch(positions) }).await.unwrap();
        assert_eq!(fetched.slices.len(), 4, "also those for which there was no room");
        let bytes: usize = fetched.slices.iter().map(Slice::len).sum();
        assert!(bytes <= 35_000 && bytes > 0, "{bytes}");
        for slice in &fetched.slices {
            let (from, partition) = (&mut next[slice.partition as usize], slice.partition);
            assert_eq!(slice.start_offset, *from);
            if slice.next_offset > *from {
                first_served.insert(partition);
            }
            *from = slice.next_offset;
        }
        assert!(rounds < 40);
    }
    assert_eq!(first_served.len(), 4);
    // One batch comes even if it is larger than asked for.
    let small =
        Fetch { max_bytes: 1, ..fetch(vec![at("t", 0, Start::Offset(3)), at("t", 1, Start::Offset(3))]) };
    let fetched = house.broker.fetch(small).await.unwrap();
    let moved: i64 = fetched.slices.iter().map(|slice| slice.next_offset - 3).sum();
    assert_eq!(moved, 1);
}

fn patient(positions: Vec<Position>, wait: Duration) -> Fetch {
    Fetch { max_wait: wait, ..fetch(positions) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_is_woken_by_what_it_waits_for() {
    let house = House::new();
    house.topic("t", 4).await;
    for round in 0..50 {
        let broker = Arc::clone(&house.broker);
        let positions = (0..4).map(|partition| at("t", partition, Start::Latest)).collect();
        // The clock stands still: only news ends the wait.
        let reader =
            tokio::spawn(async move { broker.fetch(patient(positions, Duration::from_secs(20))).await });
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // The reader may resolve LATEST only after this: then the next one wakes it.
        let mut produced = 0;
        while !reader.is_finished() {
            house.produce(to("t", round % 4, &["news"])).await.unwrap();
            produced += 1;
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert!(produced < 1000, "nothing wakes the reader");
        }
        let fetched = reader.await.unwrap().unwrap();
        let found: Vec<_> = fetched.slices.iter().filter(|slice| !slice.is_empty()).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].partition, round % 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_collects_as_much_as_it_wants() {
    let house = House::new();
    house.topic("t", 2).await;
    let broker = Arc::clone(&house.broker);
    let call = Fetch {
        min_bytes: 3_000,
        ..patient(vec![at("t", 0, Start::Offset(0)), at("t", 1, Start::Offset(0))], Duration::from_secs(20))
    };
    let reader = tokio::spawn(async move { broker.fetch(call).await });
    let value = "x".repeat(700);
    for partition in [0, 1, 0] {
        house.produce(to("t", partition, &[&value])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!reader.is_finished());
    }
    house.produce(to("t", 1, &[&value, &value])).await.unwrap();
    let fetched = reader.await.unwrap().unwrap();
    assert_eq!(fetched.slices.iter().map(|slice| values(slice).len()).collect::<Vec<_>>(), [2, 3]);
    assert!(fetched.slices.iter().all(|slice| slice.start_offset == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_read_ends_by_time_by_drain_and_by_deletion() {
    let house = House::new();
    house.topic("t", 1).await;
    let read = |house: &House| {
        let broker = Arc::clone(&house.broker);
        let call = patient(vec![at("t", 0, Start::Offset(0))], Duration::from_millis(30));
        tokio::spawn(async move { broker.fetch(call).await })
    };
    let reader = read(&house);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(!reader.is_finished(), "no time has passed on its clock");
    house.clock.advance(Duration::from_millis(30));
    let fetched = reader.await.unwrap().unwrap();
    assert!(fetched.slices[0].is_empty() && fetched.errors.is_empty());
    let reader = read(&house);
    tokio::time::sleep(Duration::from_millis(5)).await;
    house.broker.delete_topic("t", None).await.unwrap();
    assert_eq!(reader.await.unwrap().unwrap_err().reason(), "TOPIC_NOT_FOUND");
    house.topic("t", 1).await;
    let reader = read(&house);
    tokio::time::sleep(Duration::from_millis(5)).await;
    house.broker.drain(Duration::ZERO);
    assert!(reader.await.unwrap().unwrap().slices[0].is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_go_leave_nothing_behind_and_are_counted() {
    let mut config = config();
    config.limits.max_waiting = 3;
    let house = House::with(MemoryDisk::new(), config, true);
    house.topic("t", 2).await;
    let read = || {
        let broker = Arc::clone(&house.broker);
        let call = patient(vec![all_of("t", Start::Latest)], Duration::from_secs(20));
        tokio::spawn(async move { broker.fetch(call).await })
    };
    let readers: Vec<_> = (0..3).map(|_| read()).collect();
    while house.broker.waiting.load(crate::sync::Ordering::SeqCst) < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(read().await.unwrap().unwrap_err().reason(), "THROTTLED");
    for reader in readers {
        reader.abort();
        assert!(reader.await.unwrap_err().is_cancelled());
    }
    assert_eq!(house.broker.waiting.load(crate::sync::Ordering::SeqCst), 0);
    let lane = Arc::clone(&house.broker.catalog.get("t").unwrap().lanes[0]);
    assert_eq!(lane.readers.len(), 0);
}
