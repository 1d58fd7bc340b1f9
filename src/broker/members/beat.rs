//! Time as sessions count it: the monotonic clock, without the pauses of this process.
//!
//! The keeper moves it, at least each [`TICK`]. If it comes later than [`LONGEST_STEP`], it was not the members who were
//! silent but this process that did not listen (it was stopped, or the machine slept): the rest of the gap does not count.

use std::time::Duration;

use crate::{
    clock::Clock,
    sync::{AtomicU64, Mutex, Ordering},
};

/// How often the keeper looks.
pub(crate) const TICK: Duration = Duration::from_millis(TICK_MS);
/// In milliseconds.
pub(crate) const TICK_MS: u64 = 100;
/// The most one look may count for.
pub(crate) const LONGEST_STEP: Duration = Duration::from_millis(500);

/// The time, in milliseconds since the start.
#[derive(Debug)]
pub(crate) struct Beat {
    ms: AtomicU64,
    /// When it was moved last, on the monotonic clock.
    moved: Mutex<Duration>,
}

impl Beat {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self { ms: AtomicU64::new(0), moved: Mutex::new(clock.monotonic()) }
    }

    pub(crate) fn now(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }

    /// Moves on, and says where it stands.
    pub(crate) fn advance(&self, clock: &dyn Clock) -> u64 {
        let mut moved = self.moved.lock();
        let now = clock.monotonic();
        let step = now.saturating_sub(*moved).min(LONGEST_STEP);
        let ms = u64::try_from(step.as_millis()).unwrap_or(0);
        // Parts of a millisecond are not lost, but those of a pause are.
        *moved = if step == LONGEST_STEP { now } else { *moved + Duration::from_millis(ms) };
        self.ms.fetch_add(ms, Ordering::Relaxed) + ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_pause_of_the_process_counts_for_one_step() {
        let clock = ManualClock::new(0, 1);
        let beat = Beat::new(&clock);
        for _ in 0..10 {
            clock.advance(Duration::from_micros(99_900));
            beat.advance(&clock);
        }
        assert_eq!(beat.now(), 999, "no part of a millisecond is lost");
        clock.advance(Duration::from_secs(60));
        assert_eq!(beat.advance(&clock), 1_499);
        clock.advance(TICK);
        assert_eq!(beat.advance(&clock), 1_599);
    }
}
