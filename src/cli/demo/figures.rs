//! P, R and L: the three figures of a run.
//!
//! P, events published (durable) a second; R, events processed (commit acked) a second; L, from the broker's append to the
//! ack of the commit that covers the event. The broker is on this machine, so one clock measures all.

use std::time::Duration;

/// Events a second.
#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn rate(events: usize, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64().max(1e-3)
}

/// The value that `percent` of the values do not exceed.
pub(super) fn percentile(values: &[i64], percent: usize) -> i64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<i64> = (1..=100).rev().collect();
        assert_eq!(
            (percentile(&values, 50), percentile(&values, 99), percentile(&values, 100)),
            (50, 99, 100)
        );
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!(percentile(&[7], 99), 7);
    }
}
