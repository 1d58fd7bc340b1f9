//! The arithmetic of who owns what: pure, and the same for every order of asking.
//!
//! At rest a member has at most one partition more than any other that could have one of them. On the way there a partition
//! is in one of three places:
//!
//! ```text
//!   free     nobody's: can be given at once
//!   pending  its owner was asked for it: counts for whom it will most likely go to, and is given when it comes free
//!   owned    stays, unless its owner has too many: then it is asked for
//! ```
//!
//! Partitions that the same members may own form a class; a prefix over a thousand topics is one.

use std::collections::BTreeMap;

use super::{TopicView, membership::Membership};
use crate::{storage::PartitionKey, sync::Arc};

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Free partitions, and who gets them; in order of partition.
    pub(super) assign: Vec<(PartitionKey, Arc<str>)>,
    /// Partitions to ask their owners for, in order.
    pub(super) revoke: Vec<PartitionKey>,
}

/// What a member has, or would have, of a class.
#[derive(Debug, Default)]
struct Share {
    free: Vec<PartitionKey>,
    pending: Vec<PartitionKey>,
    owned: Vec<PartitionKey>,
}

/// Where a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Pending,
    Owned,
}

#[derive(Debug)]
struct Class {
    /// Indexes of the members that may own its partitions.
    eligible: Vec<usize>,
    /// One for each of them.
    shares: Vec<Share>,
    /// Not placed yet.
    floating: Vec<(PartitionKey, Place)>,
}

#[derive(Debug)]
struct Scales {
    /// Partitions by member, those included that it would get.
    loads: Vec<usize>,
    classes: Vec<Class>,
}

impl Share {
    fn take(&mut self) -> Option<(PartitionKey, Place)> {
        let free = self.free.pop().map(|key| (key, Place::Free));
        let pending = || self.pending.pop().map(|key| (key, Place::Pending));
        let of_others = free.or_else(pending);
        of_others.or_else(|| self.owned.pop().map(|key| (key, Place::Owned)))
    }

    fn put(&mut self, key: PartitionKey, place: Place) {
        match place {
            Place::Free => self.free.push(key),
            Place::Pending => self.pending.push(key),
            Place::Owned => self.owned.push(key),
        }
    }

    fn is_empty(&self) -> bool {
        self.free.is_empty() && self.pending.is_empty() && self.owned.is_empty()
    }
}

/// What to do so that every partition of `topics` that a member reads is owned, and the members come to have as many each.
/// Ownerships of partitions that their owners do not read must be gone already.
pub(super) fn plan(membership: &Membership, topics: &[TopicView<'_>]) -> Plan {
    let ids: Vec<&Arc<str>> = membership.members.keys().collect();
    let mut scales = Scales::new(membership, topics);
    scales.place_floating();
    let mut plan = Plan::default();
    while scales.shift(&mut plan.revoke) {}
    for class in &scales.classes {
        for (member, share) in class.members() {
            let Some(id) = ids.get(member) else { continue };
            plan.assign.extend(share.free.iter().map(|key| (*key, Arc::clone(id))));
            // It went round and came back to its owner, who was not asked yet.
            plan.revoke.retain(|key| {
                let back = membership.owned.get(key).is_some_and(|owned| owned.member == **id);
                !(back && share.pending.contains(key))
            });
        }
    }
    plan.assign.sort_unstable_by_key(|(key, _)| *key);
    plan.revoke.sort_unstable();
    plan
}

impl Class {
    fn members(&self) -> impl Iterator<Item = (usize, &Share)> {
        self.eligible.iter().copied().zip(&self.shares)
    }

    fn put(&mut self, slot: usize, key: PartitionKey, place: Place) {
        if let Some(share) = self.shares.get_mut(slot) {
            share.put(key, place);
        }
    }
}

impl Scales {
    fn new(membership: &Membership, topics: &[TopicView<'_>]) -> Self {
        let index: BTreeMap<&Arc<str>, usize> = membership.members.keys().zip(0..).collect();
        let mut loads = vec![0; index.len()];
        let mut classes: BTreeMap<Vec<usize>, Class> = BTreeMap::new();
        for topic in topics {
            let reads = membership.members.values().map(|member| member.subscription.matches(topic.name));
            let eligible: Vec<usize> =
                (0..).zip(reads).filter_map(|(at, reads)| reads.then_some(at)).collect();
            if eligible.is_empty() {
                continue;
            }
            let class = classes.entry(eligible).or_insert_with_key(|eligible| Class {
                eligible: eligible.clone(),
                shares: eligible.iter().map(|_| Share::default()).collect(),
                floating: Vec::new(),
            });
            for key in topic.keys() {
                match membership.owned.get(&key) {
                    None => class.floating.push((key, Place::Free)),
                    Some(owned) if owned.revoking => class.floating.push((key, Place::Pending)),
                    Some(owned) => {
                        let member = index.get(&owned.member).copied();
                        let slot = member.and_then(|member| class.eligible.binary_search(&member).ok());
                        if let Some((member, slot)) = member.zip(slot) {
                            class.put(slot, key, Place::Owned);
                            add(&mut loads, member, 1);
                        }
                    }
                }
            }
        }
        Self { loads, classes: classes.into_values().collect() }
    }

    /// Gives what has no place to whom has least; first what the fewest may have.
    fn place_floating(&mut self) {
        let Self { loads, classes } = self;
        classes.sort_by_key(|class| class.eligible.len());
        for class in classes {
            for (key, place) in std::mem::take(&mut class.floating) {
                let Some(slot) = lightest(&class.eligible, loads) else { continue };
                class.put(slot, key, place);
                if let Some(member) = class.eligible.get(slot) {
                    add(loads, *member, 1);
                }
            }
        }
    }

    /// Takes one from whom has most to whom has least, where the difference is largest; false = it is at most one everywhere.
    fn shift(&mut self, revoke: &mut Vec<PartitionKey>) -> bool {
        let Self { loads, classes } = self;
        let load = |member: usize| loads.get(member).copied().unwrap_or(0);
        let mut best: Option<(usize, usize, usize, usize)> = None;
        for (at, class) in classes.iter().enumerate() {
            let Some(least) = lightest(&class.eligible, loads) else { continue };
            let has = class.members().enumerate().filter(|(_, (_, share))| !share.is_empty());
            let Some((most, (member, _))) = has.max_by_key(|(_, (member, _))| load(*member)) else {
                continue;
            };
            let difference =
                load(member).saturating_sub(class.eligible.get(least).map_or(0, |least| load(*least)));
            if difference > best.map_or(1, |(best, ..)| best) {
                best = Some((difference, at, most, least));
            }
        }
        let Some((_, at, most, least)) = best else { return false };
        let Some(class) = classes.get_mut(at) else { return false };
        let Some((key, place)) = class.shares.get_mut(most).and_then(Share::take) else { return false };
        if place == Place::Owned {
            revoke.push(key);
        }
        class.put(least, key, if place == Place::Owned { Place::Pending } else { place });
        if let Some((most, least)) = class.eligible.get(most).zip(class.eligible.get(least)) {
            add(loads, *most, -1);
            add(loads, *least, 1);
        }
        true
    }
}

/// Which of these members has least, by its place among them.
fn lightest(eligible: &[usize], loads: &[usize]) -> Option<usize> {
    let load = |member: &usize| loads.get(*member).copied().unwrap_or(usize::MAX);
    eligible.iter().enumerate().min_by_key(|(_, member)| load(member)).map(|(slot, _)| slot)
}

fn add(loads: &mut [usize], member: usize, by: isize) {
    if let Some(load) = loads.get_mut(member) {
        *load = load.saturating_add_signed(by);
    }
}
