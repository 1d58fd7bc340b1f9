//! The oracle on readings made by hand: right ones, and each kind of wrong one.

use bytes::BytesMut;

use super::*;

/// Producer, sequence, life of each record of partition 0.
type Content = Vec<(u32, u64, u32)>;

fn bytes(event: &Event) -> Vec<u8> {
    let mut out = BytesMut::new();
    event.write(&mut out);
    out.to_vec()
}

fn event(partition: u32, (producer, sequence, life): (u32, u64, u32)) -> Event {
    Event { run: 1, producer, partition, sequence, life }
}

fn two_producers() -> Ledger {
    Ledger::new(1, 1, 2, 1)
}

fn acked(producer: u32, first_sequence: u64, count: u32, life: u32, base_offset: i64) -> Acked {
    Acked { producer, partition: 0, first_sequence, count, life, base_offset }
}

fn read(ledger: &mut Ledger, pass: Pass, content: &Content) -> Findings {
    let mut reading = ledger.reading(0, pass);
    let from = reading.next_offset();
    for (offset, record) in (0_i64..).zip(content).filter(|(offset, _)| *offset >= from) {
        reading.record(offset, &bytes(&event(0, *record)));
    }
    match pass {
        Pass::Tail => {
            let findings = reading.end_of_tail(false);
            ledger.note(findings);
            findings
        }
        Pass::Whole => reading.end_of_whole(),
    }
}

/// Five events of the stream, three of the other, interleaved.
fn right() -> (Ledger, Content) {
    let content =
        vec![(0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 2, 1), (1, 1, 1), (0, 3, 2), (0, 4, 2), (1, 2, 2)];
    let mut ledger = two_producers();
    for ack in [
        acked(0, 0, 2, 1, 0),
        acked(0, 2, 1, 1, 3),
        acked(1, 0, 1, 1, 2),
        acked(1, 1, 1, 1, 4),
        acked(0, 3, 2, 2, 5),
        acked(1, 2, 1, 2, 7),
    ] {
        ledger.ack(ack);
    }
    (ledger, content)
}

#[test]
fn what_is_right_is_found() {
    let (mut ledger, content) = right();
    let tail = read(&mut ledger, Pass::Tail, &content);
    assert!(tail.is_clean(), "{tail:?}");
    assert_eq!((tail.acked, tail.found, tail.read), (8, 8, 8));
    let whole = read(&mut ledger, Pass::Whole, &content);
    assert!(whole.is_clean(), "{whole:?}");
    assert_eq!(ledger.unacked(0, 0), 5);
    assert_eq!(ledger.pending(), 0);
}

#[test]
fn a_lost_ack_explains_a_stream_s_repetition_and_nothing_else_does() {
    let mut ledger = two_producers();
    ledger.ack(acked(0, 0, 1, 1, 0));
    // 1 and 2 were stored, their acks lost; sent again in life 2.
    ledger.ack(acked(0, 1, 2, 2, 3));
    let content: Content = vec![(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 1, 2), (0, 2, 2)];
    let tail = read(&mut ledger, Pass::Tail, &content);
    assert!(tail.is_clean(), "{tail:?}");
    assert_eq!((tail.twice_explained, tail.found), (2, 3));

    // The same life twice.
    let twice: Content = vec![(0, 0, 1), (0, 1, 1), (0, 1, 1)];
    assert_eq!(read(&mut two_producers(), Pass::Tail, &twice).twice, 1);
    // By request id: never twice, in whatever life.
    let twice: Content = vec![(1, 0, 1), (1, 0, 2)];
    assert_eq!(read(&mut two_producers(), Pass::Tail, &twice).twice, 1);
}

#[test]
fn what_is_missing_is_lost() {
    let (mut ledger, mut content) = right();
    content.pop();
    let tail = read(&mut ledger, Pass::Tail, &content);
    assert_eq!((tail.lost, tail.found), (1, 7));

    let (mut ledger, mut content) = right();
    content.remove(1);
    let tail = read(&mut ledger, Pass::Tail, &content);
    assert!(tail.lost >= 1 && tail.found < 7, "what comes after is elsewhere: {tail:?}");
    assert_eq!(read(&mut ledger, Pass::Whole, &content).lost, 1);
}

#[test]
fn what_vanishes_after_it_was_checked_is_lost_too() {
    let (mut ledger, mut content) = right();
    assert!(read(&mut ledger, Pass::Tail, &content).is_clean());
    content.remove(2);
    let whole = read(&mut ledger, Pass::Whole, &content);
    assert_eq!(whole.lost, 1);
    assert!(whole.changed > 0);
}

#[test]
fn another_event_in_its_place_is_seen_even_if_the_counts_are_right() {
    let (mut ledger, mut content) = right();
    assert!(read(&mut ledger, Pass::Tail, &content).is_clean());
    content.swap(1, 2);
    let whole = read(&mut ledger, Pass::Whole, &content);
    assert_eq!((whole.lost, whole.out_of_order, whole.changed), (0, 0, 1));
    let (mut ledger, mut content) = right();
    content.swap(1, 2);
    assert_eq!(read(&mut ledger, Pass::Tail, &content).lost, 2);
}

#[test]
fn order_is_that_of_the_producer() {
    let content: Content = vec![(0, 0, 1), (0, 2, 1), (0, 1, 1)];
    assert_eq!(read(&mut two_producers(), Pass::Tail, &content).out_of_order, 1);
    let content: Content = vec![(0, 0, 2), (0, 1, 1)];
    assert_eq!(read(&mut two_producers(), Pass::Tail, &content).out_of_order, 1);
}

#[test]
fn bytes_offsets_and_places_are_looked_at() {
    let mut ledger = two_producers();
    let mut reading = ledger.reading(0, Pass::Tail);
    let mut wrong = bytes(&event(0, (0, 0, 1)));
    wrong[40] ^= 1;
    reading.record(0, &wrong);
    // Of another partition.
    reading.record(1, &bytes(&event(3, (0, 0, 1))));
    // A hole, and a place given twice.
    reading.record(4, &bytes(&event(0, (0, 0, 1))));
    reading.record(4, &bytes(&event(0, (0, 1, 1))));
    let findings = reading.end_of_tail(false);
    assert_eq!((findings.altered, findings.holes), (2, 3));
}

#[test]
fn damage_that_the_server_tells_is_a_loss_of_what_was_acked_there() {
    let (mut ledger, content) = right();
    let mut reading = ledger.reading(0, Pass::Tail);
    reading.record(0, &bytes(&event(0, content[0])));
    reading.skip_to(6, true);
    for offset in 6..8 {
        reading.record(offset, &bytes(&event(0, content[usize::try_from(offset).unwrap()])));
    }
    let findings = reading.end_of_tail(false);
    assert_eq!((findings.damaged, findings.lost, findings.found, findings.holes), (5, 5, 3, 0));
}

#[test]
fn a_level_may_lose_its_tail_and_nothing_before_it() {
    let (mut ledger, content) = right();
    let mut reading = ledger.reading(0, Pass::Tail);
    for (offset, record) in (0..).zip(&content[..6]) {
        reading.record(offset, &bytes(&event(0, *record)));
    }
    let findings = reading.end_of_tail(true);
    assert!(findings.is_clean());
    assert_eq!((findings.found, findings.within_level), (6, 2));
}

#[test]
fn commits_stand_between_what_was_acked_and_what_was_asked_for() {
    let mut ledger = two_producers();
    ledger.commit_attempted(0, 0, 9);
    ledger.commit_acked(0, 0, 5);
    for (stands, back, ahead) in [(5, 0, 0), (9, 0, 0), (4, 1, 0), (10, 1, 1)] {
        ledger.committed(0, 0, stands, None);
        assert_eq!((ledger.findings.commits_back, ledger.findings.commits_ahead), (back, ahead), "{stands}");
    }
    ledger.findings = Findings::default();
    ledger.committed(0, 0, 3, Some(3));
    assert!(ledger.findings.is_clean(), "lowered to the end of a log that a power cut shortened");
}

#[test]
fn a_request_is_in_all_partitions_or_in_none() {
    let mut ledger = Ledger::new(1, 2, 2, 0);
    for (partition, sequences) in [(0, 2), (1, 1)] {
        let mut reading = ledger.reading(partition, Pass::Tail);
        for sequence in 0..sequences {
            let offset = i64::try_from(sequence).unwrap();
            reading.record(offset, &bytes(&event(partition, (1, sequence, 1))));
        }
        let findings = reading.end_of_tail(false);
        ledger.note(findings);
    }
    assert_eq!(ledger.half_requests(), 1);
}

#[test]
fn what_a_consumer_has_read_must_stay() {
    let (mut ledger, content) = right();
    ledger.has_read(0, 8);
    let mut reading = ledger.reading(0, Pass::Tail);
    for (offset, record) in (0..).zip(&content[..5]) {
        reading.record(offset, &bytes(&event(0, *record)));
    }
    assert_eq!(reading.end_of_tail(false).read_then_gone, 3);
}

#[test]
fn an_ack_that_comes_after_its_event_was_read_is_compared_too() {
    let (mut ledger, content) = right();
    assert!(read(&mut ledger, Pass::Tail, &content).is_clean());
    // Stored in life 2, the answer lost; repeated in life 3 and answered with the place it has.
    for (value, found, lost) in
        [(Some(bytes(&event(0, (1, 2, 2)))), 9, 0), (Some(bytes(&event(0, (1, 1, 1)))), 9, 1), (None, 9, 2)]
    {
        ledger.ack(acked(1, 2, 1, 2, 7));
        let late = ledger.take_late(0);
        assert_eq!((late.len(), ledger.pending()), (1, 0));
        ledger.compare_late(&late[0], 0, value.as_deref());
        assert_eq!((ledger.findings.found, ledger.findings.lost), (found, lost));
    }
}
