//! A storage at work on a [`Watched`] disk: what its threads do in one run, and what must hold in every one.
//!
//! 1. An ack is never given before the disk has what it is for.
//! 2. The high watermark of an `fsync` partition never passes what the disk has, and never goes back.
//! 3. Everybody who waits is told, once: an ack, or that there will be none.
//! 4. A reader who waits for the high watermark is woken.
//!
//! That one who asks to be called is called after those before him is not promised: what he asks for may be durable before
//! the commit thread has come to telling them.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex as Plain, PoisonError},
};

use annals_wire::{header::Attributes, ids::TopicId};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    clock::ManualClock,
    storage::{
        Append, AppendError, Change, Class, CommitError, Level, Machine, Mode, NoRoom, Options, Partition,
        PartitionKey, PartitionSettings, Runner, Section, Storage,
    },
    sync::{Condvar, Mutex, thread},
    watched::Watched,
};

/// A state machine without a state.
#[derive(Debug)]
struct Nothing;

impl Machine for Nothing {
    fn restore(&mut self, _: &Section) -> Result<(), String> {
        Ok(())
    }
    fn apply(&mut self, _: u64, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
    fn lower_commits(&mut self, _: &dyn Fn(PartitionKey) -> Option<i64>) -> Vec<Vec<u8>> {
        Vec::new()
    }
    fn capture(&self, _: u64) -> Vec<Section> {
        Vec::new()
    }
}

/// What became of what somebody waits for.
#[derive(Debug, Default)]
struct Told {
    asked: u64,
    acked: u64,
    refused: u64,
}

std::thread_local! {
    static WAITS: RefCell<BTreeMap<String, i32>> = const { RefCell::new(BTreeMap::new()) };
}

/// For what the threads of the present run wait that are not the storage's own: told when a run fails.
pub fn waits() -> String {
    WAITS.with_borrow(|waits| format!("{waits:?}"))
}

fn note_wait(what: &str, change: i32) {
    WAITS.with_borrow_mut(|waits| {
        let count = waits.entry(what.to_owned()).or_default();
        *count += change;
        if *count == 0 {
            waits.remove(what);
        }
    });
}

/// A signal that can be waited for.
#[derive(Debug, Default)]
struct Signal {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    fn ring(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    fn beyond(&self, seen: u64, what: &str) {
        let mut count = self.count.lock();
        note_wait(what, 1);
        while *count == seen {
            self.changed.wait(&mut count);
        }
        note_wait(what, -1);
    }

    fn now(&self) -> u64 {
        *self.count.lock()
    }
}

/// The storage and everything that is known of it.
#[derive(Clone)]
pub struct House {
    disk: Watched,
    storage: Arc<Storage>,
    told: Arc<Plain<Told>>,
    settled: Arc<Signal>,
}

/// The topic whose partitions are durable before they are seen.
pub const SURE: TopicId = TopicId([1; 16]);
/// The topic whose partitions are seen at once.
pub const FAST: TopicId = TopicId([2; 16]);

impl House {
    /// Opens a new directory and starts its threads. `snapshots`: after each so many bytes.
    pub fn open(snapshots: u64) -> (Self, Runner) {
        WAITS.take();
        let disk = Watched::new();
        let options = Options {
            inline_bytes: 150,
            ring_bytes: 512 << 10,
            ring_file_bytes: 128 << 10,
            pending_bytes: 32 << 10,
            snapshot_bytes: snapshots,
            keep_free_bytes: 0,
            flush_helpers: 2,
            ..Options::default()
        };
        let clock = Arc::new(ManualClock::new(1_700_000_000_000, 7));
        let (storage, _) =
            Storage::open(Arc::new(disk.clone()), clock, options, &mut Nothing).expect("a new directory");
        let runner = storage.start(Arc::new(Vec::new)).expect("threads");
        let house = Self { disk, storage, told: Arc::default(), settled: Arc::default() };
        house.declare(SURE, 2, Level::Fsync);
        house.declare(FAST, 1, Level::Os);
        (house, runner)
    }

    fn declare(&self, topic: TopicId, partitions: u32, level: Level) {
        let settings = PartitionSettings { level, segment_bytes: 700, interval_ms: 5, interval_bytes: 100 };
        let room = self.room(8192, Class::Control).expect("it is open");
        self.storage.submit(room, vec![Change::Declare { topic, partitions, settings }]).expect("it is open");
    }

    /// A partition.
    pub fn partition(&self, topic: TopicId, partition: u32) -> Arc<Partition> {
        self.storage.partition(PartitionKey { topic, partition }).expect("it was declared")
    }

    /// Room, however long it takes; `None` once the storage is closed.
    fn room(&self, bytes: u64, class: Class) -> Option<crate::storage::Room> {
        let mut woken: Option<Arc<Signal>> = None;
        loop {
            match self.storage.reserve(bytes, class) {
                Ok(room) => return Some(room),
                Err(NoRoom::Closed) => return None,
                Err(NoRoom::TooLarge) => panic!("items are small"),
                // Asks to be woken, looks once more, and only then waits: as the broker does.
                Err(NoRoom::Busy) => match woken.take() {
                    Some(woken) => woken.beyond(0, "room"),
                    None => {
                        let signal = woken.insert(Arc::default());
                        let wake = Arc::clone(signal);
                        self.storage.on_room(Box::new(move || wake.ring()));
                    }
                },
            }
        }
    }

    /// Appends one record to each of several partitions and asks to be told; whether the storage took it.
    pub fn append(&self, caller: u64, to: &[&Arc<Partition>], mode: Mode) -> bool {
        let record = annals_wire::v1::Record { value: Some(Bytes::from(vec![7; 60])), ..Default::default() };
        let batch = annals_wire::v1::RecordBatch { records: vec![record], ..Default::default() };
        let payload = [Bytes::from(batch.encode_to_vec())];
        let [run] = &payload;
        let appends: Vec<Append<'_>> = to
            .iter()
            .map(|partition| Append {
                partition,
                payload: &payload,
                payload_len: run.len(),
                record_count: 1,
                max_timestamp_ms: 0,
                timestamps_missing: true,
                records_crc32: crc32fast::hash(run),
                attributes: Attributes(0),
                expected_next_offset: None,
                sequence: None,
            })
            .collect();
        loop {
            let Some(room) = self.room(8192 + 512 * to.len() as u64, Class::Data) else { return false };
            match self.storage.append(room, &appends, mode, &mut |_| Vec::new()) {
                Ok(receipt) => {
                    // A batch below `fsync` has no entry of its own: its ack says nothing of its offset.
                    let ends =
                        to.iter().zip(&receipt.appended).filter(|(_, done)| done.level == Level::Fsync);
                    let ends: Vec<_> = ends.map(|(to, done)| (to.key(), done.base_offset + 1)).collect();
                    self.wait(caller, receipt.ack, ends);
                    return true;
                }
                Err(AppendError::NotPrepared { batch }) => {
                    let bytes = 81 + run.len() as u64;
                    match self.storage.prepare(to[batch], bytes) {
                        Ok(()) => {}
                        Err(AppendError::Closed | AppendError::Fenced { .. }) => return false,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                Err(AppendError::Closed | AppendError::Fenced { .. }) => return false,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// The `n`th flush from now on fails.
    pub fn break_flush(&self, n: u64) {
        self.disk.break_flush(n);
    }

    /// An entry of the state.
    pub fn state(&self, caller: u64) -> bool {
        let Some(room) = self.room(8192, Class::Control) else { return false };
        match self.storage.submit(room, vec![Change::State(vec![1, 2, 3])]) {
            Ok(number) => self.wait(caller, number, Vec::new()),
            Err(AppendError::Closed) => return false,
            Err(error) => panic!("{error:?}"),
        }
        true
    }

    /// Asks to be told of a number; what is told is held against the disk.
    fn wait(&self, caller: u64, number: u64, ends: Vec<(PartitionKey, i64)>) {
        let house = self.clone();
        self.told(|told| told.asked += 1);
        let done = move |fate: Result<(), CommitError>| {
            if fate.is_ok() {
                let proven = house.disk.proof(|proof| proof.number());
                assert!(number <= proven, "{number} was acked, and the disk has {proven}");
                for (key, end) in ends {
                    let proven = house.disk.proof(|proof| proof.offset(key));
                    assert!(end <= proven, "{key}: {end} was acked, and the disk has {proven}");
                }
            }
            house.told(|told| match fate {
                Ok(()) => told.acked += 1,
                Err(_) => told.refused += 1,
            });
            house.settled.ring();
        };
        // Both ways of waiting: to be called, and as a future.
        if caller.is_multiple_of(2) {
            done(shuttle::future::block_on(self.storage.durable(number)));
        } else {
            self.storage.on_durable(number, Box::new(done));
        }
    }

    fn told<T>(&self, ask: impl FnOnce(&mut Told) -> T) -> T {
        ask(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads until the high watermark is `end`: waits for it to rise, and checks what it says.
    pub fn follow(&self, partition: &Arc<Partition>, end: i64) {
        let risen = Arc::new(Signal::default());
        let ring = Arc::clone(&risen);
        partition.set_on_publish(Box::new(move || ring.ring()));
        let mut position = 0;
        loop {
            let seen = risen.now();
            let bounds = partition.bounds();
            assert!(bounds.log_start <= bounds.high_watermark && bounds.high_watermark <= bounds.log_end);
            assert!(position <= bounds.high_watermark, "it went back from {position}: {bounds:?}");
            if partition.level() == Level::Fsync {
                let proven = self.disk.proof(|proof| proof.offset(partition.key()));
                assert!(bounds.high_watermark <= proven, "{bounds:?}, and the disk has {proven}");
            }
            while position < bounds.high_watermark {
                let read = partition.read(position, 1000, false).expect("what may be seen can be read");
                assert!(position < read.next_offset);
                position = read.next_offset;
            }
            if position >= end {
                return;
            }
            risen.beyond(seen, "the high watermark");
        }
    }

    /// Waits until everything that was asked for so far has been told.
    pub fn settle(&self) {
        loop {
            let seen = self.settled.now();
            if self.told(|told| told.acked + told.refused == told.asked) {
                return;
            }
            self.settled.beyond(seen, "acks");
        }
    }

    /// After the end: everybody was told. How many acks there were.
    pub fn acks(&self) -> u64 {
        self.told(|told| {
            assert_eq!(told.acked + told.refused, told.asked, "somebody still waits");
            told.acked
        })
    }

    /// Runs `work` on a thread of its own.
    pub fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let house = self.clone();
        thread::spawn(move || work(&house))
    }
}
