//! Topics as the hot calls see them: looked up by name without a lock.
//!
//! A picture of the state's topics, replaced whole by whoever changed a topic, under the lock of the topics. It never
//! says more than the state does; it may say it a moment before that is durable, so whoever answers with what it says
//! waits for [`Topic::number`] (or [`Catalog::number`] where the answer is that something is *not* there).

use std::collections::HashMap;

use annals_wire::ids::TopicId;

use super::{Error, inbox::Readers, nearest::nearest};
use crate::{
    state,
    storage::{Partition, Storage},
    sync::{Arc, ArcSwap, AtomicBool, AtomicU64, Ordering, Weak},
};

/// Bytes of keyless records after which the next partition takes its turn.
const STICKY_BYTES: u64 = 64 * 1024;

/// A partition, and who waits for news of it.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) partition: Arc<Partition>,
    pub(crate) readers: Arc<Readers>,
}

/// What lives as long as the topic, through all its changes.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Bytes of keyless records so far.
    keyless_bytes: AtomicU64,
    /// Who waits for more partitions, or for the end of the topic.
    pub(crate) readers: Arc<Readers>,
    /// Partitions so far, each made once.
    lanes: crate::sync::Mutex<Vec<Arc<Lane>>>,
}

/// A topic between two changes.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) state: Arc<state::Topic>,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) shared: Arc<Shared>,
    /// Its number is known to be durable.
    settled: AtomicBool,
}

impl Topic {
    pub(crate) fn id(&self) -> TopicId {
        self.state.id
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.state.name
    }

    /// Number to wait for, or `None` if it is durable already.
    pub(crate) fn unsettled(&self) -> Option<u64> {
        (!self.settled.load(Ordering::Acquire)).then_some(self.state.number)
    }

    /// Its number is durable.
    pub(crate) fn settle(&self) {
        // Written once: every fetch comes by here.
        if self.unsettled().is_some() {
            self.settled.store(true, Ordering::Release);
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.state.settings.partitions
    }

    pub(crate) fn lane(&self, partition: u32) -> Result<&Arc<Lane>, Error> {
        let lane = usize::try_from(partition).ok().and_then(|index| self.lanes.get(index));
        lane.ok_or_else(|| Error::PartitionUnknown {
            topic: self.name().to_string(),
            partition,
            partitions: self.partitions(),
        })
    }

    /// The partition whose turn it is to take keyless records, of which so many bytes come now.
    pub(crate) fn keyless_partition(&self, bytes: u64) -> u32 {
        let turn = self.shared.keyless_bytes.fetch_add(bytes, Ordering::Relaxed) / STICKY_BYTES;
        u32::try_from(turn % u64::from(self.partitions().max(1))).unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Map {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    number: u64,
}

/// All topics, by name.
#[derive(Debug, Default)]
pub(crate) struct Catalog(ArcSwap<Map>);

impl Catalog {
    /// What recovery found.
    pub(crate) fn new(topics: &state::Topics, storage: &Storage) -> Self {
        let catalog = Self::default();
        let made = topics.iter().map(|topic| (Arc::clone(&topic.name), made(topic, None, storage)));
        let by_name: HashMap<_, _> = made.collect();
        for topic in by_name.values() {
            topic.settle();
        }
        catalog.0.store(Arc::new(Map { by_name, number: topics.number() }));
        catalog
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.0.load().by_name.get(name).cloned()
    }

    /// Number of the newest change it shows.
    pub(crate) fn number(&self) -> u64 {
        self.0.load().number
    }

    /// The nearest name to one that is not there.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.0.load().by_name.keys().map(AsRef::as_ref))
    }

    /// What a topic is called.
    pub(crate) fn name_of(&self, id: TopicId) -> Option<Arc<str>> {
        self.0.load().by_name.values().find(|topic| topic.id() == id).map(|topic| Arc::clone(topic.name()))
    }

    /// All topics, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.0.load().by_name.values().cloned().collect()
    }

    /// Shows a topic that was made or changed. The caller holds the lock of the topics.
    pub(crate) fn put(&self, topic: &Arc<state::Topic>, storage: &Storage) -> Arc<Topic> {
        let before = self.get(&topic.name);
        let shown = made(topic, before.map(|before| Arc::clone(&before.shared)), storage);
        self.replace(topic.number, |by_name| {
            by_name.insert(Arc::clone(&topic.name), Arc::clone(&shown));
        });
        shown.shared.readers.publish();
        shown
    }

    /// Hides a topic that was deleted by entry `number`. The caller holds the lock of the topics.
    pub(crate) fn take(&self, name: &str, number: u64) {
        let before = self.get(name);
        self.replace(number, |by_name| {
            by_name.remove(name);
        });
        if let Some(gone) = before {
            gone.shared.readers.publish();
        }
    }

    fn replace(&self, number: u64, change: impl FnOnce(&mut HashMap<Arc<str>, Arc<Topic>>)) {
        let mut by_name = self.0.load().by_name.clone();
        change(&mut by_name);
        self.0.store(Arc::new(Map { by_name, number }));
    }
}

/// The picture of a topic. Partitions that are new get their hook here, before anybody can wait for them.
fn made(topic: &Arc<state::Topic>, shared: Option<Arc<Shared>>, storage: &Storage) -> Arc<Topic> {
    let shared = shared.unwrap_or_default();
    let mut lanes = shared.lanes.lock();
    for partition in storage.partitions(&topic.id).into_iter().skip(lanes.len()) {
        lanes.push(Arc::new(lane(partition)));
    }
    let shown = lanes.clone();
    drop(lanes);
    let settled = AtomicBool::new(false);
    Arc::new(Topic { state: Arc::clone(topic), lanes: shown, shared, settled })
}

fn lane(partition: Arc<Partition>) -> Lane {
    let readers = Arc::new(Readers::default());
    let published: Weak<Readers> = Arc::downgrade(&readers);
    partition.set_on_publish(Box::new(move || {
        if let Some(readers) = published.upgrade() {
            readers.publish();
        }
    }));
    Lane { partition, readers }
}
