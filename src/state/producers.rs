//! Producers: who may store records under which id and epoch.
//!
//! What a producer stored last, partition by partition, is not here: it follows from the batches and is storage's
//! ([`storage`](crate::storage), `producers`). Here is what must outlive every batch: that an id was given, to whom,
//! and at which epoch.
//!
//! Invariants: ids are given once, `next_id` is above all of them; a name belongs to one producer of its principal; epochs
//! of a producer only rise. Before the first producer there is nothing: no image, and no number.

use std::collections::BTreeMap;

use annals_wire::internal::{self, state_entry::Body};

use super::{Frozen, FrozenPart};
use crate::sync::Arc;

/// Whose name it is, and the name.
type Name = (Arc<str>, Arc<str>);

/// A producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Number of its last entry.
    pub number: u64,
    /// Who holds the id has this epoch; who has a lower one is fenced.
    pub epoch: u32,
    /// Who opened it.
    pub principal: Arc<str>,
    /// Its name, if it has one.
    pub name: Arc<str>,
    /// When it was opened last, milliseconds since 1970.
    pub opened_ms: i64,
}

/// All producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producers {
    number: u64,
    next_id: i64,
    by_id: BTreeMap<i64, Arc<Producer>>,
    by_name: BTreeMap<Name, i64>,
}

impl Default for Producers {
    fn default() -> Self {
        Self { number: 0, next_id: 1, by_id: BTreeMap::new(), by_name: BTreeMap::new() }
    }
}

/// What an image is written from.
#[derive(Debug)]
pub(super) struct FrozenProducers {
    next_id: i64,
    producers: Vec<(i64, Arc<Producer>)>,
}

impl Producers {
    /// Number of the last entry it has seen.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The id that the next one gets.
    pub fn next_id(&self) -> i64 {
        self.next_id
    }

    /// By id.
    pub fn get(&self, id: i64) -> Option<&Arc<Producer>> {
        self.by_id.get(&id)
    }

    /// The id of a principal's producer of this name.
    pub fn named(&self, principal: &Arc<str>, name: &str) -> Option<i64> {
        self.by_name.get(&(Arc::clone(principal), Arc::from(name))).copied()
    }

    /// All of them, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Arc<Producer>)> {
        self.by_id.iter().map(|(id, producer)| (*id, producer))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// One entry; those that are not about producers, and those already seen, change nothing.
    pub fn apply(&mut self, number: u64, body: &Body) {
        if number <= self.number {
            return;
        }
        let opened = matches!(body, Body::ProducerOpened(_));
        if self.next_id == 1 && !opened {
            return; // as one that no image holds
        }
        self.number = number;
        match body {
            Body::ProducerOpened(opened) => self.open(number, opened),
            Body::ProducersExpired(expired) => {
                for id in &expired.producer_ids {
                    self.remove(*id);
                }
            }
            Body::TopicCreated(_)
            | Body::TopicChanged(_)
            | Body::TopicDeleted(_)
            | Body::OffsetsCommitted(_)
            | Body::GroupDeleted(_)
            | Body::GroupConfigured(_)
            | Body::GroupMoved(_)
            | Body::RequestDone(_) => {}
        }
    }

    fn open(&mut self, number: u64, opened: &internal::ProducerOpened) {
        let id = opened.producer_id;
        let producer = Producer {
            number,
            epoch: opened.epoch,
            principal: Arc::from(opened.principal.as_str()),
            name: Arc::from(opened.name.as_str()),
            opened_ms: opened.time_ms,
        };
        if !producer.name.is_empty() {
            self.by_name.insert((Arc::clone(&producer.principal), Arc::clone(&producer.name)), id);
        }
        self.by_id.insert(id, Arc::new(producer));
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    fn remove(&mut self, id: i64) {
        if let Some(gone) = self.by_id.remove(&id) {
            self.by_name.remove(&(Arc::clone(&gone.principal), Arc::clone(&gone.name)));
        }
    }

    /// As it is now; `None` if there never was one, as in every directory of an earlier release.
    pub fn freeze(&self) -> Option<Frozen> {
        if self.next_id == 1 {
            return None;
        }
        let producers = self.by_id.iter().map(|(id, producer)| (*id, Arc::clone(producer))).collect();
        let frozen = FrozenProducers { next_id: self.next_id, producers };
        Some(Frozen { number: self.number, part: FrozenPart::Producers(frozen) })
    }

    pub(super) fn thaw(number: u64, image: internal::ProducersImage) -> Self {
        let mut producers = Self { number, next_id: image.next_id.max(1), ..Self::default() };
        for image in image.producers {
            if let Some(opened) = image.producer {
                producers.open(image.number, &opened);
            }
        }
        producers
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert!(self.by_id.keys().all(|id| (1..self.next_id).contains(id)));
        assert!(self.by_id.values().all(|producer| producer.number <= self.number && producer.epoch > 0));
        let named = self.by_id.iter().filter(|(_, producer)| !producer.name.is_empty());
        let named: BTreeMap<Name, i64> = named
            .map(|(id, producer)| ((Arc::clone(&producer.principal), Arc::clone(&producer.name)), *id))
            .collect();
        assert_eq!(named, self.by_name);
    }
}

pub(super) fn image(frozen: &FrozenProducers) -> internal::ProducersImage {
    let image = |(id, producer): &(i64, Arc<Producer>)| internal::ProducerImage {
        number: producer.number,
        producer: Some(internal::ProducerOpened {
            producer_id: *id,
            epoch: producer.epoch,
            principal: producer.principal.to_string(),
            name: producer.name.to_string(),
            time_ms: producer.opened_ms,
        }),
    };
    internal::ProducersImage {
        next_id: frozen.next_id,
        producers: frozen.producers.iter().map(image).collect(),
    }
}
