//! What can go wrong on disk, sorted by what the caller does about it.

use std::{fmt, io};

use super::key::PartitionKey;

/// Why a data directory could not be opened. Nothing was written in any of these cases.
#[derive(Debug)]
pub enum OpenError {
    /// The directory holds something that is not ours.
    Foreign {
        /// What was found.
        found: String,
    },
    /// Written by a newer Annals.
    Newer {
        /// Which file says so, and what it says.
        what: String,
    },
    /// What the journal or a snapshot says is durable does not verify, and which data that concerns cannot be told.
    Damaged {
        /// File, relative to the data directory.
        file: String,
        /// Byte position in it.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: String,
        /// Its answer.
        source: io::Error,
    },
}

/// Why an append, or a change of state, was not taken. Nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// `expected_next_offset` does not hold.
    OffsetMismatch {
        /// Index into the batches of the call.
        batch: usize,
        /// The partition's next offset.
        next_offset: i64,
    },
    /// The producer's next batch in the partition has another sequence, and this one is not known.
    SequenceGap {
        /// Index into the batches of the call.
        batch: usize,
        /// That sequence.
        expected: u32,
    },
    /// Nothing more can be kept of what producers stored last.
    TooManyProducers {
        /// In how many partitions producers can be known, counted once in each.
        limit: u64,
    },
    /// The active segment has no room: call [`super::Storage::prepare`] without locks, then again.
    NotPrepared {
        /// Index into the batches of the call.
        batch: usize,
    },
    /// A call names each partition once.
    Repeated {
        /// Index into the batches of the call.
        batch: usize,
    },
    /// The disk is full; goes away by itself when there is space.
    DiskFull,
    /// No more files may be open; closing what is not in use takes a moment.
    NoFiles {
        /// How many segments may be open.
        limit: u64,
    },
    /// The partition was fenced after a failed flush or write; a restart recovers it.
    Fenced {
        /// Index into the batches of the call.
        batch: usize,
    },
    /// The topic cannot be declared at `fsync`: this partition of it is fenced, and may hold what was acked below `fsync`
    /// and is in no entry. A restart recovers it.
    Unsettled {
        /// The partition.
        key: PartitionKey,
    },
    /// The partition was removed.
    Removed {
        /// Index into the batches of the call.
        batch: usize,
    },
    /// The whole directory takes no more writes: the journal failed, or the process is stopping.
    Closed,
}

/// Why room could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The ring or the memory for pending writes is full: wait for [`super::Storage::on_room`].
    Busy,
    /// The request can never fit.
    TooLarge,
    /// No more writes.
    Closed,
}

/// Why something submitted did not become durable. Its outcome is unknown until the next recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitError {
    /// A flush of the partition's segment failed; the partition is fenced.
    Fenced,
    /// The journal failed or closed before the flush.
    Closed,
}

/// Why a read failed.
#[derive(Debug)]
pub enum ReadError {
    /// Below the log start.
    Truncated {
        /// First offset kept.
        log_start: i64,
    },
    /// Above the high watermark.
    Ahead {
        /// High watermark.
        high_watermark: i64,
    },
    /// The bytes of these offsets do not verify; they are kept for evidence.
    Damaged {
        /// First damaged offset.
        first: i64,
        /// Last damaged offset, inclusive.
        last: i64,
    },
    /// The partition was removed.
    Removed,
    /// The operating system refused.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { found } => write!(f, "not an Annals data directory: {found}"),
            Self::Newer { what } => write!(f, "written by a newer version: {what}"),
            Self::Damaged { file, position, what } => write!(f, "damaged: {file} at byte {position}: {what}"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Foreign { .. } | Self::Newer { .. } | Self::Damaged { .. } => None,
        }
    }
}
