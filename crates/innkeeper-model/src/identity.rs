//! Whose an object on the host is, when several daemons work on one host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identity of a daemon: random, created with its database. Everything that the daemon makes on the host is marked
/// with it, so that no other daemon takes it for its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DaemonId(String);

/// A text that is not a daemon's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a daemon's identity: 32 digits of 0-9 and a-f")]
pub struct InvalidDaemonId(String);

impl DaemonId {
    /// How many characters it has.
    pub const LENGTH: usize = 32;

    /// Reads an identity.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, InvalidDaemonId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::LENGTH && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDaemonId(text.to_owned()))
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DaemonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for DaemonId {
    type Error = InvalidDaemonId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<DaemonId> for String {
    fn from(id: DaemonId) -> Self {
        id.0
    }
}

/// Whose an object on the host is, by its mark.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// This daemon's: it has its mark, or lies where only this daemon makes anything.
    #[default]
    Ours,
    /// No daemon's mark: made by an older release, or by something else.
    Unmarked,
    /// Another daemon's.
    Other,
}

impl Ownership {
    /// Whether it is [`Self::Ours`].
    #[must_use]
    pub fn is_ours(&self) -> bool {
        *self == Self::Ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_32_hexadecimal_digits() {
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(DaemonId::parse(text).expect("valid").as_str(), text);
        for wrong in [
            "",
            "0123",
            &text.to_uppercase(),
            &format!("{text}0"),
            &"g".repeat(32),
        ] {
            DaemonId::parse(wrong).expect_err(wrong);
        }
    }
}
