//! R10: a bit that flips in a copy of the disk is found as damage in exactly its batch, or changes nothing that is served.

use annals_wire::segment::SEGMENT_HEADER_LEN;

use super::{Life, Run};
use crate::{
    model::oracle::{Batch, Log, check, compare_runs, same_state},
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
        let files = copy.files();
        let segments: Vec<&(String, u64)> =
            files.iter().filter(|(path, _)| path.rsplit('.').next() == Some("log")).collect();
        let (path, length) = if segments.is_empty() || self.rng.one_in(3) {
            files.get(self.rng.below(files.len())).cloned()
        } else {
            segments.get(self.rng.below(segments.len())).map(|file| (*file).clone())
        }
        .ok_or("a directory without files")?;
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

    fn judge_flip(
        &mut self,
        life: &Life,
        copy: &crate::model::disk::PowerDisk,
        flip: &Flip,
    ) -> Result<(), String> {
        let mut state = State::default();
        let (storage, _) = match self.open_copy(copy, &mut state) {
            Ok(opened) => opened,
            Err(error) if flip.path.starts_with("topics/") => {
                return Err(format!("the start refused: {error}"));
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
            let damaged = read_around(log, &found, end)?;
            check(own || damaged == 0, || format!("damage in {key}"))?;
            self.outcome.flips_in_a_batch += damaged;
        }
        if shortened { Ok(()) } else { same_state(&life.state, &state) }
    }
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
