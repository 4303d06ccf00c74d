//! Guest names: DNS labels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Slot;

/// Begins the names of guests that wait at their doors without a name of their own.
const SEAT: &str = "0-door-";

/// The name of a guest: a DNS label of 1 to 63 characters out of `a-z`, `0-9` and `-`, which neither starts nor ends
/// with `-` (RFC 1123, section 2.1, in lower case).
///
/// The name appears in host names, unit names and paths. Interface names are derived from the slot instead, so the
/// kernel's limit of 15 characters does not apply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestName(String);

/// The text is not a [`GuestName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is empty.
    #[error("a guest name cannot be empty")]
    Empty,
    /// The text is longer than a DNS label.
    #[error("guest name '{name}' has {length} characters; at most {max} are allowed", max = GuestName::MAX_LENGTH)]
    TooLong {
        /// The text, as given.
        name: String,
        /// Its length in characters.
        length: usize,
    },
    /// A character that is not allowed in a DNS label.
    #[error("guest name '{name}' contains {character:?}; only a-z, 0-9 and '-' are allowed")]
    Character {
        /// The text, as given.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// A hyphen at the beginning or the end.
    #[error("guest name '{name}' starts or ends with '-'")]
    Hyphen {
        /// The text, as given.
        name: String,
    },
}

impl GuestName {
    /// Maximum length of a DNS label (RFC 1035, section 2.3.4).
    pub const MAX_LENGTH: usize = 63;

    /// The alphabet of generated names: no vowels, which could form words, and no characters that are easily
    /// confused.
    const ALPHABET: &[u8; 24] = b"bcdfghjkmnpqrstvwxz23456";

    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidName`] names the broken rule.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let name = || text.to_owned();
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if let Some(character) = text
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
        {
            return Err(InvalidName::Character {
                name: name(),
                character,
            });
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(InvalidName::TooLong {
                name: name(),
                length: text.len(),
            });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName::Hyphen { name: name() });
        }
        Ok(Self(name()))
    }

    /// Generates the name of an agent: `a-` and one character for each byte of `random`.
    #[must_use]
    pub fn generate(random: [u8; 6]) -> Self {
        let letters =
            random.map(|byte| char::from(Self::ALPHABET[usize::from(byte) % Self::ALPHABET.len()]));
        Self(format!("a-{}", String::from_iter(letters)))
    }

    /// Returns the name of the guest that waits at its door with this slot until another guest takes its place. Users' guests
    /// cannot have it: [`reservation`](crate::reserved::reservation).
    #[must_use]
    pub fn of_seat(slot: Slot) -> Self {
        Self::from_valid(format!("{SEAT}{slot}"))
    }

    /// Reports whether it is a name of [`Self::of_seat`].
    #[must_use]
    pub fn is_seat(&self) -> bool {
        let number = self.0.strip_prefix(SEAT);
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    }

    /// Creates a name from a text that is known to be valid.
    pub(crate) fn from_valid(text: String) -> Self {
        debug_assert!(Self::parse(&text).is_ok(), "'{text}' is not a guest name");
        Self(text)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for GuestName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<GuestName> for String {
    fn from(name: GuestName) -> Self {
        name.0
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn guest_name_is_a_dns_label() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert_eq!(GuestName::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Web",
            "a.b",
            "a_b",
            "ä",
            "a b",
            "../x",
            "a/b",
            &"x".repeat(64),
        ] {
            assert!(GuestName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn guest_name_errors_name_text_and_rule() {
        insta::assert_snapshot!(GuestName::parse("Web").unwrap_err(), @"guest name 'Web' contains 'W'; only a-z, 0-9 and '-' are allowed");
        insta::assert_snapshot!(GuestName::parse("a-").unwrap_err(), @"guest name 'a-' starts or ends with '-'");
    }

    proptest! {
        #[test]
        fn generated_guest_name_is_valid(random: [u8; 6]) {
            let name = GuestName::generate(random);
            prop_assert_eq!(GuestName::parse(name.as_str()), Ok(name.clone()));
            prop_assert_eq!(name.as_str().len(), 8);
        }

        #[test]
        fn guest_name_parses_without_change_or_panic(text in ".{0,80}") {
            if let Ok(name) = GuestName::parse(&text) {
                prop_assert_eq!(name.as_str(), text);
            }
        }
    }
}
