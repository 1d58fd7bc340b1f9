//! `log repair` on copies of golden and on fresh directories: what each kind of damage leads to, before and after; a plan
//! writes nothing; what is in quarantine is what was there.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    reason = "a test: what does not hold must fail it"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use annals::{
    broker::{
        Broker, CodecSet, Config, Fetch, Position, Principal, Produce, Start, TopicDefaults, TopicSettings,
    },
    clock::{Clock, SystemClock},
    storage::{LockError, OpenError, Options, RealDisk, Report},
};
use bytes::Bytes;
use prost::Message as _;

const ANNALS: &str = env!("CARGO_BIN_EXE_annals");

/// Every file with its bytes, by path.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in content(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

fn golden(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/1").join(case), dir.path());
    dir
}

fn log(command: &str, dir: &Path, more: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        Command::new(ANNALS).args(["log", command, "-f", "table"]).arg(dir).args(more).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// A plan that finds something, writes nothing, then the repair.
fn repaired(dir: &Path, expected_after: i32) -> String {
    let before = content(dir);
    let (code, planned) = log("repair", dir, &[]);
    assert_eq!(code, 8, "{planned}");
    assert_eq!(content(dir), before, "a plan writes nothing");
    let (code, done) = log("repair", dir, &["--yes"]);
    assert_eq!(code, expected_after, "{done}");
    // Whatever there was is there still, where it was or in quarantine, but for what was made again.
    let after: Vec<Vec<u8>> = content(dir).into_values().collect();
    for (path, bytes) in before {
        let kept = after.contains(&bytes);
        assert!(kept, "{} is gone", path.display());
    }
    let (code, again) = log("repair", dir, &[]);
    assert_ne!(code, 8, "nothing is left to be done: {again}");
    format!("{planned}{done}")
}

fn untouched(dir: &Path, code: i32) -> String {
    let before = content(dir);
    for more in [&[] as &[&str], &["--yes"]] {
        let (got, said) = log("repair", dir, more);
        assert_eq!(got, code, "{said}");
    }
    assert_eq!(content(dir), before);
    log("repair", dir, &[]).1
}

fn intact(dir: &Path) {
    let (code, said) = log("verify", dir, &[]);
    assert_eq!(code, 0, "{said}");
}

fn options() -> Options {
    Options { ring_bytes: 4 << 20, ring_file_bytes: 1 << 20, keep_free_bytes: 0, ..Options::default() }
}

/// A child that another test starts holds every lock of this process between its fork and its exec: a moment later it does not.
fn locked(dir: &Path) -> RealDisk {
    for _ in 0..250 {
        match RealDisk::open(dir) {
            Err(LockError::InUse { .. }) => std::thread::sleep(Duration::from_millis(20)),
            other => return other.unwrap(),
        }
    }
    panic!("somebody has {}", dir.display());
}

fn open(dir: &Path) -> Result<(Arc<Broker>, Report), OpenError> {
    let disk = Arc::new(locked(dir));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let topic_defaults = TopicDefaults { segment_bytes: 1 << 20, ..TopicDefaults::default() };
    Broker::open(disk, clock, options(), Config { topic_defaults, ..Config::default() })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Ends of both partitions of a topic, as served, or the reason why not.
fn ends(broker: &Broker, topic: &str) -> Vec<Result<i64, String>> {
    let one = |partition| {
        let (mut next, mut last) = (0, -1);
        while next != last {
            last = next;
            let position = Position {
                topic: topic.into(),
                partition: Some(partition),
                start: Start::Offset(next),
                last_epoch: None,
            };
            let call = Fetch {
                positions: vec![position],
                max_wait: Duration::ZERO,
                min_bytes: 0,
                max_bytes: 0,
                accept_codecs: CodecSet::default(),
                skip_damaged: false,
                filter: None,
            };
            let fetched =
                runtime().block_on(broker.fetch(call)).map_err(|error| error.reason().to_owned())?;
            next = fetched.slices.first().map_or(0, |slice| slice.next_offset);
        }
        Ok(next)
    };
    [0, 1].map(one).into()
}

/// What is served after a start; the report of it.
fn served(dir: &Path, topic: &str) -> (Report, i64) {
    let (broker, report) = open(dir).unwrap();
    let running = broker.start().unwrap();
    let all = ends(&broker, topic).into_iter().map(Result::unwrap).sum();
    running.stop();
    (report, all)
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snapshot-")).collect()
}

/// One bit, in place: writing the file anew would cut it for a moment, which a server that writes takes for what it is.
fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn quarantined(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.join("quarantine")) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_intact_is_left_alone() {
    let dir = golden("valid");
    assert!(untouched(dir.path(), 0).contains("nothing to repair"));
    assert!(quarantined(dir.path()).is_empty());
}

#[test]
fn a_bad_snapshot_beside_a_good_one_goes_to_quarantine() {
    let dir = golden("snapshot-bit");
    assert_eq!(log("verify", dir.path(), &[]).0, 7);
    repaired(dir.path(), 0);
    intact(dir.path());
    assert!(matches!(&quarantined(dir.path())[..], [name] if name.starts_with("snapshot-")));
    let (report, all) = served(dir.path(), "orders");
    assert_eq!((report.damages, all), (vec![], 30));
}

#[test]
fn with_both_snapshots_bad_or_gone_one_is_made_from_what_is_there() {
    for gone in [false, true] {
        let dir = golden("valid");
        for path in snapshots(dir.path()) {
            if gone {
                fs::remove_file(path).unwrap();
            } else {
                flip(&path, 70);
            }
        }
        if gone {
            // The journal begins with the directory: a start needs no snapshot at all.
            assert_eq!(untouched(dir.path(), 0).lines().count(), 1);
        } else {
            assert!(open(dir.path()).is_err());
            let told = repaired(dir.path(), 0);
            assert!(!told.contains("unknown"), "the journal goes back to the beginning: {told}");
            assert_eq!(quarantined(dir.path()).len(), 2);
        }
        intact(dir.path());
        let (report, all) = served(dir.path(), "orders");
        assert_eq!((report.damages, all), (vec![], 30));
    }
}

#[test]
fn what_only_snapshots_held_is_said_to_be_unknown_and_every_record_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(dir.path(), "orders", 60);
    for path in snapshots(dir.path()) {
        flip(&path, 70);
    }
    let told = repaired(dir.path(), 0);
    assert!(told.contains("unknown  the name and the settings of topic"), "{told}");
    assert!(told.contains("unknown  positions that groups committed before frame"), "{told}");
    intact(dir.path());
    let name = told.split_whitespace().find(|word| word.starts_with("recovered-")).unwrap();
    let (report, all) = served(dir.path(), name.trim_end_matches(','));
    assert_eq!((report.damages, all), (vec![], written));
    // And after another start, from its own snapshot.
    assert_eq!(served(dir.path(), name.trim_end_matches(',')).1, written);
}

#[test]
fn segments_in_each_other_s_place_are_put_back() {
    let dir = golden("swapped-segment");
    assert_eq!(log("verify", dir.path(), &[]).0, 7);
    repaired(dir.path(), 0);
    intact(dir.path());
    let (report, all) = served(dir.path(), "orders");
    assert_eq!((report.damages, all), (vec![], 30));
}

#[test]
fn a_damaged_journal_and_damaged_records_are_told_and_left() {
    let dir = golden("journal-bit");
    let told = untouched(dir.path(), 7);
    assert!(told.contains("left     journal/"), "{told}");
    assert!(open(dir.path()).is_err(), "as said: it does not start");
    let dir = golden("segment-bit");
    let told = untouched(dir.path(), 7);
    assert!(told.contains("CORRUPT_DATA"), "{told}");
}

/// Segment files of partition 0 of the only topic, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let of = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ending == "log") && path.parent().unwrap().ends_with("0")
    };
    content(dir).into_keys().filter(of).collect()
}

#[test]
fn missing_and_truncated_segments_are_told_and_nothing_of_them_is_touched() {
    for (active, left) in
        [(false, None), (false, Some(2)), (true, None), (true, Some(2)), (true, Some(10_000))]
    {
        let dir = tempfile::tempdir().unwrap();
        let written = fill(dir.path(), "orders", 60);
        let all = segments(dir.path());
        assert!(all.len() >= 2, "{all:?}");
        let path = if active { all.last() } else { all.first() }.unwrap();
        let (original, case) = (fs::read(path).unwrap(), format!("active: {active}, left: 1/{left:?}"));
        match left {
            None => fs::remove_file(path).unwrap(),
            // Of what it holds, not of what is only allocated.
            Some(part) => {
                let data = original.iter().rposition(|byte| *byte != 0).unwrap();
                fs::write(path, &original[..data / part]).unwrap();
            }
        }
        let harmed = fs::read(path).ok();
        let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
        println!("{case}");
        let told = untouched(dir.path(), 7);
        assert!(told.contains(&name), "{case}: {told}");
        assert_eq!(
            left.is_none(),
            told.contains("is missing, and no other file says that it is it"),
            "{case}: {told}"
        );
        // A start serves what is whole, and leaves every byte of the rest as it is; so do a second one and its repair.
        for _ in 0..2 {
            let (broker, _) = open(dir.path()).unwrap();
            let running = broker.start().unwrap();
            let ends = ends(&broker, "orders");
            running.stop();
            assert!(ends[0].is_err() && ends[1].is_ok(), "{case}: {ends:?}");
            assert_eq!(fs::read(path).ok(), harmed, "{case}");
        }
        untouched(dir.path(), 7);
        assert!(quarantined(dir.path()).is_empty());
        // The file comes back, and with it all it held.
        fs::write(path, &original).unwrap();
        intact(dir.path());
        let (report, found) = served(dir.path(), "orders");
        assert_eq!((report.damages, found), (vec![], written), "{case}");
    }
}

#[test]
fn an_index_that_does_not_hold_or_is_missing_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let written = fill(dir.path(), "orders", 60);
    let hints: Vec<PathBuf> = content(dir.path())
        .into_keys()
        .filter(|path| path.extension().is_some_and(|e| e == "index"))
        .collect();
    assert!(hints.len() >= 4, "segments were sealed: {hints:?}");
    let good: Vec<Vec<u8>> = hints.iter().map(|path| fs::read(path).unwrap()).collect();
    flip(&hints[0], 45);
    fs::remove_file(&hints[1]).unwrap();
    repaired(dir.path(), 0);
    for (path, bytes) in hints.iter().zip(good) {
        assert_eq!(fs::read(path).unwrap(), bytes, "{}", path.display());
    }
    assert!(quarantined(dir.path()).iter().any(|name| name.ends_with("-0.index")));
    intact(dir.path());
    assert_eq!(served(dir.path(), "orders").1, written);
}

#[test]
fn a_running_server_s_directory_is_not_repaired_but_can_be_verified() {
    let dir = golden("valid");
    let (broker, _) = open(dir.path()).unwrap();
    let running = broker.start().unwrap();
    let (code, said) = log("repair", dir.path(), &["--yes"]);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("running server"), "{said}");
    let (code, said) = log("verify", dir.path(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("a server") && said.contains("runs on it"), "{said}");
    running.stop();
}

#[test]
fn a_server_that_writes_all_the_time_is_never_called_damaged_and_damage_under_it_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), "orders", 8);
    let (broker, _) = open(dir.path()).unwrap();
    let running = broker.start().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let writer = {
        let broker = Arc::clone(&broker);
        std::thread::spawn(move || {
            let runtime = runtime();
            let mut written = 0;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                runtime.block_on(broker.produce(record(written, 2_000))).unwrap();
                written += 1;
            }
            written
        })
    };
    for _ in 0..12 {
        let (code, said) = log("verify", dir.path(), &[]);
        assert_eq!(code, 0, "{said}");
    }
    let segment = content(dir.path())
        .into_keys()
        .find(|path| path.to_string_lossy().ends_with("00000000000000000000-0.log"))
        .unwrap();
    flip(&segment, 5_000);
    let (code, said) = log("verify", dir.path(), &[]);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("orders[") && said.contains("CORRUPT_DATA"), "{said}");
    stop.send(()).unwrap();
    assert!(writer.join().unwrap() > 0);
    running.stop();
}

fn record(number: i64, size: usize) -> Produce {
    let value = annals_wire::v1::Record {
        key: Some(Bytes::from(format!("cust-{number}"))),
        value: Some(Bytes::from(vec![b'v'; size])),
        ..Default::default()
    };
    let request = annals_wire::v1::ProduceRequest {
        topic: "orders".into(),
        records: vec![value],
        ..Default::default()
    };
    let scanned = annals_wire::request::scan(&[Bytes::from(request.encode_to_vec())]).unwrap();
    Produce { scanned, principal: Principal::anonymous() }
}

/// So many records of 200 KB over two partitions: segments are sealed, the journal goes round. Ends in order.
fn fill(dir: &Path, topic: &str, records: i64) -> i64 {
    let (broker, _) = open(dir).unwrap();
    let running = broker.start().unwrap();
    let runtime = runtime();
    let settings = TopicSettings { partitions: Some(2), ..TopicSettings::default() };
    runtime.block_on(broker.create_topic(&Principal::anonymous(), topic, settings, "")).unwrap();
    for number in 0..records {
        runtime.block_on(broker.produce(record(number, 200_000))).unwrap();
    }
    running.stop();
    drop(broker);
    // Once more, so that the topic's making is behind both snapshots.
    for _ in 0..2 {
        let (broker, _) = open(dir).unwrap();
        broker.start().unwrap().stop();
    }
    records
}
