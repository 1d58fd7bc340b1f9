//! The storage with one mistake at a time: the oracle must notice each, and nothing where there is none.
//!
//! A mistake stands where the storage asks `planted`; a row here says which one is made, in which histories it shows and
//! which of the oracle's rules it breaks first. One that lives is a hole in the model, and a failing test.

use super::{Plan, TopicPlan, Values, history::run_with};
use crate::{
    storage::{
        Level,
        mutant::{
            Mutant::{self, *},
            plant,
        },
    },
    sync::{AtomicUsize, Mutex, Ordering},
};

/// Histories in which a mistake must show.
const SEEDS: u64 = 500;
/// Histories of the same kind that the sound code must pass.
const SOUND_SEEDS: u64 = 25;

struct Row {
    mistake: Mutant,
    /// Made as well, also where the code is to be sound: what a second line is worth shows when the first one is gone.
    beside: &'static [Mutant],
    bias: fn(&mut Plan),
    /// Rules of the oracle, one of which is broken first.
    breaks: &'static [&'static str],
}

impl Row {
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::of(seed);
        (self.bias)(&mut plan);
        plan
    }
}

const fn row(mistake: Mutant, breaks: &'static [&'static str], bias: fn(&mut Plan)) -> Row {
    Row { mistake, beside: &[], bias, breaks }
}

fn any(_: &mut Plan) {}

fn flushes_fail(plan: &mut Plan) {
    plan.flush_fails_one_in = 1;
}

/// One topic below `fsync` and little that flushes.
fn weak(plan: &mut Plan) {
    plan.topics = vec![TopicPlan::new(Level::Os, 1)];
    plan.wish_percent = 0;
    plan.flip_one_in = 0;
    plan.often.snapshot = 0;
    plan.often.group = 0;
    plan.often.upkeep = 0;
    plan.often.relevel = 0;
    plan.lives = 8;
    plan.steps = 30;
}

/// Topics change their level all the time.
fn levels(plan: &mut Plan) {
    plan.topics = vec![TopicPlan::new(Level::Fsync, 1), TopicPlan::new(Level::Os, 1)];
    plan.values = Values::Fixed(128);
    plan.often.relevel = 4;
    plan.steps = 20;
    plan.lives = 8;
}

fn busy_flushes(plan: &mut Plan) {
    plan.meanwhile_one_in = 1;
}

fn flips(plan: &mut Plan, below: &'static str) {
    plan.flip_one_in = 1;
    plan.flip_in = below;
    plan.steps = 30;
}

fn snapshots_rot(plan: &mut Plan) {
    flips(plan, "snapshot-");
}

fn segments_rot(plan: &mut Plan) {
    flips(plan, "topics/");
}

fn frames_in_records(plan: &mut Plan) {
    plan.values = Values::LikeFrames(9000);
    plan.options.inline_bytes = 1 << 20;
    plan.options.ring_file_bytes = 80 * 1024;
    plan.options.pending_bytes = 40 * 1024;
    plan.options.ring_bytes = 640 * 1024;
    plan.topics = vec![TopicPlan { segment_bytes: 64 * 1024, ..TopicPlan::new(Level::Fsync, 2) }];
    plan.calls = 100;
    plan.lives = 8;
}

fn one_topic(level: Level, partitions: u32, segment_bytes: u64) -> Vec<TopicPlan> {
    vec![TopicPlan { segment_bytes, ..TopicPlan::new(level, partitions) }]
}

/// A large index, and bits that flip in one of its files.
fn index_rots(plan: &mut Plan, file: &'static str) {
    flips(plan, file);
    plan.topics = one_topic(Level::Fsync, 1, 24 * 1024);
    plan.values = Values::Fixed(1400);
    plan.options.inline_bytes = 1 << 20;
    plan.often.append = 20;
    plan.often.upkeep = 4;
    plan.often.relevel = 0;
    plan.steps = 240;
    plan.calls = 2000;
    plan.lives = 8;
}

/// Topics change their level all the time, and flushes fail.
fn levels_and_failures(plan: &mut Plan) {
    flushes_fail(plan);
    plan.topics = one_topic(Level::Fsync, 1, 4096);
    plan.values = Values::Fixed(1500);
    plan.often.append = 16;
    plan.often.commit = 2;
    plan.often.create = 4;
    plan.often.relevel = 8;
    plan.often.snapshot = 4;
    plan.steps = 20;
    plan.calls = 1000;
    plan.lives = 16;
}

/// Something acked is lost, doubled, half there or damaged: which of these shows first is chance.
const LOSS: &[&str] = &["R1", "R2", "R5", "R8", "R9", "R10", "R13", "R14"];

const ROWS: &[Row] = &[
    row(AckBeforeFrame, &["R5", "R1"], any),
    row(AckBeforeFlush, &["R5", "R1", "R14"], any),
    row(AckByLaterPosition, &["R1", "R5"], busy_flushes),
    row(StateNotAwaited, &["R5"], any),
    row(PublishedEarly, &["R1", "R3"], any),
    row(RollNotAwaited, &["R1"], |plan| {
        weak(plan);
        plan.kill_percent = 100;
    }),
    row(LoweringNotAwaited, &["R1"], |plan| {
        levels(plan);
        plan.kill_percent = 100;
    }),
    row(LoweredAlone, &["R1", "R9"], levels_and_failures),
    row(GroupOvertaken, &["R1", "R13"], any),
    row(RingFlushesLastFile, LOSS, any),
    row(RingFlushRetried, LOSS, flushes_fail),
    row(DurableClaimedEarly, LOSS, any),
    row(RingNameUnflushed, LOSS, any),
    row(RingReusedEarly, &["R10"], |plan| {
        flips(plan, "snapshot-");
        plan.topics = one_topic(Level::Fsync, 1, 64 * 1024);
        plan.values = Values::Fixed(5000);
        plan.options.inline_bytes = 1 << 20;
        plan.options.ring_file_bytes = 40 * 1024;
        plan.options.ring_bytes = 160 * 1024;
        plan.often.append = 40;
        plan.often.commit = 10;
        plan.often.snapshot = 1;
        plan.often.relevel = 0;
        plan.steps = 240;
        plan.calls = 5000;
        plan.lives = 10;
    }),
    row(FrameCrcUnchecked, LOSS, any),
    Row {
        mistake: FrameChainUnchecked,
        beside: &[FrameEpochUnchecked],
        breaks: LOSS,
        bias: |plan| {
            plan.calls = 60;
            plan.lives = 12;
            plan.often.append = 12;
            plan.often.commit = 2;
            plan.values = Values::Fixed(1000);
        },
    },
    row(FrameMagicKnown, &["R14"], frames_in_records),
    row(DamageTakenForTail, &["R10"], |plan| flips(plan, "journal/")),
    row(FrameSplitsRequest, LOSS, any),
    row(EntriesApart, LOSS, |plan| {
        flushes_fail(plan);
        plan.often.group = 12;
        plan.lives = 8;
    }),
    row(ExtentBeforeFlush, LOSS, any),
    row(PastUnflushed, LOSS, |plan| {
        plan.topics = one_topic(Level::Os, 2, 4096);
        plan.wish_percent = 0;
        plan.often.group = 6;
        plan.often.snapshot = 0;
        plan.often.upkeep = 0;
        plan.often.relevel = 0;
        plan.kill_percent = 0;
        plan.lives = 8;
    }),
    row(SyncPointUnflushed, LOSS, any),
    row(ExtentsToPresentEnd, LOSS, any),
    row(SegmentFlushRetried, LOSS, flushes_fail),
    row(SyncedTakenAfter, LOSS, |plan| {
        busy_flushes(plan);
        plan.lives = 8;
    }),
    row(SegmentHeaderUnflushed, LOSS, any),
    row(SegmentNameUnflushed, LOSS, any),
    row(TopicNameUnflushed, LOSS, any),
    row(BuriedEarly, LOSS, |plan| plan.often.delete = 2),
    row(RaisedWithoutSync, LOSS, levels),
    row(RaiseBelieved, LOSS, |plan| {
        levels_and_failures(plan);
        plan.topics = one_topic(Level::Fsync, 2, 4096);
        plan.often.snapshot = 1;
    }),
    row(GroupUnmarked, LOSS, any),
    row(FailedItemHalfEntered, LOSS, flushes_fail),
    row(FenceNotSpread, LOSS, flushes_fail),
    row(MadeInVain, LOSS, |plan| {
        levels_and_failures(plan);
        plan.topics = one_topic(Level::Fsync, 2, 4096);
        plan.often.snapshot = 1;
    }),
    row(FenceForgotten, LOSS, |plan| {
        flushes_fail(plan);
        plan.topics = vec![TopicPlan::new(Level::Interval, 2)];
        plan.often.interval = 6;
        plan.lives = 8;
    }),
    row(SnapshotAfterFailedFlush, LOSS, flushes_fail),
    row(SnapshotAheadOfSegments, LOSS, any),
    row(SnapshotCapturedAfterFlush, LOSS, |plan| {
        busy_flushes(plan);
        plan.topics = vec![TopicPlan::new(Level::Os, 1)];
        plan.often.snapshot = 8;
        plan.lives = 8;
        plan.kill_percent = 0;
    }),
    row(SnapshotAheadOfJournal, LOSS, any),
    row(SnapshotListsUnnamed, LOSS, |plan| {
        weak(plan);
        plan.often.snapshot = 8;
        plan.values = Values::Fixed(700);
    }),
    row(SnapshotNumberTooHigh, LOSS, |plan| plan.often.snapshot = 5),
    row(SnapshotNameUnflushed, &["R1", "R5", "R10", "R11", "R14"], any),
    row(AnswersForgotten, &["R5", "R8"], |plan| plan.often.group = 6),
    row(SequencesNotCounted, &["R6"], any),
    row(DuplicateNotAwaited, LOSS, |plan| {
        plan.again_one_in = 1;
        plan.often.commit = 1;
    }),
    row(SequencesNotInSnapshot, &["R6"], |plan| plan.often.snapshot = 4),
    // What a start finds beyond the partition's end there cannot be.
    row(SequencesAheadOfSnapshot, &["R6", "R14"], |plan| {
        weak(plan);
        plan.often.snapshot = 8;
        plan.values = Values::Fixed(700);
    }),
    row(ExtentsNotCounted, &["R6"], any),
    row(WalkNotCounted, &["R6"], any),
    row(RootBeforeJournal, LOSS, any),
    row(EpochNotBumped, &["R4"], any),
    row(NoSnapshotAtStart, &["R11"], any),
    row(StartReplacesSnapshot, &["R10"], |plan| {
        snapshots_rot(plan);
        plan.topics = one_topic(Level::Os, 1, 4096);
        plan.wish_percent = 0;
        plan.often.group = 4;
        plan.orderly_one_in = 2;
        plan.steps = 20;
        plan.lives = 12;
    }),
    row(FramesNotRewritten, &["R10", "R14"], |plan| {
        snapshots_rot(plan);
        flushes_fail(plan);
        plan.kill_percent = 80;
        plan.lives = 8;
    }),
    row(StartedWithoutDecisions, &["R10"], |plan| {
        weak(plan);
        snapshots_rot(plan);
    }),
    row(InlineCompared, LOSS, |plan| {
        flushes_fail(plan);
        plan.topics = one_topic(Level::Fsync, 1, 64 * 1024);
        plan.values = Values::Fixed(5000);
        plan.options.inline_bytes = 1 << 20;
        plan.often.append = 12;
        plan.often.snapshot = 6;
        plan.often.relevel = 0;
        plan.kill_percent = 60;
        plan.steps = 20;
        plan.calls = 1000;
        plan.lives = 16;
    }),
    row(RebuildUnflushed, LOSS, |plan| {
        plan.twice_one_in = 2;
        plan.flip_one_in = 1;
        plan.lives = 8;
        plan.steps = 30;
    }),
    row(ExtentsUnverified, &["R10"], segments_rot),
    row(NoWipe, LOSS, levels),
    row(WipeUnflushed, LOSS, levels),
    row(LaterSegmentsKept, LOSS, |plan| {
        weak(plan);
        plan.values = Values::Fixed(700);
        plan.kill_percent = 0;
    }),
    row(WalkTakesGroups, LOSS, any),
    row(WalkTakesTorn, LOSS, any),
    Row {
        mistake: WalkEpochFalls,
        beside: &[NoWipe],
        breaks: LOSS,
        bias: |plan| {
            weak(plan);
            plan.values = Values::Fixed(300);
            plan.calls = 40;
            plan.lives = 16;
            plan.kill_percent = 0;
        },
    },
    Row {
        mistake: WalkEpochUnknown,
        beside: &[NoWipe],
        breaks: LOSS,
        bias: |plan| {
            weak(plan);
            plan.values = Values::LikeBatches(300);
            plan.calls = 60;
        },
    },
    row(WalkNotRewritten, LOSS, |plan| {
        flushes_fail(plan);
        plan.topics = one_topic(Level::Os, 1, 64 * 1024);
        plan.values = Values::Fixed(3000);
        plan.wish_percent = 20;
        plan.often.append = 12;
        plan.often.group = 0;
        plan.often.snapshot = 4;
        plan.often.relevel = 0;
        plan.kill_percent = 60;
        plan.steps = 30;
        plan.lives = 12;
    }),
    row(WalkUnflushed, LOSS, |plan| {
        weak(plan);
        plan.values = Values::Fixed(700);
        plan.often.append = 20;
        plan.kill_percent = 60;
        plan.steps = 60;
    }),
    row(IndexCrcUnchecked, &["R10"], |plan| index_rots(plan, ".time")),
    Row {
        mistake: IndexTrusted,
        beside: &[IndexCrcUnchecked],
        breaks: &["R10"],
        bias: |plan| index_rots(plan, ".index"),
    },
    row(HeaderCrcUnchecked, &["R10", "R7"], segments_rot),
    row(ServedUnverified, &["R10"], segments_rot),
    row(ScrubIgnored, &["R10"], segments_rot),
];

/// Judges every row on several threads; complains about those that `judge` finds wrong.
fn each(judge: impl Fn(&Row) -> Result<String, String> + Sync) {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(row) = ROWS.get(next.fetch_add(1, Ordering::Relaxed)) {
            match judge(row) {
                Ok(line) => println!("{:?} {line}", row.mistake),
                Err(complaint) => wrong.lock().push(format!("{:?} {complaint}", row.mistake)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_mistake_is_noticed() {
    each(|row| {
        let made: Vec<Mutant> = row.beside.iter().copied().chain([row.mistake]).collect();
        let failure = plant(&made, || (1..=SEEDS).find_map(|seed| run_with(seed, &row.plan(seed)).err()));
        let Some(failure) = failure else { return Err(format!("lives, {SEEDS} seeds long")) };
        // It is the mistake that was noticed: the same history passes without it.
        if let Err(without) = plant(row.beside, || run_with(failure.seed, &row.plan(failure.seed))) {
            return Err(format!("is not what is noticed: not made, {without}"));
        }
        if row.breaks.iter().any(|rule| failure.what.starts_with(&format!("{rule}:"))) {
            Ok(format!("is noticed at {failure}"))
        } else {
            Err(format!("breaks another rule, at {failure}"))
        }
    });
}

#[test]
fn nothing_is_noticed_where_there_is_no_mistake() {
    each(|row| {
        let failure =
            plant(row.beside, || (1..=SOUND_SEEDS).find_map(|seed| run_with(seed, &row.plan(seed)).err()));
        failure.map_or(Ok("is not made, and nothing is noticed".into()), |failure| {
            Err(format!("was not made, and yet at {failure}: {}", failure.trace.join("\n")))
        })
    });
}
