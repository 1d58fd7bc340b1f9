//! What clients and servers of Annals must agree on: the messages of the API, the limits, and the bytes of records.
//!
//! Disk bytes = wire bytes = protobuf. A segment file is one [`v1::LogSlice`], a fetch answers with runs of whole
//! batches cut from it, and a producer's encoded records go into it untouched. So the codec here works on bytes in
//! place and the generated structs are only for what is not hot:
//!
//! ```text
//!  producer            server                              disk                 server             reader
//!  builder::Builder -> request::scan -> walk -> header -> segment file -> trim, slice::Prefix -> slice::FetchBody
//!  (or any stub)       (finds the run) (checks) (stamps)  (segment ends)  (cuts, puts in front)   (or any stub)
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`v1`] | generated: messages, with features `client` and `server` the stubs |
//! | [`limits`], [`names`], [`ids`] | sizes, names of topics and groups, ids of topics |
//! | [`header`] | the fixed header in front of a stored batch |
//! | [`segment`] | first and last field of a segment file |
//! | [`chunks`] | bytes in several pieces, as a network delivers them |
//! | [`request`] | finds the records in the body of a produce call without decoding them |
//! | [`walk`](mod@walk) | checks every record of a run, in place |
//! | [`builder`] | encodes a run, for clients |
//! | [`slice`](mod@slice) | reads and writes fetch bodies |
//! | [`trim`], [`pick`], [`compress`] | what may change in a batch between disk and wire |
//! | [`murmur2`] | which partition a key belongs to |
//!
//! Nothing here does I/O, reads a clock, or panics on any input.

pub mod builder;
pub mod chunks;
pub mod compress;
mod fields;
mod fixed;
pub mod header;
pub mod ids;
pub mod limits;
pub mod murmur2;
pub mod names;
pub mod pick;
pub mod request;
pub mod segment;
pub mod slice;
#[cfg(test)]
mod testing;
pub mod trim;
mod varint;
pub mod walk;

/// The API, generated from `annals/v1/*.proto`.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/annals.v1.rs"));
}

/// What the server keeps on its own disk, generated from `annals/internal/v1/*.proto`. No promise of stability.
#[cfg(feature = "internal")]
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod internal {
    include!(concat!(env!("OUT_DIR"), "/annals.internal.v1.rs"));
}

/// Descriptors of the API with everything it imports and its comments, as a serialised
/// `google.protobuf.FileDescriptorSet`: what gRPC reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/annals.v1.bin"));
