//! Planted mistakes: what the power-cut model has to notice, one rule of this room broken each.
//!
//! A model that never fails proves nothing, so `model::mutants` breaks the rules one by one and demands that each
//! breach is found. The breach stands where the rule is kept, as a question to [`planted`]; outside tests that is the
//! constant `false` and the compiler drops the breach, so what ships holds none of it. A type parameter would say
//! the same in every signature from here to the doors.
//!
//! In tests the answer belongs to the asking thread. The model runs the whole storage on one.

use std::io;

use super::disk::File;

/// A mistake. Each says what is left undone, and what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    // Acks: nothing is promised before it is true.
    /// Waiters are released before the frames are written. Acked entries are lost.
    AckBeforeFrame,
    /// The ring is written, not flushed. Acked entries are lost.
    AckBeforeFlush,
    /// Waiters are released up to the position read after the flush. What was decided during the flush is acked and lost.
    AckByLaterPosition,
    /// A change of the state is acked as soon as it is decided. Commits are lost.
    StateNotAwaited,
    /// The high watermark does not wait for the journal. Readers see what a power cut takes back.
    PublishedEarly,
    /// Rule 2: an append to a new segment does not wait for the frame that names it. Acked bytes lie in a file nobody lists.
    RollNotAwaited,
    /// A topic goes from `fsync` to `os`, and appends do not wait for the entry that says so: no walk looks for them.
    LoweringNotAwaited,
    /// A change from `fsync` to `os` goes on when what it found undecided in a partition is given up: acks that wait for it
    /// alone come behind a hole.
    LoweredAlone,
    /// Rule 3: below `fsync`, an append behind an undecided group does not wait for it. The walk stops at the group.
    GroupOvertaken,

    // The journal: one chain, one torn tail.
    /// Rule 11: of the files a cycle wrote only the last one is flushed.
    RingFlushesLastFile,
    /// A failed flush of the ring is tried again and believed. The kernel says OK the second time, and the bytes are gone.
    RingFlushRetried,
    /// A frame says that what was written before it is durable, flushed or not. A torn tail is taken for damage.
    DurableClaimedEarly,
    /// A link leads to a file found by the start, and its header is not flushed first. An earlier flush may have failed.
    RingHeaderTrusted,
    /// A new file of the ring is used before its name is flushed.
    RingNameUnflushed,
    /// The ring is freed behind the newer of the two snapshots. The older one is of no use any more.
    RingReusedEarly,
    /// A frame's crc is not looked at.
    FrameCrcUnchecked,
    /// A frame need not follow the one before it: its crc of that one is not looked at.
    FrameChainUnchecked,
    /// A frame may be of an older epoch than the one before it.
    FrameEpochUnchecked,
    /// Rule 6: every directory's frames begin alike. A payload can pretend to be one.
    FrameMagicKnown,
    /// A frame that is missing in the middle is taken for the end. Durable entries are dropped without a word.
    DamageTakenForTail,
    /// A frame is split within a request. Half a group happens.
    FrameSplitsRequest,
    /// The entries of an atomic append are a request of their own. A step's records are there and its offsets are not, or the
    /// other way round.
    EntriesApart,

    // Segments: what the journal says of them is true.
    /// An extent is entered before its segment is flushed.
    ExtentBeforeFlush,
    /// Rule 1: what lies before a journaled batch of an `os` or `interval` partition is entered, not flushed.
    PastUnflushed,
    /// A sync point is entered, not flushed.
    SyncPointUnflushed,
    /// Rule 3: sync points reach to whatever the partition holds by now, past undecided groups and unnamed segments.
    ExtentsToPresentEnd,
    /// A failed flush of a segment is tried again and believed.
    SegmentFlushRetried,
    /// A segment's flush counts for what was written while it ran.
    SyncedTakenAfter,
    /// A segment gets its name with its header unflushed.
    SegmentHeaderUnflushed,
    /// A segment's name is not flushed before the frame that lists it.
    SegmentNameUnflushed,
    /// The directories of a new topic are not flushed up to the data directory.
    TopicNameUnflushed,
    /// A deleted topic's files go before the entry that deletes it is durable.
    BuriedEarly,
    /// A topic goes from `os` to `fsync` without a sync point: the next start no longer walks, and finds nothing.
    RaisedWithoutSync,
    /// A raise that was given up with a fenced partition is believed: the next change of the topic says `fsync`, and no sync
    /// point stands beside it.
    RaiseBelieved,
    /// Batches of a group are not marked. The walk takes them one by one.
    GroupUnmarked,

    // Failed flushes: final.
    /// Rule 10: of an item that touches a fenced partition the rest goes on.
    FailedItemHalfEntered,
    /// Rule 10: the other partitions of a failed item go on behind the hole.
    FenceNotSpread,
    /// Partitions that were made by a change that was given up take records. The next start does not know them.
    MadeInVain,
    /// The commit cycle goes on with a partition that a failed flush elsewhere fenced.
    FenceForgotten,
    /// Rule 10: a snapshot is taken after a failed flush.
    SnapshotAfterFailedFlush,

    // Snapshots: behind the journal and the segments, never ahead.
    /// Rule 11: what a snapshot names is not flushed.
    SnapshotAheadOfSegments,
    /// Rule 11: the state is captured once more after the flush. What was written during it is named, not flushed.
    SnapshotCapturedAfterFlush,
    /// Rule 3: a snapshot gets its name before all it holds is durable.
    SnapshotAheadOfJournal,
    /// Rule 3: a snapshot lists segments that have no name yet.
    SnapshotListsUnnamed,
    /// A snapshot that leaves an unnamed segment out still says it is exact after its entry. Nobody lists the segment.
    SnapshotNumberTooHigh,
    /// A snapshot's name is not flushed before the ring behind the one before it is used again.
    SnapshotNameUnflushed,

    /// What requests were answered is not in the image of the state, only that they were. A retry gets no answer.
    AnswersForgotten,

    // Producers: a batch is stored once.
    /// A batch does not count towards its producer's sequence. A retry is stored again.
    SequencesNotCounted,
    /// The answer to a retry does not wait for the batch it is about. A lost write is acked.
    DuplicateNotAwaited,
    /// A snapshot says nothing of what producers stored last. After a start a retry is stored again, or a gap.
    SequencesNotInSnapshot,
    /// A snapshot that leaves an unnamed segment out knows what producers stored in it. A retry of what was lost is acked.
    SequencesAheadOfSnapshot,
    /// A start counts what the journal holds inline and no more: not what lies in extents.
    ExtentsNotCounted,
    /// A start counts what the journal knows: not what it walked.
    WalkNotCounted,

    // Recovery.
    /// The directory is called made before its journal is.
    RootBeforeJournal,
    /// A start goes on in the epoch of the run before.
    EpochNotBumped,
    /// Rule 7: a start writes no snapshot. A crash loop eats the ring.
    NoSnapshotAtStart,
    /// A start's snapshot takes the name, and so the place, of the one the start was made from: only the older one is left
    /// beside it, and the journal behind that one lacks what the replaced one knew.
    StartReplacesSnapshot,
    /// Rule 8: frames of which only memory may know are named durable without being written again.
    FramesNotRewritten,
    /// Rule 9: the `started` frame does not say what recovery decided. Replay from the older snapshot decides otherwise.
    StartedWithoutDecisions,
    /// Inline batches that the segment seems to hold are not written again. The page cache may lie.
    InlineCompared,
    /// What recovery wrote into segments is not flushed before a snapshot says it is there.
    RebuildUnflushed,
    /// Extents are not verified against the disk: damage goes unsaid.
    ExtentsUnverified,
    /// What lies behind the end is not wiped. A later start takes it for data.
    NoWipe,
    /// What lies behind the end is wiped in memory only.
    WipeUnflushed,
    /// Rule 4: a walk that ends early keeps the later segments.
    LaterSegmentsKept,
    /// The walk takes batches of atomic groups.
    WalkTakesGroups,
    /// The walk takes batches whose payload does not verify.
    WalkTakesTorn,
    /// The walk takes batches of an epoch older than the one before.
    WalkEpochFalls,
    /// Rule 6: the walk takes batches of an epoch that no frame ever began.
    WalkEpochUnknown,
    /// What the walk took is not written again before its flush. The page cache may lie.
    WalkNotRewritten,
    /// What the walk took is not flushed before it is entered.
    WalkUnflushed,

    // Reading.
    /// What an index says is believed.
    IndexTrusted,
    /// The files of an index need no crc.
    IndexCrcUnchecked,
    /// A batch's header need not verify.
    HeaderCrcUnchecked,
    /// A batch's payload need not verify before it is served.
    ServedUnverified,
    /// The scrubber passes over sealed segments without looking. What rots there is found when it is needed.
    ScrubIgnored,
}

/// Whether a mistake is made on this thread.
#[cfg(not(any(test, annals_threads)))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

/// See [`Mutant::RingFlushRetried`] and [`Mutant::SegmentFlushRetried`].
pub(crate) fn flush_twice(file: &dyn File) -> io::Result<()> {
    file.sync().or_else(|_| file.sync())
}

#[cfg(any(test, annals_threads))]
pub(crate) use here::{plant, planted};

#[cfg(any(test, annals_threads))]
mod here {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static PLANTED: Cell<u128> = const { Cell::new(0) };
    }

    fn bit(mutant: Mutant) -> u128 {
        1 << mutant as u32
    }

    pub(crate) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() & bit(mutant) != 0
    }

    /// Makes these mistakes on this thread, and no others, while `run` runs.
    pub(crate) fn plant<T>(mutants: &[Mutant], run: impl FnOnce() -> T) -> T {
        struct Clear;
        impl Drop for Clear {
            fn drop(&mut self) {
                PLANTED.set(0);
            }
        }
        PLANTED.set(mutants.iter().map(|mutant| bit(*mutant)).sum());
        let _also_after_a_panic = Clear;
        run()
    }

    #[test]
    fn a_mistake_is_made_here_and_ends_with_its_run() {
        plant(&[Mutant::NoWipe, Mutant::ServedUnverified], || {
            assert!(planted(Mutant::NoWipe) && planted(Mutant::ServedUnverified));
            assert!(!planted(Mutant::AckBeforeFrame));
            std::thread::spawn(|| assert!(!planted(Mutant::NoWipe))).join().unwrap();
        });
        assert!(!planted(Mutant::NoWipe));
    }
}
