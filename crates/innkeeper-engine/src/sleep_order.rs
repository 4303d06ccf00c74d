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
    /// Its memory in bytes. `None` where that cannot be read.
    pub(crate) memory: Option<u64>,
}

impl Candidate {
    /// Reports whether its memory is worth being freed.
    pub(crate) fn is_worthwhile(&self) -> bool {
        self.memory.is_none_or(|bytes| bytes >= WORTHWHILE)
    }
}

/// The memory from which a guest is worth being put to sleep or reclaimed, in bytes. A guest with less loses its processes for
/// nothing.
pub(crate) const WORTHWHILE: u64 = 8 << 20;

/// Returns the guests that may be put to sleep, the next one first: those that have been idle for `least`, the longest idle
/// first, and of several the one with the most memory. Guests with little memory come last.
pub(crate) fn sleep_order(candidates: &[Candidate], least: Duration) -> Vec<&Candidate> {
    let idle = |candidate: &&Candidate| candidate.idle >= least;
    let mut order: Vec<_> = candidates.iter().filter(idle).collect();
    order.sort_by_key(|candidate| {
        let is_small = !candidate.is_worthwhile();
        let sizes = (Reverse(candidate.idle), Reverse(candidate.memory));
        (is_small, sizes, &candidate.name)
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
            memory: Some(memory << 20),
        }
    }

    #[test]
    fn longest_idle_sleeps_first_and_guests_in_use_never() {
        let candidates = [
            candidate("used", 59, 900),
            candidate("small", 300, 10),
            candidate("long", 301, 10),
            candidate("large", 300, 20),
            candidate("just", 60, 10),
            candidate("tiny", 900, 7),
        ];
        let order = sleep_order(&candidates, Duration::from_secs(60));
        let names: Vec<_> = order.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["long", "large", "small", "just", "tiny"]);
    }
}
