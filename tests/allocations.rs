//! How often the server allocates on the hot roads: at most 10 times per MiB that is fetched, and per batch that is
//! produced, on a stream or by a call of its own. A batch here has 100 records and a MiB a thousand, so a decoder on
//! either road would show at once.
//!
//! Counted is everything the process allocates between a call and the last frame of its answer, in all threads (the
//! journal's, the upkeep's), on a disk of this machine. Calls go through the door itself, without a socket: what HTTP/2
//! takes for its frames and headers is hyper's and is not counted, but for the headers and trailers of the answer, which
//! are ours. Buffers that grow once and are kept are paid by the calls before.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a test that meets the unexpected has to fail"
)]
#![allow(unsafe_code, reason = "an allocator is unsafe by nature")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use annals::{
    broker::{Broker, Config},
    clock::SystemClock,
    grpc::{Door, Settings},
    storage::{Options, RealDisk},
};
use annals_wire::v1::{self, fetch_position::Start};
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tower::Service as _;

/// Allocations per MiB fetched, and per batch produced.
const MOST: f64 = 10.0;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing else.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as this function's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as this function's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as this function's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Frames that are ready.
struct Frames(VecDeque<Bytes>);

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

/// Calls, takes the whole answer frame by frame; gives its bytes and how often was allocated meanwhile.
async fn call(door: &Door, request: Request<Frames>) -> (usize, u64) {
    let before = COUNT.load(Ordering::SeqCst);
    let response = door.service().call(request).await.unwrap();
    let mut body = response.into_body();
    let mut bytes = 0;
    let mut ended = false;
    while let Some(frame) = body.frame().await {
        let frame = frame.unwrap();
        bytes += frame.data_ref().map_or(0, Bytes::len);
        ended |= frame.trailers_ref().is_some_and(|trailers| trailers["grpc-status"] == "0");
    }
    drop(body);
    let after = COUNT.load(Ordering::SeqCst);
    assert!(ended, "the call failed");
    (bytes, after - before)
}

/// Calls one after the other; bytes of all answers, and allocations.
async fn calls(door: &Door, requests: Vec<Request<Frames>>) -> (usize, u64) {
    let mut sum = (0, 0);
    for request in requests {
        let (bytes, allocations) = call(door, request).await;
        sum = (sum.0 + bytes, sum.1 + allocations);
    }
    sum
}

/// So many records of 1,000 bytes for one partition, or for all by their keys.
fn produce(partition: Option<u32>, records: usize) -> v1::ProduceRequest {
    let record = |index: usize| v1::Record {
        key: Some(index.to_string().into()),
        value: Some(vec![b'x'; 1000].into()),
        ..Default::default()
    };
    let records = (0..records).map(record).collect();
    v1::ProduceRequest { topic: "t".into(), partition, records, ..Default::default() }
}

fn unary(produce: &v1::ProduceRequest) -> Request<Frames> {
    request("/annals.v1.ProducerService/Produce", [framed(produce)])
}

/// `count` batches on one stream.
fn stream(count: usize) -> Request<Frames> {
    let message = framed(&v1::ProduceStreamRequest { append: Some(produce(Some(0), 100)) });
    request("/annals.v1.ProducerService/ProduceStream", std::iter::repeat_n(message, count))
}

/// A MiB from each of these places.
fn fetch(places: impl IntoIterator<Item = (u32, i64)>) -> Request<Frames> {
    let position = |(partition, offset)| v1::FetchPosition {
        topic: "t".into(),
        partition: Some(partition),
        start: Some(Start::Offset(offset)),
        ..Default::default()
    };
    let positions = places.into_iter().map(position).collect();
    request(
        "/annals.v1.ConsumerService/Fetch",
        [framed(&v1::FetchRequest { positions, ..Default::default() })],
    )
}

fn hold(what: &str, allocations: u64, count: f64) {
    let each = allocations as f64 / count;
    eprintln!("{each:.1} allocations per {what}");
    assert!(each <= MOST, "{allocations} allocations, {each:.1} per {what}");
}

#[tokio::test]
async fn records_go_in_and_out_with_few_allocations() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let disk = Arc::new(RealDisk::open(dir.path()).unwrap());
    let (broker, _) = Broker::open(disk, clock.clone(), Options::default(), Config::default()).unwrap();
    let running = broker.start().unwrap();
    let door = Door::new(Settings { address: "localhost:1".into(), inflight_bytes: 64 << 20 }).await;
    door.open(Arc::clone(&broker), clock).await;

    // Everything that is made once is made by the first calls.
    call(&door, stream(50)).await;
    let (_, allocations) = call(&door, stream(200)).await;
    hold("batch of a stream", allocations, 200.0);

    let batch = produce(Some(0), 100);
    let (_, allocations) = calls(&door, (0..20).map(|_| unary(&batch)).collect()).await;
    hold("batch of a call", allocations, 20.0);

    // One batch for each of the 8 partitions.
    let spread = produce(None, 800);
    calls(&door, (0..5).map(|_| unary(&spread)).collect()).await;
    let (_, allocations) = calls(&door, (0..20).map(|_| unary(&spread)).collect()).await;
    hold("batch of a call that is sorted by key", allocations, 160.0);

    call(&door, fetch([(0, 0)])).await;
    let (bytes, allocations) = calls(&door, (0..10).map(|index| fetch([(0, index * 1000)])).collect()).await;
    assert!(bytes > 9 << 20, "each answer is about a MiB: {bytes}");
    hold("MiB fetched", allocations, bytes as f64 / f64::from(1 << 20));
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}
