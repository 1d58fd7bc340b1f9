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

mod door;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use annals::grpc::Door;
use http::Request;

use door::{Frames, fetch, produce, stream, unary};

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

/// Calls one after the other; bytes of all answers, and how often was allocated meanwhile.
async fn calls(door: &Door, requests: Vec<Request<Frames>>) -> (usize, u64) {
    let before = COUNT.load(Ordering::SeqCst);
    let mut bytes = 0;
    for request in requests {
        bytes += door::call(door, request).await;
    }
    (bytes, COUNT.load(Ordering::SeqCst) - before)
}

fn hold(what: &str, allocations: u64, count: f64) {
    let each = allocations as f64 / count;
    eprintln!("{each:.1} allocations per {what}");
    assert!(each <= MOST, "{allocations} allocations, {each:.1} per {what}");
}

#[tokio::test]
async fn records_go_in_and_out_with_few_allocations() {
    let dir = tempfile::tempdir().unwrap();
    let (door, running) = door::open(dir.path()).await;

    // Everything that is made once is made by the first calls.
    let batch = produce(Some(0), 100, 1000);
    calls(&door, vec![stream(batch.clone(), 50)]).await;
    let (_, allocations) = calls(&door, vec![stream(batch.clone(), 200)]).await;
    hold("batch of a stream", allocations, 200.0);

    let (_, allocations) = calls(&door, (0..20).map(|_| unary(&batch)).collect()).await;
    hold("batch of a call", allocations, 20.0);

    // One batch for each of the 8 partitions.
    let spread = produce(None, 800, 1000);
    calls(&door, (0..5).map(|_| unary(&spread)).collect()).await;
    let (_, allocations) = calls(&door, (0..20).map(|_| unary(&spread)).collect()).await;
    hold("batch of a call that is sorted by key", allocations, 160.0);

    calls(&door, vec![fetch(0)]).await;
    let (bytes, allocations) = calls(&door, (0..10).map(|index| fetch(index * 1000)).collect()).await;
    assert!(bytes > 9 << 20, "each answer is about a MiB: {bytes}");
    hold("MiB fetched", allocations, bytes as f64 / f64::from(1 << 20));
    door::stop(running).await;
}
