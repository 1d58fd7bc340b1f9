//! `log repair`: what can be put right without giving anything up.
//!
//! 1. [`plan`] reads only; [`apply`] does what the plan says, on a directory that no server has.
//! 2. Nothing is removed: what is taken out of the way goes to `quarantine/`, under its path with `~` for `/`. Whatever is
//!    made anew is flushed before anything depends on it.
//! 3. Damage that cannot be put right stays as it is, and the plan says so. Above all a damaged journal: which of what
//!    lies behind the damage was acked cannot be told, and a server that starts as if it could would lose it in silence.
//! 4. Cut at any point, the next plan goes on from there.
//!
//! | what is wrong | what is done |
//! |---|---|
//! | an index of a sealed segment is missing or does not verify | made again from the segment |
//! | one snapshot does not verify, the other does | moved to quarantine: no start depends on it |
//! | no snapshot verifies, the journal does | one is made from segments and journal (`snapshot`); the bad ones to quarantine |
//! | a segment's file lies in another's place | back to where its header says it belongs |

mod ring;
mod snapshot;

use std::{io, sync::Arc};

use annals_wire::{
    ids::TopicId,
    segment::{SEGMENT_HEADER_LEN, SegmentIdentity},
};

use super::{
    PartitionKey,
    disk::{Access, Disk, EntryKind},
    error::OpenError,
    recovery::{Machine, Replayed, replay},
    replace::{join, replace},
    root::{self, Found, QUARANTINE, Root},
    segment::{Segment, SegmentId, stem},
    snapshot::parse_name,
};

/// One thing that is put right.
#[derive(Debug)]
pub struct Repair {
    /// File, relative to the data directory.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
    /// What is done about it.
    pub what: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Out of the way.
    Quarantine(String),
    /// From quarantine, or from anywhere, to where it belongs.
    Move { from: String, to: String },
    /// The index files of a segment that ends before an offset.
    Index { id: SegmentId, until: i64 },
    /// A small file.
    Write { name: String, bytes: Vec<u8> },
}

/// What would be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which it is done.
    pub repairs: Vec<Repair>,
    /// What nobody can know any more, a sentence each.
    pub unknown: Vec<String>,
    /// What is damaged and stays so, and why.
    pub left: Vec<String>,
}

/// A topic of which only files are left: the entry of the state machine that makes it again, from its id and how many
/// partitions it has.
pub type Adopt<'a> = &'a dyn Fn(TopicId, u32) -> Vec<u8>;

/// Looks at a directory and says what would be done. Writes nothing.
pub fn plan<M: Machine + Default>(disk: &Arc<dyn Disk>, adopt: Adopt<'_>) -> Result<Plan, OpenError> {
    let root = match root::read(disk)? {
        Found::Root(root) => root,
        Found::Empty => return Err(OpenError::Foreign { found: "it is empty".into() }),
    };
    let mut plan = Plan::default();
    match replay(disk, &root, Access::Read, &mut M::default()) {
        Ok(replayed) => {
            bad_snapshots(&replayed, &mut plan);
            let misplaced = misplaced(disk, &root, &replayed, &mut plan)?;
            indexes(disk, &replayed, &misplaced, &mut plan);
        }
        Err(OpenError::Damaged { file, position, what }) => {
            let told = format!("{file} at byte {position}: {what}");
            if let Err(why) = snapshot::rebuild::<M>(disk, &root, adopt, &told, &mut plan)? {
                plan.left.push(format!(
                    "{told}; {why}. Nothing here can tell which of what lies behind it was acked: restore a backup, or \
                     keep this directory and ask"
                ));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(plan)
}

/// Does what the plan says. `told` is called before each repair.
pub fn apply(disk: &Arc<dyn Disk>, plan: &Plan, told: &mut dyn FnMut(&Repair)) -> io::Result<()> {
    for repair in &plan.repairs {
        told(repair);
        for step in &repair.steps {
            match step {
                Step::Quarantine(path) => quarantine(disk, path)?,
                Step::Move { from, to } => {
                    disk.rename(from, to)?;
                    disk.sync_dir(parent(to))?;
                    disk.sync_dir(parent(from))?;
                }
                Step::Index { id, until } => index_again(disk, id, *until)?,
                Step::Write { name, bytes } => replace(disk, "", name, &[bytes])?,
            }
        }
    }
    Ok(())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Where a file goes that is taken out of the way.
fn place_in_quarantine(path: &str) -> String {
    join(QUARANTINE, &path.replace('/', "~"))
}

/// Moves a file out of the way, under a name that nothing has.
fn quarantine(disk: &Arc<dyn Disk>, path: &str) -> io::Result<()> {
    disk.create_dir(QUARANTINE)?;
    disk.sync_dir("")?;
    let taken = disk.list(QUARANTINE)?;
    let wanted = place_in_quarantine(path);
    let free = |name: &String| !taken.iter().any(|entry| join(QUARANTINE, &entry.name) == *name);
    let numbered = (2_u32..).map(|number| format!("{wanted}.{number}"));
    let name = std::iter::once(wanted.clone()).chain(numbered).find(free).unwrap_or(wanted.clone());
    match disk.rename(path, &name) {
        // A plan that was cut goes on.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    disk.sync_dir(QUARANTINE)?;
    disk.sync_dir(parent(path))
}

/// A snapshot that does not verify, beside one that does. The frames its name says were durable have been read.
fn bad_snapshots(replayed: &Replayed, plan: &mut Plan) {
    for told in &replayed.damages {
        let name = told.split_whitespace().find(|word| parse_name(word).is_some());
        let Some(name) = name else { continue };
        plan.repairs.push(Repair {
            file: name.to_owned(),
            why: told.clone(),
            what: format!(
                "move it to {}: the other snapshot and the journal hold all of it",
                place_in_quarantine(name)
            ),
            steps: vec![Step::Quarantine(name.to_owned())],
        });
    }
}

/// Which segment a file says it is.
fn identity_of(disk: &Arc<dyn Disk>, path: &str, root: &Root) -> Option<SegmentId> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    let read = disk.open(path, Access::Read).ok()?.read_at(&mut bytes, 0).ok()?;
    let identity = SegmentIdentity::verify(bytes.get(..read)?).ok()?;
    let key = PartitionKey { topic: identity.topic_id, partition: identity.partition };
    (identity.cluster_id == root.cluster_id).then_some(SegmentId {
        key,
        base: identity.base_offset,
        generation: identity.generation,
    })
}

/// Files of listed segments that are somewhere else, while something else, or nothing, is in their place.
fn misplaced(
    disk: &Arc<dyn Disk>,
    root: &Root,
    replayed: &Replayed,
    plan: &mut Plan,
) -> Result<Vec<SegmentId>, OpenError> {
    let listed: Vec<SegmentId> = replayed
        .partitions
        .iter()
        .flat_map(|(key, found)| {
            let id = |(base, segment): (&i64, &super::recovery::FoundSegment)| SegmentId {
                key: *key,
                base: *base,
                generation: segment.generation,
            };
            found.segments.iter().map(id)
        })
        .collect();
    let absent = |id: &SegmentId| identity_of(disk, &id.path(), root).is_none_or(|found| found != *id);
    // One whose own header is bad is not missing: its batches speak for themselves.
    let absent: Vec<SegmentId> = listed
        .into_iter()
        .filter(absent)
        .filter(|id| {
            identity_of(disk, &id.path(), root).is_some() || disk.open(&id.path(), Access::Read).is_err()
        })
        .collect();
    if absent.is_empty() {
        return Ok(absent);
    }
    let io = |source| OpenError::Io { doing: "listing the segments".into(), source };
    let files = segment_files(disk).map_err(io)?;
    let mut found = Vec::new();
    for id in &absent {
        let elsewhere =
            files.iter().find(|path| **path != id.path() && identity_of(disk, path, root) == Some(*id));
        match elsewhere {
            Some(path) => found.push((*id, path.clone())),
            None => plan.left.push(format!("{} is missing, and no other file says that it is it", id.path())),
        }
    }
    // First all out of the way, so that two that took each other's place find theirs free.
    for (id, path) in &found {
        let mut steps = vec![];
        if identity_of(disk, &id.path(), root).is_some() && !found.iter().any(|(_, from)| *from == id.path())
        {
            steps.push(Step::Quarantine(id.path()));
        }
        let waiting = format!("{}.moving", id.path());
        steps.push(Step::Move { from: path.clone(), to: waiting });
        plan.repairs.push(Repair {
            file: path.clone(),
            why: format!("its header says that it is {}", id.path()),
            what: "take it out of the place that is not its own".into(),
            steps,
        });
    }
    for (id, path) in found {
        let from = format!("{}.moving", id.path());
        plan.repairs.push(Repair {
            file: id.path(),
            why: format!("it was found as {path}"),
            what: "put it back".into(),
            steps: vec![Step::Move { from, to: id.path() }],
        });
    }
    Ok(absent)
}

/// Every file that may be a segment's, wherever it lies.
fn segment_files(disk: &Arc<dyn Disk>) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for topic in disk.list("topics")?.iter().filter(|entry| entry.kind == EntryKind::Directory) {
        let topic = join("topics", &topic.name);
        for partition in disk.list(&topic)?.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let partition = join(&topic, &partition.name);
            let logs = disk.list(&partition)?.into_iter().filter(|entry| entry.kind == EntryKind::File);
            files.extend(logs.map(|entry| join(&partition, &entry.name)));
        }
    }
    let kept = disk.list(QUARANTINE)?.into_iter().map(|entry| join(QUARANTINE, &entry.name));
    files.extend(kept);
    files.retain(|path| path.contains(".log"));
    Ok(files)
}

/// Sealed segments whose index files do not hold.
fn indexes(disk: &Arc<dyn Disk>, replayed: &Replayed, misplaced: &[SegmentId], plan: &mut Plan) {
    for (key, found) in &replayed.partitions {
        let bases: Vec<i64> = found.segments.keys().copied().collect();
        for (base, until) in bases.iter().zip(bases.iter().skip(1)) {
            let generation = found.segments.get(base).map_or(0, |segment| segment.generation);
            let id = SegmentId { key: *key, base: *base, generation };
            if misplaced.contains(&id) {
                continue;
            }
            let segment = Segment::closed(disk, *key, *base, generation);
            let sealed = segment.open_read_only().is_ok()
                && segment.resolve(*until).is_ok()
                && segment.footer().is_some();
            if !sealed || segment.read_hints().is_some() {
                continue;
            }
            let hints = ["index", "time"].map(|ending| hint(&id, ending));
            let there = hints.iter().filter(|path| disk.open(path, Access::Read).is_ok());
            let mut steps: Vec<Step> = there.map(|path| Step::Quarantine(path.clone())).collect();
            let why =
                if steps.is_empty() { "it is missing" } else { "it does not verify, or its sister does not" };
            steps.push(Step::Index { id, until: *until });
            plan.repairs.push(Repair {
                file: hint(&id, "index"),
                why: why.into(),
                what: "make it, and the one by time, again from the segment".into(),
                steps,
            });
        }
    }
}

fn hint(id: &SegmentId, ending: &str) -> String {
    join(&id.key.dir(), &format!("{}.{ending}", stem(id.base, id.generation)))
}

fn index_again(disk: &Arc<dyn Disk>, id: &SegmentId, until: i64) -> io::Result<()> {
    let segment = Segment::closed(disk, id.key, id.base, id.generation);
    segment.open_read_only()?;
    segment.resolve(until)?;
    segment.distrust_index();
    // A look-up reads the segment.
    segment.position_before(id.base);
    segment.write_hints()?;
    disk.sync_dir(&id.key.dir())
}
