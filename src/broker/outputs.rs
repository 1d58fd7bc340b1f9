//! The outputs of a read-process-write step, sorted into one batch for each partition.
//!
//! Outputs for the same partition become one batch, in their order: a frame holds a partition's batches in a row, and a
//! caller that makes one output for each record it read need not group them.
//!
//! ```text
//!   outputs   0: [a b c]    1: [d]    2: [e f]
//!                 |  `-----. |         |  |
//!   batches   t[0]: a d e  |           |  |      a share says: from record `first` of a batch on, so many
//!             t[3]: b c <--'           |  |
//!             u[1]: f <----------------+--'
//! ```

use std::collections::BTreeMap;

use annals_wire::{
    header::BATCH_PREFIX_LEN,
    internal::{BatchDone, ProduceDone, StepDone},
    request::ScannedOutput,
};
use bytes::Bytes;

use super::{
    Error, Few, Limits, PartitionAppend,
    catalog::{Lane, Topic},
    gather::{Part, Request},
};
use crate::{
    storage::{Append, Appended, PartitionKey},
    sync::Arc,
};

/// One batch to store.
#[derive(Debug)]
pub(super) struct OutputBatch {
    topic: Arc<Topic>,
    lane: Arc<Lane>,
    part: Part,
}

/// Where records of an output go.
#[derive(Debug)]
struct Share {
    /// Index of the batch.
    batch: usize,
    /// The first of them is this record of the batch.
    first: u32,
    count: u32,
    record_indexes: Vec<u32>,
}

#[derive(Debug)]
struct Output {
    topic: Arc<Topic>,
    partitions: u32,
    keyless_partition: u32,
    shares: Few<Share>,
}

/// All outputs of a step.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) batches: Vec<OutputBatch>,
    all: Vec<Output>,
    by_partition: BTreeMap<PartitionKey, usize>,
}

/// The outputs as produces that make sense; their records are not looked at yet.
pub(super) fn requests(outputs: Vec<ScannedOutput>, limits: &Limits) -> Result<Vec<Request>, Error> {
    if outputs.len() as u64 > u64::from(limits.max_outputs) {
        let why = format!("{} outputs; at most {} are taken", outputs.len(), limits.max_outputs);
        return Err(Error::argument("outputs", why));
    }
    let request = |(index, output)| Request::output(output).map_err(|error| of_output(error, index));
    outputs.into_iter().enumerate().map(request).collect()
}

/// An error about an output, told of its place in the request.
pub(super) fn of_output(error: Error, index: usize) -> Error {
    let at = |field: String| format!("outputs[{index}].{field}");
    match error {
        Error::InvalidArgument { field, why } => Error::InvalidArgument { field: at(field), why },
        Error::Malformed { field, why } => Error::Malformed { field: at(field), why },
        other => other,
    }
}

impl Outputs {
    /// Checks and sorts an output's records, behind those of the outputs before it.
    pub(super) fn add(
        &mut self,
        request: &Request,
        topic: &Arc<Topic>,
        limits: &Limits,
    ) -> Result<(), Error> {
        if let Some(partition) = request.partition {
            topic.lane(partition)?;
        }
        let keyless = |bytes| topic.keyless_partition(bytes);
        let split = request.split(limits, topic.partitions(), keyless)?;
        let mut shares = Few::with_capacity(split.parts.len());
        for mut part in split.parts {
            let record_indexes = std::mem::take(&mut part.record_indexes);
            let count = part.walked.record_count;
            let (batch, first) = self.put(topic, part, limits)?;
            shares.push(Share { batch, first, count, record_indexes });
        }
        let (partitions, keyless_partition) = (split.partitions, split.keyless_partition);
        self.all.push(Output { topic: Arc::clone(topic), partitions, keyless_partition, shares });
        Ok(())
    }

    /// Which batch a part goes to, and how many records stand there before it.
    fn put(&mut self, topic: &Arc<Topic>, part: Part, limits: &Limits) -> Result<(usize, u32), Error> {
        let lane = topic.lane(part.partition)?;
        let index = *self.by_partition.entry(lane.partition.key()).or_insert(self.batches.len());
        if let Some(batch) = self.batches.get_mut(index) {
            let first = batch.part.walked.record_count;
            batch.part.extend(part, limits)?;
            return Ok((index, first));
        }
        self.batches.push(OutputBatch { topic: Arc::clone(topic), lane: Arc::clone(lane), part });
        Ok((index, 0))
    }

    /// Each partition, and how many bytes go to its segment.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&Arc<Lane>, u64)> + Clone {
        self.batches.iter().map(|batch| (&batch.lane, (BATCH_PREFIX_LEN + batch.part.payload_len) as u64))
    }

    /// Where a batch goes.
    pub(super) fn place(&self, batch: usize) -> Option<(&Arc<Topic>, &Arc<Lane>)> {
        self.batches.get(batch).map(|batch| (&batch.topic, &batch.lane))
    }

    /// How many answers there are: one for each output and partition.
    pub(super) fn shares(&self) -> usize {
        self.all.iter().map(|output| output.shares.len()).sum()
    }

    pub(super) fn appends(&self) -> Vec<Append<'_>> {
        self.batches.iter().map(|batch| batch.part.append(&batch.lane.partition, None)).collect()
    }

    /// What is answered, from what became of each batch.
    pub(super) fn answers(&self, appended: &[Appended]) -> Few<PartitionAppend> {
        let answers = self.all.iter().flat_map(|output| {
            self.shares_of(output, appended).map(|(share, partition, appended)| PartitionAppend {
                topic: Arc::clone(output.topic.name()),
                topic_id: output.topic.id(),
                partition,
                base_offset: appended.base_offset + i64::from(share.first),
                record_count: share.count,
                leader_epoch: appended.leader_epoch,
                append_time_ms: appended.append_time_ms,
                level: appended.level,
                duplicate: false,
                record_indexes: share.record_indexes.clone(),
            })
        });
        answers.collect()
    }

    /// What the step's entry keeps of it.
    pub(super) fn done(&self, appended: &[Appended]) -> StepDone {
        let outputs = self.all.iter().map(|output| {
            let batches = self.shares_of(output, appended).map(|(share, partition, appended)| BatchDone {
                partition,
                base_offset: appended.base_offset + i64::from(share.first),
                record_count: share.count,
                leader_epoch: appended.leader_epoch,
                append_time_ms: appended.append_time_ms,
                durability: appended.level.number(),
            });
            ProduceDone {
                topic_id: Bytes::copy_from_slice(output.topic.id().as_bytes()),
                partitions: output.partitions,
                keyless_partition: output.keyless_partition,
                batches: batches.collect(),
            }
        });
        StepDone { outputs: outputs.collect() }
    }

    /// Each share of an output, its partition, and what became of its batch.
    fn shares_of<'a>(
        &'a self,
        output: &'a Output,
        appended: &'a [Appended],
    ) -> impl Iterator<Item = (&'a Share, u32, &'a Appended)> {
        output.shares.iter().filter_map(|share| {
            let batch = self.batches.get(share.batch)?;
            Some((share, batch.part.partition, appended.get(share.batch)?))
        })
    }
}
