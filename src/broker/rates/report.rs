//! What is told of the rates.

use std::collections::HashMap;

use annals_wire::ids::TopicId;

use super::{Following, Latency, Published, Rate, Rates, series::Series};
use crate::{
    broker::{Broker, CommittedOffset, Error, RETRY_SOON, catalog::Topic, offsets::Found},
    sync::Arc,
};

/// Topics and groups told of in one answer, partitions counted one by one if they are asked for.
const MOST_ROWS: usize = 20_000;

/// What to tell of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsSelection {
    /// Topics by name; empty = all.
    pub topics: Vec<String>,
    /// Groups by name; empty = all.
    pub groups: Vec<String>,
    /// Also partition by partition.
    pub per_partition: bool,
}

/// The rates as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// The broker's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Counters begin here: when the broker started.
    pub since_ms: i64,
    /// By name.
    pub topics: Vec<TopicStats>,
    /// By group and topic.
    pub groups: Vec<GroupStats>,
}

/// What is published to a topic, or to one of its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicStats {
    /// Name.
    pub topic: Arc<str>,
    /// `None` = all of them.
    pub partition: Option<u32>,
    /// Records that became visible.
    pub published_records: Rate,
    /// Their bytes as they are stored.
    pub published_bytes: Rate,
}

/// How a group gets on in a topic, or in one of its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupStats {
    /// Group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// `None` = all in which it stands somewhere.
    pub partition: Option<u32>,
    /// Handed to members.
    pub delivered_records: Rate,
    /// Confirmed for the first time.
    pub processed_records: Rate,
    /// Confirmed again after the group was moved back.
    pub replayed_records: u64,
    /// Covered by a commit, but never handed to a member.
    pub skipped_records: u64,
    /// Offsets by which the group was moved back.
    pub rewound_records: u64,
    /// From append to confirmation. Of the whole topic only.
    pub processing: Latency,
    /// From append to delivery. Of the whole topic only.
    pub wait: Latency,
    /// From delivery to confirmation. Of the whole topic only.
    pub handle: Latency,
    /// Records between where it stands and the high watermarks.
    pub lag_records: i64,
    /// Age of the first record it has not confirmed; 0 = it has all.
    pub lag_ms: i64,
    /// When the lag is gone if it goes on changing as in the last minute; `None` = never, it grows.
    pub eta_ms: Option<i64>,
}

impl Broker {
    /// The three rates.
    ///
    /// # Errors
    /// `TopicNotFound`, `GroupNotFound`; `LimitReached` if it is too much to tell at once.
    pub async fn stats(self: &Arc<Self>, selection: StatsSelection) -> Result<Stats, Error> {
        let topics = self.selected_topics(&selection).await?;
        let groups = self.selected_groups(&selection).await?;
        let (mut found, mut number) = (Vec::new(), 0);
        for group in groups {
            let (stands, read) = self.committed(&group, &selection.topics);
            number = number.max(read);
            found.extend(stands.into_iter().map(|one| (Arc::clone(&group), one)));
        }
        if rows(&topics, &found, selection.per_partition) > MOST_ROWS {
            return Err(Error::LimitReached { what: "rows of statistics", limit: MOST_ROWS as u64 });
        }
        self.read_durable(number).await?;
        let broker = Arc::clone(self);
        // To measure a lag, and a latency, may read from the disk.
        let told = tokio::task::spawn_blocking(move || broker.tell(&topics, found, selection.per_partition));
        told.await.map_err(|_| Error::ShuttingDown { retry_delay: RETRY_SOON })
    }

    async fn selected_topics(&self, selection: &StatsSelection) -> Result<Vec<Arc<Topic>>, Error> {
        let mut topics = Vec::new();
        for name in &selection.topics {
            topics.push(self.topic(name).await?);
        }
        if selection.topics.is_empty() {
            topics = self.catalog.all();
        }
        topics.sort_by(|a, b| a.name().cmp(b.name()));
        topics.dedup_by(|a, b| a.id() == b.id());
        Ok(topics)
    }

    async fn selected_groups(&self, selection: &StatsSelection) -> Result<Vec<Arc<str>>, Error> {
        if selection.groups.is_empty() {
            return Ok(self.truth.groups.lock().names().cloned().collect());
        }
        for group in &selection.groups {
            self.get_group(group).await?;
        }
        let mut groups: Vec<Arc<str>> = selection.groups.iter().map(|group| Arc::from(&**group)).collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    fn tell(&self, topics: &[Arc<Topic>], found: Vec<(Arc<str>, Found)>, per_partition: bool) -> Stats {
        self.look_at_published();
        self.rates.sample();
        let now_ms = self.clock.wall_ms();
        let mut stands: Vec<(Arc<str>, Vec<CommittedOffset>)> = Vec::new();
        for (group, one) in found {
            let measured = one.measured(now_ms);
            match stands.last_mut() {
                Some((name, offsets))
                    if *name == group
                        && offsets.last().is_some_and(|last| last.topic_id == measured.topic_id) =>
                {
                    offsets.push(measured);
                }
                _ => stands.push((group, vec![measured])),
            }
        }
        Stats {
            now_ms,
            since_ms: self.rates.since_ms,
            topics: topics.iter().flat_map(|topic| self.rates.of_topic(topic, per_partition)).collect(),
            groups: stands
                .iter()
                .flat_map(|(group, offsets)| self.rates.of_group(group, offsets, per_partition))
                .collect(),
        }
    }
}

/// How much there is to tell.
fn rows(topics: &[Arc<Topic>], found: &[(Arc<str>, Found)], per_partition: bool) -> usize {
    let whole = |(group, one): &(Arc<str>, Found)| (Arc::clone(group), one.topic_id());
    let mut pairs: Vec<_> = found.iter().map(whole).collect();
    // In order of group and topic already.
    pairs.dedup();
    let partitions: usize = topics.iter().map(|topic| topic.lanes.len()).sum();
    topics.len() + pairs.len() + if per_partition { partitions + found.len() } else { 0 }
}

impl Rates {
    fn of_topic(&self, topic: &Topic, per_partition: bool) -> Vec<TopicStats> {
        let second = self.second();
        let mut topics = self.topics.lock();
        let published = topics.get_mut(&topic.id()).map_or(&mut [][..], Vec::as_mut_slice);
        let mut whole = TopicStats {
            topic: Arc::clone(topic.name()),
            partition: None,
            published_records: Rate::default(),
            published_bytes: Rate::default(),
        };
        let mut parts = Vec::new();
        for (partition, published) in (0..).zip(published) {
            let records = published.records.rate(second);
            let bytes = published.bytes.rate(second);
            whole.published_records = sum(whole.published_records, records);
            whole.published_bytes = sum(whole.published_bytes, bytes);
            if per_partition {
                parts.push(TopicStats {
                    topic: Arc::clone(topic.name()),
                    partition: Some(partition),
                    published_records: records,
                    published_bytes: bytes,
                });
            }
        }
        parts.insert(0, whole);
        parts
    }

    /// `offsets`: where it stands in the partitions of one topic.
    fn of_group(
        &self,
        group: &Arc<str>,
        offsets: &[CommittedOffset],
        per_partition: bool,
    ) -> Vec<GroupStats> {
        let Some(topic_id) = offsets.first().map(|first| first.topic_id) else { return Vec::new() };
        let second = self.second();
        let published = self.published(topic_id, second);
        let mut groups = self.groups.lock();
        let mut following = groups.get_mut(group).and_then(|topics| topics.get_mut(&topic_id));
        let mut rows = Vec::new();
        let mut whole: Option<GroupStats> = None;
        let mut arriving = 0.0;
        for stands in offsets {
            let part = following.as_mut().and_then(|following| following.parts.get_mut(&stands.partition));
            let mut row = GroupStats {
                group: Arc::clone(group),
                topic: Arc::clone(&stands.topic),
                partition: Some(stands.partition),
                delivered_records: Rate::default(),
                processed_records: Rate::default(),
                replayed_records: 0,
                skipped_records: 0,
                rewound_records: 0,
                processing: Latency::default(),
                wait: Latency::default(),
                handle: Latency::default(),
                lag_records: stands.lag_records,
                lag_ms: stands.lag_ms,
                eta_ms: None,
            };
            if let Some(part) = part {
                row.delivered_records = part.delivered.rate(second);
                row.processed_records = part.processed.rate(second);
                row.replayed_records = part.replayed;
                row.skipped_records = part.skipped;
                row.rewound_records = part.rewound;
            }
            let arrives = published.get(&stands.partition).copied().unwrap_or(0.0);
            arriving += arrives;
            row.eta_ms = eta(row.lag_records, arrives - row.processed_records.per_second_1m);
            whole = Some(whole.take().map_or_else(|| row.clone(), |whole| add(whole, &row)));
            if per_partition {
                rows.push(row);
            }
        }
        if let Some(mut whole) = whole {
            whole.partition = None;
            tell_whole(&mut whole, following, arriving, second);
            rows.insert(0, whole);
        }
        rows
    }

    /// What comes in each partition of a topic, records per second over the last minute.
    fn published(&self, topic: TopicId, second: u64) -> HashMap<u32, f64> {
        let mut topics = self.topics.lock();
        let Some(published) = topics.get_mut(&topic) else { return HashMap::new() };
        let rate = |published: &mut Published| published.records.rate(second).per_second_1m;
        (0..).zip(published.iter_mut().map(rate)).collect()
    }
}

fn tell_whole(whole: &mut GroupStats, following: Option<&mut Following>, arriving: f64, second: u64) {
    let mut going = 0.0;
    if let Some(following) = following {
        let minute = |series: &mut Series| series.rate(second).per_second_1m;
        going = minute(&mut following.advanced) - minute(&mut following.rewound);
        whole.processing = following.processing.latency(second);
        whole.wait = following.wait.latency(second);
        whole.handle = following.handle.latency(second);
    }
    whole.eta_ms = eta(whole.lag_records, arriving - going);
}

/// When a lag is gone that grows so many records a second.
#[expect(clippy::cast_precision_loss, reason = "a lag of more than 2^53 records may be off by one")]
#[expect(clippy::cast_possible_truncation, reason = "a float too large becomes the largest number")]
fn eta(lag: i64, grows: f64) -> Option<i64> {
    match lag {
        0 => Some(0),
        _ if grows < 0.0 => Some((lag as f64 / -grows * 1000.0) as i64),
        _ => None,
    }
}

fn add(whole: GroupStats, row: &GroupStats) -> GroupStats {
    GroupStats {
        delivered_records: sum(whole.delivered_records, row.delivered_records),
        processed_records: sum(whole.processed_records, row.processed_records),
        replayed_records: whole.replayed_records + row.replayed_records,
        skipped_records: whole.skipped_records + row.skipped_records,
        rewound_records: whole.rewound_records + row.rewound_records,
        lag_records: whole.lag_records + row.lag_records,
        lag_ms: whole.lag_ms.max(row.lag_ms),
        ..whole
    }
}

fn sum(a: Rate, b: Rate) -> Rate {
    Rate {
        total: a.total + b.total,
        per_second_1s: a.per_second_1s + b.per_second_1s,
        per_second_1m: a.per_second_1m + b.per_second_1m,
        per_second_15m: a.per_second_15m + b.per_second_15m,
    }
}
