//! `kill -9`, again and again, in the middle of writing; nothing that was acked is ever missing.
//!
//! Each round a server runs as a child process. A producer keeps a window of requests under way in each of a few
//! partitions, a consumer commits what it has read. Then the server is killed; only rounds in which requests were
//! unanswered count. At the end every acked event is at its offset, no offset has two events, each event is there once
//! unless its ack was lost, the last acked commit stands, and `annals log verify` finds nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail"
)]

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::Command,
    time::Duration,
};

use annals_wire::v1::{
    self, Record, consumer_service_client::ConsumerServiceClient, fetch_position::Start,
    offset_service_client::OffsetServiceClient, produce_stream_response::Event,
    producer_service_client::ProducerServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

#[path = "support/child.rs"]
mod child;

use child::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_annals");
/// Kills that have to count.
const KILLS: usize = 20;
const PARTITIONS: u32 = 3;

/// What the clients know.
#[derive(Default)]
struct Known {
    /// Events by place, as acked.
    acked: HashMap<(u32, i64), String>,
    /// Sent, answer never seen.
    unknown: HashSet<String>,
    committed: HashMap<u32, i64>,
}

/// One producer stream; tells what was acked and what was left without an answer.
async fn write(channel: Channel, partition: u32, round: usize) -> (Vec<(u32, i64, String)>, Vec<String>) {
    let (sender, receiver) = mpsc::channel::<v1::ProduceStreamRequest>(64);
    let (mut acked, mut sent) = (Vec::new(), Vec::new());
    let opened = ProducerServiceClient::new(channel).produce_stream(ReceiverStream::new(receiver)).await;
    let Ok(opened) = opened else { return (acked, sent) };
    let mut answers = opened.into_inner();
    let mut next = 0;
    loop {
        // A window of unanswered requests, of three events each.
        while sent.len() - acked.len() < 150 {
            let values: Vec<String> =
                (0..3).map(|part| format!("{partition}/{round}/{next}/{part}")).collect();
            let records =
                values.iter().map(|value| Record { value: Some(value.clone().into()), ..Default::default() });
            let append = v1::ProduceRequest {
                topic: "events".into(),
                partition: Some(partition),
                records: records.collect(),
                ..Default::default()
            };
            if sender.send(v1::ProduceStreamRequest { append: Some(append) }).await.is_err() {
                break;
            }
            sent.extend(values);
            next += 1;
        }
        match answers.message().await {
            Ok(Some(v1::ProduceStreamResponse { event: Some(Event::Stored(stored)) })) => {
                let append = &stored.appends[0];
                for offset in (append.base_offset..).take(append.record_count as usize) {
                    acked.push((partition, offset, sent[acked.len()].clone()));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let unknown = sent.split_off(acked.len());
    (acked, unknown)
}

/// Reads on and commits; tells the last position whose commit was acked.
async fn read_on(channel: Channel, partition: u32) -> Option<i64> {
    let mut consumer = ConsumerServiceClient::new(channel.clone());
    let mut offsets = OffsetServiceClient::new(channel);
    let mut committed = None;
    loop {
        let position = v1::FetchPosition {
            topic: "events".into(),
            partition: Some(partition),
            start: Some(Start::CommittedBy("readers".into())),
            ..Default::default()
        };
        let request = v1::FetchRequest {
            positions: vec![position],
            max_wait_ms: 100,
            max_bytes: 4096,
            ..Default::default()
        };
        let Ok(answer) = consumer.fetch(request).await else { return committed };
        let slice = &answer.get_ref().slices[0];
        let position = v1::CommitPosition {
            topic: "events".into(),
            partition,
            next_offset: slice.next_offset,
            ..Default::default()
        };
        let request = v1::CommitOffsetsRequest {
            group: "readers".into(),
            offsets: vec![position],
            ..Default::default()
        };
        if offsets.commit_offsets(request).await.is_err() {
            return committed;
        }
        committed = Some(slice.next_offset);
    }
}

async fn round(data: &Path, number: usize, known: &mut Known) -> bool {
    let broker = Server::start(data);
    let channel = broker.connect().await;
    let writers: Vec<_> =
        (0..PARTITIONS).map(|partition| tokio::spawn(write(channel.clone(), partition, number))).collect();
    let readers: Vec<_> = if number == 0 {
        Vec::new() // the topic may not be there yet
    } else {
        (0..PARTITIONS).map(|partition| tokio::spawn(read_on(channel.clone(), partition))).collect()
    };
    // Different moments of the journal's cycles, from the first frame on.
    tokio::time::sleep(Duration::from_millis(20 + (number as u64 * 37) % 200)).await;
    broker.kill();
    let mut counts = false;
    for writer in writers {
        let (acked, unknown) = writer.await.unwrap();
        counts |= !unknown.is_empty() && !acked.is_empty();
        known.unknown.extend(unknown);
        for (partition, offset, value) in acked {
            let before = known.acked.insert((partition, offset), value.clone());
            assert_eq!(before, None, "offset {offset} of {partition} was given twice, now to {value}");
        }
    }
    for (partition, reader) in readers.into_iter().enumerate() {
        if let Some(committed) = reader.await.unwrap() {
            known.committed.insert(u32::try_from(partition).unwrap(), committed);
        }
    }
    counts
}

/// Everything of a partition, by offset.
async fn all(channel: Channel, partition: u32) -> Vec<(i64, String)> {
    let mut consumer = ConsumerServiceClient::new(channel);
    let (mut found, mut next) = (Vec::new(), 0);
    loop {
        let position = v1::FetchPosition {
            topic: "events".into(),
            partition: Some(partition),
            start: Some(Start::Offset(next)),
            ..Default::default()
        };
        let request = v1::FetchRequest { positions: vec![position], ..Default::default() };
        let answer = consumer.fetch(request).await.unwrap().into_inner();
        let slice = &answer.slices[0];
        for batch in &slice.batches {
            for (record, offset) in batch.records.iter().zip(batch.base_offset..) {
                let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
                found.push((offset, value));
            }
        }
        if slice.next_offset == slice.high_watermark {
            return found;
        }
        next = slice.next_offset;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acked_is_lost_however_often_the_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut known = Known::default();
    let (mut counted, mut number) = (0, 0);
    while counted < KILLS {
        counted += usize::from(round(&data, number, &mut known).await);
        number += 1;
        assert!(number < 4 * KILLS, "only {counted} of {number} kills hit requests under way");
    }
    let broker = Server::start(&data);
    let mut seen = HashSet::new();
    let mut stored = 0;
    for partition in 0..PARTITIONS {
        let found = all(broker.connect().await, partition).await;
        for (index, (offset, value)) in found.iter().enumerate() {
            assert_eq!(*offset, i64::try_from(index).unwrap(), "offsets have no holes");
            match known.acked.get(&(partition, *offset)) {
                Some(acked) => assert_eq!(acked, value, "at {partition}/{offset}"),
                None => assert!(known.unknown.contains(value), "{value} was never sent, or acked elsewhere"),
            }
            assert!(seen.insert(value.clone()), "{value} is there twice");
        }
        stored += found.len();
    }
    for ((partition, offset), value) in &known.acked {
        assert!(seen.contains(value), "{value}, acked at {partition}/{offset}, is gone");
    }
    assert!(stored >= known.acked.len());
    let asked = v1::GetOffsetsRequest { group: "readers".into(), topics: vec![] };
    let offsets =
        OffsetServiceClient::new(broker.connect().await).get_offsets(asked).await.unwrap().into_inner();
    assert!(!known.committed.is_empty(), "the readers committed nothing");
    for (partition, committed) in &known.committed {
        let stands =
            offsets.offsets.iter().find(|offset| offset.partition == *partition).expect("it is known");
        assert!(
            stands.next_offset >= *committed,
            "a commit at {committed} fell back to {}",
            stands.next_offset
        );
    }
    broker.kill();
    let verified = Command::new(BINARY).args(["log", "verify"]).arg(&data).output().unwrap();
    assert!(
        verified.status.success(),
        "{}{}",
        String::from_utf8_lossy(&verified.stdout),
        String::from_utf8_lossy(&verified.stderr)
    );
    eprintln!("{counted} kills of {number} counted; {} events acked, {stored} stored", known.acked.len());
}
