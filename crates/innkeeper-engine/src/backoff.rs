//! How long to wait before a guest that keeps ending is started again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use innkeeper_model::GuestName;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A guest that was left in peace for this long starts with a clean slate.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);

/// Failed attempts by guest. Kept in memory: after a restart of the daemon every guest gets a fresh try.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: Mutex<HashMap<GuestName, (u32, Instant)>>,
}

impl Backoff {
    /// Counts one more failure and says how long to wait: 1 s, then twice as long each time, at most 60 s.
    pub(crate) fn failed(&self, guest: &GuestName) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|_, (_, last)| last.elapsed() < FORGIVEN_AFTER);
        let (count, last) = attempts.entry(guest.clone()).or_insert((0, Instant::now()));
        let wait = FIRST.saturating_mul(1 << (*count).min(6)).min(LONGEST);
        *count += 1;
        *last = Instant::now();
        wait
    }

    /// The guest is as wanted, or gone.
    pub(crate) fn forgive(&self, guest: &GuestName) {
        self.attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(guest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_start_anew_after_success() {
        let guest = GuestName::parse("web").expect("valid");
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|_| backoff.failed(&guest).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.forgive(&guest);
        assert_eq!(backoff.failed(&guest), FIRST);
    }
}
