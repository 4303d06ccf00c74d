//! Rate limits (GitHub, "Rate limits for the REST API" and "Best practices for using the REST API").

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::{StatusCode, header};
use jiff::Timestamp;

use super::call::Answer;
use super::clock;

/// How long to wait after a secondary limit that says nothing about it: "at least one minute".
const UNSAID: Duration = Duration::from_secs(60);
/// The longest that an answer can make us wait. Limits are by the hour; more would be a mistake.
const LONGEST: Duration = Duration::from_secs(2 * 3600);
/// Limits end at whole seconds, and clocks differ by fractions of them.
const MARGIN: Duration = Duration::from_secs(1);

/// Keeps requests back while GitHub wants none. One for each client: limits are per credential.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed_until: Mutex<Option<Instant>>,
}

impl Gate {
    /// How long requests have to wait; nothing when they need not.
    pub(crate) fn closed_for(&self) -> Option<Duration> {
        let until = *self.lock();
        until
            .map(|until| until.saturating_duration_since(Instant::now()))
            .filter(|wait| !wait.is_zero())
    }

    /// Closes the gate; a shorter wait never opens it earlier.
    pub(crate) fn close(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut closed_until = self.lock();
        *closed_until = Some(closed_until.map_or(until, |there| there.max(until)));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.closed_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer says about limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Nothing.
    None,
    /// It was carried out, and was the last one for this long.
    Last(Duration),
    /// It was not carried out; the next may come after this long.
    Reached(Duration),
}

/// Reads the limits in an answer. Times are GitHub's, so its `Date` is what they are compared with.
pub(crate) fn limit(answer: &Answer) -> Limit {
    let refused = matches!(
        answer.status,
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    );
    let number = |name: &str| answer.header(name)?.trim().parse::<u64>().ok();
    if refused && let Some(seconds) = number(header::RETRY_AFTER.as_str()) {
        return Limit::Reached(Duration::from_secs(seconds).min(LONGEST));
    }
    if number("x-ratelimit-remaining") == Some(0) {
        let now = clock::date(answer).unwrap_or_else(Timestamp::now);
        let reset = number("x-ratelimit-reset").and_then(|at| i64::try_from(at).ok());
        let seconds = reset.map_or(0, |at| at.saturating_sub(now.as_second()));
        let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) + MARGIN;
        let wait = wait.min(LONGEST);
        return if refused {
            Limit::Reached(wait)
        } else {
            Limit::Last(wait)
        };
    }
    // A missing permission is 403 as well; only the page that GitHub refers to tells them apart.
    let about_limits = || {
        let page = answer.documentation().unwrap_or_default();
        page.contains("rate-limit")
    };
    if answer.status == StatusCode::TOO_MANY_REQUESTS || (refused && about_limits()) {
        return Limit::Reached(UNSAID);
    }
    Limit::None
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::body::Bytes;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &'static str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a header"));
        }
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: map,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn limits_are_read_as_github_documents_them() {
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
        for (answer, expected) in [
            (answer(200, &left, ""), Limit::None),
            (answer(200, &used_up, ""), Limit::Last(seconds(91))),
            (answer(403, &used_up, ""), Limit::Reached(seconds(91))),
            (answer(429, &used_up, ""), Limit::Reached(seconds(91))),
            (
                answer(403, &[("retry-after", "30")], ""),
                Limit::Reached(seconds(30)),
            ),
            (
                answer(429, &[("retry-after", "99999999")], ""),
                Limit::Reached(LONGEST),
            ),
            (answer(403, &left, secondary), Limit::Reached(UNSAID)),
            (answer(429, &[], ""), Limit::Reached(UNSAID)),
            (answer(403, &left, forbidden), Limit::None),
            (answer(404, &left, forbidden), Limit::None),
            // A reset in the past, or none at all, does not make us wait.
            (
                answer(
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
                answer(403, &[("x-ratelimit-remaining", "0")], ""),
                Limit::Reached(MARGIN),
            ),
        ] {
            assert_eq!(limit(&answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn a_shorter_wait_does_not_open_the_gate() {
        let gate = Gate::default();
        assert_eq!(gate.closed_for(), None);
        gate.close(Duration::from_secs(600));
        gate.close(Duration::from_secs(1));
        assert!(gate.closed_for().expect("closed") > Duration::from_secs(500));
    }
}
