//! Every kind of file of a directory, spoiled in every way: what is served afterwards is what was stored, what is not
//! served is said to be damaged, and it is no more than what was spoiled.
//!
//! A small directory of the machine's own file system with sealed and active segments of all levels, two snapshots and a
//! journal with a torn tail is made once; each case spoils one file of a copy, opens it and reads everything.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::*;
use crate::storage::{OpenError, segment::DATA_START};

/// What was stored: topic, partition, values by offset.
type Stored = BTreeMap<(u8, u32), Vec<Vec<u8>>>;

/// Records of each partition that the newest snapshot has.
const FLUSHED: i64 = 22;

const PLACES: [(u8, u32, Level); 4] =
    [(1, 0, Level::Fsync), (1, 1, Level::Fsync), (2, 0, Level::Interval), (3, 0, Level::Os)];

/// Where a batch lies.
struct Lies {
    place: (u8, u32),
    offset: i64,
    bytes: std::ops::Range<u64>,
}

struct Original {
    dir: tempfile::TempDir,
    stored: Stored,
    /// Batches of each segment file, by path in the directory.
    segments: BTreeMap<String, Vec<Lies>>,
}

fn options() -> Options {
    Options { ring_bytes: 512 * 1024, ring_file_bytes: 256 * 1024, pending_bytes: 256 * 1024, ..tiny() }
}

/// In memory where the system has such a place: this is not about the disk.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn make() -> Original {
    let dir = folder();
    let bench = Bench::on(&dir.path().join("data"), options()).unwrap();
    bench.declare(1, 2, Level::Fsync);
    bench.declare(2, 1, Level::Interval);
    bench.declare(3, 1, Level::Os);
    bench.storage.commit_step();
    let mut stored = Stored::new();
    let mut round = |from: u8, to: u8| {
        for n in from..to {
            for (topic, partition, _) in PLACES {
                let value = vec![n ^ (topic << 4) ^ (partition as u8); 200 + usize::from(n) * 20];
                bench.put(topic, partition, &value);
                stored.entry((topic, partition)).or_default().push(value);
            }
            bench.storage.commit_step();
            while bench.storage.upkeep_step() {}
        }
    };
    round(0, 14);
    assert!(bench.snapshot(false));
    round(14, FLUSHED as u8);
    assert!(bench.snapshot(false));
    round(FLUSHED as u8, 26);
    bench.clock.advance(std::time::Duration::from_secs(1));
    bench.storage.interval_step();
    bench.storage.commit_step();
    bench.storage.idle_step();
    // Never flushed: the frame is cut off in its middle.
    let tip = bench.storage.tip().place;
    bench.put(1, 0, b"never acked");
    bench.storage.commit_step();
    let mut segments = BTreeMap::new();
    for (n, number, _) in PLACES {
        for segment in bench.partition(n, number).segments().iter() {
            let scan = crate::storage::scan::Scan::new(segment, DATA_START, segment.end());
            let lies = scan.map(|found| {
                let found = found.unwrap();
                Lies { place: (n, number), offset: found.header.base_offset, bytes: found.range() }
            });
            let lies: Vec<Lies> = lies.filter(|lies| lies.offset < 26).collect();
            assert!(segment.id().path().ends_with(".log"));
            segments.insert(segment.id().path(), lies);
        }
    }
    drop(bench);
    let journal = dir.path().join(format!("data/journal/{}", tip.file));
    let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096 - 100], tip.position + 100).unwrap();
    fs::remove_file(dir.path().join("data/reserve")).unwrap();
    Original { dir, stored, segments }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn files_below(dir: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files_below(&entry.path(), &format!("{name}/"), found);
        } else {
            found.push(name);
        }
    }
    found.sort();
}

/// One way to spoil a file, and which of its bytes that is.
enum Spoil {
    Cut(u64),
    Flip(u64),
    ZeroPage,
    Swap(String),
    Duplicate(String),
    Missing,
    Symlink,
    Fifo,
}

impl Spoil {
    /// Spoils; returns the bytes that are not what they were.
    fn apply(&self, dir: &Path, name: &str) -> std::ops::Range<u64> {
        let path = dir.join(name);
        let mut bytes = fs::read(&path).unwrap();
        let length = bytes.len() as u64;
        let index = |at: u64| usize::try_from(at).unwrap();
        match self {
            Self::Cut(to) => {
                fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(*to).unwrap();
                return *to..length;
            }
            Self::Flip(at) => {
                bytes[index(*at)] ^= 1 << (at % 8);
                fs::write(&path, bytes).unwrap();
                return *at..at + 1;
            }
            Self::ZeroPage => {
                let from = length / 2 / 4096 * 4096;
                let to = (from + 4096).min(length);
                bytes[index(from)..index(to)].fill(0);
                fs::write(&path, bytes).unwrap();
                return from..to;
            }
            Self::Swap(other) => {
                fs::rename(&path, dir.join("swap")).unwrap();
                fs::rename(dir.join(other), &path).unwrap();
                fs::rename(dir.join("swap"), dir.join(other)).unwrap();
            }
            Self::Duplicate(other) => {
                fs::copy(&path, dir.join(other)).unwrap();
                return 0..0;
            }
            Self::Missing => fs::remove_file(&path).unwrap(),
            Self::Symlink => {
                let elsewhere = dir.with_file_name("elsewhere");
                fs::rename(&path, &elsewhere).unwrap();
                symlink(elsewhere, &path).unwrap();
            }
            Self::Fifo => {
                fs::remove_file(&path).unwrap();
                let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
                assert!(made.success());
            }
        }
        0..length
    }

    fn describe(&self) -> String {
        match self {
            Self::Cut(to) => format!("cut to {to}"),
            Self::Flip(at) => format!("byte {at} flipped"),
            Self::ZeroPage => "a zeroed page".into(),
            Self::Swap(other) => format!("swapped with {other}"),
            Self::Duplicate(other) => format!("duplicated as {other}"),
            Self::Missing => "missing".into(),
            Self::Symlink => "a symlink".into(),
            Self::Fifo => "a fifo".into(),
        }
    }
}

/// Opens and reads everything; complains. Returns whether the directory was served at all.
fn judge(
    original: &Original,
    dir: &Path,
    name: &str,
    spoilt: &[(String, std::ops::Range<u64>)],
) -> Result<bool, String> {
    let bench = match Bench::on(dir, options()) {
        Ok(bench) => bench,
        Err(error) => {
            let kind = name.split('/').next().unwrap_or(name);
            let says = error.to_string();
            let kind = if kind.starts_with("snapshot") { "snapshot" } else { kind };
            // What a damaged snapshot said cannot be known makes the journal incomplete, and the other way round.
            let named = spoilt.iter().any(|(file, _)| says.contains(file))
                || says.contains(kind)
                || says.contains("journal")
                || says.contains("snapshot");
            if matches!(error, OpenError::Io { .. })
                && !says.contains("plain file")
                && !says.contains("No such file")
            {
                return Err(format!("an error of the system: {says}"));
            }
            let partial = name.starts_with("topics/");
            return if named && !partial { Ok(false) } else { Err(format!("refused with: {says}")) };
        }
    };
    for (n, number, level) in PLACES {
        let expected = &original.stored[&(n, number)];
        let partition = bench.partition(n, number);
        let end = partition.high_watermark();
        // What the journal does not know cannot be told from what a power cut took.
        let own = spoilt.iter().any(|(file, _)| file.starts_with(&format!("topics/{}/", topic(n))));
        let promised = if level == Level::Os && own { FLUSHED } else { expected.len() as i64 };
        if end < promised {
            return Err(format!("{n}/{number} ends at {end} and says nothing"));
        }
        let (mut from, mut served, mut gaps) = (0, Vec::new(), Vec::new());
        while from < end.min(expected.len() as i64) {
            let read =
                partition.read(from, 1 << 20, true).map_err(|error| format!("{n}/{number}: {error:?}"))?;
            for (offset, value) in values_in(&read) {
                let stored = usize::try_from(offset).ok().and_then(|at| expected.get(at));
                if stored.is_some_and(|stored| *stored != value) {
                    return Err(format!("{n}/{number} serves other bytes at {offset}"));
                }
                served.push(offset);
            }
            gaps.extend(read.gaps.iter().map(|gap| gap.first..=gap.last));
            if read.next_offset <= from {
                return Err(format!("{n}/{number} stands still at {from}"));
            }
            from = read.next_offset;
        }
        for offset in 0..end.min(expected.len() as i64) {
            let (is_served, in_gap) =
                (served.contains(&offset), gaps.iter().any(|gap| gap.contains(&offset)));
            if is_served == in_gap {
                return Err(format!(
                    "{n}/{number} at {offset}: served {is_served}, said to be damaged {in_gap}"
                ));
            }
            let may = spoilt.iter().any(|(file, bytes)| {
                original.segments.get(file).is_some_and(|batches| {
                    batches.iter().any(|batch| {
                        batch.place == (n, number)
                            && batch.offset == offset
                            && batch.bytes.start < bytes.end
                            && bytes.start < batch.bytes.end
                    })
                })
            });
            if in_gap && !may {
                return Err(format!("{n}/{number}: {offset} is not served, although it was not spoilt"));
            }
        }
    }
    Ok(true)
}

pub(super) fn values_in(read: &crate::storage::Read) -> Vec<(i64, Vec<u8>)> {
    use prost::Message;
    let slices = read.batches.iter().map(|bytes| annals_wire::v1::LogSlice::decode(bytes.clone()).unwrap());
    let batches = slices.flat_map(|slice| slice.batches);
    batches
        .map(|batch| (batch.base_offset, batch.records[0].value.clone().unwrap_or_default().to_vec()))
        .collect()
}

/// All ways to spoil a file.
fn ways(dir: &Path, name: &str, all: &[String]) -> Vec<Spoil> {
    let length = fs::metadata(dir.join(name)).unwrap().len();
    let mut ways = vec![Spoil::Missing, Spoil::Symlink, Spoil::Fifo, Spoil::ZeroPage];
    ways.extend([0, 1, length / 2, length - 1].map(Spoil::Cut));
    ways.extend((0..length.min(256)).map(Spoil::Flip));
    let folder = |name: &str| name.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
    let ending = |name: &str| name.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_owned());
    let kin = |other: &&String| folder(other) == folder(name) && ending(other) == ending(name);
    let sibling = all.iter().filter(kin).find(|other| *other != name);
    if let Some(sibling) = sibling.filter(|_| name != "ANNALS") {
        ways.push(Spoil::Swap(sibling.clone()));
    }
    let in_other_partition =
        all.iter().find(|other| ending(other) == ending(name) && folder(other) != folder(name));
    if let Some(other) = in_other_partition.filter(|_| name.starts_with("topics/")) {
        ways.push(Spoil::Swap(other.clone()));
    }
    let twin = match name {
        "ANNALS" => "ANNALS.tmp".to_owned(),
        _ if name.starts_with("journal/") => "journal/9".to_owned(),
        _ if name.starts_with("snapshot-") => format!("snapshot-{:020}", 1),
        _ => name.replace("-0.", "-1."),
    };
    ways.push(Spoil::Duplicate(twin));
    ways
}

/// The files of a kind that are spoilt: the whole matrix for a few, what is cheap for all.
fn chosen(all: &[String]) -> Vec<&String> {
    let of = |kind: &str| all.iter().filter(|name| name.contains(kind)).collect::<Vec<_>>();
    let mut chosen = of("ANNALS");
    chosen.extend(of("journal/"));
    chosen.extend(of("snapshot-"));
    let below = |n: u8| format!("topics/{}/", topic(n));
    for (n, ending) in [(1, ".log"), (3, ".log"), (1, ".index"), (1, ".time")] {
        let files: Vec<_> =
            all.iter().filter(|name| name.starts_with(&below(n)) && name.ends_with(ending)).collect();
        // A sealed one, and the active one of the same partition.
        let first = files.first().map(|name| name.rsplit_once('/').unwrap().0.to_owned()).unwrap_or_default();
        let mut of_first = files.into_iter().filter(|name| name.starts_with(&first));
        chosen.extend(of_first.next());
        chosen.extend(of_first.next_back());
    }
    chosen
}

#[test]
fn every_kind_of_file_spoilt_in_every_way() {
    let original = make();
    let source = original.dir.path().join("data");
    let mut all = Vec::new();
    files_below(&source, "", &mut all);
    let mut complaints = Vec::new();
    let (mut cases, mut served) = (0, 0);
    let work = folder();
    let mut run = |name: &str, way: Option<&Spoil>| {
        let dir: PathBuf = work.path().join(format!("{cases}/data"));
        copy(&source, &dir);
        let mut spoilt = Vec::new();
        if let Some(way) = way {
            let bytes = way.apply(&dir, name);
            if let Spoil::Swap(other) = way {
                spoilt.push((other.clone(), 0..u64::MAX));
            }
            spoilt.push((name.to_owned(), bytes));
        }
        cases += 1;
        match judge(&original, &dir, name, &spoilt) {
            Ok(opened) => served += u32::from(opened),
            Err(what) => {
                complaints
                    .push(format!("{name}, {}: {what}", way.map_or("as it was".into(), Spoil::describe)));
            }
        }
        fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    };
    run("nothing", None);
    for name in chosen(&all) {
        for way in ways(&source, name, &all) {
            run(name, Some(&way));
        }
    }
    assert!(complaints.is_empty(), "{} of {cases}:\n{}", complaints.len(), complaints.join("\n"));
    assert!(cases > 2500, "{cases}");
    assert!(served > cases / 2, "{served} of {cases} were served at all");
}
