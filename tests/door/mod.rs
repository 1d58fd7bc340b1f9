//! Calls through the door itself, without a socket: for tests and benches that want to know what our own roads cost.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected has to fail"
)]
#![allow(dead_code, reason = "not every user makes every call")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use annals::{
    broker::{Broker, Config, Running},
    clock::SystemClock,
    grpc::{Answer, Door, Settings},
    storage::{Options, RealDisk},
};
use annals_wire::v1::{self, fetch_position::Start};
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tower::Service as _;

/// Frames that are ready.
pub(crate) struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}

/// A server on a directory, and its door.
pub(crate) async fn open(dir: &Path) -> (Door, Running) {
    let clock = Arc::new(SystemClock::new());
    let disk = Arc::new(RealDisk::open(dir).unwrap());
    let (broker, _) = Broker::open(disk, clock.clone(), Options::default(), Config::default()).unwrap();
    let running = broker.start().unwrap();
    let door = Door::new(Settings { address: "localhost:1".into(), inflight_bytes: 64 << 20 }).await;
    door.open(broker, clock).await;
    (door, running)
}

pub(crate) async fn stop(running: Running) {
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}

fn framed(message: &impl prost::Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    let frame: Bytes = [&[0], &length.to_be_bytes()[..], &message].concat().into();
    // From hyper a frame is part of a buffer that is shared already; the first clone makes this one so.
    drop(frame.clone());
    frame
}

fn request(path: &str, frames: impl IntoIterator<Item = Bytes>) -> Request<Frames> {
    let body = Frames(frames.into_iter().collect());
    Request::post(path).header("content-type", "application/grpc").body(body).unwrap()
}

/// Calls and takes the whole answer frame by frame; gives its bytes.
pub(crate) async fn call(door: &Door, request: Request<Frames>) -> usize {
    let response = door.service().call(request).await.unwrap();
    let mut body: Answer = response.into_body();
    let mut bytes = 0;
    let mut ended = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.unwrap();
        bytes += frame.data_ref().map_or(0, Bytes::len);
        ended |= frame.trailers_ref().is_some_and(|trailers| trailers["grpc-status"] == "0");
    }
    assert!(ended, "the call failed");
    bytes
}

/// So many records of so many bytes for one partition of a topic, or for all by their keys.
pub(crate) fn produce(partition: Option<u32>, records: usize, size: usize) -> v1::ProduceRequest {
    let record = |index: usize| v1::Record {
        key: Some(index.to_string().into()),
        value: Some(vec![b'x'; size].into()),
        ..Default::default()
    };
    let records = (0..records).map(record).collect();
    v1::ProduceRequest { topic: "t".into(), partition, records, ..Default::default() }
}

pub(crate) fn unary(produce: &v1::ProduceRequest) -> Request<Frames> {
    request("/annals.v1.ProducerService/Produce", [framed(produce)])
}

/// The same request `count` times on one stream.
pub(crate) fn stream(produce: v1::ProduceRequest, count: usize) -> Request<Frames> {
    let message = framed(&v1::ProduceStreamRequest { append: Some(produce) });
    request("/annals.v1.ProducerService/ProduceStream", std::iter::repeat_n(message, count))
}

/// As much as one answer holds by default, a MiB, of partition 0.
pub(crate) fn fetch(offset: i64) -> Request<Frames> {
    let position = v1::FetchPosition {
        topic: "t".into(),
        partition: Some(0),
        start: Some(Start::Offset(offset)),
        ..Default::default()
    };
    let asked = v1::FetchRequest { positions: vec![position], ..Default::default() };
    request("/annals.v1.ConsumerService/Fetch", [framed(&asked)])
}
