//! Commits as fast as streams take them: each is answered once it is on disk, in its order, and many share one flush.

use std::time::Duration;

use annals_client::{NewRecord, ProduceOptions, v1};
use annals_wire::v1::{
    ConsumeRequest, consume_request::Command, consume_response::Event,
    consumer_service_client::ConsumerServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::site::{Site, now};

const STREAMS: usize = 4;
const COMMITS: u64 = 50_000;
/// Commits to one offset after the other need so many records.
const RECORDS: i64 = 500;

/// Commits again and again, as many under way as the server takes, and returns what it was answered.
async fn commit(channel: Channel, group: String) -> u64 {
    let (sender, receiver) = mpsc::channel(1024);
    let says = |command| ConsumeRequest { command: Some(command) };
    let join = v1::ConsumeJoin { group, topics: vec!["t".into()], ..Default::default() };
    sender.send(says(Command::Join(join))).await.unwrap();
    let mut consumer = ConsumerServiceClient::new(channel);
    let mut events = consumer.consume(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let assignment_epoch = loop {
        if let Event::Assigned(given) = events.message().await.unwrap().unwrap().event.unwrap() {
            break given.partitions[0].assignment_epoch;
        }
    };
    let says = tokio::spawn(async move {
        for commit_id in 0..COMMITS {
            // Each moves the group, but for the last.
            let next_offset = i64::try_from(commit_id).unwrap() * RECORDS / i64::try_from(COMMITS).unwrap();
            let metadata = commit_id.to_string();
            let topic = "t".into();
            let position =
                v1::CommitPosition { topic, next_offset, assignment_epoch, metadata, ..Default::default() };
            let commit = v1::ConsumeCommit { commit_id, offsets: vec![position] };
            sender.send(ConsumeRequest { command: Some(Command::Commit(commit)) }).await.unwrap();
        }
        sender
    });
    let mut next = 0;
    while next < COMMITS {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Committed(committed) => {
                assert_eq!((committed.commit_id, committed.error), (next, None));
                next += 1;
            }
            Event::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(says.await.unwrap());
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commits_of_many_streams_share_a_flush_and_each_is_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(dir.path());
    let client = site.client().await;
    let config = v1::TopicConfig { partitions: 1, ..Default::default() };
    client.create_topic("t", config).await.unwrap();
    let records = vec![NewRecord::new("x"); usize::try_from(RECORDS).unwrap()];
    let options = ProduceOptions { partition: Some(0), ..ProduceOptions::default() };
    client.produce("t", &records, options).await.unwrap();
    let began = now();
    let streams: Vec<_> = (0..STREAMS)
        .map(|stream| {
            let channel = site.channel();
            tokio::spawn(async move { commit(channel.await, format!("g{stream}")).await })
        })
        .collect();
    let mut answered = 0;
    for stream in streams {
        answered += stream.await.unwrap();
    }
    let took = now().saturating_sub(began);
    assert_eq!(answered, COMMITS * STREAMS as u64);
    let rate = u128::from(answered) * 1000 / took.max(Duration::from_millis(1)).as_millis();
    eprintln!("{answered} commits in {took:?}: {rate} in a second");
}
