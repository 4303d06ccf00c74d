//! The difference between GitHub's clock and the host's.

use std::sync::atomic::{AtomicI64, Ordering};

use hyper::header;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::call::ApiResponse;

/// Seconds by which GitHub's clock is ahead of the host's. Measured when GitHub rejects a signature, because a host whose
/// clock is wrong by minutes could not sign in otherwise.
#[derive(Debug, Default)]
pub(crate) struct Skew(AtomicI64);

impl Skew {
    /// Returns the time by GitHub's clock, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.0.load(Ordering::Relaxed)
    }

    /// Measures the skew from a response. Reports whether it changed by more than a few seconds.
    pub(crate) fn update(&self, response: &ApiResponse) -> bool {
        let Some(theirs) = date(response) else {
            return false;
        };
        let skew = theirs.as_second() - Timestamp::now().as_second();
        let before = self.0.swap(skew, Ordering::Relaxed);
        (skew - before).abs() > 5
    }
}

/// Returns the time of a response, by GitHub's clock (the `Date` header).
pub(crate) fn date(response: &ApiResponse) -> Option<Timestamp> {
    let text = response.header(header::DATE)?;
    DateTimeParser::new().parse_timestamp(text).ok()
}
