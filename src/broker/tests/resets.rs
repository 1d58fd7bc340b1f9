//! Moving groups: a dry run says exactly what the real one does.

use annals_wire::internal::{GroupMember, GroupMoved, state_entry::Body};

use super::{
    super::{OffsetMove, Reset, ResetTo},
    *,
};

fn reset(to: ResetTo) -> Reset {
    Reset { group: "g".into(), topic: "t".into(), partitions: vec![], to, dry_run: false }
}

fn moved(partition: u32, from: Option<i64>, to: i64, reread: i64, skipped: i64) -> OffsetMove {
    OffsetMove {
        partition,
        from_offset: from,
        to_offset: to,
        records_reread: reread,
        records_skipped: skipped,
        leader_epoch: 1,
    }
}

/// Ten records in partition 0, at times 0, 100, ... 900; three in partition 1; the group stands at 4 in partition 0.
async fn house() -> House {
    let house = House::new();
    house.topic("t", 2).await;
    let timed = |n: i64| Record { timestamp_ms: Some(1000 + n * 100), ..record(None, "x") };
    house.produce(ProduceRequest { records: (0..10).map(timed).collect(), ..to("t", 0, &[]) }).await.unwrap();
    house.produce(ProduceRequest { records: (0..3).map(timed).collect(), ..to("t", 1, &[]) }).await.unwrap();
    house.commit_at("g", "t", 4).await.unwrap();
    house
}

async fn stands(house: &House) -> Vec<(u32, i64)> {
    let offsets = house.broker.get_offsets("g", &[]).await.unwrap();
    offsets.iter().map(|one| (one.partition, one.next_offset)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_means_the_same_dry_and_real() {
    let cases = [
        (ResetTo::Earliest, [moved(0, Some(4), 0, 4, 0), moved(1, None, 0, 0, 0)]),
        (ResetTo::Latest, [moved(0, Some(4), 10, 0, 6), moved(1, None, 3, 0, 3)]),
        (ResetTo::Offset(2), [moved(0, Some(4), 2, 2, 0), moved(1, None, 2, 0, 2)]),
        (ResetTo::Offset(7), [moved(0, Some(4), 7, 0, 3), moved(1, None, 3, 0, 3)]),
        (ResetTo::LastRecords(5), [moved(0, Some(4), 5, 0, 1), moved(1, None, 0, 0, 0)]),
        (ResetTo::Shift(-3), [moved(0, Some(4), 1, 3, 0), moved(1, None, 0, 0, 0)]),
        (ResetTo::Shift(2), [moved(0, Some(4), 6, 0, 2), moved(1, None, 2, 0, 2)]),
        (ResetTo::Shift(i64::MAX), [moved(0, Some(4), 10, 0, 6), moved(1, None, 3, 0, 3)]),
        (ResetTo::Timestamp(1150), [moved(0, Some(4), 2, 2, 0), moved(1, None, 2, 0, 2)]),
        (ResetTo::Timestamp(1250), [moved(0, Some(4), 3, 1, 0), moved(1, None, 3, 0, 3)]),
        (ResetTo::Timestamp(i64::MAX), [moved(0, Some(4), 10, 0, 6), moved(1, None, 3, 0, 3)]),
    ];
    for (to, expected) in cases {
        let house = house().await;
        let dry = house.broker.reset_offsets(Reset { dry_run: true, ..reset(to) }).await.unwrap();
        assert_eq!(dry, expected, "{to:?}");
        assert_eq!(stands(&house).await, [(0, 4)], "a dry run changes nothing");
        let real = house.broker.reset_offsets(reset(to)).await.unwrap();
        assert_eq!(real, expected, "{to:?}");
        // It is on disk.
        let house = house.crashed();
        let now: Vec<_> = expected.iter().map(|one| (one.partition, one.to_offset)).collect();
        assert_eq!(stands(&house).await, now, "{to:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_partitions_asked_for_move_and_a_new_group_is_made() {
    let house = house().await;
    let one = Reset { partitions: vec![1, 1], ..reset(ResetTo::Latest) };
    assert_eq!(house.broker.reset_offsets(one).await.unwrap(), [moved(1, None, 3, 0, 3)]);
    assert_eq!(stands(&house).await, [(0, 4), (1, 3)]);
    let new = Reset { group: "new".into(), ..reset(ResetTo::Earliest) };
    house.broker.reset_offsets(Reset { dry_run: true, ..new.clone() }).await.unwrap();
    assert_eq!(house.broker.get_group("new").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
    house.broker.reset_offsets(new).await.unwrap();
    assert_eq!(house.broker.get_group("new").await.unwrap().committed_partitions, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_dry_or_real() {
    let house = house().await;
    let nowhere = Reset { topic: "tt".into(), ..reset(ResetTo::Latest) };
    let beyond = Reset { partitions: vec![0, 2], ..reset(ResetTo::Latest) };
    let nameless = Reset { group: String::new(), ..reset(ResetTo::Latest) };
    for (call, reason) in [
        (nowhere, "TOPIC_NOT_FOUND"),
        (beyond, "PARTITION_UNKNOWN"),
        (nameless, "INVALID_NAME"),
        (reset(ResetTo::Offset(-1)), "MALFORMED"),
    ] {
        for dry_run in [true, false] {
            let error = house.broker.reset_offsets(Reset { dry_run, ..call.clone() }).await.unwrap_err();
            assert_eq!(error.reason(), reason);
        }
    }
    assert_eq!(stands(&house).await, [(0, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_live_members_is_not_moved_behind_their_backs() {
    let house = house().await;
    let member = GroupMember { member_id: "m".into(), topics: vec!["t".into()], ..Default::default() };
    let joined = GroupMoved { group: "g".into(), joined: vec![member], ..Default::default() };
    let left = GroupMoved { group: "g".into(), left: vec!["m".into()], ..Default::default() };
    let apply = |entry| {
        let mut groups = house.broker.truth.groups.lock();
        let number = groups.number() + 1;
        groups.apply(number, &Body::GroupMoved(entry));
    };
    apply(joined);
    for dry_run in [true, false] {
        let error =
            house.broker.reset_offsets(Reset { dry_run, ..reset(ResetTo::Earliest) }).await.unwrap_err();
        assert!(error.to_string().contains("stop them first"), "{error}");
        assert_eq!(error.reason(), "GROUP_HAS_MEMBERS");
    }
    apply(left);
    assert_eq!(house.broker.reset_offsets(reset(ResetTo::Earliest)).await.unwrap()[0].to_offset, 0);
}
