//! Storage as a whole, over the disk in memory: a small stand-in for the state machine, and a bench to drive steps by hand.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::needless_for_each,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "test data is small and its names are ours"
)]

mod closed;
mod copies;
mod crafted;
mod directory;
mod durability;
mod files;
mod lost;
mod matrix;
mod model;
mod pictures;
mod rest;
mod scrub;
mod unreadable;

use std::sync::Arc;

use annals_wire::{header::Attributes, ids::TopicId};
use bytes::Bytes;

use super::{
    Append, Appended, Change, Class, Disk, Level, LockError, Machine, MemoryDisk, Mode, Options, Partition,
    PartitionKey, PartitionSettings, RealDisk, Receipt, Report, Section, Storage,
    disk::Call,
    error::{AppendError, OpenError},
};
use crate::{clock::ManualClock, sync::Mutex};

/// A state machine that is nothing but the list of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) entries: Vec<(u64, Vec<u8>)>,
}

impl Machine for Listed {
    fn restore(&mut self, section: &Section) -> Result<(), String> {
        for line in section.bytes.chunks(16) {
            let (number, value) = line.split_at(8);
            self.entries.push((u64::from_le_bytes(number.try_into().unwrap()), value.to_vec()));
        }
        Ok(())
    }

    fn apply(&mut self, number: u64, entry: &[u8]) -> Result<(), String> {
        if self.entries.last().is_none_or(|(last, _)| *last < number) {
            self.entries.push((number, entry.to_vec()));
        }
        Ok(())
    }

    fn lower_commits(&mut self, _end: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn capture(&self, number: u64) -> Vec<Section> {
        let bytes = self
            .entries
            .iter()
            .flat_map(|(number, value)| [&number.to_le_bytes()[..], value].concat())
            .collect();
        vec![Section { number, bytes }]
    }
}

/// A storage whose steps the test takes.
pub(super) struct Bench {
    pub(super) disk: MemoryDisk,
    pub(super) clock: Arc<ManualClock>,
    pub(super) storage: Arc<Storage>,
    pub(super) report: Report,
    pub(super) listed: Arc<Mutex<Listed>>,
    options: Options,
}

/// Sizes at which everything happens often.
pub(super) fn tiny() -> Options {
    Options {
        inline_bytes: 600,
        ring_bytes: 256 * 1024,
        ring_file_bytes: 64 * 1024,
        pending_bytes: 32 * 1024,
        snapshot_bytes: 64 * 1024,
        keep_free_bytes: 0,
        flush_helpers: 0,
        open_segments: 2,
        ..Options::default()
    }
}

/// Room for tests that let much wait.
pub(super) fn roomy() -> Options {
    Options {
        ring_bytes: 4 << 20,
        ring_file_bytes: 1 << 20,
        pending_bytes: 1 << 20,
        snapshot_bytes: 1 << 20,
        ..tiny()
    }
}

pub(super) fn settings(level: Level) -> PartitionSettings {
    PartitionSettings { level, segment_bytes: 4 * 1024, interval_ms: 100, interval_bytes: 4096 }
}

pub(super) fn topic(n: u8) -> TopicId {
    TopicId([n; 16])
}

pub(super) fn key(n: u8, partition: u32) -> PartitionKey {
    PartitionKey { topic: topic(n), partition }
}

/// A payload of one record whose value is `value`.
pub(super) fn payload(value: &[u8]) -> Bytes {
    let record = annals_wire::v1::Record { value: Some(Bytes::copy_from_slice(value)), ..Default::default() };
    let batch = annals_wire::v1::RecordBatch { records: vec![record], ..Default::default() };
    Bytes::from(prost::Message::encode_to_vec(&batch))
}

/// A directory of the machine's own. A child that another test starts holds every lock of this process between its fork and its
/// exec: a moment later it does not.
pub(super) fn locked(dir: &std::path::Path) -> RealDisk {
    for _ in 0..250 {
        match RealDisk::open(dir) {
            Err(LockError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(20)),
            other => return other.unwrap(),
        }
    }
    panic!("somebody has {}", dir.display());
}

impl Bench {
    pub(super) fn open(disk: &MemoryDisk, options: Options) -> Result<Self, OpenError> {
        Self::open_at(disk, options, Arc::new(ManualClock::new(1_700_000_000_000, 7)))
    }

    pub(super) fn open_at(
        disk: &MemoryDisk,
        options: Options,
        clock: Arc<ManualClock>,
    ) -> Result<Self, OpenError> {
        Self::over(Arc::new(disk.clone()), disk.clone(), options, clock)
    }

    /// On a directory of the machine's file system; the disk in memory is a stand-in that nothing uses.
    pub(super) fn on(dir: &std::path::Path, options: Options) -> Result<Self, OpenError> {
        let disk = locked(dir);
        let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
        Self::over(Arc::new(disk), MemoryDisk::new(), options, clock)
    }

    fn over(
        shared: Arc<dyn Disk>,
        disk: MemoryDisk,
        options: Options,
        clock: Arc<ManualClock>,
    ) -> Result<Self, OpenError> {
        let mut listed = Listed::default();
        let (storage, report) = Storage::open(shared, Arc::clone(&clock) as _, options, &mut listed)?;
        let listed = Arc::new(Mutex::new(listed));
        Ok(Self { disk, clock, storage, report, listed, options })
    }

    /// A new directory.
    pub(super) fn new() -> Self {
        Self::open(&MemoryDisk::new(), roomy()).unwrap()
    }

    /// What `kill -9` and a start do: all that was written is there.
    pub(super) fn reopen(self) -> Result<Self, OpenError> {
        let (disk, clock, options) = (self.disk.clone(), Arc::clone(&self.clock), self.options);
        drop(self);
        Self::open_at(&disk, options, clock)
    }

    pub(super) fn declare(&self, n: u8, partitions: u32, level: Level) -> u64 {
        self.try_declare(n, partitions, level).unwrap()
    }

    pub(super) fn try_declare(&self, n: u8, partitions: u32, level: Level) -> Result<u64, AppendError> {
        let room = self.storage.reserve(8192, Class::Control).unwrap();
        let change = Change::Declare { topic: topic(n), partitions, settings: settings(level) };
        self.storage.submit(room, vec![change])
    }

    pub(super) fn partition(&self, n: u8, partition: u32) -> Arc<Partition> {
        self.storage.partition(key(n, partition)).expect("the partition was declared")
    }

    /// Appends one batch of one record to each partition, preparing as a broker would.
    pub(super) fn append(
        &self,
        to: &[(Arc<Partition>, &[u8])],
        mode: Mode,
        states: &[[u8; 8]],
    ) -> Result<Receipt, AppendError> {
        let payloads: Vec<[Bytes; 1]> = to.iter().map(|(_, value)| [payload(value)]).collect();
        let appends: Vec<Append<'_>> = to
            .iter()
            .zip(&payloads)
            .map(|((partition, _), payload)| Append {
                partition,
                payload,
                payload_len: payload[0].len(),
                record_count: 1,
                max_timestamp_ms: 0,
                timestamps_missing: true,
                records_crc32: crc32fast::hash(&payload[0]),
                attributes: Attributes(0),
                expected_next_offset: None,
                sequence: None,
            })
            .collect();
        loop {
            let bytes = appends.iter().map(|append| append.payload_len as u64 + 512).sum::<u64>() + 8192;
            let room = self.storage.reserve(bytes, Class::Data).map_err(|_| AppendError::DiskFull)?;
            let mut entries = |_: &[Appended]| states.iter().map(|state| state.to_vec()).collect();
            match self.storage.append(room, &appends, mode, &mut entries) {
                Err(AppendError::NotPrepared { batch }) => {
                    self.storage.prepare(appends[batch].partition, appends[batch].payload_len as u64 + 81)?;
                }
                Ok(receipt) => {
                    let mut listed = self.listed.lock();
                    for (index, state) in states.iter().enumerate() {
                        listed.entries.push((receipt.first_entry + index as u64, state.to_vec()));
                    }
                    return Ok(receipt);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn put(&self, n: u8, partition: u32, value: &[u8]) -> Receipt {
        let mode = Mode { level: Level::Os, atomic: false };
        self.append(&[(self.partition(n, partition), value)], mode, &[]).unwrap()
    }

    pub(super) fn acked(&self, receipt: &Receipt) -> bool {
        let fate = Arc::new(Mutex::new(None));
        let told = Arc::clone(&fate);
        self.storage.on_durable(receipt.ack, Box::new(move |result| *told.lock() = Some(result)));
        let fate = *fate.lock();
        fate == Some(Ok(()))
    }

    pub(super) fn snapshot(&self, last: bool) -> bool {
        let source = || self.listed.lock().capture(self.storage.last_number());
        match self.storage.snapshot_write(&source).unwrap() {
            Some(written) => self.storage.snapshot_finish(&written, last).unwrap(),
            None => false,
        }
    }

    /// All records of a partition, by offset.
    pub(super) fn values(&self, n: u8, partition: u32) -> Vec<(i64, Vec<u8>)> {
        let partition = self.partition(n, partition);
        partition.check();
        values_of(&partition)
    }
}

pub(super) fn values_of(partition: &Partition) -> Vec<(i64, Vec<u8>)> {
    use prost::Message;
    let mut out = Vec::new();
    let mut from = partition.bounds().log_start;
    loop {
        let read = partition.read(from, 2000, false).unwrap();
        if read.batches.is_empty() {
            assert_eq!(from, partition.high_watermark());
            return out;
        }
        for bytes in &read.batches {
            for batch in annals_wire::v1::LogSlice::decode(bytes.clone()).unwrap().batches {
                for (index, record) in batch.records.iter().enumerate() {
                    out.push((
                        batch.base_offset + index as i64,
                        record.value.clone().unwrap_or_default().to_vec(),
                    ));
                }
            }
        }
        assert!(read.next_offset > from);
        from = read.next_offset;
    }
}

/// The n-th call of a kind fails from now on.
pub(super) fn fail(disk: &MemoryDisk, call: Call, nth: u64) {
    disk.fail_nth(call, nth);
}
