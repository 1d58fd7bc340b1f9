//! Annals: an append-only event log for services, in one process.
//!
//! # The map
//!
//! Rooms form a line, and a room names only rooms to its left (`tests/tidy.rs` holds it):
//!
//! ```text
//! annals-wire <- { annals-client, clock sync metrics } <- storage <- state <- broker <- { grpc, model } <- server <- cli <- main
//! ```
//!
//! | room | what it is | knows nothing of |
//! |---|---|---|
//! | [`clock`], [`sync`] | the only readers of time and randomness; the only names of locks and atomics | anything |
//! | [`metrics`] | what is counted, one named function each | anything but [`sync`] |
//! | [`storage`] | the disk: journal, segments, snapshots, recovery | tokio, topic names, groups |
//! | [`state`] | the truth that is not records: topics, committed offsets, request ids; pure `apply(entry)` | disks, time, tokio |
//! | [`broker`] | the meaning of produce, fetch and commit | protobuf services |
//! | [`model`] | the power-cut model that the storage is run on in tests | doors |
//! | [`grpc`] | the door: bytes in, [`broker`], bytes out | files |
//! | [`server`] | the process: configuration, doors, shutdown | commands |
//! | [`cli`] | one file per command; speaks to servers through `annals-client` alone | |
//!
//! # The road of a record
//!
//! *In:* `grpc::raw` takes the body as it arrives -> `annals_wire::request` finds the run of records ->
//! `annals_wire::walk` checks every record in place -> [`broker`] chooses partitions ->
//! [`storage::Storage::append`] gives offsets under the partitions' locks, writes header and records into the
//! segment's page cache and hands them to the commit cycle -> one journal frame, one flush -> the ack.
//!
//! *Out:* `grpc::raw` -> [`broker`] -> [`storage::Partition::read`] -> a slice of the segment's read-only map ->
//! the socket. The bytes are the producer's own; nothing is decoded or encoded again.
//!
//! # Where to start reading
//!
//! `docs/format.md` (every byte of every file), then [`storage`].

pub mod broker;
pub mod cli;
pub mod clock;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod grpc;
pub mod metrics;
pub mod model;
pub mod server;
pub mod state;
pub mod storage;
pub mod sync;
