//! Topics: names, ids, settings.
//!
//! Invariants: names and ids are one to one; `partitions` is the sum over all topics; partitions of a topic never
//! become fewer.

use std::collections::BTreeMap;

use annals_wire::{
    ids::TopicId,
    internal::{self, state_entry::Body},
};
use bytes::Bytes;

use super::{Frozen, FrozenPart};
use crate::{storage::Level, sync::Arc};

/// Settings in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Partitions.
    pub partitions: u32,
    /// When an append counts.
    pub level: Level,
    /// Size at which segments roll, in bytes.
    pub segment_bytes: u64,
    /// Sync window of the interval level, in milliseconds.
    pub interval_ms: u32,
    /// Sync window of the interval level, in bytes.
    pub interval_bytes: u64,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Number of its last entry.
    pub number: u64,
    /// Id.
    pub id: TopicId,
    /// Name.
    pub name: Arc<str>,
    /// Settings.
    pub settings: Settings,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// All topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    number: u64,
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    names: BTreeMap<TopicId, Arc<str>>,
    partitions: u64,
}

/// What an image is written from.
pub(super) type FrozenTopics = Vec<Arc<Topic>>;

impl Settings {
    /// As entries hold them.
    pub fn to_entry(self) -> internal::TopicSettings {
        internal::TopicSettings {
            partitions: self.partitions,
            durability: self.level.number(),
            segment_bytes: self.segment_bytes,
            interval_ms: self.interval_ms,
            interval_bytes: self.interval_bytes,
        }
    }

    /// From an entry.
    pub fn from_entry(entry: Option<&internal::TopicSettings>) -> Result<Self, String> {
        let entry = entry.ok_or("a topic without settings")?;
        let level = Level::from_number(entry.durability)
            .ok_or_else(|| format!("durability {} is not known", entry.durability))?;
        Ok(Self {
            partitions: entry.partitions,
            level,
            segment_bytes: entry.segment_bytes,
            interval_ms: entry.interval_ms,
            interval_bytes: entry.interval_bytes,
        })
    }
}

impl Topic {
    /// From an entry.
    pub fn from_entry(number: u64, entry: &internal::TopicCreated) -> Result<Self, String> {
        Ok(Self {
            number,
            id: topic_id(&entry.topic_id)?,
            name: Arc::from(entry.name.as_str()),
            settings: Settings::from_entry(entry.settings.as_ref())?,
            created_ms: entry.created_ms,
        })
    }

    /// The entry that would make it as it is.
    pub fn to_entry(&self) -> internal::TopicCreated {
        internal::TopicCreated {
            topic_id: Bytes::copy_from_slice(self.id.as_bytes()),
            name: self.name.to_string(),
            settings: Some(self.settings.to_entry()),
            created_ms: self.created_ms,
        }
    }
}

impl Topics {
    /// Number of the last entry it has seen.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// Name of the topic with this id.
    pub fn name(&self, id: TopicId) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// All, in order of name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// Those with names above `after` that start with `prefix`, in order of name.
    pub fn page<'a>(
        &'a self,
        after: &str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Topic>> + use<'a> {
        super::groups::page(&self.by_name, after, prefix).map(|(_, topic)| topic)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Partitions of all of them.
    pub fn partitions(&self) -> u64 {
        self.partitions
    }

    /// One entry; those that are not about topics, and those already seen, change nothing.
    pub fn apply(&mut self, number: u64, body: &Body) -> Result<(), String> {
        if number <= self.number {
            return Ok(());
        }
        match body {
            Body::TopicCreated(entry) => self.insert(Topic::from_entry(number, entry)?)?,
            Body::TopicChanged(entry) => {
                let settings = Settings::from_entry(entry.settings.as_ref())?;
                self.change(number, topic_id(&entry.topic_id)?, settings)?;
            }
            Body::TopicDeleted(entry) => {
                let topic = self.take(topic_id(&entry.topic_id)?)?;
                self.names.remove(&topic.id);
            }
            Body::OffsetsCommitted(_)
            | Body::GroupDeleted(_)
            | Body::GroupConfigured(_)
            | Body::GroupMoved(_)
            | Body::RequestDone(_)
            | Body::ProducerOpened(_)
            | Body::ProducersExpired(_) => {}
        }
        self.number = number;
        Ok(())
    }

    fn insert(&mut self, topic: Topic) -> Result<(), String> {
        if self.by_name.contains_key(&topic.name) || self.names.contains_key(&topic.id) {
            return Err(format!("topic {:?} is made twice", topic.name));
        }
        self.partitions += u64::from(topic.settings.partitions);
        self.names.insert(topic.id, Arc::clone(&topic.name));
        self.by_name.insert(Arc::clone(&topic.name), Arc::new(topic));
        Ok(())
    }

    fn take(&mut self, id: TopicId) -> Result<Arc<Topic>, String> {
        let name = self.names.get(&id).ok_or_else(|| format!("there is no topic {id}"))?;
        let topic = self.by_name.remove(name).ok_or_else(|| format!("topic {id} has lost its name"))?;
        self.partitions -= u64::from(topic.settings.partitions);
        Ok(topic)
    }

    fn change(&mut self, number: u64, id: TopicId, settings: Settings) -> Result<(), String> {
        let mut topic = self.take(id)?;
        if settings.partitions < topic.settings.partitions {
            return Err(format!("topic {id} would lose partitions"));
        }
        let changed = Arc::make_mut(&mut topic);
        changed.number = number;
        changed.settings = settings;
        self.partitions += u64::from(settings.partitions);
        self.by_name.insert(Arc::clone(&topic.name), topic);
        Ok(())
    }

    /// As it is now.
    pub fn freeze(&self) -> Frozen {
        Frozen { number: self.number, part: FrozenPart::Topics(self.by_name.values().cloned().collect()) }
    }

    pub(super) fn thaw(number: u64, image: internal::TopicsImage) -> Result<Self, String> {
        let mut topics = Self { number, ..Self::default() };
        for image in image.topics {
            let entry = image.topic.ok_or("a topic's image without the topic")?;
            topics.insert(Topic::from_entry(image.number, &entry)?)?;
        }
        Ok(topics)
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.by_name.len(), self.names.len(), "names and ids are one to one");
        for (name, topic) in &self.by_name {
            assert_eq!(*name, topic.name);
            assert_eq!(self.names.get(&topic.id), Some(name));
            assert!(topic.number <= self.number, "{topic:?} is newer than {}", self.number);
        }
        let partitions: u64 = self.iter().map(|topic| u64::from(topic.settings.partitions)).sum();
        assert_eq!(partitions, self.partitions);
    }
}

pub(super) fn topic_id(bytes: &[u8]) -> Result<TopicId, String> {
    TopicId::from_slice(bytes).ok_or_else(|| format!("a topic id of {} bytes", bytes.len()))
}

pub(super) fn image(topics: &FrozenTopics) -> internal::TopicsImage {
    let image =
        |topic: &Arc<Topic>| internal::TopicImage { number: topic.number, topic: Some(topic.to_entry()) };
    internal::TopicsImage { topics: topics.iter().map(image).collect() }
}
