//! Time and randomness: the only reader of either.
//!
//! Whatever needs to know the time, to measure how long something took or to draw a number takes a [`Clock`],
//! so that a test decides all three and the same seed gives the same run. `clippy.toml` and `tests/tidy.rs`
//! deny the standard readers elsewhere.
//!
//! Two times, never mixed:
//! 1. [`Clock::wall_ms`] is what people read: it stamps records, and it may jump either way.
//! 2. [`Clock::monotonic`] never goes back: leases, timeouts and durations are measured with it alone.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::sync::{AtomicI64, AtomicU64, Ordering};

/// Time and randomness as the process is given them.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970-01-01T00:00Z by the machine's clock. May jump, forward and back.
    fn wall_ms(&self) -> i64;
    /// Time since an arbitrary start that is the same for the whole process. Never goes back.
    fn monotonic(&self) -> Duration;
    /// 64 random bits nobody can guess.
    fn random_u64(&self) -> u64;
}

/// The machine's own clocks and its random generator.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// The monotonic time starts here.
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    fn wall_ms(&self) -> i64 {
        let whole_ms = |distance: Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => whole_ms(since),
            Err(before) => -whole_ms(before.duration()),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random bits: {error}"),
            }
        }
        u64::from_le_bytes(bytes)
    }
}

/// A clock that stands still until it is told otherwise, with randomness from a seed.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    monotonic_ns: AtomicU64,
    random: AtomicU64,
}

impl ManualClock {
    /// A clock at `wall_ms`; the same seed draws the same numbers.
    pub fn new(wall_ms: i64, seed: u64) -> Self {
        Self {
            wall_ms: AtomicI64::new(wall_ms),
            monotonic_ns: AtomicU64::new(0),
            random: AtomicU64::new(seed),
        }
    }

    /// Lets time pass: both times move.
    pub fn advance(&self, by: Duration) {
        let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.monotonic_ns.fetch_add(ns, Ordering::SeqCst);
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock, as an operator or a time server does; no time passes.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.monotonic_ns.load(Ordering::SeqCst))
    }

    /// SplitMix64: every seed has the full period, and each draw is one addition that threads cannot tear.
    fn random_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let state = self.random.fetch_add(STEP, Ordering::SeqCst).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// A version 7 UUID (RFC 9562): 48 bits of time, then version, variant and 74 random bits. Ids made later sort
/// later, as far as the wall clock does not go back.
pub fn uuid_v7(clock: &dyn Clock) -> [u8; 16] {
    let time = u64::try_from(clock.wall_ms()).unwrap_or(0) & 0xFFFF_FFFF_FFFF;
    let high = (time << 16) | 0x7000 | (clock.random_u64() & 0x0FFF);
    let low = (0b10 << 62) | (clock.random_u64() >> 2);
    ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
}

/// The append time of a partition's newest batch, in milliseconds since 1970.
///
/// It does not go back when the wall clock does, so a search by time stays a search; but a clock that once
/// stood more than an hour ahead is not followed for ever: from that distance on the present counts again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppendTime(i64);

impl AppendTime {
    /// How far the newest batch may lie ahead of the wall clock and still be followed.
    pub const MAX_AHEAD_MS: i64 = 3_600_000;

    /// The append time of a batch that is already there.
    pub const fn of(ms: i64) -> Self {
        Self(ms)
    }

    /// The append time of the next batch, appended when the wall clock says `now_ms`.
    #[must_use]
    pub fn next(self, now_ms: i64) -> Self {
        if self.0.saturating_sub(now_ms) < Self::MAX_AHEAD_MS {
            Self(self.0.max(now_ms))
        } else {
            Self(now_ms)
        }
    }

    /// In milliseconds since 1970.
    pub const fn ms(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_in_this_century_and_does_not_go_back() {
        let clock = SystemClock::new();
        assert!(clock.wall_ms() > 1_700_000_000_000);
        assert!(clock.wall_ms() < 4_000_000_000_000);
        let earlier = clock.monotonic();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.monotonic() >= earlier + Duration::from_millis(2));
        assert_ne!(clock.random_u64(), clock.random_u64());
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(1_000, 1);
        clock.advance(Duration::from_millis(1_500));
        assert_eq!((clock.wall_ms(), clock.monotonic()), (2_500, Duration::from_millis(1_500)));
        clock.set_wall_ms(-5);
        assert_eq!((clock.wall_ms(), clock.monotonic()), (-5, Duration::from_millis(1_500)));
    }

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let draw = |seed| {
            let clock = ManualClock::new(0, seed);
            [clock.random_u64(), clock.random_u64(), clock.random_u64()]
        };
        assert_eq!(draw(0), draw(0));
        assert_ne!(draw(0), draw(1));
        // The published first values of SplitMix64 for seed 0.
        assert_eq!(draw(0), [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F]);
    }

    #[test]
    fn ids_carry_time_version_and_variant_and_differ() {
        let clock = ManualClock::new(0x0123_4567_89AB, 42);
        let (first, second) = (uuid_v7(&clock), uuid_v7(&clock));
        assert_ne!(first, second);
        for id in [first, second] {
            assert_eq!(id[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB]);
            assert_eq!(id[6] >> 4, 7);
            assert_eq!(id[8] >> 6, 0b10);
        }
        clock.advance(Duration::from_millis(1));
        assert!(uuid_v7(&clock) > first.max(second));
    }

    #[test]
    fn append_time_follows_the_clock_but_not_back_nor_far_ahead() {
        let hour = AppendTime::MAX_AHEAD_MS;
        assert_eq!(AppendTime::default().next(1_000).ms(), 1_000, "the first batch");
        assert_eq!(AppendTime::of(1_000).next(2_000).ms(), 2_000, "time goes on");
        assert_eq!(AppendTime::of(2_000).next(1_000).ms(), 2_000, "the clock went back a little");
        assert_eq!(AppendTime::of(hour).next(1).ms(), hour, "just less than an hour back");
        assert_eq!(AppendTime::of(hour).next(0).ms(), 0, "a full hour back: the present counts");
        assert_eq!(AppendTime::of(i64::MAX).next(i64::MIN).ms(), i64::MIN, "no overflow");
        assert_eq!(AppendTime::of(i64::MIN).next(i64::MAX).ms(), i64::MAX, "no overflow");
    }
}
