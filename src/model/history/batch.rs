//! Batches: what is appended, and what must therefore lie in the segment.

use annals_wire::{
    header::{Attributes, BATCH_PREFIX_LEN, BatchHeader},
    internal::{BatchDone, ProduceDone},
    v1,
};
use bytes::Bytes;
use prost::Message;

use super::hostile;
use crate::{
    model::{oracle::Batch, plan::Values, rng::Rng},
    storage::{Append, Appended, Mode, Partition, Sequence},
    sync::Arc,
};

/// What is to be appended to one partition.
pub(super) struct Draft {
    pub(super) partition: Arc<Partition>,
    payload: [Bytes; 1],
    records: u32,
    max_timestamp_ms: i64,
    timestamps_missing: bool,
    pub(super) sequence: Option<Sequence>,
}

impl Draft {
    /// One to three records, all different from any other of the history.
    pub(super) fn new(
        rng: &mut Rng,
        partition: Arc<Partition>,
        values: Values,
        counter: &mut u64,
        now_ms: i64,
    ) -> Self {
        let plain = matches!(values, Values::LikeBatches(_));
        let single = plain || matches!(values, Values::One(_));
        let count = if !single && rng.one_in(3) { 1 + rng.below(3) } else { 1 };
        let timed = rng.one_in(2) && !plain;
        let (mut records, mut max_timestamp_ms) = (Vec::with_capacity(count), 0);
        for _ in 0..count {
            *counter += 1;
            let size = match values {
                Values::Below(bytes) => rng.below(bytes),
                Values::Fixed(bytes)
                | Values::One(bytes)
                | Values::LikeFrames(bytes)
                | Values::LikeBatches(bytes) => bytes,
            };
            // No sector of it is like one of another record.
            let mut value = vec![u8::try_from(*counter % 251).unwrap_or(0); size.max(8)];
            value.iter_mut().zip(counter.to_le_bytes()).for_each(|(to, from)| *to = from);
            match values {
                Values::LikeFrames(_) => hostile::fill_with_frames(&mut value, 8 + rng.below(64)),
                Values::LikeBatches(_) if rng.one_in(3) => hostile::add_a_batch(&mut value, &partition),
                _ => {}
            }
            let timestamp_ms = timed.then(|| now_ms - 1000 + i64::try_from(rng.below(2000)).unwrap_or(0));
            max_timestamp_ms = max_timestamp_ms.max(timestamp_ms.unwrap_or(0));
            records.push(v1::Record { value: Some(value.into()), timestamp_ms, ..Default::default() });
        }
        let payload = v1::RecordBatch { records, ..Default::default() }.encode_to_vec();
        Self {
            partition,
            payload: [payload.into()],
            records: u32::try_from(count).unwrap_or(1),
            max_timestamp_ms,
            timestamps_missing: !timed,
            sequence: None,
        }
    }

    /// A batch that was stored, or was to be, as its producer sends it again.
    pub(super) fn again(batch: &Batch, partition: Arc<Partition>) -> Self {
        Self {
            partition,
            payload: [batch.bytes.slice(BATCH_PREFIX_LEN..)],
            records: batch.records,
            max_timestamp_ms: batch.max_timestamp_ms,
            timestamps_missing: false,
            sequence: batch.sequence,
        }
    }

    fn bytes(&self) -> &Bytes {
        let [bytes] = &self.payload;
        bytes
    }

    /// Bytes of the batch in the segment.
    pub(super) fn stored_len(&self) -> u64 {
        (BATCH_PREFIX_LEN + self.bytes().len()) as u64
    }

    pub(super) fn append(&self) -> Append<'_> {
        Append {
            partition: &self.partition,
            payload: &self.payload,
            payload_len: self.bytes().len(),
            record_count: self.records,
            max_timestamp_ms: self.max_timestamp_ms,
            timestamps_missing: self.timestamps_missing,
            records_crc32: crc32fast::hash(self.bytes()),
            attributes: Attributes(0),
            expected_next_offset: None,
            sequence: self.sequence,
        }
    }

    /// What is kept of it in the entry of a step.
    pub(super) fn done(&self, appended: &Appended) -> ProduceDone {
        let key = self.partition.key();
        let batch = BatchDone {
            partition: key.partition,
            base_offset: appended.base_offset,
            record_count: self.records,
            leader_epoch: appended.leader_epoch,
            append_time_ms: appended.append_time_ms,
            durability: appended.level.number(),
        };
        let topic_id = Bytes::copy_from_slice(key.topic.as_bytes());
        ProduceDone { topic_id, batches: vec![batch], ..ProduceDone::default() }
    }

    /// The batch as it must lie there. The model's wall clock does not go back, so the append time is the present.
    pub(super) fn expected(&self, base: i64, mode: Mode, epoch: u32, now_ms: i64) -> Batch {
        let own = if self.timestamps_missing { now_ms } else { i64::MIN };
        let attributes = Attributes(0);
        let header = BatchHeader {
            base_offset: base,
            last_offset_delta: self.records - 1,
            leader_epoch: epoch,
            record_count: self.records,
            attributes: if mode.atomic { attributes.with_atomic() } else { attributes },
            append_time_ms: now_ms,
            max_timestamp_ms: self.max_timestamp_ms.max(own),
            producer_id: self.sequence.map_or(0, |sequence| sequence.producer_id),
            producer_epoch: self.sequence.map_or(0, |sequence| sequence.producer_epoch),
            base_sequence: self.sequence.map_or(0, |sequence| sequence.base_sequence),
            records_crc32: crc32fast::hash(self.bytes()),
        };
        let key = self.partition.key();
        let mut bytes = header.encode(self.bytes().len(), &key.topic, key.partition).to_vec();
        bytes.extend_from_slice(self.bytes());
        Batch {
            bytes: bytes.into(),
            base,
            next: base + i64::from(self.records),
            max_timestamp_ms: header.max_timestamp_ms,
            sequence: self.sequence,
            records: self.records,
        }
    }
}
