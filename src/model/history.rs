//! One history: random work, a cut or a kill at a random call, recovery, the oracle; several times over.

use annals_wire::{header::Attributes, ids::TopicId, v1};
use bytes::Bytes;
use prost::Message;

use super::{
    disk::PowerDisk,
    oracle::{Attempts, Oracle},
    rng::Rng,
};
use crate::{
    clock::ManualClock,
    storage::{
        Append, AppendError, Appended, Change, Class, CommitError, Level, Machine, Mode, Options, Partition,
        PartitionKey, PartitionSettings, Receipt, Section, Step, Storage,
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

/// The partitions of a history: two at fsync, one at interval, one at os.
const TOPICS: [(u8, u32, Level); 3] = [(1, 2, Level::Fsync), (2, 1, Level::Interval), (3, 1, Level::Os)];
const PARTITIONS: [(u8, u32); 4] = [(1, 0), (1, 1), (2, 0), (3, 0)];
/// Partitions of an atomic group.
const GROUP: [(u8, u32); 3] = [(1, 0), (2, 0), (3, 0)];
/// Cuts and kills of one history.
const LIVES: usize = 5;

/// A state machine that is nothing but the list of its entries.
#[derive(Clone, Debug, Default)]
struct Listed(Vec<(u64, u64)>);

impl Machine for Listed {
    fn restore(&mut self, section: &Section) -> Result<(), String> {
        let number =
            |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).unwrap_or_default();
        self.0.extend(
            section.bytes.chunks(16).map(|line| (number(line), number(line.get(8..).unwrap_or_default()))),
        );
        Ok(())
    }

    fn apply(&mut self, number: u64, entry: &[u8]) -> Result<(), String> {
        let value = entry.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).ok_or("a short entry")?;
        if self.0.last().is_none_or(|(last, _)| *last < number) {
            self.0.push((number, value));
        }
        Ok(())
    }

    fn lower_commits(&mut self, _end: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn capture(&self, number: u64) -> Vec<Section> {
        let lines = self.0.iter().flat_map(|(number, value)| [number.to_le_bytes(), value.to_le_bytes()]);
        vec![Section { number, bytes: lines.flatten().collect() }]
    }
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
    options: Options,
    oracle: Oracle,
    outcome: Outcome,
    trace: Vec<String>,
    counter: u64,
    groups: u64,
    fixed_size: bool,
    /// Times a topic was declared: an id is never used twice.
    declared: [u8; 4],
}

/// A life of the broker.
struct Life {
    storage: Arc<Storage>,
    listed: Arc<Mutex<Listed>>,
    waiting: Vec<Waiting>,
}

/// Runs one history.
pub fn run(seed: u64) -> Result<Outcome, Failure> {
    let mut rng = Rng::new(seed);
    let options = Options {
        inline_bytes: [0, 600, 5000].get(rng.below(3)).copied().unwrap_or_default(),
        ring_bytes: 320 * 1024,
        ring_file_bytes: 40 * 1024,
        pending_bytes: 20 * 1024,
        snapshot_bytes: 64 * 1024,
        keep_free_bytes: 0,
        flush_helpers: 0,
        open_segments: 2,
        ..Options::default()
    };
    let mut history = Run {
        disk: PowerDisk::new(rng.next()),
        clock: Arc::new(ManualClock::new(1_700_000_000_000, rng.next())),
        options,
        oracle: Oracle::default(),
        outcome: Outcome::default(),
        trace: Vec::new(),
        counter: 0,
        groups: 0,
        fixed_size: rng.one_in(2),
        declared: [0; 4],
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
        for (topic, partitions, level) in TOPICS {
            for partition in 0..partitions {
                let attempts = Attempts { level, values: Vec::new(), durable: 0, acked: 0 };
                self.oracle.logs.insert((topic, partition), attempts);
            }
        }
        let mut power_cut = true;
        for _ in 0..LIVES {
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
        key_of(self.declared, topic, partition)
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
            if self.rng.one_in(3) {
                self.disk.cut_after(self.rng.next() % 120);
            }
            let mut listed = Listed::default();
            let disk = Arc::new(self.disk.clone());
            match Storage::open(disk, Arc::clone(&self.clock) as _, self.options, &mut listed) {
                Ok((storage, report)) => {
                    self.note(|| format!("recovered: {report:?}"));
                    if !report.damages.is_empty() {
                        return Err(format!("damage that no cut can make: {:?}", report.damages));
                    }
                    self.outcome.recoveries += 1;
                    self.disk.cut_after(u64::MAX);
                    let states: Vec<u64> = listed.0.iter().map(|(_, value)| *value).collect();
                    let declared = self.declared;
                    let partition = |topic, partition| storage.partition(key_of(declared, topic, partition));
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
        for (topic, partitions, level) in TOPICS {
            if life.storage.partition(self.key(topic, 0)).is_none() {
                if let Some(times) = self.declared.get_mut(usize::from(topic)) {
                    *times += 1;
                }
                let settings =
                    PartitionSettings { level, segment_bytes: 4096, interval_ms: 100, interval_bytes: 3000 };
                let change = Change::Declare { topic: self.key(topic, 0).topic, partitions, settings };
                if let Ok(room) = life.storage.reserve(8192, Class::Control) {
                    let _dead_disks_refuse = life.storage.submit(room, vec![change]);
                }
            }
        }
        self.disk.cut_after(self.rng.next() % 600);
        if self.rng.one_in(10) {
            self.disk.fail_flush_after(self.rng.next() % 12);
        }
        let steps = 10 + self.rng.below(150);
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
        if self.rng.one_in(6) && life.storage.failure().is_none() {
            life.storage.commit_step();
            self.collect(life);
            self.snapshot(life, true);
            self.note(|| "an orderly end".into());
        }
        // After a failed flush, only a power cut shows what the disk really has; both must be survived.
        self.rng.one_in(2)
    }

    fn step(&mut self, life: &mut Life) {
        match self.rng.below(30) {
            0..=11 => {
                let at = PARTITIONS.get(self.rng.below(4)).copied().unwrap_or_default();
                let level = if self.rng.one_in(3) { Level::Fsync } else { Level::Os };
                self.append(life, &[at], Mode { level, atomic: false });
            }
            12..=13 => self.append(life, &GROUP, Mode { level: Level::Fsync, atomic: true }),
            14..=15 => self.state(life),
            16..=21 => {
                let step = life.storage.commit_step();
                self.note(|| format!("commit: {step:?}"));
            }
            22 => {
                if life.storage.idle_step() == Step::Committed {
                    self.note(|| "idle frame".into());
                }
            }
            23..=24 => self.snapshot(life, false),
            25..=26 => {
                while life.storage.upkeep_step() {}
                life.storage.close_step();
                self.note(|| "upkeep".into());
            }
            27 => {
                let grown = life.storage.grow_step();
                self.note(|| format!("ring growth: {grown:?}"));
            }
            _ => {
                self.clock.advance(std::time::Duration::from_millis(150));
                life.storage.interval_step();
                self.note(|| "interval".into());
            }
        }
    }

    fn value(&mut self) -> Vec<u8> {
        self.counter += 1;
        let size = if self.fixed_size { 120 } else { self.rng.below(1400) };
        let mut value = self.counter.to_le_bytes().to_vec();
        value.resize(8 + size, b'v');
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
            self.oracle.group_state.insert(group, state);
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
            let receipt = Receipt { appended: Vec::new(), ack: number, first_entry: number };
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

fn key_of(declared: [u8; 4], topic: u8, partition: u32) -> PartitionKey {
    let mut id = [topic; 16];
    id[15] = declared.get(usize::from(topic)).copied().unwrap_or_default();
    PartitionKey { topic: TopicId(id), partition }
}

fn payload(value: &[u8]) -> Bytes {
    let record = v1::Record { value: Some(Bytes::copy_from_slice(value)), ..Default::default() };
    Bytes::from(v1::RecordBatch { records: vec![record], ..Default::default() }.encode_to_vec())
}

fn part<'a>(partition: &'a Arc<Partition>, payload: &'a [Bytes; 1]) -> Append<'a> {
    let [bytes] = payload;
    Append {
        partition,
        payload,
        payload_len: bytes.len(),
        record_count: 1,
        max_timestamp_ms: 0,
        timestamps_missing: true,
        records_crc32: crc32fast::hash(bytes),
        attributes: Attributes(0),
        expected_next_offset: None,
    }
}

/// Appends as a broker does: room first, then locks, preparing where that is needed. `None` = refused.
fn try_append(
    storage: &Arc<Storage>,
    appends: &[Append<'_>],
    mode: Mode,
    state: Option<u64>,
) -> Option<Receipt> {
    for _ in 0..8 {
        let bytes = appends.iter().map(|append| append.payload_len as u64 + 512).sum::<u64>() + 8192;
        let room = storage.reserve(bytes, Class::Data).ok()?;
        let mut entries = |_: &[Appended]| state.iter().map(|state| state.to_le_bytes().to_vec()).collect();
        match storage.append(room, appends, mode, &mut entries) {
            Err(AppendError::NotPrepared { batch }) => {
                let append = appends.get(batch)?;
                storage.prepare(append.partition, append.payload_len as u64 + 81).ok()?;
            }
            other => return other.ok(),
        }
    }
    None
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
