//! Groups: what each has committed, by topic id and partition; its settings; its members and what they own.
//!
//! Invariants: a group holds a position, a member or settings, else it is not there; `positions` is the sum over all groups;
//! what `membership` says. Whether a commit is allowed (not beyond the log's end, not backwards, not by a stranger) is the
//! broker's to decide; an entry sets what it says.
//!
//! | file | what |
//! |---|---|
//! | `settings` | settings |
//! | `membership` | members, and who owns what |
//! | `coordinator` | who is to own what: (group, topics, event) -> the entry that makes it so |
//! | `balance` | the arithmetic of that |

mod balance;
mod coordinator;
mod membership;
mod settings;

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod walks;

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
};

use annals_wire::{
    ids::TopicId,
    internal::{self, state_entry::Body},
};
use bytes::Bytes;

pub use coordinator::{GroupEvent, TopicView, decide};
pub use membership::{Member, Membership, Owned, Subscription, given_keys, keys};
pub use settings::{GroupSettings, GroupStart};

use super::{Frozen, FrozenPart, topics::topic_id};
use crate::{storage::PartitionKey, sync::Arc};

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// First offset not processed.
    pub next_offset: i64,
    /// Leader epoch the committer named; 0 = none.
    pub leader_epoch: u32,
    /// When, milliseconds since 1970.
    pub commit_time_ms: i64,
    /// Caller's note.
    pub metadata: String,
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Number of its last entry.
    pub number: u64,
    /// What it has committed.
    pub positions: BTreeMap<PartitionKey, Committed>,
    /// Its settings, if any were ever set.
    pub settings: Option<Arc<GroupSettings>>,
    /// Who is there.
    pub membership: Membership,
}

/// All groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    number: u64,
    by_name: BTreeMap<Arc<str>, Arc<Group>>,
    positions: usize,
    /// Above every assignment epoch of groups that are no more.
    first_epoch: u32,
}

/// What an image is written from.
#[derive(Debug)]
pub(super) struct FrozenGroups {
    groups: Vec<(Arc<str>, Arc<Group>)>,
    first_epoch: u32,
}

impl Group {
    /// What it has committed in a topic.
    pub fn of_topic(&self, topic: TopicId) -> impl Iterator<Item = (&PartitionKey, &Committed)> {
        let first = PartitionKey { topic, partition: 0 };
        let last = PartitionKey { topic, partition: u32::MAX };
        self.positions.range(first..=last)
    }

    /// Settings in force.
    pub fn settings(&self) -> Arc<GroupSettings> {
        self.settings.clone().unwrap_or_default()
    }

    /// Whether its time to live is over: nobody is there, and nobody has committed for so long.
    pub fn is_over(&self, now_ms: i64) -> bool {
        let ttl_ms = self.settings.as_ref().map_or(0, |settings| settings.ttl_ms);
        if ttl_ms == 0 || !self.membership.members.is_empty() {
            return false;
        }
        let last = self.positions.values().map(|committed| committed.commit_time_ms).max();
        let age = last.and_then(|last| u64::try_from(now_ms.saturating_sub(last)).ok());
        age.is_some_and(|age| age >= ttl_ms)
    }

    fn holds_nothing(&self) -> bool {
        self.positions.is_empty() && self.settings.is_none() && self.membership.members.is_empty()
    }
}

impl Groups {
    /// Number of the last entry it has seen.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<Group>> {
        self.by_name.get(name)
    }

    /// Members of a group and what they own; of a group that is not there, what it would begin with.
    pub fn membership(&self, name: &str) -> Membership {
        let unknown = || Membership { next_epoch: self.first_epoch, ..Membership::default() };
        self.get(name).map_or_else(unknown, |group| group.membership.clone())
    }

    /// Those with names above `after` that start with `prefix`, in order of name.
    pub fn page<'a>(
        &'a self,
        after: &str,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Group>)> + use<'a> {
        page(&self.by_name, after, prefix)
    }

    /// Names, in order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Positions of all groups.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// One entry; those that are not about groups, and those already seen, change nothing.
    pub fn apply(&mut self, number: u64, body: &Body) {
        if number <= self.number {
            return;
        }
        match body {
            Body::OffsetsCommitted(entry) => {
                let positions: Vec<_> = entry.positions.iter().filter_map(position_of).collect();
                if !positions.is_empty() {
                    self.change(number, &entry.group, |group| {
                        if group.positions.is_empty() {
                            // Built at once its nodes are full; filled one by one they would be half empty.
                            group.positions = positions.into_iter().collect();
                        } else {
                            group.positions.extend(positions);
                        }
                    });
                }
            }
            Body::GroupConfigured(entry) => {
                if let Some(settings) = &entry.settings {
                    let settings = Arc::new(GroupSettings::from_entry(settings));
                    self.change(number, &entry.group, |group| group.settings = Some(settings));
                }
            }
            Body::GroupMoved(entry) => {
                self.change(number, &entry.group, |group| group.membership.apply(entry));
            }
            Body::GroupDeleted(entry) => {
                if let Some(group) = self.by_name.remove(entry.group.as_str()) {
                    self.positions -= group.positions.len();
                    self.first_epoch = self.first_epoch.max(group.membership.next_epoch);
                }
            }
            Body::TopicDeleted(entry) => {
                if let Ok(id) = topic_id(&entry.topic_id) {
                    self.forget_topic(number, id);
                }
            }
            Body::TopicCreated(_)
            | Body::TopicChanged(_)
            | Body::RequestDone(_)
            | Body::ProducerOpened(_)
            | Body::ProducersExpired(_) => {}
        }
        self.number = number;
    }

    /// Changes a group, which is made if it is new and removed if nothing is left of it.
    fn change(&mut self, number: u64, name: &str, change: impl FnOnce(&mut Group)) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(Arc::from(name), Arc::default());
        }
        let Some(group) = self.by_name.get_mut(name) else { return };
        let group = Arc::make_mut(group);
        let before = group.positions.len();
        group.number = number;
        change(group);
        self.positions = self.positions + group.positions.len() - before;
        if group.holds_nothing() {
            self.first_epoch = self.first_epoch.max(group.membership.next_epoch);
            self.by_name.remove(name);
        }
    }

    fn forget_topic(&mut self, number: u64, id: TopicId) {
        let mut forgotten = 0;
        let first_epoch = &mut self.first_epoch;
        self.by_name.retain(|_, group| {
            let first = PartitionKey { topic: id, partition: 0 };
            let owned = group.membership.owned.range(first..).next().is_some_and(|(key, _)| key.topic == id);
            if owned || group.of_topic(id).next().is_some() {
                let group = Arc::make_mut(group);
                let before = group.positions.len();
                group.positions.retain(|key, _| key.topic != id);
                group.membership.forget_topic(id);
                group.number = number;
                forgotten += before - group.positions.len();
            }
            let stays = !group.holds_nothing();
            if !stays {
                *first_epoch = group.membership.next_epoch.max(*first_epoch);
            }
            stays
        });
        self.positions -= forgotten;
    }

    /// Lowers what lies beyond the ends of partitions that a power cut shortened, and says so in entries.
    pub(super) fn lower(
        &mut self,
        ends: &dyn Fn(PartitionKey) -> Option<i64>,
    ) -> Vec<internal::OffsetsCommitted> {
        let mut entries = Vec::new();
        for (name, group) in &mut self.by_name {
            let beyond = |(key, committed): (&PartitionKey, &Committed)| {
                ends(*key).filter(|end| committed.next_offset > *end).map(|end| (*key, end))
            };
            let lowered: Vec<_> = group.positions.iter().filter_map(beyond).collect();
            if lowered.is_empty() {
                continue;
            }
            let group = Arc::make_mut(group);
            let mut positions = Vec::with_capacity(lowered.len());
            for (key, end) in lowered {
                if let Some(committed) = group.positions.get_mut(&key) {
                    committed.next_offset = end;
                    positions.push(to_entry(key, committed));
                }
            }
            entries.push(internal::OffsetsCommitted { group: name.to_string(), positions });
        }
        entries
    }

    /// As it is now.
    pub fn freeze(&self) -> Frozen {
        let groups = self.by_name.iter().map(|(name, group)| (Arc::clone(name), Arc::clone(group)));
        let frozen = FrozenGroups { groups: groups.collect(), first_epoch: self.first_epoch };
        Frozen { number: self.number, part: FrozenPart::Groups(frozen) }
    }

    pub(super) fn thaw(number: u64, image: internal::GroupsImage) -> Result<Self, String> {
        let mut groups = Self { number, first_epoch: image.first_epoch, ..Self::default() };
        for image in image.groups {
            let entry = image.group.ok_or("a group's image without the group")?;
            groups.change(image.number, &entry.group, |group| {
                group.positions = entry.positions.iter().filter_map(position_of).collect();
                group.settings =
                    image.settings.as_ref().map(|entry| Arc::new(GroupSettings::from_entry(entry)));
                group.membership = image.members.as_ref().map(Membership::thaw).unwrap_or_default();
            });
        }
        Ok(groups)
    }

    /// Tests call it after each step.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.by_name.values().map(|group| group.positions.len()).sum::<usize>(), self.positions);
        for (name, group) in &self.by_name {
            assert!(!group.holds_nothing(), "group {name} holds nothing");
            group.membership.check();
            assert!(group.number <= self.number, "group {name} is newer than {}", self.number);
        }
    }
}

/// What an entry says of a position. An id that is none is not one of ours: nothing can be committed under it.
fn position_of(entry: &internal::GroupPosition) -> Option<(PartitionKey, Committed)> {
    let key = PartitionKey { topic: topic_id(&entry.topic_id).ok()?, partition: entry.partition };
    let committed = Committed {
        next_offset: entry.next_offset,
        leader_epoch: entry.leader_epoch,
        commit_time_ms: entry.commit_time_ms,
        metadata: entry.metadata.clone(),
    };
    Some((key, committed))
}

/// A bare position as entries have it.
pub(crate) fn position_entry(key: PartitionKey, next_offset: i64) -> internal::GroupPosition {
    let topic_id = Bytes::copy_from_slice(key.topic.as_bytes());
    internal::GroupPosition { topic_id, partition: key.partition, next_offset, ..Default::default() }
}

fn to_entry(key: PartitionKey, committed: &Committed) -> internal::GroupPosition {
    internal::GroupPosition {
        topic_id: Bytes::copy_from_slice(key.topic.as_bytes()),
        partition: key.partition,
        next_offset: committed.next_offset,
        leader_epoch: committed.leader_epoch,
        commit_time_ms: committed.commit_time_ms,
        metadata: committed.metadata.clone(),
    }
}

/// What follows `after` and starts with `prefix`, in order of name.
pub(super) fn page<'a, T>(
    by_name: &'a BTreeMap<Arc<str>, T>,
    after: &str,
    prefix: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a T)> + use<'a, T> {
    let start = match (after.is_empty(), after >= prefix) {
        (true, _) | (_, false) => Included(prefix),
        (false, true) => Excluded(after),
    };
    by_name.range::<str, _>((start, Unbounded)).take_while(move |(name, _)| name.starts_with(prefix))
}

pub(super) fn image(groups: &FrozenGroups) -> internal::GroupsImage {
    let image = |(name, group): &(Arc<str>, Arc<Group>)| internal::GroupImage {
        number: group.number,
        group: Some(internal::OffsetsCommitted {
            group: name.to_string(),
            positions: group.positions.iter().map(|(key, committed)| to_entry(*key, committed)).collect(),
        }),
        settings: group.settings.as_ref().map(|settings| settings.to_entry()),
        members: (group.membership != Membership::default()).then(|| group.membership.image(name)),
    };
    internal::GroupsImage {
        groups: groups.groups.iter().map(image).collect(),
        first_epoch: groups.first_epoch,
    }
}
