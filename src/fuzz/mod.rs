//! Everything that takes bytes from outside, as plain functions over bytes: what a fuzzer calls.
//!
//! A function takes any bytes and says whether they were accepted. It must not panic, whatever they are, and it checks what
//! has to hold for whatever is accepted: it encodes again to the same bytes, a stock decoder reads the same, cutting the
//! input into pieces changes nothing, nothing outgrows its limit. A broken promise is a panic.
//!
//! | file | what |
//! |---|---|
//! | `wire`, `messages` | headers, payloads, segments' edges, packed records, names; requests and answers with records |
//! | `state` | entries and images of the state machine |
//! | `storage::fuzz`, `grpc::fuzz`, `server::config::fuzz`, `cli::fuzz` | what only those rooms can reach |
//! | `repair` | puts checksums right, so that a mutated input gets past them |
//! | `mutate`, `seeds`, `tests` | in `cargo test`: every target over 100,000 inputs made from `fuzz/corpus` |
//!
//! This module is there in tests and with the feature `fuzz`, which `fuzz/` (cargo-fuzz) turns on; a server has none of it.
//! `docs/testing.md` says how to run it.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::cast_possible_truncation,
    reason = "a panic is its verdict"
)]

mod messages;
mod repair;
mod state;
mod wire;

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

use crate::{cli, grpc, server, storage};

/// Something that takes bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also of its corpus.
    pub name: &'static str,
    /// Whether the bytes are accepted; panics if something is wrong with how they are taken.
    pub run: fn(&[u8]) -> bool,
    /// Puts right what would keep nearly every mutated input out: checksums, lengths.
    pub repair: fn(&mut [u8]),
    /// Where protobuf begins in an input: behind fixed headers.
    pub message_at: usize,
    /// Bytes of memory it may hold at a time besides 256 for each byte of input.
    pub memory: usize,
}

/// Memory that is enough for whatever does not allocate by itself.
const LITTLE: usize = 256 << 10;
const MIB: usize = 1 << 20;

const fn target(name: &'static str, run: fn(&[u8]) -> bool) -> Target {
    Target { name, run, repair: as_it_is, message_at: 0, memory: LITTLE }
}

fn as_it_is(_: &mut [u8]) {}

/// All of them.
pub static TARGETS: &[Target] = &[
    Target { repair: repair::batches, ..target("batch_header", wire::batch_header) },
    target("payload_walk", wire::payload_walk),
    Target { repair: repair::batches, memory: 8 * MIB, ..target("stored_batch", wire::stored_batch) },
    Target { repair: repair::batches, ..target("segment_edges", wire::segment_edges) },
    // A frame of LZ4 may have blocks of 4 MiB, whatever its own size: two are held.
    Target { memory: 10 * MIB, ..target("packed_lz4", wire::packed_lz4) },
    target("packed_zstd", wire::packed_zstd),
    target("names", wire::names),
    target("produce_request", messages::produce_request),
    target("produce_stream_request", messages::produce_stream_request),
    target("step_request", messages::step_request),
    Target { memory: 10 * MIB, ..target("fetch_response", messages::fetch_response) },
    Target { memory: 10 * MIB, ..target("subscribe_response", messages::subscribe_response) },
    target("requests", grpc::fuzz::requests),
    target("framing", grpc::fuzz::framing),
    target("call_timeout", grpc::fuzz::call_timeout),
    target("error_details", grpc::fuzz::error_details),
    Target { repair: repair::root, ..target("root", storage::fuzz::root) },
    Target { repair: repair::ring_header, ..target("ring_header", storage::fuzz::ring_header) },
    Target { repair: repair::frame, message_at: 64, ..target("frame", storage::fuzz::frame) },
    Target { repair: repair::snapshot, message_at: 64, ..target("snapshot", storage::fuzz::snapshot) },
    Target { repair: repair::index, ..target("index", storage::fuzz::index) },
    Target { repair: repair::keys, ..target("keys", storage::fuzz::keys) },
    // A dump reads a batch as long as its header says, which may be 3 MiB.
    Target {
        repair: repair::batches,
        memory: 4 * MIB,
        ..target("segment_scan", storage::fuzz::segment_scan)
    },
    Target { memory: 8 * MIB, ..target("journal_entries", storage::fuzz::journal_entries) },
    Target { memory: 8 * MIB, ..target("recovered_snapshot", storage::fuzz::recovered_snapshot) },
    target("state_entries", state::entries),
    target("state_image", state::image),
    target("config", server::fuzz_config),
    target("position", cli::fuzz::position),
    target("lines", cli::fuzz::lines),
    target("json_record", cli::fuzz::json_record),
    target("key_field", cli::fuzz::key_field),
    target("output_format", cli::fuzz::output_format),
];

/// Runs a target over bytes as they are and with their checksums put right: what a fuzzer without a structure of its own does.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target {name}"));
    (target.run)(input);
    let mut repaired = input.to_vec();
    (target.repair)(&mut repaired);
    if repaired != input {
        (target.run)(&repaired);
    }
}
