//! A partition's log: what it holds, where it ends, how far it may be read.
//!
//! Invariants ([`Partition::check`]):
//! 1. log start <= high watermark <= log end.
//! 2. Bytes below the high watermark never change, and their entries, where the level wants them, are durable.
//! 3. Segments are ordered by base offset and disjoint; only the last one is appended to.
//! 4. The high watermark moves in the order of offsets, never past a batch whose number is not durable yet.
//!
//! Writers hold `log`; readers hold nothing: they see an atomic high watermark and a list of segments that is replaced whole.

mod publish;

use std::{collections::VecDeque, sync::Arc};

use annals_wire::internal::InlineBatch;

use publish::Pending;
pub use publish::Published;

pub(crate) use super::epochs::{EpochStart, note_epoch};
use super::{
    disk::File,
    key::{Level, PartitionKey, PartitionSettings},
    producers::Windows,
    queue::Upto,
    ranges::Ranges,
    segment::{DATA_START, FOOTER_ROOM, Segment},
};
use crate::{
    clock::AppendTime,
    metrics,
    sync::{ArcSwap, AtomicBool, AtomicI64, AtomicU8, AtomicU64, Mutex, MutexGuard, OnceLock, Ordering},
};

/// Room for the next segment: a file without data, header or final name.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn File>,
    pub(crate) allocated: u64,
    pub(crate) path: String,
}

/// What only a writer may touch.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) next_offset: i64,
    pub(crate) append_time: AppendTime,
    pub(crate) spare: Option<Spare>,
    /// Nothing written from now on may be seen before this number is durable: the topic's creation, a roll, a
    /// batch of the journal.
    pub(crate) barrier: u64,
    /// A start would look behind the journal's end: a level below `fsync` is the last that the journal is known to have.
    pub(crate) walked: bool,
    /// Number of the entry that ends this, once it is durable; 0 = none is enqueued.
    pub(crate) raise: u64,
    pub(crate) epochs: Vec<EpochStart>,
    /// Segments with bytes that no flush has covered.
    pub(crate) dirty: Vec<Arc<Segment>>,
    /// Bytes appended since the last sync point was asked for.
    pub(crate) unsynced_bytes: u64,
    /// What producers stored last.
    pub(crate) producers: Windows,
    /// The same at the base of each segment that has no name yet, as far as that is known: a snapshot that leaves such a
    /// segment out must not know what lies in it.
    pub(crate) at_rolls: Vec<(i64, Windows)>,
    pending: VecDeque<Pending>,
}

/// A partition. Cheap to share; lives as long as somebody reads it.
pub struct Partition {
    key: PartitionKey,
    level: AtomicU8,
    segment_bytes: AtomicU64,
    interval_ms: AtomicU64,
    interval_bytes: AtomicU64,
    log: Mutex<Log>,
    /// Everything up to here is in the journal. Only the commit cycle moves it.
    pub(crate) entered: Mutex<Option<Upto>>,
    /// Only one thread at a time makes room.
    pub(crate) preparing: Mutex<()>,
    spares: AtomicU64,
    pub(crate) upkeep_asked: AtomicBool,
    pub(crate) sync_asked: AtomicBool,
    segments: ArcSwap<Vec<Arc<Segment>>>,
    log_start: AtomicI64,
    high_watermark: AtomicI64,
    log_end: AtomicI64,
    /// Where this run found its end.
    opened_at: i64,
    /// Bytes that this run made visible. Raised with the high watermark, under the lock of the log.
    published_bytes: AtomicU64,
    epoch: u32,
    fenced: AtomicBool,
    /// Why, as first told.
    fence: OnceLock<String>,
    /// Offsets met that do not verify.
    damages: Mutex<Ranges>,
    removed: AtomicBool,
    /// Recovery could not make it whole. What verifies is served.
    closed: OnceLock<Closed>,
    hook: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Recovery could not make the partition whole, so nothing is stored in it in this run; what verifies is served.
#[derive(Debug)]
struct Closed {
    why: String,
    /// What its segments may lack. Snapshots carry it, so that the journal need not be kept for it.
    unwritten: Vec<InlineBatch>,
    /// What producers stored last is known before this offset only.
    counted: i64,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("key", &self.key)
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First offset kept.
    pub log_start: i64,
    /// First offset a reader may not see yet.
    pub high_watermark: i64,
    /// Offset the next record gets.
    pub log_end: i64,
    /// Epoch of the leader, that is of this run of the broker.
    pub leader_epoch: u32,
}

/// What recovery found of a partition.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) barrier: u64,
    pub(crate) log_start: i64,
    pub(crate) next_offset: i64,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) append_time_ms: i64,
    pub(crate) producers: Windows,
}

impl Partition {
    /// An empty partition that exists from entry `number` on.
    pub(crate) fn new(key: PartitionKey, settings: PartitionSettings, epoch: u32, barrier: u64) -> Arc<Self> {
        let nothing = Recovered {
            barrier,
            log_start: 0,
            next_offset: 0,
            segments: Vec::new(),
            epochs: Vec::new(),
            append_time_ms: 0,
            producers: Windows::default(),
        };
        Self::recovered(key, settings, epoch, nothing)
    }

    /// A partition as recovery left it: everything in it is durable.
    pub(crate) fn recovered(
        key: PartitionKey,
        settings: PartitionSettings,
        epoch: u32,
        found: Recovered,
    ) -> Arc<Self> {
        let last_epoch = found.epochs.last().map_or(0, |last| last.epoch);
        let entered = found.segments.last().map(|active| Upto {
            segment_base: active.base,
            position: active.end(),
            next_offset: found.next_offset,
            epoch: last_epoch,
        });
        let partition = Self {
            key,
            level: AtomicU8::new(0),
            segment_bytes: AtomicU64::new(0),
            interval_ms: AtomicU64::new(0),
            interval_bytes: AtomicU64::new(0),
            log: Mutex::new(Log {
                next_offset: found.next_offset,
                append_time: AppendTime::of(found.append_time_ms),
                spare: None,
                barrier: found.barrier,
                walked: settings.level < Level::Fsync,
                raise: 0,
                epochs: found.epochs,
                dirty: Vec::new(),
                unsynced_bytes: 0,
                producers: found.producers,
                at_rolls: Vec::new(),
                pending: VecDeque::new(),
            }),
            entered: Mutex::new(entered),
            preparing: Mutex::new(()),
            spares: AtomicU64::new(0),
            upkeep_asked: AtomicBool::new(false),
            sync_asked: AtomicBool::new(false),
            segments: ArcSwap::from_pointee(found.segments),
            log_start: AtomicI64::new(found.log_start),
            high_watermark: AtomicI64::new(found.next_offset),
            log_end: AtomicI64::new(found.next_offset),
            opened_at: found.next_offset,
            published_bytes: AtomicU64::new(0),
            epoch,
            fenced: AtomicBool::new(false),
            fence: OnceLock::new(),
            damages: Mutex::default(),
            removed: AtomicBool::new(false),
            closed: OnceLock::new(),
            hook: OnceLock::new(),
        };
        partition.change(settings);
        Arc::new(partition)
    }

    /// New settings, from the next append on.
    pub(crate) fn change(&self, settings: PartitionSettings) {
        let level = u8::try_from(settings.level.number()).expect("a level's number is small");
        self.level.store(level, Ordering::Release);
        self.segment_bytes.store(settings.segment_bytes, Ordering::Release);
        self.interval_ms.store(settings.interval_ms.into(), Ordering::Release);
        self.interval_bytes.store(settings.interval_bytes, Ordering::Release);
    }

    /// Topic and partition.
    pub fn key(&self) -> PartitionKey {
        self.key
    }

    /// The topic's level.
    pub fn level(&self) -> Level {
        Level::from_number(self.level.load(Ordering::Acquire).into()).expect("only levels are stored")
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn interval_ms(&self) -> u64 {
        self.interval_ms.load(Ordering::Acquire)
    }

    pub(crate) fn interval_bytes(&self) -> u64 {
        self.interval_bytes.load(Ordering::Acquire)
    }

    /// Begin and end, each one no older than the call. Read in an order that keeps invariant 1.
    pub fn bounds(&self) -> Bounds {
        let log_start = self.log_start.load(Ordering::Acquire);
        let high_watermark = self.high_watermark.load(Ordering::Acquire);
        let log_end = self.log_end.load(Ordering::Acquire);
        Bounds { log_start, high_watermark, log_end, leader_epoch: self.epoch }
    }

    /// First offset a reader may not see yet.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Bytes of all segments, without what is only allocated.
    pub fn bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.end()).sum()
    }

    /// A failed flush or write stopped it until the next start.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Its topic was deleted.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Why recovery could not open it.
    pub fn closed_because(&self) -> Option<&str> {
        self.closed.get().map(|closed| closed.why.as_str())
    }

    /// Batches below the end that its segments may lack; none unless recovery could not open it.
    pub(crate) fn unwritten(&self) -> &[InlineBatch] {
        self.closed.get().map_or(&[], |closed| &closed.unwritten)
    }

    /// Offset before which it is known what producers stored last, if that is not all.
    pub(crate) fn counted(&self) -> Option<i64> {
        self.closed.get().map(|closed| closed.counted)
    }

    /// `hook` is called after the high watermark or the log start rose, and when the partition is removed or
    /// fenced; from any thread, so it must not block. Only the first one given counts.
    pub fn set_on_publish(&self, hook: Box<dyn Fn() + Send + Sync>) {
        let _first_counts = self.hook.set(hook);
    }

    pub(crate) fn notify(&self) {
        if let Some(hook) = self.hook.get() {
            hook();
        }
    }

    /// Why it takes no more records, if it does not.
    pub fn fenced_because(&self) -> Option<&str> {
        self.fence.get().map(String::as_str)
    }

    /// Runs of offsets met so far that do not verify, first and last of each. A long list is cut short.
    pub fn damages(&self) -> Vec<(i64, i64)> {
        let offset = |position: u64| i64::try_from(position).unwrap_or(i64::MAX);
        let damages = self.damages.lock();
        damages.iter().map(|range| (offset(range.start), offset(range.end - 1))).collect()
    }

    /// These offsets do not verify. Said and counted when they are met for the first time.
    pub(crate) fn note_damage(&self, first: i64, last: i64) {
        let position = |offset: i64| u64::try_from(offset).unwrap_or(0);
        let range = position(first)..position(last) + 1;
        {
            let mut damages = self.damages.lock();
            if damages.covers(&range) {
                return;
            }
            damages.add(range);
        }
        metrics::damaged_range();
        tracing::error!(partition = %self.key, first, last, "stored bytes do not verify; they are kept, and not served");
    }

    /// Takes no more records until the next start. The first reason counts; returns whether this is it.
    pub(crate) fn fence(&self, why: &str) -> bool {
        let first = self.fence.set(why.to_owned()).is_ok();
        if first {
            metrics::fenced_partition();
        }
        self.fenced.store(true, Ordering::Release);
        self.notify();
        first
    }

    /// Bytes of a segment went missing under this process: nothing more is acked, as with a failed write. What is left is served.
    pub(crate) fn lost(&self, segment: &Segment) {
        if self.is_fenced() {
            return;
        }
        let file = segment.id().path();
        if self.fence(&format!("{file} was cut from outside, or the disk does not read it")) {
            tracing::error!(partition = %self.key, file, "fenced until restart: the file was cut from outside, or the disk does not read it");
        }
    }

    /// No append is taken from now on; under the partition's lock.
    pub(crate) fn mark_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(crate) fn remove(&self) {
        self.mark_removed();
        self.notify();
    }

    pub(crate) fn close(&self, why: String, unwritten: Vec<InlineBatch>, counted: i64) {
        self.fence(&why);
        let _first_counts = self.closed.set(Closed { why, unwritten, counted });
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock()
    }

    /// Number of the next spare file made in this run.
    pub(crate) fn next_spare(&self) -> u64 {
        self.spares.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        self.segments.load_full()
    }

    /// Offset up to which everything is in the journal.
    pub(crate) fn entered_offset(&self) -> i64 {
        self.entered.lock().map_or(self.log_start.load(Ordering::Acquire), |entered| entered.next_offset)
    }

    pub(crate) fn active(&self) -> Option<Arc<Segment>> {
        self.segments.load().last().cloned()
    }

    /// Whether the active segment takes a batch of so many bytes as it is.
    pub(crate) fn fits(&self, bytes: u64) -> Fit {
        let Some(active) = self.active() else { return Fit::Roll };
        let end = active.end() + bytes + FOOTER_ROOM;
        if end > self.segment_bytes() && active.end() > DATA_START {
            Fit::Roll
        } else if end > active.allocated() {
            Fit::Allocate(active, end)
        } else {
            Fit::Now(active)
        }
    }

    /// Goes on in the spare file. The caller holds the lock and enqueues the roll.
    pub(crate) fn roll(&self, segment: &Arc<Segment>) {
        let mut segments = Vec::clone(&self.segments.load());
        segments.push(Arc::clone(segment));
        self.segments.store(Arc::new(segments));
    }

    /// Where the history of `epoch` ends in this log: a reader beyond it, whose last batch was of that epoch, read
    /// what a power cut took.
    pub fn epoch_end(&self, epoch: u32) -> i64 {
        let log = self.log.lock();
        log.epochs.iter().find(|start| start.epoch > epoch).map_or(log.next_offset, |start| start.offset)
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let bounds = self.bounds();
        assert!(bounds.log_start <= bounds.high_watermark, "{bounds:?}");
        assert!(bounds.high_watermark <= bounds.log_end, "{bounds:?}");
        let segments = self.segments();
        assert!(segments.windows(2).all(|pair| pair[0].base < pair[1].base), "segments out of order");
        assert!(segments.last().is_none_or(|last| last.base <= bounds.log_end));
        let log = self.lock();
        assert!(
            log.pending
                .iter()
                .zip(log.pending.iter().skip(1))
                .all(|(a, b)| a.number <= b.number && a.end < b.end)
        );
        assert!(
            log.epochs
                .windows(2)
                .all(|pair| pair[0].epoch < pair[1].epoch && pair[0].offset <= pair[1].offset)
        );
    }
}

impl Log {
    /// A change to `fsync` is durable.
    pub(crate) fn raised(&mut self, number: u64) {
        self.walked &= self.raise != number;
    }

    /// Remembers that `epoch` began at `offset`, if it is new.
    pub(crate) fn note_epoch(&mut self, epoch: u32, offset: i64) {
        note_epoch(&mut self.epochs, epoch, offset);
    }
}

/// Whether there is room for a batch.
#[derive(Debug)]
pub(crate) enum Fit {
    /// In the active segment.
    Now(Arc<Segment>),
    /// In the active segment, once its file has room up to this position.
    Allocate(Arc<Segment>, u64),
    /// In the next segment.
    Roll,
}
