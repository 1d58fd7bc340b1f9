//! Every limit that client and server must agree on, in one place.
//!
//! Sizes are bytes, times milliseconds. What a server enforces may be lower (a batch limit can be configured up to
//! [`HARD_MAX_BATCH_BYTES`]); what it has in force is told by `GetServerInfo`. The order of the sizes matters more than
//! their values, so it is asserted at compile time: a record fits into a batch, a batch with everything in front of it
//! into a response, a response into the 4 MiB that a stock gRPC client receives at most.

use crate::header::BATCH_PREFIX_LEN;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Largest record, as it is written in a run: tag and length included.
pub const MAX_RECORD_BYTES: usize = MIB;
/// Largest batch unless configured otherwise: its run of records, tags and lengths included, unpacked.
pub const DEFAULT_MAX_BATCH_BYTES: usize = MIB;
/// Largest batch that can be configured.
pub const HARD_MAX_BATCH_BYTES: usize = 3 * MIB;
/// Largest length of a stored batch's body (header and payload): a payload that grew by its packing still fits.
pub const MAX_STORED_BODY_BYTES: usize = HARD_MAX_BATCH_BYTES + 64 * KIB;
/// Most records in one batch. Bounds what a stock decoder allocates for a run of empty records.
pub const MAX_RECORDS_PER_BATCH: u32 = 131_072;

/// Largest request.
pub const MAX_REQUEST_BYTES: usize = 16 * MIB;
/// What one response aims at.
pub const AIM_RESPONSE_BYTES: usize = MIB;
/// Largest response, come what may: below the 4 MiB that every stock client receives.
pub const MAX_RESPONSE_BYTES: usize = 4 * MIB - 64 * KIB;
/// What every stock gRPC client receives at most.
pub const STOCK_RECEIVE_BYTES: usize = 4 * MIB;
/// Most bytes that stand in a response before the batches of one slice: names, positions, gaps.
pub const MAX_SLICE_PREFIX_BYTES: usize = 4 * KIB;
/// Most gaps told in one slice; the read ends before the next one.
pub const MAX_GAPS_PER_SLICE: usize = 64;

/// Longest name of a topic or a group; the shortest is 1.
pub const MAX_NAME_BYTES: usize = 249;
/// Longest name of a record's header; the shortest is 1.
pub const MAX_HEADER_NAME_BYTES: usize = 255;
/// Beginning of the header names that only the broker writes.
pub const RESERVED_HEADER_PREFIX: &str = "annals-";
/// Beginning of the topic and group names that only the broker makes.
pub const RESERVED_NAME_PREFIX: &str = "__";
/// Longest `request_id`; the shortest is 1.
pub const MAX_REQUEST_ID_BYTES: usize = 128;
/// Longest note in a committed position.
pub const MAX_COMMIT_METADATA_BYTES: usize = KIB;

/// Most positions in a fetch, a subscription or a commit.
pub const MAX_POSITIONS: usize = 1024;
/// Most outputs of a read-process-write step.
pub const MAX_OUTPUTS: usize = 1024;
/// Longest wait of a fetch.
pub const MAX_WAIT_MS: u32 = 30_000;
/// Silence after which a stream carries a heartbeat.
pub const HEARTBEAT_INTERVAL_MS: u32 = 10_000;
/// Most bytes of all conditions of a filter together.
pub const MAX_FILTER_BYTES: usize = 4 * KIB;
/// Most headers and event types of a filter together.
pub const MAX_FILTER_CONDITIONS: usize = 64;
/// Shortest interval of a group's heartbeats that can be configured.
pub const MIN_GROUP_HEARTBEAT_MS: u32 = 500;
/// Longest interval of a group's heartbeats that can be configured.
pub const MAX_GROUP_HEARTBEAT_MS: u32 = 60_000;
/// Shortest silence after which a member can be out.
pub const MIN_SESSION_TIMEOUT_MS: u32 = 1_500;
/// Longest silence after which a member can be out.
pub const MAX_SESSION_TIMEOUT_MS: u32 = 1_800_000;
/// Shortest time a member can get to hand a partition over.
pub const MIN_REVOKE_TIMEOUT_MS: u32 = 1_000;
/// Longest time a member can get to hand a partition over.
pub const MAX_REVOKE_TIMEOUT_MS: u32 = 3_600_000;
/// Most partitions of one topic.
pub const MAX_PARTITIONS: u32 = 1024;
/// Topics or groups on a page unless asked otherwise.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// Most topics or groups on a page.
pub const MAX_PAGE_SIZE: u32 = 1000;

/// Smallest size at which a segment is closed.
pub const MIN_SEGMENT_BYTES: u64 = MIB as u64;
/// Largest size at which a segment is closed: positions in a segment fit 32 bits with room for one more batch.
pub const MAX_SEGMENT_BYTES: u64 = 2048 * MIB as u64;
/// Longest sync window of the interval level.
pub const MAX_INTERVAL_MS: u32 = 60_000;
/// Smallest sync window of the interval level, in bytes.
pub const MIN_INTERVAL_BYTES: u64 = 4 * KIB as u64;
/// Largest sync window of the interval level, in bytes.
pub const MAX_INTERVAL_BYTES: u64 = 1024 * MIB as u64;

/// Most memory a Zstandard frame may ask its reader for, as a power of two: 8 MiB.
pub const MAX_ZSTD_WINDOW_LOG: u32 = 23;

const _: () = {
    assert!(MAX_RECORD_BYTES <= DEFAULT_MAX_BATCH_BYTES);
    assert!(DEFAULT_MAX_BATCH_BYTES <= HARD_MAX_BATCH_BYTES);
    assert!(HARD_MAX_BATCH_BYTES < MAX_STORED_BODY_BYTES);
    // The largest batch goes alone into a response, with everything in front of it, and stock clients receive that.
    assert!(MAX_STORED_BODY_BYTES + BATCH_PREFIX_LEN + 2 * MAX_SLICE_PREFIX_BYTES <= MAX_RESPONSE_BYTES);
    assert!(MAX_RESPONSE_BYTES < STOCK_RECEIVE_BYTES);
    assert!(AIM_RESPONSE_BYTES <= MAX_RESPONSE_BYTES);
    // The largest batch can be sent.
    assert!(HARD_MAX_BATCH_BYTES + 64 * KIB <= MAX_REQUEST_BYTES);
    // A batch's length fits its four padded bytes (28 bits).
    assert!(MAX_STORED_BODY_BYTES < 1 << 28);
    // The fields of a slice and its gaps fit the room kept for them: a gap takes at most 26 bytes.
    assert!(MAX_NAME_BYTES + 16 + 100 + MAX_GAPS_PER_SLICE * 26 <= MAX_SLICE_PREFIX_BYTES);
    // A full segment and one more batch: positions fit 32 bits.
    assert!(MAX_SEGMENT_BYTES + MAX_REQUEST_BYTES as u64 <= u32::MAX as u64);
    assert!(MAX_RECORDS_PER_BATCH as usize * 2 <= DEFAULT_MAX_BATCH_BYTES);
    assert!(MAX_PARTITIONS as usize <= MAX_POSITIONS);
};
