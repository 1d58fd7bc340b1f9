//! A read without end, pulled: nothing is read before [`Subscription::next`] is called, so what a slow reader costs is one
//! slice.
//!
//! A partition is in one of three places: in `ready`, to be looked at, in turn; registered with its publisher, which puts it
//! back through the inbox; or gone, after a failure. Nothing but `next` moves it, and between two calls there is nothing
//! that could be lost by dropping the future of one.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::watch;

use super::{
    Broker, Entered, Error, PartitionFailure, Slice, SubEvent, Subscribe, Watermark,
    catalog::Topic,
    inbox::Registrations,
    position::Cursor,
    read::{ReadRules, read},
};
use crate::{storage::CommitError, sync::Arc};

/// How often at most a filter that lets nothing through is told to be at work, for each partition.
const PROGRESS: Duration = Duration::from_millis(250);

/// One partition of a subscription.
#[derive(Debug)]
struct Part {
    cursor: Cursor,
    /// The last slice's `next_offset`; behind the cursor while a filter lets nothing through.
    told: i64,
    /// When that was, on the monotonic clock.
    told_at: Duration,
    /// The reader was told that it has everything, and has not fallen behind since.
    told_caught_up: bool,
    failed: bool,
}

impl Part {
    /// Whether it was silent long enough to say how far a filter got.
    fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.told_at) >= PROGRESS
    }

    /// Tells a slice; it begins where the one told before ended.
    fn tell(&mut self, mut slice: Slice, now: Duration) -> SubEvent {
        slice.start_offset = std::mem::replace(&mut self.told, slice.next_offset);
        self.told_at = now;
        SubEvent::Slice(slice)
    }
}

/// A topic that is followed as it grows.
#[derive(Debug)]
struct Followed {
    topic: Arc<Topic>,
}

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Part(usize),
    Topic(usize),
}

/// A read without end.
#[derive(Debug)]
pub struct Subscription {
    broker: Arc<Broker>,
    parts: Vec<Part>,
    followed: Vec<Followed>,
    ready: VecDeque<Look>,
    /// With the number that has to be durable before each is told.
    failures: VecDeque<(u64, PartitionFailure)>,
    registrations: Registrations,
    rules: ReadRules,
    max_bytes: usize,
    drain: watch::Receiver<Option<Duration>>,
    told_drain: bool,
    /// When something was said last, on the monotonic clock.
    spoke: Duration,
    _place: Entered,
}

impl Broker {
    /// Begins a read without end.
    ///
    /// # Errors
    /// The request makes no sense, or none of its partitions can be read: then the first one's error.
    pub async fn subscribe(self: &Arc<Self>, call: Subscribe) -> Result<Subscription, Error> {
        let place = self.enter_waiting()?;
        let resolved = self.resolve(&call.positions).await?;
        let mut subscription = Subscription {
            broker: Arc::clone(self),
            parts: Vec::with_capacity(resolved.cursors.len()),
            followed: Vec::new(),
            ready: VecDeque::new(),
            failures: VecDeque::new(),
            registrations: Registrations::default(),
            rules: ReadRules {
                accept: call.accept_codecs,
                skip_damaged: call.skip_damaged,
                filter: call.filter,
                until: None,
            },
            max_bytes: self.response_budget(call.max_bytes),
            drain: self.drain.subscribe(),
            told_drain: false,
            spoke: self.clock.monotonic(),
            _place: place,
        };
        for cursor in resolved.cursors {
            match cursor {
                Ok(cursor) => subscription.add(cursor),
                Err(failure) => subscription.failures.push_back((0, failure)),
            }
        }
        for topic in resolved.whole_topics {
            subscription.ready.push_back(Look::Topic(subscription.followed.len()));
            subscription.followed.push(Followed { topic });
        }
        match subscription.failures.front() {
            Some((_, first)) if subscription.parts.is_empty() => Err(first.error.clone()),
            _ => Ok(subscription),
        }
    }
}

impl Subscription {
    fn add(&mut self, cursor: Cursor) {
        self.ready.push_back(Look::Part(self.parts.len()));
        let (told, told_at) = (cursor.offset, self.broker.clock.monotonic());
        self.parts.push(Part { cursor, told, told_at, told_caught_up: false, failed: false });
    }

    /// What comes next; waits for it. `None` = no partition is left. The future may be dropped and made again.
    pub async fn next(&mut self) -> Option<SubEvent> {
        loop {
            if let Some((number, _)) = self.failures.front() {
                // If the journal is gone this is the least of the reader's troubles, and just as true.
                let _durable = self.broker.read_durable(*number).await;
                let told = self.failures.pop_front();
                self.spoke = self.broker.clock.monotonic();
                return told.map(|(_, failure)| SubEvent::PartitionError(failure));
            }
            if let Some(event) = self.now() {
                self.spoke = self.broker.clock.monotonic();
                return Some(event);
            }
            if !self.failures.is_empty() {
                continue;
            }
            if !self.ready.is_empty() {
                // A filter is at work: others get their turn, then it goes on.
                tokio::task::yield_now().await;
                continue;
            }
            if self.parts.iter().all(|part| part.failed) {
                return None;
            }
            let silent = self.broker.clock.monotonic().saturating_sub(self.spoke);
            let Some(left) = self.broker.config.heartbeat.checked_sub(silent).filter(|left| !left.is_zero())
            else {
                self.spoke = self.broker.clock.monotonic();
                return Some(self.heartbeat());
            };
            let told_drain = self.told_drain;
            let inbox = self.registrations.inbox();
            tokio::select! {
                () = inbox.changed() => {}
                () = tokio::time::sleep(left) => {}
                // The sender lives in the broker, so this is never its end.
                _changed = self.drain.changed(), if !told_drain => {}
            }
        }
    }

    /// What can be said without waiting.
    fn now(&mut self) -> Option<SubEvent> {
        if let Some(deadline) = (*self.drain.borrow()).filter(|_| !self.told_drain) {
            self.told_drain = true;
            return Some(SubEvent::Drain {
                deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            });
        }
        for index in self.registrations.inbox().take() {
            self.ready.push_back(look(index));
        }
        while let Some(next) = self.ready.pop_front() {
            let event = match next {
                Look::Part(index) => self.look_at(index),
                Look::Topic(index) => {
                    self.look_for_growth(index);
                    None
                }
            };
            if event.is_some() || !self.failures.is_empty() || self.rules.filter.is_some() {
                return event;
            }
        }
        None
    }

    fn look_at(&mut self, index: usize) -> Option<SubEvent> {
        let part = self.parts.get_mut(index).filter(|part| !part.failed)?;
        let cursor = &mut part.cursor;
        let seen = cursor.lane.readers.version();
        match read(&cursor.topic, &cursor.lane, cursor.offset, self.max_bytes, &self.rules) {
            Err(error) => {
                part.failed = true;
                self.registrations.cancel(part_index(index));
                let (topic, partition) = (cursor.topic.name().clone(), cursor.lane.partition.key().partition);
                // That a topic is gone is told once its deletion is on disk.
                let gone = matches!(error, Error::TopicNotFound { .. });
                let number = if gone { self.broker.storage.last_number() } else { 0 };
                self.failures.push_back((number, PartitionFailure { topic, partition, error }));
                None
            }
            Ok(slice) if slice.next_offset > cursor.offset => {
                cursor.offset = slice.next_offset;
                if slice.next_offset < slice.high_watermark {
                    part.told_caught_up = false;
                }
                self.ready.push_back(Look::Part(index));
                let now = self.broker.clock.monotonic();
                let news = !slice.is_empty() || !slice.gaps.is_empty();
                (news || part.is_due(now)).then(|| part.tell(slice, now))
            }
            Ok(slice) => {
                let now = self.broker.clock.monotonic();
                let readers = Arc::clone(&cursor.lane.readers);
                // Only a filter leaves something untold. How far it got is told before that this is all; later, if it is
                // too soon, the next heartbeat says it.
                if part.told < slice.next_offset && (!part.told_caught_up || part.is_due(now)) {
                    self.ready.push_back(Look::Part(index));
                    return Some(part.tell(slice, now));
                }
                if !self.registrations.wait(part_index(index), &readers, seen) {
                    self.ready.push_back(Look::Part(index));
                }
                let first_time = !std::mem::replace(&mut part.told_caught_up, true);
                first_time.then(|| caught_up(slice))
            }
        }
    }

    /// New partitions are read from their first record: all of it came after the subscription began.
    fn look_for_growth(&mut self, index: usize) {
        let Some(followed) = self.followed.get_mut(index) else { return };
        let readers = Arc::clone(&followed.topic.shared.readers);
        let seen = readers.version();
        let now =
            self.broker.catalog.get(followed.topic.name()).filter(|now| now.id() == followed.topic.id());
        // A topic that is gone says so through its partitions.
        let Some(now) = now else { return };
        if let Some(number) = now.unsettled() {
            if !self.broker.storage.is_durable(number) {
                let inbox = Arc::clone(self.registrations.inbox());
                let again = Box::new(move |durable: Result<(), CommitError>| {
                    if durable.is_ok() {
                        inbox.put(topic_index(index));
                    }
                });
                self.broker.storage.on_durable(number, again);
                return;
            }
            now.settle();
        }
        let known = std::mem::replace(&mut followed.topic, Arc::clone(&now)).lanes.len();
        let room = usize::try_from(self.broker.config.limits.max_read_partitions).unwrap_or(usize::MAX);
        for lane in now.lanes.iter().skip(known) {
            if self.parts.len() < room {
                self.add(Cursor { topic: Arc::clone(&now), lane: Arc::clone(lane), offset: 0 });
            } else {
                let why =
                    format!("the subscription has {room} partitions already; begin another for this one");
                let (topic, partition) = (now.name().clone(), lane.partition.key().partition);
                let error = Error::argument("positions", why);
                self.failures.push_back((0, PartitionFailure { topic, partition, error }));
            }
        }
        if !self.registrations.wait(topic_index(index), &readers, seen) {
            self.ready.push_back(Look::Topic(index));
        }
    }

    fn heartbeat(&self) -> SubEvent {
        let watermarks = self.parts.iter().filter(|part| !part.failed).map(|part| {
            let bounds = part.cursor.lane.partition.bounds();
            Watermark {
                topic: part.cursor.topic.name().clone(),
                topic_id: part.cursor.lane.partition.key().topic,
                partition: part.cursor.lane.partition.key().partition,
                high_watermark: bounds.high_watermark,
                next_offset: part.cursor.offset,
                leader_epoch: bounds.leader_epoch,
            }
        });
        SubEvent::Heartbeat { now_ms: self.broker.clock.wall_ms(), watermarks: watermarks.collect() }
    }
}

fn caught_up(slice: Slice) -> SubEvent {
    SubEvent::CaughtUp {
        topic: slice.topic,
        topic_id: slice.topic_id,
        partition: slice.partition,
        next_offset: slice.next_offset,
        leader_epoch: slice.leader_epoch,
    }
}

/// What an inbox calls a partition and a topic: even and odd.
fn part_index(index: usize) -> usize {
    index * 2
}

fn topic_index(index: usize) -> usize {
    index * 2 + 1
}

fn look(index: usize) -> Look {
    if index.is_multiple_of(2) { Look::Part(index / 2) } else { Look::Topic(index / 2) }
}
