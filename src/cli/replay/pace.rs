//! `--speed`: records come as far apart as they once did, or so many times closer. Pure: the clock is an argument.

use std::{str::FromStr, time::Duration};

/// How many times faster than it once was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Speed(f64);

/// Larger speeds are no speeds.
const FASTEST: f64 = 1e6;

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no speed such as 1x, 10x or 0.5x");
        let times: f64 = text.strip_suffix('x').ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        if times > 0.0 && times <= FASTEST { Ok(Self(times)) } else { Err(wrong()) }
    }
}

/// When each record is due.
#[derive(Debug)]
pub(super) struct Pace {
    speed: Speed,
    /// Time of the first record, milliseconds since 1970, and when it came, on the monotonic clock.
    began: Option<(i64, Duration)>,
}

impl Pace {
    pub(super) fn new(speed: Speed) -> Self {
        Self { speed, began: None }
    }

    /// How long a record of this time has still to wait. The first one goes at once, and so does one that is older.
    pub(super) fn wait(&mut self, timestamp_ms: i64, now: Duration) -> Duration {
        let (first_ms, began) = *self.began.get_or_insert((timestamp_ms, now));
        let since = u64::try_from(timestamp_ms.saturating_sub(first_ms)).unwrap_or(0);
        let due = began.saturating_add(scaled(since, self.speed));
        due.saturating_sub(now)
    }
}

#[allow(clippy::cast_precision_loss, reason = "to the millisecond for 285,000 years")]
fn scaled(ms: u64, speed: Speed) -> Duration {
    Duration::try_from_secs_f64(ms as f64 / 1000.0 / speed.0).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_or_refused() {
        assert_eq!("1x".parse(), Ok(Speed(1.0)));
        assert_eq!("0.5x".parse(), Ok(Speed(0.5)));
        assert_eq!("1000000x".parse(), Ok(Speed(1e6)));
        for text in ["", "x", "1", "0x", "-1x", "NaNx", "infx", "1000001x", "1 x"] {
            assert!(text.parse::<Speed>().is_err(), "{text}");
        }
    }

    #[test]
    fn records_keep_their_distance() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(Speed(10.0));
        assert_eq!(pace.wait(5_000, ms(100)), ms(0));
        assert_eq!(pace.wait(7_000, ms(100)), ms(200));
        assert_eq!(pace.wait(7_000, ms(250)), ms(50));
        assert_eq!(pace.wait(7_000, ms(400)), ms(0), "late ones go at once");
        assert_eq!(pace.wait(1_000, ms(400)), ms(0), "and so do those that are older than the first");
        assert_eq!(pace.wait(15_000, ms(400)), ms(700), "one that was late does not delay the next");
        assert!(pace.wait(i64::MAX, ms(400)) > Duration::from_secs(1 << 40));
    }
}
