//! Topics: make, change, delete, look at.
//!
//! A change is one journal item: what storage must know (`Declare`, `Remove`) and what the state must know stand in the
//! same frame, so a crash leaves both or neither. Deleting takes two steps: the entry, and later, by storage and when
//! nobody reads them any more, the files.

use annals_wire::{
    ids::TopicId,
    internal::{self, request_done, state_entry::Body},
    limits::{MAX_INTERVAL_BYTES, MAX_INTERVAL_MS, MAX_SEGMENT_BYTES, MIN_INTERVAL_BYTES, MIN_SEGMENT_BYTES},
    names::check_topic_name,
};
use bytes::Bytes;

use super::{
    Broker, Error, Page, PageRequest, PartitionInfo, PartitionLeader, Principal, TopicDefaults, TopicInfo,
    TopicSettings, catalog::Topic, once::Once, page::Filling, settle::room_for,
};
use crate::{
    clock::uuid_v7,
    state::{self, Settings, Topics, write_entry},
    storage::{Change, Class, Level, PartitionSettings, Room},
    sync::{Arc, MutexGuard},
};

/// Bytes of the entries of a change of a topic, at most.
const ENTRY_BYTES: u64 = 1024;

/// A topic that is there now, and the entry to wait for.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) topic: Arc<Topic>,
    pub(super) number: u64,
}

/// What became of a request to make a topic.
#[derive(Debug)]
enum Creation {
    Made(Made),
    /// Answered before: as the topic was then.
    Before {
        number: u64,
        then: internal::TopicCreated,
    },
}

impl Broker {
    /// Settings of topics that do not say otherwise.
    pub fn topic_defaults(&self) -> TopicDefaults {
        self.config.topic_defaults
    }

    /// Makes a topic. One that is there with the settings asked for is fine. `request_id` may be empty.
    ///
    /// # Errors
    /// `TopicExists`, `InvalidName`, `InvalidArgument`, `LimitReached`, `RequestIdReused`.
    pub async fn create_topic(
        &self,
        principal: &Principal,
        name: &str,
        settings: TopicSettings,
        request_id: &str,
    ) -> Result<TopicInfo, Error> {
        let wanted = format!("{settings:?}");
        let once = Once::new(principal, request_id, &[b"create_topic", name.as_bytes(), wanted.as_bytes()])?;
        match self.create(name, settings, once.as_ref()).await? {
            Creation::Made(made) => {
                self.written(made.number).await?;
                Ok(info(&made.topic))
            }
            Creation::Before { number, then } => {
                self.written(number).await?;
                let then = state::Topic::from_entry(number, &then)
                    .map_err(|why| Error::argument("request_id", why))?;
                let now = self.catalog.get(&then.name).filter(|topic| topic.id() == then.id);
                Ok(now.map_or_else(|| as_it_was(&then), |topic| info(&topic)))
            }
        }
    }

    /// Makes a topic that a produce names, with default settings.
    pub(super) async fn auto_create(&self, name: &str) -> Result<Made, Error> {
        match self.create(name, TopicSettings::default(), None).await? {
            Creation::Made(made) => Ok(made),
            Creation::Before { .. } => unreachable!("only a request with an id was answered before"),
        }
    }

    async fn create(&self, name: &str, asked: TopicSettings, once: Option<&Once>) -> Result<Creation, Error> {
        check_name("topic", name)?;
        let settings = self.new_settings(&asked)?;
        let extra = once.map_or(0, Once::entry_len);
        let room = self.room(room_for(2 * ENTRY_BYTES + extra, 3), Class::Control).await?;
        match self.decide_create(room, name, &asked, settings, once) {
            Ok(creation) => Ok(creation),
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_create(
        &self,
        room: Room,
        name: &str,
        asked: &TopicSettings,
        settings: Settings,
        once: Option<&Once>,
    ) -> Result<Creation, Error> {
        let mut requests = once.map(|_| self.truth.requests.lock());
        if let Some((once, requests)) = once.zip(requests.as_deref())
            && let Some(seen) = once.seen(requests)?
        {
            let Some(request_done::Result::TopicCreated(then)) = seen.done.result.clone() else {
                return Err(Error::argument("request_id", "belongs to another kind of request"));
            };
            return Ok(Creation::Before { number: seen.number, then });
        }
        let mut topics = self.truth.topics.lock();
        let mut changes = Vec::with_capacity(3);
        let topic = if let Some(there) = topics.get(name) {
            differs(there, asked)
                .map_or(Ok(()), |differs| Err(Error::TopicExists { topic: name.to_owned(), differs }))?;
            Arc::clone(there)
        } else {
            self.check_room_for_topics(&topics, settings.partitions)?;
            let id = TopicId(uuid_v7(&*self.clock));
            let created_ms = self.clock.wall_ms();
            let topic = state::Topic { number: 0, id, name: Arc::from(name), settings, created_ms };
            changes.push(declare(&topic));
            changes.push(Change::State(write_entry(Body::TopicCreated(topic.to_entry()))));
            Arc::new(topic)
        };
        let is_new = !changes.is_empty();
        let done = once.map(|once| {
            let result = request_done::Result::TopicCreated(topic.to_entry());
            once.entry(self.clock.wall_ms(), result)
        });
        changes.extend(done.iter().map(|done| Change::State(write_entry(done.clone()))));
        if changes.is_empty() {
            let shown = self.shown(name, &topics);
            return Ok(Creation::Made(Made { number: topic.number, topic: shown }));
        }
        let number = self.enqueue(room, changes)?;
        let own_number = number - u64::from(done.is_some());
        if let Some((requests, done)) = requests.as_deref_mut().zip(done) {
            requests.apply(number, &done);
        }
        if is_new {
            apply(&mut topics, own_number, &Body::TopicCreated(topic.to_entry()));
            let made = topics.get(name).expect("just made");
            self.catalog.put(made, &self.storage);
            self.keeper.topics_changed();
        }
        Ok(Creation::Made(Made { number: number.max(topic.number), topic: self.shown(name, &topics) }))
    }

    /// The picture of a topic that is there. The lock shows that it cannot go.
    fn shown(&self, name: &str, _topics: &MutexGuard<'_, Topics>) -> Arc<Topic> {
        self.catalog
            .get(name)
            .expect("the catalog shows every topic of the state, changed under the same lock")
    }

    fn check_room_for_topics(&self, topics: &Topics, more_partitions: u32) -> Result<(), Error> {
        let limits = &self.config.limits;
        if topics.len() as u64 >= u64::from(limits.max_topics) {
            return Err(Error::LimitReached { what: "topics", limit: limits.max_topics.into() });
        }
        self.check_room_for_partitions(topics, more_partitions)
    }

    fn check_room_for_partitions(&self, topics: &Topics, more: u32) -> Result<(), Error> {
        let limit = u64::from(self.config.limits.max_partitions);
        if topics.partitions() + u64::from(more) > limit {
            return Err(Error::LimitReached { what: "partitions of all topics", limit });
        }
        Ok(())
    }

    fn new_settings(&self, asked: &TopicSettings) -> Result<Settings, Error> {
        let defaults = &self.config.topic_defaults;
        let settings = Settings {
            partitions: asked.partitions.unwrap_or(defaults.partitions),
            level: asked.level.unwrap_or(defaults.level),
            segment_bytes: asked.segment_bytes.unwrap_or(defaults.segment_bytes),
            interval_ms: asked.interval_ms.unwrap_or(defaults.interval_ms),
            interval_bytes: asked.interval_bytes.unwrap_or(defaults.interval_bytes),
        };
        self.check_settings(&settings)?;
        Ok(settings)
    }

    fn check_settings(&self, settings: &Settings) -> Result<(), Error> {
        let ranges = [
            ("partitions", settings.partitions.into(), 1, self.config.limits.max_topic_partitions.into()),
            ("segment_bytes", settings.segment_bytes, MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES),
            ("interval_ms", settings.interval_ms.into(), 1, MAX_INTERVAL_MS.into()),
            ("interval_bytes", settings.interval_bytes, MIN_INTERVAL_BYTES, MAX_INTERVAL_BYTES),
        ];
        for (field, value, least, most) in ranges {
            if value < least || value > most {
                return Err(Error::argument(field, format!("{value} is not within {least}..={most}")));
            }
        }
        Ok(())
    }

    /// Changes settings; what is `None` stays as it is. Partitions only grow, and growing moves keys to other partitions.
    ///
    /// # Errors
    /// `TopicNotFound`, `InvalidArgument`, `LimitReached`, `PartitionFenced`: only a restart makes it fit for `fsync`.
    pub async fn update_topic(&self, name: &str, asked: TopicSettings) -> Result<TopicInfo, Error> {
        // A raise enters what its partitions hold.
        let held = self.catalog.get(name).filter(|_| asked.level == Some(Level::Fsync));
        let entries = 2 + held.map_or(0, |topic| topic.partitions() as usize);
        let room = self.room(room_for(2 * ENTRY_BYTES, entries), Class::Control).await?;
        match self.decide_update(room, name, &asked) {
            Ok(made) => {
                self.written(made.number).await?;
                Ok(info(&made.topic))
            }
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_update(&self, room: Room, name: &str, asked: &TopicSettings) -> Result<Made, Error> {
        let mut topics = self.truth.topics.lock();
        let before = Arc::clone(topics.get(name).ok_or_else(|| self.topic_not_found(name))?);
        let settings = Settings {
            partitions: asked.partitions.unwrap_or(before.settings.partitions),
            level: asked.level.unwrap_or(before.settings.level),
            segment_bytes: asked.segment_bytes.unwrap_or(before.settings.segment_bytes),
            interval_ms: asked.interval_ms.unwrap_or(before.settings.interval_ms),
            interval_bytes: asked.interval_bytes.unwrap_or(before.settings.interval_bytes),
        };
        if settings == before.settings {
            return Ok(Made { number: before.number, topic: self.shown(name, &topics) });
        }
        let Some(more) = settings.partitions.checked_sub(before.settings.partitions) else {
            let why = format!("partitions only grow; topic {name:?} has {}", before.settings.partitions);
            return Err(Error::argument("partitions", why));
        };
        self.check_settings(&settings)?;
        self.check_room_for_partitions(&topics, more)?;
        let body = Body::TopicChanged(internal::TopicChanged {
            topic_id: Bytes::copy_from_slice(before.id.as_bytes()),
            settings: Some(settings.to_entry()),
        });
        let after = state::Topic { settings, ..state::Topic::clone(&before) };
        let number = self.enqueue(room, vec![declare(&after), Change::State(write_entry(body.clone()))])?;
        apply(&mut topics, number, &body);
        let changed = topics.get(name).expect("just changed");
        self.keeper.topics_changed();
        Ok(Made { number, topic: self.catalog.put(changed, &self.storage) })
    }

    /// Deletes a topic and what was committed in it; only the one with this id, if one is named.
    ///
    /// # Errors
    /// `TopicNotFound`, `TopicReplaced`.
    pub async fn delete_topic(&self, name: &str, topic_id: Option<TopicId>) -> Result<(), Error> {
        let room = self.room(room_for(ENTRY_BYTES, 2), Class::Control).await?;
        match self.decide_delete(room, name, topic_id) {
            Ok(number) => self.written(number).await,
            Err(error) => self.refuse(error).await,
        }
    }

    fn decide_delete(&self, room: Room, name: &str, topic_id: Option<TopicId>) -> Result<u64, Error> {
        let mut groups = self.truth.groups.lock();
        let mut topics = self.truth.topics.lock();
        let id = topics.get(name).ok_or_else(|| self.topic_not_found(name))?.id;
        if let Some(meant) = topic_id.filter(|meant| *meant != id) {
            return Err(Error::TopicReplaced { topic: name.to_owned(), meant, now: id });
        }
        let body =
            Body::TopicDeleted(internal::TopicDeleted { topic_id: Bytes::copy_from_slice(id.as_bytes()) });
        let changes = vec![Change::Remove { topic: id }, Change::State(write_entry(body.clone()))];
        let number = self.enqueue(room, changes)?;
        groups.apply(number, &body);
        apply(&mut topics, number, &body);
        self.catalog.take(name, number);
        self.keeper.topics_changed();
        Ok(number)
    }

    /// One topic.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn get_topic(&self, name: &str) -> Result<TopicInfo, Error> {
        Ok(info(&*self.topic(name).await?))
    }

    /// Topics in order of name.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub async fn list_topics(&self, request: PageRequest) -> Result<Page<TopicInfo>, Error> {
        let mut page = Filling::new(&request)?;
        let (shown, number) = self.page_of_topics(&request, &mut page);
        self.read_durable(number).await?;
        let items = shown.iter().map(|topic| info(topic)).collect();
        Ok(Page { items, next_page_token: page.next_page_token() })
    }

    /// What goes on a page, and the number of the newest entry that says so.
    fn page_of_topics(&self, request: &PageRequest, page: &mut Filling) -> (Vec<Arc<Topic>>, u64) {
        let bytes = |topic: &state::Topic| topic.name.len() + 96 + 40 * topic.settings.partitions as usize;
        let topics = self.truth.topics.lock();
        let shown = topics
            .page(&request.page_token, &request.prefix)
            .take_while(|topic| page.takes(&topic.name, bytes(topic)))
            .map(|topic| self.shown(&topic.name, &topics))
            .collect();
        (shown, topics.number())
    }

    /// Who leads: this broker, everything. No names = all topics.
    ///
    /// # Errors
    /// `TopicNotFound`.
    pub async fn metadata(&self, names: &[String]) -> Result<Vec<PartitionLeader>, Error> {
        let mut topics = Vec::with_capacity(names.len());
        for name in names {
            topics.push(self.topic(name).await?);
        }
        if names.is_empty() {
            topics = self.catalog.all();
            self.read_durable(self.catalog.number()).await?;
        }
        topics.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let leader_epoch = self.storage.epoch();
        let leaders = topics.iter().flat_map(|topic| {
            (0..topic.partitions()).map(|partition| PartitionLeader {
                topic: Arc::clone(topic.name()),
                topic_id: topic.id(),
                partition,
                leader_epoch,
            })
        });
        Ok(leaders.collect())
    }
}

/// Checks a name that is about to be made.
pub(super) fn check_name(field: &'static str, name: &str) -> Result<(), Error> {
    check_topic_name(name).map_err(|error| Error::InvalidName {
        field,
        name: name.chars().take(64).collect(),
        why: error.to_string(),
    })
}

fn apply(topics: &mut Topics, number: u64, body: &Body) {
    topics.apply(number, body).expect("decided from this very state, under its lock");
}

fn declare(topic: &state::Topic) -> Change {
    let settings = topic.settings;
    Change::Declare {
        topic: topic.id,
        partitions: settings.partitions,
        settings: PartitionSettings {
            level: settings.level,
            segment_bytes: settings.segment_bytes,
            interval_ms: settings.interval_ms,
            interval_bytes: settings.interval_bytes,
        },
    }
}

/// The first setting asked for that the topic does not have.
fn differs(there: &state::Topic, asked: &TopicSettings) -> Option<String> {
    fn one<T: PartialEq + std::fmt::Debug>(name: &str, asked: Option<T>, there: &T) -> Option<String> {
        let asked = asked.filter(|asked| asked != there)?;
        Some(format!("{name} is {there:?}, not {asked:?}"))
    }
    let settings = &there.settings;
    one("partitions", asked.partitions, &settings.partitions)
        .or_else(|| one("durability", asked.level, &settings.level))
        .or_else(|| one("segment_bytes", asked.segment_bytes, &settings.segment_bytes))
        .or_else(|| one("interval_ms", asked.interval_ms, &settings.interval_ms))
        .or_else(|| one("interval_bytes", asked.interval_bytes, &settings.interval_bytes))
}

fn described(topic: &state::Topic, partitions: Vec<PartitionInfo>) -> TopicInfo {
    let settings = topic.settings;
    TopicInfo {
        name: Arc::clone(&topic.name),
        topic_id: topic.id,
        created_ms: topic.created_ms,
        level: settings.level,
        segment_bytes: settings.segment_bytes,
        interval_ms: settings.interval_ms,
        interval_bytes: settings.interval_bytes,
        partitions,
    }
}

fn info(topic: &Topic) -> TopicInfo {
    let partition = |lane: &Arc<super::catalog::Lane>| {
        let bounds = lane.partition.bounds();
        PartitionInfo {
            partition: lane.partition.key().partition,
            log_start_offset: bounds.log_start,
            high_watermark: bounds.high_watermark,
            bytes: lane.partition.bytes(),
            leader_epoch: bounds.leader_epoch,
        }
    };
    described(&topic.state, topic.lanes.iter().map(partition).collect())
}

/// A topic that is gone, as it was when it was made: empty.
fn as_it_was(topic: &state::Topic) -> TopicInfo {
    let empty = |partition| PartitionInfo {
        partition,
        log_start_offset: 0,
        high_watermark: 0,
        bytes: 0,
        leader_epoch: 0,
    };
    described(topic, (0..topic.settings.partitions).map(empty).collect())
}
