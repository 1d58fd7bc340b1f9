//! The threads of a data directory. Each only calls steps; everything they do can be done by a test instead.

use std::{io, sync::Arc, time::Duration};

use super::{commit::Step, snapshot::Section, storage::Storage};
use crate::sync::{
    Condvar, Mutex,
    thread::{self, JoinHandle},
};

/// Captures the state machine's sections, under the machine's own locks.
pub type SectionSource = Arc<dyn Fn() -> Vec<Section> + Send + Sync>;

/// Between two looks at what has no signal of its own.
const TICK: Duration = Duration::from_millis(20);

/// Bytes scrubbed at a time.
const SCRUB_STEP: u64 = 256 * 1024;
/// Bytes whose keys are indexed at a time.
const INDEX_STEP: u64 = 1024 * 1024;
/// Between two looks whether there is something to index.
const INDEX_REST: Duration = Duration::from_millis(200);
/// Between two looks whether the next pass may begin.
const SCRUB_REST: Duration = Duration::from_secs(5);

/// The threads, running.
#[derive(Debug)]
pub struct Runner {
    storage: Arc<Storage>,
    commit: JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits a while; `true` = stop.
    fn wait(&self, at_most: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, at_most);
        }
        *stopped
    }

    fn set(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }
}

impl Storage {
    /// Starts the commit, snapshot, upkeep, scrub and index threads.
    pub fn start(self: &Arc<Self>, source: SectionSource) -> io::Result<Runner> {
        let stop = Arc::new(Stop::default());
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.to_owned()).spawn(run)
        };
        let (commit, snapshot, upkeep) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let (at_snapshot, at_upkeep) = (Arc::clone(&stop), Arc::clone(&stop));
        let commit = spawn("commit", Box::new(move || commit_loop(&commit)))?;
        let mut threads = vec![
            spawn("snapshot", Box::new(move || snapshot_loop(&snapshot, &source, &at_snapshot)))?,
            spawn("upkeep", Box::new(move || upkeep_loop(&upkeep, &at_upkeep)))?,
        ];
        if self.options().scrub_bytes_per_second > 0 {
            let (scrub, at_scrub) = (Arc::clone(self), Arc::clone(&stop));
            threads.push(spawn("scrub", Box::new(move || scrub_loop(&scrub, &at_scrub)))?);
        }
        if self.options().index_bytes_per_second > 0 {
            let (index, at_index) = (Arc::clone(self), Arc::clone(&stop));
            threads.push(spawn("index", Box::new(move || index_loop(&index, &at_index)))?);
        }
        Ok(Runner { storage: Arc::clone(self), commit, threads, stop })
    }
}

impl Runner {
    /// Takes nothing more, commits what was taken, writes a last snapshot, ends the threads. The next start has
    /// nothing to replay.
    pub fn stop(self) {
        self.storage.close();
        // The last frame first: the snapshot that ends the run in order must cover it.
        self.commit.join().expect("the commit thread does not panic");
        self.storage.no_more_acks();
        self.stop.set();
        for thread in self.threads {
            thread.join().expect("the storage threads do not panic");
        }
    }
}

fn commit_loop(storage: &Arc<Storage>) {
    let mut idle = false;
    loop {
        match storage.commit_step() {
            Step::Committed => {
                idle = false;
                // Whoever was released sends again: where processors are short, the next flush then finds more to do.
                // With nobody else to run this returns at once.
                thread::yield_now();
            }
            Step::Failed => return,
            Step::Idle if storage.queue().is_closed() && storage.queue().is_empty() => return,
            Step::Idle if idle => storage.queue().wait(Duration::from_secs(1)),
            Step::Idle => {
                storage.queue().wait(Storage::IDLE);
                if storage.queue().is_empty() {
                    storage.idle_step();
                    idle = true;
                }
            }
        }
    }
}

fn snapshot_loop(storage: &Arc<Storage>, source: &SectionSource, stop: &Stop) {
    loop {
        let stopping = stop.wait(TICK);
        if stopping {
            last_snapshot(storage, source);
            return;
        }
        storage.full_step();
        if storage.snapshot_due() {
            take_snapshot(storage, source, stop);
        }
    }
}

fn take_snapshot(storage: &Arc<Storage>, source: &SectionSource, stop: &Stop) {
    match storage.snapshot_write(&**source) {
        Ok(Some(written)) => loop {
            match storage.snapshot_finish(&written, false) {
                Ok(true) | Err(_) => return,
                Ok(false) if storage.failure().is_some() || storage.is_tainted() => return,
                Ok(false) => {
                    if stop.wait(Duration::from_millis(1)) {
                        return;
                    }
                }
            }
        },
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "no snapshot; the journal keeps everything meanwhile");
            stop.wait(Duration::from_secs(1));
        }
    }
}

/// Once the commit thread is gone.
fn last_snapshot(storage: &Arc<Storage>, source: &SectionSource) {
    if !storage.has_changed_since_snapshot() {
        return;
    }
    match storage.snapshot_write(&**source) {
        Ok(Some(written)) => {
            let _failed_is_logged = storage.snapshot_finish(&written, true);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "no last snapshot; the next start replays the journal"),
    }
}

fn upkeep_loop(storage: &Arc<Storage>, stop: &Stop) {
    let mut slow = 0_u32;
    loop {
        while storage.upkeep_step() {}
        storage.interval_step();
        storage.notice_faults();
        slow = slow.wrapping_add(1);
        // Not at once: a server that has just started has better things to do than to write zeros.
        if slow.is_multiple_of(16) {
            let grown = storage.grow_step().and_then(|_| storage.reserve_step());
            if let Err(error) = grown {
                tracing::warn!(%error, "the journal could not grow");
            }
            storage.close_step();
        }
        if storage.is_closed() {
            while storage.upkeep_step() {}
            return;
        }
        storage.upkeep().wait(TICK);
        if stop.wait(Duration::ZERO) {
            return;
        }
    }
}

/// Reads a little, then sleeps as long as the rate wants.
fn scrub_loop(storage: &Arc<Storage>, stop: &Stop) {
    let rate = storage.options().scrub_bytes_per_second;
    paced(storage, stop, rate, SCRUB_REST, || storage.scrub_step(SCRUB_STEP.min(rate)));
}

fn index_loop(storage: &Arc<Storage>, stop: &Stop) {
    let rate = storage.options().index_bytes_per_second;
    paced(storage, stop, rate, INDEX_REST, || storage.keys_step(INDEX_STEP.min(rate)));
}

fn paced(storage: &Storage, stop: &Stop, rate: u64, rest: Duration, work: impl Fn() -> u64) {
    loop {
        let pause = match work() {
            0 => rest,
            read => Duration::from_micros(read.saturating_mul(1_000_000) / rate),
        };
        if stop.wait(pause) || storage.is_closed() {
            return;
        }
    }
}
