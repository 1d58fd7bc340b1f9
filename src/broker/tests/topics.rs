//! Topics: make, change, delete, list.

use super::super::TopicInfo;
use super::*;
use crate::storage::Level;

async fn create(house: &House, name: &str, settings: TopicSettings, id: &str) -> Result<TopicInfo, Error> {
    house.broker.create_topic(&Principal::anonymous(), name, settings, id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn making_a_topic_again_is_fine_if_it_is_the_same() {
    let house = House::new();
    let asked =
        TopicSettings { partitions: Some(3), level: Some(Level::Interval), ..TopicSettings::default() };
    let made = create(&house, "t", asked.clone(), "").await.unwrap();
    assert_eq!((made.partitions.len(), made.level, made.segment_bytes), (3, Level::Interval, 1 << 20));
    assert_eq!(made.created_ms, 1_700_000_000_000);
    assert_eq!(create(&house, "t", asked, "").await.unwrap(), made);
    assert_eq!(
        create(&house, "t", TopicSettings::default(), "").await.unwrap(),
        made,
        "asks for nothing else"
    );
    let other = TopicSettings { partitions: Some(4), ..TopicSettings::default() };
    let error = create(&house, "t", other, "").await.unwrap_err();
    assert_eq!(error, Error::TopicExists { topic: "t".into(), differs: "partitions is 3, not 4".into() });
    assert_eq!(house.crashed().broker.get_topic("t").await.unwrap().topic_id, made.topic_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_a_topic_once_even_if_it_is_gone() {
    let house = House::new();
    let made = create(&house, "t", TopicSettings::default(), "id").await.unwrap();
    house.broker.delete_topic("t", Some(made.topic_id)).await.unwrap();
    for house in [&house, &house.crashed()] {
        let again = create(house, "t", TopicSettings::default(), "id").await.unwrap();
        assert_eq!((again.topic_id, again.partitions.len()), (made.topic_id, 4), "the first answer");
        assert_eq!(
            house.broker.get_topic("t").await.unwrap_err().reason(),
            "TOPIC_NOT_FOUND",
            "nothing was made"
        );
        let other = TopicSettings { partitions: Some(2), ..TopicSettings::default() };
        assert_eq!(create(house, "t", other, "id").await.unwrap_err().reason(), "REQUEST_ID_REUSED");
        let produce = ProduceRequest { request_id: "id".into(), ..to("t", 0, &["v"]) };
        assert_eq!(house.produce(produce).await.unwrap_err().reason(), "REQUEST_ID_REUSED");
    }
    assert_ne!(create(&house, "t", TopicSettings::default(), "id-2").await.unwrap().topic_id, made.topic_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_on_a_topic_that_is_there_already_is_kept_too() {
    let house = House::new();
    let made = create(&house, "t", TopicSettings::default(), "").await.unwrap();
    assert_eq!(create(&house, "t", TopicSettings::default(), "id").await.unwrap().topic_id, made.topic_id);
    house.broker.delete_topic("t", None).await.unwrap();
    assert_eq!(create(&house, "t", TopicSettings::default(), "id").await.unwrap().topic_id, made.topic_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_out_of_range_are_refused() {
    let house = House::new();
    let none = TopicSettings::default;
    for (settings, field) in [
        (TopicSettings { partitions: Some(0), ..none() }, "partitions"),
        (TopicSettings { partitions: Some(1025), ..none() }, "partitions"),
        (TopicSettings { segment_bytes: Some(1), ..none() }, "segment_bytes"),
        (TopicSettings { segment_bytes: Some(1 << 40), ..none() }, "segment_bytes"),
        (TopicSettings { interval_ms: Some(0), ..none() }, "interval_ms"),
        (TopicSettings { interval_bytes: Some(1), ..none() }, "interval_bytes"),
    ] {
        let error = create(&house, "t", settings, "").await.unwrap_err();
        assert!(matches!(&error, Error::InvalidArgument { field: found, .. } if found == field), "{error}");
    }
    for name in ["", ".", "a b", "__x", &"x".repeat(250)] {
        assert_eq!(create(&house, name, none(), "").await.unwrap_err().reason(), "INVALID_NAME");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_grow_and_never_shrink() {
    let house = House::new();
    house.put("t", &["a"]).await;
    let partitions = |count| TopicSettings { partitions: Some(count), ..TopicSettings::default() };
    let grown = house.broker.update_topic("t", partitions(6)).await.unwrap();
    assert_eq!((grown.partitions.len(), grown.partitions[0].high_watermark), (6, 1));
    let error = house.broker.update_topic("t", partitions(5)).await.unwrap_err();
    assert_eq!(error.reason(), "MALFORMED");
    house.produce(to("t", 5, &["new"])).await.unwrap();
    let level = TopicSettings { level: Some(Level::Os), ..TopicSettings::default() };
    assert_eq!(house.broker.update_topic("t", level).await.unwrap().level, Level::Os);
    let after = house.crashed();
    let info = after.broker.get_topic("t").await.unwrap();
    assert_eq!((info.partitions.len(), info.level, info.partitions[5].high_watermark), (6, Level::Os, 1));
    assert_eq!(after.broker.update_topic("x", partitions(9)).await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_topics_and_partitions() {
    let mut config = config();
    config.limits.max_topics = 2;
    config.limits.max_partitions = 7;
    let house = House::with(MemoryDisk::new(), config, true);
    house.topic("a", 4).await;
    let error = house.produce(to("b", 0, &["v"])).await.unwrap_err();
    assert_eq!(error, Error::LimitReached { what: "partitions of all topics", limit: 7 });
    house.topic("b", 1).await;
    let partitions = |count| TopicSettings { partitions: Some(count), ..TopicSettings::default() };
    assert_eq!(house.broker.update_topic("b", partitions(4)).await.unwrap_err().reason(), "LIMIT_REACHED");
    let error = create(&house, "c", partitions(1), "").await.unwrap_err();
    assert_eq!(error, Error::LimitReached { what: "topics", limit: 2 });
    house.broker.delete_topic("a", None).await.unwrap();
    create(&house, "c", partitions(4), "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_means_the_one_that_is_meant() {
    let house = House::new();
    house.put("t", &["old"]).await;
    let old = house.broker.get_topic("t").await.unwrap().topic_id;
    house.broker.delete_topic("t", None).await.unwrap();
    assert_eq!(house.broker.delete_topic("t", None).await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
    assert_eq!(house.put("t", &["new"]).await, 0, "a new topic begins at 0");
    let error = house.broker.delete_topic("t", Some(old)).await.unwrap_err();
    assert_eq!(error.reason(), "TOPIC_REPLACED");
    assert_eq!(house.crashed().values("t", 0).await, numbered(0, &["new"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_in_order_by_page_and_prefix() {
    let house = House::new();
    for name in ["b1", "a2", "b2", "a1", "c"] {
        house.topic(name, 1).await;
    }
    let mut names = Vec::new();
    let mut page = PageRequest { page_size: 2, ..PageRequest::default() };
    loop {
        let found = house.broker.list_topics(page.clone()).await.unwrap();
        assert!(found.items.len() <= 2);
        names.extend(found.items.iter().map(|topic| topic.name.to_string()));
        if found.next_page_token.is_empty() {
            break;
        }
        page.page_token = found.next_page_token;
    }
    assert_eq!(names, ["a1", "a2", "b1", "b2", "c"]);
    let prefixed = |token: &str| PageRequest { prefix: "b".into(), page_token: token.into(), page_size: 1 };
    let first = house.broker.list_topics(prefixed("")).await.unwrap();
    assert_eq!((&*first.items[0].name, first.next_page_token.as_str()), ("b1", "b1"));
    let second = house.broker.list_topics(prefixed("b1")).await.unwrap();
    assert_eq!((&*second.items[0].name, second.next_page_token.as_str()), ("b2", ""));
    let leaders = house.broker.metadata(&[]).await.unwrap();
    assert_eq!(leaders.iter().map(|one| &*one.topic).collect::<Vec<_>>(), ["a1", "a2", "b1", "b2", "c"]);
    assert_eq!(house.broker.metadata(&["x".into()]).await.unwrap_err().reason(), "TOPIC_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_broker_says_so() {
    let house = House::new();
    assert_eq!(house.broker.health(), super::super::Health::Serving);
    house.broker.drain(Duration::ZERO);
    assert_eq!(house.broker.health(), super::super::Health::Draining);
}
