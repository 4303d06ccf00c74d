//! The texts of a machine's request: the code that people compare, and the machine's name.

use std::fmt;
use std::io;

use crate::access::key;

/// The letters of codes: no vowels, so that no word appears, and none that is taken for a digit (RFC 8628, section 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The number of letters: 20^8 codes.
const LENGTH: usize = 8;

/// A code that a person compares with the one on the machine, such as `BCDF-GHJK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserCode([u8; LENGTH]);

impl UserCode {
    /// Returns a random code.
    ///
    /// # Errors
    /// When the kernel returns no random bytes.
    pub(super) fn new() -> io::Result<Self> {
        let mut code = [0; LENGTH];
        let mut filled = 0;
        while filled < LENGTH {
            for byte in key::random()? {
                // Larger values would make some letters more frequent.
                if filled < LENGTH && byte < 240 {
                    code[filled] = LETTERS[usize::from(byte) % LETTERS.len()];
                    filled += 1;
                }
            }
        }
        Ok(Self(code))
    }

    /// Parses a code as a person types it: in any case, with or without separators.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_separator = |b: &u8| b" -".contains(b);
        let letters = text.bytes().filter(|b| !is_separator(b));
        let letters: Vec<u8> = letters.map(|b| b.to_ascii_uppercase()).collect();
        let is_code = text.len() <= 4 * LENGTH && letters.iter().all(|b| LETTERS.contains(b));
        let code = letters.try_into().ok()?;
        is_code.then_some(Self(code))
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in self.0.iter().enumerate() {
            let separator = if at == LENGTH / 2 { "-" } else { "" };
            write!(f, "{separator}{}", char::from(*letter))?;
        }
        Ok(())
    }
}

/// The name that a machine gives itself: 1 to 64 printable ASCII characters, without a space at either end. Other characters
/// could disguise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine(String);

impl Machine {
    /// Parses a name.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_valid = |b: u8| b.is_ascii_graphic() || b == b' ';
        let is_name =
            (1..=64).contains(&text.len()) && text.bytes().all(is_valid) && text.trim() == text;
        is_name.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_read_as_people_type_it() {
        let code = UserCode::new().expect("random bytes");
        let text = code.to_string();
        assert_eq!((text.len(), text.find('-')), (9, Some(4)), "{text}");
        for typed in [
            text.clone(),
            text.replace('-', ""),
            text.replace('-', " "),
            format!(" {} ", text.to_lowercase()),
        ] {
            assert_eq!(UserCode::parse(&typed), Some(code), "{typed:?}");
        }
        assert_ne!(UserCode::new().expect("random bytes"), code);
    }

    #[test]
    fn other_texts_are_no_codes() {
        let long = "B".repeat(1000);
        let separators = format!("BCDFGHJK{}", "-".repeat(1000));
        for text in [
            "",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "BCDF-GHJA",
            "BCDF-GHJ0",
            "BCDF_GHJK",
            "BCDF-GHJ\u{212a}",
            "BCDF\0GHJK",
            &long,
            &separators,
        ] {
            assert_eq!(UserCode::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn name_of_a_machine_cannot_disguise_itself() {
        let longest = "a".repeat(64);
        for good in ["laptop", "Kim's laptop (2)", "<b>x</b>", &longest] {
            assert_eq!(Machine::parse(good).expect(good).as_str(), good);
        }
        let long = "a".repeat(65);
        for bad in [
            "",
            " ",
            " a",
            "a ",
            "a\n",
            "a\tb",
            "a\0",
            "\u{1b}[2J",
            "\u{202e}a",
            "ä",
            &long,
        ] {
            assert_eq!(Machine::parse(bad), None, "{bad:?}");
        }
    }
}
