//! What a server holds in memory for those who are connected and do nothing, and for readers that do not read: the built
//! binary as a child process, its anonymous memory as the kernel counts it. Pages of files are not counted: they are the page
//! cache's, mapped or not. No figure depends on time; each is several times what was measured, so that only growth fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test: what does not hold must fail it")]

use std::{fs, time::Duration};

use annals_wire::v1::{
    self, Record, consumer_service_client::ConsumerServiceClient, fetch_position::Start,
    group_service_client::GroupServiceClient, offset_service_client::OffsetServiceClient,
    produce_stream_response::Event as Ack, producer_service_client::ProducerServiceClient,
    subscribe_response::Event, topic_service_client::TopicServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

#[path = "support/child.rs"]
mod child;

use child::Server;

const MIB: u64 = 1 << 20;
const SUBSCRIBERS: usize = 1000;
const PRODUCERS: usize = 200;
const SLOW: usize = 100;

impl Server {
    /// Anonymous memory of the process, bytes.
    fn anonymous(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    async fn store(&self, topic: &str, values: usize, size: usize) {
        let mut producer = ProducerServiceClient::new(self.connect().await);
        let record = Record { value: Some(vec![7; size].into()), ..Default::default() };
        producer.produce(request(topic, vec![record; values])).await.unwrap();
    }
}

fn request(topic: &str, records: Vec<Record>) -> v1::ProduceRequest {
    v1::ProduceRequest { topic: topic.into(), partition: Some(0), records, ..Default::default() }
}

/// A subscription on a connection of its own, from an offset on.
async fn subscribe(server: &Server, topic: &str, offset: i64) -> Streaming<v1::SubscribeResponse> {
    let position = v1::FetchPosition {
        topic: topic.into(),
        partition: Some(0),
        start: Some(Start::Offset(offset)),
        ..Default::default()
    };
    let request = v1::SubscribeRequest { positions: vec![position], ..Default::default() };
    ConsumerServiceClient::new(server.connect().await).subscribe(request).await.unwrap().into_inner()
}

/// Waits until a subscription has read everything, or so many records more.
async fn read_on(events: &mut Streaming<v1::SubscribeResponse>, records: Option<usize>) {
    let mut left = records;
    while left != Some(0) {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            Event::Slice(slice) => {
                let read = slice.batches.iter().map(|batch| batch.records.len()).sum::<usize>();
                left = left.map(|left| left.checked_sub(read).expect("no more than was stored"));
            }
            Event::CaughtUp(_) if records.is_none() => return,
            Event::CaughtUp(_) | Event::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn open(
    server: &Server,
) -> (mpsc::Sender<v1::ProduceStreamRequest>, Streaming<v1::ProduceStreamResponse>) {
    let (sender, receiver) = mpsc::channel(1);
    let mut producer = ProducerServiceClient::new(server.connect().await);
    let answers = producer.produce_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, answers)
}

#[tokio::test]
async fn a_thousand_subscribers_and_two_hundred_producers_that_wait_take_little() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.store("t", 1, 100).await;
    let idle = server.anonymous();
    assert!(idle <= 20 * MIB, "{} KiB", idle / 1024);

    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut events = subscribe(&server, "t", 1).await;
        read_on(&mut events, None).await;
        subscribers.push(events);
    }
    // Each was at work once: what it took for that, it would keep.
    server.store("t", 10, 100).await;
    for events in &mut subscribers {
        read_on(events, Some(10)).await;
    }
    let tailing = server.anonymous();
    eprintln!("{SUBSCRIBERS} subscribers: {} KiB, before {} KiB", (tailing - idle) / 1024, idle / 1024);
    assert!(tailing - idle <= 40 * MIB, "{} KiB more for {SUBSCRIBERS} subscribers", (tailing - idle) / 1024);

    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let (sender, mut answers) = open(&server).await;
        let record = Record { value: Some(vec![7; 1000].into()), ..Default::default() };
        let append = Some(request("other", vec![record; 100]));
        sender.send(v1::ProduceStreamRequest { append }).await.unwrap();
        let Some(Ack::Stored(_)) = answers.message().await.unwrap().unwrap().event else { panic!("an ack") };
        producers.push((sender, answers));
    }
    let all = server.anonymous();
    eprintln!("{PRODUCERS} producers: {} KiB more", all.saturating_sub(tailing) / 1024);
    assert!(all <= tailing + 40 * MIB, "{} KiB more for {PRODUCERS} producers", (all - tailing) / 1024);
}

#[tokio::test]
async fn readers_that_do_not_read_hold_a_bounded_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for _ in 0..64 {
        server.store("t", 1000, 1000).await;
    }
    let before = server.anonymous();
    let mut readers = Vec::new();
    for _ in 0..SLOW {
        readers.push(subscribe(&server, "t", 0).await);
    }
    // Until the windows are full and nothing moves any more.
    let mut last = 0;
    let mut still = 0;
    while still < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = server.anonymous();
        still = if now.abs_diff(last) <= MIB { still + 1 } else { 0 };
        last = now;
    }
    eprintln!("{SLOW} slow readers: {} KiB more", last.saturating_sub(before) / 1024);
    // Each could have been sent 64 MB: what waits are slices of the file, and one message for each reader at most.
    assert!(last <= before + 16 * MIB, "{} KiB more for {SLOW} readers", (last - before) / 1024);
    for events in &mut readers {
        let Some(Event::Slice(slice)) = events.message().await.unwrap().unwrap().event else {
            panic!("records")
        };
        assert_eq!(slice.batches.first().unwrap().base_offset, 0);
    }
}

/// A member that has all hundred partitions, and has committed in each.
async fn member_of(channel: Channel, group: String) -> Streaming<v1::ConsumeResponse> {
    let (sender, receiver) = mpsc::channel(4);
    // It says nothing while the others join.
    let config = Some(v1::GroupConfig { session_timeout_ms: 600_000, ..Default::default() });
    let make = v1::CreateGroupRequest { group: group.clone(), config, shadow: None };
    GroupServiceClient::new(channel.clone()).create_group(make).await.unwrap();
    let join = v1::ConsumeJoin {
        group: group.clone(),
        topics: vec!["t".into()],
        member_name: format!("{group}-1"),
        ..Default::default()
    };
    let says = |command| v1::ConsumeRequest { command: Some(command) };
    sender.send(says(v1::consume_request::Command::Join(join))).await.unwrap();
    let mut consumer = ConsumerServiceClient::new(channel.clone());
    let mut events = consumer.consume(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let mut member_id = String::new();
    let given = loop {
        match events.message().await.unwrap().unwrap().event.unwrap() {
            v1::consume_response::Event::Joined(joined) => member_id = joined.member_id,
            v1::consume_response::Event::Assigned(assigned) => break assigned.partitions,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(given.len(), 100);
    let offsets = given.iter().map(|one| v1::CommitPosition {
        topic: "t".into(),
        partition: one.partition,
        assignment_epoch: one.assignment_epoch,
        ..Default::default()
    });
    let commit =
        v1::CommitOffsetsRequest { group, member_id, offsets: offsets.collect(), ..Default::default() };
    OffsetServiceClient::new(channel).commit_offsets(commit).await.unwrap();
    // The end of the requests would be a leave.
    std::mem::forget(sender);
    events
}

#[tokio::test]
async fn a_thousand_groups_of_a_hundred_partitions_take_less_than_64_mib() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let channel = server.connect().await;
    let config = Some(v1::TopicConfig { partitions: 100, ..Default::default() });
    let make = v1::CreateTopicRequest { topic: "t".into(), config, ..Default::default() };
    TopicServiceClient::new(channel.clone()).create_topic(make).await.unwrap();
    let mut channels = Vec::new();
    for _ in 0..20 {
        channels.push(server.connect().await);
    }
    let before = server.anonymous();
    let mut members = Vec::new();
    for group in 0..1000 {
        members.push(member_of(channels[group % 20].clone(), format!("group-{group}")).await);
    }
    let groups = server.anonymous() - before;
    eprintln!("1000 groups of 100 partitions, each with a member and its stream: {} KiB", groups / 1024);
    assert!(groups < 64 * MIB, "{} KiB", groups / 1024);
}
