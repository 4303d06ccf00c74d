//! The order in which guests are put to sleep when the host's memory runs short. Pure.
//!
//! The guest that has been idle the longest comes first. A guest in use is never put to sleep.

use std::cmp::Reverse;
use std::time::Duration;

use innkeeper_model::GuestName;

/// A guest with processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: GuestName,
    /// The time since its last use.
    pub(crate) idle: Duration,
    /// Its memory in bytes; 0 where that is unknown.
    pub(crate) memory: u64,
}

/// Returns the guests that may be put to sleep, the next one first: those that have been idle for `least`, the longest idle
/// first, and of several the one with the most memory.
pub(crate) fn sleep_order(candidates: &[Candidate], least: Duration) -> Vec<&Candidate> {
    let idle = |candidate: &&Candidate| candidate.idle >= least;
    let mut order: Vec<_> = candidates.iter().filter(idle).collect();
    order.sort_by_key(|candidate| {
        let sizes = (Reverse(candidate.idle), Reverse(candidate.memory));
        (sizes, &candidate.name)
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, idle: u64, memory: u64) -> Candidate {
        Candidate {
            name: GuestName::parse(name).expect("valid"),
            idle: Duration::from_secs(idle),
            memory,
        }
    }

    #[test]
    fn longest_idle_sleeps_first_and_guests_in_use_never() {
        let candidates = [
            candidate("used", 59, 900),
            candidate("small", 300, 1),
            candidate("long", 301, 1),
            candidate("large", 300, 2),
            candidate("just", 60, 1),
        ];
        let order = sleep_order(&candidates, Duration::from_secs(60));
        let names: Vec<_> = order.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["long", "large", "small", "just"]);
    }
}
