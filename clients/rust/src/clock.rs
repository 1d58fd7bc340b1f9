//! The only reader of time and randomness in this crate.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Now, on the monotonic clock (tokio's, so that tests can stop it).
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A time after every deadline a caller could mean.
pub(crate) fn far_future() -> Instant {
    now() + Duration::from_secs(86_400 * 365)
}

/// 64 bits that differ from call to call and from process to process. For jitter and request ids, not for secrets:
/// the standard library keys its hash maps with the system's randomness, and a counter does the rest.
pub(crate) fn random() -> u64 {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(CALLS.fetch_add(1, Ordering::Relaxed))
}

/// A number in 0..1.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(crate) fn random_fraction() -> f64 {
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}

/// An id for one request: 128 random bits in hexadecimal.
pub(crate) fn request_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}
