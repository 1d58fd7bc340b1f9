//! Committed offsets.

use super::*;
use crate::storage::Level;

fn position(topic: &str, partition: u32, next_offset: i64) -> CommitPosition {
    CommitPosition { partition, ..one_commit("", topic, next_offset).positions.remove(0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_survives_a_crash_and_says_how_far_behind_it_is() {
    let house = House::new();
    house.put("t", &["a", "b", "c"]).await;
    let commit = Commit {
        positions: vec![CommitPosition {
            metadata: "note".into(),
            leader_epoch: Some(1),
            ..position("t", 0, 1)
        }],
        ..one_commit("g", "t", 1)
    };
    house.broker.commit_offsets(commit).await.unwrap();
    house.clock.advance(Duration::from_millis(1500));
    let check = |offsets: Vec<super::super::CommittedOffset>, now: i64| {
        assert_eq!(offsets.len(), 1);
        let one = &offsets[0];
        assert_eq!((&*one.topic, one.partition, one.next_offset), ("t", 0, 1));
        assert_eq!((one.lag_records, one.lag_ms), (2, now));
        assert_eq!((one.metadata.as_str(), one.leader_epoch), ("note", 1));
        assert_eq!(one.commit_time_ms, 1_700_000_000_000);
    };
    check(house.broker.get_offsets("g", &[]).await.unwrap(), 1500);
    let after = house.crashed();
    after.clock.advance(Duration::from_secs(2));
    check(after.broker.get_offsets("g", &["t".into()]).await.unwrap(), 2000);
    after.commit_at("g", "t", 3).await.unwrap();
    let caught_up = after.broker.get_offsets("g", &[]).await.unwrap();
    assert_eq!((caught_up[0].lag_records, caught_up[0].lag_ms), (0, 0));
    assert_eq!(after.broker.get_offsets("nobody", &[]).await.unwrap(), []);
    let error = after.broker.get_offsets("g", &["tt".into()]).await.unwrap_err();
    assert_eq!(error.reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_allowed_changes_nothing() {
    let house = House::new();
    house.put("t", &["a", "b", "c"]).await;
    house.commit_at("g", "t", 2).await.unwrap();
    let with = |change: &dyn Fn(&mut CommitPosition)| {
        let mut commit = one_commit("g", "t", 3);
        change(&mut commit.positions[0]);
        // All or none: this one would be fine.
        commit.positions.push(position("t", 1, 0));
        commit
    };
    let cases: Vec<(Commit, &str)> = vec![
        (with(&|one| one.next_offset = 4), "OFFSET_AHEAD"),
        (with(&|one| one.next_offset = 1), "EXPECTED_OFFSET_MISMATCH"),
        (with(&|one| one.next_offset = -1), "MALFORMED"),
        (with(&|one| one.expected_offset = Some(1)), "EXPECTED_OFFSET_MISMATCH"),
        (with(&|one| one.topic_id = Some(annals_wire::ids::TopicId([9; 16]))), "TOPIC_REPLACED"),
        (with(&|one| one.topic = "other".into()), "TOPIC_NOT_FOUND"),
        (with(&|one| one.partition = 4), "PARTITION_UNKNOWN"),
        (with(&|one| one.partition = 1), "MALFORMED"),
        (with(&|one| one.metadata = "x".repeat(1025)), "MALFORMED"),
        (Commit { positions: vec![], ..one_commit("g", "t", 3) }, "MALFORMED"),
        (one_commit("no/name", "t", 3), "INVALID_NAME"),
    ];
    for (commit, reason) in cases {
        let error = house.broker.commit_offsets(commit).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
    }
    let offsets = house.broker.get_offsets("g", &[]).await.unwrap();
    assert_eq!(offsets.iter().map(|one| (one.partition, one.next_offset)).collect::<Vec<_>>(), [(0, 2)]);
    let backwards = Commit { allow_backwards: true, ..one_commit("g", "t", 1) };
    house.broker.commit_offsets(backwards).await.unwrap();
    assert_eq!(house.broker.get_offsets("g", &[]).await.unwrap()[0].next_offset, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_expect_the_same_position_are_kept_apart() {
    let house = House::new();
    house.put("t", &["a", "b", "c", "d"]).await;
    for from in 0..4 {
        let racers: Vec<_> = (0..4)
            .map(|_| {
                let broker = Arc::clone(&house.broker);
                let mut commit = one_commit("g", "t", from + 1);
                commit.positions[0].expected_offset = Some(from);
                tokio::spawn(async move { broker.commit_offsets(commit).await })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(()) => won += 1,
                Err(Error::ExpectedOffsetMismatch { actual, .. }) => assert_eq!(actual, from + 1),
                Err(other) => panic!("{other}"),
            }
        }
        // Before the first commit there is nothing to expect: all of them may make it, with the same value.
        assert!(won == 1 || from == 0, "{won} won at {from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commit_again_costs_nothing() {
    let house = House::new();
    house.put("t", &["a"]).await;
    house.commit_at("g", "t", 1).await.unwrap();
    let before = house.broker.storage.last_number();
    house.commit_at("g", "t", 1).await.unwrap();
    assert_eq!(house.broker.storage.last_number(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_starts_without_commits() {
    let house = House::new();
    house.put("t", &["a", "b"]).await;
    house.put("keep", &["a"]).await;
    house.commit_at("g", "t", 2).await.unwrap();
    house.commit_at("g", "keep", 1).await.unwrap();
    let old = house.broker.get_topic("t").await.unwrap().topic_id;
    house.broker.delete_topic("t", Some(old)).await.unwrap();
    house.put("t", &["new"]).await;
    for house in [&house, &house.crashed()] {
        let offsets = house.broker.get_offsets("g", &[]).await.unwrap();
        assert_eq!(offsets.iter().map(|one| &*one.topic).collect::<Vec<_>>(), ["keep"]);
        assert_eq!(house.broker.get_group("g").await.unwrap().committed_partitions, 1, "the others are gone");
        let fetched = house.fetch(vec![at("t", 0, Start::CommittedBy("g".into()))]).await.unwrap();
        assert_eq!(values(&fetched.slices[0]), numbered(0, &["new"]));
        let mut late = one_commit("g", "t", 1);
        late.positions[0].topic_id = Some(old);
        assert_eq!(house.broker.commit_offsets(late).await.unwrap_err().reason(), "TOPIC_REPLACED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_described_and_deleted() {
    let house = House::new();
    house.put("b", &["x"]).await;
    house.put("a", &["x"]).await;
    for group in ["billing", "mail", "audit"] {
        house.commit_at(group, "b", 1).await.unwrap();
    }
    house.commit_at("mail", "a", 0).await.unwrap();
    let page = PageRequest { page_size: 2, ..PageRequest::default() };
    let first = house.broker.list_groups(page.clone()).await.unwrap();
    assert_eq!(first.items.iter().map(|group| &*group.name).collect::<Vec<_>>(), ["audit", "billing"]);
    let second = PageRequest { page_token: first.next_page_token, ..page };
    let second = house.broker.list_groups(second).await.unwrap();
    assert_eq!(second.items.iter().map(|group| &*group.name).collect::<Vec<_>>(), ["mail"]);
    assert_eq!(second.next_page_token, "");
    let mail = house.broker.get_group("mail").await.unwrap();
    assert_eq!(mail.topics.iter().map(|topic| &**topic).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((mail.committed_partitions, mail.last_commit_ms), (2, 1_700_000_000_000));
    let error = house.broker.get_group("mial").await.unwrap_err();
    assert_eq!(error, Error::GroupNotFound { group: "mial".into(), did_you_mean: Some("mail".into()) });
    house.broker.delete_group("mail").await.unwrap();
    assert_eq!(house.broker.delete_group("mail").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
    assert_eq!(house.crashed().broker.list_groups(PageRequest::default()).await.unwrap().items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_groups_and_positions() {
    let mut config = config();
    config.limits.max_groups = 2;
    config.limits.max_committed = 3;
    let house = House::with(MemoryDisk::new(), config, true);
    house.put("t", &["x"]).await;
    house.commit_at("a", "t", 0).await.unwrap();
    house.commit_at("b", "t", 0).await.unwrap();
    assert_eq!(
        house.commit_at("c", "t", 0).await.unwrap_err(),
        Error::LimitReached { what: "groups", limit: 2 }
    );
    let mut three = one_commit("a", "t", 0);
    three.positions.extend([position("t", 1, 0), position("t", 2, 0)]);
    let error = house.broker.commit_offsets(three).await.unwrap_err();
    assert_eq!(error, Error::LimitReached { what: "committed positions", limit: 3 });
    house.commit_at("a", "t", 1).await.unwrap();
}

/// A copy of the disk in which nothing written after a moment exists is a power cut for an `os` topic: here its bytes are
/// lost while the commit was flushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_lost_epoch_is_told_where_the_logs_part() {
    let house = House::new();
    let os = TopicSettings { level: Some(Level::Os), partitions: Some(1), ..TopicSettings::default() };
    house.broker.create_topic(&Principal::anonymous(), "t", os, "").await.unwrap();
    house.put("t", &["a", "b"]).await;
    let epoch = house.broker.get_topic("t").await.unwrap().partitions[0].leader_epoch;
    let after = house.crashed();
    after.put("t", &["c"]).await;
    let lane = Arc::clone(&after.broker.catalog.get("t").unwrap().lanes[0]);
    let end = lane.partition.epoch_end(epoch);
    assert_eq!(end, 2, "the first epoch ended where the second began");
    let stale = Position { last_epoch: Some(epoch), ..at("t", 0, Start::Offset(3)) };
    let error = after.fetch(vec![stale]).await.unwrap_err();
    assert_eq!(error, Error::LogTruncated { topic: "t".into(), partition: 0, requested: 3, diverging: 2 });
    let good = Position { last_epoch: Some(epoch), ..at("t", 0, Start::Offset(2)) };
    assert_eq!(values(&after.fetch(vec![good]).await.unwrap().slices[0]), numbered(2, &["c"]));
    let mut commit = one_commit("g", "t", 3);
    commit.positions[0].leader_epoch = Some(epoch);
    assert_eq!(after.broker.commit_offsets(commit).await.unwrap_err().reason(), "LOG_TRUNCATED");
}
