//! From a request to one batch for each partition.
//!
//! Every record is walked before anything of the request counts. Records that all go to one partition stay where they are,
//! in the pieces in which the request came; only those that must be sorted into several partitions are copied, once.

use annals_wire::{
    chunks::Chunks,
    compress,
    header::Attributes,
    limits::HARD_MAX_BATCH_BYTES,
    murmur2::partition_of_hash,
    request::{Packed, Payload, ScannedOutput, ScannedProduce},
    v1::{Codec, Durability},
    walk::{Malformed, Origin, Reason, WalkRules, Walked, walk, walk_each},
};
use smallvec::{SmallVec, smallvec};

use super::{
    Error, Limits, Principal, Produce,
    once::Once,
    sorter::{Bin, Sorter},
};
use crate::{
    storage::{Append, Level, Partition, Sequence},
    sync::Arc,
};

/// A produce whose fields make sense; its records are not looked at yet.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) topic: String,
    pub(crate) partition: Option<u32>,
    pub(crate) level: Option<Level>,
    pub(crate) expected_next_offset: Option<i64>,
    pub(crate) once: Option<Once>,
    pub(crate) sequence: Option<Sequence>,
    records_crc32: Option<u32>,
    codec: Codec,
    payload: Payload,
}

/// The records of a request for one partition.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) partition: u32,
    pub(crate) payload: Chunks,
    pub(crate) payload_len: usize,
    pub(crate) walked: Walked,
    /// crc32 of the payload.
    pub(crate) crc32: u32,
    pub(crate) attributes: Attributes,
    /// Which of the request's records these are; empty = all.
    pub(crate) record_indexes: Vec<u32>,
}

/// A request's records by partition: mostly there is one.
pub(crate) type Parts = SmallVec<[Part; 1]>;

/// A request, sorted by partition.
#[derive(Debug)]
pub(crate) struct Split {
    /// In order of partition.
    pub(crate) parts: Parts,
    /// How many partitions keys chose among.
    pub(crate) partitions: u32,
    /// Where keyless records go.
    pub(crate) keyless_partition: u32,
}

impl Request {
    pub(crate) fn new(call: Produce) -> Result<Self, Error> {
        let Produce { scanned, principal } = call;
        let level = match scanned.durability() {
            None => return Err(Error::argument("durability", "there is no such level")),
            Some(Durability::Unspecified) => None,
            Some(Durability::Os) => Some(Level::Os),
            Some(Durability::Interval) => Some(Level::Interval),
            Some(Durability::Fsync) => Some(Level::Fsync),
        };
        let codec = scanned.codec().ok_or_else(|| Error::argument("codec", "there is no such codec"))?;
        match (&scanned.payload, codec) {
            (Payload::None, _) => {
                return Err(Error::argument("records", "a request needs at least one record"));
            }
            (Payload::Records(_), Codec::Unspecified)
            | (Payload::Compressed(_), Codec::Lz4 | Codec::Zstd) => {}
            (Payload::Records(_), _) => return Err(Error::argument("codec", "goes with `compressed` alone")),
            (Payload::Compressed(_), _) => {
                return Err(Error::argument("codec", "must name the codec of `compressed`"));
            }
        }
        if scanned.partition.is_none() && matches!(scanned.payload, Payload::Compressed(_)) {
            return Err(Error::argument("partition", "`compressed` needs a partition"));
        }
        if scanned.partition.is_none() && scanned.expected_next_offset.is_some() {
            return Err(Error::argument("partition", "`expected_next_offset` needs a partition"));
        }
        if scanned.partition.is_none() && scanned.producer.is_some() {
            return Err(Error::argument("partition", "`producer` needs a partition"));
        }
        if !scanned.request_id.is_empty() && scanned.producer.is_some() {
            return Err(Error::argument(
                "request_id",
                "not together with `producer`: each makes a retry harmless",
            ));
        }
        let once = once(&principal, &scanned)?;
        Ok(Self {
            topic: scanned.topic,
            partition: scanned.partition,
            level,
            expected_next_offset: scanned.expected_next_offset,
            once,
            sequence: scanned.producer.map(|producer| Sequence {
                producer_id: producer.producer_id,
                producer_epoch: producer.producer_epoch,
                base_sequence: producer.base_sequence,
            }),
            records_crc32: scanned.records_crc32,
            codec,
            payload: scanned.payload,
        })
    }

    /// An output of a read-process-write step, as a produce of its own.
    pub(crate) fn output(output: ScannedOutput) -> Result<Self, Error> {
        if output.records.is_empty() {
            return Err(Error::argument("records", "an output needs at least one record"));
        }
        Ok(Self {
            topic: output.topic,
            partition: output.partition,
            level: Some(Level::Fsync),
            expected_next_offset: None,
            once: None,
            sequence: None,
            records_crc32: output.records_crc32,
            codec: Codec::Unspecified,
            payload: Payload::Records(output.records),
        })
    }

    /// Checks every record and sorts them by partition, for a topic of so many partitions.
    pub(crate) fn split(
        &self,
        limits: &Limits,
        partitions: u32,
        keyless: impl FnOnce(u64) -> u32,
    ) -> Result<Split, Error> {
        let (mut parts, mut keyless_partition) = (Parts::new(), 0);
        match (&self.payload, self.partition) {
            (Payload::None, _) => {}
            (Payload::Compressed(packed), partition) => {
                parts.push(self.packed(packed, partition.unwrap_or_default(), limits)?);
            }
            (Payload::Records(run), Some(partition)) => parts.push(self.whole(run, partition, limits)?),
            (Payload::Records(run), None) if partitions <= 1 => parts.push(self.whole(run, 0, limits)?),
            (Payload::Records(run), None) => {
                keyless_partition = keyless(run.byte_len() as u64);
                parts = self.spread(run, partitions, keyless_partition, limits)?;
            }
        }
        Ok(Split { parts, partitions, keyless_partition })
    }

    fn whole(&self, run: &Chunks, partition: u32, limits: &Limits) -> Result<Part, Error> {
        let walked = walk(run, &rules(limits)).map_err(|fault| worst(run, limits, fault))?;
        self.check_crc(walked.crc32)?;
        Ok(plain(run.clone(), partition, walked))
    }

    fn packed(&self, packed: &Packed, partition: u32, limits: &Limits) -> Result<Part, Error> {
        let crc32 = packed.field.crc32();
        self.check_crc(crc32)?;
        let most = usize::try_from(limits.max_batch_bytes).unwrap_or(usize::MAX).min(HARD_MAX_BATCH_BYTES);
        let payload_len = packed.field.byte_len();
        // What packing made larger than the batch limit is stored as sent, so it counts as it is, too.
        if payload_len > most + SLACK {
            return Err(too_large(payload_len as u64, most as u64, "bytes"));
        }
        let run = compress::unpack(self.codec, &packed.content(), most).map_err(|error| match error {
            compress::UnpackError::TooLarge { .. } => too_large(most as u64 + 1, most as u64, "bytes"),
            other => Error::Malformed { field: "compressed".into(), why: other.to_string() },
        })?;
        let walked = walk(&[run], &rules(limits)).map_err(malformed)?;
        if walked.record_count == 0 {
            return Err(Error::argument("compressed", "a request needs at least one record"));
        }
        Ok(Part {
            partition,
            payload: packed.field.clone(),
            payload_len,
            walked,
            crc32,
            attributes: Attributes::default().with_codec(self.codec),
            record_indexes: Vec::new(),
        })
    }

    fn spread(&self, run: &Chunks, partitions: u32, keyless: u32, limits: &Limits) -> Result<Parts, Error> {
        let mut sorter = Sorter::new(run, partitions);
        let rules =
            WalkRules { max_record_bytes: rules(limits).max_record_bytes, ..WalkRules::CLIENT_SPREAD };
        let walked = walk_each(run, &rules, |span| {
            let partition = span.key_hash.map_or(keyless, |hash| partition_of_hash(hash, partitions));
            sorter.put(&span, partition);
        })
        .map_err(malformed)?;
        self.check_crc(walked.crc32)?;
        match sorter.only() {
            Some(partition) => {
                fits(walked.record_count, run.byte_len(), limits)?;
                Ok(smallvec![plain(run.clone(), partition, walked)])
            }
            None => sorter.into_bins().map(|bin| sorted(bin, limits)).collect(),
        }
    }

    fn check_crc(&self, computed: u32) -> Result<(), Error> {
        match self.records_crc32 {
            Some(sent) if sent != computed => Err(Error::Malformed {
                field: "records_crc32".into(),
                why: format!("{sent:#010x} was sent, the bytes that came have {computed:#010x}"),
            }),
            _ => Ok(()),
        }
    }
}

impl Part {
    /// As a batch for a partition.
    pub(crate) fn append<'a>(
        &'a self,
        partition: &'a Arc<Partition>,
        expected_next_offset: Option<i64>,
    ) -> Append<'a> {
        Append {
            partition,
            payload: &self.payload,
            payload_len: self.payload_len,
            record_count: self.walked.record_count,
            max_timestamp_ms: self.walked.max_timestamp_ms,
            timestamps_missing: self.walked.timestamps_missing,
            records_crc32: self.crc32,
            attributes: self.attributes,
            expected_next_offset,
            sequence: None,
        }
    }

    /// Puts plain records of the same partition behind these.
    pub(crate) fn extend(&mut self, more: Part, limits: &Limits) -> Result<(), Error> {
        let records = self.walked.record_count.saturating_add(more.walked.record_count);
        fits(records, self.payload_len + more.payload_len, limits)?;
        let mut crc32 = crc32fast::Hasher::new_with_initial(self.crc32);
        crc32.combine(&crc32fast::Hasher::new_with_initial_len(more.crc32, more.payload_len as u64));
        self.crc32 = crc32.finalize();
        self.payload.append(more.payload);
        self.payload_len += more.payload_len;
        self.walked = Walked {
            record_count: records,
            bytes: self.payload_len as u64,
            max_timestamp_ms: self.walked.max_timestamp_ms.max(more.walked.max_timestamp_ms),
            timestamps_missing: self.walked.timestamps_missing | more.walked.timestamps_missing,
            crc32: self.crc32,
            ..Walked::default()
        };
        Ok(())
    }
}

/// Records that all go to one partition, as they came.
fn plain(run: Chunks, partition: u32, walked: Walked) -> Part {
    Part {
        partition,
        payload_len: run.byte_len(),
        payload: run,
        walked,
        crc32: walked.crc32,
        attributes: Attributes::default(),
        record_indexes: Vec::new(),
    }
}

/// Records that were sorted, each of them walked.
fn sorted(bin: Bin, limits: &Limits) -> Result<Part, Error> {
    fits(bin.sum.records, bin.run.len(), limits)?;
    let walked = Walked {
        record_count: bin.sum.records,
        bytes: bin.run.len() as u64,
        max_timestamp_ms: bin.sum.max_timestamp_ms,
        timestamps_missing: bin.sum.timestamps_missing,
        crc32: crc32fast::hash(&bin.run),
        ..Walked::default()
    };
    let part = plain(Chunks::from(bin.run.freeze()), bin.partition, walked);
    Ok(Part { record_indexes: bin.indexes, ..part })
}

/// Whether records that were walked as part of a request may be a batch.
fn fits(records: u32, bytes: usize, limits: &Limits) -> Result<(), Error> {
    if bytes as u64 > u64::from(limits.max_batch_bytes) {
        return Err(too_large(bytes as u64, limits.max_batch_bytes.into(), "bytes"));
    }
    if records > limits.max_batch_records {
        return Err(too_large(
            u64::from(limits.max_batch_records) + 1,
            limits.max_batch_records.into(),
            "records",
        ));
    }
    Ok(())
}

/// What framing a packed payload may add to the batch limit.
const SLACK: usize = 64 * 1024;

fn once(principal: &Principal, scanned: &ScannedProduce) -> Result<Option<Once>, Error> {
    if scanned.request_id.is_empty() {
        return Ok(None);
    }
    let (kind, crc32, len) = match &scanned.payload {
        Payload::None => (0, 0, 0),
        Payload::Records(run) => (1, run.crc32(), run.byte_len()),
        Payload::Compressed(packed) => (2, packed.field.crc32(), packed.field.byte_len()),
    };
    let fields = format!(
        "{kind} {crc32} {len} {:?} {} {:?} {}",
        scanned.partition, scanned.durability_number, scanned.expected_next_offset, scanned.codec_number
    );
    Once::new(principal, &scanned.request_id, &[b"produce", scanned.topic.as_bytes(), fields.as_bytes()])
}

fn rules(limits: &Limits) -> WalkRules {
    let size = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    WalkRules {
        max_record_bytes: size(limits.max_record_bytes),
        max_run_bytes: size(limits.max_batch_bytes),
        max_records: limits.max_batch_records,
        origin: Origin::Client,
    }
}

fn too_large(size: u64, limit: u64, what: &'static str) -> Error {
    Error::BatchTooLarge { size, limit, what }
}

fn malformed(fault: Malformed) -> Error {
    match fault.reason {
        Reason::RecordTooLarge { size, limit } => Error::RecordTooLarge { size, limit },
        Reason::RunTooLarge { size, limit } => too_large(size, limit, "bytes"),
        Reason::TooManyRecords { limit } => too_large(u64::from(limit) + 1, limit.into(), "records"),
        _ => Error::Malformed { field: format!("records[{}]", fault.record), why: fault.to_string() },
    }
}

/// Of a run that is too large, whether one record is: then sending fewer at a time does not help.
fn worst(run: &Chunks, limits: &Limits, fault: Malformed) -> Error {
    let any_size = WalkRules { max_run_bytes: usize::MAX, ..rules(limits) };
    match (fault.reason, walk(run, &any_size)) {
        (
            Reason::RunTooLarge { .. },
            Err(record @ Malformed { reason: Reason::RecordTooLarge { .. }, .. }),
        ) => malformed(record),
        _ => malformed(fault),
    }
}
