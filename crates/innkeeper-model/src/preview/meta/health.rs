//! The path at which an app reports its health.

use serde::{Deserialize, Serialize};

use crate::preview::InvalidText;
use crate::preview::checked::checked_text;

/// The target of a health check's request: a path, and optionally a query, such as `/health?full=1`.
///
/// It consists of visible ASCII characters without `#`, so that it is one word of an HTTP request line (RFC 9112,
/// section 3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HealthPath(String);

impl HealthPath {
    /// Maximum length, in characters.
    pub const MAX_LENGTH: usize = 200;

    /// Parses a path.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let refuse = |reason| {
            Err(InvalidText {
                what: "health path",
                text: text.to_owned(),
                reason,
            })
        };
        if !text.starts_with('/') {
            return refuse("it does not start with '/'");
        }
        if text.len() > Self::MAX_LENGTH {
            return refuse("it has more than 200 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return refuse("only visible ASCII characters except '#' are allowed");
        }
        Ok(Self(text.to_owned()))
    }
}

checked_text!(HealthPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_path_is_one_word_of_a_request_line() {
        for good in ["/", "/health", "/health?full=1&x=%20"] {
            assert_eq!(
                HealthPath::parse(good).map(|path| path.to_string()),
                Ok(good.to_owned())
            );
        }
        let long = format!("/{}", "a".repeat(200));
        for bad in [
            "",
            "health",
            "/a b",
            "/a\r\nHost: x",
            "/a#b",
            "/\u{e9}",
            long.as_str(),
        ] {
            assert!(HealthPath::parse(bad).is_err(), "{bad:?}");
        }
    }
}
