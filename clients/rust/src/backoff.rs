//! How long to wait before trying again.

use std::time::Duration;

use crate::{clock, error::Error};

/// How often, and how patiently, what is safe to repeat is repeated.
///
/// The wait doubles from `first` to `longest`, and a random part of it is taken off, up to a half, so that many clients do
/// not come back at once. A server that says how long to wait is obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Tries in all, the first included; 1 = never again.
    pub attempts: u32,
    /// Wait before the second try.
    pub first: Duration,
    /// Longest wait, unless the server asks for more.
    pub longest: Duration,
}

impl Backoff {
    /// No second try.
    pub const NEVER: Self = Self { attempts: 1, first: Duration::ZERO, longest: Duration::ZERO };

    /// The wait before try number `attempt + 1`, after `attempt` have failed with `error`; `None` = give up.
    pub(crate) fn wait(&self, attempt: u32, error: &Error) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let wait = doubled.min(self.longest);
        let taken_off = wait.mul_f64(clock::random_fraction() / 2.0);
        Some(wait.saturating_sub(taken_off).max(error.retry_after().unwrap_or_default()))
    }
}

impl Default for Backoff {
    /// Five tries within about three seconds.
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_millis(100), longest: Duration::from_secs(2) }
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn waits_double_within_their_bounds_and_end() {
        let backoff = Backoff::default();
        let error = Error::from(Status::unavailable("gone"));
        for (attempt, most) in [(1, 100), (2, 200), (3, 400), (4, 800)] {
            let wait = backoff.wait(attempt, &error).unwrap();
            assert!(
                wait <= Duration::from_millis(most) && wait * 2 >= Duration::from_millis(most),
                "{wait:?}"
            );
        }
        assert_eq!(backoff.wait(5, &error), None);
        assert!(Backoff { attempts: 99, ..backoff }.wait(90, &error).unwrap() <= Duration::from_secs(2));
        assert_eq!(Backoff::NEVER.wait(1, &error), None);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(7)));
        let error = Error::from(Status::with_error_details(Code::ResourceExhausted, "slow down", details));
        assert_eq!(Backoff::default().wait(1, &error), Some(Duration::from_secs(7)));
    }
}
