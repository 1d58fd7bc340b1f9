//! R10: a bit that flips in a copy of the disk is found as damage in exactly its batch, or changes nothing that is served.

use annals_wire::segment::SEGMENT_HEADER_LEN;

use super::{Life, Run};
use crate::{
    model::{
        disk::PowerDisk,
        oracle::{Batch, Log, check, compare_runs, same_state},
    },
    state::State,
    storage::{Level, Partition, ReadError},
    sync::Arc,
};

/// The bit.
struct Flip {
    path: String,
    position: u64,
    /// Nothing was written since the last start.
    settled: bool,
}

impl Run<'_> {
    /// Flips a bit in a copy of the disk, starts on it and judges. Everything taken so far is durable and proven.
    pub(super) fn flip(&mut self, life: &Life, settled: bool) -> Result<(), String> {
        let copy = self.disk.fork();
        // All that a start found it has flushed: a cut right behind it changes nothing.
        if settled && self.rng.one_in(2) {
            copy.power_up();
        }
        let mut files = copy.files();
        files.retain(|(path, _)| path.contains(self.plan.flip_in));
        let segments: Vec<&(String, u64)> =
            files.iter().filter(|(path, _)| path.rsplit('.').next() == Some("log")).collect();
        let (path, length) = if segments.is_empty() || self.rng.one_in(3) {
            files.get(self.rng.below(files.len())).cloned()
        } else {
            segments.get(self.rng.below(segments.len())).map(|file| (*file).clone())
        }
        .unwrap_or_default();
        if path.is_empty() {
            return Ok(());
        }
        // Most of the reserve, and of the journal, is zeros: the beginning is where it matters.
        let within = if self.rng.one_in(2) { length } else { length.min(8192) };
        let flip = Flip { path, position: self.rng.next() % within.max(1), settled };
        if !copy.flip_bit(&flip.path, flip.position, self.rng.below(8)) {
            return Ok(());
        }
        self.outcome.flips += 1;
        let verdict = self.judge_flip(life, &copy, &flip);
        verdict.map_err(|what| {
            format!("R10: byte {} of {} (settled: {settled}): {what}", flip.position, flip.path)
        })
    }

    /// Whether the flip hit one of two snapshots, and not the version and feature bits, for which no older one answers.
    fn spare_snapshot(copy: &PowerDisk, flip: &Flip) -> bool {
        let snapshot = |path: &str| path.starts_with("snapshot-");
        let count = copy.files().iter().filter(|(path, _)| snapshot(path)).count();
        snapshot(&flip.path) && count > 1 && !(8..20).contains(&flip.position)
    }

    fn judge_flip(&mut self, life: &Life, copy: &PowerDisk, flip: &Flip) -> Result<(), String> {
        let mut state = State::default();
        let (storage, _) = match self.open_copy(copy, &mut state) {
            Ok(opened) => opened,
            Err(error) if flip.path.starts_with("topics/") => {
                return Err(format!("the start refused: {error}"));
            }
            Err(error) if Self::spare_snapshot(copy, flip) => {
                return Err(format!("the older snapshot and the ring behind it are there, but {error}"));
            }
            Err(_) => {
                self.outcome.flips_refused += 1;
                return Ok(());
            }
        };
        let mut shortened = false;
        for partition in &life.partitions {
            let key = partition.key();
            let Some(log) = self.oracle.logs.get(&key) else { continue };
            let found = storage.partition(key).ok_or_else(|| format!("{key} is gone"))?;
            let own = flip.path.starts_with(&format!("topics/{key}/"));
            if let Some(why) = found.closed_because() {
                let header = own && flip.position < SEGMENT_HEADER_LEN as u64;
                check(header, || format!("{key} is closed: {why}"))?;
                self.outcome.flips_refused += 1;
                continue;
            }
            let end = found.bounds().log_end;
            if end != log.end() {
                // Behind the journal's end a weak level has nothing but the batch's own checksum.
                let cut = own && !flip.settled && log.level < Level::Fsync && log.prefix_to(end).is_some();
                check(cut, || format!("{key} ends at {end}, not {}", log.end()))?;
                shortened = true;
            }
            let own_log = own && flip.path.rsplit('.').next() == Some("log");
            while storage.scrub_step(1 << 20) > 0 {}
            let scrubbed = found.damages();
            let damaged = read_around(log, &found, end)?;
            check(own_log || damaged == 0, || format!("damage in {key}"))?;
            check(scrubbed == found.damages() || is_in_last(&found, &flip.path), || {
                format!("the scrubber found {scrubbed:?} in {key}, a reader {:?}", found.damages())
            })?;
            if own && !own_log {
                look_up(log, &found, end)?;
            }
            self.outcome.flips_in_a_batch += damaged;
        }
        if shortened { Ok(()) } else { same_state(&life.state, &state) }
    }
}

/// Whether a file is that of the partition's last segment, which is not scrubbed.
fn is_in_last(partition: &Partition, path: &str) -> bool {
    partition.active().is_some_and(|active| active.id().path() == path)
}

/// Every batch is found by its offset and by its time, whatever became of the index.
fn look_up(log: &Log, partition: &Arc<Partition>, end: i64) -> Result<(), String> {
    let there = || log.batches.iter().take_while(|batch| batch.next <= end);
    for batch in there() {
        log.check_read(partition, batch.base, 1)?;
        let time = batch.max_timestamp_ms;
        let wanted = there().find(|batch| batch.max_timestamp_ms >= time).map(|batch| batch.base);
        let found = partition.find_time(time).map_err(|error| format!("{error:?}"))?;
        check(found == wanted, || format!("time {time} is at {wanted:?}, found {found:?}"))?;
    }
    Ok(())
}

/// Reads all, stepping over damage; every batch served is right, and what is missing is one batch, exactly.
fn read_around(log: &Log, partition: &Arc<Partition>, end: i64) -> Result<u64, String> {
    let key = partition.key();
    let mut wanted = log.batches.iter().take_while(|batch| batch.next <= end).peekable();
    let (mut from, mut damaged) = (0, 0);
    while from < end {
        let read = partition.read(from, 64 * 1024, true).map_err(|error| format!("{key}: {error:?}"))?;
        check(read.next_offset > from, || format!("{key}: a read stops at {from}"))?;
        let gap = read.gaps.first();
        let before = |batch: &&Batch| gap.is_none_or(|gap| batch.base < gap.first);
        if let Some(gap) = gap {
            check(read.gaps.len() == 1, || format!("{key}: {:?}", read.gaps))?;
            let mut sound: Vec<&Batch> = Vec::new();
            while let Some(batch) = wanted.next_if(before) {
                sound.push(batch);
            }
            let lost = wanted.next().ok_or_else(|| format!("{key}: damage at {gap:?}, where nothing is"))?;
            check((lost.base, lost.next - 1) == (gap.first, gap.last), || {
                format!("{key}: damage at {gap:?}, more or less than batch {}..={}", lost.base, lost.next - 1)
            })?;
            match partition.read(gap.first, 1, false) {
                Err(ReadError::Damaged { first, last }) if (first, last) == (gap.first, gap.last) => {}
                other => return Err(format!("{key}: {gap:?}, and without stepping over it {other:?}")),
            }
            damaged += 1;
            while let Some(batch) = wanted.next_if(|batch| batch.base < read.next_offset) {
                sound.push(batch);
            }
            compare_runs(key, &read.batches, &mut sound.into_iter())?;
        } else {
            compare_runs(key, &read.batches, &mut wanted)?;
        }
        from = read.next_offset;
    }
    check(wanted.next().is_none(), || format!("{key}: not all of it was served"))?;
    Ok(damaged)
}
