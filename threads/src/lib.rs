//! The storage of Annals, compiled once more: its locks, atomics and threads are those of shuttle, which decides at each of
//! them which thread goes on. So a test sees thousands of orders of events, and any of them again by its seed.
//!
//! The sources are the production's own: `src/storage` and `src/clock.rs`, included by path. They name nothing but
//! `crate::sync`, which is another one here ([`sync`]), and `crate::metrics`, which counts nothing here; that is all the difference.
//!
//! | module | what |
//! |---|---|
//! | [`sync`] | stand-ins for `src/sync.rs` |
//! | [`watched`] | a disk that knows what a power cut now would leave |
//! | [`house`] | a storage at work over it: threads that append, read, wait, and what must hold |

#![allow(
    dead_code,
    unused_imports,
    unsafe_code,
    unreachable_pub,
    missing_docs,
    reason = "the sources are held to the rules where they live"
)]

#[path = "../../src/clock.rs"]
pub mod clock;
pub mod house;
/// What the storage counts is of the process; here nobody counts, and nothing is carried from one run into the next.
pub mod metrics {
    pub fn damaged_range() {}
    pub fn fenced_partition() {}
    pub fn map_fault() {}
    pub fn map_faults() -> u64 {
        0
    }
    pub fn scrubbed(_: u64) {}
    pub fn scrub_pass() {}
}
#[path = "../../src/storage/mod.rs"]
pub mod storage;
pub mod sync;
pub mod watched;

/// Mistakes in the order of events that the storage can be told to make.
const MISTAKES: [storage::mutant::Mutant; 6] = {
    use storage::mutant::Mutant;
    [
        Mutant::AckBeforeFrame,
        Mutant::AckBeforeFlush,
        Mutant::AckByLaterPosition,
        Mutant::PublishedEarly,
        Mutant::ExtentBeforeFlush,
        Mutant::SegmentNameUnflushed,
    ]
};

/// Runs `run` with each of the mistakes in turn: its name, and what came of it.
pub fn with_mistakes<T>(run: impl Fn() -> T) -> Vec<(String, T)> {
    let with = |mistake| (format!("{mistake:?}"), storage::mutant::plant(&[mistake], &run));
    MISTAKES.map(with).into()
}
