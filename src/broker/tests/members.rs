//! Members of groups: who owns what, who may commit, who is out.

use std::collections::BTreeMap;

use super::{
    super::{AssignedPartition, Consumption, GroupChange, Join, MemberEvent, MemberHandle, Place},
    *,
};
use crate::state::{GroupStart, Subscription};

/// A member as a test drives it.
pub(super) struct Member {
    mouth: Consumption,
    pub(super) ears: MemberHandle,
    pub(super) id: Arc<str>,
    /// Epochs of what it was given and not asked back.
    pub(super) owned: BTreeMap<(String, u32), u32>,
    commits: u64,
}

pub(super) fn joins(group: &str, name: &str, topics: &[&str]) -> Join {
    let (prefixes, names): (Vec<&str>, Vec<&str>) = topics.iter().partition(|topic| topic.ends_with('*'));
    Join {
        group: group.into(),
        subscription: Subscription {
            topics: names.into_iter().map(Arc::from).collect(),
            prefix: prefixes.first().map(|prefix| Arc::from(prefix.trim_end_matches('*'))),
        },
        member_name: name.into(),
        credit: 1 << 20,
        accept_codecs: CodecSet { lz4: true, zstd: true },
        skip_damaged: false,
        filter: None,
        peer: "test".into(),
    }
}

pub(super) fn place(topic: &str, partition: u32) -> (String, u32) {
    (topic.to_owned(), partition)
}

impl House {
    pub(super) async fn member(&self, join: Join) -> Member {
        let mouth = self.broker.join(join).await.unwrap();
        let ears = mouth.handle();
        let mut member = Member { mouth, ears, id: "".into(), owned: BTreeMap::new(), commits: 0 };
        let MemberEvent::Joined { member_id, .. } = member.next().await else { panic!("joined comes first") };
        member.id = member_id;
        member
    }

    /// Lets time pass as the keeper sees it. Who speaks says so on the way.
    pub(super) fn pass(&self, ms: u64, speak: &[&Member]) {
        for _ in 0..ms.div_ceil(100) {
            self.clock.advance(Duration::from_millis(100));
            self.broker.tend_groups();
            for member in speak {
                member.ears.heard();
            }
        }
    }

    async fn owners(&self, group: &str) -> BTreeMap<(String, u32), String> {
        let members = self.broker.get_group(group).await.unwrap().members;
        let owned = members.iter().flat_map(|member| {
            member.partitions.iter().map(|owned| {
                ((owned.place.topic.to_string(), owned.place.partition), member.name.to_string())
            })
        });
        owned.collect()
    }

    async fn position(&self, group: &str, topic: &str, partition: u32) -> Option<i64> {
        let offsets = self.broker.get_offsets(group, &[topic.to_owned()]).await.unwrap();
        offsets.iter().find(|offset| offset.partition == partition).map(|offset| offset.next_offset)
    }
}

impl Member {
    /// What it is told next, signs of life apart.
    pub(super) async fn next(&mut self) -> MemberEvent {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.mouth.next());
            match next.await.expect("something is said").expect("it did not leave").expect("it is not out") {
                MemberEvent::Heartbeat { .. } => {}
                event => {
                    self.keep(&event);
                    return event;
                }
            }
        }
    }

    fn keep(&mut self, event: &MemberEvent) {
        match event {
            MemberEvent::Assigned { partitions, .. } => {
                for AssignedPartition { place, assignment_epoch, .. } in partitions {
                    self.owned.insert((place.topic.to_string(), place.partition), *assignment_epoch);
                }
            }
            MemberEvent::Revoked { places, .. } => {
                for Place { topic, partition } in places {
                    self.owned.remove(&(topic.to_string(), *partition));
                }
            }
            _ => {}
        }
    }

    /// Passes over records, and says what came before.
    pub(super) async fn assigned(&mut self) -> Vec<AssignedPartition> {
        loop {
            if let MemberEvent::Assigned { partitions, .. } = self.next().await {
                return partitions;
            }
        }
    }

    pub(super) async fn revoked(&mut self) -> (Vec<(String, u32)>, u32) {
        loop {
            if let MemberEvent::Revoked { places, deadline_ms } = self.next().await {
                return (places.iter().map(|one| place(&one.topic, one.partition)).collect(), deadline_ms);
            }
        }
    }

    pub(super) async fn slice(&mut self) -> Slice {
        loop {
            if let MemberEvent::Slice(slice) = self.next().await {
                return slice;
            }
        }
    }

    async fn commit(
        &mut self,
        topic: &str,
        partition: u32,
        next_offset: i64,
        epoch: u32,
    ) -> Result<(), Error> {
        self.commits += 1;
        let position = CommitPosition {
            topic: topic.into(),
            partition,
            next_offset,
            assignment_epoch: epoch,
            ..CommitPosition::default()
        };
        self.ears.commit(self.commits, vec![position]).await?;
        loop {
            if let MemberEvent::Committed { commit_id, refused } = self.next().await {
                assert_eq!(commit_id, self.commits);
                return refused.map_or(Ok(()), Err);
            }
        }
    }

    async fn is_out(&mut self) -> Error {
        loop {
            match self.mouth.next().await {
                Some(Err(error)) => return error,
                Some(Ok(_)) => {}
                None => panic!("it left by itself"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_reads_commits_and_leaves_and_the_next_goes_on_behind() {
    let house = House::new();
    house.topic("t", 2).await;
    house.put("t", &["a", "b", "c"]).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    let given = one.assigned().await;
    assert_eq!(
        given.iter().map(|one| (one.place.partition, one.next_offset)).collect::<Vec<_>>(),
        [(0, 0), (1, 0)]
    );
    assert_eq!(values(&one.slice().await), numbered(0, &["a", "b", "c"]));
    one.commit("t", 0, 2, one.owned[&place("t", 0)]).await.unwrap();
    assert_eq!(house.position("g", "t", 0).await, Some(2));
    one.ears.leave().await.unwrap();
    loop {
        match one.mouth.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => break,
        }
    }
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 0);
    let mut two = house.member(joins("g", "two", &["t"])).await;
    let given = two.assigned().await;
    assert_eq!(given[0].next_offset, 2);
    assert_eq!(values(&two.slice().await), numbered(2, &["c"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_waits_for_the_owner_and_starts_where_its_last_commit_was() {
    let house = House::new();
    house.topic("t", 2).await;
    house.put("t", &["a", "b", "c"]).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let mut two = house.member(joins("g", "two", &["t"])).await;
    let (asked, deadline_ms) = one.revoked().await;
    assert_eq!(asked, [place("t", 1)]);
    assert!((1..=30_100).contains(&deadline_ms), "{deadline_ms}");
    // The other one, which nobody asked for, goes on.
    house.put("t", &["d"]).await;
    while one.slice().await.next_offset < 4 {}
    one.ears.released(&asked).await.unwrap();
    let given = two.assigned().await;
    assert_eq!(given.len(), 1);
    assert_eq!(given[0].place.partition, 1);
    let owners = house.owners("g").await;
    assert_eq!(owners[&place("t", 0)], "one");
    assert_eq!(owners[&place("t", 1)], "two");
    let late = one.commit("t", 1, 0, 2).await.unwrap_err();
    assert_eq!(late.reason(), "FENCED");
    let error = one.ears.released(&[place("t", 0)]).await.unwrap_err();
    assert!(error.to_string().contains("was not revoked"), "{error}");
    one.ears.released(&asked).await.unwrap(); // lost meanwhile: changes nothing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_partition_may_be_committed_until_it_is_released_and_no_longer() {
    let house = House::new();
    house.topic("t", 2).await;
    let produced = house.produce(to("t", 1, &["a", "b"])).await.unwrap();
    assert_eq!(produced.appends[0].partition, 1);
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let epoch = one.owned[&place("t", 1)];
    let mut two = house.member(joins("g", "two", &["t"])).await;
    let (asked, _) = one.revoked().await;
    one.commit("t", 1, 1, epoch).await.unwrap();
    one.ears.released(&asked).await.unwrap();
    let given = two.assigned().await;
    assert_eq!((given[0].place.partition, given[0].next_offset), (1, 1), "where the last commit was");
    assert!(given[0].assignment_epoch > epoch);
    assert_eq!(one.commit("t", 1, 2, epoch).await.unwrap_err().reason(), "FENCED");
    assert_eq!(one.commit("t", 1, 2, given[0].assignment_epoch).await.unwrap_err().reason(), "FENCED");
    assert_eq!(house.position("g", "t", 1).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overdue_hand_over_costs_the_partitions_and_not_the_membership() {
    let house = House::new();
    house.topic("t", 2).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let epochs = one.owned.clone();
    let mut two = house.member(joins("g", "two", &["t"])).await;
    one.revoked().await;
    house.pass(30_200, &[&one, &two]);
    let given = two.assigned().await;
    assert_eq!(given[0].place.partition, 1);
    let (lost, deadline_ms) = one.revoked().await;
    assert_eq!((lost, deadline_ms), (vec![place("t", 1)], 0));
    assert_eq!(one.commit("t", 1, 0, epochs[&place("t", 1)]).await.unwrap_err().reason(), "FENCED");
    one.commit("t", 0, 0, epochs[&place("t", 0)]).await.unwrap();
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_is_out_and_a_pause_of_the_broker_is_no_silence() {
    let house = House::new();
    house.topic("t", 2).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let mut two = house.member(joins("g", "two", &["t"])).await;
    let (asked, _) = one.revoked().await;
    one.ears.released(&asked).await.unwrap();
    two.assigned().await;
    // The broker was stopped for a minute: nobody could be heard.
    house.clock.advance(Duration::from_secs(60));
    house.broker.tend_groups();
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 2);
    house.pass(10_200, &[&one]);
    let error = two.is_out().await;
    assert_eq!(error.reason(), "FENCED");
    assert!(error.to_string().contains("silent for 10000 ms"), "{error}");
    let given = one.assigned().await;
    assert_eq!(given[0].place.partition, 1);
    let late = two.ears.commit(
        1,
        vec![CommitPosition { topic: "t".into(), partition: 1, assignment_epoch: 3, ..Default::default() }],
    );
    late.await.unwrap();
    assert_eq!(house.position("g", "t", 1).await, None, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_comes_back_keeps_its_partitions_under_new_epochs_and_disturbs_nobody() {
    let house = House::new();
    house.topic("t", 4).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let mut two = house.member(joins("g", "two", &["t"])).await;
    let (asked, _) = one.revoked().await;
    one.ears.released(&asked).await.unwrap();
    two.assigned().await;
    let before = (two.id.clone(), two.owned.clone());
    let zombie = two.ears.clone();
    drop(two); // its connection broke
    house.pass(3_000, &[&one]);
    let mut again = house.member(joins("g", "two", &["t"])).await;
    again.assigned().await;
    assert_eq!(again.id, before.0);
    assert_eq!(again.owned.keys().collect::<Vec<_>>(), before.1.keys().collect::<Vec<_>>());
    let higher = |key| again.owned[key] > before.1[key];
    assert!(before.1.keys().all(higher), "{:?} after {:?}", again.owned, before.1);
    let (key, epoch) = before.1.first_key_value().unwrap();
    let position = CommitPosition {
        topic: key.0.clone(),
        partition: key.1,
        assignment_epoch: *epoch,
        ..Default::default()
    };
    zombie.commit(9, vec![position.clone()]).await.unwrap();
    let commit = Commit {
        group: "g".into(),
        member_id: again.id.to_string(),
        positions: vec![position],
        ..Default::default()
    };
    let error = house.broker.commit_offsets(commit).await.unwrap_err();
    assert_eq!(error.reason(), "FENCED");
    assert_eq!(house.position("g", "t", key.1).await, None);
    one.commit("t", 0, 0, one.owned[&place("t", 0)]).await.unwrap();
    while let Some(said) = one.mouth.now() {
        let event = said.unwrap().unwrap();
        assert!(matches!(event, MemberEvent::CaughtUp { .. }), "nobody asked it for anything: {event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_lives_is_waited_for_and_then_refused() {
    let house = House::new();
    house.topic("t", 1).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let broker = Arc::clone(&house.broker);
    let second = tokio::spawn(async move { broker.join(joins("g", "one", &["t"])).await.map(drop) });
    while !second.is_finished() {
        house.pass(100, &[&one]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(second.await.unwrap().unwrap_err().reason(), "MEMBER_NAME_IN_USE");
    // The first one falls silent while another waits: the name changes hands, its partitions do not.
    let broker = Arc::clone(&house.broker);
    let third = tokio::spawn(async move { broker.join(joins("g", "one", &["t"])).await });
    while !third.is_finished() {
        house.pass(100, &[]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut third = third.await.unwrap().unwrap();
    assert!(matches!(third.next().await, Some(Ok(MemberEvent::Joined { .. }))));
    assert_eq!(one.is_out().await.reason(), "FENCED");
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_members_their_partitions_and_their_epochs_for_one_timeout() {
    let house = House::new();
    house.topic("t", 2).await;
    house.put("t", &["a"]).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let epoch = one.owned[&place("t", 0)];
    let after = house.crashed();
    let commit = |epoch| Commit {
        group: "g".into(),
        member_id: one.id.to_string(),
        positions: vec![CommitPosition {
            topic: "t".into(),
            next_offset: 1,
            assignment_epoch: epoch,
            ..CommitPosition::default()
        }],
        ..Commit::default()
    };
    after.broker.commit_offsets(commit(epoch)).await.unwrap();
    assert_eq!(after.broker.commit_offsets(commit(epoch + 1)).await.unwrap_err().reason(), "FENCED");
    after.pass(9_000, &[]);
    let mut back = after.member(joins("g", "one", &["t"])).await;
    let given = back.assigned().await;
    assert_eq!((given.len(), given[0].next_offset), (2, 1));
    assert!(given[0].assignment_epoch > epoch);
    assert_eq!(after.broker.commit_offsets(commit(epoch)).await.unwrap_err().reason(), "FENCED");
    let later = after.crashed();
    later.pass(10_200, &[]);
    assert_eq!(later.broker.get_group("g").await.unwrap().member_count, 0, "nobody came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_do_not_commit_nor_delete_behind_the_backs_of_members() {
    let house = House::new();
    house.topic("t", 1).await;
    house.put("t", &["a"]).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let error = house.commit_at("g", "t", 1).await.unwrap_err();
    assert_eq!(error.reason(), "GROUP_HAS_MEMBERS");
    assert!(error.to_string().contains("override_members"), "{error}");
    let error = house.broker.delete_group("g").await.unwrap_err();
    assert_eq!(error.reason(), "GROUP_HAS_MEMBERS");
    assert!(error.to_string().contains("then delete it"), "{error}");
    let forced = Commit { override_members: true, ..one_commit("g", "t", 1) };
    house.broker.commit_offsets(forced).await.unwrap();
    one.ears.leave().await.unwrap();
    house.commit_at("g", "t", 1).await.unwrap();
    house.broker.delete_group("g").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_begins_at_the_end_leaves_out_nothing_that_comes_after_its_first_member() {
    let house = House::new();
    house.topic("shop.a", 1).await;
    house.put("shop.a", &["old"]).await;
    let latest = GroupChange { start: Some(GroupStart::Latest), ..GroupChange::default() };
    house.broker.create_group("g", latest).await.unwrap();
    let mut one = house.member(joins("g", "one", &["shop.*"])).await;
    assert_eq!(one.assigned().await[0].next_offset, 1);
    one.ears.leave().await.unwrap();
    house.put("shop.a", &["while nobody was there"]).await;
    let mut two = house.member(joins("g", "two", &["shop.*"])).await;
    assert_eq!(two.assigned().await[0].next_offset, 1, "written down when it began");
    assert_eq!(values(&two.slice().await), numbered(1, &["while nobody was there"]));
    // A topic that is made while somebody reads its prefix is read from its first record.
    house.topic("shop.b", 1).await;
    house.topic("shop.b.dlq", 1).await;
    house.put("shop.b", &["new"]).await;
    let given = two.assigned().await;
    assert_eq!((given.len(), &*given[0].place.topic, given[0].next_offset), (1, "shop.b", 0));
    assert_eq!(values(&two.slice().await), numbered(0, &["new"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_without_credit_nor_of_what_is_paused() {
    let house = House::new();
    house.topic("t", 2).await;
    house.put("t", &["a", "b"]).await;
    house.produce(to("t", 1, &["x"])).await.unwrap();
    let mut one = house.member(Join { credit: 0, ..joins("g", "one", &["t"]) }).await;
    one.assigned().await;
    assert!(one.mouth.now().is_none(), "no credit, no records");
    one.ears.pause(&[place("t", 0), place("t", 7), place("nowhere", 0)]);
    one.ears.credit(1);
    let slice = one.slice().await;
    assert_eq!(slice.partition, 1, "one batch comes even if larger");
    one.ears.credit(1 << 20);
    assert!(matches!(one.next().await, MemberEvent::CaughtUp { partition: 1, .. }));
    one.ears.resume(&[place("t", 0)]);
    assert_eq!(values(&one.slice().await), numbered(0, &["a", "b"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_makes_no_sense_is_refused() {
    let house = House::new();
    let long = "x".repeat(250);
    for (join, what) in [
        (joins("no/name", "", &["t"]), "join.group"),
        (joins("g", "", &[]), "topic_prefix"),
        (joins("g", "", &["no/topic"]), "join.topics"),
        (joins("g", &long, &["t"]), "member_name"),
        (joins("g", "", &[&format!("{long}*")]), "topic_prefix"),
    ] {
        let error = house.broker.join(join).await.map(drop).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(house.broker.get_group("g").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_takes_its_partitions_along_and_the_others_go_on() {
    let house = House::new();
    house.topic("a", 1).await;
    house.topic("b", 1).await;
    let mut one = house.member(joins("g", "one", &["a", "b"])).await;
    one.assigned().await;
    house.broker.delete_topic("a", None).await.unwrap();
    let failure = loop {
        if let MemberEvent::PartitionError(failure) = one.next().await {
            break failure;
        }
    };
    assert_eq!((&*failure.topic, failure.error.reason()), ("a", "TOPIC_NOT_FOUND"));
    house.put("b", &["on"]).await;
    assert_eq!(values(&one.slice().await), numbered(0, &["on"]));
    // Made anew it is another topic: from its first record.
    house.topic("a", 1).await;
    house.put("a", &["new"]).await;
    assert_eq!(one.assigned().await[0].next_offset, 0);
    assert_eq!(values(&one.slice().await), numbered(0, &["new"]));
}
