//! Storing records.
//!
//! ```text
//!   fields checked -> (id seen before? the first answer) -> topic, made if need be -> records walked, sorted by partition
//!     -> segments prepared, room reserved          may wait, holds nothing
//!     -> append: offsets, write, enqueue           holds the locks, waits for nothing
//!     -> ack when durable at the level
//! ```
//!
//! Between the second and the third step anything may have changed: the topic deleted, the room in the segment taken. Then
//! the append is refused before it counts, and the call goes round again.

use annals_wire::{
    header::BATCH_PREFIX_LEN,
    internal::{BatchDone, ProduceDone, request_done},
};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Broker, Error, Few, Limits, PartitionAppend, Produce, Produced, RETRY_FULL, RETRY_SOON,
    catalog::{Lane, Topic},
    gather::{Parts, Request, Split},
    once::Once,
    settle::room_for,
    topics::check_name,
};
use crate::{
    state::{Done, write_entry},
    storage::{Append, AppendError, Appended, Class, Durable, Level, Mode, Receipt, Room, Sequence},
    sync::Arc,
};

/// How often a call starts over because its topic was deleted under it, or somebody else took the room it had prepared.
pub(super) const MOST_ROUNDS: usize = 32;
/// Bytes of a request's entry for each batch.
pub(super) const BATCH_DONE_BYTES: u64 = 48;

/// Records that have their offsets; whether they stay is not known before [`PendingAck::acked`].
#[derive(Debug)]
pub struct PendingAck {
    produced: Produced,
    /// `None` = the level asked for is reached.
    durability: Option<Durable>,
}

impl PendingAck {
    /// Waits until they are as durable as their level says. Acks of a partition come in the order of its offsets.
    ///
    /// # Errors
    /// `OutcomeUnknown`, if the disk fails first.
    pub async fn acked(self) -> Result<Produced, Error> {
        if let Some(durability) = self.durability {
            durability.await.map_err(|_| Error::OutcomeUnknown)?;
        }
        Ok(self.produced)
    }
}

/// What became of an append.
enum Outcome {
    Stored(PendingAck),
    /// A request of this id was carried out before.
    Before(Done),
    /// The topic is gone: to be tried again.
    Again,
}

/// Where an append that was refused is tried again.
pub(super) enum Tried {
    /// From the preparation: somebody else took the room.
    Prepare,
    /// From the topic: it is gone.
    TopicGone,
}

/// A request on its way to a topic.
struct Road<'a> {
    request: &'a Request,
    topic: &'a Arc<Topic>,
    split: &'a Split,
    lanes: SmallVec<[&'a Arc<Lane>; 1]>,
}

impl Broker {
    /// Stores records and waits for the ack.
    ///
    /// # Errors
    /// See [`Broker::submit`] and [`PendingAck::acked`].
    pub async fn produce(&self, call: Produce) -> Result<Produced, Error> {
        self.submit(call).await?.acked().await
    }

    /// Stores records: they have their offsets when this returns, in the order of the calls that were awaited one after
    /// the other.
    ///
    /// # Errors
    /// Nothing is stored then, and nothing will be.
    pub async fn submit(&self, call: Produce) -> Result<PendingAck, Error> {
        let _storing = self.enter_storing()?;
        let request = Request::new(call)?;
        if let Some(once) = &request.once
            && let Some(done) = self.seen(once).await?
        {
            return self.answer_again(&request, &done);
        }
        for _ in 0..MOST_ROUNDS {
            let topic = match self.catalog.get(&request.topic) {
                Some(topic) => topic,
                None => self.topic_for(&request).await?,
            };
            if let Some(partition) = request.partition {
                self.known_partition(&topic, partition).await?;
            }
            let keyless = |bytes| topic.keyless_partition(bytes);
            let split = request.split(&self.config.limits, topic.partitions(), keyless)?;
            match self.store(&request, &topic, &split).await? {
                Outcome::Stored(pending) => return Ok(pending),
                Outcome::Before(done) => return self.answer_again(&request, &done),
                Outcome::Again => {}
            }
        }
        Err(Error::Throttled { retry_delay: RETRY_SOON })
    }

    /// A topic that is not there: made, if that is allowed and everything else about the request is right.
    pub(super) async fn topic_for(&self, request: &Request) -> Result<Arc<Topic>, Error> {
        check_name("topic", &request.topic)?;
        if !self.config.auto_create {
            return self.refuse(self.topic_not_found(&request.topic)).await;
        }
        let partitions = self.config.topic_defaults.partitions;
        if let Some(partition) = request.partition.filter(|partition| *partition >= partitions) {
            let topic = request.topic.clone();
            return self.refuse(Error::PartitionUnknown { topic, partition, partitions }).await;
        }
        request.split(&self.config.limits, partitions, |_| 0)?;
        Ok(self.auto_create(&request.topic).await?.topic)
    }

    async fn known_partition(&self, topic: &Topic, partition: u32) -> Result<(), Error> {
        match topic.lane(partition) {
            Ok(_) => Ok(()),
            Err(error) => self.refuse(error).await,
        }
    }

    /// What came of a request, if it came before.
    pub(super) async fn seen(&self, once: &Once) -> Result<Option<Done>, Error> {
        let seen = once.seen(&self.truth.requests.lock());
        match seen {
            Ok(seen) => Ok(seen),
            Err(error) => self.refuse(error).await,
        }
    }

    async fn store(&self, request: &Request, topic: &Arc<Topic>, split: &Split) -> Result<Outcome, Error> {
        let mut lanes = SmallVec::with_capacity(split.parts.len());
        for part in &split.parts {
            lanes.push(topic.lane(part.partition)?);
        }
        let road = Road { request, topic, split, lanes };
        for _ in 0..MOST_ROUNDS {
            let tried = match self.prepare(road.sizes()).await {
                Ok(()) => {
                    let room = self.room(road.journal_bytes(), Class::Data).await?;
                    match (&request.once, &request.sequence) {
                        (None, None) => self.append(room, &road),
                        (None, Some(sequence)) => self.append_in_sequence(room, &road, sequence),
                        (Some(once), _) => self.append_once(room, &road, once),
                    }
                }
                Err(error) => Err(Refused::Append(error)),
            };
            let error = match tried {
                Ok(outcome) => return Ok(outcome),
                Err(Refused::Error(error)) => error,
                Err(Refused::Append(error)) => {
                    let place = |batch| Some((topic, road.lanes.get(batch).copied()?));
                    match self.appended_not(&error, place, &Wanted::of(request)) {
                        Ok(Tried::Prepare) => continue,
                        Ok(Tried::TopicGone) => return Ok(Outcome::Again),
                        Err(error) => error,
                    }
                }
            };
            return self.refuse(error).await;
        }
        Err(Error::Throttled { retry_delay: RETRY_SOON })
    }

    /// Makes sure that every segment has room for so many bytes more. Allocating blocks, so it is done elsewhere.
    pub(super) async fn prepare<'a>(
        &self,
        sizes: impl Iterator<Item = (&'a Arc<Lane>, u64)> + Clone,
    ) -> Result<(), AppendError> {
        if !sizes.clone().any(|(lane, bytes)| self.storage.needs_prepare(&lane.partition, bytes)) {
            return Ok(());
        }
        let storage = Arc::clone(&self.storage);
        let lanes: Vec<_> = sizes.map(|(lane, bytes)| (Arc::clone(lane), bytes)).collect();
        let prepared = tokio::task::spawn_blocking(move || {
            for (index, (lane, bytes)) in lanes.iter().enumerate() {
                storage.prepare(&lane.partition, *bytes).map_err(|error| at_batch(error, index))?;
            }
            Ok(())
        });
        prepared.await.unwrap_or(Err(AppendError::Closed))
    }

    fn append(&self, room: Room, road: &Road<'_>) -> Result<Outcome, Refused> {
        let receipt = self.storage.append(room, &road.appends(), road.mode(), &mut |_| Vec::new())?;
        // Below fsync what the ack stands on is durable already, nearly always.
        let durable = self.storage.is_durable(receipt.ack);
        let durability = (!durable).then(|| self.storage.durable(receipt.ack));
        Ok(Outcome::Stored(PendingAck { produced: road.produced(&receipt), durability }))
    }

    /// The producer holds still meanwhile: nobody opens it anew between the check and the append.
    fn append_in_sequence(
        &self,
        room: Room,
        road: &Road<'_>,
        sequence: &Sequence,
    ) -> Result<Outcome, Refused> {
        let Sequence { producer_id, producer_epoch, .. } = *sequence;
        let holder = self.holders.get(producer_id).map_err(Refused::Error)?;
        let mut gate = holder.gate();
        gate.pass(producer_id, producer_epoch, self.clock.wall_ms()).map_err(Refused::Error)?;
        self.append(room, road)
    }

    fn append_once(&self, room: Room, road: &Road<'_>, once: &Once) -> Result<Outcome, Refused> {
        let mut requests = self.truth.requests.lock();
        if let Some(done) = once.seen(&requests).map_err(Refused::Error)? {
            return Ok(Outcome::Before(done));
        }
        let mut entered = None;
        let receipt = self.storage.append(room, &road.appends(), road.mode(), &mut |appended| {
            let result = request_done::Result::Produced(road.done(appended));
            let body = entered.insert(once.entry(self.clock.wall_ms(), result));
            vec![write_entry(body.clone())]
        })?;
        // A number beyond the newest is none: the journal closed, and the ack will say so.
        if let Some(body) = entered.filter(|_| receipt.first_entry <= self.storage.last_number()) {
            requests.apply(receipt.first_entry, &body);
        }
        drop(requests);
        let durability = Some(self.storage.durable(receipt.ack.max(receipt.first_entry)));
        Ok(Outcome::Stored(PendingAck { produced: road.produced(&receipt), durability }))
    }

    /// What a refused append means: an error, or another try. `place` tells where a batch was to go.
    pub(super) fn appended_not<'a>(
        &self,
        error: &AppendError,
        place: impl Fn(usize) -> Option<(&'a Arc<Topic>, &'a Arc<Lane>)>,
        wanted: &Wanted,
    ) -> Result<Tried, Error> {
        let place = |batch| {
            let (topic, lane) = place(batch).expect("storage names the batches it was given");
            (topic.name().to_string(), lane.partition.key().partition)
        };
        let fenced = |(topic, partition)| Error::PartitionFenced { topic, partition };
        Err(match *error {
            AppendError::NotPrepared { .. } => return Ok(Tried::Prepare),
            AppendError::Removed { .. } => return Ok(Tried::TopicGone),
            AppendError::OffsetMismatch { batch, next_offset } => {
                let ((topic, partition), expected) = (place(batch), wanted.offset);
                Error::ExpectedOffsetMismatch { topic, partition, expected, actual: next_offset }
            }
            AppendError::SequenceGap { batch, expected } => {
                let ((topic, partition), sequence) = (place(batch), wanted.sequence);
                Error::SequenceGap { topic, partition, sequence, expected }
            }
            AppendError::TooManyProducers { limit } => {
                Error::LimitReached { what: "partitions that know a producer", limit }
            }
            AppendError::Fenced { batch } => fenced(place(batch)),
            AppendError::Unsettled { key } => fenced((self.name_of(key), key.partition)),
            AppendError::DiskFull => Error::DiskFull { retry_delay: RETRY_FULL },
            AppendError::NoFiles { limit } => Error::LimitReached { what: "open segment files", limit },
            AppendError::Closed => Error::ShuttingDown { retry_delay: RETRY_SOON },
            AppendError::Repeated { batch } => {
                unreachable!("batch {batch}: a request is sorted by partition")
            }
        })
    }

    /// The answer of a request that was carried out before.
    fn answer_again(&self, request: &Request, done: &Done) -> Result<PendingAck, Error> {
        let Some(request_done::Result::Produced(produced)) = &done.done.result else {
            return Err(Error::argument("request_id", "belongs to another kind of request"));
        };
        let produced = Produced { appends: answers_again(request, produced)?, duplicate: true };
        Ok(PendingAck { produced, durability: Some(self.storage.durable(done.number)) })
    }
}

/// What a request wants of the place it goes to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    offset: i64,
    sequence: u32,
}

impl Wanted {
    fn of(request: &Request) -> Self {
        Self {
            offset: request.expected_next_offset.unwrap_or_default(),
            sequence: request.sequence.map_or(0, |sequence| sequence.base_sequence),
        }
    }
}

/// Where the records of a request went that was carried out before.
pub(super) fn answers_again(
    request: &Request,
    produced: &ProduceDone,
) -> Result<Few<PartitionAppend>, Error> {
    let topic_id = annals_wire::ids::TopicId::from_slice(&produced.topic_id).unwrap_or_default();
    let topic: Arc<str> = Arc::from(request.topic.as_str());
    let mut indexes = if produced.batches.len() > 1 {
        // It was within the limits when it was stored, whatever they are now.
        request.split(&Limits::none(), produced.partitions, |_| produced.keyless_partition)?.parts
    } else {
        Parts::new()
    };
    let appends = produced.batches.iter().map(|batch| PartitionAppend {
        topic: Arc::clone(&topic),
        topic_id,
        partition: batch.partition,
        base_offset: batch.base_offset,
        record_count: batch.record_count,
        leader_epoch: batch.leader_epoch,
        append_time_ms: batch.append_time_ms,
        level: Level::from_number(batch.durability).unwrap_or(Level::Fsync),
        duplicate: true,
        record_indexes: indexes
            .iter_mut()
            .find(|part| part.partition == batch.partition)
            .map(|part| std::mem::take(&mut part.record_indexes))
            .unwrap_or_default(),
    });
    Ok(appends.collect())
}

/// Why an append under the lock of the requests did not happen.
pub(super) enum Refused {
    Error(Error),
    Append(AppendError),
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl Road<'_> {
    /// Each partition, and how many bytes go to its segment.
    fn sizes(&self) -> impl Iterator<Item = (&Arc<Lane>, u64)> + Clone {
        let bytes = self.split.parts.iter().map(|part| (BATCH_PREFIX_LEN + part.payload_len) as u64);
        self.lanes.iter().copied().zip(bytes)
    }

    fn journal_bytes(&self) -> u64 {
        let batches: u64 = self.sizes().map(|(_, bytes)| bytes).sum();
        let entry = self.request.once.as_ref().map_or(0, Once::entry_len);
        let parts = self.split.parts.len();
        room_for(batches + entry + BATCH_DONE_BYTES * parts as u64, parts + 1)
    }

    fn appends(&self) -> SmallVec<[Append<'_>; 1]> {
        let (expected, sequence) = (self.request.expected_next_offset, self.request.sequence);
        let appends = self.split.parts.iter().zip(&self.lanes);
        appends.map(|(part, lane)| Append { sequence, ..part.append(&lane.partition, expected) }).collect()
    }

    /// All or nothing where it must be: with an id, and at fsync when several partitions are touched.
    fn mode(&self) -> Mode {
        let level = self.request.level.unwrap_or(Level::Os);
        let own = self.lanes.iter().map(|lane| lane.partition.level()).max();
        let several = self.lanes.len() > 1 && Some(Level::Fsync) == own.max(Some(level));
        Mode { level, atomic: self.request.once.is_some() || several }
    }

    fn produced(&self, receipt: &Receipt) -> Produced {
        let appends =
            self.split.parts.iter().zip(&receipt.appended).map(|(part, appended)| PartitionAppend {
                topic: Arc::clone(self.topic.name()),
                topic_id: self.topic.id(),
                partition: part.partition,
                base_offset: appended.base_offset,
                record_count: part.walked.record_count,
                leader_epoch: appended.leader_epoch,
                append_time_ms: appended.append_time_ms,
                level: appended.level,
                duplicate: appended.duplicate,
                record_indexes: part.record_indexes.clone(),
            });
        Produced { appends: appends.collect(), duplicate: false }
    }

    /// What a request's entry keeps of it.
    fn done(&self, appended: &[Appended]) -> ProduceDone {
        let batches = self.split.parts.iter().zip(appended).map(|(part, appended)| BatchDone {
            partition: part.partition,
            base_offset: appended.base_offset,
            record_count: part.walked.record_count,
            leader_epoch: appended.leader_epoch,
            append_time_ms: appended.append_time_ms,
            durability: appended.level.number(),
        });
        ProduceDone {
            topic_id: Bytes::copy_from_slice(self.topic.id().as_bytes()),
            partitions: self.split.partitions,
            keyless_partition: self.split.keyless_partition,
            batches: batches.collect(),
        }
    }
}

/// An error of one partition's preparation, told of its place in the call.
fn at_batch(error: AppendError, batch: usize) -> AppendError {
    match error {
        AppendError::Fenced { .. } => AppendError::Fenced { batch },
        AppendError::Removed { .. } => AppendError::Removed { batch },
        AppendError::NotPrepared { .. } => AppendError::NotPrepared { batch },
        other => other,
    }
}
