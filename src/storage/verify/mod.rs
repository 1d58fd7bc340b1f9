//! `log verify`: one verdict over a data directory, reading only.
//!
//! ```text
//! snapshot, journal (replay) -> which segments, where each ends -> every batch of every segment (`segment`, on threads)
//! ```
//!
//! 1. What recovery would simply do is not damage: a torn tail of the journal, batches that the journal holds and the
//!    segment does not yet, bytes behind a partition's end, an index that will be rebuilt.
//! 2. Of a directory that a server is running on, what its journal says at one moment is judged; what comes later is not
//!    looked at, and what looks damaged must look so again from a newer moment, or it was only being changed.
//! 3. Each byte is read once and hashed once, out of a buffer that fits a processor's cache; nothing is mapped, so a
//!    file that is cut meanwhile is an error and not a signal.

mod segment;
mod window;

use std::{io, sync::Arc, time::Duration};

use self::segment::{Held, Job, Work};
use super::{
    PartitionKey,
    disk::{Access, Disk, EntryKind},
    error::OpenError,
    recovery::{Inline, Machine, Replayed, replay, replay_running},
    replace::join,
    ring,
    root::{self, Found, Root},
    segment::{SegmentId, parse_name},
    snapshot,
};
use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};

/// Looks at the journal of a running server until one holds.
const ATTEMPTS: usize = 50;
/// The same damage seen so often in a row is no accident of reading while it is written.
const CERTAIN: usize = 3;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(40);
/// Most threads.
const MOST_THREADS: usize = 8;

/// Something that was durable and does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// File, relative to the data directory.
    pub file: String,
    /// Byte position in it.
    pub position: u64,
    /// The partition, where it is one's.
    pub partition: Option<PartitionKey>,
    /// First and last offset concerned, inclusive, where that is known.
    pub offsets: Option<(i64, i64)>,
    /// What is wrong.
    pub what: String,
    /// What that means for who uses the data.
    pub means: String,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Nothing = intact. By partition, file, position.
    pub damages: Vec<Damage>,
    /// Harmless things, most of which a start will deal with by itself.
    pub notes: Vec<String>,
    /// Topics.
    pub topics: usize,
    /// Partitions that hold anything.
    pub partitions: usize,
    /// Segment files read.
    pub segments: u64,
    /// Batches verified.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads everything in a directory at rest and judges. `progress` is told the bytes read so far, and of how many. An error
/// means that it could not be checked, or that it is no directory of ours.
pub fn verify(
    disk: &Arc<dyn Disk>,
    machine: &mut dyn Machine,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, OpenError> {
    let root = identity(disk)?;
    match replay(disk, &root, Access::Read, machine) {
        Ok(replayed) => {
            let mut verdict = judge(disk, &root, &replayed, progress)?;
            notes(disk, &replayed, &mut verdict);
            Ok(verdict)
        }
        Err(error) => refused(error),
    }
}

/// As [`verify`], of a directory that a server may be changing. Also gives back the state machine.
pub fn verify_running<M: Machine + Default>(
    disk: &Arc<dyn Disk>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Verdict, M), OpenError> {
    let root = identity(disk)?;
    let (first, machine) = look_running::<M>(disk, &root)?;
    let replayed = match first {
        Ok(replayed) => replayed,
        Err(damage) => return Ok((refused(damage)?, machine)),
    };
    let mut verdict = judge(disk, &root, &replayed, progress)?;
    // A topic may have been deleted meanwhile, a segment sealed.
    for _ in 0..CERTAIN {
        if verdict.damages.is_empty() {
            break;
        }
        std::thread::sleep(PAUSE);
        let (Ok(newer), _) = look_running::<M>(disk, &root)? else { break };
        let again = judge_only(disk, &root, &newer, &verdict.damages)?;
        verdict.damages.retain(|damage| {
            again.iter().any(|seen| seen.file == damage.file && seen.position == damage.position)
        });
    }
    Ok((verdict, machine))
}

fn identity(disk: &Arc<dyn Disk>) -> Result<Root, OpenError> {
    match root::read(disk)? {
        Found::Root(root) => Ok(root),
        Found::Empty => Err(OpenError::Foreign { found: "it is empty".into() }),
    }
}

/// A directory that no server would start on.
fn refused(error: OpenError) -> Result<Verdict, OpenError> {
    let OpenError::Damaged { file, position, what } = error else { return Err(error) };
    let means =
        "the server refuses to start: what was acked behind this place cannot be told from what was not"
            .into();
    let damage = Damage { file, position, partition: None, offsets: None, what, means };
    Ok(Verdict { damages: vec![damage], ..Verdict::default() })
}

/// What the journal says at one moment; the inner error is damage that stays where it is.
fn look_running<M: Machine + Default>(
    disk: &Arc<dyn Disk>,
    root: &Root,
) -> Result<(Result<Replayed, OpenError>, M), OpenError> {
    let mut before: Option<(String, u64)> = None;
    let mut seen = 0;
    for attempt in 1.. {
        let mut machine = M::default();
        match replay_running(disk, root, &mut machine) {
            Ok(replayed) => return Ok((Ok(replayed), machine)),
            Err(OpenError::Damaged { file, position, what }) => {
                let here = Some((file.clone(), position));
                seen = if before == here { seen + 1 } else { 1 };
                before = here;
                if seen >= CERTAIN || attempt >= ATTEMPTS {
                    return Ok((Err(OpenError::Damaged { file, position, what }), machine));
                }
            }
            // A snapshot or a file of the journal that has just been replaced.
            Err(OpenError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    unreachable!("the last attempt returns")
}

/// The segments that the partitions' lists name, with where each ends.
fn jobs(replayed: &Replayed) -> impl Iterator<Item = Job> {
    replayed.partitions.iter().flat_map(|(key, found)| {
        let bases: Vec<i64> = found.segments.keys().copied().collect();
        let untils = bases.iter().copied().skip(1).chain([found.next_offset]).collect::<Vec<_>>();
        let last = bases.len().saturating_sub(1);
        bases.into_iter().zip(untils).enumerate().map(move |(index, (base, until))| {
            let known = found.segments.get(&base);
            let generation = known.map_or(0, |segment| segment.generation);
            let id = SegmentId { key: *key, base, generation };
            let end = known.map(|segment| segment.end).filter(|_| index == last);
            Job { id, until, end }
        })
    })
}

fn held(replayed: &Replayed) -> Held<'_> {
    let place = |key: PartitionKey, inline: &Inline| {
        let id = SegmentId { key, base: inline.segment_base, generation: inline.generation };
        (id, inline.position)
    };
    // In the journal's order: what comes later is what a start leaves there.
    let all = replayed
        .partitions
        .iter()
        .flat_map(|(key, found)| found.inline.iter().map(move |inline| (place(*key, inline), inline)));
    all.collect()
}

fn judge(
    disk: &Arc<dyn Disk>,
    root: &Root,
    replayed: &Replayed,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, OpenError> {
    let mut verdict = Verdict::default();
    for what in &replayed.damages {
        verdict.damages.push(of_snapshot(what));
    }
    verdict.topics = replayed.topics.len();
    verdict.partitions = replayed.partitions.len();
    let mut jobs: Vec<Job> = jobs(replayed).collect();
    // The longest first, so that threads end together: a last segment's length is that of its room.
    let length = |job: &Job| {
        let length = disk.open(&job.id.path(), Access::Read).and_then(|file| file.len()).unwrap_or(0);
        job.end.unwrap_or(length).min(length)
    };
    let mut sized: Vec<(u64, Job)> = jobs.drain(..).map(|job| (length(&job), job)).collect();
    sized.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let total = sized.iter().map(|(length, _)| length).sum();
    let jobs: Vec<Job> = sized.into_iter().map(|(_, job)| job).collect();
    on_threads((disk, root, &held(replayed)), &jobs, total, &mut verdict, progress)?;
    verdict
        .damages
        .sort_by(|a, b| (a.partition, &a.file, a.position).cmp(&(b.partition, &b.file, b.position)));
    Ok(verdict)
}

/// The same again, of those files alone that were damaged.
fn judge_only(
    disk: &Arc<dyn Disk>,
    root: &Root,
    replayed: &Replayed,
    damages: &[Damage],
) -> Result<Vec<Damage>, OpenError> {
    let mut verdict = Verdict::default();
    verdict.damages.extend(replayed.damages.iter().map(|what| of_snapshot(what)));
    let jobs: Vec<Job> =
        jobs(replayed).filter(|job| damages.iter().any(|damage| damage.file == job.id.path())).collect();
    on_threads((disk, root, &held(replayed)), &jobs, 0, &mut verdict, &mut |_, _| {})?;
    Ok(verdict.damages)
}

fn of_snapshot(what: &str) -> Damage {
    let file = what.split_whitespace().find(|word| word.starts_with("snapshot-")).unwrap_or("snapshot");
    Damage {
        file: file.to_owned(),
        position: 0,
        partition: None,
        offsets: None,
        what: what.to_owned(),
        means: "the other snapshot and the journal hold all of it: nothing is missing, but one copy of the state is gone"
            .into(),
    }
}

/// This thread works, too, and tells the progress.
fn on_threads(
    (disk, root, held): (&Arc<dyn Disk>, &Root, &Held<'_>),
    jobs: &[Job],
    total: u64,
    verdict: &mut Verdict,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), OpenError> {
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(jobs.len());
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let sum = Mutex::new(verdict);
    let failed = Mutex::new(None);
    let work = |told: &mut dyn FnMut()| {
        let mut work = Work::new(disk, root, held, &bytes);
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(source) = work.judge(job, told) {
                let doing = format!("reading {}", job.id.path());
                failed.lock().get_or_insert(OpenError::Io { doing, source });
                break;
            }
        }
        sum.lock().add(work.verdict);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work(&mut || {}));
        }
        work(&mut || progress(bytes.load(Ordering::Relaxed), total));
    });
    failed.into_inner().map_or(Ok(()), Err)
}

impl Verdict {
    /// Another thread's part.
    fn add(&mut self, other: Self) {
        self.damages.extend(other.damages);
        self.notes.extend(other.notes);
        self.segments += other.segments;
        self.batches += other.batches;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What lies about and is of no consequence.
fn notes(disk: &Arc<dyn Disk>, replayed: &Replayed, verdict: &mut Verdict) {
    for (key, found) in &replayed.partitions {
        for entry in disk.list(&key.dir()).unwrap_or_default() {
            let listed = parse_name(&entry.name)
                .map(|(base, generation)| (base, Some(generation)))
                .or_else(|| hint_of(&entry.name).map(|base| (base, None)));
            let listed = listed.is_some_and(|(base, generation)| {
                let known = found.segments.get(&base);
                known.is_some_and(|known| generation.is_none_or(|generation| known.generation == generation))
            });
            if !listed && !is_temporary(&entry.name) {
                let file = join(&key.dir(), &entry.name);
                verdict.notes.push(format!("{file} is not listed and will not be opened"));
            }
        }
    }
    let used: Vec<u32> = replayed.used.iter().chain(&replayed.free).map(|file| file.id).collect();
    for entry in disk.list(ring::DIR).unwrap_or_default() {
        let ours = entry.kind == EntryKind::File && entry.name.parse().is_ok_and(|id| used.contains(&id));
        if !ours && !is_temporary(&entry.name) {
            verdict.notes.push(format!("{}/{} holds nothing that is used", ring::DIR, entry.name));
        }
    }
    for entry in disk.list("").unwrap_or_default() {
        let name = entry.name.as_str();
        let ours =
            matches!(name, "ANNALS" | "journal" | "topics" | "reserve" | "lost+found" | root::QUARANTINE)
                || snapshot::parse_name(name).is_some()
                || is_temporary(name);
        if !ours {
            verdict.notes.push(format!("{name} is not one of our files and was left alone"));
        }
    }
}

/// The base offset in the name of a file of hints.
fn hint_of(name: &str) -> Option<i64> {
    let stem = [".index", ".time", ".keys"].iter().find_map(|ending| name.strip_suffix(ending))?;
    parse_name(&format!("{stem}.log")).map(|(base, _)| base)
}

/// Whatever is being made; it holds nothing that counts.
fn is_temporary(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some()
}
