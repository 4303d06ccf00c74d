//! Tokens: their text, their names, and the file of digests for the gateway.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Secret;

/// The number of a token. It is never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct TokenId(pub i64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TokenId {
    type Err = InvalidToken;

    /// Parses a decimal number above 0, without sign and leading zeros.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or(InvalidToken)
    }
}

/// The name of a token, for people: 1 to 64 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenName(String);

/// A text that is not the name of a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a token has 1 to 64 letters, digits, '.', '_' and '-', and no '-' in front")]
pub struct InvalidTokenName;

impl TokenName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidTokenName`] for other characters, an empty or a long name.
    pub fn parse(text: &str) -> Result<Self, InvalidTokenName> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        let fits = (1..=64).contains(&text.len()) && !text.starts_with('-');
        if fits && text.bytes().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTokenName)
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TokenName {
    type Error = InvalidTokenName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<TokenName> for String {
    fn from(name: TokenName) -> Self {
        name.0
    }
}

/// A text that is not a token of `innkeeper token create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has the form ik_<number>_<43 characters>")]
pub struct InvalidToken;

/// A token as a client sends it: `ik_<id>_<secret>`. The secret is 32 random bytes in base64url without padding.
#[derive(Clone, Debug)]
pub struct TokenText {
    id: TokenId,
    text: Secret,
}

impl TokenText {
    /// The length of a secret's text.
    const SECRET_LENGTH: usize = 43;

    /// The maximum length of a token.
    pub const MAX_LENGTH: usize = 3 + 19 + 1 + Self::SECRET_LENGTH;

    /// Returns the token with this number and these random bytes.
    #[must_use]
    pub fn new(id: TokenId, secret: &[u8; 32]) -> Self {
        Self {
            id,
            text: Secret::new(format!("ik_{id}_{}", base64url(secret))),
        }
    }

    /// Parses a client's token. It may still be unknown, expired or revoked.
    ///
    /// # Errors
    /// [`InvalidToken`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix("ik_").ok_or(InvalidToken)?;
        let (id, secret) = rest.split_once('_').ok_or(InvalidToken)?;
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
        if secret.len() != Self::SECRET_LENGTH || !secret.bytes().all(valid) {
            return Err(InvalidToken);
        }
        Ok(Self {
            id: id.parse()?,
            text: Secret::new(text),
        })
    }

    /// Returns the token's number.
    #[must_use]
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// Returns the text, to show it once.
    #[must_use]
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// Returns the SHA-256 digest of the whole text. Compare it in constant time.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose()).into()
    }
}

/// The file [`TOKENS_FILE`](super::TOKENS_FILE): what the gateway needs to authenticate clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensFile {
    /// [`TokensFile::VERSION`].
    pub version: u32,
    /// The tokens that are not revoked, in ascending order of their numbers.
    pub tokens: Vec<PublishedToken>,
}

impl TokensFile {
    /// The version of the format.
    pub const VERSION: u32 = 1;
}

/// A token in [`TokensFile`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedToken {
    /// Its number.
    pub id: TokenId,
    /// Its name.
    pub name: TokenName,
    /// The SHA-256 digest of its text, in lower-case hexadecimal digits.
    pub sha256: String,
    /// The time from which it is invalid; `None` means never.
    pub expires: Option<Timestamp>,
}

/// Encodes bytes in base64url without padding (RFC 4648).
pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for i in 0..=group.len() {
            let index = (bits >> (18 - 6 * i)) & 63;
            let letter = usize::try_from(index)
                .ok()
                .and_then(|index| ALPHABET.get(index));
            text.extend(letter.copied().map(char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_has_one_text_form() {
        let token = TokenText::new(TokenId(7), &[0xff; 32]);
        let text = token.text().expose().to_owned();
        assert_eq!(text, format!("ik_7_{}8", "_".repeat(42)));
        let parsed = TokenText::parse(&text).expect("a token");
        assert_eq!(parsed.id(), TokenId(7));
        assert_eq!(parsed.digest(), token.digest());
        assert_ne!(
            parsed.digest(),
            TokenText::new(TokenId(8), &[0xff; 32]).digest()
        );
        let longest = TokenText::new(TokenId(i64::MAX), &[0; 32]);
        assert_eq!(longest.text().expose().len(), TokenText::MAX_LENGTH);
    }

    #[test]
    fn base64url_follows_the_rfc() {
        // RFC 4648, section 10, without the padding.
        let examples = [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
        ];
        for (plain, encoded) in examples {
            assert_eq!(base64url(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn garbage_is_no_token() {
        let secret = "A".repeat(43);
        for text in [
            String::new(),
            secret.clone(),
            format!("ik_{secret}"),
            format!("ik__{secret}"),
            format!("ik_07_{secret}"),
            format!("ik_0_{secret}"),
            format!("ik_-1_{secret}"),
            format!("ik_99999999999999999999_{secret}"),
            format!("ik_7_{secret}A"),
            format!("ik_7_{secret}\0"),
            format!("ik_7_\0{}", "A".repeat(42)),
            format!("ik_7_{}ä", "A".repeat(41)),
            format!(" ik_7_{secret}"),
            format!("IK_7_{secret}"),
        ] {
            assert_eq!(
                TokenText::parse(&text).err(),
                Some(InvalidToken),
                "{text:?}"
            );
        }
    }

    #[test]
    fn tokens_name_is_safe_to_print() {
        assert!(TokenName::parse("ci").is_ok() && TokenName::parse("a.b_c-1").is_ok());
        let long = "a".repeat(65);
        for text in [
            "",
            "-x",
            "a b",
            "a\n",
            "a\0",
            "ä",
            "a:b",
            "a,b",
            "a=b",
            long.as_str(),
        ] {
            assert_eq!(TokenName::parse(text), Err(InvalidTokenName), "{text:?}");
        }
    }
}
