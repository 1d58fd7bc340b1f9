//! What histories came to, in numbers.

use std::ops::AddAssign;

use super::places::Place;

/// Counts over one history or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Histories.
    pub histories: u64,
    /// Starts that came to an end and were judged.
    pub recoveries: u64,
    /// Times the power went.
    pub cuts: u64,
    /// Of these, while a start was at work.
    pub cuts_in_recovery: u64,
    /// Times the process was killed.
    pub kills: u64,
    /// Of these, while a start was at work.
    pub kills_in_recovery: u64,
    /// Lives that ended in order.
    pub orderly: u64,
    /// Cuts that left a frame of the journal in part.
    pub torn_frames: u64,
    /// Cuts that left a batch in a segment in part.
    pub torn_batches: u64,
    /// Cuts that left something whole behind something that is not.
    pub whole_behind_hole: u64,
    /// Flushes that failed.
    pub failed_flushes: u64,
    /// Appends, commits and changes of topics that were acked.
    pub acked: u64,
    /// Times the power went, or the process was killed, with a topic's making not acked yet.
    pub cut_creations: u64,
    /// The same with a topic's deletion.
    pub cut_deletions: u64,
    /// The same with committed offsets.
    pub cut_commits: u64,
    /// The same with an atomic append.
    pub cut_groups: u64,
    /// Reads and look-ups while the broker ran.
    pub reads: u64,
    /// Second recoveries compared with the first.
    pub twice: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Of these, found as damage in one batch.
    pub flips_in_a_batch: u64,
    /// Of these, because of which a start, or a partition's, was refused.
    pub flips_refused: u64,
    /// Deaths, of power or process, by what was at work; see [`Place::ALL`].
    pub deaths_at: [u64; Place::ALL.len()],
    /// A hash over every call of the disk. The same seeds have the same.
    pub trace_hash: u64,
}

impl Outcome {
    /// Deaths while this was at work.
    pub fn at(&self, place: Place) -> u64 {
        self.deaths_at.get(place as usize).copied().unwrap_or_default()
    }

    pub(super) fn count_death(&mut self, place: Place) {
        if let Some(count) = self.deaths_at.get_mut(place as usize) {
            *count += 1;
        }
    }

    /// All counts with their names.
    pub fn rows(&self) -> Vec<(String, u64)> {
        let named = [
            ("histories", self.histories),
            ("recoveries", self.recoveries),
            ("cuts", self.cuts),
            ("cuts_in_recovery", self.cuts_in_recovery),
            ("kills", self.kills),
            ("kills_in_recovery", self.kills_in_recovery),
            ("orderly_ends", self.orderly),
            ("torn_frames", self.torn_frames),
            ("torn_batches", self.torn_batches),
            ("whole_behind_hole", self.whole_behind_hole),
            ("failed_flushes", self.failed_flushes),
            ("acked", self.acked),
            ("cut_creations", self.cut_creations),
            ("cut_deletions", self.cut_deletions),
            ("cut_commits", self.cut_commits),
            ("cut_groups", self.cut_groups),
            ("reads", self.reads),
            ("second_recoveries", self.twice),
            ("flips", self.flips),
            ("flips_found_in_a_batch", self.flips_in_a_batch),
            ("flips_refused", self.flips_refused),
        ];
        let places = Place::ALL.iter().map(|(place, name)| (format!("died_in_{name}"), self.at(*place)));
        named.into_iter().map(|(name, count)| (name.to_owned(), count)).chain(places).collect()
    }
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.recoveries += other.recoveries;
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.kills += other.kills;
        self.kills_in_recovery += other.kills_in_recovery;
        self.orderly += other.orderly;
        self.torn_frames += other.torn_frames;
        self.torn_batches += other.torn_batches;
        self.whole_behind_hole += other.whole_behind_hole;
        self.failed_flushes += other.failed_flushes;
        self.acked += other.acked;
        self.cut_creations += other.cut_creations;
        self.cut_deletions += other.cut_deletions;
        self.cut_commits += other.cut_commits;
        self.cut_groups += other.cut_groups;
        self.reads += other.reads;
        self.twice += other.twice;
        self.flips += other.flips;
        self.flips_in_a_batch += other.flips_in_a_batch;
        self.flips_refused += other.flips_refused;
        self.deaths_at.iter_mut().zip(other.deaths_at).for_each(|(sum, count)| *sum += count);
        // The same in whatever order histories are added.
        self.trace_hash = self.trace_hash.wrapping_add(other.trace_hash);
    }
}
