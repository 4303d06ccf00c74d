//! Rate limits (GitHub, "Rate limits for the REST API" and "Best practices for using the REST API").

use std::time::{Duration, Instant};

use hyper::{StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::call::ApiResponse;
use super::clock;

/// Wait after a secondary limit without a specified one: "at least one minute".
const DEFAULT_WAIT: Duration = Duration::from_secs(60);
/// Maximum wait. Limits are per hour; more would be an error.
const MAX_WAIT: Duration = Duration::from_secs(2 * 3600);
/// Added to a reset, because resets are in whole seconds and clocks differ by fractions of them.
const MARGIN: Duration = Duration::from_secs(1);

/// Delays requests until GitHub's rate limit resets. One for each client: limits are per credential.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    blocked_until: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// Returns the time until requests are allowed. `None` if they are allowed now.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = *self.blocked_until.lock();
        until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero())
    }

    /// Blocks requests for a time. Never shortens an earlier block.
    pub(crate) fn block(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut blocked_until = self.blocked_until.lock();
        *blocked_until = Some(blocked_until.map_or(until, |former| former.max(until)));
    }
}

/// Number of requests that may write without a pause.
const BURST: u32 = 40;
/// Interval between further requests that write. GitHub allows 80 in a minute and 500 in an hour to those that create
/// content ("Rate limits for the REST API", secondary limits), and blocks clients that ignore this.
const WRITE_INTERVAL: Duration = Duration::from_secs(8);

/// Spaces requests that write, by the generic cell rate algorithm. One for each client.
#[derive(Debug, Default)]
pub(crate) struct WritePace {
    /// Time at which the whole burst is available again.
    full_at: Mutex<Option<Instant>>,
}

impl WritePace {
    /// Reserves a request and returns the time until it may be sent. `Err` with that time, without a reservation, if it is
    /// longer than `patience`.
    pub(crate) fn reserve(&self, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        let mut full_at = self.full_at.lock();
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + WRITE_INTERVAL;
        let wait = next.saturating_duration_since(now + WRITE_INTERVAL * BURST);
        if wait > patience {
            return Err(wait);
        }
        *full_at = Some(next);
        Ok(wait)
    }
}

/// The rate limit in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// No limit was reached.
    None,
    /// The request was carried out, and was the last one for this time.
    Last(Duration),
    /// The request was not carried out; the next one is allowed after this time.
    Reached(Duration),
}

/// Reads the rate limit of a response. Its times are by GitHub's clock, so they are compared with its `Date`.
pub(crate) fn limit(response: &ApiResponse) -> Limit {
    let refused = matches!(
        response.status,
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    );
    let number = |name: &str| response.header(name)?.trim().parse::<u64>().ok();
    if refused && let Some(seconds) = number(header::RETRY_AFTER.as_str()) {
        return Limit::Reached(Duration::from_secs(seconds).min(MAX_WAIT));
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let now = clock::date(response).unwrap_or_else(Timestamp::now);
        let reset = number("x-ratelimit-reset").and_then(|at| i64::try_from(at).ok());
        let seconds = reset.map_or(0, |at| at.saturating_sub(now.as_second()));
        let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) + MARGIN;
        let wait = wait.min(MAX_WAIT);
        return if refused {
            Limit::Reached(wait)
        } else {
            Limit::Last(wait)
        };
    }
    // A missing permission is 403 too; only the documentation link distinguishes them.
    let about_limits = || {
        let page = response.documentation().unwrap_or_default();
        page.contains("rate-limit")
    };
    if response.status == StatusCode::TOO_MANY_REQUESTS || (refused && about_limits()) {
        return Limit::Reached(DEFAULT_WAIT);
    }
    Limit::None
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::body::Bytes;

    use super::*;

    fn response(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> ApiResponse {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        ApiResponse {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn limit_reads_githubs_documented_headers() {
        let seconds = Duration::from_secs;
        let date = ("date", "Thu, 01 Jan 1970 00:10:00 GMT");
        let used_up = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "690"),
            date,
        ];
        let left = [
            ("x-ratelimit-remaining", "12"),
            ("x-ratelimit-reset", "690"),
            date,
        ];
        let secondary = r#"{"message":"You have exceeded a secondary rate limit.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}"#;
        let forbidden = r#"{"message":"Resource not accessible by integration","documentation_url":"https://docs.github.com/rest/issues/comments"}"#;
        for (response, expected) in [
            (response(200, &left, ""), Limit::None),
            (response(200, &used_up, ""), Limit::Last(seconds(91))),
            (response(403, &used_up, ""), Limit::Reached(seconds(91))),
            (response(429, &used_up, ""), Limit::Reached(seconds(91))),
            (
                response(403, &[("retry-after", "30")], ""),
                Limit::Reached(seconds(30)),
            ),
            (
                response(429, &[("retry-after", "99999999")], ""),
                Limit::Reached(MAX_WAIT),
            ),
            (
                response(403, &left, secondary),
                Limit::Reached(DEFAULT_WAIT),
            ),
            (response(429, &[], ""), Limit::Reached(DEFAULT_WAIT)),
            (response(403, &left, forbidden), Limit::None),
            (response(404, &left, forbidden), Limit::None),
            // No wait for a reset in the past or a missing one.
            (
                response(
                    403,
                    &[
                        ("x-ratelimit-remaining", "0"),
                        ("x-ratelimit-reset", "5"),
                        date,
                    ],
                    "",
                ),
                Limit::Reached(MARGIN),
            ),
            (
                response(403, &[("x-ratelimit-remaining", "0")], ""),
                Limit::Reached(MARGIN),
            ),
        ] {
            assert_eq!(limit(&response), expected, "{response:?}");
        }
    }

    #[test]
    fn writes_are_spaced_after_a_burst() {
        let pace = WritePace::default();
        let start = Instant::now();
        let patience = Duration::from_secs(20);
        let minute = Duration::from_secs(60);
        // A client that always has more to write, for an hour.
        let (mut now, mut in_minute, mut in_hour) = (start, 0, 0);
        while now - start < 60 * minute {
            match pace.reserve(now, patience) {
                Ok(wait) => now += wait,
                Err(wait) => {
                    now += wait;
                    continue;
                }
            }
            in_hour += 1;
            in_minute += u32::from(now - start < minute);
        }
        assert!((BURST..=80).contains(&in_minute), "{in_minute}");
        assert!((400..=500).contains(&in_hour), "{in_hour}");
        let later = now + WRITE_INTERVAL * BURST;
        assert_eq!(pace.reserve(later, patience), Ok(Duration::ZERO));
    }

    #[test]
    fn rate_limit_is_not_shortened() {
        let limit = RateLimit::default();
        assert_eq!(limit.remaining(), None);
        limit.block(Duration::from_secs(600));
        limit.block(Duration::from_secs(1));
        assert!(limit.remaining().expect("blocked") > Duration::from_secs(500));
    }
}
