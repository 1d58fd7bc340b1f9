//! How long things took within the last minute: counts by length, in steps of at most 1/16.
//!
//! A length is in milliseconds. Up to 31 ms each has a bucket; from there each doubling has 16, up to 72 minutes. Six
//! slots of ten seconds, the running one beside them, make the minute; a slot that is over is emptied when it is
//! needed again.

/// Lengths that have buckets of their own.
const EXACT: u64 = 32;
/// Buckets of each doubling above that.
const PER_DOUBLING: u64 = 16;
/// Those of each doubling, of which there are 17.
const BUCKETS: usize = 32 + 16 * 17;
/// Seconds of a slot.
const SLOT_SECONDS: u64 = 10;
/// Slots of a minute, and the running one.
const SLOTS: u64 = 7;

/// Lengths of the last minute. Milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Median: at most 1/16 too high.
    pub p50_ms: f64,
    /// 95 of 100 were no longer.
    pub p95_ms: f64,
    /// 99 of 100 were no longer.
    pub p99_ms: f64,
}

#[derive(Clone, Debug)]
struct Slot {
    /// Which ten seconds.
    number: u64,
    sum: u64,
    counts: [u32; BUCKETS],
}

/// A histogram of the last minute. Costs a word until something is measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    slots: Vec<Slot>,
}

impl Window {
    /// Something took so long, `weight` times.
    pub(crate) fn record(&mut self, second: u64, ms: u64, weight: u64) {
        let number = second / SLOT_SECONDS;
        let slot = self.slot(number);
        slot.sum = slot.sum.saturating_add(ms.saturating_mul(weight));
        if let Some(count) = slot.counts.get_mut(bucket(ms)) {
            *count = count.saturating_add(u32::try_from(weight).unwrap_or(u32::MAX));
        }
    }

    fn slot(&mut self, number: u64) -> &mut Slot {
        let known = self.slots.iter().position(|slot| slot.number == number);
        let at = known.unwrap_or_else(|| {
            let fresh = Slot { number, sum: 0, counts: [0; BUCKETS] };
            let old = self.slots.iter().position(|slot| slot.number + SLOTS <= number);
            let at = old.unwrap_or(self.slots.len());
            match self.slots.get_mut(at) {
                Some(slot) => *slot = fresh,
                None => self.slots.push(fresh),
            }
            at
        });
        self.slots.get_mut(at).expect("found or pushed just now")
    }

    /// Of the last minute, the running ten seconds included.
    pub(crate) fn latency(&self, second: u64) -> Latency {
        let oldest = (second / SLOT_SECONDS).saturating_sub(SLOTS - 1);
        let slots = || self.slots.iter().filter(|slot| slot.number >= oldest);
        let mut counts = [0_u64; BUCKETS];
        for slot in slots() {
            for (sum, count) in counts.iter_mut().zip(&slot.counts) {
                *sum += u64::from(*count);
            }
        }
        let count: u64 = counts.iter().sum();
        if count == 0 {
            return Latency::default();
        }
        let sum: u64 = slots().map(|slot| slot.sum).sum();
        let quantile = |of_100: u64| {
            let rank = (count * of_100).div_ceil(100).max(1);
            let mut before = 0;
            let found = counts.iter().position(|count| {
                before += count;
                before >= rank
            });
            longest(found.unwrap_or(BUCKETS - 1))
        };
        Latency {
            count,
            mean_ms: real(sum) / real(count),
            p50_ms: quantile(50),
            p95_ms: quantile(95),
            p99_ms: quantile(99),
        }
    }
}

fn bucket(ms: u64) -> usize {
    if ms < EXACT {
        return usize::try_from(ms).unwrap_or(0);
    }
    let doubling = u64::from(ms.ilog2()) - u64::from(EXACT.ilog2());
    let within = (ms >> (doubling + 1)) - PER_DOUBLING;
    let index = EXACT + doubling * PER_DOUBLING + within;
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The longest of a bucket, milliseconds.
fn longest(bucket: usize) -> f64 {
    let index = bucket as u64;
    if index < EXACT {
        return real(index);
    }
    let (doubling, within) = ((index - EXACT) / PER_DOUBLING, (index - EXACT) % PER_DOUBLING);
    real(((PER_DOUBLING + within + 1) << (doubling + 1)) - 1)
}

#[expect(clippy::cast_precision_loss, reason = "counts and milliseconds stay far below 2^53")]
fn real(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "whole numbers, divided once")]
    use super::*;

    #[test]
    fn every_length_lies_in_its_bucket_and_none_is_wide() {
        let mut before = 0;
        for ms in (0..5000).chain((5000..1 << 22).step_by(997)) {
            let at = bucket(ms);
            assert!(at >= before, "{ms}");
            before = at;
            let longest = longest(at);
            assert!(longest >= real(ms) && longest <= real(ms) * 17.0 / 16.0, "{ms} in {longest}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_measured() {
        let mut window = Window::default();
        assert_eq!(window.latency(5), Latency::default());
        for ms in 0..100 {
            window.record(5, ms, 10);
        }
        let latency = window.latency(5);
        assert_eq!((latency.count, latency.mean_ms), (1000, 49.5));
        for (found, exact) in [(latency.p50_ms, 49.0), (latency.p95_ms, 94.0), (latency.p99_ms, 98.0)] {
            assert!(found >= exact && found <= exact * 17.0 / 16.0, "{found} for {exact}");
        }
    }

    #[test]
    fn a_minute_later_it_is_forgotten() {
        let mut window = Window::default();
        for second in 0..600 {
            window.record(second, second, 1);
        }
        let latency = window.latency(599);
        assert_eq!(latency.count, 70, "six slots and the running one");
        assert_eq!(window.slots.len(), 7);
        assert_eq!(window.latency(700).count, 0);
    }
}
