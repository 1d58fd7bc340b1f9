//! What our own roads cost, without a socket: batches in through the door, MiBs out through it, one after the other.
//!
//! `cargo bench --bench roads` says how long each takes; with `TMPDIR=/dev/shm` without a disk. `roads ROAD COUNT` does one road so often and nothing else, for
//! a profiler; run under callgrind with two counts, the difference is what the instructions of `COUNT` are:
//! `valgrind --tool=callgrind target/release/deps/roads-* stream-1k 500`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench: what does not hold must stop it"
)]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../tests/door/mod.rs"]
mod door;

use std::time::Instant;

use annals::grpc::Door;
use annals_wire::v1::Durability;

/// Name, records of a batch, bytes of a record's value.
const STREAMS: [(&str, usize, usize); 3] =
    [("stream-1k", 100, 1000), ("stream-100", 1000, 100), ("stream-one", 1, 100)];
const ROADS: [&str; 6] = ["stream-1k", "stream-100", "stream-one", "unary", "sorted", "fetch"];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [road, count] if ROADS.contains(&road.as_str()) => measure(road, count.parse().unwrap()).await,
        arguments => {
            let count = if arguments.iter().any(|argument| argument == "--test") { 5 } else { 2000 };
            for road in ROADS {
                measure(road, count).await;
            }
        }
    }
}

/// Walks a road `count` times, on a directory of its own.
async fn measure(road: &str, count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (door, running) = door::open(dir.path()).await;
    // A topic of 8 partitions; and what is fetched.
    walk(&door, "stream-1k", 20).await;
    let began = Instant::now();
    walk(&door, road, count).await;
    let each = began.elapsed().as_secs_f64() / count as f64;
    println!("{road:>12} {:>9.1} µs each", each * 1e6);
    door::stop(running).await;
}

async fn walk(door: &Door, road: &str, count: usize) {
    let weak = |mut produce: annals_wire::v1::ProduceRequest| {
        produce.durability = Durability::Os.into();
        produce
    };
    if let Some((_, records, size)) = STREAMS.iter().find(|(name, ..)| *name == road) {
        door::call(door, door::stream(weak(door::produce(Some(0), *records, *size)), count)).await;
        return;
    }
    let one = door::produce(Some(0), 1, 100);
    let sorted = weak(door::produce(None, 800, 100));
    for _ in 0..count {
        let request = match road {
            "unary" => door::unary(&one),
            "sorted" => door::unary(&sorted),
            _ => door::fetch(0),
        };
        door::call(door, request).await;
    }
}
