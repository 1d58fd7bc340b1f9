//! Producers: opened here, and asked by every batch that comes with a sequence whether its sender may still store.
//!
//! ```text
//!   open   producers (the truth) --> the producer's gate --> entry, epoch raised --> where it stands --> durable, answered
//!   store                            the producer's gate --> partition: sequence, offset, write
//! ```
//!
//! 1. A gate is held through an append. So whoever opens a producer anew finds every batch of the older holder counted, and
//!    what comes later from there is `FENCED`.
//! 2. An id is given once. A producer goes only by an entry that says so: from then on it is `PRODUCER_EXPIRED`, never
//!    somebody new, and never a sequence that is taken for the first.
//! 3. When a producer was used last follows from its newest batch; that needs no entries.

use std::collections::{BTreeMap, BTreeSet};

use annals_wire::internal::{ProducerOpened, ProducersExpired, state_entry::Body};

use super::{
    Broker, Error, OpenedProducer, Principal, ProducerPosition, catalog::Catalog, settle::room_for,
    topics::check_name,
};
use crate::{
    state::{Producers, write_entry},
    storage::{Change, Class, Room, Storage},
    sync::{Arc, Mutex, MutexGuard},
};

/// A producer that is not used for so long expires, milliseconds.
pub(crate) const EXPIRES_MS: i64 = 7 * 86_400_000;
/// One without a name may go after so long already, where there is room for no more: nobody but its holder can ever use it.
pub(crate) const NAMELESS_MS: i64 = 3_600_000;
/// Expired producers are looked for so often at most.
const SWEEP_MS: i64 = 60_000;
/// Producers that one entry lets go at most.
const MOST_EXPIRED: usize = 1000;

/// Whether a producer may store.
#[derive(Debug)]
pub(super) struct Gate {
    /// 0 = it is gone.
    epoch: u32,
    /// When it was opened or stored something last, milliseconds since 1970.
    used_ms: i64,
    named: bool,
}

impl Gate {
    fn is_expired(&self, now_ms: i64) -> bool {
        self.epoch == 0 || now_ms.saturating_sub(self.used_ms) >= EXPIRES_MS
    }

    /// Whether who has this epoch may store now.
    pub(super) fn pass(&mut self, producer_id: i64, epoch: u32, now_ms: i64) -> Result<(), Error> {
        if self.is_expired(now_ms) {
            return Err(Error::ProducerExpired { producer_id });
        }
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => {
                Err(Error::ProducerFenced { producer_id, epoch, current: self.epoch })
            }
            std::cmp::Ordering::Greater => {
                let why = format!("{epoch} was never given: producer {producer_id} has {}", self.epoch);
                Err(Error::argument("producer.producer_epoch", why))
            }
            std::cmp::Ordering::Equal => {
                self.used_ms = self.used_ms.max(now_ms);
                Ok(())
            }
        }
    }
}

/// A producer, for those who store.
#[derive(Debug)]
pub(super) struct Holder(Mutex<Gate>);

impl Holder {
    fn new(epoch: u32, used_ms: i64, named: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Gate { epoch, used_ms, named })))
    }

    /// Nobody else stores as this producer, or opens it, as long as this is held.
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.0.lock()
    }
}

/// All producers, for those who store.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_id: Mutex<BTreeMap<i64, Arc<Holder>>>,
    swept_ms: Mutex<i64>,
}

impl Holders {
    /// After a start. What storage knows of producers that are gone is forgotten.
    pub(super) fn new(producers: &Producers, storage: &Storage) -> Self {
        storage.keep_producers(&|id| producers.get(id).is_some());
        let used = storage.producers_used();
        let holders = producers.iter().map(|(id, producer)| {
            let used_ms = used.get(&id).copied().unwrap_or_default().max(producer.opened_ms);
            (id, Holder::new(producer.epoch, used_ms, !producer.name.is_empty()))
        });
        Self { by_id: Mutex::new(holders.collect()), swept_ms: Mutex::default() }
    }

    pub(super) fn get(&self, producer_id: i64) -> Result<Arc<Holder>, Error> {
        let known = self.by_id.lock().get(&producer_id).cloned();
        known.ok_or(Error::ProducerExpired { producer_id })
    }

    /// Those that are to go: all that have expired, and, if `one_more` is to be made room for, the one without a name that was
    /// not used for the longest time. The caller holds the lock of the producers.
    fn to_go(&self, now_ms: i64, one_more: bool) -> Vec<i64> {
        let mut swept_ms = self.swept_ms.lock();
        if !one_more && now_ms.saturating_sub(*swept_ms).abs() < SWEEP_MS {
            return Vec::new();
        }
        *swept_ms = now_ms;
        let (mut gone, mut idle) = (Vec::new(), None);
        for (id, holder) in &*self.by_id.lock() {
            let gate = holder.gate();
            if gate.is_expired(now_ms) {
                gone.push(*id);
            } else if !gate.named && now_ms.saturating_sub(gate.used_ms) >= NAMELESS_MS {
                idle = idle.min(Some((gate.used_ms, *id))).or(Some((gate.used_ms, *id)));
            }
        }
        gone.truncate(MOST_EXPIRED);
        gone.extend(idle.filter(|_| one_more && gone.is_empty()).map(|(_, id)| id));
        gone
    }

    fn remove(&self, ids: &[i64]) {
        let mut by_id = self.by_id.lock();
        for id in ids {
            if let Some(holder) = by_id.remove(id) {
                holder.gate().epoch = 0;
            }
        }
    }
}

impl Broker {
    /// Gives a producer id and epoch. A name that is known keeps its id, its older holder is fenced, and the answer tells where
    /// it stands. On disk when this returns.
    ///
    /// # Errors
    /// `InvalidName`, `LimitReached`.
    pub async fn open_producer(&self, principal: &Principal, name: &str) -> Result<OpenedProducer, Error> {
        let _storing = self.enter_storing()?;
        if !name.is_empty() {
            check_name("name", name)?;
        }
        let bytes = (principal.as_str().len() + name.len() + 64 + 10 * MOST_EXPIRED) as u64;
        let room = self.room(room_for(bytes, 2), Class::Control).await?;
        match self.decide_open(room, principal, name) {
            Ok((opened, number)) => {
                self.written(number).await?;
                Ok(opened)
            }
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_open(
        &self,
        room: Room,
        principal: &Principal,
        name: &str,
    ) -> Result<(OpenedProducer, u64), Error> {
        let mut producers = self.truth.producers.lock();
        let now_ms = self.clock.wall_ms();
        let limit = self.config.limits.max_producers;
        let full = producers.len() as u64 >= u64::from(limit);
        let gone = self.holders.to_go(now_ms, full);
        let named = if name.is_empty() { None } else { producers.named(&principal.shared(), name) };
        let known =
            named.filter(|id| !gone.contains(id)).and_then(|id| Some((id, self.holders.get(id).ok()?)));
        if full && gone.is_empty() && known.is_none() {
            return Err(Error::LimitReached { what: "producers", limit: limit.into() });
        }
        let mut gate = known.as_ref().map(|(_, holder)| holder.gate());
        let producer_id = known.as_ref().map_or_else(|| self.fresh_id(&producers), |(id, _)| *id);
        let epoch = gate.as_ref().map_or(1, |gate| gate.epoch.saturating_add(1));
        let opened = ProducerOpened {
            producer_id,
            epoch,
            principal: principal.to_string(),
            name: name.to_owned(),
            time_ms: now_ms,
        };
        let expired = ProducersExpired { producer_ids: gone.clone() };
        let expired = (!gone.is_empty()).then_some(Body::ProducersExpired(expired));
        let bodies: Vec<Body> = expired.into_iter().chain([Body::ProducerOpened(opened)]).collect();
        let changes: Vec<_> = bodies.iter().map(|body| Change::State(write_entry(body.clone()))).collect();
        let number = self.enqueue(room, changes)?;
        for (number, body) in (number + 1 - bodies.len() as u64..).zip(&bodies) {
            producers.apply(number, body);
        }
        if let Some(gate) = &mut gate {
            (gate.epoch, gate.used_ms) = (epoch, now_ms);
        } else {
            let holder = Holder::new(epoch, now_ms, !name.is_empty());
            self.holders.by_id.lock().insert(producer_id, holder);
        }
        let (positions, stood) =
            if gate.is_some() { self.positions_of(producer_id) } else { (Vec::new(), 0) };
        drop(gate);
        if !gone.is_empty() {
            self.holders.remove(&gone);
            let gone: BTreeSet<i64> = gone.into_iter().collect();
            self.storage.keep_producers(&|id| !gone.contains(&id));
        }
        Ok((OpenedProducer { producer_id, producer_epoch: epoch, positions }, number.max(stood)))
    }

    /// An id that nobody ever had: above all known ones, and above all that earlier runs could have given. So it is even where
    /// a repair had to begin without knowing them.
    fn fresh_id(&self, producers: &Producers) -> i64 {
        producers.next_id().max((i64::from(self.storage.epoch()) << 31) + 1)
    }

    /// Where a producer stands, and the number to wait for before anybody is told.
    fn positions_of(&self, producer_id: i64) -> (Vec<ProducerPosition>, u64) {
        let standing = self.storage.standing(producer_id);
        let names = names(&self.catalog);
        let number = standing.iter().map(|standing| standing.number).max().unwrap_or_default();
        let position = |standing: &crate::storage::Standing| {
            Some(ProducerPosition {
                topic: Arc::clone(names.get(&standing.key.topic)?),
                topic_id: standing.key.topic,
                partition: standing.key.partition,
                next_sequence: standing.next_sequence,
                last_offset: standing.last_offset,
            })
        };
        let mut positions: Vec<_> = standing.iter().filter_map(position).collect();
        positions.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        (positions, number)
    }
}

fn names(catalog: &Catalog) -> BTreeMap<annals_wire::ids::TopicId, Arc<str>> {
    catalog.all().iter().map(|topic| (topic.id(), Arc::clone(topic.name()))).collect()
}
