//! Reasons that only a disk that fails, a history that was cut or a caller that hangs brings about; each over a real
//! connection, with its code, its hint and its numbers.

use std::{sync::Arc, time::Duration};

use annals::{
    server::{self, ServeError},
    storage::{
        MemoryDisk,
        disk::{Access, Call, Disk as _},
    },
};
use annals_wire::v1::{self, consume_response::Event as Said, subscribe_response::Event};
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{Code, Status, body::Body, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::{
    bodies,
    gate::{At, Gate},
    members::{Member, joins},
    support::{Site, check, config, fact, fetch, position, produce, records, site, site_on},
};

async fn over(disk: &MemoryDisk) -> Site {
    site_on(Arc::new(disk.clone())).await
}

async fn refused(site: &Site, request: v1::ProduceRequest) -> Status {
    site.producer().produce(request).await.expect_err("it is refused")
}

/// Waits for what the server still writes by itself, such as the frame that proves the last one: a call that is to fail
/// must be the next request's.
async fn settled(disk: &MemoryDisk) {
    let calls = || disk.calls(Call::Write) + disk.calls(Call::Sync);
    loop {
        let before = calls();
        tokio::time::sleep(Duration::from_millis(100)).await;
        if calls() == before {
            return;
        }
    }
}

/// The numbers and names a reason comes with.
fn has(status: &Status, facts: &[(&str, &str)]) {
    for (name, value) in facts {
        assert_eq!(fact(status, name), *value, "{name}: {status:?}");
    }
}

fn says_when_to_retry(status: &Status) {
    let details = status.get_error_details();
    let delay = details.retry_info().and_then(|info| info.retry_delay).expect("it says when to come back");
    assert_eq!(fact(status, "retry_delay_ms"), delay.as_millis().to_string());
}

/// The only segment of partition 0 of the only topic.
fn segment(disk: &MemoryDisk) -> String {
    let topic = disk.list("topics").unwrap().remove(0).name;
    let folder = format!("topics/{topic}/0");
    let files = disk.list(&folder).unwrap();
    let segment = files.iter().find(|file| file.name.strip_suffix(".log").is_some()).expect("a segment");
    format!("{folder}/{}", segment.name)
}

/// Flips one bit of the first place where these bytes are.
fn damage(disk: &MemoryDisk, path: &str, needle: &[u8]) {
    let file = disk.open(path, Access::Write).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let read = file.read_at(&mut bytes, 0).unwrap();
    let at = bytes[..read].windows(needle.len()).position(|window| window == needle).expect("it is there");
    file.write_at(&[&[bytes[at] ^ 1]], at as u64).unwrap();
}

#[tokio::test]
async fn damage_is_reported_with_its_offsets_and_can_be_stepped_over() {
    let disk = MemoryDisk::new();
    let first = over(&disk).await;
    first.store("t", &["sound"]).await;
    first.store("t", &["rotten", "too"]).await;
    first.store("t", &["sound again"]).await;
    first.server.shutdown().await.unwrap();
    damage(&disk, &segment(&disk), b"rotten");
    let site = over(&disk).await;
    let status = site.consumer().fetch(fetch("t", 1)).await.expect_err("it is damaged");
    check(&status, Code::DataLoss, "CORRUPT_DATA", "Read on from 3, or ask with skip_damaged");
    has(&status, &[("topic", "t"), ("partition", "0"), ("first", "1"), ("last", "2")]);
    assert_eq!(site.values("t", 3).await, [(3, "sound again".into())]);
    let skip = v1::FetchRequest { skip_damaged: true, ..fetch("t", 1) };
    let slice = site.consumer().fetch(skip).await.unwrap().into_inner().slices.remove(0);
    assert_eq!((slice.gaps[0].first_offset, slice.gaps[0].last_offset), (1, 2));
    assert_eq!(records(&slice), [(3, "sound again".into())]);
    // A subscription tells it as the same failure of the one partition.
    let asked = v1::SubscribeRequest { positions: vec![position("t", 1)], ..Default::default() };
    let mut events = site.consumer().subscribe(asked).await.unwrap().into_inner();
    let Some(Event::PartitionError(error)) = events.message().await.unwrap().unwrap().event else {
        panic!("the failure comes first")
    };
    assert_eq!(
        (error.code, error.reason.as_str(), error.metadata["last"].as_str()),
        (15, "CORRUPT_DATA", "2")
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_said_to_be_so() {
    let gate = Gate::new(MemoryDisk::new());
    let site = site_on(Arc::new(gate.clone())).await;
    site.store("t", &["a"]).await;
    let refused = gate.hold(At::View);
    let status = site.consumer().fetch(fetch("t", 0)).await.expect_err("the disk refuses");
    drop(refused);
    check(&status, Code::DataLoss, "READ_FAILED", "annals log verify");
    has(&status, &[("topic", "t"), ("partition", "0")]);
    assert_eq!(site.values("t", 0).await, [(0, "a".into())]);
}

#[tokio::test]
async fn a_failed_write_fences_its_partition_until_a_restart() {
    let disk = MemoryDisk::new();
    let site = over(&disk).await;
    site.store("t", &["a"]).await;
    settled(&disk).await;
    disk.fail_nth(Call::Write, 1);
    let status = refused(&site, produce("t", &["lost"])).await;
    check(&status, Code::FailedPrecondition, "PARTITION_FENCED", "Restart the server");
    has(&status, &[("topic", "t"), ("partition", "0")]);
    let violated = status.get_error_details().precondition_failure().unwrap().violations[0].clone();
    assert_eq!((violated.r#type.as_str(), violated.subject.as_str()), ("PARTITION_FENCED", "t[0]"));
    check(&refused(&site, produce("t", &["b"])).await, Code::FailedPrecondition, "PARTITION_FENCED", "");
    // The others serve, and what is stored is read.
    let other = v1::ProduceRequest { partition: Some(1), ..produce("t", &["other"]) };
    site.producer().produce(other).await.unwrap();
    assert_eq!(site.values("t", 0).await, [(0, "a".into())]);
    site.server.shutdown().await.unwrap();
    let again = over(&disk).await;
    assert_eq!(again.store("t", &["c"]).await, 1, "a restart recovers it");
    assert_eq!(again.values("t", 0).await, [(0, "a".into()), (1, "c".into())]);
}

#[tokio::test]
async fn a_failed_flush_of_the_journal_leaves_the_outcome_open_and_ends_the_server() {
    let disk = MemoryDisk::new();
    let site = over(&disk).await;
    site.store("t", &["a"]).await;
    settled(&disk).await;
    disk.fail_nth(Call::Sync, 1);
    let status = refused(&site, produce("t", &["b"])).await;
    check(
        &status,
        Code::Unavailable,
        "OUTCOME_UNKNOWN",
        "Only a request with a request_id can be sent again safely",
    );
    assert!(status.get_error_details().retry_info().is_none(), "sending it again is not harmless");
    let status = refused(&site, produce("t", &["c"])).await;
    check(&status, Code::Unavailable, "SHUTTING_DOWN", "Try again in");
    says_when_to_retry(&status);
    let failed = site.server.failed().await;
    assert!(matches!(&failed, ServeError::Failed { .. }) && failed.exit_code() == 1, "{failed}");
    assert!(failed.to_string().contains("recovery keeps every acknowledged record"), "{failed}");
    site.server.shutdown_within(Duration::from_millis(100)).await.expect_err("it failed");
    let again = over(&disk).await;
    assert_eq!(again.values("t", 0).await[0], (0, "a".into()));
    again.store("t", &["d"]).await;
}

/// What a power cut leaves is what was there before records went into the page cache alone.
#[tokio::test]
async fn a_reader_ahead_of_a_cut_history_is_told_where_it_diverges() {
    let disk = MemoryDisk::new();
    let before = over(&disk).await;
    before.store("t", &["a", "b", "c"]).await;
    let left = disk.snapshot();
    before.store("t", &["lost", "lost too"]).await;
    let read = before.consumer().fetch(fetch("t", 0)).await.unwrap().into_inner().slices.remove(0);
    assert_eq!(read.next_offset, 5);
    let site = over(&left).await;
    site.store("t", &["new"; 4]).await;
    let ahead = v1::FetchPosition { last_epoch: Some(read.leader_epoch), ..position("t", 5) };
    let asked = v1::FetchRequest { positions: vec![ahead.clone()], ..Default::default() };
    let status = site.consumer().fetch(asked).await.expect_err("it read what is gone");
    check(&status, Code::OutOfRange, "LOG_TRUNCATED", "Read on from 3");
    has(&status, &[("topic", "t"), ("partition", "0"), ("requested", "5"), ("diverging", "3")]);
    let offset = v1::CommitPosition {
        topic: "t".into(),
        next_offset: 5,
        leader_epoch: Some(read.leader_epoch),
        ..Default::default()
    };
    let commit = v1::CommitOffsetsRequest { group: "g".into(), offsets: vec![offset], ..Default::default() };
    let status = site.offsets().commit_offsets(commit).await.expect_err("nor can it commit that");
    check(&status, Code::OutOfRange, "LOG_TRUNCATED", "Read on from 3");
    let on = v1::FetchPosition { start: Some(v1::fetch_position::Start::Offset(3)), ..ahead };
    let asked = v1::FetchRequest { positions: vec![on], ..Default::default() };
    assert_eq!(site.consumer().fetch(asked).await.unwrap().into_inner().slices[0].next_offset, 7);
}

/// Nothing in this release forgets the beginning of a log. A directory may say that a later one did.
#[tokio::test]
async fn an_offset_that_is_no_longer_kept_names_the_first_one_that_is() {
    let disk = MemoryDisk::new();
    let first = over(&disk).await;
    for value in ["a", "b", "c"] {
        first.store("t", &[value]).await;
    }
    first.server.shutdown().await.unwrap();
    for file in disk.list("").unwrap().iter().filter(|file| file.name.starts_with("snapshot-")) {
        forget(&disk, &file.name, 2);
    }
    let site = over(&disk).await;
    let status = site.consumer().fetch(fetch("t", 1)).await.expect_err("it is gone");
    check(&status, Code::OutOfRange, "OFFSET_TRUNCATED", "Read from 2");
    has(&status, &[("topic", "t"), ("partition", "0"), ("requested", "1"), ("earliest", "2")]);
    assert_eq!(site.values("t", 2).await, [(2, "c".into())]);
}

#[tokio::test]
async fn a_group_whose_position_is_no_longer_kept_is_told_the_gap_and_goes_on_or_stops() {
    let disk = MemoryDisk::new();
    let first = over(&disk).await;
    for value in ["a", "b", "c"] {
        first.store("t", &[value]).await;
    }
    let stops = v1::GroupConfig { gap: v1::GroupGap::Stop.into(), ..Default::default() };
    let make = v1::CreateGroupRequest { group: "stops".into(), config: Some(stops), shadow: None };
    first.groups().create_group(make).await.unwrap();
    for group in ["goes-on", "stops"] {
        let position = v1::CommitPosition { topic: "t".into(), next_offset: 1, ..Default::default() };
        let commit =
            v1::CommitOffsetsRequest { group: group.into(), offsets: vec![position], ..Default::default() };
        first.offsets().commit_offsets(commit).await.unwrap();
    }
    first.server.shutdown().await.unwrap();
    for file in disk.list("").unwrap().iter().filter(|file| file.name.starts_with("snapshot-")) {
        forget(&disk, &file.name, 2);
    }
    let site = over(&disk).await;
    let skipped = async || {
        let info = site.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
        info.counts.unwrap().group_skipped_offsets
    };
    let before = skipped().await;
    let mut goes_on = Member::join(&site, joins("goes-on", "", &["t"])).await;
    let given = goes_on.assigned().await;
    assert_eq!(given.iter().find(|one| one.partition == 0).unwrap().next_offset, 1);
    let mut slices = Vec::new();
    while slices.len() < 2 {
        if let Said::Slice(slice) = goes_on.next().await {
            slices.push(slice);
        }
    }
    let gap = &slices[0].gaps[0];
    assert_eq!((gap.first_offset, gap.last_offset, gap.reason()), (1, 1, v1::GapReason::Removed));
    assert_eq!((slices[0].batches.len(), slices[0].next_offset), (0, 2));
    assert_eq!(records(&slices[1]), [(2, "c".into())]);
    assert!(skipped().await > before, "it is counted");
    let mut stops = Member::join(&site, joins("stops", "", &["t"])).await;
    let error = loop {
        if let Said::PartitionError(error) = stops.next().await {
            break error;
        }
    };
    assert_eq!((error.reason.as_str(), error.partition), ("OFFSET_TRUNCATED", 0));
}

/// Raises the log start of partition 0 in a snapshot: 60 bytes of header, the CRC of all else, the message.
fn forget(disk: &MemoryDisk, file: &str, log_start: i64) {
    use prost::Message as _;
    const HEADER: usize = 64;
    let handle = disk.open(file, Access::Write).unwrap();
    let mut bytes = vec![0; usize::try_from(handle.len().unwrap()).unwrap()];
    handle.read_at(&mut bytes, 0).unwrap();
    let mut snapshot = annals_wire::internal::Snapshot::decode(&bytes[HEADER..]).unwrap();
    for partition in snapshot.partitions.iter_mut().filter(|partition| partition.partition == 0) {
        partition.log_start = log_start.min(partition.next_offset);
    }
    let body = snapshot.encode_to_vec();
    bytes.truncate(HEADER - 12);
    bytes.extend((body.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(&[&bytes, body.as_slice()].concat());
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);
    handle.set_len(bytes.len() as u64).unwrap();
    handle.write_at(&[&bytes], 0).unwrap();
}

#[tokio::test]
async fn a_disk_without_room_refuses_records_until_there_is_some() {
    let disk = MemoryDisk::new();
    let site = over(&disk).await;
    site.store("t", &["a"]).await;
    disk.set_capacity(0);
    let large = "x".repeat(900_000);
    let mut stored = 0;
    let status = loop {
        match site.producer().produce(produce("t", &[&large])).await {
            Ok(_) => stored += 1,
            Err(status) => break status,
        }
        assert!(stored < 1_000, "there is no end to it");
    };
    check(&status, Code::ResourceExhausted, "DISK_FULL", "writing resumes by itself");
    says_when_to_retry(&status);
    assert_eq!(site.values("t", 0).await[0], (0, "a".into()));
    disk.set_capacity(1 << 40);
    let resumed = async {
        while site.producer().produce(produce("t", &["after"])).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), resumed).await.expect("it resumes by itself");
}

#[tokio::test]
async fn more_than_the_disk_takes_is_throttled_and_loses_nothing() {
    let gate = Gate::new(MemoryDisk::new());
    let site = site_on(Arc::new(gate.clone())).await;
    site.store("t", &["a"]).await;
    let hold = gate.hold(At::Sync);
    let large = "x".repeat(900_000);
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (mut producer, request) = (site.producer(), produce("t", &[&large]));
            tokio::spawn(async move { producer.produce(request).await })
        })
        .collect();
    // What finds no room is refused after a while; what was taken waits for the disk.
    let refused = async {
        while !waiting.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("somebody is told to wait");
    drop(hold);
    let (mut stored, mut throttled) = (0, 0);
    for call in waiting {
        match call.await.unwrap() {
            Ok(_) => stored += 1,
            Err(status) => {
                check(&status, Code::ResourceExhausted, "THROTTLED", "Try again in");
                says_when_to_retry(&status);
                throttled += 1;
            }
        }
    }
    assert!(stored > 0 && throttled > 0, "{stored} stored, {throttled} throttled");
    assert_eq!(site.store("t", &["next"]).await, 1 + stored, "each ack is one record, each refusal none");
}

#[tokio::test]
async fn while_it_recovers_a_server_says_so() {
    let gate = Gate::new(MemoryDisk::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let hold = gate.hold(At::Open);
    let mut config = config();
    config.grpc = format!("unix:{}", path.display());
    let clock = Arc::new(annals::clock::SystemClock::new());
    let starting = tokio::spawn(server::start_on(config, clock, Arc::new(gate)));
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let channel = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap().connect_lazy();
    let mut producer = v1::producer_service_client::ProducerServiceClient::new(channel.clone());
    let mut topics = v1::topic_service_client::TopicServiceClient::new(channel.clone());
    let hot = producer.produce(produce("t", &["a"])).await.expect_err("not yet");
    let other = topics.list_topics(v1::ListTopicsRequest::default()).await.expect_err("not yet");
    for status in [hot, other] {
        check(&status, Code::Unavailable, "RECOVERING", "Try again in 100 ms");
        says_when_to_retry(&status);
    }
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
    let told = health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.status(), tonic_health::pb::health_check_response::ServingStatus::NotServing);
    drop(hold);
    let _server = starting.await.unwrap().unwrap();
    producer.produce(produce("t", &["a"])).await.unwrap();
}

#[tokio::test]
async fn a_deadline_says_whether_something_may_have_happened() {
    let gate = Gate::new(MemoryDisk::new());
    let site = site_on(Arc::new(gate.clone())).await;
    site.store("t", &["a"]).await;
    let timeout = [("grpc-timeout", "50m")];
    let hold = gate.hold(At::Sync);
    let body = bodies::framed(&prost::Message::encode_to_vec(&produce("t", &["b"])));
    let (_, status, _) = bodies::send(&site, bodies::PRODUCE, &timeout, body).await;
    check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "may have been stored all the same");
    has(&status, &[("timeout_ms", "50"), ("outcome", "unknown")]);
    let make = v1::CreateTopicRequest { topic: "u".into(), ..Default::default() };
    let body = bodies::framed(&prost::Message::encode_to_vec(&make));
    let (_, status, _) = bodies::send(&site, "/annals.v1.TopicService/CreateTopic", &timeout, body).await;
    check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "may have been stored all the same");
    // A fetch of what is not known to be durable waits, and changes nothing.
    let body = bodies::framed(&prost::Message::encode_to_vec(&fetch("u", 0)));
    let (_, status, _) = bodies::send(&site, bodies::FETCH, &timeout, body).await;
    check(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "Nothing was changed");
    has(&status, &[("outcome", "unchanged")]);
    drop(hold);
    assert_eq!(site.store("t", &["c"]).await, 2, "the first had happened");
}

/// A body that comes as the test sends it.
fn slow_body() -> (tokio::sync::mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let frames = UnboundedReceiverStream::new(receiver);
    let frames = frames.map(|bytes| Ok::<_, Status>(http_body::Frame::data(bytes)));
    (sender, Body::new(StreamBody::new(frames)))
}

#[tokio::test]
async fn a_message_that_does_not_arrive_whole_is_given_up() {
    let site = site().await;
    for path in ["/annals.v1.ProducerService/ProduceStream", bodies::PRODUCE, bodies::FETCH] {
        let (sender, body) = slow_body();
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let mut channel = site.channel.clone();
        let calling = tokio::spawn(async move {
            use tower::{Service as _, ServiceExt as _};
            let response = channel.ready().await.unwrap().call(request).await.unwrap();
            let head = Status::from_header_map(response.headers());
            let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
            head.or_else(|| Status::from_header_map(&trailers.unwrap_or_default())).expect("a status")
        });
        // Ten bytes are announced, one comes.
        sender.send(Bytes::from_static(&[0, 0, 0, 0, 10, 1])).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Half a minute passes at once whenever nobody has anything to do.
        tokio::time::pause();
        let status = calling.await.unwrap();
        tokio::time::resume();
        check(&status, Code::ResourceExhausted, "STALLED", "Send requests whole");
        assert!(fact(&status, "silence_ms").parse::<u64>().unwrap() >= 10_000);
        drop(sender);
    }
    assert_eq!(site.store("t", &["a"]).await, 0);
}

#[tokio::test]
async fn there_is_a_limit_to_topics_and_it_is_named() {
    let site = site().await;
    let make = |number: u32| v1::CreateTopicRequest {
        topic: format!("t{number}"),
        config: Some(v1::TopicConfig { partitions: 1024, ..Default::default() }),
        ..Default::default()
    };
    let mut count = 0;
    let status = loop {
        match site.topics().create_topic(make(count)).await {
            Ok(_) => count += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(count, 20_000 / 1024);
    check(&status, Code::ResourceExhausted, "LIMIT_REACHED", "the limit is 20000");
    has(&status, &[("what", "partitions of all topics"), ("limit", "20000")]);
    assert_eq!(site.store("t0", &["a"]).await, 0);
}
