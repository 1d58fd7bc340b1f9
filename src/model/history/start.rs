//! Starting: recovery, itself cut and failing, until one comes to an end and is judged (R8, R11, R14).

use super::{Doing, Life, Run};
use crate::{
    clock::ManualClock,
    model::{
        disk::{Fault, PowerDisk, Work},
        oracle::{check, same_state},
    },
    state::State,
    storage::{OpenError, Report, Storage},
    sync::Arc,
};

impl Run<'_> {
    /// Starts until a start comes to an end, and judges it. `power_cut`: some cut came since the last judgement.
    pub(super) fn start(&mut self, mut power_cut: bool) -> Result<Life, String> {
        loop {
            if self.rng.one_in(self.plan.start_cut_one_in) {
                self.disk.cut_after(self.rng.next() % (self.start_changes + 10));
            }
            if self.rng.one_in(4 * self.plan.flush_fails_one_in) {
                self.disk.set_fault(Some(Fault::flush_after(self.rng.next() % 12)));
            }
            if let Some(life) = self.start_once(power_cut)? {
                if self.rng.one_in(self.plan.twice_one_in) {
                    self.start_twice(&life)?;
                }
                return Ok(life);
            }
            power_cut |= self.die(Doing::Start { new: self.outcome.recoveries == 0 });
        }
    }

    /// One start. `None`: the power went, or a call failed and something is refused for it.
    pub(in crate::model) fn start_once(&mut self, power_cut: bool) -> Result<Option<Life>, String> {
        let before = self.disk.work();
        let mut state = State::default();
        let opened = Storage::open(
            Arc::new(self.disk.clone()),
            Arc::clone(&self.clock) as _,
            self.plan.options,
            &mut state,
        );
        let closed = |report: &Report| report.partitions.iter().any(|partition| partition.closed.is_some());
        match opened {
            // What a failed flush makes of a start is a partition that stays closed, or a refusal.
            Ok((_, report)) if self.disk.flush_failed() || self.disk.faults_met() > 0 && closed(&report) => {
                self.note(|| format!("the start failed: a call failed: {report:?}"));
                Ok(None)
            }
            Ok((storage, report)) => {
                self.disk.cut_never();
                self.note(|| {
                    format!("started, judged by a {}: {report:?}", if power_cut { "cut" } else { "kill" })
                });
                self.judge_start(before, &storage, &report)?;
                // The oracle's own reads do not fail.
                let fault = self.disk.fault();
                self.disk.set_fault(None);
                self.oracle.judge(power_cut, &storage, &state)?;
                self.judge_sequences(&storage)?;
                self.disk.set_fault(fault);
                Ok(Some(Life::new(storage, state)))
            }
            Err(error) if self.disk.is_dead() || self.disk.faults_met() > 0 => {
                self.note(|| format!("the start failed: {error}"));
                Ok(None)
            }
            Err(error) => Err(format!("R14: the start refused: {error}")),
        }
    }

    fn judge_start(&mut self, before: Work, storage: &Storage, report: &Report) -> Result<(), String> {
        let closed: Vec<_> =
            report.partitions.iter().filter(|partition| partition.closed.is_some()).collect();
        check(report.damages.is_empty() && closed.is_empty(), || {
            format!("R14: damage that no cut can make: {:?} {closed:?}", report.damages)
        })?;
        let after = self.disk.work();
        self.start_changes = after.changes - before.changes;
        if self.outcome.recoveries > 0 {
            self.check_bounds(before, after, storage)?;
            // A start writes a snapshot: the next one replays nothing from before it.
            let since = storage.tip().place.sequence - self.started_at;
            check(report.frames <= since + 1, || {
                format!("R11: {} frames replayed, {since} written since the last start", report.frames)
            })?;
        }
        self.started_at = storage.tip().place.sequence;
        self.outcome.recoveries += 1;
        self.captured = [self.captured[1], before.written];
        Ok(())
    }

    /// R11: what a start reads, writes and asks grows with the journal, the snapshots and what was written after them, and
    /// not with the history before.
    fn check_bounds(&self, before: Work, after: Work, storage: &Storage) -> Result<(), String> {
        let files = self.disk.files();
        let sum = |prefix: &str| -> u64 {
            files.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, length)| *length).sum()
        };
        let planned = self.plan.topics.iter().map(|topic| u64::from(topic.partitions)).sum::<u64>();
        let partitions = storage.all_partitions().len() as u64 + planned;
        let segment = self.plan.topics.iter().map(|topic| topic.segment_bytes).max().unwrap_or_default();
        let since = before.written - self.captured[0].min(before.written);
        let tails = since + 2 * partitions * (segment + 16 * 1024);
        let bytes = 2 * sum("journal/") + 4 * sum("snapshot-") + 3 * tails + 64 * 1024;
        let (read, written) = (after.read - before.read, after.written - before.written);
        check(read <= bytes, || {
            let (journal, snapshots) = (sum("journal/"), sum("snapshot-"));
            format!(
                "R11: a start read {read} bytes, bound {bytes}: journal {journal}, snapshots {snapshots}, \
                 {partitions} partitions of {segment}, {since} since"
            )
        })?;
        check(written <= bytes, || format!("R11: a start wrote {written} bytes, bound {bytes}"))?;
        let calls = after.calls - before.calls;
        let bound = 60 + 4 * (sum("journal/") / 4096) + 40 * partitions + since / 64;
        check(calls <= bound, || format!("R11: a start asked the disk {calls} times, bound {bound}"))
    }

    /// R8: a second start, of a copy, finds the same and leaves every segment as it is.
    pub(in crate::model) fn start_twice(&mut self, life: &Life) -> Result<(), String> {
        let copy = self.disk.fork();
        let before = copy.fingerprint("topics/");
        let mut state = State::default();
        let (storage, report) = self
            .open_copy(&copy, &mut state)
            .map_err(|error| format!("R8: the second start refused: {error}"))?;
        check(report.damages.is_empty(), || format!("R8: a second start finds {:?}", report.damages))?;
        check(copy.fingerprint("topics/") == before, || "R8: a second start changes the segments".into())?;
        same_state(&life.state, &state).map_err(|what| format!("R8: a second start finds {what}"))?;
        for (key, log) in &self.oracle.logs {
            let end = storage.partition(*key).map(|partition| partition.bounds().log_end);
            check(end == Some(log.end()), || format!("R8: {key} ends at {end:?} after a second start"))?;
        }
        self.outcome.twice += 1;
        Ok(())
    }

    /// Opens a copy of the disk, with a clock of its own.
    pub(super) fn open_copy(
        &self,
        copy: &PowerDisk,
        state: &mut State,
    ) -> Result<(Arc<Storage>, Report), OpenError> {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
        Storage::open(Arc::new(copy.clone()), clock, self.plan.options, state)
    }
}
