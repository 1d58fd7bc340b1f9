//! What the oracle counts.

/// Counts. All but the first group must be 0, except what a lost ack or the level explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Events acked.
    pub(super) acked: u64,
    /// Batches acked.
    pub(super) batches: u64,
    /// Acked events that were at their offset with their exact bytes.
    pub(super) found: u64,
    /// Events read.
    pub(super) read: u64,
    /// Bytes of them.
    pub(super) bytes: u64,
    /// Commits acked.
    pub(super) commits: u64,

    /// Acked events that are not at their offset.
    pub(super) lost: u64,
    /// Events that stand behind a later one of their producer.
    pub(super) out_of_order: u64,
    /// Events that are there twice though no ack of theirs was lost.
    pub(super) twice: u64,
    /// Offsets that are not there, or there twice.
    pub(super) holes: u64,
    /// Offsets that the server says are damaged.
    pub(super) damaged: u64,
    /// Events whose bytes are not those that were sent.
    pub(super) altered: u64,
    /// Stretches that read differently from before.
    pub(super) changed: u64,
    /// Requests of which only a part is there.
    pub(super) half_requests: u64,
    /// Offsets that a consumer had read and that are gone.
    pub(super) read_then_gone: u64,
    /// Committed positions below what was acked.
    pub(super) commits_back: u64,
    /// Committed positions above what was ever asked for.
    pub(super) commits_ahead: u64,

    /// Events sent again because their ack was lost, and there twice.
    pub(super) twice_explained: u64,
    /// Acked events of a tail that the level lets a power cut take.
    pub(super) within_level: u64,
}

impl Findings {
    /// What must be 0, with the words for it.
    pub(super) fn violations(&self) -> [(&'static str, u64); 11] {
        [
            ("lost", self.lost),
            ("out_of_order", self.out_of_order),
            ("twice", self.twice),
            ("holes", self.holes),
            ("damaged", self.damaged),
            ("altered", self.altered),
            ("changed", self.changed),
            ("half_requests", self.half_requests),
            ("read_then_gone", self.read_then_gone),
            ("commits_back", self.commits_back),
            ("commits_ahead", self.commits_ahead),
        ]
    }

    /// Nothing that must not be.
    pub(super) fn is_clean(&self) -> bool {
        self.violations().iter().all(|(_, count)| *count == 0)
    }

    /// What a reading of the whole adds to what the tails showed: it sees the same once more, so each count is the greater.
    pub(super) fn with_whole(mut self, whole: &Self) -> Self {
        self.lost = self.lost.max(whole.lost);
        self.out_of_order = self.out_of_order.max(whole.out_of_order);
        self.twice = self.twice.max(whole.twice);
        self.holes = self.holes.max(whole.holes);
        self.damaged = self.damaged.max(whole.damaged);
        self.altered = self.altered.max(whole.altered);
        self.changed = self.changed.max(whole.changed);
        self.twice_explained = self.twice_explained.max(whole.twice_explained);
        self.found = self.found.min(self.acked.saturating_sub(self.lost));
        self
    }

    /// Of another partition or topic.
    pub(super) fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.batches += other.batches;
        self.found += other.found;
        self.read += other.read;
        self.bytes += other.bytes;
        self.commits += other.commits;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.twice += other.twice;
        self.holes += other.holes;
        self.damaged += other.damaged;
        self.altered += other.altered;
        self.changed += other.changed;
        self.half_requests += other.half_requests;
        self.read_then_gone += other.read_then_gone;
        self.commits_back += other.commits_back;
        self.commits_ahead += other.commits_ahead;
        self.twice_explained += other.twice_explained;
        self.within_level += other.within_level;
    }
}
