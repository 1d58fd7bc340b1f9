//! The mouth: what a member is told, pulled. Nothing is read before it is asked for, so what a slow reader costs is one slice.
//!
//! Order of what is said: answers to commits; then what the coordinator decided, in its order; then records, partition by
//! partition in turn, as far as the credit goes. Whatever rests on an entry waits until that is durable.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use annals_wire::ids::TopicId;
use tokio::sync::watch;

use super::{
    super::{
        Broker, Entered, Error, PartitionFailure, RETRY_SOON, Slice, Watermark,
        catalog::Topic,
        inbox::Registrations,
        position::{Cursor, check_history},
        read::{ReadRules, missing, read},
    },
    coordinate::Joined,
    desk::{Desk, End, NEWS, News},
    events::{AssignedPartition, MemberEvent, Place},
    member::MemberHandle,
};
use crate::{
    metrics,
    state::Group,
    storage::{CommitError, PartitionKey},
    sync::Arc,
};

/// A partition of the member.
#[derive(Debug)]
struct Part {
    cursor: Cursor,
    /// Where the group ends here, if it does.
    until: Option<i64>,
    told_caught_up: bool,
    failed: bool,
}

/// Something to say once an entry is durable.
#[derive(Debug)]
struct Pending {
    number: u64,
    event: MemberEvent,
    /// Partitions to read once it is said.
    begins: Vec<usize>,
}

/// What there is to do now.
enum Step {
    Say(MemberEvent),
    End(Result<(), Error>),
    Wait,
}

/// What a member is told.
#[derive(Debug)]
pub struct Consumption {
    broker: Arc<Broker>,
    desk: Arc<Desk>,
    /// Slots are used again; their numbers are what the inbox calls them.
    parts: Vec<Option<Part>>,
    by_key: BTreeMap<PartitionKey, usize>,
    /// Asked for and not read any more; the member may still commit.
    handing_over: BTreeMap<PartitionKey, Place>,
    ready: VecDeque<usize>,
    pending: Option<Pending>,
    /// With the number that has to be durable before each is told.
    failures: VecDeque<(u64, PartitionFailure)>,
    registrations: Registrations,
    /// Entries whose becoming durable wakes this.
    awaited: BTreeSet<u64>,
    rules: ReadRules,
    max_bytes: usize,
    stop_at_gap: bool,
    drain: watch::Receiver<Option<Duration>>,
    told_drain: bool,
    heartbeat: Duration,
    /// When something was said last, on the monotonic clock.
    spoke: Duration,
    _place: Entered,
}

impl Consumption {
    pub(super) fn new(
        broker: &Arc<Broker>,
        desk: Arc<Desk>,
        joined: &Joined,
        rules: ReadRules,
        registrations: Registrations,
        place: Entered,
    ) -> Self {
        let settings = &joined.settings;
        let heartbeat = Duration::from_millis(settings.heartbeat_interval_ms.into());
        let event = MemberEvent::Joined {
            member_id: Arc::clone(&desk.member),
            generation: joined.generation,
            session_timeout_ms: settings.session_timeout_ms,
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            revoke_timeout_ms: settings.revoke_timeout_ms,
        };
        Self {
            broker: Arc::clone(broker),
            desk,
            parts: Vec::new(),
            by_key: BTreeMap::new(),
            handing_over: BTreeMap::new(),
            ready: VecDeque::new(),
            pending: Some(Pending { number: joined.number, event, begins: Vec::new() }),
            failures: VecDeque::new(),
            registrations,
            awaited: BTreeSet::new(),
            rules,
            max_bytes: broker.response_budget(0),
            stop_at_gap: settings.stop_at_gap,
            drain: broker.drain.subscribe(),
            told_drain: false,
            heartbeat: heartbeat.min(broker.config.heartbeat),
            spoke: broker.clock.monotonic(),
            _place: place,
        }
    }

    /// The ears' side of this member.
    pub fn handle(&self) -> MemberHandle {
        MemberHandle::new(&self.broker, &self.desk)
    }

    /// What comes next; waits for it. `None` = the member left. An error ends the membership, or the broker. The future may
    /// be dropped and made again.
    pub async fn next(&mut self) -> Option<Result<MemberEvent, Error>> {
        loop {
            if let Some(said) = self.now() {
                return said;
            }
            let silent = self.broker.clock.monotonic().saturating_sub(self.spoke);
            let Some(left) = self.heartbeat.checked_sub(silent).filter(|left| !left.is_zero()) else {
                self.spoke = self.broker.clock.monotonic();
                return Some(Ok(self.beat()));
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

    /// What can be said without waiting; `None` = nothing.
    pub fn now(&mut self) -> Option<Option<Result<MemberEvent, Error>>> {
        match self.step() {
            Step::Wait => None,
            Step::End(Ok(())) => Some(None),
            Step::End(Err(error)) => Some(Some(Err(error))),
            Step::Say(event) => {
                self.spoke = self.broker.clock.monotonic();
                Some(Some(Ok(event)))
            }
        }
    }

    fn step(&mut self) -> Step {
        for index in self.registrations.inbox().take() {
            if index != NEWS {
                self.ready.push_back(index);
            }
        }
        if let Some(number) = self.desk.ack_waits_for() {
            if self.is_durable(number) {
                let ack = self.desk.take_ack().expect("the mouth alone takes acks");
                return Step::Say(MemberEvent::Committed { commit_id: ack.commit_id, refused: ack.refused });
            }
            if self.desk.is_cut() {
                return Step::End(Err(Error::OutcomeUnknown));
            }
        }
        if self.desk.is_cut() {
            return Step::End(Err(Error::ShuttingDown { retry_delay: RETRY_SOON }));
        }
        if let Some(step) = self.end().or_else(|| self.hear_news()) {
            return step;
        }
        if let Some(deadline) = (*self.drain.borrow()).filter(|_| !self.told_drain) {
            self.told_drain = true;
            let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
            return Step::Say(MemberEvent::Drain { deadline_ms });
        }
        if let Some((number, _)) = self.failures.front()
            && self.is_durable_by(*number)
            && let Some((_, failure)) = self.failures.pop_front()
        {
            return Step::Say(MemberEvent::PartitionError(failure));
        }
        self.read_on().map_or(Step::Wait, Step::Say)
    }

    /// The end, once every commit is answered.
    fn end(&mut self) -> Option<Step> {
        let end = self.desk.ended().filter(|_| self.desk.ack_waits_for().is_none())?;
        match end {
            End::Out(error) => Some(Step::End(Err(error))),
            End::Left(number) => self.is_durable(number).then_some(Step::End(Ok(()))),
        }
    }

    /// What the coordinator decided, one after the other.
    fn hear_news(&mut self) -> Option<Step> {
        loop {
            if let Some(pending) = self.pending.take() {
                if !self.is_durable(pending.number) {
                    self.pending = Some(pending);
                    return None;
                }
                self.ready.extend(pending.begins);
                return Some(Step::Say(pending.event));
            }
            match self.desk.news()? {
                News::Assigned { number, generation, keys } => self.assigned(number, generation, &keys),
                News::Revoked { number, keys, until } => self.revoked(number, keys, until),
            }
        }
    }

    /// Whether an entry is durable; if not, the mouth is woken once it is.
    fn is_durable(&mut self, number: u64) -> bool {
        if self.is_durable_by(number) {
            self.awaited = self.awaited.split_off(&number);
            return true;
        }
        if self.awaited.insert(number) {
            let desk = Arc::clone(&self.desk);
            let wake = Box::new(move |durable: Result<(), CommitError>| match durable {
                Ok(()) | Err(CommitError::Fenced) => desk.wake(),
                Err(CommitError::Closed) => desk.cut(),
            });
            self.broker.storage.on_durable(number, wake);
        }
        false
    }

    fn is_durable_by(&self, number: u64) -> bool {
        self.broker.storage.is_durable(number)
    }

    /// Partitions were given: finds where each begins. What was taken again meanwhile is left out.
    fn assigned(&mut self, mut number: u64, generation: u32, keys: &[(PartitionKey, u32)]) {
        let group = self.broker.truth.groups.lock().get(&self.desk.group).cloned();
        let Some(group) = group else { return };
        number = number.max(group.number);
        let mut topics: BTreeMap<TopicId, Option<Arc<Topic>>> = BTreeMap::new();
        let (mut partitions, mut begins) = (Vec::with_capacity(keys.len()), Vec::with_capacity(keys.len()));
        for (key, epoch) in keys {
            let catalog = &self.broker.catalog;
            let find = || catalog.name_of(key.topic).and_then(|name| catalog.get(&name));
            let topic = topics.entry(key.topic).or_insert_with(find).clone();
            let Some(topic) = topic.filter(|_| group.membership.owns(&self.desk.member, *key, *epoch)) else {
                continue;
            };
            number = number.max(topic.unsettled().unwrap_or(0));
            let Ok(lane) = topic.lane(key.partition).cloned() else { continue };
            let place = Place { topic: Arc::clone(topic.name()), partition: key.partition };
            let mut cursor = Cursor { topic, lane, offset: 0 };
            let began = begin(&group, *key, &mut cursor);
            let bounds = cursor.lane.partition.bounds();
            partitions.push(AssignedPartition {
                place: place.clone(),
                topic_id: key.topic,
                next_offset: cursor.offset,
                leader_epoch: bounds.leader_epoch,
                assignment_epoch: *epoch,
            });
            let until = group.settings.as_ref().and_then(|settings| settings.end(*key));
            let part = Part { cursor, until, told_caught_up: false, failed: began.is_err() };
            let index = self.put(*key, part);
            match began {
                Ok(()) => begins.push(index),
                Err(error) => {
                    let Place { topic, partition } = place;
                    self.failures.push_back((number, PartitionFailure { topic, partition, error }));
                }
            }
        }
        if !partitions.is_empty() {
            self.pending =
                Some(Pending { number, event: MemberEvent::Assigned { generation, partitions }, begins });
        }
    }

    fn put(&mut self, key: PartitionKey, part: Part) -> usize {
        self.handing_over.remove(&key);
        self.desk.forget(&[key]);
        self.drop_part(key);
        let free = self.parts.iter().position(Option::is_none).unwrap_or(self.parts.len());
        match self.parts.get_mut(free) {
            Some(slot) => *slot = Some(part),
            None => self.parts.push(Some(part)),
        }
        self.by_key.insert(key, free);
        free
    }

    fn drop_part(&mut self, key: PartitionKey) -> Option<Place> {
        let index = self.by_key.remove(&key)?;
        self.registrations.cancel(index);
        let part = self.parts.get_mut(index)?.take()?;
        Some(Place { topic: Arc::clone(part.cursor.topic.name()), partition: key.partition })
    }

    /// Partitions are to be handed over, or are lost: nothing more is read of them.
    fn revoked(&mut self, number: u64, keys: Vec<PartitionKey>, until: Option<u64>) {
        let mut places = Vec::with_capacity(keys.len());
        self.desk.forget(&keys);
        for key in keys {
            let handed = self.handing_over.remove(&key);
            let Some(place) = self.drop_part(key).or(handed) else { continue };
            if until.is_some() {
                self.handing_over.insert(key, place.clone());
            }
            places.push(place);
        }
        let left = until.map_or(0, |until| until.saturating_sub(self.broker.beat.now()).max(1));
        let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX);
        if !places.is_empty() {
            let event = MemberEvent::Revoked { places, deadline_ms };
            self.pending = Some(Pending { number, event, begins: Vec::new() });
        }
    }

    /// Records, as far as the credit goes.
    fn read_on(&mut self) -> Option<MemberEvent> {
        if self.told_drain {
            return None;
        }
        for key in self.desk.resumed() {
            self.ready.extend(self.by_key.get(&key));
        }
        loop {
            let credit = usize::try_from(self.desk.credit()).unwrap_or(usize::MAX);
            if credit == 0 {
                return None;
            }
            let index = self.ready.pop_front()?;
            let event = self.look_at(index, credit.min(self.max_bytes));
            if event.is_some() {
                return event;
            }
        }
    }

    fn look_at(&mut self, index: usize, max_bytes: usize) -> Option<MemberEvent> {
        let part = self.parts.get_mut(index)?.as_mut().filter(|part| !part.failed)?;
        let cursor = &mut part.cursor;
        // Paused: looked at again when it is resumed.
        if self.desk.is_paused(cursor.lane.partition.key()) {
            return None;
        }
        let seen = cursor.lane.readers.version();
        let rules = ReadRules { until: part.until, ..self.rules.clone() };
        let mut found = read(&cursor.topic, &cursor.lane, cursor.offset, max_bytes, &rules);
        if let Err(Error::OffsetTruncated { earliest, .. }) = &found
            && !self.stop_at_gap
        {
            metrics::group_skipped(earliest.abs_diff(cursor.offset));
            found = Ok(missing(&cursor.topic, &cursor.lane, cursor.offset, *earliest));
        }
        match found {
            Err(error) => {
                part.failed = true;
                self.registrations.cancel(index);
                let (topic, partition) = (cursor.topic.name().clone(), cursor.lane.partition.key().partition);
                // That a topic is gone is told once its deletion is on disk.
                let gone = matches!(error, Error::TopicNotFound { .. });
                let number = if gone { self.broker.storage.last_number() } else { 0 };
                let failure = PartitionFailure { topic, partition, error };
                if self.is_durable(number) {
                    return Some(MemberEvent::PartitionError(failure));
                }
                self.failures.push_back((number, failure));
                None
            }
            Ok(slice) if slice.next_offset > cursor.offset => {
                cursor.offset = slice.next_offset;
                if slice.next_offset < slice.high_watermark {
                    part.told_caught_up = false;
                }
                self.ready.push_back(index);
                self.delivered(&slice);
                Some(MemberEvent::Slice(slice))
            }
            Ok(slice) => {
                if !self.registrations.wait(index, &cursor.lane.readers, seen) {
                    self.ready.push_back(index);
                }
                let first_time = !std::mem::replace(&mut part.told_caught_up, true);
                first_time.then(|| MemberEvent::CaughtUp {
                    topic: slice.topic,
                    topic_id: slice.topic_id,
                    partition: slice.partition,
                    next_offset: slice.next_offset,
                    leader_epoch: slice.leader_epoch,
                })
            }
        }
    }

    /// A slice is handed to the member.
    fn delivered(&self, slice: &Slice) {
        self.desk.take_credit(slice.len() as u64);
        self.broker.rates.handed_over(&self.desk.group, slice);
    }

    fn beat(&self) -> MemberEvent {
        let watermarks = self.parts.iter().flatten().filter(|part| !part.failed).map(|part| {
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
        MemberEvent::Heartbeat { now_ms: self.broker.clock.wall_ms(), watermarks: watermarks.collect() }
    }
}

impl Drop for Consumption {
    fn drop(&mut self) {
        self.broker.truth.sessions.lock().hang_up(&self.desk);
    }
}

/// Where a group begins in a partition. The cursor is set also if what was read there is not there any more.
fn begin(group: &Group, key: PartitionKey, cursor: &mut Cursor) -> Result<(), Error> {
    let Some(committed) = group.positions.get(&key) else {
        // A group that begins at the end has a position in all it was given.
        cursor.offset = cursor.lane.partition.bounds().log_start;
        return Ok(());
    };
    cursor.offset = committed.next_offset;
    if committed.leader_epoch > 0 {
        check_history(&cursor.topic, &cursor.lane, committed.next_offset, committed.leader_epoch)?;
    }
    Ok(())
}
