//! Random lives of a group: joins, deaths, silence, hand-overs, commits by owners and by zombies, pauses of the broker, flushes
//! and power cuts. After each step what must hold holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{Consumption, Join, MemberEvent},
    *,
};
use crate::{
    state::{Membership, Subscription},
    storage::PartitionKey,
};

const NAMES: [&str; 4] = ["m0", "m1", "m2", "m3"];
const RECORDS: i64 = 60;
const PARTITIONS: u32 = 5;

/// A commit that was entered and not answered yet.
#[derive(Debug)]
struct Open {
    partition: u32,
    next_offset: i64,
    allowed: bool,
}

struct Member {
    mouth: Consumption,
    id: Arc<str>,
    /// What it was told to hand over and did not yet.
    asked: Vec<(String, u32)>,
    open: BTreeMap<u64, Open>,
}

struct Life {
    house: House,
    members: BTreeMap<&'static str, Member>,
    /// Every ownership that anybody was ever told of: member id, partition, epoch.
    told: Vec<(Arc<str>, u32, u32)>,
    /// Highest epoch told of each partition.
    epochs: BTreeMap<u32, u32>,
    /// What was acked to be committed.
    acked: BTreeMap<u32, i64>,
    commits: u64,
}

impl Life {
    async fn new() -> Self {
        let house = House::by_hand();
        let broker = Arc::clone(&house.broker);
        let filled = tokio::spawn(async move {
            let settings = TopicSettings { partitions: Some(PARTITIONS), ..TopicSettings::default() };
            broker.create_topic(&Principal::anonymous(), "t", settings, "").await.unwrap();
            for partition in 0..PARTITIONS {
                let values = vec!["x"; usize::try_from(RECORDS).unwrap()];
                broker.produce(call(&to("t", partition, &values))).await.unwrap();
            }
        });
        while !filled.is_finished() {
            house.commit();
            tokio::task::yield_now().await;
        }
        filled.await.unwrap();
        Self {
            house,
            members: BTreeMap::new(),
            told: Vec::new(),
            epochs: BTreeMap::new(),
            acked: BTreeMap::new(),
            commits: 0,
        }
    }

    async fn step(&mut self, (kind, a, b): (u8, u8, u8)) {
        let name = NAMES[usize::from(a) % NAMES.len()];
        match kind % 16 {
            0..=2 => self.join(name).await,
            3 => {
                if let Some(member) = self.members.get(name) {
                    member.mouth.handle().leave().await.unwrap();
                }
            }
            // Its connection breaks.
            4 => drop(self.members.remove(name)),
            5..=7 => self.commit(name, a, b).await,
            8 | 9 => {
                if let Some(member) = self.members.get_mut(name) {
                    let places = std::mem::take(&mut member.asked);
                    member.mouth.handle().released(&places).await.unwrap();
                }
            }
            10 | 11 => self.pass(u32::from(b) % 30, a),
            // The process stood still.
            12 => {
                self.house.clock.advance(Duration::from_secs(u64::from(b) * 10));
                self.house.broker.tend_groups();
            }
            13 | 14 => self.house.commit(),
            _ => self.crash(b.is_multiple_of(2)),
        }
    }

    async fn join(&mut self, name: &'static str) {
        if self.members.contains_key(name) {
            return;
        }
        let subscription = Subscription { topics: vec![Arc::from("t")], prefix: None };
        let join = Join {
            group: "g".into(),
            subscription,
            member_name: name.into(),
            credit: 0,
            accept_codecs: CodecSet::default(),
            skip_damaged: false,
            filter: None,
            peer: "test".into(),
        };
        let mouth = self.house.broker.join(join).await.unwrap();
        let id = self.membership().named(name).unwrap().clone();
        self.members.insert(name, Member { mouth, id, asked: Vec::new(), open: BTreeMap::new() });
    }

    /// Somebody commits what it was told of at any time, or makes it up.
    async fn commit(&mut self, name: &str, a: u8, b: u8) {
        let known = self.told.len().max(1);
        let (partition, epoch) = self
            .told
            .get(usize::from(b) % known)
            .map_or((u32::from(a) % PARTITIONS, u32::from(b)), |(_, partition, epoch)| (*partition, *epoch));
        let membership = self.membership();
        let Some(member) = self.members.get_mut(name) else { return };
        // Nobody commits under an epoch that it was not told of.
        let told =
            |key: PartitionKey, epoch| self.told.contains(&(Arc::clone(&member.id), key.partition, epoch));
        let own = membership.of_member(&member.id).filter(|(key, owned)| told(*key, owned.epoch));
        let own = own.collect::<Vec<_>>().get(usize::from(b) % 4).copied();
        // Mostly its own, else somebody's at some time.
        let (partition, epoch) =
            own.filter(|_| a >= 64).map_or((partition, epoch), |(key, owned)| (key.partition, owned.epoch));
        let key = self.house.key_of(partition);
        let committed = self.house.committed(key);
        let next_offset = (committed + i64::from(b % 3)).min(RECORDS);
        let allowed = membership.owns(&member.id, key, epoch);
        self.commits += 1;
        let position = CommitPosition {
            topic: "t".into(),
            partition,
            next_offset,
            assignment_epoch: epoch,
            ..CommitPosition::default()
        };
        member.mouth.handle().commit(self.commits, vec![position]).await.unwrap();
        let after = self.house.committed(key);
        assert_eq!(after, if allowed { next_offset } else { committed }, "{partition} under {epoch}");
        member.open.insert(self.commits, Open { partition, next_offset, allowed });
    }

    /// Ticks, during which some speak.
    fn pass(&mut self, ticks: u32, speakers: u8) {
        for _ in 0..ticks {
            self.house.clock.advance(Duration::from_millis(400));
            self.house.broker.tend_groups();
            for (at, member) in self.members.values().enumerate() {
                if speakers >> at & 1 == 1 {
                    member.mouth.handle().heard();
                }
            }
        }
    }

    fn crash(&mut self, flushed: bool) {
        if flushed {
            self.house.commit();
            self.hear();
        }
        // Who is not told anything any more is as good as gone.
        let disk = self.house.disk.snapshot();
        self.members.clear();
        self.house = House::with(disk, self.house.broker.config.clone(), false);
    }

    /// Everything that can be told by now.
    fn hear(&mut self) {
        let mut over = Vec::new();
        for (name, member) in &mut self.members {
            while let Some(said) = member.mouth.now() {
                match said {
                    Some(Ok(MemberEvent::Assigned { partitions, .. })) => {
                        for given in partitions {
                            let partition = given.place.partition;
                            let highest = self.epochs.entry(partition).or_default();
                            assert!(given.assignment_epoch > *highest, "an epoch comes again: {given:?}");
                            *highest = given.assignment_epoch;
                            let acked = self.acked.get(&partition).copied().unwrap_or(0);
                            assert!(given.next_offset >= acked, "{given:?} behind {acked}");
                            self.told.push((Arc::clone(&member.id), partition, given.assignment_epoch));
                        }
                    }
                    Some(Ok(MemberEvent::Revoked { places, deadline_ms })) => {
                        let places = places.iter().map(|one| (one.topic.to_string(), one.partition));
                        if deadline_ms > 0 {
                            member.asked.extend(places);
                        }
                    }
                    Some(Ok(MemberEvent::Committed { commit_id, refused })) => {
                        let open = member.open.remove(&commit_id).expect("answered once");
                        assert_eq!(refused.is_none(), open.allowed, "{open:?}: {refused:?}");
                        if let Some(error) = refused {
                            assert_eq!(error.reason(), "FENCED");
                        } else {
                            let acked = self.acked.entry(open.partition).or_default();
                            *acked = open.next_offset.max(*acked);
                        }
                    }
                    Some(Ok(_)) => {}
                    // It left, or it is out.
                    None | Some(Err(_)) => {
                        over.push(*name);
                        break;
                    }
                }
            }
        }
        for name in over {
            self.members.remove(name);
        }
    }

    fn membership(&self) -> Membership {
        self.house.broker.truth.groups.lock().membership("g")
    }

    fn check(&self) {
        let groups = self.house.broker.truth.groups.lock();
        groups.check();
        self.house.broker.truth.sessions.lock().check(&groups);
        let membership = groups.membership("g");
        drop(groups);
        for (partition, acked) in &self.acked {
            let committed = self.house.committed(self.house.key_of(*partition));
            assert!(committed >= *acked, "{partition} was acked at {acked} and stands at {committed}");
        }
        if membership.members.is_empty() {
            return;
        }
        assert_eq!(membership.owned.len(), PARTITIONS as usize, "everything is owned: {membership:?}");
        if membership.owned.values().all(|owned| !owned.revoking) {
            let load = |id: &Arc<str>| membership.of_member(id).count();
            let most = membership.members.keys().map(load).max();
            let least = membership.members.keys().map(load).min();
            assert!(most.zip(least).is_some_and(|(most, least)| most <= least + 1), "{membership:?}");
        }
    }
}

impl House {
    fn key_of(&self, partition: u32) -> PartitionKey {
        PartitionKey { topic: self.broker.catalog.get("t").unwrap().id(), partition }
    }

    fn committed(&self, key: PartitionKey) -> i64 {
        let groups = self.broker.truth.groups.lock();
        groups
            .get("g")
            .and_then(|group| group.positions.get(&key))
            .map_or(0, |committed| committed.next_offset)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_happens_a_partition_has_one_owner_and_nothing_committed_is_lost(
        steps in prop::collection::vec(any::<(u8, u8, u8)>(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut life = Life::new().await;
            for step in steps {
                life.step(step).await;
                life.hear();
                life.check();
            }
        });
    }
}
