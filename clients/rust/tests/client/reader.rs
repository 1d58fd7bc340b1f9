//! A reader against a server that goes away in every way it may.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::fake::{Fake, Step, refusal};
use annals_client::{
    Backoff, Client, Event, FetchOptions, Reader, ReaderOptions, ReaderState, Start, reason,
    v1::{self, subscribe_response::Event as Said},
};
use annals_wire::{
    builder::{BatchBuilder, RecordParts},
    header::BatchHeader,
    ids::TopicId,
};
use prost::Message as _;
use tonic::{Code, Status};

const TOPIC: [u8; 16] = *b"sixteen bytes id";

/// A batch as a server stores it.
fn batch(partition: u32, base_offset: i64, values: &[&str]) -> v1::RecordBatch {
    let mut builder = BatchBuilder::default();
    for value in values {
        let record =
            RecordParts { key: None, value: Some(value.as_bytes()), headers: [], timestamp_ms: None };
        builder.push(record).unwrap();
    }
    let run = builder.finish();
    let header = BatchHeader {
        base_offset,
        last_offset_delta: run.count - 1,
        record_count: run.count,
        append_time_ms: 5,
        max_timestamp_ms: 5,
        records_crc32: run.crc32,
        ..Default::default()
    };
    let topic = TopicId::from_slice(&TOPIC).unwrap();
    let prefix = header.encode(run.bytes.len(), &topic, partition);
    // Behind the tag and the padded length.
    v1::RecordBatch::decode([&prefix[5..], &run.bytes].concat().as_slice()).unwrap()
}

fn slice(partition: u32, base_offset: i64, values: &[&str]) -> v1::LogSlice {
    let next_offset = base_offset + values.len() as i64;
    v1::LogSlice {
        topic: "t".to_owned(),
        partition,
        high_watermark: next_offset,
        next_offset,
        start_offset: base_offset,
        leader_epoch: 3,
        topic_id: TOPIC.to_vec().into(),
        batches: vec![batch(partition, base_offset, values)],
        ..Default::default()
    }
}

fn says(event: Said) -> Result<v1::SubscribeResponse, Status> {
    Ok(v1::SubscribeResponse { event: Some(event) })
}

fn quick() -> ReaderOptions {
    let backoff =
        Backoff { attempts: 20, first: Duration::from_millis(2), longest: Duration::from_millis(10) };
    ReaderOptions { backoff, ..ReaderOptions::default() }
}

async fn reader(fake: &Fake, options: ReaderOptions) -> Reader {
    let client = Client::connect(&fake.serve().await).await.unwrap();
    let from = client.positions("t", &[], &Start::Earliest).await.unwrap();
    client.subscribe(from, options).await.unwrap()
}

async fn values(reader: &mut Reader) -> Vec<String> {
    match reader.next().await.unwrap().unwrap() {
        Event::Records(records) => {
            let mut values = Vec::new();
            for batch in records.batches() {
                for record in batch.unwrap().records() {
                    values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
                }
            }
            values
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lost_connection_resumes_at_the_next_offset() {
    let fake = Fake::new(2, []);
    fake.will_say([says(Said::Slice(slice(0, 0, &["a", "b"]))), Err(Status::unavailable("broken"))]);
    fake.will_say([says(Said::Slice(slice(0, 2, &["c"])))]);
    let states = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&states);
    let on_state: annals_client::OnState =
        Arc::new(move |state| seen.lock().unwrap().push(matches!(state, ReaderState::Connected)));
    let mut reader = reader(&fake, ReaderOptions { on_state: Some(on_state), ..quick() }).await;
    assert_eq!(values(&mut reader).await, ["a", "b"]);
    assert_eq!(values(&mut reader).await, ["c"]);
    assert_eq!(*states.lock().unwrap(), [true, false, true]);
    let asked: Vec<_> = fake.subscriptions().into_iter().map(|request| request.positions).collect();
    assert_eq!(asked[1][0].start, Some(v1::fetch_position::Start::Offset(2)));
    assert_eq!((asked[1][0].last_epoch, asked[1][1].last_epoch), (Some(3), None));
    assert_eq!(asked[1].len(), 2, "partitions that were silent are asked for again");
}

#[tokio::test]
async fn a_draining_server_is_left_and_found_again() {
    let fake = Fake::new(1, []);
    fake.will_say([says(Said::Drain(v1::Drain { deadline_ms: 1 }))]);
    fake.will_say([says(Said::Slice(slice(0, 0, &["a"])))]);
    let mut reader = reader(&fake, quick()).await;
    assert_eq!(values(&mut reader).await, ["a"]);
}

#[tokio::test]
async fn a_failed_partition_is_told_once_and_the_others_go_on() {
    let fake = Fake::new(2, []);
    let failed = v1::PartitionError {
        topic: "t".to_owned(),
        partition: 0,
        code: Code::DataLoss.into(),
        reason: reason::CORRUPT_DATA.to_owned(),
        message: "damaged".to_owned(),
        ..Default::default()
    };
    fake.will_say([
        says(Said::PartitionError(failed)),
        says(Said::Slice(slice(1, 0, &["a"]))),
        Err(Status::unavailable("x")),
    ]);
    fake.will_say([]);
    let mut reader = reader(&fake, quick()).await;
    match reader.next().await.unwrap().unwrap() {
        Event::Failed(failed) => assert_eq!(failed.error.reason(), reason::CORRUPT_DATA),
        other => panic!("{other:?}"),
    }
    assert_eq!(values(&mut reader).await, ["a"]);
    // The next connection does not ask for it.
    let _ = tokio::time::timeout(Duration::from_millis(300), reader.next()).await;
    let again = fake.subscriptions().pop().unwrap();
    assert_eq!(again.positions.iter().map(|position| position.partition).collect::<Vec<_>>(), [Some(1)]);
}

#[tokio::test]
async fn damaged_bytes_do_not_pass() {
    let fake = Fake::new(1, []);
    let mut damaged = slice(0, 0, &["a"]);
    damaged.batches[0].records[0].value = Some("b".into());
    fake.will_say([says(Said::Slice(damaged))]);
    let mut reader = reader(&fake, quick()).await;
    let Some(Event::Records(records)) = reader.next().await.unwrap() else { panic!("no records") };
    assert_eq!(records.count().unwrap_err().reason(), reason::BAD_ANSWER);
}

/// Lets so much time pass for whoever waits for a timer; the connection does not notice.
async fn pass(time: Duration) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn new_partitions_are_read_from_their_first_record() {
    let fake = Fake::new(1, []);
    fake.will_say([]);
    fake.will_say([says(Said::Slice(slice(1, 0, &["a"])))]);
    let mut reader = reader(&fake, ReaderOptions { follow_growth: true, ..quick() }).await;
    fake.grow(2);
    let read = tokio::spawn(async move { values(&mut reader).await });
    pass(Duration::from_secs(11)).await;
    assert_eq!(read.await.unwrap(), ["a"]);
}

#[tokio::test]
async fn silence_is_a_lost_connection() {
    let fake = Fake::new(1, []);
    fake.will_say([]);
    fake.will_say([says(Said::Slice(slice(0, 0, &["a"])))]);
    let mut reader = reader(&fake, quick()).await;
    let read = tokio::spawn(async move { values(&mut reader).await });
    pass(Duration::from_secs(26)).await;
    assert_eq!(read.await.unwrap(), ["a"]);
    assert_eq!(fake.subscriptions().len(), 2);
}

#[tokio::test]
async fn what_does_not_go_away_ends_the_read() {
    let fake = Fake::new(1, []);
    fake.will_say([Err(refusal(Code::PermissionDenied, "FORBIDDEN"))]);
    let mut reader = reader(&fake, quick()).await;
    assert_eq!(reader.next().await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_fetch_tells_which_partitions_could_not_answer() {
    let fake = Fake::new(1, []);
    let client = Client::connect(&fake.serve().await).await.unwrap();
    let from = client.positions("t", &[], &Start::Earliest).await.unwrap();
    let fetched = client.fetch(&from, &FetchOptions::default()).await.unwrap();
    let error = &fetched.failures[0].error;
    assert_eq!((error.reason(), error.metadata("earliest")), (reason::OFFSET_TRUNCATED, Some("7")));
}

#[tokio::test]
async fn commits_are_repeated_unless_they_are_fenced() {
    let fake = Fake::new(1, [Step::Break]);
    let client = Client::connect(&fake.serve().await).await.unwrap();
    let position = v1::CommitPosition { topic: "t".to_owned(), next_offset: 5, ..Default::default() };
    client.commit("g", vec![position.clone()]).await.unwrap();
    assert_eq!(fake.commits().len(), 2);
    let fake = Fake::new(1, [Step::Break]);
    let client = Client::connect(&fake.serve().await).await.unwrap();
    let fenced = v1::CommitPosition { expected_offset: Some(1), ..position };
    client.commit("g", vec![fenced]).await.unwrap_err();
    assert_eq!(fake.commits().len(), 1);
}

#[tokio::test]
async fn lists_come_whole_however_many_pages() {
    let fake = Fake::new(1, []);
    let client = Client::connect(&fake.serve().await).await.unwrap();
    let names: Vec<_> = client.topics("").await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["t0", "t1", "t2"]);
}
