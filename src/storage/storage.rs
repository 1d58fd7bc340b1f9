//! The data directory at work: what the parts share, and what they ask of each other.

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use annals_wire::{ids::TopicId, internal::Partitions};
use bytes::Bytes;

use super::{
    commit::{Committer, Cycle, Tip},
    disk::Disk,
    error::{CommitError, NoRoom},
    key::{PartitionKey, PartitionSettings},
    keys,
    mutant::{Mutant, planted},
    partition::{Log, Partition},
    queue::{Queue, Upto, Work},
    room::{Class, Ledger, Room, Wake},
    root::Root,
    scrub::Scrub,
    segment::Segment,
    snapshot::Snapshots,
    upkeep::Upkeep,
    waiters::{Done, Due, Durable, Waiters},
};
use crate::{
    clock::Clock,
    metrics,
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, OnceLock, Ordering, RwLock, thread},
};

/// Sizes and times. The defaults were chosen by measurement; tests and the crash model use tiny ones.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A partition with more bytes than this pending in one cycle is flushed in its segment and entered as an extent.
    pub inline_bytes: u64,
    /// Size to which the ring grows.
    pub ring_bytes: u64,
    /// Size of one of its files; at least twice the largest item.
    pub ring_file_bytes: u64,
    /// Most bytes that appends may have waiting for the journal.
    pub pending_bytes: u64,
    /// Bytes appended between two snapshots.
    pub snapshot_bytes: u64,
    /// Time between two snapshots if anything changed.
    pub snapshot_interval: Duration,
    /// Disk space that appends leave alone.
    pub keep_free_bytes: u64,
    /// Segments flushed at a time; 0 = one after the other on the calling thread.
    pub flush_helpers: usize,
    /// Segment files kept open; those used longest ago are closed first, and flushed before that if need be.
    pub open_segments: usize,
    /// In how many partitions producers are known by what they stored last, counted once in each.
    pub producers: usize,
    /// Bytes of sealed segments that the scrubber reads again in a second; 0 = none.
    pub scrub_bytes_per_second: u64,
    /// Bytes of sealed segments whose keys are indexed in a second; 0 = none.
    pub index_bytes_per_second: u64,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            inline_bytes: 256 * 1024,
            ring_bytes: 256 * MIB,
            ring_file_bytes: 34 * MIB,
            pending_bytes: 64 * MIB,
            snapshot_bytes: 256 * MIB,
            snapshot_interval: Duration::from_secs(60),
            keep_free_bytes: 16 * MIB,
            flush_helpers: 4,
            open_segments: 256,
            producers: 16_384,
            scrub_bytes_per_second: 8 * MIB,
            index_bytes_per_second: 64 * MIB,
        }
    }
}

impl Options {
    /// Most bytes one item may take in the ring.
    pub fn largest_item(&self) -> u64 {
        self.ring_file_bytes / 2
    }

    /// Files open at a time beside those of segments: the journal's, snapshots, directories.
    pub fn other_files(&self) -> usize {
        usize::try_from(self.ring_bytes / self.ring_file_bytes).unwrap_or(usize::MAX / 2) + 8
    }
}

/// A topic as storage knows it.
#[derive(Debug)]
pub(crate) struct TopicLogs {
    pub(crate) settings: PartitionSettings,
    pub(crate) partitions: Vec<Arc<Partition>>,
}

/// A data directory, open.
#[derive(Debug)]
pub struct Storage {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: Options,
    root: Root,
    epoch: u32,
    topics: RwLock<BTreeMap<TopicId, TopicLogs>>,
    queue: Queue,
    ledger: Arc<Ledger>,
    /// Locked before the committer, for a whole cycle.
    cycle: Mutex<Cycle>,
    committer: Mutex<Committer>,
    tip: Mutex<Tip>,
    durable: AtomicU64,
    waiters: Mutex<Waiters>,
    snapshots: Mutex<Snapshots>,
    upkeep: Upkeep,
    appended: AtomicU64,
    failure: OnceLock<String>,
    closed: AtomicBool,
    /// A flush failed in this run: what the memory holds must not become a snapshot.
    tainted: AtomicBool,
    /// Faults of maps up to here have been looked into.
    faults_seen: AtomicU64,
    scrub: Mutex<Scrub>,
    keys: Mutex<keys::Work>,
    /// Windows of producers in all partitions.
    pub(crate) producer_windows: AtomicUsize,
}

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) root: Root,
    pub(crate) epoch: u32,
    pub(crate) topics: BTreeMap<TopicId, TopicLogs>,
    pub(crate) committer: Committer,
    pub(crate) snapshots: Snapshots,
    pub(crate) tombstones: Vec<TopicId>,
}

impl Storage {
    pub(crate) fn assemble(parts: Parts) -> Arc<Self> {
        let tip = parts.committer.tip();
        let ledger = Ledger::new(parts.options.largest_item(), parts.options.pending_bytes);
        let ring = &parts.committer.ring;
        ledger.set_available(ring.available(parts.options.largest_item()), ring.size());
        let storage = Arc::new(Self {
            disk: parts.disk,
            clock: parts.clock,
            options: parts.options,
            root: parts.root,
            epoch: parts.epoch,
            topics: RwLock::new(parts.topics),
            queue: Queue::new(tip.number + 1),
            ledger,
            tip: Mutex::new(tip),
            durable: AtomicU64::new(tip.number),
            waiters: Mutex::new(Waiters::new(tip.number)),
            cycle: Mutex::default(),
            committer: Mutex::new(parts.committer),
            snapshots: Mutex::new(parts.snapshots),
            upkeep: Upkeep::default(),
            appended: AtomicU64::new(0),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
            tainted: AtomicBool::new(false),
            faults_seen: AtomicU64::new(0),
            scrub: Mutex::default(),
            keys: Mutex::default(),
            producer_windows: AtomicUsize::new(0),
        });
        storage.count_windows();
        for topic in parts.tombstones {
            storage.upkeep.bury(0, topic);
        }
        storage
    }

    /// Sets room aside for so many bytes in the journal. Count an item as if it went inline: its bytes, 256 more for each
    /// entry, and 8 KiB.
    pub fn reserve(&self, bytes: u64, class: Class) -> Result<Room, NoRoom> {
        let waiting = self.appended.load(Ordering::Relaxed) > 4 * self.options.snapshot_bytes;
        if waiting && class == Class::Data && !self.is_closed() {
            return Err(NoRoom::Busy);
        }
        self.ledger.reserve(bytes, class)
    }

    /// Calls `wake` once when room may be had again.
    pub fn on_room(&self, wake: Wake) {
        self.ledger.on_room(wake);
    }

    /// Calls `done` once everything up to `number` is durable, at once if it is.
    pub fn on_durable(&self, number: u64, done: Done) {
        let due = self.waiters.lock().wait(number, done);
        if let Some(due) = due {
            due.tell();
        }
    }

    /// Waits until everything up to `number` is durable. Dropped, it no longer waits.
    pub fn durable(self: &Arc<Self>, number: u64) -> Durable {
        Durable::new(Arc::clone(self), number)
    }

    pub(crate) fn poll_durable(&self, number: u64, waker: Option<&Waker>) -> Poll<Result<(), CommitError>> {
        self.waiters.lock().poll(number, waker)
    }

    /// Number of the newest entry decided. Read under the locks of the state it is taken for, it says which entries that
    /// state holds.
    pub fn last_number(&self) -> u64 {
        self.queue.next_number() - 1
    }

    /// A partition.
    pub fn partition(&self, key: PartitionKey) -> Option<Arc<Partition>> {
        let index = usize::try_from(key.partition).ok()?;
        self.topics.read().get(&key.topic)?.partitions.get(index).cloned()
    }

    /// All partitions of a topic, in order.
    pub fn partitions(&self, topic: &TopicId) -> Vec<Arc<Partition>> {
        self.topics.read().get(topic).map(|known| known.partitions.clone()).unwrap_or_default()
    }

    /// Identity of the cluster this directory belongs to.
    pub fn cluster_id(&self) -> [u8; 16] {
        self.root.cluster_id
    }

    /// Leader epoch of this run.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Why the journal takes nothing any more. The process must end; the next start recovers.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Takes no more appends and changes; what was taken is still committed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.queue.close();
        self.ledger.close();
        self.upkeep.wake();
    }

    /// The commit cycle has ended: whoever still waits is told so.
    pub(crate) fn no_more_acks(&self) {
        let due = self.waiters.lock().close();
        due.into_iter().for_each(Due::tell);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The journal is no more. An error from it is final.
    pub(crate) fn fail(&self, why: &str) {
        tracing::error!(why, "no more acks: the process has to end, the next start recovers");
        let _first_counts = self.failure.set(why.to_owned());
        self.close();
        self.no_more_acks();
    }

    /// A flush or a write of a segment failed: that partition stops until the next start.
    pub(crate) fn fence(&self, partition: &Partition, error: &io::Error) {
        self.taint();
        if partition.fence(&error.to_string()) {
            tracing::error!(partition = %partition.key(), %error, "fenced until restart");
        }
    }

    /// Everything is verified again before it is served. For who finds out that verified bytes could not be read after all.
    pub fn distrust(&self) {
        tracing::warn!(
            "bytes on their way to a client could not be read; everything is verified again before it is served"
        );
        for partition in self.all_partitions() {
            partition.segments().iter().for_each(|segment| segment.forget_good());
        }
    }

    /// Fences the partitions of maps that lost pages since the last look. One load of an atomic if there are none.
    ///
    /// Unlike after a failed flush there may be snapshots: what memory holds was flushed as far as the file had it.
    pub(crate) fn notice_faults(&self) {
        let faults = metrics::map_faults();
        if self.faults_seen.load(Ordering::Relaxed) == faults {
            return;
        }
        for partition in self.all_partitions() {
            if let Some(segment) = partition.segments().iter().find(|segment| segment.is_lost()) {
                partition.lost(segment);
            }
        }
        self.faults_seen.store(faults, Ordering::Relaxed);
    }

    /// Memory holds what the journal never will: no snapshot may be taken of it.
    pub(crate) fn taint(&self) {
        self.tainted.store(true, Ordering::Release);
    }

    pub(crate) fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::Acquire) && !planted(Mutant::SnapshotAfterFailedFlush)
    }

    pub(crate) fn is_durable(&self, number: u64) -> bool {
        number <= self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable(&self, number: u64) {
        self.durable.fetch_max(number, Ordering::AcqRel);
    }

    /// Tells who waits for entries up to `number`. `due` is an empty list to work with.
    pub(crate) fn release_waiters(
        &self,
        number: u64,
        failed: impl IntoIterator<Item = u64>,
        due: &mut Vec<Due>,
    ) {
        self.waiters.lock().release(number, failed, due);
        due.drain(..).for_each(Due::tell);
    }

    /// Flushes segments, several at a time; returns those that failed.
    pub(crate) fn flush_all(
        &self,
        segments: &[(Arc<Partition>, Arc<Segment>)],
    ) -> Vec<(Arc<Partition>, io::Error)> {
        let flush = |(partition, segment): &(Arc<Partition>, Arc<Segment>)| {
            let failed = segment.sync().err();
            if segment.is_lost() {
                partition.lost(segment);
            }
            failed.map(|error| (Arc::clone(partition), error))
        };
        let helpers = self.options.flush_helpers.min(segments.len());
        if helpers <= 1 {
            return segments.iter().filter_map(flush).collect();
        }
        let share = segments.len().div_ceil(helpers);
        thread::scope(|scope| {
            let threads: Vec<_> = segments
                .chunks(share)
                .map(|chunk| scope.spawn(move || chunk.iter().filter_map(flush).collect::<Vec<_>>()))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().expect("a flush does not panic"));
            joined.flatten().collect()
        })
    }

    /// Everything that is open, partition by partition.
    pub(crate) fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.topics.read().values().flat_map(|topic| topic.partitions.iter().cloned()).collect()
    }

    /// The partition that follows a key in order; the first one without.
    pub(crate) fn next_partition(&self, after: Option<PartitionKey>) -> Option<Arc<Partition>> {
        let topics = self.topics.read();
        let in_topic = after.and_then(|key| {
            let next = usize::try_from(key.partition).ok()?.checked_add(1)?;
            topics.get(&key.topic)?.partitions.get(next)
        });
        let behind = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.topic));
        let in_later =
            || topics.range((behind, Bound::Unbounded)).find_map(|(_, topic)| topic.partitions.first());
        in_topic.or_else(in_later).cloned()
    }

    /// Settings of all topics and how many partitions each has, with the number they are exact at.
    pub(crate) fn topic_settings(&self) -> (u64, Vec<(TopicId, PartitionSettings, u32)>) {
        let topics = self.topics.read();
        let list = topics.iter().map(|(topic, known)| {
            (*topic, known.settings, u32::try_from(known.partitions.len()).unwrap_or(u32::MAX))
        });
        (self.last_number(), list.collect())
    }

    pub(crate) fn count_appended(&self, bytes: u64) {
        self.appended.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes appended since the last snapshot was captured.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    pub(crate) fn uncount_appended(&self, bytes: u64) {
        self.appended.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Locked before any partition.
    pub(crate) fn topics(&self) -> &RwLock<BTreeMap<TopicId, TopicLogs>> {
        &self.topics
    }
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    pub(crate) fn cycle(&self) -> &Mutex<Cycle> {
        &self.cycle
    }
    pub(crate) fn committer(&self) -> &Mutex<Committer> {
        &self.committer
    }
    pub(crate) fn snapshots(&self) -> &Mutex<Snapshots> {
        &self.snapshots
    }
    pub(crate) fn upkeep(&self) -> &Upkeep {
        &self.upkeep
    }
    pub(crate) fn keys(&self) -> &Mutex<keys::Work> {
        &self.keys
    }

    pub(crate) fn scrub(&self) -> &Mutex<Scrub> {
        &self.scrub
    }
    pub(crate) fn tip(&self) -> Tip {
        *self.tip.lock()
    }
    pub(crate) fn set_tip(&self, tip: Tip) {
        *self.tip.lock() = tip;
    }
}

/// A sync point over all that a partition holds. The caller holds its lock.
pub(crate) fn sync_point(partition: &Arc<Partition>, log: &mut Log) -> Option<Work> {
    let active = partition.active()?;
    log.unsynced_bytes = 0;
    let epoch = log.epochs.last().map_or(0, |last| last.epoch);
    let upto =
        Upto { segment_base: active.base, position: active.end(), next_offset: log.next_offset, epoch };
    Some(Work::Sync { partition: Arc::clone(partition), upto })
}

pub(crate) fn partitions_message(topic: &TopicId, settings: PartitionSettings, count: u32) -> Partitions {
    Partitions {
        topic_id: Bytes::copy_from_slice(topic.as_bytes()),
        count,
        level: settings.level.number(),
        segment_bytes: settings.segment_bytes,
        interval_ms: settings.interval_ms,
        interval_bytes: settings.interval_bytes,
    }
}
