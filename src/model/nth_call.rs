//! A long script in which one call of the disk fails: the n-th of its kind, for every n, once or from then on.
//!
//! Whatever fails, nothing acked is lost, nothing refused comes back, no other bytes are served and nothing panics. And no
//! more stops than `docs/durability.md` says: [`most`] has for each call the worst that may come of it.

use rustix::io::Errno;

use super::{
    disk::{Death, Fault, Keep, Op},
    history::{Deed, Left, Life, Refused, Run, Sink},
    oracle::{Batch, check, compare_runs},
    plan::Plan,
};
use crate::storage::{AppendError, NoRoom, Partition, ReadError};

/// What is done, after a first start that makes the directory and its topics.
const SCRIPT: [Deed; 60] = {
    use Deed::*;
    [
        Put, Weak, SyncPoint, Group, Offsets, Large, Roll, Upkeep, Put, WeakRoll, //
        Commit, Weak, Upkeep, Snapshot, Put, Large, Large, Create, Put, Group, //
        Roll, Roll, Upkeep, Commit, Snapshot, Offsets, Weak, Ask, Ask, Commit, //
        Reopen, Put, Weak, Group, Grow, Large, SyncPoint, Raise, Weak, Lower, //
        Commit, Delete, Upkeep, Roll, Put, Snapshot, Put, Weak, Offsets, Kill, //
        Put, Group, WeakRoll, Commit, Upkeep, Create, Grow, Snapshot, Put, Weak, //
    ]
};

/// How far a failed call may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// The call it was made for is refused, or what it was made for is done later.
    Itself,
    /// A partition, and those that an atomic request ties to it, until the next start.
    Partition,
    /// The journal, and so the process.
    Process,
}

/// The most that may come of a failed call of a life that had started.
fn most(call: &Death, error: Errno) -> Reach {
    let path = call.path.as_str();
    // Room that is not there, files that may not be opened: refused, and taken again when there are.
    let passing = matches!(error, Errno::NOSPC | Errno::MFILE);
    match call.op {
        // A file of the ring that could not be made is made another time.
        Op::Create | Op::Allocate | Op::Open | Op::Read | Op::View | Op::Len | Op::List
            if path.starts_with("journal") =>
        {
            Reach::Itself
        }
        _ if path.starts_with("journal") => Reach::Process,
        // What got its name cannot be told from what did not.
        Op::Rename | Op::SyncDir | Op::Remove if path.starts_with("snapshot") || path.is_empty() => {
            Reach::Process
        }
        _ if path.starts_with("snapshot") || path == "reserve" => Reach::Itself,
        Op::Read => Reach::Itself,
        // A header goes to where room was made: with no space there the disk breaks its word.
        Op::Write if path.contains("/spare-") && call.position == 0 => Reach::Partition,
        // Files are set aside so that a commit cycle can open what it has to read back; without any it is as a read that fails.
        Op::Open if path.starts_with("topics") => Reach::Partition,
        Op::Create | Op::Allocate | Op::Open | Op::Write if passing => Reach::Itself,
        _ => Reach::Partition,
    }
}

/// What runs came to.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    runs: u64,
    refused: u64,
    fenced: u64,
    ended: u64,
    starts_refused: u64,
    unread: u64,
}

/// One run under way.
struct Trial<'a> {
    run: Run<'a>,
    fault: Fault,
    count: Count,
}

impl<'a> Trial<'a> {
    fn new(plan: &'a Plan, fault: Fault, sink: Option<Sink<'a>>) -> Self {
        let run = Run::still(plan, sink);
        run.disk.set_fault(Some(fault));
        Self { run, fault, count: Count { runs: 1, ..Count::default() } }
    }

    /// Runs the script. Whether the fault was met.
    fn go(mut self) -> Result<(Count, bool), String> {
        let mut life = self.start(false)?;
        self.run.create_missing(&mut life, true);
        for (index, deed) in std::iter::once(Deed::Commit).chain(SCRIPT).enumerate() {
            life = match self.run.perform(life, deed)? {
                Left::Alive(life) | Left::Impossible(life) => life,
                Left::InStart { .. } => self.start(true)?,
            };
            life = self.look(life)?;
            if index % 6 == 5 {
                self.read(&life)?;
            }
        }
        let met = !self.run.disk.failed_calls().is_empty();
        if met {
            // The disk is well again.
            self.run.disk.set_fault(None);
            self.go_on(&mut life)?;
        }
        self.run.count_pending();
        drop(life);
        for keep in [None, Some(Keep::NOTHING)] {
            self.start_again(keep.as_ref()).map_err(|what| format!("{keep:?} is left: {what}"))?;
        }
        Ok((self.count, met))
    }

    /// Starts; a start that meets the fault may refuse, and the next one finds a disk that is well.
    fn start(&mut self, refused: bool) -> Result<Life, String> {
        self.count.starts_refused += u64::from(refused);
        if refused {
            self.run.disk.restart_process();
        }
        if let Some(life) = self.run.start_once(false)? {
            return Ok(life);
        }
        self.count.starts_refused += 1;
        self.run.disk.restart_process();
        self.run.start_once(false)?.ok_or_else(|| "a start on a sound disk is refused".into())
    }

    /// What stopped, and whether it may have.
    fn look(&mut self, mut life: Life) -> Result<Life, String> {
        let ended = life.storage.failure().is_some();
        let fenced = life.partitions.iter().any(|partition| partition.is_fenced());
        let refused = life.refused.take();
        let reached = match (ended, fenced) {
            (true, _) => Some(Reach::Process),
            (_, true) => Some(Reach::Partition),
            _ if refused.is_some() => Some(Reach::Itself),
            _ => None,
        };
        self.count.refused += u64::from(refused.is_some());
        if let Some(reached) = reached {
            let calls = self.run.disk.failed_calls();
            let most = calls.iter().map(|call| most(call, self.fault.error)).max();
            check(Some(reached) <= most, || {
                let why = life
                    .partitions
                    .iter()
                    .find_map(|partition| partition.fenced_because().map(str::to_owned));
                format!("{reached:?} stopped, {most:?} may; {refused:?} {:?} {why:?}", life.storage.failure())
            })?;
            let full = matches!(self.fault.error, Errno::NOSPC) && reached == Reach::Itself;
            check(!full || refused == Some(Refused::Error(AppendError::DiskFull)), || {
                format!("a full disk: {refused:?}")
            })?;
        }
        self.count.fenced += u64::from(fenced && !ended);
        if !ended {
            return Ok(life);
        }
        self.count.ended += 1;
        self.run.count_pending();
        drop(life);
        self.run.disk.restart_process();
        self.start(false)
    }

    fn read(&mut self, life: &Life) -> Result<(), String> {
        for partition in &life.partitions {
            let Some(log) = self.run.oracle.logs.get(&partition.key()) else { continue };
            let met = self.run.disk.faults_met();
            if let Some(error) = read_all(partition, &log.batches)? {
                check(self.run.disk.faults_met() > met || partition.is_fenced(), || {
                    format!("{}: {error:?}, and no call failed", partition.key())
                })?;
                self.count.unread += 1;
            }
        }
        Ok(())
    }

    /// What did not stop goes on without a start.
    fn go_on(&mut self, life: &mut Life) -> Result<(), String> {
        for partition in life.partitions.clone() {
            let fenced = partition.is_fenced();
            let refused = self.run.one_more(life, partition.clone())?;
            let right = match &refused {
                None => !fenced,
                Some(Refused::Error(AppendError::Fenced { .. })) => fenced,
                // A fence forbids the snapshots that free the journal.
                Some(Refused::NoRoom(NoRoom::Busy)) => {
                    life.partitions.iter().any(|partition| partition.is_fenced())
                }
                Some(_) => false,
            };
            check(right, || {
                format!("{}, fenced: {fenced}, the disk being well again: {refused:?}", partition.key())
            })?;
        }
        self.read(life)
    }

    fn start_again(&mut self, keep: Option<&Keep>) -> Result<(), String> {
        let mut run = self.run.fork();
        match keep {
            Some(keep) => run.disk.power_up_with(keep),
            None => run.disk.restart_process(),
        }
        let life = run.start_once(keep.is_some())?.ok_or("a start on a sound disk is refused")?;
        run.look_up(&life)?;
        run.start_twice(&life)?;
        run.goes_on(life)
    }
}

/// Reads all that is visible: an error is an answer, other bytes are not.
fn read_all(partition: &Partition, batches: &[Batch]) -> Result<Option<ReadError>, String> {
    let (mut wanted, mut from) = (batches.iter(), 0);
    loop {
        let read = match partition.read(from, 64 * 1024, false) {
            Ok(read) => read,
            Err(error) => return Ok(Some(error)),
        };
        if read.next_offset == from {
            return Ok(None);
        }
        compare_runs(partition.key(), &read.batches, &mut wanted)?;
        from = read.next_offset;
    }
}

/// Every call of a kind fails, one after the other.
fn every(op: Op, error: Errno) -> Count {
    let plan = Plan::small();
    let (mut sum, mut wrong) = (Count::default(), Vec::new());
    for lasting in [false, true] {
        for after in 0.. {
            let fault = Fault { op, after, lasting, error };
            let trial = Trial::new(&plan, fault, None);
            let disk = trial.run.disk.clone();
            let told = |what: String| {
                let calls = disk.failed_calls();
                let (first, last) = (calls.first(), calls.last().filter(|_| calls.len() > 1));
                format!("{op:?} {after}, lasting: {lasting}: {what}; {first:?} .. {last:?}")
            };
            match trial.go() {
                Ok((_, false)) => break,
                Ok((count, true)) => sum.add(&count),
                Err(what) => {
                    if wrong.is_empty() {
                        let mut line = |line: &str| println!("{line}");
                        let _the_same_again = Trial::new(&plan, fault, Some(&mut line)).go();
                    }
                    wrong.push(told(what));
                }
            }
            if disk.failed_calls().is_empty() {
                break;
            }
        }
    }
    println!("{op:?} {error}: {sum:?}");
    assert!(sum.runs > 0, "{op:?} is never asked for");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sum.runs, wrong.join("\n"));
    sum
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.refused += other.refused;
        self.fenced += other.fenced;
        self.ended += other.ended;
        self.starts_refused += other.starts_refused;
        self.unread += other.unread;
    }
}

#[test]
fn every_open() {
    every(Op::Open, Errno::IO);
    every(Op::Open, Errno::MFILE);
}

#[test]
fn every_create() {
    every(Op::Create, Errno::IO);
    every(Op::Create, Errno::MFILE);
    every(Op::Create, Errno::NOSPC);
}

#[test]
fn every_short_write() {
    every(Op::Write, Errno::IO);
}

#[test]
fn every_write_to_a_full_disk() {
    every(Op::Write, Errno::NOSPC);
}

#[test]
fn every_flush() {
    every(Op::Sync, Errno::IO);
}

#[test]
fn every_allocation() {
    every(Op::Allocate, Errno::NOSPC);
    every(Op::Allocate, Errno::IO);
}

#[test]
fn every_rename() {
    every(Op::Rename, Errno::IO);
}

#[test]
fn every_removal() {
    every(Op::Remove, Errno::IO);
    every(Op::RemoveDir, Errno::IO);
}

#[test]
fn every_flush_of_a_directory() {
    every(Op::SyncDir, Errno::IO);
}

#[test]
fn every_view() {
    every(Op::View, Errno::IO);
}

#[test]
fn every_read() {
    every(Op::Read, Errno::IO);
}

#[test]
fn every_other_call() {
    every(Op::CreateDir, Errno::NOSPC);
    every(Op::List, Errno::IO);
    every(Op::Len, Errno::IO);
    every(Op::Zero, Errno::IO);
    every(Op::SetLen, Errno::IO);
}
