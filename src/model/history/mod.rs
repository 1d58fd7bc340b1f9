//! One history: random work, a cut or a kill at a random call, recovery, the oracle; several times over.

mod batch;
mod listed;

use annals_wire::ids::TopicId;
use bytes::Bytes;

use batch::{part, payload, try_append};
use listed::Listed;

use super::{
    disk::PowerDisk,
    oracle::{Attempts, Oracle},
    plan::{Often, Plan, TopicPlan, Values},
    rng::Rng,
};
use crate::{
    clock::ManualClock,
    storage::{
        Append, Change, Class, CommitError, Level, Machine as _, Mode, Outcomes, Partition, PartitionKey,
        PartitionSettings, Receipt, Step, Storage,
    },
    sync::{Arc, Mutex},
};

/// What a history came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Times the power went.
    pub cuts: u64,
    /// Of these, while recovery was at work.
    pub cuts_in_recovery: u64,
    /// Times the process was killed.
    pub kills: u64,
    /// Recoveries that came to an end.
    pub recoveries: u64,
    /// Batches acked.
    pub acked: u64,
    /// A hash over all that was seen at the end.
    pub fingerprint: u32,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// Which promise.
    pub what: String,
    /// What was done, step by step.
    pub trace: Vec<String>,
}

/// What waits for its ack.
struct Waiting {
    receipt: Receipt,
    /// Partition and end of each part.
    ends: Vec<((u8, u32), usize)>,
    state: Option<u64>,
    /// The level the ack names; a group's is fsync.
    level: Level,
}

struct Run {
    rng: Rng,
    disk: PowerDisk,
    clock: Arc<ManualClock>,
    plan: Plan,
    oracle: Oracle,
    outcome: Outcome,
    trace: Vec<String>,
    counter: u64,
    groups: u64,
    /// Times each topic was declared: an id is never used twice.
    declared: Vec<u8>,
}

/// What is done next.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Append,
    Group,
    State,
    Commit,
    Idle,
    Snapshot,
    Upkeep,
    Grow,
    Interval,
}

fn choose(rng: &mut Rng, often: &Often) -> Deed {
    let weights = [
        (often.append, Deed::Append),
        (often.group, Deed::Group),
        (often.state, Deed::State),
        (often.commit, Deed::Commit),
        (often.idle, Deed::Idle),
        (often.snapshot, Deed::Snapshot),
        (often.upkeep, Deed::Upkeep),
        (often.grow, Deed::Grow),
        (often.interval, Deed::Interval),
    ];
    let mut at = rng.below(weights.iter().map(|(weight, _)| weight).sum());
    for (weight, deed) in weights {
        if at < weight {
            return deed;
        }
        at -= weight;
    }
    Deed::Commit
}

/// A life of the broker.
struct Life {
    storage: Arc<Storage>,
    listed: Arc<Mutex<Listed>>,
    waiting: Vec<Waiting>,
}

/// Runs the history that a seed stands for.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    run_with(seed, &Plan::of(seed))
}

/// Runs a history of a given kind.
pub fn run_with(seed: u64, plan: &Plan) -> Result<Outcome, Failure> {
    let mut rng = Rng::new(seed);
    let mut history = Run {
        disk: PowerDisk::new(rng.next()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000, rng.next())),
        plan: plan.clone(),
        oracle: Oracle::default(),
        outcome: Outcome::default(),
        trace: Vec::new(),
        counter: 0,
        groups: 0,
        declared: vec![0; plan.topics.len()],
        rng,
    };
    match history.lives() {
        Ok(()) => {
            history.outcome.fingerprint = history.disk.fingerprint();
            Ok(history.outcome)
        }
        Err(what) => Err(Failure { seed, what, trace: history.trace }),
    }
}

impl Run {
    fn lives(&mut self) -> Result<(), String> {
        for (topic, TopicPlan { partitions, level, .. }) in (0..).zip(&self.plan.topics) {
            for partition in 0..*partitions {
                let attempts = Attempts { level: *level, values: Vec::new(), durable: 0, acked: 0 };
                self.oracle.logs.insert((topic, partition), attempts);
            }
        }
        let mut power_cut = true;
        for _ in 0..self.plan.lives {
            let mut life = self.start(power_cut)?;
            power_cut = self.live(&mut life);
            drop(life);
            self.end(power_cut);
        }
        let life = self.start(power_cut)?;
        drop(life);
        // A start that changes nothing but the epoch: all that was found is found again.
        self.end(false);
        self.start(false).map(drop)
    }

    fn key(&self, topic: u8, partition: u32) -> PartitionKey {
        key_of(&self.declared, topic, partition)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace.len() < 4000 {
            self.trace.push(what());
        }
    }

    fn end(&mut self, power_cut: bool) {
        if power_cut {
            self.outcome.cuts += 1;
            self.disk.power_up();
        } else {
            self.outcome.kills += 1;
            self.disk.restart_process();
        }
        self.note(|| if power_cut { "the power goes".into() } else { "kill -9".into() });
    }

    /// Starts until a start comes to an end, and judges it. `power_cut`: some cut came since the last judgement.
    fn start(&mut self, mut power_cut: bool) -> Result<Life, String> {
        loop {
            if self.rng.one_in(self.plan.start_cut_one_in) {
                self.disk.cut_after(self.rng.next() % 120);
            }
            let mut listed = Listed::default();
            let disk = Arc::new(self.disk.clone());
            match Storage::open(disk, Arc::clone(&self.clock) as _, self.plan.options, &mut listed) {
                Ok((storage, report)) => {
                    self.note(|| format!("recovered: {report:?}"));
                    if !report.damages.is_empty() {
                        return Err(format!("damage that no cut can make: {:?}", report.damages));
                    }
                    self.outcome.recoveries += 1;
                    self.disk.cut_after(u64::MAX);
                    let states: Vec<u64> = listed.0.iter().map(|(_, value)| *value).collect();
                    let declared = self.declared.clone();
                    let partition = |topic, partition| storage.partition(key_of(&declared, topic, partition));
                    self.oracle.judge(power_cut, report.epoch, &states, &partition)?;
                    return Ok(Life { storage, listed: Arc::new(Mutex::new(listed)), waiting: Vec::new() });
                }
                Err(error) if self.disk.is_dead() => {
                    self.note(|| format!("start cut: {error}"));
                    self.outcome.cuts_in_recovery += 1;
                    let cut = !self.rng.one_in(4);
                    power_cut |= cut;
                    self.end(cut);
                }
                Err(error) => return Err(format!("the start refused: {error}")),
            }
        }
    }

    /// Works until the power goes or the process is killed; tells which.
    fn live(&mut self, life: &mut Life) -> bool {
        self.declare(life);
        self.disk.cut_after(self.rng.next() % self.plan.calls.max(1));
        if self.rng.one_in(self.plan.flush_fails_one_in) {
            self.disk.fail_flush_after(self.rng.next() % 12);
        }
        let steps = 10 + self.rng.below(self.plan.steps);
        for _ in 0..steps {
            self.step(life);
            self.collect(life);
            if self.disk.is_dead() {
                return true;
            }
            if life.storage.failure().is_some() {
                break;
            }
        }
        if self.rng.one_in(self.plan.orderly_one_in) && life.storage.failure().is_none() {
            life.storage.commit_step();
            self.collect(life);
            self.snapshot(life, true);
            self.note(|| "an orderly end".into());
        }
        // After a failed flush, only a power cut shows what the disk really has; both must be survived.
        self.rng.below(100) >= self.plan.kill_percent
    }

    /// Makes the topics that are not there.
    fn declare(&mut self, life: &Life) {
        for (topic, wanted) in (0_u8..).zip(self.plan.topics.clone()) {
            if life.storage.partition(self.key(topic, 0)).is_some() {
                continue;
            }
            if let Some(times) = self.declared.get_mut(usize::from(topic)) {
                *times += 1;
            }
            let settings = PartitionSettings {
                level: wanted.level,
                segment_bytes: wanted.segment_bytes,
                interval_ms: wanted.interval_ms,
                interval_bytes: wanted.interval_bytes,
            };
            let id = self.key(topic, 0).topic;
            let change = Change::Declare { topic: id, partitions: wanted.partitions, settings };
            if let Ok(room) = life.storage.reserve(8192, Class::Control) {
                let _dead_disks_refuse = life.storage.submit(room, vec![change]);
            }
        }
    }

    fn step(&mut self, life: &mut Life) {
        match choose(&mut self.rng, &self.plan.often) {
            Deed::Append => {
                let at = self.anywhere();
                let level = if self.rng.one_in(3) { Level::Fsync } else { Level::Os };
                self.append(life, &[at], Mode { level, atomic: false });
            }
            Deed::Group => {
                let to: Vec<(u8, u32)> = (0..).zip(&self.plan.topics).map(|(topic, _)| (topic, 0)).collect();
                self.append(life, &to, Mode { level: Level::Fsync, atomic: true });
            }
            Deed::State => self.state(life),
            Deed::Commit => {
                let step = life.storage.commit_step();
                self.note(|| format!("commit: {step:?}"));
            }
            Deed::Idle => {
                if life.storage.idle_step() == Step::Committed {
                    self.note(|| "idle frame".into());
                }
            }
            Deed::Snapshot => self.snapshot(life, false),
            Deed::Upkeep => {
                while life.storage.upkeep_step() {}
                life.storage.close_step();
                self.note(|| "upkeep".into());
            }
            Deed::Grow => {
                let grown = life.storage.grow_step();
                self.note(|| format!("ring growth: {grown:?}"));
            }
            Deed::Interval => {
                self.clock.advance(std::time::Duration::from_millis(150));
                life.storage.interval_step();
                self.note(|| "interval".into());
            }
        }
    }

    fn anywhere(&mut self) -> (u8, u32) {
        let topic = self.rng.below(self.plan.topics.len());
        let partitions = self.plan.topics.get(topic).map_or(1, |topic| topic.partitions);
        let partition = self.rng.below(usize::try_from(partitions).unwrap_or(1));
        (u8::try_from(topic).unwrap_or(0), u32::try_from(partition).unwrap_or(0))
    }

    fn value(&mut self) -> Vec<u8> {
        self.counter += 1;
        let size = match self.plan.values {
            Values::Fixed(bytes) => bytes,
            Values::Below(bytes) => self.rng.below(bytes),
        };
        let mut value = self.counter.to_le_bytes().to_vec();
        value.resize(size.max(8), b'v');
        value
    }

    fn append(&mut self, life: &mut Life, to: &[(u8, u32)], mode: Mode) {
        let partitions: Vec<Arc<Partition>> = to
            .iter()
            .filter_map(|(topic, number)| life.storage.partition(self.key(*topic, *number)))
            .collect();
        if partitions.len() < to.len() {
            return;
        }
        let values: Vec<Vec<u8>> = to.iter().map(|_| self.value()).collect();
        let payloads: Vec<[Bytes; 1]> = values.iter().map(|value| [payload(value)]).collect();
        let appends: Vec<Append<'_>> =
            partitions.iter().zip(&payloads).map(|(p, payload)| part(p, payload)).collect();
        let state = mode.atomic.then_some(self.oracle.last_state + 1);
        let Some(receipt) = try_append(&life.storage, &appends, mode, state) else { return };
        self.note(|| format!("append to {to:?} at {mode:?}: {:?}", receipt.appended));
        let group = mode.atomic.then(|| {
            self.groups += 1;
            self.groups
        });
        let mut ends = Vec::new();
        for (at, value) in to.iter().zip(values) {
            if let Some(log) = self.oracle.logs.get_mut(at) {
                log.values.push((value, group));
                ends.push((*at, log.values.len()));
            }
        }
        if let (Some(group), Some(state)) = (group, state) {
            self.oracle.last_state = state;
            self.oracle.group_state.insert(group, (state, to.len()));
            life.listed.lock().0.push((receipt.first_entry, state));
        }
        let level = receipt.appended.iter().map(|appended| appended.level).min().unwrap_or(Level::Os);
        life.waiting.push(Waiting { receipt, ends, state, level });
    }

    fn state(&mut self, life: &mut Life) {
        let Ok(room) = life.storage.reserve(8192, Class::Control) else { return };
        let value = self.oracle.last_state + 1;
        if let Ok(number) = life.storage.submit(room, vec![Change::State(value.to_le_bytes().to_vec())]) {
            self.oracle.last_state = value;
            life.listed.lock().0.push((number, value));
            let receipt = Receipt { appended: Outcomes::new(), ack: number, first_entry: number };
            life.waiting.push(Waiting { receipt, ends: Vec::new(), state: Some(value), level: Level::Fsync });
            self.note(|| format!("state {value}"));
        }
    }

    fn snapshot(&mut self, life: &Life, last: bool) {
        let source = || life.listed.lock().capture(life.storage.last_number());
        let written = life.storage.snapshot_write(&source);
        if let Ok(Some(written)) = &written {
            let finished = life.storage.snapshot_finish(written, last);
            self.note(|| format!("snapshot: {finished:?}"));
        }
    }

    /// Takes note of what was acked.
    fn collect(&mut self, life: &mut Life) {
        let (oracle, outcome) = (&mut self.oracle, &mut self.outcome);
        life.waiting.retain(|waiting| {
            let fate = Arc::new(Mutex::new(None));
            let told = Arc::clone(&fate);
            life.storage.on_durable(waiting.receipt.ack, Box::new(move |result| *told.lock() = Some(result)));
            let fate = *fate.lock();
            if fate == Some(Ok(())) {
                outcome.acked += 1;
                for (at, end) in &waiting.ends {
                    if let Some(log) = oracle.logs.get_mut(at) {
                        log.acked = log.acked.max(*end);
                        if waiting.level == Level::Fsync {
                            log.durable = log.durable.max(*end);
                        }
                    }
                }
                oracle.acked_states.extend(waiting.state);
            } else if fate == Some(Err(CommitError::Fenced)) {
                oracle.failed_states.extend(waiting.state);
            }
            fate.is_none()
        });
    }
}

fn key_of(declared: &[u8], topic: u8, partition: u32) -> PartitionKey {
    let mut id = [topic + 1; 16];
    id[15] = declared.get(usize::from(topic)).copied().unwrap_or_default();
    PartitionKey { topic: TopicId(id), partition }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_history() {
        for seed in 1..20 {
            assert_eq!(run(seed).unwrap(), run(seed).unwrap());
        }
    }

    #[test]
    fn nothing_acked_is_lost() {
        let seeds =
            std::env::var("ANNALS_MODEL_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000);
        let mut sum = Outcome::default();
        for seed in 1..=seeds {
            match run(seed) {
                Ok(outcome) => {
                    sum.cuts += outcome.cuts;
                    sum.cuts_in_recovery += outcome.cuts_in_recovery;
                    sum.acked += outcome.acked;
                }
                Err(failure) => panic!("{failure}\n{}", failure.trace.join("\n")),
            }
        }
        // The model must have done something.
        assert!(sum.cuts > seeds && sum.cuts_in_recovery > seeds / 2 && sum.acked > 5 * seeds, "{sum:?}");
    }
}
