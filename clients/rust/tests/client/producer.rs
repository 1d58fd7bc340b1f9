//! A producer against a server that fails in every way it may.

use std::time::Duration;

use crate::fake::{Fake, Step};
use annals_client::{Backoff, Client, NewRecord, ProduceOptions, ProducerOptions, RequestId, reason};
use tonic::Code;

fn quick() -> ProducerOptions {
    let backoff =
        Backoff { attempts: 4, first: Duration::from_millis(5), longest: Duration::from_millis(20) };
    ProducerOptions { linger: Duration::from_millis(1), backoff, ..ProducerOptions::default() }
}

async fn client(fake: &Fake) -> Client {
    Client::connect(&fake.serve().await).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_records_arrive_once_in_order_per_key() {
    let fake = Fake::new(8, []);
    let options = ProducerOptions { batch_bytes: 4096, max_in_flight_bytes: 64 << 10, ..quick() };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let mut last = None;
    for id in 0..100_000 {
        let (key, value) = ((id % 100).to_string(), id.to_string());
        last = Some(producer.send(&NewRecord::new(&value).key(&key)).await.unwrap());
    }
    let placed = last.unwrap().await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(fake.stored(), 100_000);
    assert_eq!(fake.values(placed.partition)[usize::try_from(placed.offset).unwrap()], "99999");
    for partition in 0..8 {
        let mut seen = std::collections::BTreeMap::new();
        for value in fake.values(partition) {
            let id: u32 = value.parse().unwrap();
            let before = seen.insert(id % 100, id);
            assert!(before.is_none_or(|before| before < id));
        }
    }
    assert_eq!(fake.streams(), 1);
}

#[tokio::test]
async fn a_topic_made_by_its_first_record_gets_its_partitions_from_the_server() {
    let fake = Fake::new(0, []);
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    let first = producer.send(&NewRecord::new("1").key("k")).await.unwrap().await.unwrap();
    // The client learns the number of partitions soon, and then chooses itself.
    loop {
        let placed = producer.send(&NewRecord::new("n").key("k")).await.unwrap().await.unwrap();
        assert_eq!(placed.partition, first.partition);
        if fake.requests().last().unwrap().partition.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    producer.close().await.unwrap();
    let values = fake.values(first.partition);
    assert_eq!(values[0], "1");
}

#[tokio::test]
async fn throttling_and_a_full_disk_pass() {
    let fake = Fake::new(
        1,
        [
            Step::Refuse(Code::ResourceExhausted, reason::THROTTLED),
            Step::Refuse(Code::ResourceExhausted, reason::DISK_FULL),
        ],
    );
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    let ack = producer.send(&NewRecord::new("1")).await.unwrap();
    assert_eq!(ack.await.unwrap().offset, 0);
    producer.close().await.unwrap();
    assert_eq!((fake.stored(), fake.streams()), (1, 3));
}

#[tokio::test]
async fn a_refused_batch_fails_alone() {
    let fake = Fake::new(1, [Step::Refuse(Code::InvalidArgument, reason::MALFORMED)]);
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    let bad = producer.send(&NewRecord::new("bad")).await.unwrap();
    assert_eq!(bad.await.unwrap_err().reason(), reason::MALFORMED);
    let good = producer.send(&NewRecord::new("good")).await.unwrap();
    good.await.unwrap();
    assert_eq!(
        producer.flush().await.unwrap_err().reason(),
        reason::MALFORMED,
        "a dropped ack hides nothing"
    );
    producer.flush().await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(fake.values(0), ["good"]);
}

#[tokio::test]
async fn a_lost_answer_is_told_and_never_sent_twice() {
    let fake = Fake::new(1, [Step::StoreAndBreak]);
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    let lost = producer.send(&NewRecord::new("1")).await.unwrap();
    assert!(lost.await.unwrap_err().is_outcome_unknown());
    let next = producer.send(&NewRecord::new("2")).await.unwrap();
    assert_eq!(next.await.unwrap().offset, 1);
    assert!(producer.close().await.unwrap_err().is_outcome_unknown());
    assert_eq!(fake.values(0), ["1", "2"]);
}

/// Every fourth request is answered by a broken connection, with the records stored or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_sequences_lost_answers_are_asked_for_again_and_everything_is_stored_once() {
    let script = (0..400).map(|n| match n % 8 {
        3 => Step::StoreAndBreak,
        7 => Step::Break,
        _ => Step::Go,
    });
    let fake = Fake::new(3, script).idempotent();
    let options = ProducerOptions {
        batch_bytes: 2000,
        backoff: Backoff { attempts: 10, ..quick().backoff },
        ..quick()
    };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let mut acks = Vec::new();
    for n in 0..20_000_u32 {
        let value = n.to_string();
        acks.push(producer.send(&NewRecord::new(&value).key(&(n % 97).to_string())).await.unwrap());
    }
    producer.close().await.unwrap();
    let stored = [0, 1, 2].map(|partition| fake.values(partition));
    for (n, ack) in acks.into_iter().enumerate() {
        let placed = ack.await.unwrap();
        let at = usize::try_from(placed.offset).unwrap();
        assert_eq!(stored[placed.partition as usize][at], n.to_string());
    }
    assert_eq!(fake.stored(), 20_000);
    assert!(fake.streams() > 20, "{} streams", fake.streams());
    assert_eq!(fake.producers(), 1, "one identity for all of them");
}

#[tokio::test]
async fn a_producer_can_be_told_to_do_without_sequences() {
    let fake = Fake::new(1, [Step::StoreAndBreak]).idempotent();
    let options = ProducerOptions { idempotent: false, ..quick() };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let ack = producer.send(&NewRecord::new("1")).await.unwrap();
    assert!(ack.await.unwrap_err().is_outcome_unknown());
    assert!(fake.requests().iter().all(|request| request.producer.is_none()));
    assert_eq!((fake.producers(), fake.stored()), (0, 1));
}

#[tokio::test]
async fn a_draining_server_answers_what_was_sent_and_the_rest_goes_to_the_next_stream() {
    let fake = Fake::new(1, [Step::DrainAndStore]);
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    let first = producer.send(&NewRecord::new("1")).await.unwrap();
    first.await.unwrap();
    let second = producer.send(&NewRecord::new("2")).await.unwrap();
    second.await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(fake.values(0), ["1", "2"]);
    assert_eq!(fake.streams(), 2);
}

#[tokio::test]
async fn stopping_on_failure_stores_nothing_behind_it() {
    let fake = Fake::new(1, [Step::Refuse(Code::InvalidArgument, reason::MALFORMED)]);
    let options = ProducerOptions { batch_bytes: 1, stop_on_failure: true, ..quick() };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let mut acks = Vec::new();
    for value in ["1", "2", "3"] {
        // The failure may come before the later records.
        acks.extend(producer.send(&NewRecord::new(value)).await);
    }
    for ack in acks {
        ack.await.unwrap_err();
    }
    assert_eq!(producer.close().await.unwrap_err().reason(), reason::MALFORMED);
    assert_eq!(fake.stored(), 0);
}

#[tokio::test]
async fn room_is_waited_for() {
    let fake = Fake::new(1, [Step::Silence]);
    let options = ProducerOptions { batch_bytes: 1, max_in_flight_bytes: 100, ..quick() };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let value = [b'x'; 60];
    for _ in 0..2 {
        producer.send(&NewRecord::new(&value)).await.unwrap();
    }
    let record = NewRecord::new(&value);
    let third = tokio::time::timeout(Duration::from_millis(50), producer.send(&record)).await;
    assert!(third.is_err(), "there was no room and it was taken");
}

#[tokio::test]
async fn dropping_a_producer_sends_what_it_has_taken() {
    let fake = Fake::new(1, []);
    let client = client(&fake).await;
    let options = ProducerOptions { linger: Duration::from_secs(60), ..quick() };
    let producer = client.producer("t", options).await.unwrap();
    let ack = producer.send(&NewRecord::new("1")).await.unwrap();
    drop(producer);
    ack.await.unwrap();
    assert_eq!(fake.values(0), ["1"]);
}

#[tokio::test]
async fn an_aborted_producer_tells_what_it_did_not_send() {
    let fake = Fake::new(1, []);
    let options = ProducerOptions { linger: Duration::from_secs(60), ..quick() };
    let producer = client(&fake).await.producer("t", options).await.unwrap();
    let ack = producer.send(&NewRecord::new("1")).await.unwrap();
    producer.abort().await;
    assert_eq!(ack.await.unwrap_err().reason(), reason::PRODUCER_CLOSED);
    assert_eq!(fake.stored(), 0);
}

#[tokio::test]
async fn a_single_request_is_repeated_by_its_id_and_stored_once() {
    let fake = Fake::new(1, [Step::Break, Step::StoreAndBreak]);
    let client = client(&fake).await;
    let record = NewRecord::new("1").key("k");
    let stored = client.produce("t", &[record], ProduceOptions::default()).await.unwrap();
    assert!(stored.duplicate);
    assert_eq!(fake.stored(), 1);
    let ids: Vec<_> = fake.requests().iter().map(|request| request.request_id.clone()).collect();
    assert_eq!(ids.len(), 3);
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]));
    client.produce("t", &[record], ProduceOptions::default()).await.unwrap();
    assert_eq!(fake.stored(), 2, "another call is another id");
}

#[tokio::test]
async fn a_step_is_repeated_by_its_id_and_done_once() {
    let refuse = Step::Refuse(Code::ResourceExhausted, "THROTTLED");
    let fake = Fake::new(2, [refuse, Step::StoreAndBreak]);
    let client = client(&fake).await;
    let mut step = client.step();
    step.push("t", &NewRecord::new("a").partition(0)).unwrap();
    step.push("t", &NewRecord::new("b").partition(1)).unwrap();
    let done = client.append_and_commit(step).await.unwrap();
    assert!(done.duplicate);
    assert_eq!(done.appends.len(), 2);
    assert_eq!((fake.values(0), fake.values(1)), (vec!["a".to_owned()], vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_request_without_an_id_is_not_repeated_once_it_may_be_stored() {
    let fake = Fake::new(1, [Step::StoreAndBreak]);
    let client = client(&fake).await;
    let options = ProduceOptions { request_id: RequestId::Without, ..ProduceOptions::default() };
    let error = client.produce("t", &[NewRecord::new("1")], options).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!((fake.stored(), fake.requests().len()), (1, 1));
    client.produce("t", &[NewRecord::new("2")], options).await.unwrap();
    assert!(fake.requests().iter().all(|request| request.request_id.is_empty()));
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once_that_names_the_place() {
    let error = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert!(error.is_unreachable() && error.message().contains("127.0.0.1:1"), "{error:?}");
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_has_nothing_to_say() {
    let fake = Fake::new(1, []);
    let producer = client(&fake).await.producer("t", quick()).await.unwrap();
    producer.send(&NewRecord::new("1")).await.unwrap().await.unwrap();
    // The stream is open and idle.
    tokio::time::timeout(Duration::from_secs(5), producer.close()).await.expect("it waits").unwrap();
}

#[tokio::test]
async fn a_server_behind_a_socket_in_the_file_system_is_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("annals.sock");
    let fake = Fake::new(1, []);
    fake.serve_at(&path);
    let client = Client::connect(&format!("unix:{}", path.display())).await.unwrap();
    client.produce("t", &[NewRecord::new("1")], ProduceOptions::default()).await.unwrap();
    assert_eq!(fake.values(0), ["1"]);
}
