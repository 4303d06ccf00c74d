//! Failed wakes on demand, and the delays that follow from them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use innkeeper_model::{Backoff, Failure, GuestName};
use parking_lot::Mutex;

use crate::keyed_locks::KeyedLocks;

/// The delays before a guest that did not wake is woken on demand again.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(600));

/// Failed wakes on demand. In memory only: after a restart of the daemon, every guest is tried at the next demand.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    /// Held during a wake, so that concurrent demands share it.
    pub(crate) locks: KeyedLocks<GuestName>,
    failures: Mutex<HashMap<GuestName, Failed>>,
}

#[derive(Clone, Debug)]
struct Failed {
    failure: Failure,
    count: u32,
    retry_at: Instant,
}

impl Demands {
    /// Counts one more failure.
    pub(crate) fn record(&self, guest: &GuestName, failure: Failure) {
        let mut failures = self.failures.lock();
        let count = failures
            .get(guest)
            .map_or(1, |failed| failed.count.saturating_add(1));
        let retry_at = Instant::now() + BACKOFF.delay(count);
        let failed = Failed {
            failure,
            count,
            retry_at,
        };
        failures.insert(guest.clone(), failed);
    }

    /// Forgets the failures of a guest with which an operation succeeded.
    pub(crate) fn reset(&self, guest: &GuestName) {
        self.failures.lock().remove(guest);
    }

    /// Returns the failure of a guest that is not to be woken yet, and the time until it may be.
    pub(crate) fn refusal(&self, guest: &GuestName) -> Option<(Failure, Duration)> {
        let failures = self.failures.lock();
        let failed = failures.get(guest)?;
        let left = failed.retry_at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| (failed.failure.clone(), left))
    }
}

#[cfg(test)]
mod tests {
    use innkeeper_model::Code;

    use super::*;

    #[test]
    fn failed_guest_is_refused_until_a_success() {
        let web = GuestName::parse("web").expect("a name");
        let demands = Demands::default();
        assert_eq!(demands.refusal(&web), None);
        for limit in [30, 60, 120] {
            demands.record(&web, Failure::new(Code::RootfsFailed, "full".to_owned()));
            let (failure, left) = demands.refusal(&web).expect("refused");
            assert_eq!(failure.message, "full");
            assert!(left <= Duration::from_secs(limit) && left > Duration::from_secs(limit / 2));
        }
        demands.reset(&web);
        assert_eq!(demands.refusal(&web), None);
    }
}
