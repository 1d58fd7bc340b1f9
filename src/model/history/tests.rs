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
