//! The disk: segments, the journal, snapshots, recovery.
//!
//! Synchronous; knows no tokio, no topic name, no group. `docs/format.md` has every byte.
//!
//! ```text
//!   append ──> segment's page cache ──┐
//!      │                              │ readers see it once it is durable (or at once, below fsync)
//!      └─> queue ──> commit cycle ──> journal frame ──> one flush ──> acks
//!                                        │
//!                                     snapshot ──> frees the ring behind it
//!
//!   start:  snapshot ──> frames ──> inline batches again into segments ──> tails ──> new epoch
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`disk`] | the only door to a file system |
//! | `root`, `replace` | `ANNALS`; how a small file is replaced |
//! | `frame`, `ring`, `bounds` | a journal frame; the files frames go to; what numbers in them may be |
//! | `map`, `fault` | maps of files, and what happens when the disk does not give their pages |
//! | `segment`, `scan`, `index`, `keys`, `hints`, `ranges` | one segment file, and finding things in it |
//! | `partition`, `append`, `prepare`, `read` | a partition's log: writing to it, making room ahead, reading it |
//! | `change` | what changes without records: topics, the state's entries |
//! | `queue`, `room`, `waiters` | what was decided and is not durable; space set aside for it; who waits for it |
//! | `commit`, `extent` | the commit cycle |
//! | `snapshot`, [`recovery`] | where recovery starts, and recovery |
//! | `upkeep`, `scrub`, `runner` | what is done in the background; reading sealed segments again; the threads |
//! | `mutant` | the rules, broken on purpose, for the model to notice |
//! | `verify`, [`repair`], `dump` | one verdict over a directory; what can be put right; what a file says |
//!
//! **What an ack means** is decided in one place, [`Storage::append`], and kept in one place, `commit`.
//! A flush error is final: of the journal, for the process; of a segment, for its partition until the next start.

mod append;
mod bounds;
mod change;
mod commit;
pub mod disk;
mod dump;
mod epochs;
mod error;
mod extent;
mod fault;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod hints;
mod index;
mod key;
mod keys;
mod map;
pub(crate) mod mutant;
mod partition;
mod prepare;
mod producers;
mod queue;
mod ranges;
mod read;
pub mod recovery;
pub mod repair;
mod replace;
mod ring;
mod room;
mod root;
mod runner;
mod scan;
mod scrub;
mod segment;
mod snapshot;
#[expect(clippy::module_inception, reason = "the type of that name lives in a file of that name")]
mod storage;
mod upkeep;
mod verify;
mod waiters;

pub use append::{Append, Appended, Mode, Outcomes, Receipt};
pub use change::Change;
pub use commit::Step;
pub(crate) use disk::is_out_of_files;
pub use disk::{Disk, LockError, MemoryDisk, RealDisk};
pub use dump::{Piece, dump, files};
pub use error::{AppendError, CommitError, NoRoom, OpenError, ReadError};
pub use key::{Level, PartitionKey, PartitionSettings};
pub use keys::Places;
pub use partition::{Bounds, Partition, Published};
pub use producers::{Sequence, Standing, WINDOW};
pub use read::{BatchAt, Gap, GapReason, Read, Runs};
pub use recovery::{Machine, PartitionReport, Report};
pub use room::{Class, Room, Wake};
pub use root::FORMAT_VERSION;
pub use runner::{Runner, SectionSource};
pub use snapshot::{Section, Written};
pub use storage::{Options, Storage};
pub use verify::{Damage, Verdict, verify, verify_running};
pub use waiters::{Done, Durable};

#[cfg(test)]
mod tests;
