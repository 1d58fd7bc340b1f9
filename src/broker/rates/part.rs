//! How far a group is in a partition: what was handed to it, what it has confirmed, and how long both took.
//!
//! A mark is a run of offsets that was handed to a member at once, and when. A commit takes the marks it covers:
//!
//! ```text
//!   marks      [0..40 at t1] [40..90 at t2] [120..160 at t3]
//!   commit 0 -> 130:  40 + 50 + 10 were delivered: processed;  90..120 was not: skipped
//! ```
//!
//! 1. A record counts as processed once: what is confirmed again after the group was moved back counts as replayed.
//! 2. Who reads with `Fetch` is not known to be of a group, so a partition of which nothing was handed to a member has no
//!    marks; all that a commit covers counts as processed then.
//! 3. Marks are in order, do not overlap and are at most [`MOST_MARKS`]; beyond that the two oldest become one, with the
//!    time of the older.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::series::Series;

/// Runs that are remembered of a partition: what a member may have in flight.
const MOST_MARKS: usize = 256;

/// A run of offsets that was handed over at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    first: i64,
    next: i64,
    /// Of these offsets, those with a record that the group's filter let through.
    records: u64,
    /// The broker's clock, milliseconds since 1970.
    delivered_ms: i64,
}

impl Mark {
    /// Records below `to`. Exact where every offset has one.
    fn below(&self, to: i64) -> u64 {
        let span = |until: i64| u64::try_from(until.saturating_sub(self.first)).unwrap_or(0);
        let (whole, part) = (span(self.next).max(1), span(to.min(self.next)));
        if self.records == whole {
            return part;
        }
        let scaled = u128::from(self.records) * u128::from(part) / u128::from(whole);
        u64::try_from(scaled).unwrap_or(self.records)
    }
}

/// Up to which offset records were handed over when.
pub(crate) type Deliveries = SmallVec<[(i64, i64); 2]>;

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirmed {
    /// Records processed for the first time.
    pub(crate) processed: u64,
    /// Records processed before, and again now.
    pub(crate) replayed: u64,
    /// Covered, but never handed over.
    pub(crate) skipped: u64,
    /// Offsets the group went back.
    pub(crate) rewound: u64,
    /// The offsets that count for latency: those confirmed for the first time.
    pub(crate) first: i64,
    pub(crate) next: i64,
    /// When they were handed over.
    pub(crate) deliveries: Deliveries,
}

/// A group's way through a partition since the broker started.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    committed: i64,
    /// The furthest it has ever been.
    furthest: i64,
    /// Something was handed to a member since the broker started.
    followed: bool,
    marks: VecDeque<Mark>,
    pub(crate) delivered: Series,
    pub(crate) processed: Series,
    pub(crate) replayed: u64,
    pub(crate) skipped: u64,
    pub(crate) rewound: u64,
}

impl Part {
    /// A group that stands at `committed`, or begins there.
    pub(crate) fn at(committed: i64, second: u64) -> Self {
        Self {
            committed,
            furthest: committed,
            followed: false,
            marks: VecDeque::new(),
            delivered: Series::from(second),
            processed: Series::from(second),
            replayed: 0,
            skipped: 0,
            rewound: 0,
        }
    }

    /// Records of the offsets `first..next` were handed to a member.
    pub(crate) fn delivered(&mut self, first: i64, next: i64, records: u64, delivered_ms: i64, second: u64) {
        self.followed = true;
        self.delivered.add(second, records);
        // What is handed over again goes by its last time.
        while self.marks.back().is_some_and(|last| last.next > first) {
            let Some(last) = self.marks.pop_back() else { break };
            if last.first < first {
                self.marks.push_back(Mark { next: first, records: last.below(first), ..last });
                break;
            }
        }
        self.marks.push_back(Mark { first, next, records, delivered_ms });
        if self.marks.len() > MOST_MARKS
            && let (Some(older), Some(newer)) = (self.marks.pop_front(), self.marks.pop_front())
        {
            self.marks.push_front(Mark { next: newer.next, records: older.records + newer.records, ..older });
        }
    }

    /// The group confirms everything below `to`.
    pub(crate) fn committed(&mut self, to: i64, second: u64) -> Confirmed {
        let from = std::mem::replace(&mut self.committed, to);
        if to <= from {
            let rewound = u64::try_from(from - to).unwrap_or(0);
            self.rewound += rewound;
            return Confirmed { rewound, ..Confirmed::default() };
        }
        let fresh_from = self.furthest.clamp(from, to);
        let (again, fresh) = (self.take(from, fresh_from), self.take(fresh_from, to));
        self.furthest = self.furthest.max(to);
        let (processed, replayed) = if self.followed {
            (fresh.records, again.records)
        } else {
            (span(fresh_from, to), span(from, fresh_from))
        };
        let skipped = if self.followed { span(fresh_from, to) - fresh.offsets } else { 0 };
        self.processed.add(second, processed);
        self.replayed += replayed;
        self.skipped += skipped;
        let deliveries = fresh.deliveries;
        Confirmed { processed, replayed, skipped, rewound: 0, first: fresh_from, next: to, deliveries }
    }

    /// The group is put at `to` from outside: nothing is confirmed by that. Returns the offsets it went forward, and back.
    pub(crate) fn moved(&mut self, to: i64) -> (u64, u64) {
        let from = std::mem::replace(&mut self.committed, to);
        let (forward, back) = (span(from, to), span(to, from));
        self.take(from, to);
        self.skipped += span(self.furthest.clamp(from, to.max(from)), to);
        self.furthest = self.furthest.max(to);
        self.rewound += back;
        (forward, back)
    }

    /// Takes what was handed over below `to`; what of it lies below `from` does not count.
    fn take(&mut self, from: i64, to: i64) -> Taken {
        let mut taken = Taken::default();
        while let Some(mark) = self.marks.front().copied().filter(|mark| mark.first < to) {
            self.marks.pop_front();
            let (begin, end) = (mark.first.max(from), mark.next.min(to));
            if begin < end {
                taken.records += mark.below(end) - mark.below(begin);
                taken.offsets += span(begin, end);
                taken.deliveries.push((end, mark.delivered_ms));
            }
            if mark.next > to {
                let records = mark.records - mark.below(to);
                self.marks.push_front(Mark { first: to, records, ..mark });
                break;
            }
        }
        taken
    }
}

/// What of a commit was handed over.
#[derive(Debug, Default)]
struct Taken {
    records: u64,
    offsets: u64,
    deliveries: Deliveries,
}

fn span(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(confirmed: &Confirmed) -> [u64; 4] {
        [confirmed.processed, confirmed.replayed, confirmed.skipped, confirmed.rewound]
    }

    #[test]
    fn what_was_not_handed_over_was_skipped() {
        let mut part = Part::at(0, 1);
        part.delivered(0, 40, 40, 1000, 1);
        part.delivered(40, 90, 50, 2000, 1);
        part.delivered(120, 160, 40, 3000, 2);
        let confirmed = part.committed(130, 3);
        assert_eq!(counts(&confirmed), [100, 0, 30, 0]);
        assert_eq!(confirmed.deliveries.as_slice(), [(40, 1000), (90, 2000), (130, 3000)]);
        assert_eq!((confirmed.first, confirmed.next), (0, 130));
        assert_eq!(counts(&part.committed(160, 4)), [30, 0, 0, 0]);
        assert_eq!((part.delivered.total(), part.processed.total(), part.skipped), (130, 130, 30));
    }

    #[test]
    fn who_reads_without_membership_processes_what_it_commits() {
        let mut part = Part::at(5, 1);
        let confirmed = part.committed(25, 1);
        assert_eq!(counts(&confirmed), [20, 0, 0, 0]);
        assert!(confirmed.deliveries.is_empty());
    }

    #[test]
    fn going_back_counts_nothing_twice() {
        let mut part = Part::at(0, 1);
        part.delivered(0, 100, 100, 1000, 1);
        assert_eq!(counts(&part.committed(80, 1)), [80, 0, 0, 0]);
        assert_eq!(counts(&part.committed(30, 1)), [0, 0, 0, 50]);
        part.delivered(30, 100, 70, 5000, 9);
        let confirmed = part.committed(100, 9);
        assert_eq!(counts(&confirmed), [20, 50, 0, 0]);
        assert_eq!((confirmed.first, confirmed.next), (80, 100), "latency is of what is new");
        assert_eq!(confirmed.deliveries.as_slice(), [(100, 5000)]);
        assert_eq!((part.processed.total(), part.replayed, part.rewound), (100, 50, 50));
        assert_eq!(counts(&part.committed(100, 9)), [0; 4], "the same again is nothing");
    }

    #[test]
    fn a_filter_takes_nothing_from_what_was_skipped() {
        let mut part = Part::at(0, 1);
        part.delivered(0, 1000, 10, 1000, 1);
        assert_eq!(counts(&part.committed(500, 1)), [5, 0, 0, 0]);
        assert_eq!(counts(&part.committed(1000, 1)), [5, 0, 0, 0]);
    }

    #[test]
    fn what_is_handed_over_again_goes_by_its_last_time_and_marks_are_few() {
        let mut part = Part::at(0, 1);
        part.delivered(0, 10, 10, 1000, 1);
        part.delivered(4, 12, 8, 2000, 1);
        assert_eq!(part.committed(12, 1).deliveries.as_slice(), [(4, 1000), (12, 2000)]);
        for first in 12..2000 {
            part.delivered(first, first + 1, 1, first, 1);
        }
        assert_eq!(part.marks.len(), MOST_MARKS);
        assert_eq!(counts(&part.committed(2000, 2)), [1988, 0, 0, 0]);
    }
}
