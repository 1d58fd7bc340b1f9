//! The three rates: how fast records are published (P), how fast groups process them (R), and how long that takes (L).
//!
//! ```text
//!   P  records that became visible: high watermarks, looked at every second and whenever somebody asks
//!   D  records handed to members of a group                        Rates::delivered, by the Consume stream
//!   R  records that a group confirmed for the first time           Rates::committed, by whatever decided the commit
//!   L  confirmed less appended = wait (appended -> delivered) + handle (delivered -> confirmed)
//! ```
//!
//! 1. All times are the broker's: append times of batches, and its clock when records were handed over and confirmed.
//!    Rates go by the monotonic clock, so a step of the wall clock bends no rate.
//! 2. The hot roads are left alone. P costs an addition per append, under a lock that is held anyway. A commit adds to
//!    counters; the append times it needs for L are read later, from a bounded queue, by [`Rates::sample`].
//! 3. L is exact for commits of up to [`MOST_LOOKS`] batches; of a longer one as many are looked at, evenly spread. Where commits
//!    are many they have fewer each, so that what L costs is bounded.
//! 4. Nothing here is kept over a restart. Counters begin at [`Rates::since_ms`]; windows that reach further back are cut.
//! 5. What a group or topic takes goes when it is deleted.

mod histogram;
mod part;
mod report;
mod series;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use annals_wire::ids::TopicId;

pub use histogram::Latency;
pub use report::{GroupStats, Stats, StatsSelection, TopicStats};
pub use series::Rate;

use histogram::Window;
use part::{Confirmed, Deliveries, Part};
use series::Series;

use super::{Broker, Slice, catalog::Lane};
use crate::{
    clock::Clock,
    storage::{Partition, PartitionKey},
    sync::{Arc, Mutex},
};

/// Batches of a commit whose append time is looked up.
const MOST_LOOKS: u64 = 64;
/// Batches that are looked up at a time, about; each commit has one at least.
const ALL_LOOKS: u64 = 8 * 1024;
/// Commits that wait to be looked at; what comes on top is not measured.
const MOST_SAMPLES: usize = 4 * 1024;
/// Between two looks at what was published.
const TICK: Duration = Duration::from_secs(1);

/// What was published to a partition.
#[derive(Debug)]
struct Published {
    seen: crate::storage::Published,
    records: Series,
    bytes: Series,
}

/// A group in a topic.
#[derive(Debug)]
struct Following {
    began: u64,
    /// Apart from the map, whose nodes keep room for more than they hold.
    parts: BTreeMap<u32, Box<Part>>,
    /// Offsets it moved forward, and back.
    advanced: Series,
    rewound: Series,
    processing: Window,
    wait: Window,
    handle: Window,
}

/// A commit whose latency is still to be measured.
#[derive(Debug)]
struct Sample {
    group: Arc<str>,
    partition: Arc<Partition>,
    confirmed: Confirmed,
    committed_ms: i64,
}

type Groups = HashMap<Arc<str>, HashMap<TopicId, Following>>;

/// Counters of this run of the broker.
#[derive(Debug)]
pub(crate) struct Rates {
    clock: Arc<dyn Clock>,
    since_ms: i64,
    topics: Mutex<HashMap<TopicId, Vec<Published>>>,
    groups: Mutex<Groups>,
    samples: Mutex<VecDeque<Sample>>,
}

impl Rates {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            since_ms: clock.wall_ms(),
            clock,
            topics: Mutex::default(),
            groups: Mutex::default(),
            samples: Mutex::default(),
        }
    }

    /// Seconds, numbered from 1.
    fn second(&self) -> u64 {
        self.clock.monotonic().as_secs() + 1
    }

    /// A slice goes out to a member.
    pub(crate) fn handed_over(&self, group: &Arc<str>, slice: &Slice) {
        let key = PartitionKey { topic: slice.topic_id, partition: slice.partition };
        self.delivered(group, key, slice.start_offset, slice.next_offset, records_in(slice));
    }

    /// Records of the offsets `first..next` were handed to a member.
    pub(super) fn delivered(&self, group: &Arc<str>, key: PartitionKey, first: i64, next: i64, records: u64) {
        if first >= next {
            return;
        }
        let (second, now_ms) = (self.second(), self.clock.wall_ms());
        let mut groups = self.groups.lock();
        let following = following(&mut groups, group, key.topic, second);
        let began = following.began;
        let part = following.parts.entry(key.partition).or_insert_with(|| Box::new(Part::at(first, began)));
        part.delivered(first, next, records, now_ms, second);
    }

    /// A group that stood at `before`, or nowhere yet, confirms everything below `next`.
    pub(crate) fn committed(&self, group: &str, partition: &Arc<Partition>, before: Option<i64>, next: i64) {
        let (second, key) = (self.second(), partition.key());
        let mut groups = self.groups.lock();
        let name = shared(&groups, group);
        let following = following(&mut groups, &name, key.topic, second);
        let confirmed = following.part(partition, before).committed(next, second);
        following.advanced.add(second, confirmed.processed + confirmed.replayed + confirmed.skipped);
        following.rewound.add(second, confirmed.rewound);
        drop(groups);
        if confirmed.processed > 0 {
            let mut samples = self.samples.lock();
            if samples.len() < MOST_SAMPLES {
                let (partition, committed_ms) = (Arc::clone(partition), self.clock.wall_ms());
                samples.push_back(Sample { group: name, partition, confirmed, committed_ms });
            }
        }
    }

    /// A group that stood at `before`, or nowhere yet, is put at `next` by somebody who moves it: no record is processed by that.
    pub(crate) fn moved(&self, group: &str, partition: &Partition, before: Option<i64>, next: i64) {
        let (second, key) = (self.second(), partition.key());
        let mut groups = self.groups.lock();
        let name = shared(&groups, group);
        let following = following(&mut groups, &name, key.topic, second);
        let (forward, back) = following.part(partition, before).moved(next);
        following.advanced.add(second, forward);
        following.rewound.add(second, back);
    }

    /// Lets go of groups and topics that are not there any more.
    fn prune(&self, group: impl Fn(&str) -> bool, topic: impl Fn(&TopicId) -> bool) {
        self.groups.lock().retain(|name, topics| {
            topics.retain(|id, _| topic(id));
            group(name)
        });
    }

    /// The group is gone.
    pub(crate) fn forget_group(&self, group: &str) {
        self.groups.lock().remove(group);
    }

    /// Groups in topics that are counted for.
    #[cfg(test)]
    pub(super) fn counted_for(&self) -> usize {
        self.groups.lock().values().map(HashMap::len).sum()
    }

    /// What was published to all topics, as of the last look.
    #[cfg(test)]
    pub(super) fn published_records(&self) -> u64 {
        self.topics.lock().values().flatten().map(|published| published.records.total()).sum()
    }

    /// Counts what became visible since the last time as published in this second. `lanes`: of every topic there is.
    fn look<'a>(&self, second: u64, lanes: impl Iterator<Item = (TopicId, &'a [Arc<Lane>])>) {
        let mut before = self.topics.lock();
        let mut now = HashMap::with_capacity(before.len());
        for (id, lanes) in lanes {
            let mut published = before.remove(&id).unwrap_or_default();
            for (index, lane) in lanes.iter().enumerate() {
                if published.len() <= index {
                    published.push(Published::from(second));
                }
                if let Some(published) = published.get_mut(index) {
                    published.look(lane.partition.published(), second);
                }
            }
            now.insert(id, published);
        }
        *before = now;
    }

    /// Measures the latency of what was confirmed since the last time. May read from the disk.
    pub(super) fn sample(&self) {
        let samples = std::mem::take(&mut *self.samples.lock());
        let looks = (ALL_LOOKS / (samples.len() as u64).max(1)).clamp(1, MOST_LOOKS);
        for sample in samples {
            let measured = sample.measure(looks);
            let second = self.second();
            let mut groups = self.groups.lock();
            let topics = groups.get_mut(&sample.group);
            let Some(following) = topics.and_then(|topics| topics.get_mut(&sample.partition.key().topic))
            else {
                continue;
            };
            for (window, measured) in [
                (&mut following.processing, measured.processing),
                (&mut following.wait, measured.wait),
                (&mut following.handle, measured.handle),
            ] {
                for (ms, weight) in measured {
                    window.record(second, ms, weight);
                }
            }
        }
    }
}

impl Published {
    fn from(second: u64) -> Self {
        let seen = crate::storage::Published::default();
        Self { seen, records: Series::from(second), bytes: Series::from(second) }
    }

    fn look(&mut self, now: crate::storage::Published, second: u64) {
        self.records.add(second, now.records.saturating_sub(self.seen.records));
        self.bytes.add(second, now.bytes.saturating_sub(self.seen.bytes));
        self.seen = now;
    }
}

/// The name as it is kept.
fn shared(groups: &Groups, name: &str) -> Arc<str> {
    groups.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name))
}

impl Following {
    /// A partition; new is one in which the group stood at `before`, or nowhere yet.
    fn part(&mut self, partition: &Partition, before: Option<i64>) -> &mut Part {
        let began = self.began;
        let begins = || Box::new(Part::at(before.unwrap_or_else(|| partition.bounds().log_start), began));
        self.parts.entry(partition.key().partition).or_insert_with(begins)
    }
}

fn following<'a>(groups: &'a mut Groups, group: &Arc<str>, topic: TopicId, second: u64) -> &'a mut Following {
    groups.entry(Arc::clone(group)).or_default().entry(topic).or_insert_with(|| Following {
        began: second,
        parts: BTreeMap::new(),
        advanced: Series::from(second),
        rewound: Series::from(second),
        processing: Window::default(),
        wait: Window::default(),
        handle: Window::default(),
    })
}

/// Lengths in milliseconds, each with how many records took so long.
#[derive(Debug, Default)]
struct Measured {
    processing: Vec<(u64, u64)>,
    wait: Vec<(u64, u64)>,
    handle: Vec<(u64, u64)>,
}

impl Sample {
    fn measure(&self, looks: u64) -> Measured {
        let mut measured = Measured::default();
        let Confirmed { first, next, processed, ref deliveries, .. } = self.confirmed;
        let whole = u64::try_from(next - first).unwrap_or(1).max(1);
        // Where a filter left records out, the rest stands for them.
        let records = |from: i64, to: i64| {
            let part = u128::from(u64::try_from(to - from).unwrap_or(0));
            let scaled = (part * u128::from(processed)).div_ceil(u128::from(whole));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let took = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let (mut at, mut looks) = (first, looks);
        while at < next {
            let Ok(Some(batch)) = self.partition.batch_at(at) else { break };
            let stride = (next - at) / i64::try_from(looks).unwrap_or(1);
            let end = batch.next_offset.max(at + stride).min(next);
            looks = (looks - 1).max(1);
            let appended = batch.append_time_ms;
            measured.processing.push((took(appended, self.committed_ms), records(at, end)));
            for (from, to, delivered) in overlaps(deliveries, at, end) {
                measured.wait.push((took(appended, delivered), records(from, to)));
                measured.handle.push((took(delivered, self.committed_ms), records(from, to)));
            }
            at = end;
        }
        measured
    }
}

/// The deliveries within `from..to`: each with where it begins and ends there, and its time.
fn overlaps(deliveries: &Deliveries, from: i64, to: i64) -> impl Iterator<Item = (i64, i64, i64)> {
    let begins = std::iter::once(i64::MIN).chain(deliveries.iter().map(|(end, _)| *end));
    deliveries.iter().zip(begins).filter_map(move |((end, delivered), begin)| {
        let (from, to) = (from.max(begin), to.min(*end));
        (from < to).then_some((from, to, *delivered))
    })
}

/// Records of a slice. Without a filter there is one for each offset that was not stepped over; with one, the headers of the
/// batches say how many are left.
fn records_in(slice: &Slice) -> u64 {
    let span = |first: i64, next: i64| u64::try_from(next.saturating_sub(first)).unwrap_or(0);
    if slice.looked_at == 0 {
        let missing: u64 = slice.gaps.iter().map(|gap| span(gap.first, gap.last.saturating_add(1))).sum();
        return span(slice.start_offset, slice.next_offset).saturating_sub(missing);
    }
    let (mut records, mut rest_of_batch) = (0, 0);
    for piece in &slice.batches {
        let mut at = 0;
        while at < piece.len() {
            let step = if rest_of_batch > 0 {
                rest_of_batch
            } else {
                let head = piece.get(at..).and_then(|bytes| annals_wire::header::decode(bytes).ok());
                // Not a batch: nothing that this broker makes.
                let Some(head) = head else { return records };
                records += u64::from(head.header.record_count);
                head.batch_len
            };
            let here = step.min(piece.len() - at);
            (at, rest_of_batch) = (at + here, step - here);
        }
    }
    records
}

impl Broker {
    /// Counts what became visible since the last time.
    pub(super) fn look_at_published(&self) {
        self.look_in(self.rates.second());
    }

    fn look_in(&self, second: u64) {
        let topics = self.catalog.all();
        self.rates.look(second, topics.iter().map(|topic| (topic.id(), topic.lanes.as_slice())));
    }

    /// Groups come and go by more than one door (a deletion, the last member, a time to live), so they are looked for.
    pub(super) fn prune_rates(&self) {
        let groups = self.truth.groups.lock();
        let topic =
            |id: &TopicId| self.storage.partition(PartitionKey { topic: *id, partition: 0 }).is_some();
        self.rates.prune(|name| groups.get(name).is_some(), topic);
    }

    /// Keeps the rates up to date until the broker is dropped. Run once, beside everything else.
    pub async fn keep_rates(self: Arc<Self>) {
        let (broker, clock) = (Arc::downgrade(&self), Arc::clone(&self.clock));
        drop(self);
        loop {
            // What is found as a second begins was published in the one before.
            let within = Duration::from_nanos(clock.monotonic().subsec_nanos().into());
            tokio::time::sleep(TICK.saturating_sub(within)).await;
            let Some(broker) = broker.upgrade() else { return };
            broker.look_in(broker.rates.second() - 1);
            broker.prune_rates();
            let sampled = tokio::task::spawn_blocking(move || broker.rates.sample()).await;
            if sampled.is_err() {
                return;
            }
        }
    }
}
