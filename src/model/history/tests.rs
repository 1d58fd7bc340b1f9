//! The model on itself: the same seed is the same history; many seeds, everything happens and nothing is lost.

use super::*;
use crate::{
    model::{Plan, TopicPlan, sweep},
    storage::Level,
};

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..40 {
        let (once, again) = (run(seed).unwrap(), run(seed).unwrap());
        assert_eq!(once, again);
        let mut lines = 0;
        let traced = run_traced(seed, &Plan::of(seed), &mut |_| lines += 1).unwrap();
        assert_eq!(once.trace_hash, traced.trace_hash, "telling changes nothing");
        assert!(lines > 10);
    }
    assert_ne!(run(1).unwrap().trace_hash, run(2).unwrap().trace_hash);
}

/// Histories that broke a promise once. A change of what recovery asks the disk makes others of them: each fault has a test
/// of its own besides, next to the code.
#[test]
fn what_broke_a_promise_once_does_not_again() {
    // R14: a start closed a partition for a failed flush, and the next one wiped what the journal knew to be there.
    const END_FORGOTTEN: [u64; 6] = [15402, 42818, 55002, 59678, 62988, 77728];
    // R14: a link was durable before the header of the file it leads to, whose first flush had failed.
    const LINK_TO_NOWHERE: [u64; 1] = [102_490];
    // R1: a walk that could not be flushed closed a partition; the start was cut, and the next took the run for a clean one.
    const TAKEN_FOR_CLEAN: [u64; 1] = [91997];
    // R1: a sync point that found no room in the journal was not asked for again.
    const SYNC_POINT_FORGOTTEN: [u64; 1] = [14832];
    // R10: a closed segment without a footer ended at its first damaged header.
    const MORE_THAN_ITS_BATCH: [u64; 12] =
        [5998, 6512, 10142, 13091, 15921, 17618, 18366, 18425, 19162, 21998, 22330, 24194];
    // R14: a start with no room for so much as an empty frame took the ring for one that has room for nothing.
    const NO_ROOM_FOR_NOTHING: [u64; 1] = [106_458];
    // R11, the model's own: the bound of a start counted the partitions that there were at the start before.
    const PARTITIONS_SINCE: [u64; 1] = [155_972];
    let seeds = [
        &END_FORGOTTEN[..],
        &LINK_TO_NOWHERE,
        &TAKEN_FOR_CLEAN,
        &SYNC_POINT_FORGOTTEN,
        &MORE_THAN_ITS_BATCH,
        &NO_ROOM_FOR_NOTHING,
        &PARTITIONS_SINCE,
    ];
    for seed in seeds.concat() {
        if let Err(failure) = run(seed) {
            panic!("{failure}\n{}", failure.trace.join("\n"));
        }
    }
}

fn flushes_fail(seed: u64) -> Plan {
    Plan { flush_fails_one_in: 1, ..Plan::of(seed) }
}

/// Topics change their level, too.
fn levels_change(seed: u64) -> Plan {
    let mut plan = Plan { lives: 8, calls: 400, ..flushes_fail(seed) };
    plan.topics = vec![TopicPlan::new(Level::Fsync, 2)];
    plan.often.relevel = 1;
    plan
}

/// Short lives, many of which end in order, and rot in the snapshots.
fn snapshots_rot(seed: u64) -> Plan {
    let (flip_one_in, flip_in, orderly_one_in) = (1, "snapshot-", 2);
    Plan { flip_one_in, flip_in, orderly_one_in, steps: 30, lives: 8, ..Plan::of(seed) }
}

/// Topics come and go with groups under way.
fn topics_go(seed: u64) -> Plan {
    let mut plan = Plan { meanwhile_one_in: 0, ..flushes_fail(seed) };
    (plan.often.delete, plan.often.create, plan.often.group, plan.often.relevel) = (3, 3, 5, 0);
    plan
}

/// Seeds, and the plan that they are seeds of.
type Kind = (&'static [u64], fn(u64) -> Plan);

/// The same of other kinds of histories.
#[test]
fn what_broke_a_promise_under_other_plans_does_not_again() {
    // R1: a raise to `fsync` was given up with a fenced partition, and the next change of the topic made it good.
    const RAISE_BELIEVED: [u64; 8] = [32, 39, 62, 97, 156, 177, 203, 325];
    // R1: a change was given up, and the partitions that it made took records.
    const MADE_IN_VAIN: [u64; 2] = [53, 915];
    // R1, R9: appends waited for the entry of a lowered level alone, and were acked behind what was given up.
    const LOWERED_ALONE: [u64; 6] = [2171, 3185, 3343, 4963, 5436, 9478];
    // R10: a start's snapshot took the place of the one it was made from.
    const START_REPLACED: [u64; 2] = [485, 591];
    // R1: what had been acked at `os` got no sync point when its topic was raised to `interval`.
    const NO_SYNC_POINT: [u64; 1] = [4815];
    // R5: no fault of the storage's. The oracle missed that a group had been given up, because its topic was deleted.
    const GIVEN_UP_UNSEEN: [u64; 3] = [6258, 6320, 7748];
    let kinds: [Kind; 6] = [
        (&RAISE_BELIEVED, levels_change),
        (&MADE_IN_VAIN, levels_change),
        (&LOWERED_ALONE, levels_change),
        (&START_REPLACED, snapshots_rot),
        (&NO_SYNC_POINT, snapshots_rot),
        (&GIVEN_UP_UNSEEN, topics_go),
    ];
    for (seeds, plan) in kinds {
        for seed in seeds {
            if let Err(failure) = run_with(*seed, &plan(*seed)) {
                panic!("{failure}\n{}", failure.trace.join("\n"));
            }
        }
    }
}

/// Flushes fail in every life, and in every fourth start.
#[test]
fn failing_flushes_lose_nothing_acked() {
    let seeds = std::env::var("ANNALS_MODEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(500);
    let both = |seed| [flushes_fail(seed), levels_change(seed)].map(|plan| run_with(seed, &plan).err());
    let failures: Vec<_> = (1..=seeds).flat_map(both).flatten().collect();
    let told: Vec<String> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{told:#?}\n{}", failures[0].trace.join("\n"));
}

#[test]
fn nothing_acked_is_lost() {
    let seeds = std::env::var("ANNALS_MODEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000);
    let sweep = sweep(1, seeds, 2, &|| {});
    if let Some(failure) = sweep.failure {
        panic!("{failure}\n{}", failure.trace.join("\n"));
    }
    let sum = sweep.sum;
    // The model must have done something, and everything.
    assert_eq!(sum.histories, seeds);
    for (name, count) in sum.rows() {
        assert!(count > 0, "{name} never happened in {seeds} histories: {sum:?}");
    }
    assert!(sum.cuts > seeds && sum.cuts_in_recovery > seeds / 4 && sum.acked > 5 * seeds, "{sum:?}");
}
