//! Reading from many partitions at once, waiting if there is nothing.
//!
//! A fetch looks at each of its partitions once, then only at those that had news. What it has read it keeps, so nothing is
//! read twice while it waits for `min_bytes`.

use std::time::Duration;

use super::{
    Broker, Error, Fetch, Fetched, Few, PartitionFailure, Slice,
    inbox::Registrations,
    position::Cursor,
    read::{ReadRules, read, standing},
};
use crate::storage::Runs;

/// What a slice takes in an answer beside its batches and the topic's name.
const SLICE_BYTES: usize = 128;

/// Bytes of the log that one fetch holds a filter to, in all its partitions; then it answers with how far it got.
const LOOK_BYTES: usize = 64 << 20;

/// What a fetch does next: a pure value of what it has, what it wants and what time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is enough, or no more time.
    Answer,
    /// Wait for news, at most so long.
    Wait(Duration),
}

/// What a fetch waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) min_bytes: usize,
    /// On the monotonic clock.
    pub(crate) deadline: Duration,
}

impl Patience {
    /// `bytes`: read so far; `settled`: something else makes the answer worth giving, a failure or the end of the server.
    pub(crate) fn next(&self, bytes: usize, settled: bool, now: Duration) -> Step {
        match self.deadline.checked_sub(now) {
            Some(left) if !left.is_zero() && bytes < self.min_bytes && !settled => Step::Wait(left),
            _ => Step::Answer,
        }
    }
}

/// One partition of a fetch.
#[derive(Debug)]
enum Part {
    Reading { cursor: Cursor, slice: Option<Slice> },
    Failed(PartitionFailure),
}

struct Poll {
    parts: Few<Part>,
    registrations: Registrations,
    rules: ReadRules,
    budget: usize,
    bytes: usize,
    /// Bytes that a filter was held to.
    looked_at: usize,
    /// Waiting would bring nothing more: a partition failed, the next batch does not fit, or enough was looked at.
    settled: bool,
    topic_gone: bool,
    /// Whether to ask for news where there is nothing.
    waits: bool,
}

impl Broker {
    /// Reads. Partitions that cannot answer are told beside those that can.
    ///
    /// # Errors
    /// The request makes no sense, or none of its partitions could answer: then the first one's error.
    pub async fn fetch(&self, call: Fetch) -> Result<Fetched, Error> {
        let limits = &self.config.limits;
        let max_wait = call.max_wait.min(Duration::from_millis(limits.max_wait_ms.into()));
        let deadline = self.clock.monotonic() + max_wait;
        let resolved = self.resolve(&call.positions).await?;
        let _place = if max_wait.is_zero() { None } else { Some(self.enter_waiting()?) };
        let mut poll = Poll::new(resolved.cursors, self.response_budget(call.max_bytes), !max_wait.is_zero());
        poll.rules = ReadRules {
            accept: call.accept_codecs,
            skip_damaged: call.skip_damaged,
            filter: call.filter.clone(),
            until: None,
        };
        let min_bytes = usize::try_from(call.min_bytes).unwrap_or(usize::MAX).clamp(1, poll.budget);
        let patience = Patience { min_bytes, deadline };
        let mut draining = self.drain.subscribe();
        // Whose turn it is to be read first is drawn: no caller's rhythm can starve a partition.
        let count = poll.parts.len();
        let first = if count > 1 { self.clock.random_u64() % count as u64 } else { 0 };
        let first = usize::try_from(first).unwrap_or(0);
        poll.look((first..count).chain(0..first)).await;
        loop {
            let settled = poll.settled || draining.borrow_and_update().is_some();
            match patience.next(poll.bytes, settled, self.clock.monotonic()) {
                Step::Answer => {
                    // That a topic is gone is told once its deletion is on disk.
                    if poll.topic_gone {
                        self.read_durable(self.storage.last_number()).await?;
                    }
                    return poll.answer();
                }
                Step::Wait(left) => {
                    let inbox = poll.registrations.inbox();
                    tokio::select! {
                        () = inbox.changed() => {}
                        () = tokio::time::sleep(left) => {}
                        // The sender lives in the broker, so this is never its end.
                        _changed = draining.changed() => {}
                    }
                    let news = poll.registrations.inbox().take();
                    poll.look(news.into_iter()).await;
                }
            }
        }
    }

    /// Bytes an answer may take.
    pub(super) fn response_budget(&self, asked: u32) -> usize {
        let limits = &self.config.limits;
        let asked = if asked == 0 { limits.default_response_bytes } else { asked };
        usize::try_from(asked.min(limits.max_response_bytes)).unwrap_or(usize::MAX)
    }
}

impl Poll {
    fn new(cursors: Few<Result<Cursor, PartitionFailure>>, budget: usize, waits: bool) -> Self {
        let mut framing = 0;
        let mut settled = false;
        let part = |cursor: Result<Cursor, PartitionFailure>| match cursor {
            Ok(cursor) => {
                framing += SLICE_BYTES + cursor.topic.name().len();
                Part::Reading { cursor, slice: None }
            }
            Err(failure) => {
                settled = true;
                Part::Failed(failure)
            }
        };
        let parts = cursors.into_iter().map(part).collect();
        Self {
            parts,
            registrations: Registrations::default(),
            rules: ReadRules::default(),
            budget: budget.saturating_sub(framing).max(1),
            bytes: 0,
            looked_at: 0,
            settled,
            topic_gone: false,
            waits,
        }
    }

    /// Reads these partitions as far as there is room. A filter can make that long: others get their turn in between.
    async fn look(&mut self, indexes: impl Iterator<Item = usize>) {
        for index in indexes {
            while self.look_once(index) {
                if self.rules.filter.is_some() {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Reads on in a partition; false = there is nothing more to read in it, or no room for it.
    fn look_once(&mut self, index: usize) -> bool {
        let Some(part) = self.parts.get_mut(index) else { return false };
        let Part::Reading { cursor, slice } = part else { return false };
        let enough = self.looked_at >= LOOK_BYTES;
        let left = if enough { 0 } else { self.budget.saturating_sub(self.bytes) };
        self.settled |= enough;
        if left == 0 && slice.is_some() {
            return false;
        }
        let seen = cursor.lane.readers.version();
        let found = match left {
            // No room, but it still says where it stands.
            0 => standing(&cursor.topic, &cursor.lane, cursor.offset),
            _ => read(&cursor.topic, &cursor.lane, cursor.offset, left, &self.rules),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.settled = true;
                self.topic_gone |= matches!(error, Error::TopicNotFound { .. });
                // What was read before the failure is good; the failure comes again with the next read.
                if slice.as_ref().is_none_or(Slice::is_empty) {
                    let (topic, partition) =
                        (cursor.topic.name().clone(), cursor.lane.partition.key().partition);
                    *part = Part::Failed(PartitionFailure { topic, partition, error });
                }
                return false;
            }
        };
        if found.len() > left && self.bytes > 0 {
            self.settled = true;
            slice.get_or_insert_with(|| nothing(found));
            return false;
        }
        let moved = found.next_offset > cursor.offset;
        cursor.offset = found.next_offset;
        self.bytes += found.len();
        self.looked_at += found.looked_at;
        match slice {
            None => *slice = Some(found),
            Some(slice) => extend(slice, found),
        }
        moved || (self.waits && left > 0 && !self.registrations.wait(index, &cursor.lane.readers, seen))
    }

    fn answer(self) -> Result<Fetched, Error> {
        let mut fetched = Fetched { slices: Few::with_capacity(self.parts.len()), errors: Vec::new() };
        for part in self.parts {
            match part {
                Part::Reading { slice: Some(slice), .. } => fetched.slices.push(slice),
                Part::Reading { slice: None, .. } => {}
                Part::Failed(failure) => fetched.errors.push(failure),
            }
        }
        match fetched.errors.first() {
            Some(first) if fetched.slices.is_empty() => Err(first.error.clone()),
            _ => Ok(fetched),
        }
    }
}

/// The same place, with nothing read.
fn nothing(slice: Slice) -> Slice {
    Slice { next_offset: slice.start_offset, gaps: Vec::new(), batches: Runs::new(), ..slice }
}

/// What was read next in the same partition.
fn extend(slice: &mut Slice, found: Slice) {
    slice.high_watermark = found.high_watermark;
    slice.log_start_offset = found.log_start_offset;
    slice.next_offset = found.next_offset;
    slice.looked_at += found.looked_at;
    slice.gaps.extend(found.gaps);
    slice.batches.extend(found.batches);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_only_for_what_can_still_come_in_time() {
        let second = Duration::from_secs(1);
        let patience = Patience { min_bytes: 10, deadline: 5 * second };
        assert_eq!(patience.next(0, false, second), Step::Wait(4 * second));
        assert_eq!(patience.next(9, false, second), Step::Wait(4 * second));
        assert_eq!(patience.next(10, false, second), Step::Answer);
        assert_eq!(patience.next(0, true, second), Step::Answer, "a failure is an answer");
        assert_eq!(patience.next(0, false, 5 * second), Step::Answer);
        assert_eq!(patience.next(0, false, 6 * second), Step::Answer);
    }
}
