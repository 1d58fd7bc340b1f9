//! The model's part: power cuts on a disk that exists in memory only, with the same storage code.

use super::{report::Cuts, world::World};
use crate::model;

/// Failing seeds that are told.
const MOST_FAILURES: usize = 5;

/// Runs so many histories from a seed on, or until Ctrl-C.
pub(super) fn run(world: &World, first: u64, seeds: u64) -> Cuts {
    let mut cuts = Cuts::default();
    for seed in first..first.saturating_add(seeds) {
        if world.stopped() {
            break;
        }
        cuts.seeds += 1;
        // Its disk fails all the time: what the storage says about that is nobody's concern here.
        let silent = tracing::subscriber::NoSubscriber::new();
        match tracing::subscriber::with_default(silent, || model::run(seed)) {
            Ok(outcome) => {
                let sum = &mut cuts.outcome;
                sum.cuts += outcome.cuts;
                sum.cuts_in_recovery += outcome.cuts_in_recovery;
                sum.kills += outcome.kills;
                sum.recoveries += outcome.recoveries;
                sum.acked += outcome.acked;
            }
            Err(failure) if cuts.failures.len() < MOST_FAILURES => {
                cuts.failures.push((failure.seed, failure.what));
            }
            Err(_) => {}
        }
    }
    cuts
}
