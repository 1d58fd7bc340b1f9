//! Random walks of the coordinator: after each event of any, what must hold holds.

use std::collections::BTreeMap;

use annals_wire::{
    ids::TopicId,
    internal::{GroupMoved, TopicDeleted, state_entry::Body},
};
use bytes::Bytes;
use proptest::prelude::*;

use super::{scripts::thawed, *};

const NAMES: [&str; 4] = ["shop.a", "shop.b", "other", "shop.a.dlq"];
const MEMBERS: [&str; 5] = ["m0", "m1", "m2", "m3", "m4"];

#[derive(Default)]
struct Walk {
    groups: Groups,
    topics: BTreeMap<&'static str, (TopicId, u32)>,
    made: u8,
    number: u64,
    /// Highest epoch under which each partition was ever owned.
    epochs: BTreeMap<PartitionKey, u32>,
}

impl Walk {
    fn step(&mut self, (kind, a, b): (u8, u8, u8), uniform: bool) {
        let name = NAMES[usize::from(a) % if uniform { 1 } else { NAMES.len() }];
        let member = MEMBERS[usize::from(a) % MEMBERS.len()];
        match kind % 10 {
            0 => {
                self.made += 1;
                let topic = self.topics.entry(name).or_insert((TopicId([self.made; 16]), 0));
                topic.1 = topic.1.max(u32::from(b % 12) + 1);
                self.decide(&GroupEvent::Topics);
            }
            1 if !uniform => {
                let Some((id, _)) = self.topics.remove(name) else { return };
                let topic_id = Bytes::copy_from_slice(id.as_bytes());
                self.apply(&Body::TopicDeleted(TopicDeleted { topic_id }));
                self.decide(&GroupEvent::Topics);
            }
            1..=4 => self.join(member, if uniform { 0 } else { b }),
            5 | 6 => self.decide(&GroupEvent::Gone { id: member }),
            7 | 8 => {
                let asked: Vec<_> = self
                    .groups
                    .membership("g")
                    .owned
                    .into_iter()
                    .filter(|(_, owned)| owned.revoking)
                    .collect();
                let keys: Vec<_> = asked.iter().map(|(key, _)| *key).take(usize::from(b % 4) + 1).collect();
                self.decide(&GroupEvent::Released { keys: &keys });
            }
            _ => self.groups = thawed(&self.groups),
        }
    }

    fn join(&mut self, id: &'static str, reads: u8) {
        let subscription = match reads % 4 {
            0 => Subscription { topics: vec![Arc::from("shop.a")], prefix: None },
            1 => Subscription { topics: vec![Arc::from("other"), Arc::from("shop.a.dlq")], prefix: None },
            2 => Subscription { topics: vec![], prefix: Some(Arc::from("shop.")) },
            _ => Subscription { topics: vec![], prefix: Some(Arc::from("")) },
        };
        self.decide(&GroupEvent::Join { id, member: Member { name: Arc::from(id), subscription } });
    }

    fn views(&self) -> Vec<TopicView<'_>> {
        let view = |(name, (id, partitions)): (&&'static str, &(TopicId, u32))| TopicView {
            name,
            id: *id,
            partitions: *partitions,
        };
        self.topics.iter().map(view).collect()
    }

    fn decide(&mut self, event: &GroupEvent<'_>) {
        let before = self.groups.membership("g");
        let Some(moved) = decide("g", &before, &self.views(), event) else { return };
        let changes_hands =
            !(moved.left.is_empty() && moved.released.is_empty() && moved.assigned.is_empty());
        assert_eq!(moved.generation - before.generation, u32::from(changes_hands));
        self.check_movement(&before, &moved, event);
        for (key, epoch) in moved.assigned.iter().flat_map(given_keys) {
            let highest = self.epochs.entry(key).or_default();
            assert!(epoch > *highest, "{key} is given under epoch {epoch} after {highest}");
            *highest = epoch;
        }
        self.apply(&Body::GroupMoved(moved));
    }

    /// Nothing moves that need not.
    fn check_movement(&self, before: &Membership, moved: &GroupMoved, event: &GroupEvent<'_>) {
        let given: Vec<_> = moved.assigned.iter().flat_map(given_keys).map(|(key, _)| key).collect();
        let released: Vec<_> = moved.released.iter().flat_map(keys).collect();
        for (key, owned) in &before.owned {
            let reads = |member: &Member| {
                let read = self.topics.iter().find(|(_, (id, _))| *id == key.topic);
                read.is_some_and(|(name, _)| member.subscription.matches(name))
            };
            let (own, stays) = match event {
                GroupEvent::Join { id, member } if **id == *owned.member => (true, reads(member)),
                GroupEvent::Gone { id } if **id == *owned.member => (true, false),
                _ => (false, before.members.get(&owned.member).is_some_and(reads)),
            };
            if stays && !own && !owned.revoking {
                assert!(
                    !given.contains(key) && !released.contains(key),
                    "{key} is taken without being asked for"
                );
            }
        }
    }

    fn apply(&mut self, body: &Body) {
        self.number += 1;
        self.groups.apply(self.number, body);
        self.groups.check();
    }

    fn check(&self) {
        let membership = self.groups.membership("g");
        let mut loads: BTreeMap<&Arc<str>, usize> = membership.members.keys().map(|id| (id, 0)).collect();
        for owned in membership.owned.values() {
            *loads.get_mut(&owned.member).unwrap() += 1;
        }
        let rests = membership.owned.values().all(|owned| !owned.revoking);
        for (name, (topic, partitions)) in &self.topics {
            let readers: Vec<_> =
                membership.members.iter().filter(|(_, member)| member.subscription.matches(name)).collect();
            let least = readers.iter().map(|(id, _)| loads[id]).min();
            for partition in 0..*partitions {
                let key = PartitionKey { topic: *topic, partition };
                let owned = membership.owned.get(&key);
                assert_eq!(owned.is_some(), !readers.is_empty(), "{name}[{partition}]: {membership:?}");
                let Some((owned, least)) = owned.zip(least) else { continue };
                assert!(readers.iter().any(|(id, _)| **id == owned.member), "its owner does not read it");
                assert!(!rests || loads[&owned.member] <= least + 1, "{name}[{partition}]: {membership:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_partition_that_is_read_has_one_owner_and_at_rest_all_have_as_many(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..80),
        uniform in any::<bool>(),
    ) {
        let mut walk = Walk::default();
        for step in steps {
            walk.step(step, uniform);
            walk.check();
        }
    }
}

#[test]
fn a_join_asks_for_its_fair_share_of_a_thousand_and_for_nothing_twice() {
    let mut walk = Walk::default();
    walk.topics.insert("shop.a", (TopicId([1; 16]), 1000));
    for (before, id) in (0..).zip(MEMBERS) {
        let owned = walk.groups.membership("g").owned;
        walk.join(id, 0);
        let after = walk.groups.membership("g");
        let asked = after.owned.values().filter(|owned| owned.revoking).count();
        assert_eq!(asked, if before == 0 { 0 } else { 1000 / (before + 1) });
        let same = |key: &PartitionKey| after.owned[key].member == owned[key].member;
        assert!(owned.keys().all(same), "nothing moves at once");
        walk.decide(&GroupEvent::Topics);
        assert_eq!(walk.groups.membership("g"), after, "asked for once");
        let keys: Vec<_> =
            after.owned.iter().filter(|(_, owned)| owned.revoking).map(|(key, _)| *key).collect();
        walk.decide(&GroupEvent::Released { keys: &keys });
        walk.check();
    }
}
