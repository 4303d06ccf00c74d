//! Rate limit for log lines that strangers can cause.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The minimum interval between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts events since the last log line.
#[derive(Debug, Default)]
pub struct LogThrottle {
    state: Mutex<(Option<Instant>, u64)>,
}

impl LogThrottle {
    /// Counts an event. Returns the number of events since the last line, including this one, if a line may be logged
    /// now.
    #[must_use]
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
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
    fn a_flood_is_logged_every_ten_seconds() {
        let throttle = LogThrottle::default();
        let start = Instant::now();
        let at = |seconds| throttle.count(start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(1), at(9), at(10), at(11)],
            [Some(1), None, None, Some(3), None]
        );
    }
}
