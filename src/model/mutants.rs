//! The storage with one mistake at a time: the oracle must notice each, and nothing where there is none.
//!
//! A mistake stands where the storage asks `planted`; a row here says which one is made, in which histories it shows and
//! what the oracle says of it. One that lives is a hole in the model, and a failing test.

use super::{Plan, history::run_with};
use crate::{
    storage::mutant::{
        Mutant::{self, *},
        plant,
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
    /// Some part of what the oracle says first.
    says: &'static [&'static str],
}

impl Row {
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::of(seed);
        (self.bias)(&mut plan);
        plan
    }
}

const fn row(mistake: Mutant, says: &'static [&'static str], bias: fn(&mut Plan)) -> Row {
    Row { mistake, beside: &[], bias, says }
}

fn any(_: &mut Plan) {}

fn flushes_fail(plan: &mut Plan) {
    plan.flush_fails_one_in = 1;
}

const LOST: &str = "R5";
const SHORT: &str = "R1";
const DAMAGE: &str = "damage";
const REFUSED: &str = "refused";
const TORN: &str = "R13";
const OTHER_BYTES: &str = "other bytes";
const UNSTABLE: &str = "R8";
const FENCED: &str = "R9";

const ROWS: &[Row] = &[
    row(AckBeforeFrame, &[LOST, SHORT], any),
    row(AckBeforeFlush, &[LOST, SHORT, REFUSED], any),
    row(StateNotAwaited, &[LOST], any),
    row(GroupOvertaken, &[SHORT], any),
    row(RingFlushesLastFile, &[REFUSED, LOST], any),
    row(RingFlushRetried, &[LOST, SHORT, REFUSED], flushes_fail),
    row(DurableClaimedEarly, &[REFUSED], any),
    row(RingNameUnflushed, &[REFUSED], any),
    row(FrameSplitsRequest, &[TORN, LOST], any),
    row(ExtentBeforeFlush, &[DAMAGE], any),
    row(PastUnflushed, &[DAMAGE], any),
    row(SyncPointUnflushed, &[DAMAGE], any),
    row(ExtentsToPresentEnd, &[REFUSED, TORN], any),
    row(SegmentFlushRetried, &[DAMAGE, UNSTABLE], flushes_fail),
    row(SegmentHeaderUnflushed, &[DAMAGE], any),
    row(SegmentNameUnflushed, &[DAMAGE], any),
    row(TopicNameUnflushed, &[DAMAGE], any),
    row(GroupUnmarked, &[TORN, OTHER_BYTES], any),
    row(FailedItemHalfEntered, &[SHORT, TORN, LOST], flushes_fail),
    row(FenceNotSpread, &[TORN, SHORT, REFUSED], flushes_fail),
    row(FenceForgotten, &[DAMAGE, FENCED, SHORT], flushes_fail),
    row(SnapshotAfterFailedFlush, &[DAMAGE, TORN], flushes_fail),
    row(SnapshotAheadOfSegments, &[DAMAGE], any),
    row(SnapshotAheadOfJournal, &[TORN], any),
    row(SnapshotNameUnflushed, &[REFUSED], any),
    row(RootBeforeJournal, &[REFUSED], any),
    row(EpochNotBumped, &["epoch"], any),
    row(RebuildUnflushed, &[DAMAGE, UNSTABLE], |plan| {
        plan.twice_one_in = 2;
        plan.lives = 8;
        plan.steps = 30;
    }),
    row(WalkTakesGroups, &[TORN], any),
    row(WalkTakesTorn, &[DAMAGE], any),
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
        if row.says.iter().any(|part| failure.what.contains(part)) {
            Ok(format!("is noticed at {failure}"))
        } else {
            Err(format!("is noticed by something else, at {failure}"))
        }
    });
}

#[test]
fn nothing_is_noticed_where_there_is_no_mistake() {
    each(|row| {
        let failure =
            plant(row.beside, || (1..=SOUND_SEEDS).find_map(|seed| run_with(seed, &row.plan(seed)).err()));
        failure.map_or(Ok("not made: nothing is noticed".into()), |failure| {
            Err(format!("was not made, and yet at {failure}: {}", failure.trace.join("\n")))
        })
    });
}
