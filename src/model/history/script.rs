//! Steps by name, for those who try every order of them instead of drawing lots: one alphabet, the same on every machine.
//!
//! The topics are those of [`Plan::small`]: 0 = two partitions at `fsync`, 1 = `os`, 2 = `interval`, 3 = `fsync` and not
//! there at first. What a step writes is told by the history's own numbers, so the same script is the same bytes.

use super::{Doing, Life, Run, Sink, life::Refused};
use crate::{
    clock::ManualClock,
    model::{
        disk::Keep,
        oracle::{Oracle, check},
        plan::{Plan, TopicPlan, Values},
    },
    storage::{Level, Mode, Options, Partition, Step},
    sync::Arc,
};

const FSYNC: usize = 0;
const OS: usize = 1;
const INTERVAL: usize = 2;
const LATER: usize = 3;

const SMALL: Values = Values::One(100);
/// More than goes inline.
const LARGE: Values = Values::One(800);
/// Does not fit behind anything in a segment.
const ROLLS: Values = Values::One(3800);

/// A step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// A record at `fsync`, and its commit cycle.
    Put,
    /// The same without the cycle: the next one takes it along.
    Ask,
    /// A record at `os`.
    Weak,
    /// An atomic group over `fsync` and `os`, with committed offsets, and its cycle.
    Group,
    /// So many bytes that they go as an extent, and the cycle.
    Large,
    /// A record that makes a segment roll, and the cycle.
    Roll,
    /// The same at `os`, without the cycle.
    WeakRoll,
    /// A record at `interval`, time passes, a sync point, and its cycle.
    SyncPoint,
    /// Committed offsets and their cycle.
    Offsets,
    /// A topic made, a record in it, and the cycle.
    Create,
    /// A topic deleted, the cycle, and its files removed, as soon as that may be.
    Delete,
    /// `os` becomes `fsync`, and the cycle.
    Raise,
    /// `fsync` becomes `os`, and a record.
    Lower,
    /// A snapshot, and one with a commit cycle while it is written.
    Snapshot,
    /// Room ahead, seals, removals.
    Upkeep,
    /// The ring grows.
    Grow,
    /// A bare cycle, and the frame that proves it.
    Commit,
    /// An orderly end and a start.
    Reopen,
    /// `kill -9` and a start.
    Kill,
    /// The power goes, nothing unflushed is left, and a start.
    Cut,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Put,
        Self::Ask,
        Self::Weak,
        Self::Group,
        Self::Large,
        Self::Roll,
        Self::WeakRoll,
        Self::SyncPoint,
        Self::Offsets,
        Self::Create,
        Self::Delete,
        Self::Raise,
        Self::Lower,
        Self::Snapshot,
        Self::Upkeep,
        Self::Grow,
        Self::Commit,
        Self::Reopen,
        Self::Kill,
        Self::Cut,
    ];
}

/// What a step left.
pub(in crate::model) enum Left {
    /// It was done, or the power went while it was; the disk says which.
    Alive(Life),
    /// The power went while a start was at work, or a call failed. `power_cut`: not only now, it had gone before that start as well.
    InStart {
        /// Not all of the page cache survived until that start.
        power_cut: bool,
    },
    /// There is nothing to do it to.
    Impossible(Life),
}

impl Plan {
    /// Sizes at which three steps are enough for everything, and nothing by chance.
    pub fn small() -> Self {
        let ring_file_bytes = 192 * 1024;
        let topic =
            |level, partitions| TopicPlan { interval_bytes: 1 << 20, ..TopicPlan::new(level, partitions) };
        let options = Options {
            inline_bytes: 600,
            ring_bytes: 3 * ring_file_bytes,
            ring_file_bytes,
            pending_bytes: 64 * 1024,
            snapshot_bytes: 64 * 1024,
            keep_free_bytes: 0,
            flush_helpers: 0,
            open_segments: 3,
            ..Options::default()
        };
        Self {
            options,
            topics: vec![
                topic(Level::Fsync, 2),
                topic(Level::Os, 1),
                topic(Level::Interval, 1),
                topic(Level::Fsync, 1),
            ],
            values: SMALL,
            flush_fails_one_in: 0,
            start_cut_one_in: 0,
            orderly_one_in: 0,
            twice_one_in: 0,
            flip_one_in: 0,
            meanwhile_one_in: 0,
            ..Self::of(0)
        }
    }
}

impl<'a> Run<'a> {
    /// On a disk on which nothing happens by chance; there is nothing yet.
    pub(in crate::model) fn still(plan: &'a Plan, sink: Option<Sink<'a>>) -> Self {
        let run = Self::new(1, plan, sink);
        run.disk.be_still();
        run
    }

    /// A directory in which every topic has something, made once and forked for each script: a little before the journal's
    /// second file, with unflushed pages left.
    pub(in crate::model) fn small(plan: &'a Plan) -> Result<Self, String> {
        let mut run = Self::still(plan, None);
        let mut life = run.start_once(true)?.ok_or("the power stays")?;
        for slot in [FSYNC, OS, INTERVAL] {
            run.create(&mut life, slot);
        }
        for partition in life.partitions.clone() {
            run.append(&mut life, &[partition], WEAKLY, SMALL, Some(false))?;
        }
        run.cycle(&mut life)?;
        run.write_snapshot(&mut life);
        run.finish_snapshot(&mut life, false);
        while life.storage.tip().place.position + 4 * 4096 < plan.options.ring_file_bytes {
            life.storage.mark_frame();
        }
        run.count_pending();
        drop(life);
        run.disk.restart_process();
        Ok(run)
    }

    /// Another history that has been the same so far, at the moment of a `kill -9`.
    pub(in crate::model) fn fork(&self) -> Self {
        use crate::clock::Clock as _;
        Self {
            rng: self.rng.clone(),
            disk: self.disk.fork(),
            clock: Arc::new(ManualClock::new(self.clock.wall_ms(), 7)),
            plan: self.plan,
            oracle: Oracle::clone(&self.oracle),
            outcome: self.outcome,
            sink: None,
            records: self.records,
            requests: self.requests,
            topics: self.topics,
            started_at: self.started_at,
            start_changes: self.start_changes,
            captured: self.captured,
        }
    }

    /// Does one step, and looks at what it promised.
    pub(in crate::model) fn perform(&mut self, mut life: Life, deed: Deed) -> Result<Left, String> {
        life.doing = Doing::Other;
        self.note(|| format!("{deed:?}"));
        match deed {
            Deed::Put | Deed::Ask => self.put(&mut life, FSYNC, 0, SMALL)?,
            Deed::Weak => self.put(&mut life, OS, 0, SMALL)?,
            Deed::Group => {
                let to = [(FSYNC, 0), (OS, 0)]
                    .into_iter()
                    .filter_map(|(slot, at)| find(&life, slot, at))
                    .collect::<Vec<_>>();
                self.append(&mut life, &to, Mode { level: Level::Fsync, atomic: true }, SMALL, Some(true))?;
            }
            Deed::Large => self.put(&mut life, FSYNC, 1, LARGE)?,
            Deed::Roll => self.put(&mut life, FSYNC, 0, ROLLS)?,
            Deed::WeakRoll => self.put(&mut life, OS, 0, ROLLS)?,
            Deed::SyncPoint => {
                self.put(&mut life, INTERVAL, 0, SMALL)?;
                self.interval(&mut life);
            }
            Deed::Offsets => self.commit_offsets(&mut life),
            Deed::Create | Deed::Delete | Deed::Raise | Deed::Lower => {
                if !self.change(&mut life, deed)? {
                    return Ok(Left::Impossible(life));
                }
            }
            Deed::Snapshot => {
                life.doing = Doing::Snapshot;
                self.write_snapshot(&mut life);
                // It has to wait if anything in it is not durable yet.
                self.finish_snapshot(&mut life, false);
                self.write_snapshot(&mut life);
            }
            Deed::Upkeep => self.upkeep(&mut life),
            Deed::Grow => self.grow(&mut life),
            Deed::Commit => {}
            Deed::Reopen | Deed::Kill | Deed::Cut => return self.again(life, deed),
        }
        if !matches!(deed, Deed::Ask | Deed::Weak | Deed::WeakRoll | Deed::Lower | Deed::Upkeep | Deed::Grow)
        {
            self.cycle(&mut life)?;
        }
        match deed {
            Deed::Snapshot => self.finish_snapshot(&mut life, false),
            Deed::Delete => self.upkeep(&mut life),
            Deed::Commit => {
                life.storage.idle_step();
            }
            _ => {}
        }
        self.watch(&life)?;
        Ok(Left::Alive(life))
    }

    fn put(&mut self, life: &mut Life, slot: usize, partition: u32, values: Values) -> Result<(), String> {
        let Some(to) = find(life, slot, partition) else { return Ok(()) };
        self.append(life, &[to], WEAKLY, values, Some(false))
    }

    fn cycle(&mut self, life: &mut Life) -> Result<(), String> {
        self.commit(life);
        self.watch(life)
    }

    /// `false`: there is no such topic, or it is so already.
    fn change(&mut self, life: &mut Life, deed: Deed) -> Result<bool, String> {
        let level =
            |life: &Life, slot| life.state.topics.get(&Self::name(slot)).map(|topic| topic.settings.level);
        match deed {
            Deed::Create => {
                let Some(slot) = [LATER, INTERVAL].into_iter().find(|slot| level(life, *slot).is_none())
                else {
                    return Ok(false);
                };
                self.create(life, slot);
                self.put(life, slot, 0, SMALL)?;
            }
            Deed::Delete => {
                let Some(slot) = [LATER, INTERVAL].into_iter().find(|slot| level(life, *slot).is_some())
                else {
                    return Ok(false);
                };
                self.delete_in(life, slot);
                // Its files go once the entry is durable, and not before.
                self.upkeep(life);
            }
            Deed::Raise if level(life, OS) < Some(Level::Fsync) => self.alter(life, OS, Level::Fsync),
            Deed::Lower if level(life, FSYNC) > Some(Level::Os) => {
                self.alter(life, FSYNC, Level::Os);
                self.put(life, FSYNC, 0, SMALL)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn again(&mut self, mut life: Life, deed: Deed) -> Result<Left, String> {
        if deed == Deed::Reopen {
            self.settle(&mut life)?;
            self.write_snapshot(&mut life);
            self.finish_snapshot(&mut life, true);
            if self.disk.is_dead() {
                return Ok(Left::Alive(life));
            }
        }
        self.count_pending();
        drop(life);
        let power_cut = deed == Deed::Cut;
        // The power may go, or a call fail, while this start is at work.
        let (fuse, fault) = (self.disk.fuse(), self.disk.fault());
        if power_cut {
            self.disk.power_up_with(&Keep::NOTHING);
        } else {
            self.disk.restart_process();
        }
        if let Some(changes) = fuse {
            self.disk.cut_after(changes);
        }
        self.disk.set_fault(fault);
        Ok(match self.start_once(power_cut)? {
            Some(life) => Left::Alive(life),
            None => Left::InStart { power_cut },
        })
    }

    /// A directory after its start goes on: it takes records in every partition and keeps them across a cut.
    pub(in crate::model) fn goes_on(&mut self, mut life: Life) -> Result<(), String> {
        for partition in life.partitions.clone() {
            let refused = self.one_more(&mut life, partition)?;
            check(refused.is_none(), || format!("R14: no more records: {refused:?}"))?;
        }
        self.count_pending();
        drop(life);
        self.disk.power_up_with(&Keep::NOTHING);
        self.start_once(true)?.map(drop).ok_or_else(|| "nothing cuts this start".into())
    }

    /// One more record, acked. Tells why it was not taken, if it was not.
    pub(in crate::model) fn one_more(
        &mut self,
        life: &mut Life,
        to: Arc<Partition>,
    ) -> Result<Option<Refused>, String> {
        life.refused = None;
        let key = to.key();
        self.append(life, &[to], WEAKLY, SMALL, Some(false))?;
        if life.refused.is_some() {
            return Ok(life.refused.take());
        }
        check(life.storage.commit_step() != Step::Failed, || {
            format!("no more commits: {:?}", life.storage.failure())
        })?;
        self.watch(life)?;
        let acked = self.oracle.items.last().is_some_and(|item| item.acked);
        check(acked, || format!("a record that {key} took is not acked"))?;
        Ok(None)
    }

    /// R7: every offset and every time is found where a look at every batch finds it.
    pub(in crate::model) fn look_up(&self, life: &Life) -> Result<(), String> {
        for partition in &life.partitions {
            let Some(log) = self.oracle.logs.get(&partition.key()) else { continue };
            for batch in &log.batches {
                log.check_read(partition, batch.base, 1)?;
                log.check_time(partition, batch.max_timestamp_ms)?;
            }
            log.check_time(partition, i64::MAX)?;
        }
        Ok(())
    }
}

/// At the topic's own level.
const WEAKLY: Mode = Mode { level: Level::Os, atomic: false };

fn find(life: &Life, slot: usize, partition: u32) -> Option<Arc<Partition>> {
    let topic = life.state.topics.get(&Run::name(slot))?.id;
    life.partitions
        .iter()
        .find(|known| (known.key().topic, known.key().partition) == (topic, partition))
        .cloned()
}
