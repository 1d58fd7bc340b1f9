//! Streams: pipelined acks, subscriptions, what ends them.

use std::time::Duration;

use annals_wire::v1::{self, produce_stream_response::Event as Ack, subscribe_response::Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::support::{Site, position, produce, reason, records, site};

fn append(request: v1::ProduceRequest) -> v1::ProduceStreamRequest {
    v1::ProduceStreamRequest { append: Some(request) }
}

async fn open(site: &Site) -> (mpsc::Sender<v1::ProduceStreamRequest>, Streaming<v1::ProduceStreamResponse>) {
    let (sender, receiver) = mpsc::channel(16);
    let answers = site.producer().produce_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, answers)
}

async fn stored(answers: &mut Streaming<v1::ProduceStreamResponse>) -> i64 {
    match answers.message().await.unwrap().expect("an answer").event.expect("an event") {
        Ack::Stored(stored) => stored.appends[0].base_offset,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn acks_come_in_order_and_the_stream_ends_when_the_caller_does() {
    let site = site().await;
    let (sender, mut answers) = open(&site).await;
    let sending = tokio::spawn(async move {
        for index in 0..500 {
            sender.send(append(produce("t", &[&index.to_string()]))).await.unwrap();
        }
        // A sign of life is answered by nothing.
        sender.send(v1::ProduceStreamRequest { append: None }).await.unwrap();
    });
    for expected in 0..500 {
        assert_eq!(stored(&mut answers).await, expected);
    }
    assert!(answers.message().await.unwrap().is_none(), "it ends without an error");
    sending.await.unwrap();
}

#[tokio::test]
async fn the_first_failure_ends_the_stream_and_nothing_after_it_is_stored() {
    let site = site().await;
    let (sender, mut answers) = open(&site).await;
    for value in ["a", "b"] {
        sender.send(append(produce("t", &[value]))).await.unwrap();
    }
    sender
        .send(append(v1::ProduceRequest { expected_next_offset: Some(99), ..produce("t", &["odd"]) }))
        .await
        .unwrap();
    for value in ["c", "d"] {
        // The stream may be over already.
        let _ = sender.send(append(produce("t", &[value]))).await;
    }
    assert_eq!(stored(&mut answers).await, 0);
    assert_eq!(stored(&mut answers).await, 1);
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "EXPECTED_OFFSET_MISMATCH"));
    assert_eq!(site.values("t", 0).await, [(0, "a".into()), (1, "b".into())]);
}

#[tokio::test]
async fn a_request_id_is_refused_on_a_stream() {
    let site = site().await;
    let (sender, mut answers) = open(&site).await;
    sender.send(append(v1::ProduceRequest { request_id: "r".into(), ..produce("t", &["a"]) })).await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "MALFORMED"));
}

#[tokio::test]
async fn a_subscription_reads_catches_up_and_goes_on() {
    let site = site().await;
    site.store("t", &["a", "b"]).await;
    let request = v1::SubscribeRequest { positions: vec![position("t", 1)], ..Default::default() };
    let mut events = site.consumer().subscribe(request).await.unwrap().into_inner();
    let Some(Event::Slice(slice)) = events.message().await.unwrap().unwrap().event else {
        panic!("records first")
    };
    assert_eq!(records(&slice), [(1, "b".into())]);
    let Some(Event::CaughtUp(caught_up)) = events.message().await.unwrap().unwrap().event else {
        panic!("then this")
    };
    assert_eq!((caught_up.next_offset, caught_up.topic.as_str()), (2, "t"));
    site.store("t", &["c"]).await;
    let Some(Event::Slice(slice)) = events.message().await.unwrap().unwrap().event else {
        panic!("then the new one")
    };
    assert_eq!(records(&slice), [(2, "c".into())]);
}

#[tokio::test]
async fn a_stream_that_is_dropped_gives_everything_back() {
    let site = site().await;
    let free = site.server.door().free_bytes();
    let (sender, answers) = open(&site).await;
    sender.send(append(produce("t", &["a"]))).await.unwrap();
    drop((sender, answers));
    let mut fetching = site.consumer();
    let waiting = tokio::spawn(async move {
        fetching.fetch(v1::FetchRequest { max_wait_ms: 20_000, ..crate::support::fetch("t", 1) }).await
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiting.abort();
    let settled = async {
        while site.server.door().free_bytes() != free || site.server.door().tally().open != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        site.server.door().written().await;
    };
    tokio::time::timeout(Duration::from_secs(5), settled).await.expect("room comes back");
}

#[tokio::test]
async fn a_stopping_server_says_so_and_answers_what_was_sent() {
    let site = site().await;
    site.store("t", &["a"]).await;
    let (sender, mut answers) = open(&site).await;
    sender.send(append(produce("t", &["b"]))).await.unwrap();
    assert_eq!(stored(&mut answers).await, 1);
    let request = v1::SubscribeRequest { positions: vec![position("t", 2)], ..Default::default() };
    let mut events = site.consumer().subscribe(request).await.unwrap().into_inner();
    let Some(Event::CaughtUp(_)) = events.message().await.unwrap().unwrap().event else {
        panic!("nothing to read")
    };
    let stopping = tokio::spawn(site.server.shutdown());
    let Some(Ack::Drain(drain)) = answers.message().await.unwrap().unwrap().event else { panic!("a drain") };
    assert!(drain.deadline_ms > 0);
    sender.send(append(produce("t", &["c"]))).await.unwrap();
    assert_eq!(stored(&mut answers).await, 2, "what is sent after the drain is still answered");
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    let mut told = false;
    let status = loop {
        match events.message().await {
            // The record that was stored meanwhile may come first.
            Ok(Some(event)) => told |= matches!(event.event, Some(Event::Drain(_))),
            Ok(None) => panic!("a drained subscription ends with a status"),
            Err(status) => break status,
        }
    };
    assert!(told, "the subscriber is told before the end");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    tokio::time::timeout(Duration::from_secs(8), stopping).await.expect("it ends").unwrap().unwrap();
}
