//! Shadow groups: what they are sent, what they leave alone, and how they end.

use super::{
    super::{Filter, MemberEvent, Shadow, ShadowRange},
    members::joins,
    steps::{plain, step},
    *,
};

fn range(partition: u32, from: i64, to: i64) -> ShadowRange {
    ShadowRange { topic: "in".into(), partition, from, to }
}

fn shadow(ranges: Vec<ShadowRange>) -> Shadow {
    Shadow { group: "again".into(), ranges, filter: None, ttl_ms: 60_000, allow_outputs: false }
}

/// Ten records in partition 0, in batches of four, four and two; three in partition 1. A group stands at 9.
async fn house() -> House {
    let house = House::new();
    for values in [&["0", "1", "2", "3"][..], &["4", "5", "6", "7"], &["8", "9"]] {
        house.put("in", values).await;
    }
    house.produce(to("in", 1, &["a", "b", "c"])).await.unwrap();
    house.commit_at("live", "in", 9).await.unwrap();
    house
}

/// What members of the group are sent until it has all of both partitions.
async fn served(house: &House) -> Vec<(u32, i64, String)> {
    let mut member = house.member(joins("again", "one", &["in"])).await;
    let (mut sent, mut ended) = (Vec::new(), 0);
    while ended < 2 {
        match member.next().await {
            MemberEvent::Slice(slice) => {
                let found =
                    values(&slice).into_iter().map(|(offset, value)| (slice.partition, offset, value));
                sent.extend(found);
            }
            MemberEvent::CaughtUp { partition: 0 | 1, .. } => ended += 1,
            _ => {}
        }
    }
    sent.sort();
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn its_members_are_sent_its_range_and_groups_at_work_notice_nothing() {
    let house = house().await;
    let before = house.broker.get_offsets("live", &[]).await.unwrap();
    let group = house.broker.create_shadow_group(shadow(vec![range(1, 0, 2), range(0, 2, 6)])).await.unwrap();
    assert!(group.settings.shadow);
    // It is all there after a crash, or not at all.
    let house = house.crashed();
    let expected = [(0, 2, "2"), (0, 3, "3"), (0, 4, "4"), (0, 5, "5"), (1, 0, "a"), (1, 1, "b")];
    let expected = expected.map(|(partition, offset, value)| (partition, offset, value.to_owned()));
    assert_eq!(served(&house).await, expected);
    let after = house.broker.get_offsets("live", &[]).await.unwrap();
    let stands = |offsets: &[super::super::CommittedOffset]| {
        offsets.iter().map(|one| (one.partition, one.next_offset)).collect::<Vec<_>>()
    };
    assert_eq!(stands(&before), stands(&after));
    assert_eq!(house.broker.get_group("live").await.unwrap().member_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_filter_holds_within_its_range() {
    let house = house().await;
    let records = ["x", "y", "x", "y", "x"].map(|key| record(Some(key), key));
    house.produce(ProduceRequest { records: records.into(), ..to("in", 0, &[]) }).await.unwrap();
    let filter = Filter::new(v1::Filter { key: Some("x".into()), ..Default::default() }).unwrap();
    let call = Shadow { filter: Some(Arc::new(filter)), ..shadow(vec![range(0, 8, 14), range(1, 0, 3)]) };
    house.broker.create_shadow_group(call).await.unwrap();
    assert_eq!(served(&house).await, [10, 12].map(|offset| (0, offset, "x".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_outputs_are_refused_unless_allowed() {
    let house = house().await;
    let of = |mut step: crate::broker::Step| {
        step.commit.as_mut().unwrap().group = "again".into();
        step
    };
    for (allow_outputs, group) in [(false, "again"), (true, "again")] {
        house
            .broker
            .create_shadow_group(Shadow { allow_outputs, ..shadow(vec![range(0, 2, 6)]) })
            .await
            .unwrap();
        let id = format!("with outputs {allow_outputs}");
        let with =
            house.broker.append_and_commit(of(step(&id, Some((2, 4)), vec![plain("out", 0, &["x"])]))).await;
        if allow_outputs {
            with.unwrap();
        } else {
            assert_eq!(with.unwrap_err().reason(), "SHADOW_GROUP");
            let nothing = house.fetch(vec![at("out", 0, Start::Earliest)]).await.unwrap_err();
            assert_eq!(nothing.reason(), "TOPIC_NOT_FOUND", "nothing was stored");
        }
        let from = if allow_outputs { 4 } else { 2 };
        let id = format!("without {allow_outputs}");
        house.broker.append_and_commit(of(step(&id, Some((from, 6)), vec![]))).await.unwrap();
        house.broker.delete_group(group).await.unwrap();
    }
    assert_eq!(house.values("out", 0).await, numbered(0, &["x"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_gone_when_nobody_has_committed_for_its_time_to_live() {
    let house = house().await;
    house.broker.create_shadow_group(shadow(vec![range(0, 2, 6)])).await.unwrap();
    house.clock.advance(Duration::from_secs(59));
    house.broker.tend_groups();
    house.commit_at("again", "in", 4).await.unwrap();
    house.clock.advance(Duration::from_secs(59));
    house.broker.tend_groups();
    assert_eq!(house.broker.get_group("again").await.unwrap().committed_partitions, 1);
    house.clock.advance(Duration::from_secs(1));
    house.broker.tend_groups();
    assert_eq!(house.broker.get_group("again").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
    assert_eq!(house.crashed().broker.get_group("again").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
    assert!(house.broker.get_group("live").await.is_ok(), "others live for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_and_makes_nothing() {
    let house = house().await;
    for (call, reason) in [
        (shadow(vec![]), "MALFORMED"),
        (shadow(vec![range(0, 3, 2)]), "MALFORMED"),
        (shadow(vec![range(0, 0, 1), range(0, 2, 3)]), "MALFORMED"),
        (shadow(vec![range(0, 0, 11)]), "OFFSET_AHEAD"),
        (shadow(vec![range(0, -1, 3)]), "OFFSET_TRUNCATED"),
        (shadow(vec![range(9, 0, 1)]), "PARTITION_UNKNOWN"),
        (Shadow { ttl_ms: 10, ..shadow(vec![range(0, 0, 1)]) }, "MALFORMED"),
        (Shadow { group: "live".into(), ..shadow(vec![range(0, 0, 1)]) }, "GROUP_EXISTS"),
        (Shadow { group: "a b".into(), ..shadow(vec![range(0, 0, 1)]) }, "INVALID_NAME"),
    ] {
        assert_eq!(house.broker.create_shadow_group(call).await.unwrap_err().reason(), reason);
    }
    assert_eq!(house.broker.get_group("again").await.unwrap_err().reason(), "GROUP_NOT_FOUND");
}
