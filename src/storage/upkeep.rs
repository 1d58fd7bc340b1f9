//! What is done behind the appends' backs: room ahead of them, write-back, sync points of the interval level, seals,
//! growth of the ring, removal of deleted topics' files.
//!
//! A list of tasks, one step a task. Nobody waits for any of it: a task that is late only makes an append prepare for itself.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use annals_wire::ids::TopicId;
use smallvec::smallvec;

use super::{
    disk::{EntryKind, is_out_of_files},
    key::Level,
    mutant::{Mutant, planted},
    partition::{Log, Partition},
    replace::join,
    ring::{self, make_file},
    room::Class,
    segment::Segment,
    snapshot::{RESERVE, RESERVE_BYTES},
    storage::{Storage, sync_point},
};
use crate::sync::{Condvar, Mutex, Ordering};

/// Dirty bytes of a segment at which its write-back is started.
const WRITE_BACK_STEP: u64 = 1024 * 1024;

#[derive(Debug)]
enum Task {
    /// Room ahead, write-back.
    Tend(Arc<Partition>),
    /// Close a segment for good, once the entry that names its successor is durable.
    Seal { after: u64, partition: Arc<Partition>, segment: Arc<Segment> },
    /// Remove a deleted topic's files, once the entry that deletes it is durable.
    Bury { after: u64, topic: TopicId },
}

#[derive(Debug, Default)]
struct Inner {
    tasks: VecDeque<Task>,
    /// Partitions of the interval level with a sync point to come, by time.
    due: VecDeque<(Duration, Arc<Partition>)>,
}

/// The list of what is to be done.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    inner: Mutex<Inner>,
    ready: Condvar,
}

impl Upkeep {
    fn push(&self, task: Task) {
        self.inner.lock().tasks.push_back(task);
        self.ready.notify_one();
    }

    /// A topic is deleted: its files go once `after` is durable.
    pub(crate) fn bury(&self, after: u64, topic: TopicId) {
        self.push(Task::Bury { after, topic });
    }

    /// Topics whose files are still there.
    pub(crate) fn tombstones(&self) -> Vec<TopicId> {
        let inner = self.inner.lock();
        let topic = |task: &Task| if let Task::Bury { topic, .. } = task { Some(*topic) } else { None };
        inner.tasks.iter().filter_map(topic).collect()
    }

    /// Waits for something to do, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let mut inner = self.inner.lock();
        if inner.tasks.is_empty() {
            self.ready.wait_for(&mut inner, at_most);
        }
    }

    pub(crate) fn wake(&self) {
        self.ready.notify_all();
    }
}

impl Storage {
    /// Called after each append, under the partition's lock: only notes what is to be done.
    pub(crate) fn after_append(&self, partition: &Arc<Partition>, log: &mut Log, bytes: u64) {
        self.count_appended(bytes);
        let Some(active) = partition.active() else { return };
        let end = active.end();
        let low = end + active.allocated() / 4 > active.allocated();
        let write_back = end >= active.written_back.load(Ordering::Relaxed) + WRITE_BACK_STEP;
        let wants_spare = log.spare.is_none() && end > partition.segment_bytes() / 2;
        if (low || write_back || wants_spare) && !partition.upkeep_asked.swap(true, Ordering::AcqRel) {
            self.upkeep().push(Task::Tend(Arc::clone(partition)));
        }
        if partition.level() == Level::Interval {
            self.note_interval(partition, log, bytes);
        }
    }

    fn note_interval(&self, partition: &Arc<Partition>, log: &mut Log, bytes: u64) {
        log.unsynced_bytes += bytes;
        let asked = log.unsynced_bytes >= partition.interval_bytes() && self.ask_for_sync(partition, log);
        if !asked {
            self.sync_soon(partition);
        }
    }

    /// A sync point is due within the partition's interval.
    pub(crate) fn sync_soon(&self, partition: &Arc<Partition>) {
        if !partition.sync_asked.swap(true, Ordering::AcqRel) {
            let at = self.clock().monotonic() + Duration::from_millis(partition.interval_ms());
            self.upkeep().inner.lock().due.push_back((at, Arc::clone(partition)));
        }
    }

    /// `false`: there is no room in the journal, so it must be asked for again.
    fn ask_for_sync(&self, partition: &Arc<Partition>, log: &mut Log) -> bool {
        let Ok(room) = self.reserve(8192, Class::Control) else { return false };
        if let Some(work) = sync_point(partition, log) {
            let _closed_means_no_more_acks = self.queue().push(smallvec![work], Some(room));
        }
        true
    }

    /// A roll was enqueued under `number`.
    pub(crate) fn after_roll(&self, number: u64, partition: &Arc<Partition>, previous: Option<Arc<Segment>>) {
        if let Some(segment) = previous {
            self.upkeep().push(Task::Seal { after: number, partition: Arc::clone(partition), segment });
        }
    }

    /// Sync points that are due. Returns how many were asked for.
    pub fn interval_step(&self) -> usize {
        let now = self.clock().monotonic();
        let mut asked = 0;
        loop {
            let mut inner = self.upkeep().inner.lock();
            let at = inner.due.iter().position(|(at, _)| *at <= now);
            let Some((_, partition)) = at.and_then(|at| inner.due.remove(at)) else { return asked };
            drop(inner);
            partition.sync_asked.store(false, Ordering::Release);
            if !partition.is_fenced() && !partition.is_removed() {
                let mut log = partition.lock();
                if self.ask_for_sync(&partition, &mut log) {
                    asked += 1;
                } else if !partition.sync_asked.swap(true, Ordering::AcqRel) {
                    // No append may ever come to ask again.
                    let again = now + Duration::from_millis(partition.interval_ms().max(1));
                    self.upkeep().inner.lock().due.push_back((again, Arc::clone(&partition)));
                }
            }
        }
    }

    /// One task of upkeep. `false`: there was none that can be done now.
    pub fn upkeep_step(self: &Arc<Self>) -> bool {
        let task = {
            let mut inner = self.upkeep().inner.lock();
            let can = |task: &Task| match task {
                Task::Tend(_) => true,
                Task::Bury { .. } if planted(Mutant::BuriedEarly) => true,
                Task::Seal { after, .. } | Task::Bury { after, .. } => self.is_durable(*after),
            };
            inner.tasks.iter().position(can).and_then(|at| inner.tasks.remove(at))
        };
        match task {
            None => return false,
            Some(Task::Tend(partition)) => self.tend(&partition),
            Some(Task::Seal { partition, segment, .. }) => {
                if !partition.is_removed() && !partition.is_fenced() {
                    match segment.seal() {
                        Ok(()) => self.index_keys_of(&partition, &segment),
                        Err(error) => self.seal_failed(&partition, &segment, &error),
                    }
                }
            }
            Some(Task::Bury { topic, .. }) => {
                if let Err(error) = self.remove_files(&topic) {
                    tracing::warn!(%topic, %error, "a deleted topic's files could not be removed yet; the next start tries again");
                }
            }
        }
        true
    }

    /// A full disk, or no file that may be opened, only costs a footer, which is a convenience of readers. Anything else fences.
    pub(super) fn seal_failed(&self, partition: &Arc<Partition>, segment: &Segment, error: &io::Error) {
        if super::snapshot::is_full(error) || is_out_of_files(error) {
            tracing::warn!(partition = %partition.key(), %error, base = segment.base, "not sealed");
        } else if !partition.is_removed() {
            self.fence(partition, error);
        }
    }

    fn tend(&self, partition: &Arc<Partition>) {
        partition.upkeep_asked.store(false, Ordering::Release);
        if partition.is_fenced() || partition.is_removed() {
            return;
        }
        let Some(active) = partition.active() else { return };
        let end = active.end();
        let from = active.written_back.fetch_max(end, Ordering::AcqRel);
        if let Ok(file) = active.file()
            && end > from
        {
            file.start_write_back(from, end - from);
        }
        if self.disk().open_files() > self.options().open_segments {
            return; // room ahead is for those who have files to spare
        }
        let ahead = active.allocated() / 4;
        if end + ahead < partition.segment_bytes() {
            let _the_append_that_needs_it_will_say = self.prepare(partition, ahead);
        }
        if end > partition.segment_bytes() / 2 {
            let _the_append_that_needs_it_will_say = self.prepare_next(partition);
        }
    }

    /// Deletes a removed topic's directory: renamed first, so that the name is gone durably before the files are.
    fn remove_files(&self, topic: &TopicId) -> io::Result<()> {
        let disk = self.disk();
        let live = format!("topics/{topic}");
        let dead = format!("topics/{topic}.deleted");
        match disk.rename(&live, &dead) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => disk.sync_dir("topics")?,
        }
        for partition in disk.list(&dead)? {
            let dir = join(&dead, &partition.name);
            for file in disk.list(&dir)? {
                disk.remove(&join(&dir, &file.name))?;
            }
            if partition.kind == EntryKind::Directory {
                disk.remove_dir(&dir)?;
            }
        }
        match disk.remove_dir(&dead) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => disk.sync_dir("topics"),
        }
    }

    /// Adds a file to the ring when few are free. Returns whether one was added.
    pub fn grow_step(&self) -> io::Result<bool> {
        let options = self.options();
        let next = {
            let committer = self.committer().lock();
            let ring = &committer.ring;
            let wanted = ring.free_files() < 2 && ring.size() + options.ring_file_bytes <= options.ring_bytes;
            wanted.then(|| ring.next_id())
        };
        let Some(id) = next else { return Ok(false) };
        // The ring leaves most of a small disk to the records.
        if self.disk().free_bytes()? < 8 * options.ring_file_bytes + options.keep_free_bytes {
            return Ok(false);
        }
        let file = make_file(self.disk(), self.root(), id, options.ring_file_bytes, true)?;
        if !planted(Mutant::RingNameUnflushed) {
            self.disk().sync_dir(ring::DIR)?;
        }
        let mut committer = self.committer().lock();
        committer.ring.add(file);
        self.ledger().set_available(committer.ring.available(options.largest_item()), committer.ring.size());
        Ok(true)
    }

    /// Makes the reserve for snapshots again, if it was used up and there is space.
    pub fn reserve_step(&self) -> io::Result<()> {
        let disk = self.disk();
        if disk.list("")?.iter().any(|entry| entry.name == RESERVE) {
            return Ok(());
        }
        if disk.free_bytes()? > self.options().keep_free_bytes + RESERVE_BYTES {
            disk.create(RESERVE)?.allocate(0, RESERVE_BYTES)?;
        }
        Ok(())
    }

    /// Closes segment files if more are open than the budget has: down to three quarters of it, first those that nobody
    /// needed since the last time, sealed ones before active ones. What was not flushed is, before it is closed: only the
    /// handle that wrote may do that. Those that stay open give back their map if nobody read through it since the last
    /// time. Returns how many were closed.
    pub fn close_step(&self) -> usize {
        let limit = self.options().open_segments;
        let mut open = Vec::new();
        for partition in self.all_partitions() {
            let segments = partition.segments();
            for (index, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.is_open()) {
                segment.unmap_if_at_rest();
                let rank = (segment.was_used(), index + 1 == segments.len());
                open.push((rank, Arc::clone(&partition), Arc::clone(segment)));
            }
        }
        if open.len() <= limit {
            return 0;
        }
        let surplus = open.len() - limit / 4 * 3;
        open.sort_by_key(|(rank, ..)| *rank);
        open.iter()
            .take(surplus)
            .filter(|(_, partition, segment)| self.close_file(partition, segment))
            .count()
    }

    fn close_file(&self, partition: &Arc<Partition>, segment: &Segment) -> bool {
        if !segment.is_named() || partition.is_fenced() {
            return false;
        }
        if let Err(error) = segment.sync() {
            self.fence(partition, &error);
            return false;
        }
        // Under the lock: nobody is just writing through this handle.
        let _log = partition.lock();
        segment.close_if_clean()
    }
}
