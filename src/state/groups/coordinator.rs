//! Who is to own what: a pure function from a group, the topics there are and an event to the entry that makes it so.
//!
//! 1. Sticky: what a member owns stays with it unless it has more than its share. Then as many are *asked for* as the
//!    others lack, and only these stop; they change hands when their owner has released them, or its time is up.
//! 2. Everything that is nobody's and that a member reads is given at once, to the member with the fewest.
//! 3. Each time a partition is given it gets the next assignment epoch of the group. A member that comes back under its
//!    name gets what it owned under new epochs: what its former self still says is told apart. What it was asked for is
//!    not given back to it.
//! 4. A partition of which nobody reads the topic is nobody's.

use annals_wire::{ids::TopicId, internal};

use super::{
    balance,
    membership::{ByTopic, Given, Member, Membership, joined},
};
use crate::{storage::PartitionKey, sync::Arc};

/// A topic there is.
#[derive(Clone, Copy, Debug)]
pub struct TopicView<'a> {
    /// Name.
    pub name: &'a str,
    /// Id.
    pub id: TopicId,
    /// Partitions.
    pub partitions: u32,
}

/// What happens to a group.
#[derive(Clone, Debug)]
pub enum GroupEvent<'a> {
    /// A member comes, or comes back under the id it has.
    Join {
        /// Its id.
        id: &'a str,
        /// The member.
        member: Member,
    },
    /// A member left, or was silent for too long.
    Gone {
        /// Its id.
        id: &'a str,
    },
    /// Partitions that their owner was asked for are handed over, or the time for it is up.
    Released {
        /// Which. Those that nobody was asked for stay where they are.
        keys: &'a [PartitionKey],
    },
    /// Topics were made, changed or deleted.
    Topics,
}

impl TopicView<'_> {
    /// Its partitions.
    pub fn keys(&self) -> impl Iterator<Item = PartitionKey> + use<> {
        let topic = self.id;
        (0..self.partitions).map(move |partition| PartitionKey { topic, partition })
    }
}

/// What follows from an event; `None` = nothing. `topics` are those that a member may read, others do no harm.
pub fn decide(
    group: &str,
    membership: &Membership,
    topics: &[TopicView<'_>],
    event: &GroupEvent<'_>,
) -> Option<internal::GroupMoved> {
    let mut turn = Turn { after: membership.clone(), renewed: Vec::new(), released: Vec::new() };
    let mut moved = internal::GroupMoved { group: group.to_owned(), ..Default::default() };
    match event {
        GroupEvent::Join { id, member } => {
            moved.joined.push(joined(id, member));
            turn.join(id, member);
        }
        GroupEvent::Gone { id } => {
            if turn.after.members.remove(*id).is_some() {
                moved.left.push((*id).to_owned());
                turn.after.owned.retain(|_, owned| *owned.member != **id);
            }
        }
        GroupEvent::Released { keys } => keys.iter().for_each(|key| turn.release(*key)),
        GroupEvent::Topics => {}
    }
    turn.drop_unread(topics);
    let mut plan = turn.plan(topics);
    let mut given = Given::default();
    let renewed = turn.renewed.iter().filter_map(|key| Some((*key, &turn.after.owned.get(key)?.member)));
    let assigned = plan.assign.iter().map(|(key, member)| (*key, member));
    let mut next_epoch = membership.next_epoch.max(1);
    for (key, member) in renewed.chain(assigned) {
        given.push(member, key, next_epoch);
        next_epoch = next_epoch.saturating_add(1);
    }
    moved.assigned = given.0;
    moved.released = by_topic(&mut turn.released);
    moved.revoking = by_topic(&mut plan.revoke);
    let changes_hands = !(moved.left.is_empty() && moved.released.is_empty() && moved.assigned.is_empty());
    if !changes_hands && moved.joined.is_empty() && moved.revoking.is_empty() {
        return None;
    }
    moved.generation = membership.generation.saturating_add(changes_hands.into());
    moved.next_epoch = next_epoch;
    Some(moved)
}

/// A decision on its way.
struct Turn {
    after: Membership,
    /// Stay with their owner, under new epochs.
    renewed: Vec<PartitionKey>,
    /// Are nobody's any more.
    released: Vec<PartitionKey>,
}

impl Turn {
    fn join(&mut self, id: &str, member: &Member) {
        let back = self.after.members.insert(Arc::from(id), member.clone()).is_some();
        if back {
            let owned: Vec<_> = self.after.of_member(id).map(|(key, owned)| (key, owned.revoking)).collect();
            for (key, revoking) in owned {
                if revoking {
                    self.release(key);
                } else {
                    self.renewed.push(key);
                }
            }
        }
    }

    /// What is too much for a member that comes back need not be asked for: nobody has it yet.
    fn plan(&mut self, topics: &[TopicView<'_>]) -> balance::Plan {
        loop {
            let plan = balance::plan(&self.after, topics);
            let too_much: Vec<_> =
                plan.revoke.iter().filter(|key| self.renewed.contains(key)).copied().collect();
            if too_much.is_empty() {
                return plan;
            }
            self.renewed.retain(|key| !too_much.contains(key));
            for key in too_much {
                self.after.owned.remove(&key);
                self.released.push(key);
            }
        }
    }

    /// Only what was asked for.
    fn release(&mut self, key: PartitionKey) {
        if self.after.owned.get(&key).is_some_and(|owned| owned.revoking) {
            self.after.owned.remove(&key);
            self.released.push(key);
        }
    }

    /// Ends the ownerships of what is gone, or what its owner does not read any more.
    fn drop_unread(&mut self, topics: &[TopicView<'_>]) {
        let Self { after, released, renewed } = self;
        let Membership { members, owned, .. } = after;
        let by_id: std::collections::BTreeMap<TopicId, &TopicView<'_>> =
            topics.iter().map(|topic| (topic.id, topic)).collect();
        owned.retain(|key, owned| {
            let topic = by_id.get(&key.topic).filter(|topic| key.partition < topic.partitions);
            let member = members.get(&owned.member);
            let reads =
                topic.zip(member).is_some_and(|(topic, member)| member.subscription.matches(topic.name));
            if !reads {
                released.push(*key);
            }
            reads
        });
        renewed.retain(|key| owned.contains_key(key));
    }
}

fn by_topic(keys: &mut [PartitionKey]) -> Vec<internal::GroupPartitions> {
    keys.sort_unstable();
    let mut out = ByTopic::default();
    for key in keys {
        out.push(*key);
    }
    out.0
}
