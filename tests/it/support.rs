//! A server in this process, and stock stubs to speak to it.

use std::{path::PathBuf, sync::Arc};

use annals::{
    clock::SystemClock,
    server::{self, Config, Server},
    storage::Disk,
};
use annals_wire::v1::{
    self, Record, consumer_service_client::ConsumerServiceClient, fetch_position::Start,
    group_service_client::GroupServiceClient, offset_service_client::OffsetServiceClient,
    producer_service_client::ProducerServiceClient, server_service_client::ServerServiceClient,
    topic_service_client::TopicServiceClient,
};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

/// A server and a connection to it.
pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) channel: Channel,
}

/// A server that keeps everything in memory.
pub(crate) async fn site() -> Site {
    site_with(|_| {}).await
}

/// A server with other settings.
pub(crate) async fn site_with(change: impl FnOnce(&mut Config)) -> Site {
    let mut config = config();
    change(&mut config);
    let server = server::start(config).await.expect("the server starts");
    let channel = channel(&server).await;
    Site { server, channel }
}

/// Settings of a server that keeps everything in memory and takes a free port.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.ephemeral = true;
    config.grpc = "127.0.0.1:0".into();
    config
}

/// A server over a disk of the test's own.
pub(crate) async fn site_on(disk: Arc<dyn Disk>) -> Site {
    let server = server::start_on(config(), Arc::new(SystemClock::new()), disk).await.expect("it starts");
    let channel = channel(&server).await;
    Site { server, channel }
}

/// A server on this directory.
pub(crate) async fn site_at(data: PathBuf) -> Site {
    site_with(|config| {
        config.ephemeral = false;
        config.data = data;
    })
    .await
}

pub(crate) async fn channel(server: &Server) -> Channel {
    let uri = format!("http://{}", server.address());
    Channel::from_shared(uri).unwrap().connect().await.expect("the server answers")
}

impl Site {
    pub(crate) fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone()).max_encoding_message_size(64 << 20)
    }

    pub(crate) fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn offsets(&self) -> OffsetServiceClient<Channel> {
        OffsetServiceClient::new(self.channel.clone())
    }

    pub(crate) fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.channel.clone())
    }

    pub(crate) fn info(&self) -> ServerServiceClient<Channel> {
        ServerServiceClient::new(self.channel.clone())
    }

    /// Stores values in partition 0; returns the first one's offset.
    pub(crate) async fn store(&self, topic: &str, values: &[&str]) -> i64 {
        let answer =
            self.producer().produce(produce(topic, values)).await.expect("it is stored").into_inner();
        answer.appends[0].base_offset
    }

    /// Values of partition 0 from an offset on, with their offsets.
    pub(crate) async fn values(&self, topic: &str, from: i64) -> Vec<(i64, String)> {
        let answer = self.consumer().fetch(fetch(topic, from)).await.expect("it is read").into_inner();
        records(&answer.slices[0])
    }
}

/// A request for partition 0.
pub(crate) fn produce(topic: &str, values: &[&str]) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.into(),
        partition: Some(0),
        records: values.iter().map(|value| record(value)).collect(),
        ..Default::default()
    }
}

pub(crate) fn record(value: &str) -> Record {
    Record { value: Some(value.to_owned().into()), ..Default::default() }
}

/// A position in partition 0.
pub(crate) fn position(topic: &str, from: i64) -> v1::FetchPosition {
    v1::FetchPosition {
        topic: topic.into(),
        partition: Some(0),
        start: Some(Start::Offset(from)),
        ..Default::default()
    }
}

pub(crate) fn fetch(topic: &str, from: i64) -> v1::FetchRequest {
    v1::FetchRequest { positions: vec![position(topic, from)], ..Default::default() }
}

pub(crate) fn records(slice: &v1::LogSlice) -> Vec<(i64, String)> {
    let text =
        |record: &Record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
    slice
        .batches
        .iter()
        .flat_map(|batch| {
            batch.records.iter().zip(batch.base_offset..).map(|(record, offset)| (offset, text(record)))
        })
        .collect()
}

/// The reason of a failure; every failure has one.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "annals", "{status:?}");
    assert_eq!(details.bad_request().is_some(), status.code() == Code::InvalidArgument, "{status:?}");
    info.reason.clone()
}

/// One number or name of a failure.
pub(crate) fn fact(status: &Status, name: &str) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    info.metadata.get(name).unwrap_or_else(|| panic!("no {name} in {status:?}")).clone()
}

/// A failure as it has to be: code, reason, and part of the sentence.
#[track_caller]
pub(crate) fn check(status: &Status, code: Code, expected: &str, hint: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(reason(status), expected, "{status:?}");
    assert!(status.message().contains(hint), "{:?} lacks {hint:?}", status.message());
}
