//! Request ids: what requests that carried one were answered, so that a repeated one gets the same answer.
//!
//! What is kept, by the times that entries carry and never by a clock:
//! 1. of each principal the last [`KEPT`] ids, and of those before them, up to [`MOST`] in all, the ones younger
//!    than [`KEPT_MS`] as of the newest entry;
//! 2. of all principals together at most [`MOST_BYTES`], the oldest going first.
//!
//! Invariants: `order` holds every request once, by number; `by_principal` holds each principal's numbers in order;
//! `bytes` is the sum over all requests.

use std::collections::{BTreeMap, HashMap, VecDeque};

use annals_wire::internal::{self, state_entry::Body};
use prost::Message as _;

use super::{Frozen, FrozenPart};
use crate::{
    storage::mutant::{Mutant, planted},
    sync::Arc,
};

/// Ids of a principal that are kept whatever their age.
pub(crate) const KEPT: usize = 10_000;
/// Ids of a principal that are kept at most.
pub(crate) const MOST: usize = 100_000;
/// Age up to which ids beyond the last [`KEPT`] are kept.
pub(crate) const KEPT_MS: i64 = 3_600_000;
/// Bytes of all requests together, about.
pub(crate) const MOST_BYTES: usize = 64 << 20;
/// What a request costs beside its entry: three trees and two pointers.
const OVERHEAD: usize = 160;

/// Names a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Who asked.
    pub principal: Arc<str>,
    /// The id.
    pub id: Arc<str>,
}

/// All request ids that are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requests {
    number: u64,
    latest_ms: i64,
    bytes: usize,
    by_key: HashMap<RequestKey, u64>,
    by_principal: BTreeMap<Arc<str>, VecDeque<u64>>,
    order: BTreeMap<u64, Arc<internal::RequestDone>>,
}

/// What an image is written from.
#[derive(Debug)]
pub(super) struct FrozenRequests {
    latest_ms: i64,
    requests: Vec<(u64, Arc<internal::RequestDone>)>,
}

/// A request that was carried out.
#[derive(Clone, Debug)]
pub struct Done {
    /// Number of its entry: no answer before it is durable.
    pub number: u64,
    /// What was done.
    pub done: Arc<internal::RequestDone>,
}

impl Requests {
    /// Number of the last entry it has seen.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What came of a request, if it is still known.
    pub fn get(&self, key: &RequestKey) -> Option<Done> {
        let number = *self.by_key.get(key)?;
        let done = Arc::clone(self.order.get(&number)?);
        Some(Done { number, done })
    }

    /// All that are known, by the numbers of their entries.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &internal::RequestDone)> {
        self.order.iter().map(|(number, done)| (*number, &**done))
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One entry; those that are not about requests, and those already seen, change nothing.
    pub fn apply(&mut self, number: u64, body: &Body) {
        if number <= self.number {
            return;
        }
        self.number = number;
        match body {
            Body::RequestDone(done) => {
                self.latest_ms = self.latest_ms.max(done.time_ms);
                let principal = self.insert(number, Arc::new(done.clone()));
                self.expire(&principal);
            }
            Body::TopicCreated(_)
            | Body::TopicChanged(_)
            | Body::TopicDeleted(_)
            | Body::OffsetsCommitted(_)
            | Body::GroupDeleted(_)
            | Body::GroupConfigured(_)
            | Body::GroupMoved(_)
            | Body::ProducerOpened(_)
            | Body::ProducersExpired(_) => {}
        }
    }

    fn insert(&mut self, number: u64, done: Arc<internal::RequestDone>) -> Arc<str> {
        let principal = self
            .by_principal
            .get_key_value(done.principal.as_str())
            .map_or_else(|| Arc::from(done.principal.as_str()), |(name, _)| Arc::clone(name));
        let key = RequestKey { principal: Arc::clone(&principal), id: Arc::from(done.request_id.as_str()) };
        if let Some(earlier) = self.by_key.get(&key).copied() {
            self.remove(earlier);
        }
        self.bytes += cost(&done);
        self.by_key.insert(key, number);
        self.by_principal.entry(Arc::clone(&principal)).or_default().push_back(number);
        self.order.insert(number, done);
        principal
    }

    fn remove(&mut self, number: u64) {
        let Some(done) = self.order.remove(&number) else { return };
        self.bytes -= cost(&done);
        let Some((principal, _)) = self.by_principal.get_key_value(done.principal.as_str()) else { return };
        let principal = Arc::clone(principal);
        let key = RequestKey { principal: Arc::clone(&principal), id: Arc::from(done.request_id.as_str()) };
        self.by_key.remove(&key);
        let Some(numbers) = self.by_principal.get_mut(&principal) else { return };
        // The oldest goes first, so it nearly always stands in front.
        if let Some(at) = numbers.iter().position(|kept| *kept == number) {
            numbers.remove(at);
        }
        if numbers.is_empty() {
            self.by_principal.remove(&principal);
        }
    }

    fn expire(&mut self, principal: &Arc<str>) {
        while let Some(oldest) = self.expired(principal) {
            self.remove(oldest);
        }
        while self.bytes > MOST_BYTES {
            let Some((oldest, _)) = self.order.first_key_value() else { break };
            self.remove(*oldest);
        }
    }

    /// The oldest request of a principal, if it need not be kept.
    fn expired(&self, principal: &Arc<str>) -> Option<u64> {
        let numbers = self.by_principal.get(principal)?;
        let oldest = *numbers.front()?;
        let old = || self.order.get(&oldest).is_some_and(|done| self.latest_ms - done.time_ms >= KEPT_MS);
        (numbers.len() > MOST || (numbers.len() > KEPT && old())).then_some(oldest)
    }

    /// As it is now.
    pub fn freeze(&self) -> Frozen {
        let requests = self.order.iter().map(|(number, done)| (*number, Arc::clone(done))).collect();
        let frozen = FrozenRequests { latest_ms: self.latest_ms, requests };
        Frozen { number: self.number, part: FrozenPart::Requests(frozen) }
    }

    pub(super) fn thaw(number: u64, image: internal::RequestsImage) -> Self {
        let mut requests = Self { number, latest_ms: image.latest_ms, ..Self::default() };
        for image in image.requests {
            if let Some(mut done) = image.done {
                if planted(Mutant::AnswersForgotten) {
                    done.result = None;
                }
                requests.insert(image.number, Arc::new(done));
            }
        }
        requests
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.by_key.len(), self.order.len());
        assert_eq!(self.by_principal.values().map(VecDeque::len).sum::<usize>(), self.order.len());
        assert_eq!(self.order.values().map(|done| cost(done)).sum::<usize>(), self.bytes);
        assert!(self.bytes <= MOST_BYTES);
        for (principal, numbers) in &self.by_principal {
            assert!(!numbers.is_empty() && numbers.len() <= MOST);
            assert!(
                numbers.iter().zip(numbers.iter().skip(1)).all(|(a, b)| a < b),
                "{principal}: out of order"
            );
        }
        for (key, number) in &self.by_key {
            let done = &self.order[number];
            assert_eq!((&*key.principal, &*key.id), (done.principal.as_str(), done.request_id.as_str()));
            assert!(*number <= self.number);
        }
    }
}

fn cost(done: &internal::RequestDone) -> usize {
    done.encoded_len() + done.principal.len() + done.request_id.len() + OVERHEAD
}

pub(super) fn image(frozen: &FrozenRequests) -> internal::RequestsImage {
    let image = |(number, done): &(u64, Arc<internal::RequestDone>)| internal::RequestImage {
        number: *number,
        done: Some(internal::RequestDone::clone(done)),
    };
    internal::RequestsImage {
        latest_ms: frozen.latest_ms,
        requests: frozen.requests.iter().map(image).collect(),
    }
}
