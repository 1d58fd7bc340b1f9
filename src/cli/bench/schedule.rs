//! When things are meant to happen, and how late they were.
//!
//! Load is *open-loop*: the times at which records are sent are fixed before the first one is, and a latency counts from the time
//! that was meant. A server that stands still for a second so makes every record of that second late, as it would be to
//! whoever needed it; a loop that waits for each answer before it asks again would count one slow answer and leave the
//! others out ("coordinated omission").

use std::{ops::ControlFlow, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    clock::Clock,
    sync::{Arc, Mutex},
};

/// Evenly spaced times, shared out over lanes: lane `l` of `n` takes every `n`th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// When the first is meant.
    pub(super) start: Duration,
    /// Of all lanes together, per second; not 0.
    pub(super) rate: u64,
    /// This lane.
    pub(super) lane: u64,
    /// Of so many; not 0.
    pub(super) lanes: u64,
}

impl Schedule {
    /// When this lane's record number `n` is meant.
    pub(super) fn at(&self, n: u64) -> Duration {
        let nth = u128::from(n) * u128::from(self.lanes) + u128::from(self.lane);
        let ns = nth * 1_000_000_000 / u128::from(self.rate.max(1));
        self.start.saturating_add(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)))
    }
}

/// Calls `send` at the times of a schedule that lie before `until`; late, but never out, if `send` has taken too long.
pub(super) fn pace(
    clock: &dyn Clock,
    schedule: Schedule,
    until: Duration,
    mut sleep: impl FnMut(Duration),
    mut send: impl FnMut(Duration) -> ControlFlow<()>,
) {
    for n in 0.. {
        let intended = schedule.at(n);
        if intended >= until {
            return;
        }
        let early = intended.saturating_sub(clock.monotonic());
        if !early.is_zero() {
            sleep(early);
        }
        if send(intended).is_break() {
            return;
        }
    }
}

/// How late things were, in nanoseconds, to three digits. Takes 300 KiB, however many there are.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    histogram: Histogram<u64>,
}

/// Recorded by several at once.
pub(super) type Shared = Arc<Mutex<Latencies>>;

/// The longest that is told apart.
const LONGEST: u64 = 3_600_000_000_000;

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Self { histogram: histogram.expect("the bounds are in order and three digits are allowed") }
    }

    /// None yet, for several to record.
    pub(super) fn shared() -> Shared {
        Arc::new(Mutex::new(Self::new()))
    }

    /// Something was meant to happen at one time and was done at another.
    pub(super) fn record(&mut self, intended: Duration, done: Duration) {
        let ns = done.saturating_sub(intended).as_nanos();
        self.histogram.saturating_record(u64::try_from(ns).unwrap_or(LONGEST));
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.histogram.len()
    }

    /// So many in a hundred were not later than this.
    pub(super) fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_percentile(percent))
    }

    /// The latest of all.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.histogram.max())
    }

    /// For a file.
    pub(super) fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const START: Duration = Duration::from_secs(7);

    #[test]
    fn lanes_share_out_even_times_without_drift() {
        let lane = |lane| Schedule { start: START, rate: 3, lane, lanes: 2 };
        let times: Vec<u128> = (0..3)
            .flat_map(|n| [lane(0).at(n), lane(1).at(n)])
            .map(|at| at.saturating_sub(START).as_nanos())
            .collect();
        assert_eq!(times, [0, 333_333_333, 666_666_666, 1_000_000_000, 1_333_333_333, 1_666_666_666]);
        // Rounding does not add up.
        assert_eq!(lane(0).at(3_000_000), START + Duration::from_secs(2_000_000));
    }

    /// A server that answers in 100 us, but stands still for half a second once.
    struct Stalling<'a> {
        clock: &'a ManualClock,
        answered: u64,
    }

    impl Stalling<'_> {
        fn answer(&mut self) {
            self.answered += 1;
            let stall = if self.answered == 1000 { 500_000 } else { 0 };
            self.clock.advance(Duration::from_micros(100 + stall));
        }
    }

    #[test]
    fn a_stall_of_the_server_shows_in_every_record_it_made_wait() {
        let clock = ManualClock::new(0, 1);
        let schedule = Schedule { start: Duration::ZERO, rate: 1000, lane: 0, lanes: 1 };
        let mut server = Stalling { clock: &clock, answered: 0 };
        let (mut meant, mut naive) = (Latencies::new(), Latencies::new());
        let sleep = |time| clock.advance(time);
        pace(&clock, schedule, Duration::from_secs(10), sleep, |intended| {
            let sent = clock.monotonic();
            server.answer();
            let done = clock.monotonic();
            meant.record(intended, done);
            naive.record(sent, done);
            ControlFlow::Continue(())
        });
        // Nothing was left out while the server stood still.
        assert_eq!((meant.len(), naive.len()), (10_000, 10_000));
        // From the time of sending one record in 10,000 was slow: no percentile but the last shows it.
        assert!(naive.percentile(99.9) < Duration::from_millis(1), "{:?}", naive.percentile(99.9));
        // The stall made about 550 records of 10,000 late, by up to half a second.
        assert!(meant.percentile(94.0) < Duration::from_millis(1), "{:?}", meant.percentile(94.0));
        assert!(meant.percentile(99.0) > Duration::from_millis(350), "{:?}", meant.percentile(99.0));
        assert!(meant.max() >= Duration::from_millis(500), "{:?}", meant.max());
    }

    #[test]
    fn whoever_sends_may_stop_the_pace() {
        let clock = ManualClock::new(0, 1);
        let schedule = Schedule { start: Duration::ZERO, rate: 10, lane: 0, lanes: 1 };
        let mut sent = 0;
        pace(
            &clock,
            schedule,
            Duration::from_secs(60),
            |time| clock.advance(time),
            |_| {
                sent += 1;
                if sent == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!((sent, clock.monotonic()), (3, Duration::from_millis(200)));
    }

    #[test]
    fn no_latency_is_too_short_or_too_long_to_be_counted() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(5), Duration::from_secs(4));
        latencies.record(Duration::ZERO, Duration::MAX);
        assert_eq!((latencies.len(), latencies.percentile(50.0)), (2, Duration::ZERO));
        assert!(latencies.max() >= Duration::from_secs(3600));
    }
}
