//! The daemon's clock, as seen from another machine.

use std::sync::atomic::{AtomicI64, Ordering};

use hyper::header::{self, HeaderMap};
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};

/// Difference between the daemon's clock and this machine's, from the latest response.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Notes the time in a response. It has whole seconds only.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        let date = headers
            .get(header::DATE)
            .and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        if let Some(date) = date {
            let ahead = date.as_millisecond() - Timestamp::now().as_millisecond();
            self.ahead_ms.store(ahead, Ordering::Relaxed);
        }
    }

    /// Returns the time of the daemon's clock at a time of this machine's clock, at most some seconds early and never late.
    pub(crate) fn daemon_time(&self, time: Timestamp) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead_ms.load(Ordering::Relaxed));
        let slack = SignedDuration::from_secs(1);
        time.checked_add(ahead)
            .and_then(|time| time.checked_sub(slack))
            .unwrap_or(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_follows_the_date_of_responses() {
        let clock = Clock::default();
        let mut headers = HeaderMap::new();
        let date = "Tue, 01 Dec 2099 00:00:00 GMT";
        headers.insert(header::DATE, date.parse().expect("a value"));
        clock.note(&headers);
        let found = clock.daemon_time(Timestamp::now());
        let expected: Timestamp = "2099-12-01T00:00:00Z".parse().expect("a time");
        let early = expected.duration_since(found).as_millis();
        assert!((0..60_000).contains(&early), "{found}");
        headers.insert(header::DATE, "yesterday".parse().expect("a value"));
        clock.note(&headers);
    }
}
