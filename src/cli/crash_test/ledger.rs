//! The oracle: what was acked, and whether what is read is that. Pure; bounded by what is acked between two checks and by
//! the number of producers and partitions, not by how much was written.
//!
//! ```text
//! ack, commit, attempt ----> Ledger <---- record, skipped, end   (a reading of each partition, in offset order)
//! ```
//!
//! A partition is read twice: its tail after each restart, where each ack since the last check is compared with what
//! stands at its offset; and as a whole at the end, where the bytes must be those that were read before (a digest) and
//! the producers' counters must add up.
//!
//! Two kinds of producers:
//! 1. **Streaming** (even numbers) sends again what it has no ack for, under the number of the life it is sent in. So a
//!    sequence may be there several times, in different lives, and this is explained by a lost ack; within a life once.
//! 2. **By request id** (odd numbers) repeats the very request, an event to each partition. So each is there once, and
//!    after every restart in all partitions or in none.

use std::collections::BTreeMap;

use super::{
    event::{Event, mix},
    findings::Findings,
};

/// Ranges of missing sequences kept for one producer in one partition; beyond that all are lost anyway.
const MOST_RANGES: usize = 10_000;

/// Sentences of evidence.
const MOST_EVIDENCE: usize = 8;

/// A batch whose ack came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acked {
    pub(super) producer: u32,
    pub(super) partition: u32,
    pub(super) first_sequence: u64,
    pub(super) count: u32,
    pub(super) life: u32,
    pub(super) base_offset: i64,
}

impl Acked {
    /// Offset after its last event.
    fn end(&self) -> i64 {
        self.base_offset + i64::from(self.count)
    }

    /// How many of its events have offsets from one to before another.
    fn between(&self, from: i64, to: i64) -> u64 {
        u64::try_from(self.end().min(to) - self.base_offset.max(from)).unwrap_or(0)
    }

    /// Whether this is its `nth` event.
    fn is(&self, event: &Event, nth: u32) -> bool {
        let mine = (self.producer, self.partition, self.first_sequence + u64::from(nth), self.life);
        (event.producer, event.partition, event.sequence, event.life) == mine
    }
}

/// Keeps the first few.
fn note(evidence: &mut Vec<String>, what: impl FnOnce() -> String) {
    if evidence.len() < MOST_EVIDENCE {
        evidence.push(what());
    }
}

/// What one reading of a partition has come to.
#[derive(Clone, Debug, Default)]
struct Walk {
    next_offset: i64,
    digest: u64,
    tracks: Vec<Track>,
}

/// A producer in a partition, as read.
#[derive(Clone, Debug, Default)]
struct Track {
    /// Life and sequence of its last event.
    last: Option<(u32, u64)>,
    /// One above the highest sequence seen.
    next: u64,
    /// Sequences below that were not seen: first to one above the last.
    missing: BTreeMap<u64, u64>,
}

impl Track {
    /// Takes the next event of the partition that is this producer's.
    fn take(&mut self, event: &Event, findings: &mut Findings) {
        let (last_life, last) = self.last.unwrap_or((0, 0));
        let same_life = self.last.is_some() && event.life == last_life;
        if event.life < last_life || self.forget_missing(event.sequence) {
            findings.out_of_order += 1;
        } else if event.sequence < self.next {
            let again = is_streaming(event.producer) && (!same_life || event.sequence > last);
            if again {
                findings.twice_explained += 1;
            } else {
                findings.twice += 1;
            }
        }
        if event.sequence > self.next && self.missing.len() < MOST_RANGES {
            self.missing.insert(self.next, event.sequence);
        }
        self.next = self.next.max(event.sequence + 1);
        self.last = Some((event.life.max(last_life), event.sequence));
    }

    /// `true`: it was missing until now.
    fn forget_missing(&mut self, sequence: u64) -> bool {
        let range = self.missing.range(..=sequence).next_back().map(|(from, to)| (*from, *to));
        let Some((from, to)) = range.filter(|(_, to)| sequence < *to) else { return false };
        self.missing.remove(&from);
        if from < sequence {
            self.missing.insert(from, sequence);
        }
        if sequence + 1 < to {
            self.missing.insert(sequence + 1, to);
        }
        true
    }

    /// How many of the first `acked` sequences were not seen.
    fn lost(&self, acked: u64) -> u64 {
        let missing = self.missing.iter().map(|(from, to)| (*to).min(acked).saturating_sub(*from));
        missing.sum::<u64>() + acked.saturating_sub(self.next)
    }
}

#[derive(Clone, Debug, Default)]
struct Log {
    tail: Walk,
    /// Digest of the whole as read at an earlier check: (end, digest).
    marks: BTreeMap<i64, u64>,
    /// Acks since the last check.
    pending: Vec<Acked>,
    /// One above the last sequence acked, by producer.
    acked: Vec<u64>,
    /// One above the highest offset that a consumer has read.
    read_to: i64,
}

/// A consumer in a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    acked: i64,
    attempted: i64,
}

/// What is known of one topic.
#[derive(Debug)]
pub(super) struct Ledger {
    run: u64,
    logs: Vec<Log>,
    positions: Vec<Vec<Position>>,
    /// What the tails showed.
    pub(super) findings: Findings,
    /// The first few things that were not as they should be, in words.
    pub(super) evidence: Vec<String>,
    scratch: bytes::BytesMut,
}

/// Even numbers stream, odd ones repeat by request id.
pub(super) fn is_streaming(producer: u32) -> bool {
    producer.is_multiple_of(2)
}

/// Which reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// What is new since the last check.
    Tail,
    /// All of it, from offset 0.
    Whole,
}

impl Ledger {
    pub(super) fn new(run: u64, partitions: u32, producers: u32, consumers: u32) -> Self {
        let track = |count: u32| vec![Track::default(); count as usize];
        let log = Log {
            tail: Walk { tracks: track(producers), ..Walk::default() },
            acked: vec![0; producers as usize],
            ..Log::default()
        };
        Self {
            run,
            logs: vec![log; partitions as usize],
            positions: vec![vec![Position::default(); partitions as usize]; consumers as usize],
            findings: Findings::default(),
            evidence: Vec::new(),
            scratch: bytes::BytesMut::new(),
        }
    }

    /// Where each partition ends, as last read.
    pub(super) fn ends(&self) -> Vec<i64> {
        self.logs.iter().map(|log| log.tail.next_offset).collect()
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.logs.len()).unwrap_or(u32::MAX)
    }

    /// The first sequence that a producer has no ack for.
    pub(super) fn unacked(&self, producer: u32, partition: u32) -> u64 {
        let log = self.logs.get(partition as usize);
        log.and_then(|log| log.acked.get(producer as usize)).copied().unwrap_or(0)
    }

    /// Acks that wait for the next check.
    pub(super) fn pending(&self) -> usize {
        self.logs.iter().map(|log| log.pending.len()).sum()
    }

    /// An ack came.
    pub(super) fn ack(&mut self, acked: Acked) {
        let Some(log) = self.logs.get_mut(acked.partition as usize) else { return };
        if let Some(next) = log.acked.get_mut(acked.producer as usize) {
            *next = (*next).max(acked.first_sequence + u64::from(acked.count));
        }
        log.pending.push(acked);
        self.findings.acked += u64::from(acked.count);
        self.findings.batches += 1;
    }

    /// A consumer has read up to here.
    pub(super) fn has_read(&mut self, partition: u32, next_offset: i64) {
        if let Some(log) = self.logs.get_mut(partition as usize) {
            log.read_to = log.read_to.max(next_offset);
        }
    }

    /// A consumer is about to commit.
    pub(super) fn commit_attempted(&mut self, consumer: u32, partition: u32, next_offset: i64) {
        if let Some(position) = self.position(consumer, partition) {
            position.attempted = position.attempted.max(next_offset);
        }
    }

    /// Its commit was acked.
    pub(super) fn commit_acked(&mut self, consumer: u32, partition: u32, next_offset: i64) {
        if let Some(position) = self.position(consumer, partition) {
            position.acked = position.acked.max(next_offset);
            position.attempted = position.attempted.max(next_offset);
        }
        self.findings.commits += 1;
    }

    fn position(&mut self, consumer: u32, partition: u32) -> Option<&mut Position> {
        self.positions.get_mut(consumer as usize)?.get_mut(partition as usize)
    }

    /// Where a consumer's group stands. `may_be_lowered_to`: the log's end, where a power cut may lower commits to it.
    pub(super) fn committed(
        &mut self,
        consumer: u32,
        partition: u32,
        stands: i64,
        may_be_lowered_to: Option<i64>,
    ) {
        let Some(position) = self.position(consumer, partition).copied() else { return };
        let least = may_be_lowered_to.map_or(position.acked, |end| position.acked.min(end));
        if stands < least {
            self.findings.commits_back += 1;
        }
        if stands > position.attempted {
            self.findings.commits_ahead += 1;
        }
    }

    /// Begins to read a partition.
    pub(super) fn reading(&mut self, partition: u32, pass: Pass) -> Reading<'_> {
        let log = self.logs.get_mut(partition as usize).expect("a reading is of a partition there is");
        log.pending.sort_unstable_by_key(|acked| acked.base_offset);
        let walk = match pass {
            Pass::Tail => std::mem::take(&mut log.tail),
            Pass::Whole => Walk { tracks: vec![Track::default(); log.tail.tracks.len()], ..Walk::default() },
        };
        // The tail's findings are the ledger's; the whole is told apart, or everything would count twice.
        let findings = match pass {
            Pass::Tail => std::mem::take(&mut self.findings),
            Pass::Whole => Findings::default(),
        };
        let (evidence, scratch) = (&mut self.evidence, &mut self.scratch);
        Reading { run: self.run, partition, log, walk, findings, compared: 0, evidence, scratch }
    }

    /// Acks of what was read before they came: of a request that was stored in an earlier life and repeated in the last.
    /// They do not pend any more.
    pub(super) fn take_late(&mut self, partition: u32) -> Vec<Acked> {
        let Some(log) = self.logs.get_mut(partition as usize) else { return Vec::new() };
        let read_to = log.tail.next_offset;
        log.pending.extract_if(.., |acked| acked.base_offset < read_to).collect()
    }

    /// What stands at the offset of such an ack.
    pub(super) fn compare_late(&mut self, acked: &Acked, nth: u32, value: Option<&[u8]>) {
        let event = value.and_then(|value| Event::read(value, &mut self.scratch));
        if event.as_ref().is_some_and(|event| event.run == self.run && acked.is(event, nth)) {
            self.findings.found += 1;
        } else {
            self.findings.lost += 1;
            note(&mut self.evidence, || format!("{acked:?} is answered with {event:?}"));
        }
    }

    /// Gives back what a reading of the tail found.
    pub(super) fn note(&mut self, findings: Findings) {
        self.findings = findings;
    }

    /// Requests that were to be in all partitions or in none and are in some. Called when nothing is under way.
    pub(super) fn half_requests(&self) -> u64 {
        let producers = self.logs.first().map_or(0, |log| log.tail.tracks.len());
        let ends = |producer: usize| {
            self.logs.iter().filter_map(move |log| log.tail.tracks.get(producer)).map(|track| track.next)
        };
        let odd = (1..producers).step_by(2);
        odd.filter_map(|producer| Some(ends(producer).max()? - ends(producer).min()?)).sum()
    }
}

/// One reading of one partition.
pub(super) struct Reading<'a> {
    run: u64,
    partition: u32,
    log: &'a mut Log,
    walk: Walk,
    pub(super) findings: Findings,
    /// Acks compared so far, of those that pend.
    compared: usize,
    evidence: &'a mut Vec<String>,
    scratch: &'a mut bytes::BytesMut,
}

impl Reading<'_> {
    /// Where to read on.
    pub(super) fn next_offset(&self) -> i64 {
        self.walk.next_offset
    }

    /// The next record.
    pub(super) fn record(&mut self, offset: i64, value: &[u8]) {
        if offset < self.walk.next_offset {
            self.findings.holes += 1;
            return;
        }
        self.skip_to(offset, false);
        let event = Event::read(value, self.scratch)
            .filter(|event| event.run == self.run && event.partition == self.partition);
        self.compare(offset, event.as_ref());
        self.walk.next_offset = offset + 1;
        self.findings.read += 1;
        self.findings.bytes += value.len() as u64;
        let known = event.as_ref().and_then(|event| self.walk.tracks.get_mut(event.producer as usize));
        if let (Some(event), Some(track)) = (event, known) {
            let before = self.findings;
            track.take(&event, &mut self.findings);
            if (before.twice, before.out_of_order) != (self.findings.twice, self.findings.out_of_order) {
                note(self.evidence, || format!("twice or out of order: {event:?} at offset {offset}"));
            }
            let place = u64::from(event.producer) << 32 | u64::from(event.life);
            self.walk.digest = mix(mix(self.walk.digest ^ event.sequence) ^ place);
        } else {
            self.findings.altered += 1;
            let partition = self.partition;
            note(self.evidence, || format!("offset {offset} of partition {partition} holds other bytes"));
        }
        if let Some(digest) = self.log.marks.get(&self.walk.next_offset)
            && *digest != self.walk.digest
        {
            self.findings.changed += 1;
        }
    }

    /// Offsets up to here are not there; `damaged`: the server says why.
    pub(super) fn skip_to(&mut self, offset: i64, damaged: bool) {
        let from = self.walk.next_offset;
        let skipped = u64::try_from(offset - from).unwrap_or(0);
        if skipped == 0 {
            return;
        }
        let partition = self.partition;
        note(self.evidence, || {
            let why = if damaged { "are damaged" } else { "are not there" };
            format!("offsets {from} to {} of partition {partition} {why}", offset - 1)
        });
        if damaged {
            self.findings.damaged += skipped;
        } else {
            self.findings.holes += skipped;
        }
        while let Some(acked) = self.log.pending.get(self.compared) {
            self.findings.lost += acked.between(from, offset);
            if acked.end() > offset {
                break;
            }
            self.compared += 1;
        }
        self.walk.next_offset = offset;
        self.walk.digest = mix(self.walk.digest ^ 1);
    }

    /// The partition cannot be read on: all that is known to have been there is not.
    pub(super) fn give_up(&mut self, damaged: bool) {
        let pending = self.log.pending.iter().map(Acked::end);
        let known = pending.chain(self.log.marks.keys().copied()).max().unwrap_or(0);
        self.skip_to(known.max(self.walk.next_offset), damaged);
    }

    fn compare(&mut self, offset: i64, event: Option<&Event>) {
        if let Some(acked) = self.log.pending.get(self.compared) {
            let end = acked.end();
            if offset < acked.base_offset {
                return;
            }
            let nth = u32::try_from(offset - acked.base_offset).unwrap_or(u32::MAX);
            if event.is_some_and(|event| acked.is(event, nth)) {
                self.findings.found += 1;
            } else {
                self.findings.lost += 1;
                note(self.evidence, || format!("at offset {offset} is {event:?} instead of {acked:?}"));
            }
            if offset + 1 == end {
                self.compared += 1;
                self.overlapping(end);
            }
        }
    }

    /// Acks whose place another ack had, too.
    fn overlapping(&mut self, end: i64) {
        while let Some(acked) = self.log.pending.get(self.compared).filter(|acked| acked.base_offset < end) {
            self.findings.lost += u64::from(acked.count);
            note(self.evidence, || format!("two acks have one place: {acked:?}"));
            self.compared += 1;
        }
    }

    /// The reading could not be brought to its end; what it did not come to waits for the next one.
    pub(super) fn abandon(self) -> Findings {
        self.log.pending.drain(..self.compared.min(self.log.pending.len()));
        self.log.tail = self.walk;
        self.findings
    }

    /// The partition ends here. `may_end_early`: the topic's level lets a power cut take the tail.
    pub(super) fn end_of_tail(mut self, may_end_early: bool) -> Findings {
        let rest = self.log.pending.get(self.compared..).unwrap_or_default();
        let end = self.walk.next_offset;
        let gone: u64 = rest.iter().map(|acked| acked.between(end, i64::MAX)).sum();
        if may_end_early {
            self.findings.within_level += gone;
        } else {
            if let Some(first) = rest.first() {
                note(self.evidence, || {
                    format!("partition {} ends at {end}, before {first:?}", self.partition)
                });
            }
            self.findings.lost += gone;
            if self.walk.next_offset < self.log.read_to {
                self.findings.read_then_gone +=
                    u64::try_from(self.log.read_to - self.walk.next_offset).unwrap_or(0);
            }
        }
        self.log.pending.clear();
        self.log.marks.insert(self.walk.next_offset, self.walk.digest);
        if self.log.marks.len() > 4096 {
            let mut every_second = false;
            self.log.marks.retain(|_, _| {
                every_second = !every_second;
                every_second
            });
            self.log.marks.insert(self.walk.next_offset, self.walk.digest);
        }
        self.log.tail = self.walk;
        self.findings
    }

    /// The partition ends here, and everything was read.
    pub(super) fn end_of_whole(mut self) -> Findings {
        for (track, acked) in self.walk.tracks.iter().zip(&self.log.acked) {
            self.findings.lost += track.lost(*acked);
        }
        if self.walk.next_offset < self.log.tail.next_offset {
            self.findings.changed += 1;
        }
        self.findings
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
