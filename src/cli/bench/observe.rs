//! A window of time: what was done in it, and what it cost.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    process::{self, Memory},
    session::Session,
};
use crate::{
    cli::{
        exit::{Exit, Failure},
        progress::Progress,
    },
    sync::{Arc, AtomicBool, AtomicU64, Ordering},
};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What has been done so far. Counted by whoever does it.
#[derive(Debug, Default)]
pub(super) struct Counter {
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// So much more.
    pub(super) fn add(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records so far.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Tells everybody who works for a run to stop, at the latest when the run is dropped.
#[derive(Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// To be looked at.
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The tasks of a run; the first failure ends it.
pub(super) type Tasks = JoinSet<Result<(), Failure>>;

/// Waits for all tasks.
pub(super) async fn finish(tasks: &mut Tasks) -> Result<(), Failure> {
    while let Some(ended) = tasks.join_next().await {
        ended
            .map_err(|error| Failure::new(Exit::Failed, format!("a part of the bench failed: {error}")))??;
    }
    Ok(())
}

/// What a window saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    /// How long it was.
    pub(super) time: Duration,
    /// What was counted in it.
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// ... by those who do something else.
    pub(super) bytes_aside: u64,
    /// Processor time of the server, if its process is known.
    pub(super) server_cpu: Option<Duration>,
    /// Processor time of this process.
    pub(super) client_cpu: Option<Duration>,
    /// Most memory at once.
    pub(super) server_memory: Option<Memory>,
    pub(super) client_memory: Option<Memory>,
}

/// When a window closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Does not count.
    pub(super) warmup: Duration,
    pub(super) duration: Duration,
    /// Bytes in all, the warm-up's included.
    pub(super) volume: u64,
}

/// Who looks on, and at what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch<'a> {
    pub(super) session: &'a Session,
    pub(super) bounds: Bounds,
    pub(super) counter: &'a Counter,
    /// Counted in the same window.
    pub(super) aside: Option<&'a Counter>,
}

#[derive(Clone, Copy)]
struct Moment {
    at: Duration,
    records: u64,
    bytes: u64,
    bytes_aside: u64,
    server_cpu: Option<Duration>,
    client_cpu: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
struct Peaks {
    server: Option<Memory>,
    client: Option<Memory>,
}

impl Watch<'_> {
    /// Looks on while `tasks` work: drops the warm-up, then counts until the window closes.
    pub(super) async fn observe(&self, tasks: &mut Tasks, progress: &Progress) -> Result<Observed, Failure> {
        tokio::select! {
            observed = self.look_on(progress) => Ok(observed),
            // Tasks go on until they are told to stop; one that fails ends the run.
            Err(failure) = finish(tasks) => Err(failure),
        }
    }

    async fn look_on(&self, progress: &Progress) -> Observed {
        let mut shown = self.counter.bytes();
        let mut peaks = Peaks::default();
        // At most a quarter of the volume warms up, or nothing would be left to measure.
        let mut enough = self.bounds.volume / 4;
        let mut end = self.session.clock.monotonic() + self.bounds.warmup;
        let mut first: Option<Moment> = None;
        loop {
            let (now, bytes) = (self.session.clock.monotonic(), self.counter.bytes());
            progress.add(bytes.saturating_sub(shown));
            shown = bytes;
            if now >= end || bytes >= enough {
                let here = self.moment();
                if let Some(first) = first {
                    return between(first, here, self.look_at_memory(peaks));
                }
                first = Some(here);
                end = here.at + self.bounds.duration;
                // Something at least.
                enough = self.bounds.volume.max(bytes.saturating_add(1));
                continue;
            }
            if first.is_some() {
                peaks = self.look_at_memory(peaks);
            }
            // Often enough that a volume is not overshot by far.
            tokio::time::sleep(LOOK.min(end.saturating_sub(now))).await;
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            at: self.session.clock.monotonic(),
            records: self.counter.records(),
            bytes: self.counter.bytes(),
            bytes_aside: self.aside.map_or(0, Counter::bytes),
            server_cpu: self.session.server_process().and_then(process::cpu),
            client_cpu: process::cpu(std::process::id()),
        }
    }

    fn look_at_memory(&self, peaks: Peaks) -> Peaks {
        Peaks {
            server: larger(peaks.server, self.session.server_process().and_then(process::memory)),
            client: larger(peaks.client, process::memory(std::process::id())),
        }
    }
}

fn larger(one: Option<Memory>, other: Option<Memory>) -> Option<Memory> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.max(other)),
        (one, other) => one.or(other),
    }
}

fn between(from: Moment, to: Moment, peaks: Peaks) -> Observed {
    let less = |to: Option<Duration>, from: Option<Duration>| Some(to?.saturating_sub(from?));
    Observed {
        time: to.at.saturating_sub(from.at),
        records: to.records - from.records,
        bytes: to.bytes - from.bytes,
        bytes_aside: to.bytes_aside - from.bytes_aside,
        server_cpu: less(to.server_cpu, from.server_cpu),
        client_cpu: less(to.client_cpu, from.client_cpu),
        server_memory: peaks.server,
        client_memory: peaks.client,
    }
}
