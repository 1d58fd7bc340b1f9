//! The model on itself: the same seed is the same history; many seeds, everything happens and nothing is lost.

use super::*;
use crate::model::{Plan, sweep};

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
    let seeds =
        [&END_FORGOTTEN[..], &LINK_TO_NOWHERE, &TAKEN_FOR_CLEAN, &SYNC_POINT_FORGOTTEN, &MORE_THAN_ITS_BATCH];
    for seed in seeds.concat() {
        if let Err(failure) = run(seed) {
            panic!("{failure}\n{}", failure.trace.join("\n"));
        }
    }
}

/// Flushes fail in every life, and in every fourth start.
#[test]
fn failing_flushes_lose_nothing_acked() {
    let seeds = std::env::var("ANNALS_MODEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(500);
    let plan = |seed| Plan { flush_fails_one_in: 1, ..Plan::of(seed) };
    let failures: Vec<_> = (1..=seeds).filter_map(|seed| run_with(seed, &plan(seed)).err()).collect();
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
