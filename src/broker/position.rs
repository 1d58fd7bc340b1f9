//! From a position as a reader names it to an offset in a partition.
//!
//! Resolving reads committed offsets, so it waits until what it read is durable. Where a reader says which epoch it read
//! last, or a commit says it, a history that was cut shows here: the log's entry for that epoch ends before the reader's
//! offset.

use super::{
    Broker, Error, Few, PartitionFailure, Position, Start,
    catalog::{Lane, Topic},
    read::{first_at_time, read_error},
};
use crate::{
    state::Group,
    storage::{PartitionKey, ReadError},
    sync::Arc,
};

/// A place in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) topic: Arc<Topic>,
    pub(crate) lane: Arc<Lane>,
    pub(crate) offset: i64,
}

/// Positions, spelt out.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// One per partition asked for, in the order asked for.
    pub(crate) cursors: Few<Result<Cursor, PartitionFailure>>,
    /// Topics of which every partition was asked for.
    pub(crate) whole_topics: Vec<Arc<Topic>>,
}

/// What was asked of one partition.
struct Asked<'a> {
    topic: Arc<Topic>,
    lane: Arc<Lane>,
    start: &'a Start,
    last_epoch: Option<u32>,
    group: Option<Arc<Group>>,
}

impl Broker {
    /// Finds where each position is. Fails as a whole only if the request makes no sense.
    pub(crate) async fn resolve(&self, positions: &[Position]) -> Result<Resolved, Error> {
        self.check_positions(positions)?;
        let mut resolved =
            Resolved { cursors: Few::with_capacity(positions.len()), whole_topics: Vec::new() };
        let mut seen = Few::with_capacity(positions.len());
        let (mut number, mut refused) = (0, false);
        for position in positions {
            let failed = |error: Error| PartitionFailure {
                topic: Arc::from(position.topic.as_str()),
                partition: position.partition.unwrap_or(0),
                error,
            };
            let Some(topic) = self.catalog.get(&position.topic) else {
                refused = true;
                resolved.cursors.push(Err(failed(self.topic_not_found(&position.topic))));
                continue;
            };
            number = number.max(topic.unsettled().unwrap_or(0));
            let lanes = match position.partition.map(|partition| topic.lane(partition)) {
                None => topic.lanes.as_slice(),
                Some(Ok(lane)) => std::slice::from_ref(lane),
                Some(Err(error)) => {
                    refused = true;
                    resolved.cursors.push(Err(failed(error)));
                    continue;
                }
            };
            if position.partition.is_none() {
                resolved.whole_topics.push(Arc::clone(&topic));
            }
            let group = self.committed_group(&position.start, &mut number);
            for lane in lanes {
                seen.push((lane.partition.key(), position.topic.as_str()));
                let asked = Asked {
                    topic: Arc::clone(&topic),
                    lane: Arc::clone(lane),
                    start: &position.start,
                    last_epoch: position.last_epoch,
                    group: group.clone(),
                };
                resolved.cursors.push(asked.resolve());
            }
            self.check_spelt_out(resolved.cursors.len())?;
        }
        check_once(&mut seen)?;
        if refused {
            number = number.max(self.storage.last_number());
        }
        self.read_durable(number).await?;
        for cursor in resolved.cursors.iter().flatten() {
            cursor.topic.settle();
        }
        Ok(resolved)
    }

    fn check_spelt_out(&self, partitions: usize) -> Result<(), Error> {
        let most = self.config.limits.max_read_partitions;
        if partitions > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Error::argument("positions", format!("more than {most} partitions in one read")));
        }
        Ok(())
    }

    fn check_positions(&self, positions: &[Position]) -> Result<(), Error> {
        let most = self.config.limits.max_positions;
        if positions.is_empty() || positions.len() > usize::try_from(most).unwrap_or(usize::MAX) {
            return Err(Error::argument(
                "positions",
                format!("{} positions; 1..={most} are taken", positions.len()),
            ));
        }
        for (index, position) in positions.iter().enumerate() {
            match (&position.start, position.partition) {
                (Start::Offset(_), None) => {
                    return Err(Error::argument(format!("positions[{index}].offset"), "needs a partition"));
                }
                (Start::Offset(offset), _) if *offset < 0 => {
                    return Err(Error::argument(
                        format!("positions[{index}].offset"),
                        format!("{offset} is negative"),
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The group a position refers to. Raises `number` to what has to be durable before it is told.
    fn committed_group(&self, start: &Start, number: &mut u64) -> Option<Arc<Group>> {
        let Start::CommittedBy(group) = start else { return None };
        let groups = self.truth.groups.lock();
        let found = groups.get(group).cloned();
        // That there is none is news of the last entry, whichever that was.
        *number = (*number).max(found.as_ref().map_or(groups.number(), |group| group.number));
        found
    }
}

/// Nothing is read twice. `keys` are of all partitions asked for, with their topics' names.
fn check_once(keys: &mut [(PartitionKey, &str)]) -> Result<(), Error> {
    keys.sort_unstable();
    let twice = keys.iter().zip(keys.iter().skip(1)).find(|(one, next)| one.0 == next.0);
    twice.map_or(Ok(()), |((key, topic), _)| {
        Err(Error::argument("positions", format!("{topic}[{}] is asked for twice", key.partition)))
    })
}

impl Asked<'_> {
    fn resolve(self) -> Result<Cursor, PartitionFailure> {
        match self.offset() {
            Ok(offset) => Ok(Cursor { topic: self.topic, lane: self.lane, offset }),
            Err(error) => Err(PartitionFailure {
                topic: Arc::clone(self.topic.name()),
                partition: self.lane.partition.key().partition,
                error,
            }),
        }
    }

    fn offset(&self) -> Result<i64, Error> {
        let bounds = self.lane.partition.bounds();
        let mut last_epoch = self.last_epoch;
        let offset = match self.start {
            Start::Offset(offset) => *offset,
            Start::Earliest => bounds.log_start,
            Start::Latest => bounds.high_watermark,
            Start::LastRecords(count) => {
                bounds.high_watermark.saturating_sub((*count).into()).max(bounds.log_start)
            }
            Start::Timestamp(timestamp_ms) => {
                let found = offset_at_time(&self.lane, *timestamp_ms);
                let found =
                    found.map_err(|error| read_error(&self.topic, &self.lane, bounds.log_start, error))?;
                found.unwrap_or(bounds.high_watermark)
            }
            Start::CommittedBy(_) => {
                let key = self.lane.partition.key();
                match self.group.as_ref().and_then(|group| group.positions.get(&key)) {
                    None => bounds.log_start,
                    Some(committed) => {
                        last_epoch =
                            last_epoch.or((committed.leader_epoch > 0).then_some(committed.leader_epoch));
                        committed.next_offset
                    }
                }
            }
        };
        if let Some(epoch) = last_epoch {
            check_history(&self.topic, &self.lane, offset, epoch)?;
        }
        Ok(offset)
    }
}

/// Whether a reader at `offset`, whose last batch was of `epoch`, has read what is still there.
pub(crate) fn check_history(topic: &Topic, lane: &Lane, offset: i64, epoch: u32) -> Result<(), Error> {
    let end = lane.partition.epoch_end(epoch);
    if offset > end {
        return Err(Error::LogTruncated {
            topic: topic.name().to_string(),
            partition: lane.partition.key().partition,
            requested: offset,
            diverging: end,
        });
    }
    Ok(())
}

/// First offset whose record has this time or a later one; `None` if there is none so late.
pub(crate) fn offset_at_time(lane: &Lane, timestamp_ms: i64) -> Result<Option<i64>, ReadError> {
    let partition = &lane.partition;
    let Some(base) = partition.find_time(timestamp_ms)? else { return Ok(None) };
    let read = partition.read(base, 1, true)?;
    let within = read.batches.first().and_then(|batch| first_at_time(batch, timestamp_ms));
    Ok(Some(within.unwrap_or(base).max(base)))
}
