use std::time::Duration;

use annals_wire::murmur2;
use prost::Message as _;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::{backoff::Backoff, clock};

fn options() -> ProducerOptions {
    ProducerOptions {
        batch_bytes: 100,
        max_in_flight_bytes: 1000,
        backoff: Backoff { attempts: 3, ..Backoff::default() },
        ..ProducerOptions::default()
    }
}

fn state(partitions: u32, options: ProducerOptions) -> State {
    State::new(
        "t",
        partitions,
        BatchLimits { record_bytes: 200, batch_bytes: 400 },
        options,
        Identity::None,
        0,
    )
}

fn push(state: &mut State, record: &NewRecord<'_>) -> Ack {
    let pushed = match state.push(record, clock::now) {
        Ok(pushed) => pushed.ack,
        Err(error) => panic!("{error:?}"),
    };
    state.check();
    pushed
}

fn refusal(reason: &str) -> Error {
    let details = ErrorDetails::with_error_info(reason, "annals", [("a".to_owned(), "b".to_owned())]);
    Error::from(Status::with_error_details(Code::ResourceExhausted, "no", details))
}

fn lost() -> Error {
    Error::from(Status::unavailable("reset"))
}

fn append(partition: u32, base_offset: i64, record_count: u32) -> v1::PartitionAppend {
    v1::PartitionAppend { partition, base_offset, record_count, ..Default::default() }
}

/// What an ack says, if it says something already.
fn said(ack: Ack) -> Option<Result<super::super::Placed>> {
    let mut ack = std::pin::pin!(ack);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match ack.as_mut().poll(&mut context) {
        std::task::Poll::Ready(said) => Some(said),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn keys_choose_partitions_as_everywhere() {
    let mut state = state(8, options());
    for key in ["a", "b", "foobar"] {
        push(&mut state, &NewRecord::new("v").key(key));
        let want = murmur2::partition_of(key.as_bytes(), 8) as usize;
        assert!(state.open[want].is_some(), "{key}");
    }
    push(&mut state, &NewRecord::new("v").key("a").partition(7));
    assert!(state.open[7].is_some());
}

#[test]
fn keyless_records_stay_together_for_a_batch_and_then_move_on() {
    let mut state = state(4, options());
    let value = [b'x'; 60];
    for _ in 0..6 {
        push(&mut state, &NewRecord::new(&value));
    }
    let partitions: Vec<_> = state.ready.iter().map(|batch| batch.partition).collect();
    assert_eq!(partitions, [Some(0), Some(1), Some(2)]);
}

#[test]
fn without_linger_whatever_has_gathered_goes_when_the_connection_takes_more() {
    let mut state = state(2, ProducerOptions { linger: Duration::ZERO, ..options() });
    assert!(!state.has_ready() && state.pull().is_none());
    push(&mut state, &NewRecord::new("1").partition(0));
    assert!(state.has_ready(), "no timer has to pass");
    push(&mut state, &NewRecord::new("2").partition(1));
    push(&mut state, &NewRecord::new("3").partition(0));
    assert!(state.pull().is_some() && state.pull().is_some() && state.pull().is_none());
    state.check();
    let sent: Vec<_> = state.in_flight.iter().map(|batch| (batch.partition, batch.records)).collect();
    assert_eq!(sent, [(Some(0), 2), (Some(1), 1)]);
    push(&mut state, &NewRecord::new("4").partition(0));
    assert!(state.has_ready() && state.pull().is_some() && !state.has_ready());
}

#[test]
fn with_linger_an_open_batch_waits() {
    let mut state = state(1, options());
    push(&mut state, &NewRecord::new("1"));
    assert!(!state.has_ready() && state.pull().is_none());
    state.close_due(clock::now() + state.options.linger);
    assert!(state.has_ready() && state.pull().is_some());
}

#[test]
fn a_partition_the_topic_does_not_have_is_refused() {
    let mut state = state(4, options());
    match state.push(&NewRecord::new("v").partition(4), clock::now) {
        Err(NotTaken::Refused(error)) => assert_eq!(error.reason(), reason::PARTITION_UNKNOWN),
        _ => panic!("taken"),
    }
    state.check();
}

#[test]
fn what_is_too_large_is_refused_and_leaves_nothing_behind() {
    let mut state = state(1, options());
    let value = [b'x'; 300];
    match state.push(&NewRecord::new(&value), clock::now) {
        Err(NotTaken::Refused(error)) => assert_eq!(error.reason(), reason::RECORD_TOO_LARGE),
        _ => panic!("taken"),
    }
    assert!(state.is_empty() && state.next_due().is_none());
    state.check();
}

#[test]
fn room_is_bounded_and_comes_back_with_acks() {
    let mut state = state(1, options());
    let value = [b'x'; 90];
    let mut taken = 0;
    while state.push(&NewRecord::new(&value), clock::now).is_ok() {
        taken += 1;
    }
    assert!((10..=12).contains(&taken), "{taken}");
    assert!(!state.has_room());
    state.close_all();
    while state.pull().is_some() {}
    state.stored(vec![append(0, 0, 1)]).unwrap();
    assert!(state.has_room());
    state.check();
}

#[test]
fn acks_come_in_order_and_an_ack_for_nothing_is_an_error() {
    let mut state = state(1, options());
    let first = push(&mut state, &NewRecord::new("1"));
    state.close_all();
    let second = push(&mut state, &NewRecord::new("2"));
    state.close_all();
    assert!(state.stored(Vec::new()).is_err());
    assert!(state.pull().is_some() && state.pull().is_some() && state.pull().is_none());
    state.stored(vec![append(0, 5, 1)]).unwrap();
    assert_eq!(said(first).unwrap().unwrap().offset, 5);
    assert!(said(second).is_none());
    state.check();
}

#[test]
fn a_lost_connection_leaves_what_was_sent_unknown_and_the_rest_waiting() {
    let mut state = state(1, options());
    let sent = push(&mut state, &NewRecord::new("1"));
    state.close_all();
    assert!(state.pull().is_some());
    let waiting = push(&mut state, &NewRecord::new("2"));
    state.close_all();
    assert_eq!(state.failed(&lost()), AfterFailure::TryAgain(1));
    assert!(said(sent).unwrap().unwrap_err().is_outcome_unknown());
    assert!(said(waiting).is_none());
    assert!(state.has_ready());
    assert!(state.take_failure().unwrap().is_outcome_unknown());
    assert!(state.take_failure().is_none());
    state.check();
}

#[test]
fn a_refusal_that_goes_away_is_sent_again_in_order() {
    let mut state = state(1, options());
    let acks = [push(&mut state, &NewRecord::new("1")), {
        state.close_all();
        push(&mut state, &NewRecord::new("2"))
    }];
    state.close_all();
    let first = state.pull().unwrap();
    state.pull().unwrap();
    assert_eq!(state.failed(&refusal(reason::THROTTLED)), AfterFailure::TryAgain(1));
    let again = state.pull().unwrap();
    assert_eq!((again.head, again.run), (first.head, first.run));
    assert!(acks.into_iter().all(|ack| said(ack).is_none()));
    state.check();
}

#[test]
fn a_final_refusal_fails_one_batch_and_the_rest_is_sent_again() {
    let mut state = state(1, options());
    let refused = push(&mut state, &NewRecord::new("1"));
    state.close_all();
    let next = push(&mut state, &NewRecord::new("2"));
    state.close_all();
    state.pull().unwrap();
    state.pull().unwrap();
    assert_eq!(state.failed(&refusal(reason::MALFORMED)), AfterFailure::GoOn);
    assert_eq!(said(refused).unwrap().unwrap_err().reason(), reason::MALFORMED);
    assert!(said(next).is_none() && state.has_ready());
    state.check();
}

#[test]
fn tries_are_counted_until_one_succeeds() {
    let mut state = state(1, options());
    let ack = push(&mut state, &NewRecord::new("1"));
    state.close_all();
    for attempt in 1..3 {
        state.pull().unwrap();
        assert_eq!(state.failed(&refusal(reason::DISK_FULL)), AfterFailure::TryAgain(attempt));
    }
    state.pull().unwrap();
    assert_eq!(state.failed(&refusal(reason::DISK_FULL)), AfterFailure::GoOn);
    assert_eq!(said(ack).unwrap().unwrap_err().reason(), reason::DISK_FULL);
    assert!(state.is_empty());
    state.check();
}

#[test]
fn with_nobody_to_send_to_everything_fails_after_the_last_try() {
    let mut state = state(1, options());
    let ack = push(&mut state, &NewRecord::new("1"));
    state.close_all();
    let gone = Error::new(Code::Unavailable, reason::UNREACHABLE, "refused");
    assert_eq!(state.failed(&gone), AfterFailure::TryAgain(1));
    assert_eq!(state.failed(&gone), AfterFailure::TryAgain(2));
    assert_eq!(state.failed(&gone), AfterFailure::GoOn);
    assert!(said(ack).unwrap().unwrap_err().is_unreachable());
    state.check();
}

#[test]
fn stopping_on_failure_sends_nothing_more() {
    let mut state = state(1, ProducerOptions { stop_on_failure: true, ..options() });
    let acks: Vec<Ack> = (0..3)
        .map(|_| {
            let ack = push(&mut state, &NewRecord::new("v"));
            state.close_all();
            ack
        })
        .collect();
    state.pull().unwrap();
    state.pull().unwrap();
    assert_eq!(state.failed(&refusal(reason::MALFORMED)), AfterFailure::Stop);
    let reasons: Vec<_> =
        acks.into_iter().map(|ack| said(ack).unwrap().unwrap_err().reason().to_owned()).collect();
    assert_eq!(reasons, [reason::MALFORMED, reason::PRODUCER_CLOSED, reason::PRODUCER_CLOSED]);
    assert!(matches!(state.push(&NewRecord::new("v"), clock::now), Err(NotTaken::Refused(_))));
    assert_eq!(state.take_failure().unwrap().reason(), reason::MALFORMED);
    state.check();
}

#[test]
fn an_unknown_topics_records_wait_unassigned_and_go_first() {
    let mut state = state(0, options());
    push(&mut state, &NewRecord::new("1").key("k"));
    assert!(state.is_unassigned());
    assert!(state.set_partitions(8));
    push(&mut state, &NewRecord::new("2").key("k"));
    state.close_all();
    let partitions: Vec<_> = state.ready.iter().map(|batch| batch.partition).collect();
    assert_eq!(partitions, [None, Some(murmur2::partition_of(b"k", 8))]);
    assert!(!state.set_partitions(4), "they only grow");
    state.check();
}

#[test]
fn batches_linger_and_are_due() {
    let mut state = state(2, ProducerOptions { linger: Duration::from_millis(5), ..options() });
    let begin = clock::now();
    state.push(&NewRecord::new("1").partition(0), || begin).unwrap();
    state.push(&NewRecord::new("2").partition(1), || begin + Duration::from_millis(3)).unwrap();
    assert_eq!(state.next_due(), Some(begin + Duration::from_millis(5)));
    assert!(!state.close_due(begin + Duration::from_millis(4)));
    assert!(state.close_due(begin + Duration::from_millis(5)));
    assert_eq!(state.next_due(), Some(begin + Duration::from_millis(8)));
    state.check();
}

#[test]
fn every_outcome_is_told_once() {
    let hook: super::super::OnOutcome = Arc::new(|_| ());
    let mut state = state(1, ProducerOptions { on_outcome: Some(hook), ..options() });
    for _ in 0..2 {
        push(&mut state, &NewRecord::new("v"));
        state.close_all();
        state.pull().unwrap();
    }
    state.stored(vec![append(0, 0, 1)]).unwrap();
    state.failed(&lost());
    let outcomes = state.take_outcomes();
    assert!(
        matches!(outcomes.as_slice(), [Outcome::Stored { .. }, Outcome::Failed { records: 1, .. }]),
        "{outcomes:?}"
    );
    assert!(state.take_outcomes().is_empty());
}

fn held(partitions: u32, options: ProducerOptions, producer_id: i64) -> State {
    let mut state = state(partitions, options);
    state.identify(identity(producer_id));
    state
}

fn identity(producer_id: i64) -> Identity {
    let opened =
        v1::OpenProducerResponse { producer_id, producer_epoch: 1, window_batches: 3, ..Default::default() };
    Identity::of(&opened)
}

/// Producer and sequence of the next batch that leaves, and its partition.
fn leaves(state: &mut State) -> Option<(i64, u32, u32)> {
    let message = state.pull()?;
    state.check();
    let bytes = [message.head.as_slice(), &message.run].concat();
    let request = v1::ProduceStreamRequest::decode(&bytes[..]).unwrap().append.unwrap();
    let sequence = request.producer?;
    Some((sequence.producer_id, sequence.base_sequence, request.partition?))
}

/// A batch of so many records for a partition.
fn batch(state: &mut State, partition: u32, records: u32) -> Vec<Ack> {
    let acks = (0..records).map(|_| push(state, &NewRecord::new("v").partition(partition))).collect();
    state.close_all();
    acks
}

fn gap(expected: u32) -> Error {
    let details = ErrorDetails::with_error_info(
        reason::SEQUENCE_GAP,
        "annals",
        [("expected".to_owned(), expected.to_string())],
    );
    Error::from(Status::with_error_details(Code::FailedPrecondition, "no", details))
}

#[test]
fn a_lost_answer_is_asked_for_again_under_the_same_sequence() {
    let mut state = held(2, options(), 7);
    let (first, second) = (batch(&mut state, 0, 2), batch(&mut state, 1, 3));
    batch(&mut state, 0, 1);
    let sent = [(7, 0, 0), (7, 0, 1), (7, 2, 0)];
    assert_eq!(sent.map(|_| leaves(&mut state)), sent.map(Some));
    assert_eq!(state.failed(&lost()), AfterFailure::TryAgain(1));
    assert_eq!(sent.map(|_| leaves(&mut state)), sent.map(Some));
    state.stored(vec![append(0, 5, 2)]).unwrap();
    state.stored(vec![append(1, 9, 3)]).unwrap();
    assert_eq!(first.into_iter().map(|ack| said(ack).unwrap().unwrap().offset).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(said(second.into_iter().next_back().unwrap()).unwrap().unwrap().offset, 11);
    assert_eq!(state.failed(&lost()), AfterFailure::TryAgain(1));
    assert_eq!(leaves(&mut state), Some((7, 2, 0)));
}

#[test]
fn no_more_of_a_partition_fly_than_the_server_knows_again() {
    let mut state = held(2, options(), 7);
    for _ in 0..5 {
        batch(&mut state, 0, 1);
    }
    batch(&mut state, 1, 1);
    let sent: Vec<_> = std::iter::from_fn(|| leaves(&mut state)).collect();
    assert_eq!(sent, [(7, 0, 0), (7, 1, 0), (7, 2, 0), (7, 0, 1)], "others go past a full one");
    assert!(!state.has_ready());
    state.stored(vec![append(0, 0, 1)]).unwrap();
    assert!(state.has_ready());
    assert_eq!((leaves(&mut state), leaves(&mut state)), (Some((7, 3, 0)), None));
}

#[test]
fn behind_a_refused_batch_the_next_begins_where_it_would_have() {
    let mut state = held(1, options(), 7);
    let refused = batch(&mut state, 0, 2);
    batch(&mut state, 0, 3);
    assert_eq!((leaves(&mut state), leaves(&mut state)), (Some((7, 0, 0)), Some((7, 2, 0))));
    let large = Error::from(Status::with_error_details(
        Code::InvalidArgument,
        "no",
        ErrorDetails::with_error_info("RECORD_TOO_LARGE", "annals", []),
    ));
    assert_eq!(state.failed(&large), AfterFailure::GoOn);
    assert_eq!(said(refused.into_iter().next().unwrap()).unwrap().unwrap_err().reason(), "RECORD_TOO_LARGE");
    assert_eq!(leaves(&mut state), Some((7, 0, 0)));
}

#[test]
fn what_the_server_expects_is_the_truth() {
    let mut state = held(1, options(), 7);
    batch(&mut state, 0, 1);
    assert_eq!(leaves(&mut state), Some((7, 0, 0)));
    state.stored(vec![append(0, 0, 1)]).unwrap();
    batch(&mut state, 0, 4);
    batch(&mut state, 0, 1);
    assert_eq!((leaves(&mut state), leaves(&mut state)), (Some((7, 1, 0)), Some((7, 5, 0))));
    // The topic was made anew, or a power cut took what was acked below fsync.
    assert_eq!(state.failed(&gap(0)), AfterFailure::TryAgain(1));
    assert_eq!((leaves(&mut state), leaves(&mut state)), (Some((7, 0, 0)), Some((7, 4, 0))));
}

#[test]
fn a_producer_that_has_expired_asks_for_another_id_and_gives_up_only_what_may_be_stored() {
    let mut state = held(1, options(), 7);
    let perhaps = batch(&mut state, 0, 1);
    leaves(&mut state);
    state.failed(&lost());
    let later = batch(&mut state, 0, 1);
    assert_eq!((leaves(&mut state), leaves(&mut state)), (Some((7, 0, 0)), Some((7, 1, 0))));
    let expired = Error::from(Status::with_error_details(
        Code::FailedPrecondition,
        "no",
        ErrorDetails::with_error_info(reason::PRODUCER_EXPIRED, "annals", []),
    ));
    assert_eq!(state.failed(&expired), AfterFailure::TryAgain(2));
    assert!(said(perhaps.into_iter().next().unwrap()).unwrap().unwrap_err().is_outcome_unknown());
    assert!(state.wants_identity());
    state.identify(identity(8));
    assert_eq!(leaves(&mut state), Some((8, 0, 0)));
    state.stored(vec![append(0, 1, 1)]).unwrap();
    assert_eq!(said(later.into_iter().next().unwrap()).unwrap().unwrap().offset, 1);
}

#[test]
fn when_trying_again_has_not_helped_the_outcome_is_unknown_and_what_follows_does_not_depend_on_it() {
    let mut state = held(1, options(), 7);
    let perhaps = batch(&mut state, 0, 1);
    for attempt in 1..3 {
        assert_eq!(leaves(&mut state), Some((7, 0, 0)));
        assert_eq!(state.failed(&lost()), AfterFailure::TryAgain(attempt));
    }
    batch(&mut state, 0, 1);
    leaves(&mut state);
    state.failed(&lost());
    assert!(said(perhaps.into_iter().next().unwrap()).unwrap().unwrap_err().is_outcome_unknown());
    assert!(state.wants_identity());
    state.identify(identity(8));
    assert_eq!(leaves(&mut state), Some((8, 0, 0)));
}

#[test]
fn while_a_window_is_full_the_open_batch_grows_on_and_leaves_once_there_is_room() {
    let mut state = held(1, options(), 7);
    let value = [b'x'; 60];
    for _ in 0..6 {
        push(&mut state, &NewRecord::new(&value)); // two fill a batch
    }
    assert_eq!(std::iter::from_fn(|| leaves(&mut state)).count(), 3);
    let since = clock::now();
    for _ in 0..5 {
        push(&mut state, &NewRecord::new(&value));
    }
    assert!(!state.has_ready() && state.next_due().is_none(), "nothing to send, nothing to time");
    assert!(!state.close_due(since + Duration::from_secs(1)));
    state.stored(vec![append(0, 0, 2)]).unwrap();
    state.check();
    let message = state.pull().unwrap();
    assert!(message.run.len() > 5 * 60, "all five in one");
    push(&mut state, &NewRecord::new(&value));
    assert_eq!(state.next_due(), None);
    state.close_all();
    assert!(!state.has_ready(), "a flush waits for room as well");
    state.stored(vec![append(0, 2, 2)]).unwrap();
    assert_eq!(leaves(&mut state), Some((7, 11, 0)));
}
