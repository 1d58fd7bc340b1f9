//! Groups with members over stock stubs: join, records, commits, hand-overs, ends.

use std::time::Duration;

use annals_wire::v1::{self, ConsumeRequest, consume_request::Command, consume_response::Event};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{Site, check, records, site};

/// A member as a stub drives it.
pub(crate) struct Member {
    sender: mpsc::Sender<ConsumeRequest>,
    events: Streaming<v1::ConsumeResponse>,
    id: String,
}

fn says(command: Command) -> ConsumeRequest {
    ConsumeRequest { command: Some(command) }
}

pub(crate) fn joins(group: &str, name: &str, topics: &[&str]) -> v1::ConsumeJoin {
    v1::ConsumeJoin {
        group: group.into(),
        topics: topics.iter().map(ToString::to_string).collect(),
        member_name: name.into(),
        credit: Some(v1::ConsumeCredit { bytes: 1 << 20 }),
        ..Default::default()
    }
}

async fn open(site: &Site, first: Command) -> (mpsc::Sender<ConsumeRequest>, Streaming<v1::ConsumeResponse>) {
    let (sender, receiver) = mpsc::channel(16);
    sender.send(says(first)).await.unwrap();
    let events = site.consumer().consume(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    (sender, events)
}

/// How a stream ends that ends with a refusal.
async fn refused(events: &mut Streaming<v1::ConsumeResponse>) -> Status {
    loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends well"),
            Err(status) => return status,
        }
    }
}

impl Member {
    pub(crate) async fn join(site: &Site, join: v1::ConsumeJoin) -> Self {
        let (sender, events) = open(site, Command::Join(join)).await;
        let mut member = Self { sender, events, id: String::new() };
        let Event::Joined(joined) = member.next().await else { panic!("joined comes first") };
        member.id = joined.member_id;
        member
    }

    async fn say(&self, command: Command) {
        self.sender.send(says(command)).await.unwrap();
    }

    /// What it is told next, signs of life apart.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let message = tokio::time::timeout(Duration::from_secs(20), self.events.message());
            match message.await.expect("something is said").unwrap().expect("it goes on").event.unwrap() {
                Event::Heartbeat(_) => self.say(Command::Heartbeat(v1::ConsumeHeartbeat {})).await,
                event => return event,
            }
        }
    }

    pub(crate) async fn assigned(&mut self) -> Vec<v1::AssignedPartition> {
        loop {
            if let Event::Assigned(assigned) = self.next().await {
                return assigned.partitions;
            }
        }
    }

    async fn commit(&mut self, commit_id: u64, position: v1::CommitPosition) -> Option<v1::PartitionError> {
        self.say(Command::Commit(v1::ConsumeCommit { commit_id, offsets: vec![position] })).await;
        loop {
            if let Event::Committed(committed) = self.next().await {
                assert_eq!(committed.commit_id, commit_id);
                return committed.error;
            }
        }
    }
}

fn position(topic: &str, partition: u32, next_offset: i64, assignment_epoch: u32) -> v1::CommitPosition {
    v1::CommitPosition { topic: topic.into(), partition, next_offset, assignment_epoch, ..Default::default() }
}

async fn make(site: &Site, topic: &str, partitions: u32) {
    let config = Some(v1::TopicConfig { partitions, ..Default::default() });
    let make = v1::CreateTopicRequest { topic: topic.into(), config, ..Default::default() };
    site.topics().create_topic(make).await.unwrap();
}

fn fast() -> v1::GroupConfig {
    v1::GroupConfig {
        heartbeat_interval_ms: 500,
        session_timeout_ms: 1_500,
        revoke_timeout_ms: 1_000,
        ..Default::default()
    }
}

async fn configured(site: &Site, group: &str, config: v1::GroupConfig) -> Result<v1::Group, Status> {
    let make = v1::CreateGroupRequest { group: group.into(), config: Some(config), shadow: None };
    Ok(site.groups().create_group(make).await?.into_inner().group.unwrap())
}

async fn described(site: &Site, group: &str) -> v1::Group {
    let get = v1::GetGroupRequest { group: group.into() };
    site.groups().get_group(get).await.unwrap().into_inner().group.unwrap()
}

#[tokio::test]
async fn a_member_reads_commits_and_leaves() {
    let site = site().await;
    make(&site, "t", 1).await;
    site.store("t", &["a", "b"]).await;
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    let given = one.assigned().await;
    assert_eq!((given[0].topic.as_str(), given[0].partition, given[0].next_offset), ("t", 0, 0));
    let Event::Slice(slice) = one.next().await else { panic!("records") };
    assert_eq!(records(&slice), [(0, "a".into()), (1, "b".into())]);
    assert_eq!(one.commit(7, position("t", 0, slice.next_offset, given[0].assignment_epoch)).await, None);
    let group = described(&site, "g").await;
    assert_eq!((group.member_count, group.members[0].member_name.as_str()), (1, "one"));
    assert!(group.members[0].peer.starts_with("127.0.0.1:"), "{group:?}");
    assert_eq!(group.members[0].partitions[0].assignment_epoch, given[0].assignment_epoch);
    one.say(Command::Leave(v1::ConsumeLeave {})).await;
    loop {
        if let Event::Drain(drain) = one.next().await {
            assert_eq!(drain.deadline_ms, 0);
            break;
        }
    }
    assert!(one.events.message().await.unwrap().is_none(), "the stream ends well");
    let group = described(&site, "g").await;
    assert_eq!((group.member_count, group.committed_partitions), (0, 1));
}

#[tokio::test]
async fn the_end_of_the_requests_is_a_leave_and_what_it_had_goes_to_others_at_once() {
    let site = site().await;
    make(&site, "t", 2).await;
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    assert_eq!(one.assigned().await.len(), 2);
    let mut two = Member::join(&site, joins("g", "two", &["t"])).await;
    let revoked = loop {
        if let Event::Revoked(revoked) = one.next().await {
            break revoked;
        }
    };
    assert_eq!(revoked.partitions.len(), 1);
    one.say(Command::Released(v1::ConsumeReleased { partitions: revoked.partitions })).await;
    assert_eq!(two.assigned().await.len(), 1);
    drop(one.sender);
    while let Some(message) = one.events.message().await.unwrap() {
        assert!(!matches!(message.event, Some(Event::Slice(_))));
    }
    assert_eq!(two.assigned().await.len(), 1);
}

#[tokio::test]
async fn a_commit_of_what_is_not_owned_is_fenced() {
    let site = site().await;
    make(&site, "t", 1).await;
    site.store("t", &["a"]).await;
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    let epoch = one.assigned().await[0].assignment_epoch;
    let error = one.commit(1, position("t", 0, 1, epoch + 1)).await.unwrap();
    assert_eq!((error.reason.as_str(), error.topic.as_str()), ("FENCED", "t"));
    let commit = |assignment_epoch| v1::CommitOffsetsRequest {
        group: "g".into(),
        member_id: one.id.clone(),
        offsets: vec![position("t", 0, 1, assignment_epoch)],
        ..Default::default()
    };
    let status = site.offsets().commit_offsets(commit(epoch + 1)).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "FENCED", "join again");
    site.offsets().commit_offsets(commit(epoch)).await.unwrap();
}

#[tokio::test]
async fn outsiders_are_kept_out_while_members_live() {
    let site = site().await;
    make(&site, "t", 1).await;
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    one.assigned().await;
    let commit = v1::CommitOffsetsRequest {
        group: "g".into(),
        offsets: vec![position("t", 0, 0, 0)],
        ..Default::default()
    };
    let status = site.offsets().commit_offsets(commit.clone()).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "GROUP_HAS_MEMBERS", "override_members");
    let delete = v1::DeleteGroupRequest { group: "g".into() };
    let status = site.groups().delete_group(delete.clone()).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "GROUP_HAS_MEMBERS", "then delete it");
    let forced = v1::CommitOffsetsRequest { override_members: true, ..commit };
    site.offsets().commit_offsets(forced).await.unwrap();
    one.say(Command::Leave(v1::ConsumeLeave {})).await;
    while one.events.message().await.unwrap().is_some() {}
    site.groups().delete_group(delete).await.unwrap();
}

#[tokio::test]
async fn a_name_that_lives_is_refused_after_a_session_timeout() {
    let site = site().await;
    make(&site, "t", 1).await;
    configured(&site, "g", fast()).await.unwrap();
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    let (_sender, mut second) = open(&site, Command::Join(joins("g", "one", &["t"]))).await;
    // The first one speaks whenever it is spoken to.
    let status = tokio::select! {
        status = refused(&mut second) => status,
        () = async { loop { one.next().await; } } => unreachable!(),
    };
    check(&status, Code::FailedPrecondition, "MEMBER_NAME_IN_USE", "Take another name");
}

#[tokio::test]
async fn who_stops_speaking_is_out_however_well_it_listens() {
    let site = site().await;
    make(&site, "t", 1).await;
    configured(&site, "g", fast()).await.unwrap();
    let (_sender, mut events) = open(&site, Command::Join(joins("g", "one", &["t"]))).await;
    let status = refused(&mut events).await;
    check(&status, Code::FailedPrecondition, "FENCED", "silent for 1500 ms");
    let get = v1::GetGroupRequest { group: "g".into() };
    assert_eq!(site.groups().get_group(get).await.unwrap().into_inner().group.unwrap().member_count, 0);
}

#[tokio::test]
async fn who_speaks_stays_a_member_even_if_it_does_not_read() {
    let site = site().await;
    make(&site, "t", 1).await;
    configured(&site, "g", fast()).await.unwrap();
    let big = "x".repeat(900 << 10);
    for _ in 0..24 {
        site.store("t", &[&big]).await;
    }
    let join =
        v1::ConsumeJoin { credit: Some(v1::ConsumeCredit { bytes: 1 << 30 }), ..joins("g", "one", &["t"]) };
    let mut one = Member::join(&site, join).await;
    let epoch = one.assigned().await[0].assignment_epoch;
    // More lies ready than the connection's windows take, and nobody reads.
    for _ in 0..8 {
        one.say(Command::Heartbeat(v1::ConsumeHeartbeat {})).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(described(&site, "g").await.member_count, 1);
    assert_eq!(one.commit(1, position("t", 0, 3, epoch)).await, None, "it is heard, too");
}

#[tokio::test]
async fn messages_out_of_order_are_refused_by_name() {
    let site = site().await;
    make(&site, "t", 1).await;
    for (first, hint) in [
        (Command::Heartbeat(v1::ConsumeHeartbeat {}), "first message"),
        (Command::Join(joins("g", "", &[])), "topic_prefix"),
    ] {
        let (_sender, mut events) = open(&site, first).await;
        check(&refused(&mut events).await, Code::InvalidArgument, "MALFORMED", hint);
    }
    let (_sender, mut events) = open(&site, Command::Join(joins("no/name", "", &["t"]))).await;
    check(&refused(&mut events).await, Code::InvalidArgument, "INVALID_NAME", "no/name");
    let place = v1::TopicPartition { topic: "t".into(), partition: 0 };
    for (second, hint) in [
        (Command::Join(joins("g", "", &["t"])), "member already"),
        (Command::Released(v1::ConsumeReleased { partitions: vec![place] }), "was not revoked"),
        (Command::Commit(v1::ConsumeCommit::default()), "0 positions"),
    ] {
        let mut one = Member::join(&site, joins("g", "", &["t"])).await;
        // Whoever owned it before is gone without a word and keeps it for a while: by leaving it is free.
        one.assigned().await;
        one.say(second).await;
        check(&refused(&mut one.events).await, Code::InvalidArgument, "MALFORMED", hint);
        let leave = described(&site, "g").await.members;
        assert_eq!(leave.len(), 1, "a broken stream is no leave");
        let mut again = Member::join(&site, joins("g", &leave[0].member_name, &["t"])).await;
        again.assigned().await;
        again.say(Command::Leave(v1::ConsumeLeave {})).await;
        while again.events.message().await.unwrap().is_some() {}
    }
}

#[tokio::test]
async fn groups_are_made_changed_and_described() {
    let site = site().await;
    let group = configured(&site, "g", fast()).await.unwrap();
    assert_eq!(group.config.unwrap().session_timeout_ms, 1_500);
    let status = configured(&site, "g", v1::GroupConfig::default()).await.unwrap_err();
    check(&status, Code::AlreadyExists, "GROUP_EXISTS", "heartbeat_interval_ms is 500, not 3000");
    let change = v1::UpdateGroupRequest {
        group: "g".into(),
        config: Some(v1::GroupConfig { start: v1::GroupStart::Latest.into(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["start".into(), "session_timeout_ms".into()],
        }),
    };
    let config =
        site.groups().update_group(change).await.unwrap().into_inner().group.unwrap().config.unwrap();
    assert_eq!(config.start(), v1::GroupStart::Latest);
    assert_eq!((config.session_timeout_ms, config.heartbeat_interval_ms), (10_000, 500));
    let list = site.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner().groups;
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].config, Some(config));
}

#[tokio::test]
async fn a_stopping_server_lets_members_commit_and_keeps_them() {
    let site = site().await;
    make(&site, "t", 1).await;
    site.store("t", &["a"]).await;
    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    let epoch = one.assigned().await[0].assignment_epoch;
    let stopping = tokio::spawn(site.server.shutdown());
    loop {
        if let Event::Drain(drain) = one.next().await {
            assert!(drain.deadline_ms > 0);
            break;
        }
    }
    assert_eq!(one.commit(1, position("t", 0, 1, epoch)).await, None);
    check(&refused(&mut one.events).await, Code::Unavailable, "SHUTTING_DOWN", "Reconnect");
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shadow_group_stores_no_outputs_and_is_not_moved_while_it_has_members() {
    let site = site().await;
    make(&site, "t", 1).await;
    site.store("t", &["a", "b", "c"]).await;
    let range = v1::ShadowRange { topic: "t".into(), partition: 0, from_offset: 1, to_offset: 2 };
    let shadow = v1::ShadowGroup { ranges: vec![range], ttl_ms: 60_000, ..Default::default() };
    let create = v1::CreateGroupRequest { group: "g".into(), config: None, shadow: Some(shadow) };
    let both = v1::CreateGroupRequest { config: Some(fast()), ..create.clone() };
    let status = site.groups().create_group(both).await.unwrap_err();
    check(&status, Code::InvalidArgument, "MALFORMED", "shadow");
    site.groups().create_group(create).await.unwrap();
    let outputs = vec![v1::Output {
        topic: "t".into(),
        records: vec![v1::Record { value: Some("made".into()), ..Default::default() }],
        ..Default::default()
    }];
    let offsets = vec![v1::CommitPosition { expected_offset: Some(1), ..position("t", 0, 2, 0) }];
    let step = v1::AppendAndCommitRequest {
        request_id: "r".into(),
        group: "g".into(),
        offsets,
        outputs,
        ..Default::default()
    };
    let status = site.producer().append_and_commit(step).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "SHADOW_GROUP", "--allow-outputs");

    let mut one = Member::join(&site, joins("g", "one", &["t"])).await;
    assert_eq!(one.assigned().await[0].next_offset, 1);
    let Event::Slice(slice) = one.next().await else { panic!("records") };
    assert_eq!((records(&slice), slice.next_offset), (vec![(1, "b".into())], 2));
    let to = Some(v1::reset_offsets_request::To::Earliest(true));
    let reset = v1::ResetOffsetsRequest { group: "g".into(), topic: "t".into(), to, ..Default::default() };
    let status = site.offsets().reset_offsets(reset.clone()).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "GROUP_HAS_MEMBERS", "stop them first");
    one.say(Command::Leave(v1::ConsumeLeave {})).await;
    while one.events.message().await.unwrap().is_some() {}
    let moves = site.offsets().reset_offsets(reset).await.unwrap().into_inner().moves;
    assert_eq!((moves[0].from_offset, moves[0].to_offset, moves[0].records_reread), (Some(1), 0, 1));
}
