//! Appending: checks, offsets, header, one vectored write, the queue. All under the partitions' locks, nothing waits.
//!
//! 1. Locks are taken in ascending order of partition; everything that may block was done before ([`super::room`],
//!    [`super::prepare`]).
//! 2. All checks come before the first offset is given: there is nothing to take back but bytes nobody counts yet.
//! 3. Offsets count once all of a call's writes returned whole. If one fails, each batch written is made zeros again: its
//!    first byte ends the log there, and no later batch may end where something within it begins. Where even that fails
//!    the partition is fenced.

use std::{io, sync::Arc};

use annals_wire::{
    chunks::Chunks,
    header::{Attributes, BATCH_PREFIX_LEN, BatchHeader},
    internal::entry::Body,
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{
    disk::is_out_of_files,
    epochs::epoch_at,
    error::AppendError,
    frame::BatchBytes,
    key::Level,
    mutant::{Mutant, planted},
    partition::{Fit, Log, Partition},
    prepare::spare_needs,
    producers::{Known, Sequence, Stored},
    queue::{BatchWork, Upto, Work, Works},
    room::Room,
    segment::Segment,
    storage::{Storage, sync_point},
};
use crate::sync::MutexGuard;

/// One partition's part of a call.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// Where to.
    pub partition: &'a Arc<Partition>,
    /// The payload field(s) as they go to the file, tags and lengths included.
    pub payload: &'a [Bytes],
    /// Bytes of `payload`.
    pub payload_len: usize,
    /// Records in it, at least 1.
    pub record_count: u32,
    /// Largest record time in milliseconds since 1970; 0 if no record has one.
    pub max_timestamp_ms: i64,
    /// Some record has no time of its own, so the append time counts for it.
    pub timestamps_missing: bool,
    /// crc32 of `payload`.
    pub records_crc32: u32,
    /// Codec and payload kind; the other bits are the log's.
    pub attributes: Attributes,
    /// Append only if this is the partition's next offset.
    pub expected_next_offset: Option<i64>,
    /// Store it once under this. Only in a call of one batch that is not atomic.
    pub sequence: Option<Sequence>,
}

/// How a call is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// What the caller asks for; a partition's own level counts where it is higher.
    pub level: Level,
    /// One frame, all or nothing across any crash.
    pub atomic: bool,
}

/// What became of one partition's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record; the others follow without holes.
    pub base_offset: i64,
    /// Milliseconds since 1970.
    pub append_time_ms: i64,
    /// Epoch of this run.
    pub leader_epoch: u32,
    /// What the ack will mean.
    pub level: Level,
    /// It had been stored before; nothing was now.
    pub duplicate: bool,
}

/// What became of each part of a call: mostly there is one.
pub type Outcomes = SmallVec<[Appended; 1]>;

/// A call that was taken. It is not acked before its number is durable.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// In the order of the call's batches.
    pub appended: Outcomes,
    /// Number to wait for before answering.
    pub ack: u64,
    /// Number of the first of the call's state entries.
    pub first_entry: u64,
}

/// A call's parts in the order of their locks: mostly there is one.
type Parts<'a> = SmallVec<[Locked<'a>; 1]>;

struct Locked<'a> {
    /// Index in the call.
    index: usize,
    append: &'a Append<'a>,
    log: MutexGuard<'a, Log>,
    /// The topic's.
    own_level: Level,
    /// What the ack will mean.
    level: Level,
    segment: Option<Arc<Segment>>,
    rolls: bool,
    /// The batch is stored already.
    stored: Option<Stored>,
    /// Once it has its offsets.
    header: Option<BatchHeader>,
    /// From then on until it is handed to the commit cycle.
    bytes: Option<BatchBytes>,
    /// Where in the item its batch or sync point stands.
    work_at: Option<u64>,
}

impl Locked<'_> {
    /// The batch becomes an entry of its own; else the page cache, or a sync point, is enough.
    fn journaled(&self, mode: Mode) -> bool {
        mode.atomic || self.own_level == Level::Fsync
    }

    fn segment(&self) -> &Arc<Segment> {
        self.segment.as_ref().expect("every batch was given a segment before the first write")
    }

    fn header(&self) -> &BatchHeader {
        self.header.as_ref().expect("stamped before it is written, counted and shown")
    }

    fn bytes(&self) -> &BatchBytes {
        self.bytes.as_ref().expect("stamped before it is written, written before it is handed over")
    }
}

impl Storage {
    /// Appends one batch to each of several partitions. `entries` makes the state entries that happen with them, from the
    /// offsets given; it is called under the partitions' locks and must be quick.
    ///
    /// Nothing of the call was taken if this is an error.
    pub fn append(
        self: &Arc<Self>,
        room: Room,
        appends: &[Append<'_>],
        mode: Mode,
        entries: &mut dyn FnMut(&[Appended]) -> Vec<Vec<u8>>,
    ) -> Result<Receipt, AppendError> {
        if self.is_closed() {
            return Err(AppendError::Closed);
        }
        self.notice_faults();
        let mut locked = lock_in_order(appends, mode)?;
        for item in &mut locked {
            self.check(item)?;
        }
        if let Some((item, stored)) =
            locked.first_mut().and_then(|item| item.stored.map(|stored| (item, stored)))
        {
            return Ok(self.stored_before(item, stored, room));
        }
        for item in &mut locked {
            place(item)?;
        }
        for item in &mut locked {
            self.stamp(item, mode.atomic);
        }
        self.write_all(&locked)?;
        Ok(self.count_and_enqueue(locked, room, mode, entries))
    }

    /// The answer to a batch that is stored already. It waits for all that the partition waits for, and so for that batch.
    fn stored_before(&self, item: &mut Locked<'_>, stored: Stored, room: Room) -> Receipt {
        let partition = item.append.partition;
        let mut ack = item.log.barrier;
        // What was acked from the page cache may be asked for again with a higher wish.
        if item.level == Level::Fsync
            && item.own_level < Level::Fsync
            && let Some(work) = sync_point(partition, &mut item.log)
        {
            // A closed queue: waiting for a number that never comes says so.
            ack = ack.max(self.queue().push(smallvec![work], Some(room)).unwrap_or(u64::MAX - 1));
        }
        if planted(Mutant::DuplicateNotAwaited) {
            ack = 0;
        }
        let appended = Appended {
            base_offset: stored.base_offset,
            append_time_ms: stored.append_time_ms,
            leader_epoch: epoch_at(&item.log.epochs, stored.base_offset),
            level: item.level,
            duplicate: true,
        };
        Receipt { appended: smallvec![appended], ack, first_entry: ack }
    }

    fn check(&self, item: &mut Locked<'_>) -> Result<(), AppendError> {
        let (batch, append) = (item.index, item.append);
        if append.partition.is_removed() {
            return Err(AppendError::Removed { batch });
        }
        if append.partition.is_fenced() {
            return Err(AppendError::Fenced { batch });
        }
        if let Some(sequence) = &append.sequence {
            match item.log.producers.look(sequence, append.record_count, append.records_crc32) {
                Known::Stored(stored) => {
                    item.stored = Some(stored);
                    return Ok(());
                }
                Known::Gap { expected } => return Err(AppendError::SequenceGap { batch, expected }),
                Known::Next if item.log.producers.knows(sequence.producer_id) => {}
                Known::Next => self.may_know_one_more()?,
            }
        }
        let next_offset = item.log.next_offset;
        if append.expected_next_offset.is_some_and(|expected| expected != next_offset) {
            return Err(AppendError::OffsetMismatch { batch, next_offset });
        }
        let records = i64::from(append.record_count);
        if records == 0 || next_offset.checked_add(records).is_none() {
            return Err(AppendError::Fenced { batch });
        }
        Ok(())
    }

    fn stamp(self: &Arc<Self>, item: &mut Locked<'_>, atomic: bool) {
        let append = item.append;
        if item.rolls {
            self.go_on_in_spare(item);
        }
        let now = self.clock().wall_ms();
        item.log.append_time = item.log.append_time.next(now);
        let append_time_ms = item.log.append_time.ms();
        let own = if append.timestamps_missing { append_time_ms } else { i64::MIN };
        let header = BatchHeader {
            base_offset: item.log.next_offset,
            last_offset_delta: append.record_count - 1,
            leader_epoch: self.epoch(),
            record_count: append.record_count,
            attributes: if atomic && !planted(Mutant::GroupUnmarked) {
                append.attributes.with_atomic()
            } else {
                append.attributes
            },
            append_time_ms,
            max_timestamp_ms: append.max_timestamp_ms.max(own),
            producer_id: append.sequence.map_or(0, |sequence| sequence.producer_id),
            producer_epoch: append.sequence.map_or(0, |sequence| sequence.producer_epoch),
            base_sequence: append.sequence.map_or(0, |sequence| sequence.base_sequence),
            records_crc32: append.records_crc32,
        };
        let key = append.partition.key();
        item.bytes = Some(BatchBytes {
            prefix: header.encode(append.payload_len, &key.topic, key.partition),
            payload: Chunks::of(append.payload),
            payload_len: append.payload_len,
            payload_crc: append.records_crc32,
        });
        item.header = Some(header);
    }

    fn go_on_in_spare(self: &Arc<Self>, item: &mut Locked<'_>) {
        let partition = item.append.partition;
        let spare = item.log.spare.take().expect("place saw a spare under the same lock");
        let base = item.log.next_offset;
        let segment = Arc::new(Segment::fresh(self.disk(), partition.key(), base, spare));
        let previous = partition.active();
        item.log.remember_producers(&partition.segments());
        partition.roll(&segment);
        let work = smallvec![Work::Roll { partition: Arc::clone(partition), segment: Arc::clone(&segment) }];
        match self.queue().push(work, None) {
            Ok(number) => {
                if !planted(Mutant::RollNotAwaited) {
                    item.log.barrier = number;
                }
                segment.set_roll_number(number);
                self.after_roll(number, partition, previous);
            }
            // Nothing is acked any more; recovery will not know the segment.
            Err(_closed) => self.taint(),
        }
        item.segment = Some(segment);
    }

    fn write_all(&self, locked: &[Locked<'_>]) -> Result<(), AppendError> {
        for (done, item) in locked.iter().enumerate() {
            let Err(error) = item.segment().write(item.bytes()) else { continue };
            for written in locked.iter().take(done + 1) {
                // Nothing was written into a file that was cut, and it must not grow again; nor into one that is not open.
                let untouched =
                    written.index == item.index && (written.segment().is_lost() || is_out_of_files(&error));
                if !untouched && written.segment().unwrite(written.bytes().len() as u64).is_err() {
                    self.fence(written.append.partition, &error);
                }
            }
            return Err(match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::DiskFull,
                _ if is_out_of_files(&error) => self.no_files(),
                _ if item.segment().is_lost() => {
                    item.append.partition.lost(item.segment());
                    AppendError::Fenced { batch: item.index }
                }
                _ => {
                    self.fence(item.append.partition, &error);
                    AppendError::Fenced { batch: item.index }
                }
            });
        }
        Ok(())
    }

    fn count_and_enqueue(
        self: &Arc<Self>,
        mut locked: Parts<'_>,
        room: Room,
        mode: Mode,
        entries: &mut dyn FnMut(&[Appended]) -> Vec<Vec<u8>>,
    ) -> Receipt {
        let appended = outcomes(&locked, self.epoch());
        let states = entries(&appended);
        let mut work = Works::with_capacity(locked.len() + states.len());
        for item in &mut locked {
            item.work_at = count(item, mode, &mut work);
        }
        let batches = work.len() as u64;
        work.extend(states.into_iter().map(|bytes| Work::Entry(Body::State(bytes.into()))));
        let length = work.len() as u64;
        let needs_room = (length > 0).then_some(room);
        // A closed queue: nothing is acked any more, and waiting for a number that never comes says so. No snapshot may
        // show what was counted here without its entries.
        let queued = self.queue().push(work, needs_room).ok();
        let closed = queued.is_none();
        if closed {
            self.taint();
        }
        let first = queued.unwrap_or(u64::MAX - length);
        let mut ack = if length > 0 || closed { first + length - 1 } else { 0 };
        for item in &mut locked {
            if closed || (item.journaled(mode) && !planted(Mutant::GroupOvertaken)) {
                item.log.barrier = first + item.work_at.unwrap_or_default();
            }
            ack = ack.max(item.log.barrier);
            self.show(item);
        }
        let shown: SmallVec<[(&Arc<Partition>, u64); 1]> =
            locked.iter().map(|item| (item.append.partition, item.log.barrier)).collect();
        drop(locked);
        for (partition, barrier) in shown {
            self.publish_when_durable(partition, barrier);
        }
        Receipt { appended, ack, first_entry: first + batches }
    }

    /// Makes the batch visible at the topic's level: now, or once what it builds on is durable.
    fn show(&self, item: &mut Locked<'_>) {
        let partition = item.append.partition;
        let header = *item.header();
        let number = item.log.barrier;
        item.log.note_epoch(header.leader_epoch, header.base_offset);
        if !planted(Mutant::SequencesNotCounted) {
            self.note_sequence(&mut item.log, &header);
        }
        let bytes = batch_len(item.append);
        partition.written(&mut item.log, next_offset(&header), bytes, number, self.is_durable(number));
        self.after_append(partition, &mut item.log, bytes);
    }

    /// Tells readers of what was appended, as soon as they may see it. Without the partition's lock.
    fn publish_when_durable(self: &Arc<Self>, partition: &Arc<Partition>, number: u64) {
        if self.is_durable(number) {
            partition.publish(number);
            partition.notify();
        } else if partition.level() < Level::Fsync {
            // The commit cycle publishes the partitions of its own items; this one may not be among them.
            let waiting = Arc::clone(partition);
            self.on_durable(
                number,
                Box::new(move |fate| {
                    // What was given up, or what a failed journal never took, nobody may see.
                    if fate.is_ok() {
                        waiting.publish(number);
                    }
                }),
            );
        }
    }
}

fn outcomes(locked: &[Locked<'_>], leader_epoch: u32) -> Outcomes {
    let mut outcomes: SmallVec<[(usize, Appended); 1]> = locked
        .iter()
        .map(|item| {
            let header = item.header();
            let (base_offset, append_time_ms) = (header.base_offset, header.append_time_ms);
            (
                item.index,
                Appended { base_offset, append_time_ms, leader_epoch, level: item.level, duplicate: false },
            )
        })
        .collect();
    outcomes.sort_unstable_by_key(|(index, _)| *index);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Counts a written batch and adds what the commit cycle must do for it; returns where in `work` that stands.
fn count(item: &mut Locked<'_>, mode: Mode, work: &mut Works) -> Option<u64> {
    let header = *item.header();
    let partition = item.append.partition;
    let segment = Arc::clone(item.segment());
    let position = segment.end();
    segment.advance(&header, item.bytes());
    let at = work.len() as u64;
    if !item.log.dirty.iter().any(|dirty| Arc::ptr_eq(dirty, &segment)) {
        item.log.dirty.push(Arc::clone(&segment));
    }
    if item.journaled(mode) {
        work.push(Work::Batch(BatchWork {
            partition: Arc::clone(partition),
            segment,
            position,
            base_offset: header.base_offset,
            next_offset: next_offset(&header),
            epoch: header.leader_epoch,
            bytes: item.bytes.take().expect("a batch is counted once"),
            inline: mode.atomic,
        }));
    } else if item.level == Level::Fsync {
        let upto = Upto {
            segment_base: segment.base,
            position: segment.end(),
            next_offset: next_offset(&header),
            epoch: header.leader_epoch,
        };
        work.push(Work::Sync { partition: Arc::clone(partition), upto });
    } else {
        return None;
    }
    Some(at)
}

/// Offset after a batch that [`Storage::check`] found possible.
fn next_offset(header: &BatchHeader) -> i64 {
    header.next_offset().expect("checked before the offset was given")
}

fn batch_len(append: &Append<'_>) -> u64 {
    (BATCH_PREFIX_LEN + append.payload_len) as u64
}

fn lock_in_order<'a>(appends: &'a [Append<'a>], mode: Mode) -> Result<Parts<'a>, AppendError> {
    let mut order: SmallVec<[usize; 1]> = (0..appends.len()).collect();
    order.sort_unstable_by_key(|index| appends.get(*index).map(|append| append.partition.key()));
    let mut locked = Parts::with_capacity(order.len());
    for index in order {
        let Some(append) = appends.get(index) else { continue };
        if locked.last().is_some_and(|last| last.append.partition.key() == append.partition.key()) {
            return Err(AppendError::Repeated { batch: index });
        }
        let log = append.partition.lock();
        let own_level = append.partition.level();
        let level = own_level.max(mode.level).max(if mode.atomic { Level::Fsync } else { Level::Os });
        locked.push(Locked {
            index,
            append,
            log,
            own_level,
            level,
            segment: None,
            rolls: false,
            stored: None,
            header: None,
            bytes: None,
            work_at: None,
        });
    }
    Ok(locked)
}

/// Chooses the segment, or says that the call must roll to the spare. Changes nothing.
fn place(item: &mut Locked<'_>) -> Result<(), AppendError> {
    let bytes = batch_len(item.append);
    match item.append.partition.fits(bytes) {
        Fit::Now(active) => item.segment = Some(active),
        Fit::Roll if item.log.spare.as_ref().is_some_and(|spare| spare.allocated >= spare_needs(bytes)) => {
            item.rolls = true;
        }
        Fit::Roll | Fit::Allocate(..) => {
            return Err(AppendError::NotPrepared { batch: item.index });
        }
    }
    Ok(())
}
