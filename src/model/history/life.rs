//! A life of the broker: its steps, in any order, each watched by the oracle.

use annals_wire::internal::{RequestDone, StepDone, request_done, state_entry::Body};

use super::{Doing, Run, again::is_unknown, batch::Draft};
use crate::{
    clock::Clock as _,
    model::{
        disk::Fault,
        oracle::{Item, Part, check},
        plan::{Often, Values},
        rng::Rng,
    },
    state::{State, write_entry},
    storage::{
        AppendError, Appended, Class, CommitError, Level, Machine as _, Mode, NoRoom, Partition, Receipt,
        Step, Storage, Written,
    },
    sync::{Arc, Mutex, Ordering},
};

type Fates = Arc<Mutex<Vec<(usize, Result<(), CommitError>)>>>;

/// Why an append was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::model) enum Refused {
    /// The journal has none.
    NoRoom(NoRoom),
    /// The partition, or the disk.
    Error(AppendError),
}

/// A life of the broker.
pub(in crate::model) struct Life {
    pub(in crate::model) storage: Arc<Storage>,
    pub(super) state: State,
    /// Of the topics that are there.
    pub(in crate::model) partitions: Vec<Arc<Partition>>,
    pub(super) doing: Doing,
    /// A snapshot that has no name yet.
    written: Option<(Written, u64)>,
    /// Why the last append that was not taken was not.
    pub(in crate::model) refused: Option<Refused>,
    /// Fates of items, by their place in the oracle's list, that were told since the last look.
    fates: Fates,
}

impl Life {
    pub(super) fn new(storage: Arc<Storage>, state: State) -> Self {
        let mut life = Self {
            storage,
            state,
            partitions: Vec::new(),
            doing: Doing::Other,
            written: None,
            refused: None,
            fates: Fates::default(),
        };
        life.find_partitions();
        life
    }

    pub(super) fn find_partitions(&mut self) {
        let topics = self.state.topics.iter();
        self.partitions = topics.flat_map(|topic| self.storage.partitions(&topic.id)).collect();
    }

    pub(super) fn apply(&mut self, entries: &Vec<(u64, Body)>) {
        for (number, body) in entries {
            self.state.apply(*number, body).expect("the model decides only what can follow");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Append,
    Group,
    State,
    Create,
    Delete,
    Read,
    Commit,
    Idle,
    Snapshot,
    Upkeep,
    Grow,
    Interval,
    Relevel,
}

fn choose(rng: &mut Rng, often: &Often) -> Deed {
    let weights = [
        (often.append, Deed::Append),
        (often.group, Deed::Group),
        (often.state, Deed::State),
        (often.create, Deed::Create),
        (often.delete, Deed::Delete),
        (often.read, Deed::Read),
        (often.commit, Deed::Commit),
        (often.idle, Deed::Idle),
        (often.snapshot, Deed::Snapshot),
        (often.upkeep, Deed::Upkeep),
        (often.grow, Deed::Grow),
        (often.interval, Deed::Interval),
        (often.relevel, Deed::Relevel),
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

impl Run<'_> {
    /// Works until the power goes, the journal fails or it has done enough.
    pub(super) fn live(&mut self, life: &mut Life) -> Result<(), String> {
        if self.rng.one_in(self.plan.flip_one_in) {
            self.flip(life, true)?;
        }
        self.create_missing(life, self.outcome.recoveries == 1);
        self.disk.cut_after(self.rng.next() % self.plan.calls.max(1));
        if self.rng.one_in(self.plan.flush_fails_one_in) {
            self.disk.set_fault(Some(Fault::flush_after(self.rng.next() % 12)));
        }
        for _ in 0..10 + self.rng.below(self.plan.steps) {
            life.doing = Doing::Other;
            self.step(life)?;
            self.watch(life)?;
            if self.disk.is_dead() || life.storage.failure().is_some() {
                return Ok(());
            }
        }
        if self.rng.one_in(self.plan.flip_one_in) {
            self.settle(life)?;
            if !self.disk.is_dead() && !self.disk.flush_failed() {
                self.flip(life, false)?;
            }
        }
        if self.rng.one_in(self.plan.orderly_one_in) {
            self.settle(life)?;
            life.doing = Doing::Snapshot;
            life.written = None;
            self.snapshot(life, true);
            self.outcome.orderly += u64::from(!self.disk.is_dead());
            self.note(|| "an orderly end".into());
        }
        Ok(())
    }

    /// All that was taken becomes durable, and is proven to be.
    pub(super) fn settle(&mut self, life: &mut Life) -> Result<(), String> {
        life.doing = Doing::Other;
        self.commit(life);
        life.storage.idle_step();
        self.watch(life)
    }

    fn step(&mut self, life: &mut Life) -> Result<(), String> {
        let deed = choose(&mut self.rng, &self.plan.often);
        let flushes = matches!(deed, Deed::Commit | Deed::Snapshot | Deed::Upkeep);
        let somebody = if flushes { self.meanwhile(life) } else { None };
        self.carry_out(life, deed)?;
        somebody.map_or(Ok(()), |somebody| self.after_meanwhile(life, somebody))
    }

    fn carry_out(&mut self, life: &mut Life, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::Append => {
                if let Some(to) = self.anywhere(life) {
                    let wishes = self.rng.below(100) < self.plan.wish_percent;
                    let level = if wishes { Level::Fsync } else { Level::Os };
                    self.append(life, &[to], Mode { level, atomic: false }, self.plan.values, None)?;
                }
            }
            Deed::Group => {
                let mut to: Vec<Arc<Partition>> = (0..3).filter_map(|_| self.anywhere(life)).collect();
                to.sort_unstable_by_key(|partition| partition.key());
                to.dedup_by_key(|partition| partition.key());
                let mode = Mode { level: Level::Fsync, atomic: !self.rng.one_in(4) };
                if !to.is_empty() {
                    self.append(life, &to, mode, self.plan.values, None)?;
                }
            }
            Deed::State => self.commit_offsets(life),
            Deed::Create => self.create_or_widen(life),
            Deed::Delete => self.delete(life),
            Deed::Read => return self.read(life),
            Deed::Commit => self.commit(life),
            Deed::Idle => {
                let step = life.storage.idle_step();
                self.note(|| format!("idle: {step:?}"));
            }
            Deed::Snapshot => {
                life.doing = Doing::Snapshot;
                self.snapshot(life, false);
            }
            Deed::Upkeep => self.upkeep(life),
            Deed::Grow => self.grow(life),
            Deed::Interval => self.interval(life),
            Deed::Relevel => self.relevel(life),
        }
        Ok(())
    }

    pub(super) fn upkeep(&mut self, life: &mut Life) {
        life.doing = Doing::Upkeep;
        while life.storage.upkeep_step() {}
        life.storage.close_step();
        self.note(|| "upkeep".into());
    }

    pub(super) fn grow(&mut self, life: &mut Life) {
        life.doing = Doing::Grow;
        let grown = life.storage.grow_step();
        self.note(|| format!("ring growth: {grown:?}"));
    }

    pub(super) fn anywhere(&mut self, life: &Life) -> Option<Arc<Partition>> {
        life.partitions.get(self.rng.below(life.partitions.len())).cloned()
    }

    pub(super) fn commit(&mut self, life: &mut Life) {
        let step = life.storage.commit_step();
        self.note(|| format!("commit: {step:?}"));
        if step != Step::Committed {
            return;
        }
        // Sync points that were asked for are in the journal now.
        for partition in life.partitions.iter().filter(|partition| !partition.is_fenced()) {
            if let Some(log) = self.oracle.logs.get_mut(&partition.key()) {
                log.durable = log.durable.max(log.asked);
            }
        }
    }

    /// Time passes: all that was appended so far is due for a sync point.
    pub(super) fn interval(&mut self, life: &mut Life) {
        self.clock.advance(std::time::Duration::from_millis(150));
        let weak: Vec<_> = life.partitions.iter().filter(|p| p.level() == Level::Interval).collect();
        // Without room in the journal the next tick asks again, and nothing is promised yet.
        // Those of another level by now may have one to come, too.
        let asking = |partition: &&Arc<Partition>| partition.sync_asked.load(Ordering::Acquire);
        let asked = life.partitions.iter().filter(asking).count() as u64;
        let sure = life.storage.reserve(8192 * asked, Class::Control).is_ok();
        life.storage.interval_step();
        for partition in weak.iter().filter(|_| sure) {
            if let Some(log) = self.oracle.logs.get_mut(&partition.key()) {
                log.asked = log.batches.len();
            }
        }
        self.note(|| format!("sync points, all of them: {sure}"));
    }

    /// Writes a snapshot; it gets its name at once or later, or, if the commit cycle is late, not at all.
    fn snapshot(&mut self, life: &mut Life, last: bool) {
        if life.written.is_none() {
            self.write_snapshot(life);
            if !last && self.rng.one_in(2) {
                return;
            }
        }
        self.finish_snapshot(life, last);
    }

    pub(super) fn write_snapshot(&mut self, life: &mut Life) {
        let given = self.disk.work().written;
        let source = || life.state.capture(life.storage.last_number());
        let written = life.storage.snapshot_write(&source);
        self.note(|| format!("snapshot: {written:?}"));
        life.written = written.ok().flatten().map(|written| (written, given));
    }

    pub(super) fn finish_snapshot(&mut self, life: &mut Life, last: bool) {
        if let Some((written, given)) = life.written.take() {
            let finished = life.storage.snapshot_finish(&written, last);
            self.note(|| format!("snapshot in place: {finished:?}"));
            if matches!(finished, Ok(true)) {
                self.captured = [self.captured[1], given];
            }
        }
    }

    /// Appends as the broker does, with committed offsets or not, or, for a group, mostly: room first, then locks, room ahead where there is none.
    pub(super) fn append(
        &mut self,
        life: &mut Life,
        to: &[Arc<Partition>],
        mode: Mode,
        values: Values,
        with_entries: Option<bool>,
    ) -> Result<(), String> {
        let now_ms = self.clock.wall_ms();
        let mut drafts: Vec<Draft> = to
            .iter()
            .map(|to| Draft::new(&mut self.rng, Arc::clone(to), values, &mut self.records, now_ms))
            .collect();
        let with_entries = with_entries.unwrap_or_else(|| mode.atomic && !self.rng.one_in(4));
        if let ([draft], false) = (&mut drafts[..], mode.atomic) {
            draft.sequence = self.next_sequence(draft.partition.key());
        }
        // A read-process-write step: outputs, input offsets, and what is answered.
        let offsets = if with_entries { self.offsets(life) } else { None };
        let step = offsets.map(|offsets| (offsets, self.request()));
        let id = step.as_ref().map(|(_, done)| done.0);
        let mut bodies = Vec::new();
        let mut entries = |appended: &[Appended]| {
            bodies = step
                .iter()
                .flat_map(|(offsets, done)| [offsets.clone(), answered(done, &drafts, appended)])
                .collect();
            bodies.iter().map(|body| write_entry(body.clone())).collect()
        };
        life.doing = Doing::Append;
        let receipt = match try_append(&life.storage, &drafts, mode, &mut entries) {
            Ok(receipt) => receipt,
            Err(refused) => {
                self.note(|| format!("append {mode:?}: {refused:?}"));
                check(!is_unknown(&refused), || format!("R6: {}: the next one: {refused:?}", places(to)))?;
                if self.disk.is_dead() {
                    // Nobody was answered, yet the batches may be there.
                    let item = self.attempt(life, &drafts, mode, id, Vec::new(), None)?;
                    self.oracle.items.push(item);
                }
                life.refused = Some(refused);
                return Ok(());
            }
        };
        self.note(|| format!("append {mode:?}, request {id:?}: {:?}", receipt.appended));
        check(receipt.appended.iter().all(|appended| !appended.duplicate), || {
            format!("R6: {}: what nobody sent is said to be stored", places(to))
        })?;
        let entries: Vec<(u64, Body)> = (receipt.first_entry..).zip(bodies).collect();
        life.apply(&entries);
        let item = self.attempt(life, &drafts, mode, id, entries, Some(&receipt))?;
        self.wait(life, item, receipt.ack);
        to.iter().try_for_each(|to| self.send_again(life, to))
    }

    /// Takes note of batches that were, or may have been, appended.
    pub(super) fn attempt(
        &mut self,
        life: &Life,
        drafts: &[Draft],
        mode: Mode,
        id: Option<u64>,
        entries: Vec<(u64, Body)>,
        receipt: Option<&Receipt>,
    ) -> Result<Item, String> {
        let (epoch, now_ms) = (life.storage.epoch(), self.clock.wall_ms());
        let mut parts = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let key = draft.partition.key();
            let Some(log) = self.oracle.logs.get_mut(&key) else { continue };
            let base = log.end();
            let appended: Option<&Appended> = receipt.and_then(|receipt| receipt.appended.get(index));
            if let Some(appended) = appended
                && (appended.base_offset, appended.append_time_ms, appended.leader_epoch)
                    != (base, now_ms, epoch)
            {
                return Err(format!("R4: {key}: {appended:?} where offset {base} is next"));
            }
            let level = appended.map_or(Level::Os, |appended| appended.level);
            parts.push(Part { key, index: log.batches.len(), level });
            log.batches.push(draft.expected(base, mode, epoch, now_ms));
        }
        let touches = drafts.iter().map(|draft| Arc::clone(&draft.partition)).collect();
        Ok(Item { id, entries, parts, touches, atomic: mode.atomic, acked: false, given_up: false })
    }

    /// Waits for an item's fate.
    pub(super) fn wait(&mut self, life: &Life, item: Item, number: u64) {
        let (index, fates) = (self.oracle.items.len(), Arc::clone(&life.fates));
        self.oracle.items.push(item);
        life.storage.on_durable(number, Box::new(move |fate| fates.lock().push((index, fate))));
    }

    /// What was told since the last look, and what readers may see now.
    pub(super) fn watch(&mut self, life: &Life) -> Result<(), String> {
        for (index, fate) in std::mem::take(&mut *life.fates.lock()) {
            match fate {
                Ok(()) => {
                    self.outcome.acked += 1;
                    self.oracle.acked(index)?;
                }
                Err(CommitError::Fenced) => {
                    if let Some(item) = self.oracle.items.get_mut(index) {
                        item.given_up = true;
                    }
                }
                Err(CommitError::Closed) => {}
            }
        }
        let alive = !self.disk.is_dead();
        for partition in &life.partitions {
            self.oracle.look(partition, alive)?;
        }
        self.oracle.failed |= life.storage.failure().is_some();
        Ok(())
    }

    fn read(&mut self, life: &Life) -> Result<(), String> {
        let Some(partition) = self.anywhere(life) else { return Ok(()) };
        let Some(log) = self.oracle.logs.get(&partition.key()) else { return Ok(()) };
        let upto = usize::try_from(partition.high_watermark()).unwrap_or_default();
        let from = i64::try_from(self.rng.below(upto + 1)).unwrap_or_default();
        let most = self.rng.pick(&[1, 3000, 65536]);
        let mut seen = log.check_read(&partition, from, most);
        if let Some(batch) = log.batches.get(self.rng.below(log.batches.len()))
            && seen.is_ok()
        {
            seen = log.check_time(&partition, batch.max_timestamp_ms + i64::from(self.rng.one_in(2)));
        }
        self.outcome.reads += 1;
        // A read that the cut interrupts fails, and nobody gets an answer.
        if self.disk.is_dead() { Ok(()) } else { seen }
    }

    /// At the end of a life: what may have been given up unsaid, and what was under way.
    pub(in crate::model) fn count_pending(&mut self) {
        for item in self.oracle.items.iter_mut().filter(|item| !item.acked && !item.given_up) {
            item.given_up = item.touches.iter().any(|partition| partition.is_fenced());
            self.outcome.cut_groups += u64::from(item.atomic);
            for (_, body) in &item.entries {
                match body {
                    Body::TopicCreated(_) | Body::TopicChanged(_) => self.outcome.cut_creations += 1,
                    Body::TopicDeleted(_) => self.outcome.cut_deletions += 1,
                    Body::OffsetsCommitted(_) => self.outcome.cut_commits += 1,
                    Body::GroupDeleted(_)
                    | Body::GroupConfigured(_)
                    | Body::GroupMoved(_)
                    | Body::RequestDone(_)
                    | Body::ProducerOpened(_)
                    | Body::ProducersExpired(_) => {}
                }
            }
        }
    }
}

/// What a step is answered, also when it is asked again.
fn answered(done: &(u64, RequestDone), drafts: &[Draft], appended: &[Appended]) -> Body {
    let outputs = drafts.iter().zip(appended).map(|(draft, appended)| draft.done(appended)).collect();
    Body::RequestDone(RequestDone {
        result: Some(request_done::Result::Step(StepDone { outputs })),
        ..done.1.clone()
    })
}

fn places(to: &[Arc<Partition>]) -> String {
    to.iter().map(|to| to.key().to_string()).collect::<Vec<_>>().join(", ")
}

pub(super) fn try_append(
    storage: &Arc<Storage>,
    drafts: &[Draft],
    mode: Mode,
    entries: &mut dyn FnMut(&[Appended]) -> Vec<Vec<u8>>,
) -> Result<Receipt, Refused> {
    let appends: Vec<_> = drafts.iter().map(Draft::append).collect();
    let batches = drafts.iter().map(|draft| draft.stored_len() + 512).sum::<u64>();
    let mut tries = 0;
    loop {
        let room = storage.reserve(batches + 8192, Class::Data).map_err(Refused::NoRoom)?;
        tries += 1;
        match storage.append(room, &appends, mode, entries) {
            Err(AppendError::NotPrepared { batch }) if tries < 8 => {
                let draft = drafts.get(batch).expect("one of those that were given");
                storage.prepare(&draft.partition, draft.stored_len()).map_err(Refused::Error)?;
            }
            other => return other.map_err(Refused::Error),
        }
    }
}
