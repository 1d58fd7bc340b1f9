//! Read-process-write steps.

use annals_wire::request::scan_step;

use super::*;
use crate::{broker::Step, storage::Level};

fn output(topic: &str, partition: Option<u32>, records: Vec<Record>) -> v1::Output {
    v1::Output { topic: topic.to_owned(), partition, records_crc32: None, records }
}

pub(super) fn plain(topic: &str, partition: u32, values: &[&str]) -> v1::Output {
    output(topic, Some(partition), values.iter().map(|value| record(None, value)).collect())
}

/// A step that has read partition 0 of `in` from one offset up to another, if it has.
pub(super) fn step(id: &str, read: Option<(i64, i64)>, outputs: Vec<v1::Output>) -> Step {
    let request = v1::AppendAndCommitRequest { outputs, ..Default::default() };
    let scanned = scan_step(&[Bytes::from(request.encode_to_vec())]).unwrap();
    let commit = read.map(|(from, to)| {
        let mut commit = one_commit("g", "in", to);
        commit.positions[0].expected_offset = Some(from);
        commit
    });
    Step { request_id: id.into(), commit, outputs: scanned.outputs, principal: Principal::anonymous() }
}

async fn all(house: &House, topic: &str, partition: u32) -> Vec<(i64, String)> {
    values(&house.fetch(vec![at(topic, partition, Start::Earliest)]).await.unwrap().slices[0])
}

async fn committed(house: &House) -> Vec<i64> {
    house.broker.get_offsets("g", &[]).await.unwrap().iter().map(|one| one.next_offset).collect()
}

/// A house whose topic `in` has ten records to read.
async fn house() -> House {
    let house = House::new();
    house.put("in", &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await;
    house
}

type Places = Vec<(String, u32, i64, u32, Vec<u32>)>;

fn places(produced: &Produced) -> Places {
    let appends = produced.appends.iter();
    appends
        .map(|one| {
            let indexes = one.record_indexes.clone();
            (one.topic.to_string(), one.partition, one.base_offset, one.record_count, indexes)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_offsets_are_there_together_and_a_retry_gets_the_first_answer() {
    let house = house().await;
    house.put("out", &["before"]).await;
    let keyed = ["a", "b", "c", "d", "e"].map(|key| record(Some(key), key));
    let outputs = || {
        vec![
            plain("out", 0, &["x", "y"]),
            output("made", None, keyed.to_vec()),
            plain("out", 0, &["z"]),
            plain("out", 3, &["w"]),
        ]
    };
    let first = house.broker.append_and_commit(step("s", Some((0, 4)), outputs())).await.unwrap();
    assert!(!first.duplicate && first.appends.iter().all(|one| one.level == Level::Fsync && !one.duplicate));
    let (out, made): (Places, Places) = places(&first).into_iter().partition(|place| place.0 == "out");
    // Outputs for one partition become one batch, and each is told where its own records are.
    let expected = [(0, 1, 2), (0, 3, 1), (3, 0, 1)].map(|(p, o, n)| ("out".to_owned(), p, o, n, vec![]));
    assert_eq!(out, expected);
    let mut indexes: Vec<u32> = made.iter().flat_map(|place| place.4.clone()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 1, 2, 3, 4], "they count within their output");
    for (_, partition, base, _, indexes) in &made {
        let stored: Vec<_> = indexes.iter().map(|index| ["a", "b", "c", "d", "e"][*index as usize]).collect();
        assert_eq!(all(&house, "made", *partition).await, numbered(*base, &stored));
    }
    // The group goes on; the retry would be refused today, and is answered as it was.
    house.broker.append_and_commit(step("t", Some((4, 9)), vec![])).await.unwrap();
    let refused = house.broker.append_and_commit(step("u", Some((0, 4)), outputs())).await.unwrap_err();
    assert_eq!(refused.reason(), "EXPECTED_OFFSET_MISMATCH");
    for house in [&house, &house.crashed()] {
        let again = house.broker.append_and_commit(step("s", Some((0, 4)), outputs())).await.unwrap();
        assert!(again.duplicate && again.appends.iter().all(|one| one.duplicate));
        assert_eq!(places(&again), places(&first));
        assert_eq!(all(house, "out", 0).await, numbered(0, &["before", "x", "y", "z"]));
        assert_eq!(committed(house).await, [9]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_step_changes_nothing() {
    let house = house().await;
    house.put("out", &["before"]).await;
    house.broker.append_and_commit(step("done", Some((0, 2)), vec![])).await.unwrap();
    let good = || plain("out", 0, &["x"]);
    let large = "x".repeat(600_000);
    let mut unguarded = step("a", Some((2, 3)), vec![good()]);
    unguarded.commit.as_mut().unwrap().positions[0].expected_offset = None;
    let mut wrong_crc = good();
    wrong_crc.records_crc32 = Some(1);
    let mut many = step("a", Some((2, 3)), vec![good()]);
    many.outputs = vec![many.outputs[0].clone(); 1025];
    let cases = vec![
        (step("a", Some((1, 3)), vec![good(), plain("new", 0, &["y"])]), "EXPECTED_OFFSET_MISMATCH"),
        (step("a", Some((2, 11)), vec![good()]), "OFFSET_AHEAD"),
        (step("a", Some((2, 1)), vec![good()]), "EXPECTED_OFFSET_MISMATCH"),
        (step("a", Some((2, 3)), vec![good(), plain("out", 4, &["y"])]), "PARTITION_UNKNOWN"),
        (step("a", Some((2, 3)), vec![good(), plain("no/name", 0, &["y"])]), "INVALID_NAME"),
        (step("a", Some((2, 3)), vec![good(), output("out", None, vec![])]), "MALFORMED"),
        (step("a", Some((2, 3)), vec![good(), wrong_crc]), "MALFORMED"),
        (
            step("a", Some((2, 3)), vec![plain("out", 0, &[&large]), plain("out", 0, &[&large])]),
            "BATCH_TOO_LARGE",
        ),
        (many, "MALFORMED"),
        (step("", Some((2, 3)), vec![good()]), "MALFORMED"),
        (step("a", None, vec![]), "MALFORMED"),
        (unguarded, "MALFORMED"),
        (step("done", Some((0, 3)), vec![]), "REQUEST_ID_REUSED"),
        (step("done", Some((0, 2)), vec![good()]), "REQUEST_ID_REUSED"),
    ];
    let before = house.broker.storage.last_number();
    for (case, (step, reason)) in cases.into_iter().enumerate() {
        let error = house.broker.append_and_commit(step).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{case}: {error}");
    }
    assert_eq!(house.broker.storage.last_number(), before, "nothing was entered, and no topic made");
    assert_eq!(all(&house, "out", 0).await, numbered(0, &["before"]));
    assert_eq!(committed(&house).await, [2]);
    // The id of a refused step is as good as new.
    let done = house.broker.append_and_commit(step("a", Some((2, 3)), vec![good()])).await.unwrap();
    assert!(!done.duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_output() {
    let house = house().await;
    let bad = output(
        "out",
        Some(0),
        vec![record(None, "x"), Record { offset_delta: Some(1), ..Record::default() }],
    );
    let step = step("a", None, vec![plain("out", 0, &["x"]), bad]);
    let error = house.broker.append_and_commit(step).await.unwrap_err();
    assert!(matches!(&error, Error::Malformed { field, .. } if field == "outputs[1].records[1]"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_do_the_same_step_one_does_it_and_the_others_hear_of_it() {
    let house = house().await;
    for round in 0..9 {
        let racers: Vec<_> = (0..4)
            .map(|_| {
                let broker = Arc::clone(&house.broker);
                let outputs = vec![plain("out", 0, &["x"]), plain("out", 1, &["y"])];
                let step = step(&format!("s{round}"), Some((round, round + 1)), outputs);
                tokio::spawn(async move { broker.append_and_commit(step).await })
            })
            .collect();
        let mut first = 0;
        for racer in racers {
            let produced = racer.await.unwrap().unwrap();
            first += u32::from(!produced.duplicate);
            let offsets: Vec<_> = produced.appends.iter().map(|one| one.base_offset).collect();
            assert_eq!(offsets, [round, round]);
        }
        assert_eq!(first, 1);
    }
    assert_eq!(committed(&house.crashed()).await, [9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_a_step_carry_the_mark_of_an_atomic_group_at_every_level() {
    let house = house().await;
    let os = TopicSettings { level: Some(Level::Os), ..TopicSettings::default() };
    house.broker.create_topic(&Principal::anonymous(), "os", os, "").await.unwrap();
    house.broker.append_and_commit(step("s", None, vec![plain("os", 0, &["x"])])).await.unwrap();
    let fetched = house.fetch(vec![at("os", 0, Start::Earliest)]).await.unwrap();
    let whole = fetched.slices[0].batches.concat();
    let batches = v1::LogSlice::decode(whole.as_slice()).unwrap().batches;
    assert_eq!(batches[0].attributes & 0b1000, 0b1000);
    assert_eq!(all(&house.crashed(), "os", 0).await, numbered(0, &["x"]));
}

/// What a member has read may be done by a step, under the epoch under which it owns the partition; a retry is answered
/// whoever owns it by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_a_member_is_fenced_by_its_assignment_and_its_retry_is_not() {
    let house = House::new();
    house.topic("in", 2).await;
    house.put("in", &["0", "1", "2"]).await;
    let read = CommitPosition {
        topic: "in".into(),
        partition: 1,
        next_offset: 0,
        assignment_epoch: 0,
        ..CommitPosition::default()
    };
    let of = |id: &str, member: &members::Member, assignment_epoch, next_offset| {
        let positions = vec![CommitPosition { next_offset, assignment_epoch, ..read.clone() }];
        let mut step = step(id, Some((0, 0)), vec![plain("out", 0, &["x"])]);
        let (group, member_id) = ("g".to_owned(), member.id.to_string());
        step.commit = Some(Commit { group, positions, member_id, ..one_commit("g", "in", 0) });
        step
    };
    let mut one = house.member(members::joins("g", "one", &["in"])).await;
    one.assigned().await;
    let epoch = one.owned[&members::place("in", 1)];
    let first = house.broker.append_and_commit(of("s", &one, epoch, 0)).await.unwrap();
    assert!(!first.duplicate);
    let fenced = house.broker.append_and_commit(of("t", &one, epoch + 100, 0)).await.unwrap_err();
    assert_eq!(fenced.reason(), "FENCED", "{fenced}");
    let nobody = house.broker.append_and_commit(step("u", Some((0, 1)), vec![])).await.unwrap_err();
    assert_eq!(nobody.reason(), "GROUP_HAS_MEMBERS", "{nobody}");
    // The partition goes to somebody else.
    let mut two = house.member(members::joins("g", "two", &["in"])).await;
    let (asked, _) = one.revoked().await;
    assert_eq!(asked, [members::place("in", 1)]);
    one.ears.released(&asked).await.unwrap();
    two.assigned().await;
    let late = house.broker.append_and_commit(of("t", &one, epoch, 0)).await.unwrap_err();
    assert_eq!(late.reason(), "FENCED", "a zombie changes nothing");
    let again = house.broker.append_and_commit(of("s", &one, epoch, 0)).await.unwrap();
    assert!(again.duplicate && places(&again) == places(&first));
    let reused = house.broker.append_and_commit(of("s", &two, epoch, 0)).await.unwrap_err();
    assert_eq!(reused.reason(), "REQUEST_ID_REUSED", "another member's step is another step");
    assert_eq!(all(&house, "out", 0).await, numbered(0, &["x"]));
    let epoch = two.owned[&members::place("in", 1)];
    house.broker.append_and_commit(of("v", &two, epoch, 0)).await.unwrap();
}
