//! A counter, and what it did in the last second, minute and quarter of an hour.
//!
//! The count is the truth; rates are views of it. What is kept is the count as it stood at the end of each of the last 60
//! seconds and 15 minutes, so a rate is a difference of two counts over the time between them, and never an average of
//! averages. Seconds are those of the monotonic clock, numbered from 1. A window that began before the counter did is cut to what was
//! counted: a restart shows as a shorter window, not as a lower rate.

/// Seconds that are kept one by one.
const SECONDS: usize = 60;
/// Minutes that are kept one by one.
const MINUTES: usize = 15;
/// Second and minute slots: one more than differences are taken over.
const SECOND_SLOTS: u64 = SECONDS as u64 + 1;
const MINUTE_SLOTS: u64 = MINUTES as u64 + 1;

/// A count and its rates, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Since the broker started.
    pub total: u64,
    /// Over the last whole second.
    pub per_second_1s: f64,
    /// Over the last minute.
    pub per_second_1m: f64,
    /// Over the last 15 minutes, from the beginning of a minute.
    pub per_second_15m: f64,
}

/// What the count was when each second and minute ended.
#[derive(Clone, Debug)]
struct Ring {
    /// Seconds before this one have ended.
    second: u64,
    seconds: [u64; SECONDS + 1],
    minutes: [u64; MINUTES + 1],
}

/// A counter that remembers. Costs a word until it is first counted with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    total: u64,
    /// Second in which counting began.
    began: u64,
    ring: Option<Box<Ring>>,
}

impl Series {
    /// A counter of which nothing was counted before `second`.
    pub(crate) fn from(second: u64) -> Self {
        Self { began: second, ..Self::default() }
    }

    /// Since the broker started.
    #[cfg(test)]
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Counts `more` in this second.
    pub(crate) fn add(&mut self, second: u64, more: u64) {
        if more == 0 {
            return;
        }
        self.advance(second);
        self.total = self.total.saturating_add(more);
    }

    /// Ends the seconds before this one.
    fn advance(&mut self, second: u64) {
        let total = self.total;
        let ring = self.ring.get_or_insert_with(|| {
            let seconds = [total; SECONDS + 1];
            Box::new(Ring { second, seconds, minutes: [total; MINUTES + 1] })
        });
        let first = ring.second.max(second.saturating_sub(SECOND_SLOTS));
        for ended in first..second {
            set(&mut ring.seconds, ended % SECOND_SLOTS, total);
        }
        let minute = second / 60;
        for ended in (ring.second / 60).max(minute.saturating_sub(MINUTE_SLOTS))..minute {
            set(&mut ring.minutes, ended % MINUTE_SLOTS, total);
        }
        ring.second = ring.second.max(second);
    }

    /// The count, and how fast it rose until the beginning of this second.
    pub(crate) fn rate(&mut self, second: u64) -> Rate {
        if self.ring.is_none() {
            return Rate { total: self.total, ..Rate::default() };
        }
        self.advance(second);
        let Some(ring) = &self.ring else { return Rate::default() };
        // The count as it stood when a second, or a minute, ended.
        let at = |ended: u64| get(&ring.seconds, ended % SECOND_SLOTS);
        let Some(last) = second.checked_sub(1) else { return Rate { total: self.total, ..Rate::default() } };
        let over = |from: u64, count: u64| per_second(at(last).saturating_sub(count), last - from);
        let window = |length: u64| {
            let from = last.saturating_sub(length).max(self.began.saturating_sub(1)).min(last);
            over(from, at(from))
        };
        let long_from = (second / 60).saturating_sub(MINUTES as u64).checked_sub(1);
        let quarter = match long_from.map(|minute| (minute, minute * 60 + 59)) {
            // All of it is younger than the window.
            Some((minute, ended)) if ended + 1 >= self.began => {
                over(ended, get(&ring.minutes, minute % MINUTE_SLOTS))
            }
            _ => per_second(at(last), (last + 1).saturating_sub(self.began)),
        };
        Rate {
            total: self.total,
            per_second_1s: window(1),
            per_second_1m: window(SECONDS as u64),
            per_second_15m: quarter,
        }
    }
}

fn set(slots: &mut [u64], index: u64, value: u64) {
    if let Some(slot) = usize::try_from(index).ok().and_then(|index| slots.get_mut(index)) {
        *slot = value;
    }
}

fn get(slots: &[u64], index: u64) -> u64 {
    usize::try_from(index).ok().and_then(|index| slots.get(index)).copied().unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^53 a second may be off by one")]
fn per_second(count: u64, seconds: u64) -> f64 {
    if seconds == 0 { 0.0 } else { count as f64 / seconds as f64 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "whole numbers, divided once")]
    use super::*;

    fn rate(series: &mut Series, second: u64) -> [f64; 3] {
        let rate = series.rate(second);
        [rate.per_second_1s, rate.per_second_1m, rate.per_second_15m]
    }

    #[test]
    fn a_steady_count_has_the_same_rate_in_every_window() {
        let mut series = Series::from(100);
        for second in 100..2000 {
            series.add(second, 7);
            if second > 101 {
                assert_eq!(rate(&mut series, second), [7.0; 3], "in second {second}");
            }
        }
        assert_eq!(series.total(), 7 * 1900);
    }

    #[test]
    fn windows_forget_at_their_own_pace() {
        let mut series = Series::from(1);
        series.add(1, 600);
        assert_eq!(rate(&mut series, 1), [0.0; 3], "the second is not over");
        assert_eq!(rate(&mut series, 2), [600.0, 600.0, 600.0]);
        assert_eq!(rate(&mut series, 3), [0.0, 300.0, 300.0]);
        assert_eq!(rate(&mut series, 61), [0.0, 10.0, 10.0]);
        assert_eq!(rate(&mut series, 62), [0.0, 0.0, 600.0 / 61.0]);
        let quarter = rate(&mut series, 901)[2];
        assert!((quarter - 600.0 / 900.0).abs() < 1e-9, "{quarter}");
        assert_eq!(rate(&mut series, 2000), [0.0; 3]);
    }

    #[test]
    fn a_pause_is_counted_as_one() {
        let mut series = Series::from(1);
        series.add(1, 60);
        series.add(31, 60);
        assert_eq!(rate(&mut series, 32), [60.0, 120.0 / 31.0, 120.0 / 31.0]);
        series.add(5000, 1);
        assert_eq!(rate(&mut series, 5001), [1.0, 1.0 / 60.0, 1.0 / 921.0]);
    }

    /// Against the plain way: every count with its second, summed over the window.
    #[test]
    fn is_the_sum_over_its_window() {
        let (mut series, mut all, mut seed) = (Series::from(10), Vec::new(), 1_u64);
        let mut second = 10;
        for _ in 0..3000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            second += (seed >> 40) % 4 * u64::from(seed >> 60 == 3) + (seed >> 50) % 2;
            let more = (seed >> 33) % 100;
            series.add(second, more);
            all.push((second, more));
            let sum = |from: u64| {
                all.iter().filter(|(at, _)| *at >= from && *at < second).map(|(_, more)| more).sum::<u64>()
            };
            let (minute_ago, quarter_ago) =
                (second.saturating_sub(60), (second / 60).saturating_sub(15) * 60);
            let plain = |from: u64| {
                let from = from.max(10);
                per_second(sum(from), second - from)
            };
            let [last, minute, quarter] = rate(&mut series, second);
            assert_eq!(last, plain(second - 1).max(0.0), "second {second}");
            assert_eq!(minute, plain(minute_ago), "second {second}");
            assert!((quarter - plain(quarter_ago)).abs() < 1e-9, "second {second}: {quarter}");
        }
    }
}
