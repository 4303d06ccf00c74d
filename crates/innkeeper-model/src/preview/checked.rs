//! Newtypes over validated texts.

use crate::{Code, Explain};

/// The text is not valid for its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a valid {what}: {reason}", shown(.text))]
pub struct InvalidText {
    /// The type's name in messages, such as `branch name`.
    pub what: &'static str,
    /// The text, as given.
    pub text: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl Explain for InvalidText {
    fn code(&self) -> Code {
        Code::InvalidRequest
    }
}

/// Returns an untrusted text for a message: control characters escaped, at most one line long.
pub(super) fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(MAX)
        .flat_map(char::escape_debug)
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Implements the usual conversions for a newtype over `String` with a function `parse`. The type derives serde
/// with `try_from = "String", into = "String"`, so that deserialization validates too.
macro_rules! checked_text {
    ($name:ident) => {
        impl $name {
            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::preview::InvalidText;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::preview::InvalidText;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(checked: $name) -> Self {
                checked.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
pub(super) use checked_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_fits_on_a_line() {
        assert_eq!(shown("a\u{1b}[31m\n"), r"a\u{1b}[31m\n");
        assert_eq!(shown(&"x".repeat(81)), format!("{}…", "x".repeat(80)));
    }
}
