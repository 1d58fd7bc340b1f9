//! The storage's threads in thousands of orders, the same ones every time.
//!
//! Each test runs one scene (see `annals_threads::house` for what must hold in it) under a random scheduler and under PCT,
//! which finds what needs few changes of thread at the right moments. A failure prints the schedule; `shuttle::replay` runs it
//! again. `ANNALS_SCHEDULES=<n>` runs so many of each, from another beginning.

use annals_threads::{
    house::{FAST, House, SURE, waits},
    storage::{Level, Mode},
    sync::let_waits_end,
    with_mistakes,
};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

const OS: Mode = Mode { level: Level::Os, atomic: false };
const FSYNC: Mode = Mode { level: Level::Fsync, atomic: false };
const ATOMIC: Mode = Mode { level: Level::Fsync, atomic: true };

/// Runs a scene in `schedules` random orders, and half as many of PCT.
fn run(schedules: usize, scene: fn()) {
    let asked = std::env::var("ANNALS_SCHEDULES").ok().and_then(|text| text.parse::<usize>().ok());
    let (schedules, seed) = asked.map_or((schedules, 7), |asked| (asked, asked as u64));
    let mut config = Config::default();
    config.stack_size = 512 << 10;
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("waiting for: {}", waits());
        before(panic);
    }));
    Runner::new(RandomScheduler::new_from_seed(seed, schedules), config.clone()).run(scene);
    Runner::new(PctScheduler::new_from_seed(seed, 3, schedules / 2), config).run(scene);
}

/// Three callers at different levels, two readers, a state entry.
fn appends() {
    let (house, runner) = House::open(1 << 20);
    let [sure, fast] = [SURE, FAST].map(|topic| house.partition(topic, 0));
    let work = {
        let [a, b, c, d] = [&sure, &sure, &fast, &fast].map(Clone::clone);
        let [e, f, g] = [&sure, &fast, &fast].map(Clone::clone);
        [
            house.spawn(move |house| assert!((0..3).all(|_| house.append(1, &[&a], OS)))),
            house.spawn(move |house| {
                assert!(
                    house.append(2, &[&b, &c], ATOMIC) && house.state(2) && house.append(2, &[&d], FSYNC)
                );
            }),
            house.spawn(move |house| assert!((0..2).all(|_| house.append(3, &[&g], OS)))),
            house.spawn(move |house| house.follow(&e, 4)),
            house.spawn(move |house| house.follow(&f, 4)),
        ]
    };
    work.into_iter().for_each(|thread| thread.join().unwrap());
    house.settle();
    runner.stop();
    assert_eq!(house.acks(), 8);
}

/// Segments roll, snapshots are taken, room runs out and comes back.
fn rolls() {
    let (house, runner) = House::open(400);
    let sure = house.partition(SURE, 0);
    let work = [1, 2].map(|caller| {
        let [sure, fast] = [SURE, FAST].map(|topic| house.partition(topic, 0));
        house.spawn(move |house| {
            for _ in 0..4 {
                assert!(house.append(caller, &[&sure], OS) && house.append(caller, &[&fast], OS));
            }
        })
    });
    let reader = house.spawn(move |house| house.follow(&sure, 8));
    work.into_iter().chain([reader]).for_each(|thread| thread.join().unwrap());
    house.settle();
    runner.stop();
    assert_eq!(house.acks(), 16);
}

/// The storage is closed while callers append and wait.
fn closes() {
    let (house, runner) = House::open(1 << 20);
    let work = [1, 2].map(|caller| {
        let [sure, fast] = [SURE, FAST].map(|topic| house.partition(topic, 0));
        house.spawn(move |house| {
            while house.append(caller, &[&sure], OS) && house.append(caller, &[&fast, &sure], ATOMIC) {}
        })
    });
    shuttle::thread::yield_now();
    runner.stop();
    work.into_iter().for_each(|thread| thread.join().unwrap());
    house.settle();
    house.acks();
}

/// A flush fails: of a segment, which fences its partition, or of the journal, which ends everything.
fn breaks() {
    use shuttle::rand::Rng as _;
    let (house, runner) = House::open(1 << 20);
    house.break_flush(shuttle::rand::thread_rng().gen_range(1..6));
    let work = [1, 2].map(|caller| {
        let [sure, other] = [0, 1].map(|partition| house.partition(SURE, partition));
        let fast = house.partition(FAST, 0);
        house.spawn(move |house| {
            for _ in 0..2 {
                house.append(caller, &[&sure], OS);
                house.append(caller, &[&other, &fast], if caller == 1 { ATOMIC } else { FSYNC });
            }
        })
    });
    work.into_iter().for_each(|thread| thread.join().unwrap());
    house.settle();
    runner.stop();
    house.acks();
}

/// The checker must see what it is there for: each of these mistakes, made by the storage itself, is found.
#[test]
fn planted_mistakes_are_found() {
    let_waits_end(false);
    let caught = with_mistakes(|| std::panic::catch_unwind(|| run(60, appends)).is_err());
    let missed: Vec<&String> = caught.iter().filter(|(_, caught)| !caught).map(|(name, _)| name).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn acks_and_watermarks_follow_the_disk() {
    let_waits_end(false);
    run(600, appends);
}

#[test]
fn idle_frames_come_between() {
    let_waits_end(true);
    run(300, appends);
}

#[test]
fn segments_roll_and_snapshots_are_taken_meanwhile() {
    let_waits_end(true);
    run(300, rolls);
}

#[test]
fn closing_leaves_nobody_waiting() {
    let_waits_end(false);
    run(600, closes);
}

#[test]
fn a_failed_flush_leaves_nobody_waiting() {
    let_waits_end(false);
    run(600, breaks);
}
