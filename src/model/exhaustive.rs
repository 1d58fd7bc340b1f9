//! Every short script, cut at every call of the disk, with everything a cut may leave: no lots are drawn.
//!
//! For each script of steps ([`Deed`]) up to a length the power goes before each call that changes anything while the last
//! step is at work (what comes before is a shorter script), and once after it. What is left then is, one after the other:
//! nothing that no flush covered; each prefix of the names; new lengths without data; each page alone there, and alone
//! missing; the same with each sector of the newest write to each file; and all of it, as after `kill -9`. Each of these
//! directories is recovered and judged by the oracle, recovered once more, looked up, written to, cut and recovered again.

use std::fmt;

use super::{
    disk::{Death, Keep},
    history::{Deed, Left, Run},
    plan::Plan,
};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// What a search came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Scripts that could be done.
    pub scripts: u64,
    /// Places at which the power went.
    pub cuts: u64,
    /// Directories that were left, recovered and judged.
    pub cases: u64,
    /// Starts, all in all.
    pub starts: u64,
    /// Over all calls of all cases. The same search has the same.
    pub hash: u64,
}

/// A case in which a promise was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What was done.
    pub script: Vec<Deed>,
    /// Calls that the last step got answers to.
    pub calls: u64,
    /// The call at which the power went; `None` = after the last one.
    pub death: Option<Death>,
    /// What was left; `None` = all.
    pub keep: Option<Keep>,
    /// Which promise: the rule's number, and what was found.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}, the power goes after {} calls of the last step ({:?}), {:?} is left: {}",
            self.script, self.calls, self.death, self.keep, self.what
        )
    }
}

/// How many scripts there are over so many kinds of steps, up to a length.
pub fn scripts(kinds: usize, length: usize) -> u64 {
    (1..=length).map(|length| (kinds as u64).pow(u32::try_from(length).unwrap_or(u32::MAX))).sum()
}

/// The script of a number, the shorter ones first.
fn script_of(alphabet: &[Deed], number: u64) -> Vec<Deed> {
    let kinds = alphabet.len() as u64;
    let (mut rest, mut length) = (number, 1);
    while rest >= kinds.pow(length) {
        rest -= kinds.pow(length);
        length += 1;
    }
    let digit = |at: u32| usize::try_from(rest / kinds.pow(at) % kinds).ok();
    (0..length).rev().filter_map(|at| alphabet.get(digit(at)?).copied()).collect()
}

/// Tries every script over an alphabet up to a length. `done` is called after each, from any of the threads.
pub fn exhaustive(
    alphabet: &[Deed],
    length: usize,
    threads: usize,
    done: &(dyn Fn() + Sync),
) -> Result<Count, Box<Broken>> {
    let scripts = scripts(alphabet.len(), length);
    let (next, sum, broken) = (AtomicU64::new(0), Mutex::new(Count::default()), Mutex::new(None));
    let work = || {
        let plan = Plan::small();
        let mut search = match Run::small(&plan) {
            Ok(base) => Search { base, count: Count::default() },
            Err(what) => {
                let script = Vec::new();
                broken.lock().get_or_insert(Box::new(Broken {
                    script,
                    calls: 0,
                    death: None,
                    keep: None,
                    what,
                }));
                return;
            }
        };
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= scripts {
                break;
            }
            if let Err(found) = search.script(&script_of(alphabet, number)) {
                next.store(scripts, Ordering::Relaxed);
                broken.lock().get_or_insert(found);
                break;
            }
            done();
        }
        sum.lock().add(&search.count);
    };
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    broken.into_inner().map_or(Ok(sum.into_inner()), Err)
}

impl Count {
    /// All counts with their names.
    pub fn rows(&self) -> [(&'static str, u64); 4] {
        [("scripts", self.scripts), ("cuts", self.cuts), ("cases", self.cases), ("starts", self.starts)]
    }

    fn add(&mut self, other: &Self) {
        self.scripts += other.scripts;
        self.cuts += other.cuts;
        self.cases += other.cases;
        self.starts += other.starts;
        // The same in whatever order scripts are added.
        self.hash = self.hash.wrapping_add(other.hash);
    }
}

/// One thread's search.
struct Search<'a> {
    base: Run<'a>,
    count: Count,
}

impl Search<'_> {
    /// Tries every cut of a script's last step.
    fn script(&mut self, script: &[Deed]) -> Result<(), Box<Broken>> {
        for calls in 0.. {
            let broken = |what| Broken { script: script.to_vec(), calls, death: None, keep: None, what };
            let mut run = self.base.fork();
            let Some(power_cut) =
                run_to_cut(&mut run, script, calls).map_err(|what| Box::new(broken(what)))?
            else {
                return Ok(());
            };
            let death = run.disk.death();
            self.count.scripts += u64::from(calls == 0);
            self.count.cuts += 1;
            let kept = run.disk.possible_cuts();
            for keep in kept.into_iter().map(Some).chain([None]) {
                let mut case = run.fork();
                self.count.cases += 1;
                let judged = judge(&mut case, keep.as_ref(), power_cut);
                self.count.starts += case.outcome.recoveries + case.outcome.twice;
                self.count.hash = self.count.hash.wrapping_add(case.disk.trace_hash());
                judged.map_err(|what| Box::new(Broken { death: death.clone(), keep, ..broken(what) }))?;
            }
            if death.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Runs a script; its last step is cut after so many calls, or ends. Returns whether the power had gone before, since the last
/// judgement; `None`: some step has nothing to be done to.
fn run_to_cut(run: &mut Run<'_>, script: &[Deed], calls: u64) -> Result<Option<bool>, String> {
    let mut life = run.start_once(false)?.ok_or("nothing cuts this start")?;
    for (index, deed) in script.iter().enumerate() {
        if index + 1 == script.len() {
            run.disk.cut_after(calls);
        }
        match run.perform(life, *deed)? {
            Left::Alive(alive) => life = alive,
            Left::InStart { power_cut } => return Ok(Some(power_cut)),
            Left::Impossible(life) => {
                drop(life);
                return Ok(None);
            }
        }
        if let Some(refused) = life.refused.take().filter(|_| !run.disk.is_dead()) {
            return Err(format!("{deed:?} is refused: {refused:?}"));
        }
    }
    run.count_pending();
    Ok(Some(false))
}

/// What is left is recovered, and holds what was promised.
fn judge(case: &mut Run<'_>, keep: Option<&Keep>, power_cut: bool) -> Result<(), String> {
    case.outcome.recoveries = 1;
    match keep {
        Some(keep) => case.disk.power_up_with(keep),
        None => case.disk.restart_process(),
    }
    let life = case.start_once(power_cut || keep.is_some())?.ok_or("nothing cuts this start")?;
    case.look_up(&life)?;
    case.start_twice(&life)?;
    case.goes_on(life)
}

#[cfg(test)]
mod tests;
