//! The broker over a disk in memory. A crash is a copy of what the process has written, opened anew.

mod commits;
mod durable;
mod filters;
mod groups;
mod keyed;
mod members;
mod produce;
mod producers;
mod rates;
mod reads;
mod resets;
mod shadows;
mod steps;
mod storm;
mod subscribe;
mod topics;
mod walks;

use std::time::Duration;

use annals_wire::{
    request::scan,
    slice::Batch,
    v1::{self, ProduceRequest, Record},
};
use bytes::Bytes;
use prost::Message as _;

use super::{
    Broker, CodecSet, Commit, CommitPosition, Config, Error, Fetch, Fetched, PageRequest, Position,
    Principal, Produce, Produced, Running, Slice, Start, TopicSettings,
};
use crate::{
    clock::{Clock, ManualClock},
    storage::{MemoryDisk, Options, Report},
    sync::Arc,
};

/// A broker, its disk and its clock.
struct House {
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    broker: Arc<Broker>,
    running: Option<Running>,
    report: Report,
}

fn options() -> Options {
    Options {
        inline_bytes: 16 * 1024,
        ring_bytes: 16 << 20,
        ring_file_bytes: 8 << 20,
        pending_bytes: 4 << 20,
        snapshot_bytes: 4 << 20,
        keep_free_bytes: 0,
        flush_helpers: 0,
        ..Options::default()
    }
}

fn config() -> Config {
    let mut config = Config { heartbeat: Duration::from_millis(50), ..Config::default() };
    config.topic_defaults.partitions = 4;
    config.topic_defaults.segment_bytes = 1 << 20;
    config
}

impl House {
    fn new() -> Self {
        Self::with(MemoryDisk::new(), config(), true)
    }

    /// Nothing commits but by [`House::commit`].
    fn by_hand() -> Self {
        Self::with(MemoryDisk::new(), config(), false)
    }

    fn with(disk: MemoryDisk, config: Config, runs: bool) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
        let injected: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let (broker, report) = Broker::open(Arc::new(disk.clone()), injected, options(), config).unwrap();
        let running = runs.then(|| broker.start().unwrap());
        Self { disk, clock, broker, running, report }
    }

    /// What a start after `kill -9` at this moment finds.
    fn crashed(&self) -> Self {
        Self::with(self.disk.snapshot(), self.broker.config.clone(), true)
    }

    fn commit(&self) {
        while matches!(self.broker.storage.commit_step(), crate::storage::Step::Committed) {}
    }

    async fn topic(&self, name: &str, partitions: u32) {
        let settings = TopicSettings { partitions: Some(partitions), ..TopicSettings::default() };
        self.broker.create_topic(&Principal::anonymous(), name, settings, "").await.unwrap();
    }

    async fn produce(&self, request: ProduceRequest) -> Result<Produced, Error> {
        self.broker.produce(call(&request)).await
    }

    /// Stores values in partition 0 and returns the offset of the first.
    async fn put(&self, topic: &str, values: &[&str]) -> i64 {
        let produced = self.produce(to(topic, 0, values)).await.unwrap();
        produced.appends[0].base_offset
    }

    async fn fetch(&self, positions: Vec<Position>) -> Result<Fetched, Error> {
        self.broker.fetch(fetch(positions)).await
    }

    /// Everything from an offset of partition 0 on.
    async fn values(&self, topic: &str, from: i64) -> Vec<(i64, String)> {
        let mut out = Vec::new();
        let mut from = from;
        loop {
            let fetched = self.fetch(vec![at(topic, 0, Start::Offset(from))]).await.unwrap();
            let slice = &fetched.slices[0];
            out.extend(values(slice));
            if slice.next_offset == from {
                return out;
            }
            from = slice.next_offset;
        }
    }

    async fn commit_at(&self, group: &str, topic: &str, next_offset: i64) -> Result<(), Error> {
        self.broker.commit_offsets(one_commit(group, topic, next_offset)).await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

fn call(request: &ProduceRequest) -> Produce {
    let bytes = Bytes::from(request.encode_to_vec());
    Produce { scanned: scan(&[bytes]).unwrap(), principal: Principal::anonymous() }
}

fn record(key: Option<&str>, value: &str) -> Record {
    Record {
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        ..Record::default()
    }
}

fn to(topic: &str, partition: u32, values: &[&str]) -> ProduceRequest {
    ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        records: values.iter().map(|value| record(None, value)).collect(),
        ..ProduceRequest::default()
    }
}

fn at(topic: &str, partition: u32, start: Start) -> Position {
    Position { topic: topic.to_owned(), partition: Some(partition), start, last_epoch: None }
}

fn all_of(topic: &str, start: Start) -> Position {
    Position { topic: topic.to_owned(), partition: None, start, last_epoch: None }
}

fn fetch(positions: Vec<Position>) -> Fetch {
    Fetch {
        positions,
        max_wait: Duration::ZERO,
        min_bytes: 0,
        max_bytes: 0,
        accept_codecs: CodecSet { lz4: true, zstd: true },
        skip_damaged: false,
        filter: None,
    }
}

fn one_commit(group: &str, topic: &str, next_offset: i64) -> Commit {
    let position = CommitPosition {
        topic: topic.to_owned(),
        partition: 0,
        next_offset,
        expected_offset: None,
        leader_epoch: None,
        topic_id: None,
        metadata: String::new(),
        assignment_epoch: 0,
    };
    Commit {
        group: group.to_owned(),
        positions: vec![position],
        allow_backwards: false,
        member_id: String::new(),
        override_members: false,
    }
}

/// Offsets and values of a slice, every batch checked end to end with what clients use.
fn values(slice: &Slice) -> Vec<(i64, String)> {
    let whole: Vec<u8> = slice.batches.concat();
    // Read as any protobuf decoder would: the pieces in a row are field 1 of a slice.
    v1::LogSlice::decode(whole.as_slice()).unwrap();
    let parsed = annals_wire::slice::Slice::parse(Bytes::from(whole)).unwrap();
    let mut out = Vec::new();
    for batch in parsed.batches() {
        let batch: Batch = batch.unwrap();
        batch.verify(&slice.topic_id, slice.partition).unwrap();
        let batch = batch.unpacked().unwrap();
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            out.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    out
}

fn numbered(from: i64, values: &[&str]) -> Vec<(i64, String)> {
    (from..).zip(values.iter().map(|value| (*value).to_owned())).collect()
}
