//! GitHub's clock and ours.

use std::sync::atomic::{AtomicI64, Ordering};

use hyper::header;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::call::Answer;

/// How far GitHub's clock is ahead of ours, in seconds. It is learnt when GitHub refuses what we signed:
/// a host whose clock is wrong by minutes could not sign in otherwise.
#[derive(Debug, Default)]
pub(crate) struct Skew(AtomicI64);

impl Skew {
    /// The time by GitHub's clock, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.0.load(Ordering::Relaxed)
    }

    /// Learns from an answer; says whether that changed more than a few seconds.
    pub(crate) fn learn(&self, answer: &Answer) -> bool {
        let Some(theirs) = date(answer) else {
            return false;
        };
        let skew = theirs.as_second() - Timestamp::now().as_second();
        let before = self.0.swap(skew, Ordering::Relaxed);
        (skew - before).abs() > 5
    }
}

/// When GitHub answered, by its own clock (the `Date` header).
pub(crate) fn date(answer: &Answer) -> Option<Timestamp> {
    let text = answer.header(header::DATE)?;
    DateTimeParser::new().parse_timestamp(text).ok()
}
