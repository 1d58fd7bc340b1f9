//! A producer without its network: batches that fill, wait, fly and end. Pure: `(state, event, now) -> state`.
//!
//! ```text
//! push -> open (one per partition, filling) -> ready (closed, in order) -> in flight (pulled by the stream) -> outcome
//!                                                   ^------- known not to be stored -----------'
//! ```
//!
//! Invariants, which `check` tests:
//! 1. Every batch pushed into gets exactly one outcome.
//! 2. Batches of a partition leave in the order in which they were begun, and go back in that order.
//! 3. `bytes` is the sum of what is open, ready and in flight; `filling` counts what is open.
//! 4. A batch that has a sequence may be stored already and be sent again all the same. One that may be stored and cannot be
//!    sent again under its sequence ends as [`Error::is_outcome_unknown`].
//! 5. While as many batches of a partition wait and fly as the server would know again, its open batch grows on, up to the
//!    server's limit: then more records go into each, instead of fewer on their way.
//! 6. While the number of partitions is unknown, records without an explicit partition go to the *unassigned* batch, whose
//!    partitions the server chooses; it is closed before any other once the number is known, so keys keep their order.

mod failure;

use std::{collections::VecDeque, sync::Arc};

use annals_wire::{
    builder::{BatchBuilder, PushError, RecordParts},
    limits, murmur2, v1,
};
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    ack::{Ack, BatchAck},
    identity::Identity,
    options::{BatchLimits, NewRecord, Outcome, ProducerOptions},
    request::Head,
    unary::refused,
};
use crate::{
    error::{Code, Error, Result, reason},
    raw::RawMessage,
};

/// A batch that fills.
struct Open {
    builder: BatchBuilder,
    ack: Arc<BatchAck>,
    since: Instant,
}

/// A closed batch.
struct Batch {
    partition: Option<u32>,
    run: Bytes,
    records: u32,
    crc32: u32,
    ack: Arc<BatchAck>,
    /// Once it has left.
    sequence: Option<v1::ProducerSequence>,
    /// It was sent, and the answer got lost.
    perhaps: bool,
}

/// A record was taken.
pub(super) struct Pushed {
    pub(super) ack: Ack,
    /// A timer is to be set, or something is ready.
    pub(super) began_or_closed: bool,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// Too much is unanswered.
    Full,
    /// It can never be taken.
    Refused(Error),
}

/// What to do after a stream has failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterFailure {
    /// Open another stream, now.
    GoOn,
    /// Wait, then open another: this many tries have failed in a row.
    TryAgain(u32),
    /// Nothing more can be sent.
    Stop,
}

pub(super) struct State {
    topic: Arc<str>,
    options: ProducerOptions,
    limits: BatchLimits,
    /// 0 = unknown.
    partitions: u32,
    sticky: u32,
    unassigned: Option<Open>,
    open: Vec<Option<Open>>,
    filling: usize,
    /// Batches of each partition that are ready or in flight.
    closed_of: Vec<usize>,
    /// Bytes of the batch closed last: what the next one probably takes.
    usual: usize,
    ready: VecDeque<Batch>,
    in_flight: VecDeque<Batch>,
    identity: Identity,
    bytes: usize,
    failures_in_a_row: u32,
    first_failure: Option<Error>,
    outcomes: Vec<Outcome>,
    closed: Option<Error>,
}

impl State {
    pub(super) fn new(
        topic: &str,
        partitions: u32,
        limits: BatchLimits,
        options: ProducerOptions,
        identity: Identity,
        seed: u64,
    ) -> Self {
        let sticky = u32::try_from(seed % u64::from(partitions.max(1))).unwrap_or_default();
        Self {
            topic: topic.into(),
            options,
            limits,
            partitions,
            sticky,
            unassigned: None,
            open: Vec::new(),
            filling: 0,
            closed_of: Vec::new(),
            usual: 0,
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            identity,
            bytes: 0,
            failures_in_a_row: 0,
            first_failure: None,
            outcomes: Vec::new(),
            closed: None,
        }
    }

    /// Takes a record into its partition's batch. The time is asked for only when a batch begins.
    pub(super) fn push(
        &mut self,
        record: &NewRecord<'_>,
        now: impl Fn() -> Instant,
    ) -> Result<Pushed, NotTaken> {
        if let Some(error) = &self.closed {
            return Err(NotTaken::Refused(error.clone()));
        }
        if self.bytes >= self.options.max_in_flight_bytes {
            return Err(NotTaken::Full);
        }
        let partition = self.partition_of(record).map_err(NotTaken::Refused)?;
        self.push_into(partition, record, now)
    }

    fn partition_of(&self, record: &NewRecord<'_>) -> Result<Option<u32>> {
        let most = if self.partitions > 0 { self.partitions } else { limits::MAX_PARTITIONS };
        match (record.partition, record.key) {
            (Some(partition), _) if partition >= most => Err(Error::new(
                Code::NotFound,
                reason::PARTITION_UNKNOWN,
                format!("topic \"{}\" has {most} partitions, no partition {partition}", self.topic),
            )),
            (Some(partition), _) => Ok(Some(partition)),
            (None, _) if self.partitions == 0 => Ok(None),
            (None, Some(key)) => Ok(Some(murmur2::partition_of(key, self.partitions))),
            (None, None) => Ok(Some(self.sticky)),
        }
    }

    fn push_into(
        &mut self,
        partition: Option<u32>,
        record: &NewRecord<'_>,
        now: impl Fn() -> Instant,
    ) -> Result<Pushed, NotTaken> {
        let mut began = false;
        loop {
            let room = self.room_for_a_batch();
            let slot = slot(&mut self.unassigned, &mut self.open, partition);
            let open = slot.get_or_insert_with(|| {
                began = true;
                self.filling += 1;
                Open {
                    builder: self.limits.builder().with_capacity(room),
                    ack: BatchAck::new(),
                    since: now(),
                }
            });
            let before = open.builder.len();
            let headers = record.headers.iter().copied();
            let parts = RecordParts {
                key: record.key,
                value: record.value,
                headers,
                timestamp_ms: record.timestamp_ms,
            };
            match open.builder.push(parts) {
                Ok(()) => {}
                // This record begins the next batch.
                Err(PushError::Full) => {
                    self.close(partition);
                    continue;
                }
                Err(error) => {
                    if open.builder.is_empty() {
                        *slot = None;
                        self.filling -= 1;
                    }
                    return Err(NotTaken::Refused(refused(&error)));
                }
            }
            let (after, count) = (open.builder.len(), open.builder.count());
            let ack = Ack::new(&open.ack, count - 1);
            self.bytes += after - before;
            if after >= self.options.batch_bytes && self.may_close(partition) {
                self.close(partition);
                began = true;
            }
            return Ok(Pushed { ack, began_or_closed: began });
        }
    }

    /// Bytes to set aside for a batch that begins, so that it is not moved each time it has doubled. Not so many that partitions
    /// with little to send hold more than may be in flight.
    fn room_for_a_batch(&self) -> usize {
        let room = self.usual + self.usual / 8;
        if room.saturating_mul(self.filling + 1) <= self.options.max_in_flight_bytes / 2 { room } else { 0 }
    }

    /// Closes a partition's open batch.
    fn close(&mut self, partition: Option<u32>) {
        let Some(mut open) = slot(&mut self.unassigned, &mut self.open, partition).take() else { return };
        if partition == Some(self.sticky) && self.partitions > 0 {
            self.sticky = (self.sticky + 1) % self.partitions;
        }
        self.filling -= 1;
        self.usual = open.builder.len();
        let built = open.builder.finish();
        if let Some(partition) = partition {
            *count(&mut self.closed_of, partition) += 1;
        }
        self.ready.push_back(Batch {
            partition,
            run: built.bytes,
            records: built.count,
            crc32: built.crc32,
            ack: open.ack,
            sequence: None,
            perhaps: false,
        });
    }

    /// Whether another batch of the partition may wait and fly beside those that do.
    fn may_close(&self, partition: Option<u32>) -> bool {
        let closed = partition.and_then(|partition| self.closed_of.get(partition as usize));
        closed.is_none_or(|closed| *closed < self.identity.window())
    }

    /// A batch has its outcome: the next of its partition may follow.
    fn has_ended(&mut self, batch: &Batch) {
        let Some(partition) = batch.partition else { return };
        *count(&mut self.closed_of, partition) -= 1;
        let open = self.open.get(partition as usize).and_then(Option::as_ref);
        if open.is_some_and(|open| open.builder.len() >= self.options.batch_bytes) {
            self.close(Some(partition));
        }
    }

    /// Closes every open batch; `true` if there was one.
    pub(super) fn close_all(&mut self) -> bool {
        self.close_older_than(None)
    }

    /// Closes batches that have lingered long enough; `true` if there was one.
    pub(super) fn close_due(&mut self, now: Instant) -> bool {
        self.close_older_than(Some(now))
    }

    fn close_older_than(&mut self, now: Option<Instant>) -> bool {
        let linger = self.options.linger;
        let due = |open: &Option<Open>| {
            open.as_ref().is_some_and(|open| now.is_none_or(|now| open.since + linger <= now))
        };
        let mut closed = due(&self.unassigned);
        if closed {
            self.close(None);
        }
        for partition in 0..u32::try_from(self.open.len()).unwrap_or(u32::MAX) {
            // What is flushed waits where it is.
            let may = now.is_none() || self.may_close(Some(partition));
            if may && self.open.get(partition as usize).is_some_and(&due) {
                self.close(Some(partition));
                closed = true;
            }
        }
        closed
    }

    /// When the next open batch has lingered long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let assigned = (0..).zip(&self.open).filter(|(partition, _)| self.may_close(Some(*partition)));
        let open = assigned.map(|(_, open)| open).chain([&self.unassigned]).flatten();
        open.map(|open| open.since).min().map(|since| since + self.options.linger)
    }

    /// Learns how many partitions the topic has. They only grow.
    pub(super) fn set_partitions(&mut self, partitions: u32) -> bool {
        if partitions <= self.partitions {
            return false;
        }
        // What waits for partitions goes out before what comes after knows them.
        let closed = self.unassigned.is_some();
        self.close(None);
        self.partitions = partitions;
        closed
    }

    /// The next batch to send, if there is one; it is in flight from here on.
    pub(super) fn pull(&mut self) -> Option<RawMessage> {
        let mut next = self.next_ready();
        if next.is_none() && self.options.linger.is_zero() {
            // The connection takes more: that is all they have waited for.
            self.close_those_with_room();
            next = self.next_ready();
        }
        let mut batch = self.ready.remove(next?)?;
        batch.sequence = self.identity.leaves(batch.partition, batch.records, batch.sequence);
        let head = Head {
            topic: &self.topic,
            partition: batch.partition,
            durability: self.options.durability,
            producer: batch.sequence,
            records_crc32: batch.crc32,
            ..Head::default()
        };
        let message = head.streamed(batch.run.clone());
        self.in_flight.push_back(batch);
        Some(message)
    }

    /// The first ready batch whose partition has room in flight.
    fn next_ready(&self) -> Option<usize> {
        self.ready.iter().position(|batch| self.identity.has_room(batch.partition))
    }

    fn close_those_with_room(&mut self) {
        self.close(None);
        for partition in 0..u32::try_from(self.open.len()).unwrap_or(u32::MAX) {
            if self.may_close(Some(partition)) {
                self.close(Some(partition));
            }
        }
    }

    /// The producer has no identity yet, and wants one before anything is sent.
    pub(super) fn wants_identity(&self) -> bool {
        self.identity.is_wanted()
    }

    /// Who the producer is from now on.
    pub(super) fn identify(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// The oldest batch in flight is stored.
    pub(super) fn stored(&mut self, appends: Vec<v1::PartitionAppend>) -> Result<()> {
        let batch = self.in_flight.pop_front().ok_or_else(|| Error::bad_answer("an ack for nothing"))?;
        self.failures_in_a_row = 0;
        self.identity.is_back(batch.partition);
        self.bytes -= batch.run.len();
        self.has_ended(&batch);
        if self.options.on_outcome.is_some() {
            let bytes = batch.run.len();
            self.outcomes
                .extend(appends.iter().map(|append| Outcome::Stored { append: append.clone(), bytes }));
        }
        batch.ack.resolve(Ok(appends.into()));
        Ok(())
    }

    /// Takes nothing more; what is not in flight fails as not stored.
    pub(super) fn stop(&mut self, cause: &Error) {
        let message = format!("not sent: the producer has ended ({})", cause.message());
        let error = Error::new(Code::Aborted, reason::PRODUCER_CLOSED, message);
        self.close_all();
        self.fail_ready(usize::MAX, &error);
        self.closed = Some(error);
    }

    /// Takes no more records; what there is still goes out.
    pub(super) fn finish(&mut self) {
        self.close_all();
        self.closed.get_or_insert_with(|| {
            Error::new(Code::FailedPrecondition, reason::PRODUCER_CLOSED, "the producer is closed")
        });
    }

    /// Outcomes since the last call, to tell the caller's hook without holding the lock.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// The first failure since the last call.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.first_failure.take()
    }

    /// Nothing is open, ready or in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// There is something to send.
    pub(super) fn has_ready(&self) -> bool {
        let mut open = (0..).zip(&self.open).filter(|(_, open)| open.is_some());
        let goes = |(partition, _): (u32, _)| self.may_close(Some(partition));
        self.next_ready().is_some()
            || (self.options.linger.is_zero() && (self.unassigned.is_some() || open.any(goes)))
    }

    /// There is something unanswered.
    pub(super) fn has_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// No more records are taken.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The number of partitions is not known yet.
    pub(super) fn is_unassigned(&self) -> bool {
        self.partitions == 0
    }

    /// A record can be tried: there is room, or it will be refused at once.
    pub(super) fn has_room(&self) -> bool {
        self.closed.is_some() || self.bytes < self.options.max_in_flight_bytes
    }

    /// The invariants that can be looked at.
    #[cfg(test)]
    fn check(&self) {
        let open: usize =
            self.open.iter().chain([&self.unassigned]).flatten().map(|open| open.builder.len()).sum();
        let closed: usize = self.ready.iter().chain(&self.in_flight).map(|batch| batch.run.len()).sum();
        assert_eq!(self.bytes, open + closed, "bytes are those of what has no outcome");
        let empty = self.open.iter().chain([&self.unassigned]).flatten().any(|open| open.builder.is_empty());
        assert!(!empty, "no open batch is empty");
        let filling = self.open.iter().chain([&self.unassigned]).flatten().count();
        assert_eq!(self.filling, filling, "open batches are counted");
        assert!(self.closed.is_none() || open == 0, "nothing is open once closed");
        for (partition, closed) in (0..).zip(&self.closed_of) {
            let of = |batch: &&Batch| batch.partition == Some(partition);
            assert_eq!(self.ready.iter().chain(&self.in_flight).filter(of).count(), *closed);
        }
    }
}

fn count(counts: &mut Vec<usize>, partition: u32) -> &mut usize {
    let index = partition as usize;
    if counts.len() <= index {
        counts.resize(index + 1, 0);
    }
    counts.get_mut(index).expect("room was made for it")
}

fn slot<'s>(
    unassigned: &'s mut Option<Open>,
    open: &'s mut Vec<Option<Open>>,
    partition: Option<u32>,
) -> &'s mut Option<Open> {
    let Some(partition) = partition else { return unassigned };
    let index = partition as usize;
    if open.len() <= index {
        open.resize_with(index + 1, || None);
    }
    open.get_mut(index).expect("room was made for it")
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
