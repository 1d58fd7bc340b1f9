//! Who is in a group and who owns what.
//!
//! 1. A partition has one owner or none, and its owner is a member.
//! 2. `next_epoch` only rises, and every epoch given out lies below it: two ownerships of a partition never have the same
//!    epoch, so a commit that names one is known to be its owner's or not.
//! 3. A partition whose owner was asked for it (`revoking`) is still that owner's, commits and all, until it is released.

use std::collections::BTreeMap;

use annals_wire::{ids::TopicId, internal};
use bytes::Bytes;

use crate::{storage::PartitionKey, sync::Arc};

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Chosen by the member.
    pub name: Arc<str>,
    /// What it reads.
    pub subscription: Subscription,
}

/// What a member reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscription {
    /// These topics.
    pub topics: Vec<Arc<str>>,
    /// Topics that start so, dead letters excepted.
    pub prefix: Option<Arc<str>>,
}

/// An ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Id of the member.
    pub member: Arc<str>,
    /// Tells this ownership from every other of the group.
    pub epoch: u32,
    /// The member was asked for it.
    pub revoking: bool,
}

/// Members and ownerships of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Rises with each change of hands; for people.
    pub generation: u32,
    /// The next epoch to give out.
    pub next_epoch: u32,
    /// By id.
    pub members: BTreeMap<Arc<str>, Member>,
    /// Partitions that have an owner.
    pub owned: BTreeMap<PartitionKey, Owned>,
}

impl Subscription {
    /// Names of topics that end so are dead letters: no prefix finds them.
    pub const DEAD_LETTERS: &str = ".dlq";

    /// Whether a topic of this name is read.
    pub fn matches(&self, topic: &str) -> bool {
        let by_prefix =
            |prefix: &Arc<str>| topic.starts_with(&**prefix) && !topic.ends_with(Self::DEAD_LETTERS);
        self.topics.iter().any(|named| **named == *topic) || self.prefix.as_ref().is_some_and(by_prefix)
    }
}

impl Membership {
    /// Whether a member owns a partition under this epoch.
    pub fn owns(&self, member: &str, key: PartitionKey, epoch: u32) -> bool {
        self.owned.get(&key).is_some_and(|owned| *owned.member == *member && owned.epoch == epoch)
    }

    /// The member of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<str>> {
        self.members.iter().find(|(_, member)| *member.name == *name).map(|(id, _)| id)
    }

    /// What a member owns.
    pub fn of_member<'a>(&'a self, member: &'a str) -> impl Iterator<Item = (PartitionKey, &'a Owned)> {
        self.owned.iter().filter(move |(_, owned)| *owned.member == *member).map(|(key, owned)| (*key, owned))
    }

    /// One entry. What makes no sense in it (a partition given to nobody) changes nothing.
    pub(super) fn apply(&mut self, moved: &internal::GroupMoved) {
        self.generation = self.generation.max(moved.generation);
        self.next_epoch = self.next_epoch.max(moved.next_epoch);
        for left in &moved.left {
            self.members.remove(left.as_str());
        }
        if !moved.left.is_empty() {
            let Self { members, owned, .. } = self;
            owned.retain(|_, owned| members.contains_key(&owned.member));
        }
        for joined in &moved.joined {
            let member = Member {
                name: Arc::from(joined.name.as_str()),
                subscription: Subscription {
                    topics: joined.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
                    prefix: joined.topic_prefix.as_deref().map(Arc::from),
                },
            };
            self.members.insert(Arc::from(joined.member_id.as_str()), member);
        }
        for key in moved.released.iter().flat_map(keys) {
            self.owned.remove(&key);
        }
        for key in moved.revoking.iter().flat_map(keys) {
            if let Some(owned) = self.owned.get_mut(&key) {
                owned.revoking = true;
            }
        }
        let mut assigned = Vec::new();
        for given in &moved.assigned {
            let Some((member, _)) = self.members.get_key_value(given.member_id.as_str()) else { continue };
            for (key, epoch) in given_keys(given).filter(|(_, epoch)| *epoch < self.next_epoch) {
                assigned.push((key, Owned { member: Arc::clone(member), epoch, revoking: false }));
            }
        }
        if assigned.len() < self.owned.len() / 8 {
            self.owned.extend(assigned);
        } else {
            // Merged at once its nodes are full; filled one by one they would be half empty.
            self.owned.append(&mut assigned.into_iter().collect());
        }
    }

    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        self.owned.retain(|key, _| key.topic != topic);
    }

    /// The entry that would make it as it is.
    pub(super) fn image(&self, group: &str) -> internal::GroupMoved {
        let mut revoking = ByTopic::default();
        let mut assigned = Given::default();
        for (key, owned) in &self.owned {
            assigned.push(&owned.member, *key, owned.epoch);
            if owned.revoking {
                revoking.push(*key);
            }
        }
        internal::GroupMoved {
            group: group.to_owned(),
            generation: self.generation,
            next_epoch: self.next_epoch,
            joined: self.members.iter().map(|(id, member)| joined(id, member)).collect(),
            revoking: revoking.0,
            assigned: assigned.0,
            ..Default::default()
        }
    }

    /// From [`Self::image`].
    pub(super) fn thaw(image: &internal::GroupMoved) -> Self {
        let mut membership = Self::default();
        // In an entry a partition is asked for before any is given; in an image both are true of the same ownership.
        membership.apply(&internal::GroupMoved { revoking: Vec::new(), ..image.clone() });
        for key in image.revoking.iter().flat_map(keys) {
            if let Some(owned) = membership.owned.get_mut(&key) {
                owned.revoking = true;
            }
        }
        membership
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut epochs = std::collections::BTreeSet::new();
        for (key, owned) in &self.owned {
            assert!(self.members.contains_key(&owned.member), "{key} belongs to nobody: {owned:?}");
            assert!(owned.epoch < self.next_epoch, "{key} has an epoch that was not given out: {owned:?}");
            assert!(epochs.insert(owned.epoch), "an epoch twice: {owned:?}");
        }
    }
}

/// A member as entries have it.
pub(super) fn joined(id: &str, member: &Member) -> internal::GroupMember {
    internal::GroupMember {
        member_id: id.to_owned(),
        name: member.name.to_string(),
        topics: member.subscription.topics.iter().map(ToString::to_string).collect(),
        topic_prefix: member.subscription.prefix.as_ref().map(ToString::to_string),
    }
}

/// Partitions of an entry, one after the other.
pub fn keys(partitions: &internal::GroupPartitions) -> impl Iterator<Item = PartitionKey> {
    let topic = TopicId::from_slice(&partitions.topic_id);
    let of = move |partition: &u32| topic.map(|topic| PartitionKey { topic, partition: *partition });
    partitions.partitions.iter().filter_map(of)
}

/// Partitions that an entry gives, with their epochs.
pub fn given_keys(given: &internal::GroupAssigned) -> impl Iterator<Item = (PartitionKey, u32)> {
    let topic = TopicId::from_slice(&given.topic_id);
    let of = move |(partition, epoch): (&u32, &u32)| {
        topic.map(|topic| (PartitionKey { topic, partition: *partition }, *epoch))
    };
    given.partitions.iter().zip(&given.epochs).filter_map(of)
}

/// Partitions on their way into an entry.
#[derive(Debug, Default)]
pub(super) struct ByTopic(pub(super) Vec<internal::GroupPartitions>);

impl ByTopic {
    pub(super) fn push(&mut self, key: PartitionKey) {
        match self.0.last_mut() {
            Some(last) if *last.topic_id == *key.topic.as_bytes() => last.partitions.push(key.partition),
            _ => self.0.push(internal::GroupPartitions {
                topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
                partitions: vec![key.partition],
            }),
        }
    }
}

/// Ownerships on their way into an entry.
#[derive(Debug, Default)]
pub(super) struct Given(pub(super) Vec<internal::GroupAssigned>);

impl Given {
    pub(super) fn push(&mut self, member: &str, key: PartitionKey, epoch: u32) {
        let open = self.0.iter_mut().rev().find(|given| given.member_id == member);
        match open.filter(|given| *given.topic_id == *key.topic.as_bytes()) {
            Some(given) => {
                given.partitions.push(key.partition);
                given.epochs.push(epoch);
            }
            None => self.0.push(internal::GroupAssigned {
                member_id: member.to_owned(),
                topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
                partitions: vec![key.partition],
                epochs: vec![epoch],
            }),
        }
    }
}
