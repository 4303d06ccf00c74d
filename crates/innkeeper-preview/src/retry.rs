//! Delays before retries, and the outcome of a delivery that failed.

use std::time::Duration;

use innkeeper_model::{Backoff, Code, Explain as _, Failure};
use innkeeper_store::{DeliveryOutcome, retry_after};
use jiff::Timestamp;

use crate::PreviewError;

/// Returns how a delivery ends after a failure. `attempts` is the number of failures before this one.
pub(crate) fn outcome(error: &PreviewError, attempts: u32) -> DeliveryOutcome {
    let failure = Failure::from(error);
    if error.may_pass(attempts) {
        DeliveryOutcome::Retry {
            failure,
            after: retry_delay(error, attempts + 1),
        }
    } else {
        DeliveryOutcome::Failed(failure)
    }
}

/// Delays while the host has no access to a repository: GitHub's API lags by seconds, and an administrator acts within
/// hours.
const NO_ACCESS: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(3600));

/// Returns the delay before the next attempt: that of the backoff, or longer if GitHub's rate limit requires it.
pub(crate) fn retry_delay(error: &PreviewError, attempts: u32) -> Duration {
    if error.code() == Code::NoAccess {
        return NO_ACCESS.delay(attempts);
    }
    let required = error.retry_at().map(|time| {
        let wait = time.duration_since(Timestamp::now());
        Duration::try_from(wait).unwrap_or_default()
    });
    retry_after(attempts).max(required.unwrap_or_default())
}

/// Returns the delay before a settled preview that could not be restored so many times is checked again: 15 s at first,
/// since its dependencies may come up with the host later, or `interval` if that is less; then twice as long each time,
/// at most an hour.
pub(crate) fn recheck_delay(interval: Duration, attempts: u32) -> Duration {
    let first = interval.min(Duration::from_secs(15));
    Backoff::new(first, Duration::from_secs(3600)).delay(attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recheck_delay_doubles_up_to_an_hour() {
        let seconds = |attempts| recheck_delay(Duration::from_secs(300), attempts).as_secs();
        let delays: Vec<_> = (1..11).map(seconds).collect();
        assert_eq!(delays, [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(seconds(u32::MAX), 3600);
        let often = Duration::from_secs(1);
        assert_eq!(recheck_delay(often, 2), 2 * often);
    }
}
