//! Who waits for which entry to become durable.
//!
//! Every change has a number. Whoever answers with something an entry decided waits for that entry's number: acks, refusals,
//! duplicates, stream events. A number is durable once a flush that began after its frame was written has returned.
//!
//! A pure value: [`Waiters::release`] hands out what is due, the caller tells it without any lock. Waiters lie in one
//! list that keeps its room, so that to wait allocates nothing: a future leaves its waker and asks again.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{error::CommitError, storage::Storage};
use crate::sync::Arc;

/// Called once, from any thread, with the fate of what was waited for; must not block.
pub type Done = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Waits for an entry to become durable; see [`Storage::durable`].
#[derive(Debug)]
#[must_use = "nobody waits before it is polled"]
pub struct Durable {
    storage: Arc<Storage>,
    number: u64,
    /// The waker that is registered.
    waker: Option<Waker>,
}

impl Durable {
    pub(crate) fn new(storage: Arc<Storage>, number: u64) -> Self {
        Self { storage, number, waker: None }
    }
}

impl Future for Durable {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let waker = context.waker();
        let known = this.waker.as_ref().is_some_and(|known| known.will_wake(waker));
        let polled = this.storage.poll_durable(this.number, (!known).then_some(waker));
        if polled.is_pending() && !known {
            this.waker = Some(waker.clone());
        }
        polled
    }
}

/// Who is told.
enum Whom {
    /// Somebody who asks again.
    Task(Waker),
    Call(Done),
}

/// Somebody to be told, and what.
pub(crate) struct Due(Whom, Result<(), CommitError>);

impl Due {
    /// Tells it. Not under a lock that the told one might take.
    pub(crate) fn tell(self) {
        match self.0 {
            Whom::Task(waker) => waker.wake(),
            Whom::Call(done) => done(self.1),
        }
    }
}

#[derive(Default)]
pub(crate) struct Waiters {
    durable: u64,
    closed: bool,
    /// In order of number. They come nearly so.
    waiting: VecDeque<(u64, Whom)>,
    /// Numbers of entries that were given up with a fenced partition.
    failed: BTreeSet<u64>,
}

impl Waiters {
    pub(crate) fn new(durable: u64) -> Self {
        Self { durable, ..Self::default() }
    }

    /// Registers `done`, or hands it back if its fate is known.
    pub(crate) fn wait(&mut self, number: u64, done: Done) -> Option<Due> {
        if let Some(fate) = self.fate(number) {
            return Some(Due(Whom::Call(done), fate));
        }
        self.register(number, Whom::Call(done));
        None
    }

    /// The fate of an entry, if it is known; else registers a waker. `None`: it is registered already.
    pub(crate) fn poll(&mut self, number: u64, waker: Option<&Waker>) -> Poll<Result<(), CommitError>> {
        match (self.fate(number), waker) {
            (Some(fate), _) => return Poll::Ready(fate),
            (None, Some(waker)) => self.register(number, Whom::Task(waker.clone())),
            (None, None) => {}
        }
        Poll::Pending
    }

    fn fate(&self, number: u64) -> Option<Result<(), CommitError>> {
        if self.failed.contains(&number) {
            Some(Err(CommitError::Fenced))
        } else if number <= self.durable {
            Some(Ok(()))
        } else {
            self.closed.then_some(Err(CommitError::Closed))
        }
    }

    fn register(&mut self, number: u64, whom: Whom) {
        let at = self.waiting.partition_point(|(before, _)| *before <= number);
        self.waiting.insert(at, (number, whom));
    }

    /// Everything up to `number` is durable, but for `failed`. What is due is added to `due`, in order of number.
    pub(crate) fn release(&mut self, number: u64, failed: impl IntoIterator<Item = u64>, due: &mut Vec<Due>) {
        self.failed.extend(failed);
        self.durable = self.durable.max(number);
        let count = self.waiting.partition_point(|(number, _)| *number <= self.durable);
        for (number, whom) in self.waiting.drain(..count) {
            let fate = if self.failed.contains(&number) { Err(CommitError::Fenced) } else { Ok(()) };
            due.push(Due(whom, fate));
        }
    }

    /// Nothing more becomes durable.
    pub(crate) fn close(&mut self) -> Vec<Due> {
        self.closed = true;
        self.waiting.drain(..).map(|(_, whom)| Due(whom, Err(CommitError::Closed))).collect()
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
    use crate::sync::Mutex;

    type Log = Arc<Mutex<Vec<(u64, Result<(), CommitError>)>>>;

    fn waiter(log: &Log, number: u64) -> Done {
        let log = Arc::clone(log);
        Box::new(move |fate| log.lock().push((number, fate)))
    }

    fn call(due: impl IntoIterator<Item = Due>) {
        due.into_iter().for_each(Due::tell);
    }

    fn release(waiters: &mut Waiters, number: u64, failed: &[u64]) {
        let mut due = Vec::new();
        waiters.release(number, failed.iter().copied(), &mut due);
        call(due);
    }

    #[test]
    fn releases_in_order_and_no_further() {
        let (log, mut waiters) = (Log::default(), Waiters::new(3));
        for number in [9, 5, 7, 5] {
            assert!(waiters.wait(number, waiter(&log, number)).is_none());
        }
        call(waiters.wait(3, waiter(&log, 3)));
        release(&mut waiters, 7, &[]);
        assert_eq!(*log.lock(), [(3, Ok(())), (5, Ok(())), (5, Ok(())), (7, Ok(()))]);
    }

    #[test]
    fn a_given_up_entry_fails_early_and_late_askers() {
        let (log, mut waiters) = (Log::default(), Waiters::new(0));
        assert!(waiters.wait(2, waiter(&log, 2)).is_none());
        release(&mut waiters, 3, &[2]);
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

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Woken(crate::sync::AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, crate::sync::Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_is_woken_once_for_each_registration_and_reads_its_fate() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let count = || woken.0.load(crate::sync::Ordering::Relaxed);
        let mut waiters = Waiters::new(0);
        assert!(waiters.poll(2, Some(&waker)).is_pending());
        assert!(waiters.poll(2, None).is_pending(), "registered once");
        release(&mut waiters, 1, &[]);
        assert_eq!(count(), 0);
        release(&mut waiters, 3, &[2]);
        assert_eq!(count(), 1);
        assert_eq!(waiters.poll(2, None), Poll::Ready(Err(CommitError::Fenced)));
        assert_eq!(waiters.poll(3, Some(&waker)), Poll::Ready(Ok(())));
        assert!(waiters.poll(4, Some(&waker)).is_pending());
        call(waiters.close());
        assert_eq!((count(), waiters.poll(4, None)), (2, Poll::Ready(Err(CommitError::Closed))));
    }
}
