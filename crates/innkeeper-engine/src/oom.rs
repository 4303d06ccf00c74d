//! Counts of processes that the kernel killed because a guest exceeded its memory limit.
//!
//! The kernel counts OOM kills for each cgroup since the guest's start. The daemon reads the counts periodically, when a
//! guest ends, and when a command in a guest ends, because the command's cgroup is removed with it. Lists include kills
//! from a time without a daemon; events do not.

use std::collections::HashMap;
use std::time::Duration;

use innkeeper_model::GuestName;
use parking_lot::Mutex;

/// Interval between two reads of the counts.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// OOM kills by guest.
#[derive(Debug, Default)]
pub(crate) struct OomKills {
    counts: Mutex<HashMap<GuestName, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// The kernel's count at the last read. In cgroups version 1 it drops when a child cgroup is removed.
    last: u64,
    /// Kills since the guest's start.
    total: u64,
}

impl OomKills {
    /// Resets the counts of a guest that has just started.
    pub(crate) fn begin(&self, guest: &GuestName, count: u64) {
        let count = Count {
            last: count,
            total: count,
        };
        self.counts.lock().insert(guest.clone(), count);
    }

    /// Records the kernel's count and returns the number of new kills.
    pub(crate) fn observe(&self, guest: &GuestName, count: u64) -> u64 {
        let mut counts = self.counts.lock();
        let known = counts.entry(guest.clone()).or_insert(Count {
            last: count,
            total: count,
        });
        let new = count.saturating_sub(known.last);
        known.last = count;
        known.total = known.total.saturating_add(new);
        new
    }

    /// Returns the known kills since the guest's start.
    pub(crate) fn total(&self, guest: &GuestName) -> u64 {
        self.counts.lock().get(guest).map_or(0, |count| count.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_counts_once() {
        let kills = OomKills::default();
        let web = GuestName::parse("web").expect("a name");
        // Kills before the daemon's first read have no event.
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 2));
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 2));
        assert_eq!((kills.observe(&web, 5), kills.total(&web)), (3, 5));
        // A command's cgroup was removed, and its count with it (version 1).
        assert_eq!((kills.observe(&web, 2), kills.total(&web)), (0, 5));
        assert_eq!((kills.observe(&web, 3), kills.total(&web)), (1, 6));
        kills.begin(&web, 0);
        assert_eq!((kills.observe(&web, 1), kills.total(&web)), (1, 1));
    }
}
