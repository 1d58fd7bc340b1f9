//! Settings of groups, and steps that their members do.

use annals_wire::v1::Filter as FilterMessage;

use super::{
    super::{Filter, GroupChange, Join},
    members::{joins, place},
    steps::{plain, step},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn groups_have_settings_within_bounds() {
    let house = House::new();
    let fast = GroupChange {
        heartbeat_interval_ms: Some(500),
        session_timeout_ms: Some(1_500),
        revoke_timeout_ms: Some(1_000),
        ..GroupChange::default()
    };
    let made = house.broker.create_group("g", fast.clone()).await.unwrap();
    assert_eq!(made.settings.session_timeout_ms, 1_500);
    house.broker.create_group("g", fast).await.unwrap();
    let error = house.broker.create_group("g", GroupChange::default()).await.unwrap_err();
    assert_eq!(error.reason(), "GROUP_EXISTS");
    assert!(error.to_string().contains("heartbeat_interval_ms is 500, not 3000"), "{error}");
    for (field, wrong) in [
        ("heartbeat", GroupChange { heartbeat_interval_ms: Some(499), ..GroupChange::default() }),
        ("session", GroupChange { session_timeout_ms: Some(1_499), ..GroupChange::default() }),
        ("session", GroupChange { heartbeat_interval_ms: Some(800), ..GroupChange::default() }),
        ("revoke", GroupChange { revoke_timeout_ms: Some(999), ..GroupChange::default() }),
    ] {
        let error = house.broker.update_group("g", wrong).await.unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    let slower = GroupChange { session_timeout_ms: Some(2_000), ..GroupChange::default() };
    assert_eq!(house.broker.update_group("g", slower).await.unwrap().settings.session_timeout_ms, 2_000);
    assert_eq!(
        house.broker.update_group("h", GroupChange::default()).await.unwrap_err().reason(),
        "GROUP_NOT_FOUND"
    );
    let settings = house.crashed().broker.get_group("g").await.unwrap().settings;
    assert_eq!((settings.heartbeat_interval_ms, settings.session_timeout_ms), (500, 2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_member_needs_its_assignment_and_a_zombies_changes_nothing() {
    let house = House::new();
    house.topic("in", 1).await;
    house.put("in", &["0", "1", "2", "3"]).await;
    let mut one = house.member(joins("g", "one", &["in"])).await;
    one.assigned().await;
    let epoch = one.owned[&place("in", 0)];
    let of_member = |id: &str, to, assignment_epoch| {
        let mut made = step(id, Some((0, to)), vec![plain("out", 0, &[id])]);
        let commit = made.commit.as_mut().unwrap();
        commit.member_id = one.id.to_string();
        commit.positions[0].expected_offset = None;
        commit.positions[0].assignment_epoch = assignment_epoch;
        made
    };
    let stranger = step("stranger", Some((0, 2)), vec![plain("out", 0, &["stranger"])]);
    let error = house.broker.append_and_commit(stranger).await.unwrap_err();
    assert_eq!(error.reason(), "GROUP_HAS_MEMBERS");
    house.broker.append_and_commit(of_member("a", 2, epoch)).await.unwrap();
    // It comes back; what its former self still does is told apart, but what that did is known.
    let mut again = house.member(joins("g", "two", &["in"])).await;
    house.pass(10_200, &[&again]);
    again.assigned().await;
    let error = house.broker.append_and_commit(of_member("b", 3, epoch)).await.unwrap_err();
    assert_eq!(error.reason(), "FENCED");
    assert!(house.broker.append_and_commit(of_member("a", 2, epoch)).await.unwrap().duplicate);
    assert_eq!(house.values("out", 0).await, numbered(0, &["a"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_groups_filter_is_its_first_members_and_holds_for_all() {
    let house = House::new();
    house.topic("t", 1).await;
    let keyed = |key, value| ProduceRequest { records: vec![record(Some(key), value)], ..to("t", 0, &[]) };
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        house.produce(keyed(key, value)).await.unwrap();
    }
    let only = |key: &str| {
        let key = Some(Bytes::copy_from_slice(key.as_bytes()));
        Some(Arc::new(Filter::new(FilterMessage { key, ..FilterMessage::default() }).unwrap()))
    };
    let join = |name: &str, filter| Join { filter, ..joins("g", name, &["t"]) };
    let mut one = house.member(join("one", only("a"))).await;
    one.assigned().await;
    let mut read = Vec::new();
    while read.len() < 2 {
        read.extend(values(&one.slice().await));
    }
    assert_eq!(read, [(0, "1".to_owned()), (2, "3".to_owned())]);
    let error = house.broker.join(join("two", only("b"))).await.map(drop).unwrap_err();
    assert!(error.to_string().starts_with("join.filter"), "{error}");
    let error = house.broker.update_group("g", GroupChange { filter: only("b"), ..GroupChange::default() });
    assert!(error.await.unwrap_err().to_string().contains("cannot be changed"));
    house.member(join("two", only("a"))).await;
    house.member(join("three", None)).await;
    let settings = house.crashed().broker.get_group("g").await.unwrap().settings;
    assert!(!settings.filter.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn shorter_timeouts_hold_for_who_was_told_of_them() {
    let house = House::new();
    house.topic("t", 1).await;
    let mut one = house.member(joins("g", "one", &["t"])).await;
    one.assigned().await;
    let fast = GroupChange {
        heartbeat_interval_ms: Some(500),
        session_timeout_ms: Some(1_500),
        ..GroupChange::default()
    };
    house.broker.update_group("g", fast).await.unwrap();
    house.pass(5_000, &[]);
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 1, "it speaks each three seconds");
    let mut two = house.member(joins("h", "two", &["t"])).await;
    two.assigned().await;
    house.pass(5_200, &[&two]);
    assert_eq!(house.broker.get_group("g").await.unwrap().member_count, 0);
}
