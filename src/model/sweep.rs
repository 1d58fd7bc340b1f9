//! Many seeds, on several threads. Which thread runs which seed makes no difference to any of them.

use std::cell::Cell;

use super::history::{Failure, Outcome, run};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// What a sweep came to.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// The sum over the histories that kept all promises.
    pub sum: Outcome,
    /// The failing seed found first; the sweep stopped there.
    pub failure: Option<Failure>,
}

thread_local! {
    static CURRENT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The seed this thread is at work on: who panics can say which it was.
pub fn current_seed() -> Option<u64> {
    CURRENT.get()
}

/// Runs `seeds` histories from seed `from` on. `done` is called after each, from any of the threads.
pub fn sweep(from: u64, seeds: u64, threads: usize, done: &(dyn Fn() + Sync)) -> Sweep {
    let next = AtomicU64::new(0);
    let sweep = Mutex::new(Sweep::default());
    let work = || {
        let mut sum = Outcome::default();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= seeds {
                break;
            }
            let seed = from.wrapping_add(at);
            CURRENT.set(Some(seed));
            match run(seed) {
                Ok(outcome) => sum += outcome,
                Err(failure) => {
                    next.store(seeds, Ordering::Relaxed);
                    sweep.lock().failure.get_or_insert(failure);
                    break;
                }
            }
            done();
        }
        CURRENT.set(None);
        sweep.lock().sum += sum;
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    sweep.into_inner()
}
