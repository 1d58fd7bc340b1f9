//! What was read: the server's bytes, and iterators over them.

pub use annals_wire::slice::RecordRef;
use annals_wire::{
    slice::{self, Slice},
    v1,
};
use bytes::Bytes;

use crate::error::{Error, Result};

/// Whole batches of one partition, in the memory they were received in. Iterating builds no structs and copies nothing.
///
/// ```no_run
/// # fn example(records: &annals_client::Records) -> annals_client::Result<()> {
/// for batch in records.batches() {
///     for record in batch?.records() {
///         let record = record?;
///         println!("{} {:?}", record.offset, record.value);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Records {
    slice: Box<Slice>,
}

impl Records {
    pub(crate) fn new(slice: Slice) -> Self {
        Self { slice: Box::new(slice) }
    }

    /// Topic name.
    pub fn topic(&self) -> &str {
        &self.slice.topic
    }

    /// Partition.
    pub fn partition(&self) -> u32 {
        self.slice.partition
    }

    /// Where this read began.
    pub fn start_offset(&self) -> i64 {
        self.slice.start_offset
    }

    /// Where to read on, and what to commit once all of this is processed.
    pub fn next_offset(&self) -> i64 {
        self.slice.next_offset
    }

    /// First offset that could not be read yet.
    pub fn high_watermark(&self) -> i64 {
        self.slice.high_watermark
    }

    /// First offset still kept.
    pub fn log_start_offset(&self) -> i64 {
        self.slice.log_start_offset
    }

    /// What the batches took on the wire.
    pub(crate) fn batch_bytes(&self) -> usize {
        self.slice.batch_bytes
    }

    /// Ranges of offsets that were stepped over, and why.
    pub fn gaps(&self) -> &[v1::OffsetGap] {
        &self.slice.gaps
    }

    /// Leader epoch of the server that answered.
    pub fn leader_epoch(&self) -> u32 {
        self.slice.leader_epoch
    }

    /// What to give to [`Client::commit`](crate::Client::commit) once everything up to `next_offset` is processed.
    pub fn commit_position(&self, next_offset: i64) -> v1::CommitPosition {
        v1::CommitPosition {
            topic: self.slice.topic.clone(),
            partition: self.slice.partition,
            next_offset,
            leader_epoch: Some(self.slice.leader_epoch),
            topic_id: self.slice.topic_id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            ..Default::default()
        }
    }

    /// What to give to [`Step::commit`](crate::Step::commit) once all of this is processed: the group has to stand where this
    /// read began.
    pub fn processed(&self) -> v1::CommitPosition {
        let expected_offset = Some(self.start_offset());
        v1::CommitPosition { expected_offset, ..self.commit_position(self.next_offset()) }
    }

    /// The batches, in offset order, each checked against its checksums and unpacked if it was packed.
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch>> + '_ {
        self.slice.batches().map(|batch| {
            let batch = batch.and_then(|batch| {
                batch.verify_in(&self.slice)?;
                batch.unpacked()
            });
            let batch = batch.map_err(Error::bad_answer)?;
            // Looked at once here, so that iterating cannot fail for the whole batch.
            batch.records().map_err(Error::bad_answer)?;
            Ok(Batch { batch, from: self.slice.start_offset })
        })
    }

    /// How many records there are.
    pub fn count(&self) -> Result<u64> {
        let mut count = 0;
        for batch in self.batches() {
            for record in batch?.records() {
                record?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// Records that were stored as one.
#[derive(Clone, Debug)]
pub struct Batch {
    batch: slice::Batch,
    from: i64,
}

impl Batch {
    /// The server's clock when it was appended, milliseconds since 1970.
    pub fn append_time_ms(&self) -> i64 {
        self.batch.header().append_time_ms
    }

    /// Epoch of the leader that wrote it.
    pub fn leader_epoch(&self) -> u32 {
        self.batch.header().leader_epoch
    }

    /// The records, in offset order, from where the read began.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordRef<'_>>> + '_ {
        let records = self.batch.records().expect("`batches` has seen that it has records");
        records.filter_map(|record| match record {
            // A packed batch cannot be trimmed by the server.
            Ok(record) if record.offset < self.from => None,
            Ok(record) => Some(Ok(record)),
            Err(error) => Some(Err(Error::bad_answer(error))),
        })
    }

    /// A key or value of one of the records as bytes that may be kept: shared, not copied.
    pub fn share(&self, part: &[u8]) -> Bytes {
        self.batch.share(part)
    }
}
