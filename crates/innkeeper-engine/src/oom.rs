//! Processes that the kernel killed because a guest had used up its memory.
//!
//! The kernel counts them for each cgroup since the guest's start. The counts are read from time to time, when a guest
//! ends, and when a command in a guest ends, whose own cgroup goes with it. Kills while no daemon runs are in the count
//! that lists show, and have no event.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use innkeeper_model::{EventKind, Explain, Guest, GuestName};
use tracing::warn;

use crate::engine::Engine;
use crate::journal::About;

/// How often the counts are read.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// The kills of each guest.
#[derive(Debug, Default)]
pub(crate) struct OomKills {
    of: Mutex<HashMap<GuestName, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// The kernel's count when it was read last. With cgroups of version 1 it becomes less when a cgroup below goes.
    last: u64,
    /// The kills since the guest's start.
    total: u64,
}

impl OomKills {
    fn of(&self) -> MutexGuard<'_, HashMap<GuestName, Count>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest has started, or is known from now on, with this count.
    pub(crate) fn begin(&self, guest: &GuestName, now: u64) {
        let count = Count {
            last: now,
            total: now,
        };
        self.of().insert(guest.clone(), count);
    }

    /// Takes note of the kernel's count and returns how many kills are new.
    fn observe(&self, guest: &GuestName, now: u64) -> u64 {
        let mut of = self.of();
        let count = of.entry(guest.clone()).or_insert(Count {
            last: now,
            total: now,
        });
        let new = now.saturating_sub(count.last);
        count.last = now;
        count.total = count.total.saturating_add(new);
        new
    }

    /// The kills since the guest's start, as far as they are known.
    pub(crate) fn total(&self, guest: &GuestName) -> u64 {
        self.of().get(guest).map_or(0, |count| count.total)
    }
}

impl Engine {
    /// Reads the counts of all guests.
    pub(crate) async fn look_for_oom_kills(&self) {
        match self.inner.store.guests().await {
            Ok(guests) => {
                for guest in guests {
                    let now = self.inner.host.units.oom_kills(&guest.name);
                    self.record_oom_kills(&guest, now);
                }
            }
            Err(error) => warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
        }
    }

    /// Records the kills that are new in the kernel's count for a guest.
    pub fn record_oom_kills(&self, guest: &Guest, now: u64) {
        let kills = self.inner.oom.observe(&guest.name, now);
        if kills == 0 {
            return;
        }
        let about = About {
            operation: None,
            guest: Some(guest.name.clone()),
        };
        let memory = guest.limits.memory;
        let event = EventKind::OomKilled { kills, memory };
        self.inner.journal.record(&about, event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_is_new_once_and_none_is_forgotten() {
        let kills = OomKills::default();
        let web = GuestName::parse("web").expect("a name");
        // Whatever was before this daemon has no event.
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 2));
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 2));
        assert_eq!((kills.observe(&web, 5), kills.total(&web)), (3, 5));
        // The cgroup of a command went with its count (version 1).
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 5));
        assert_eq!((kills.observe(&web, 3), kills.total(&web)), (1, 6));
        kills.begin(&web, 0);
        assert_eq!((kills.observe(&web, 1), kills.total(&web)), (1, 1));
    }
}
