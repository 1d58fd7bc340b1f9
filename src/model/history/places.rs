//! Where in its work the broker was when the power went.

use crate::model::disk::{Death, Op};

/// Kinds of work a cut can fall into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Place {
    /// A batch on its way into a segment's page cache.
    Append,
    /// A segment's flush in a commit cycle.
    SegmentFlush,
    /// A frame: written or flushed.
    Frame,
    /// The journal goes on in its next file.
    Wrap,
    /// The journal gets one more file.
    Growth,
    /// A new segment gets its header and its name.
    Roll,
    /// A segment is closed for good.
    Seal,
    /// A snapshot.
    Snapshot,
    /// Directories of a new topic or partition.
    Creation,
    /// Removal of a deleted topic's files.
    Deletion,
    /// Room made ahead of appends.
    Room,
    /// Anything else: a read, a list.
    Reading,
    /// A start, while it reads.
    StartReading,
    /// A start, in the journal.
    StartJournal,
    /// A start, in the segments.
    StartSegments,
    /// A start, in its snapshot.
    StartSnapshot,
    /// The making of a directory.
    StartNew,
}

impl Place {
    /// All of them with their names, in order.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::Append, "append"),
        (Self::SegmentFlush, "segment_flush"),
        (Self::Frame, "frame"),
        (Self::Wrap, "ring_wrap"),
        (Self::Growth, "ring_growth"),
        (Self::Roll, "roll"),
        (Self::Seal, "seal"),
        (Self::Snapshot, "snapshot"),
        (Self::Creation, "topic_creation"),
        (Self::Deletion, "topic_deletion"),
        (Self::Room, "room"),
        (Self::Reading, "reading"),
        (Self::StartReading, "start_reading"),
        (Self::StartJournal, "start_journal"),
        (Self::StartSegments, "start_segments"),
        (Self::StartSnapshot, "start_snapshot"),
        (Self::StartNew, "start_new_directory"),
    ];
}

/// What the history was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Start { new: bool },
    Append,
    Snapshot,
    Upkeep,
    Grow,
    Other,
}

const READS: [Op; 5] = [Op::Open, Op::List, Op::Len, Op::Read, Op::View];

pub(super) fn place(doing: Doing, death: &Death) -> Place {
    let path = death.path.as_str();
    let reads = READS.contains(&death.op);
    let journal = path.starts_with("journal");
    let spare = path.contains("/spare-");
    match doing {
        Doing::Start { new: true } => Place::StartNew,
        Doing::Start { .. } if reads => Place::StartReading,
        Doing::Start { .. } if journal => Place::StartJournal,
        Doing::Start { .. } if path.starts_with("topics/") => Place::StartSegments,
        Doing::Start { .. } => Place::StartSnapshot,
        Doing::Grow => Place::Growth,
        Doing::Snapshot if !journal => Place::Snapshot,
        _ if journal && death.op == Op::Write && death.position == 0 => Place::Wrap,
        _ if journal => Place::Frame,
        _ if death.op == Op::CreateDir || path.is_empty() || (path == "topics" && doing != Doing::Upkeep) => {
            Place::Creation
        }
        Doing::Upkeep if death.op == Op::Rename || path == "topics" || path.contains(".deleted") => {
            Place::Deletion
        }
        Doing::Upkeep | Doing::Append if spare || death.op == Op::Allocate => Place::Room,
        Doing::Upkeep | Doing::Append if death.op == Op::SyncDir => Place::Creation,
        Doing::Upkeep if path.starts_with("topics/") && death.op != Op::WriteBack => Place::Seal,
        Doing::Append if death.op == Op::Write => Place::Append,
        _ if spare || matches!(death.op, Op::Rename | Op::SyncDir) => Place::Roll,
        _ if death.op == Op::Sync => Place::SegmentFlush,
        _ => Place::Reading,
    }
}
