//! What each call does when all is well.

use annals_wire::v1::{self, fetch_position::Start};

use crate::support::{fetch, position, produce, record, records, site};

#[tokio::test]
async fn records_are_stored_read_committed_and_read_on() {
    let site = site().await;
    assert_eq!(site.store("orders", &["a", "b", "c", "d"]).await, 0);
    assert_eq!(site.store("orders", &["e"]).await, 4);
    // From the middle of the first batch.
    let answer = site.consumer().fetch(fetch("orders", 2)).await.unwrap().into_inner();
    let slice = &answer.slices[0];
    assert_eq!(records(slice), [(2, "c".into()), (3, "d".into()), (4, "e".into())]);
    assert_eq!(
        (slice.start_offset, slice.next_offset, slice.high_watermark, slice.log_start_offset),
        (2, 5, 5, 0)
    );
    assert_eq!(slice.topic_id.len(), 16);
    let commit = v1::CommitOffsetsRequest {
        group: "billing".into(),
        offsets: vec![v1::CommitPosition {
            topic: "orders".into(),
            next_offset: 3,
            expected_offset: Some(0),
            leader_epoch: Some(slice.leader_epoch),
            topic_id: slice.topic_id.clone(),
            metadata: "note".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    site.offsets().commit_offsets(commit).await.unwrap();
    let asked = v1::GetOffsetsRequest { group: "billing".into(), topics: vec![] };
    let offsets = site.offsets().get_offsets(asked).await.unwrap().into_inner().offsets;
    assert_eq!(offsets.len(), 1);
    assert_eq!(
        (offsets[0].next_offset, offsets[0].lag_records, offsets[0].metadata.as_str()),
        (3, 2, "note")
    );
    let on = v1::FetchPosition {
        topic: "orders".into(),
        partition: Some(0),
        start: Some(Start::CommittedBy("billing".into())),
        ..Default::default()
    };
    let answer =
        site.consumer().fetch(v1::FetchRequest { positions: vec![on], ..Default::default() }).await.unwrap();
    assert_eq!(records(&answer.into_inner().slices[0])[0], (3, "d".into()));
    let group = site.groups().get_group(v1::GetGroupRequest { group: "billing".into() }).await.unwrap();
    assert_eq!(group.into_inner().group.unwrap().topics, ["orders"]);
    site.groups().delete_group(v1::DeleteGroupRequest { group: "billing".into() }).await.unwrap();
    let groups = site.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner();
    assert!(groups.groups.is_empty());
}

#[tokio::test]
async fn keyed_records_go_where_their_keys_belong_and_say_so() {
    let site = site().await;
    let keyed = |key: &'static str| v1::Record { key: Some(key.into()), ..record(key) };
    let keys = ["a", "b", "c", "d", "e", "f"];
    let request = v1::ProduceRequest {
        topic: "keyed".into(),
        records: keys.iter().map(|key| keyed(key)).collect(),
        ..Default::default()
    };
    let answer = site.producer().produce(request).await.unwrap().into_inner();
    assert!(answer.appends.len() > 1, "six keys, eight partitions");
    let mut seen = 0;
    for append in &answer.appends {
        assert_eq!(append.durability(), v1::Durability::Fsync);
        let start =
            v1::FetchPosition { partition: Some(append.partition), ..position("keyed", append.base_offset) };
        let read =
            site.consumer().fetch(v1::FetchRequest { positions: vec![start], ..Default::default() }).await;
        let read = records(&read.unwrap().into_inner().slices[0]);
        let expected: Vec<(i64, String)> = append
            .record_indexes
            .iter()
            .zip(append.base_offset..)
            .map(|(index, offset)| (offset, keys[*index as usize].to_owned()))
            .collect();
        assert_eq!(read, expected);
        for (_, key) in &read {
            assert_eq!(annals_wire::murmur2::partition_of(key.as_bytes(), 8), append.partition);
        }
        seen += read.len();
    }
    assert_eq!(seen, keys.len());
}

#[tokio::test]
async fn a_request_id_makes_a_retry_harmless() {
    let site = site().await;
    let request = v1::ProduceRequest { request_id: "once".into(), ..produce("t", &["a"]) };
    let first = site.producer().produce(request.clone()).await.unwrap().into_inner();
    let again = site.producer().produce(request).await.unwrap().into_inner();
    assert!(!first.duplicate && again.duplicate);
    assert_eq!(first.appends[0].base_offset, again.appends[0].base_offset);
    assert_eq!(site.values("t", 0).await.len(), 1);
}

#[tokio::test]
async fn topics_are_made_listed_changed_and_deleted() {
    let site = site().await;
    let config =
        v1::TopicConfig { partitions: 2, durability: v1::Durability::Os.into(), ..Default::default() };
    let request = v1::CreateTopicRequest { topic: "t".into(), config: Some(config), ..Default::default() };
    let made = site.topics().create_topic(request.clone()).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(made.partitions.len(), 2);
    let again = site.topics().create_topic(request).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(made.topic_id, again.topic_id, "the same request again is no error");
    let change = v1::UpdateTopicRequest {
        topic: "t".into(),
        config: Some(v1::TopicConfig { partitions: 5, ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["partitions".into()] }),
    };
    let changed = site.topics().update_topic(change).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(changed.config.unwrap().partitions, 5);
    let listed = site.topics().list_topics(v1::ListTopicsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.topics.len(), 1);
    let delete = v1::DeleteTopicRequest { topic: "t".into(), topic_id: made.topic_id };
    site.topics().delete_topic(delete).await.unwrap();
    let get = site.topics().get_topic(v1::GetTopicRequest { topic: "t".into() }).await;
    assert_eq!(get.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn the_server_says_what_it_takes_and_where_it_is() {
    let site = site().await;
    site.store("t", &["a"]).await;
    let info = site.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.version.as_str(), info.cluster_id.len()), (env!("CARGO_PKG_VERSION"), 16));
    let limits = info.limits.unwrap();
    assert!(
        limits.max_record_bytes <= limits.max_batch_bytes
            && limits.max_batch_bytes < limits.max_request_bytes
    );
    let metadata = site.info().get_metadata(v1::GetMetadataRequest::default()).await.unwrap().into_inner();
    assert_eq!(metadata.nodes[0].address, site.server.address().to_string());
    assert_eq!(metadata.partitions.len(), 8);
    let asked = v1::ListOffsetsRequest { topic: "t".into(), partitions: vec![0], timestamp_ms: Some(0) };
    let offsets = site.offsets().list_offsets(asked).await.unwrap().into_inner().offsets;
    assert_eq!(
        (offsets[0].earliest_offset, offsets[0].latest_offset, offsets[0].timestamp_offset),
        (0, 1, Some(0))
    );
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_record_and_before_the_deadline() {
    let site = site().await;
    site.store("t", &["a"]).await;
    let wait = v1::FetchRequest { max_wait_ms: 20_000, ..fetch("t", 1) };
    let mut consumer = site.consumer();
    let asked = wait.clone();
    let waiting = tokio::spawn(async move { consumer.fetch(asked).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "there is nothing to read yet");
    site.store("t", &["b"]).await;
    let answer = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(records(&answer.slices[0]), [(1, "b".into())]);
    // A deadline is met with an empty answer, not with an error.
    let mut request = tonic::Request::new(v1::FetchRequest { max_wait_ms: 20_000, ..fetch("t", 2) });
    request.set_timeout(std::time::Duration::from_millis(800));
    let answer = site.consumer().fetch(request).await.unwrap().into_inner();
    assert!(answer.slices[0].batches.is_empty());
}
