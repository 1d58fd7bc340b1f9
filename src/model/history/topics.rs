//! What changes the state: topics made, widened, deleted; offsets committed. As the broker does it: storage's change, the
//! state's entries and the request's answer in one item.

use annals_wire::{
    ids::TopicId,
    internal::{
        GroupPosition, OffsetsCommitted, RequestDone, TopicChanged, TopicCreated, TopicDeleted,
        state_entry::Body,
    },
};
use bytes::Bytes;

use super::{Life, Run};
use crate::{
    clock::Clock as _,
    model::{
        oracle::{Item, Log, PRINCIPAL},
        plan::TopicPlan,
    },
    state::{Settings, Topic, write_entry},
    storage::{Change, Class, Level, PartitionKey, PartitionSettings},
};

/// Most partitions a topic is widened to.
const WIDEST: u32 = 14;

fn settings_of(plan: &TopicPlan) -> Settings {
    Settings {
        partitions: plan.partitions,
        level: plan.level,
        segment_bytes: plan.segment_bytes,
        interval_ms: plan.interval_ms,
        interval_bytes: plan.interval_bytes,
    }
}

fn declare(topic: TopicId, settings: Settings) -> Change {
    let partitions = settings.partitions;
    let settings = PartitionSettings {
        level: settings.level,
        segment_bytes: settings.segment_bytes,
        interval_ms: settings.interval_ms,
        interval_bytes: settings.interval_bytes,
    };
    Change::Declare { topic, partitions, settings }
}

fn id_bytes(id: TopicId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

impl Run<'_> {
    pub(super) fn name(slot: usize) -> String {
        format!("t{slot}")
    }

    /// Makes the topics that are not there, if `all`; else mostly.
    pub(in crate::model) fn create_missing(&mut self, life: &mut Life, all: bool) {
        for slot in 0..self.plan.topics.len() {
            if life.state.topics.get(&Self::name(slot)).is_none() && (all || !self.rng.one_in(4)) {
                self.create(life, slot);
            }
        }
    }

    pub(super) fn create_or_widen(&mut self, life: &mut Life) {
        let slot = self.rng.below(self.plan.topics.len());
        match life.state.topics.get(&Self::name(slot)).map(|topic| (topic.id, topic.settings)) {
            None => self.create(life, slot),
            Some((id, settings)) if settings.partitions < WIDEST => {
                let wider = Settings { partitions: settings.partitions + 1, ..settings };
                let entry = TopicChanged { topic_id: id_bytes(id), settings: Some(wider.to_entry()) };
                self.submit(life, Some(declare(id, wider)), Body::TopicChanged(entry));
                self.expect_logs(id, wider);
            }
            Some(_) => {}
        }
    }

    pub(super) fn create(&mut self, life: &mut Life, slot: usize) {
        let Some(plan) = self.plan.topics.get(slot) else { return };
        self.topics += 1;
        let mut id = [0x70; 16];
        id.iter_mut().rev().zip(self.topics.to_le_bytes()).for_each(|(to, from)| *to = from);
        let settings = settings_of(plan);
        let created_ms = self.clock.wall_ms();
        let name = Self::name(slot).into();
        let topic = Topic { number: 0, id: TopicId(id), name, settings, created_ms };
        let entry: TopicCreated = topic.to_entry();
        self.submit(life, Some(declare(topic.id, settings)), Body::TopicCreated(entry));
        self.expect_logs(topic.id, settings);
    }

    /// A topic gets another level.
    pub(super) fn relevel(&mut self, life: &mut Life) {
        let slot = self.rng.below(self.plan.topics.len());
        if life.state.topics.get(&Self::name(slot)).is_some() {
            let level = self.rng.pick(&[Some(Level::Fsync), Some(Level::Interval), None]);
            self.alter(life, slot, level.unwrap_or(Level::Os));
        }
    }

    fn expect_logs(&mut self, topic: TopicId, settings: Settings) {
        for partition in 0..settings.partitions {
            let key = PartitionKey { topic, partition };
            self.oracle.logs.entry(key).or_insert_with(|| Log::new(settings.level));
        }
    }

    pub(super) fn delete(&mut self, life: &mut Life) {
        let slot = self.rng.below(self.plan.topics.len());
        self.delete_in(life, slot);
    }

    pub(super) fn delete_in(&mut self, life: &mut Life, slot: usize) {
        let Some(id) = life.state.topics.get(&Self::name(slot)).map(|topic| topic.id) else { return };
        let entry = TopicDeleted { topic_id: id_bytes(id) };
        self.submit(life, Some(Change::Remove { topic: id }), Body::TopicDeleted(entry));
    }

    /// A topic's level becomes another.
    pub(super) fn alter(&mut self, life: &mut Life, slot: usize, level: Level) {
        let Some(topic) = life.state.topics.get(&Self::name(slot)).map(|topic| (topic.id, topic.settings))
        else {
            return;
        };
        let (id, settings) = (topic.0, Settings { level, ..topic.1 });
        let entry = TopicChanged { topic_id: id_bytes(id), settings: Some(settings.to_entry()) };
        self.submit(life, Some(declare(id, settings)), Body::TopicChanged(entry));
        // A lower level counts at once, a higher one from its ack on.
        for (_, log) in self.oracle.logs.iter_mut().filter(|(key, _)| key.topic == id) {
            log.level = log.level.min(level);
        }
    }

    pub(super) fn commit_offsets(&mut self, life: &mut Life) {
        if let Some(body) = self.offsets(life) {
            self.submit(life, None, body);
        }
    }

    /// Positions of a group in one or two partitions, none beyond the high watermark.
    pub(super) fn offsets(&mut self, life: &Life) -> Option<Body> {
        let mut positions = Vec::new();
        for _ in 0..=self.rng.below(2) {
            let partition = life.partitions.get(self.rng.below(life.partitions.len()))?;
            let bounds = partition.bounds();
            let upto = usize::try_from(bounds.high_watermark).unwrap_or_default();
            positions.push(GroupPosition {
                topic_id: id_bytes(partition.key().topic),
                partition: partition.key().partition,
                next_offset: i64::try_from(if self.rng.one_in(2) { upto } else { self.rng.below(upto + 1) })
                    .ok()?,
                leader_epoch: bounds.leader_epoch,
                commit_time_ms: self.clock.wall_ms(),
                metadata: String::new(),
            });
        }
        let group = self.rng.pick(&["g", "h", "i"]).to_owned();
        Some(Body::OffsetsCommitted(OffsetsCommitted { group, positions }))
    }

    /// The answer of a request, by whose id recovery is asked whether its item is there.
    pub(super) fn request(&mut self) -> (u64, RequestDone) {
        self.requests += 1;
        let done = RequestDone {
            principal: PRINCIPAL.into(),
            request_id: self.requests.to_string(),
            time_ms: self.clock.wall_ms(),
            digest: Bytes::new(),
            result: None,
        };
        (self.requests, done)
    }

    /// Enqueues a change with its entry and its answer, and applies them.
    fn submit(&mut self, life: &mut Life, change: Option<Change>, body: Body) {
        let Ok(room) = life.storage.reserve(8192 + 1024, Class::Control) else { return };
        let (id, done) = self.request();
        let entries = [body, Body::RequestDone(done)];
        let touches = match &change {
            Some(Change::Declare { topic, .. }) => life.storage.partitions(topic),
            Some(Change::Remove { .. } | Change::State(_)) | None => Vec::new(),
        };
        let mut changes: Vec<Change> = change.into_iter().collect();
        changes.extend(entries.iter().map(|body| Change::State(write_entry(body.clone()))));
        let wait_for = match life.storage.submit(room, changes) {
            Ok(wait_for) => wait_for,
            Err(error) => return self.note(|| format!("refused, {error:?}: {:?}", entries[0])),
        };
        let last = life.storage.last_number();
        self.note(|| format!("request {id} is entry {last}: {:?}", entries[0]));
        let entries =
            entries.into_iter().zip([last - 1, last]).map(|(body, number)| (number, body)).collect();
        life.apply(&entries);
        let (id, parts) = (Some(id), Vec::new());
        let item = Item { id, entries, parts, touches, atomic: false, acked: false, given_up: false };
        self.wait(life, item, wait_for);
        life.find_partitions();
    }
}
