//! Complaints that strangers can cause, written to the log no more than now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long after a line the next one may be written.
const PAUSE: Duration = Duration::from_secs(10);

/// Counts what happened since the last line.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    state: Mutex<(Option<Instant>, u64)>,
}

impl Throttle {
    /// It happened once more at this time. If a line may be written now: how often it happened since the
    /// last one, this time included.
    pub(crate) fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| now.duration_since(last) < PAUSE) {
            return None;
        }
        *last = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_line_every_ten_seconds() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |seconds| throttle.count(start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(1), at(9), at(10), at(11)],
            [Some(1), None, None, Some(3), None]
        );
    }
}
