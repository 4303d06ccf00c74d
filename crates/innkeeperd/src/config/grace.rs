//! A length of time as a setting: text with units such as `24h`, or a number of hours.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};

/// A length of time: `24h`, `90m`, `2d`, or a number of hours. Days have 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Grace(Duration);

/// The forms in the file.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "write a time such as \"24h\", or a number of hours"
)]
enum Written {
    Hours(u32),
    Text(String),
}

impl Grace {
    /// Returns a time of whole hours.
    pub(super) fn hours(hours: u32) -> Self {
        Self(Duration::from_secs(3_600 * u64::from(hours)))
    }

    /// Returns the time.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl TryFrom<Written> for Grace {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let text = match written {
            Written::Hours(hours) => return Ok(Self::hours(hours)),
            Written::Text(text) => text,
        };
        // Variables are text.
        if let Ok(hours) = text.parse() {
            return Ok(Self::hours(hours));
        }
        let span = text.parse::<Span>();
        let time = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
        let time = time.ok().and_then(|time| Duration::try_from(time).ok());
        time.map(Self).ok_or_else(|| {
            format!("'{text}' is not a time: write it with units, such as \"24h\" or \"90m\"")
        })
    }
}

impl From<Grace> for String {
    fn from(grace: Grace) -> Self {
        grace.to_string()
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(time) => write!(f, "{time:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        Grace::try_from(Written::Text(text.to_owned())).map(String::from)
    }

    #[test]
    fn grace_is_a_time_with_units_or_hours() {
        for (text, shown) in [
            ("24h", "24h"),
            ("24", "24h"),
            ("90m", "1h 30m"),
            ("2d", "48h"),
            ("0", "0s"),
            ("1h 30m", "1h 30m"),
        ] {
            let read = parse(text);
            assert_eq!(read.as_deref(), Ok(shown), "{text}");
            // The shown form is read again.
            assert_eq!(parse(shown), read, "{text}");
        }
        for text in ["", "soon", "-1h", "1 month", "24 parsecs", "-5"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("24h"), "{error}");
        }
        let hours = Grace::try_from(Written::Hours(36)).expect("valid");
        assert_eq!(hours.duration(), Duration::from_secs(36 * 3_600));
    }
}
