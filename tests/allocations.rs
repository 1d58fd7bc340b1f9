//! How often the server allocates on the hot roads, per MiB that is fetched and per batch that is produced: a fixed number,
//! never one a record. A batch here has 100 records and a MiB a thousand, so a decoder on either road would show at once.
//! The aim is 10; [`MOST`] is a ratchet above what it takes now, to be turned down.
//!
//! Calls go through the door itself, without a socket; everything that the process allocates in between is counted, in
//! all threads, the journal's among them.

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
    storage::{MemoryDisk, Options},
};
use annals_wire::v1::{self, fetch_position::Start};
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tower::Service as _;

/// Allocations per MiB fetched, and per batch produced.
const MOST: u64 = 60;

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
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
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

/// A batch of so many records of 1,000 bytes.
fn produce(records: usize) -> v1::ProduceRequest {
    let value = Bytes::from(vec![b'x'; 1000]);
    let record = v1::Record { key: Some("key".into()), value: Some(value), ..Default::default() };
    v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        records: vec![record; records],
        ..Default::default()
    }
}

#[tokio::test]
async fn records_go_in_and_out_with_few_allocations() {
    let clock = Arc::new(SystemClock::new());
    let disk = Arc::new(MemoryDisk::new());
    let (broker, _) = Broker::open(disk, clock.clone(), Options::default(), Config::default()).unwrap();
    let running = broker.start().unwrap();
    let door = Door::new(Settings { address: "localhost:1".into(), inflight_bytes: 64 << 20 }).await;
    door.open(Arc::clone(&broker), clock).await;

    let path = "/annals.v1.ProducerService/ProduceStream";
    let stream = |count, records| {
        let message = framed(&v1::ProduceStreamRequest { append: Some(produce(records)) });
        request(path, std::iter::repeat_n(message, count))
    };
    // Everything that is made once is made by the first calls.
    call(&door, stream(50, 100)).await;
    let (_, produced) = call(&door, stream(200, 100)).await;
    let unary = |_| request("/annals.v1.ProducerService/Produce", [framed(&produce(100))]);
    let mut each = Vec::new();
    for request in (0..20).map(unary) {
        each.push(call(&door, request).await.1);
    }
    let fetch = |offset| {
        let position = v1::FetchPosition {
            topic: "t".into(),
            partition: Some(0),
            start: Some(Start::Offset(offset)),
            ..Default::default()
        };
        let asked = v1::FetchRequest { positions: vec![position], ..Default::default() };
        request("/annals.v1.ConsumerService/Fetch", [framed(&asked)])
    };
    call(&door, fetch(0)).await;
    let requests: Vec<_> = (0..10).map(|index| fetch(index * 1000)).collect();
    let (mut bytes, mut fetched) = (0, 0);
    for request in requests {
        let (length, allocations) = call(&door, request).await;
        bytes += length;
        fetched += allocations;
    }
    let per_mib = fetched as f64 * f64::from(1 << 20) / bytes as f64;
    let per_batch = produced as f64 / 200.0;
    each.sort_unstable();
    eprintln!(
        "{per_mib:.1} allocations per MiB fetched, {per_batch:.1} per batch of a stream, {} per unary call",
        each[10]
    );
    assert!(bytes > 9 << 20, "each answer is about a MiB: {bytes}");
    assert!(per_mib <= MOST as f64, "{fetched} allocations for {bytes} bytes");
    assert!(per_batch <= MOST as f64, "{produced} allocations for 200 batches");
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
}
