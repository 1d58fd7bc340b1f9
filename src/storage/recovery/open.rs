//! The order of a start, and its writing half.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use annals_wire::{
    ids::TopicId,
    internal::{self, Entry, Started, StateSection, TopicSection, entry::Body},
};
use bytes::Bytes;

use super::{
    Machine, Report,
    rebuild::{self, Rebuilt},
    replay,
    replay::{FIRST_FILE, Replayed},
};
use crate::{
    clock::Clock,
    storage::{
        commit::Committer,
        disk::{Access, Disk},
        error::OpenError,
        frame::FrameBuilder,
        mutant::{Mutant, planted},
        partition::Partition,
        replace::create_anew,
        ring::{self, Ring, make_file},
        root::{self, Found, Root},
        snapshot::{self, RESERVE, RESERVE_BYTES, Snapshots},
        storage::{Options, Parts, Storage, TopicLogs, partitions_message},
    },
};

fn io_error(doing: &str) -> impl FnOnce(io::Error) -> OpenError {
    let doing = doing.to_owned();
    move |source| OpenError::Io { doing, source }
}

impl Storage {
    /// Opens a data directory: makes it if there is nothing, else recovers it. Gives the state machine what it had.
    /// When this returns everything is durable and appends may begin.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: Options,
        machine: &mut dyn Machine,
    ) -> Result<(Arc<Self>, Report), OpenError> {
        let began = clock.monotonic();
        let (root, created) = match root::read(&disk)? {
            Found::Root(root) => (root, false),
            Found::Empty => (create(&disk, &*clock, &options)?, true),
        };
        let replayed = if created {
            replay::nothing(&disk, &root, machine)?
        } else {
            replay(&disk, &root, Access::Write, machine)?
        };
        let mut report = Report {
            created,
            clean: replayed.is_clean(),
            epoch: if planted(Mutant::EpochNotBumped) { replayed.epoch.max(1) } else { replayed.epoch + 1 },
            frames: replayed.frames,
            topics: replayed.topics.len(),
            damages: replayed.damages.clone(),
            ..Report::default()
        };
        if !created {
            write_again(&disk, &root, &replayed)?;
        }
        let rebuilt = rebuild::rebuild(&disk, &root, &replayed, report.clean, &mut report);
        let timer = Arc::clone(&clock);
        let parts = finish(Start { disk, clock, options, root, replayed, rebuilt }, machine, &mut report)?;
        report.duration = timer.monotonic().saturating_sub(began);
        Ok((Self::assemble(parts), report))
    }
}

/// Everything but `ANNALS` first, so that a cut leaves either nothing that counts or all of it.
fn create(disk: &Arc<dyn Disk>, clock: &dyn Clock, options: &Options) -> Result<Root, OpenError> {
    let root = root::invent(clock);
    let make = || {
        if planted(Mutant::RootBeforeJournal) {
            root::write(disk, &root)?;
        }
        disk.create_dir(ring::DIR)?;
        disk.create_dir("topics")?;
        for id in [FIRST_FILE, FIRST_FILE + 1] {
            make_file(disk, &root, id, options.ring_file_bytes, false)?;
        }
        disk.sync_dir(ring::DIR)?;
        create_anew(disk, RESERVE)?.allocate(0, RESERVE_BYTES)?;
        disk.sync_dir("")?;
        root::write(disk, &root)
    };
    make().map_err(io_error("making the data directory"))?;
    Ok(root)
}

/// Frames that may exist only in memory must not be named durable before they are.
/// Likewise the names of the journal's files: a kill may have come between the making of one and the directory's flush.
fn write_again(disk: &Arc<dyn Disk>, root: &Root, replayed: &Replayed) -> Result<(), OpenError> {
    let unproven = if planted(Mutant::FramesNotRewritten) { &[] } else { &replayed.unproven[..] };
    for frame in unproven {
        let file =
            replayed.used.iter().find(|file| file.id == frame.file).expect("the chain's files are open");
        file.file
            .write_at(&[&frame.bytes], frame.position)
            .map_err(io_error("writing the journal's tail again"))?;
    }
    for file in &replayed.used {
        // A header may be seen without being on the disk: its flush may have failed in the run before.
        file.file
            .write_at(&[&ring::file_header(root, file.id)], 0)
            .map_err(io_error("writing the journal's headers again"))?;
        file.file.sync().map_err(io_error("flushing the journal"))?;
    }
    disk.sync_dir(ring::DIR).map_err(io_error("flushing the journal's directory"))
}

struct Start {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    options: Options,
    root: Root,
    replayed: Replayed,
    rebuilt: Rebuilt,
}

/// Decisions, snapshot with the new epoch, `started`.
fn finish(start: Start, machine: &mut dyn Machine, report: &mut Report) -> Result<Parts, OpenError> {
    let Start { disk, clock, options, root, replayed, rebuilt } = start;
    let epoch = report.epoch;
    let topics = topics(&replayed, &rebuilt, epoch);
    let ends = |key: crate::storage::PartitionKey| {
        let partition = topics.get(&key.topic)?.partitions.get(usize::try_from(key.partition).ok()?)?;
        // Where one ends that could not be opened, this start does not know: the next one may find all of it.
        partition.closed_because().is_none().then(|| partition.bounds().log_end)
    };
    let lowered = machine.lower_commits(&ends);
    report.lowered_commits.clone_from(&lowered);
    let mut bodies = vec![Body::Started(Started { epoch, time_ms: clock.wall_ms() })];
    if !planted(Mutant::StartedWithoutDecisions) {
        bodies.extend(rebuilt.decisions);
    }
    bodies.extend(lowered.into_iter().map(|entry| Body::State(entry.into())));
    let number = replayed.last_number + bodies.len() as u64;
    let mut tombstones = replayed.tombstones.clone();
    tombstones.extend(leftovers(&disk, &topics, &tombstones)?);
    let mut snapshots =
        Snapshots { kept: replayed.kept, captured_at: clock.monotonic(), captured_number: number };
    replayed.used.iter().chain(&replayed.free).for_each(|file| file.file.unmap());
    let files = (replayed.used, VecDeque::from(replayed.free), replayed.highest_file);
    let mut ring = Ring::resume(root, files, replayed.next, epoch, replayed.last_number);
    // A snapshot is called after the frame before it, and this start's does not take the place of the one it was made from:
    // what that one alone knows, the journal behind the other one lacks.
    let newest = snapshots.kept.last().map(|kept| kept.sequence + 1);
    if newest == Some(ring.next().sequence) && !planted(Mutant::StartReplacesSnapshot) {
        make_room(&disk, &root, &options, &mut ring, &mut snapshots, 0)?;
        ring.write(&mut FrameBuilder::default())
            .and_then(|()| ring.flush())
            .map_err(io_error("writing the frame before the snapshot of this start"))?;
    }
    if !planted(Mutant::NoSnapshotAtStart) {
        let next = ring.next();
        let image = image(&next, epoch, number, &topics, machine, &tombstones);
        snapshot::write_temporary(&disk, &root, &image)
            .and_then(|()| snapshot::put(&disk, &mut snapshots.kept, next.sequence - 1, next))
            .map_err(io_error("writing the snapshot of this start"))?;
    }
    let mut frame = FrameBuilder::default();
    for (index, body) in bodies.into_iter().enumerate() {
        frame.push(&Entry {
            number: replayed.last_number + 1 + index as u64,
            may_ignore: false,
            body: Some(body),
        });
    }
    make_room(&disk, &root, &options, &mut ring, &mut snapshots, frame.payload_len() as u64)?;
    ring.write(&mut frame)
        .and_then(|()| ring.flush())
        .map_err(io_error("writing the first frame of this start"))?;
    if let Some(oldest) = snapshot::older(&snapshots.kept) {
        ring.free_before(oldest.start.file);
    }
    let committer = Committer::new(ring);
    Ok(Parts { disk, clock, options, root, epoch, topics, committer, snapshots, tombstones })
}

/// A crash with a full ring leaves no file for the first frame: one more is made, beyond the ring's size if need be. On a
/// full disk the older snapshot is given up instead, and with it what only it needs.
fn make_room(
    disk: &Arc<dyn Disk>,
    root: &Root,
    options: &Options,
    ring: &mut Ring,
    snapshots: &mut Snapshots,
    needed: u64,
) -> Result<(), OpenError> {
    if ring.free_files() > 0 || ring.fits(needed) {
        return Ok(());
    }
    let made = make_file(disk, root, ring.next_id(), options.ring_file_bytes, false)
        .and_then(|file| disk.sync_dir(ring::DIR).map(|()| file));
    match made {
        Ok(file) => ring.add(file),
        Err(error) if snapshot::is_full(&error) && snapshots.kept.len() == 2 => {
            let older = snapshots.kept.remove(0);
            disk.remove(&snapshot::name(older.sequence)).map_err(io_error("removing an old snapshot"))?;
            disk.sync_dir("").map_err(io_error("removing an old snapshot"))?;
            if let Some(newest) = snapshots.kept.first() {
                ring.free_before(newest.start.file);
            }
        }
        Err(error) => return Err(io_error("making room in the journal")(error)),
    }
    Ok(())
}

fn topics(replayed: &Replayed, rebuilt: &Rebuilt, epoch: u32) -> BTreeMap<TopicId, TopicLogs> {
    let partitions_of = |id: &TopicId, count: u32, settings| {
        (0..count)
            .map(|partition| {
                let key = crate::storage::PartitionKey { topic: *id, partition };
                let known = rebuilt.partitions.get(&key).map(|known| known.open(key, settings, epoch));
                known.unwrap_or_else(|| Partition::new(key, settings, epoch, 0))
            })
            .collect()
    };
    let logs = replayed.topics.iter().map(|(id, topic)| {
        (
            *id,
            TopicLogs {
                settings: topic.settings,
                partitions: partitions_of(id, topic.count, topic.settings),
            },
        )
    });
    logs.collect()
}

/// Directories of topics that nothing names: what a deleted topic, or one whose creation was cut off, left behind.
fn leftovers(
    disk: &Arc<dyn Disk>,
    topics: &BTreeMap<TopicId, TopicLogs>,
    known: &[TopicId],
) -> Result<Vec<TopicId>, OpenError> {
    let names = disk.list("topics").map_err(io_error("listing the topics"))?;
    let ids = names
        .iter()
        .filter_map(|entry| TopicId::parse(entry.name.strip_suffix(".deleted").unwrap_or(&entry.name)));
    let mut found: Vec<TopicId> = ids.filter(|id| !topics.contains_key(id) && !known.contains(id)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn image(
    next: &ring::Place,
    epoch: u32,
    number: u64,
    topics: &BTreeMap<TopicId, TopicLogs>,
    machine: &dyn Machine,
    tombstones: &[TopicId],
) -> internal::Snapshot {
    let states = machine.capture(number).into_iter();
    internal::Snapshot {
        start: Some(snapshot::position_message(*next)),
        epoch,
        highest_number: number,
        topics: topics
            .iter()
            .map(|(id, topic)| {
                let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
                TopicSection { number, partitions: Some(partitions_message(id, topic.settings, count)) }
            })
            .collect(),
        partitions: topics
            .values()
            .flat_map(|topic| &topic.partitions)
            .filter_map(|partition| snapshot::section(partition, &|| number, &mut Vec::new()))
            .collect(),
        states: states
            .map(|section| StateSection { number: section.number, bytes: section.bytes.into() })
            .collect(),
        tombstones: tombstones.iter().map(|id| Bytes::copy_from_slice(id.as_bytes())).collect(),
    }
}
