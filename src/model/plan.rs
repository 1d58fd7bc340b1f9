//! What a history is made of: derived from the seed, or given, so that a workload can be bent towards one weakness.
//!
//! `Plan { flush_fails_one_in: 2, ..Plan::of(seed) }` with [`super::run_with`] is one history of that kind. The same seed
//! and the same plan are the same history.

use super::rng::Rng;
use crate::storage::{Level, Options};

/// A topic of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// Partitions it is made with.
    pub partitions: u32,
    /// When its appends count.
    pub level: Level,
    /// Size at which its segments roll, in bytes.
    pub segment_bytes: u64,
    /// Sync window of the interval level, in milliseconds.
    pub interval_ms: u32,
    /// Sync window of the interval level, in bytes.
    pub interval_bytes: u64,
}

impl TopicPlan {
    /// Small segments, a small window.
    pub fn new(level: Level, partitions: u32) -> Self {
        Self { partitions, level, segment_bytes: 4096, interval_ms: 100, interval_bytes: 3000 }
    }
}

/// How large records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// All the same, so that a stale batch can fit a hole exactly.
    Fixed(usize),
    /// Anything below.
    Below(usize),
}

/// How often each kind of step is taken, relative to the others; 0 = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Often {
    /// An append to one partition.
    pub append: usize,
    /// An atomic append to several partitions together with an entry of the state.
    pub group: usize,
    /// An entry of the state alone.
    pub state: usize,
    /// A commit cycle.
    pub commit: usize,
    /// What the commit thread does when idle: the frame that proves the last one.
    pub idle: usize,
    /// A snapshot.
    pub snapshot: usize,
    /// Everything that waits in the background: room ahead, seals, removals.
    pub upkeep: usize,
    /// Growth of the ring.
    pub grow: usize,
    /// Time passes; sync points of the interval level.
    pub interval: usize,
}

/// What a history is made of. Fields may be added: start from [`Plan::of`].
#[derive(Clone, Debug)]
pub struct Plan {
    /// The storage's own sizes.
    pub options: Options,
    /// Its topics.
    pub topics: Vec<TopicPlan>,
    /// Lives of the broker, each ended by a cut or a kill.
    pub lives: usize,
    /// Most steps of a life.
    pub steps: usize,
    /// Sizes of records.
    pub values: Values,
    /// What the steps are.
    pub often: Often,
    /// The power goes after at most so many disk calls of a life.
    pub calls: u64,
    /// One life in so many has a flush that fails; 0 = none.
    pub flush_fails_one_in: usize,
    /// One start in so many is cut; 0 = none.
    pub start_cut_one_in: usize,
    /// One life in so many ends in order, with a last snapshot; 0 = none.
    pub orderly_one_in: usize,
    /// Of the lives that the power does not end by itself, so many in a hundred end by `kill -9`, which keeps the page cache.
    pub kill_percent: usize,
}

impl Plan {
    /// The plan that a seed stands for.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5054_414E);
        let options = Options {
            inline_bytes: rng.pick(&[0, 600, 5000]),
            ring_bytes: 320 * 1024,
            ring_file_bytes: 40 * 1024,
            pending_bytes: 20 * 1024,
            snapshot_bytes: 64 * 1024,
            keep_free_bytes: 0,
            flush_helpers: 0,
            open_segments: 2,
            ..Options::default()
        };
        let often = Often {
            append: 12,
            group: 2,
            state: 2,
            commit: 6,
            idle: 1,
            snapshot: 2,
            upkeep: 2,
            grow: 1,
            interval: 2,
        };
        Self {
            options,
            topics: vec![
                TopicPlan::new(Level::Fsync, 2),
                TopicPlan::new(Level::Interval, 1),
                TopicPlan::new(Level::Os, 1),
            ],
            lives: 5,
            steps: 160,
            values: if rng.one_in(2) { Values::Fixed(128) } else { Values::Below(1400) },
            often,
            calls: 600,
            flush_fails_one_in: 10,
            start_cut_one_in: 3,
            orderly_one_in: 6,
            kill_percent: 50,
        }
    }
}
