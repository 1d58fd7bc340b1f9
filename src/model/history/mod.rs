//! One history: random work, a cut or a kill at a random call, recovery, the oracle; several times over.

mod again;
mod batch;
mod flip;
mod hostile;
mod life;
mod meanwhile;
mod outcome;
mod places;
mod script;
mod start;
mod topics;

#[cfg(test)]
mod tests;

use std::fmt;

use super::{disk::PowerDisk, oracle::Oracle, plan::Plan, rng::Rng};
use crate::{clock::ManualClock, sync::Arc};

pub(super) use life::Life;
#[cfg(test)]
pub(super) use life::Refused;
pub use outcome::Outcome;
pub use places::Place;
use places::{Doing, place};
pub use script::Deed;
pub(super) use script::Left;

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise: the rule's number, and what was found.
    pub what: String,
    /// What was done, step by step.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// Takes the lines of a trace as they are made.
pub type Sink<'a> = &'a mut dyn FnMut(&str);

/// Runs the history that a seed stands for.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    run_with(seed, &Plan::of(seed))
}

/// Runs a history of a given kind. One that fails is run again to tell its trace.
pub fn run_with(seed: u64, plan: &Plan) -> Result<Outcome, Failure> {
    let failed = match Run::new(seed, plan, None).run() {
        Ok(outcome) => return Ok(outcome),
        Err(what) => what,
    };
    let mut trace = Vec::new();
    let again = Run::new(seed, plan, Some(&mut |line| trace.push(line.to_owned()))).run();
    let what = match again {
        Err(what) if what == failed => what,
        again => format!("R12: once {failed:?}, and then {:?}", again.err()),
    };
    Err(Failure { seed, what, trace })
}

/// Runs a history and tells what it does.
pub fn run_traced(seed: u64, plan: &Plan, sink: Sink<'_>) -> Result<Outcome, Failure> {
    let outcome = Run::new(seed, plan, Some(sink)).run();
    outcome.map_err(|what| Failure { seed, what, trace: Vec::new() })
}

/// A history under way.
pub(super) struct Run<'a> {
    rng: Rng,
    pub(super) disk: PowerDisk,
    clock: Arc<ManualClock>,
    plan: &'a Plan,
    pub(super) oracle: Oracle,
    pub(super) outcome: Outcome,
    sink: Option<Sink<'a>>,
    /// Records made.
    records: u64,
    /// Request ids given.
    requests: u64,
    /// Topics made: an id is never used twice.
    topics: u64,
    /// Where the journal stood after the last start.
    started_at: u64,
    /// Calls of the last start that came to an end, reads not counted.
    start_changes: u64,
    /// Bytes the disk had been given when each of the two newest snapshots was captured.
    captured: [u64; 2],
}

impl<'a> Run<'a> {
    fn new(seed: u64, plan: &'a Plan, sink: Option<Sink<'a>>) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            disk: PowerDisk::new(rng.next()),
            clock: Arc::new(ManualClock::new(1_700_000_000_000, rng.next())),
            plan,
            oracle: Oracle::default(),
            outcome: Outcome { histories: 1, ..Outcome::default() },
            sink,
            records: 0,
            requests: 0,
            topics: 0,
            started_at: 0,
            start_changes: 40,
            captured: [0; 2],
            rng,
        }
    }

    fn run(mut self) -> Result<Outcome, String> {
        let lives = self.lives();
        self.note(|| format!("ends: {lives:?}"));
        lives?;
        self.outcome.trace_hash = self.disk.trace_hash();
        Ok(self.outcome)
    }

    fn lives(&mut self) -> Result<(), String> {
        let mut power_cut = true;
        for _ in 0..self.plan.lives {
            let mut life = self.start(power_cut)?;
            self.live(&mut life)?;
            power_cut = self.end(life);
        }
        let life = self.start(power_cut)?;
        self.start_twice(&life)
    }

    /// Tells a line of the trace, which is made only if somebody listens.
    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(sink) = &mut self.sink {
            sink(&what());
        }
    }

    /// A life is over; tells whether the power went or only the process.
    fn end(&mut self, life: Life) -> bool {
        self.count_pending();
        let doing = life.doing;
        drop(life);
        self.die(doing)
    }

    fn die(&mut self, doing: Doing) -> bool {
        self.outcome.failed_flushes += u64::from(self.disk.flush_failed());
        let death = self.disk.death();
        if let Some(death) = &death {
            self.outcome.count_death(place(doing, death));
        }
        let in_start = u64::from(matches!(doing, Doing::Start { .. }));
        let power_cut = self.rng.below(100) >= self.plan.kill_percent;
        if power_cut {
            self.outcome.cuts += 1;
            self.outcome.cuts_in_recovery += in_start;
            let remains = self.disk.power_up();
            self.outcome.torn_frames += u64::from(remains.torn_frame);
            self.outcome.torn_batches += u64::from(remains.torn_batch);
            self.outcome.whole_behind_hole += u64::from(remains.whole_behind_hole);
            self.note(|| format!("THE POWER GOES at {death:?}, {doing:?}: {remains:?}"));
        } else {
            self.outcome.kills += 1;
            self.outcome.kills_in_recovery += in_start;
            self.disk.restart_process();
            self.note(|| format!("KILL -9 at {death:?}, {doing:?}"));
        }
        power_cut
    }
}
