//! Settings of groups.

use super::{super::GroupChange, *};

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
