//! Delays before a failed guest is started again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use innkeeper_model::{Backoff, GuestName};
use parking_lot::Mutex;

const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// A guest without a failure for this long starts with the shortest delay again.
const RESET_AFTER: Duration = Duration::from_secs(300);

/// Consecutive failures by guest. In memory only: after a restart of the daemon every guest starts with the shortest
/// delay.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    failures: Mutex<HashMap<GuestName, (u32, Instant)>>,
}

impl Failures {
    /// Counts one more failure and returns the delay before the next attempt.
    pub(crate) fn record(&self, guest: &GuestName) -> Duration {
        let mut failures = self.failures.lock();
        failures.retain(|_, (_, last)| last.elapsed() < RESET_AFTER);
        let (count, last) = failures.entry(guest.clone()).or_insert((0, Instant::now()));
        *count += 1;
        *last = Instant::now();
        BACKOFF.delay(*count)
    }

    /// Resets the count of a guest that has its desired state or was removed.
    pub(crate) fn reset(&self, guest: &GuestName) {
        self.failures.lock().remove(guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_until_a_success() {
        let guest = GuestName::parse("web").expect("valid");
        let failures = Failures::default();
        let delays: Vec<u64> = (0..3).map(|_| failures.record(&guest).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4]);
        failures.reset(&guest);
        assert_eq!(failures.record(&guest), Duration::from_secs(1));
    }
}
