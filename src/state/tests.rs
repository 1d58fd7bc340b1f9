//! The machine against itself: whatever was captured when, the rest replayed leads to the same state.

use annals_wire::{
    ids::TopicId,
    internal::{
        self, BatchDone, GroupConfigured, GroupDeleted, GroupMoved, GroupPosition, OffsetsCommitted,
        ProduceDone, ProducerOpened, ProducersExpired, RequestDone, TopicChanged, TopicDeleted, request_done,
        state_entry::Body,
    },
};
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::{
    GroupEvent, GroupSettings, Member, RequestKey, Settings, State, Subscription, TopicView, decide,
    requests, write_entry,
};
use crate::{
    storage::{Level, Machine, PartitionKey, Section},
    sync::Arc,
};

fn id(n: u8) -> TopicId {
    TopicId([n; 16])
}

fn id_bytes(n: u8) -> Bytes {
    Bytes::copy_from_slice(id(n).as_bytes())
}

fn settings(partitions: u32) -> Settings {
    Settings { partitions, level: Level::Fsync, segment_bytes: 1 << 20, interval_ms: 5, interval_bytes: 4096 }
}

fn created(n: u8, name: &str, partitions: u32) -> Body {
    Body::TopicCreated(internal::TopicCreated {
        topic_id: id_bytes(n),
        name: name.to_owned(),
        settings: Some(settings(partitions).to_entry()),
        created_ms: 17,
    })
}

fn position(topic: u8, partition: u32, next_offset: i64) -> GroupPosition {
    GroupPosition { topic_id: id_bytes(topic), partition, next_offset, ..GroupPosition::default() }
}

fn committed(group: &str, positions: Vec<GroupPosition>) -> Body {
    Body::OffsetsCommitted(OffsetsCommitted { group: group.to_owned(), positions })
}

fn done(principal: &str, request_id: &str, time_ms: i64) -> Body {
    let batches = vec![BatchDone { partition: 3, base_offset: time_ms, ..BatchDone::default() }];
    Body::RequestDone(RequestDone {
        principal: principal.to_owned(),
        request_id: request_id.to_owned(),
        time_ms,
        digest: Bytes::from_static(b"digest"),
        result: Some(request_done::Result::Produced(ProduceDone { batches, ..ProduceDone::default() })),
    })
}

fn applied(bodies: &[Body]) -> State {
    let mut state = State::default();
    for (number, body) in (1..).zip(bodies) {
        Machine::apply(&mut state, number, &write_entry(body.clone())).unwrap();
        state.check();
    }
    state
}

#[test]
fn topics_come_grow_and_go() {
    let mut bodies = vec![created(1, "orders", 4), created(2, "audit", 1)];
    bodies.push(Body::TopicChanged(TopicChanged {
        topic_id: id_bytes(1),
        settings: Some(settings(6).to_entry()),
    }));
    let state = applied(&bodies);
    let orders = state.topics.get("orders").unwrap();
    assert_eq!((orders.number, orders.settings.partitions, orders.created_ms), (3, 6, 17));
    assert_eq!(state.topics.partitions(), 7);
    let names: Vec<_> = state.topics.iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["audit", "orders"]);
    bodies.push(Body::TopicDeleted(TopicDeleted { topic_id: id_bytes(2) }));
    let state = applied(&bodies);
    assert!(state.topics.get("audit").is_none());
    assert_eq!(state.topics.partitions(), 6);
}

#[test]
fn an_entry_that_cannot_follow_is_refused() {
    let mut state = applied(&[created(1, "a", 2)]);
    for (body, what) in [
        (created(2, "a", 1), "made twice"),
        (created(1, "b", 1), "made twice"),
        (Body::TopicDeleted(TopicDeleted { topic_id: id_bytes(9) }), "no topic"),
        (Body::TopicDeleted(TopicDeleted { topic_id: Bytes::from_static(b"short") }), "5 bytes"),
        (
            Body::TopicChanged(TopicChanged {
                topic_id: id_bytes(1),
                settings: Some(settings(1).to_entry()),
            }),
            "lose",
        ),
    ] {
        let error = Machine::apply(&mut state.clone(), 2, &write_entry(body)).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    // A kind of entry from the future: field 99, empty.
    let unknown = [0x9A, 0x06, 0x00];
    assert!(Machine::apply(&mut state, 2, &unknown).unwrap_err().contains("does not know"));
    let ignorable = [0x08, 0x01, 0x9A, 0x06, 0x00];
    Machine::apply(&mut state, 2, &ignorable).unwrap();
    assert!(Machine::apply(&mut state, 3, &[0xFF]).is_err(), "not an entry at all");
}

#[test]
fn commits_go_with_their_topic_and_do_not_come_back_under_its_name() {
    let mut bodies = vec![
        created(1, "orders", 2),
        created(2, "audit", 1),
        committed("g", vec![position(1, 0, 5), position(2, 0, 9)]),
        committed("only", vec![position(1, 1, 7)]),
        Body::TopicDeleted(TopicDeleted { topic_id: id_bytes(1) }),
        created(3, "orders", 2),
    ];
    let state = applied(&bodies);
    let group = state.groups.get("g").unwrap();
    assert_eq!(group.positions.len(), 1);
    assert_eq!(group.number, 5, "the deletion changed it");
    assert!(state.groups.get("only").is_none(), "nothing is left of it");
    let anew = PartitionKey { topic: id(3), partition: 0 };
    assert!(!group.positions.contains_key(&anew), "another id, so no old commit");
    bodies.push(Body::GroupDeleted(GroupDeleted { group: "g".into() }));
    assert!(applied(&bodies).groups.is_empty());
}

#[test]
fn commits_beyond_a_shortened_log_are_lowered_once_and_by_entries() {
    let bodies = [created(1, "t", 2), committed("a", vec![position(1, 0, 50), position(1, 1, 3)])];
    let mut state = applied(&bodies);
    let ends = |key: PartitionKey| Some(if key.partition == 0 { 20 } else { 3 });
    let entries = state.lower_commits(&ends);
    assert_eq!(entries.len(), 1);
    let key = PartitionKey { topic: id(1), partition: 0 };
    assert_eq!(state.groups.get("a").unwrap().positions[&key].next_offset, 20);
    assert!(state.lower_commits(&ends).is_empty());
    // Replayed over the state of before, the entries say the same.
    let mut replayed = applied(&bodies);
    Machine::apply(&mut replayed, 3, &entries[0]).unwrap();
    assert_eq!(replayed.groups.get("a").unwrap().positions, state.groups.get("a").unwrap().positions);
    assert_eq!(state.lower_commits(&|_| None), Vec::<Vec<u8>>::new(), "unknown partitions are left alone");
}

#[test]
fn settings_keep_a_group_and_members_leave_none_behind() {
    let settings = GroupSettings { session_timeout_ms: 1_500, ends: vec![], ..GroupSettings::default() };
    let configured = GroupConfigured { group: "set".into(), settings: Some(settings.to_entry()) };
    let mut bodies = vec![created(1, "a", 2), Body::GroupConfigured(configured)];
    let mut state = applied(&bodies);
    assert_eq!(*state.groups.get("set").unwrap().settings(), settings);
    let mut step = |state: &mut State, c| {
        bodies.push(Body::GroupMoved(moved(state, "g", c).unwrap()));
        *state = applied(&bodies);
    };
    step(&mut state, 2); // `o` joins
    let before = state.groups.membership("g");
    assert_eq!(before.owned.len(), 2);
    step(&mut state, 8); // and leaves
    assert!(state.groups.get("g").is_none(), "nothing is left of it");
    step(&mut state, 2);
    let after = state.groups.membership("g");
    let epochs = |membership: &super::Membership| {
        membership.owned.values().map(|owned| owned.epoch).collect::<Vec<_>>()
    };
    assert!(epochs(&after).iter().min() > epochs(&before).iter().max(), "no epoch comes again");
}

fn key(principal: &str, id: &str) -> RequestKey {
    RequestKey { principal: Arc::from(principal), id: Arc::from(id) }
}

#[test]
fn of_each_principal_the_last_ids_are_kept_and_more_while_they_are_young() {
    let mut state = State::default();
    let mut number = 0;
    let mut put = |state: &mut State, principal: &str, id: &str, time: i64| {
        number += 1;
        state.apply(number, &done(principal, id, time)).unwrap();
    };
    put(&mut state, "other", "stays", 0);
    for n in 0..requests::KEPT + 5 {
        put(&mut state, "me", &n.to_string(), 1_000);
    }
    assert!(
        state.requests.get(&key("me", "0")).is_some(),
        "young, so kept beyond the last {}",
        requests::KEPT
    );
    put(&mut state, "me", "much later", 1_000 + requests::KEPT_MS);
    state.check();
    assert!(state.requests.get(&key("me", "5")).is_none());
    assert!(state.requests.get(&key("me", "6")).is_some(), "one of the last {}", requests::KEPT);
    assert_eq!(state.requests.len(), requests::KEPT + 1);
    assert!(state.requests.get(&key("other", "stays")).is_some(), "ids are counted per principal");
}

#[test]
fn a_clock_that_goes_back_expires_nothing_early() {
    let state = applied(&[done("me", "a", 1_000_000_000), done("me", "b", 5), done("me", "a", 7)]);
    assert_eq!(state.requests.len(), 2);
    let again = state.requests.get(&key("me", "a")).unwrap();
    assert_eq!((again.number, again.done.time_ms), (3, 7), "an id that expired may come again");
}

#[test]
fn the_bytes_of_all_requests_are_bounded() {
    let mut state = State::default();
    let large = "x".repeat(100_000);
    for number in 1..=1_000 {
        let mut body = done("me", &number.to_string(), 0);
        if let Body::RequestDone(done) = &mut body {
            done.digest = Bytes::copy_from_slice(large.as_bytes());
        }
        state.apply(number, &body).unwrap();
    }
    state.check();
    assert!(state.requests.len() < 700, "{} of 100 kB each", state.requests.len());
    assert!(state.requests.get(&key("me", "1000")).is_some(), "the newest stay");
}

/// What an operation does, made fit for the state it meets.
fn fit(op: (u8, u8, u8, u8), state: &State, next_id: &mut u8) -> Option<Body> {
    let (kind, a, b, c) = op;
    let name = ["a", "b", "c", "d"][usize::from(a % 4)];
    let topic = state.topics.get(name);
    let group = ["g", "h", "i"][usize::from(b % 3)];
    Some(match kind % 14 {
        0 | 1 if topic.is_none() => {
            *next_id += 1;
            created(*next_id, name, u32::from(b % 4) + 1)
        }
        0 | 1 => {
            let topic = topic?;
            let grown = settings(topic.settings.partitions + u32::from(b % 2));
            let topic_id = Bytes::copy_from_slice(topic.id.as_bytes());
            Body::TopicChanged(TopicChanged { topic_id, settings: Some(grown.to_entry()) })
        }
        2 => Body::TopicDeleted(TopicDeleted { topic_id: Bytes::copy_from_slice(topic?.id.as_bytes()) }),
        3..=5 => {
            let mut position = position(0, u32::from(c % 3), i64::from(c));
            position.topic_id = Bytes::copy_from_slice(topic?.id.as_bytes());
            committed(group, vec![position])
        }
        6 => Body::GroupDeleted(GroupDeleted { group: group.into() }),
        7 => {
            let settings = GroupSettings { ttl_ms: u64::from(c), ..GroupSettings::default() };
            Body::GroupConfigured(GroupConfigured {
                group: group.into(),
                settings: Some(settings.to_entry()),
            })
        }
        8 | 9 => Body::GroupMoved(moved(state, group, c)?),
        10 => {
            let known = state.producers.named(&Arc::from("p"), group).filter(|_| b % 2 == 0);
            let opened = known.and_then(|id| Some((id, state.producers.get(id)?.epoch + 1)));
            let (producer_id, epoch) = opened.unwrap_or((state.producers.next_id() + i64::from(c), 1));
            let name = if known.is_some() || state.producers.named(&Arc::from("p"), group).is_none() {
                group
            } else {
                ""
            };
            let (principal, name, time_ms) = ("p".to_owned(), name.to_owned(), i64::from(c));
            Body::ProducerOpened(ProducerOpened { producer_id, epoch, principal, name, time_ms })
        }
        11 => {
            let producer_ids =
                state.producers.iter().map(|(id, _)| id).filter(|id| id % 2 == i64::from(b % 2));
            Body::ProducersExpired(ProducersExpired { producer_ids: producer_ids.collect() })
        }
        _ => done(name, group, i64::from(c) * 100_000),
    })
}

/// A member comes or goes, or hands over what it was asked for.
fn moved(state: &State, group: &str, c: u8) -> Option<GroupMoved> {
    let view = |topic: &Arc<super::Topic>| (topic.name.to_string(), topic.id, topic.settings.partitions);
    let topics: Vec<_> = state.topics.iter().map(view).collect();
    let views: Vec<_> = topics
        .iter()
        .map(|(name, id, partitions)| TopicView { name, id: *id, partitions: *partitions })
        .collect();
    let membership = state.groups.membership(group);
    let asked: Vec<_> =
        membership.owned.iter().filter(|(_, owned)| owned.revoking).map(|(key, _)| *key).collect();
    let id = ["m", "n", "o"][usize::from(c % 3)];
    let event = match c % 4 {
        0 => GroupEvent::Gone { id },
        1 => GroupEvent::Released { keys: &asked },
        _ => {
            let subscription = Subscription { topics: vec![Arc::from("a")], prefix: Some(Arc::from("b")) };
            GroupEvent::Join { id, member: Member { name: Arc::from(id), subscription } }
        }
    };
    decide(group, &membership, &views, &event)
}

/// A section of each part, captured at the states after `at` entries.
fn sections(history: &[State], at: [usize; 4]) -> Vec<Section> {
    let part = |index: usize, state: &State| {
        let parts = [state.topics.freeze(), state.groups.freeze(), state.requests.freeze()].into_iter();
        parts.chain(state.producers.freeze()).nth(index).map(super::Frozen::section)
    };
    (0..4).filter_map(|index| part(index, &history[at[index]])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_images_and_the_rest_are_the_whole(
        ops in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..60),
        cuts in any::<[prop::sample::Index; 5]>(),
    ) {
        let (mut state, mut next_id) = (State::default(), 0);
        let (mut history, mut entries) = (vec![state.clone()], Vec::new());
        for op in ops {
            let Some(body) = fit(op, &state, &mut next_id) else { continue };
            entries.push(write_entry(body));
            let number = entries.len() as u64;
            Machine::apply(&mut state, number, entries.last().unwrap()).unwrap();
            state.check();
            history.push(state.clone());
        }
        // The parts are captured at different times, and the replay starts anywhere before the first of them.
        let at = [0, 1, 2, 3].map(|part: usize| cuts[part].index(history.len()));
        let start = cuts[4].index(at.iter().min().unwrap() + 1);
        let mut recovered = State::default();
        for section in sections(&history, at) {
            recovered.restore(&section).unwrap();
        }
        for (index, entry) in entries.iter().enumerate().skip(start) {
            Machine::apply(&mut recovered, index as u64 + 1, entry).unwrap();
        }
        recovered.check();
        // Only the number of the last entry seen may lag, where the last entries were before the replay.
        prop_assert_eq!(&recovered.topics, &state.topics);
        prop_assert_eq!(&recovered.groups, &state.groups);
        prop_assert_eq!(&recovered.requests, &state.requests);
        prop_assert_eq!(&recovered.producers, &state.producers);
        // And a capture of all at once comes back as it was.
        let mut again = State::default();
        for section in state.capture(entries.len() as u64) {
            again.restore(&section).unwrap();
        }
        prop_assert_eq!(again, state);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut state = State::default();
        let _any_verdict = Machine::apply(&mut state, 1, &bytes);
        let _any_verdict = state.restore(&Section { number: 1, bytes });
    }
}

#[test]
fn an_image_of_the_future_is_refused_unless_it_may_be_ignored() {
    let mut state = State::default();
    let unknown = Section { number: 1, bytes: vec![0x9A, 0x06, 0x00] };
    assert!(state.restore(&unknown).unwrap_err().contains("does not know"));
    let ignorable = internal::StateImage { may_ignore: true, part: None };
    state.restore(&Section { number: 1, bytes: ignorable.encode_to_vec() }).unwrap();
}
