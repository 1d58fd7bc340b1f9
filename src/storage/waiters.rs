//! Who waits for which entry to become durable.
//!
//! Every change has a number. Whoever answers with something an entry decided waits for that entry's number: acks, refusals,
//! duplicates, stream events. A number is durable once a flush that began after its frame was written has returned.
//!
//! A pure value: [`Waiters::release`] hands out what is due, the caller calls it without any lock.

use std::collections::{BTreeMap, BTreeSet};

use super::error::CommitError;

/// Called once, from any thread, with the fate of what was waited for; must not block.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// A callback with what to tell it.
pub(crate) type Due = (Done, Result<(), CommitError>);

#[derive(Default)]
pub(crate) struct Waiters {
    durable: u64,
    closed: bool,
    waiting: BTreeMap<u64, Vec<Done>>,
    /// Numbers of entries that were given up with a fenced partition.
    failed: BTreeSet<u64>,
}

impl Waiters {
    pub(crate) fn new(durable: u64) -> Self {
        Self { durable, ..Self::default() }
    }

    /// Registers `done`, or hands it back if its fate is known.
    pub(crate) fn wait(&mut self, number: u64, done: Done) -> Option<Due> {
        if self.failed.contains(&number) {
            Some((done, Err(CommitError::Fenced)))
        } else if number <= self.durable {
            Some((done, Ok(())))
        } else if self.closed {
            Some((done, Err(CommitError::Closed)))
        } else {
            self.waiting.entry(number).or_default().push(done);
            None
        }
    }

    /// Everything up to `number` is durable, but for `failed`. Due callbacks come in order of number.
    pub(crate) fn release(&mut self, number: u64, failed: impl IntoIterator<Item = u64>) -> Vec<Due> {
        self.failed.extend(failed);
        self.durable = self.durable.max(number);
        let later = self.waiting.split_off(&(self.durable + 1));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_iter()
            .flat_map(|(number, list)| {
                let fate = if self.failed.contains(&number) { Err(CommitError::Fenced) } else { Ok(()) };
                list.into_iter().map(move |done| (done, fate))
            })
            .collect()
    }

    /// Nothing more becomes durable.
    pub(crate) fn close(&mut self) -> Vec<Due> {
        self.closed = true;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().flatten().map(|done| (done, Err(CommitError::Closed))).collect()
    }
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters")
            .field("durable", &self.durable)
            .field("waiting", &self.waiting.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, Mutex};

    type Log = Arc<Mutex<Vec<(u64, Result<(), CommitError>)>>>;

    fn waiter(log: &Log, number: u64) -> Done {
        let log = Arc::clone(log);
        Box::new(move |fate| log.lock().push((number, fate)))
    }

    fn call(due: impl IntoIterator<Item = Due>) {
        due.into_iter().for_each(|(done, fate)| done(fate));
    }

    #[test]
    fn releases_in_order_and_no_further() {
        let (log, mut waiters) = (Log::default(), Waiters::new(3));
        for number in [9, 5, 7, 5] {
            assert!(waiters.wait(number, waiter(&log, number)).is_none());
        }
        call(waiters.wait(3, waiter(&log, 3)));
        call(waiters.release(7, []));
        assert_eq!(*log.lock(), [(3, Ok(())), (5, Ok(())), (5, Ok(())), (7, Ok(()))]);
    }

    #[test]
    fn a_given_up_entry_fails_early_and_late_askers() {
        let (log, mut waiters) = (Log::default(), Waiters::new(0));
        assert!(waiters.wait(2, waiter(&log, 2)).is_none());
        call(waiters.release(3, [2]));
        call(waiters.wait(2, waiter(&log, 20)));
        call(waiters.wait(3, waiter(&log, 3)));
        let failed = Err(CommitError::Fenced);
        assert_eq!(*log.lock(), [(2, failed), (20, failed), (3, Ok(()))]);
    }

    #[test]
    fn closing_tells_everybody() {
        let (log, mut waiters) = (Log::default(), Waiters::new(0));
        assert!(waiters.wait(2, waiter(&log, 2)).is_none());
        call(waiters.close());
        call(waiters.wait(4, waiter(&log, 4)));
        let closed = Err(CommitError::Closed);
        assert_eq!(*log.lock(), [(2, closed), (4, closed)]);
    }
}
