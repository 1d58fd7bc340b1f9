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
    /// All the same, and one in each batch.
    One(usize),
    /// Of so many bytes, full of what would be frames far ahead in the chain, if a directory's frames began with the number 1.
    LikeFrames(usize),
    /// All the same, but for one in three that holds a batch where the one behind another's would begin.
    LikeBatches(usize),
}

/// How often each kind of step is taken, relative to the others; 0 = never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Often {
    /// An append to one partition.
    pub append: usize,
    /// An append to several partitions: mostly atomic and together with committed offsets, sometimes neither.
    pub group: usize,
    /// Committed offsets.
    pub state: usize,
    /// A topic made, or given one more partition.
    pub create: usize,
    /// A topic deleted.
    pub delete: usize,
    /// A read somewhere, or a look-up by time.
    pub read: usize,
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
    /// A topic gets another level.
    pub relevel: usize,
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
    /// The power goes after at most so many disk calls of a life, most reads not counted.
    pub calls: u64,
    /// One life in so many has a flush that fails; 0 = none. Starts have one as well, a quarter as often.
    pub flush_fails_one_in: usize,
    /// One start in so many is cut; 0 = none.
    pub start_cut_one_in: usize,
    /// One life in so many ends in order, with a last snapshot; 0 = none.
    pub orderly_one_in: usize,
    /// So many lives in a hundred end by `kill -9`, which keeps the page cache; the others by a power cut.
    pub kill_percent: usize,
    /// One start in so many is made twice; 0 = none.
    pub twice_one_in: usize,
    /// One life in so many has a bit flipped in a copy of its disk, at its beginning and once in its course; 0 = none.
    pub flip_one_in: usize,
    /// Files in which the bits flip, by a part of their paths; empty = any.
    pub flip_in: &'static str,
    /// So many appends in a hundred to one partition wish for `fsync`, whatever the topic's level.
    pub wish_percent: usize,
    /// During one commit cycle, snapshot or round of upkeep in so many, while it flushes, somebody appends; 0 = none.
    pub meanwhile_one_in: usize,
    /// Of the appends to one partition two in three carry a sequence, and in so many one of an earlier batch is sent again;
    /// 0 = none.
    pub again_one_in: u64,
}

impl Plan {
    /// The plan that a seed stands for.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5054_414E);
        let ring_file_bytes = rng.pick(&[40 * 1024, 40 * 1024, 64 * 1024]);
        let options = Options {
            inline_bytes: rng.pick(&[0, 600, 5000]),
            ring_bytes: rng.pick(&[4, 6, 8]) * ring_file_bytes,
            ring_file_bytes,
            pending_bytes: rng.pick(&[20 * 1024, 60 * 1024]),
            snapshot_bytes: 64 * 1024,
            keep_free_bytes: 0,
            flush_helpers: 0,
            open_segments: 2,
            ..Options::default()
        };
        Self {
            options,
            topics: topics(&mut rng),
            lives: 2 + rng.below(4),
            steps: rng.pick(&[40, 120, 240]),
            values: if rng.one_in(2) {
                Values::Fixed(rng.pick(&[128, 400]))
            } else {
                Values::Below(rng.pick(&[1400, 1400, 5000]))
            },
            often: often(&mut rng),
            calls: rng.pick(&[60, 200, 600]),
            flush_fails_one_in: 10,
            start_cut_one_in: 3,
            orderly_one_in: 6,
            kill_percent: rng.pick(&[20, 50]),
            twice_one_in: 8,
            flip_one_in: 5,
            flip_in: "",
            wish_percent: rng.pick(&[33, 33, 5]),
            meanwhile_one_in: 8,
            again_one_in: 4,
        }
    }
}

/// Mostly one topic of each level; now and then only one level, or many partitions.
fn topics(rng: &mut Rng) -> Vec<TopicPlan> {
    let segment_bytes = rng.pick(&[4096, 4096, 8192, 24 * 1024, 64 * 1024]);
    let of = |level, partitions| TopicPlan { segment_bytes, ..TopicPlan::new(level, partitions) };
    match rng.below(8) {
        0 => vec![of(Level::Fsync, 1)],
        1 => vec![of(Level::Os, 1)],
        2 => vec![of(Level::Interval, 2)],
        3 => vec![of(Level::Fsync, 12), of(Level::Os, 12)],
        _ => vec![of(Level::Fsync, 2), of(Level::Interval, 1), of(Level::Os, 1 + u32::from(rng.one_in(2)))],
    }
}

fn often(rng: &mut Rng) -> Often {
    Often {
        append: rng.pick(&[8, 12, 20]),
        group: rng.pick(&[1, 3]),
        state: 2,
        create: 1,
        delete: rng.below(2),
        read: 2,
        commit: rng.pick(&[3, 6]),
        idle: 1,
        snapshot: rng.pick(&[1, 2]),
        upkeep: 2,
        grow: 1,
        interval: 2,
        relevel: rng.below(2),
    }
}
