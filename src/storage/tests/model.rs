//! Random histories against plain lists: appends, groups, commits, snapshots, upkeep, kills.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Append { partition: usize, size: usize, strong: bool },
    Group { size: usize },
    State,
    Commit,
    Idle,
    Snapshot,
    Upkeep,
    Grow,
    Sync,
    Kill,
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..PARTITIONS.len(), 0_usize..1500, any::<bool>())
            .prop_map(|(partition, size, strong)| Op::Append { partition, size, strong }),
        2 => (0_usize..900).prop_map(|size| Op::Group { size }),
        2 => Just(Op::State),
        8 => Just(Op::Commit),
        1 => Just(Op::Idle),
        2 => Just(Op::Snapshot),
        3 => Just(Op::Upkeep),
        1 => Just(Op::Grow),
        1 => Just(Op::Sync),
        1 => Just(Op::Kill),
        1 => Just(Op::Stop),
    ]
}

const PARTITIONS: [(u8, u32); 4] = [(1, 0), (1, 1), (2, 0), (3, 0)];

#[derive(Default)]
struct Model {
    /// Values attempted in order, and how many of them were acked.
    logs: [(Vec<Vec<u8>>, usize); 4],
    states: u64,
    waiting: Vec<(Receipt, Vec<(usize, usize)>)>,
    counter: u64,
}

impl Model {
    fn value(&mut self, size: usize) -> Vec<u8> {
        self.counter += 1;
        let mut value = self.counter.to_le_bytes().to_vec();
        value.resize(8 + size, b'v');
        value
    }

    fn sent(&mut self, receipt: Receipt, parts: Vec<(usize, Vec<u8>)>) {
        let mut ends = Vec::new();
        for ((index, value), appended) in parts.into_iter().zip(&receipt.appended) {
            let log = &mut self.logs[index].0;
            assert_eq!(appended.base_offset, log.len() as i64);
            log.push(value);
            ends.push((index, log.len()));
        }
        self.waiting.push((receipt, ends));
    }

    fn collect(&mut self, bench: &Bench) {
        let logs = &mut self.logs;
        self.waiting.retain(|(receipt, ends)| {
            let acked = bench.acked(receipt);
            if acked {
                ends.iter().for_each(|(index, end)| logs[*index].1 = logs[*index].1.max(*end));
            }
            !acked
        });
    }

    /// After a start: everything acked is there, what is there is a prefix of what was attempted.
    fn recovered(&mut self, bench: &Bench) {
        self.waiting.clear();
        for (index, (n, partition)) in PARTITIONS.iter().enumerate() {
            let (log, acked) = &mut self.logs[index];
            let found = bench.values(*n, *partition);
            assert!(found.len() >= *acked, "{n}/{partition}: {} acked, {} found", acked, found.len());
            assert!(found.len() <= log.len());
            for (offset, (at, value)) in found.iter().enumerate() {
                assert_eq!((*at, value), (offset as i64, &log[offset]), "{n}/{partition}");
            }
            log.truncate(found.len());
            *acked = found.len();
        }
    }
}

fn declare(bench: &Bench) {
    bench.declare(1, 2, Level::Fsync);
    bench.declare(2, 1, Level::Interval);
    bench.declare(3, 1, Level::Os);
    bench.storage.commit_step();
}

#[expect(clippy::too_many_lines, reason = "one arm an operation")]
fn run(ops: Vec<Op>) {
    let mut bench = Bench::open(&MemoryDisk::new(), tiny()).unwrap();
    let mut model = Model::default();
    declare(&bench);
    for op in ops {
        match op {
            Op::Append { partition, size, strong } => {
                let (n, number) = PARTITIONS[partition];
                let value = model.value(size);
                let level = if strong { Level::Fsync } else { Level::Os };
                let to = [(bench.partition(n, number), &value[..])];
                match bench.append(&to, Mode { level, atomic: false }, &[]) {
                    Ok(receipt) => model.sent(receipt, vec![(partition, value)]),
                    Err(AppendError::DiskFull) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            Op::Group { size } => {
                let parts: Vec<_> = [0, 2, 3].map(|index| (index, model.value(size))).into();
                let to: Vec<_> = parts
                    .iter()
                    .map(|(index, value)| {
                        (bench.partition(PARTITIONS[*index].0, PARTITIONS[*index].1), &value[..])
                    })
                    .collect();
                let state = (model.states + 1).to_le_bytes();
                if let Ok(receipt) = bench.append(&to, Mode { level: Level::Fsync, atomic: true }, &[state]) {
                    model.states += 1;
                    model.sent(receipt, parts);
                }
            }
            Op::State => {
                if let Ok(room) = bench.storage.reserve(8192, Class::Control) {
                    model.states += 1;
                    let state = model.states.to_le_bytes().to_vec();
                    let number = bench.storage.submit(room, vec![Change::State(state.clone())]).unwrap();
                    bench.listed.lock().entries.push((number, state));
                }
            }
            Op::Commit => {
                bench.storage.commit_step();
                model.collect(&bench);
            }
            Op::Idle => {
                bench.storage.idle_step();
            }
            Op::Snapshot => {
                bench.snapshot(false);
            }
            Op::Upkeep => {
                while bench.storage.upkeep_step() {}
                bench.storage.close_step();
            }
            Op::Grow => {
                bench.storage.grow_step().unwrap();
            }
            Op::Sync => {
                bench.clock.advance(std::time::Duration::from_millis(150));
                bench.storage.interval_step();
            }
            Op::Kill | Op::Stop => {
                if matches!(op, Op::Stop) {
                    bench.storage.commit_step();
                    model.collect(&bench);
                    bench.snapshot(true);
                }
                bench = bench.reopen().unwrap();
                model.recovered(&bench);
                let states = bench.listed.lock().entries.len() as u64;
                assert!(states <= model.states);
                let numbered: Vec<u64> = bench
                    .listed
                    .lock()
                    .entries
                    .iter()
                    .map(|(_, v)| u64::from_le_bytes(v[..8].try_into().unwrap()))
                    .collect();
                assert_eq!(numbered, (1..=states).collect::<Vec<_>>());
                model.states = states;
                assert!(bench.report.damages.is_empty(), "{:?}", bench.report.damages);
            }
        }
        assert!(bench.storage.failure().is_none(), "{:?}", bench.storage.failure());
    }
    bench.storage.commit_step();
    model.collect(&bench);
    let bench = bench.reopen().unwrap();
    model.recovered(&bench);
    let again = bench.reopen().unwrap();
    model.recovered(&again);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acked_is_there_after_every_kill(ops in prop::collection::vec(op(), 1..250)) {
        run(ops);
    }
}
