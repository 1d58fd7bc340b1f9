//! Directories that earlier releases wrote, valid and broken, and what this release must say of each.
//!
//! `data/golden/<format version>/<case>` never changes once released. A new format adds a folder:
//! `ANNALS_MAKE_GOLDEN=1 cargo test --test golden make` writes the one of the present format.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test: what does not hold must fail it"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use annals::{
    broker::{
        Broker, CodecSet, Commit, CommitPosition, Config, Fetch, Position, Principal, Produce, Start,
        TopicSettings,
    },
    clock::{Clock, ManualClock, SystemClock},
    state::State,
    storage::{Disk, OpenError, Options, RealDisk, Report, Verdict, verify},
};
use bytes::Bytes;
use prost::Message;

const RECORDS: usize = 30;

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden/1").join(case)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() == "reserve" {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A scratch copy: what is in the repository is never opened for writing.
fn scratch(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&golden(case), dir.path());
    dir
}

fn judge(dir: &Path) -> Result<Verdict, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open_read_only(dir).unwrap());
    verify(&disk, &mut State::default(), &mut |_, _| {})
}

fn open(dir: &Path) -> Result<(Arc<Broker>, Report), OpenError> {
    let disk = Arc::new(RealDisk::open(dir).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Broker::open(disk, clock, Options::default(), Config::default())
}

/// What a partition holds, or the reason it cannot be read.
fn read(broker: &Broker, partition: u32) -> Result<i64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let position = Position {
        topic: "orders".into(),
        partition: Some(partition),
        start: Start::Earliest,
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
    let fetched = runtime.block_on(broker.fetch(call)).map_err(|error| error.reason().to_owned())?;
    Ok(fetched.slices.first().map_or(0, |slice| slice.next_offset))
}

fn held(dir: &Path) -> (Report, Vec<Result<i64, String>>) {
    let (broker, report) = open(dir).unwrap();
    let running = broker.start().unwrap();
    let held = [0, 1].map(|partition| read(&broker, partition)).into();
    running.stop();
    (report, held)
}

fn all(held: &[Result<i64, String>]) -> usize {
    held.iter().map(|end| usize::try_from(*end.as_ref().unwrap()).unwrap()).sum()
}

#[test]
fn valid() {
    let dir = scratch("valid");
    let verdict = judge(dir.path()).unwrap();
    assert_eq!((verdict.damages.len(), verdict.records), (0, RECORDS as u64));
    let (report, held) = held(dir.path());
    assert!(report.clean && report.damages.is_empty());
    assert_eq!(all(&held), RECORDS);
}

#[test]
fn a_torn_tail_is_no_damage_and_loses_only_what_was_never_acked() {
    let dir = scratch("torn-tail");
    assert_eq!(judge(dir.path()).unwrap().damages, []);
    let (report, held) = held(dir.path());
    assert!(!report.clean && report.damages.is_empty());
    assert_eq!(all(&held), RECORDS - 2);
}

#[test]
fn a_flipped_bit_in_the_journal_is_refused() {
    let dir = scratch("journal-bit");
    let damages = judge(dir.path()).unwrap().damages;
    assert!(matches!(&damages[..], [damage] if damage.file.starts_with("journal/")), "{damages:?}");
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged { file, .. }) if file.starts_with("journal/")));
}

#[test]
fn a_flipped_bit_in_the_newest_snapshot_is_told_and_the_older_one_serves() {
    let dir = scratch("snapshot-bit");
    let damages = judge(dir.path()).unwrap().damages;
    assert!(matches!(&damages[..], [damage] if damage.file.starts_with("snapshot-")), "{damages:?}");
    let (report, held) = held(dir.path());
    assert_eq!(report.damages.len(), 1);
    assert_eq!(all(&held), RECORDS);
}

#[test]
fn a_flipped_bit_in_a_segment_names_its_offsets_and_the_other_partition_serves() {
    let dir = scratch("segment-bit");
    let damages = judge(dir.path()).unwrap().damages;
    assert!(
        matches!(&damages[..], [damage] if damage.offsets == Some((0, 0)) && damage.partition.is_some()),
        "{damages:?}"
    );
    let (_, held) = held(dir.path());
    assert_eq!(held[0], Err("CORRUPT_DATA".to_owned()));
    assert!(held[1].is_ok());
}

#[test]
fn a_swapped_segment_is_never_served() {
    let dir = scratch("swapped-segment");
    let damages = judge(dir.path()).unwrap().damages;
    assert!(damages.iter().any(|damage| damage.what.contains("another place")), "{damages:?}");
    let (_, held) = held(dir.path());
    assert_eq!(held, [Err("CORRUPT_DATA".to_owned()), Err("CORRUPT_DATA".to_owned())]);
}

#[test]
fn a_newer_format_and_a_foreign_directory_are_left_alone() {
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for case in ["newer-format", "foreign-file"] {
        let dir = scratch(case);
        let before = names(dir.path());
        let refused = |outcome: Result<(), OpenError>| match outcome {
            Err(OpenError::Newer { what }) => case == "newer-format" && what.contains("version 2"),
            Err(OpenError::Foreign { found }) => case == "foreign-file" && found.contains("accounts.db"),
            _ => false,
        };
        assert!(refused(judge(dir.path()).map(drop)), "{case}");
        assert!(refused(open(dir.path()).map(drop)), "{case}");
        assert_eq!(names(dir.path()), before);
    }
}

/// Writes the directories of the present format.
#[test]
fn make() {
    if std::env::var_os("ANNALS_MAKE_GOLDEN").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let work = tempfile::tempdir().unwrap();
    let [dir, torn, behind] = ["valid", "torn", "behind"].map(|name| work.path().join(name));
    let options = Options {
        ring_bytes: 512 << 10,
        ring_file_bytes: 256 << 10,
        keep_free_bytes: 0,
        ..Options::default()
    };
    {
        let disk = Arc::new(RealDisk::open(&dir).unwrap());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_790_000_000_000, 1));
        let (broker, _) = Broker::open(disk, clock, options, Config::default()).unwrap();
        let running = broker.start().unwrap();
        let principal = Principal::anonymous();
        let settings = TopicSettings { partitions: Some(2), ..TopicSettings::default() };
        runtime.block_on(broker.create_topic(&principal, "orders", settings, "")).unwrap();
        for n in 0..RECORDS - 1 {
            if n == RECORDS - 2 {
                // As it is before the last append: the torn tail's frame is cut out of what comes after.
                std::thread::sleep(Duration::from_millis(100));
            }
            runtime.block_on(broker.produce(one_record(n))).unwrap();
        }
        let position = CommitPosition {
            topic: "orders".into(),
            partition: 0,
            next_offset: 3,
            expected_offset: None,
            leader_epoch: None,
            topic_id: None,
            metadata: "golden".into(),
            ..CommitPosition::default()
        };
        let commit = Commit { group: "billing".into(), positions: vec![position], ..Commit::default() };
        copy(&dir, &torn);
        runtime.block_on(broker.produce(one_record(RECORDS - 1))).unwrap();
        copy(&dir, &behind);
        runtime.block_on(broker.commit_offsets(commit)).unwrap();
        running.stop();
    }
    for case in [
        "valid",
        "snapshot-bit",
        "segment-bit",
        "swapped-segment",
        "newer-format",
        "journal-bit",
        "torn-tail",
        "foreign-file",
    ] {
        let _absent = fs::remove_dir_all(golden(case));
    }
    for case in ["valid", "snapshot-bit", "segment-bit", "swapped-segment", "newer-format"] {
        copy(&dir, &golden(case));
        trim(&golden(case).join("topics"));
    }
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let newest = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snapshot-"))
            .max()
            .unwrap()
    };
    flip(&newest(&golden("snapshot-bit")), 80);
    let [first, second] = segments(&golden("segment-bit"));
    drop(second);
    flip(&first, 103 + 90);
    let [first, second] = segments(&golden("swapped-segment"));
    let bytes = fs::read(&first).unwrap();
    fs::copy(&second, &first).unwrap();
    fs::write(&second, bytes).unwrap();
    flip(&golden("newer-format").join("ANNALS"), 8);
    let root = golden("newer-format").join("ANNALS");
    let mut bytes = fs::read(&root).unwrap();
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    fs::write(&root, bytes).unwrap();
    fs::create_dir_all(golden("foreign-file")).unwrap();
    fs::write(golden("foreign-file").join("accounts.db"), b"somebody else's\n").unwrap();
    // The last frame has nothing behind it that says it was durable; the one before has.
    for (case, from, behind_last) in [("torn-tail", &torn, 0), ("journal-bit", &behind, 1)] {
        copy(from, &golden(case));
        trim(&golden(case).join("topics"));
        let ring = golden(case).join("journal/1");
        let bytes = fs::read(&ring).unwrap();
        let magic = bytes[4096..4104].to_vec();
        let frames: Vec<usize> =
            (4096..bytes.len()).step_by(4096).filter(|at| bytes[*at..*at + 8] == magic).collect();
        flip(&ring, frames[frames.len() - 1 - behind_last] + 100);
    }
}

fn one_record(n: usize) -> Produce {
    let record = annals_wire::v1::Record {
        key: Some(Bytes::from(format!("cust-{n}"))),
        value: Some(Bytes::from(format!("{{\"id\":{n}}}"))),
        timestamp_ms: Some(1_790_000_000_000 + n as i64),
        ..Default::default()
    };
    let request = annals_wire::v1::ProduceRequest {
        topic: "orders".into(),
        records: vec![record],
        ..Default::default()
    };
    let scanned = annals_wire::request::scan(&[Bytes::from(request.encode_to_vec())]).unwrap();
    Produce { scanned, principal: Principal::anonymous() }
}

fn segments(dir: &Path) -> [PathBuf; 2] {
    let topic = fs::read_dir(dir.join("topics")).unwrap().next().unwrap().unwrap().path();
    [0, 1].map(|partition| topic.join(format!("{partition}/00000000000000000000-0.log")))
}

/// Cuts the allocated tail off, which holds nothing.
fn trim(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            trim(&path);
        } else {
            let bytes = fs::read(&path).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            fs::write(&path, &bytes[..end]).unwrap();
        }
    }
}
