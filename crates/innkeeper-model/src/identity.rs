//! Ownership of objects on a host with several daemons.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identity of a daemon: random, created with its database. The daemon marks every object that it creates on the
/// host, so that no other daemon adopts it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DaemonId(String);

/// The text is not a daemon's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a daemon's identity: 32 digits of 0-9 and a-f")]
pub struct InvalidDaemonId(String);

impl DaemonId {
    /// Length in characters.
    pub const LENGTH: usize = 32;

    /// Parses an identity.
    ///
    /// # Errors
    /// [`InvalidDaemonId`].
    pub fn parse(text: &str) -> Result<Self, InvalidDaemonId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == Self::LENGTH && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidDaemonId(text.to_owned()))
        }
    }

    /// Returns the text.
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

/// The owner of an object on the host, by its mark.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// This daemon: the object has its mark, or is in a place that only this daemon uses.
    #[default]
    Ours,
    /// Unknown, for lack of a mark: created by an older release, or not by Innkeeper.
    Unmarked,
    /// Another daemon.
    Other,
}

impl Ownership {
    /// Reports whether it is [`Self::Ours`].
    #[must_use]
    pub fn is_ours(&self) -> bool {
        *self == Self::Ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daemon_id_is_32_hexadecimal_digits() {
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
